"""What the gateway writes into an output file, one function per shape of row.

Comes in: the `custom_id` and the body of a request. Goes out: the lines of the output file (none,
one or several), without line ends. `JOB` in an id is replaced by the id of the batch job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gateway_lab import oracle

Body = Mapping[str, Any]
Row = Callable[[str, Body], list[bytes]]
JOB = "JOB"


def answer(text: str) -> str:
    """Return what the model of the stand-in (and of the gateway lab) answers to a prompt."""
    return oracle.expected_answer(text)


def last_user_text(body: Body) -> str:
    """Return the text of the last user turn; consecutive user messages are one turn."""
    texts: list[str] = []
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if message.get("role") != "user":
            if texts:
                break
            continue
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts.append("".join(p.get("text") or "" for p in content if isinstance(p, dict)))
    return "".join(reversed(texts))


def answer_to(body: Body) -> str:
    """Return the answer to a body; with a JSON schema, a JSON text that conforms to it."""
    text = last_user_text(body)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"]["schema"]
        plain = _inline(schema, {**schema.get("$defs", {}), **schema.get("definitions", {})})
        return json.dumps(oracle.expected_json(text, plain), ensure_ascii=False)
    if wanted.get("type") == "json_object":
        return json.dumps({"answer": answer(text)}, ensure_ascii=False)
    return answer(text)


def _inline(schema: Any, defs: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline(s, defs) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    return {k: _inline(v, defs) for k, v in schema.items() if k not in ("$defs", "definitions")}


# --- lines ----------------------------------------------------------------------------------
def dump(row: Mapping[str, Any]) -> bytes:
    """Encode a row as the gateway does: compact, and raw UTF-8."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def response_id(custom_id: str, body: Body) -> str:
    """Return the id that Google gives this answer; the same request has the same one here."""
    key = json.dumps([custom_id, body], sort_keys=True)
    return hashlib.sha1(key.encode()).hexdigest()[:22]


def usage_of(body: Body, text: str, *, reasoning: int = 0) -> dict[str, Any]:
    """Return `usage`; thinking is not part of `completion_tokens`."""
    n_in, n_out = oracle.tokens(last_user_text(body)), oracle.tokens(text) if text else 0
    return {
        "prompt_tokens": n_in,
        "completion_tokens": n_out,
        "total_tokens": n_in + n_out + reasoning,
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    }


def completion(
    custom_id: str, body: Body, choices: list[dict[str, Any]], usage: dict[str, Any]
) -> dict[str, Any]:
    """Return the `body` of a good response."""
    rid = hashlib.sha1(f"{custom_id}/{response_id(custom_id, body)}".encode()).hexdigest()
    return {
        "id": f"chatcmpl-{rid[:30]}",
        "object": "chat.completion",
        "created": 1771430797,
        "model": body.get("model", ""),
        "provider": "vertex-ai",
        "choices": choices,
        "usage": usage,
    }


def envelope(custom_id: Any, body: Body, response_body: Any, *, rid: str | None = None) -> bytes:
    """Return the line around a response body; `custom_id` None leaves the key out."""
    rid = response_id(str(custom_id), body) if rid is None else rid
    row = {
        "id": f"batch-{JOB}-{rid}",
        "custom_id": custom_id,
        "response": {
            "status_code": 200,
            "request_id": f"batch-{JOB}-{rid}",
            "body": response_body,
        },
        "error": "",
    }
    if custom_id is None:
        del row["custom_id"]
    return dump(row)


def with_text(
    custom_id: str,
    body: Body,
    text: str,
    *,
    finish_reason: str = "STOP",
    thinking: str | None = None,
    echo_id: Any = "",
) -> bytes:
    """Return a row that says `text`; `echo_id` replaces the `custom_id` that comes back."""
    blocks = [{"type": "text", "text": text}]
    if thinking is not None:
        blocks.insert(0, {"type": "thinking", "thinking": thinking})
    message = {"role": "assistant", "content": text, "content_blocks": blocks}
    choice = {"message": message, "index": 0, "finish_reason": finish_reason}
    usage = usage_of(body, text, reasoning=17 if thinking is not None else 0)
    echoed = custom_id if echo_id == "" else echo_id
    rid = response_id(custom_id, body)
    return envelope(echoed, body, completion(custom_id, body, [choice], usage), rid=rid)


