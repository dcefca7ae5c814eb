"""The engine for tests and teaching: it repeats the prompt, or makes a value that fits a schema.

The same body gives the same answer. No model is involved, and the answer says so: ``model: echo``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from nyu_llm_frames.local.rows import Completion, RowError, asked_schema

MAX_ITEMS = 10_000
_KNOWN = frozenset(
    {"type", "enum", "anyOf", "oneOf", "properties", "items", "minItems", "maxItems"}
    | {"minimum", "maximum", "minLength", "maxLength"}
)
_IGNORED = frozenset(
    {"title", "description", "nullable", "required", "propertyOrdering", "default", "examples"}
    | {"$schema", "$defs", "additionalProperties"}
)


@dataclass(frozen=True, slots=True)
class EchoEngine:
    slots: int = 1
    model: str = "echo"
    fragile: bool = False

    def answer(self, body: Mapping[str, Any], stop: Event) -> Completion:
        text = last_user_text(body["messages"])
        schema = asked_schema(body)
        content = (
            f"echo: {text}"
            if schema is None
            else json.dumps(conforming(schema, text), ensure_ascii=False)
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
    users = [m for m in messages if m.get("role") == "user"]
    return _text((users or messages)[-1].get("content"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(p.get("text", "")) for p in parts if isinstance(p, dict) and p.get("type") == "text"
    )


def conforming(schema: Any, text: str, path: str = "$") -> Any:
    """Make a value that fits `schema`; which one depends on `text` and the place alone.

    Of JSON Schema only what the package itself sends is known, and the length of a text.

    Examples
    --------
    >>> conforming({"type": "integer", "minimum": 3}, "hi")
    3
    """
    if not isinstance(schema, dict):
        raise RowError(400, f"{path}: a schema must be an object, not {schema!r}")
    if unknown := sorted(schema.keys() - _KNOWN - _IGNORED):
        raise RowError(400, f"{path}: the echo does not know {unknown[0]!r}; use a model")
    if "enum" in schema:
        return _choose(schema["enum"], text, path)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            options = [o for o in schema[word] if o != {"type": "null"}] or schema[word]
            return conforming(_choose(options, text, path), text, path)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    match kind:
        case "object":
            parts = schema.get("properties", {})
            return {name: conforming(parts[name], text, f"{path}.{name}") for name in parts}
        case "array":
            few = int(schema.get("minItems", 1))
            many = int(schema.get("maxItems", max(few, 1)))
            if few > MAX_ITEMS:
                raise RowError(400, f"{path}: minItems {few} is more than {MAX_ITEMS:,}")
            items = schema.get("items", {"type": "string"})
            places = range(min(max(few, 1), many))
            return [conforming(items, text, f"{path}[{i}]") for i in places]
        case "string":
            value = f"echo: {text}".ljust(min(int(schema.get("minLength", 0)), MAX_ITEMS), ".")
            return value[: int(schema.get("maxLength", len(value)))]
        case "integer":
            return math.ceil(_number(schema))
        case "number":
            return float(_number(schema))
        case "boolean":
            return _digest(text, path) % 2 == 0
        case "null":
            return None
        case _:
            raise RowError(400, f"{path}: there is no type {kind!r}")


def _number(schema: Mapping[str, Any]) -> float | int:
    value: float | int = max(schema.get("minimum", 0), 0)
    most: float | int = schema.get("maximum", value)
    return min(value, most)


def _choose(options: Any, text: str, path: str) -> Any:
    if not isinstance(options, list) or not options:
        raise RowError(400, f"{path}: needs a non-empty list to choose from")
    return options[_digest(text, path) % len(options)]


def _digest(text: str, path: str) -> int:
    raw = f"{path}\n{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
