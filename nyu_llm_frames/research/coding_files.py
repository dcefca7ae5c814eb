"""Read and write the files of hand coding: one for each coder.

Comes in: rows of text. Goes out: .xlsx and CSV files, and the cells that coders left in them as
text. A coder's work is never overwritten: rows are added below it, and a file that would lose
anything is not replaced.
"""

from __future__ import annotations

import csv
import io
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeAlias

from nyu_llm_frames._sidecar.storage import atomic_path
from nyu_llm_frames._tables.excel_sheet import MOST_ROWS
from nyu_llm_frames.errors import CodesError, ConfigurationError, SidecarError
from nyu_llm_frames.research.cell_damage import csv_text, plain_text, storable
from nyu_llm_frames.research.coding_design import DESIGN, SETTLE
from nyu_llm_frames.research.coding_sheet import CODE, NOTE, UNIT, Sheet, sheet_of

SUFFIXES = (".xlsx", ".csv")
OTHER_SUFFIXES = (".ods", ".xls", ".xlsm", ".xlsb", ".numbers", ".tsv", ".txt")
Labels: TypeAlias = Sequence[str] | None
Lines: TypeAlias = Sequence[Mapping[str, str]]
"""Rows of a file: texts by column."""
_SHEET, _LABELS = "codes", "labels"
_LIST_CHARACTERS = 255
_WIDTHS = {UNIT: 12, CODE: 18, NOTE: 32}
_SHOWN_WIDTH = 60
_DELIMITERS = (",", ";", "\t")
# Parts of the file (ECMA-376, part 1, 15) that hold a user's work, and their names for people.
_PARTS = {
    "xl/threadedComments/": "comments with answers",
    "xl/media/": "pictures",
    "xl/charts/": "charts",
    "xl/drawings/drawing": "drawings",
    "xl/pivotTables/": "pivot tables",
    "xl/vbaProject": "macros",
}


def check_extra() -> None:
    """Refuse to go on without what .xlsx files need."""
    try:
        import openpyxl  # noqa: F401
        import xlsxwriter  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            'Hand codes in .xlsx files need pip install "nyu-llm-frames[research]"; or choose '
            'format="csv".'
        ) from None


def coders_files(folder: Path, coders: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of each coder; one may be saved in both formats."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("codes_*")):
        suffix = path.suffix.lower()
        if path.name == DESIGN or suffix not in SUFFIXES + OTHER_SUFFIXES:
            continue
        if path.suffix not in SUFFIXES:
            raise CodesError(
                f"{path} is not read. Save it as .xlsx or .csv, or move it out of the folder.",
                file=path.name,
            )
        coder = path.stem.removeprefix("codes_")
        if coder not in (*coders, SETTLE):
            raise CodesError(
                f"{path} belongs to none of the coders ({', '.join(coders)}). If it is a copy, "
                f"move it out of the folder; a further coder is named in to_code(coders=...).",
                file=path.name,
            )
        found[coder].append(path)
    return found


def open_mark(path: Path) -> Path | None:
    """Return the lock file that Excel or LibreOffice keeps beside a file while it is open."""
    marks = (f"~${path.name}", f"~${path.name[2:]}", f".~lock.{path.name}#")
    return next((p for name in marks if (p := path.with_name(name)).exists()), None)


def check_closed(path: Path) -> None:
    """Refuse to add to a file that is open elsewhere."""
    mark = open_mark(path)
    if mark is not None:
        raise CodesError(
            f"{path} is open in a spreadsheet program, which would write over the units that are "
            f"added now. Save and close it there, and call again. (If it is not open, delete "
            f"{mark.name}, which marks it so.)",
            file=path.name,
        )


def read_sheet(path: Path) -> Sheet:
    """Read a coder's file; each cell is text."""
    try:
        cells = _csv_cells(path.read_bytes())[0] if path.suffix == ".csv" else _xlsx_cells(path)
    except OSError as e:
        raise CodesError(f"{path} cannot be read: {e.strerror or e}.", file=path.name) from None
    return sheet_of(path.name, cells)


def write_sheet(path: Path, header: Sequence[str], rows: Lines, labels: Labels) -> None:
    """Write a new file: all cells are text, and `labels` are the choices for the code."""
    with _whole(path) as draft:
        if path.suffix == ".csv":
            lines = [header, *_csv_lines(header, rows)]
            draft.write_bytes("\ufeff".encode() + _csv_bytes(lines, ",", "\r\n"))
        else:
            _new_xlsx(draft, header, rows, labels)


def add_rows(path: Path, rows: Lines, labels: Labels) -> None:
    """Add rows below those of a file, or refuse to where it would lose something."""
    check_closed(path)
    with _whole(path) as draft:
        if path.suffix == ".csv":
            draft.write_bytes(_longer_csv(path, rows))
        else:
            _longer_xlsx(path, draft, rows, labels)
        draft.chmod(path.stat().st_mode & 0o777)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    try:
        with atomic_path(path, 0o666) as draft:  # like any file that a program writes here
            yield draft
    except SidecarError as e:
        cause = e.__context__
        reason = cause.strerror if isinstance(cause, OSError) else None
        raise CodesError(
            f"{path} cannot be written ({reason or e}). Nothing of it was changed. Is it open in "
            "another program, or is the folder read-only?",
            file=path.name,
        ) from None


# --- CSV --------------------------------------------------------------------------------------
def _csv_cells(data: bytes) -> tuple[list[list[str]], str]:
    """Return the cells of a CSV file as any spreadsheet program saves one, and its delimiter.

    Excel saves it with or without a mark of UTF-8, in the code page of Western Europe or as UTF-16,
    and with semicolons where the comma is the decimal point.
    """
    text = _decoded(data)
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep="):
        text, first = rest, rest.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), delimiter


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _csv_lines(header: Sequence[str], rows: Lines) -> list[list[str]]:
    return [[csv_text(storable(row.get(name, ""))) for name in header] for row in rows]


