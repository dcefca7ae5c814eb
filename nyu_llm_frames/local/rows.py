"""Checks the lines of a batch file, and makes those of its output in the gateway's own shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO

MAX_LINE_BYTES = 64 * 2**20
ENDPOINT = "/v1/chat/completions"
_FINISH = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


class RowError(Exception):
    """One request cannot be answered; the others can.

    Its HTTP `status` is 400 where that is the request's own fault; 429 and 5xx are temporary.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Completion:
    """An engine's answer to one request, before it gets the shape of a gateway's answer."""

    model: str
    provider: str
    content: str | None
    finish_reason: str = "STOP"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    tool_calls: tuple[Any, ...] = ()


def completion_from(answer: Any, *, provider: str, model: str) -> Completion:
    """Read an OpenAI chat completion; anything else raises one of many errors."""
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    message = choice["message"]
    content = message.get("content")
    reason = str(choice.get("finish_reason") or "stop")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return Completion(
        model=model,
        provider=provider,
        content=content if isinstance(content, str) else None,
        finish_reason=_FINISH.get(reason, reason.upper()),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        # OpenAI counts thinking in completion_tokens, the gateway outside of them.
        completion_tokens=max(0, (usage.get("completion_tokens") or 0) - reasoning),
        reasoning_tokens=reasoning,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        tool_calls=tuple(message.get("tool_calls") or ()),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One non-blank line of an input file: a request, or the reason why it is not one."""

    number: int
    custom_id: str | None
    body: Mapping[str, Any] | None
    problem: str = ""


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Read a batch file line by line, split at ``\\n`` only, without blank lines."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            yield Line(number, None, None, f"longer than {MAX_LINE_BYTES:,} bytes")
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield parse_line(number, raw)


def parse_line(number: int, raw: bytes) -> Line:
    """Check one line; a line that is not a request says why."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Line(number, None, None, f"not JSON: {error}")
    if not isinstance(data, dict):
        return Line(number, None, None, "not a JSON object")
    given = data.get("custom_id")
    custom_id = given if isinstance(given, str) and given else None
    if custom_id is None:
        return Line(number, None, None, "custom_id is missing, empty or not a string")
    url = data.get("url", ENDPOINT)
    if url != ENDPOINT:
        return Line(number, custom_id, None, f"url must be {ENDPOINT}, not {url!r}")
    body = data.get("body")
    if not isinstance(body, dict):
        return Line(number, custom_id, None, "body is missing or not an object")
    try:
        check_body(body)
    except RowError as error:
        return Line(number, custom_id, None, error.message)
    return Line(number, custom_id, body)


def check_body(body: Mapping[str, Any]) -> None:
    """Raise `RowError` 400 for a chat request that no engine could answer."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowError(400, "messages must be a non-empty list")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RowError(400, f"messages[{i}] must be an object with a role")
        content = message.get("content")
        if not isinstance(content, str | list) and not message.get("tool_calls"):
            raise RowError(400, f"messages[{i}].content must be text or a list of parts")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise RowError(400, f"{name} must be a whole number above 0, not {value!r}")
    asked_schema(body)


def asked_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON schema that the answer must fit, or None for free text."""
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise RowError(400, "response_format.type must be text, json_object or json_schema")
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        raise RowError(400, "response_format.json_schema.schema must be an object")
    return schema


def asked_tokens(body: Mapping[str, Any]) -> int | None:
    value = body.get("max_tokens")
    if value is None:
        value = body.get("max_completion_tokens")
    return value if isinstance(value, int) else None


def completion_body(answer: Completion, *, request_id: str, created: int) -> dict[str, Any]:
    """Give a completion the gateway's shape (its order of fields, upper-case reasons)."""
    message: dict[str, Any] = {"role": "assistant"}
    if answer.content is not None:
        message["content"] = answer.content
        message["content_blocks"] = [{"type": "text", "text": answer.content}]
    if answer.tool_calls:
        message["tool_calls"] = list(answer.tool_calls)
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "provider": answer.provider,
        "choices": [{"message": message, "index": 0, "finish_reason": answer.finish_reason}],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens
            + answer.completion_tokens
            + answer.reasoning_tokens,
            "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        },
    }


def good_line(job: int, line: Line, answer: Completion, *, created: int) -> bytes:
    request_id = f"batch-{job}--{line.number:x}"
    body = completion_body(answer, request_id=f"chatcmpl-{job}-{line.number:x}", created=created)
    return _encode(
        {
            "id": request_id,
            "custom_id": line.custom_id,
            "response": {"status_code": 200, "request_id": request_id, "body": body},
            "error": "",
        }
    )


def failed_line(job: int, line: Line, error: RowError) -> bytes:
    """Encode the output line of a failed request: no status_code, ``body`` false, a text error."""
    request_id = f"batch-{job}--{line.number:x}"
    detail = json.dumps({"error": {"code": error.status, "message": error.message}})
    return _encode(
        {
            "id": request_id,
            "custom_id": line.custom_id,
            "response": {"request_id": request_id, "body": False},
            "error": f"{phrase(error.status)}: {detail}",
        }
    )


def bad_line(job: int, line: Line) -> bytes:
    """Encode the output line of an input line that is not a request."""
    return failed_line(job, line, RowError(400, f"line {line.number}: {line.problem}"))


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"


def _encode(row: Mapping[str, Any]) -> bytes:
    # ASCII only: a model may cut a character in two, and a lone surrogate has no UTF-8.
    return json.dumps(row, separators=(",", ":")).encode("ascii")
