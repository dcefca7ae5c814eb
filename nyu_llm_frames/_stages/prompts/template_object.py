"""Render a user's own `jinja2.Template`, which does not keep its source.

Comes in: a compiled template and column labels. Goes out: its columns (those that its text
constants name) and its rendering: in our sandbox, without Jinja's globals, with the filters and
globals of its own environment.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from jinja2 import Environment, Template
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.environment import create_cache
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.runtime import Context, Undefined
from jinja2.utils import missing as nothing

from nyu_llm_frames._stages.prompts.compiled import Rows
from nyu_llm_frames._stages.prompts.environment import (
    ENVIRONMENT,
    PromptEnvironment,
    prepare_environment,
)
from nyu_llm_frames._stages.prompts.missing import Holes, Missing, missing_values
from nyu_llm_frames._stages.prompts.names import UnknownName
from nyu_llm_frames._stages.prompts.template_errors import missing_column

_LOADERS = frozenset({"get_template", "select_template", "get_or_select_template"})
_OF_DICTS = frozenset(dir(dict))  # `row.items()` is the whole row, also beside a column "items"


class TemplateObject:
    """A user's own `jinja2.Template`, rendered row by row.

    It keeps no source, so what it does with a missing value is unknown: one in its columns is
    an error. Columns, `row` and `index` come before the globals of its environment.
    """

    def __init__(
        self, template: Template, columns: Sequence[Hashable], hidden_from_row: frozenset[Hashable]
    ) -> None:
        self._template = sandboxed(template)
        codes = list(_codes(template))
        every = frozenset(_texts([code.co_consts for code in codes]))
        self.text = " ".join(sorted(every))
        words: set[Hashable] = {
            text for code in codes for text in code.co_consts if isinstance(text, str)
        }
        named = frozenset(columns) & words
        loads_others = any(not _LOADERS.isdisjoint(code.co_names) for code in codes)
        self.uses_row = "row" in words or loads_others
        self.uses_index = "index" in words or loads_others
        self._whole = loads_others or (self.uses_row and not named - _OF_DICTS)
        self.columns = frozenset(columns) - (hidden_from_row - every) if self._whole else named
        self._labels = tuple(dict.fromkeys(columns))
        self._in_row = tuple(label for label in self._labels if label in self.columns)

    def texts(self, rows: Rows, missing: Holes) -> list[str]:
        """Render rows; one with a missing value has no text, and goes into `missing`."""
        numbers = rows.numbers()
        found: list[str] = []
        with missing_values() as used:
            for i, row in enumerate(rows.dicts(self._in_row)):
                used += [label for label, value in row.items() if isinstance(value, Missing)]
                try:
                    found.append("" if used else self._text(row, numbers[i]))
                except UnknownName as error:
                    raise missing_column(error.name, 0, "", self._labels) from None
                except Exception as error:
                    if not used:
                        raise rows.failure(error, i) from error
                    found.append("")
                if used:
                    missing[i] |= set(used)
                    used.clear()
        return found

    def _text(self, row: dict[Hashable, object], index: object) -> str:
        context = {name: value for name, value in row.items() if isinstance(name, str)}
        if self.uses_row:
            context["row"] = _Row(row) if self._whole else _NamedColumns(row)
        if self.uses_index:
            context["index"] = index
        return str(self._template.render(context))


class _Row(dict[Hashable, object]):
    """A row that refuses unknown names, as where the text of the template is given."""

    def __missing__(self, key: Hashable) -> object:
        raise UnknownName(key, 0)

    def get(self, key: Hashable, default: object = None) -> Any:
        return self[key]


class _NamedColumns(_Row):
    """The columns of a row that a template names, for one that also reads others."""

    def _refuse(self, *_: object) -> Any:
        raise TemplateRuntimeError(
            "it reads the row as a whole, or a column by a computed name, and names others "
            "besides; pass the template's text, which shows what it needs"
        )

    __iter__ = __len__ = __repr__ = keys = values = items = copy = _refuse
    __missing__: Any = _refuse


def _codes(template: Template) -> Iterator[CodeType]:
    codes = [block.__code__ for block in template.blocks.values()]
    codes.append(template.root_render_func.__code__)
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


def _sandbox(theirs: Environment) -> PromptEnvironment:
    """Return an environment that does what `theirs` does, as far as a sandbox allows it."""
    kind: Any = type("_Sandbox", (PromptEnvironment, type(theirs)), {})
    ours: PromptEnvironment = kind.__new__(kind)
    vars(ours).update(vars(theirs))
    prepare_environment(ours)
    ours.binop_table, ours.unop_table = dict(ENVIRONMENT.binop_table), dict(ENVIRONMENT.unop_table)
    own = {k: v for k, v in theirs.globals.items() if not _is_jinjas(k, v)}
    ours.globals = {**own, "range": ENVIRONMENT.globals["range"]}
    # Other loaded templates are compiled again, in the sandbox.
    ours.cache, ours.bytecode_cache = create_cache(50), None
    ours.context_class = type("_Context", (_Guarded, theirs.context_class), {})
    printed = {"__repr__": theirs.undefined.__str__}  # inside of a list as elsewhere
    ours.undefined = type("_Unknown", (_Unknown, theirs.undefined), printed)
    return ours


class _Unknown(Undefined):
    """Refuses a name that is no column; absent fields are left to its own environment."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = nothing,
        name: Any = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        if exc is SecurityError:  # its own environment would print nothing
            raise exc(hint)
        if hint is None and obj is nothing and name is not None:
            raise UnknownName(name, 0)
        super().__init__(hint, obj, name, exc)


class _Guarded(Context):
    """Calls what the sandbox lets pass; code compiled elsewhere only calls the context."""

    def call(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        plain = SimpleNamespace(call=super().call)
        environment: Any = self.environment
        return environment.call(plain, obj, *args, **kwargs)
