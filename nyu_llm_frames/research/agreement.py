"""Measure how far columns agree: repeats of one prompt, coders, or models.

Comes in: a frame and columns, gaps allowed. Goes out: an `Agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.agreement_statistics import (
    Statistic,
    jaccard_distance,
    of_classes,
    of_distances,
    of_equality,
    of_numbers,
    ratio_distance,
)
from nyu_llm_frames.research.coding import group_keys
from nyu_llm_frames.research.evaluation import check_sampling
from nyu_llm_frames.research.intervals import wilson
from nyu_llm_frames.research.labels import as_numbers, as_set, column, encode, kind_of
from nyu_llm_frames.research.metric_tables import Draw, Row, add_note, bootstrap_rows, metric_frame
from nyu_llm_frames.research.resampling import Sample
from nyu_llm_frames.research.row_agreement import row_table
from nyu_llm_frames.research.set_metrics import indicators

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """
    How far columns agree.

    Attributes
    ----------
    metrics : pandas.DataFrame
        Index ``metric``; ``estimate, low, high, method, n, note``; n are rows with two values or
        more.
    rows : pandas.DataFrame
        The frame's index; ``answered`` (columns with a value), ``majority`` (NA on a tie),
        ``share`` (of the majority, or of those that tie), ``flips`` (how often a value differs
        from the one before it, in the order of the columns), ``entropy`` (bits).
    pairs : pandas.DataFrame
        Each two columns: ``n, agreement, low, high, kappa``, or for numbers ``Pearson``.
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
    notes: tuple[str, ...] = field(default=())

    def plot(self) -> Any:
        """Draw the coefficients with intervals and how many rows agree; return Axes."""
        from nyu_llm_frames.research.result_plots import plot_agreement

        return plot_agreement(self)

    def __repr__(self) -> str:
        from nyu_llm_frames.research.result_cards import agreement_card

        return agreement_card(self).text()

    def _repr_html_(self) -> str:
        from nyu_llm_frames.research.result_cards import agreement_card

        return agreement_card(self).html()


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
    check_sampling(resamples, level, seed)
    names = _names(frame, columns, output)
    values = [column(frame, name, "columns") for name in names]
    kind_ = "ratio" if kind == "ratio" else kind_of(values, kind)
    codes, labels, order, numbers = _codes(values, kind_)
    if not (codes >= 0).any():
        raise CodesError(f"No row of {', '.join(names)} has a value.")
    draw = (resamples, level, seed)
    metrics = _metrics(codes, labels, numbers, kind_, draw)
    groups = None
    if by is not None:
        key, group_names = group_keys(frame, by)
        tables = {}
        for g in range(len(group_names)):
            rows = key == g
            inside = None if numbers is None else numbers[rows]
            tables[g] = _metrics(codes[rows], labels, inside, kind_, draw)
        groups = pd.concat(
            list(tables.values()), keys=list(group_names), names=list(group_names.names)
        )
    notes = [order] if order and kind_ == "ordinal" else []
    return Agreement(
        metrics=metrics,
        rows=row_table(frame.index, values, codes, labels),
        pairs=_pairs(names, codes, len(labels), numbers, level),
        by=groups,
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
                "or the output= of a run with samples=."
            )
        return names
    names = list(columns)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigurationError(f"columns must be two or more different ones, not {names!r}.")
    return names


def _codes(
    values: Sequence[pd.Series[Any]], kind: str
) -> tuple[Ints, list[Any], str, Floats | None]:
    """Return classes as numbers, n x k, the classes, their order in words, and numbers as such."""
    if kind in ("numeric", "ratio"):
        numbers = np.column_stack([as_numbers(v) for v in values])
        known = ~np.isnan(numbers)
        distinct, inverse = np.unique(numbers[known], return_inverse=True)
        codes = np.full(numbers.shape, -1, dtype=np.int64)
        codes[known] = inverse
        return codes, list(distinct), "", numbers
    if kind == "set":
        texts = [
            pd.Series(
                [
                    ";".join(sorted(as_set(c))) if known else None
                    for c, known in zip(v.astype(object), v.notna(), strict=True)
                ],
                dtype=object,
                name=v.name,
            )
            for v in values
        ]
        classes = encode(texts)
        return np.column_stack(classes.codes), list(classes.labels), "", None
    classes = encode(values)
    order = "" if classes.declared else f"order of classes: {classes.order}"
    return np.column_stack(classes.codes), list(classes.labels), order, None


