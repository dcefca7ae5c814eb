"""Check the arguments of hand coding before anything is drawn, read or written.

Comes in: what a user gave. Goes out: plain values, or an error with what to give instead.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._stages.prompts.template_errors import nearest
from nyu_llm_frames.errors import ConfigurationError, MissingColumnError
from nyu_llm_frames.research.coding_design import Coding
from nyu_llm_frames.research.coding_sheet import CODE, OWN

Format: TypeAlias = Literal["xlsx", "csv"]
Settle: TypeAlias = Literal["agree", "majority"]

SETTLE = "settle"
"""The name in place of a coder's, for the file of settled codes."""
_CODER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}.")
    if least is not None and value < least:
        raise ConfigurationError(f"{name} must be at least {least}, not {value}.")
    return int(value)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        values = " or ".join(map(repr, choices))
        raise ConfigurationError(f"{name} must be {values}, not {value!r}.")


def columns_of(name: str, given: Any) -> list[Hashable]:
    """Return the columns for one name or several."""
    names = list(given) if pd.api.types.is_list_like(given) else [given]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{name}= names a column twice: {names!r}.")
    return names


def checked_labels(labels: Any) -> tuple[str, ...] | None:
    """Return the labels as texts, in their order."""
    if labels is None:
        return None
    if not pd.api.types.is_list_like(labels):
        raise ConfigurationError(f"labels must be a list of the codes, not {labels!r}.")
    values = to_python(list(labels))
    names = tuple("" if value is None else str(value).strip() for value in values)
    if not names or "" in names or len(set(names)) < len(names):
        raise ConfigurationError(f"labels must be different texts, and none empty: {labels!r}.")
    return names


def checked_coders(coders: Any) -> tuple[str, ...]:
    """Return the coders' names, which are part of their file names."""
    names = (coders,) if isinstance(coders, str) else tuple(coders)
    if not names or len({str(name).casefold() for name in names}) < len(names):
        raise ConfigurationError(f"coders must be different names, not {coders!r}.")
    for name in names:
        if not isinstance(name, str) or not _CODER.fullmatch(name):
            raise ConfigurationError(
                f"The coder {name!r} needs a name of letters and digits: it is part of a file's."
            )
        if name in (SETTLE, "design", "pi", "stratum", "use", "unit"):
            raise ConfigurationError(f"No coder can be called {name!r}; that name is reserved.")
    return names


def check_header(coding: Coding) -> None:
    """Refuse a shown column with the name of one of ours."""
    ours = {*OWN, *(f"{CODE}_{coder}" for coder in coding.coders)}
    taken = [name for name in coding.show if name.strip() in ours]
    if taken or len({name.strip() for name in coding.show}) < len(coding.show):
        raise ConfigurationError(
            f"Two columns of the coders' files would be called {(taken or list(coding.show))[0]!r}."
            " Rename the one that is shown: df.rename(columns=...)."
        )


def no_column(what: str, name: Hashable, columns: list[Hashable]) -> MissingColumnError:
    """Return an error that lists the columns, the nearest first."""
    available = [label for _, label in nearest(name, columns)]
    listed = ", ".join(map(repr, available[:12]))
    return MissingColumnError(
        f"{what} {name!r}, which is not a column. Columns: {listed}.",
        column=name,
        available=available,
    )
