"""What spreadsheet programs do to cells, and which cell a changed one was.

Comes in: a text that was written, and the text that came back. Goes out: whether the second is the
first as Excel, LibreOffice or a CSV file in another country's form keep it: "007" as 7, "1e5" as
1.00E+05, true as TRUE, 2024-01-05 as 05/01/2024, other ends of lines, escaped characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffd-\uffff\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?")
_EXCEL_DIGITS = 15


def storable(text: str) -> str:
    """Return a text as both kinds of file can hold it: no control character, no half of a pair.

    Examples
    --------
    >>> storable("a\\r\\nb\\x00")
    'a\\nb\\ufffd'
    """
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def plain_text(text: str) -> str:
    """Return what stays of a text in every spreadsheet program: words between single blanks."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return " ".join(_CONTROL.sub(" ", text).split())


def csv_text(text: str) -> str:
    """Return a cell of a CSV file that no spreadsheet program takes for a formula.

    Examples
    --------
    >>> csv_text("=1+1"), csv_text("-5"), csv_text("@nyu hello")
    ("'=1+1", '-5', "'@nyu hello")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def same_cell(written: str | None, found: str) -> bool:
    """Say whether a cell that was read back is the one that was written.

    Examples
    --------
    >>> same_cell("007", "7"), same_cell("2024-01-05", "05/01/2024"), same_cell("good", "goof")
    (True, True, False)
    """
    one, other = plain_text(written or ""), plain_text(found)
    if one == other or f"'{one}" == other:
        return True
    if one.casefold() == other.casefold() and one.casefold() in ("true", "false"):
        return True
    if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return _same_number(one, other)
    return bool(_DATE.fullmatch(one) and _DATE.fullmatch(other)) and _parts(one) == _parts(other)


def label_of(found: str, labels: Iterable[str]) -> str | None:
    """Return the label that a coder's cell says, also where a spreadsheet program changed it."""
    names = list(labels)
    if found in names:
        return found
    alike = [name for name in names if same_cell(name, found)]
    return alike[0] if len(alike) == 1 else None


def _same_number(one: str, other: str) -> bool:
    shown = other.lower().partition("e")[0] if "e" in other.lower() else ""
    digits = sum(c.isdigit() for c in shown) or _EXCEL_DIGITS
    numbers = (float(text.replace(",", ".")) for text in (one, other))
    return math.isclose(*numbers, rel_tol=10.0 ** (1 - digits))


def _parts(date: str) -> list[int]:
    """Day, month, year of the century, and what is not 0 of the time, in no order."""
    numbers = [
        int(part) % 100 if len(part) == 4 else int(part) for part in re.findall(r"\d+", date)
    ]
    return sorted(number for number in numbers if number)
