"""`register`: adds the accessor under a name, where a library does not have it yet.

Comes in: a name. Goes out: ``df.<name>`` of every imported library, and hints for a Series and for
groups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nyu_llm_frames._api.accessor import FrameMethods, TableMethods
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames.errors import ConfigurationError

Place = tuple[Any, Any, Callable[[Any], Any]]
"""A frame class, the methods it gets, and the library's function that adds them."""


def _pandas(name: str) -> list[Place]:
    import pandas as pd

    def add(methods: Any) -> None:
        pd.api.extensions.register_dataframe_accessor(name)(methods)

    return [(pd.DataFrame, FrameMethods, add)]


def _polars(name: str) -> list[Place]:
    import polars as pl

    return [
        (pl.DataFrame, TableMethods, pl.api.register_dataframe_namespace(name)),
        (pl.LazyFrame, TableMethods, pl.api.register_lazyframe_namespace(name)),
    ]


PLACES: dict[str, Callable[[str], list[Place]]] = {"pandas": _pandas, "polars": _polars}
"""The places of each library; another adapter adds its own."""

Hints = list[tuple[type, Any]]
"""Classes that look like frames, and what says so under the accessor's name."""


def _pandas_hints(name: str) -> Hints:
    import pandas as pd

    groups = GroupsHint(name, 'df.groupby("group")["text"].agg("\\n".join).reset_index()')
    return [
        (pd.Series, SeriesHint(name)),
        (pd.api.typing.DataFrameGroupBy, groups),
        (pd.api.typing.SeriesGroupBy, groups),
    ]


def _polars_hints(name: str) -> Hints:
    import polars as pl

    groups = GroupsHint(name, 'df.group_by("group").agg(pl.col("text").str.join("\\n"))')
    return [
        (pl.Series, SeriesHint(name, at_use=True)),
        (type(pl.DataFrame({"x": []}).group_by("x")), groups),
        (type(pl.LazyFrame().group_by("x")), groups),
    ]


HINTS: dict[str, Callable[[str], Hints]] = {"pandas": _pandas_hints, "polars": _polars_hints}
"""The hints of each library; another adapter adds its own."""


def register(name: str = "llm") -> None:
    """
    Register the accessor under another name, when another package has taken ``df.llm``.

    Parameters
    ----------
    name : str
        The accessor becomes ``df.<name>`` on the frames of every imported library.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(f"name must be a Python name, not {name!r}.")
    libraries = [library for library in PLACES if library in sys.modules]
    for library in libraries:
        taken = _taken(library, name)
        if taken:
            raise ConfigurationError(
                f"{taken} has {name!r} already. Choose another name: "
                'nyu_llm_frames.register("batches")'
            )
    for library in libraries:
        _add(library, name)


def claim(library: str) -> None:
    """Register ``df.llm`` on one library, or warn where it is another package's."""
    if _taken(library, "llm"):
        warn_user(
            f"df.llm of {library} belongs to another package here; choose another name: "
            'nyu_llm_frames.register("batches")'
        )
    else:
        _add(library, "llm")


def _taken(library: str, name: str) -> str:
    """Return the class that has something else under a name; "" where there is none."""
    for kind, methods, _ in PLACES[library](name):
        if getattr(kind, name, methods) is not methods:
            return f"{library}.{kind.__name__}"
    return ""


def _add(library: str, name: str) -> None:
    for kind, methods, add in PLACES[library](name):
        if not hasattr(kind, name):
            add(methods)
    for kind, hint in HINTS[library](name):
        if name not in dir(kind):
            setattr(kind, name, hint)


class SeriesHint:
    """``series.llm``: an error that says what to write; a label of that name stays reachable.

    `at_use`: any use of it is the error, since Polars replaces an error of the attribute itself.
    """

    def __init__(self, name: str, *, at_use: bool = False) -> None:
        self._name = name
        self._at_use = at_use

    def __get__(self, series: Any, owner: type) -> Any:
        column = getattr(series, "name", None)
        column = column if isinstance(column, str) and column.isidentifier() else "x"
        error = AttributeError(
            f"{self._name} works on a DataFrame, whose columns the template names: "
            f'df.{self._name}.batch("... {{{{ {column} }}}}", model=...). For a Series alone: '
            f"series.to_frame({column!r}).{self._name}.batch(...)."
        )
        if self._at_use and series is not None:
            return _Raises(error)
        raise error


class _Raises:
    """Raises an error at any use."""

    def __init__(self, error: AttributeError) -> None:
        self._error = error

    def __getattr__(self, verb: str) -> Any:
        raise self._error


class GroupsHint:
    """``df.groupby(...).llm``: any use of it is an error that says what to write."""

    def __init__(self, name: str, rows: str) -> None:
        self._name = name
        self._rows = rows

    def __get__(self, groups: Any, owner: type) -> Any:
        if groups is None:
            raise AttributeError(self._name)
        if self._name in getattr(getattr(groups, "obj", None), "columns", ()):
            return groups[self._name]
        return self

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)
        if verb in ("evaluate", "agreement"):
            raise AttributeError(
                f'{self._name}.{verb} takes groups as by=: df.{self._name}.{verb}(..., by="group").'
            )
        raise AttributeError(
            f"{self._name} sends one prompt per row, so groups need no call of their own: "
            f"df.{self._name}.{verb}(...). For one prompt per group, make each group a row first: "
            f"{self._rows}.{self._name}.{verb}(...)."
        )
