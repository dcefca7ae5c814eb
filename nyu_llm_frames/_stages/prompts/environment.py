"""The Jinja environment of prompts: an immutable sandbox, strict about names and missing values."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinMethodType
from typing import Any

from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS

from nyu_llm_frames._stages.prompts.missing import Missing, mark_used
from nyu_llm_frames._stages.prompts.python_values import PlaceName

# Filters of our own: no template can spell a name with a blank.
ROW_TEXT = "row text"
PRINTABLE = "printable text"
_OF_CELLS = (list, dict, tuple)  # their missing values are marked before


class Absent(StrictUndefined):
    """A field that is not there, which Python would print as "Undefined" inside of a list."""

    __slots__ = ()
    __repr__ = StrictUndefined.__str__


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a None that comes out of an object is a missing value."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _found(super().getattr(obj, attribute), obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _found(super().getitem(obj, argument), obj, argument)

    def call(
        __self,
        __context: Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if isinstance(__obj, Missing):
            return __obj()
        name = getattr(__obj, "__name__", "")
        if isinstance(__obj, BuiltinMethodType) and name != "get":
            for value in (*args, *kwargs.values()):
                mark_used(value)  # Python's own methods would refuse it by its type
        found = super().call(__context, __obj, *args, **kwargs)
        return _found(found, None, args[0] if name == "get" and args else name)


def _found(value: object, origin: object, name: object) -> object:
    if value is None and not isinstance(origin, _OF_CELLS):
        return Missing(PlaceName(f"the field {name!r}"))
    return value


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """Jinja's `default`, for which None is undefined."""
    if value is None or isinstance(value, Undefined) or (boolean and not value):
        return default_value
    return value


def _items(value: Any) -> Any:
    """Jinja's `items`, which would take a missing dict for an empty one."""
    return iter(value) if isinstance(value, Missing) else FILTERS["items"](value)


def _is_defined(value: object) -> bool:
    return not (value is None or isinstance(value, Undefined))


def is_in(value: object, container: Any) -> bool:
    """Return whether a value is in a container, and report missing ones that leave it open."""
    if isinstance(value, Missing):
        if isinstance(container, _OF_CELLS) and any(item is None for item in container):
            return True  # `x in [none, ""]`
        mark_used(value)
        return False
    if isinstance(container, list | tuple):
        known = [item for item in container if not isinstance(item, Missing)]
        if len(known) < len(container) and value in known:
            return True
    return value in container


def _is_same(value: object, other: object) -> bool:
    if isinstance(value, Missing) or isinstance(other, Missing):
        return value == other
    return value is other


def _compared(name: str) -> Any:
    """Return one of Jinja's tests for a constant; a missing value is not one."""

    jinjas: Any = TESTS[name]

    def test(value: object) -> Any:
        mark_used(value)
        return jinjas(value)

    return test


def _quiet(name: str) -> Any:
    """Return one of Jinja's tests for a kind of value; a missing value is of no kind."""
    jinjas: Any = TESTS[name]
    return lambda value: not isinstance(value, Missing) and jinjas(value)


def printable(value: object) -> object:
    """Refuse what would print a memory address: another text, paid again, at every run."""
    if isinstance(value, str | int | float | Undefined) or value is None:
        return value
    if isinstance(value, Iterator):
        raise TemplateRuntimeError(
            "it prints a generator; write `| list` or `| join(', ')` after the filter"
        )
    if callable(value) and type(value).__module__ == "builtins":
        raise TemplateRuntimeError(
            f"it prints the function {getattr(value, '__name__', '')!r};"
            " write `()` after its name to call it"
        )
    return value


def _as_json(value: object) -> None:
    if not isinstance(value, Missing | StrictUndefined):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    str(value)  # a missing value reports its use, and an absent field raises


OUR_FILTERS: dict[str, Any] = {"default": _default, "d": _default, "items": _items}
OUR_TESTS: dict[str, Any] = {
    "none": lambda value: value is None or isinstance(value, Missing),
    "defined": _is_defined,
    "undefined": lambda value: not _is_defined(value),
    "in": is_in,
    "sameas": _is_same,
    **{name: _compared(name) for name in ("true", "false")},
    **{name: _quiet(name) for name in ("iterable", "sequence", "callable")},
}


def prepare_environment(environment: Any) -> None:
    """Give an environment our filters and tests in the place of Jinja's, and leave others alone."""
    environment.filters = dict(environment.filters)
    environment.tests = dict(environment.tests)
    if environment.filters.get("random") is FILTERS["random"]:
        del environment.filters["random"]  # a row's text depends on that row alone
    for known, jinjas, ours in (
        (environment.filters, FILTERS, OUR_FILTERS),
        (environment.tests, TESTS, OUR_TESTS),
    ):
        known.update({n: ours[n] for n in ours if n in known and known[n] is jinjas[n]})
    policies = dict(environment.policies)
    policies["json.dumps_kwargs"] = {"default": _as_json, **policies["json.dumps_kwargs"]}
    environment.policies = policies


def _environment() -> PromptEnvironment:
    environment = PromptEnvironment(undefined=Absent, autoescape=False, keep_trailing_newline=True)
    environment.globals = {"range": environment.globals["range"]}
    prepare_environment(environment)
    environment.filters.update({ROW_TEXT: str, PRINTABLE: printable})
    return environment


ENVIRONMENT = _environment()
