"""The output file: the input's columns as they are, and the new ones beside them.

Comes in: a source and the new columns. Goes out: a CSV or parquet file that appears whole or not
at all. From CSV to CSV a record's text is copied as it stands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._sidecar.storage import atomic_file
from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.csv_text import CsvSource
from nyu_llm_frames._tables.filling import IS_NEW, beside_kept
from nyu_llm_frames._tables.json_lines import cell_text
from nyu_llm_frames._tables.source import CSV_DELIMITERS, OUTPUTS, Source
from nyu_llm_frames.errors import ConfigurationError

_GROUP_BYTES = 16 << 20
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_TEXT_EXTENSIONS = ("arrow.uuid", "arrow.json", "pandas.period", "pandas.interval")


class Columns(Protocol):
    """Where the new columns come from."""

    @property
    def schema(self) -> pa.Schema: ...
    def take(self, count: int) -> pa.Table: ...


def check_output(path: str | Path, source: Source) -> Path:
    """Return the output's path, or say why it cannot be one."""
    instead = "Give a path of this machine, and upload the file afterwards."
    output = local_path(path, "The output", instead).absolute()
    if output.suffix.lower() not in OUTPUTS:
        raise ConfigurationError(f"{output}: the output's name ends in {', '.join(OUTPUTS)}.")
    if output.is_dir():
        raise ConfigurationError(f"{output} is a folder; the output is one file.")
    if not output.parent.is_dir():
        raise ConfigurationError(f"There is no folder {output.parent} for the output.")
    if output.exists() and source.path.exists() and output.samefile(source.path):
        raise ConfigurationError(f"{output} is the input; the output needs a name of its own.")
    check_outside(output, source, "output")
    if not os.access(output.parent, os.W_OK):
        raise ConfigurationError(f"{output.parent} cannot be written to.")
    if output.suffix.lower() in CSV_DELIMITERS and not isinstance(source, CsvSource):
        for field in source.schema():
            _check_cells(field, output)
    return output


def check_outside(path: Path, source: Source, what: str) -> None:
    """Raise when a path lies in a folder that is read as the input."""
    if source.path.is_dir() and path.resolve().is_relative_to(source.path.resolve()):
        raise ConfigurationError(
            f"The {what} {path} lies in the input folder, of which every parquet file is read. "
            "Choose another place for it."
        )


def _check_cells(field: pa.Field, output: Path) -> None:
    if not _has_text(field.type):
        raise ConfigurationError(
            f"{output}: a CSV file cannot hold the column {field.name!r} ({field.type}). Choose an "
            "output that ends in .parquet, or leave the column out of the input."
        )


def _has_text(kind: pa.DataType, inside: bool = False) -> bool:
    """Whether the cells of a type are text in a CSV file; lists and structs are as JSON."""
    is_ = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return not inside and kind.extension_name in _TEXT_EXTENSIONS
    if is_.is_dictionary(kind):
        return _has_text(kind.value_type, inside)
    if is_.is_nested(kind):
        return all(_has_text(kind.field(i).type, True) for i in range(kind.num_fields))
    if is_.is_temporal(kind) or is_.is_decimal(kind):
        return not inside
    always = (is_.is_boolean, is_.is_integer, is_.is_floating, is_.is_null, *_TEXTS)
    return any(is_kind(kind) for is_kind in always)


def write(source: Source, output: Path, new: Columns, check: Callable[[], None]) -> None:
    """Write input and new columns, in the input's order.

    Parameters
    ----------
    source : Source
    output : Path
    new : Columns
    check : callable
        Raises when the file must not take its place after all; called when it is written.

    Notes
    -----
    A new column that the input has already (``if_exists="replace"``) takes its place; only in the
    rows that ``IS_NEW`` names, where there is such a column (``if_exists="fill"``).
    """
    suffix = output.suffix.lower()
    with atomic_file(output, 0o666) as file:  # like any file that a program writes here
        if suffix not in CSV_DELIMITERS:
            _write_parquet(source, file, new)
        elif isinstance(source, CsvSource):
            _copy_csv(source, file, new, CSV_DELIMITERS[suffix])
        else:
            _write_csv(source, file, new, CSV_DELIMITERS[suffix])
        check()


