"""A corpus of (schema, answer, verdict): which answers fit, and what then stands in the columns.

It was written before one validator each for types and for JSON Schemas came in place of several
of our own, and every verdict that changed with them was changed by hand.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pandas as pd
import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from nyu_llm_frames._stages.schema.schema import compile_schema

CORPUS = Path(__file__).parent / "data" / "verdicts.jsonl"


class Kind(enum.Enum):
    VIOLENT = "violent"
    DRUG = "drug"


class Grade(enum.IntEnum):
    LOW = 1
    HIGH = 5


class Charge(BaseModel):
    statute: str = Field(min_length=2, pattern="^[a-z]+$")
    months: int | None = Field(None, ge=0, lt=600)


class Case(BaseModel):
    kind: Kind
    grade: Grade = Grade.LOW
    charges: list[Charge] = Field(max_length=2)
    score: float
    weapon: bool = False
    decided: dt.date | None = None
    heard: dt.datetime | None = None
    verdict: Literal["guilty", 2, True, None] = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    n: int
    x: float = 0.5


class Checked(BaseModel):
    months: int
    note: str = "-"

    @field_validator("months")
    @classmethod
    def whole_years(cls, value: int) -> int:
        if value % 12:
            raise ValueError("not whole years")
        return value // 12


class Cat(BaseModel):
    pet: Literal["cat"]
    meows: int


class Dog(BaseModel):
    pet: Literal["dog"]
    barks: float


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="pet")
    second: Cat | Dog | None = None
    either: int | str = 0


@dataclasses.dataclass
class Person:
    name: str
    age: int | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class Place(TypedDict):
    city: Annotated[str, "The city"]
    zip: NotRequired[int]
    mayor: Person | None


class Special(BaseModel):
    key: uuid.UUID | None = None
    price: Decimal | None = None
    at: dt.time | None = None
    took: dt.timedelta | None = None
    pair: tuple[int, str] | None = None


TYPES: dict[str, Any] = {
    "Case": Case,
    "Strict": Strict,
    "Checked": Checked,
    "Owner": Owner,
    "Person": Person,
    "Place": Place,
    "Special": Special,
    "fields": {
        "drug": str,
        "weapon": bool,
        "months": int | None,
        "score": float,
        "kind": ["violent", "drug", None],
        "grade": [1, 2.5, 7],
        "day": dt.date,
        "at": dt.datetime | None,
        "tags": list[str],
        "people": [{"name": str, "age": int | None}],
        "place": {"city": Annotated[str, "The city"]},
        "enum": Kind | None,
    },
    "few": {"a": int, "b": str | None},
    "beside": {"n": {"type": "integer", "minimum": 3}, "kind": ["x", "y"], "t": str | None},
    "pydantic": {"c": Charge, "u": uuid.UUID | None},
}


def verdicts(schema: Any, answers: list[str]) -> list[list[Any]]:
    """Return for each answer: the answer, whether it fits, and the columns' values as JSON."""
    columns = compile_schema(schema).read(answers)
    out: list[list[Any]] = []
    for i, answer in enumerate(answers):
        values = {name: as_json(array[i]) for name, array in columns.fields.items()}
        out.append([answer, False] if columns.errors[i] else [answer, True, values])
    return out


def as_json(value: Any) -> Any:
    if isinstance(value, pd.Timestamp | dt.date):
        return value.isoformat()
    if isinstance(value, dict):
        return {k: as_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_json(v) for v in value]
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def corpus() -> list[Any]:
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    entries = [(line[:60], json.loads(line)) for line in lines]
    return [pytest.param(e["schema"], e["answers"], id=name) for name, e in entries]


@pytest.mark.parametrize(("schema", "answers"), corpus())
def test_verdicts_and_values_are_those_of_the_corpus(schema: Any, answers: list[Any]) -> None:
    source = TYPES[schema] if isinstance(schema, str) else schema
    assert verdicts(source, [answer for answer, *_ in answers]) == answers
