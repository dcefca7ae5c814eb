"""Which forms `schema=` takes, what is told to the model, and how the rest is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import importlib.util
import inspect
import json
import pickle
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel, field_validator

from nyu_llm_frames._stages.schema.schema import compile_schema
from nyu_llm_frames.errors import SchemaError


class Kind(enum.Enum):
    VIOLENT = "violent"
    DRUG = "drug"


class Charge(BaseModel):
    """A charge."""

    statute: str
    """The statute, as cited"""
    months: int | None = Field(None, ge=0, description="Sentence in months")


class Case(BaseModel):
    kind: Kind
    charges: list[Charge]
    decided: dt.date
    heard: dt.datetime | None = None
    verdict: Literal["guilty", "not guilty"]


@dataclasses.dataclass
class CaseData:
    """A case."""

    kind: Literal["violent", "drug"]
    """What it was"""
    months: int | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class ChargeDict(TypedDict):
    statute: Annotated[str, "The statute"]
    months: NotRequired[int]


class CaseDict(TypedDict):
    charges: list[ChargeDict]
    """All of them"""
    weapon: bool


class MayLack(TypedDict):
    a: int
    b: NotRequired[int]


class MustHave(TypedDict):
    a: int
    b: int


def dtypes(schema: Any) -> dict[str, str]:
    return {f.name: f.dtype for f in compile_schema(schema).fields}


def refused(schema: Any) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    return caught.value


def one(schema: Any, **answer: Any) -> str | None:
    return compile_schema(schema).read([json.dumps(answer)]).errors[0]


def test_dict_of_types_gives_the_promised_dtypes_in_declared_order() -> None:
    schema = {
        "drug": str,
        "weapon": bool,
        "months": int | None,
        "score": float,
        "kind": ["violent", "drug", "other"],
        "day": dt.date,
        "at": Optional[dt.datetime],  # noqa: UP045 - the spelling of older code
        "tags": list[str],
        "people": [{"name": str, "age": int | None}],
        "place": {"city": str},
        "grade": Literal[1, 2, 3],
        "enum": Kind,
    }
    got = dtypes(schema)
    assert list(got) == list(schema)
    assert list(got.values()) == [
        "string",
        "boolean",
        "Int64",
        "Float64",
        "category",
        "datetime64[us]",
        "datetime64[us]",
        "list<item: string>[pyarrow]",
        "list<item: struct<name: string, age: int64>>[pyarrow]",
        "struct<city: string>[pyarrow]",
        "category",
        "category",
    ]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"a": "str"}, 'write str without quotation marks, in JSON {"type": "string"}'),
        ({"a": "yes"}, "write its type, or ['yes', ...] for choices"),
        (["yes", "no"], "is a list, without a name for its column"),
    ],
)
def test_a_schema_that_is_nearly_one_says_what_to_write(schema: Any, said: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(said)):
        compile_schema(schema)


@pytest.mark.parametrize("schema", [Case, CaseData, CaseDict])
def test_classes_become_fields(schema: type) -> None:
    names = [f.name for f in compile_schema(schema).fields]
    assert names == list(schema.__annotations__)


def test_json_schema_of_a_model_gives_the_same_columns_and_wire_as_the_model() -> None:
    plain = json.loads(json.dumps(Case.model_json_schema()))
    assert dtypes(plain) == dtypes(Case)
    assert compile_schema(plain).wire["propertyOrdering"] == list(Case.model_fields)


def test_descriptions_that_the_class_carries_reach_the_model() -> None:
    wire = compile_schema(Case).wire["properties"]["charges"]["items"]
    assert wire["description"] == "A charge."
    assert wire["properties"]["months"]["description"] == "Sentence in months"
    typed = compile_schema(CaseDict).wire["properties"]["charges"]
    assert typed["items"]["properties"]["statute"]["description"] == "The statute"
    fields = compile_schema({"drug": Annotated[str, "As written"]}).wire["properties"]
    assert fields["drug"]["description"] == "As written"


SOURCES = {
    "model": """
class X(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=DOCS)
    a: int
    'below'
    b: Annotated[int, "words"]
    'below'
    c: int = Field(description="field", alias="see")
    'below'
""",
    "pydantic dataclass": """
@pydantic.dataclasses.dataclass(config=ConfigDict(use_attribute_docstrings=DOCS))
class X:
    a: int
    'below'
    b: Annotated[int, "words"]
    'below'
    c: int = Field(description="field", alias="see")
    'below'
""",
    "dataclass": """
@dataclasses.dataclass
class X:
    __pydantic_config__ = ConfigDict(use_attribute_docstrings=DOCS)
    a: int
    'below'
    b: Annotated[int, "words"]
    'below'
    c: int = Field(description="field", alias="see")
    'below'
    d: str = "a default"
""",
    "TypedDict": """
class X(TypedDict):
    __pydantic_config__ = ConfigDict(use_attribute_docstrings=DOCS)
    a: int
    'below'
    b: Annotated[int, "words"]
    'below'
    see: Annotated[int, Field(description="field")]
    'below'
