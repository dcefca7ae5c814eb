"""Writes the output file: the input's columns unchanged, and the new ones beside them.

Comes in: a source and the new columns. Goes out: a file that appears whole or not at all. From CSV
to CSV, and from JSON lines to JSON lines, a record's text is copied unchanged.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._sidecar.storage import atomic_file
from nyu_llm_frames._tables import pandas_metadata
from nyu_llm_frames._tables.csv_text import CsvSource
from nyu_llm_frames._tables.excel_sheet import check_sheet, write_sheet
from nyu_llm_frames._tables.frame_values import is_encoded, without_views
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.json_lines import JsonLinesSource
from nyu_llm_frames._tables.json_output import check_numbers, write_json
from nyu_llm_frames._tables.output_cells import (
    as_written,
    beside,
    flat,
    has_text,
    new_rows,
    plain_text,
)
from nyu_llm_frames._tables.source import CSV_DELIMITERS, JSON_LINES, PARQUET, TEXTS, Source
from nyu_llm_frames._tables.text_file import COMPRESSED, compressed, text_suffix
from nyu_llm_frames.errors import ConfigurationError

_GROUP_BYTES = 16 << 20
_FEATHER, _EXCEL = (".feather", ".arrow"), ".xlsx"
OUTPUTS = (*TEXTS, *PARQUET, *_FEATHER, _EXCEL)


def check_output(path: str | Path, source: Source) -> Path:
    """Return the output's path, or raise if it cannot be one."""
    instead = "Give a path of this machine, and upload the file afterward."
    output = local_path(path, "The output", instead).absolute()
    suffix = text_suffix(output)
    if suffix not in (TEXTS if output.suffix.lower() in COMPRESSED else OUTPUTS):
        raise ConfigurationError(
            f"{output}: the output's name ends in {', '.join(OUTPUTS)} (text also in .gz or .zst)."
        )
    if output.is_dir():
        raise ConfigurationError(f"{output} is a folder; the output is one file.")
    if not output.parent.is_dir():
        raise ConfigurationError(f"There is no folder {output.parent} for the output.")
    if output.exists() and any(f.exists() and output.samefile(f) for f in source.files):
        raise ConfigurationError(f"{output} is the input; the output needs another name.")
    check_outside(output, source, "output")
    if not os.access(output.parent, os.W_OK):
        raise ConfigurationError(f"{output.parent} cannot be written to.")
    if suffix == _EXCEL or (suffix in TEXTS and not _is_copied(source, suffix)):
        for field in source.schema():
            _check_cells(field, output, suffix)
        if suffix == _EXCEL:
            check_sheet(source, output)
        elif suffix in JSON_LINES:
            check_numbers(source, output)
    elif suffix not in TEXTS and not isinstance(source, CsvSource | JsonLinesSource):
        for field in source.schema():
            _check_type(field, output, suffix in _FEATHER)
    return output


def is_typed(output: Path) -> bool:
    """Whether every column of the input gets a type in an output."""
    return text_suffix(output) not in CSV_DELIMITERS


def joins_types(source: Source, output: Path) -> bool:
    """Whether old and new cells of one column must have one type."""
    suffix = text_suffix(output)
    if suffix in CSV_DELIMITERS or suffix in JSON_LINES:
        return not _is_copied(source, suffix)
    return suffix != _EXCEL


def _is_copied(source: Source, suffix: str) -> bool:
    """Whether the text of records stays unchanged."""
    if suffix in JSON_LINES:
        return isinstance(source, JsonLinesSource)
    return isinstance(source, CsvSource)


def check_outside(path: Path, source: Source, what: str) -> None:
    """Raise if a path is in a folder that is read as the input."""
    if source.path.is_dir() and path.resolve().is_relative_to(source.path.resolve()):
        raise ConfigurationError(
            f"The {what} {path} is in the input folder, where every file is read. Choose another "
            "place for it."
        )


def _check_cells(field: pa.Field, output: Path, suffix: str) -> None:
    kind = field.type.value_type if is_encoded(field.type) else field.type
    has_zone = pa.types.is_timestamp(kind) and kind.tz is not None
    if not has_text(field.type) or (suffix == _EXCEL and has_zone):
        what = "an Excel" if suffix == _EXCEL else "a JSON" if suffix in JSON_LINES else "a CSV"
        raise ConfigurationError(
            f"{output}: {what} file cannot hold the column {field.name!r} ({field.type}). Choose "
            "an output that ends in .parquet or .feather, or leave the column out of the input."
        )


# Choices that pyarrow cannot write, as only rows of them show, or writes as numbers without a word.
_LOST_CHOICES = {
    ".parquet": (pa.types.is_duration, pa.types.is_nested),
    ".feather": (pa.types.is_float16,),
}


