"""Cells that Dask turned into text, such as lists and flags, whose prompts would be others.

Comes in: a Dask frame and the columns in use. Goes out: an error that says how to keep the cells,
where the original frame is still at hand; else the columns of which some cells have to be looked
at on the workers.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from nyu_llm_frames.errors import ConfigurationError

Sampled: TypeAlias = dict[Hashable, tuple[int, int]]
"""For each column how many cells were looked at, and how many of them are literals."""

_CHANGED = (
    *(list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray),
    *(Number, np.bool_),  # printed the same, but "False" and "0" are tested as true
)
_CELLS = 50
SAMPLED_ROWS = 20 * _CELLS
_OPENERS = ("[", "{", "(", "b'", 'b"')
# What makes frames of other data than files: a file's text is the file's.
_MADE = ("FromPandas", "FromPandasDivisions", "FromGraph", "FromDelayed", "FromMap")
_OF_FILES = ("CSVFunctionWrapper",)


def suspected_columns(frame: Any, used: Sequence[Hashable]) -> list[Hashable]:
    """Return the columns of which cells have to be looked at.

    Where the expression still holds the frame that was given, such cells in it are an error.
    """
    texts = [name for name in used if isinstance(frame.dtypes[name], pd.StringDtype)]
    if not texts:
        return []
    unknown = False
    settled: set[Hashable] = set()
    for node in _sources(frame.expr):
        original = _original(node)
        if original is None:
            unknown |= _may_hold_made_text(node)
            continue
        for name in texts:
            if name in original.columns:
                settled.add(name)
                cells = original[name]
                if cells.dtype == object and any(map(_is_changed, cells.array)):
                    raise turned_into_text([name])
    return [name for name in texts if name not in settled] if unknown else []


def _sources(expression: Any) -> Iterator[Any]:
    return (node for node in expression.walk() if type(node).__name__ in _MADE)


def _original(node: Any) -> pd.DataFrame | None:
    """Return the frame that `from_pandas` was given, where it turned objects into text."""
    if not type(node).__name__.startswith("FromPandas") or not node.pyarrow_strings_enabled:
        return None
    found = getattr(node.operand("frame"), "_data", None)
    return found if isinstance(found, pd.DataFrame) else None


def _may_hold_made_text(node: Any) -> bool:
    if type(node).__name__ != "FromMap":
        return not type(node).__name__.startswith("FromPandas")
    return type(node.operand("func")).__name__ not in _OF_FILES


def _is_changed(cell: Any) -> bool:
    """Whether a template would see something else than the text of a cell."""
    return isinstance(cell, _CHANGED) and not (isinstance(cell, Number) and cell != cell)  # NaN


def sample(frame: pd.DataFrame, columns: Sequence[Hashable]) -> Sampled:
    """Look at some cells of a partition."""
    found: Sampled = {}
    for name in columns:
        cells = [cell for cell in frame[name].head(SAMPLED_ROWS) if isinstance(cell, str)][:_CELLS]
        found[name] = (len(cells), sum(map(_is_literal, cells)))
    return found


def _is_literal(text: str) -> bool:
    """Whether a text is what Python prints of a list, tuple, dict, set or bytes."""
    if not text.startswith(_OPENERS):
        return False
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return isinstance(value, list | tuple | dict | set | bytes)


def check_sampled(samples: Sequence[Sampled]) -> None:
    """Refuse columns of which every cell that was looked at is such a literal."""
    names = dict.fromkeys(name for found in samples for name in found)
    wrong = []
    for name in names:
        seen, literals = (sum(found.get(name, (0, 0))[i] for found in samples) for i in (0, 1))
        if seen and seen == literals:
            wrong.append(name)
    if wrong:
        raise turned_into_text(wrong)


@contextmanager
def named_bytes(frame: Any) -> Iterator[None]:
    """Turn the error of bytes that Dask cannot make into text into one that names the column."""
    try:
        yield
    except UnicodeDecodeError:
        suspected = suspected_columns(frame, list(frame.columns))
        if not suspected:
            raise  # such as a file in another encoding
        raise turned_into_text(suspected) from None


def turned_into_text(names: Sequence[Hashable]) -> ConfigurationError:
    """Return the error of columns whose cells Dask turned into text."""
    columns = ", ".join(map(repr, names))
    return ConfigurationError(
        f"Dask turned the cells of column {columns} into text: lists, dicts, bytes, numbers "
        "or flags, of which a template would see the characters alone. Make the Dask frame under "
        'dask.config.set({"dataframe.convert-string": False}); then text stays text, and every '
        "cell what it is."
    )
