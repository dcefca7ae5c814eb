"""A user's own `jinja2.Template`, which does not keep its source.

Comes in: a compiled template and column labels. Goes out: the names that it looks up, those whose
NA it tests (`if x`, `x or y`, `x is none`), both read off its bytecode, and its rendering.
"""

from __future__ import annotations

import dis
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

from jinja2 import Template

from nyu_llm_frames._prompts.compiled import rows_as_dicts
from nyu_llm_frames._prompts.messages import missing_column, row_failure
from nyu_llm_frames._prompts.names import Names

_LOCAL = re.compile(r"l_\d+_(.+)")
_NA_TESTS = frozenset({"none", "defined", "undefined"})
_QUIET = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "RESUME", "NOT_TAKEN"})
_LOADERS = frozenset({"get_template", "select_template", "get_or_select_template"})
_BRANCHES = ("POP_JUMP", "JUMP_IF", "TO_BOOL", "UNARY_NOT", "COPY", "DUP_TOP")


class TemplateObject:
    """A user's own `jinja2.Template`, rendered row by row in its own environment.

    It keeps no source, so the names it uses are read off its code. Its environment decides about
    filters and globals; columns, `row` and `index` come before its globals.
    """

    pieces = None  # its environment decides what is printed

    def __init__(self, template: Template, columns: Sequence[Hashable]) -> None:
        self._template = template
        found = lookups(template)
        for name in sorted(
            found.required - set(columns) - {"row", "index"} - set(template.globals)
        ):
            raise missing_column(name, 0, "", columns)
        words = {label for label in columns if isinstance(label, str)} - {"row", "index"}
        self._row = "row" in found.asked or found.loads_others
        self._index = "index" in found.asked or found.loads_others
        self._columns = tuple(columns)
        self._used = tuple(sorted(words if found.loads_others else words & found.asked))
        all_columns = frozenset(columns)
        self.names = Names(
            targets=(),
            swaps={},
            rows="",
            columns=all_columns if self._row else frozenset(self._used),
            tested=all_columns if "row" in found.tested else frozenset(self._used) & found.tested,
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
        rows = rows_as_dicts(data, self._columns, n) if self._row else None
        found: list[str] = []
        for i in range(n):
            context: dict[str, object] = {name: data[name][i] for name in self._used}
            if rows is not None:
                context["row"] = next(rows)
            if self._index:
                context["index"] = i if index is None else index[i]
            try:
                found.append(self._template.render(context))
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
        Those whose NA it tests. `default` is no test: in a user's own environment it does not
        take None for undefined.
    loads_others
        Whether it includes, extends or imports templates, whose names cannot be known.
    """

    asked: frozenset[str]
    required: frozenset[str]
    tested: frozenset[str]
    loads_others: bool


def lookups(template: Template) -> Lookups:
    """Read off its bytecode what a template looks up; Jinja fetches with ``resolve('name')``."""
    asked: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    tested: set[str] = set()
    blocks = [block.__code__ for block in template.blocks.values()]
    loads_others = False
    for code in _codes([template.root_render_func.__code__, *blocks]):
        _read(code, asked, stored, tested)
        loads_others |= not _LOADERS.isdisjoint(code.co_names)
    return Lookups(
        asked=frozenset(asked),
        required=frozenset(name for name in asked if stored[name] <= asked[name]),
        tested=frozenset(tested & set(asked)),
        loads_others=loads_others,
    )


def _codes(codes: list[CodeType]) -> Iterator[CodeType]:
    while codes:
        code = codes.pop()
        yield code
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]


def _read(code: CodeType, asked: Counter[str], stored: Counter[str], tested: set[str]) -> None:
    steps = [i for i in dis.get_instructions(code) if i.opname not in _QUIET]
    tests: set[str] = set()
    constant, after_resolve, awaits_operand, last_local = "", False, False, ""
    cleared = False  # `l_1_x = missing`, at the end of a loop, stores nothing
    for step in steps:
        if last_local and step.opname.startswith(_BRANCHES):
            tested.add(last_local)
        last_local = ""
        if step.opname == "LOAD_CONST" and isinstance(step.argval, str):
            if after_resolve:
                asked[step.argval] += 1
            constant = step.argval
        after_resolve = False
        if not step.opname.startswith(("STORE", "COPY", "DUP_TOP", "SWAP")):
            cleared = False
        for action, name in _variables(step):
            local = _LOCAL.fullmatch(name)
            if action == "STORE":
                if local:
                    stored[local[1]] += not cleared
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
                if awaits_operand:
                    tested.add(last_local)
                    awaits_operand = False


def _variables(step: dis.Instruction) -> Iterator[tuple[str, str]]:
    """Variables that an instruction loads and stores; newer Pythons join two in one."""
    actions = re.findall(r"(LOAD|STORE)_(?:FAST|DEREF)", step.opname)
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return ((a, n) for a, n in zip(actions, names, strict=False) if isinstance(n, str))
