"""From answer texts to typed columns: nothing lost, nothing guessed, no row fails another."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from nyu_llm_frames._stages.schema.json_in_text import find_object
from nyu_llm_frames._stages.schema.reader import CHUNK_ROWS
from nyu_llm_frames._stages.schema.schema import compile_schema

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
CHOICES = ["violent", "drug", "", "größer"]


class Person(BaseModel):
    name: str = Field(min_length=1)
    age: int | None = Field(None, ge=0, le=150)


class Answer(BaseModel):
    drug: str
    weapon: bool
    months: int | None = None
    score: float
    kind: Literal["violent", "drug"]
    grade: Literal[1, 2, 5]
    day: dt.date
    at: dt.datetime | None = None
    tags: list[str]
    people: list[Person]
    first: Person | None = None
    depth: list[list[int | None]] = Field(max_length=3)
    closed: bool = True


FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "drug": (str, TEXT),
    "weapon": (bool, st.booleans()),
    "months": (int | None, st.none() | INT64),
    "score": (float, FLOATS),
    "kind": (CHOICES, st.sampled_from(CHOICES)),
    "grade": ([1, 2.5, 7], st.sampled_from([1, 2.5, 7])),
    "mixed": (["a", 1, None], st.sampled_from(["a", 1, None])),
    "day": (dt.date, st.dates().map(dt.date.isoformat)),
    "at": (dt.datetime | None, st.none() | st.datetimes().map(dt.datetime.isoformat)),
    "tags": (list[str], st.lists(TEXT, max_size=3)),
    "place": (
        {"city": str, "zip": int | None},
        st.fixed_dictionaries({"city": TEXT, "zip": st.none() | INT64}),
    ),
    "people": (
        [{"name": str, "kinds": list[Literal["a", "b"]]}],
        st.lists(
            st.fixed_dictionaries(
                {"name": TEXT, "kinds": st.lists(st.sampled_from("ab"), max_size=2)}
            ),
            max_size=2,
        ),
    ),
    "nested": (list[list[int]], st.lists(st.lists(INT64, max_size=2), max_size=2)),
}


def back(kind: str, value: Any) -> Any:
    """A value of a column as the JSON value that it came from."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    if kind == "date":
        return value.date().isoformat()
    if kind == "datetime":
        return value.to_pydatetime().isoformat()
    return value


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_value_to_text_to_column_to_value_is_the_identity(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(FIELDS)), unique=True, min_size=1))
    schema = compile_schema({n: FIELDS[n][0] for n in names})
    row = st.fixed_dictionaries({n: FIELDS[n][1] for n in names})
    rows = data.draw(st.lists(st.none() | row, max_size=5))
    columns = schema.read([None if r is None else json.dumps(r) for r in rows])
    assert columns.errors == [None] * len(rows)
    assert columns.recovered == 0
    for field in schema.fields:
        array = columns.fields[field.name]
        assert str(array.dtype) == field.dtype
        want = [None if r is None else r[field.name] for r in rows]
        assert [back(field.kind, v) for v in array] == want


@st.composite
def answers(draw: st.DrawFn) -> str:
    """Texts of `Answer`, most of them a little wrong."""
    person = st.fixed_dictionaries(
        {"name": TEXT}, optional={"age": st.none() | st.integers(-1, 151), "x": TEXT}
    )
    junk: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers() | FLOATS | TEXT | st.just([]) | st.just({})
    )
    values: dict[str, st.SearchStrategy[Any]] = {
        "drug": TEXT,
        "weapon": st.booleans(),
        "months": st.none() | st.integers(-(2**64), 2**64) | st.just(3.0),
        "score": FLOATS | st.integers(-9, 9),
        "kind": st.sampled_from(["violent", "drug", "other"]),
        "grade": st.sampled_from([1, 2, 5, 2.0, 3, "1"]),
        "day": st.dates().map(str) | st.just("2024-05-31T00:00:00"),
        "at": st.datetimes().map(str)
        | st.sampled_from(["2024-05-31T14:30Z", "2024-05-31T14:30:00-04:00", "2024-05-31", "x"]),
        "tags": st.lists(TEXT, max_size=2),
        "people": st.lists(person, max_size=2),
        "first": st.none() | person,
        "depth": st.lists(st.lists(st.none() | INT64, max_size=2), max_size=4),
        "closed": st.booleans(),
    }
    out = {name: draw(strategy) for name, strategy in values.items()}
    for name in draw(st.lists(st.sampled_from(list(values)), max_size=2)):
        if draw(st.booleans()):
            out[name] = draw(junk)
        else:
            out.pop(name, None)
    text = json.dumps(out)
    return draw(st.sampled_from([text, f"```json\n{text}\n```", f"So: {text}", text[:-1]]))


