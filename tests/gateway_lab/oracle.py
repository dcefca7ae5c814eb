"""The deterministic "model": what the fake Gemini answers for a given prompt.

No dependencies, no I/O: a test imports this module and recomputes every expected answer,
so a join of answers to rows can be verified row by row.

    expected_answer("hello")            -> 'echo:aaf4c61ddcc5e8a2:hello'
    expected_json("hello", schema)      -> a dict that conforms to the (Gemini) schema
    embedding("hello")                  -> [0.12, ...] 8 floats
"""

from __future__ import annotations

import hashlib
from typing import Any


def _sha(*parts: str) -> str:
    # surrogatepass: a lone surrogate in a prompt must not crash the oracle
    return hashlib.sha1("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def fraction(*parts: str) -> float:
    """A stable pseudo-random number in [0, 1) for these strings."""
    return int(_sha(*parts)[:12], 16) / float(16**12)


def expected_answer(text: str) -> str:
    """Plain-text answer for the last user text."""
    return f"echo:{_sha(text)[:16]}:{text}"


def expected_json(text: str, schema: dict[str, Any], path: str = "$") -> Any:
    """A JSON value that conforms to a Gemini responseSchema (types may be any case)."""
    h = _sha(text, path)
    n = int(h[:6], 16)
    if not isinstance(schema, dict):
        return f"echo:{h[:8]}"
    if schema.get("enum"):
        values = schema["enum"]
        return values[n % len(values)]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return expected_json(text, schema[key][0], path)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "string")
    kind = str(kind).lower()
    if kind == "object":
        return {
            k: expected_json(text, v, f"{path}.{k}")
            for k, v in (schema.get("properties") or {}).items()
        }
    if kind == "array":
        return [expected_json(text, schema.get("items") or {}, f"{path}[{i}]") for i in range(2)]
    if kind == "integer":
        lo, hi = int(schema.get("minimum", 0)), int(schema.get("maximum", 100))
        return lo + n % (hi - lo + 1)
    if kind == "number":
        low, high = float(schema.get("minimum", 0)), float(schema.get("maximum", 1))
        return round(low + (n % 1000) / 1000 * (high - low), 3)
    if kind == "boolean":
        return bool(n % 2)
    return f"echo:{h[:8]}"


def embedding(text: str, dims: int = 8) -> list[float]:
    h = _sha(text)
    return [round(int(h[4 * i : 4 * i + 4], 16) / 65535 - 0.5, 6) for i in range(dims)]


def last_user_text(request: dict[str, Any]) -> str:
    """Last user text of a Gemini generateContent request (parts of one turn are joined)."""
    for content in reversed(request.get("contents") or []):
        if content.get("role", "user") == "user":
            return "".join(p.get("text") or "" for p in content.get("parts") or [])
    return ""


def tokens(text: str) -> int:
    """A fake but stable token count."""
    return max(1, len(text) // 4)
