"""Check and read the content of a coder's file: one code per unit.

Comes in: the cells of a file, and the units to code. Goes out: codes by unit, or an error that
names file, row and unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nyu_llm_frames._stages.prompts.template_errors import nearest
from nyu_llm_frames.errors import CodesError
from nyu_llm_frames.research.cell_damage import label_of, plain_text, same_cell

UNIT, CODE, NOTE = "unit", "code", "note"
OWN = (UNIT, CODE, NOTE)
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


def sheet_of(file: str, cells: Sequence[Sequence[str]]) -> Sheet:
    """Make a sheet from the cells of a file; its first row is the header.

    Raises
    ------
    CodesError
        A column of ours is not there, or is there twice.
    """
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
        padded = [*line, *[""] * (len(header) - len(line))]
        row = Row(number, dict(zip(header, padded, strict=False)))
        if any(text.strip() for text in line):
            rows.append(row)
    return Sheet(file, header, tuple(rows))


def check_units(sheet: Sheet, units: Mapping[str, object]) -> None:
    """Refuse rows of units that were not drawn, and codes without a unit.

    Raises
    ------
    CodesError
    """
    for row in sheet.rows:
        if not row.unit and row.code:
            raise sheet.error(row, f"a code ({row.code!r}) without a unit. Put the unit back.")
        if row.unit and row.unit not in units:
            raise sheet.error(
                row,
                "this unit is not in codes_design.parquet. Was it changed by dragging a cell, or "
                "does the file belong to another folder?",
            )


def read_codes(
    sheet: Sheet,
    units: Mapping[str, object],
    labels: Sequence[str] | None,
) -> dict[str, str]:
    """Return the code of each unit that has one.

    Parameters
    ----------
    sheet : Sheet
    units : mapping
        The drawn units are its keys.
    labels : sequence of str or None
        The codes that may be given; None for any.

    Raises
    ------
    CodesError
        An unknown unit or label, or two different codes for one unit.
    """
    check_units(sheet, units)
    found: dict[str, tuple[str, int]] = {}
    for row in sheet.rows:
        if not row.code:
            continue
        code = row.code if labels is None else label_of(row.code, labels)
        if code is None:
            assert labels is not None
            known = ", ".join(repr(name) for _, name in nearest(row.code, labels))
            raise sheet.error(row, f"{row.code!r} is not one of the labels: {known}.")
        earlier = found.setdefault(row.unit, (code, row.number))
        if earlier[0] != code:
            raise sheet.error(
                row,
                f"the code {code!r}, and {earlier[0]!r} in row {earlier[1]}. Leave one of them.",
            )
    return {unit: code for unit, (code, _) in found.items()}


def check_shown(
    sheet: Sheet, show: Sequence[str], shown: Mapping[str, Sequence[str | None]]
) -> None:
    """Refuse a row with another text than its unit has in the frame.

    Parameters
    ----------
    sheet : Sheet
    show : sequence of str
        The columns that the coder saw; those that the file has no longer are not compared.
    shown : mapping of str to sequence
        The cells of each unit of the frame.

    Raises
    ------
    CodesError
    """
    there = [(place, name) for place, name in enumerate(show) if name in sheet.header]
    owners: dict[tuple[str, ...], str] | None = None
    for row in sheet.rows:
        if not row.unit:
            continue
        cells = shown.get(row.unit)
        if cells is None:
            raise sheet.error(
                row,
                f"no row of the frame has this text any more{_quoted(row, there)}. Codes belong to "
                "what the coder saw: give the frame as it was when the sample was drawn.",
            )
        changed = [name for place, name in there if not same_cell(cells[place], row.cells[name])]
        if not changed:
            continue
        if owners is None:
            owners = {
                tuple(plain_text(texts[place] or "") for place, _ in there): unit
                for unit, texts in shown.items()
            }
        owner = owners.get(tuple(plain_text(row.cells[name]) for _, name in there))
        name = changed[0]
        if owner is not None:
            raise sheet.error(
                row,
                f"the text in {name!r} is that of unit {owner}. Was one column sorted without the "
                "others? Then the codes are at other rows, and the sorting has to be undone.",
            )
        raise sheet.error(
            row,
            f"no row of the frame has the text in {name!r}, {_short(row.cells[name])}; the coder "
            f"was shown {_short(cells[show.index(name)] or '')}. Put it back. If a spreadsheet "
            f"program changed it (numbers, dates), delete the column {name!r} from the file: codes "
            "are joined by unit, and a column that is not there is not compared.",
        )


def settle(
    by_coder: Mapping[str, Mapping[str, str]], decided: Mapping[str, str], *, majority: bool
) -> tuple[dict[str, str], list[str]]:
    """Return one code for each unit that has one, and the units on which coders differ.

    Parameters
    ----------
    by_coder : mapping of str to mapping
        Code by unit, by coder.
    decided : mapping of str to str
        Codes in ``codes_settle.xlsx``; they take precedence.
    majority : bool
        Whether the code of more than half of its coders decides a unit.
    """
    given: dict[str, list[str]] = {}
    for codes in by_coder.values():
        for unit, code in codes.items():
            given.setdefault(unit, []).append(code)
    settled, open_ = dict(decided), []
    for unit, codes_ in given.items():
        most = max(sorted(set(codes_)), key=codes_.count)
        share = codes_.count(most) / len(codes_)
        if unit in decided:
            continue
        if share == 1 or (majority and share > 0.5):
            settled[unit] = most
        else:
            open_.append(unit)
    return settled, open_


def _quoted(row: Row, there: Sequence[tuple[int, str]]) -> str:
    return f" ({_short(row.cells[there[0][1]])})" if there else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")
