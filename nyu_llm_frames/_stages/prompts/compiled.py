"""Compile one template source into a function from columns to texts.

The template is compiled once, around a loop over the rows: calling Jinja once per row takes
thirty times as long.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to render."""

    data: Mapping[Hashable, Sequence[object]]  # plain Python values by column, n each
    index: Sequence[object] | None  # what `index` prints; None numbers the rows from 0
    n: int
    labels: Sequence[Hashable] | None = None  # of the index, for errors only
    first: int = 0  # position of the first row, for errors only

    def column(self, label: Hashable) -> Sequence[object]:
        """The cells of a column, with its missing values marked."""
        return marked(self.data[label], label)

    def numbers(self) -> Sequence[object]:
        """What `index` prints in each row."""
        return range(self.n) if self.index is None else marked(self.index, INDEX)

    def dicts(self, columns: Sequence[Hashable]) -> Iterator[dict[Hashable, object]]:
        """Each row as a dict, made on demand."""
        if not columns:
            return ({} for _ in range(self.n))
        return map(dict, map(zip, repeat(columns), zip(*map(self.column, columns), strict=True)))

    def failure(
        self, error: Exception, position: int, source: str = "", line: int | None = None
    ) -> TemplateError:
        """The error of a row that cannot be rendered."""
        return row_failure(error, source, line, position, self.labels, self.first)


class Compiled:
    """One message of a prompt, ready to render; `text` is its source."""

    def __init__(
        self, source: str, columns: Sequence[Hashable], hidden_from_row: frozenset[Hashable]
    ) -> None:
        self.text = source
        with _errors_in_words(source, columns):
            tree = _parse(source)
            hidden_from_row -= _words(tree)
            names = resolve(tree, columns, hidden_from_row)
            self._names, self.columns = names, names.columns
            self.uses_row, self.uses_index = names.uses_row, names.uses_index
            self._in_row = tuple(label for label in columns if label not in hidden_from_row)
            whole = {"row": self.uses_row, "index": self.uses_index}
            self._targets = (*(name for name, _ in names.targets), *(n for n in whole if whole[n]))
            tree = _Rewriter(names).visit(tree)
            tree.set_environment(ENVIRONMENT)
            self._template, self._loops = self._compiled(tree)

    def _compiled(self, tree: nodes.Template) -> tuple[Template, bool]:
        """The compiled template, and whether it loops over the rows itself."""
        if self._targets and self._names.stands_in_loop:
            try:
                return _load(_in_loop(tree, self._targets, self._names.rows)), True
            except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError):
                pass  # one level deeper than Python allows, or a tag that no loop may hold
        return _load(tree), False

    def texts(self, rows: Rows, missing: Holes) -> list[str]:
        """Render rows; what uses a missing value has no text, and goes into `missing`."""
        found: list[str] = []
        append = found.append
        left = self._variables(rows)
        with missing_values() as used:
            while rows.n:
                try:
                    for text in self._texts(left):
                        if used:
                            missing[len(found)] |= set(used)
                            used.clear()
                        append(text)
                    break
                except Exception as error:
                    # One text came out for each row before the one that failed.
                    if not used:
                        line = _line(error, self._template)
                        raise rows.failure(error, len(found), self.text, line) from error
                    missing[len(found)] |= set(used)
                    used.clear()
                    append("")
        return found

    def _texts(self, rows: Iterator[Any]) -> Iterator[str]:
        if self._loops:
            return self._pieces({self._names.rows: rows})
        if self._targets:
            return ("".join(self._pieces(dict(zip(self._targets, r, strict=True)))) for r in rows)
        text = "".join(self._pieces({}))
        return (text for _ in rows)

    def _pieces(self, variables: dict[str, Any]) -> Iterator[str]:
        return self._template.root_render_func(self._template.new_context(variables))

    def _variables(self, rows: Rows) -> Iterator[Any]:
        """The values of `_targets`, row by row; of a single one in a loop, as it is."""
        cells: list[Iterable[object]] = [rows.column(label) for _, label in self._names.targets]
        if self.uses_row:
            cells.append(rows.dicts(self._in_row))
        if self.uses_index:
            cells.append(rows.numbers())
        if not cells:
            return iter(range(rows.n))
        return iter(cells[0]) if self._loops and len(cells) == 1 else zip(*cells, strict=True)


@contextmanager
def _errors_in_words(source: str, columns: Sequence[Hashable]) -> Iterator[None]:
    """Raise our errors for what Jinja and Python refuse."""
    try:
        yield
    except UnknownName as error:
        raise missing_column(error.name, error.line, source, columns) from None
    except TemplateSyntaxError as error:
        raise syntax_error(error, source, columns) from None
    except (SyntaxError, RecursionError, MemoryError):
        raise TemplateError(
            "The template is nested too deeply to be compiled. Take some `for` and `if` apart with"
            " macros."
        ) from None


def _parse(source: str) -> nodes.Template:
    tree = ENVIRONMENT.parse(source)
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

    def __init__(self, names: Names) -> None:
        self._swaps = names.swaps
        self._cells = {variable for variable, label in names.targets if variable != label}

    def visit_Name(self, node: nodes.Name) -> nodes.Name:
        found = self._swaps.get(node.name)
        return node if found is None else nodes.Name(found, "load", lineno=node.lineno)

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
        if isinstance(node, nodes.TemplateData | nodes.Const):
            return node
        if isinstance(node, nodes.Name) and node.name in self._cells:
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
