"""Gives the cells of a CSV file the types and values that `pandas.read_csv` gives their columns.

Comes in: columns of text, piece by piece. Goes out: one kind per column, decided by all its
cells, and values. pandas itself reads the cells; only combining the pieces is ours.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._tables.frame_values import series_to_python
from nyu_llm_frames._tables.table import EXACT

Kind = Literal["int", "uint", "float", "bool", "text"]
Cells = Sequence[str]

# The texts that pandas.read_csv reads as missing.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"}
    | {"1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
TYPES: dict[Kind, pa.DataType] = {
    "int": pa.int64(),
    "uint": pa.uint64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
}
_ALTERED = r"^\s*(\+[0-9.]|[+-]?0[0-9])"
_LONG = r"[0-9]{16}"
_BELOW_ZERO = r"^\s*-"
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(
    r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?)\s*", re.ASCII | re.IGNORECASE
)


def parsed(columns: Sequence[Cells], kinds: Sequence[Kind] | None = None) -> list[pd.Series]:
    """Return pandas' values of columns of one length, each by itself or as part of a whole."""
    if not columns or not columns[0]:
        return [pd.Series([], dtype=object) for _ in columns]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(zip(*columns, strict=True))
    text.seek(0)
    dtype = {i: "float64" for i, kind in enumerate(kinds or ()) if kind == "float"}
    frame = pd.read_csv(text, header=None, low_memory=False, dtype=dtype)
    return [frame[i] for i in range(len(columns))]


class Guess:
    """The kind of one column, by the cells so far; `is_open` while more could change it."""

    def __init__(self) -> None:
        self.is_open = True
        self._is_missing = self._is_bool = self._is_whole = self._is_float = False
        self._is_altered = self._is_given_up = False
        self._low = self._high = 0

    @property
    def kind(self) -> Kind:
        if not self.is_open or self.is_damaged:
            return "text"
        if self._is_bool:
            return "text" if self._is_whole or self._is_float else "bool"
        if self._is_float or self._is_missing:
            return "float"
        if not self._is_whole:
            return "text"
        if self._low >= -(2**63) and self._high < 2**63:
            return "int"
        return "uint" if self._low >= 0 else "text"

    @property
    def is_empty(self) -> bool:
        """Whether no cell had a value."""
        return self.is_open and not (self._is_bool or self._is_whole or self._is_float)

    @property
    def is_exact(self) -> bool:
        """Whether floats can hold every whole number so far."""
        return self._low >= -EXACT and self._high <= EXACT

    @property
    def is_damaged(self) -> bool:
        """Whether pandas reads other values than what is written."""
        if not self.is_open or self._is_bool or not (self._is_whole or self._is_float):
            return self._is_given_up
        if self._is_altered or self._low < -(2**63):
            return True
        return (self._is_float or self._is_missing) and not self.is_exact

    def look(self, cells: Cells, found: pd.Series) -> None:
        """Add more cells of the column, and pandas' values of these alone."""
        kind = found.dtype.kind
        # Where pandas gives up, it reads nothing as missing.
        is_read = kind in "iufb"
        there = np.asarray(found.notna() if is_read else [cell not in MISSING for cell in cells])
        self._is_missing |= not there.all()
        if not there.any():
            return
        if kind == "b" or (kind == "O" and pd.api.types.infer_dtype(found) == "boolean"):
            self._is_bool = True
            return
        texts = pa.array(cells, pa.string()).filter(pa.array(there))
        if kind in "iu":
            self._is_whole = True
            self._low, self._high = (
                min(self._low, int(found.min())),
                max(self._high, int(found.max())),
            )
        elif kind != "f" and not self._are_numbers(texts):
            return
        elif kind != "f" or not self._is_float or found.abs().max() >= EXACT:
            self._look_at_numbers(texts)
        self._is_altered |= pc.any(pc.match_substring_regex(texts, _ALTERED)).as_py()
        if self._low == 0 and pc.any(pc.match_substring_regex(texts, _BELOW_ZERO)).as_py():
            self._low = -1  # a negative number rules out unsigned integers, also -0 and -0.5

    def _are_numbers(self, texts: pa.Array) -> bool:
        """Whether cells that are text for pandas are numbers; then other pieces decide the kind.

        pandas gives up at a number of more than 64 bits after nothing but whole numbers. Then
        all cells are text and none is missing, or all are Python integers, by its version.
        """
        only_whole = not (self._is_bool or self._is_float)
        for text in texts.to_pylist():
            if not _NUMBER.fullmatch(text):
                self.is_open = False
                return False
            only_whole &= bool(_WHOLE.fullmatch(text))
            # Above all floats, versions of pandas differ too.
            is_beyond = math.isinf(float(text)) and "n" not in text.lower()
            if is_beyond or (only_whole and _whole(text) >= 2**64):
                self._is_given_up, self.is_open = True, False
                return False
        return True

    def _look_at_numbers(self, texts: pa.Array) -> None:
        is_whole = pc.match_substring_regex(texts, f"^{_WHOLE.pattern}$")
        self._is_whole |= pc.any(is_whole).as_py()
        self._is_float |= not pc.all(is_whole).as_py()
        long = texts.filter(pc.match_substring_regex(texts, _LONG)).to_pylist()
        wholes = [_whole(text) for text in long if _WHOLE.fullmatch(text)]
        self._low, self._high = min(self._low, *wholes, 0), max(self._high, *wholes, 0)


def common_kind(guesses: Sequence[Guess]) -> Kind:
    """Return a kind for the values of a column of several files, each read by itself."""
    known = [guess for guess in guesses if not guess.is_empty] or guesses
    kinds = {guess.kind for guess in known}
    if kinds == {"int", "float"} and all(guess.is_exact for guess in known):
        return "float"
    return kinds.pop() if len(kinds) == 1 else "text"


def _whole(text: str) -> int:
    return int(text.strip()[:40])  # int() refuses thousands of digits


def plain(cells: Cells, found: pd.Series | None) -> list[object]:
    """Return plain values for a prompt: pandas' values, or text; missing ones as None."""
    if found is None:
        return [None if c in MISSING else c for c in cells]
    return series_to_python(found)


def typed(cells: Cells, found: pd.Series | None, kind: Kind) -> pa.Array:
    if found is None or kind == "bool":
        return pa.array(plain(cells, found), TYPES[kind])
    return pa.array(found, from_pandas=True).cast(TYPES[kind])
