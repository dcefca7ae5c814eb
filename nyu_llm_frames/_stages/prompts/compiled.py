"""Compile one template source into a function from columns to texts.

Comes in: Jinja source and column labels. Goes out: `Compiled`; its `texts` renders all rows.
The template is compiled once, around a loop over the rows: calling Jinja once per row takes
thirty times as long.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from nyu_llm_frames._stages.prompts.environment import ENVIRONMENT, PRINTABLE, ROW_TEXT
from nyu_llm_frames._stages.prompts.missing import INDEX, Holes, marked, missing_values
from nyu_llm_frames._stages.prompts.names import Names, UnknownName, resolve
from nyu_llm_frames._stages.prompts.template_errors import (
    missing_column,
    row_failure,
    syntax_error,
    unavailable_tag,
    unknown_word,
)
from nyu_llm_frames.errors import TemplateError

_FILENAME = "<prompt template>"
_LOADING_TAGS: tuple[tuple[type[nodes.Node], str], ...] = (
    (nodes.Include, "include"),
    (nodes.Extends, "extends"),
    (nodes.Import, "import"),
    (nodes.FromImport, "from"),
)


class Compiled:
    """One message of a prompt, ready to render.

    Attributes
    ----------
    names
        What the source uses.
    """

    __slots__ = ("_in_row", "_loops", "_targets", "_template", "names", "source")

    def __init__(
        self,
        source: str,
        columns: Sequence[Hashable],
        hidden_from_row: frozenset[Hashable] = frozenset(),
    ) -> None:
        self.source = source
        tree = _parse(source, columns)
        hidden_from_row -= _words(tree)
        try:
            self.names: Names = resolve(tree, columns, hidden_from_row)
        except UnknownName as error:
            raise missing_column(error.name, error.line, source, columns) from None
        except RecursionError:
            raise _too_deep() from None
        tree = _Rewriter(self.names.swaps).visit(tree)
        tree.set_environment(ENVIRONMENT)
        self._in_row = tuple(label for label in columns if label not in hidden_from_row)
        self._targets = tuple(name for name, _ in self.names.targets) + tuple(
            name
            for name, used in (("row", self.names.uses_row), ("index", self.names.uses_index))
            if used
        )
        self._loops = False
        self._template = self._compiled(tree, columns)

    def _compiled(self, tree: nodes.Template, columns: Sequence[Hashable]) -> Template:
        if self._targets and self.names.stands_in_loop:
            try:
                found = _load(_in_loop(tree, self._targets, self.names.rows))
            except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError):
                pass  # one level deeper than Python allows, or a tag that no loop may hold
            else:
                self._loops = True
                return found
        try:
            return _load(tree)
        except TemplateSyntaxError as error:
            raise syntax_error(error, self.source, columns) from None
        except (SyntaxError, RecursionError, MemoryError):
            raise _too_deep() from None

    def texts(
        self,
        data: Mapping[Hashable, Sequence[object]],
        index: Sequence[object] | None,
        n: int,
        labels: Sequence[Hashable] | None,
        first: int,
        missing: Holes,
    ) -> list[str]:
        """Render `n` rows; what uses a missing value has no text, and goes into `missing`."""
        found: list[str] = []
        append = found.append
        rows = self._rows(data, index, n)
        with missing_values() as used:
            while n:
                try:
                    for text in self._texts(rows):
                        if used:
                            missing[len(found)] |= set(used)
                            used.clear()
                        append(text)
                    break
                except Exception as error:
                    # One text came out for each row before the one that failed.
                    if not used:
                        line = _line(error, self._template)
                        raise row_failure(
                            error, self.source, line, len(found), labels, first
                        ) from error
                    missing[len(found)] |= set(used)
                    used.clear()
                    append("")
        return found

    @property
    def text(self) -> str:
        """What its author wrote."""
        return self.source

    def _texts(self, rows: Iterator[Any]) -> Iterator[str]:
        if self._loops:
            return self._pieces({self.names.rows: rows})
        if self._targets:
            return ("".join(self._pieces(dict(zip(self._targets, r, strict=True)))) for r in rows)
        text = "".join(self._pieces({}))
        return (text for _ in rows)

    def _pieces(self, variables: dict[str, Any]) -> Iterator[str]:
        return self._template.root_render_func(self._template.new_context(variables))

    def _rows(
        self, data: Mapping[Hashable, Sequence[object]], index: Sequence[object] | None, n: int
    ) -> Iterator[Any]:
        used = {label for _, label in self.names.targets}
        if self.names.uses_row:
            used.update(self._in_row)
        data = {label: marked(data[label], label) for label in used}
        cells: list[Iterable[object]] = [data[label] for _, label in self.names.targets]
        if self.names.uses_row:
            cells.append(rows_as_dicts(data, self._in_row, n))
        if self.names.uses_index:
            cells.append(range(n) if index is None else marked(index, INDEX))
        if not cells:
            return iter(range(n))
        return iter(cells[0]) if self._loops and len(cells) == 1 else zip(*cells, strict=True)


def rows_as_dicts(
    data: Mapping[Hashable, Sequence[object]], columns: Sequence[Hashable], n: int
) -> Iterator[dict[Hashable, object]]:
    """Each row as a dict, made on demand."""
    if not columns:
        return ({} for _ in range(n))
    values = zip(*(data[label] for label in columns), strict=True)
    return map(dict, map(zip, repeat(columns), values))


def _parse(source: str, columns: Sequence[Hashable]) -> nodes.Template:
    try:
        tree = ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise syntax_error(error, source, columns) from None
    except RecursionError:
        raise _too_deep() from None
    for kind, tag in _LOADING_TAGS:
        for node in tree.find_all(kind):
            raise unavailable_tag(tag, node.lineno, source)
    for word in tree.find_all((nodes.Filter, nodes.Test)):
        is_filter = isinstance(word, nodes.Filter)
        known = ENVIRONMENT.filters if is_filter else ENVIRONMENT.tests
        if word.name not in known:
            spelled = [name for name in known if " " not in name]
            raise unknown_word(
                "filter" if is_filter else "test", word.name, word.lineno, source, spelled
            )
    return tree


def _words(tree: nodes.Template) -> frozenset[Hashable]:
    """Return all that may be the name of a column somewhere in a template."""
    found: set[Hashable] = set()
    for node in tree.find_all((nodes.Const, nodes.Name, nodes.Getattr)):
        match node:
            case nodes.Const(value=str() as text):
                found.add(text)
            case nodes.Name(name=text) | nodes.Getattr(attr=text):
                found.add(text)
    return frozenset(found)


def _load(tree: nodes.Template) -> Template:
    code = ENVIRONMENT.compile(tree, filename=_FILENAME)
    return Template.from_code(ENVIRONMENT, code, ENVIRONMENT.make_globals(None))


def _in_loop(tree: nodes.Template, targets: Sequence[str], rows: str) -> nodes.Template:
    """Put a tree inside a loop that yields one string per item of the variable `rows`.

    The filter block collects what the body prints, so that the compiled template yields each
    row's whole text as one piece. Nothing is split afterwards, so no cell can forge a boundary.
    """
    items: list[nodes.Expr] = [nodes.Name(t, "store", lineno=1) for t in targets]
    target = items[0] if len(items) == 1 else nodes.Tuple(items, "store", lineno=1)
    text = nodes.Filter(None, ROW_TEXT, [], [], None, None, lineno=1)
    body = nodes.FilterBlock(tree.body, text, lineno=1)
    loop = nodes.For(target, nodes.Name(rows, "load", lineno=1), [body], [], None, False, lineno=1)
    wrapped = nodes.Template([loop], lineno=1)
    wrapped.set_environment(ENVIRONMENT)
    return wrapped


class _Rewriter(NodeTransformer):
    """Put the columns' variables in place, and a guard on everything else that is printed."""

    def __init__(self, swaps: Mapping[int, nodes.Name]) -> None:
        self._swaps = swaps
        self._own = {id(name) for name in swaps.values()}

    def visit(self, node: nodes.Node, *args: object, **kwargs: object) -> Any:
        if isinstance(node, nodes.NSRef):
            return node
        return self._swaps.get(id(node)) or super().visit(node, *args, **kwargs)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Make a test of `in`: Python's own never compares a missing value with another."""
        self.generic_visit(node)
        if len(node.ops) > 1 or node.ops[0].op not in ("in", "notin"):
            return node
        (operand,) = node.ops
        line = node.lineno
        found = nodes.Test(node.expr, "in", [operand.expr], [], None, None, lineno=line)
        return found if operand.op == "in" else nodes.Not(found, lineno=line)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [self._guarded(child) for child in node.nodes]
        return node

    def _guarded(self, node: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.TemplateData | nodes.Const) or id(node) in self._own:
            return node
        return nodes.Filter(node, PRINTABLE, [], [], None, None, lineno=node.lineno)


def _line(error: BaseException, template: Template) -> int | None:
    """The line of the source at which an error occurred."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILENAME:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _too_deep() -> TemplateError:
    return TemplateError(
        "The template is nested too deeply to be compiled. Take some `for` and `if` apart with"
        " macros."
    )
