"""`if_exists="fill"`: finds the rows without a good answer, and fills their cells.

Comes in: a table with columns of an earlier call. Goes out: the rows to send, chosen by these
columns alone, and later the whole table with their cells filled. Rows are identified by position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._stages.answers.answer import SHOWN, TOKENS
from nyu_llm_frames._tables.columns import AnswerColumns, Outcome, read_schema
from nyu_llm_frames._tables.frame_values import without_views
from nyu_llm_frames._tables.table import Ints, Mask
from nyu_llm_frames.errors import ConfigurationError

IS_NEW = "\0is_new"
"""Name of the column that marks the rows of a file with new cells."""


@dataclass(frozen=True, slots=True)
class Fill:
    """The rows of a table that are sent again.

    `earlier` has the columns of an earlier call, with numbered rows; `rows` are the positions of
    those without a good answer, ascending.
    """

    earlier: pd.DataFrame
    rows: Ints

    @property
    def kept(self) -> Mask:
        """The other rows."""
        kept = np.ones(len(self.earlier), np.bool_)
        kept[self.rows] = False
        return kept

    def filled(self, columns: Mapping[str, Any], answered: Mask) -> dict[str, Any]:
        """Return columns of the whole table, with the cells of answered rows filled.

        `columns` are the new cells of the rows that were sent, and `answered` says which of these
        have an outcome; the others keep their cells.
        """
        n, out = len(self.earlier), {}
        order, kept = np.arange(n), np.ones(n, np.bool_)
        order[self.rows[answered]] = n + np.flatnonzero(answered)
        kept[self.rows[answered]] = False
        for name, values in columns.items():
            new = pd.Series(values).reset_index(drop=True)
            old = self.earlier.get(name)
            if old is None:
                out[name] = new.array.take(np.where(order < n, -1, order - n), allow_fill=True)
                continue
            old, new = _alike(old, kept, new)
            out[name] = pd.concat([old, new], ignore_index=True).take(order).array
        return out


def choose(earlier: pd.DataFrame, wanted: AnswerColumns) -> Fill:
    """Find the rows without a good answer: an error is set, or a value is missing.

    A null in a field that may be null is not a missing value, unless all fields may be null: then
    a row lacks an answer where all are null and no status is "ok".
    """
    there = {name: earlier.get(name) for name in wanted.deciding}
    every = np.ones(len(earlier), np.bool_)
    blank = {n: every if c is None else c.isna().to_numpy(np.bool_) for n, c in there.items()}
    required = values = [blank[name] for name in wanted.values]
    if wanted.schema is not None:
        nodes = wanted.schema.reader.columns.values()
        required = [v for v, node in zip(values, nodes, strict=True) if not node.nullable]
    lacking: Mask = np.logical_or.reduce(required or [np.logical_and.reduce(values)])
    if not required and there[wanted.status] is not None:
        lacking &= ~np.asarray(there[wanted.status] == "ok", dtype=np.bool_)
    if there[wanted.error] is not None:
        lacking = lacking | ~blank[wanted.error]
    return Fill(earlier, np.flatnonzero(lacking).astype(np.int64))


def check_types(fill: Fill, label: Callable[[int], Hashable], wanted: AnswerColumns) -> None:
    """Refuse a column if its cells and the new ones cannot share a type."""
    kept = fill.kept
    if not kept.any():
        return
    for name, values in _empty_columns(wanted).items():
        old, new = fill.earlier.get(name), pd.Series(values)
        if old is None or old.dtype == new.dtype:
            continue
        given = old.dtype
        old = _texts(old, new)
        texts = pd.api.types.is_string_dtype(old.dtype) or old.dtype == object
        fits = (texts and _is_text(new.dtype)) or _lossless(old[kept], new.dtype) is not None
        if not fits:
            row = label(int(np.flatnonzero(kept & old.notna())[0]))
            raise ConfigurationError(
                f"if_exists='fill': the column {name!r} ({given}) has cells that do not fit "
                f"the type of this call ({new.dtype}), as in row {row!r}. Convert "
                'the column first, or use if_exists="replace", or another output= or prefix=.'
            )


def _empty_columns(wanted: AnswerColumns) -> dict[str, Any]:
    kinds = {name: pa.int64() if name in TOKENS else pa.string() for name in SHOWN}
    none = pa.table({name: pa.chunked_array([], kind) for name, kind in kinds.items()})
    outcome = Outcome(none, np.empty(0, object), [], pa.array([], pa.float64()))
    if wanted.schema is not None:
        outcome = read_schema(outcome, wanted.schema)
    return wanted.made(outcome, pa.array([], pa.string()), np.empty(0, np.int64))


# --- files ------------------------------------------------------------------------------------
def check_cells(fill: Fill, wanted: AnswerColumns, *, first: int) -> None:
    """Refuse kept cells of a file that a typed output cannot hold with the new ones.

    `fill` is of some rows, as plain values, of which the first has the number `first` in the file.
    """
    kept = fill.kept
    for name, values in _empty_columns(replace(wanted, details=False)).items():
        column = fill.earlier.get(name)
        if column is None:
            continue
        cells = column[kept].dropna()
        dtype = pd.Series(values).dtype
        try:
            old = pa.chunked_array([pa.array(cells.tolist())])
            if isinstance(dtype, pd.CategoricalDtype):
                words = choices_array(dtype.categories.tolist())
                with_choices(name, _as_type(name, old, words.type), words)
            else:
                _as_type(name, old, pa.array(values).type)
        except (ConfigurationError, pa.ArrowException):
            raise _unfit(name, dtype, first + int(cells.index[0])) from None


def beside_kept(name: str, new: pa.ChunkedArray, is_new: Any, old: pa.ChunkedArray) -> Any:
    """Return the new cells where there are some, else the old ones, with the type of the new."""
    kind = new.type
    plain = without_views(old.type)  # pyarrow chooses among no views
    old = old if old.type == plain else old.cast(plain)
    old = pc.if_else(is_new, pa.scalar(None, old.type), old)
    if not pa.types.is_dictionary(kind):
        return pc.if_else(is_new, new, _as_type(name, old, kind))
    cells = pc.if_else(is_new, new.cast(kind.value_type), _as_type(name, old, kind.value_type))
    words = new.combine_chunks().dictionary
    return with_choices(name, cells, words).cast(kind)


def with_choices(name: str, cells: Any, words: pa.Array) -> pa.DictionaryArray:
    """Return cells as choices among these words, in their order; no other cell is accepted."""
    cells = cells.cast(words.type).combine_chunks()
    codes = pc.index_in(cells, value_set=words)
    if codes.null_count > cells.null_count:
        raise _unfit(name, "choices")
    return pa.DictionaryArray.from_arrays(codes, words)


def choices_array(choices: list[Any]) -> pa.Array:
    """Return the choices of a field as a file holds them: those of mixed types as text."""
    try:
        return pa.array(choices)
    except (pa.ArrowException, OverflowError):
        return pa.array([c if isinstance(c, str) else json.dumps(c) for c in choices])


def _as_type(name: str, old: Any, kind: pa.DataType) -> Any:
    if pa.types.is_dictionary(old.type):
        old = old.cast(old.type.value_type)
    try:
        return old if old.type == kind else old.cast(kind)
    except pa.ArrowException:
        raise _unfit(name, kind) from None


def _unfit(name: str, kind: object, row: int | None = None) -> ConfigurationError:
    where = "" if row is None else f", as in row {row:,}"
    return ConfigurationError(
        f"if_exists='fill': the input's column {name!r} has cells that are no {kind}{where}. From "
        'CSV to CSV they stay unchanged; or use if_exists="replace", or another output= or '
        "prefix=."
    )


# --- one dtype for both -----------------------------------------------------------------------
def _alike(
    old: pd.Series[Any], kept: Mask, new: pd.Series[Any]
) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Give both the dtype of the old column if it can hold the new values too."""
    if old.dtype == new.dtype:
        return old, new
    if isinstance(old.dtype, pd.CategoricalDtype) and isinstance(new.dtype, pd.CategoricalDtype):
        first, second = list(new.cat.categories), list(old.cat.categories)
        if set(first) <= set(second):
            first, second = second, first
        every = [*first, *[c for c in second if c not in set(first)]]
        dtype = pd.CategoricalDtype(every, ordered=old.cat.ordered)
        return old.astype(dtype), new.astype(dtype)
    old = _texts(old, new)
    same = _lossless(new, old.dtype)
    if same is not None:
        return old, same
    ours = _lossless(old.where(pd.Series(kept)), new.dtype)
    if ours is not None:
        return ours, new
    return old.astype(object), new.astype(object)  # edited by hand: nothing is lost


