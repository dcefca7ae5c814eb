"""Convert a JSON Schema of any draft to 2020-12, and validate with the jsonschema library."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NoReturn

from jsonschema_rs import Draft202012Validator, ValidationError, meta
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema

from nyu_llm_frames._stages.schema.formats import shown, to_datetime
from nyu_llm_frames._stages.schema.keywords import type_names, wrong

# Keywords that hold one schema, a list of schemas, and schemas by name.
_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def modern(schema: Any) -> Any:
    """Rewrite what drafts 4 to 7 and OpenAPI express differently from 2020-12."""
    if not isinstance(schema, Mapping):
        return schema
    s = dict(schema)
    if isinstance(s.get("items"), (list, tuple)):
        s["prefixItems"] = s.pop("items")
        if "additionalItems" in s:
            s["items"] = s.pop("additionalItems")
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(s.get(strict), bool):
            is_strict = s.pop(strict)
            if is_strict and bound in s:
                s[strict] = s.pop(bound)
    if isinstance(both := s.pop("dependencies", None), Mapping):
        lists = {k: v for k, v in both.items() if isinstance(v, (list, tuple))}
        s["dependentRequired"] = {**lists, **s.get("dependentRequired", {})}
        others = {k: v for k, v in both.items() if k not in lists}
        s["dependentSchemas"] = {**others, **s.get("dependentSchemas", {})}
    for key in _ONE:
        if key in s:
            s[key] = modern(s[key])
    for key in _MANY:
        if isinstance(s.get(key), (list, tuple)):
            s[key] = [modern(v) for v in s[key]]
    for key in _NAMED:
        if isinstance(s.get(key), Mapping):
            s[key] = {k: modern(v) for k, v in s[key].items()}
    return _with_null(s) if s.pop("nullable", False) is True else s


def _with_null(s: dict[str, Any]) -> dict[str, Any]:
    """Convert OpenAPI's nullable."""
    if "enum" in s and None not in s["enum"]:
        s["enum"] = [*s["enum"], None]
    if "type" in s and "null" not in type_names(s):
        s["type"] = [*type_names(s), "null"]
    return s if "type" in s or "enum" in s else {"anyOf": [s, {"type": "null"}]}


def _reads(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return check


def _no_download(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not in the schema; copy it there")


def refuse_malformed(schema: Mapping[str, Any]) -> None:
    """Raise where a keyword has a value that the draft does not define."""
    try:
        meta.validate({**schema, "$schema": _DRAFT})
        return
    except ValidationError as e:
        error = e  # raised below: Dask pickles what an error came from, and this does not come back
    places = list(error.instance_path)
    path = _schema_path(places)
    keyword = f"{places[-1]}: " if places else ""
    raise wrong(path, f"{keyword}{error.message}; correct the JSON Schema")


def compile_check(schema: Mapping[str, Any]) -> Callable[[Any], tuple[list[Any], str] | None]:
    """Compile a schema into a function from a value to (place, what is wrong), or None."""
    # RFC 3339 requires an offset in every time; answers are requested without one.
    formats = {"date-time": _reads(to_datetime), "time": _reads(dt.time.fromisoformat)}
    refused = None
    try:
        validator = Draft202012Validator(
            dict(schema),
            formats=formats,
            validate_formats=True,
            mask="the value",
            retriever=_no_download,
        )
    except ValidationError as e:  # a pattern, or a reference where nothing is sent
        refused = e
    if refused is not None:
        path = _schema_path(list(refused.instance_path))
        raise wrong(path, f"{refused.message}; correct the JSON Schema")

    def check(value: Any) -> tuple[list[Any], str] | None:
        error = next(validator.iter_errors(value), None)
        if error is None:
            return None
        error = _innermost(error)
        what = error.message.removeprefix("the value ")
        if not isinstance(error.instance, (dict, list)):
            what += f", got {shown(error.instance)}"
        return list(error.instance_path), what

    return check


def _innermost(error: Any) -> Any:
    """Of alternatives that all fail, choose the one that matched furthest."""
    inner = [e for branch in getattr(error.kind, "context", ()) for e in branch]
    deepest = max(inner, key=lambda e: len(e.instance_path), default=error)
    return _innermost(deepest) if len(deepest.instance_path) > len(error.instance_path) else error


def _schema_path(places: list[Any]) -> str:
    """The place in the answer that the faulty keyword describes, such as ``$.a[].b``."""
    path = "$"
    for before, place in zip([None, *places], places, strict=False):
        if before in _NAMED:
            path += f".{place}"
        elif place == "items":
            path += "[]"
    return path


class HeldTo:
    """Validates a value against a JSON Schema: ``Annotated[Any, HeldTo(schema)]``."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        refuse_malformed(schema)
        self.schema = dict(schema)
        core = core_schema.no_info_after_validator_function(self.hold, core_schema.any_schema())
        self.core, self.validate_json = core, SchemaValidator(core).validate_json

    @cached_property
    def check(self) -> Callable[[Any], tuple[list[Any], str] | None]:
        """Compiled when the schema has been read: a reader names the path of a bad reference."""
        return compile_check(self.schema)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return self.core

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return self.schema

    def hold(self, value: Any) -> Any:
        """Return the value, or raise with the place in it and what is wrong."""
        if problem := self.check(value):
            place, what = problem
            raise PydanticCustomError("json_schema", "{what}", {"place": place, "what": what})
        return value
