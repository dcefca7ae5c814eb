"""`register`: the accessor under a name, where pandas has it not already.

Comes in: a name. Goes out: ``df.<name>``, and what to write instead at a Series and at groups.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from nyu_llm_frames._api.accessor import FrameMethods
from nyu_llm_frames.errors import ConfigurationError


def register(name: str = "llm") -> None:
    """
    Register the accessor under another name, when another package has taken ``df.llm``.

    Parameters
    ----------
    name : str
        As ``df.<name>``.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(f"name must be a Python name, not {name!r}.")
    taken = getattr(pd.DataFrame, name, None)
    if taken is not None and taken is not FrameMethods:
        raise ConfigurationError(
            f"pandas.DataFrame has {name!r} already. Choose another name: "
            'nyu_llm_frames.register("batches")'
        )
    if taken is None:
        pd.api.extensions.register_dataframe_accessor(name)(FrameMethods)
    for kind, hint in (
        (pd.Series, _SeriesHint(name)),
        (pd.api.typing.DataFrameGroupBy, _GroupsHint(name)),
        (pd.api.typing.SeriesGroupBy, _GroupsHint(name)),
    ):
        if name not in dir(kind):
            setattr(kind, name, hint)


class _SeriesHint:
    """``series.llm``: an error that says what to write; a label of that name stays reachable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, series: Any, owner: type) -> Any:
        column = getattr(series, "name", None)
        column = column if isinstance(column, str) and column.isidentifier() else "x"
        raise AttributeError(
            f"{self._name} works on a DataFrame, whose columns the template names: "
            f'df.{self._name}.batch("... {{{{ {column} }}}}", model=...). Of a Series alone: '
            f"series.to_frame({column!r}).{self._name}.batch(...)."
        )


class _GroupsHint:
    """``df.groupby(...).llm``: any use of it is an error that says what to write."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, groups: Any, owner: type) -> Any:
        if groups is None:
            raise AttributeError(self._name)
        if self._name in groups.obj:
            return groups[self._name]
        return self

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)
        raise AttributeError(
            f"{self._name} asks one question for each row, so groups need no call of their own: "
            f"df.{self._name}.{verb}(...). For one question for each group make each a row first: "
            f'df.groupby("group")["text"].agg("\\n".join).reset_index().{self._name}.{verb}(...).'
        )
