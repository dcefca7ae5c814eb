"""The compiled `schema=`: what is sent, and the reader of what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nyu_llm_frames._stages.schema.keywords import wrong
from nyu_llm_frames._stages.schema.node import Kind, Node
from nyu_llm_frames._stages.schema.parse import parse
from nyu_llm_frames._stages.schema.sent_schema import to_wire

if TYPE_CHECKING:
    from nyu_llm_frames._stages.schema.reader import Columns, Reader

NAME = "answer"
"""The schema's name as sent. It is part of a request's id, so it must not follow the name of a
class: renaming the class would mean paying for every row again."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column to come; `dtype` is as pandas prints it.

    A union, of different types, is a column that holds text as it is, and the rest as JSON.
    """

    name: str
    kind: Kind
    dtype: str


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema."""

    fields: tuple[Field, ...]  # in declared order
    wire: dict[str, Any]  # what is sent to Google: a relaxation of `source`
    response_format: dict[str, Any]  # the same as the chat endpoint takes it
    source: dict[str, Any]  # the whole JSON Schema: the one passed, or that of the type
    reader: Reader
    notes: tuple[str, ...]  # what the user should know before the requests are sent

    def read(self, texts: Sequence[str | None]) -> Columns:
        """Validate answers (None for a row without one) and turn them into typed columns."""
        return self.reader.read(texts)


def compile_schema(schema: object) -> Schema:
    """Compile what a user passes as ``schema=``.

    A dict of fields takes Python types (``str``, ``int | None``, ``list[str]``, ``Literal``,
    ``Enum``, ``Annotated[str, "what it means"]``), a list of choices (``["violent", "drug"]``),
    ``[str]`` or ``[{...}]`` for a list, a nested dict for an object, and any type that pydantic
    knows. All fields are requested; one that may be null may also be absent.

    pydantic validates types, and jsonschema-rs JSON Schemas. Types are strict: ``"5"`` is no int,
    while ``5.0`` is one, as in JSON Schema; but a pydantic model is validated as it is configured.
    Unknown fields are ignored unless the schema forbids them; of a duplicate key the last
    one counts. Numbers must be finite and integers fit into 64 bits. The return annotation of a
    validator decides its column. Choices may be a list, an array, a column's `unique()` or a range.

    Raises
    ------
    SchemaError
        Names the path, and what to write instead.

    Examples
    --------
    >>> schema = compile_schema({"drug": str, "months": int | None})
    >>> [f.dtype for f in schema.fields]
    ['string', 'Int64']
    >>> columns = schema.read(['{"drug": "heroin", "months": 12}', '{"drug": 7}', None])
    >>> columns.errors
    [None, 'field `drug`: input should be a valid string, got 7', None]
    """
    # pydantic takes a tenth of a second: who uses no schema does not wait for it.
    from nyu_llm_frames._stages.schema.answer_values import column_node, compile_object
    from nyu_llm_frames._stages.schema.arrays import dtype_name
    from nyu_llm_frames._stages.schema.fields import read_schema
    from nyu_llm_frames._stages.schema.json_schema import compile_check, refuse_malformed
    from nyu_llm_frames._stages.schema.reader import Reader

    described = read_schema(schema)
    refuse_malformed(described.sent)  # that of a class may be, too, by json_schema_extra
    wire = to_wire(parse(described.sent))
    compile_check(described.sent)
    columns = column_node(parse(described.values), nullable=described.is_json_schema)
    columns = replace(columns, nullable=False)
    for node in columns.properties.values():
        _distinct(node)
    convert = compile_object(columns, tuple)
    reader = Reader(columns.properties, described.validate, described.strict, convert)
    fields = tuple(Field(n, node.kind, dtype_name(node)) for n, node in columns.properties.items())
    response_format = {"type": "json_schema", "json_schema": {"name": NAME, "schema": wire}}
    notes = tuple(
        f"The text below the fields of {name} is not sent, since only its source file has it: "
        'write Annotated[str, "..."] or Field(description="...") to have it sent.'
        for name in described.undescribed
    )
    return Schema(fields, wire, response_format, described.sent, reader, notes)


def _distinct(node: Node) -> None:
    if large := [c for c in node.choices if isinstance(c, int) and not -(2**63) <= c < 2**63]:
        raise wrong(
            node.path,
            f"the choice {large[0]} is beyond 64 bits, which no validator compares; "
            "write such choices as text",
        )
    if len(set(node.choices)) < len(node.choices):
        raise wrong(
            node.path,
            "its choices have true beside 1, or false beside 0, which pandas cannot "
            "tell apart; use words",
        )