def _without_text(
    custom_id: str, body: Body, finish_reason: str, usage: dict[str, Any], **extra: Any
) -> list[bytes]:
    message = {"role": "assistant", **extra.pop("message", {})}
    choice = {"message": message, "index": 0, "finish_reason": finish_reason, **extra}
    return [envelope(custom_id, body, completion(custom_id, body, [choice], usage))]


def _error_row(custom_id: Any, error: Any) -> list[bytes]:
    return [
        dump(
            {
                "id": f"batch-{JOB}-",
                "custom_id": custom_id,
                "response": {"request_id": f"batch-{JOB}-", "body": False},
                "error": error,
            }
        )
    ]


# --- the shapes -----------------------------------------------------------------------------
def good(custom_id: str, body: Body) -> list[bytes]:
    """A good answer, the oracle's."""
    return [with_text(custom_id, body, answer_to(body))]


def says(text: str, *, finish_reason: str = "STOP") -> Row:
    """A good answer with this very text."""
    return lambda custom_id, body: [with_text(custom_id, body, text, finish_reason=finish_reason)]


def thinking(custom_id: str, body: Body) -> list[bytes]:
    """A good answer after a block of thinking."""
    return [with_text(custom_id, body, answer_to(body), thinking="let me think")]


def failed(code: int = 400, message: str | None = None, *, form: str = "str") -> Row:
    """A failed row; `form` of its error is "str", "object", "list" or "plain"."""
    words = {400: "Bad Request", 429: "Too Many Requests", 500: "Internal Server Error"}
    names = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}
    said = message or f"row error {code}"
    detail = {"error": {"code": code, "message": said, "status": names.get(code, "UNKNOWN")}}
    errors: dict[str, Any] = {
        "str": f"{words.get(code, 'Error')}: {json.dumps(detail)}",
        "object": detail,
        "list": [detail],
        "plain": said,
    }
    error = errors[form]
    return lambda custom_id, body: _error_row(custom_id, error)


def blocked(custom_id: str, body: Body) -> list[bytes]:
    """The prompt was blocked: no choices."""
    usage = usage_of(body, "")
    return [envelope(custom_id, body, completion(custom_id, body, [], usage))]


def blocked_message(custom_id: str, body: Body) -> list[bytes]:
    """The prompt was blocked, told as `body.error.message`."""
    error = {"message": "PROHIBITED_CONTENT: The prompt could not be submitted.", "type": None}
    return [envelope(custom_id, body, {"error": error, "provider": "vertex-ai"})]


def finished(finish_reason: str) -> Row:
    """A candidate without content: RECITATION, MALFORMED_FUNCTION_CALL and their kind."""
    return lambda custom_id, body: _without_text(custom_id, body, finish_reason, usage_of(body, ""))


def safety(custom_id: str, body: Body) -> list[bytes]:
    """The answer was blocked: SAFETY, a message without content."""
    ratings = [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "HIGH", "blocked": True}]
    usage = usage_of(body, "")
    return _without_text(custom_id, body, "SAFETY", usage, safetyRatings=ratings)


