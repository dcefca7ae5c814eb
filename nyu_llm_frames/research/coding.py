"""Read which rows have a hand code, with what probability they were drawn, and their units.

Comes in: a frame and the name of its column of codes, with the columns that `from_codes` puts
beside it: ``{truth}_pi``, ``_stratum``, ``_use``, ``_unit``. Codes of one coder, ``code_a``, have
the design of ``code``. Goes out: a `Coding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.allowed import check_choice
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.arithmetic import Bools, Floats, Ints
from nyu_llm_frames.research.labels import Column, column
from nyu_llm_frames.research.resampling import Rows, shared_units

MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Coding:
    """The design of a column of codes; arrays as long as the frame."""

    coded: Bools  # rows with a code that counts
    drawn: Bools  # rows that were to be coded
    pi: Floats | None  # probability of being drawn, NaN where it is not given
    strata: Ints
    units: Ints | None  # rows with the same number show the coder the same text

    def where(self, use: Bools) -> Rows:
        """Return how some rows were drawn."""
        n = int(use.sum())
        weight = np.ones(n)
        if self.pi is not None and n:
            w = 1 / self.pi[use]
            if (w != w[0]).any():
                weight = np.asarray(w * (n / np.sort(w).sum()))
        return Rows(weight, self.strata[use], shared_units(self.units, use))


def _groups(values: Column) -> tuple[Ints, list[str]]:
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

    `pi` is a column or one probability for all rows, by default ``{truth}_pi``; "test" leaves out
    rows with another ``{truth}_use``. Beside codes of one coder, those of the design count.
    """
    check_choice("use", use, ("test", "all"))
    values = column(frame, truth, "truth")
    design = _design_of(frame, truth)
    coded = values.notna().to_numpy(dtype=bool)
    probability = _probability(frame, design, pi)
    drawn = coded.copy()
    if probability is not None and np.isnan(probability).any():
        drawn |= ~np.isnan(probability)
    if f"{design}_use" in frame.columns:
        uses = column(frame, f"{design}_use")
        drawn |= uses.notna().to_numpy(dtype=bool)
        if use == "test":
            here = (uses.astype(object) == "test").fillna(False).to_numpy(dtype=bool)
            coded, drawn = coded & here, drawn & here
    if probability is not None:
        _check_probabilities(frame, probability, drawn & coded)
    strata = np.zeros(len(frame), dtype=np.int64)
    if f"{design}_stratum" in frame.columns:
        strata, _ = _groups(column(frame, f"{design}_stratum"))
    units = read_units(frame, f"{design}_unit") if f"{design}_unit" in frame.columns else None
    return Coding(coded, drawn, probability, strata, units)


def _design_of(frame: pd.DataFrame, truth: str) -> str:
    """Return the name that the columns of a design begin with: "code" for "code_a", too."""
    if any(f"{truth}_{detail}" in frame.columns for detail in ("pi", "use", "unit")):
        return truth
    unit = detail_column(frame, truth, "unit")
    if unit is None or not _are_units(column(frame, unit)):
        return truth
    return unit.removesuffix("_unit")


def read_units(frame: pd.DataFrame, name: str) -> Ints:
    """Number the units in a column; a row without a unit is one by itself."""
    units = np.asarray(pd.factorize(column(frame, name))[0], dtype=np.int64)
    alone = units < 0
    units[alone] = units.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return units


def units_of(frame: pd.DataFrame, names: Sequence[str]) -> Ints | None:
    """Number the units of columns of codes, also of single coders; None where none has units."""
    found = (detail_column(frame, name, "unit") for name in names)
    units = [name for name in found if name is not None and _are_units(column(frame, name))]
    if not units:
        return None
    numbers = np.column_stack([read_units(frame, name) for name in dict.fromkeys(units)])
    return np.unique(numbers, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _are_units(cells: pd.Series) -> bool:
    """Return whether a column holds units, not a user's own ``price_unit``."""
    return bool(cells.dropna().astype(str).str.startswith("u-").all())


def detail_column(frame: pd.DataFrame, name: str, detail: str) -> str | None:
    """Return ``{name}_{detail}``, or that of the longest beginning of the name that has one."""
    parts = str(name).split("_")
    candidates = ("_".join([*parts[:i], detail]) for i in range(len(parts), 0, -1))
    return next((c for c in candidates if c in frame.columns), None)


def _probability(frame: pd.DataFrame, design: str, pi: str | float | None) -> Floats | None:
    if pi is None:
        if f"{design}_pi" not in frame.columns:
            return None
        pi = f"{design}_pi"
    if isinstance(pi, str):
        cells = column(frame, pi, "pi").astype(object)
        found = np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)
        bad = np.isnan(found) & cells.notna().to_numpy(dtype=bool)
        if bad.any():
            at = int(np.argmax(bad))
            row = frame.index[at]
            raise CodesError(
                f"The column {pi!r} for pi= holds {cells.iloc[at]!r} (first: row {row!r}), and a "
                "probability is a number.",
                row=row,
            )
        return found
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
    if not names:
        raise ConfigurationError(f"{argument}= names no column.")
    codes, labels = zip(*(_groups(column(frame, name, argument)) for name in names), strict=True)
    distinct, key = np.unique(np.column_stack(codes), axis=0, return_inverse=True)
    columns = [[own[i] for i in here] for own, here in zip(labels, distinct.T, strict=True)]
    if len(names) == 1:
        return key.ravel(), pd.Index(columns[0], name=names[0])
    return key.ravel(), pd.MultiIndex.from_arrays(columns, names=names)


def by_group(
    frame: pd.DataFrame,
    by: str | Sequence[str],
    rows: Bools,
    table: Callable[[Bools], pd.DataFrame],
) -> pd.DataFrame:
    """Stack the tables of all groups that have some of the rows."""
    key, groups = group_keys(frame, by)
    inside = [rows & (key == g) for g in range(len(groups))]
    kept = [g for g, own in enumerate(inside) if own.any()]
    tables = [table(inside[g]) for g in kept]
    return pd.concat(tables, keys=list(groups[kept]), names=list(groups.names))
