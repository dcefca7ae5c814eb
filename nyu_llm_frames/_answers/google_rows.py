"""The provider's own output rows, read for what the gateway's conversion lost or damaged.

Comes in: a line of the stored predictions file, byte for byte. Goes out: the same `Answer` that
the gateway's line would have given. The gateway drops rows without usage metadata without a word,
and damages characters on chunk borders; the stored file has both whole.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from nyu_llm_frames._answers.answer import Answer
from nyu_llm_frames._answers.lines import loads, parse_google_line, parse_line
from nyu_llm_frames._answers.verdict import first, get


class StoredRow(NamedTuple):
    """A row of the predictions file; its answer is None when it has no id to join by."""

    answer: Answer | None


def parse_google_row(line: bytes) -> StoredRow | None:
    """Read a predictions row; None for what is none: a login page, half a line, another file."""
    row = loads(line)
    if not isinstance(row, dict) or not ("request" in row or "response" in row):
        return None
    return StoredRow(_answer(row, line))


def _answer(row: dict[str, Any], line: bytes) -> Answer | None:
    custom_id = get(row, "requestId")
    if not isinstance(custom_id, str) or not custom_id:
        return None
    response, status = get(row, "response"), get(row, "status")
    candidate, usage = first(get(response, "candidates")), get(response, "usageMetadata")
    named = parse_google_line(line)
    message: dict[str, Any] = {"role": "assistant"}
    if named is not None:
        message["content"] = named[1]
    body: Any = {
        "model": get(response, "modelVersion"),
        "choices": [{"message": message, "finish_reason": get(candidate, "finishReason")}],
        "usage": {
            "prompt_tokens": get(usage, "promptTokenCount"),
            "completion_tokens": get(usage, "candidatesTokenCount"),
            "completion_tokens_details": {"reasoning_tokens": get(usage, "thoughtsTokenCount")},
            "prompt_tokens_details": {"cached_tokens": get(usage, "cachedContentTokenCount")},
        },
    }
    feedback = get(response, "promptFeedback")
    if candidate is None:
        body["choices"] = []
        body["promptFeedback"] = feedback
    if not response:
        body = {"error": {"message": "empty response"}} if not status else False
    converted = {
        "custom_id": custom_id,
        "response": {"status_code": 200, "body": body} if not status else {"body": False},
        "error": status or "",
    }
    answer = parse_line(json.dumps(converted).encode())
    if not isinstance(answer, Answer):
        return None
    return msgspec.structs.replace(answer, raw=line)
