"""A type is refused by name, or every value that it validates stands in its column."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Self

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ImportString,
    Json,
    PlainValidator,
    RootModel,
    Secret,
    SecretStr,
    TypeAdapter,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema, to_jsonable_python
from typing_extensions import TypedDict

from nyu_llm_frames._stages.schema.reader import Columns
from nyu_llm_frames._stages.schema.schema import compile_schema
from nyu_llm_frames.errors import SchemaError


class Grade(enum.Enum):
    UNKNOWN = None
    LOW = "low"
    HIGH = "high"


class Level(enum.IntEnum):
    ONE = 1
    FIVE = 5


class Point(NamedTuple):
    x: int
    y: int = 0


class Count(RootModel[int]):
    pass


def to_text(value: Any) -> str:
    return f"{value}!"


def to_year(value: str) -> int:
    return int(value[:4])


def wrapped(value: Any, handler: Callable[[Any], Any]) -> Any:
    return handler(value)


# A type, and JSON values of it.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-9, 9)
DATE = st.dates().map(dt.date.isoformat)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, INT64),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (str, TEXT),
    (dt.date, DATE),
    (dt.datetime, st.datetimes().map(dt.datetime.isoformat)),
    (AwareDatetime, st.datetimes(dt.datetime(2, 1, 1)).map(lambda d: d.isoformat() + "+05:00")),
    (dt.time, st.times().map(dt.time.isoformat)),
    (dt.timedelta, st.timedeltas(max_value=dt.timedelta(99)).map(to_jsonable_python)),
    (uuid.UUID, st.uuids().map(str)),
    (ipaddress.IPv4Address, st.ip_addresses(v=4).map(str)),
    (Decimal, st.decimals(-999, 999, places=3).map(float)),
    (Annotated[Decimal, Field(decimal_places=2, max_digits=5)], st.sampled_from([1.25, 7, "1.5"])),
    (Literal["a", 1, 2.5, None], st.sampled_from(["a", 1, 2.5, None])),
    (Grade, st.sampled_from([None, "low", "high"])),
    (Level, st.sampled_from([1, 5])),
    (Point, st.tuples(SMALL, SMALL)),
    (Count, SMALL),
    (SecretStr, TEXT),
    (Secret[dt.date], DATE),
    (tuple[int, int, int, int], st.tuples(SMALL, SMALL, SMALL, SMALL)),
    (set[str], st.lists(TEXT, max_size=3)),
    (frozenset[int], st.lists(SMALL, max_size=3)),
    (Annotated[int, AfterValidator(to_text)], SMALL),
    (Annotated[str, AfterValidator(to_year)], DATE),
    (Annotated[int, WrapValidator(wrapped)], SMALL),
    (Annotated[int, BeforeValidator(lambda v: v)], SMALL),
    (Annotated[str, PlainValidator(to_year, json_schema_input_type=str)], DATE),
]


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda p: (list[p[0]], st.lists(p[1], max_size=2))),
        inner.map(lambda p: (tuple[p[0], ...], st.lists(p[1], max_size=2))),
        inner.map(lambda p: (p[0] | None, st.none() | p[1])),
        inner.map(lambda p: (RootModel[p[0]], p[1])),
        st.tuples(objects(inner), objects(inner)).map(
            lambda p: (p[0][0] | p[1][0], p[0][1] | p[1][1])
        ),
        objects(inner),
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> tuple[Any, st.SearchStrategy[Any]]:
    """An object type of one of the forms, with fields that may be left out."""
    fields = draw(st.dictionaries(st.sampled_from("pqrs"), inner, min_size=1, max_size=3))
    late = set(draw(st.lists(st.sampled_from(sorted(fields)), unique=True)))
    form = draw(st.sampled_from(["model", "alias", "dataclass", "typed dict"]))
    ordered = {n: fields[n][0] for n in sorted(fields, key=lambda n: (n in late, n))}
    keys = {n: f"{n}_" if form == "alias" else n for n in fields}
    kind: Any
    if form == "dataclass":
        kind = dataclasses.make_dataclass(
            "D", [(n, t | None, None) if n in late else (n, t) for n, t in ordered.items()]
        )
    elif form == "typed dict":
        made = {n: NotRequired[t] if n in late else t for n, t in ordered.items()}
        kind = TypedDict("T", made)  # type: ignore[misc]
    else:
        made = {
            n: (t | None, Field(None, alias=keys[n])) if n in late else (t, Field(alias=keys[n]))
            for n, t in ordered.items()
        }
        kind = create_model("M", **made)
    values = st.fixed_dictionaries(
        {keys[n]: fields[n][1] for n in fields if n not in late},
        optional={keys[n]: fields[n][1] for n in late},
    )
    return kind, values


FIELD = st.recursive(st.sampled_from(LEAVES), grown, max_leaves=4)


def plain(value: Any) -> Any:
    """A validated value, or one of a column, in the terms of a column."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, RootModel):
        return plain(value.root)
    if isinstance(value, Secret | SecretStr):
        return plain(value.get_secret_value())
    if isinstance(value, BaseModel):
        return {n: plain(getattr(value, n)) for n in type(value).model_fields}
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(v) for v in value), key=json.dumps)
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return value.isoformat()
    if isinstance(value, dt.date):
        return value.isoformat() + "T00:00:00"
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, ipaddress.IPv4Address):
        return str(value)
    return value if isinstance(value, (str, int, float)) else to_jsonable_python(value)


