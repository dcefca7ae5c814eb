"""Find which names a template sets itself, and where.

Comes in: statements of Jinja's syntax tree. Goes out: frames that decide whether a name is the
template's own. They follow Jinja's compiler: a name belongs to the frame that stores it; bodies of
loops, macros and blocks are separate frames that see everything their parent ever stores; the
branches of an `if` store, perhaps, for the frame around them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from jinja2 import nodes

Binding: TypeAlias = Literal["local", "maybe", "free"]

_MACRO_NAMES = frozenset({"caller", "varargs", "kwargs"})


@dataclass(slots=True)
class Frame:
    """Names at one place of a template.

    Attributes
    ----------
    parent
        The frame around it.
    stores
        What the frame stores anywhere, before this place or after it.
    definite, maybe
        What it has stored so far, on every path or on some.
    in_loop, in_macro, in_block
        Whether `loop`, `caller` and its kind, or `super` are Jinja's here.
    """

    parent: Frame | None = None
    stores: frozenset[str] = frozenset()
    definite: set[str] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)
    in_loop: bool = False
    in_macro: bool = False
    in_block: bool = False

    def inner(self, body: Iterable[nodes.Node], parent: Frame | None = None) -> Frame:
        """The frame of a body at this place."""
        return Frame(
            parent=parent or self,
            stores=stores(body),
            in_loop=self.in_loop,
            in_macro=self.in_macro,
            in_block=self.in_block,
        )

    def binding(self, name: str) -> Binding:
        """Whether the template sets a name: always, sometimes or never."""
        maybe = name in self.maybe
        frame: Frame | None = self
        while frame is not None:
            if name in frame.definite:
                return "local"
            maybe |= frame is not self and name in frame.stores
            frame = frame.parent
        if maybe:
            return "maybe"
        jinjas = (
            (name == "loop" and self.in_loop)
            or (name in _MACRO_NAMES and self.in_macro)
            or (name == "super" and self.in_block)
        )
        return "local" if jinjas else "free"


def stores(body: Iterable[nodes.Node]) -> frozenset[str]:
    """Names that statements store in their own frame, whatever path is taken."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, nodes.Assign | nodes.AssignBlock):
            found |= targets(node.target)
        elif isinstance(node, nodes.Macro):
            found.add(node.name)
        elif isinstance(node, nodes.If):
            found |= stores([*node.body, *node.elif_, *node.else_])
    return frozenset(found)


def targets(node: nodes.Node) -> set[str]:
    """Names that an assignment stores."""
    if isinstance(node, nodes.Name):
        return {node.name}
    return {name.name for name in node.find_all(nodes.Name)}
