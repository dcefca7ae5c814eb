"""What a user may pass as `schema=`, as JSON Schema and the means to validate an answer.

Comes in: a pydantic model, dataclass, TypedDict, dict of types, or JSON Schema. Goes out: a
`Source`. pydantic is imported only when one of its types, or a class, is there.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from nyu_llm_frames.errors import SchemaError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_JSON_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    dt.date: {"type": "string", "format": "date"},
    dt.datetime: {"type": "string", "format": "date-time"},
}
_FORMS = (
    "pass a pydantic model, a dataclass, a TypedDict, a dict such as "
    '{"drug": str, "months": int | None, "kind": ["violent", "other"]}, or a JSON Schema'
)


@dataclass(frozen=True, slots=True)
class Source:
    """A schema as it was meant.

    `schema` is what the model is told, `columns` the same by the names of the columns (which an
    alias can differ from), `checked` what an answer is held to here; `adapter` validates after
    it. `plain` says that the adapter does no more than `columns` states.
    """

    schema: dict[str, Any]
    columns: dict[str, Any]
    checked: dict[str, Any] | None
    adapter: TypeAdapter[Any] | None = None
    plain: bool = True


def read_source(schema: object) -> Source:
    """Recognise a schema.

    A dict is a JSON Schema when it names itself one (``$schema``, ``$ref``, ``$defs``), when
    ``type`` is the name of a JSON type, or when it has ``properties``, ``anyOf``, ``oneOf`` or
    ``allOf`` whose entries are JSON Schemas themselves. Any other dict is read as fields: one
    with a field called `type` or `properties` stays a dict of fields, since a Python type or a
    list of choices stands there, and no name of a JSON type.
    """
    if isinstance(schema, Mapping):
        if _is_json_schema(schema):
            _no_types(schema, "$")
            plain = _plain_dict(schema)
            return Source(plain, plain, plain)
        return _fields(schema)
    if isinstance(schema, type) and not (schema in _SCALARS or issubclass(schema, enum.Enum)):
        return _from_type(schema, strict=not hasattr(schema, "__pydantic_validator__"))
    if get_origin(schema) is not None and isinstance(get_origin(schema), type):
        return _from_type(schema, strict=True)
    name = getattr(schema, "__name__", None) or repr(schema)
    if hasattr(type(schema), "__pydantic_validator__") or dataclasses.is_dataclass(schema):
        raise SchemaError(f"schema= got an instance; pass the class {type(schema).__name__} itself")
    raise SchemaError(f"schema={name} has no fields to become columns: {_FORMS}")


# A dict -----------------------------------------------------------------------------------------
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
    """A JSON Schema is made of JSON; a Python type in it is a mix-up of two forms."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _no_types(entry, path if key == "properties" else f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _no_types(entry, path)
    elif not (value is None or isinstance(value, (str, int, float))):
        raise SchemaError(
            f"{path}: {value!r} stands in a JSON Schema; write "
            '{"type": ...} there, or use Python types throughout: {"field": str}',
            path=path,
        )


def _plain_dict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain_dict(v) for k, v in value.items()}
    return [_plain_dict(v) for v in value] if isinstance(value, (list, tuple)) else value


class _NeedsPydantic(Exception):
    """A type in a dict of fields that is beyond the plain ones."""


def _fields(spec: Mapping[Any, Any]) -> Source:
    try:
        told = _object_schema(spec, "$", lenient=False)
        held = _object_schema(spec, "$", lenient=True)
        return Source(told, held, held)
    except _NeedsPydantic:
        return _from_type(_as_annotation(spec, "$"), strict=True)


def _object_schema(spec: Mapping[Any, Any], path: str, *, lenient: bool) -> dict[str, Any]:
    """Fields as an object. The model is told to write all of them; one that may be null may
    also be left out, since a model that leaves it out says the same."""
    if not spec:
        raise SchemaError(f"{path}: an object without fields; name at least one", path=path)
    properties, required = {}, []
    for name, value in spec.items():
        where = f"{path}.{name}"
        if not isinstance(name, str):
            raise SchemaError(f"{where}: a field's name is text, not {name!r}", path=where)
        sub = _value_schema(value, where, lenient=lenient)
        properties[name] = sub
        if not (lenient and _admits_null(sub)):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _admits_null(schema: Mapping[str, Any]) -> bool:
    types_ = schema.get("type")
    return (
        types_ == "null"
        or (isinstance(types_, list) and "null" in types_)
        or schema.get("nullable") is True
        or ("enum" in schema and None in schema["enum"])
        or any(_admits_null(b) for b in schema.get("anyOf", ()))
    )


