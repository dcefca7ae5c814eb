"""Cells that Dask turned into text, such as lists and flags, whose prompts would be others.

Comes in: a Dask frame and the columns in use. Goes out: an error that says how to keep the cells,
where the original frame is still at hand; else the columns of which some cells have to be looked
at on the workers.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from nyu_llm_frames.errors import ConfigurationError

Sampled: TypeAlias = dict[Hashable, tuple[int, int, int]]
"""For each column how many cells were looked at, and how many are True or False, or literals."""

_CHANGED = (
    *(list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray),
    *(Number, np.bool_),  # printed the same, but "False" and "0" are tested as true
)
_CELLS = 50
SAMPLED_ROWS = 20 * _CELLS
_OPENERS = ("[", "{", "(", "b'", 'b"')
_MADE = (
    *("FromPandas", "FromPandasDivisions", "FromGraph", "FromDelayed"),
    *("FromMap", "FromMapProjectable"),
)
# A file's text is the file's; but of True, False and missing values pandas makes no text.
_OF_FILES = ("dask.dataframe.io.csv",)


def suspected_columns(frame: Any, used: Sequence[Hashable]) -> dict[Hashable, bool]:
    """Return the columns of which cells have to be looked at: for literals, or else for flags.

    Where the expression still holds the frame that was given, such cells in it are an error.
    """
    texts = [name for name in used if isinstance(frame.dtypes[name], pd.StringDtype)]
    if not texts:
        return {}
    nodes = list(frame.expr.walk())
    is_converted = any(type(node).__name__ == "ArrowStringConversion" for node in nodes)
    suspects: set[bool] = set()
    settled: set[Hashable] = set()
    for node in nodes:
        kind = type(node).__name__
        if kind not in _MADE:
            continue
        original = _original(node)
        if original is None:
            if kind == "FromGraph" or (is_converted and not kind.startswith("FromPandas")):
                suspects.add(not _is_of_files(node))
            continue
        for name in texts:
            if name in original.columns:
                settled.add(name)
                cells = original[name]
                if cells.dtype == object and any(map(_is_changed, cells.array)):
                    raise turned_into_text([name])
    return {name: any(suspects) for name in texts if name not in settled} if suspects else {}


def _original(node: Any) -> pd.DataFrame | None:
    """Return the frame that `from_pandas` was given, where it turned objects into text."""
    if not type(node).__name__.startswith("FromPandas") or not node.pyarrow_strings_enabled:
        return None
    found = getattr(node.operand("frame"), "_data", None)
    return found if isinstance(found, pd.DataFrame) else None


def _is_of_files(node: Any) -> bool:
    if not type(node).__name__.startswith("FromMap"):
        return False
    reads = node.operand("func")  # in releases of Dask a partial, or an object
    return str(getattr(reads, "func", reads).__module__) in _OF_FILES


def _is_changed(cell: Any) -> bool:
    """Whether a template would see something else than the text of a cell."""
    return isinstance(cell, _CHANGED) and not (isinstance(cell, Number) and cell != cell)  # NaN


def sample(frame: pd.DataFrame, columns: Iterable[Hashable]) -> Sampled:
    """Look at some cells of a partition."""
    found: Sampled = {}
    for name in columns:
        cells = [cell for cell in frame[name].head(SAMPLED_ROWS) if isinstance(cell, str)][:_CELLS]
        flags = sum(cell in ("True", "False") for cell in cells)
        found[name] = (len(cells), flags, sum(map(_is_literal, cells)))
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


def check_sampled(samples: Sequence[Sampled], suspected: Mapping[Hashable, bool]) -> None:
    """Refuse columns of which every cell that was looked at is a literal, or of a file a flag."""
    wrong = []
    for name, may_be_literals in suspected.items():
        counts = [found.get(name, (0, 0, 0)) for found in samples]
        seen, flags, literals = (sum(count[i] for count in counts) for i in range(3))
        if seen and seen == (literals if may_be_literals else flags):
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
        made = [name for name, may_be_literals in suspected.items() if may_be_literals]
        if not made:
            raise  # such as a file in another encoding
        raise turned_into_text(made) from None


def turned_into_text(names: Sequence[Hashable]) -> ConfigurationError:
    """Return the error of columns whose cells Dask turned into text."""
    columns = ", ".join(map(repr, names))
    return ConfigurationError(
        f"Dask turned the cells of column {columns} into text: lists, dicts, bytes, numbers "
        "or flags, of which a template would see the characters alone. Make the Dask frame under "
        'dask.config.set({"dataframe.convert-string": False}); then text stays text, and every '
        "cell what it is."
    )
