"""Compute Krippendorff's alpha, Gwet's AC1 for several coders, and intraclass correlation.

Comes in: coincidences of values, counts of classes per unit, or ratings. Goes out: coefficients;
NaN where nothing varies.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from nyu_llm_frames.research.confusion_metrics import _ratio

Floats = np.ndarray[Any, np.dtype[np.float64]]
Level = Literal["nominal", "ordinal", "interval", "ratio"]


def coincidences(counts: Floats) -> Floats:
    """
    Return how often two values occur together, for each unit.

    Parameters
    ----------
    counts : numpy.ndarray
        How many coders gave each of K values; (..., K). A unit with one value pairs nothing.

    Returns
    -------
    numpy.ndarray
        (..., K, K); their sum is the number of values that can be paired.
    """
    values = counts.sum(-1)
    pairs = counts[..., :, None] * counts[..., None, :]
    k = np.arange(counts.shape[-1])
    pairs[..., k, k] -= counts
    pairs /= np.maximum(values - 1, 1)[..., None, None]
    return pairs


def distances(level: Level, margins: Floats, values: Floats | None = None) -> Floats:
    """
    Return the squared difference of each two values, (..., K, K).

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section 5.

    Parameters
    ----------
    margins : numpy.ndarray
        How often each value is in a pair, (..., K); the ordinal metric rests on it.
    values : numpy.ndarray, optional
        The values themselves, for "interval" and "ratio".
    """
    k = margins.shape[-1]
    if level == "ordinal":
        below = np.cumsum(margins, axis=-1) - margins / 2
        return (below[..., :, None] - below[..., None, :]) ** 2
    if level == "nominal":
        return 1 - np.eye(k)
    given = np.arange(k, dtype=np.float64) if values is None else values
    apart = (given[:, None] - given) ** 2
    if level == "interval":
        return apart
    both = (given[:, None] + given) ** 2
    return np.divide(apart, both, out=np.zeros_like(apart), where=both != 0)


def alpha(pairs: Floats, level: Level, values: Floats | None = None) -> Floats:
    """
    Return Krippendorff's alpha of coincidences (..., K, K).

    1 - (n - 1) * observed / expected disagreement, over n values that can be paired. Source:
    Krippendorff 2011.
    """
    margins = pairs.sum(-1)
    n = margins.sum(-1)
    metric = distances(level, margins, values)
    observed = (pairs * metric).sum((-1, -2))
    if metric.ndim == 2:
        expected = np.einsum("...i,ij,...j->...", margins, metric, margins, optimize=True)
    else:
        expected = (margins[..., :, None] * margins[..., None, :] * metric).sum((-1, -2))
    return 1 - _ratio((n - 1) * observed, expected)


def alpha_of_two(table: Floats, level: Level, values: Floats | None = None) -> Floats:
    """Return alpha of a table of two coders, (..., K, K)."""
    return alpha(table + np.swapaxes(table, -1, -2), level, values)


def agreement_ac1(pairs_agreed: Floats, shares: Floats, classes: int) -> Floats:
    """
    Return Gwet's AC1 of several coders with gaps.

    Source: Gwet 2014, Handbook of Inter-Rater Reliability, 4th ed., 4.3.

    Parameters
    ----------
    pairs_agreed : numpy.ndarray
        Mean share of agreeing pairs over the units with two values or more.
    shares : numpy.ndarray
        Mean share of each class over the units with a value, (..., K).
    classes : int
        Number of classes.
    """
    if classes < 2:
        return np.where(np.isnan(pairs_agreed), np.nan, 1.0)
    by_chance = (shares * (1 - shares)).sum(-1) / (classes - 1)
    return _ratio(pairs_agreed - by_chance, 1 - by_chance)


def intraclass(rows: Any, columns: Any, total: Any, n: Any, k: int) -> tuple[Any, Any, Any]:
    """
    Return ICC(1,1), ICC(2,1) and ICC(3,1) from sums of squares.

    Source: Shrout & Fleiss 1979, Psychological Bulletin 86, 420-428.

    Parameters
    ----------
    rows, columns, total : numpy.ndarray
        Sums of squares between units, between coders, and in all.
    n : numpy.ndarray
        Units.
    k : int
        Coders.
    """
    between = _ratio(rows, n - 1)
    within = _ratio(total - rows, n * (k - 1))
    coders = np.asarray(columns) / (k - 1)
    error = _ratio(total - rows - columns, (n - 1) * (k - 1))
    return (
        _ratio(between - within, between + (k - 1) * within),
        _ratio(between - error, between + (k - 1) * error + k * _ratio(coders - error, n)),
        _ratio(between - error, between + (k - 1) * error),
    )


def sums_of_squares(ratings: Floats) -> tuple[float, float, float]:
    """Return the sums of squares between rows, between columns, and in all; n x k, no gaps."""
    mean = ratings.mean()
    n, k = ratings.shape
    return (
        float(k * ((ratings.mean(1) - mean) ** 2).sum()),
        float(n * ((ratings.mean(0) - mean) ** 2).sum()),
        float(((ratings - mean) ** 2).sum()),
    )
