"""Build tables of statistics with intervals: of labels, of numbers, of sets.

Wilson's interval for proportions without weights, since the bootstrap of 20 correct out of 20
gives [1, 1]; the percentile bootstrap within strata for all others.

Comes in: classes, numbers or sets of two sides, with weights, strata and units. Goes out: `Scores`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.research import confusion_metrics as of_table
from nyu_llm_frames.research.intervals import critical_value, percentiles, wilson
from nyu_llm_frames.research.krippendorff_alpha import alpha_of_two
from nyu_llm_frames.research.labels import UNANSWERED, Classes
from nyu_llm_frames.research.rating_metrics import (
    MOST_RANKED,
    dense_ranks,
    moments,
    rating_metrics,
    spearman,
    spearman_influence,
    spearman_resampled,
)
from nyu_llm_frames.research.resampling import (
    MOST_PATTERNS,
    Sample,
    distributions,
    of_cells,
    of_rows,
)
from nyu_llm_frames.research.set_metrics import (
    contributions,
    expected_disagreement,
    indicators,
    set_metrics,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Draw: TypeAlias = tuple[int, float, int]
"""Resamples, level, seed."""

FEW = 10
"""With fewer coded cases, the statistics of a class are unreliable."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Tables of one column of answers."""

    metrics: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A statistic with its interval."""

    estimate: float
    low: float
    high: float
    method: str
    n: int
    note: str = ""


def metric_frame(rows: Mapping[str, Row]) -> pd.DataFrame:
    """Return statistics as a table, with the dtypes that it always has."""
    columns = ("estimate", "low", "high", "method", "n", "note")
    out = pd.DataFrame(
        {c: [getattr(r, c) for r in rows.values()] for c in columns},
        index=pd.Index(list(rows), name="metric"),
    )
    return out.astype({"estimate": float, "low": float, "high": float, "n": "int64"})


def bootstrap_rows(
    sample: Sample,
    statistics: Callable[[Floats], Mapping[str, Floats]],
    sizes: Mapping[str, int],
    draw: Draw,
) -> dict[str, Row]:
    """Return each statistic of a sample with its percentile interval."""
    resamples, level, seed = draw
    found = statistics(sample.sums()[None])
    drawn = distributions(sample, statistics, resamples, seed)
    method = "bootstrap" if len(sample.counts) <= MOST_PATTERNS else "normal limit"
    out = {}
    for name, values in found.items():
        estimate = float(values[0])
        n = sizes.get(name, sizes[""])
        if np.isnan(estimate):
            out[name] = Row(np.nan, np.nan, np.nan, "", n)
            continue
        low, high, left = percentiles(drawn[name], level)
        note = f"{left:,} of {resamples:,} resamples have no value and are left out" if left else ""
        out[name] = Row(estimate, low, high, method, n, note)
    return out


def wilson_row(right: float, n: float, level: float) -> Row:
    """Return a proportion with Wilson's interval."""
    if not n:
        return Row(np.nan, np.nan, np.nan, "", 0)
    low, high = wilson(right, n, level)
    return Row(float(right / n), float(low), float(high), "Wilson", int(n))


def add_note(row: Row, note: str) -> Row:
    """Return a row with one more note."""
    notes = "; ".join(part for part in (row.note, note) if part)
    return Row(row.estimate, row.low, row.high, row.method, row.n, notes)


# --- labels -----------------------------------------------------------------------------------
def label_statistics(table: Floats, ordinal: bool) -> dict[str, Floats]:
    """Return all statistics of tables with a last column of rows without an answer."""
    answered = table[..., :-1]
    right = np.diagonal(answered, axis1=-2, axis2=-1).sum(-1)
    out = {
        "accuracy": of_table._ratio(right, table.sum((-1, -2))),
        "accuracy_answered": of_table.accuracy(answered),
        "balanced_accuracy": of_table.balanced_accuracy(answered),
        "macro_F1": of_table.macro_f1(answered),
        "weighted_F1": of_table.weighted_f1(answered),
        "kappa": of_table.kappa(answered),
    }
    if ordinal:
        out["kappa_linear"] = of_table.kappa(answered, "linear")
        out["kappa_quadratic"] = of_table.kappa(answered, "quadratic")
    out["alpha"] = alpha_of_two(answered, "ordinal" if ordinal else "nominal")
    out["AC1"] = of_table.ac1(answered)
    out["Matthews"] = of_table.matthews(answered)
    return out


