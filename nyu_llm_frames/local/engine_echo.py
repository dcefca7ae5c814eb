"""The engine for tests and teaching: it repeats the prompt, or makes a value that fits a schema.

Comes in: a chat body. Goes out: ``echo: <last user text>``, or JSON that conforms to the schema,
the same one for the same body. No model is involved, and the answer says so: ``model: echo``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from nyu_llm_frames.local.rows import Completion, RowError, asked_schema

MAX_DEPTH = 40
MAX_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class EchoEngine:
    """Answers with the prompt."""

    slots: int = 1
    model: str = "echo"
    fragile: bool = False

    def answer(self, body: Mapping[str, Any], stop: Event) -> Completion:
        """Echo the last user text."""
        text = last_user_text(body["messages"])
        schema = asked_schema(body)
        content = (
            f"echo: {text}"
            if schema is None
            else json.dumps(conforming(schema, schema, text), ensure_ascii=False)
        )
        prompt = sum(len(_text(m.get("content")).split()) for m in body["messages"])
        return Completion(
            model="echo",
            provider="local",
            content=content,
            prompt_tokens=prompt,
            completion_tokens=len(content.split()),
        )


def last_user_text(messages: list[Any]) -> str:
    """Return the text of the last user message, or of the last message if there is none."""
    users = [m for m in messages if m.get("role") == "user"]
    return _text((users or messages)[-1].get("content"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(p.get("text", "")) for p in parts if isinstance(p, dict) and p.get("type") == "text"
    )


def conforming(schema: Any, root: Any, text: str, path: str = "$", depth: int = 0) -> Any:
    """Make a value that fits `schema`; which one depends on `text` and the place alone.

    Examples
    --------
    >>> conforming({"type": "integer", "minimum": 3}, {}, "hi")
    3
    """
    if depth > MAX_DEPTH:
        raise RowError(400, f"{path}: the schema has no end")
    if not isinstance(schema, dict):
        if schema is True:
            return f"echo: {text}"
        raise RowError(400, f"{path}: a schema must be an object, not {schema!r}")

    def inner(part: Any, where: str) -> Any:
        return conforming(part, root, text, where, depth + 1)

    if "$ref" in schema:
        return inner(_resolve(schema["$ref"], root, path), path)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _choose(schema["enum"], text, path)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            options = [o for o in schema[word] if o != {"type": "null"}] or schema[word]
            return inner(_choose(options, text, path), path)
    if "allOf" in schema:
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
        for part in schema["allOf"]:
            if isinstance(part, dict) and "$ref" in part:
                part = _resolve(part["$ref"], root, path)
            merged = _merge(merged, part)
        return inner(merged, path)
    return _typed(schema, text, path, inner)


def _typed(schema: Mapping[str, Any], text: str, path: str, inner: Any) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    match kind:
        case "object":
            given = schema.get("properties", {})
            return {name: inner(part, f"{path}.{name}") for name, part in given.items()}
        case "array":
            few = int(schema.get("minItems", 1))
            many = int(schema.get("maxItems", max(few, 1)))
            if few > MAX_ITEMS:
                raise RowError(400, f"{path}: minItems {few} is more than {MAX_ITEMS:,}")
            items = schema.get("items", {"type": "string"})
            return [inner(items, f"{path}[{i}]") for i in range(min(max(few, 1), many))]
        case "string":
            return _string(schema, text)
        case "integer":
            return _number(schema, 1)
        case "number":
            return float(_number(schema, 0))
        case "boolean":
            return _digest(text, path) % 2 == 0
        case "null":
            return None
        case _:
            raise RowError(400, f"{path}: there is no type {kind!r}")


def _string(schema: Mapping[str, Any], text: str) -> str:
    formats = {
        "date": "2024-01-31",
        "date-time": "2024-01-31T12:00:00Z",
        "time": "12:00:00Z",
        "uuid": "00000000-0000-4000-8000-000000000000",
        "email": "echo@example.org",
        "uri": "https://example.org/echo",
    }
    value = formats.get(str(schema.get("format")), f"echo: {text}")
    value = value.ljust(min(int(schema.get("minLength", 0)), 10 * MAX_ITEMS), ".")
    return value[: int(schema.get("maxLength", len(value)))]


def _number(schema: Mapping[str, Any], step: int) -> float | int:
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + (step or 0.5)
    high = schema.get("maximum")
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - (step or 0.5)
    value: float = 0
    if low is not None and value < low:
        value = low
    if high is not None and value > high:
        value = high
    if not step:
        return value
    whole = int(value)
    return whole + 1 if whole < value else whole


def _resolve(reference: Any, root: Any, path: str) -> Any:
    found = root
    for step in str(reference).removeprefix("#").strip("/").split("/") if reference != "#" else []:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or step not in found:
            raise RowError(400, f"{path}: cannot resolve {reference!r}")
        found = found[step]
    return found


def _merge(one: Mapping[str, Any], other: Any) -> dict[str, Any]:
    both = {**one, **(other if isinstance(other, dict) else {})}
    if "properties" in one and isinstance(other, dict) and "properties" in other:
        both["properties"] = {**one["properties"], **other["properties"]}
    return both


def _choose(options: Any, text: str, path: str) -> Any:
    if not isinstance(options, list) or not options:
        raise RowError(400, f"{path}: needs a non-empty list to choose from")
    return options[_digest(text, path) % len(options)]


def _digest(text: str, path: str) -> int:
    raw = f"{path}\n{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
