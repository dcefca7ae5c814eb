"""The compiled `schema=`: what is sent, and the reader of what comes back.

Comes in: a pydantic model, dataclass, TypedDict, dict of types, or JSON Schema. Goes out: a
`Schema` with the wire form, the fields and a reader; or a `SchemaError` with how to fix it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nyu_llm_frames._stages.schema.node import Kind, Node
from nyu_llm_frames._stages.schema.parse import parse
from nyu_llm_frames._stages.schema.sent_schema import to_wire
from nyu_llm_frames.errors import SchemaError

if TYPE_CHECKING:
    from nyu_llm_frames._stages.schema.reader import Columns, Reader

NAME = "answer"
"""The schema's name as sent. It is part of a request's id, so it must not follow the name of a
class: renaming the class would mean paying for every row again."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column to come.

    Attributes
    ----------
    name : str
    kind : str
        string, integer, number, boolean, date, datetime, choice, array, object, or union
        (alternatives of different types: the column holds text as it is, and the rest as JSON).
    dtype : str
        As pandas prints it.
    """

    name: str
    kind: Kind
    dtype: str


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema.

    Attributes
    ----------
    fields : tuple of Field
        In declared order.
    wire : dict
        What is sent to Google: a relaxation of `source`.
    response_format : dict
        `wire` as the chat endpoint takes it.
    source : dict
        The whole JSON Schema: the one passed, or that of the type.
    notes : tuple of str
        What the user should know before the requests are sent.
    """

    fields: tuple[Field, ...]
    wire: dict[str, Any]
    response_format: dict[str, Any]
    source: dict[str, Any]
    reader: Reader
    notes: tuple[str, ...]

    def read(self, texts: Sequence[str | None]) -> Columns:
        """Validate answers and turn them into typed columns.

        Parameters
        ----------
        texts
            The answers; None for a row without one.

        Returns
        -------
        Columns
        """
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
    from nyu_llm_frames._stages.schema.answer_values import column_node
    from nyu_llm_frames._stages.schema.arrays import dtype_name
    from nyu_llm_frames._stages.schema.fields import read_source
    from nyu_llm_frames._stages.schema.json_schema import compile_check, refuse_malformed
    from nyu_llm_frames._stages.schema.pydantic_types import Described, describe
    from nyu_llm_frames._stages.schema.reader import compile_reader

    source = read_source(schema)
    given = source.json_schema
    if given is not None:
        described = Described(source.annotation.validate_json, given, given, ())
    else:
        described = describe(source.annotation, strict=source.strict)
    refuse_malformed(described.sent)  # that of a class may be, too, by json_schema_extra
    wire = to_wire(parse(described.sent))
    compile_check(described.sent)
    columns = replace(
        column_node(parse(described.values), nullable=given is not None), nullable=False
    )
    for node in columns.properties.values():
        _distinct(node)
    reader = compile_reader(columns, described.validate, is_strict=source.strict)
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
        raise SchemaError(
            f"{node.path}: the choice {large[0]} is beyond 64 bits, which no validator compares; "
            "write such choices as text",
            path=node.path,
        )
    if len(set(node.choices)) < len(node.choices):
        raise SchemaError(
            f"{node.path}: its choices have true beside 1, or false beside 0, which pandas cannot "
            "tell apart; use words",
            path=node.path,
        )