def truncated(custom_id: str, body: Body) -> list[bytes]:
    """MAX_TOKENS, half of the answer is there."""
    text = answer_to(body)
    return [with_text(custom_id, body, text[: max(1, len(text) // 2)], finish_reason="MAX_TOKENS")]


def truncated_empty(custom_id: str, body: Body) -> list[bytes]:
    """MAX_TOKENS, everything was spent on thinking, no content."""
    return _without_text(custom_id, body, "MAX_TOKENS", usage_of(body, "", reasoning=4096))


def thinking_only(custom_id: str, body: Body) -> list[bytes]:
    """Only a block of thinking, no content."""
    message = {"content_blocks": [{"type": "thinking", "thinking": "let me think"}]}
    usage = usage_of(body, "", reasoning=17)
    return _without_text(custom_id, body, "STOP", usage, message=message)


def empty_response(custom_id: str, body: Body) -> list[bytes]:
    """Google answered nothing: an error inside a body with status 200."""
    return [envelope(custom_id, body, no_response(), rid="")]


def no_response() -> dict[str, Any]:
    """Return the body that stands where Google answered nothing."""
    message = "Invalid response received from vertex-ai: {}"
    error = {"message": message, "type": None, "param": None, "code": None}
    return {"error": error, "provider": "vertex-ai"}


def duplicate(custom_id: str, body: Body) -> list[bytes]:
    """The same good row twice."""
    return good(custom_id, body) * 2


def conflict(custom_id: str, body: Body) -> list[bytes]:
    """The same id twice: failed first, then good."""
    return failed()(custom_id, body) + good(custom_id, body)


def missing(custom_id: str, body: Body) -> list[bytes]:
    """No row at all."""
    return []


def numeric_id(custom_id: str, body: Body) -> list[bytes]:
    """The digits of the id come back as a number."""
    digits = int("".join(c for c in custom_id if c.isdigit()) or "0")
    return [with_text(custom_id, body, answer_to(body), echo_id=digits)]


def response_id_as_id(custom_id: str, body: Body) -> list[bytes]:
    """The answer's own id comes back in place of ours."""
    return [with_text(custom_id, body, answer_to(body), echo_id=response_id(custom_id, body))]


def no_id(custom_id: str, body: Body) -> list[bytes]:
    """No `custom_id` at all."""
    return [with_text(custom_id, body, answer_to(body), echo_id=None)]


def not_json(custom_id: str, body: Body) -> list[bytes]:
    """A line that cannot be read."""
    return [good(custom_id, body)[0][:40]]


def pick(choose: Mapping[str, Row] | Callable[[str, Body], Row | None], other: Row = good) -> Row:
    """Use another shape for some rows: by prompt text, or by a function; else `other`."""

    def row(custom_id: str, body: Body) -> list[bytes]:
        text = last_user_text(body)
        chosen = choose(custom_id, body) if callable(choose) else choose.get(text)
        return (chosen or other)(custom_id, body)

    return row


def some(row: Row, percent: float, *, seed: str = "0", other: Row = good) -> Row:
    """Use `row` for about this percentage of the rows, the same ones in each run."""
    return pick(
        lambda custom_id, body: (
            row if oracle.fraction(seed, custom_id, last_user_text(body)) < percent / 100 else None
        ),
        other,
    )


def in_turn(*rows: Row) -> Row:
    """Use the shapes one after the other, each request its own turn; the last one stays.

    For retries: `in_turn(failed(503), good)` fails a request once and then answers it.
    """
    turns: dict[str, int] = {}

    def row(custom_id: str, body: Body) -> list[bytes]:
        turn = turns.get(custom_id, 0)
        turns[custom_id] = turn + 1
        return rows[min(turn, len(rows) - 1)](custom_id, body)

    return row


# --- damage on the way ----------------------------------------------------------------------
Damage = Callable[[str, int], bool]


def damaged(reads: int = 1, ids: Collection[str] | None = None) -> Damage:
    """Damage the text of these rows (all, if None) in the first `reads` downloads of /output."""
    return lambda custom_id, read: read <= reads and (ids is None or custom_id in ids)


def damage_line(line: bytes) -> bytes:
    """Put a U+FFFD into the text of a row, as a character cut in two by a chunk border leaves."""
    row = json.loads(line)
    body = (row.get("response") or {}).get("body") or {}
    for choice in body.get("choices") or []:
        message = choice["message"]
        if isinstance(message.get("content"), str):
            text = message["content"]
            broken = f"{text[: len(text) // 2]}\ufffd{text[len(text) // 2 + 1 :]}"
            message["content"] = broken
            for block in message.get("content_blocks") or []:
                if block.get("text") == text:
                    block["text"] = broken
    return dump(row)
