"""Check and read the content of a coder's file: one code per unit.

Comes in: the cells of a file, and the units to code. Goes out: codes by unit, or an error that
names file, row and unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nyu_llm_frames._shared.wording import shortened
from nyu_llm_frames._stages.prompts.template_errors import nearest
from nyu_llm_frames.errors import CodesError
from nyu_llm_frames.research.cell_damage import label_of, plain_text, same_cell, storable

UNIT, CODE, NOTE = "unit", "code", "note"
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a coder's file; `number` is the one that spreadsheet programs show."""

    number: int
    cells: Mapping[str, str]

    @property
    def unit(self) -> str:
        return self.cells[UNIT].strip()

    @property
    def code(self) -> str:
        return self.cells[CODE].replace("\xa0", " ").strip()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A coder's file: its name, its columns, its non-empty rows."""

    file: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def error(self, row: Row, what: str) -> CodesError:
        """Return an error about a row."""
        unit = f", unit {row.unit}" if row.unit else ""
        return CodesError(
            f"{self.file}, row {row.number}{unit}: {what}",
            file=self.file,
            row=row.number,
            unit=row.unit,
        )


def header_of(name: str) -> str:
    """Return the name of a shown column in a coder's file, which is read without outer blanks."""
    return storable(name).strip()


def sheet_of(file: str, cells: Sequence[Sequence[str]]) -> Sheet:
    """Make a sheet from the cells of a file; its first row is the header."""
    header = tuple(name.strip() for name in cells[0]) if cells else ()
    for name in (UNIT, CODE):
        if header.count(name) != 1:
            there = ", ".join(repr(h) for h in header if h) or "none"
            what = "no column" if name not in header else f"{header.count(name)} columns"
            raise CodesError(
                f"{file} has {what} {name!r} in its first row (columns: {there}). Codes are joined "
                "by the columns 'unit' and 'code'; put them back as they were.",
                file=file,
                row=1,
            )
    rows = []
    for number, line in enumerate(cells[1:], start=2):
        if any(text.strip() for text in line):
            padded = [*line, *[""] * (len(header) - len(line))]
            rows.append(Row(number, dict(zip(header, padded, strict=False))))
    return Sheet(file, header, tuple(rows))


def check_units(sheet: Sheet, drawn: Collection[str]) -> None:
    """Refuse rows of units that were not drawn, and codes without a unit."""
    for row in sheet.rows:
        if not row.unit and row.code:
            raise sheet.error(row, f"a code ({row.code!r}) without a unit. Put the unit back.")
        if row.unit and row.unit not in drawn:
            raise sheet.error(
                row,
                "this unit is not in codes_design.parquet. Was it changed by dragging a cell, or "
                "does the file belong to another folder?",
            )


def read_codes(
    sheet: Sheet, drawn: Collection[str], labels: Sequence[str] | None
) -> dict[str, str]:
    """Return the code of each unit that has one: one of the labels, where there are some."""
    check_units(sheet, drawn)
    found: dict[str, tuple[str, int]] = {}
    for row in sheet.rows:
        if not row.code:
            continue
        code = row.code if labels is None else label_of(row.code, labels)
        if code is None:
            known = ", ".join(repr(name) for _, name in nearest(row.code, labels or ()))
            raise sheet.error(row, f"{row.code!r} is not one of the labels: {known}.")
        earlier, number = found.setdefault(row.unit, (code, row.number))
        if earlier != code:
            raise sheet.error(
                row, f"the code {code!r}, and {earlier!r} in row {number}. Leave one of them."
            )
    return {unit: code for unit, (code, _) in found.items()}


def check_shown(
    sheet: Sheet, show: Sequence[str], shown: Mapping[str, Sequence[str | None]]
) -> None:
    """Refuse a row with another text than its unit has in the frame.

    Columns that the coder saw and that the file has no longer are not compared.
    """
    headers = enumerate(map(header_of, show))
    there = [(place, name) for place, name in headers if name in sheet.header]
    for row in sheet.rows:
        if not row.unit:
            continue
        cells = shown.get(row.unit)
        if cells is None:
            text = f" ({_short(row.cells[there[0][1]])})" if there else ""
            raise sheet.error(
                row,
                f"no row of the frame has this text any more{text}. Codes belong to what the coder "
                "saw: give the frame as it was when the sample was drawn.",
            )
        for place, name in there:
            if not same_cell(cells[place], row.cells[name]):
                raise sheet.error(row, _changed(row, name, cells[place] or "", there, shown))


def _changed(
    row: Row,
    name: str,
    written: str,
    there: Sequence[tuple[int, str]],
    shown: Mapping[str, Sequence[str | None]],
) -> str:
    """Say what may have happened to a text that is no longer that of its unit."""
    found = [plain_text(row.cells[column]) for _, column in there]
    for unit, texts in shown.items():
        if found == [plain_text(texts[place] or "") for place, _ in there]:
            return (
                f"the text in {name!r} is that of unit {unit}. Was one column sorted without the "
                "others? Then the codes are at other rows, and the sorting has to be undone."
            )
    return (
        f"no row of the frame has the text in {name!r}, {_short(row.cells[name])}; the coder "
        f"was shown {_short(written)}. Put it back. If a spreadsheet "
        f"program changed it (numbers, dates), delete the column {name!r} from the file: codes "
        "are joined by unit, and a column that is not there is not compared."
    )


def settle(
    by_coder: Mapping[str, Mapping[str, str]], decided: Mapping[str, str], *, majority: bool
) -> tuple[dict[str, str], list[str]]:
    """Return one code for each unit that has one, and the units on which coders differ.

    Codes in ``codes_settle.xlsx``, `decided`, take precedence. With `majority` the code of more
    than half of its coders decides a unit, else all must agree.
    """
    given: dict[str, list[str]] = defaultdict(list)
    for codes in by_coder.values():
        for unit, code in codes.items():
            given[unit].append(code)
    settled, open_ = dict(decided), []
    for unit, own in given.items():
        if unit in decided:
            continue
        most = max(sorted(set(own)), key=own.count)
        if own.count(most) == len(own) or (majority and own.count(most) > len(own) / 2):
            settled[unit] = most
        else:
            open_.append(unit)
    return settled, open_


def _short(text: str) -> str:
    return repr(shortened(text, _SHOWN))
