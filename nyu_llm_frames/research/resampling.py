"""Bootstrap sums; units that contribute the same are drawn together.

A resample of rows changes a statistic of a table only through how often each cell was drawn, and
these counts are multinomial: 100,000 rows are a few cells. Where there are too many distinct
contributions, sums are drawn from their normal limit.

Comes in: what each row adds to the sums, its stratum and its unit. Goes out: resampled sums.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nyu_llm_frames.research.arithmetic import Bools, Floats, Ints

Statistics: TypeAlias = Callable[[Floats], Mapping[Any, Floats]]
"""Computes statistics from sums, (..., q)."""

MOST_PATTERNS = 20_000
"""Distinct contributions up to which they are drawn one by one."""
_CHUNK = 4_000_000  # numbers held at once
_DENSE = 4_000_000
_MOST_DENSE = 20_000_000


@dataclass(frozen=True, slots=True)
class Rows:
    """How rows were drawn."""

    weight: Floats  # 1 / pi, with the mean 1
    strata: Ints  # resamples are drawn within them
    units: Ints | None  # rows with the same number are drawn together; None: each by itself

    @property
    def weighted(self) -> bool:
        return not bool((self.weight == 1).all())

    def where(self, use: Bools) -> Rows:
        """Return some of the rows."""
        return Rows(self.weight[use], self.strata[use], shared_units(self.units, use))


def shared_units(units: Ints | None, use: Bools) -> Ints | None:
    """Return the units of some rows, or None where no two rows share one."""
    if units is None:
        return None
    inside = units[use]
    return None if len(np.unique(inside)) == len(inside) else inside


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What is resampled: m distinct units that add to q sums.

    Unit `pattern` adds `value` to the sum `cell`; one entry each, sorted by cell.
    """

    pattern: Ints
    cell: Ints
    value: Floats
    counts: Ints  # m: how many units are like this
    strata: Ints  # m: the stratum of each
    size: int  # q

    @property
    def dense(self) -> Floats:
        """Contributions as a matrix, m x q."""
        m = len(self.counts)
        flat = np.bincount(self.pattern * self.size + self.cell, self.value, m * self.size)
        return np.asarray(flat, dtype=np.float64).reshape(m, self.size)

    @property
    def full(self) -> bool:
        """Whether each unit adds to every sum."""
        return len(self.cell) == len(self.counts) * self.size

    @property
    def normal(self) -> bool:
        """
        Whether sums are drawn from their normal limit.

        That needs all contributions as a matrix. Those of a table of very many labels are nearly
        all 0, and are drawn one by one.
        """
        m = len(self.counts)
        return m > MOST_PATTERNS and (self.full or m * self.size <= _MOST_DENSE)

    def sums(self) -> Floats:
        """Return the sums of what was observed; length q."""
        return np.bincount(
            self.cell, self.value * self.counts[self.pattern], minlength=self.size
        ).astype(np.float64)


def of_entries(
    pattern: Ints, cell: Ints, value: Floats, counts: Ints, strata: Ints, size: int
) -> Sample:
    """Make a sample of entries in any order."""
    order = np.argsort(cell, kind="stable")
    return Sample(pattern[order], cell[order], value[order], counts, strata, size)


def of_matrix(values: Floats, counts: Ints, strata: Ints) -> Sample:
    """Make a sample of units that each add to every sum, m x q."""
    m, q = values.shape
    cells = np.repeat(np.arange(q), m)
    return Sample(np.tile(np.arange(m), q), cells, values.T.ravel(), counts, strata, q)


def of_cells(cell: Ints, rows: Rows, size: int) -> Sample:
    """Make a sample of rows that each add their weight to one cell of `size`."""
    weights, w = np.unique(rows.weight, return_inverse=True)
    key = (rows.strata.astype(np.int64) * len(weights) + w) * size + cell
    distinct, kind, counts = np.unique(key, return_inverse=True, return_counts=True)
    rest, its_cell = np.divmod(distinct, size)
    its_stratum, its_weight = np.divmod(rest, len(weights))
    value = weights[its_weight]
    entries = np.arange(len(distinct))
    sample = of_entries(entries, its_cell, value, counts, its_stratum, size)
    return sample if rows.units is None else of_units(sample, kind, rows.units)