""",
}


def test_no_source_is_searched_for_the_class_of_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "getsource", lambda cls: pytest.fail(f"searched {cls}"))
    compile_schema({"drug": str, "more": {"x": int}, "names": [{"x": int}]})


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("docs", [True, False])
def test_what_only_a_source_file_says_is_left_out_and_a_note_says_so(
    kind: str, docs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # as in a kernel
    head = (
        "import dataclasses, pydantic.dataclasses\n"
        "from typing import Annotated\nfrom typing_extensions import TypedDict\n"
        "from pydantic import BaseModel, ConfigDict, Field\n"
    )
    source = head + SOURCES[kind].replace("DOCS", str(docs))
    path = tmp_path / "script.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["script"] = module
    spec.loader.exec_module(module)
    typed_in: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), typed_in)
    in_file, in_kernel = compile_schema(module.X), compile_schema(typed_in["X"])
    del sys.modules["script"]
    assert in_file.wire == in_kernel.wire
    assert "below" not in json.dumps(in_file.wire)
    properties = in_file.wire["properties"]
    described = {n: p.get("description") for n, p in properties.items() if n != "d"}
    assert properties.get("d", {"type": "string"}) == {"type": "string"}
    assert described == {"a": None, "b": "words", "see": "field"}
    assert len(in_file.notes) == 1
    assert "Annotated" in in_file.notes[0]
    assert not in_kernel.notes


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["violent", "drug"]},
        {"type": str},
        {"properties": ["house", "land"]},
        {"properties": {"house": str}},
        {"enum": ["a", "b"]},
        {"items": [str]},
    ],
)
def test_dict_with_a_field_named_like_a_keyword_is_a_dict_of_fields(schema: Any) -> None:
    assert [f.name for f in compile_schema(schema).fields] == list(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"type": "string"}}},
        {"type": ["object", "null"], "properties": {"a": {"enum": ["x"]}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"type": "string"}}}}},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
    ],
)
def test_json_schemas_are_recognised(schema: Any) -> None:
    assert [f.name for f in compile_schema(schema).fields] == ["a"]


@pytest.mark.parametrize(
    ("schema", "path", "hint"),
    [
        (int, "$", "dataclass"),
        ("text", "$", "dataclass"),
        (list[Charge], "$", "items"),
        (RootModel[list[int]], "$", "items"),
        ({}, "$", "at least one"),
        ({"a": {}}, "$.a", "at least one"),
        ({"a": Any}, "$.a", "list[str]"),
        ({"a": list}, "$.a[]", "list[str]"),
        ({"a": dict[str, int]}, "$.a", "`key` and `value`"),
        ({"a": {1, 2}}, "$.a", "as a list"),
        ({"a": []}, "$.a", "[str]"),
        ({"a": [str, "x"]}, "$.a", "[str]"),
        ({"a": "str"}, "$.a", "without quotation marks"),
        ({"a": None}, "$.a", "always null"),
        ({"a": [True, 1]}, "$.a", "use words"),
        ({"a b": str}, "$.a b", "alias"),
        ({"x": {"größe": str}}, "$.x.größe", "alias"),
        ({"2x": str}, "$.2x", "alias"),
        ({"additionalProperties": str}, "$.additionalProperties", "rename"),
        ({"type": "object", "properties": {"a": str}}, "$.a", "Python types throughout"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}}, "$.a", "define it"),
        ({"type": "object", "properties": {"a": {"$ref": "b.json"}}}, "$.a", "$defs"),
        ({"type": "object", "required": ["b"], "properties": {"a": {"enum": [1]}}}, "$", "add it"),
        (
            {"properties": {"a": {"allOf": [{"type": "string"}, {"type": "integer"}]}}},
            "$.a",
            "no value is both",
        ),
        ({"properties": {"a": {"type": "integer", "minimum": "3"}}}, "$.a", "minimum: "),
        ({"properties": {"a": {"type": "string"}}, "required": True}, "$", "required: "),
        (
            {"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}},
            "$.a",
            "no number",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_with_path_and_way_out(
    schema: Any, path: str, hint: str
) -> None:
    error = refused(schema)
    assert error.path == path
    assert hint in str(error)
    assert pickle.loads(pickle.dumps(error)).path == path


class Tree(BaseModel):
    name: str
    kids: list[Tree]


def test_recursion_is_refused_with_path_and_way_out() -> None:
    error = refused(Tree)
    assert error.path == "$.kids[]"
    assert "fixed depth" in str(error)
    schema = {
        "definitions": {"N": {"properties": {"next": {"$ref": "#/definitions/N"}}}},
        "$ref": "#/definitions/N",
    }
    assert refused(schema).path == "$.next"


def test_instance_in_place_of_a_class_is_named() -> None:
    assert "class Charge itself" in str(refused(Charge(statute="x", months=1)))


def test_type_without_json_form_is_refused_at_its_field() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        fine: int
        odd: Lock

    assert refused(Odd).path == "$.odd"


class Lock:
    """A type that JSON does not have."""


def test_alias_goes_over_the_wire_and_the_column_has_the_field_name() -> None:
    class Aliased(BaseModel):
        class_: str = Field(alias="offenseClass")

    schema = compile_schema(Aliased)
    assert list(schema.wire["properties"]) == ["offenseClass"]
    columns = schema.read(['{"offenseClass": "A"}', '{"class_": "A"}'])
    assert list(columns.fields["class_"]) == ["A", columns.fields["class_"].dtype.na_value]
    assert columns.errors == [None, "field `offenseClass`: is missing"]


class Cat(BaseModel):
    pet_type: Literal["cat"]
    meows: int


class Dog(BaseModel):
    pet_type: Literal["dog"]
    barks: float


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="pet_type")
    anything: int | str = 0
    price: Decimal = Decimal("1.5")
    at: AwareDatetime | None = None
    pair: tuple[int, int] | None = None


def test_discriminated_union_becomes_one_struct() -> None:
    schema = compile_schema(Owner)
    texts = [
        '{"pet": {"pet_type": "dog", "barks": 2}, "anything": "x", "price": 2.25}',
        '{"pet": {"pet_type": "cat", "meows": 3}, "anything": 7, "pair": [1, 2]}',
        '{"pet": {"pet_type": "fish"}}',
        '{"pet": {"pet_type": "cat", "barks": 3}}',
    ]
    columns = schema.read(texts)
    assert [e is None for e in columns.errors] == [True, True, False, False]
    assert "`pet" in str(columns.errors[2])
    assert columns.fields["pet"][0] == {"pet_type": "dog", "meows": None, "barks": 2.0}
    assert list(columns.fields["anything"])[:2] == ["x", "7"]
    assert list(columns.fields["price"])[:2] == [2.25, 1.5]
    assert columns.fields["pair"][1] == [1, 2]


def test_validators_of_the_model_decide() -> None:
    class Checked(BaseModel):
        months: int

        @field_validator("months")
        @classmethod
        def whole_years(cls, value: int) -> int:
            if value % 12:
                raise ValueError("not whole years")
            return value // 12

    schema = compile_schema(Checked)
    columns = schema.read(['{"months": 24}', '{"months": 25}'])
    assert columns.fields["months"][0] == 2
    assert "not whole years" in str(columns.errors[1])


def test_validator_that_crashes_is_an_error_of_its_row() -> None:
    class Crashing(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def crash(cls, value: str) -> str:
            return {"known": "yes"}[value]

    columns = compile_schema(Crashing).read(['{"name": "known"}', '{"name": "other"}'])
    assert columns.errors[0] is None
    assert "KeyError" in str(columns.errors[1])


def test_extra_fields_follow_the_schema() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int

    assert one({"a": int}, a=1, b=2) is None
    assert "`b`" in str(one(Strict, a=1, b=2))
    closed = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert one(closed, a=1, b=2) is None
    assert "'b'" in str(one({**closed, "additionalProperties": False}, a=1, b=2))


@pytest.mark.parametrize(
    ("schema", "valid_without"),
    [
        ({"a": int, "b": int | None}, True),
        (MayLack, True),
        (MustHave, False),
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}, True),
        ({"properties": {"b": {"type": "integer"}}, "required": ["b"]}, False),
    ],
)
def test_absent_field_is_missing_or_an_error_as_the_schema_says(
    schema: Any, valid_without: bool
) -> None:
    columns = compile_schema(schema).read(['{"a": 1}'])
    assert (columns.errors == [None]) is valid_without
    assert columns.fields["b"].isna().tolist() == [True]


def test_default_of_a_model_is_filled_in_and_that_of_a_json_schema_is_not() -> None:
    class Defaulted(BaseModel):
        a: int = 5

    assert compile_schema(Defaulted).read(["{}"]).fields["a"][0] == 5
    plain = {"properties": {"a": {"type": "integer", "default": 5}}}
    assert compile_schema(plain).read(["{}"]).fields["a"].isna().tolist() == [True]


@pytest.mark.parametrize("text", ['{"a": 5}', '{"a": 5.0}', '{"a": 5e0}'])
def test_whole_numbers_are_integers_however_written(text: str) -> None:
    assert compile_schema({"a": int}).read([text]).fields["a"][0] == 5


@pytest.mark.parametrize("value", ["5", True, 5.5, None, [5], 2**63, float("inf"), float("nan")])
@pytest.mark.parametrize("form", ["fields", "dataclass", "json schema"])
def test_what_is_no_integer_is_invalid(value: Any, form: str) -> None:
    schema: Any = {"a": int}
    if form == "dataclass":
        schema = dataclasses.make_dataclass("A", [("a", int)])
    if form == "json schema":
        schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    columns = compile_schema(schema).read([json.dumps({"a": value})])
    assert columns.errors[0] is not None
    assert columns.fields["a"].isna().tolist() == [True]


def test_response_format_has_a_fixed_name_and_holds_the_wire() -> None:
    schema = compile_schema(Case)
    assert schema.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema.wire},
    }
    json.dumps(schema.source)


def test_validators_are_imported_when_there_is_a_schema() -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import nyu_llm_frames._stages.schema.schema\n"
        "sys.exit(bool({'pydantic', 'jsonschema_rs'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
