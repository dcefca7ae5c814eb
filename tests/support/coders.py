"""People who code: fill in a coder's file, as a spreadsheet program leaves it.

Comes in: a path and codes by unit. Goes out: the same file, coded.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sheet_rows(path: Path) -> list[list[str]]:
    """Read a file without the package under test; empty cells are ""."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.reader(file))
    import openpyxl

    sheet = openpyxl.load_workbook(path).worksheets[0]
    return [["" if v is None else str(v) for v in row] for row in sheet.values]


def units_of(path: Path) -> list[str]:
    """Return the units of a coder's file, in its order."""
    return [row[0] for row in sheet_rows(path)[1:]]


def codes_of(path: Path) -> dict[str, str]:
    """Return what stands in the column of codes, by unit."""
    header, *rows = sheet_rows(path)
    place = header.index("code")
    return {row[0]: row[place] for row in rows if row[place]}


def fill(path: Path, codes: Mapping[str, Any], column: str = "code") -> None:
    """Type codes into a file."""
    if path.suffix == ".csv":
        rows = sheet_rows(path)
        place = rows[0].index(column)
        for row in rows[1:]:
            row[place] = str(codes.get(row[0], row[place]))
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows(rows)
        return
    import openpyxl

    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    place = [cell.value for cell in sheet[1]].index(column) + 1
    for number in range(2, sheet.max_row + 1):
        unit = sheet.cell(number, 1).value
        if unit in codes:
            sheet.cell(number, place).value = codes[unit]
    book.save(path)
