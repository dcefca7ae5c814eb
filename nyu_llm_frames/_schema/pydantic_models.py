"""The two things we ask of pydantic beyond its API: described fields, and "is this all there is".

Comes in: pydantic's core schema. Goes out: its JSON Schema with docstrings of attributes, and
whether that JSON Schema states every constraint. Imports pydantic: import it late.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
import types
import typing
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from nyu_llm_frames.errors import SchemaError

_NEUTRAL = frozenset({"type", "metadata", "ref", "title"})
# The keys of each core schema that the JSON Schema states in full. Anything else (validators,
# aliases, strictness, patterns of another regex dialect) makes pydantic itself the judge.
_STATED: dict[str, frozenset[str]] = {
    "model": frozenset({"cls", "schema", "custom_init", "root_model", "config"}),
    "model-fields": frozenset({"fields", "model_name", "computed_fields", "extra_behavior"}),
    "model-field": frozenset({"schema", "frozen"}),
    "dataclass": frozenset(
        {"cls", "fields", "schema", "post_init", "frozen", "slots", "config", "generic_origin"}
    ),
    "dataclass-args": frozenset(
        {"dataclass_name", "fields", "computed_fields", "collect_init_only"}
    ),
    "dataclass-field": frozenset({"name", "schema", "kw_only", "init", "frozen"}),
    "typed-dict": frozenset({"fields", "cls", "computed_fields", "extra_behavior", "config"}),
    "typed-dict-field": frozenset({"schema", "required"}),
    "default": frozenset({"schema", "default"}),
    "nullable": frozenset({"schema"}),
    "str": frozenset({"min_length", "max_length"}),
    "int": frozenset({"ge", "gt", "le", "lt"}),
    "float": frozenset({"ge", "gt", "le", "lt", "allow_inf_nan"}),
    "bool": frozenset(),
    "date": frozenset({"microseconds_precision"}),
    "datetime": frozenset({"microseconds_precision"}),
    "literal": frozenset({"expected"}),
    "enum": frozenset({"cls", "members", "sub_type"}),
    "list": frozenset({"items_schema", "min_length", "max_length"}),
    "definitions": frozenset({"schema", "definitions"}),
    "definition-ref": frozenset({"schema_ref"}),
}


def describe(cls: Any) -> tuple[TypeAdapter[Any], dict[str, Any], dict[str, Any], bool]:
    """A class as (validator, JSON Schema, the same by field names, whether it says it all)."""
    name = getattr(cls, "__name__", repr(cls))
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_modern(cls))
        schema = adapter.json_schema(schema_generator=Generator)
        columns = adapter.json_schema(schema_generator=Generator, by_alias=False)
    except (PydanticUserError, PydanticSchemaGenerationError, NameError) as error:
        reason = str(error).split("\n\nFor further information")[0].strip()
        path = _culprit(cls)
        raise SchemaError(
            f"{path}: pydantic cannot describe {name} as JSON: {reason} Use plain types (str, "
            "int, list, another model) there.",
            path=path,
        ) from error
    except RecursionError:
        raise SchemaError(f"$: {name} contains itself; write its levels out") from None
    return adapter, schema, columns, schema == columns and is_plain(adapter.core_schema)


class Generator(GenerateJsonSchema):
    """pydantic's JSON Schema, with the docstrings below fields as their descriptions."""

    # What a model cannot follow is said by our own errors; pydantic's warnings repeat it.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        """One JSON type for decimals; pydantic's two would make a column of text."""
        bounds = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}
        bounds["lt"] = "exclusiveMaximum"
        limits = {bounds[k]: float(v) for k, v in schema.items() if k in bounds}
        return {"type": "number", **limits}

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _documented(schema, super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return _documented(schema, super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        return _documented(schema, super().typed_dict_schema(schema))


def _documented(core: Mapping[str, Any], out: dict[str, Any]) -> dict[str, Any]:
    cls = core.get("cls")
    properties = out.get("properties")
    if cls is None or not properties:
        return out
    docs = {}
    for base in reversed(getattr(cls, "__mro__", (cls,))[:-1] or (cls,)):
        docs.update(attribute_docs(getattr(base, "__documented__", base)))
    for name, hint in _hints(getattr(cls, "__documented__", cls)).items():
        if get_origin(hint) is typing.Annotated and (
            words := [m for m in get_args(hint)[1:] if isinstance(m, str)]
        ):
            docs[name] = " ".join(words)
    fields = getattr(cls, "model_fields", {})
    for name, text in docs.items():
        alias = getattr(fields.get(name), "validation_alias", None)
        found = properties.get(name, properties.get(alias) if isinstance(alias, str) else None)
        if found is not None:
            found.setdefault("description", text)
    return out


def is_plain(core: Any) -> bool:
    """Whether the JSON Schema of this core schema states all that it checks and returns."""
    kind = core.get("type")
    if kind not in _STATED or not core.keys() <= _STATED[kind] | _NEUTRAL:
        return False
    if core.get("custom_init") or core.get("root_model") or core.get("post_init"):
        return False
    if core.get("collect_init_only") or core.get("init") is False:
        return False
    if not (core.get("config") or {}).keys() <= {"title", "extra_fields_behavior"}:
        return False
    if kind == "default" and not (
        core["default"] is None or type(core["default"]) in (str, int, float, bool)
    ):
        return False
    children = [core[k] for k in ("schema", "items_schema") if k in core]
    children += core.get("definitions", ())
    fields = core.get("fields", ())
    if isinstance(fields, Mapping):
        children += fields.values()
    else:
        children += [f for f in fields if isinstance(f, Mapping)]
    return all(is_plain(child) for child in children)


def _culprit(cls: Any) -> str:
    """Path of the first field that pydantic cannot describe."""
    for name, annotation in _hints(cls).items():
        try:
            TypeAdapter(annotation).json_schema()
        except Exception:
            return f"$.{name}"
    return "$"


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:
        return {}


def _modern(annotation: Any) -> Any:
    """`typing.TypedDict` as pydantic wants it before Python 3.12: from `typing_extensions`."""
    if sys.version_info >= (3, 12):
        return annotation
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        from typing import NotRequired

        from typing_extensions import TypedDict

        fields = {
            name: _modern(hint)
            if name in annotation.__required_keys__
            else NotRequired[_modern(hint)]
            for name, hint in _hints(annotation).items()
        }
        new: Any = TypedDict(annotation.__name__, fields)  # type: ignore[misc]
        new.__doc__, new.__module__ = annotation.__doc__, annotation.__module__
        setattr(new, "__documented__", annotation)  # noqa: B010
        return new
    args = get_args(annotation)
    origin = get_origin(annotation)
    if not args or origin is typing.Literal:
        return annotation
    if origin is typing.Annotated:
        return typing.Annotated[(_modern(args[0]), *args[1:])]
    modern = tuple(_modern(a) if not isinstance(a, list) else a for a in args)
    if modern == args:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return typing.Union[modern]  # noqa: UP007
    return origin[modern] if origin is not None else annotation


def attribute_docs(cls: Any) -> dict[str, str]:
    """The string literals that stand below the fields of a class, where its source is known."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    out = {}
    for statement, below in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            out[statement.target.id] = inspect.cleandoc(below.value.value)
    return out
