"""What a parsed template means: which names are columns, which of them it tests for NA.

Comes in: Jinja's syntax tree and the column labels. Goes out: `Names`, which says for each place
that reads a column which variable is to stand there instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from jinja2 import nodes

from nyu_llm_frames._prompts.scope import Binding, Frame, stores, targets

NA_TESTS = frozenset({"none", "defined", "undefined"})
DEFAULT_FILTERS = frozenset({"default", "d"})
# Filters and methods that hand on the cells they are given.
_PASSING_FILTERS = DEFAULT_FILTERS.union(
    ("list", "sort", "unique", "reverse", "items", "dictsort", "batch", "slice", "groupby"),
    ("select", "reject", "selectattr", "rejectattr", "first", "last", "min", "max"),
)
_PASSING_METHODS = frozenset({"items", "values", "get", "copy"})
_ROW = "row"
_INDEX = "index"


class UnknownName(Exception):
    """A name or constant row key that is no column; carries where it stands."""

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
    columns, tested
        Columns in use; those whose NA the template itself tests.
    uses_row, uses_index
        Whether the row as a whole, or its label, is read.
    stands_in_loop
        Whether a loop around the tree leaves its meaning alone.
    """

    targets: tuple[tuple[str, Hashable], ...]
    swaps: Mapping[int, nodes.Name]
    rows: str
    columns: frozenset[Hashable]
    tested: frozenset[Hashable]
    uses_row: bool
    uses_index: bool
    stands_in_loop: bool


