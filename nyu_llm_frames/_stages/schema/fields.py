"""Recognize what a user passes as `schema=`, and turn it into one type that pydantic validates."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import KeysView, Mapping, ValuesView
from typing import Annotated, Any, Literal, NotRequired, get_args, get_origin

from nyu_llm_frames._stages.schema.json_schema import HeldTo, modern
from nyu_llm_frames._stages.schema.keywords import wrong
from nyu_llm_frames._stages.schema.pydantic_types import Described, describe, typed_dict
from nyu_llm_frames.errors import SchemaError

_JSON_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_TYPE_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_FORMS = (
    "pass a pydantic model, a dataclass, a TypedDict, a dict such as "
    '{"drug": str, "months": int | None, "kind": ["violent", "other"]}, or a JSON Schema'
)


def read_schema(schema: object) -> Described:
    """Recognize a schema.

    A dict is a JSON Schema when it names itself one (``$schema``, ``$ref``, ``$defs``), when
    ``type`` is the name of a JSON type, or when it has ``properties``, ``anyOf``, ``oneOf`` or
    ``allOf`` whose entries are JSON Schemas themselves. Any other dict is read as fields: one
    with a field called `type` or `properties` stays a dict of fields, since a Python type or a
    list of choices is there, and not the name of a JSON type.
    """
    if isinstance(schema, Mapping):
        plain = _plain(schema)
        if not _is_json_schema(plain):
            return describe(_object_type(plain, "$"), strict=True)
        _no_types(plain, "$")
        plain = modern(plain)
        return Described(HeldTo(plain).validate_json, plain, plain, is_json_schema=True)
    if isinstance(schema, type) and not issubclass(schema, enum.Enum):
        if schema.__module__ != "builtins" and schema.__module__ != "datetime":
            return describe(schema, strict=not hasattr(schema, "__pydantic_validator__"))
    elif isinstance(get_origin(schema), type):
        return describe(schema, strict=True)
    name = getattr(schema, "__name__", None) or repr(schema)
    if hasattr(type(schema), "__pydantic_validator__") or dataclasses.is_dataclass(schema):
        raise SchemaError(f"schema= got an instance; pass the class {type(schema).__name__} itself")
    if isinstance(schema, list | tuple):
        raise SchemaError(f"schema={name} is a list, without a name for its column: {_FORMS}")
    raise SchemaError(f"schema={name} has no fields to become columns: {_FORMS}")


def _plain(value: Any) -> Any:
    """Return what is not a type as plain Python: for arrays, a column's `unique()`,
    `cat.categories` or a range, the values in order. A column's missing value becomes null."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if _describes(value):
        return value
    if isinstance(value, enum.Enum):
        value = value.value
    if callable(getattr(value, "tolist", None)):
        value = value.tolist()
    if isinstance(value, (list, tuple, range, KeysView, ValuesView)):
        return [_plain(v) for v in value]
    if isinstance(value, str):
        return str(value)
    is_missing = type(value).__name__ in ("NAType", "NaTType")
    return None if is_missing or (isinstance(value, float) and math.isnan(value)) else value


# A dict of fields -------------------------------------------------------------------------------
def _field_type(value: Any, path: str) -> Any:
    """One field's description as a type."""
    if isinstance(value, Mapping):
        if _is_json_schema(value, nested=True):
            return _from_json_schema(value, path)
        return _object_type(value, path)
    if isinstance(value, list) and len(value) == 1 and _describes(value[0]):
        return list[_field_type(value[0], f"{path}[]")]  # type: ignore[misc]
    if (choices := _choices(value, path)) is not None:
        return Literal[tuple(choices)]
    if value is ... or isinstance(value, (str, int, float, bytes)):
        how = f"write its type, or [{value!r}, ...] for choices"
        if value in _TYPE_NAMES:
            in_json = f'{{"type": "{_TYPE_NAMES[value]}"}}'
            how = f"write {value} without quotation marks, in JSON {in_json}"
        raise wrong(path, f"{value!r} is a value, not a type; {how}")
    return value


