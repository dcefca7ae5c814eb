"""Describe a type through pydantic: its validation, its sent schema, the values of its columns.

What is only in a source file is in none of them.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NotRequired, Required, Self, get_args, get_origin

from pydantic import Field, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaValidator, core_schema
from typing_extensions import TypedDict, is_typeddict

from nyu_llm_frames._stages.schema.descriptions import aliases, attribute_docs, descriptions, hints
from nyu_llm_frames._stages.schema.formats import to_date, to_datetime
from nyu_llm_frames._stages.schema.keywords import REFUSED, REMARKS, VALIDATOR, scalar_key, wrong
from nyu_llm_frames.errors import SchemaError

_TEMPORAL = ("date", "time", "datetime", "timedelta")


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """A schema, as pydantic validates it."""

    validate: Callable[[str], Any]
    sent: dict[str, Any]  # JSON Schema of the input, by aliases
    values: dict[str, Any]  # that of the validated values, by the names of the fields
    undescribed: tuple[str, ...] = ()  # classes with field texts only in source
    strict: bool = False  # "5" is no int; a pydantic model decides that by its configuration
    is_json_schema: bool = False


def describe(annotation: Any, *, strict: bool) -> Described:
    """Let pydantic read a type."""
    name = getattr(annotation, "__name__", repr(annotation))
    sent, values = SentSchema(by_alias=True), ValueSchema(by_alias=False)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_prepared(annotation))
        core = adapter.core_schema
        sent_schema = sent.generate(core, mode="validation")
        value_schema = values.generate(core, mode="validation")
    except (PydanticUserError, PydanticSchemaGenerationError, NameError) as error:
        reason = str(error).split("\n\nFor further information")[0].strip()
        path = _culprit(annotation)
        raise wrong(
            path,
            f"pydantic cannot describe {name} as JSON: {reason} Use plain types (str, "
            "int, list, another model) there.",
        ) from error
    except RecursionError:
        raise SchemaError(f"$: {name} contains itself; write its levels out") from None
    validator = SchemaValidator(_strictly_json(core)) if strict else adapter.validator
    validate = validator.validate_json

    def strictly(text: str) -> Any:
        return validate(text, strict=True)

    undescribed = tuple(sent.undescribed)
    return Described(
        strictly if strict else validate, sent_schema, value_schema, undescribed, strict
    )


def _refused(words: str) -> dict[str, Any]:
    return {REFUSED: words}


class SentSchema(GenerateJsonSchema):
    """JSON Schema of what a type takes, with pydantic's unlisted constraints in words."""

    # Our own errors report what a model cannot follow; pydantic's warnings repeat it.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.by_aliases = options["by_alias"]
        self.undescribed: list[str] = []

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        if _function(schema) == "import_string":
            return _refused("ImportString imports what the model writes; use str")
        out: dict[str, Any] = super().generate_inner(schema)
        words = _remarks(schema)
        return {**out, REMARKS: [*out.get(REMARKS, []), *words]} if words else out

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return _refused(
            f"pydantic has no JSON form for it ({error_info}); use plain types (str, int, list, "
            "another model)"
        )

    def field_is_present(self, field: Any) -> bool:
        return field.get("init") is not False and super().field_is_present(field)

    def model_field_schema(self, schema: Any) -> dict[str, Any]:
        return self.misplaced(schema) or super().model_field_schema(schema)

    def typed_dict_field_schema(self, schema: Any) -> dict[str, Any]:
        return self.misplaced(schema) or super().typed_dict_field_schema(schema)

    def dataclass_field_schema(self, schema: Any) -> dict[str, Any]:
        if schema.get("init_only"):
            return _refused("an InitVar is not kept, so its column would be empty; make it "
                            "a field")  # fmt: skip
        return self.misplaced(schema) or super().dataclass_field_schema(schema)

    def misplaced(self, field: Mapping[str, Any]) -> dict[str, Any] | None:
        """Refuse a field that is not read from its alias."""
        alias = field.get("validation_alias")
        if alias is not None and not getattr(self._config, "validate_by_alias", True):
            return _refused("validate_by_alias=False, so its alias is never read; remove one")
        if isinstance(alias, list):
            paths = alias if isinstance(alias[0], list) else [alias]
            if not any(len(path) == 1 for path in paths):
                return _refused(
                    "an AliasPath reads a part of another field, which is not in the "
                    "request; use a plain alias, or a model for that field"
                )
        return None

    def bytes_schema(self, schema: Any) -> dict[str, Any]:
        return _refused("JSON has no bytes; use str")

    def json_schema(self, schema: Any) -> dict[str, Any]:
        return _refused("Json[...] is JSON written into a text; use the type inside of it")

    def enum_schema(self, schema: Any) -> dict[str, Any]:
        cls = schema["cls"]
        if issubclass(cls, enum.Flag):
            return _refused("a Flag may hold several members at once; use a list of an Enum")
        if odd := [m for m in cls if not isinstance(m.value, (str, int, float, types.NoneType))]:
            return _refused(f"{odd[0]!r} cannot be a choice; give text, numbers or true/false to "
                            "the members of the Enum")  # fmt: skip
        return super().enum_schema(schema)

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        """One JSON type for decimals; pydantic's two would make a column of text."""
        known = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}
        known |= {"lt": "exclusiveMaximum", "multiple_of": "multipleOf"}
        return {"type": "number", **{known[k]: float(v) for k, v in schema.items() if k in known}}

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        return super().function_plain_schema(schema) or _refused(
            f"the validator `{_function(schema)}` takes anything, and Gemini needs a type; give it "
            "json_schema_input_type=, or mode='before'"
        )

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return self.in_words(schema["cls"], super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return self.in_words(schema["cls"], super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        out = self.in_words(schema.get("cls"), super().typed_dict_schema(schema))
        if getattr(schema.get("cls"), "__fields_of_a_dict__", False):
            out["required"] = list(out["properties"])
        return out

    def in_words(self, cls: Any, out: dict[str, Any]) -> dict[str, Any]:
        """Describe fields by `Field` and `Annotated`, and by nothing else."""
        docs, properties = attribute_docs(cls), out.get("properties", {})
        for name, words in descriptions(cls).items():
            keys = aliases(cls, name) if self.by_aliases else []
            prop: dict[str, Any] = next(
                (properties[k] for k in [*keys, name] if k in properties), {}
            )
            if words:
                prop["description"] = words
            elif words is None:
                prop.pop("description", None)
            if name in docs and "description" not in prop and cls.__name__ not in self.undescribed:
                self.undescribed.append(cls.__name__)
        return out


class ValueSchema(SentSchema):
    """JSON Schema of the validated values: what validators are annotated to return."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open: list[Any] = []

    def field_is_required(self, field: Any, total: bool) -> bool:
        """A model and a dataclass have every field, if only as its default."""
        return field["type"] != "typed-dict-field" or super().field_is_required(field, total)

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        return GenerateJsonSchema.typed_dict_schema(self, schema)

    def function_after_schema(self, schema: Any) -> dict[str, Any]:
        return self.returned(schema, super().function_after_schema)

    def function_wrap_schema(self, schema: Any) -> dict[str, Any]:
        return self.returned(schema, lambda s: self.generate_inner(s["schema"]))

    def function_before_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        return self.returned(schema, super().function_plain_schema)

    def returned(self, schema: Any, inner: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The type that a validator is annotated to return, else that of its input."""
        function = schema["function"]["function"]
        if str(getattr(function, "__module__", "")).partition(".")[0] == "pydantic":
            return inner(schema)
        found, made = _return_annotation(function), _class_of(schema)
        same = isinstance(found, type) and isinstance(made, type) and issubclass(made, found)
        if found in (Any, object, Self) or isinstance(found, typing.TypeVar) or same:
            return {**inner(schema), VALIDATOR: _function(schema)}
        if found in self.open:
            if isinstance(function, type):
                return _refused(f"{found!r} has no plain JSON form; use str")
            return inner(schema)
        self.open.append(found)
        out = self.generate_inner(TypeAdapter(_prepared(found)).core_schema)
        self.open.remove(found)
        return {**out, VALIDATOR: _function(schema)}


# What a core schema says ------------------------------------------------------------------------
def _function(schema: Mapping[str, Any]) -> str:
    function = schema.get("function")
    function = function.get("function") if isinstance(function, Mapping) else None
    return str(getattr(function, "__name__", function or ""))


def _class_of(schema: Mapping[str, Any]) -> Any:
    while "cls" not in schema and isinstance(schema.get("schema"), Mapping):
        schema = schema["schema"]
    return schema.get("cls")


def _return_annotation(function: Any) -> Any:
    if isinstance(function, type):
        return function
    function = inspect.unwrap(getattr(function, "__func__", function))
    annotations = {"return": getattr(function, "__annotations__", {}).get("return", Any)}
    try:
        holder = types.SimpleNamespace(__annotations__=annotations)
        scope = getattr(function, "__globals__", {})
        return typing.get_type_hints(holder, scope, include_extras=True)["return"]
    except Exception:  # a name for type checkers only
        return Any


def _remarks(schema: Mapping[str, Any]) -> list[str]:
    """Constraints that pydantic applies but leaves out of its JSON Schema."""
    kind, out = schema["type"], []
    if kind in _TEMPORAL:
        named = {"ge": "not before", "gt": "after", "le": "not after", "lt": "before"}
        if kind == "timedelta":
            named = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        out += [f"{named[k]} {schema[k]}" for k in named if schema.get(k) is not None]
        if schema.get("now_op"):
            out.append(f"in the {schema['now_op']}")
        zone = schema.get("tz_constraint")
        if zone is not None:
            out.append("without an offset" if zone == "naive" else "with its offset, Z or -05:00")
    elif kind == "decimal":
        digits, places = schema.get("max_digits"), schema.get("decimal_places")
        out += [f"at most {digits} digits"] if digits is not None else []
        out += [f"at most {places} decimal places"] if places is not None else []
    elif kind == "url" and (schemes := schema.get("allowed_schemes")):
        out.append("begins with " + " or ".join(f"{s}://" for s in schemes))
    return out


def _strictly_json(core: Any) -> Any:
    """A core schema without conversions that pydantic's strict mode still allows: "2024" as a
    date of 1970, and true as a choice of 1."""
    if isinstance(core, (list, tuple)):
        return type(core)(_strictly_json(v) for v in core)
    if not isinstance(core, dict):
        return core
    opaque = ("metadata", "serialization", "config", "default", "expected", "members")
    out = {k: v if k in opaque else _strictly_json(v) for k, v in core.items()}
    if isinstance(fields := core.get("fields"), dict):
        out["fields"] = {name: _strictly_json(field) for name, field in fields.items()}
    kind, read = out.get("type"), None
    if kind in ("date", "datetime"):
        parse: Any = to_date if kind == "date" else to_datetime
        read = lambda v: parse(v) if isinstance(v, str) else v  # noqa: E731
    elif kind in ("literal", "enum") and "_missing_" not in vars(out.get("cls", object)):
        known = {scalar_key(getattr(v, "value", v)) for v in _choices(out)}
        read = lambda v: _known(v, known) if isinstance(v, (bool, int, float)) else v  # noqa: E731
    if read is None:
        return out
    # Others may refer to it.
    return core_schema.no_info_before_validator_function(read, out, ref=out.pop("ref", None))


def _choices(core: Mapping[str, Any]) -> list[Any]:
    return list(core["expected"] if core["type"] == "literal" else core["members"])


def _known(value: Any, known: set[Any]) -> Any:
    if scalar_key(value) not in known:
        raise ValueError("is none of the choices")
    return value


def typed_dict(name: str, fields: dict[str, Any]) -> Any:
    return TypedDict(name, fields)  # type: ignore[operator]


# What a class says ------------------------------------------------------------------------------
def _prepared(annotation: Any) -> Any:
    """A type with texts in `Annotated` as descriptions, and TypedDicts that pydantic accepts.

    Before Python 3.12 it takes those of `typing_extensions` alone.
    """
    if is_typeddict(annotation):
        fields = {}
        for name, hint in hints(annotation).items():
            # `__required_keys__` does not see through annotations that are strings.
            is_required = name in annotation.__required_keys__
            while (origin := get_origin(hint)) in (NotRequired, Required):
                is_required, hint = origin is Required, get_args(hint)[0]
            fields[name] = _prepared(hint) if is_required else NotRequired[_prepared(hint)]
        made = typed_dict(annotation.__name__, fields)
        made.__doc__, made.__module__ = annotation.__doc__, annotation.__module__
        config = dict(getattr(annotation, "__pydantic_config__", {}))
        config.pop("use_attribute_docstrings", None)
        if config:
            made.__pydantic_config__ = config
        made.__documented__ = annotation
        made.__fields_of_a_dict__ = getattr(annotation, "__fields_of_a_dict__", False)
        return made
    args, origin = get_args(annotation), get_origin(annotation)
    if not args or origin is typing.Literal:
        return annotation
    if origin is Annotated:
        words = " ".join(m for m in args[1:] if isinstance(m, str))
        rest = [m for m in args[1:] if not isinstance(m, str)]
        rest += [Field(description=words)] if words else []
        return Annotated[(_prepared(args[0]), *rest)]
    inner = tuple(_prepared(a) if not isinstance(a, list) else a for a in args)
    if inner == args:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return typing.Union[inner]  # noqa: UP007
    return origin[inner] if origin is not None else annotation


def _culprit(cls: Any) -> str:
    """Path of the first field that pydantic cannot describe."""
    for name, annotation in hints(cls).items():
        try:
            TypeAdapter(annotation).json_schema()
        except Exception:
            return f"$.{name}"
    return "$"
