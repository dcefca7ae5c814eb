"""Classify one row: status, text, error and usage, from a decoded body of any shape.

Comes in: the id, `response.body` and `error` of a row as plain JSON values. Goes out: an `Answer`.
Every field may be absent or of the wrong type; nothing raises.
"""

from __future__ import annotations

from typing import Any

from nyu_llm_frames._stages.answers.answer import Answer, Status
from nyu_llm_frames._stages.answers.row_errors import (
    Problem,
    block_reason,
    find_problem,
    one_line,
    storable,
)

MAX_TOKENS_COUNT = 1_000_000_000  # a larger count is no count of tokens

_LENGTH = frozenset(
    {"MAX_TOKENS", "LENGTH", "MAX_OUTPUT_TOKENS", "MODEL_LENGTH", "MODEL_CONTEXT_WINDOW_EXCEEDED"}
)
_BLOCKED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "CONTENT_FILTER",
        "CONTENT_FILTERED",
        "GUARDRAIL_INTERVENED",
        "REFUSAL",
    }
)
_FINISHED = frozenset({"", "STOP", "END_TURN"})
_BROKEN = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
)


def get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def first(items: Any) -> Any:
    return items[0] if isinstance(items, list) and items else None


def classify(
    custom_id: str, body: Any, raw: bytes, error: Any = None, code: int | None = None
) -> Answer:
    """Decide the status of a row with a known id."""
    bad_code = code if code is not None and code >= 400 else None
    if isinstance(error, str):
        error = error.strip()
    if error:
        return _failure(custom_id, body, raw, find_problem(error).or_code(bad_code))
    if not isinstance(body, dict):
        problem = find_problem(body) if isinstance(body, str | list) else Problem()
        return _failure(custom_id, body, raw, problem.or_code(bad_code))
    if body.get("error"):
        problem = find_problem(body).or_code(bad_code)
        if problem.says_blocked:
            reason = problem.block or problem.message
            return no_answer(custom_id, "blocked", f"prompt blocked: {reason}", raw, body)
        return _failure(custom_id, body, raw, problem)
    choices = body.get("choices")
    choice = first(choices)
    text = _content(choice)
    if text is None and bad_code is not None:
        return _failure(custom_id, body, raw, Problem(bad_code))
    if choices == []:
        # A blocked prompt comes back with 200 and no candidate; the gateway drops the reason.
        reason = block_reason(body) or "the model gave no candidate and no reason"
        return no_answer(custom_id, "blocked", f"prompt blocked: {reason}", raw, body)
    status, problem_text = _outcome(choice, text, _reasoning_tokens(body))
    if status == "empty":
        text = text or ""
    elif status == "truncated":
        text = text or None
    elif status != "ok":
        text = None
    return _answer(custom_id, status, text, problem_text, raw, body)


def _outcome(choice: Any, text: str | None, reasoning: int | None) -> tuple[Status, str | None]:
    reason = get(choice, "finish_reason")
    word = reason.strip() if isinstance(reason, str) else ""
    name = word.rpartition(".")[2].upper().replace("-", "_").replace(" ", "_")
    message = get(choice, "message")
    if name in _LENGTH:
        spent = f" ({reasoning} tokens went into thinking)" if reasoning else ""
        what = "the answer was cut" if text else "there is no answer"
        return "truncated", f"{what}: max_tokens reached{spent}; give a larger max_tokens"
    if name in _BLOCKED:
        categories = _blocking_categories(choice)
        return "blocked", f"answer blocked: {word}{categories}"
    if name in _BROKEN:
        return "failed", f"the model tried to call a tool and failed: {word}"
    if text and not text.isspace():
        return "ok", None
    refusal = get(message, "refusal")
    if isinstance(refusal, str) and refusal.strip():
        return "blocked", f"the model declined: {refusal}"
    if get(message, "tool_calls"):
        return "failed", "the model called a tool in place of an answer"
    blocks = get(message, "content_blocks")
    others = [b for b in blocks if get(b, "type") != "text"] if isinstance(blocks, list) else []
    if text is None and any(get(b, "type") == "thinking" for b in others):
        return "failed", "empty answer: thinking only"
    nothing = text is not None or not (others or get(message, "content"))
    if nothing and name in _FINISHED and isinstance(message, dict):
        return "empty", "the answer is empty" + (f" (finish_reason {word})" if word else "")
    return "failed", f"empty answer (finish_reason {word})" if word else "empty answer"


def _content(choice: Any) -> str | None:
    content = get(get(choice, "message"), "content")
    if isinstance(content, str):
        return storable(content)
    if not isinstance(content, list):
        return None
    texts = [  # some servers answer with a list of parts, as a prompt may be given
        part if isinstance(part, str) else part["text"]
        for part in content
        if isinstance(part, str)
        or (
            isinstance(part, dict)
            and part.get("type", "text") in ("text", "output_text")
            and isinstance(part.get("text"), str)
        )
    ]
    return storable("".join(texts)) if texts else None


def _blocking_categories(choice: Any) -> str:
    ratings = get(choice, "safetyRatings")
    if not isinstance(ratings, list):
        return ""
    names = [
        rating["category"].removeprefix("HARM_CATEGORY_")
        for rating in ratings
        if isinstance(rating, dict)
        and rating.get("blocked") is True
        and isinstance(rating.get("category"), str)
    ]
    return f" ({', '.join(names)})" if names else ""


def _failure(custom_id: str, body: Any, raw: bytes, problem: Problem) -> Answer:
    status: Status = "failed"
    if problem.block:
        status = "blocked"
    elif problem.refused:
        status = "refused"
    text = problem.text or "no answer and no reason given"
    return no_answer(custom_id, status, text, raw, body)


def no_answer(custom_id: str, status: Status, error: str, raw: bytes, body: Any = None) -> Answer:
    return _answer(custom_id, status, None, error, raw, body)


def _answer(
    custom_id: str, status: Status, text: str | None, error: str | None, raw: bytes, body: Any
) -> Answer:
    usage = get(body, "usage")
    finish_reason, model = get(first(get(body, "choices")), "finish_reason"), get(body, "model")
    return Answer(
        custom_id,
        status,
        text,
        None if error is None else one_line(error),
        storable(finish_reason) if isinstance(finish_reason, str) else None,
        _tokens(usage, "prompt_tokens"),
        _tokens(usage, "completion_tokens"),
        _reasoning_tokens(body),
        _tokens(usage, "cached_tokens", "prompt_tokens_details"),
        storable(model) if isinstance(model, str) and model else None,
        raw,
    )


def _reasoning_tokens(body: Any) -> int | None:
    return _tokens(get(body, "usage"), "reasoning_tokens", "completion_tokens_details")


def _tokens(usage: Any, name: str, details: str | None = None) -> int | None:
    """Return a token count: 0 where only this one is left out, None where there is no usage."""
    if not isinstance(usage, dict):
        return None
    value = get(usage if details is None else usage.get(details), name)
    if value is None:
        return 0
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_COUNT:
        return value
    return None