def score_labels(
    classes: Classes,
    ordinal: bool,
    weight: Floats,
    strata: Ints,
    units: Ints | None,
    draw: Draw,
) -> Scores:
    """Score classes against classes; every row has a code, an answer may be missing (-1)."""
    truth, answers = classes.codes
    k = len(classes.labels)
    if not ordinal:  # a class that neither side has does not count
        kept = np.flatnonzero(np.bincount(np.concatenate([truth, answers[answers >= 0]]),
                                          minlength=k))  # fmt: skip
        place = np.full(k + 1, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        truth, answers, k = place[truth], place[answers], len(kept)
        labels = [classes.labels[i] for i in kept]
    else:
        labels = list(classes.labels)
    cell = truth * (k + 1) + np.where(answers < 0, k, answers)
    sample = of_cells(cell, weight, strata, units, k * (k + 1))
    counted = np.bincount(cell, minlength=k * (k + 1)).reshape(k, k + 1)
    table = sample.sums().reshape(k, k + 1)
    alone = units is None or len(np.unique(units)) == len(units)
    plain = bool((weight == 1).all()) and alone
    n, answered = len(truth), int(counted[:, :-1].sum())

    def statistics(sums: Floats) -> dict[str, Floats]:
        tables = sums.reshape(*sums.shape[:-1], k, k + 1)
        out = label_statistics(tables, ordinal)
        parts = of_table.precision_recall_f1(tables[..., :-1])
        for name, values in zip(("precision", "recall", "F1"), parts, strict=True):
            out |= {f"{name} {i}": values[..., i] for i in range(k)}
        return out

    rows = bootstrap_rows(sample, statistics, {"accuracy": n, "": answered}, draw)
    level = draw[1]
    right = np.diagonal(counted[:, :-1])
    if plain:
        rows["accuracy"] = wilson_row(right.sum(), n, level)
        rows["accuracy_answered"] = wilson_row(right.sum(), answered, level)
        for i in range(k):
            rows[f"precision {i}"] = wilson_row(right[i], counted[:, i].sum(), level)
            rows[f"recall {i}"] = wilson_row(right[i], counted[i, :-1].sum(), level)
    metrics = {m: r for m, r in rows.items() if not m[-1].isdigit() or " " not in m}
    explain(metrics, counted, n - answered, plain)
    by_class, notes = _classes(labels, rows, counted, table)
    weighted = "" if plain and (weight == 1).all() else "weighted by 1/pi"
    confusion = pd.DataFrame(
        counted if (weight == 1).all() else table,
        index=pd.Index(labels, name="truth"),
        columns=pd.Index([*labels, UNANSWERED], name="predicted"),
    )
    if not classes.declared:
        notes.insert(0, f"order of classes: {classes.order}")
    if weighted and not (weight == 1).all():
        notes.append("weighted by 1/pi: shares of all rows, not of the coded ones")
    return Scores(metric_frame(metrics), by_class, confusion, tuple(notes))


def explain(metrics: dict[str, Row], counted: Ints, unanswered: int, plain: bool) -> None:
    """Note why a statistic has no value, and what else its reader needs to know."""
    answered = counted[:, :-1]
    truth, answers = answered.sum(1) > 0, answered.sum(0) > 0
    one = int((truth | answers).sum()) == 1
    for name, row in metrics.items():
        note = ""
        if not answered.sum() and name != "accuracy":
            note = "no coded row has an answer"
        elif np.isnan(row.estimate):
            note = "one class only" if one else "one side has one class only"
        elif name == "AC1" and one:
            note = "one class only: agreement is complete"
        elif name == "accuracy" and unanswered:
            note = f"{count(unanswered, 'row')} without an answer: wrong"
        elif name == "kappa" and plain:
            error = of_table.kappa_standard_error(answered.astype(np.float64))
            note = f"asymptotic SE {error:.4f}"
        elif unanswered and name != "accuracy":
            note = "answered rows"
        if note:
            metrics[name] = add_note(row, note)


def _classes(
    labels: Sequence[str], rows: Mapping[str, Row], counted: Ints, table: Floats
) -> tuple[pd.DataFrame, list[str]]:
    out: dict[str, Any] = {
        "coded": counted.sum(1),
        "support": table.sum(1),
        "predicted": table[:, :-1].sum(0),
        "unanswered": table[:, -1],
    }
    for name in ("precision", "recall", "F1"):
        own = [rows[f"{name} {i}"] for i in range(len(labels))]
        out[name] = [r.estimate for r in own]
        out[f"{name}_low"] = [r.low for r in own]
        out[f"{name}_high"] = [r.high for r in own]
    notes, warnings = [], []
    few = [label for label, n in zip(labels, counted.sum(1), strict=True) if 0 < n < FEW]
    never = [label for label, n in zip(labels, counted.sum(1), strict=True) if not n]
    for n in counted.sum(1).tolist():
        if not n:
            notes.append("never seen in truth")
        else:
            notes.append(f"{count(n, 'coded case')} only" if n < FEW else "")
    if few:
        warnings.append(f"fewer than {FEW} coded cases: {', '.join(few)}")
    if never:
        warnings.append(f"never seen in truth: {', '.join(never)}")
    out["note"] = notes
    if (table == np.round(table)).all() and (table.sum() == counted.sum()):
        out |= {c: np.asarray(out[c]).astype(np.int64) for c in out if c in _COUNTS}
    return pd.DataFrame(out, index=pd.Index(list(labels), name="label")), warnings


_COUNTS = ("support", "predicted", "unanswered")


# --- numbers ----------------------------------------------------------------------------------
def score_ratings(
    truth: Floats,
    answers: Floats,
    weight: Floats,
    strata: Ints,
    units: Ints | None,
    draw: Draw,
) -> Scores:
    """Score numbers against numbers; an answer may be NaN."""
    use = ~np.isnan(answers)
    x, y, w, h = truth[use], answers[use], weight[use], strata[use]
    u = None if units is None else units[use]
    names = ("bias", "MAE", "RMSE", "Pearson", "Spearman", "CCC", "ICC(2,1)")
    left = len(use) - int(use.sum())
    notes = [f"{count(left, 'coded row')} without an answer"] if left else []
    if not len(x):
        empty = {m: Row(np.nan, np.nan, np.nan, "", 0, "no coded row has an answer") for m in names}
        return Scores(metric_frame(empty), pd.DataFrame(), pd.DataFrame(), tuple(notes))
    sample = of_rows(moments(x, y, w), h, u)
    rows = bootstrap_rows(sample, rating_metrics, {"": len(x)}, draw)
    rows["Spearman"] = _spearman_row(sample, x, y, w, h, u, draw)
    for name in names:
        if np.isnan(rows[name].estimate):
            rows[name] = add_note(rows[name], "one side does not vary")
    if not (weight == 1).all():
        notes.append("weighted by 1/pi: of all rows, not of the coded ones")
    metrics = metric_frame({name: rows[name] for name in names})
    return Scores(metrics, pd.DataFrame(), pd.DataFrame(), tuple(notes))


def _spearman_row(
    sample: Sample,
    x: Floats,
    y: Floats,
    weight: Floats,
    strata: Ints,
    units: Ints | None,
    draw: Draw,
) -> Row:
    """Rank each resample again, or where that takes long use the influence of each row."""
    resamples, level, seed = draw
    a, b = dense_ranks(x), dense_ranks(y)
    estimate = float(spearman(a, b, weight))
    n = len(x)
    if np.isnan(estimate):
        return Row(np.nan, np.nan, np.nan, "", n)
    alone = units is None or len(np.unique(units)) == n
    if alone and len(sample.counts) <= MOST_RANKED:
        low, high, left = percentiles(spearman_resampled(sample, resamples, seed), level)
        note = f"{left:,} of {resamples:,} resamples have no value and are left out" if left else ""
        return Row(estimate, low, high, "bootstrap", n, note)
    moved = weight * spearman_influence(a, b, weight) / weight.sum()
    if units is not None and not alone:
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        moved, strata = np.bincount(unit, moved), strata[first]
    inside = [moved[strata == h] for h in np.unique(strata)]
    variance = sum(float(((v - v.mean()) ** 2).sum()) for v in inside)
    half = critical_value(level) * math.sqrt(variance) / max(1 - estimate**2, 1e-12)
    z = math.atanh(min(max(estimate, -1 + 1e-15), 1 - 1e-15))
    return Row(estimate, math.tanh(z - half), math.tanh(z + half), "normal, Fisher's z", n)


# --- sets -------------------------------------------------------------------------------------
def score_sets(
    truth: Sequence[frozenset[str] | None],
    answers: Sequence[frozenset[str] | None],
    weight: Floats,
    strata: Ints,
    units: Ints | None,
    draw: Draw,
) -> Scores:
    """Score sets of labels against sets; an answer may be None."""
    use = np.array([a is not None for a in answers], dtype=bool)
    first = [t for t, a in zip(truth, answers, strict=True) if t is not None and a is not None]
    second = [a for a in answers if a is not None]
    labels = sorted({label for held in (*first, *second) for label in held})
    left = len(use) - int(use.sum())
    notes = [f"{count(left, 'coded row')} without an answer"] if left else []
    names = ("exact", "Jaccard", "micro_F1", "macro_F1", "alpha")
    if not second:
        empty = {m: Row(np.nan, np.nan, np.nan, "", 0, "no coded row has an answer") for m in names}
        return Scores(metric_frame(empty), pd.DataFrame(), pd.DataFrame(), tuple(notes))
    x, y = indicators(first, labels), indicators(second, labels)
    u = None if units is None else units[use]
    sample = of_rows(contributions(x, y, weight[use]), strata[use], u)
    expected = expected_disagreement(sample.sums())
    k = len(labels)

    def statistics(sums: Floats) -> dict[str, Floats]:
        right, known, given = np.split(sums[..., 5:], 3, axis=-1)
        out = set_metrics(sums, expected)
        for i in range(k):
            out[f"precision {i}"] = of_table._ratio(right[..., i], given[..., i])
            out[f"recall {i}"] = of_table._ratio(right[..., i], known[..., i])
            out[f"F1 {i}"] = of_table._ratio(2 * right[..., i], known[..., i] + given[..., i])
        return out

    rows = bootstrap_rows(sample, statistics, {"": len(first)}, draw)
    if (weight == 1).all() and (u is None or len(np.unique(u)) == len(u)):
        rows["exact"] = wilson_row(float((x == y).all(1).sum()), len(first), draw[1])
    metrics = {name: rows[name] for name in names}
    for name, row in metrics.items():
        if np.isnan(row.estimate):
            metrics[name] = add_note(row, "nothing varies" if name == "alpha" else "no label")
    right, known, given = np.split(sample.sums()[5:], 3)
    table = np.column_stack([np.diag(known - right), np.zeros(k)]) if k else np.zeros((0, 1))
    classes, warnings = _classes(labels, rows, x.sum(0).astype(np.int64)[:, None] * [1, 0], table)
    classes["support"], classes["predicted"] = known, given
    return Scores(metric_frame(metrics), classes, pd.DataFrame(), (*notes, *warnings))
