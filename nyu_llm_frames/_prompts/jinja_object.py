"""A user's own `jinja2.Template`, which does not keep its source.

Comes in: a compiled template and column labels. Goes out: the names that it looks up, those whose
NA it tests (`if x`, `x or y`, `x is none`, `x | default(...)`), both read off its bytecode, and
its rendering: in our sandbox, without Jinja's globals, with the filters and globals of its maker.
"""

from __future__ import annotations

import dis
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from jinja2 import Environment, Template
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.environment import create_cache
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from nyu_llm_frames._prompts.compiled import ENVIRONMENT, rows_as_dicts
from nyu_llm_frames._prompts.messages import missing_column, row_failure
from nyu_llm_frames._prompts.names import Names

_LOCAL = re.compile(r"l_\d+_(.+)")
_NA_TESTS = frozenset({"none", "defined", "undefined", "default", "d"})
_QUIET = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "RESUME", "NOT_TAKEN"})
_LOADERS = frozenset({"get_template", "select_template", "get_or_select_template"})
_BRANCHES = ("POP_JUMP", "JUMP_IF", "TO_BOOL", "UNARY_NOT", "COPY", "DUP_TOP")
_OF_DICTS = frozenset(dir(dict))  # `row.items()` is the whole row, also beside a column "items"
_COMPARES = ("COMPARE_OP", "IS_OP")
_CALLS = ("CALL", "PRECALL", "KW_NAMES")


class TemplateObject:
    """A user's own `jinja2.Template`, rendered row by row.

    It keeps no source, so the names it uses are read off its code. Columns, `row` and `index` come
    before the globals of its environment.
    """

    pieces = None  # its environment decides what is printed

    def __init__(
        self,
        template: Template,
        columns: Sequence[Hashable],
        apart: frozenset[Hashable] = frozenset(),
    ) -> None:
        self._template = sandboxed(template)
        found = lookups(template)
        apart -= found.words
        self.text = " ".join(sorted(found.words))
        for name in sorted(
            found.required - set(columns) - {"row", "index"} - set(self._template.globals)
        ):
            raise missing_column(name, 0, "", columns)
        words = {label for label in columns if isinstance(label, str)} - {"row", "index"}
        self._row = "row" in found.asked or found.loads_others
        self._index = "index" in found.asked or found.loads_others
        self._columns = tuple(columns)
        self._used = tuple(sorted(words - apart if found.loads_others else words & found.asked))
        every = frozenset(columns)
        whole = found.loads_others or (self._row and not found.items <= every)
        of_row = (every - apart) | (found.items & every) if whole else found.items
        self._in_row = tuple(label for label in columns if label in of_row)
        bare = of_row - found.tested_items - (found.tested & of_row)
        self.names = Names(
            targets=(),
            swaps={},
            rows="",
            columns=frozenset(self._used) | of_row,
            tested=(frozenset(self._used) & found.tested) | (of_row - bare),
            uses_row=self._row,
            uses_index=self._index,
            stands_in_loop=False,
        )

    def texts(
        self,
        data: Mapping[Hashable, Sequence[object]],
        index: Sequence[object] | None,
        n: int,
        labels: Sequence[Hashable] | None,
        first: int = 0,
    ) -> list[str]:
        rows = rows_as_dicts(data, self._in_row, n) if self._row else None
        found: list[str] = []
        for i in range(n):
            context: dict[str, object] = {name: data[name][i] for name in self._used}
            if rows is not None:
                context["row"] = next(rows)
            if self._index:
                context["index"] = i if index is None else index[i]
            try:
                found.append(str(self._template.render(context)))
            except Exception as error:
                raise row_failure(error, "", None, i, labels, first) from error
        return found


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a compiled template asks its context for.

    Attributes
    ----------
    asked
        All names.
    required
        Those that the template never stores itself, so that they must be there.
    tested
        Those whose NA it tests.
    items, tested_items
        The same of what stands in ``row[...]``; None among the items where that cannot be told.
    loads_others
        Whether it includes, extends or imports templates, whose names cannot be known.
    words
        All texts in it, names of columns or not.
    """

    asked: frozenset[str]
    required: frozenset[str]
    tested: frozenset[str]
    items: frozenset[str | None]
    tested_items: frozenset[str]
    loads_others: bool
    words: frozenset[str]


def lookups(template: Template) -> Lookups:
    """Read off its bytecode what a template looks up; Jinja fetches with ``resolve('name')``."""
    reader = _Reader()
    blocks = [block.__code__ for block in template.blocks.values()]
    loads_others = False
    words: set[str] = set()
    for code in _codes([template.root_render_func.__code__, *blocks]):
        reader.read(code)
        loads_others |= not _LOADERS.isdisjoint(code.co_names)
        words.update(_texts(code.co_consts))
    asked, stored = reader.asked, reader.stored
    return Lookups(
        asked=frozenset(asked),
        required=frozenset(name for name in asked if stored[name] <= asked[name]),
        tested=frozenset(reader.tested & set(asked)),
        items=frozenset(reader.items),
        tested_items=frozenset(reader.tested_items),
        loads_others=loads_others,
        words=frozenset(words),
    )


def _codes(codes: list[CodeType]) -> Iterator[CodeType]:
    while codes:
        code = codes.pop()
        yield code
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]


def _texts(constants: Iterable[object]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from _texts(constant)


class _Reader:
    """Collects what code objects do with names, one instruction after the other."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.tested: set[str] = set()
        self.items: set[str | None] = set()
        self.tested_items: set[str] = set()

    def read(self, code: CodeType) -> None:
        steps = [i for i in dis.get_instructions(code) if i.opname not in _QUIET]
        tests: set[str] = set()
        constant, after_resolve, awaits_operand, last_local, item = "", False, False, "", ""
        cleared = False  # `l_1_x = missing`, at the end of a loop, stores nothing
        compared: set[str] = set()
        compared_items: set[str] = set()
        for step in steps:
            is_none = step.opname.startswith("LOAD_CONST") and step.argval is None
            if step.opname in _COMPARES:  # with None, which was loaded last
                self.tested |= compared
                self.tested_items |= compared_items
            compared = {last_local} if is_none and last_local else set()
            compared_items = {item} if is_none and item else set()
            if last_local and step.opname.startswith(_BRANCHES):
                self.tested.add(last_local)
            if item and step.opname.startswith(_BRANCHES):
                self.tested_items.add(item)
            is_text = step.opname == "LOAD_CONST" and isinstance(step.argval, str)
            if last_local == "row" and not (is_text or _loads_missing(step)):
                self.items.add(None)  # the row as a whole
            if last_local == "row" and is_text:
                item = step.argval
                self.items.add(None if item in _OF_DICTS else item)
                if awaits_operand:
                    self.tested_items.add(item)
                    awaits_operand = False
            elif not step.opname.startswith(_CALLS):
                item = ""
            last_local = ""
            if is_text:
                if after_resolve:
                    self.asked[step.argval] += 1
                constant = step.argval
            after_resolve = False
            if not step.opname.startswith(("STORE", "COPY", "DUP_TOP", "SWAP")):
                cleared = False
            for action, name in _variables(step):
                local = _LOCAL.fullmatch(name)
                if action == "STORE":
                    if local:
                        self.stored[local[1]] += not cleared
                    elif constant in _NA_TESTS:
                        tests.add(name)
                    constant = ""
                elif name == "missing":
                    cleared = True
                elif name == "resolve":
                    after_resolve = True
                elif name in tests:
                    awaits_operand = True
                elif local:
                    last_local = local[1]
                    if awaits_operand and last_local != "row":
                        self.tested.add(last_local)
                        awaits_operand = False