def _texts(old: pd.Series[Any], new: pd.Series[Any]) -> pd.Series[Any]:
    """Read objects that are all text, as from a CSV file, as a text column."""
    if old.dtype != object or _is_text(new.dtype):
        return old
    cells = old.dropna()
    if len(cells) and all(isinstance(cell, str) for cell in cells):
        return old.astype(pd.StringDtype())
    return old


def _is_text(dtype: Any) -> bool:
    if isinstance(dtype, pd.CategoricalDtype):
        return all(isinstance(c, str) for c in dtype.categories)
    return isinstance(dtype, pd.StringDtype)


def _lossless(values: pd.Series[Any], dtype: Any) -> pd.Series[Any] | None:
    """Return values with another dtype; None where that changes one of them."""
    try:
        out = values.astype(dtype)
        missing = np.asarray(values.isna(), dtype=np.bool_)
        if (np.asarray(out.isna(), dtype=np.bool_) != missing).any():
            return None
        if pd.api.types.is_object_dtype(dtype):
            return out
        if isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype):
            left, right = (pa.array(v[~missing]).to_pylist() for v in (out, values))
        else:
            left, right = out.astype(values.dtype)[~missing], values[~missing]
        return out if all(a == b for a, b in zip(left, right, strict=True)) else None
    except (TypeError, ValueError, OverflowError, NotImplementedError, pa.ArrowException):
        return None
