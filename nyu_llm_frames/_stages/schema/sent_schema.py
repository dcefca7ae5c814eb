"""Write the schema that is sent: Google's subset, in a form that the gateway does not change.

It is a relaxation of the original, with the rest in words.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from nyu_llm_frames._stages.schema.keywords import json_type, wrong
from nyu_llm_frames._stages.schema.node import Node

MAX_DEPTH = 12
"""Levels of objects in a schema: the importer of batch jobs takes 15 in a whole request line, and
``request.generationConfig.responseSchema`` is at the fourth level."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DROPPED_NAMES = frozenset({"additionalProperties", "additional_properties"})
_SAFE_INTEGER = 2**53


def to_wire(root: Node) -> dict[str, Any]:
    """Write a schema for Gemini behind the gateway.

    Only these keywords are used: type, description, nullable, enum (of text), minimum, maximum,
    minItems, maxItems, items, properties, required, propertyOrdering, anyOf. An ``anyOf`` is
    alone in its object: Vertex refuses other keywords beside it, so that null and description
    go into the alternatives. Each keyword has values of one type only, as the importer of batch
    jobs wants it. Choices that are no text (Google's enum is text) become a type with bounds and
    are named in the description.
    """
    return _wire(root, 1)


def _wire(node: Node, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise wrong(
            node.path,
            "nested too deeply; Google takes 15 levels in a request, of which "
            f"{MAX_DEPTH} are left for the schema (an object takes two, a list one): flatten it, "
            "or ask in two runs",
        )
    if node.kind == "union":
        return {"anyOf": [_wire(_inherit(node, v), depth + 1) for v in node.variants]}
    if node.kind == "choice":
        return _choice(node, depth)
    if node.kind == "array":
        assert node.items is not None
        return {**_head(node, "array"), "items": _wire(node.items, depth + 1), **node.limits}
    if node.kind == "object":
        return _object(node, depth)
    if node.kind in ("integer", "number"):
        bounds, words = _bounds(node)
        return {**_head(node, node.kind, words), **bounds}
    return _head(node, "boolean" if node.kind == "boolean" else "string")


def _head(node: Node, json_kind: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
    remarks = "; ".join((*node.remarks, *words))
    text = f"{node.description} ({remarks})" if node.description and remarks else None
    out: dict[str, Any] = {"type": json_kind}
    if text or node.description or remarks:
        out["description"] = text or node.description or remarks
    if node.nullable:
        out["nullable"] = True
    return out


def _inherit(node: Node, variant: Node) -> Node:
    description = " ".join(d for d in (node.description, variant.description) if d)
    return replace(variant, nullable=variant.nullable or node.nullable, description=description)


def _object(node: Node, depth: int) -> dict[str, Any]:
    for name in node.properties:
        path = f"{node.path}.{name}"
        if not _NAME.match(name):
            raise wrong(
                path,
                "Google's batch importer takes field names of ASCII letters, digits and "
                f"_ only, not starting with a digit: rename {name!r} (in a pydantic model give "
                "it an alias that is such a name)",
            )
        if name in _DROPPED_NAMES:
            raise wrong(
                path, f"the gateway removes every key of the name {name!r}; rename the field"
            )
    names = list(node.properties)
    out = _head(node, "object")
    out["properties"] = {n: _wire(sub, depth + 2) for n, sub in node.properties.items()}
    if required := [n for n in names if n in node.required]:
        out["required"] = required
    # Gemini writes the fields in this order, so that the reasons can come before the verdict.
    out["propertyOrdering"] = names
    return out


def _choice(node: Node, depth: int) -> dict[str, Any]:
    groups: dict[str, list[Any]] = {}
    for value in node.choices:
        kind = json_type(value)
        groups.setdefault("number" if kind == "integer" else kind, []).append(value)
    if len(groups) > 1:
        parts = [replace(node, choices=tuple(values)) for values in groups.values()]
        return {"anyOf": [_choice(part, depth + 1) for part in parts]}
    if depth > MAX_DEPTH:
        raise wrong(node.path, "nested too deeply; flatten it")
    kind, values = next(iter(groups.items()))
    named = "one of " + ", ".join(_print(v) for v in values)
    if kind == "string":
        # Google refuses an empty string among the choices.
        if "" in values:
            return _head(node, "string", (named,))
        return {**_head(node, "string"), "enum": values}
    if kind == "boolean":
        return _head(node, "boolean", (named,) if len(values) == 1 else ())
    whole = all(float(v).is_integer() for v in values)
    low, high = min(values), max(values)
    gapless = whole and high - low + 1 == len(values)
    bounds = _checked({"minimum": low, "maximum": high}, whole)
    return {**_head(node, "integer" if whole else "number", () if gapless else (named,)), **bounds}


def _print(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(int(value) if isinstance(value, float) and value.is_integer() else value)


def _bounds(node: Node) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Closed bounds, and in words what a closed bound cannot express."""
    limits, whole = node.limits, node.kind == "integer"
    lows, highs, words = [], [], []
    if "ge" in limits:
        lows.append(math.ceil(limits["ge"]) if whole else limits["ge"])
    if "gt" in limits:
        lows.append(math.floor(limits["gt"]) + 1 if whole else limits["gt"])
        words += [] if whole else [f"greater than {limits['gt']}"]
    if "le" in limits:
        highs.append(math.floor(limits["le"]) if whole else limits["le"])
    if "lt" in limits:
        highs.append(math.ceil(limits["lt"]) - 1 if whole else limits["lt"])
        words += [] if whole else [f"less than {limits['lt']}"]
    out: dict[str, Any] = {}
    if lows:
        out["minimum"] = max(lows)
    if highs:
        out["maximum"] = min(highs)
    if lows and highs and out["minimum"] > out["maximum"]:
        raise wrong(node.path, "no number is within its bounds")
    return _checked(out, whole), tuple(words)


def _checked(bounds: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Bounds that survive a JavaScript gateway, where every number is a double."""
    return {
        k: int(v) if whole else v
        for k, v in bounds.items()
        if math.isfinite(v) and abs(v) <= _SAFE_INTEGER
    }
