"""Parse a JSON Schema into a tree of nodes: keywords, references and `allOf`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nyu_llm_frames._stages.schema.keywords import (
    REFUSED,
    REMARKS,
    VALIDATOR,
    json_type,
    lookup,
    merge,
    refuse_recursion,
    type_names,
    unique,
    wrong,
)
from nyu_llm_frames._stages.schema.node import Node, unite
from nyu_llm_frames.errors import SchemaError

MAX_NODES = 5_000
"""Inlining can multiply a schema; a model gets no help from one far below this size."""

# Split over lines by theme; order has no meaning.
_ANNOTATIONS = frozenset(
    {"$anchor", "$comment", "$defs", "$id", "$schema", "$vocabulary", "definitions"}
    | {"title", "description", "default", "example", "examples", "deprecated", "discriminator"}
    | {"readOnly", "writeOnly", "contentEncoding", "contentMediaType", VALIDATOR}
)
_SAYS_TYPE = frozenset({"type", "properties", "items", "prefixItems", "enum", "anyOf", "oneOf"})
_IMPLIED = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_FORMAT_WORDS = {
    "time": "ISO 8601 time",
    "duration": "ISO 8601 duration",
    "email": "e-mail address",
    "uri": "URL",
    "uuid": "UUID",
}


def parse(schema: Mapping[str, Any]) -> Node:
    """Read a JSON Schema with an object at its root."""
    refuse_recursion(schema)
    root = _Parser(schema).node(schema, "$")
    if root.kind != "object":
        raise SchemaError(
            f"the schema describes {_article(root)}, but an answer becomes columns by its fields: "
            'put it into an object, for instance {"items": ...}, or a model with one field',
            path="$",
        )
    return replace(root, nullable=False)


class _Parser:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root, self.count = root, 0

    # One schema object -----------------------------------------------------------------------
    def flat(self, schema: Any, path: str) -> dict[str, Any]:
        """Follow references and merge `allOf`."""
        if schema is True:
            schema = {}
        if schema is False or not isinstance(schema, Mapping):
            if schema is False:
                raise wrong(path, "False admits no value; leave it out")
            raise wrong(path, f"{schema!r} is not a JSON Schema; write {{'type': ...}}")
        if REFUSED in schema:
            raise wrong(path, schema[REFUSED])
        out = {k: v for k, v in schema.items() if k not in ("$ref", "allOf", "const")}
        parts = list(schema.get("allOf", ()))
        if "const" in schema:
            parts.insert(0, {"enum": [schema["const"]]})
        if "$ref" in schema:
            parts.insert(0, lookup(self.root, schema["$ref"], path))
        for part in parts:
            out = merge(out, self.flat(part, path), path)
        return out

    def node(self, schema: Any, path: str) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise wrong(
                path,
                f"with its references written out the schema has over {MAX_NODES} parts; "
                "ask for less at once",
            )
        s = self.flat(schema, path)
        node = self.union(s, path) if s.get("anyOf") or s.get("oneOf") else None
        if node is None:
            node = self.enum(s, path) if "enum" in s else self.typed(s, path)
        description = " ".join(str(s.get("description") or "").split())
        return replace(
            node,
            path=path,
            description=description or node.description,
            remarks=(*node.remarks, *s.get(REMARKS, ())),
            default=s.get("default", ...),
            validator=s.get(VALIDATOR, node.validator),
        )

    # Alternatives ----------------------------------------------------------------------------
    def union(self, s: dict[str, Any], path: str) -> Node | None:
        """The alternatives as nodes; None where they only add conditions to the base."""
        flats = [self.flat(v, path) for v in s.get("anyOf") or s["oneOf"]]
        base = {k: v for k, v in s.items() if k not in _ANNOTATIONS and k not in ("anyOf", "oneOf")}
        if base.keys() & _SAYS_TYPE and not any(f.keys() & _SAYS_TYPE for f in flats):
            return None
        nodes: list[Node] = []
        nullable = False
        for flat in flats:
            if flat.get("type") in ("null", ["null"]) or flat.get("enum") == [None]:
                nullable = True
            else:
                nodes.append(self.node(merge(flat, base, path), path))
        return unite(nodes, nullable, path)

    def enum(self, s: dict[str, Any], path: str) -> Node:
        types = type_names(s)
        values = unique(s["enum"])
        if types:
            values = tuple(v for v in values if json_type(v) in types or _whole(v, types))
        choices = tuple(v for v in values if v is not None)
        if not choices:
            raise wrong(path, "type and enum leave no value but null; correct one of them")
        if bad := [v for v in choices if isinstance(v, (dict, list, tuple))]:
            raise wrong(
                path, f"{bad[0]!r} cannot be a choice; choices are text, numbers or true/false"
            )
        if any(isinstance(v, float) and not math.isfinite(v) for v in choices):
            raise wrong(path, "JSON has no infinity and no NaN; leave it out")
        return Node("choice", nullable=len(choices) < len(values), choices=choices)

    # One type --------------------------------------------------------------------------------
    def typed(self, s: dict[str, Any], path: str) -> Node:
        types = type_names(s) or [t for t, keys in _IMPLIED.items() if s.keys() & set(keys)][:1]
        nullable = "null" in types
        types = [t for t in types if t != "null"]
        if len(types) > 1:
            return unite(
                [self.node({**s, "type": t, "description": ""}, path) for t in types],
                nullable,
                path,
            )
        if not types and nullable:
            raise wrong(
                path, "always null, so there is nothing to ask for; leave it out or give it a type"
            )
        if not types:
            raise wrong(
                path,
                "any value is allowed, and Gemini needs a type; give one, for example str, "
                "list[str] or a separate model",
            )
        match types[0]:
            case "object":
                node = self.object(s, path)
            case "array":
                node = self.array(s, path)
            case "string":
                node = _string(s)
            case "integer" | "number" as kind:
                node = Node(kind, limits=_range(s), remarks=_multiple(s))
            case "boolean":
                node = Node("boolean")
            case other:
                raise wrong(path, f"JSON has no type {other!r}")
        return replace(node, nullable=nullable)

    def object(self, s: dict[str, Any], path: str) -> Node:
        properties = s.get("properties") or {}
        required = [str(r) for r in s.get("required", ())]
        if not properties:
            raise wrong(
                path,
                "an object without named fields (such as dict[str, ...]) cannot be "
                "sent to Gemini; name its fields, or ask for a list of objects with the "
                "fields `key` and `value`",
            )
        if unknown := [r for r in required if r not in properties]:
            raise wrong(
                path, f"`{unknown[0]}` is required and not described; add it to the properties"
            )
        nodes = {
            str(name): self.node(sub, f"{path}.{name}")
            for name, sub in properties.items()
            if sub is not False or name in required
        }
        return Node("object", properties=nodes, required=frozenset(required))

    def array(self, s: dict[str, Any], path: str) -> Node:
        items, prefix = s.get("items"), s.get("prefixItems")
        inner: Node | None = None
        if prefix:
            parts = [self.node(p, f"{path}[{i}]") for i, p in enumerate(prefix)]
            if isinstance(items, Mapping):
                parts.append(self.node(items, f"{path}[]"))
            inner = unite(parts, any(p.nullable for p in parts), f"{path}[]")
        elif items is not None and items is not False:
            inner = self.node(items, f"{path}[]")
        if inner is None:
            raise wrong(
                path,
                "a list of anything cannot be sent to Gemini; name its type, for "
                "instance list[str]",
            )
        limits: dict[str, Any] = {k: s[k] for k in ("minItems", "maxItems") if k in s}
        remarks = ("each at most once",) if s.get("uniqueItems") else ()
        return Node("array", items=inner, limits=limits, remarks=remarks)


def _string(s: Mapping[str, Any]) -> Node:
    form = s.get("format")
    if form == "date":
        return Node("date", remarks=("ISO 8601 date, YYYY-MM-DD",))
    if form == "date-time":
        return Node("datetime", remarks=("ISO 8601 date and time, YYYY-MM-DDThh:mm:ss",))
    remarks = [_FORMAT_WORDS.get(str(form), f"format: {form}")] if form else []
    low, high = s.get("minLength", 0), s.get("maxLength")
    if high is not None:
        remarks.append(f"{low} to {high} characters" if low else f"at most {high} characters")
    elif low:
        remarks.append("not empty" if low == 1 else f"at least {low} characters")
    if "pattern" in s:
        remarks.append(f"matches {s['pattern']}")
    return Node("string", remarks=tuple(remarks))


def _range(s: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds as ge, gt, le, lt."""
    named = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
    return {short: s[keyword] for keyword, short in named.items() if keyword in s}


def _multiple(s: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"a multiple of {s['multipleOf']}",) if "multipleOf" in s else ()


def _whole(value: Any, types: Sequence[str]) -> bool:
    """Whether a number has a type by its value: 5 is a number, 5.0 an integer."""
    kind = json_type(value)
    if kind == "integer":
        return "number" in types
    return kind == "number" and "integer" in types and float(value).is_integer()


def _article(node: Node) -> str:
    return {"array": "a list", "union": "alternatives", "choice": "a choice"}.get(
        node.kind, f"a {node.kind}"
    )
