"""Compute agreement of several columns from sums over rows: alpha, AC1, kappa, ICC.

Rows with the same values are one pattern. Comes in: patterns of classes (-1 is a gap) and how
often each occurs. Goes out: a `Sample` and the function that reads its sums. Where nothing varies,
a coefficient is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any, TypeAlias

import numpy as np

from nyu_llm_frames.research.arithmetic import Floats, Ints, ratio
from nyu_llm_frames.research.resampling import Sample, Statistics, of_entries, of_matrix

Distance: TypeAlias = Callable[[slice], Floats]
"""Squared differences between a block of distinct values and all of them."""

_BLOCK = 1_000


# --- coefficients -----------------------------------------------------------------------------
def alpha(pairs: Floats, *, ordinal: bool) -> Floats:
    """
    Return Krippendorff's alpha from how often two values occur together, (..., K, K).

    1 - (n - 1) * observed / expected disagreement, over n values that can be paired. Source:
    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section 5.
    """
    margins = pairs.sum(-1)
    n = margins.sum(-1)
    if ordinal:
        below = np.cumsum(margins, axis=-1) - margins / 2
        metric = (below[..., :, None] - below[..., None, :]) ** 2
        expected = (margins[..., :, None] * margins[..., None, :] * metric).sum((-1, -2))
    else:
        metric = 1 - np.eye(pairs.shape[-1])
        expected = np.einsum("...i,ij,...j->...", margins, metric, margins, optimize=True)
    return 1 - ratio((n - 1) * (pairs * metric).sum((-1, -2)), expected)


def gwet_ac1(agreed: Floats, shares: Floats, classes: int) -> Floats:
    """
    Return Gwet's AC1 of two coders or more; 1 when there is one class alone.

    From the mean share of agreeing pairs over the units with two values or more, and of each class
    over the units with a value, (..., K). Source: Gwet 2008, Br. J. Math. Stat. Psychol. 61, 29-48;
    with gaps: Gwet 2014, Handbook of Inter-Rater Reliability, 4th ed., 4.3.
    """
    if classes < 2:
        return np.where(np.isnan(agreed), np.nan, 1.0)
    by_chance = (shares * (1 - shares)).sum(-1) / (classes - 1)
    return ratio(agreed - by_chance, 1 - by_chance)


def intraclass(rows: Any, columns: Any, total: Any, n: Any, k: int) -> tuple[Any, Any, Any]:
    """
    Return ICC(1,1), ICC(2,1) and ICC(3,1) of n units and k coders.

    From the sums of squares between units, between coders, and in all. Source: Shrout & Fleiss
    1979, Psychological Bulletin 86, 420-428.
    """
    between = ratio(rows, n - 1)
    within = ratio(total - rows, n * (k - 1))
    coders = np.asarray(columns) / (k - 1)
    error = ratio(total - rows - columns, (n - 1) * (k - 1))
    return (
        ratio(between - within, between + (k - 1) * within),
        ratio(between - error, between + (k - 1) * error + k * ratio(coders - error, n)),
        ratio(between - error, between + (k - 1) * error),
    )


# --- patterns ---------------------------------------------------------------------------------
def _matrix(values: Floats, times: Ints) -> Sample:
    """Make a sample of patterns that each add to every sum; there is one stratum."""
    return of_matrix(values, times, np.zeros(len(times), dtype=np.int64))


def _shared(patterns: Ints) -> tuple[Floats, Floats, Floats]:
    """Return values per pattern, 1 where there are two or more, and the share of equal pairs."""
    known = patterns >= 0
    values = known.sum(1).astype(np.float64)
    equal = np.zeros(len(patterns))
    for i, j in combinations(range(patterns.shape[1]), 2):
        equal += 2 * (known[:, i] & (patterns[:, i] == patterns[:, j]))
    paired = (values >= 2).astype(np.float64)
    return values, paired, equal / np.maximum(values * (values - 1), 1)


def of_equality(patterns: Ints, times: Ints) -> tuple[Sample, Statistics]:
    """Pairwise agreement: the mean share of equal pairs."""
    _, paired, equal = _shared(patterns)

    def read(sums: Floats) -> dict[str, Floats]:
        return {"agreement": ratio(sums[..., 1], sums[..., 0])}

    return _matrix(np.column_stack([paired, equal]), times), read


def of_classes(patterns: Ints, times: Ints, k: int, *, ordinal: bool) -> tuple[Sample, Statistics]:
    """Pairwise agreement, alpha, AC1, and kappa where there are two columns."""
    values, paired, equal = _shared(patterns)
    row, coder = np.nonzero(patterns >= 0)
    its = patterns[row, coder]
    numbers = np.column_stack([paired, equal, values > 0, values * equal])
    m, head = numbers.shape
    two = patterns.shape[1] == 2
    entries: list[tuple[Any, Any, Any]] = [
        (np.repeat(np.arange(m), head), np.tile(np.arange(head), m), numbers.ravel()),
        (row, head + its, 1 / values[row]),  # the shares of classes, for AC1
        (row, head + k + its, paired[row]),  # how often each is in a pair
    ]
    at = head + 2 * k
    if two:
        whole = paired[row] > 0
        entries.append((row[whole], at + coder[whole] * k + its[whole], np.ones(int(whole.sum()))))
        at += 2 * k
    if ordinal:
        for a, b in permutations(patterns.T, 2):
            here = np.flatnonzero((a >= 0) & (b >= 0))
            entries.append((here, at + a[here] * k + b[here], 1 / (values[here] - 1)))
    size = at + (k * k if ordinal else 0)

    def read(sums: Floats) -> dict[str, Floats]:
        agreed = ratio(sums[..., 1], sums[..., 0])
        shares = ratio(sums[..., head : head + k], sums[..., 2][..., None])
        margins = sums[..., head + k : head + 2 * k]
        out = {"agreement": agreed}
        if ordinal:
            out["alpha"] = alpha(sums[..., at:].reshape(*sums.shape[:-1], k, k), ordinal=True)
        else:  # observed: values that differ from others of their row
            n = margins.sum(-1)
            expected = n * n - (margins**2).sum(-1)
            out["alpha"] = 1 - ratio((n - 1) * (n - sums[..., 3]), expected)
        out["AC1"] = gwet_ac1(agreed, shares, k)
        if two:
            first, second = (sums[..., head + (2 + i) * k : head + (3 + i) * k] for i in range(2))
            chance = ratio((first * second).sum(-1), sums[..., 0] ** 2)
            out["kappa"] = ratio(agreed - chance, 1 - chance)
        return out

    pattern, cell, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    return of_entries(pattern, cell, value, times, np.zeros(m, dtype=np.int64), size), read


def of_numbers(patterns: Ints, times: Ints, numbers: Floats) -> tuple[Sample, Statistics]:
    """Alpha at the interval level, and ICC(2,1) of the rows without a gap."""
    known = patterns >= 0
    k = patterns.shape[1]
    v = np.where(known, numbers[patterns] - float(numbers.mean()), 0.0)
    count, total, squares = known.sum(1), v.sum(1), (v**2).sum(1)
    paired, whole = count >= 2, (count == k).astype(np.float64)
    within = 2 * (count * squares - total**2) / np.maximum(count - 1, 1)
    parts = [count * paired, total * paired, squares * paired, within * paired]
    parts += [whole, total**2 * whole, squares * whole]

    def read(sums: Floats) -> dict[str, Floats]:
        n, total, squares, apart, m, of_rows, of_all = (sums[..., i] for i in range(7))
        expected = 2 * (n * squares - total**2)
        expected = np.where(expected <= 1e-12 * np.abs(n * squares), 0, expected)
        by_coder = sums[..., 7:]
        corrected = ratio(by_coder.sum(-1) ** 2, m * k)
        between_coders = ratio((by_coder**2).sum(-1), m) - corrected
        icc = intraclass(of_rows / k - corrected, between_coders, of_all - corrected, m, k)[1]
        return {"alpha": 1 - ratio((n - 1) * apart, expected), "ICC(2,1)": icc}

    return _matrix(np.column_stack([*parts, v * whole[:, None]]), times), read


# --- distances --------------------------------------------------------------------------------
def ratio_distance(numbers: Floats) -> Distance:
    """Return the squared difference of the ratio level: ((a - b) / (a + b)) ** 2; 0 of two 0."""

    def distance(block: slice) -> Floats:
        a = numbers[block, None]
        return np.nan_to_num(ratio(a - numbers, a + numbers)) ** 2

    return distance


def indicators(sets: Sequence[frozenset[str]], labels: Sequence[str]) -> Floats:
    """Return which labels each set has, n x K, as 0 and 1."""
    place = {label: i for i, label in enumerate(labels)}
    out = np.zeros((len(sets), len(labels)))
    for row, held in enumerate(sets):
        out[row, [place[label] for label in held]] = 1
    return out


def jaccard_distance(held: Floats) -> Distance:
    """Return 1 - shared / labels of either, of `indicators`; two empty sets are equal."""
    size = held.sum(1)

    def distance(block: slice) -> Floats:
        shared = held[block] @ held.T
        either = size[block, None] + size - shared
        return np.where(either > 0, 1 - shared / np.maximum(either, 1), 0.0)

    return distance


def mean_distance(distance: Distance, counts: Floats) -> Floats:
    """Return each value's mean distance to all others, of distinct values with counts.

    It is the expected disagreement of Krippendorff's alpha, one value at a time.
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(counts), _BLOCK)]
    parts = [distance(block) @ counts / max(counts.sum() - 1, 1) for block in blocks]
    return np.concatenate(parts) if parts else np.zeros(0)


