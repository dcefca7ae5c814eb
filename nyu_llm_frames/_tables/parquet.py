"""Reads parquet files, and folders of them, in batches.

Comes in: a path. Goes out: plain values of the requested columns, or batches of all columns with
their types. A file is read page by page: a row group may be larger than memory.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nyu_llm_frames._shared.local_path import natural_order
from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.arrow_rows import ArrowRows, without_duplicates
from nyu_llm_frames._tables.table import BYTES, ROWS, Piece
from nyu_llm_frames.errors import ConfigurationError

_BUFFER = 1 << 20
_OPTIONS = {"buffer_size": _BUFFER, "pre_buffer": False, "page_checksum_verification": True}
if "arrow_extensions_enabled" in inspect.signature(pq.ParquetFile).parameters:
    _OPTIONS["arrow_extensions_enabled"] = True  # UUID and JSON, as pandas reads them

_SIGNATURE_BYTES = 28
_TAIL_BYTES = 8


class ParquetSource:
    """A parquet file, a folder of them with one schema (hive partitions too), or a list."""

    kind = "parquet"

    def __init__(self, path: Path, files: Sequence[Path] | None = None) -> None:
        self.path = path
        try:
            schema = None
            self._files: list[tuple[str, dict[str, Any]]] = [(str(f), {}) for f in files or ()]
            if files is None:
                dataset = ds.dataset(
                    path, format="parquet", partitioning="hive", exclude_invalid_files=False
                )
                schema = dataset.schema
                for part in sorted(dataset.get_fragments(), key=lambda f: natural_order(f.path)):
                    keys = ds.get_partition_keys(part.partition_expression)
                    self._files.append((part.path, keys))
            if not self._files:
                raise ConfigurationError(f"{path} holds no parquet files.")
            schemas = {}
            self.rows = size = 0
            for file, _ in self._files:
                schemas[file], rows, bytes_ = self._measure(file)
                self.rows += rows
                size += bytes_
            schema = schema or schemas[self._files[0][0]]
        except (pa.ArrowException, OSError, ValueError) as e:
            if isinstance(e, ConfigurationError):
                raise
            if "encrypted" in str(e):
                raise _encrypted(path) from None
            raise ConfigurationError(f"{path} cannot be read as {self.kind}: {e}") from None
        self._rows_at_once = int(min(ROWS, max(64, BYTES / (size / max(self.rows, 1) + 1))))
        self._schema = without_duplicates(_unified(schema, schemas), path)
        self._rows = ArrowRows(self._schema, str(path))
        self.columns, self.index_names = self._rows.columns, self._rows.index_names
        if not self.columns:
            raise ConfigurationError(
                f"{path} has no columns. Turn an index into columns with df.reset_index()."
            )
        self.files = [Path(file) for file, _ in self._files]

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        batches = self._batches(self._rows.names(columns, index))
        return self._rows.pieces(batches, columns, index, self.rows)

    def schema(self) -> pa.Schema:
        return self._schema

    def tables(self) -> Iterator[pa.Table]:
        return self._batches(self._schema.names)

    def _batches(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Read some columns of all files, in the order of the files' names."""
        fields = [self._schema.field(name) for name in names]
        schema = pa.schema(fields, metadata=self._schema.metadata)
        for file, constant in self._files:
            for rows, found in self._parts(file, names, self._rows_at_once):
                try:
                    arrays = [_column(found, f, constant, rows) for f in fields]
                except pa.ArrowException as e:
                    raise ConfigurationError(
                        f"{file} has values that do not fit into the types of the other files: {e}"
                    ) from None
                yield pa.Table.from_arrays(arrays, schema=schema)

    def notes(self, columns: Sequence[str]) -> list[str]:
        return []

    def _measure(self, path: str) -> tuple[pa.Schema, int, int]:
        """Return schema, rows and bytes of a file."""
        with _open(path) as file:
            return file.schema_arrow, file.metadata.num_rows, _bytes_of(file.metadata)

    def _parts(
        self, path: str, names: Sequence[str], size: int
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Read a file in pieces; without any column its rows are still counted."""
        try:
            with _open(path) as file:
                there = [name for name in names if name in file.schema_arrow.names]
                if not there:
                    for start in range(0, file.metadata.num_rows, size):
                        yield min(size, file.metadata.num_rows - start), {}
                    return
                for batch in file.iter_batches(size, columns=there, use_threads=False):
                    # By name: "a.b" is also read as the field b of a column a.
                    yield batch.num_rows, dict(zip(batch.schema.names, batch.columns, strict=True))
        except (pa.ArrowException, OSError) as e:
            raise _unreadable(path, names, e) from None


def _open(path: str) -> Any:
    """Open a file, unless it has encrypted columns.

    Its footer can still be read. It is signed: a signature of fixed length follows it.
    """
    file = pq.ParquetFile(path, **_OPTIONS)
    with Path(path).open("rb") as tail:
        tail.seek(-_TAIL_BYTES, 2)
        length = int.from_bytes(tail.read(4), "little")
    if length - file.metadata.serialized_size == _SIGNATURE_BYTES:
        file.close()
        raise _encrypted(path)
    return file


def _bytes_of(metadata: pq.FileMetaData) -> int:
    """Return the size of a file's data before compression.

    Not of single columns: pyarrow aborts if the metadata of a column cannot be read.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return sum(max(group.total_byte_size, 0) for group in groups)


def _encrypted(path: str | Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} has encrypted columns, which cannot be read without their keys. Read it where the "
        "keys are, and write it again without encryption."
    )


