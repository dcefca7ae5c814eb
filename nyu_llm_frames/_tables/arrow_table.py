"""An Arrow table, and so anything with an Arrow stream: DuckDB, pyarrow, ibis.

Comes in: a `pyarrow.Table`. Goes out: the same with new columns; pandas' metadata in its schema
stays true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from nyu_llm_frames._stages.requests.bodies import ROWS_AT_ONCE
from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.arrow_columns import arrow_columns
from nyu_llm_frames._tables.arrow_rows import ArrowRows
from nyu_llm_frames._tables.columns import NULLABLE
from nyu_llm_frames._tables.table import Ints, Piece, Table


class ArrowTable(Table[pa.Table]):
    """An Arrow table; an index that pandas stored in it counts as its index."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._rows = ArrowRows(table.schema, "The table")
        self.index_names = self._rows.index_names

    @property
    def columns(self) -> Sequence[str]:
        return self._rows.columns

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def pieces(
        self, columns: Sequence[Any], *, index: bool = False, rows: int | None = None
    ) -> Iterator[Piece]:
        # At least one column: a slice without columns has as many rows as were requested.
        some = self.table.select(self._rows.names(columns, index) or [0][: self.table.num_columns])
        size = rows or ROWS_AT_ONCE
        batches = (some.slice(start, size) for start in range(0, len(self), size))
        return self._rows.pieces(batches, columns, index, len(self))

    def take(self, rows: Ints) -> ArrowTable:
        try:
            return ArrowTable(self.table.take(pa.array(rows)))
        except pa.ArrowNotImplementedError:  # of views, as of DataFusion, and runs of equal values
            parts = [self.table.slice(row, 1) for row in rows.tolist()]
            return ArrowTable(pa.concat_tables([self.table.slice(0, 0), *parts]))

    def earlier(self, names: Sequence[str]) -> pd.DataFrame:
        return earlier(self.table.select([n for n in names if n in self.columns]))

    def beside_labels(self, columns: Mapping[str, Any]) -> pa.Table:
        return _beside(self.table.select(self._rows.names((), True)), arrow_columns(columns))

    def with_columns(self, columns: Mapping[str, Any]) -> pa.Table:
        return _beside(self.table, arrow_columns(columns))

    def with_record(self, table: Any, name: str, record: Mapping[str, Any]) -> Any:
        metadata = {**(table.schema.metadata or {}), name.encode(): json.dumps(record).encode()}
        return table.replace_schema_metadata(metadata)


def _beside(table: pa.Table, new: pa.Table) -> pa.Table:
    schema = pandas_metadata.joined(table.schema, new.schema)
    arrays = [  # by place: a name may come twice
        new[name] if name in new.column_names else table.column(place)
        for place, name in enumerate(schema.names)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _signed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return choices with signed indices: Polars has unsigned ones, which pandas does not take."""
    kind = pa.dictionary(pa.int32(), column.type.value_type)
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary)
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, kind)


def earlier(table: pa.Table) -> pd.DataFrame:
    """Return columns of an earlier call as pandas has them."""

    def dtype(kind: pa.DataType) -> Any:
        return pd.ArrowDtype(kind) if pa.types.is_nested(kind) else NULLABLE.get(kind)

    plain = table.replace_schema_metadata(None)
    for number, field in enumerate(plain.schema):
        if pa.types.is_dictionary(field.type) and pa.types.is_unsigned_integer(
            field.type.index_type
        ):
            plain = plain.set_column(number, field.name, _signed(plain.column(number)))
    none = pd.DataFrame(index=range(table.num_rows))
    found: pd.DataFrame = plain.to_pandas(types_mapper=dtype) if plain.num_columns else none
    return found
