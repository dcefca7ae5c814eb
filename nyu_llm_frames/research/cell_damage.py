"""Recognize cells that a spreadsheet program changed.

Comes in: a text that was written, and the text that came back. Goes out: whether the second is the
first as Excel, LibreOffice or a CSV file of another locale store it: "007" as 7, "1e5" as
1.00E+05, true as TRUE, 2024-01-05 as 05/01/2024, other line endings, "?" for an emoji.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffd-\uffff\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?)?")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = re.compile("|".join(_MONTHS), re.IGNORECASE)
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
    """Return what every spreadsheet program keeps of a text: words between single spaces."""
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
    if "?" in other and _narrow(one) == _narrow(other):
        return True
    if one.casefold() == other.casefold() and one.casefold() in ("true", "false"):
        return True
    if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return _same_number(one, other)
    return _same_date(one, _MONTH.sub(lambda name: _month(name[0]), other))


def label_of(found: str, labels: Iterable[str]) -> str | None:
    """Return the label in a coder's cell, also where a spreadsheet program changed it."""
    names = list(labels)
    if found in names:
        return found
    alike = [name for name in names if same_cell(name, found)]
    return alike[0] if len(alike) == 1 else None


def _narrow(text: str) -> str:
    """Return a text as a Western European CSV file keeps it, unless little would be left."""
    kept = text.encode("cp1252", "replace").decode("cp1252")
    found = re.sub(r"\?+", "?", kept)
    return found if 2 * kept.count("?") <= len(kept) else text


def _same_number(one: str, other: str) -> bool:
    shown = other.lower().partition("e")[0] if "e" in other.lower() else ""
    digits = sum(c.isdigit() for c in shown) or _EXCEL_DIGITS
    numbers = (float(text.replace(",", ".")) for text in (one, other))
    return math.isclose(*numbers, rel_tol=10.0 ** (1 - digits))


def _same_date(one: str, other: str) -> bool:
    """Whether a date is another in some locale's format; a program adds a year to 1/2."""
    if not (_DATE.fullmatch(one) and _DATE.fullmatch(other)):
        return False
    written, found = _numbers(one), _numbers(other)
    date, added = Counter(n for n in written[:3] if n), Counter(n for n in found if n)
    added -= Counter(written)
    return not date - Counter(found) and added.total() <= (len(written) == 2)


def _numbers(date: str) -> list[int]:
    return [int(part[-2:]) for part in re.findall(r"\d+", date)]


def _month(name: str) -> str:
    return str(_MONTHS.index(name.lower()) + 1)
