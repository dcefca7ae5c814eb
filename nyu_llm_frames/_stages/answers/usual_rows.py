r"""Plain good rows, a block of lines at a time: columns without an object for each answer.

Comes in: blocks of whole output lines. Goes out: what is good and has the gateway's usual form, by
column, and all other lines as they are, for `lines` to read one by one. What comes out here is what
`lines` would say of the same lines; it only comes out faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from nyu_llm_frames._stages.answers.answer import Answer
from nyu_llm_frames._stages.answers.blocks import MAX_LINE_BYTES, lines_of
from nyu_llm_frames._stages.answers.classify import MAX_TOKENS_COUNT

# The usual row, typed: decoding stops at the first surprise. A count that usage leaves out is 0.
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS_COUNT)]


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count = 0


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    completion_tokens_details: _CompletionDetails | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


class _Response(msgspec.Struct, gc=False):
    body: _Body | bool | None = None  # False in a failed row


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Row)
_FINISHED = frozenset({"STOP", "stop", None})
_NO_COMPLETION_DETAILS, _NO_PROMPT_DETAILS = _CompletionDetails(), _PromptDetails()
_NO_USAGE = _Usage(None, None, _CompletionDetails(None), _PromptDetails(None))  # type: ignore[arg-type]
_error = attrgetter("error")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

FIELDS = (
    "custom_id",
    "text",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "model",
)
"""What differs from one plain row to the next; their status is "ok", their error None."""


def _is_plain(row: _Row) -> bool:
    if row.error or row.response is None or not row.custom_id or not row.custom_id.isascii():
        return False
    body = row.response.body
    if not isinstance(body, _Body) or not body.choices or body.error is not None:
        return False
    choice = body.choices[0]
    message = choice.message
    if message is None or not message.content or message.content.isspace():
        return False
    return choice.finish_reason in _FINISHED


def _columns(rows: Sequence[_Row]) -> list[list[Any]] | None:
    """Return `FIELDS` of plain rows, a list for each; None unless all of them are plain.

    The same checks as in `_is_plain`, by the column: a call for each row would take longer.
    """
    try:
        bodies: list[Any] = [row.response.body for row in rows]  # type: ignore[union-attr]
        choices = [body.choices[0] for body in bodies]
        texts = [choice.message.content for choice in choices]
    except (AttributeError, IndexError):
        return None
    ids = [row.custom_id for row in rows]
    reasons = [choice.finish_reason for choice in choices]
    if (
        any(map(_error, rows))
        or not all(ids)
        or not "".join(ids).isascii()
        or list(map(_error, bodies)).count(None) < len(bodies)
        or not all(texts)
        or any(map(str.isspace, texts))
        or not _FINISHED.issuperset(reasons)
    ):
        return None
    usages = [body.usage or _NO_USAGE for body in bodies]
    written = [usage.completion_tokens_details or _NO_COMPLETION_DETAILS for usage in usages]
    read = [usage.prompt_tokens_details or _NO_PROMPT_DETAILS for usage in usages]
    return [
        ids,
        texts,
        reasons,
        [usage.prompt_tokens for usage in usages],
        [usage.completion_tokens for usage in usages],
        [details.reasoning_tokens for details in written],
        [details.cached_tokens for details in read],
        [body.model or None for body in bodies],
    ]


def plain_answer(line: bytes) -> Answer | None:
    """Read one line; None unless it is a plain good row."""
    try:
        row = _decoder.decode(line)
    except UNREADABLE:
        return None
    if not _is_plain(row):
        return None
    body: Any = row.response.body  # type: ignore[union-attr]
    choice, usage = body.choices[0], body.usage or _NO_USAGE
    return Answer(
        row.custom_id,
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


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Plain good rows, in the order of their lines.

    Attributes
    ----------
    columns : list of list
        One for each of `FIELDS`, with one item per row.
    raw : pyarrow.LargeBinaryArray
        The lines as received.
    raw_bytes : int
        Their size.
    """

    columns: list[list[Any]]
    raw: pa.Array
    raw_bytes: int

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def ids(self) -> list[str]:
        """The rows' custom ids."""
        return self.columns[0]

    @property
    def damaged(self) -> bool:
        """Whether a text holds U+FFFD, the mark of a character that was damaged on the way."""
        return any("\ufffd" in text for text in self.columns[1])


def joined(parts: Sequence[PlainRows]) -> dict[str, Any]:
    """Return the values of `FIELDS` and `raw` over all parts, by name."""
    columns: dict[str, Any] = {
        name: list(chain.from_iterable(part.columns[i] for part in parts))
        for i, name in enumerate(FIELDS)
    }
    columns["raw"] = pa.chunked_array([part.raw for part in parts], pa.large_binary())
    return columns


_NOTHING = PlainRows([[] for _ in FIELDS], pa.array([], pa.large_binary()), 0)


def read_block(block: bytes) -> tuple[PlainRows, list[bytes]]:
    """
    Read whole lines.

    Parameters
    ----------
    block : bytes
        Lines; the last may lack its newline.

    Returns
    -------
    tuple of (PlainRows, list of bytes)
        The plain good rows, and the other lines that are not blank, without their ends.
    """
    ends = _line_ends(block)
    if ends is None:
        return _NOTHING, lines_of(block)
    try:
        rows = _decoder.decode_lines(block)
    except UNREADABLE:
        return _NOTHING, lines_of(block)
    if len(rows) != len(ends):
        return _NOTHING, lines_of(block)
    columns = _columns(rows)
    if columns is not None:
        return PlainRows(columns, _cut(block, ends), len(block)), []
    plain = list(map(_is_plain, rows))
    columns = _columns(list(compress(rows, plain)))
    assert columns is not None
    lines = lines_of(block)
    raw = pa.array(list(compress(lines, plain)), pa.large_binary())
    others = [line for line, is_plain in zip(lines, plain, strict=True) if not is_plain]
    return PlainRows(columns, raw, raw.nbytes), others


def _line_ends(block: bytes) -> list[int] | None:
    """Return where each line ends, or None where a line could hold more or less than one object.

    Between ``}`` and ``{`` a newline can only stand outside of all objects. So where every newline
    stands so, and the whole block decodes to as many objects as it has lines, each line is one.
    """
    ends: list[int] = []
    if not block:
        return None
    find, keep = block.find, ends.append
    at = find(b"\n")
    while at >= 0:
        keep(at)
        at = find(b"\n", at + 1)
    if not ends or ends[-1] + 1 < len(block):
        keep(len(block))
    data = np.frombuffer(block, np.uint8)
    stops = np.array(ends)
    starts = np.concatenate(([0], stops[:-1] + 1))
    if (data[stops - 1] != ord("}")).any() or (data[starts] != ord("{")).any():
        return None
    return ends if len(block) <= MAX_LINE_BYTES else None


def _cut(block: bytes, ends: Iterable[int]) -> pa.Array:
    """Return the lines of a block as an array that shares one buffer."""
    stops = np.array(ends)
    offsets = np.zeros(len(stops) + 1, np.int64)
    offsets[1:] = stops - np.arange(len(stops))
    data = block.replace(b"\n", b"")
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(stops), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