def of_distances(
    patterns: Ints, times: Ints, k: int, distance: Distance
) -> tuple[Sample, Statistics]:
    """Alpha of any distance; in resamples the expected disagreement is taken to first order."""
    known = patterns >= 0
    values = known.sum(1)
    paired = values >= 2
    margins = np.zeros(k)
    row, coder = np.nonzero(known & paired[:, None])
    np.add.at(margins, patterns[row, coder], times[row])
    far = np.empty(k)
    apart = np.zeros(len(patterns))
    for start in range(0, k, _BLOCK):
        block = slice(start, start + _BLOCK)
        metric = distance(block)
        far[block] = metric @ margins / max(margins.sum() - 1, 1)
        for a, b in permutations(patterns.T, 2):
            here = np.flatnonzero((a >= start) & (a < start + len(metric)) & (b >= 0))
            apart[here] += metric[a[here] - start, b[here]] / (values[here] - 1)
    expected = float(margins @ far / max(margins.sum(), 1))
    spread = np.where(known, far[patterns], 0).sum(1) * paired

    def read(sums: Floats) -> dict[str, Floats]:
        n = sums[..., 0]
        far_apart = 2 * ratio(sums[..., 2], n) - expected
        return {"alpha": 1 - ratio(ratio(sums[..., 1], n), far_apart)}

    return _matrix(np.column_stack([values * paired, apart, spread]), times), read
