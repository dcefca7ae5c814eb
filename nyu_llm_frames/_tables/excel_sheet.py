"""Writes an Excel sheet, and refuses what its cells cannot hold.

Comes in: a source and the new columns. Goes out: a book of one sheet, or an error that names the
first cell that Excel could not hold. Nothing is cut, and no text becomes a formula.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from nyu_llm_frames._tables.excel import ExcelSource, check_openpyxl
from nyu_llm_frames._tables.frame_values import arrow_to_python
from nyu_llm_frames._tables.output_cells import as_written, flat, new_rows
from nyu_llm_frames._tables.source import Source
from nyu_llm_frames._tables.table import EXACT
from nyu_llm_frames.errors import ConfigurationError

MOST_ROWS, MOST_COLUMNS = 1_048_576, 16_384
"""Including the header; https://support.microsoft.com/office, "Excel specifications and limits"."""
LONGEST_TEXT = 32_767
_DIGITS = 15
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def too_long(text: str) -> int:
    """Return the length of a text that no cell holds whole, as Excel counts it; else 0."""
    units = len(text)
    if units > LONGEST_TEXT // 2:  # characters beyond 16 bits count twice
        units += sum(char > "\uffff" for char in text)
    return units if units > LONGEST_TEXT else 0


def _unfit(value: Any) -> str:
    """Say why a cell cannot hold a value; "" if it can."""
    if isinstance(value, str):
        if units := too_long(value):
            return f"a cell holds {LONGEST_TEXT:,} characters, and the text has {units:,}"
        found = _NOT_IN_XML.search(value)
        return f"no cell holds the character {found[0]!r}" if found else ""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int) and abs(value) > EXACT:
        return f"a cell holds whole numbers up to 2**53, not {value}"
    if isinstance(value, float) and math.isinf(value):
        return "no cell holds infinity"
    if isinstance(value, dt.date) and value.year < 1900:
        return f"a cell holds dates from 1900 on, not {value}"
    rest = value.microsecond % 1000 if isinstance(value, dt.datetime | dt.time) else 0
    if rest or getattr(value, "nanosecond", 0):
        return f"a cell holds times to the millisecond, not {value}"
    return ""


def check_sheet(source: Source, output: Path) -> None:
    """Raise if a sheet cannot hold the input."""
    check_openpyxl()
    advice = "Choose an output that ends in .parquet."
    if len(source.columns) > MOST_COLUMNS:
        raise ConfigurationError(f"{output}: a sheet holds {MOST_COLUMNS:,} columns. {advice}")
    rows = 0
    for columns in _columns(source):
        for name, values in () if isinstance(source, ExcelSource) else columns.items():
            for row, value in enumerate([name, *values], rows - 1):
                if why := _unfit(value):
                    raise _cell_error(output, name, row, why, advice)
        rows += len(next(iter(columns.values()), ()))
        if rows >= MOST_ROWS:
            raise ConfigurationError(
                f"{output}: a sheet holds {MOST_ROWS:,} rows with its header, and {source.path} "
                f"has more. {advice}"
            )


def write_sheet(
    source: Source,
    output: Path,
    file: BinaryIO,
    take: Callable[[int], pa.Table],
    names: Sequence[str],
) -> None:
    """Write input and new columns, in the input's order.

    `take` returns the new columns of the next rows, given their number.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    advice = (
        "Every answer is kept: make the same call with an output that ends in .parquet, and "
        "nothing is paid again."
    )
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = WriteOnlyCell(sheet, value)
        text.data_type = "s"  # otherwise "=1+1" is a formula and "#N/A" an error
        return text

    stored = source.schema().names
    labels = source.labels if isinstance(source, ExcelSource) else stored
    sheet.append(list(map(cell, [*labels, *(name for name in names if name not in stored)])))
    try:
        done = 0
        for columns in _columns(source):
            count = len(next(iter(columns.values())))
            table = take(count)
            is_new = new_rows(table)
            for name in names:
                values = _values(table[name])
                for row, value in enumerate(values, done):
                    if why := _unfit(value):
                        raise _cell_error(output, name, row, why, advice)
                old = columns.get(name, values)
                columns[name] = [
                    n if here else o for n, here, o in zip(values, is_new, old, strict=True)
                ]
            for row_values in zip(*columns.values(), strict=True):
                sheet.append(list(map(cell, row_values)))
            done += count
    except BaseException:
        sheet.close()
        raise
    book.save(file)


def _columns(source: Source) -> Iterator[dict[str, list[Any]]]:
    if isinstance(source, ExcelSource):
        yield from source.cells()
        return
    for table in source.tables():
        yield {name: _values(table[name]) for name in table.column_names}


def _values(column: pa.ChunkedArray) -> list[Any]:
    column = as_written(flat(column))
    if pa.types.is_decimal(column.type):
        is_short = column.type.precision <= _DIGITS
        column = column.cast(pa.float64() if is_short else pa.string())
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # years that neither Python nor a cell can hold
        values = arrow_to_python(column)
    return [None if value != value else value for value in values]


def _cell_error(output: Path, label: Any, row: int, why: str, advice: str) -> ConfigurationError:
    where = "the header" if row < 0 else f"row {row:,}"
    return ConfigurationError(f"{output}, column {label!r}, {where}: {why}. {advice}")