def _csv_bytes(lines: Sequence[Sequence[str]], delimiter: str, end: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(lines)
    return out.getvalue().encode("utf-8", "replace")


def _longer_csv(path: Path, rows: Lines) -> bytes:
    data = path.read_bytes()
    cells, delimiter = _csv_cells(data)
    lines = _csv_lines([name.strip() for name in cells[0]], rows)
    text = _decoded(data)
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if text.endswith(("\n", "\r")) else end
    kept = f"\ufeff{text}{gap}".encode("utf-8", "surrogatepass")
    return kept + _csv_bytes(lines, delimiter, end)


# --- .xlsx ------------------------------------------------------------------------------------
def _new_xlsx(draft: Path, header: Sequence[str], rows: Lines, labels: Labels) -> None:
    import xlsxwriter

    made = io.BytesIO()
    with xlsxwriter.Workbook(made, {"in_memory": True}) as book:
        sheet = book.add_worksheet(_SHEET)
        head = book.add_format({"bold": True, "num_format": "@", "bottom": 1})
        cell = book.add_format({"text_wrap": True, "valign": "top", "num_format": "@"})
        for place, name in enumerate(header):
            sheet.set_column(place, place, _width(name), cell)
            sheet.write_string(0, place, storable(name), head)
        for number, row in enumerate(rows, start=1):
            for place, name in enumerate(header):
                if row.get(name):
                    sheet.write_string(number, place, storable(row[name]), cell)
        sheet.freeze_panes(1, 0)
        if labels is not None:
            listed = _listed(labels)
            if not listed:
                other = book.add_worksheet(_LABELS)
                for number, label in enumerate(labels):
                    other.write_string(number, 0, label, cell)
            place = header.index(CODE)
            source = list(labels) if listed else f"={_label_cells(labels)}"
            options = {"validate": "list", "source": source}
            sheet.data_validation(1, place, MOST_ROWS - 1, place, options)
    draft.write_bytes(made.getvalue())


def _width(name: str) -> int:
    return _WIDTHS.get(name, _WIDTHS[CODE] if name.startswith(f"{CODE}_") else _SHOWN_WIDTH)


def _listed(labels: Sequence[str]) -> bool:
    """Whether the choices can stand in the rule itself, which is one text."""
    plain = all(label == label.strip() and not set(label) & set(',"\n') for label in labels)
    return plain and len(",".join(labels)) <= _LIST_CHARACTERS


def _label_cells(labels: Sequence[str]) -> str:
    return f"{_LABELS}!$A$1:$A${len(labels)}"


def _xlsx_cells(path: Path) -> list[list[str]]:
    sheet = _sheet_in(_book(path, data_only=True), path)
    code = _column_of(sheet, CODE)
    for area in sheet.merged_cells.ranges:
        if area.min_row < area.max_row and area.min_col <= code <= area.max_col:
            raise CodesError(
                f"{path.name}, row {area.min_row}: the cells {area.coord} are merged, and only the "
                "first of them holds its text. Unmerge them, and give each row its code.",
                file=path.name,
                row=area.min_row,
            )
    return [[_cell_text(path, cell) for cell in row] for row in sheet.iter_rows()]


def _book(path: Path, **options: Any) -> Any:
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it does not keep; that is looked up below
            # From its bytes: a draft has a name that openpyxl refuses.
            return openpyxl.load_workbook(io.BytesIO(path.read_bytes()), rich_text=True, **options)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, SyntaxError) as e:
        raise CodesError(
            f"{path} is no .xlsx file that can be read ({e}). Open it in a spreadsheet program and "
            "save it as .xlsx.",
            file=path.name,
        ) from None


