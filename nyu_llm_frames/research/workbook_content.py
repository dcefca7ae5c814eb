"""Compare workbooks: cells, and the parts that openpyxl does not keep.

Comes in: the bytes of two .xlsx files. Goes out: what the first has and the second has not.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from typing import Any

import openpyxl

from nyu_llm_frames.research.cell_damage import plain_text

# Parts of the file (ECMA-376, part 1, 15) that hold a user's work, and their names for people.
_PARTS = {
    "xl/threadedComments/": "comments with answers",
    "xl/media/": "pictures",
    "xl/charts/": "charts",
    "xl/drawings/drawing": "drawings",
    "xl/pivotTables/": "pivot tables",
    "xl/vbaProject": "macros",
}


def lost(before: bytes, after: bytes) -> str | None:
    """Return what a workbook has and another lacks, or None if no user content is missing.

    Parameters
    ----------
    before, after : bytes

    Returns
    -------
    str or None
    """
    parts = Counter(_parts(before)) - Counter(_parts(after))
    if parts:
        return min(parts)
    cells = _cells(before).items() - _cells(after).items()
    if not cells:
        return None
    sheet, row, column = min(cells)[0]
    return f"the cell in row {row}, column {column} of the sheet {sheet!r}"


def _parts(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
    return [what for name in names for start, what in _PARTS.items() if name.startswith(start)]


def _cells(data: bytes) -> dict[tuple[str, int, int], str]:
    book = openpyxl.load_workbook(io.BytesIO(data), rich_text=True)
    return {
        (sheet.title, cell.row, cell.column): _said(cell.value)
        for sheet in book.worksheets
        for row in sheet.iter_rows()
        for cell in row
        if cell.value is not None
    }


def _said(value: Any) -> str:
    formula = getattr(value, "text", None)  # of several cells at once
    return plain_text(formula if isinstance(formula, str) else str(value))
