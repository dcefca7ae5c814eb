"""New columns as an Arrow table, and the rows of a file, of which only the numbers are kept.

Comes in: columns as `AnswerColumns` makes them. Goes out: a `pyarrow.Table`, with
pandas' metadata about them in its schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._tables.filling import choices_array
from nyu_llm_frames._tables.table import Ints, Piece, Table

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def arrow_columns(columns: Mapping[str, Any]) -> pa.Table:
    """Return new columns as an Arrow table."""
    made = {}
    for name, values in columns.items():
        if isinstance(values, pd.Categorical):
            values = _writable(values)
        elif pd.api.types.is_object_dtype(values):
            values = _messages(values)
        made[name] = values
    return pa.Table.from_pandas(pd.DataFrame(made), preserve_index=False)


def _messages(values: Sequence[Any]) -> Any:
    """Write messages as structs of text; a content that has images is JSON."""

    def plain(message: dict[str, Any]) -> dict[str, str]:
        text = message["content"]
        return {**message, "content": text if isinstance(text, str) else json.dumps(text)}

    rows = [None if found is None else list(map(plain, found)) for found in values]
    return pd.array(pa.array(rows, _MESSAGES), dtype=pd.ArrowDtype(_MESSAGES))


def _writable(column: pd.Categorical) -> Any:
    """Return choices that no file can hold as they are, such as text and numbers, as text."""
    choices = column.categories.tolist()
    words = choices_array(choices).to_pylist()
    if words == choices:
        return column
    return pd.Series([None if i < 0 else words[i] for i in column.codes.tolist()], dtype="str")


class RowNumbers(Table[pa.Table]):
    """Rows of a file, by number; the writer of the output reads their cells again."""

    columns: Sequence[str] = ()

    def __init__(self, rows: Ints | None = None) -> None:
        self.rows: Ints = np.zeros(0, np.int64) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def pieces(
        self, columns: Sequence[Any], *, index: bool = False, rows: int | None = None
    ) -> Iterator[Piece]:
        yield Piece(len(self), {}, None, 1.0, self.rows.tolist())

    def label(self, row: int) -> int:
        return int(self.rows[row])

    def numbers(self) -> Ints:
        return self.rows

    def take(self, rows: Ints) -> RowNumbers:
        return RowNumbers(self.rows[rows])

    def earlier(self, names: Sequence[str]) -> pd.DataFrame:
        return pd.DataFrame(index=range(len(self)))

    def beside_labels(self, columns: Mapping[str, Any]) -> pa.Table:
        return arrow_columns(columns)

    def with_columns(self, columns: Mapping[str, Any]) -> pa.Table:
        return arrow_columns(columns)
