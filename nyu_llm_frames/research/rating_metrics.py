"""Compare two columns of numbers: bias, errors, correlations, concordance, ICC.

Comes in: numbers and weights. Goes out: sums that a resample redraws, and statistics of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nyu_llm_frames.research.confusion_metrics import _ratio
from nyu_llm_frames.research.krippendorff_alpha import intraclass
from nyu_llm_frames.research.resampling import Sample, drawn_counts

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

MOST_RANKED = 2_000
"""Distinct rows up to which each resample is ranked again."""


def moments(truth: Floats, answers: Floats, weight: Floats) -> Floats:
    """Return what each row adds to the sums that `rating_metrics` reads, and its ranks; n x 9."""
    middle = float(np.mean(np.sort(truth))) if len(truth) else 0.0
    x, y = truth - middle, answers - middle
    parts = [np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(y - x)]
    parts += [dense_ranks(truth), dense_ranks(answers)]
    return np.column_stack(parts) * weight[:, None]


def rating_metrics(sums: Floats) -> dict[str, Floats]:
    """
    Return the statistics of sums, (..., 9).

    Source of CCC: Lin 1989, Biometrics 45, 255-268. Of ICC(2,1): Shrout & Fleiss 1979.
    """
    n = sums[..., 0]
    x, y, xx, yy, xy, apart = (_ratio(sums[..., i], n) for i in range(1, 7))
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
        "Pearson": _ratio(shared, np.sqrt(var_x * var_y)),
        "CCC": _ratio(2 * shared, var_x + var_y + (x - y) ** 2),
        "ICC(2,1)": intraclass(rows, columns, total, n, 2)[1],
    }


def _middle_ranks(codes: Ints, weight: Floats) -> Floats:
    """Return the share of weight below each row plus half of that equal to it; (..., n)."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    each = np.add.reduceat(weight[..., order], starts, axis=-1)
    total = each.sum(-1, keepdims=True)
    ranks: Floats = ((np.cumsum(each, axis=-1) - each / 2) / total)[..., codes]
    return ranks


def dense_ranks(values: Floats) -> Ints:
    """Return the rank of each value, from 0, equal ones with the same."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def spearman(x: Ints, y: Ints, weight: Floats) -> Floats:
    """Return the correlation of (weighted) middle ranks; x, y are dense ranks from 0."""
    a, b = _middle_ranks(x, weight) - 0.5, _middle_ranks(y, weight) - 0.5
    return _ratio(
        (weight * a * b).sum(-1),
        np.sqrt((weight * a * a).sum(-1) * (weight * b * b).sum(-1)),
    )


def _above(codes: Ints, weight: Floats, other: Floats) -> Floats:
    """Return for each row the mean of `other` over the rows above it, half of those beside it."""
    each = np.bincount(codes, weight * other)
    above = np.cumsum(each[::-1])[::-1] - each / 2
    return np.asarray(above[codes] / weight.sum())


def spearman_influence(x: Ints, y: Ints, weight: Floats) -> Floats:
    """Return the influence of each row on Spearman's correlation, through its rank too."""
    a, b = _middle_ranks(x, weight) - 0.5, _middle_ranks(y, weight) - 0.5
    share = weight / weight.sum()
    s_ab, s_aa, s_bb = (float((share * u * v).sum()) for u, v in ((a, b), (a, a), (b, b)))
    i_ab = a * b + _above(x, weight, b) + _above(y, weight, a) - 3 * s_ab
    i_aa = a * a + 2 * _above(x, weight, a) - 3 * s_aa
    i_bb = b * b + 2 * _above(y, weight, b) - 3 * s_bb
    root = np.sqrt(s_aa * s_bb)
    out: Floats = i_ab / root - s_ab / root / 2 * (i_aa / s_aa + i_bb / s_bb)
    return out


def spearman_resampled(sample: Sample, resamples: int, seed: int) -> Floats:
    """Return Spearman's correlation in each resample of `moments`, ranked again."""
    values = sample.dense
    x, y = (np.rint(values[:, i] / values[:, 0]).astype(np.int64) for i in (7, 8))
    parts = [
        spearman(x, y, drawn * values[:, 0]) for drawn in drawn_counts(sample, resamples, seed)
    ]
    return np.concatenate(parts)