def of_units(sample: Sample, pattern: Ints, units: Ints) -> Sample:
    """Draw the rows of one unit together, from the pattern and the unit of each row."""
    members: dict[int, list[int]] = defaultdict(list)
    for unit, own in zip(units.tolist(), pattern.tolist(), strict=True):
        members[unit].append(own)
    sizes = Counter(tuple(sorted(own)) for own in members.values())
    groups = sorted(sizes)
    flat = np.array([own for group in groups for own in group], dtype=np.int64)
    order = np.argsort(sample.pattern, kind="stable")
    first, last = (np.searchsorted(sample.pattern[order], flat, side) for side in ("left", "right"))
    n = last - first  # entries of each row
    entry = order[np.repeat(last - np.cumsum(n), n) + np.arange(int(n.sum()))]
    return of_entries(
        np.repeat(np.repeat(np.arange(len(groups)), [len(group) for group in groups]), n),
        sample.cell[entry],
        sample.value[entry],
        np.array([sizes[group] for group in groups], dtype=np.int64),
        sample.strata[[group[0] for group in groups]],
        sample.size,
    )


def of_rows(values: Floats, rows: Rows) -> Sample:
    """Make a sample of rows that each add a number to every sum; n x q, weights included."""
    strata = rows.strata
    if rows.units is not None:
        _, first, inverse = np.unique(rows.units, return_index=True, return_inverse=True)
        summed = np.zeros((len(first), values.shape[1]))
        order = np.lexsort((*values.T, inverse))  # sums that do not depend on the order of rows
        np.add.at(summed, inverse[order], values[order])
        values, strata = summed, strata[first]
    both = np.column_stack([strata.astype(np.float64), values])
    # The first columns nearly always tell rows apart; all of them make the order complete.
    both = both[np.lexsort(both.T[2::-1])]
    tied = (both[1:, :3] == both[:-1, :3]).all(axis=1)
    if (both[1:][tied] != both[:-1][tied]).any():
        both = both[np.lexsort(both.T[::-1])]
    new = np.ones(len(both), dtype=bool)
    new[1:] = (both[1:] != both[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(both))).astype(np.int64)
    return of_matrix(both[starts, 1:], counts, both[starts, 0].astype(np.int64))


def drawn_counts(sample: Sample, resamples: int, seed: int, held: int = 0) -> Iterator[Floats]:
    """Yield how often each unit was drawn: some resamples x m at a time, within strata.

    The caller holds `held` numbers for each resample.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    m = len(sample.counts)
    step = max(1, min(resamples, _CHUNK // max(m, sample.size, held)))
    strata = [np.flatnonzero(sample.strata == h) for h in np.unique(sample.strata)]
    for start in range(0, resamples, step):
        drawn = np.empty((min(step, resamples - start), m))
        for inside in strata:
            counts = sample.counts[inside]
            share = counts / counts.sum()
            drawn[:, inside] = rng.multinomial(counts.sum(), share, size=len(drawn))
        yield drawn


def resampled(sample: Sample, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield resampled sums, some resamples x q at a time."""
    m = len(sample.counts)
    if sample.normal:
        yield from _normal(sample, resamples, seed)
        return
    dense = sample.dense if sample.full or m * sample.size <= _DENSE else None
    cells, starts = np.unique(sample.cell, return_index=True)
    held = len(sample.cell) if dense is None else 0
    for drawn in drawn_counts(sample, resamples, seed, held):
        if dense is not None:
            yield drawn @ dense
        else:
            out = np.zeros((len(drawn), sample.size))
            entries = drawn[:, sample.pattern] * sample.value
            out[:, cells] = np.add.reduceat(entries, starts, axis=1)
            yield out


def _normal(sample: Sample, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw sums from the normal limit of the bootstrap: the same mean and covariance."""
    rng = np.random.Generator(np.random.PCG64(seed))
    q = sample.size
    dense = sample.dense
    covariance = np.zeros((q, q))
    for h in np.unique(sample.strata):
        inside = sample.strata == h
        counts = sample.counts[inside].astype(np.float64)
        values = dense[inside]
        centered = values - counts @ values / counts.sum()
        covariance += (centered * counts[:, None]).T @ centered
    scale = np.sqrt(np.diag(covariance))
    scale[scale == 0] = 1.0
    root = np.linalg.cholesky(covariance / np.outer(scale, scale) + 1e-10 * np.eye(q))
    step = max(1, _CHUNK // q)
    for start in range(0, resamples, step):
        noise = rng.standard_normal((min(step, resamples - start), q))
        yield sample.sums() + noise @ root.T * scale


def distributions(
    sample: Sample, statistics: Statistics, resamples: int, seed: int
) -> dict[Any, Floats]:
    """Return each statistic over all resamples."""
    parts = [statistics(sums) for sums in resampled(sample, resamples, seed)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