def _unreadable(path: str, names: Sequence[str], error: Exception) -> ConfigurationError:
    """Find the part of a file that cannot be read."""
    if isinstance(error, OSError) and error.errno:
        return ConfigurationError(f"{path} cannot be read: {os.strerror(error.errno)}.")
    where = ""
    with contextlib.suppress(OSError, pa.ArrowException), _open(path) as file:
        for group, name in product(range(file.num_row_groups), names):
            try:
                for _ in file.iter_batches(1_000, row_groups=[group], columns=[name]):
                    pass
            except (pa.ArrowException, OSError) as e:
                where, error = f", column {name!r} in row group {group:,}", e
                break
    reason = " ".join(str(error).split()).rstrip(".")
    return ConfigurationError(
        f"{path}{where} cannot be read: {reason}. If the file is damaged, copy or write it "
        "again, and make the same call: answered rows are not paid again."
    )


def _is_common(key: bytes, value: bytes, other: pa.Field) -> bool:
    """Whether a label of a column holds for another file: Polars reads other choices as null."""
    return not key.startswith(b"_PL_") or (other.metadata or {}).get(key) == value


def _unified(schema: pa.Schema, files: dict[str, pa.Schema]) -> pa.Schema:
    """Return one schema that can hold every value of all files unchanged."""
    fields = {field.name: field for field in schema}
    first: dict[str, str] = {}
    changed = set()
    if len(schema.names) != len(fields):
        return schema  # duplicate names are refused later
    for path, theirs in files.items():
        for field in theirs:
            known = fields[field.name] if field.name in first else field
            kind = _common(known.type, field.type)
            if kind is None:
                raise ConfigurationError(
                    f"The column {field.name!r} is {known.type} in {first[field.name]} and "
                    f"{field.type} in {path}. Write the files of one folder with the same types."
                )
            if kind != known.type:
                changed.add(field.name)
            nullable = known.nullable or field.nullable
            labels = {k: v for k, v in (known.metadata or {}).items() if _is_common(k, v, field)}
            fields[field.name] = pa.field(field.name, kind, nullable, labels)
            first.setdefault(field.name, path)
    for name in first:
        if any(name not in theirs.names for theirs in files.values()):
            fields[name] = fields[name].with_nullable(True)
    unified = pa.schema(list(fields.values()), metadata=schema.metadata)
    return pandas_metadata.without_types(unified, changed)


def _common(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return a type that can hold the values of both unchanged; None if there is none."""
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
        return pa.float64()  # as in pandas for integers with a missing value
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


def _column(
    found: dict[str, pa.Array], field: pa.Field, constant: dict[str, Any], rows: int
) -> pa.Array:
    if field.name in found:
        array = found[field.name]
        return array if array.type == field.type else array.cast(field.type)
    if field.name in constant:
        return pa.array([constant[field.name]] * rows, field.type)
    return pa.nulls(rows, field.type)