def _value_schema(value: Any, path: str, *, lenient: bool) -> dict[str, Any]:
    if isinstance(value, Mapping):
        if _is_json_schema(value, nested=True):
            _no_types(value, path)
            if any(k in value for k in ("$ref", "$defs")):
                raise SchemaError(
                    f"{path}: references need a whole JSON Schema; pass one as schema=", path=path
                )
            return typing.cast("dict[str, Any]", _plain_dict(value))
        return _object_schema(value, path, lenient=lenient)
    if isinstance(value, (list, tuple)):
        if len(value) == 1 and _describes(value[0]):
            items = _value_schema(value[0], f"{path}[]", lenient=lenient)
            return {"type": "array", "items": items}
        return _choices(value, path)
    if isinstance(value, (set, frozenset)):
        raise SchemaError(f"{path}: a set of choices has no order; write them as a list", path=path)
    return _annotation_schema(value, path)


def _choices(values: Any, path: str) -> dict[str, Any]:
    if not values or any(_describes(v) for v in values):
        raise SchemaError(
            f"{path}: {values!r} is neither a list of choices nor a list of one type; write "
            '["a", "b"], or [str] for a list of text',
            path=path,
        )
    if any(not (v is None or isinstance(v, (str, int, float))) for v in values):
        raise SchemaError(f"{path}: choices are text, numbers or true/false", path=path)
    return {"enum": [v.value if isinstance(v, enum.Enum) else v for v in values]}


def _describes(value: Any) -> bool:
    """Whether an entry of a list stands for a type and not for a choice."""
    return isinstance(value, (type, Mapping)) or get_origin(value) is not None


def _annotation_schema(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, type) and value in _SCALARS:
        return dict(_SCALARS[value])
    if value is None or value is type(None):
        return {"type": "null"}
    if isinstance(value, type) and issubclass(value, enum.Enum):
        if "_missing_" in vars(value):
            raise _NeedsPydantic
        return {"enum": [m.value for m in value]}
    origin, args = get_origin(value), get_args(value)
    if origin is typing.Literal:
        return {"enum": [a.value if isinstance(a, enum.Enum) else a for a in args]}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_annotation_schema(a, path) for a in args]}
    if origin is list and len(args) == 1:
        return {"type": "array", "items": _annotation_schema(args[0], f"{path}[]")}
    if origin is typing.Annotated and all(isinstance(m, str) for m in args[1:]):
        return {**_annotation_schema(args[0], path), "description": " ".join(args[1:])}
    if isinstance(value, str) or (value is not ... and isinstance(value, (int, float, bytes))):
        raise SchemaError(
            f"{path}: {value!r} is a value and no type; write its type, or [{value!r}, ...] for "
            "choices",
            path=path,
        )
    raise _NeedsPydantic


def _as_annotation(value: Any, path: str) -> Any:
    """A dict of fields as a TypedDict, for what only pydantic understands."""
    from typing import NotRequired

    from typing_extensions import TypedDict

    if isinstance(value, Mapping):
        if _is_json_schema(value, nested=True):
            raise SchemaError(
                f"{path}: a JSON Schema beside pydantic types; write it as a type too", path=path
            )
        fields = {}
        for name, entry in value.items():
            inner = _as_annotation(entry, f"{path}.{name}")
            optional = type(None) in get_args(inner) or None in get_args(inner)
            fields[name] = NotRequired[inner] if optional else inner
        return TypedDict("Answer", fields)  # type: ignore[operator]
    if isinstance(value, (list, tuple)):
        if len(value) == 1 and _describes(value[0]):
            return list[_as_annotation(value[0], f"{path}[]")]  # type: ignore[misc]
        return typing.Literal[tuple(_choices(value, path)["enum"])]
    return value


# A class ----------------------------------------------------------------------------------------
def _from_type(cls: Any, *, strict: bool) -> Source:
    """Let pydantic read a class.

    `strict` holds the answer to the JSON Schema before pydantic sees it, so that ``"5"`` is no
    int; a pydantic model decides that by its own configuration.
    """
    from nyu_llm_frames._schema.pydantic_models import describe

    adapter, schema, columns, plain = describe(cls)
    return Source(schema, columns, schema if strict else None, adapter, plain)
