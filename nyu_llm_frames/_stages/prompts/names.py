"""Find which names in a parsed template are columns.

Comes in: Jinja's syntax tree and the column labels. Goes out: `Names`; the tree reads
`row["a b"]` and its like from variables. Which names a template sets itself, Jinja decides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes
from jinja2.meta import find_undeclared_variables
from jinja2.visitor import NodeTransformer

# Names that Jinja sets in loops, macros and blocks; elsewhere they may be columns.
_JINJAS = frozenset({"loop", "caller", "varargs", "kwargs", "super"})


class UnknownName(Exception):
    """A name or constant row key that is no column; carries its place."""

    def __init__(self, name: Hashable, line: int) -> None:
        super().__init__(name, line)
        self.name, self.line = name, line


@dataclass(frozen=True, slots=True)
class Names:
    """What a template uses."""

    targets: tuple[tuple[str, Hashable], ...]  # variables, each with the column label it holds
    swaps: Mapping[str, str]  # names of columns, and the variables to read in their place
    rows: str  # a variable that the template does not use, for the rows themselves
    columns: frozenset[Hashable]
    uses_row: bool  # as a whole
    uses_index: bool
    stands_in_loop: bool  # whether a loop around the tree leaves its meaning alone


def resolve(
    tree: nodes.Template, columns: Sequence[Hashable], hidden_from_row: frozenset[Hashable]
) -> Names:
    """Find out what each name of a tree means, and rewrite its accesses to single cells of `row`.

    `UnknownName` is raised for one that is neither a column nor set by the template.
    """
    prefix = _free_prefix(tree)
    variables: dict[Hashable, str] = {}
    for i, label in enumerate(columns):
        variables.setdefault(label, f"{prefix}{i}")
    labels = {variable: label for label, variable in variables.items()}
    own = _stored(tree.find_all(nodes.Name)) | _macros(tree)
    if "row" not in own:
        tree = _Cells(variables).visit(tree)
    has_blocks = tree.find(nodes.Block) is not None
    free = find_undeclared_variables(tree)
    # Jinja takes these for its own wherever they stand.
    read = {name.name for name in tree.find_all(nodes.Name)} - own
    free |= {n for n in ("range", "self") if n in read and n in variables}
    if "self" in read and not has_blocks:
        free.add("self")
    cells = free & labels.keys()
    names = free - cells - {"row", "index"}
    unknown = names - variables.keys()
    if unknown := unknown - _sometimes_set([tree] if has_blocks else tree.find_all(nodes.If)):
        reads: Iterable[Any] = tree.find_all((nodes.Name, nodes.NSRef))
        first = next(node for node in reads if node.name in unknown)
        raise UnknownName(first.name, first.lineno)
    plain = names & variables.keys()
    swaps = {name: variables[name] for name in plain - own - _JINJAS}
    cells |= set(swaps.values())
    targets = {variable: label for variable, label in labels.items() if variable in cells}
    targets |= {name: name for name in sorted(plain - swaps.keys())}
    used = frozenset(targets.values())
    uses_row = "row" in free
    return Names(
        targets=tuple(targets.items()),
        swaps=swaps,
        rows=f"{prefix}rows",
        columns=used | (frozenset(columns) - hidden_from_row) if uses_row else used,
        uses_row=uses_row,
        uses_index="index" in free,
        # Blocks read the context, not a loop's variables; nothing in a loop may store `loop`.
        stands_in_loop=not has_blocks and "loop" not in targets,
    )


class _Cells(NodeTransformer):
    """Turn `row["a b"]`, `row.name` and `row.get("a b")` into the column's variable."""

    def __init__(self, variables: Mapping[Hashable, str]) -> None:
        self._variables = variables

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        found = self._cell(node, node.arg) if _is_row(node.node) else None
        return found or self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        key = nodes.Const(node.attr, lineno=node.lineno)
        found = self._cell(node, key) if _is_row(node.node) else None
        return found or self.generic_visit(node)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        match node.node:
            case nodes.Getattr(node=of, attr=attr) if _is_row(of) and hasattr(dict, attr):
                if attr == "get" and node.args and (found := self._cell(node, node.args[0])):
                    return found
                node.args = [self.visit(arg) for arg in node.args]
                return node
        return self.generic_visit(node)

    def _cell(self, node: nodes.Expr, key: nodes.Expr) -> nodes.Name | None:
        try:
            label = key.as_const()
            hash(label)
        except Exception:  # not constant, or fails: both are for rendering to show
            return None
        if label not in self._variables:
            raise UnknownName(label, node.lineno)
        return nodes.Name(self._variables[label], "load", lineno=node.lineno)


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "row"


def _stored(names: Iterable[nodes.Name]) -> set[str]:
    return {name.name for name in names if name.ctx != "load"}


def _macros(place: nodes.Node) -> set[str]:
    return {macro.name for macro in place.find_all(nodes.Macro)}


def _sometimes_set(places: Iterable[nodes.Node]) -> set[str]:
    """Names that are set in these places, which rendering may or may not reach."""
    found: set[str] = set()
    for place in places:
        found |= _macros(place)
        for assignment in place.find_all((nodes.Assign, nodes.AssignBlock)):
            found |= _stored(assignment.find_all(nodes.Name))
    return found


def _free_prefix(tree: nodes.Template) -> str:
    """A prefix that no name of a template starts with."""
    named: Iterable[Any] = tree.find_all((nodes.Name, nodes.Macro, nodes.NSRef))
    taken = {node.name for node in named}
    prefix = "column_"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix
