"""Turns Arrow batches into pieces of a table, with the row labels that pandas stored.

Comes in: a schema, then batches of some of its columns. Goes out: pieces of plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.frame_values import arrow_to_python, undecodable
from nyu_llm_frames._tables.table import Piece
from nyu_llm_frames.errors import ConfigurationError


class ArrowRows:
    """The columns and labels of a schema; `where` says in messages what has it."""

    def __init__(self, schema: pa.Schema, where: str) -> None:
        self._where = where
        self._labels = pandas_metadata.index_columns(schema)
        self._start, self._step = pandas_metadata.range_index(schema)
        self._zones = pandas_metadata.zones(schema)
        self.columns = tuple(name for name in schema.names if name not in self._labels)
        self.index_names = tuple(pandas_metadata.index_names(schema))
        if pandas_metadata.has_levels(schema):
            raise ConfigurationError(
                f"{where} has columns of several levels, which a template cannot name. Flatten "
                'them and write it again: df.columns = ["_".join(map(str, c)) for c in df.columns]'
            )

    def names(self, columns: Sequence[str], index: bool) -> list[str]:
        """Return the columns to read for some columns, and for the labels."""
        return list(dict.fromkeys((*columns, *(self._labels if index else ()))))

    def pieces(
        self, batches: Iterable[pa.Table], columns: Sequence[str], index: bool, rows: int
    ) -> Iterator[Piece]:
        """Turn batches of `names` into pieces of a table of so many rows."""
        done = 0
        for batch in map(self._zoned, batches):
            names = self.names(columns, index)
            found = {name: self._values(name, batch[name], done) for name in names}
            values = {name: found[name] for name in columns}
            labels = self._index(batch.num_rows, done, found) if index else None
            done += batch.num_rows
            yield Piece(batch.num_rows, values, labels, done / max(rows, 1))

    def _index(self, rows: int, done: int, found: dict[str, list[object]]) -> list[object]:
        if not self._labels:
            return [self._start + (done + i) * self._step for i in range(rows)]
        levels = [found[name] for name in self._labels]
        return list(zip(*levels, strict=True)) if len(levels) > 1 else levels[0]

    def _zoned(self, table: pa.Table) -> pa.Table:
        """Give times the zone that pandas gives them; writers other than pyarrow store UTC."""
        for name, zone in self._zones.items():
            if name in table.column_names and pa.types.is_timestamp(table[name].type):
                zoned = table[name].cast(pa.timestamp(table[name].type.unit, zone))
                table = table.set_column(table.column_names.index(name), name, zoned)
        return table

    def _values(self, name: str, column: pa.ChunkedArray, first: int) -> list[object]:
        try:
            return arrow_to_python(column)
        except UnicodeDecodeError as e:
            row = first + undecodable(column)[0]
            raise ConfigurationError(
                f"{self._where}, column {name!r}, row {row:,}: the text is not UTF-8 ({e.reason}). "
                "Write it again from its source, read with the right encoding."
            ) from None


def without_duplicates(schema: pa.Schema, where: object) -> pa.Schema:
    """Return a schema after checking that no name appears twice."""
    twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if twice:
        raise ConfigurationError(
            f"{where} has {twice[0]!r} as the name of two columns. Write it again with other names."
        )
    return schema
