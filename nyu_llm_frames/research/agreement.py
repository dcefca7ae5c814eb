"""Measure how far columns agree: repeats of one prompt, coders, or models.

Comes in: a frame and columns, gaps allowed. Goes out: an `Agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research import agreement_statistics as statistics
from nyu_llm_frames.research import result_cards as cards
from nyu_llm_frames.research.arithmetic import Bools, Ints
from nyu_llm_frames.research.coding import by_group, units_of
from nyu_llm_frames.research.intervals import (
    Bootstrap,
    Row,
    bootstrap_rows,
    metric_frame,
    wilson_row,
)
from nyu_llm_frames.research.labels import (
    Column,
    as_numbers,
    as_sets,
    encode,
    kind_of,
    used_labels,
    values_of,
)
from nyu_llm_frames.research.resampling import Sample, Statistics, of_units, shared_units


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(cards.Result):
    """
    How far columns agree.

    Attributes
    ----------
    metrics : pandas.DataFrame
        Index ``metric``; ``estimate, low, high, method, n, note``; n are rows with two values or
        more, or units (see ``df.llm.agreement``).
    rows : pandas.DataFrame
        The frame's index; ``answered`` (columns with a value), ``majority`` (NA on a tie),
        ``share`` (of the majority, or of those that tie), ``flips`` (how often a value differs
        from the one before it, in the order of the columns), ``entropy`` (bits).
    pairs : pandas.DataFrame
        Each two columns: ``n, agreement, low, high, kappa``, or for numbers ``Pearson``; n as
        in `metrics`.
    by : pandas.DataFrame or None
        `metrics` of each group.
    kind : {"nominal", "ordinal", "numeric", "ratio", "set"}
    level : float
    columns : tuple of str
    notes : tuple of str
    """

    metrics: pd.DataFrame
    rows: pd.DataFrame
    pairs: pd.DataFrame
    by: pd.DataFrame | None
    kind: str
    level: float
    columns: tuple[str, ...]
    notes: tuple[str, ...]

    def plot(self) -> Any:
        """Draw the coefficients with intervals and how many rows agree; return Axes."""
        from nyu_llm_frames.research.result_plots import plot_agreement

        return plot_agreement(self.columns, self.metrics, self.rows, self.pairs, self.level)

    def _card(self) -> cards.Card:
        rows, pairs = self.rows, self.pairs
        tied = int((rows["majority"].isna() & (rows["answered"] > 0)).sum())
        facts = [
            ("columns", ", ".join(self.columns)),
            ("rows", f"{len(rows):,}"),
            ("unanimous", f"{int(((rows['share'] == 1) & (rows['answered'] > 1)).sum()):,}"),
            ("tied", f"{tied:,}"),
            ("kind", self.kind),
        ]
        last = str(pairs.columns[-1])
        shown = {
            "n": [f"{n:,}" for n in pairs["n"]],
            "agreement": cards.numbers(pairs["agreement"]),
            cards.percent(self.level): cards.intervals(pairs),
            last: cards.numbers(pairs[last]),
        }
        tables = [
            ("", cards.metric_texts(self.metrics, self.level)),
            ("Pairs", pd.DataFrame(shown, index=pairs.index)),
        ]
        title = f"Agreement of {count(len(self.columns), 'column')}"
        return cards.Card(title, facts, tables, self.notes)


def agreement(
    frame: pd.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    output: str = "response",
    kind: str = "auto",
    by: str | Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Measure how far columns agree; see ``df.llm.agreement``."""
    draw = Bootstrap(resamples, level, seed)
    names = _names(frame, columns, output)
    values = [values_of(frame, name, "columns") for name in names]
    kind_ = "ratio" if kind == "ratio" else kind_of(values, kind)
    codes, labels, order = _codes(values, kind_)
    if not (codes >= 0).any():
        raise CodesError(f"No row of {', '.join(names)} has a value.")

    units = units_of(frame, names)
    once = units is not None and _same_within(units, codes)

    def counted(rows: Bools) -> tuple[Ints, Ints | None]:
        own = shared_units(units, rows)
        if own is None or not once:
            return codes[rows], own
        return codes[rows][np.unique(own, return_index=True)[1]], None

    def metrics(rows: Bools) -> pd.DataFrame:
        return _metrics(*counted(rows), labels, kind_, draw)

    every = np.ones(len(frame), dtype=bool)
    notes = [order] if order and kind_ == "ordinal" else []
    if shared_units(units, every) is not None:
        notes.append("rows of one unit count once" if once else "rows of one unit are one cluster")
    return Agreement(
        metrics=metrics(every),
        rows=_row_table(frame.index, values, codes, labels),
        pairs=_pairs(names, *counted(every), labels, kind_, draw),
        by=None if by is None else by_group(frame, by, every, metrics),
        kind=kind_,
        level=float(level),
        columns=tuple(names),
        notes=tuple(notes),
    )


