"""The fast, typed reader of the usual output row: a good answer, from gateway or provider.

Comes in: one line. Goes out: its `Answer`, or None for every other line: decoding stops at the
first unexpected field. The tolerant reader in `lines` gives the same result, more slowly.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from nyu_llm_frames._stages.answers.answer import Answer
from nyu_llm_frames._stages.answers.classify import MAX_TOKENS_COUNT

# A count that usage leaves out is 0.
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS_COUNT)]
_Counts: TypeAlias = tuple[int | None, int | None, int | None, int | None]
_NO_COUNTS: _Counts = (None, None, None, None)
_ECHO, _NO_ECHO = b'"request"', msgspec.Raw(b"")
_COLON, _BACKSLASH = b":\\"
_FINISHED = frozenset({"STOP", "stop", None})
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# --- the gateway's form -----------------------------------------------------------------------
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
    content: str


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


# --- the provider's form ----------------------------------------------------------------------
class _Part(msgspec.Struct, gc=False):
    text: str = ""
    thought: bool = False


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part]


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content
    finish_reason: str | None = None


class _UsageMetadata(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: _Count = 0
    candidates_token_count: _Count = 0
    thoughts_token_count: _Count = 0
    cached_content_token_count: _Count = 0


# --- both -------------------------------------------------------------------------------------
class _Response(msgspec.Struct, gc=False, rename="camel"):
    body: _Body | None = None
    candidates: list[_Candidate] = []
    usage_metadata: _UsageMetadata | None = None
    model_version: str | None = None


class _Row(msgspec.Struct, gc=False, rename={"request_id": "requestId"}):
    response: _Response
    custom_id: str | UnsetType = UNSET
    error: Any = None
    request_id: str | None = None
    status: Any = None
    request: msgspec.Raw = _NO_ECHO
    instance: UnsetType = UNSET  # a row of another kind of job


_row = msgspec.json.Decoder(_Row).decode


def usual_answer(line: bytes) -> Answer | None:
    """Read one line; None unless it is a good row of the usual form."""
    try:
        row = _row(line)
        if row.custom_id is UNSET:
            return _stored_answer(row, line)
        return _gateway_answer(row, row.custom_id, line)
    except UNREADABLE:
        return None


def _gateway_answer(row: _Row, custom_id: str, line: bytes) -> Answer | None:
    body = row.response.body
    if row.error or body is None or body.error is not None or not body.choices:
        return None
    counts = _NO_COUNTS
    if (usage := body.usage) is not None:
        written, read = usage.completion_tokens_details, usage.prompt_tokens_details
        counts = (
            usage.prompt_tokens,
            usage.completion_tokens,
            0 if written is None else written.reasoning_tokens,
            0 if read is None else read.cached_tokens,
        )
    choice = body.choices[0]
    return _good(custom_id, choice.message.content, choice.finish_reason, counts, body.model, line)


def _stored_answer(row: _Row, line: bytes) -> Answer | None:
    """Read a row as stored in the bucket; the copy of its request in it is not kept."""
    response, raw = row.response, _without_echo(line, len(memoryview(row.request)))
    if row.status or not response.candidates or raw is None:
        return None
    counts = _NO_COUNTS
    if (usage := response.usage_metadata) is not None:
        counts = (
            usage.prompt_token_count,
            usage.candidates_token_count,
            usage.thoughts_token_count,
            usage.cached_content_token_count,
        )
    candidate = response.candidates[0]
    text = "".join([part.text for part in candidate.content.parts if not part.thought])
    return _good(row.request_id, text, candidate.finish_reason, counts, response.model_version, raw)


def _without_echo(line: bytes, size: int) -> bytes | None:
    """Cut the request out of a line, by the size of its JSON; None where that is ambiguous.

    Its key occurs once, nothing before it has nested fields, and more follows it.
    """
    at = line.rfind(_ECHO)
    if not size or at < 0:
        return None if size or at >= 0 else line
    colon = at + len(_ECHO)
    end = colon + 1 + line.startswith(b" ", colon + 1) + size
    if line.find(_ECHO, 0, at) >= 0 or line.find(b"{", 1, at) >= 0:
        return None
    if line[at - 1] == _BACKSLASH or line[colon] != _COLON or not line.startswith(b",", end):
        return None
    return line[:at] + line[end + 1 :].lstrip()


def _good(
    custom_id: str | None,
    text: str,
    finish_reason: str | None,
    counts: _Counts,
    model: str | None,
    raw: bytes,
) -> Answer | None:
    if not custom_id or not custom_id.isascii() or not text or text.isspace():
        return None
    if finish_reason not in _FINISHED:
        return None
    return Answer(custom_id, "ok", text, None, finish_reason, *counts, model or None, raw)
