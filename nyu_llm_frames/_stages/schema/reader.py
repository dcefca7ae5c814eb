"""Turn answer texts into typed columns, with a reason where an answer does not fit its schema.

A text that fails does not affect other rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nyu_llm_frames._stages.schema.answer_values import Convert, Unfit
from nyu_llm_frames._stages.schema.formats import shown
from nyu_llm_frames._stages.schema.json_in_text import find_object
from nyu_llm_frames._stages.schema.node import Node

if TYPE_CHECKING:
    from pandas.api.extensions import ExtensionArray

CHUNK_ROWS = 10_000
"""Decoded rows in memory at a time; more of them keep the garbage collector busy."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Typed values of all rows."""

    fields: dict[str, ExtensionArray]  # NA where the text is None or does not validate
    errors: list[str | None]  # why a text does not validate
    recovered: int  # texts that were valid without the code fences or prose around them


@dataclass(frozen=True, slots=True)
class Reader:
    """Validate texts and build columns; one per schema, compiled once.

    `validate` raises pydantic's `ValidationError`; where `is_strict`, 5.0 is no integer for it.
    """

    columns: Mapping[str, Node]
    validate: Callable[[str], Any]
    is_strict: bool
    convert: Convert

    def read(self, texts: Sequence[str | None]) -> Columns:
        from nyu_llm_frames._stages.schema.arrays import (  # pandas, at the very end
            to_array,
            to_arrow,
        )

        blank = (None,) * len(self.columns)
        chunks: list[list[Any]] = [[] for _ in self.columns]
        errors: list[str | None] = []
        recovered = 0
        for start in range(0, max(len(texts), 1), CHUNK_ROWS):
            rows = []
            for text in texts[start : start + CHUNK_ROWS]:
                row, error, found = (None, None, False) if text is None else self._read_one(text)
                rows.append(blank if row is None else row)
                errors.append(error)
                recovered += found
            values = zip(*rows, strict=True) if rows else blank
            for chunk, node, column in zip(chunks, self.columns.values(), values, strict=True):
                chunk.append(to_arrow(node, list(column or ())))
        named = zip(self.columns.items(), chunks, strict=True)
        fields = {name: to_array(node, parts) for (name, node), parts in named}
        return Columns(fields, errors, recovered)

    def _read_one(self, text: str) -> tuple[tuple[Any, ...] | None, str | None, bool]:
        """One text: (its values, error, whether the object had to be found in the text)."""
        try:
            try:
                return self.convert(self._validated(text)), None, False
            except ValidationError as error:
                if text.lstrip()[:1] == "{" and error.errors()[0]["type"] != "json_invalid":
                    raise
            found, why = find_object(text)
            if found is None:
                return None, why, False
            return self.convert(self._validated(found)), None, True
        except ValidationError as error:
            return None, _explain(error), False
        except Unfit as error:
            place, what = error.args
            return None, _words(place, what), False
        except UnicodeEncodeError as error:
            return None, f"the answer is no text that JSON may have: {error}", False
        except Exception as error:  # a validator of the user's own, failing in its own way
            return None, f"the answer made a validator fail: {type(error).__name__}: {error}", False

    def _validated(self, text: str) -> Any:
        try:
            return self.validate(text)
        except ValidationError:
            if not self.is_strict:
                raise
            # JSON has one kind of number: 5.0 is an integer, too.
            try:
                plain = json.dumps(json.loads(text, parse_float=_number))
            except (ValueError, RecursionError):
                plain = text
            if plain == text:
                raise
            with suppress(ValidationError):
                return self.validate(plain)
            raise


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def _explain(error: ValidationError) -> str:
    problems: list[Any] = error.errors(include_url=False)
    first = problems[0]
    places, what, got = first["loc"], first["msg"], first.get("input")
    if first["type"] == "json_schema":
        places, what, got = (*places, *first["ctx"]["place"]), first["ctx"]["what"], {}
    elif first["type"] == "missing":
        what, got = "is missing", {}
    else:
        what = what.removeprefix("Value error, ")
        what = what[:1].lower() + what[1:]
    if places and not isinstance(got, (dict, list)):
        what += f", got {shown(got)}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in places)
    return _words(place, what + more)


def _words(place: str, what: str) -> str:
    return f"field `{place.lstrip('.')}`: {what}" if place else f"the answer is not valid: {what}"
