"""Draw the coding sample: which units are coded by hand, with which probability.

Comes in: the unit and the stratum of every row. Goes out: the design, a row per drawn unit. A draw
depends on the seed and on the units of a stratum, not on the order of rows; a larger one contains
every smaller one, so that no code is wasted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.research.units import order_key

Allocation: TypeAlias = Literal["proportional", "equal"]
Use: TypeAlias = Literal["test", "dev"]

LEAST = 2
"""Units of a stratum: one alone has no variance."""
NO_VALUE = "NA"
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One drawn unit."""

    unit: str
    stratum: str
    stratum_units: int
    stratum_drawn: int
    rows: int

    @property
    def pi(self) -> float:
        """The probability with which it was drawn."""
        return self.stratum_drawn / self.stratum_units


def stratum_names(columns: Sequence[Sequence[str | None]], rows: int) -> list[str]:
    """Return the stratum of each row: its values, joined; NA is a value like any other."""
    if not columns:
        return [EVERYTHING] * rows
    cells = zip(*columns, strict=True)
    return [" | ".join(NO_VALUE if c is None else c for c in row) for row in cells]


def unit_strata(units: Sequence[str], strata: Sequence[str]) -> dict[str, str]:
    """Return the stratum of each unit.

    Rows that look the same to a coder may lie in several strata. Their unit is in the one that most
    of them are in, and of equal ones in the first by name.
    """
    found: dict[str, Counter[str]] = {}
    for unit, stratum in zip(units, strata, strict=True):
        found.setdefault(unit, Counter())[stratum] += 1
    return {
        unit: min(counts, key=lambda stratum: (-counts[stratum], stratum))
        for unit, counts in found.items()
    }


def allocate(sizes: Mapping[str, int], n: int, allocation: Allocation) -> dict[str, int]:
    """Return how many units each stratum gives.

    Units are assigned one at a time, so that a larger `n` never takes one away, as rounded shares
    may do. "proportional" is the method of Webster and Sainte-Laguë: shares that
    are whole numbers come out exactly.

    Parameters
    ----------
    sizes : mapping of str to int
        Units of each stratum.
    n : int
        Units in all. Each stratum gives at least two, or its only one, so the total may be larger.
    allocation : {"proportional", "equal"}

    Examples
    --------
    >>> allocate({"a": 900, "b": 90, "c": 10}, 100, "proportional")
    {'a': 89, 'b': 9, 'c': 2}
    >>> allocate({"a": 900, "b": 90, "c": 10}, 100, "equal")
    {'a': 45, 'b': 45, 'c': 10}
    """
    given = {name: min(LEAST, size) for name, size in sorted(sizes.items())}

    def due(name: str) -> float:
        return -sizes[name] / (given[name] + 0.5) if allocation == "proportional" else given[name]

    queue = [(due(name), name) for name in given if given[name] < sizes[name]]
    heapq.heapify(queue)
    for _ in range(n - sum(given.values())):
        if not queue:
            break
        _, name = heapq.heappop(queue)
        given[name] += 1
        if given[name] < sizes[name]:
            heapq.heappush(queue, (due(name), name))
    return given


def draw(
    units: Sequence[str],
    strata: Sequence[str],
    *,
    n: int,
    allocation: Allocation,
    use: Use,
    seed: int,
) -> list[Drawn]:
    """Draw the units that are coded by hand.

    Within a stratum they are ordered by a digest of seed and unit. Test codes are the first of
    that order, dev codes the last.

    Parameters
    ----------
    units, strata : sequence of str
        Of each row.
    n, allocation
        See `allocate`.
    use : {"test", "dev"}
    seed : int

    Returns
    -------
    list of Drawn
        By stratum, in the order in which a larger sample adds to them.

    Raises
    ------
    ConfigurationError
        There are more strata than units to draw.
    """
    rows = Counter(units)
    members: dict[str, list[str]] = {}
    for unit, stratum in unit_strata(units, strata).items():
        members.setdefault(stratum, []).append(unit)
    if len(members) > n:
        raise ConfigurationError(
            f"by= makes {len(members):,} strata, and n={n:,} units are fewer than that. Strata are "
            "few groups: a label, or a number that was cut, as pandas.cut(df[column], 3) does."
        )
    sizes = {stratum: len(found) for stratum, found in members.items()}
    given = allocate(sizes, n, allocation)
    return [
        Drawn(unit, stratum, sizes[stratum], given[stratum], rows[unit])
        for stratum in given
        for unit in _ordered(members[stratum], seed, use)[: given[stratum]]
    ]


def _ordered(units: Iterable[str], seed: int, use: Use) -> list[str]:
    return sorted(units, key=lambda unit: order_key(unit, seed), reverse=use == "dev")
