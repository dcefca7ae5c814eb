"""Convert validated values to what their columns hold, or say where and why they cannot be."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import RootModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from nyu_llm_frames._stages.schema.formats import shown, to_date, to_datetime
from nyu_llm_frames._stages.schema.keywords import scalar_key, unique
from nyu_llm_frames._stages.schema.node import Node

Convert = Callable[[Any], Any]
INT64 = (-(2**63), 2**63 - 1)


class Unfit(Exception):
    """A value that does not belong: (place such as ``.charges[0]``, what is wrong)."""

    def below(self, place: str) -> Unfit:
        """The same, from the view of the enclosing value."""
        return Unfit(place + self.args[0], self.args[1])


def column_node(node: Node, *, nullable: bool) -> Node:
    """The node as a column: alternatives of objects become one object with all their fields.

    `nullable` lets every value be null, where a JSON Schema validator has accepted it.
    """
    node = replace(node, nullable=nullable or node.nullable or node.default is None)
    if node.kind == "union":
        merged = _overlay(list(node.variants))
        if merged is None:
            return replace(node, variants=())
        merged = replace(
            merged,
            nullable=node.nullable,
            validator=node.validator or merged.validator,
            path=node.path,
            description=node.description,
        )
        return column_node(merged, nullable=nullable)
    if node.kind == "array" and node.items is not None:
        return replace(node, items=column_node(node.items, nullable=nullable))
    if node.kind == "object":
        properties = {
            k: column_node(replace(v, validator=v.validator or node.validator), nullable=nullable)
            for k, v in node.properties.items()
        }
        return replace(node, properties=properties)
    return node


def _overlay(nodes: list[Node]) -> Node | None:
    """One node that holds the values of all these; None where their types differ."""
    nullable = any(n.nullable or n.default is None for n in nodes)
    validator = next((n.validator for n in nodes if n.validator), "")
    nodes = [v for n in nodes for v in (n.variants if n.kind == "union" else [n])]
    first, kinds = nodes[0], {n.kind for n in nodes}
    if len(kinds) > 1:
        merged = Node("number") if kinds == {"integer", "number"} else None
    elif first.kind == "choice":
        merged = replace(first, choices=unique(c for n in nodes for c in n.choices))
    elif first.kind == "array":
        inner = _overlay([n.items for n in nodes if n.items is not None])
        merged = replace(first, items=inner) if inner else None
    elif first.kind == "object":
        merged = _overlay_objects(nodes)
    else:
        merged = first
    return replace(merged, nullable=nullable, validator=validator) if merged else None


def _overlay_objects(nodes: list[Node]) -> Node | None:
    properties: dict[str, Node] = {}
    for name in dict.fromkeys(k for n in nodes for k in n.properties):
        merged = _overlay([n.properties[name] for n in nodes if name in n.properties])
        if merged is None:
            return None
        properties[name] = merged
    required = frozenset.intersection(*(n.required for n in nodes))
    return replace(nodes[0], properties=properties, required=required)


def compile_value(node: Node) -> Convert:
    """Compile the conversion of one kind of value for its column."""
    if node.kind == "object":
        return compile_object(node, lambda values: dict(zip(node.properties, values, strict=True)))
    native: type | None
    if node.kind == "array":
        native, convert = list, _array(node)
    elif node.kind == "choice":
        native, convert = str, _choice(node)
    else:
        native, convert = _SIMPLE[node.kind]

    def run(value: Any) -> Any:
        if type(value) is not native:
            value = _bare(value)
            if value is None:
                return _absent(node)
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError, AttributeError, PydanticSerializationError):
            raise _misfit(node, value) from None

    return run


def compile_object(node: Node, build: Callable[[list[Any]], Any]) -> Convert:
    """Compile an object; `build` gets the values of its fields."""
    parts = [(name, compile_value(sub)) for name, sub in node.properties.items()]
    names = node.properties.keys()

    def run(value: Any) -> Any:
        held = value if type(value) is dict else getattr(value, "__dict__", None)
        if held is None or not names <= held.keys():
            value = _bare(value)
            if value is None:
                return _absent(node)
            held = _held(node, value)
        out = []
        for name, convert in parts:
            try:
                out.append(convert(held[name]) if name in held else None)
            except Unfit as error:
                raise error.below(f".{name}") from None
        return build(out)

    return run


def _held(node: Node, value: Any) -> dict[str, Any]:
    """The fields of an object that may lack some, or have none since a validator replaced it."""
    held = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    if held is None:  # slots
        held = {name: getattr(value, name) for name in node.properties if hasattr(value, name)}
    known = node.properties.keys() & held.keys()
    is_other = not known and (held is not value or (held and node.validator))
    if is_other or not node.required <= known:
        raise _misfit(node, value)
    return held


def _bare(value: Any) -> Any:
    """The value inside an Enum member, a RootModel, or a secret."""
    while True:
        if isinstance(value, Enum):
            value = value.value
        elif isinstance(value, RootModel):
            value = value.root
        elif callable(getattr(value, "get_secret_value", None)):
            value = value.get_secret_value()
        else:
            return value


def _absent(node: Node) -> None:
    if not node.nullable:
        raise _misfit(node, None)


def _misfit(node: Node, value: Any) -> Unfit:
    if node.validator:
        return Unfit(
            "",
            f"the validator `{node.validator}` returned {shown(value)}, which cannot be stored as "
            f"{node.kind}; annotate what it returns",
        )
    return Unfit("", f"{shown(value)} cannot be stored as {node.kind}")


def _array(node: Node) -> Convert:
    assert node.items is not None
    convert = compile_value(node.items)

    def run(value: Any) -> list[Any]:
        if isinstance(value, (str, dict)):
            raise ValueError
        if isinstance(value, (set, frozenset)):
            value = sorted(value, key=_in_order)
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
        if key in known:
            return known[key]
        if node.validator:
            raise _misfit(node, value)
        raise Unfit("", f"{shown(value)} is none of its choices")

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
    if isinstance(value, (str, bool)) or number != value:
        raise ValueError
    if not INT64[0] <= number <= INT64[1]:
        raise Unfit("", f"{shown(value)} does not fit into 64 bits")
    return number


def _number(value: Any) -> float:
    if isinstance(value, (str, bool)):
        raise ValueError
    if not math.isfinite(real := float(value)):
        raise Unfit("", f"{value} is no finite number")
    if real != value and not (isinstance(value, Decimal) and Decimal(repr(real)) == value):
        raise Unfit("", f"{value} has more digits than a column of numbers can hold")
    return real


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


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
    plain = value if isinstance(value, str) else _jsonable(value)
    if isinstance(plain, str):
        return _text(plain)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _jsonable(value: Any) -> Any:
    """JSON of any value, by the names of fields; pydantic's own would hide secrets."""
    value = _bare(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        # Their order changes with every kernel.
        return sorted(map(_jsonable, value), key=_in_order)
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    known = getattr(value, "__pydantic_fields__", None) or getattr(
        value, "__dataclass_fields__", None
    )
    if known:
        held = getattr(value, "__dict__", {})
        return {n: _jsonable(held[n] if n in held else getattr(value, n)) for n in known}
    if type(value).__module__ == "ipaddress":
        return str(value)  # pydantic 2.12 does not support them here
    return to_jsonable_python(value)


def _in_order(value: Any) -> str:
    return json.dumps(_jsonable(value), sort_keys=True)


# By kind: the type of values that need no unpacking, and the conversion.
_SIMPLE: dict[str, tuple[type | None, Convert]] = {
    "string": (str, _text),
    "integer": (int, _integer),
    "number": (float, _number),
    "boolean": (bool, _boolean),
    "date": (dt.date, _date),
    "datetime": (dt.datetime, _datetime),
    "union": (None, _union),
}
