"""Parquet files, and folders of them, in batches.

Comes in: a path. Goes out: plain values of the columns asked for, or batches of all columns with
their types. A file is read page by page: a row group may be larger than memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nyu_llm_frames._files.source import BYTES, ROWS, Piece
from nyu_llm_frames._frames.values import arrow_to_python
from nyu_llm_frames.errors import ConfigurationError

_BUFFER = 1 << 20


class ParquetSource:
    """A parquet file, or a folder of parquet files with one schema (hive partitions too)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._dataset = ds.dataset(
                path, format="parquet", partitioning="hive", exclude_invalid_files=False
            )
            self._files = sorted(self._dataset.get_fragments(), key=lambda f: str(f.path))
            if not self._files:
                raise ConfigurationError(f"{path} holds no parquet files.")
            opened = [self._open(f.path) for f in self._files]
            metadata = [file.metadata for file in opened]
            schemas = {
                f.path: file.schema_arrow for f, file in zip(self._files, opened, strict=True)
            }
            for file in opened:
                file.close()
        except (pa.ArrowException, OSError) as e:
            if isinstance(e, ConfigurationError):
                raise
            raise ConfigurationError(f"{path} cannot be read as parquet: {e}") from None
        self.rows = sum(m.num_rows for m in metadata)
        self._schema = _without_duplicates(_unified(self._dataset.schema, schemas), path)
        self._index = _index(self._schema)
        self._zones = _zones(self._schema)
        self._metadata = metadata
        self.columns = tuple(n for n in self._schema.names if n not in self._index.columns)
        self.files = [Path(f.path) for f in self._files]

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        extra = self._index.columns if index else []
        names = [*columns, *(n for n in extra if n not in columns)]
        done = 0
        for batch in map(self._zoned, self._batches(names)):
            values = {name: self._values(name, batch[name], done) for name in columns}
            labels = self._index.labels(batch, done) if index else None
            done += batch.num_rows
            yield Piece(batch.num_rows, values, labels, done / max(self.rows, 1))

    def _zoned(self, table: pa.Table) -> pa.Table:
        """Give times the zone that pandas gives them; other writers than pyarrow store UTC."""
        for name, zone in self._zones.items():
            if name in table.column_names and pa.types.is_timestamp(table[name].type):
                zoned = table[name].cast(pa.timestamp(table[name].type.unit, zone))
                table = table.set_column(table.column_names.index(name), name, zoned)
        return table

    def _values(self, name: str, column: pa.ChunkedArray, first: int) -> list[object]:
        try:
            return arrow_to_python(column)
        except UnicodeDecodeError as e:
            row = first + next(i for i, cell in enumerate(column) if not _is_readable(cell))
            raise ConfigurationError(
                f"{self.path}, column {name!r}, row {row:,}: the text is not UTF-8 ({e.reason}). "
                "Write the file again from where it came, read with the encoding that it has."
            ) from None

    def schema(self) -> pa.Schema:
        return self._schema

    def tables(self) -> Iterator[pa.Table]:
        return self._batches(self._schema.names)

    def _open(self, path: str) -> Any:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)

    def _batches(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Read some columns of all files, in the order of the files' names."""
        fields = [self._schema.field(name) for name in names]
        schema = pa.schema(fields, metadata=self._schema.metadata)
        size = self._batch_rows(names)
        for fragment in self._files:
            constant = ds.get_partition_keys(fragment.partition_expression)
            with self._open(fragment.path) as file:
                there = [n for n in names if n in file.schema_arrow.names]
                for rows, found in _parts(file, there, size):
                    try:
                        arrays = [_column(found, f, constant, rows) for f in fields]
                    except pa.ArrowException as e:
                        raise ConfigurationError(
                            f"{fragment.path} has values that do not fit into the types of the "
                            f"other files: {e}"
                        ) from None
                    yield pa.Table.from_arrays(arrays, schema=schema)

    def _batch_rows(self, names: Sequence[str]) -> int:
        """Return how many rows make a piece of the size wanted."""
        wanted, size = set(names), 0
        for metadata in self._metadata:
            for group in range(metadata.num_row_groups):
                row_group = metadata.row_group(group)
                for i in range(row_group.num_columns):
                    column = row_group.column(i)
                    if column.path_in_schema.split(".")[0] in wanted:
                        size += column.total_uncompressed_size
        per_row = size / max(self.rows, 1) + 1
        return int(min(ROWS, max(64, BYTES / per_row)))


def _parts(file: Any, names: list[str], size: int) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """Read a file in pieces; where no column is asked for, its rows are counted all the same."""
    if names:
        for batch in file.iter_batches(size, columns=names, use_threads=False):
            yield batch.num_rows, dict(zip(names, batch.columns, strict=True))
        return
    for start in range(0, file.metadata.num_rows, size):
        yield min(size, file.metadata.num_rows - start), {}


def _unified(schema: pa.Schema, files: dict[str, pa.Schema]) -> pa.Schema:
    """Return one schema that holds every value of all files as it is.

    Raises
    ------
    ConfigurationError
        Naming the column and both files, where there is none.
    """
    fields = {field.name: field for field in schema}
    first: dict[str, str] = {}
    if len(schema.names) != len(fields):
        return schema  # names that stand twice are refused later
    for path, theirs in files.items():
        for field in theirs:
            known = fields.get(field.name, field)
            kind = _common(known.type, field.type)
            if kind is None:
                raise ConfigurationError(
                    f"The column {field.name!r} is {known.type} in "
                    f"{first.get(field.name, next(iter(files)))} and {field.type} in {path}. Write "
                    "the files of one folder with the same types."
                )
            fields[field.name] = pa.field(field.name, kind)
            first.setdefault(field.name, path)
    return pa.schema(list(fields.values()), metadata=schema.metadata)


def _common(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both as they are; None if there is none."""
    if pa.types.is_dictionary(a) or pa.types.is_dictionary(b):
        if a == b:
            return a
        return _common(*(t.value_type if pa.types.is_dictionary(t) else t for t in (a, b)))
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    is_ = pa.types
    for alike in (is_.is_signed_integer, is_.is_unsigned_integer, is_.is_floating):
        if alike(a) and alike(b):
            return a if a.bit_width > b.bit_width else b
    if any(is_.is_integer(t) for t in (a, b)) and any(is_.is_floating(t) for t in (a, b)):
        return pa.float64()  # as pandas makes of integers beside a missing value
    for small, large in ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())):
        if {a, b} == {small, large}:
            return large
    if is_.is_timestamp(a) and is_.is_timestamp(b) and a.tz == b.tz:
        finest = max(a.unit, b.unit, key=("s", "ms", "us", "ns").index)
        return pa.timestamp(finest, a.tz)
    if all(is_.is_list(t) or is_.is_large_list(t) for t in (a, b)):
        item = _common(a.value_type, b.value_type)
        large = is_.is_large_list(a) or is_.is_large_list(b)
        return None if item is None else pa.large_list(item) if large else pa.list_(item)
    if is_.is_struct(a) and is_.is_struct(b) and [f.name for f in a] == [f.name for f in b]:
        kinds = [_common(x.type, y.type) for x, y in zip(a, b, strict=True)]
        if None not in kinds:
            return pa.struct([(f.name, kind) for f, kind in zip(a, kinds, strict=True)])
    return None


def _is_readable(cell: pa.Scalar) -> bool:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        return False
    return True


class _Index:
    """The row labels that pandas wrote beside the columns, if any."""

    def __init__(self, columns: list[str], start: int, step: int) -> None:
        self.columns, self._start, self._step = columns, start, step

    def labels(self, batch: pa.Table, done: int) -> list[object]:
        if not self.columns:
            first = self._start + done * self._step
            return list(range(first, first + batch.num_rows * self._step, self._step))
        levels = [arrow_to_python(batch[name]) for name in self.columns]
        if len(levels) == 1:
            return list(levels[0])
        return list(zip(*levels, strict=True))


def _index(schema: pa.Schema) -> _Index:
    try:
        told = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, ValueError, TypeError):
        return _Index([], 0, 1)
    names = [n for n in told if isinstance(n, str) and n in schema.names]
    if names:
        return _Index(names, 0, 1)
    for item in told:
        if isinstance(item, dict) and item.get("kind") == "range" and item.get("step"):
            return _Index([], int(item["start"]), int(item["step"]))
    return _Index([], 0, 1)


def _zones(schema: pa.Schema) -> dict[str, str]:
    """Return the zones of columns as pandas knows them."""
    try:
        columns = json.loads((schema.metadata or {})[b"pandas"])["columns"]
        return {
            column["field_name"]: column["metadata"]["timezone"]
            for column in columns
            if column["pandas_type"] == "datetimetz"
        }
    except (KeyError, ValueError, TypeError):
        return {}


def _column(
    found: dict[str, pa.Array], field: pa.Field, constant: dict[str, Any], rows: int
) -> pa.Array:
    if field.name in found:
        array = found[field.name]
        return array if array.type == field.type else array.cast(field.type)
    if field.name in constant:
        return pa.array([constant[field.name]] * rows, field.type)
    return pa.nulls(rows, field.type)


def _without_duplicates(schema: pa.Schema, path: Path) -> pa.Schema:
    twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if twice:
        raise ConfigurationError(f"{path} has {twice[0]!r} as the name of two columns.")
    return schema
