"""Draw the coding sample: which units are coded by hand, with which probability.

A unit is what a coder sees. Equal texts are one unit, in every frame and whatever the prompt, the
model and the order of rows. A draw depends on the seed and on the units of a stratum, not on the
order of rows; a larger one contains every smaller one, so that no code is wasted.

Comes in: the texts and the stratum of every row. Goes out: the ids of units, and the drawn ones.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias

from nyu_llm_frames.errors import ConfigurationError

Allocation: TypeAlias = Literal["proportional", "equal"]
Use: TypeAlias = Literal["test", "dev"]

LEAST = 2
"""Units of a stratum: one alone has no variance."""


class Drawn(NamedTuple):
    """One drawn unit; `N_h` and `n_h` are the units of its stratum, and the drawn ones."""

    unit: str
    stratum: str
    N_h: int
    n_h: int
    pi: float
    rows: int


def unit_ids(columns: Sequence[Sequence[str | None]]) -> list[str]:
    """Return the unit of each row, from the texts of each shown column.

    It is ``u-`` and 32 hex digits of BLAKE2b-16 (RFC 7693) over the compact ASCII JSON list of the
    row's texts; a missing one is null.

    Examples
    --------
    >>> unit_ids([["Paris is in France."]])
    ['u-70f7102d731aec779b1dbabb844d3a34']
    """
    encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
    return [f"u-{_digest(encode(cells))}" for cells in zip(*columns, strict=True)]


def order_key(unit: str, *salt: object) -> str:
    """Return the sort key of a unit, which depends on it and the salt alone."""
    return _digest(json.dumps([*map(str, salt), unit]))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def stratum_names(columns: Sequence[Sequence[str | None]], rows: int) -> list[str]:
    """Return the stratum of each row: its values, joined; NA is a value like any other.

    Texts that would read as another stratum are quoted.

    Examples
    --------
    >>> stratum_names([["x", None, "NA"], ["y", "y", "y | z"]], 3)
    ['x | y', 'NA | y', '"NA" | "y | z"']
    """
    if not columns:
        return ["all"] * rows
    return [" | ".join(map(_stratum_part, row)) for row in zip(*columns, strict=True)]


def _stratum_part(cell: str | None) -> str:
    if cell is None:
        return "NA"
    quoted = cell == "NA" or "|" in cell or cell.startswith('"')
    return json.dumps(cell, ensure_ascii=False) if quoted else cell


def unit_strata(units: Sequence[str], strata: Sequence[str]) -> dict[str, str]:
    """Return the stratum of each unit.

    Rows that look the same to a coder may lie in several strata. Their unit is in the one that most
    of them are in, and of equal ones in the first by name.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for unit, stratum in zip(units, strata, strict=True):
        found[unit][stratum] += 1
    return {
        unit: min(counts, key=lambda stratum: (-counts[stratum], stratum))
        for unit, counts in found.items()
    }


def allocate(sizes: Mapping[str, int], n: int, allocation: Allocation) -> dict[str, int]:
    """Return how many units each stratum gives: at least two, or its only one.

    Units are assigned one at a time, so that a larger `n` never takes one away, as rounded shares
    may do. "proportional" is the method of Webster and Sainte-Laguë: shares that are whole numbers
    come out exactly.

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
    """Draw the units that are coded by hand, from the unit and the stratum of each row.

    Within a stratum they are ordered by a digest of seed and unit. Test codes are the first of
    that order, dev codes the last. They come by stratum, in the order in which a larger sample adds
    to them.
    """
    rows = Counter(units)
    members: dict[str, list[str]] = defaultdict(list)
    for unit, stratum in unit_strata(units, strata).items():
        members[stratum].append(unit)
    if len(members) > n:
        raise ConfigurationError(
            f"by= makes {len(members):,} strata, and n={n:,} units are fewer than that. Strata are "
            "few groups: a label, or a number that was cut, as pandas.cut(df[column], 3) does."
        )
    drawn = []
    sizes = {stratum: len(found) for stratum, found in members.items()}
    for stratum, n_h in allocate(sizes, n, allocation).items():
        ordered = sorted(members[stratum], key=lambda u: order_key(u, seed), reverse=use == "dev")
        pi = n_h / sizes[stratum]
        drawn += [Drawn(u, stratum, sizes[stratum], n_h, pi, rows[u]) for u in ordered[:n_h]]
    return drawn