PYDANTIC = compile_schema(Answer)


@settings(max_examples=150, deadline=None)
@given(answers())
def test_verdict_on_a_model_is_that_of_pydantic(text: str) -> None:
    try:
        model: Answer | None = Answer.model_validate_json(text)
    except ValueError:
        model = None
    columns = PYDANTIC.read([text])
    if model is not None and (model.months is None or abs(model.months) < 2**63):
        assert columns.errors == [None]
        assert columns.fields["drug"][0] == model.drug
        assert columns.fields["day"][0] == pd.Timestamp(model.day)
    elif not text.startswith(("`", "S")):
        assert columns.errors != [None]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | TEXT | st.text() | answers(), max_size=4))
def test_no_text_crashes_and_each_row_stands_alone(texts: list[str | None]) -> None:
    together = PYDANTIC.read(texts)
    for i, text in enumerate(texts):
        alone = PYDANTIC.read([text])
        assert alone.errors[0] == together.errors[i]
        assert back("", alone.fields["drug"][0]) == back("", together.fields["drug"][i])
        assert alone.fields["drug"].isna()[0] == (text is None or alone.errors[0] is not None)


SMALL = compile_schema({"a": int, "b": str | None})
GOOD, OTHER = '{"a": 1, "b": "x"}', '{"a": 2, "b": "x"}'


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\n",
        f"Here you are:\n{GOOD}",
        f"{GOOD}\nI hope this helps {{sic}} [1].",
        f"\ufeff{GOOD}",
        f"As [2] says, {{it}} is {GOOD}.",
        f"[{GOOD}]",
        f"So: [{GOOD}]",
        GOOD + GOOD,
        f"{GOOD} or {GOOD}",
        f'{GOOD} or {{"b": "x", "a": 1}}',
    ],
)
def test_object_in_fences_or_prose_is_recovered_and_counted(text: str) -> None:
    columns = SMALL.read([text, GOOD])
    assert columns.errors == [None, None]
    assert columns.recovered == 1
    assert columns.fields["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{GOOD} or {OTHER}", "more than one"),
        (f"[{GOOD}, {OTHER}]", "more than one"),
        (GOOD[:-1], "cut off"),
        ('{"outer": {"a": 1, "b": "x"}, "rest": [', "cut off"),
        (f"So: [{GOOD}, [1]]", "list"),
        ("[]", "object"),
        ("I do not know.", "no JSON object"),
        ("", "no JSON object"),
        ("null", "no JSON object"),
        ('{"a": NaN, "b": null}', "integer"),
        ("{" * 5000, "no JSON object"),
        ('{"a":' * 5000, "cut off"),
        ("[" * 5000, "cut off"),
        ('{"a": 1, "b": "\ud800"}', "unicode"),
        ('{"a": 1, "b": "\\ud800"}', "JSON"),
        ('{"a": 1' + "0" * 5000 + "}", "64 bits|JSON|broken"),
    ],
)
def test_what_holds_no_single_object_is_invalid_and_says_why(text: str, why: str) -> None:
    columns = SMALL.read([text, GOOD])
    assert columns.errors[1] is None
    assert any(w in str(columns.errors[0]) for w in why.split("|"))
    assert columns.recovered == 0
    assert columns.fields["a"].isna().tolist() == [True, False]