def _patterns(codes: Ints) -> tuple[Ints, Ints]:
    """Return the distinct rows of codes, and how often each occurs."""
    k = int(codes.max(initial=0)) + 2
    if k ** codes.shape[1] < 2**62:
        key = np.zeros(len(codes), dtype=np.int64)
        for j in range(codes.shape[1]):
            key = key * k + codes[:, j] + 1
        distinct, counts = np.unique(key, return_counts=True)
        parts = []
        for _ in range(codes.shape[1]):
            distinct, part = np.divmod(distinct, k)
            parts.append(part - 1)
        return np.column_stack(parts[::-1]), counts
    rows, counts = np.unique(codes, axis=0, return_counts=True)
    return rows, counts


def _metrics(
    codes: Ints, labels: Sequence[Any], numbers: Floats | None, kind: str, draw: Draw
) -> pd.DataFrame:
    """Return all coefficients of rows; resampled are distinct rows of codes."""
    used = np.unique(codes[codes >= 0])
    if kind != "ordinal" and len(used) < len(labels):
        place = np.full(len(labels) + 1, -1, dtype=np.int64)
        place[used] = np.arange(len(used))
        codes, labels = place[codes], [labels[i] for i in used]
    patterns, times = _patterns(codes)
    paired = (codes >= 0).sum(1) >= 2
    n, whole = int(paired.sum()), int((codes >= 0).all(1).sum())
    rows: dict[str, Row] = {}
    if not n:
        empty = Row(np.nan, np.nan, np.nan, "", 0, "no row has two values")
        return metric_frame({"agreement": empty, "alpha": empty})
    for sample, statistic in _statistics(patterns, times, labels, kind):
        rows |= bootstrap_rows(sample, statistic, {"": n, "ICC(2,1)": whole}, draw)
    one = len(used) == 1
    for name, row in rows.items():
        if np.isnan(row.estimate):
            rows[name] = add_note(row, "one class only" if one else "nothing varies")
        elif name == "AC1" and one:
            rows[name] = add_note(row, "one class only: agreement is complete")
    return metric_frame(rows)


def _statistics(
    patterns: Ints, times: Ints, labels: Sequence[Any], kind: str
) -> list[tuple[Sample, Statistic]]:
    """Return the sample, and the function that computes statistics from its resampled sums."""
    if kind in ("nominal", "ordinal"):
        return [of_classes(patterns, times, len(labels), ordinal=kind == "ordinal")]
    both = [of_equality(patterns, times)]
    if kind == "numeric":
        return [*both, of_numbers(patterns, times, np.asarray(labels, dtype=np.float64))]
    if kind == "ratio":
        numbers = np.asarray(labels, dtype=np.float64)
        return [*both, of_distances(patterns, times, len(numbers), ratio_distance(numbers))]
    sets = [frozenset(t for t in str(text).split(";") if t) for text in labels]
    held = indicators(sets, sorted({label for s in sets for label in s}))
    return [*both, of_distances(patterns, times, len(sets), jaccard_distance(held))]


def _pairs(
    names: Sequence[str], codes: Ints, k: int, numbers: Floats | None, level: float
) -> pd.DataFrame:
    """Return how each pair of columns agrees, on the rows that have both."""
    out = []
    for i, j in combinations(range(len(names)), 2):
        both = (codes[:, i] >= 0) & (codes[:, j] >= 0)
        a, b = codes[both, i], codes[both, j]
        n, right = len(a), int((a == b).sum())
        low, high = wilson(right, n, level)
        row: dict[str, Any] = {
            "n": n,
            "agreement": right / n if n else np.nan,
            "low": float(low),
            "high": float(high),
        }
        if numbers is None:
            expected = (np.bincount(a, minlength=k) * np.bincount(b, minlength=k)).sum() / max(n, 1)
            row["kappa"] = (right - expected) / (n - expected) if n > expected else np.nan
        else:
            x, y = numbers[both, i], numbers[both, j]
            varies = n > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
            row["Pearson"] = float(np.corrcoef(x, y)[0, 1]) if varies else np.nan
        out.append(row)
    index = pd.MultiIndex.from_tuples(list(combinations(names, 2)), names=["a", "b"])
    return pd.DataFrame(out, index=index)
