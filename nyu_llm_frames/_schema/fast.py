"""A decoder straight from JSON text to a record, where the schema allows one.

Comes in: the tree of a schema. Goes out: a msgspec Struct class whose decoding accepts nothing
that the full validation would refuse; or None, and every answer takes the full way.
"""

from __future__ import annotations

import datetime as dt
import types
from typing import Annotated, Any, Literal

import msgspec

from nyu_llm_frames._schema.node import Node
from nyu_llm_frames._schema.values import INT64


class _NotStated(Exception):
    """A constraint that msgspec cannot hold, or would hold in another way."""


def fast_struct(root: Node, *, defaults: bool) -> type[msgspec.Struct] | None:
    """Generate the Struct of a schema.

    `defaults` fills what an answer leaves out as pydantic does; a JSON Schema's `default` is
    only a remark, and what is left out is missing.
    """
    try:
        struct = _struct(root, defaults)
        msgspec.json.Decoder(struct)  # what msgspec cannot hold it only says here
        return struct
    except (_NotStated, TypeError, ValueError, OverflowError, NotImplementedError):
        return None


def record_struct(size: int) -> type[msgspec.Struct]:
    """A record without types, to hold values that were validated elsewhere."""
    fields = [(f"f{i}", Any, None) for i in range(size)]
    return msgspec.defstruct("Record", fields, gc=False)


def _struct(node: Node, defaults: bool) -> type[msgspec.Struct]:
    if not node.exact:
        raise _NotStated
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    late: list[tuple[str, Any, Any]] = []
    rename = {}
    for i, (name, sub) in enumerate(node.properties.items()):
        # Attributes are numbered: a field of the user may be called `__init__` or `class`.
        rename[f"f{i}"] = name
        kind = _nullable(sub, defaults)
        if name in node.required:
            fields.append((f"f{i}", kind))
        else:
            late.append((f"f{i}", kind, _default(sub) if defaults else None))
    return msgspec.defstruct(
        "Answer",
        [*fields, *late],
        rename=rename,
        forbid_unknown_fields=node.closed,
        kw_only=True,
        gc=False,  # decoded JSON has no cycles, and tracking it costs more than decoding it
    )


def _default(node: Node) -> Any:
    value = node.default
    if value is None or value is ...:
        return None
    fits = {"string": str, "integer": int, "number": float, "boolean": bool}.get(node.kind)
    if fits is None or type(value) is not fits:
        raise _NotStated
    return value


def _nullable(node: Node, defaults: bool) -> Any:
    kind = _type(node, defaults)
    return kind | None if node.nullable else kind


def _type(node: Node, defaults: bool) -> Any:
    if not node.exact:
        raise _NotStated
    limits = dict(node.limits)
    match node.kind:
        case "string":
            if "pattern" in limits and defaults:
                raise _NotStated  # pydantic's regular expressions are another dialect
            named = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
            return _meta(str, {named[k]: v for k, v in limits.items()})
        case "integer":
            if any(not isinstance(v, int) for v in limits.values()):
                raise _NotStated
            # The column has 64 bits: what is beyond goes the full way, to be refused in words.
            if not limits.keys() & {"ge", "gt"}:
                limits["ge"] = INT64[0]
            if not limits.keys() & {"le", "lt"}:
                limits["le"] = INT64[1]
            return _meta(int, limits)
        case "number":
            return _meta(float, {k: float(v) for k, v in limits.items()})
        case "boolean":
            return bool
        case "date":
            return dt.date
        case "datetime":
            return dt.datetime
        case "choice":
            if len({type(c) for c in node.choices}) > 1 or type(node.choices[0]) not in (str, int):
                raise _NotStated
            return Literal[node.choices]
        case "array":
            assert node.items is not None
            named = {"minItems": "min_length", "maxItems": "max_length"}
            inner: Any = types.GenericAlias(list, (_nullable(node.items, defaults),))
            return _meta(inner, {named[k]: v for k, v in limits.items()})
        case "object":
            return _struct(node, defaults)
        case _:
            raise _NotStated


def _meta(kind: Any, limits: dict[str, Any]) -> Any:
    if len({"ge", "gt"} & limits.keys()) > 1 or len({"le", "lt"} & limits.keys()) > 1:
        raise _NotStated
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind
