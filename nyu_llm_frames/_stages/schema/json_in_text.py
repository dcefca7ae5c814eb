"""Find the one JSON object in an answer that also has code fences, prose, or a copy of it."""

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
    """Find the only JSON object in a text; it may occur twice, or alone in a list.

    Nothing is taken out of a broken whole: the inner object of an answer that was cut off is not
    the answer. Brackets of prose, such as ``[1]`` or ``{sic}``, are passed over. Where there is no
    object, the second of the pair is the reason.
    """
    found: list[tuple[Any, str]] = []
    at = 0
    while match := _START.search(text, at):
        at = match.start()
        if not _OPENS.match(text, at):
            at += 1
            continue
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None, "the answer holds JSON that is broken or cut off"
        is_list = isinstance(value, list)
        found += [(v, json.dumps(v)) for v in value] if is_list else [(value, text[at:end])]
        at = end
    if not all(isinstance(value, dict) for value, _ in found):
        return None, "the answer holds a JSON list where an object is expected"
    if len({json.dumps(value, sort_keys=True) for value, _ in found}) > 1:
        return None, "the answer holds more than one JSON object"
    return (found[0][1], "") if found else (None, "the answer holds no JSON object")