def _check_type(field: pa.Field, output: Path, is_feather: bool) -> None:
    """Raise if pyarrow cannot write a type; it is asked with a table without rows."""
    kind, lost = field.type, _LOST_CHOICES[".feather" if is_feather else ".parquet"]
    can_write = not (pa.types.is_dictionary(kind) and any(is_(kind.value_type) for is_ in lost))
    schema = pa.schema([field if is_feather else _for_parquet(field)])
    if can_write:
        try:
            with _typed_writer(io.BytesIO(), schema, is_feather) as writer:
                writer.write_table(schema.empty_table())
        except (pa.ArrowException, NotImplementedError):
            can_write = False
    if not can_write:
        raise ConfigurationError(
            f"{output}: a {'Feather' if is_feather else 'parquet'} file cannot hold the column "
            f"{field.name!r} ({kind}). Give it another type in the input, or leave it out."
        )


def _for_parquet(field: pa.Field) -> pa.Field:
    """Return a column as parquet can hold it: it has no choices of views, as Polars writes them."""
    return field.with_type(without_views(field.type, only_choices=True))


def write(source: Source, output: Path, new: NewColumns, check: Callable[[], None]) -> None:
    """Write input and new columns, in the input's order.

    A new column replaces one of the same name in the input (``if_exists="replace"``); with a column
    `IS_NEW` only in the rows that it marks (``if_exists="fill"``). Once the file is written,
    `check` raises if it must not be put in place after all.
    """
    suffix = text_suffix(output)
    with atomic_file(output, 0o666) as whole:  # like any file that a program writes here
        with compressed(whole, output) as file:
            if suffix in JSON_LINES:
                write_json(source, file, new.take, new.schema)
            elif suffix == _EXCEL:
                write_sheet(source, output, file, new.take, new.schema.names)
            elif suffix not in CSV_DELIMITERS:
                _write_typed(source, file, new, suffix in _FEATHER)
            elif isinstance(source, CsvSource):
                _copy_csv(source, file, new, CSV_DELIMITERS[suffix])
            else:
                _write_csv(source, file, new, CSV_DELIMITERS[suffix])
        check()


# --- parquet and Feather ----------------------------------------------------------------------
def _write_typed(source: Source, file: BinaryIO, new: NewColumns, is_feather: bool) -> None:
    schema = pandas_metadata.joined(source.schema(), new.schema)
    if not is_feather:
        schema = pa.schema(map(_for_parquet, schema), metadata=schema.metadata)
    with _typed_writer(file, schema, is_feather) as writer:
        held: list[pa.Table] = []
        size = 0
        for table in source.tables():
            held.append(beside(table, new.take(table.num_rows), schema))
            size += held[-1].nbytes
            if size > _GROUP_BYTES:
                writer.write_table(pa.concat_tables(held))
                held, size = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))


def _typed_writer(file: BinaryIO, schema: pa.Schema, is_feather: bool) -> Any:
    if is_feather:
        return _FeatherWriter(file, schema)
    return pq.ParquetWriter(file, schema, compression="zstd", compression_level=1)


class _FeatherWriter:
    """An Arrow IPC file; later choices are added to those already written."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        # Polars panics over compressed views in which all texts are short.
        compression = None if any("_view" in str(field.type) for field in schema) else "lz4"
        options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
        self._writer = pa.ipc.new_file(file, schema, options=options)
        self._known = schema.empty_table()

    def __enter__(self) -> _FeatherWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_table(self, table: pa.Table) -> None:
        unified = pa.concat_tables([self._known, table]).unify_dictionaries()
        self._writer.write_table(unified.combine_chunks())
        self._known = unified.slice(0, 0)


# --- CSV --------------------------------------------------------------------------------------
def _copy_csv(source: CsvSource, file: BinaryIO, new: NewColumns, delimiter: str) -> None:
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
        is_new = new_rows(table)
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


def _write_csv(source: Source, file: BinaryIO, new: NewColumns, delimiter: str) -> None:
    schema = pandas_metadata.joined(source.schema(), new.schema)
    options = pacsv.WriteOptions(include_header=False, delimiter=delimiter)
    line = Line(delimiter)
    file.write((line.join(schema.names) + "\n").encode())
    for table in source.tables():
        joined = beside(table, new.take(table.num_rows), schema)
        columns = [_text_cells(column) for column in joined.columns]
        pacsv.write_csv(pa.Table.from_arrays(columns, names=schema.names), file, options)


def _text_cells(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn values that pyarrow cannot write to CSV into text."""
    column = flat(column)
    if pa.types.is_float16(column.type):
        return as_written(column)
    is_view = pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_view or pa.types.is_decimal(column.type) else column


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
        """Return a column's cells; null is empty, empty text is quoted."""
        return ['""' if v == "" else self.cell(plain_text(v)) for v in column.to_pylist()]
