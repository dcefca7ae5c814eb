"""Compute agreement of several columns from sums over rows.

Rows with the same values are one pattern. Comes in: patterns of classes (-1 is a gap) and how
often each occurs. Goes out: a `Sample` and the function that reads its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from nyu_llm_frames.research.confusion_metrics import _ratio
from nyu_llm_frames.research.krippendorff_alpha import agreement_ac1, alpha, intraclass
from nyu_llm_frames.research.resampling import Sample

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Statistic: TypeAlias = Callable[[Floats], Mapping[str, Floats]]
Distance: TypeAlias = Callable[[slice], Floats]
"""Squared differences between a block of distinct values and all of them."""

_BLOCK = 1_000


def _sample(times: Ints, size: int, entries: list[tuple[Any, Any, Any]]) -> Sample:
    """Make a sample of entries (pattern, cell, value)."""
    pattern, cell, value = (
        np.concatenate([np.asarray(part[i]).ravel() for part in entries]) for i in range(3)
    )
    order = np.argsort(cell, kind="stable")
    return Sample(
        pattern[order].astype(np.int64),
        cell[order].astype(np.int64),
        value[order].astype(np.float64),
        times,
        np.zeros(len(times), dtype=np.int64),
        size,
    )


def _columns(values: Floats) -> list[tuple[Any, Any, Any]]:
    """Return every number of a matrix, patterns x cells, as an entry."""
    m, q = values.shape
    return [(np.repeat(np.arange(m), q), np.tile(np.arange(q), m), values)]


def _shared(patterns: Ints) -> tuple[Floats, Floats, Floats]:
    """Return values per pattern, 1 where there are two or more, and the share of equal pairs."""
    known = patterns >= 0
    values = known.sum(1).astype(np.float64)
    equal = np.zeros(len(patterns))
    k = patterns.shape[1]
    for i in range(k):
        for j in range(k):
            if i != j:
                equal += known[:, i] & (patterns[:, i] == patterns[:, j])
    paired = (values >= 2).astype(np.float64)
    return values, paired, equal / np.maximum(values * (values - 1), 1)


def of_equality(patterns: Ints, times: Ints) -> tuple[Sample, Statistic]:
    """Pairwise agreement: the mean share of equal pairs."""
    _, paired, equal = _shared(patterns)

    def read(sums: Floats) -> dict[str, Floats]:
        return {"agreement": _ratio(sums[..., 1], sums[..., 0])}

    return _sample(times, 2, _columns(np.column_stack([paired, equal]))), read


def of_classes(patterns: Ints, times: Ints, k: int, *, ordinal: bool) -> tuple[Sample, Statistic]:
    """Pairwise agreement, alpha, AC1, and kappa where there are two columns."""
    values, paired, equal = _shared(patterns)
    row, coder = np.nonzero(patterns >= 0)
    its = patterns[row, coder]
    head, two = 4, patterns.shape[1] == 2
    numbers = np.column_stack([paired, equal, values > 0, values * equal])
    entries = _columns(numbers)
    entries.append((row, head + its, 1 / values[row]))  # the shares of classes, for AC1
    entries.append((row, head + k + its, paired[row]))  # how often each is in a pair
    at = head + 2 * k
    if two:
        whole = paired[row] > 0
        entries.append((row[whole], at + coder[whole] * k + its[whole], np.ones(int(whole.sum()))))
        at += 2 * k
    if ordinal:
        for i in range(patterns.shape[1]):
            for j in range(patterns.shape[1]):
                a, b = patterns[:, i], patterns[:, j]
                here = np.flatnonzero((a >= 0) & (b >= 0)) if i != j else np.zeros(0, np.int64)
                entries.append((here, at + a[here] * k + b[here], 1 / (values[here] - 1)))
    size = at + (k * k if ordinal else 0)

    def read(sums: Floats) -> dict[str, Floats]:
        agreed = _ratio(sums[..., 1], sums[..., 0])
        shares = _ratio(sums[..., head : head + k], sums[..., 2][..., None])
        margins = sums[..., head + k : head + 2 * k]
        out = {"agreement": agreed}
        if ordinal:
            pairs = sums[..., at:].reshape(*sums.shape[:-1], k, k)
            out["alpha"] = alpha(pairs, "ordinal")
        else:  # observed: values that differ from others of their row
            n = margins.sum(-1)
            expected = n * n - (margins**2).sum(-1)
            out["alpha"] = 1 - _ratio((n - 1) * (n - sums[..., 3]), expected)
        out["AC1"] = agreement_ac1(agreed, shares, k)
        if two:
            first, second = (sums[..., head + (2 + i) * k : head + (3 + i) * k] for i in range(2))
            chance = _ratio((first * second).sum(-1), sums[..., 0] ** 2)
            out["kappa"] = _ratio(agreed - chance, 1 - chance)
        return out

    return _sample(times, size, entries), read


def of_numbers(patterns: Ints, times: Ints, numbers: Floats) -> tuple[Sample, Statistic]:
    """Alpha at the interval level, and ICC(2,1) of the rows without a gap."""
    known = patterns >= 0
    k = patterns.shape[1]
    middle = float(numbers.mean())
    v = np.where(known, numbers[patterns] - middle, 0.0)
    count = known.sum(1)
    paired, whole = count >= 2, (count == k).astype(np.float64)
    within = 2 * (count * (v**2).sum(1) - v.sum(1) ** 2) / np.maximum(count - 1, 1)
    parts = [count * paired, v.sum(1) * paired, (v**2).sum(1) * paired, within * paired]
    parts += [whole, v.sum(1) ** 2 * whole, (v**2).sum(1) * whole]
    columns = np.column_stack([*parts, v * whole[:, None]])

    def read(sums: Floats) -> dict[str, Floats]:
        n, total, squares, apart, m, of_rows, of_all = (sums[..., i] for i in range(7))
        expected = 2 * (n * squares - total**2)
        expected = np.where(expected <= 1e-12 * np.abs(n * squares), 0, expected)
        by_coder = sums[..., 7:]
        corrected = _ratio(by_coder.sum(-1) ** 2, m * k)
        icc = intraclass(
            of_rows / k - corrected,
            _ratio((by_coder**2).sum(-1), m) - corrected,
            of_all - corrected,
            m,
            k,
        )[1]
        return {"alpha": 1 - _ratio((n - 1) * apart, expected), "ICC(2,1)": icc}

    return _sample(times, columns.shape[1], _columns(columns)), read


def ratio_distance(numbers: Floats) -> Distance:
    """Return the squared difference of the ratio level: ((a - b) / (a + b)) ** 2."""

    def distance(block: slice) -> Floats:
        a = numbers[block, None]
        return _zero(_ratio(a - numbers, a + numbers)) ** 2

    return distance


def jaccard_distance(held: Floats) -> Distance:
    """Return 1 - shared / labels of either; two empty sets are equal."""
    size = held.sum(1)

    def distance(block: slice) -> Floats:
        shared = held[block] @ held.T
        either = size[block, None] + size - shared
        return np.where(either > 0, 1 - shared / np.maximum(either, 1), 0.0)

    return distance


def _zero(values: Floats) -> Floats:
    return np.where(np.isnan(values), 0.0, values)


def of_distances(
    patterns: Ints, times: Ints, k: int, distance: Distance
) -> tuple[Sample, Statistic]:
    """Alpha of any distance; in resamples the expected disagreement is taken to first order."""
    known = patterns >= 0
    values = known.sum(1)
    paired = values >= 2
    margins = np.zeros(k)
    row, coder = np.nonzero(known & paired[:, None])
    np.add.at(margins, patterns[row, coder], times[row])
    far = np.empty(k)
    apart = np.zeros(len(patterns))
    columns = patterns.shape[1]
    for start in range(0, k, _BLOCK):
        block = slice(start, start + _BLOCK)
        metric = distance(block)
        far[block] = metric @ margins / max(margins.sum() - 1, 1)
        for i in range(columns):
            a = patterns[:, i]
            inside = (a >= start) & (a < start + len(metric))
            for j in range(columns):
                here = np.flatnonzero(inside & known[:, j] & paired) if i != j else row[:0]
                apart[here] += metric[a[here] - start, patterns[here, j]] / (values[here] - 1)
    expected = float(margins @ far / margins.sum())
    spread = np.where(known, far[patterns], 0).sum(1) * paired
    columns_ = np.column_stack([values * paired, apart, spread])

    def read(sums: Floats) -> dict[str, Floats]:
        n = sums[..., 0]
        return {
            "alpha": 1 - _ratio(_ratio(sums[..., 1], n), 2 * _ratio(sums[..., 2], n) - expected)
        }

    return _sample(times, 3, _columns(columns_)), read