def same(validated: Any, stored: Any) -> bool:
    """Equality, but for fields that may be left out, and are null in a column of objects."""
    if isinstance(validated, dict) and isinstance(stored, dict):
        absent = all(stored[k] is None for k in stored.keys() - validated.keys())
        return absent and all(same(v, stored[k]) for k, v in validated.items())
    if isinstance(validated, list) and isinstance(stored, list):
        return len(validated) == len(stored) and all(map(same, validated, stored))
    if isinstance(validated, str) != isinstance(stored, str):  # a union of kinds is JSON in text
        return isinstance(stored, str) and bool(same(validated, plain(json.loads(stored))))
    return bool(validated == stored) or (isinstance(stored, str) and moment(validated, stored))


def moment(validated: str, stored: str) -> bool:
    """Whether a time that a text of JSON holds as it was is the same in UTC."""
    try:
        times = [dt.datetime.fromisoformat(t) for t in (validated, stored)]
    except ValueError:
        return False
    return len({t.astimezone(dt.UTC) if t.tzinfo else t.replace(tzinfo=dt.UTC) for t in times}) == 1


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["model", "fields"]))
def test_what_a_type_validates_stands_in_its_column(data: st.DataObject, form: str) -> None:
    kind, values = data.draw(FIELD)
    model = create_model("Answer", x=(kind, ...))
    schema = compile_schema(model if form == "model" else {"x": kind})
    answers = [json.dumps({"x": v}) for v in data.draw(st.lists(values, max_size=3))]
    columns = schema.read(answers)
    for i, answer in enumerate(answers):
        validated = TypeAdapter(model).validate_json(answer)
        assert columns.errors[i] is None
        assert same(plain(validated.x), plain(columns.fields["x"][i]))


# Refused ----------------------------------------------------------------------------------------
class Bits(enum.Flag):
    A = 1
    B = 2


class Prices(enum.Enum):
    LOW = Decimal("1.5")


@dataclasses.dataclass
class WithInitVar:
    a: int
    b: dataclasses.InitVar[int]


class Struct(msgspec.Struct):
    a: int


class FromPart(BaseModel):
    a: int = Field(validation_alias=AliasPath("p", 0))


class FromName(BaseModel):
    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)
    a: int = Field(alias="b")


class Odd:
    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


