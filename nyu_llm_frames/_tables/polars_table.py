"""A Polars frame as a table.

Comes in: a `polars.DataFrame`, or a `LazyFrame`, which is collected once. Goes out: the same kind
with new columns: text as String, choices and statuses as Enum in their order, Int64, Boolean,
Float64, List and Struct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from nyu_llm_frames._shared.options import current
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._stages.requests.bodies import ROWS_AT_ONCE
from nyu_llm_frames._tables.arrow_columns import arrow_columns
from nyu_llm_frames._tables.arrow_table import earlier
from nyu_llm_frames._tables.frame_values import arrow_to_python
from nyu_llm_frames._tables.table import Ints, Piece, Table
from nyu_llm_frames.errors import ConfigurationError

_WIDE = {"Int128": "Int64", "UInt128": "UInt64"}


class PolarsTable(Table[Any]):
    """A Polars frame. Its rows have only numbers as labels."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame.clone()

    @property
    def columns(self) -> Sequence[str]:
        return self.frame.columns

    def __len__(self) -> int:
        return self.frame.height

    def pieces(
        self, columns: Sequence[Any], *, index: bool = False, rows: int | None = None
    ) -> Iterator[Piece]:
        for name in columns:
            _check(name, self.frame.schema[name])
        size = rows or ROWS_AT_ONCE
        for start in range(0, len(self), size):
            part = self.frame[start : start + size]
            cells = _arrow(part.select(columns))
            values = {name: arrow_to_python(cells[name]) for name in columns}
            labels = range(start, start + part.height)
            yield Piece(part.height, values, list(labels) if index else None, labels=labels)

    def take(self, rows: Ints) -> PolarsTable:
        return PolarsTable(self.frame[rows] if len(rows) else self.frame.clear())

    def earlier(self, names: Sequence[str]) -> pd.DataFrame:
        there = [name for name in names if name in self.frame.columns]
        found = earlier(_arrow(self.frame.select(there)))
        return found if there else pd.DataFrame(index=range(len(self)))

    def as_pandas(self) -> pd.DataFrame:
        for name, kind in self.frame.schema.items():
            _check(name, kind)
        found = PolarsTable(self.frame.fill_nan(None)).earlier(self.columns)
        for name in found.select_dtypes("category").columns:
            # Every Enum has an order, so the order does not say that its labels are ordinal.
            found[name] = found[name].cat.as_unordered()
        return found

    def beside_labels(self, columns: Mapping[str, Any]) -> Any:
        return pl.DataFrame(_series(arrow_columns(columns)))

    def with_columns(self, columns: Mapping[str, Any]) -> Any:
        return self.frame.with_columns(_series(arrow_columns(columns)))


class LazyTable(PolarsTable):
    """A collected LazyFrame; with new columns it is lazy again."""

    def in_memory(self) -> PolarsTable:
        return PolarsTable(self.frame)

    def take(self, rows: Ints) -> LazyTable:
        return LazyTable(super().take(rows).frame)

    def with_columns(self, columns: Mapping[str, Any]) -> pl.LazyFrame:
        out: pl.LazyFrame = super().with_columns(columns).lazy()
        return out


def _check(name: str, kind: Any) -> None:
    """Refuse cells that Arrow cannot hold unchanged."""
    inner = getattr(kind, "inner", None)
    for below in [inner] if inner else [field.dtype for field in getattr(kind, "fields", ())]:
        _check(name, below)
    type_name = str(kind)
    if isinstance(kind, pl.Object):
        raise ConfigurationError(
            f"The column {name!r} has Polars' type Object. Its cells are addresses in memory: they "
            "would be other requests, and paid again, in every process. Turn it into text or "
            "another type first, as in pl.Series([str(v) for v in cells])."
        )
    if type_name in _WIDE:
        raise ConfigurationError(
            f"The column {name!r} is {type_name}, which Arrow does not have. Cast it first: "
            f'df.with_columns(pl.col("{name}").cast(pl.{_WIDE[type_name]})), or to pl.String where '
            "the numbers are larger."
        )


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _series(table: pa.Table) -> list[pl.Series]:
    out = []
    for name in table.column_names:
        column = table[name]
        words = None
        if pa.types.is_dictionary(column.type):
            words = column.combine_chunks().dictionary
            column = column.cast(words.type)
        series = pl.Series(name, column)
        is_text = words is not None and series.dtype == pl.String
        out.append(series.cast(pl.Enum(words.to_pylist())) if is_text and words else series)
    return out


def collected(query: pl.LazyFrame, first: int | None) -> pl.DataFrame:
    """Run a query now, and report it; or as much of it as its first rows need."""
    if first is not None:
        return query.head(first).collect()
    Reporter(current().progress).note("collecting the LazyFrame now")
    return query.collect()
