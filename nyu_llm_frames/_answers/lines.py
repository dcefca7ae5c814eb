"""Output lines to answers: what one line of a batch output, or one live answer, amounts to.

Comes in: lines of an output file, or the body of a chat completion. Goes out: an `Answer` per line
that carries an id, an `Orphan` for every other line. Nothing that can stand in the bytes raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from nyu_llm_frames._answers.answer import Answer
from nyu_llm_frames._answers.blocks import BOM
from nyu_llm_frames._answers.plain import plain_answer
from nyu_llm_frames._answers.row_errors import http_code, read_json, storable
from nyu_llm_frames._answers.verdict import first, get, judge, no_answer

_decode_any = msgspec.json.Decoder().decode


class Orphan(msgspec.Struct, frozen=True, gc=False):
    """A line that belongs to no request.

    Attributes
    ----------
    reason : str
        Why no request can be told from it.
    custom_id : str or None
        The unusable id, as text, if there is one.
    raw : bytes
        The line as received, without its newline.
    """

    reason: str
    custom_id: str | None
    raw: bytes


class Parsed(msgspec.Struct, frozen=True):
    """Lines sorted into answers and orphans, each in the order of the lines."""

    answers: list[Answer]
    orphans: list[Orphan]


def parse_line(line: bytes) -> Answer | Orphan:
    r"""
    Read one line of a batch output.

    Parameters
    ----------
    line : bytes
        With or without its newline.

    Returns
    -------
    Answer or Orphan
        An answer if the line is a JSON object with a non-empty string as `custom_id`; whether
        the id is one that was asked for is not known here.

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
    return plain_answer(line) or _parse_slowly(line)


def parse_lines(lines: Iterable[bytes]) -> Parsed:
    """
    Read many lines; blank ones are passed over.

    Parameters
    ----------
    lines : iterable of bytes

    Returns
    -------
    Parsed
        Every line that is not blank, once, as an answer or as an orphan.
    """
    answers: list[Answer] = []
    orphans: list[Orphan] = []
    for line in lines:
        if not line or line.isspace():
            continue
        result = parse_line(line)
        if isinstance(result, Answer):
            answers.append(result)
        else:
            orphans.append(result)
    return Parsed(answers, orphans)


def parse_completion(custom_id: str, body: bytes) -> Answer:
    """
    Read the JSON body of a live chat completion by the rules of a batch row.

    Parameters
    ----------
    custom_id : str
        Id of the request that was sent.
    body : bytes
        The whole HTTP body of a 200 answer.

    Returns
    -------
    Answer
    """
    content = loads(body)
    if not isinstance(content, dict):
        return no_answer(custom_id, "failed", "the gateway's answer is not a JSON object", body)
    return judge(custom_id, content, body)


def parse_google_line(line: bytes) -> tuple[str, str] | None:
    """
    Read id and text of a raw Google predictions row, to repair a text that was damaged.

    Parameters
    ----------
    line : bytes
        A line of the stored output file, as ``/files/{id}/content`` gives it.

    Returns
    -------
    tuple of (str, str) or None
        Id and text (thoughts left out, parts joined, as the gateway does); None when the row
        has no text.
    """
    row = loads(line)
    custom_id = get(row, "requestId")
    parts = get(get(first(get(get(row, "response"), "candidates")), "content"), "parts")
    if not isinstance(custom_id, str) or not custom_id or not isinstance(parts, list):
        return None
    if storable(custom_id) != custom_id:
        return None
    texts = [
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    text = storable("".join(texts))
    return (custom_id, text) if text else None


def has_replacement(text: str | None) -> bool:
    """Whether the text holds U+FFFD, the mark of a character that was damaged on the way."""
    return text is not None and "\ufffd" in text


def loads(data: bytes) -> Any:
    """Decode JSON, and what passes for it elsewhere (NaN, damaged UTF-8); None for other bytes."""
    try:
        return _decode_any(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return read_json(data.removeprefix(BOM).decode("utf-8", "replace"))


def _parse_slowly(line: bytes) -> Answer | Orphan:
    row = loads(line)
    if not isinstance(row, dict):
        return Orphan("not JSON" if row is None else "not a JSON object", None, line)
    custom_id = row.get("custom_id")
    if custom_id is None:
        return Orphan("no custom_id", None, line)
    if isinstance(custom_id, int | float):
        small = abs(custom_id) < 2**63
        return Orphan("custom_id is not a string", str(custom_id) if small else None, line)
    if not isinstance(custom_id, str):
        return Orphan("custom_id is not a string", None, line)
    if not custom_id:
        return Orphan("custom_id is empty", None, line)
    # What was replaced on the way does not stand in the line: it could be anybody's id.
    if storable(custom_id) != custom_id or "\ufffd" in custom_id:
        return Orphan("custom_id is damaged", storable(custom_id), line)
    response = row.get("response")
    code = http_code(get(response, "status_code"))
    return judge(custom_id, get(response, "body"), line, row.get("error"), code)