@pytest.mark.parametrize(
    ("schema", "path", "hint"),
    [
        ({"a": {"x": Json[list[int]]}}, "$.a.x", "the type inside"),
        ({"a": list[ImportString]}, "$.a[]", "use str"),  # type: ignore[type-arg]
        ({"a": bytes | None}, "$.a", "use str"),
        ({"a": Bits}, "$.a", "list of an Enum"),
        ({"a": Prices}, "$.a", "text, numbers"),
        (WithInitVar, "$.b", "make it a field"),
        ({"x": list[WithInitVar]}, "$.x[].b", "make it a field"),
        (FromPart, "$.a", "plain alias"),
        (FromName, "$.b", "remove one"),
        ({"a": Callable}, "$.a", "plain types"),
        ({"a": Annotated[int, PlainValidator(lambda v: v)]}, "$.a", "json_schema_input_type="),
        ({"a": Odd}, "$.a", "use str"),
        ({"a": Struct}, "$.a", "plain types"),
        ({"a": np.array([])}, "$.a", "list of choices"),
        ({"a": pd.to_datetime(["2020-01-01"])}, "$.a", "cannot be a choice"),
        ({"a": pd.Series([None]).unique()}, "$.a", "no choice but null"),
    ],
)
def test_what_no_column_can_hold_is_refused_with_what_works(
    schema: Any, path: str, hint: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    assert caught.value.path == path
    assert hint in str(caught.value)


# Validators -------------------------------------------------------------------------------------
class Place(BaseModel):
    city: str


class Returning(BaseModel):
    place: Place = Place(city="")
    months: int = 0

    @field_validator("place")
    @classmethod
    def city_alone(cls, value: Place):  # type: ignore[no-untyped-def]
        return value.city

    @field_validator("months")
    @classmethod
    def forgets(cls, value: int):  # type: ignore[no-untyped-def]
        pass


class Annotated_(BaseModel):
    place: Place

    @field_validator("place")
    @classmethod
    def city_alone(cls, value: Place) -> str:
        return value.city

    @model_validator(mode="after")
    def itself(self) -> Self:
        return self


class Emptied(BaseModel):
    months: int

    @model_validator(mode="after")
    def empties(self) -> Self:
        self.months = None  # type: ignore[assignment]
        return self


class Another(BaseModel):
    months: int | None = None

    @model_validator(mode="wrap")
    @classmethod
    def another(cls, value: Any, handler: Any) -> Any:
        return {"unknown": handler(value)}


class Number(BaseModel):
    months: int

    @model_validator(mode="after")
    def number(self) -> Any:
        return 5


class Cat(BaseModel):
    kind: Literal["cat"]
    meows: int

    @field_validator("meows")
    @classmethod
    def forgets_too(cls, value: int):  # type: ignore[no-untyped-def]
        pass


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: float | None = None


def read(schema: Any, *answers: Any) -> Columns:
    return compile_schema(schema).read([json.dumps(a) for a in answers])


@pytest.mark.parametrize(
    ("schema", "answer", "validator"),
    [
        (Returning, {"place": {"city": "x"}}, "city_alone"),
        (Returning, {"months": 1}, "forgets"),
        (Emptied, {"months": 1}, "empties"),
        (Another, {"months": 1}, "another"),
        (Number, {"months": 1}, "number"),
        ({"in_it": Number}, {"in_it": {"months": 1}}, "number"),
        ({"pet": Cat | Dog}, {"pet": {"kind": "cat", "meows": 1}}, "forgets_too"),
    ],
)
def test_a_validator_that_returns_what_does_not_fit_is_named(
    schema: Any, answer: Any, validator: str
) -> None:
    columns = read(schema, answer)
    assert f"`{validator}`" in str(columns.errors[0])
    assert all(array.isna().all() for array in columns.fields.values())


def test_the_return_annotation_of_a_validator_decides_its_column() -> None:
    columns = read(Annotated_, {"place": {"city": "x"}})
    assert columns.errors == [None]
    assert columns.fields["place"].tolist() == ["x"]
    assert compile_schema(Annotated_).wire["properties"]["place"]["type"] == "object"


# What is sent -----------------------------------------------------------------------------------
def sent(kind: Any) -> dict[str, Any]:
    out: dict[str, Any] = compile_schema({"x": kind}).wire["properties"]["x"]
    return out


def test_what_is_held_to_is_also_sent() -> None:
    price = Annotated[Decimal, Field(decimal_places=2, max_digits=5, multiple_of=Decimal("0.5"))]
    assert "at most 2 decimal places" in sent(price)["description"]
    assert "at most 5 digits" in sent(price)["description"]
    assert "a multiple of 0.5" in sent(price)["description"]
    assert "offset" in sent(AwareDatetime)["description"]
    late = Annotated[dt.date, Field(ge=dt.date(2020, 1, 1))]
    assert "not before 2020-01-01" in sent(late)["description"]
    assert sent(tuple[int, int])["items"] == {"type": "integer"}
    one_of = create_model(
        "C", a=(int, Field(validation_alias=AliasChoices(AliasPath("p", 1), "q")))
    )
    assert list(compile_schema(one_of).wire["properties"]) == ["q"]


COLUMN = pd.Series(["a", "b", None, "a"])


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (COLUMN.unique(), ["a", "b"]),
        (COLUMN.astype("string").unique(), ["a", "b"]),
        (COLUMN.astype("category").unique(), ["a", "b"]),
        (COLUMN.astype("category").cat.categories, ["a", "b"]),
        (COLUMN.dropna(), ["a", "b", "a"]),
        (pd.Series([3.0, None, 1.5]).unique(), [3, 1.5]),
        (np.array([3, 1]), [3, 1]),
        (list(np.array([3, 1])), [3, 1]),
        (np.array([True, False]), [True, False]),
        (range(1, 4), [1, 2, 3]),
        ({"a": 1, "b": 2}.keys(), ["a", "b"]),
        ([Level.FIVE, Level.ONE], [5, 1]),
    ],
)
def test_choices_come_from_pandas_numpy_and_ranges(choices: Any, expected: list[Any]) -> None:
    schema = compile_schema({"kind": choices})
    columns = schema.read([json.dumps({"kind": c}) for c in expected])
    assert columns.errors == [None] * len(expected)
    assert columns.fields["kind"].tolist() == expected
    assert list(columns.fields["kind"].categories) == list(dict.fromkeys(expected))
    nulls = [None] if any(map(pd.isna, choices)) else []
    assert schema.wire == compile_schema({"kind": [*dict.fromkeys(expected), *nulls]}).wire
    wrong = [c for c in ("x", 99, 1, True) if not any(c is e for e in expected)]
    wrong = [c for c in wrong if type(c) is not int or c not in expected]
    assert None not in schema.read([json.dumps({"kind": c}) for c in wrong]).errors
