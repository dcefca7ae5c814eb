"""The echo engine gives values that fit the schema, and always the same ones."""

from __future__ import annotations

import json
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames.local.engine_echo import EchoEngine
from nyu_llm_frames.local.rows import RowError

scalars = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 30)),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(lambda low: {"type": "number", "minimum": low}, st.integers(-50, 50)),
    st.builds(lambda e: {"enum": e}, st.lists(st.text(), min_size=1, max_size=4)),
)
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda items, n: {"type": "array", "items": items, "minItems": n},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": list(p)},
            st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ),
        st.builds(lambda s: {"anyOf": [s, {"type": "null"}]}, inner),
    ),
    max_leaves=8,
)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(fits(value, s) for s in schema["anyOf"])
    match schema["type"]:
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "number":
            return isinstance(value, float) and value >= schema["minimum"]
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return len(value) >= schema["minItems"] and all(fits(v, schema["items"]) for v in value)
        case "object":
            return set(value) == set(schema["properties"]) and all(
                fits(value[k], s) for k, s in schema["properties"].items()
            )
    return value is None


def answer(text: Any, schema: object = None) -> str:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if schema is not None:
        inner = {"name": "x", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": inner}
    content = EchoEngine().answer(body, Event()).content
    assert content is not None
    return content


@settings(deadline=None)  # the machine may be busy
@given(schemas, st.text())
def test_the_value_fits_the_schema_and_is_always_the_same(
    schema: dict[str, Any], text: str
) -> None:
    first = answer(text, schema)
    assert fits(json.loads(first), schema)
    assert answer(text, schema) == first


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_without_schema_the_last_user_text_comes_back(text: str) -> None:
    assert answer(text) == f"echo: {text}"
    assert answer([{"type": "text", "text": text}]) == f"echo: {text}"


def test_choices_vary_with_the_text() -> None:
    schema = {"enum": ["a", "b", "c"]}
    assert len({answer(str(i), schema) for i in range(30)}) == 3


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#"},
        {"allOf": [{"type": "string"}]},
        {"type": "string", "format": "date"},
        {"enum": []},
        {"type": "array", "minItems": 10**9},
        {"type": "object", "properties": {"a": 3}},
    ],
)
def test_a_bad_schema_is_the_rows_own_fault(schema: object) -> None:
    with pytest.raises(RowError) as caught:
        answer("x", schema)
    assert caught.value.status == 400
