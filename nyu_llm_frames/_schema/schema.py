"""The doorway of `schema=`: one compiled object for what is sent and for what comes back.

Comes in: a pydantic model, dataclass, TypedDict, dict of types, or JSON Schema. Goes out: a
`Schema` with the wire form, the fields and a reader; or a `SchemaError` with a way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nyu_llm_frames._schema.check import compile_check
from nyu_llm_frames._schema.node import Kind, Node
from nyu_llm_frames._schema.parse import parse
from nyu_llm_frames._schema.source import read_source
from nyu_llm_frames._schema.wire import to_wire
from nyu_llm_frames.errors import SchemaError

if TYPE_CHECKING:
    from nyu_llm_frames._schema.typed import Columns, Reader

NAME = "answer"
"""The schema's name on the wire. It is part of a request's identity, so that it must not follow
the name of a class: renaming one would pay for every row again."""


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
    required : bool
        Whether an answer without it is invalid.
    nullable : bool
        Whether null is a value.
    description : str
    choices : tuple
        In declared order.
    """

    name: str
    kind: Kind
    dtype: str
    required: bool
    nullable: bool
    description: str
    choices: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema.

    Attributes
    ----------
    fields : tuple of Field
        In declared order.
    wire : dict
        What Google is told: a relaxation of `source`.
    response_format : dict
        `wire` as the chat endpoint takes it.
    source : dict
        The whole JSON Schema, as it is enforced on this side.
    """

    fields: tuple[Field, ...]
    wire: dict[str, Any]
    response_format: dict[str, Any]
    source: dict[str, Any]
    reader: Reader

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
    knows. All fields are asked for; one that may be null may also be absent.

    Values are strict: ``"5"`` is no int, while ``5.0`` is one, as in JSON Schema. A pydantic
    model is validated by pydantic as it is configured. Unknown fields are ignored unless the
    schema forbids them; of a key that stands twice the last one counts. Numbers must be finite
    and integers fit into 64 bits.

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
    [None, 'field `drug`: expected text, got 7', None]
    """
    from nyu_llm_frames._schema.arrays import dtype_name
    from nyu_llm_frames._schema.typed import compile_reader

    source = read_source(schema)
    told = parse(source.schema)
    held = parse(source.columns)
    wire = to_wire(told)
    check = compile_check(source.checked) if source.checked is not None else None
    reader = compile_reader(held, check=check, adapter=source.adapter, plain_model=source.plain)
    fields = []
    for name, node in reader.columns.items():
        _distinct(node)
        fields.append(
            Field(
                name,
                node.kind,
                dtype_name(node),
                name in held.required,
                node.nullable,
                node.description,
                node.choices,
            )
        )
    response_format = {"type": "json_schema", "json_schema": {"name": NAME, "schema": wire}}
    return Schema(tuple(fields), wire, response_format, source.checked or source.schema, reader)


def _distinct(node: Node) -> None:
    if len(set(node.choices)) < len(node.choices):
        raise SchemaError(
            f"{node.path}: its choices have true beside 1, or false beside 0, which pandas cannot "
            "tell apart; use words",
            path=node.path,
        )
