"""Output lines to answers: what one line of a batch output, or one live answer, amounts to.

Comes in: the bytes of an output file in chunks of any size, or the body of a chat completion.
Goes out: an `Answer` per line that carries an id, an `Orphan` for every other line. Nothing that
can stand in the bytes raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from nyu_llm_frames._answers.answer import Answer
from nyu_llm_frames._answers.row_errors import http_code, read_json, storable
from nyu_llm_frames._answers.verdict import MAX_TOKENS_COUNT, first, get, judge, no_answer

MAX_LINE_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


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


class LineSplitter:
    r"""
    Split a stream of bytes into lines, at ``\n`` alone.

    ``bytes.splitlines`` and the line iterators of HTTP clients also break at U+2028, U+0085 and
    others, which are legal inside JSON strings. A byte order mark at the start, one trailing
    ``\r`` and blank lines go. A line of more than `max_line_bytes` is dropped and counted, so
    that an endless line cannot fill the memory.

    Parameters
    ----------
    max_line_bytes : int, default 64 MiB

    Attributes
    ----------
    dropped : int
        Number of lines dropped for their length.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.dropped = 0
        self._pending: list[bytes] = []  # pieces of the unfinished line, joined once
        self._size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that they complete."""
        first, *rest = chunk.split(b"\n")
        self._keep(first)
        if not rest:
            return []
        lines = [self._take()]
        lines += [self._trim(line) for line in rest[:-1]]
        self._keep(rest[-1])
        return [line for line in lines if line and not line.isspace()]

    def close(self) -> bytes:
        """Return what stood after the last newline, and be ready for another stream."""
        line = self._take()
        self._at_start = True
        return b"" if line.isspace() else line

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self.max_line_bytes:
            self._pending.clear()  # the size goes on counting: the rest of the line goes too
        elif piece:
            self._pending.append(piece)

    def _take(self) -> bytes:
        line, size = b"".join(self._pending), self._size
        self._pending.clear()
        self._size = 0
        return self._trim(line, size)

    def _trim(self, line: bytes, size: int | None = None) -> bytes:
        first, self._at_start = self._at_start, False
        if (len(line) if size is None else size) > self.max_line_bytes:
            self.dropped += 1
            return b""
        if first:
            line = line.removeprefix(_BOM)
        return line.removesuffix(b"\r")


# The plain good row, typed: decoding stops at the first surprise and the slow way takes over.
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS_COUNT)] | None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Message(msgspec.Struct, gc=False):
    content: str


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: str | None = None
    error: None = None


class _Response(msgspec.Struct, gc=False):
    body: _Body


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response
    error: str | None = None


_decode_row = msgspec.json.Decoder(_Row).decode
_decode_any = msgspec.json.Decoder().decode
_PLAIN = frozenset({"STOP", "stop", None})
_NO_COMPLETION_DETAILS, _NO_PROMPT_DETAILS = _CompletionDetails(), _PromptDetails()
_NO_USAGE = _Usage()


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
    try:
        row = _decode_row(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _parse_slowly(line)
    custom_id, body = row.custom_id, row.response.body
    choices = body.choices
    if row.error or not choices or not custom_id or not custom_id.isascii():
        return _parse_slowly(line)
    choice = choices[0]
    if choice.finish_reason not in _PLAIN:
        return _parse_slowly(line)
    usage = body.usage or _NO_USAGE
    return Answer(
        custom_id,
        "ok",
        choice.message.content,
        None,
        choice.finish_reason,
        usage.prompt_tokens,
        usage.completion_tokens,
        (usage.completion_tokens_details or _NO_COMPLETION_DETAILS).reasoning_tokens,
        (usage.prompt_tokens_details or _NO_PROMPT_DETAILS).cached_tokens,
        body.model or None,
        line,
    )


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
    content = _loads(body)
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
    row = _loads(line)
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


def _loads(data: bytes) -> Any:
    try:
        return _decode_any(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return read_json(data.removeprefix(_BOM).decode("utf-8", "replace"))


def _parse_slowly(line: bytes) -> Answer | Orphan:
    row = _loads(line)
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
