"""Wording of counts, amounts, times and sentences.

Comes in: counts, times and texts, untrusted ones too. Goes out: text as people write it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime


def count(n: int, noun: str) -> str:
    """Write a number of things: ``1 request``, ``2,000 requests``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def first_few(items: Sequence[str], separator: str = ", ") -> str:
    """Join the first items, and count the others.

    Examples
    --------
    >>> first_few(["a", "b"]), first_few([*"abcdefg"], "; ")
    ('a, b', 'a; b; c; d; e; and 2 more')
    """
    more = [f"and {len(items) - 5:,} more"] if len(items) > 5 else []
    return separator.join([*items[:5], *more])


def dollars(amount: float) -> str:
    """Write US dollars with the significant digits: ``$12.30``, ``$0.042``, ``$0.00031``."""
    if amount == 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    digits = min(8, 1 - math.floor(math.log10(amount)))
    return f"${amount:.{digits}f}"


def local_time(at: datetime) -> str:
    """Write a time in this machine's zone, with the zone's name: ``2026-03-01 04:00 EST``."""
    return f"{at.astimezone():%Y-%m-%d %H:%M %Z}"


def printable(text: str) -> str:
    """Replace by blanks what a terminal would obey or hide: control and direction characters.

    Line ends and tabs stay.

    Examples
    --------
    >>> printable("\\x1b[31mall \\u202eis\\nwell")
    ' [31mall  is\\nwell'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def sentence(text: str) -> str:
    """End a text with a period, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def shortened(text: str, most: int) -> str:
    """Cut a text to so many characters, of which the last then says that it goes on."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_names(names: Sequence[str]) -> str:
    """Write names as in a line of Python, at most 20: ``'a', 'b'``."""
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
