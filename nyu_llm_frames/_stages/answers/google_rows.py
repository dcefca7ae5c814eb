"""Convert the provider's own rows, as in the stored output file, to the gateway's form.

Comes in: a decoded row from Google. Goes out: the row that the gateway makes of it, so that both
are classified by the same code. The gateway drops rows without usage metadata; they are kept here.
"""

from __future__ import annotations

import json
from typing import Any

from nyu_llm_frames._stages.answers.classify import first, get
from nyu_llm_frames._stages.answers.row_errors import UNREADABLE

ECHOES = ("request", "instance")
"""Keys under which a row repeats its request."""

_OWN_KEYS = frozenset({"requestId", "status", *ECHOES})


def is_google_row(row: dict[str, Any]) -> bool:
    """Whether a row is written in the provider's form."""
    return "custom_id" not in row and not _OWN_KEYS.isdisjoint(row)


def gateway_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as the gateway would write it."""
    status = row.get("status")
    return {
        "custom_id": row.get("requestId"),
        "response": {"body": False if status else _body(row.get("response"))},
        "error": status,
    }


def _body(response: Any) -> Any:
    if isinstance(response, str):
        return response
    candidate, usage = first(get(response, "candidates")), get(response, "usageMetadata")
    feedback = get(response, "promptFeedback")
    if not isinstance(candidate, dict) and usage is None and feedback is None:
        # In the words of the gateway.
        return {"error": {"message": f"{UNREADABLE} from vertex-ai: {_dumped(response or {})}"}}
    return {
        "model": get(response, "modelVersion"),
        "choices": [_choice(candidate)] if isinstance(candidate, dict) else [],
        "promptFeedback": feedback,
        "usage": _usage(usage) if isinstance(usage, dict) else None,
    }


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "{}"


def _choice(candidate: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    parts = get(candidate.get("content"), "parts")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if text := "".join(part["text"] for part in parts if _kind(part) == "text"):
        message["content"] = text
    message["content_blocks"] = [{"type": _kind(part)} for part in parts]
    if any("functionCall" in part for part in parts):
        message["tool_calls"] = True
    return {
        "message": message,
        "finish_reason": candidate.get("finishReason"),
        "safetyRatings": candidate.get("safetyRatings"),
    }


def _kind(part: dict[str, Any]) -> str:
    if part.get("thought"):
        return "thinking"
    return "text" if isinstance(part.get("text"), str) else "other"


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.get("promptTokenCount"),
        "completion_tokens": usage.get("candidatesTokenCount"),
        "completion_tokens_details": {"reasoning_tokens": usage.get("thoughtsTokenCount")},
        "prompt_tokens_details": {"cached_tokens": usage.get("cachedContentTokenCount")},
    }
