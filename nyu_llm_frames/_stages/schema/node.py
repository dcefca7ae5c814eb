"""The tree of a schema: references inlined, `allOf` merged, null kept apart.

The wire schema and the columns are each derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nyu_llm_frames._stages.schema.keywords import unique, wrong

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

    `remarks` are what Google's schema cannot express, in words for the model; `validator` is the
    name of the function that a value of this kind comes from.
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
    default: Any = ...
    validator: str = ""


def unite(nodes: list[Node], nullable: bool, path: str) -> Node:
    """One node for alternatives, the simplest that admits all of them."""
    flat: list[Node] = []
    for node in nodes:
        nullable = nullable or node.nullable
        flat.extend(node.variants if node.kind == "union" else [node])
    flat = [replace(n, nullable=False, default=..., path=path) for n in flat]
    flat = [n for i, n in enumerate(flat) if n not in flat[:i]]
    if not flat:
        raise wrong(path, "no alternative but null; give it a type")
    if len(flat) == 1:
        return replace(flat[0], nullable=nullable)
    kinds = {n.kind for n in flat}
    if kinds == {"choice"}:
        choices = unique(c for n in flat for c in n.choices)
        return Node("choice", nullable=nullable, choices=choices)
    if kinds <= {"integer", "number"}:
        return Node("integer" if kinds == {"integer"} else "number", nullable=nullable)
    if all(
        n.kind in ("string", "date", "datetime")
        or (n.kind == "choice" and all(isinstance(c, str) for c in n.choices))
        for n in flat
    ):
        return Node("string", nullable=nullable)
    return Node("union", nullable=nullable, variants=tuple(flat))
