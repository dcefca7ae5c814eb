"""Find which names in a parsed template are columns.

Comes in: Jinja's syntax tree and the column labels. Goes out: `Names`, which gives, for each
place that reads a column, the variable to put there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from jinja2 import nodes

from nyu_llm_frames._stages.prompts.scope import Binding, Frame, stores, targets

_ROW = "row"
_INDEX = "index"


class UnknownName(Exception):
    """A name or constant row key that is no column; carries its place."""

    def __init__(self, name: Hashable, line: int) -> None:
        super().__init__(name, line)
        self.name, self.line = name, line


@dataclass(frozen=True, slots=True)
class Names:
    """What a template uses.

    Attributes
    ----------
    targets
        Variables of the rewritten tree, each with the column label it holds.
    swaps
        Identity of a node that reads a column, and the variable to read in its place.
    rows
        A variable that the template does not use, for the rows themselves.
    columns
        Columns in use.
    uses_row, uses_index
        Whether the row as a whole, or its label, is read.
    stands_in_loop
        Whether a loop around the tree leaves its meaning alone.
    """

    targets: tuple[tuple[str, Hashable], ...]
    swaps: Mapping[int, nodes.Name]
    rows: str
    columns: frozenset[Hashable]
    uses_row: bool
    uses_index: bool
    stands_in_loop: bool


def resolve(
    tree: nodes.Template,
    columns: Sequence[Hashable],
    hidden_from_row: frozenset[Hashable] = frozenset(),
) -> Names:
    """Find out what each name of a tree means.

    Parameters
    ----------
    tree
        The parsed template.
    columns
        The labels of the frame, in order.
    apart
        Of these, the ones that `row` as a whole does not hold.

    Raises
    ------
    UnknownName
        A name is neither a column nor set by the template.
    """
    resolver = _Resolver(tree, columns)
    resolver.statements(tree.body)
    return resolver.names(frozenset(columns) - hidden_from_row)


class _Resolver:
    """One walk over a tree; every expression is visited in the frame it is evaluated in."""

    def __init__(self, tree: nodes.Template, columns: Sequence[Hashable]) -> None:
        self.columns = columns
        self.position: dict[Hashable, int] = {}
        for i, label in enumerate(columns):
            self.position.setdefault(label, i)
        self.prefix = _free_prefix(tree)
        self.has_blocks = tree.find(nodes.Block) is not None
        self.frame = self.root = Frame(stores=stores(tree.body))
        self.swaps: dict[int, nodes.Name] = {}
        self.shared: set[str] = set()  # columns with a name that the template also sets
        self.used: set[Hashable] = set()
        self.uses_row = self.uses_index = False

    def names(self, row: frozenset[Hashable]) -> Names:
        idents = {name.name for name in self.swaps.values()}
        variables: list[tuple[str, Hashable]] = [
            (ident, label)
            for label, i in self.position.items()
            if (ident := f"{self.prefix}{i}") in idents
        ]
        variables += [(name, name) for name in sorted(self.shared)]
        return Names(
            targets=tuple(variables),
            swaps=MappingProxyType(self.swaps),
            rows=f"{self.prefix}rows",
            columns=frozenset(self.used) | (row if self.uses_row else frozenset()),
            uses_row=self.uses_row,
            uses_index=self.uses_index,
            # Blocks read the context, not a loop's variables; nothing in a loop may store `loop`.
            stands_in_loop=not self.has_blocks and "loop" not in self.shared,
        )

    @contextmanager
    def _inner(self, body: Iterable[nodes.Node], parent: Frame | None = None) -> Iterator[None]:
        """Visit something in a new frame."""
        outer = self.frame
        self.frame = outer.inner(body, parent)
        try:
            yield
        finally:
            self.frame = outer

    # -- statements

    def statements(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self.statement(node)

    def statement(self, node: nodes.Node) -> None:
        match node:
            case nodes.Assign():
                self.visit(node.node)
                self._store(node.target)
            case nodes.AssignBlock():
                with self._inner(node.body):
                    self.statements(node.body)
                    self._maybe(node.filter)
                self._store(node.target)
            case nodes.If():
                self._if(node)
            case nodes.For():
                self._for(node)
            case nodes.Macro():
                self.frame.definite.add(node.name)
                self._macro_body(node)
            case nodes.CallBlock():
                self.visit(node.call)
                self._macro_body(node)
            case nodes.FilterBlock():
                with self._inner(node.body):
                    self.statements(node.body)
                    self._maybe(node.filter)
            case nodes.With():
                for value in node.values:
                    self.visit(value)
                with self._inner(node.body):
                    for target in node.targets:
                        self._store(target)
                    self.statements(node.body)
            case nodes.Block():
                with self._inner(node.body, parent=None if node.scoped else self.root):
                    self.frame.in_block = True
                    self.statements(node.body)
            case nodes.ScopedEvalContextModifier():
                for option in node.options:
                    self.visit(option)
                with self._inner(node.body):
                    self.statements(node.body)
            case nodes.Scope():
                with self._inner(node.body):
                    self.statements(node.body)
            case _:  # output, expression statements
                for child in node.iter_child_nodes():
                    self.visit(child)

    def _if(self, node: nodes.If) -> None:
        self.visit(node.test)
        before = (set(self.frame.definite), set(self.frame.maybe))
        ends = []
        branches: list[Sequence[nodes.Node]] = [node.body, *([e] for e in node.elif_), node.else_]
        for branch in branches:
            self.frame.definite, self.frame.maybe = set(before[0]), set(before[1])
            self.statements(branch)
            ends.append((self.frame.definite, self.frame.maybe))
        self.frame.definite = set.intersection(*(d for d, _ in ends))
        self.frame.maybe = set.union(*(d | m for d, m in ends))

    def _for(self, node: nodes.For) -> None:
        self.visit(node.iter)
        if node.test is not None:
            with self._inner([]):
                self._store(node.target)
                self.visit(node.test)
        with self._inner(node.body):
            self.frame.in_loop = True
            self._store(node.target)
            self.statements(node.body)
        with self._inner(node.else_):
            self.statements(node.else_)

    def _macro_body(self, node: nodes.Macro | nodes.CallBlock) -> None:
        with self._inner(node.body):
            self.frame.in_macro = True
            self.frame.definite |= {a.name for a in node.args}
            for default in node.defaults:
                self.visit(default)
            self.statements(node.body)

    def _store(self, target: nodes.Node) -> None:
        for ref in target.find_all(nodes.NSRef):
            self._load(ref, ref.name)
        if isinstance(target, nodes.NSRef):
            self._load(target, target.name)
            return
        self.frame.definite |= targets(target)

    # -- expressions

    def _maybe(self, node: nodes.Node | None) -> None:
        if node is not None:
            self.visit(node)

    def visit(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Name):
            self._load(node, node.name)
        elif not self._row_access(node):
            for child in node.iter_child_nodes():
                self.visit(child)

    def _row_access(self, node: nodes.Node) -> bool:
        """Turn `row["a b"]`, `row.name` and `row.get("a b")` into the column's variable."""
        match node:
            case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Expr() as arg):
                key = _constant(arg)
            case nodes.Call(
                node=nodes.Getattr(node=nodes.Name(name="row"), attr="get"),
                args=[nodes.Expr() as arg, *_],
                kwargs=[],
            ):
                key = _constant(arg)
            case nodes.Call(node=nodes.Getattr(node=nodes.Name(name="row") as row, attr=attr)) if (
                hasattr(dict, attr)
            ):
                self._load(row, _ROW)
                for child in node.iter_child_nodes(exclude=("node",)):
                    self.visit(child)
                return True
            case nodes.Getattr(node=nodes.Name(name="row"), attr=attr):
                key = [attr]
            case _:
                return False
        if key is None or self._bound(_ROW) != "free":
            return False
        if key[0] not in self.position:
            raise UnknownName(key[0], node.lineno)
        self._use(node, key[0])
        return True

    def _load(self, node: nodes.Node, name: str) -> None:
        bound = self._bound(name)
        if bound != "free":
            if bound == "maybe" and name in self.position and name not in (_ROW, _INDEX):
                self.shared.add(name)
                self.used.add(name)
        elif name == _ROW:
            self.uses_row = True
        elif name == _INDEX:
            self.uses_index = True
        elif name in self.position:
            self._use(node, name)
        elif name != "range":
            raise UnknownName(name, node.lineno)

    def _bound(self, name: str) -> Binding:
        bound = self.frame.binding(name)
        if bound == "free" and name == "self" and self.has_blocks and name not in self.position:
            return "local"
        return bound

    def _use(self, node: nodes.Node, label: Hashable) -> None:
        self.used.add(label)
        ident = f"{self.prefix}{self.position[label]}"
        self.swaps[id(node)] = nodes.Name(ident, "load", lineno=node.lineno)


def _constant(node: nodes.Expr) -> list[Hashable] | None:
    """The value of a constant key, in a list, as None is a key too."""
    if next(node.find_all(nodes.Name), None) is not None or isinstance(node, nodes.Name):
        return None
    try:
        value = node.as_const()
        hash(value)
    except Exception:  # not constant, or fails: both are for rendering to show
        return None
    return [value]


def _free_prefix(tree: nodes.Template) -> str:
    """A prefix that no name of a template starts with."""
    taken: set[str] = {n.name for n in tree.find_all(nodes.Name)}
    taken |= {n.name for n in tree.find_all(nodes.Macro)}
    taken |= {n.name for n in tree.find_all(nodes.NSRef)}
    prefix = "column_"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix
