"""Read which rows have a hand code, with what probability they were drawn, and their units.

Comes in: a frame and the name of its column of codes, with the columns that `from_codes` puts
beside it: ``{truth}_pi``, ``_stratum``, ``_use``, ``_unit``. Goes out: a `Coding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.labels import column

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Coding:
    """The design of a column of codes; arrays as long as the frame.

    Attributes
    ----------
    coded : numpy.ndarray of bool
        Rows with a code that counts.
    drawn : numpy.ndarray of bool
        Rows that were to be coded.
    pi : numpy.ndarray or None
        Probability of being drawn, NaN where it is not given.
    strata : numpy.ndarray of int
    units : numpy.ndarray of int or None
        Rows with the same number show the coder the same text.
    """

    coded: Bools
    drawn: Bools
    pi: Floats | None
    strata: Ints
    units: Ints | None

    def weights(self, rows: Bools) -> Floats:
        """Return 1 / pi of some rows, scaled to the mean 1."""
        n = int(rows.sum())
        if self.pi is None or not n:
            return np.ones(n)
        w = 1 / self.pi[rows]
        if (w == w[0]).all():
            return np.ones(n)
        return np.asarray(w * (n / np.sort(w).sum()))


def groups(values: pd.Series[Any]) -> tuple[Ints, list[str]]:
    """Number the values of a column, in the order of their text; a missing value is a group."""
    codes, uniques = pd.factorize(values, use_na_sentinel=False)
    names = [MISSING if pd.isna(u) else str(u) for u in uniques]
    order = sorted(range(len(names)), key=lambda i: (names[i] == MISSING, names[i]))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return place[codes], [names[i] for i in order]


def read_coding(
    frame: pd.DataFrame,
    truth: str,
    pi: str | float | None = None,
    use: Literal["test", "all"] = "test",
) -> Coding:
    """
    Read the design of a column of codes.

    Parameters
    ----------
    pi : str or float, optional
        Column, or one probability for all rows; default ``{truth}_pi`` when it is there.
    use : {"test", "all"}
        "test" leaves out rows with another ``{truth}_use``.

    Raises
    ------
    MissingColumnError, ConfigurationError, CodesError
        A column that is not there; a probability that is none.
    """
    if use not in ("test", "all"):
        raise ConfigurationError(f"use must be 'test' or 'all', not {use!r}.")
    values = column(frame, truth, "truth")
    coded = values.notna().to_numpy(dtype=bool)
    probability = _probability(frame, truth, pi)
    drawn = coded.copy()
    if probability is not None and np.isnan(probability).any():
        drawn |= ~np.isnan(probability)
    if f"{truth}_use" in frame.columns:
        uses = column(frame, f"{truth}_use")
        drawn |= uses.notna().to_numpy(dtype=bool)
        if use == "test":
            here = (uses.astype(object) == "test").fillna(False).to_numpy(dtype=bool)
            coded, drawn = coded & here, drawn & here
    if probability is not None:
        _check_probabilities(frame, probability, drawn & coded)
    strata = np.zeros(len(frame), dtype=np.int64)
    if f"{truth}_stratum" in frame.columns:
        strata, _ = groups(column(frame, f"{truth}_stratum"))
    units = None
    if f"{truth}_unit" in frame.columns:
        named = column(frame, f"{truth}_unit")
        units = np.asarray(pd.factorize(named)[0], dtype=np.int64)
        alone = units < 0  # not drawn: each row by itself
        units[alone] = units.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return Coding(coded, drawn, probability, strata, units)


def _probability(frame: pd.DataFrame, truth: str, pi: str | float | None) -> Floats | None:
    if pi is None:
        pi = f"{truth}_pi" if f"{truth}_pi" in frame.columns else None
    if pi is None:
        return None
    if isinstance(pi, str):
        return np.asarray(pd.to_numeric(column(frame, pi, "pi").astype(object)), dtype=np.float64)
    if isinstance(pi, bool) or not isinstance(pi, int | float | np.number):
        raise ConfigurationError(f"pi must be a column or a number above 0, not {pi!r}.")
    return np.full(len(frame), float(pi))


def _check_probabilities(frame: pd.DataFrame, pi: Floats, rows: Bools) -> None:
    for bad, what, help_ in (
        (rows & np.isnan(pi), "a code and no probability pi", "only a drawn row has one: take the "
         "other codes out, or give each its pi"),
        (pi <= 0, "a probability pi of 0 or below", "every row must have had a chance to be drawn"),
        (pi > 1, "a probability pi above 1", "it is codes / rows of the stratum"),
    ):  # fmt: skip
        if bad.any():
            row = frame.index[int(np.argmax(bad))]
            raise CodesError(
                f"{count(int(bad.sum()), 'row')} with {what} (first: row {row!r}): {help_}.",
                row=row,
            )


def group_keys(
    frame: pd.DataFrame, by: str | Sequence[str], argument: str = "by"
) -> tuple[Ints, pd.Index[Any]]:
    """Number the groups of one column or several, in order, and name them."""
    names = [by] if isinstance(by, str) else list(by)
    parts = [groups(column(frame, name, argument)) for name in names]
    key = np.zeros(len(frame), dtype=np.int64)
    for codes, labels in parts:
        key = key * len(labels) + codes
    distinct, inverse = np.unique(key, return_inverse=True)
    columns: list[list[str]] = []
    for _, labels in reversed(parts):
        distinct, here = np.divmod(distinct, len(labels))
        columns.append([labels[i] for i in here])
    if len(names) == 1:
        return inverse, pd.Index(columns[0], name=names[0])
    return inverse, pd.MultiIndex.from_arrays(columns[::-1], names=names)
