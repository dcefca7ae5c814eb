"""Score numbers against numbers: bias, errors, correlations, concordance, ICC.

Comes in: numbers of two sides. Goes out: `Scores`.
"""

from __future__ import annotations

import math

import numpy as np

from nyu_llm_frames.research.agreement_statistics import intraclass
from nyu_llm_frames.research.arithmetic import Floats, Ints, ratio
from nyu_llm_frames.research.intervals import (
    Bootstrap,
    Row,
    Scores,
    bootstrap_rows,
    critical_value,
    percentile_row,
)
from nyu_llm_frames.research.resampling import Rows, Sample, drawn_counts, of_rows

RATING_METRICS = ("bias", "MAE", "RMSE", "Pearson", "Spearman", "CCC", "ICC(2,1)")
MOST_RANKED = 2_000
"""Distinct rows up to which each resample is ranked again."""


def score_ratings(truth: Floats, answers: Floats, rows: Rows, draw: Bootstrap) -> Scores:
    """Score numbers against numbers, none missing."""
    sample = of_rows(moments(truth, answers, rows.weight), rows)
    found = bootstrap_rows(sample, rating_metrics, len(truth), draw)
    found["Spearman"] = _spearman_row(sample, truth, answers, rows, draw)
    metrics = {
        name: found[name].noted("one side does not vary" if np.isnan(found[name].estimate) else "")
        for name in RATING_METRICS
    }
    weighted = ["weighted by 1/pi: of all rows, not of the coded ones"] if rows.weighted else []
    return Scores(metrics, notes=weighted)


def moments(truth: Floats, answers: Floats, weight: Floats) -> Floats:
    """Return what each row adds to the sums that `rating_metrics` reads, and its ranks; n x 9."""
    middle = float(np.mean(np.sort(truth)))
    x, y = truth - middle, answers - middle
    parts = [np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(y - x)]
    parts += [_dense_ranks(truth), _dense_ranks(answers)]
    return np.column_stack(parts) * weight[:, None]


def rating_metrics(sums: Floats) -> dict[str, Floats]:
    """
    Return the statistics of sums, (..., 9).

    Source of CCC: Lin 1989, Biometrics 45, 255-268. Of ICC(2,1): Shrout & Fleiss 1979.
    """
    n = sums[..., 0]
    x, y, xx, yy, xy, apart = (ratio(sums[..., i], n) for i in range(1, 7))
    var_x, var_y, shared = xx - x * x, yy - y * y, xy - x * y
    tiny = 1e-13
    var_x = np.where(var_x <= tiny * np.abs(xx), 0, var_x)
    var_y = np.where(var_y <= tiny * np.abs(yy), 0, var_y)
    mean = (x + y) / 2
    rows = 2 * n * ((xx + 2 * xy + yy) / 4 - mean * mean)
    columns = n * ((x - mean) ** 2 + (y - mean) ** 2)
    total = n * (xx + yy - 2 * mean * mean)
    return {
        "bias": y - x,
        "MAE": apart,
        "RMSE": np.sqrt(np.maximum(xx + yy - 2 * xy, 0)),
        "Pearson": ratio(shared, np.sqrt(var_x * var_y)),
        "CCC": ratio(2 * shared, var_x + var_y + (x - y) ** 2),
        "ICC(2,1)": intraclass(rows, columns, total, n, 2)[1],
    }


# --- Spearman's correlation -------------------------------------------------------------------
def _spearman_row(sample: Sample, x: Floats, y: Floats, rows: Rows, draw: Bootstrap) -> Row:
    """Rank each resample again, or where that takes long use the influence of each row."""
    a, b = _dense_ranks(x), _dense_ranks(y)
    weight, strata = rows.weight, rows.strata
    estimate = float(_spearman(a, b, weight))
    n = len(x)
    if np.isnan(estimate):
        return Row(n=n)
    if rows.units is None and len(sample.counts) <= MOST_RANKED:
        drawn = _spearman_resampled(sample, draw.resamples, draw.seed)
        return percentile_row(estimate, drawn, n, draw.level)
    moved = weight * _spearman_influence(a, b, weight) / weight.sum()
    if rows.units is not None:
        _, first, unit = np.unique(rows.units, return_index=True, return_inverse=True)
        moved, strata = np.bincount(unit, moved), strata[first]
    inside = [moved[strata == h] for h in np.unique(strata)]
    variance = sum(float(((v - v.mean()) ** 2).sum()) for v in inside)
    half = critical_value(draw.level) * math.sqrt(variance) / max(1 - estimate**2, 1e-12)
    z = math.atanh(min(max(estimate, -1 + 1e-15), 1 - 1e-15))
    return Row(estimate, math.tanh(z - half), math.tanh(z + half), "normal, Fisher's z", n)


def _dense_ranks(values: Floats) -> Ints:
    """Return the rank of each value, from 0, equal ones with the same."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _middle_ranks(codes: Ints, weight: Floats) -> Floats:
    """Return the share of weight below each row, half of its equals included, less 1/2."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    each = np.add.reduceat(weight[..., order], starts, axis=-1)
    total = each.sum(-1, keepdims=True)
    ranks: Floats = ((np.cumsum(each, axis=-1) - each / 2) / total)[..., codes]
    return ranks - 0.5


def _spearman(x: Ints, y: Ints, weight: Floats) -> Floats:
    """Return the correlation of (weighted) middle ranks of dense ranks."""
    a, b = _middle_ranks(x, weight), _middle_ranks(y, weight)
    return ratio(
        (weight * a * b).sum(-1),
        np.sqrt((weight * a * a).sum(-1) * (weight * b * b).sum(-1)),
    )


def _spearman_resampled(sample: Sample, resamples: int, seed: int) -> Floats:
    """Return Spearman's correlation in each resample of `moments`, ranked again."""
    values = sample.dense
    x, y = (np.rint(values[:, i] / values[:, 0]).astype(np.int64) for i in (7, 8))
    parts = [
        _spearman(x, y, drawn * values[:, 0]) for drawn in drawn_counts(sample, resamples, seed)
    ]
    return np.concatenate(parts)


def _spearman_influence(x: Ints, y: Ints, weight: Floats) -> Floats:
    """Return the influence of each row on Spearman's correlation, through its rank too."""
    a, b = _middle_ranks(x, weight), _middle_ranks(y, weight)
    share = weight / weight.sum()
    s_ab, s_aa, s_bb = (float((share * u * v).sum()) for u, v in ((a, b), (a, a), (b, b)))
    i_ab = a * b + _above(x, weight, b) + _above(y, weight, a) - 3 * s_ab
    i_aa = a * a + 2 * _above(x, weight, a) - 3 * s_aa
    i_bb = b * b + 2 * _above(y, weight, b) - 3 * s_bb
    root = np.sqrt(s_aa * s_bb)
    out: Floats = i_ab / root - s_ab / root / 2 * (i_aa / s_aa + i_bb / s_bb)
    return out


def _above(codes: Ints, weight: Floats, other: Floats) -> Floats:
    """Return for each row the mean of `other` over the rows above it, half of those beside it."""
    each = np.bincount(codes, weight * other)
    above = np.cumsum(each[::-1])[::-1] - each / 2
    return np.asarray(above[codes] / weight.sum())
