"""Parse dates and times as strictly as their columns need, and shorten values for errors."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def to_date(text: str) -> dt.date:
    if not _DATE.fullmatch(text):
        raise ValueError("a date has the form YYYY-MM-DD")
    return dt.date.fromisoformat(text)


def to_datetime(text: str) -> dt.datetime:
    """Read an ISO 8601 date and time in its extended form, or a date."""
    if not _DATE.match(text):
        raise ValueError("a time has the form YYYY-MM-DDThh:mm:ss")
    return dt.datetime.fromisoformat(text)


def shown(value: Any) -> str:
    """A value in an error message, cut to a readable length."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
