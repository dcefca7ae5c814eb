"""Writes JSON lines: objects copied as they are, or made from typed columns.

Comes in: a source and the new columns. Goes out: one object a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.filling import IS_NEW
from nyu_llm_frames._tables.frame_values import decoded, is_encoded
from nyu_llm_frames._tables.json_lines import JsonLinesSource, json_text
from nyu_llm_frames._tables.output_cells import as_written, beside, flat
from nyu_llm_frames._tables.source import Source
from nyu_llm_frames.errors import ConfigurationError

Take = Callable[[int], pa.Table]


def check_numbers(source: Source, output: Path) -> None:
    """Raise if JSON cannot hold a number of the input."""
    names = [field.name for field in source.schema() if _holds_floats(field.type)]
    for table in source.tables() if names else ():
        for name in names:
            if any(pc.any(pc.is_inf(part)).as_py() for part in _floats(table[name])):
                raise ConfigurationError(
                    f"{output}: JSON has no infinity, and the column {name!r} has. Choose an "
                    "output that ends in .parquet."
                )


def _holds_floats(kind: pa.DataType) -> bool:
    if is_encoded(kind):
        return _holds_floats(kind.value_type)
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return bool(pa.types.is_floating(kind)) or any(map(_holds_floats, inner))


def _floats(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Yield the floats of a column, those in lists and structs too."""
    column = decoded(column)
    if pa.types.is_floating(column.type):
        yield column.cast(pa.float64())
    elif pa.types.is_nested(column.type) and not pa.types.is_union(column.type):
        for chunk in column.chunks:
            inner = chunk.flatten()
            for part in inner if isinstance(inner, list) else [inner]:
                yield from _floats(pa.chunked_array([part]))


def write_json(source: Source, file: BinaryIO, take: Take, new: pa.Schema) -> None:
    """Write input and new columns, in the input's order.

    `take` returns the new columns of the next rows, given their number; `new` is their schema.
    """
    for line in (
        _copied(source, take) if isinstance(source, JsonLinesSource) else _made(source, take, new)
    ):
        file.write(line + b"\n")


def _copied(source: JsonLinesSource, take: Take) -> Iterator[bytes]:
    for rows, texts, _ in source.objects():
        for row, text, new in zip(rows, texts, _objects(take(len(rows))), strict=True):
            if not new.pop(IS_NEW, True):  # the old cells stay
                new = {name: v for name, v in new.items() if name not in source.columns}
            if new.keys() & row.keys():
                yield _encoded(row | new)
            elif new:
                yield text[:-1].rstrip() + (b", " if row else b"") + _encoded(new)[1:]
            else:
                yield text


def _made(source: Source, take: Take, new: pa.Schema) -> Iterator[bytes]:
    schema = pandas_metadata.joined(source.schema(), new)
    for table in source.tables():
        yield from map(_encoded, _objects(beside(table, take(table.num_rows), schema)))


def _objects(table: pa.Table) -> Iterator[dict[str, Any]]:
    columns = [_values(column) for column in table.columns]
    for row in zip(*columns, strict=True):
        yield dict(zip(table.column_names, row, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    column = as_written(flat(column, nested=True))
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _encoded(row: dict[str, Any]) -> bytes:
    return json_text(row).encode("utf-8", "surrogatepass")
