"""Answer texts into typed columns, with the reason where an answer does not fit its schema.

Comes in: the tree of a schema, its validators, and the texts. Goes out: one pandas array per
field, an error or None per row. A text that fails never fails its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from nyu_llm_frames._schema.check import Check
from nyu_llm_frames._schema.fast import fast_struct, record_struct
from nyu_llm_frames._schema.formats import shown
from nyu_llm_frames._schema.node import Node
from nyu_llm_frames._schema.texts import find_object
from nyu_llm_frames._schema.values import Convert, Unfit, column_node, compile_object

if TYPE_CHECKING:
    from pandas.api.extensions import ExtensionArray
    from pydantic import TypeAdapter

CHUNK_ROWS = 10_000
"""Decoded rows that live at a time; more of them keep the garbage collector busy."""

# Also where a digit is escaped.
_EDGE = re.compile(r"9999-12-31|0001-01-01|\\u00")
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Columns:
    """Typed values of all rows.

    Attributes
    ----------
    fields : dict of str to pandas ExtensionArray
        One value per text; NA where the text is None or does not validate.
    errors : list of str or None
        Why a text does not validate.
    recovered : int
        Texts that were valid once code fences or prose around them were taken off.
    """

    fields: dict[str, ExtensionArray]
    errors: list[str | None]
    recovered: int


class _NotJson(Exception):
    """The text as a whole is no JSON."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Validate texts and build columns; one per schema, compiled once.

    `decode` is the fast way, right whenever it succeeds; `check`, `adapter` and `convert` are
    the full way, which also finds the words for what is wrong.
    """

    columns: dict[str, Node]
    decode: Callable[[str], Any] | None
    check: Check | None
    adapter: TypeAdapter[Any] | None
    convert: Convert
    blank: Any

    def read(self, texts: Sequence[str | None]) -> Columns:
        """Read all rows; see `Columns`."""
        from nyu_llm_frames._schema.arrays import to_array, to_arrow  # pandas, at the very end

        getters = [attrgetter(f"f{i}") for i in range(len(self.columns))]
        chunks: list[list[Any]] = [[] for _ in self.columns]
        errors: list[str | None] = []
        recovered = 0
        for start in range(0, max(len(texts), 1), CHUNK_ROWS):
            rows, why, found = self._read_rows(texts[start : start + CHUNK_ROWS])
            errors += why
            recovered += found
            for chunk, getter, node in zip(chunks, getters, self.columns.values(), strict=True):
                chunk.append(to_arrow(node, list(map(getter, rows))))
        named = zip(self.columns.items(), chunks, strict=True)
        fields = {name: to_array(node, parts) for (name, node), parts in named}
        return Columns(fields, errors, recovered)

    def _read_rows(self, texts: Sequence[str | None]) -> tuple[list[Any], list[str | None], int]:
        rows: list[Any] = []
        errors: list[str | None] = [None] * len(texts)
        recovered = 0
        decode = self.decode
        for i, text in enumerate(texts):
            if text is None:
                rows.append(self.blank)
                continue
            if decode is not None:
                try:
                    rows.append(decode(text))
                    continue
                except _DECODE_ERRORS:
                    pass  # it may still be valid: 5.0 for 5, a code fence, another form of date
            row, errors[i], found = self._read_one(text)
            rows.append(self.blank if row is None else row)
            recovered += found and row is not None
        return rows, errors, recovered

    def _read_one(self, text: str) -> tuple[Any, str | None, bool]:
        """One text the full way: (record, error, whether it had to be found in the text)."""
        found: str | None = None
        try:
            try:
                return self.convert(self._decoded(text)), None, False
            except _NotJson:
                found, why = find_object(text)
                if found is None:
                    return None, why, False
                return self.convert(self._decoded(found)), None, True
        except Unfit as error:
            place, what = error.args
            words = f"field `{place.lstrip('.')}`: {what}" if place else f"the answer {what}"
            return None, words, found is not None
        except _NotJson as error:
            return None, f"the answer is not JSON: {error}", True

    def _decoded(self, text: str) -> Any:
        """The validated value: pydantic's object, or plain JSON values."""
        value: Any = None
        if self.check or not self.adapter:
            try:
                value = msgspec.json.decode(text)
            except RecursionError:
                raise Unfit("", "is nested too deeply") from None
            except (msgspec.MsgspecError, UnicodeError) as error:
                raise _NotJson(str(error)) from None
            if not isinstance(value, dict):
                raise Unfit("", f"must be a JSON object, got {shown(value)}")
            if self.check and (problem := self.check(value)):
                raise Unfit(*problem)
        if self.adapter:
            from pydantic import ValidationError

            try:
                value = self.adapter.validate_json(text)
            except ValidationError as error:
                raise _explain(error) from None
            except UnicodeError as error:
                raise _NotJson(str(error)) from None
            except Exception as error:  # a validator of the user's own, failing in its own way
                what = f"made a validator fail: {type(error).__name__}: {error}"
                raise Unfit("", what) from None
        return value


def compile_reader(
    root: Node, *, check: Check | None, adapter: TypeAdapter[Any] | None, plain_model: bool
) -> Reader:
    """Compile the way from text to columns.

    Parameters
    ----------
    root
        The schema, by the names of the columns.
    check
        The check of the JSON Schema, or None where pydantic alone decides.
    adapter
        The validator of a class.
    plain_model
        Whether `adapter` does no more than `root` states, so that the fast decoder may do it.
    """
    columns = {name: column_node(node) for name, node in root.properties.items()}
    struct = fast_struct(root, defaults=adapter is not None) if plain_model else None
    decode: Callable[[str], Any] | None = None
    if struct is not None:
        decode = msgspec.json.Decoder(struct).decode
    if decode is not None and _has_times(root):
        decode = _within_the_years(decode)
    record = record_struct(len(columns))
    convert = compile_object(
        replace(root, properties=columns), lambda pairs: record(*[v for _, v in pairs])
    )
    return Reader(columns, decode, check, adapter, convert, record())


def _has_times(node: Node) -> bool:
    inner = [*node.properties.values(), *([] if node.items is None else [node.items])]
    return node.kind == "datetime" or any(map(_has_times, inner))


def _within_the_years(decode: Callable[[str], Any]) -> Callable[[str], Any]:
    """Leave the first and the last day of all years to the full way: UTC may be beyond them."""

    def careful(text: str) -> Any:
        if _EDGE.search(text):
            raise msgspec.ValidationError("a time may be beyond the years there are")
        return decode(text)

    return careful


def _explain(error: Any) -> Exception:
    problems = error.errors(include_url=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return _NotJson(first["msg"])
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
    what = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "missing":
        what = "is missing"
    elif not isinstance(first.get("input"), (dict, list)):
        what += f", got {shown(first.get('input'))}"
    if not place:
        what = f"is not valid: {what}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Unfit(place, what + more)
