"""Text with a form: dates, times and the like, read as strictly as their columns need.

Comes in: text. Goes out: its value, or whether it has one. Also how a value is shown in errors.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def to_date(text: str) -> dt.date:
    """Read ``YYYY-MM-DD``."""
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return dt.date.fromisoformat(text)


def to_datetime(text: str) -> dt.datetime:
    """Read an ISO 8601 date and time in its extended form, or a date."""
    if not _DATE.match(text):
        raise ValueError(text)
    return dt.datetime.fromisoformat(text)


def shown(value: Any) -> str:
    """A value in an error message, cut to a readable length."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _email(text: str) -> bool:
    return re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None


FORMATS: dict[str, tuple[Callable[[str], Any], str]] = {
    "date": (to_date, "a date (YYYY-MM-DD)"),
    "date-time": (to_datetime, "a date and time (ISO 8601)"),
    "time": (dt.time.fromisoformat, "a time (ISO 8601)"),
    "uuid": (uuid.UUID, "a UUID"),
    "email": (_email, "an e-mail address"),
}


def reads(read: Callable[[str], Any], value: str) -> bool:
    """Whether a text has the form that `read` reads."""
    try:
        return read(value) is not False
    except ValueError:
        return False
