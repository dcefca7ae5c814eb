"""Validated values as what a column of their kind holds.

Comes in: the tree of a schema, and values of JSON or of pydantic's making. Goes out: text, int,
float, bool, date, datetime, list, dict or None; or `Unfit` with the place and the reason.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from nyu_llm_frames._schema.formats import shown, to_date, to_datetime
from nyu_llm_frames._schema.keywords import scalar_key, unique
from nyu_llm_frames._schema.node import Node

Convert = Callable[[Any], Any]
INT64 = (-(2**63), 2**63 - 1)


class Unfit(Exception):
    """A value that does not belong: (place such as ``.charges[0]``, what is wrong)."""

    def below(self, place: str) -> Unfit:
        """The same, seen from the value that holds it."""
        return Unfit(place + self.args[0], self.args[1])


def column_node(node: Node) -> Node:
    """The node as a column: alternatives of objects become one object with all their fields."""
    if node.kind == "union":
        merged = _overlay(list(node.variants))
        if merged is None:
            return replace(node, variants=())
        return replace(merged, nullable=True, path=node.path, description=node.description)
    if node.kind == "array" and node.items is not None:
        return replace(node, items=column_node(node.items))
    if node.kind == "object":
        properties = {k: column_node(v) for k, v in node.properties.items()}
        return replace(node, properties=properties)
    return node


def _overlay(nodes: list[Node]) -> Node | None:
    """One node that holds the values of all these; None where their types differ."""
    nodes = [v for n in nodes for v in (n.variants if n.kind == "union" else [n])]
    first, kinds = nodes[0], {n.kind for n in nodes}
    if len(kinds) > 1:
        return Node("number") if kinds == {"integer", "number"} else None
    if first.kind == "choice":
        return replace(first, choices=unique(c for n in nodes for c in n.choices))
    if first.kind == "array":
        inner = _overlay([n.items for n in nodes if n.items is not None])
        return replace(first, items=column_node(inner)) if inner else None
    if first.kind != "object":
        return first
    properties: dict[str, Node] = {}
    for name in dict.fromkeys(k for n in nodes for k in n.properties):
        merged = _overlay([n.properties[name] for n in nodes if name in n.properties])
        if merged is None:
            return None
        properties[name] = column_node(merged)
    return replace(first, properties=properties)


def compile_value(node: Node) -> Convert:
    """Compile the way of one kind of value into its column."""
    if node.kind == "object":
        return compile_object(node, dict)
    convert = _array(node) if node.kind == "array" else _SIMPLE.get(node.kind) or _choice(node)
    exact = bool if node.kind == "boolean" else None

    def run(value: Any) -> Any:
        if value is None or type(value) is exact:
            return value
        if isinstance(value, Enum):
            value = value.value
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise Unfit("", f"{shown(value)} cannot be stored as {node.kind}") from None

    return run


def compile_object(node: Node, build: Callable[[list[tuple[str, Any]]], Any]) -> Convert:
    """Compile an object; `build` gets its fields as pairs."""
    parts = [(name, compile_value(sub)) for name, sub in node.properties.items()]

    def run(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, (str, int, float, list)):
            raise Unfit("", f"{shown(value)} cannot be stored as object")
        out = []
        is_dict = isinstance(value, dict)
        for name, convert in parts:
            entry = value.get(name) if is_dict else getattr(value, name, None)
            try:
                out.append((name, convert(entry)))
            except Unfit as error:
                raise error.below(f".{name}") from None
        return build(out)

    return run


def _array(node: Node) -> Convert:
    assert node.items is not None
    convert = compile_value(node.items)

    def run(value: Any) -> list[Any]:
        if isinstance(value, (str, dict)):
            raise ValueError
        out = []
        for i, entry in enumerate(value):
            try:
                out.append(convert(entry))
            except Unfit as error:
                raise error.below(f"[{i}]") from None
        return out

    return run


def _choice(node: Node) -> Convert:
    known = {scalar_key(c): c for c in node.choices}

    def run(value: Any) -> Any:
        key = scalar_key(value)
        if key not in known:
            raise Unfit("", f"{shown(value)} is none of its choices")
        return known[key]

    return run


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else _jsonable(value)
    if not isinstance(text, str):
        raise ValueError
    if not text.isascii():
        text.encode()  # a lone surrogate is no text that a column can hold
    return text


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, str) or number != value:
        raise ValueError
    if not INT64[0] <= number <= INT64[1]:
        raise Unfit("", f"{shown(value)} does not fit into 64 bits")
    return number


def _number(value: Any) -> float:
    if isinstance(value, (str, bool)):
        raise ValueError
    if not math.isfinite(real := float(value)):
        raise Unfit("", f"{value} is no finite number")
    return real


def _boolean(value: Any) -> bool:
    raise ValueError


def _date(value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    return value if isinstance(value, dt.date) else to_date(value)


def _datetime(value: Any) -> dt.datetime:
    """A time with an offset as UTC, then without zone: the column's type cannot vary by row."""
    if not isinstance(value, dt.date):
        value = to_datetime(value)
    if not isinstance(value, dt.datetime):
        return dt.datetime.combine(value, dt.time())
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def _union(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_jsonable)


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, list, dict)):
        return value
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


_SIMPLE: dict[str, Convert] = {
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
    "union": _union,
}