def _names(frame: pd.DataFrame, columns: Sequence[str] | None, output: str) -> list[str]:
    if isinstance(columns, str):
        raise ConfigurationError(f"columns must be a list of two or more, not {columns!r}.")
    if columns is None:
        names: list[str] = []
        while f"{output}_{len(names) + 1}" in frame.columns:
            names.append(f"{output}_{len(names) + 1}")
        if len(names) < 2:
            raise ConfigurationError(
                f"There are no columns {output}_1, {output}_2, ...: name the columns to compare, "
                "or with output= what their names begin with."
            )
        return names
    names = list(columns)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigurationError(f"columns must be two or more different ones, not {names!r}.")
    return names


def _same_within(units: Ints, codes: Ints) -> bool:
    """Return whether all rows of each unit have the same classes."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return bool((codes == codes[first][inverse]).all())


def _codes(values: Sequence[Column], kind: str) -> tuple[Ints, list[Any], str]:
    """Return classes as numbers, n x k, the classes, and their order in words."""
    if kind in ("numeric", "ratio"):
        numbers = np.column_stack([as_numbers(v) for v in values])
        known = ~np.isnan(numbers)
        distinct, inverse = np.unique(numbers[known], return_inverse=True)
        codes = np.full(numbers.shape, -1, dtype=np.int64)
        codes[known] = inverse
        return codes, list(distinct), ""
    if kind == "set":
        values = [
            pd.Series(
                [None if s is None else ";".join(sorted(s)) for s in as_sets(v)], dtype=object
            )
            for v in values
        ]
    classes = encode(values)
    order = "" if classes.declared else f"order of classes: {classes.order}"
    return np.column_stack(classes.codes), list(classes.labels), order


# --- coefficients -----------------------------------------------------------------------------
def _metrics(
    codes: Ints, units: Ints | None, labels: Sequence[Any], kind: str, draw: Bootstrap
) -> pd.DataFrame:
    """Return all coefficients of rows; resampled are distinct rows of codes, or their units."""
    answered = (codes >= 0).sum(1)
    n, whole = int((answered >= 2).sum()), int((answered == codes.shape[1]).sum())
    one = len(np.unique(codes[codes >= 0])) == 1
    if kind != "ordinal":
        codes, labels = used_labels(codes, labels)
    rows: dict[str, Row] = {}
    patterns, times, pattern = _patterns(codes)
    for sample, read in _statistics(patterns, times, labels, kind):
        if units is not None:
            sample = of_units(sample, pattern, units)
        rows |= bootstrap_rows(sample, read, n, draw)
    for name, row in rows.items():
        if name == "ICC(2,1)":
            row = replace(row, n=whole)
        if np.isnan(row.estimate):
            why = "one class only" if one else "nothing varies"
            row = row.noted(why if n else "no row has two values")
        elif name == "AC1" and one:
            row = row.noted("one class only: agreement is complete")
        rows[name] = row
    return metric_frame(rows)


def _patterns(codes: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the distinct rows of codes, how often each occurs, and which one each row is."""
    k = int(codes.max(initial=0)) + 2
    columns = codes.shape[1]
    if k**columns >= 2**62:
        rows, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        return rows, counts, inverse.ravel()
    powers = k ** np.arange(columns)[::-1]  # each row as one number: ten times as fast
    keys, inverse, counts = np.unique((codes + 1) @ powers, return_inverse=True, return_counts=True)
    return keys[:, None] // powers % k - 1, counts, inverse


