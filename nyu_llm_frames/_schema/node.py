"""A schema as a small tree: references inlined, `allOf` merged, null set aside.

Comes in: nothing but what `parse` puts there. Goes out: a `Node` per value, from which
the wire schema, the columns and the fast decoder are each derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nyu_llm_frames._schema.keywords import unique
from nyu_llm_frames.errors import SchemaError

Kind = Literal[
    "string",
    "integer",
    "number",
    "boolean",
    "date",
    "datetime",
    "choice",
    "array",
    "object",
    "union",
]


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a schema.

    `remarks` are what Google's schema cannot express, in words for the model. `exact` says that
    the fields here state the whole constraint, so that a decoder built from them is the judge.
    """

    kind: Kind
    path: str = "$"
    nullable: bool = False
    description: str = ""
    remarks: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] = ()
    items: Node | None = None
    properties: Mapping[str, Node] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    variants: tuple[Node, ...] = ()
    closed: bool = False
    default: Any = ...
    exact: bool = True


def unite(nodes: list[Node], nullable: bool, path: str) -> Node:
    """One node for alternatives, the simplest that admits all of them."""
    flat: list[Node] = []
    for node in nodes:
        nullable = nullable or node.nullable
        flat.extend(node.variants if node.kind == "union" else [node])
    flat = [replace(n, nullable=False, default=...) for n in flat]
    flat = [n for i, n in enumerate(flat) if n not in flat[:i]]
    if not flat:
        raise SchemaError(f"{path}: no alternative but null; give it a type", path=path)
    if len(flat) == 1:
        return replace(flat[0], nullable=nullable)
    kinds = {n.kind for n in flat}
    if kinds == {"choice"}:
        choices = unique(c for n in flat for c in n.choices)
        exact = all(n.exact for n in flat)
        return Node("choice", nullable=nullable, choices=choices, exact=exact)
    if kinds <= {"integer", "number"}:
        return Node("number", nullable=nullable, exact=False)
    if all(
        n.kind in ("string", "date", "datetime")
        or (n.kind == "choice" and all(isinstance(c, str) for c in n.choices))
        for n in flat
    ):
        return Node("string", nullable=nullable, exact=False)
    return Node("union", nullable=nullable, variants=tuple(flat), exact=False)