# --- parquet ----------------------------------------------------------------------------------
def _write_parquet(source: Source, file: BinaryIO, new: Columns) -> None:
    schema = pandas_metadata.joined(source.schema(), new.schema)
    with pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
        held: list[pa.Table] = []
        size = 0
        for table in source.tables():
            held.append(_beside(table, new.take(table.num_rows), schema))
            size += held[-1].nbytes
            if size > _GROUP_BYTES:
                writer.write_table(pa.concat_tables(held))
                held, size = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))


def _beside(table: pa.Table, new: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for name in schema.names:
        column = new[name] if name in new.schema.names else table[name]
        if IS_NEW in new.schema.names and name in new.schema.names and name in table.schema.names:
            column = beside_kept(name, column, new[IS_NEW], table[name])
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


# --- CSV --------------------------------------------------------------------------------------
def _copy_csv(source: CsvSource, file: BinaryIO, new: Columns, delimiter: str) -> None:
    names = new.schema.names
    replaced = [name for name in names if name in source.columns]
    added = [name for name in names if name not in source.columns]
    as_it_is = not replaced and delimiter == source.delimiter
    end = source.line_end
    line = Line(delimiter)
    if source.has_mark:
        file.write(b"\xef\xbb\xbf")
    header = source.header_text.rstrip("\r\n")
    if delimiter != source.delimiter:
        header = line.join(source.columns)
    file.write((delimiter.join([header, *map(line.cell, added)]) + end).encode())
    for records in source.records():
        table = new.take(len(records.fields))
        cells = {name: line.cells(table[name]) for name in names}
        fills = IS_NEW in table.column_names
        is_new = table[IS_NEW].to_pylist() if fills else [True] * table.num_rows
        if as_it_is:
            left: Sequence[str] = records.texts
        else:
            for name, place in zip(replaced, source.places(replaced), strict=True):
                new_cells = zip(records.fields, table[name].to_pylist(), is_new, strict=True)
                for row, cell, new_here in new_cells:
                    if new_here:
                        row[place] = plain_text(cell)
            left = [line.join(row) for row in records.fields]
        beside = [cells[name] for name in added]
        lines = [delimiter.join(row) + end for row in zip(left, *beside, strict=True)]
        file.write("".join(lines).encode("utf-8", "surrogatepass"))


def _write_csv(source: Source, file: BinaryIO, new: Columns, delimiter: str) -> None:
    schema = pandas_metadata.joined(source.schema(), new.schema)
    options = pacsv.WriteOptions(include_header=False, delimiter=delimiter)
    line = Line(delimiter)
    file.write((line.join(schema.names) + "\n").encode())
    for table in source.tables():
        joined = _beside(table, new.take(table.num_rows), schema)
        flat = [_flat(column) for column in joined.columns]
        pacsv.write_csv(pa.Table.from_arrays(flat, names=schema.names), file, options)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn what a CSV cell cannot hold into text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_duration(kind):
        texts = [None if pd.isna(v) else str(v) for v in column.to_pandas()]
        return pa.chunked_array([texts], pa.string())
    if pa.types.is_nested(kind):
        return pa.chunked_array([[cell_text(v) for v in column.to_pylist()]], pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column


class Line:
    """Cells of a CSV line, quoted where they must be."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._special = re.compile(f'[{re.escape(delimiter)}"\r\n]').search

    def cell(self, text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if self._special(text) else text

    def join(self, texts: Sequence[str]) -> str:
        return self._delimiter.join(map(self.cell, texts))

    def cells(self, column: pa.ChunkedArray) -> list[str]:
        """Return a column's cells; null is empty, an empty text is quoted."""
        return ['""' if v == "" else self.cell(plain_text(v)) for v in column.to_pylist()]


def plain_text(value: Any) -> str:
    """Return the text of a cell that pandas.to_csv would write."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict | list):
        return cell_text(value) or ""
    return value.isoformat(" ") if hasattr(value, "hour") else str(value)
