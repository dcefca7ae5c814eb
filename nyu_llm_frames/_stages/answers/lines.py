"""Read output lines, or one live answer, into answers.

Comes in: lines of an output file, or the body of a chat completion. Goes out: an `Answer` per line
that carries an id, an `Orphan` for every other line. No input bytes raise an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from nyu_llm_frames._stages.answers.answer import Answer
from nyu_llm_frames._stages.answers.blocks import BOM
from nyu_llm_frames._stages.answers.classify import classify, get, no_answer
from nyu_llm_frames._stages.answers.google_rows import ECHOES, gateway_row, is_google_row
from nyu_llm_frames._stages.answers.row_errors import http_code, read_json, storable
from nyu_llm_frames._stages.answers.usual_rows import UNREADABLE, usual_answer

_decode_any = msgspec.json.Decoder().decode
_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Orphan(msgspec.Struct, frozen=True, gc=False):
    """A line that belongs to no request."""

    reason: str  # why it cannot be matched to one
    custom_id: str | None  # the unusable id, as text, if there is one
    raw: bytes  # as an answer keeps it
    # Whether it is the line of some request, and not a page, a torn line, or the gateway's own note
    # that it could read nothing.
    is_row: bool = False


class Parsed(msgspec.Struct, frozen=True):
    """Lines sorted into answers and orphans, each in the order of the lines."""

    answers: list[Answer]
    orphans: list[Orphan]


def parse_line(line: bytes) -> Answer | Orphan:
    r"""
    Read one line of a batch output, with or without its newline.

    It is an answer if it is a JSON object with a non-empty string as `custom_id`, or in the
    provider's form as `requestId`; whether the id belongs to a request is not known here.

    Examples
    --------
    >>> answer = parse_line(
    ...     b'{"custom_id": "r1", "response": {"body": {"choices": '
    ...     b'[{"message": {"content": "Oxycodone"}, "finish_reason": "STOP"}]}}}'
    ... )
    >>> answer.status, answer.text
    ('ok', 'Oxycodone')
    >>> parse_line(b'{"custom_id": 7}').reason
    'custom_id is not a string'
    """
    line = line.rstrip(b"\r\n")
    return usual_answer(line) or _parse_slowly(line)


def parse_lines(lines: Iterable[bytes]) -> Parsed:
    """Read many lines, each once as an answer or as an orphan; blank ones are skipped."""
    parsed = Parsed([], [])
    for line in lines:
        if line and not line.isspace():
            one = parse_line(line)
            if isinstance(one, Answer):
                parsed.answers.append(one)
            else:
                parsed.orphans.append(one)
    return parsed


def parse_completion(custom_id: str, body: bytes) -> Answer:
    """Read the whole body of a live chat completion (a 200 answer) by the rules of a batch row."""
    content = loads(body)
    if not isinstance(content, dict):
        return no_answer(custom_id, "failed", "the gateway's answer is not a JSON object", body)
    return classify(custom_id, content, body)


def has_replacement(text: str | None) -> bool:
    """Whether the text holds U+FFFD, the mark of a character damaged in transit."""
    return text is not None and "\ufffd" in text


def loads(data: bytes) -> Any:
    """Decode JSON, and what passes for it elsewhere (NaN, damaged UTF-8); None for other bytes."""
    try:
        return _decode_any(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return read_json(data.removeprefix(BOM).decode("utf-8", "replace"))


def _parse_slowly(line: bytes) -> Answer | Orphan:
    row, raw = _without_echo(line)
    if not isinstance(row, dict):
        return Orphan("not JSON" if row is None else "not a JSON object", None, raw)
    if is_google_row(row):
        is_row = "request" in row or "response" in row
        row = gateway_row(row)
    else:
        # Without an id and with an error it may be the gateway's own, of no row at all.
        is_row = "response" in row and not get(get(row["response"], "body"), "error")
    custom_id = row.get("custom_id")
    if reason := _why_unusable(custom_id):
        shown = storable(custom_id) or None if isinstance(custom_id, str) else None
        if isinstance(custom_id, int | float) and abs(custom_id) < 2**63:
            shown = str(custom_id)
        return Orphan(reason, shown, raw, is_row)
    response = row.get("response")
    code = http_code(get(response, "status_code"))
    return classify(custom_id, get(response, "body"), raw, row.get("error"), code)


def _why_unusable(custom_id: Any) -> str | None:
    if custom_id is None:
        return "no custom_id"
    if not isinstance(custom_id, str):
        return "custom_id is not a string"
    if not custom_id:
        return "custom_id is empty"
    # What was replaced on the way is not in the line: it could be the id of any request.
    damaged = storable(custom_id) != custom_id or "\ufffd" in custom_id
    return "custom_id is damaged" if damaged else None


def _without_echo(line: bytes) -> tuple[Any, bytes]:
    """Decode a line; a request that is repeated in it is neither decoded nor kept."""
    parts: dict[str, Any]
    try:
        parts = _decode_parts(line)
        echoes = parts.keys() & ECHOES
        instance = _decode_any(parts["instance"]) if "instance" in echoes else None
        row = {k: None if k in echoes else _decode_any(part) for k, part in parts.items()}
    except UNREADABLE:
        row = loads(line)
        if not isinstance(row, dict):
            return row, line
        echoes = row.keys() & ECHOES
        instance = row.get("instance")
        row, parts = row | dict.fromkeys(echoes), row
    if not echoes:
        return row, line
    custom_id = get(instance, "requestId")
    kept = {key: part for key, part in parts.items() if key not in echoes}
    if custom_id is not None and row.get("requestId") is None:
        row["requestId"] = kept["requestId"] = custom_id
    try:
        return row, msgspec.json.encode(kept)
    except (ValueError, RecursionError):  # half a surrogate pair, say
        return row, json.dumps(kept).encode()
