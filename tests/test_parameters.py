"""Body fields: what is sent for what was asked, and what is refused on which route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nyu_llm_frames  # noqa: F401  (registers df.llm)
from nyu_llm_frames._stages.requests.parameters import body_params
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._stages.requests.thinking import MAX_OUTPUT_TOKENS, advice, family
from nyu_llm_frames.errors import ConfigurationError, RequestError

THREE, PRO_THREE = "gemini-3-flash-preview", "gemini-3.1-pro-preview"
FLASH, PRO, LITE = "gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite"
OLD = "gemini-2.0-flash-001"


def fields(model: str = THREE, realm: str = "@vertexai", **asked: Any) -> dict[str, Any]:
    return body_params(model=model, realm=realm, **asked)


def budget(tokens: int) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


OFF = {"thinking": {"type": "disabled", "budget_tokens": 0}}


# --- plain fields ---------------------------------------------------------------------------
def test_nothing_asked_sends_nothing() -> None:
    assert fields() == {}


def test_named_fields_keep_their_order_and_lose_their_kind() -> None:
    sent = fields(max_tokens=np.int64(5), temperature=np.float32(1), top_p=0.5, seed=1, stop="END")
    assert list(sent.items()) == [
        ("max_tokens", 5),
        ("temperature", 1),
        ("top_p", 0.5),
        ("seed", 1),
        ("stop", ["END"]),
    ]
    assert type(sent["max_tokens"]) is int


@pytest.mark.parametrize("way", ["argument", "params"])
def test_stop_string_becomes_a_list(way: str) -> None:
    asked = {"stop": "END"} if way == "argument" else {"params": {"stop": "END"}}
    assert fields(**asked) == {"stop": ["END"]}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature must be a number from 0 to 2"),
        ({"seed": 2**31}, "seed"),
        ({"stop": []}, "stop"),
        ({"stop": ""}, "stop"),
        ({"params": {"stop": 3}}, "stop"),
        ({"params": [1]}, "params must be a dict"),
        ({"params": {"model": "x"}}, "the call sets it"),
        ({"params": {"max_tokens": 3}, "max_tokens": 3}, "twice"),
        ({"params": {"max_completion_tokens": 3}, "max_tokens": 3}, "Keep max_tokens"),
        ({"params": {"response_format": {"type": "text"}}, "has_schema": True}, "schema="),
        ({"thinking": "lots"}, "thinking must be"),
        ({"thinking": True}, "thinking must be"),
        ({"thinking": -1}, "thinking must be"),
        ({"thinking": 1.5}, "thinking must be"),
    ],
)
def test_arguments_without_meaning_are_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        fields(**asked)


@pytest.mark.parametrize(
    "name",
    [
        "n",
        "frequency_penalty",
        "presence_penalty",
        "user",
        "metadata",
        "logit_bias",
        "stream",
        "service_tier",
        "temprature",
    ],
)
def test_parameters_that_vanish_on_the_way_are_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(RequestError, match=f"drops the parameter '{name}'.*[.?]$"):
        fields(params={name: 1})


def test_dropped_parameter_that_is_none_is_no_parameter() -> None:
    assert fields(params={"user": None}) == {}


def test_misspelled_parameter_names_the_right_one() -> None:
    with pytest.raises(RequestError, match="Did you mean 'top_logprobs'"):
        fields(params={"top_logprob": 1})


def test_other_routes_take_what_their_servers_take() -> None:
    anything = {"presence_penalty": 1, "n": 2, "min_p": 0.1}
    assert fields("qwen3", "upstream:http://h/v1", params=anything) == anything
    assert fields("m", "local:m", params={"presence_penalty": 1}) == {"presence_penalty": 1}
    with pytest.raises(RequestError, match="machine drops the parameter 'user'"):
        fields("m", "local:m", params={"user": "me"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": {"type": "function"}},
        {"tools": ["search"]},
        {"modalities": "text"},
        {"response_format": "json"},
        {"response_format": {}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
        {"response_format": {"json_schema": {"schema": {"type": "object"}}}},
        {"logprobs": False},
        {"tools": [{"type": "google_search"}]},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "always"},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"modalities": ["IMAGE"]},
        {"labels": []},
        {"top_k": "5"},
        {"top_k": True},
    ],
)
def test_values_on_which_the_gateway_stumbles_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        fields(params=wrong)


def test_an_answer_in_text_is_had_without_a_response_format() -> None:
    with pytest.raises(RequestError, match="or left out for text"):
        fields(params={"response_format": {"type": "text"}})


def test_too_many_stops_are_refused() -> None:
    assert len(fields(stop=list("abcde"))["stop"]) == 5
    with pytest.raises(RequestError, match="6 strings"):
        fields(stop=list("abcdef"))


@pytest.mark.parametrize("model", ["anthropic.claude-sonnet-4", "claude-3-opus", "meta.llama-3"])
def test_models_whose_batch_answers_are_lost_are_refused(model: str) -> None:
    with pytest.raises(RequestError, match="cannot read batch answers"):
        fields(model)


# --- the importer ---------------------------------------------------------------------------
def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        value = {"properties": value}
    return value


STRING = {"type": "string"}
LOOP = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}


def tool(parameters: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters}
    return {"tools": [{"type": "function", "function": function}]}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"labels": {}}, "labels is an empty object"),
        ({"labels": {"cost center": "a"}}, "labels has the key 'cost center'"),
        ({"labels": {"1st": "a"}}, "labels has the key '1st'"),
        (tool({}), r"tools\[0\].function.parameters is an"),
        (tool({"properties": {"a": {"$ref": "#/$defs/A"}}}), "has the key '\\$ref'"),
        (schema({"$ref": "#/definitions/A", "definitions": {"A": STRING}}), "has the key '\\$ref'"),
        (schema({"$ref": "#/$defs/A", "$defs": {"A": LOOP}}), "has the key '\\$ref'"),
        (schema({"$ref": "#/$defs/A", "$defs": {"A": {"a-b": STRING}}}), "has the key 'a-b'"),
        (schema({"type": "object", "properties": {}}), "json_schema.properties is an empty"),
        (schema({"properties": {"a-b": {"type": "string"}}}), "has the key 'a-b'"),
        (schema(nested(13)), "deeper than 15"),
    ],
)
def test_what_fails_the_whole_jobs_import_is_refused_with_its_path(
    params: dict[str, Any], path: str
) -> None:
    with pytest.raises(RequestError, match=path):
        fields(params=params)


def test_what_the_gateway_resolves_is_no_obstacle() -> None:
    given = schema(
        {
            "$schema": "x",
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"type": "string"}},
            "additionalProperties": False,
        }
    )
    assert fields(params=given) == given
    assert fields(params=schema(nested(12)))


# --- thinking -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        (THREE, "off", {"reasoning_effort": "minimal"}),
        (THREE, "low", {"reasoning_effort": "low"}),
        (THREE, "medium", {"reasoning_effort": "medium"}),
        (THREE, "high", {"reasoning_effort": "high"}),
        ("gemini-3-pro-preview", "low", {"reasoning_effort": "low"}),
        (PRO_THREE, "medium", {"reasoning_effort": "medium"}),
        ("publishers/google/models/gemini-3-flash-preview", "low", {"reasoning_effort": "low"}),
        (FLASH, "off", OFF),
        (FLASH, 0, OFF),
        (LITE, "off", OFF),
        (FLASH, "low", budget(1024)),
        (PRO, "medium", budget(8192)),
        (PRO, "high", budget(24576)),
        (FLASH, np.int64(1), budget(1)),
        (PRO, 32768, budget(32768)),
        (OLD, "off", {}),
    ],
)
def test_thinking_is_said_in_the_models_own_terms(
    model: str, thinking: object, sent: dict[str, Any]
) -> None:
    assert fields(model, thinking=thinking) == sent


@pytest.mark.parametrize(
    ("model", "thinking", "told"),
    [
        (PRO, "off", "cannot be switched off.*thinking=128"),
        (PRO, 0, "cannot be switched off"),
        (PRO, 127, "128 to 32,768"),
        (FLASH, 24_577, '1 to 24,576 tokens, or "off"'),
        (LITE, 511, "512 to 24,576"),
        (THREE, 1024, "by level"),
        (PRO_THREE, "off", 'always thinks.*thinking="low"'),
        ("gemini-3-pro-preview", "medium", '"low", "high"'),
        (OLD, "low", "does not think"),
        ("gemini-2.5-flash-image", "low", "does not think"),
        ("gemini-flash-latest", "low", "does not show how this model thinks"),
        ("gemini-3.1-flash-image-preview", "low", "does not show how this model thinks"),
    ],
)
def test_thinking_that_a_model_has_not_is_refused_with_a_way_out(
    model: str, thinking: object, told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        fields(model, thinking=thinking)


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        (FLASH, {**budget(100), "reasoning_effort": "low"}, "both together"),
        (THREE, {"reasoning_effort": "none"}, 'thinking="off"'),
        (THREE, {"reasoning_effort": "xhigh"}, "'minimal', 'low'"),
        (FLASH, {"reasoning_effort": "low"}, "by budget"),
        (OLD, {"reasoning_effort": "low"}, "does not think"),
        (OLD, budget(100), "does not think"),
        (FLASH, {"thinking": {"type": "disabled"}}, "drops it"),
        (FLASH, {**budget(100), "max_tokens": 100}, "no token is left"),
    ],
)
def test_thinking_by_hand_is_checked(model: str, params: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        fields(model, params=params)


@pytest.mark.parametrize("params", [budget(100), {"reasoning_effort": "low"}])
def test_thinking_twice_is_a_conflict(params: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="conflict"):
        fields(FLASH, thinking="low", params=params)


def test_thinking_by_hand_is_sent_as_it_is() -> None:
    assert fields(FLASH, params=budget(64), max_tokens=65) == {"max_tokens": 65, **budget(64)}
    unknown = {"reasoning_effort": "low"}
    assert fields("gemini-flash-latest", params=unknown) == unknown


def test_other_routes_have_openais_words() -> None:
    upstream = "upstream:http://h/v1"
    assert fields("qwen3", upstream, thinking="high") == {"reasoning_effort": "high"}
    assert fields("qwen3", upstream, thinking="off") == {"reasoning_effort": "none"}
    with pytest.raises(RequestError, match="takes levels"):
        fields("qwen3", upstream, thinking=100)
    assert fields(THREE, "local:qwen3", thinking="off") == {}
    with pytest.raises(RequestError, match="does not think"):
        fields(THREE, "local:qwen3", thinking="low")


# --- room -----------------------------------------------------------------------------------
@given(
    st.sampled_from([THREE, PRO_THREE, FLASH, PRO, LITE]),
    st.sampled_from(["off", "low", "medium", "high", 512, 24_576]),
    st.integers(1, 100_000),
)
def test_max_tokens_leaves_the_answer_its_room(model: str, thinking: Any, limit: int) -> None:
    known = family(model)
    if thinking == "off" and not (known.can_stop or "minimal" in known.levels):
        return
    if isinstance(thinking, int) and known.kind == "level":
        return
    sent = fields(model, thinking=thinking, max_tokens=limit)
    spent = sent.get("thinking", {}).get("budget_tokens", 0)
    assert sent["max_tokens"] >= limit
    assert sent["max_tokens"] >= min(limit + spent, MAX_OUTPUT_TOKENS)
    assert sent["max_tokens"] <= max(limit, MAX_OUTPUT_TOKENS)
    assert sent["max_tokens"] > spent


def test_max_tokens_without_thinking_is_sent_as_it_is() -> None:
    assert fields(max_tokens=2048) == {"max_tokens": 2048}


def test_a_budget_is_added_to_the_answers_limit() -> None:
    assert fields(FLASH, thinking=512, max_tokens=100)["max_tokens"] == 612
    assert fields(FLASH, thinking="off", max_tokens=100)["max_tokens"] == 100


@pytest.mark.parametrize(
    ("model", "asked", "warned"),
    [
        (THREE, {"max_tokens": 50}, True),
        (PRO, {"params": {"max_completion_tokens": 50}}, True),
        (THREE, {"max_tokens": 8192}, False),
        (THREE, {}, False),
        (THREE, {"max_tokens": 50, "thinking": "off"}, False),
        (LITE, {"max_tokens": 50}, False),
        (OLD, {"max_tokens": 50}, False),
    ],
)
def test_a_limit_that_thinking_may_eat_is_warned_of(
    model: str, asked: dict[str, Any], warned: bool
) -> None:
    assert (advice(fields(model, **asked), model, "gemini") is not None) is warned


def test_a_limit_in_params_cannot_be_given_room() -> None:
    with pytest.raises(ConfigurationError, match="argument max_tokens="):
        fields(FLASH, thinking=512, params={"max_completion_tokens": 100})


# --- routes and the doorway -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("realm", "model", "way"),
    [
        ("@vertexai", "anything", "gemini"),
        ("vertex-ai", "anything", "gemini"),
        ("@lab", THREE, "gemini"),
        ("@openai", "gpt-5", "open"),
        ("upstream:http://h/v1", THREE, "open"),
        ("local:echo", THREE, "embedded"),
    ],
)
def test_route_follows_who_answers(realm: str, model: str, way: str) -> None:
    assert route(realm, model) == way


def test_refusals_come_before_anything_is_sent_or_written() -> None:
    frame = pd.DataFrame({"x": ["a"]})
    for asked in ({"params": {"n": 3}}, {"thinking": 100}):
        with pytest.raises(RequestError):
            frame.llm.batch("{{ x }}", model=THREE, sidecar="made.llm", **asked)
    assert not Path("made.llm").exists()


def test_thinking_is_part_of_the_identity() -> None:
    frame = pd.DataFrame({"x": ["a"]})
    plain, low = (
        frame.llm.preview("{{ x }}", model=THREE, thinking=t)["custom_id"].iloc[0]
        for t in (None, "low")
    )
    assert plain != low
