"""Check the constant fields of a body, and put them in the order in which they are sent.

Refused is whatever would fail at the model, be dropped in transit, or fail the whole job's import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import numpy as np

from nyu_llm_frames._shared.allowed import check_number
from nyu_llm_frames._stages.requests.bodies import plain_numbers
from nyu_llm_frames._stages.requests.models import bare_name
from nyu_llm_frames._stages.requests.routes import ProviderRoute, route
from nyu_llm_frames._stages.requests.thinking import check_given, setting, with_room
from nyu_llm_frames.errors import ConfigurationError, RequestError

RESERVED = frozenset({"model", "messages", "custom_id"})
THINKING_FIELDS = ("thinking", "reasoning_effort")
LIMITS = ("max_tokens", "max_completion_tokens")
MAX_STOPS = 5
MAX_DEPTH = 15
"""Levels of a request that Vertex AI imports."""

# What the gateway translates for Gemini. Everything else disappears with HTTP 200.
_KIND: dict[str, tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": (int, float),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "seed": (int,),
    "stop": (list,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
    "response_format": (dict,),
    "safety_settings": (list,),
    "labels": (dict,),
    "modalities": (list,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "thinking": (dict,),
    "reasoning_effort": (str,),
}
_EMBEDDED = frozenset(
    {"temperature", "top_p", "top_k", "seed", "stop", "frequency_penalty", "presence_penalty"}
    | {"tools", "tool_choice", "response_format", *LIMITS}
)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Keywords that the gateway removes before the importer sees a schema.
_REMOVED = frozenset({"$schema", "additionalProperties", "additional_properties"})
_DEFS = "#/$defs/"
_SEVERAL_ANSWERS = (
    "One request gives one answer: for several, repeat the rows and number the repetitions in "
    "the prompt."
)
_NO_PENALTY = "Leave it out; the model repeats less at a higher temperature."
_NOT_SENT = "Leave it out; keep such notes in columns, which stay beside the answers."
_REMEDY = {
    "n": _SEVERAL_ANSWERS,
    "frequency_penalty": _NO_PENALTY,
    "presence_penalty": _NO_PENALTY,
    "user": _NOT_SENT,
    "metadata": 'Leave it out; params={"labels": {...}} is passed on.',
    "store": _NOT_SENT,
    "logit_bias": "Leave it out; ask for what you want in the prompt, or with schema=.",
    "stream": "Leave it out; a batch job answers all at once.",
    "stream_options": "Leave it out; a batch job answers all at once.",
    "service_tier": "Leave it out; batch jobs have their own price.",
    "parallel_tool_calls": "Leave it out.",
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
}


def body_params(
    *,
    model: str,
    realm: str,
    max_tokens: object = None,
    temperature: object = None,
    top_p: object = None,
    seed: object = None,
    stop: object = None,
    thinking: object = None,
    params: object = None,
    has_schema: bool = False,
) -> dict[str, Any]:
    """Return the constant fields of the body, in the order in which they are sent.

    Model and realm decide which rules hold. `has_schema` is whether the call sets
    ``response_format`` itself; the other arguments are as the user gave them.

    With `thinking`, `max_tokens` is the limit of the answer: what is sent is larger by the budget,
    or by the room that the level needs, because the model counts thinking among its output. Without
    `thinking`, and with thinking given by hand in `params`, numbers are sent as they are.

    Raises
    ------
    ConfigurationError
        An argument has no meaning.
    RequestError
        It has one, but would fail or vanish on this route.
    """
    way = route(realm, model)
    _refuse_model(model, way)
    given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    _check_bounds(given, way, "{}")
    if isinstance(thinking, np.integer):
        thinking = int(thinking)
    chosen = setting(thinking, model, way)
    named = {**given, "stop": _stops("stop", stop)}
    fields = {k: plain_numbers(v, k) for k, v in named.items() if v is not None}
    extra = _extra(params)
    _refuse_twice(fields, extra, thinking, has_schema)
    if "max_tokens" in fields:
        fields["max_tokens"] = with_room(fields["max_tokens"], chosen.room)
    fields |= chosen.fields
    fields |= extra
    if way != "open":
        _refuse_dropped(fields, way)
    if way == "gemini":
        _check_kinds(fields)
        _check_forms(fields)
        _check_bounds(extra, way, "params[{!r}]")
        check_given(extra, model, next((fields[k] for k in LIMITS[::-1] if k in fields), None))
        if len(fields.get("stop", ())) > MAX_STOPS:
            raise RequestError(
                f"stop has {len(fields['stop'])} strings, and the model takes {MAX_STOPS}."
            )
        _check_importable(fields)
    return fields


def _check_bounds(values: Mapping[str, object], way: ProviderRoute, shown: str) -> None:
    """Refuse numbers that no model accepts: each row would come back as an error."""
    top = 2**31 - 1 if way == "gemini" else 2**63 - 1  # Google's seed has 32 bits
    for name in LIMITS:
        check_number(shown.format(name), values.get(name), 1, whole=True)
    check_number(shown.format("temperature"), values.get("temperature"), 0, 2)
    check_number(shown.format("top_p"), values.get("top_p"), 0, 1)
    check_number(shown.format("seed"), values.get("seed"), -top - 1, top, whole=True)


def _refuse_model(model: str, way: ProviderRoute) -> None:
    """Refuse models with batch answers that the gateway cannot read: every row would be lost."""
    if way != "gemini":
        return
    name = bare_name(model)
    publisher = name.partition(".")[0]
    if publisher in ("anthropic", "meta", "mistralai", "endpoints") or name.startswith("claude"):
        raise RequestError(
            f"The gateway cannot read batch answers of {model!r}: every row would be paid and come "
            "back as an error. Use a Gemini model, as gemini-3-flash-preview."
        )


def _stops(name: str, stop: object) -> list[str] | None:
    if isinstance(stop, str) and stop:
        return [stop]  # a bare string reaches the model wrongly
    if stop is None:
        return None
    if isinstance(stop, list | tuple) and stop and all(isinstance(s, str) and s for s in stop):
        return list(stop)
    raise ConfigurationError(f"{name} must be a string or a list of strings, not {stop!r}.")


def _extra(params: object) -> dict[str, Any]:
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise ConfigurationError(f"params must be a dict of body fields, not {params!r}.")
    for key in params:
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"params has the key {key!r}; names of fields are strings.")
        if key in RESERVED:
            raise ConfigurationError(f"params cannot hold {key!r}: the call sets it itself.")
    path = "params[{!r}]".format
    extra = {k: plain_numbers(v, path(k)) for k, v in params.items() if v is not None}
    if "stop" in extra:
        extra["stop"] = _stops(path("stop"), extra["stop"])
    return extra


def _refuse_twice(
    fields: Mapping[str, Any], extra: Mapping[str, Any], thinking: object, has_schema: bool
) -> None:
    for key in extra:
        if key in fields:
            raise ConfigurationError(f"{key} is given twice, as an argument and in params.")
    if has_schema and "response_format" in extra:
        raise ConfigurationError(
            "schema= and params['response_format'] both describe the answer. Keep one."
        )
    limits = [k for k in LIMITS if k in fields or k in extra]
    if len(limits) == 2:
        raise ConfigurationError(
            "max_tokens and max_completion_tokens are the same limit, and the gateway passes on "
            "only the second. Keep max_tokens."
        )
    if thinking is None:
        return
    for key in THINKING_FIELDS:
        if key in extra:
            raise RequestError(
                f"thinking= and params[{key!r}] conflict: both set how much the model thinks. "
                "Keep thinking=."
            )
    for key in LIMITS:
        if key in extra:
            raise ConfigurationError(
                f"With thinking=, give the limit as the argument max_tokens= and not as "
                f"params[{key!r}]: room for thinking is added to it."
            )


def _refuse_dropped(fields: Mapping[str, Any], way: ProviderRoute) -> None:
    taken = frozenset(_KIND) if way == "gemini" else _EMBEDDED
    who = "The gateway" if way == "gemini" else "The model on this machine"
    for key in fields:
        if key in taken:
            continue
        close = get_close_matches(key, taken, 1, 0.75)
        hint = f"Did you mean {close[0]!r}?" if close else "Leave it out."
        raise RequestError(
            f"{who} drops the parameter {key!r} silently, so it would have no effect. "
            f"{_REMEDY.get(key, hint)}"
        )


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """Refuse values that make the gateway drop the line, with HTTP 200."""
    for key, value in fields.items():
        wanted = _KIND[key]
        fits = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
        inner = {"modalities": str, "tools": dict, "safety_settings": dict}.get(key)
        if fits and inner is not None:
            fits = all(isinstance(item, inner) for item in value)
        if not fits:
            names = " or ".join(t.__name__ for t in wanted)
            of = f" of {inner.__name__}" if inner is not None else ""
            raise RequestError(f"params[{key!r}] must be {names}{of}, not {value!r}.")


def _check_forms(fields: Mapping[str, Any]) -> None:
    """Refuse what the gateway drops or leaves empty, and what gives an answer without text."""
    answer, tools = fields.get("response_format"), fields.get("tools", [])
    choice, modes = fields.get("tool_choice", "auto"), fields.get("modalities", ["text"])
    kind = answer.get("type") if answer is not None else "json_object"
    for key, fits, form in (
        (
            "response_format",
            kind == "json_object" or (kind == "json_schema" and _schema_in(answer)),
            '{"type": "json_schema", "json_schema": {...}}, which schema= makes, or '
            '{"type": "json_object"}, or left out for text',
        ),
        ("logprobs", fields.get("logprobs", True), "True, or left out"),
        (
            "tools",
            all(map(_is_function, tools)),
            'a list of {"type": "function", "function": {"name": ...}}',
        ),
        ("tool_choice", choice in ("auto", "none"), '"auto" or "none", for an answer with text'),
        ("modalities", "text" in map(str.casefold, modes), 'a list with "text", which is read'),
    ):
        if not fits:
            raise RequestError(f"params[{key!r}] must be {form}, not {fields[key]!r}.")


def _schema_in(answer: Any) -> Mapping[str, Any] | None:
    """Return the schema of a response_format as the gateway finds it."""
    inner = answer.get("json_schema")
    schema = inner.get("schema", inner) if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else None


def _is_function(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return tool.get("type") == "function" and isinstance(function, dict) and "name" in function


# --- the importer of Vertex AI, where a request that breaks a rule fails the whole job -----------
def _check_importable(fields: Mapping[str, Any]) -> None:
    """Refuse body fields that fail the import of the whole job: depth, empty objects, keys."""
    for key, value in fields.items():
        if key == "response_format":
            # Only the schema is passed on, at its depth, and without its definitions.
            if schema := dict(_schema_in(value) or {}):
                defs = schema.pop("$defs") if isinstance(schema.get("$defs"), dict) else {}
                _walk(schema, "response_format.json_schema", 4, _REMOVED, defs)
            continue
        _walk(value, key, 3, _REMOVED if key == "tools" else frozenset())


def _walk(
    value: Any,
    path: str,
    depth: int,
    removed: frozenset[str],
    defs: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Check a value without its `removed` keys, and with `defs` in place of references to them."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _walk(item, f"{path}[{i}]", depth, removed, defs)
        return
    if not isinstance(value, Mapping):
        return
    before, _, name = str(value.get("$ref", "")).partition(_DEFS)
    if not before and isinstance(defs.get(name), Mapping):
        inlined = {**defs[name], **{k: v for k, v in value.items() if k != "$ref"}}
        # One that refers to itself stays as it is.
        _walk(inlined, path, depth, removed, {k: v for k, v in defs.items() if k != name})
        return
    kept = {k: v for k, v in value.items() if k not in removed}
    if not kept:
        raise RequestError(
            f"{path} is an empty object, which makes the import of the whole job fail. Leave it "
            "out, or give it a field."
        )
    if depth > MAX_DEPTH:
        raise RequestError(
            f"{path} is nested deeper than {MAX_DEPTH} levels, which makes the import of the "
            "whole job fail. Make it flatter."
        )
    for key, inner in kept.items():
        if not _KEY.fullmatch(key):
            cure = "Write out what it refers to." if key in ("$ref", "$defs") else "Rename it."
            raise RequestError(
                f"{path} has the key {key!r}; the import of the whole job fails if a name has "
                f"characters other than A-Z, a-z, 0-9 and _, or begins with a digit. {cure}"
            )
        _walk(inner, f"{path}.{key}", depth + 1, removed, defs)
