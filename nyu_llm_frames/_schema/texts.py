"""The one JSON object in an answer that also holds code fences or prose.

Comes in: a text that is no JSON as a whole. Goes out: the part of it that is, or why not.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_START = re.compile(r"[\[{]")
_OPENS = re.compile(r'\{\s*["}]|\[\s*[\[{]')


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def find_object(text: str) -> tuple[str | None, str]:
    """Find the only JSON object in a text.

    Nothing is taken out of a broken whole: the inner object of an answer that was cut off is not
    the answer. Brackets of prose, such as ``[1]`` or ``{sic}``, are passed over.

    Returns
    -------
    tuple of (str or None, str)
        The object's text, or None and the reason.
    """
    found: str | None = None
    at = 0
    while match := _START.search(text, at):
        at = match.start()
        if not _OPENS.match(text, at):
            at += 1
            continue
        try:
            value, end = _decode(text, at)
        except (ValueError, RecursionError):
            return None, "the answer holds JSON that is broken or cut off"
        if found is not None:
            return None, "the answer holds more than one JSON value"
        if not isinstance(value, dict):
            return None, "the answer holds a JSON list where an object is asked for"
        found, at = text[at:end], end
    return found, "the answer holds no JSON object"


def _decode(text: str, at: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(text, at)
