"""What is sent to Google: a relaxation of the schema, in the words that survive the journey."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from nyu_llm_frames._stages.schema.json_schema import compile_check
from nyu_llm_frames._stages.schema.schema import compile_schema
from nyu_llm_frames._stages.schema.sent_schema import MAX_DEPTH
from nyu_llm_frames.errors import SchemaError

KEYWORDS = {
    "type": str,
    "description": str,
    "nullable": bool,
    "enum": list,
    "items": dict,
    "minItems": int,
    "maxItems": int,
    "minimum": (int, float),
    "maximum": (int, float),
    "properties": dict,
    "required": list,
    "propertyOrdering": list,
    "anyOf": list,
}


def wire_of(field: Any, **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"x": field}, **more}
    out: dict[str, Any] = compile_schema(schema).wire["properties"]["x"]
    return out


def nodes(wire: dict[str, Any], depth: int = 1) -> Iterator[tuple[dict[str, Any], int]]:
    """Every schema object on the wire, with its depth."""
    yield wire, depth
    for sub in wire.get("properties", {}).values():
        yield from nodes(sub, depth + 2)
    for sub in [wire["items"]] if "items" in wire else wire.get("anyOf", []):
        yield from nodes(sub, depth + 1)


def as_json_schema(wire: dict[str, Any]) -> dict[str, Any]:
    """The wire in standard words, for a validator of JSON Schema."""
    out = {k: v for k, v in wire.items() if k not in ("nullable", "propertyOrdering")}
    if "properties" in out:
        out["properties"] = {k: as_json_schema(v) for k, v in out["properties"].items()}
    if "items" in out:
        out["items"] = as_json_schema(out["items"])
    if "anyOf" in out:
        out["anyOf"] = [as_json_schema(v) for v in out["anyOf"]]
    return {"anyOf": [out, {"type": "null"}]} if wire.get("nullable") else out


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "integer", "nullable": True}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"enum": ["a", None, "b"]}, {"type": "string", "nullable": True, "enum": ["a", "b"]}),
        (
            {"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
            {
                "anyOf": [
                    {"type": "integer", "nullable": True},
                    {"type": "string", "nullable": True},
                ]
            },
        ),
        (
            {"type": ["integer", "string"], "description": "Either"},
            {
                "anyOf": [
                    {"type": "integer", "description": "Either"},
                    {"type": "string", "description": "Either"},
                ]
            },
        ),
        ({"type": "integer", "exclusiveMinimum": 3}, {"type": "integer", "minimum": 4}),
        ({"type": "integer", "exclusiveMaximum": 3.5}, {"type": "integer", "maximum": 3}),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            {"type": "integer", "minimum": 1},
        ),
        (
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "number", "description": "greater than 0", "minimum": 0},
        ),
        ({"type": "integer", "maximum": 2**63 - 1}, {"type": "integer"}),
        ({"enum": [1, 2, 3]}, {"type": "integer", "minimum": 1, "maximum": 3}),
        (
            {"enum": [1, 5], "description": "Grade"},
            {"type": "integer", "description": "Grade (one of 1, 5)", "minimum": 1, "maximum": 5},
        ),
        (
            {"enum": ["a", 2, True]},
            {
                "anyOf": [
                    {"type": "string", "enum": ["a"]},
                    {"type": "integer", "minimum": 2, "maximum": 2},
                    {"type": "boolean", "description": "one of true"},
                ]
            },
        ),
        ({"enum": ["", "a"]}, {"type": "string", "description": "one of '', 'a'"}),
        (
            {"type": "string", "format": "date", "description": "When"},
            {"type": "string", "description": "When (ISO 8601 date, YYYY-MM-DD)"},
        ),
        (
            {"type": "string", "pattern": "^[A-Z]+$", "minLength": 1},
            {"type": "string", "description": "not empty; matches ^[A-Z]+$"},
        ),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 3},
            {
                "type": "array",
                "description": "each at most once",
                "items": {"type": "string"},
                "maxItems": 3,
            },
        ),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}]},
            {"type": "array", "items": {"type": "number"}},
        ),
        (
            {"allOf": [{"type": "integer", "minimum": 1}, {"type": "number", "minimum": 2}]},
            {"type": "integer", "minimum": 2},
        ),
        ({"type": "string", "default": "a", "examples": ["b"], "title": "T"}, {"type": "string"}),
        ({"not": {"const": "x"}, "type": "string"}, {"type": "string"}),
        ({"maxLength": 5}, {"type": "string", "description": "at most 5 characters"}),
    ],
)
def test_keyword_becomes_what_google_takes(field: dict[str, Any], wire: dict[str, Any]) -> None:
    got = wire_of(field)
    assert got == wire
    assert list(got) == list(wire)  # the order is part of a request's identity


def test_references_are_inlined_with_their_own_description_replaced() -> None:
    for key in ("$defs", "definitions"):
        ref = {"$ref": f"#/{key}/A~1b", "description": "Mine", "default": None}
        target = {"type": "string", "description": "Theirs"}
        assert wire_of(ref, **{key: {"A/b": target}}) == {"type": "string", "description": "Mine"}


def test_all_of_objects_are_merged() -> None:
    base = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    more = {"properties": {"b": {"type": "integer"}, "a": {"enum": ["x", "y"]}}, "required": ["b"]}
    wire = wire_of({"allOf": [{"$ref": "#/$defs/Base"}, more]}, **{"$defs": {"Base": base}})
    assert wire["properties"] == {
        "a": {"type": "string", "enum": ["x", "y"]},
        "b": {"type": "integer"},
    }
    assert wire["required"] == ["a", "b"]


def test_order_of_fields_is_kept_and_said() -> None:
    names = ["reason", "b", "a", "verdict"]
    wire = compile_schema(dict.fromkeys(names, str)).wire
    assert list(wire["properties"]) == wire["required"] == wire["propertyOrdering"] == names


def nested(levels: int) -> type[BaseModel]:
    model: type[BaseModel] = create_model("Leaf", v=(int, ...))
    for i in range(levels):
        model = create_model(f"Level{i}", d=(list[model], ...))  # type: ignore[valid-type]
    return model


def test_nesting_ends_where_the_importer_ends() -> None:
    deepest = max(depth for _, depth in nodes(compile_schema(nested(3)).wire))
    assert deepest == MAX_DEPTH
    with pytest.raises(SchemaError) as caught:
        compile_schema(nested(4))
    assert caught.value.path.startswith("$.d[].d[].d[].d[]")
    assert "flatten" in str(caught.value)


def test_references_that_multiply_without_end_are_refused() -> None:
    defs: dict[str, Any] = {"L0": {"type": "string"}}
    for i in range(1, 12):
        ref = {"$ref": f"#/$defs/L{i - 1}"}
        defs[f"L{i}"] = {"properties": {"a": ref, "b": ref, "c": ref}}
    with pytest.raises(SchemaError):
        compile_schema({"$ref": "#/$defs/L11", "$defs": defs})


class Item(BaseModel):
    name: str = Field(min_length=2, pattern="^[a-z]+$")
    price: float = Field(gt=0, multiple_of=0.5)
    size: Literal[1, 2, 4] | None = None


@pytest.mark.parametrize(
    "answer",
    [
        {"name": "a", "price": 1},
        {"name": "AB", "price": 1},
        {"name": "ab", "price": 0},
        {"name": "ab", "price": 0.7},
        {"name": "ab", "price": 1, "size": 3},
    ],
)
@pytest.mark.parametrize("form", ["model", "json schema"])
def test_what_the_wire_cannot_say_is_enforced_here(answer: dict[str, Any], form: str) -> None:
    schema = compile_schema(Item if form == "model" else Item.model_json_schema())
    assert compile_check(as_json_schema(schema.wire))(answer) is None
    good = {"name": "ab", "price": 1.5, "size": 4}
    errors = schema.read([json.dumps(answer), json.dumps(good)]).errors
    assert [e is None for e in errors] == [False, True]


# Laws -------------------------------------------------------------------------------------------
SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 2.0, -1.5])
TEXT = st.text("ab1", max_size=4)
DEFS = {
    "Word": {"type": "string", "minLength": 1, "description": "A word"},
    "Pair": {
        "type": "object",
        "properties": {"k": {"$ref": "#/$defs/Word"}, "v": {"type": ["integer", "null"]}},
        "required": ["k"],
    },
}


CONTRADICTION = "at once|in common|leave no value|true beside 1|no number|no list"


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    low = st.integers(-5, 5)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])},
            optional={
                "minimum": low,
                "exclusiveMaximum": low.map(lambda n: n + 8),
                "multipleOf": st.sampled_from([2, 0.5]),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("string")},
            optional={
                "minLength": st.integers(0, 2),
                "maxLength": st.integers(2, 4),
                "pattern": st.sampled_from(["^a", "b$", "[0-9]"]),
                "not": st.just({"const": "ab"}),
            },
        ),
        st.just({"type": "boolean"}),
        st.just({"$ref": "#/$defs/Word"}),
        st.just({"$ref": "#/$defs/Pair", "description": "here"}),
        TEXT.map(lambda t: {"const": t}),
        st.lists(TEXT | st.integers(-3, 3) | st.just(0.5), min_size=1, max_size=4, unique=True).map(
            lambda v: {"enum": v}
        ),
    )


def grown(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.just(1), "maxItems": st.just(2), "uniqueItems": st.just(True)},
        ),
        objects(inner),
        inner.map(lambda s: {"anyOf": [s, {"type": "null"}]}),
        st.lists(inner, min_size=2, max_size=3).map(lambda s: {"oneOf": s}),
        st.lists(inner, min_size=2, max_size=2).map(lambda s: {"anyOf": s}),
        st.tuples(objects(inner), objects(inner)).map(lambda s: {"allOf": list(s)}),
        inner.map(lambda s: {"allOf": [s], "description": "wrapped"}),
    )


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from("pqr"), inner, min_size=1, max_size=3).flatmap(
        lambda props: st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.just(props)},
            optional={
                "required": st.lists(st.sampled_from(list(props)), unique=True),
                "additionalProperties": st.booleans(),
                "maxProperties": st.just(2),
            },
        )
    )


FIELD_SCHEMAS = st.recursive(leaves(), grown, max_leaves=5)
SCHEMAS = objects(FIELD_SCHEMAS).map(lambda s: {**s, "$defs": DEFS})


@st.composite
def values(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """Values near a schema: most of them conform, the rest are a little off."""
    if draw(st.integers(0, 19)) == 0:
        return draw(SCALAR | TEXT | st.just([]) | st.just({}))
    if "$ref" in schema:
        target: Any = DEFS[schema["$ref"].rsplit("/", 1)[-1]]
        return draw(values(target))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return draw(values(draw(st.sampled_from(schema[key]))))
    if "allOf" in schema:
        parts = [draw(values(s)) for s in schema["allOf"]]
        if all(isinstance(p, dict) for p in parts):
            return {k: v for p in parts for k, v in p.items()}
        return parts[0]
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    kind = schema["type"]
    if isinstance(kind, list):
        kind = draw(st.sampled_from(kind))
    if kind == "object":
        required = schema.get("required", [])
        names = [n for n in schema["properties"] if n in required or draw(st.booleans())]
        return {n: draw(values(schema["properties"][n])) for n in names}
    if kind == "array":
        return [draw(values(schema["items"])) for _ in range(draw(st.integers(0, 3)))]
    simple: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-6, 14) | st.sampled_from([2.0, 4.0]),
        "number": st.integers(-6, 14) | st.sampled_from([0.5, 2.25]),
        "string": TEXT,
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return draw(simple[kind])


@settings(max_examples=200, deadline=None)
@given(SCHEMAS)
def test_wire_has_only_what_survives_gateway_and_importer(schema: dict[str, Any]) -> None:
    try:
        wire = compile_schema(schema).wire
    except SchemaError as error:
        assume(not re.search(CONTRADICTION, str(error)))
        raise
    for node, depth in nodes(wire):
        assert node
        assert depth <= MAX_DEPTH
        for key, value in node.items():
            assert isinstance(value, KEYWORDS[key])  # type: ignore[arg-type]
        assert all(isinstance(v, str) and v for v in node.get("enum", []))
        assert ("anyOf" in node) == ("type" not in node)
        assert len(node) == 1 or "anyOf" not in node
        assert "items" in node or node.get("type") != "array"
        assert node.get("properties") or node.get("type") != "object"
        assert all(re.fullmatch(r"[A-Za-z_]\w*", n, re.ASCII) for n in node.get("properties", {}))
        assert set(node.get("required", [])) <= set(node.get("properties", {}))


def compiled(schema: dict[str, Any]) -> Any:
    try:
        return compile_schema(schema)
    except SchemaError:
        assume(False)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_wire_is_a_relaxation_and_the_rest_is_rejected_here(data: st.DataObject) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    plain = data.draw(SCHEMAS)
    schema = compiled(plain)
    value = data.draw(values(plain))
    original = jsonschema.Draft202012Validator(plain).is_valid(value)
    relaxed = jsonschema.Draft202012Validator(as_json_schema(schema.wire)).is_valid(value)
    assert relaxed or not original
    assert (compile_check(plain)(value) is None) == original
    assert (schema.read([json.dumps(value)]).errors == [None]) == original


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_valid_here_is_valid_on_the_wire(data: st.DataObject) -> None:
    plain = data.draw(SCHEMAS)
    schema = compiled(plain)
    value = data.draw(values(plain))
    if schema.read([json.dumps(value)]).errors == [None]:
        assert compile_check(as_json_schema(schema.wire))(value) is None