def _sheet_in(book: Any, path: Path) -> Any:
    """Return the sheet with the codes, or refuse to choose where another one has some, too."""
    sheet = book[_SHEET] if _SHEET in book.sheetnames else book.worksheets[0]
    for other in book.worksheets:
        code = _column_of(other, CODE)
        if other is sheet or not code or not _column_of(other, UNIT):
            continue
        if any(cell.value is not None for (cell,) in other.iter_rows(2, None, code, code)):
            raise CodesError(
                f"{path.name} has codes in the sheet {other.title!r}, and those of {sheet.title!r} "
                "are read. Keep one of the two: move the other to a file elsewhere.",
                file=path.name,
            )
    return sheet


def _column_of(sheet: Any, name: str) -> int:
    """Return the column that has a name in the first row; 0 if none has."""
    found = (c.column for c in sheet[1] if c.value is not None and str(c.value).strip() == name)
    return next(found, 0)


def _cell_text(path: Path, cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        raise CodesError(
            f"{path.name}, row {cell.row}: the cell {cell.coordinate} holds the error {value}. "
            "Type its text again.",
            file=path.name,
            row=cell.row,
        )
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return repr(int(value) if value.is_integer() else value)
    if isinstance(value, datetime):
        return value.isoformat(" ") if value.time() != time() else value.date().isoformat()
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _longer_xlsx(path: Path, draft: Path, rows: Lines, labels: Labels) -> None:
    from openpyxl.styles import Alignment
    from openpyxl.worksheet.datavalidation import DataValidation

    book = _book(path)
    sheet = _sheet_in(book, path)
    places = {str(cell.value).strip(): cell.column for cell in sheet[1] if cell.value is not None}
    last = max(c.row for cells in sheet.iter_rows() for c in cells if c.value is not None)
    for number, row in enumerate(rows, start=last + 1):
        for name, column in places.items():
            cell, text = sheet.cell(number, column), row.get(name)
            cell.number_format = "@"
            cell.alignment = Alignment(wrap_text=True, vertical="top")
            if text:
                cell.value = storable(text)
                cell.data_type = "s"  # also of a text that begins with "="
    if labels is not None:
        letter = sheet.cell(1, places[CODE]).column_letter
        area = f"{letter}2:{letter}{MOST_ROWS}"
        formula = f'"{",".join(labels)}"'
        if not _listed(labels):
            formula = _label_cells(labels)
            other = book[_LABELS] if _LABELS in book.sheetnames else book.create_sheet(_LABELS)
            for number, label in enumerate(labels, start=1):
                other.cell(number, 1, label).data_type = "s"
        rules = sheet.data_validations
        rules.dataValidation = [r for r in rules.dataValidation if str(r.sqref) != area]
        rule = DataValidation(type="list", formula1=formula, allow_blank=True)
        rule.showErrorMessage = True
        rule.add(area)
        sheet.add_data_validation(rule)
    book.save(draft)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gone = lost(path.read_bytes(), draft.read_bytes())
    if gone is not None:
        raise CodesError(
            f"{path} cannot be made longer without losing {gone}. Nothing was changed. Keep a copy "
            "of the file elsewhere, take that out of it, and call again.",
            file=path.name,
        )


def lost(before: bytes, after: bytes) -> str | None:
    """Return what a workbook has and another lacks, or None if no user content is missing."""
    parts = Counter(_parts(before)) - Counter(_parts(after))
    if parts:
        return min(parts)
    cells = _contents(before).items() - _contents(after).items()
    if not cells:
        return None
    sheet, row, column = min(cells)[0]
    return f"the cell in row {row}, column {column} of the sheet {sheet!r}"


def _parts(data: bytes) -> list[str]:
    """Name the parts that openpyxl does not keep."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
    return [what for name in names for start, what in _PARTS.items() if name.startswith(start)]


def _contents(data: bytes) -> dict[tuple[str, int, int], str]:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(data), rich_text=True)
    found = {}
    for sheet in book.worksheets:
        for cell in (c for row in sheet.iter_rows() for c in row if c.value is not None):
            formula = getattr(cell.value, "text", None)  # of several cells at once
            text = formula if isinstance(formula, str) else str(cell.value)
            found[sheet.title, cell.row, cell.column] = plain_text(text)
    return found