def _loads_missing(step: dis.Instruction) -> bool:
    """Whether it is the question whether a variable is there at all."""
    return any(name == "missing" for _, name in _variables(step))


def _variables(step: dis.Instruction) -> Iterator[tuple[str, str]]:
    """Variables that an instruction loads and stores; newer Pythons join two in one."""
    actions = re.findall(r"(LOAD|STORE)_(?:FAST|DEREF)", step.opname)
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return ((a, n) for a, n in zip(actions, names, strict=False) if isinstance(n, str))


# --- the sandbox ------------------------------------------------------------------------------
def sandboxed(template: Template) -> Template:
    """Return the same template in our sandbox: its functions, with another environment."""
    theirs = template.environment
    ours = _sandbox(theirs)
    code = template.root_render_func.__globals__
    space: dict[str, Any] = {**code, "environment": ours}
    for name, value in code.items():
        if isinstance(value, FunctionType) and value.__globals__ is code:
            defaults = tuple(ours if d is theirs else d for d in value.__defaults__ or ())
            space[name] = FunctionType(value.__code__, space, name, defaults, value.__closure__)
    space["blocks"] = {name: space[block.__name__] for name, block in template.blocks.items()}
    own = {k: v for k, v in template.globals.items() if not _is_jinjas(k, v)}
    globals_ = {**own, "range": ours.globals["range"]}
    return ours.template_class._from_namespace(ours, space, globals_)


def _is_jinjas(name: str, value: object) -> bool:
    return name in DEFAULT_NAMESPACE and value is DEFAULT_NAMESPACE[name]


def _sandbox(theirs: Environment) -> ImmutableSandboxedEnvironment:
    """Return an environment that does what `theirs` does, as far as a sandbox allows it."""
    kind: Any = type(theirs)
    if not issubclass(kind, ImmutableSandboxedEnvironment):
        kind = type("_Sandbox", (ImmutableSandboxedEnvironment, kind), {})
    ours: ImmutableSandboxedEnvironment = kind.__new__(kind)
    vars(ours).update(vars(theirs))
    strict = ENVIRONMENT
    ours.binop_table, ours.unop_table = dict(strict.binop_table), dict(strict.unop_table)
    ours.filters = {**theirs.filters}
    for name in ("default", "d"):
        if theirs.filters.get(name) is FILTERS[name]:
            ours.filters[name] = strict.filters[name]
    if theirs.filters.get("random") is FILTERS["random"]:
        del ours.filters["random"]  # a row's text depends on that row alone
    ours.tests = {**theirs.tests}
    for name in ("defined", "undefined"):
        if theirs.tests.get(name) is TESTS[name]:
            ours.tests[name] = strict.tests[name]
    own = {k: v for k, v in theirs.globals.items() if not _is_jinjas(k, v)}
    ours.globals = {**own, "range": strict.globals["range"]}
    # What is loaded besides is compiled anew, in the sandbox.
    ours.cache, ours.bytecode_cache = create_cache(50), None
    ours.context_class = type("_Context", (_Guarded, theirs.context_class), {})
    return ours


class _Guarded(Context):
    """Calls what the sandbox lets pass; code that was compiled elsewhere asks the context alone."""

    def call(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        plain = SimpleNamespace(call=super().call)
        environment: Any = self.environment
        return environment.call(plain, obj, *args, **kwargs)