def test_recovered_text_is_the_object_as_written() -> None:
    assert find_object("x {} y")[0] == "{}"
    assert find_object('a {"k": "}"} b')[0] == '{"k": "}"}'


def test_error_names_the_place_and_the_value() -> None:
    schema = compile_schema({"people": [{"name": str, "age": int | None}]})
    columns = schema.read(['{"people": [{"name": "n"}, {"name": 3}]}', '{"people": [{}]}'])
    assert columns.errors == [
        "field `people[1].name`: input should be a valid string, got 3",
        "field `people[0].name`: is missing",
    ]
    long = PYDANTIC.read([json.dumps({"drug": "y" * 999})]).errors[0]
    assert len(str(long)) < 200


def test_last_of_a_repeated_key_counts() -> None:
    for schema in ({"a": int}, {"properties": {"a": {"type": "integer"}}}):
        columns = compile_schema(schema).read(['{"a": 1, "a": 2}'])
        assert columns.fields["a"].tolist() == [2]


def test_offsets_become_utc_and_the_column_has_no_zone() -> None:
    schema = compile_schema({"at": dt.datetime, "all": list[dt.datetime]})
    text = '{"at": "2024-05-31T14:30:00-04:00", "all": ["2024-05-31T14:30:00-04:00"]}'
    columns = schema.read([text])
    assert columns.fields["at"][0] == pd.Timestamp("2024-05-31T18:30:00")
    assert columns.fields["all"][0][0] == dt.datetime(2024, 5, 31, 18, 30)


def test_choices_are_unordered_categories_in_declared_order() -> None:
    schema = compile_schema({"kind": ["violent", "drug", "other"], "grade": [3, 1]})
    columns = schema.read(['{"kind": "other", "grade": 1}'])
    kind, grade = columns.fields["kind"], columns.fields["grade"]
    assert isinstance(kind, pd.Categorical)
    assert isinstance(grade, pd.Categorical)
    assert list(kind.categories) == ["violent", "drug", "other"]
    assert list(grade.categories) == [3, 1]
    assert not kind.ordered


def test_lists_explode_and_structs_open() -> None:
    schema = compile_schema({"people": [{"name": str, "age": int | None}]})
    texts = ['{"people": [{"name": "a", "age": 1}, {"name": "b"}]}', '{"people": []}', None]
    people = pd.Series(schema.read(texts).fields["people"]).explode()
    names = people.struct.field("name")
    assert names.isna().tolist() == [False, False, True, True]
    assert names.tolist()[:2] == ["a", "b"]


def test_no_texts_give_empty_columns_of_the_same_dtypes() -> None:
    columns = PYDANTIC.read([])
    assert [str(a.dtype) for a in columns.fields.values()] == [f.dtype for f in PYDANTIC.fields]
    assert {len(a) for a in columns.fields.values()} == {0}


def test_rows_keep_their_places_across_chunks() -> None:
    n = CHUNK_ROWS + 3
    texts: list[str | None] = [f'{{"a": {i}, "b": null}}' for i in range(n)]
    texts[CHUNK_ROWS] = "?"
    columns = SMALL.read(texts)
    assert columns.fields["a"][n - 1] == n - 1
    assert [i for i, e in enumerate(columns.errors) if e] == [CHUNK_ROWS]
    assert columns.fields["a"].isna().nonzero()[0].tolist() == [CHUNK_ROWS]


@pytest.mark.parametrize("beyond", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_time_beyond_all_years_is_refused_in_lists_and_objects_too(beyond: str) -> None:
    item = {"type": "string", "format": "date-time"}
    inner = {"type": "object", "properties": {"at": {"type": "array", "items": item}}}
    schema = compile_schema({"type": "object", "properties": {"when": inner}})
    texts = [json.dumps({"when": {"at": [at]}}) for at in ("2020-01-01T00:00:00Z", beyond)]
    (good, bad) = schema.read(texts).errors
    assert good is None
    assert bad is not None
    assert "when.at[0]" in bad