def resolve(
    tree: nodes.Template, columns: Sequence[Hashable], apart: frozenset[Hashable] = frozenset()
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
    return resolver.names(frozenset(columns) - apart)


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
        self.shared: set[str] = set()  # columns whose name the template also stores
        self.used: set[Hashable] = set()
        self.tested: set[Hashable] = set()
        self.uses_row = self.uses_index = self.tests_row = False
        # Local variables: which cells may be in them, and which of them are tested.
        self.flows: dict[str, set[tuple[str, Hashable]]] = {}
        self.tested_locals: set[str] = set()
        self.macros: dict[str, list[str]] = {}
        self.calls: list[tuple[str, nodes.Call]] = []

    def names(self, row: frozenset[Hashable]) -> Names:
        for name, call in self.calls:
            parameters = self.macros.get(name, [])
            for parameter, value in zip(parameters, call.args, strict=False):
                self._flow(parameter, value)
            for keyword in call.kwargs:
                if keyword.key in parameters:
                    self._flow(keyword.key, keyword.value)
        pending = list(self.tested_locals)
        while pending:
            for kind, origin in self.flows.pop(pending.pop(), ()):
                if kind == "column":
                    self.tested.add(origin)
                elif kind == "row":
                    self.tests_row = True
                else:
                    pending.append(str(origin))
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
            tested=frozenset(self.tested) | (row if self.tests_row else frozenset()),
            uses_row=self.uses_row,
            uses_index=self.uses_index,
            # Blocks read the context, not a loop's variables; nothing in a loop may store `loop`.
            stands_in_loop=not self.has_blocks and "loop" not in self.shared,
        )

    @contextmanager
    def _inner(self, body: Iterable[nodes.Node], parent: Frame | None = None) -> Iterator[None]:
        """Visit something in a frame of its own."""
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
                for name in targets(node.target):
                    self._flow(name, node.node)
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
                self.macros[node.name] = [a.name for a in node.args]
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
                for target, value in zip(node.targets, node.values, strict=True):
                    self.visit(value)
                    for name in targets(target):
                        self._flow(name, value)
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
        self.visit(node.test, testing=True)
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
        for name in targets(node.target):
            self._flow(name, node.iter)
        if node.test is not None:
            with self._inner([]):
                self._store(node.target)
                self.visit(node.test, testing=True)
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
            self._load(ref, ref.name, False)
        if isinstance(target, nodes.NSRef):
            self._load(target, target.name, False)
            return
        self.frame.definite |= targets(target)

    # -- expressions

    def _maybe(self, node: nodes.Node | None) -> None:
        if node is not None:
            self.visit(node)

    def visit(self, node: nodes.Node, testing: bool = False) -> None:
        """Visit an expression; `testing` when its outcome tells NA from a value."""
        match node:
            case nodes.Name():
                self._load(node, node.name, testing)
                return
            case nodes.CondExpr():
                self.visit(node.test, testing=True)
                self.visit(node.expr1, testing)
                if node.expr2 is not None:
                    self.visit(node.expr2, testing)
                return
            case nodes.And() | nodes.Or() | nodes.Not():
                testing = True
            case nodes.Compare():
                operands = [node.expr, *(o.expr for o in node.ops)]
                testing |= any(isinstance(o, nodes.Const) and o.value is None for o in operands)
            case nodes.Test() if node.name in NA_TESTS:
                testing = True
            case nodes.Filter() if node.name in DEFAULT_FILTERS and node.node is not None:
                self.visit(node.node, testing=True)
                for child in node.iter_child_nodes(exclude=("node",)):
                    self.visit(child, testing)
                return
            case nodes.Call(node=nodes.Name(name=name)):
                self.calls.append((name, node))
        if self._row_access(node, testing):
            return
        for child in node.iter_child_nodes():
            self.visit(child, testing)

    def _row_access(self, node: nodes.Node, testing: bool) -> bool:
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
                self._load(row, _ROW, testing)
                for child in node.iter_child_nodes(exclude=("node",)):
                    self.visit(child, testing)
                return True
            case nodes.Getattr(node=nodes.Name(name="row"), attr=attr):
                key = [attr]
            case _:
                return False
        if key is None or self._bound(_ROW) != "free":
            return False
        if key[0] not in self.position:
            raise UnknownName(key[0], node.lineno)
        self._use(node, key[0], testing)
        return True

    def _load(self, node: nodes.Node, name: str, testing: bool) -> None:
        bound = self._bound(name)
        if bound != "free":
            if testing:
                self.tested_locals.add(name)
            if bound == "maybe" and name in self.position and name not in (_ROW, _INDEX):
                self.shared.add(name)
                self._mark(name, testing)
        elif name == _ROW:
            self.uses_row = True
            self.tests_row |= testing
        elif name == _INDEX:
            self.uses_index = True
        elif name in self.position:
            self._use(node, name, testing)
        elif name != "range":
            raise UnknownName(name, node.lineno)

    def _bound(self, name: str) -> Binding:
        bound = self.frame.binding(name)
        if bound == "free" and name == "self" and self.has_blocks and name not in self.position:
            return "local"
        return bound

    def _use(self, node: nodes.Node, label: Hashable, testing: bool) -> None:
        self._mark(label, testing)
        ident = f"{self.prefix}{self.position[label]}"
        self.swaps[id(node)] = nodes.Name(ident, "load", lineno=node.lineno)

    def _mark(self, label: Hashable, testing: bool) -> None:
        self.used.add(label)
        if testing:
            self.tested.add(label)

    # -- which cells a local variable may hold

    def _flow(self, name: str, value: nodes.Node) -> None:
        self.flows.setdefault(name, set()).update(self._origins(value))

    def _origins(self, node: nodes.Node) -> set[tuple[str, Hashable]]:
        swapped = self.swaps.get(id(node))
        if swapped is not None:
            return {("column", self.columns[int(swapped.name.removeprefix(self.prefix))])}
        parts: list[nodes.Node] = []
        match node:
            case nodes.Name():
                whole_row = node.name == _ROW and self._bound(_ROW) == "free"
                return {("row", _ROW)} if whole_row else {("local", node.name)}
            case nodes.Getitem() | nodes.Getattr():
                parts = [node.node]
            case nodes.CondExpr():
                parts = [n for n in (node.expr1, node.expr2) if n is not None]
            case nodes.Or() | nodes.And():
                parts = [node.left, node.right]
            case nodes.Tuple() | nodes.List():
                parts = list(node.items)
            case nodes.Dict():
                parts = [pair.value for pair in node.items]
            case nodes.Filter() if node.name in _PASSING_FILTERS and node.node is not None:
                parts = [node.node]
            case nodes.Call(node=nodes.Getattr() as method) if method.attr in _PASSING_METHODS:
                parts = [method.node]
        return set().union(*map(self._origins, parts))


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