def _object_type(spec: Mapping[Any, Any], path: str) -> Any:
    """Fields as a TypedDict. One that may be null may also be left out, since a model that leaves
    it out means the same."""
    if not spec:
        raise wrong(path, "an object without fields; name at least one")
    fields = {}
    for name, value in spec.items():
        where = f"{path}.{name}"
        if not isinstance(name, str):
            raise wrong(where, f"a field's name is text, not {name!r}")
        kind = _field_type(value, where)
        fields[name] = NotRequired[kind] if _admits_null(kind) else kind
    try:
        made = typed_dict("Answer", fields)
    except TypeError as error:
        raise wrong(path, f"{error}; use plain types there") from None
    made.__fields_of_a_dict__ = True
    return made


def _admits_null(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        inner, *rest = get_args(kind)
        return _admits_null(inner) or any(isinstance(m, HeldTo) and not m.check(None) for m in rest)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(member.value is None for member in kind)
    return None in get_args(kind) or type(None) in get_args(kind)


def _from_json_schema(value: Mapping[Any, Any], path: str) -> Any:
    _no_types(value, path)
    if any(k in value for k in ("$ref", "$defs")):
        raise wrong(path, "references need a whole JSON Schema; pass one as schema=")
    return Annotated[Any, HeldTo(modern(value))]


def _choices(choices: Any, path: str) -> list[Any] | None:
    if isinstance(choices, (set, frozenset)):
        raise wrong(path, "a set of choices has no order; write them as a list")
    if not isinstance(choices, list):
        return None
    if not choices or any(_describes(v) for v in choices):
        raise wrong(
            path,
            f"{choices!r} is neither a list of choices nor a list of one type; write "
            '["a", "b"], or [str] for a list of text',
        )
    if bad := [v for v in choices if not (v is None or isinstance(v, (str, int, float)))]:
        raise wrong(path, f"{bad[0]!r} cannot be a choice; choices are text, numbers or true/false")
    if choices == [None] * len(choices):
        raise wrong(path, "no choice but null; name at least one")
    return choices


def _describes(value: Any) -> bool:
    """Whether an entry of a list is a type and not a choice."""
    return isinstance(value, (type, Mapping)) or get_origin(value) is not None


# A JSON Schema ----------------------------------------------------------------------------------
def _is_json_schema(d: Mapping[Any, Any], *, nested: bool = False) -> bool:
    if any(k in d for k in ("$schema", "$ref", "$defs")):
        return True
    kind = d.get("type")
    if isinstance(kind, str) and kind in _JSON_TYPES:
        return True
    if isinstance(kind, list) and kind and all(k in _JSON_TYPES for k in kind if k.__hash__):
        return True
    if nested and d and d.keys() <= {"enum", "const", "description", "title"}:
        return isinstance(d.get("enum"), list) or "const" in d
    inner = d.get("properties")
    if isinstance(inner, Mapping) and inner:
        return all(isinstance(v, bool) or _is_schema_like(v) for v in inner.values())
    return any(
        isinstance(d.get(k), list) and d[k] and all(_is_schema_like(v) for v in d[k])
        for k in ("anyOf", "oneOf", "allOf")
    )


def _is_schema_like(value: Any) -> bool:
    return isinstance(value, Mapping) and (not value or _is_json_schema(value, nested=True))


def _no_types(value: Any, path: str) -> None:
    """A JSON Schema is made of JSON; a Python type in it mixes two forms."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _no_types(entry, path if key == "properties" else f"{path}.{key}")
    elif isinstance(value, list):
        for entry in value:
            _no_types(entry, path)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise wrong(
            path,
            f"{value!r} is in a JSON Schema; write "
            '{"type": ...} there, or use Python types throughout: {"field": str}',
        )
