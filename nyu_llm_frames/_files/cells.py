"""The text of CSV cells and what it means: numbers, True and False, text, or nothing.

Comes in: columns of text, piece by piece. Goes out: one kind per column that all its cells allow,
and plain values. A kind is chosen only where it keeps every value: ``007`` stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["int", "float", "bool", "text"]

# What pandas.read_csv takes as missing, so that a file read by either has the same prompts.
MISSING = frozenset(
    {"", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"}
    | {"1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
_MISSING = pa.array(sorted(MISSING))
_PATTERNS: dict[Kind, str] = {
    "int": r"^(0|-?[1-9][0-9]{0,17})$",
    # At most 15 digits, and no exponent of three: more would not survive as a float.
    "float": r"^-?(0|[1-9][0-9]{0,14})?(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,2})?$",
    "bool": r"^(True|TRUE|true|False|FALSE|false)$",
}
_COMPILED = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
_TYPES: dict[Kind, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
}


class Guess:
    """What the cells of one column may be, after all that were seen."""

    def __init__(self) -> None:
        self._possible: list[Kind] = ["bool", "int", "float"]
        self._seen = False

    @property
    def open(self) -> bool:
        """Whether more cells could change the answer."""
        return bool(self._possible)

    @property
    def kind(self) -> Kind:
        return self._possible[0] if self._possible and self._seen else "text"

    def look(self, cells: Sequence[str]) -> None:
        """Look at more cells of the column."""
        if not self._possible:
            return
        few = [c for c in cells[:200] if c not in MISSING][:20]
        self._possible = [k for k in self._possible if all(_fits(k, c) for c in few)]
        if not self._possible:
            return
        array = pa.array(cells, pa.string())
        array = array.filter(pc.invert(pc.is_in(array, value_set=_MISSING)))
        if not len(array):
            return
        self._seen = True
        self._possible = [k for k in self._possible if _all_fit(k, array)]


def _fits(kind: Kind, cell: str) -> bool:
    if _COMPILED[kind].match(cell) is None:
        return False
    return kind != "float" or (any(map(str.isdigit, cell)) and _digits(cell) <= 15)


def _digits(cell: str) -> int:
    return sum(map(str.isdigit, re.split("[eE]", cell)[0]))


def _all_fit(kind: Kind, array: pa.Array) -> bool:
    if not pc.all(pc.match_substring_regex(array, _PATTERNS[kind])).as_py():
        return False
    if kind != "float":
        return True
    mantissa = pc.replace_substring_regex(array, r"[eE].*$", "")
    digits = pc.utf8_length(pc.replace_substring_regex(mantissa, "[^0-9]", ""))
    low_high = pc.min_max(digits)
    return bool(low_high["min"].as_py() >= 1 and low_high["max"].as_py() <= 15)


def _yes(cell: str) -> bool:
    return cell[0] in "Tt"


_CONVERT: dict[Kind, Callable[[str], object]] = {"int": int, "float": float, "bool": _yes}


def plain(cells: Sequence[str], kind: Kind) -> list[object]:
    """Return plain values for a prompt; what is missing is None."""
    if kind == "text":
        return [None if c in MISSING else c for c in cells]
    convert = _CONVERT[kind]
    return [None if c in MISSING else convert(c) for c in cells]


def typed(cells: Sequence[str], kind: Kind) -> pa.Array:
    """Return an Arrow array for a parquet file. Only an empty cell of text is null."""
    if kind == "text":
        return pa.array([c or None for c in cells], pa.string())
    return pa.array(plain(cells, kind), _TYPES[kind])


def arrow_type(kind: Kind) -> pa.DataType:
    """Return the Arrow type of a kind."""
    return _TYPES[kind]