def _statistics(
    patterns: Ints, times: Ints, labels: Sequence[Any], kind: str
) -> list[tuple[Sample, Statistics]]:
    """Return samples, each with the function that computes statistics from its resampled sums."""
    if kind in ("nominal", "ordinal"):
        return [statistics.of_classes(patterns, times, len(labels), ordinal=kind == "ordinal")]
    both = [statistics.of_equality(patterns, times)]
    if kind == "numeric":
        return [*both, statistics.of_numbers(patterns, times, np.asarray(labels, dtype=np.float64))]
    if kind == "ratio":
        distance = statistics.ratio_distance(np.asarray(labels, dtype=np.float64))
    else:
        sets = [frozenset(t for t in str(text).split(";") if t) for text in labels]
        distance = statistics.jaccard_distance(
            statistics.indicators(sets, sorted(frozenset().union(*sets)))
        )
    return [*both, statistics.of_distances(patterns, times, len(labels), distance)]


def _pairs(
    names: Sequence[str],
    codes: Ints,
    units: Ints | None,
    labels: Sequence[Any],
    kind: str,
    draw: Bootstrap,
) -> pd.DataFrame:
    """Return how each pair of columns agrees, on the rows that have both."""
    out = []
    for i, j in combinations(range(len(names)), 2):
        both = np.asarray((codes[:, [i, j]] >= 0).all(1))
        a, b = codes[both][:, [i, j]].T
        n, right = len(a), int((a == b).sum())
        share = wilson_row(right, n, draw.level)
        if (own := shared_units(units, both)) is not None:
            patterns, times, pattern = _patterns(codes[both][:, [i, j]])
            sample, read = statistics.of_equality(patterns, times)
            share = bootstrap_rows(of_units(sample, pattern, own), read, n, draw)["agreement"]
        row = {"n": n, "agreement": share.estimate, "low": share.low, "high": share.high}
        if kind in ("numeric", "ratio"):
            x, y = np.asarray(labels)[a], np.asarray(labels)[b]
            varies = n > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
            row["Pearson"] = float(np.corrcoef(x, y)[0, 1]) if varies else np.nan
        else:
            k = len(labels)
            expected = (np.bincount(a, minlength=k) * np.bincount(b, minlength=k)).sum() / max(n, 1)
            row["kappa"] = (right - expected) / (n - expected) if n > expected else np.nan
        out.append(row)
    index = pd.MultiIndex.from_tuples(list(combinations(names, 2)), names=["a", "b"])
    return pd.DataFrame(out, index=index)


# --- the values of each row -------------------------------------------------------------------
def _row_table(
    index: pd.Index[Any], values: Sequence[Column], codes: Ints, labels: Sequence[Any]
) -> pd.DataFrame:
    """Return ``answered, majority, share, flips, entropy`` of each row of classes, n x k."""
    known = codes >= 0
    answered = known.sum(1)
    # How often each value stands in its row; 0 for a gap.
    times = np.column_stack([((codes == own[:, None]) & known).sum(1) for own in codes.T])
    best = times.max(1)
    winner = codes[np.arange(len(codes)), times.argmax(1)]
    winner[(times == best[:, None]).sum(1) != best] = -1  # several classes are as frequent
    inverse_share = np.divide(answered[:, None], times, out=np.ones(codes.shape), where=known)
    bits = np.log2(inverse_share).sum(1)
    flips = np.zeros(len(codes), dtype=np.int64)
    last = codes[:, 0].copy()
    for here in codes.T[1:]:
        flips += (last >= 0) & (here >= 0) & (last != here)
        last = np.where(here >= 0, here, last)
    return pd.DataFrame(
        {
            "answered": answered,
            "majority": _majority(index, values, codes, winner, labels),
            "share": np.where(answered > 0, best / np.maximum(answered, 1), np.nan),
            "flips": flips,
            "entropy": np.where(answered > 0, bits / np.maximum(answered, 1), np.nan),
        },
        index=index,
    )


def _majority(
    index: pd.Index[Any],
    values: Sequence[Column],
    codes: Ints,
    winner: Ints,
    labels: Sequence[Any],
) -> Column:
    """Take each winning value from the first column that has it; text where dtypes differ."""
    if len({str(v.dtype) for v in values}) > 1:
        texts = np.array([*map(str, labels), None], dtype=object)
        return pd.Series(texts[winner], index=index, dtype="string")
    out = values[0].set_axis(index).where(codes[:, 0] == winner)
    for own, given in zip(codes.T[1:], values[1:], strict=True):
        out = out.where(own != winner, given.set_axis(index))
    return out.where(winner >= 0)
