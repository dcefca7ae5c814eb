"""Compute statistics with their intervals: Wilson's, or percentiles of resamples.

Wilson's interval for proportions of rows with one weight, since the bootstrap of 20 correct out of
20 gives [1, 1]; the percentile bootstrap within strata for all others.

Comes in: counts, or a sample. Goes out: a `Row` for each statistic, and their table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.allowed import whole_number
from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.research.arithmetic import Floats
from nyu_llm_frames.research.resampling import Sample, Statistics, distributions

FEW = 10
"""With fewer coded cases, the statistics of a class are unreliable."""


def check_level(level: object) -> None:
    """Refuse a level that is no share."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ConfigurationError(f"level must be between 0 and 1, as .95, not {level!r}.")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        whole_number("resamples", self.resamples, 1)
        whole_number("seed", self.seed, 0)
        check_level(self.level)


@dataclass(frozen=True, slots=True)
class Row:
    """A statistic with its interval."""

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    n: int = 0
    note: str = ""

    def noted(self, note: str) -> Row:
        """Return the row with one more note."""
        return replace(self, note="; ".join(part for part in (self.note, note) if part))


@dataclass(frozen=True, slots=True)
class Scores:
    """The statistics of one column of answers; numbers have no classes."""

    metrics: Mapping[str, Row]
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)
    confusion: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: Sequence[str] = ()


def metric_frame(rows: Mapping[str, Row]) -> pd.DataFrame:
    """Return statistics as a table, with the dtypes that it always has."""
    out = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="metric"))
    return out.astype({"estimate": float, "low": float, "high": float, "n": "int64"})


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


def wilson_row(right: Any, n: Any, level: float) -> Row:
    """Return a proportion with Wilson's interval."""
    if not n:
        return Row()
    low, high = wilson(right, n, level)
    return Row(float(right / n), float(low), float(high), "Wilson", int(n))


def percentile_row(
    estimate: float, drawn: Floats, n: int, level: float, method: str = "bootstrap"
) -> Row:
    """Return a statistic with the percentile interval of its resamples that have a value."""
    if np.isnan(estimate):
        return Row(n=n)
    good = drawn[~np.isnan(drawn)]
    low, high = math.nan, math.nan
    if len(good):
        low, high = map(float, np.quantile(good, [0.5 - level / 2, 0.5 + level / 2]))
    left = len(drawn) - len(good)
    note = f"{left:,} of {len(drawn):,} resamples have no value and are left out" if left else ""
    return Row(estimate, low, high, method, n, note)


def bootstrap_rows(
    sample: Sample, statistics: Statistics, n: int, draw: Bootstrap
) -> dict[Any, Row]:
    """Return each statistic of n rows with its percentile interval."""
    drawn = distributions(sample, statistics, draw.resamples, draw.seed)
    method = "normal limit" if sample.normal else "bootstrap"
    return {
        name: percentile_row(float(values[0]), drawn[name], n, draw.level, method)
        for name, values in statistics(sample.sums()[None]).items()
    }
