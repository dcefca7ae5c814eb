"""Missing values while a template is rendered, and how their use is detected.

Comes in: plain Python cells, None where a value is missing, also inside of lists and dicts. Goes
out: the same with `Missing` in those places, which reports when a template prints or compares it.
Use is detected during rendering, for each row, and not from the text of the template.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import is_
from types import NoneType
from typing import Any, TypeAlias

from jinja2.runtime import Undefined

from nyu_llm_frames._stages.prompts.python_values import PlaceName

_USED: ContextVar[list[Hashable] | None] = ContextVar("_USED", default=None)
_MAY_HOLD_NONE = (NoneType, list, dict, tuple)


INDEX = PlaceName("the index")
Holes: TypeAlias = defaultdict[int, set[Hashable]]
"""Positions of rows that print or compare missing values, and the columns of these."""


@contextmanager
def missing_values() -> Iterator[list[Hashable]]:
    """Collect the columns of missing values that are printed or compared in this block."""
    used: list[Hashable] = []
    token = _USED.set(used)
    try:
        yield used
    finally:
        _USED.reset(token)


def _reads(result: Callable[[Missing], Any]) -> Any:
    """Make a method that records the use of the missing value and goes on with something empty.

    It does not raise: the row is given up anyway, and so all of its missing values are counted.
    """

    def method(self: Missing, *args: object, **kwargs: object) -> Any:
        mark_used(self)
        return result(self)

    return method


class Missing(Undefined):
    """A missing value: false, none, not defined, and its fields are missing, too.

    Whatever else is done with it makes its row one with a missing value. It is of Jinja's own kind
    for what is not there, so that Jinja's filters give their defaults in its place.
    """

    __slots__ = ("_column",)

    def __init__(self, column: Hashable) -> None:
        super().__init__(name=str(column))
        self._column = column

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> Any:
        return self

    def __eq__(self, other: object) -> bool:
        if other is not None:
            mark_used(self)
        return other is None

    def __ne__(self, other: object) -> bool:
        return not self == other

    __str__ = __repr__ = __format__ = _reads(lambda _: "")
    __len__ = __hash__ = __int__ = __index__ = _reads(lambda _: 0)
    __float__ = _reads(lambda _: 0.0)
    __complex__ = _reads(lambda _: 0j)
    __iter__ = __reversed__ = _reads(lambda _: iter(()))
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _reads(lambda _: False)
    __call__ = __abs__ = __round__ = __pos__ = __neg__ = _reads(lambda self: self)
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _reads(lambda self: self)
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _reads(lambda self: self)
    __mod__ = __rmod__ = __pow__ = __rpow__ = _reads(lambda self: self)


def mark_used(value: object) -> None:
    """Report that a value was printed or compared, if it is missing."""
    used = _USED.get()
    if used is not None and isinstance(value, Missing):
        used.append(value._column)


def marked(cells: Sequence[object], column: Hashable) -> Sequence[object]:
    """Put `Missing` in the place of each None; the same object comes back where there is none."""
    found: Sequence[object] = _items(cells, Missing(column))
    return found


def _items(cells: Any, missing: Missing) -> Any:
    if set(map(type, cells)).isdisjoint(_MAY_HOLD_NONE):
        return cells
    found = [_marked(cell, missing) for cell in cells]
    return cells if all(map(is_, found, cells)) else found


def _marked(value: Any, missing: Missing) -> Any:
    if value is None:
        return missing
    kind = type(value)
    if kind is list:
        return _items(value, missing)
    if kind is tuple:  # the key of a dict
        return tuple(_items(value, missing))
    if kind is dict:
        keys, cells = tuple(value), tuple(value.values())
        new_keys, new_cells = _items(keys, missing), _items(cells, missing)
        if new_keys is not keys or new_cells is not cells:
            return dict(zip(new_keys, new_cells, strict=True))
    return value
