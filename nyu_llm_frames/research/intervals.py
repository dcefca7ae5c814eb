"""Intervals and exact tests: Wilson's, percentiles of resamples, McNemar's, Holm's.

Comes in: counts, or resampled values. Goes out: bounds and p values.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


def critical_value(level: float) -> float:
    """Return the normal quantile of a two-sided interval: 1.96 for .95."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(right: Any, n: Any, level: float = 0.95) -> tuple[Floats, Floats]:
    """
    Return Wilson's score interval of proportions; NaN where n is 0.

    Source: Wilson 1927; method 3 of Newcombe 1998, Statistics in Medicine 17, 857-872.

    Examples
    --------
    >>> low, high = wilson(81, 263)
    >>> f"{low:.4f} {high:.4f}"
    '0.2553 0.3662'
    """
    n = np.asarray(n, dtype=np.float64)
    z = critical_value(level)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.asarray(right, dtype=np.float64) / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return np.where(p == 0, 0.0, low), np.where(p == 1, 1.0, high)


def percentiles(values: Floats, level: float = 0.95) -> tuple[float, float, int]:
    """Return the percentile interval of resampled values, and how many were NaN and left out."""
    good = values[~np.isnan(values)]
    if not len(good):
        return math.nan, math.nan, len(values)
    low, high = np.quantile(good, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high), len(values) - len(good)


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """
    Return the exact p value of McNemar's test and the squared z.

    Exact: twice the smaller binomial tail of the discordant pairs. Source: Agresti, Categorical
    Data Analysis, 2nd ed., 10.1.

    Examples
    --------
    >>> p, z2 = mcnemar(86, 150)
    >>> f"{p:.4e} {z2:.4f}"
    '3.7159e-05 17.3559'
    """
    n, least = only_a + only_b, min(only_a, only_b)
    if not n:
        return 1.0, 0.0
    steps = np.log(np.arange(1, n + 1, dtype=np.float64))
    factorial = np.concatenate([[0.0], np.cumsum(steps)])
    k = np.arange(least + 1)
    log_tail = factorial[n] - factorial[k] - factorial[n - k] - n * math.log(2)
    tail = float(np.exp(log_tail).sum())
    return min(1.0, 2 * tail), (only_a - only_b) ** 2 / n


def holm(p: Floats) -> Floats:
    """Return p values adjusted for all of them. Source: Holm 1979, Scand. J. Statist. 6, 65-70."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(scaled, 1.0)
    return out
