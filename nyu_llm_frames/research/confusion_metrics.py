"""Score labels against labels: accuracy, F1, kappas, alpha, AC1, Matthews.

Statistics take tables of shape (..., K, K), truth by answer: one, or one for each resample. Cells
may be weighted. Where a statistic has no value it is NaN, and its note says why.

Comes in: classes of two sides. Goes out: `Scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.research.agreement_statistics import alpha, gwet_ac1
from nyu_llm_frames.research.arithmetic import Floats, Ints, known_mean, ratio
from nyu_llm_frames.research.intervals import (
    FEW,
    Bootstrap,
    Row,
    Scores,
    bootstrap_rows,
    wilson_row,
)
from nyu_llm_frames.research.labels import UNANSWERED, Classes, used_labels
from nyu_llm_frames.research.resampling import Rows, of_cells

_PARTS = ("precision", "recall", "F1")


def kappa(table: Floats, weights: Literal["none", "linear", "quadratic"] = "none") -> Floats:
    """
    Return Cohen's kappa; with weights, that of ordered classes at equal distances.

    Source: Cohen 1960; weighted: Cohen 1968; Landis & Koch 1977, Biometrics 33, 159-174.
    """
    k = np.arange(table.shape[-1], dtype=np.float64)
    apart = np.abs(k[:, None] - k)
    cost = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weights]
    observed = (cost * table).sum((-1, -2))
    expected = np.einsum("...i,ij,...j->...", table.sum(-1), cost, table.sum(-2), optimize=True)
    return 1 - ratio(observed * table.sum((-1, -2)), expected)


def kappa_standard_error(table: Floats) -> float:
    """
    Return the asymptotic standard error of Cohen's kappa in an unweighted table.

    Source: Fleiss, Cohen & Everitt 1969, Psychological Bulletin 72, 323-327; as statsmodels.
    """
    n = table.sum()
    p = table / n
    rows, columns = p.sum(1), p.sum(0)
    agreed, expected = np.trace(p), float(rows @ columns)
    k = (agreed - expected) / (1 - expected)
    diagonal = (np.diag(p) * (1 - (rows + columns) * (1 - k)) ** 2).sum()
    off = p * (columns[:, None] + rows[None, :]) ** 2
    np.fill_diagonal(off, 0)
    variance = diagonal + (1 - k) ** 2 * off.sum() - (k - expected * (1 - k)) ** 2
    return float(np.sqrt(max(variance, 0.0) / n) / (1 - expected))


def class_statistics(right: Floats, truth: Floats, answers: Floats) -> dict[Any, Floats]:
    """Return precision, recall and F1 of each class, by (name, place), from counts (..., K)."""
    each = (ratio(right, answers), ratio(right, truth), ratio(2 * right, truth + answers))
    return {
        (name, i): values[..., i]
        for name, values in zip(_PARTS, each, strict=True)
        for i in range(values.shape[-1])
    }


def class_proportions(
    name: str, classes: Ints, weights: Floats, right: Any, level: float
) -> dict[Any, Row]:
    """
    Return Wilson's interval for each class whose rows have one weight, from the class of each row.

    Where the model's labels are the strata, weights differ, but not among the rows of a precision.
    """
    k = len(right)
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    np.minimum.at(low, classes, weights)
    np.maximum.at(high, classes, weights)
    n = np.bincount(classes, minlength=k)
    even = np.flatnonzero(low == high).tolist()
    return {(name, i): wilson_row(right[i], n[i], level) for i in even}


def label_statistics(table: Floats, ordinal: bool) -> dict[Any, Floats]:
    """
    Return all statistics of tables with a last column of rows without an answer.

    Recall is averaged over the classes that truth has, F1 over those of either side, as
    scikit-learn does. Matthews' correlation for any number of classes: Gorodkin 2004, Comput.
    Biol. Chem. 28, 367-374.
    """
    answered = table[..., :-1]
    right = np.diagonal(answered, axis1=-2, axis2=-1)
    truth, answers = answered.sum(-1), answered.sum(-2)
    n, k = answered.sum((-1, -2)), answered.shape[-1]
    agreed = ratio(right.sum(-1), n)
    f1 = ratio(2 * right, truth + answers)
    out: dict[Any, Floats] = {
        "accuracy": ratio(right.sum(-1), table.sum((-1, -2))),
        "accuracy_answered": agreed,
        "balanced_accuracy": known_mean(ratio(right, truth)),
        "macro_F1": known_mean(f1),
        "weighted_F1": ratio((np.where(np.isnan(f1), 0, f1) * truth).sum(-1), n),
        "kappa": kappa(answered),
    }
    if ordinal:
        out["kappa_linear"] = kappa(answered, "linear")
        out["kappa_quadratic"] = kappa(answered, "quadratic")
    out["alpha"] = alpha(answered + np.swapaxes(answered, -1, -2), ordinal=ordinal)
    out["AC1"] = gwet_ac1(agreed, ratio((truth + answers) / 2, n[..., None]), k)
    shared = right.sum(-1) * n - (truth * answers).sum(-1)
    apart = (n**2 - (truth**2).sum(-1)) * (n**2 - (answers**2).sum(-1))
    out["Matthews"] = ratio(shared, np.sqrt(np.maximum(apart, 0)))
    return out | class_statistics(right, truth, answers)


def score_labels(classes: Classes, ordinal: bool, rows: Rows, draw: Bootstrap) -> Scores:
    """Score classes against classes; every row has a code, an answer may be missing (-1)."""
    codes, labels = np.column_stack(classes.codes), list(classes.labels)
    if not ordinal:  # a class that neither side has does not count
        codes, labels = used_labels(codes, labels)
    truth, answers = codes.T
    k = len(labels)
    cell = truth * (k + 1) + np.where(answers < 0, k, answers)
    sample = of_cells(cell, rows, k * (k + 1))
    counted = np.bincount(cell, minlength=k * (k + 1)).reshape(k, k + 1)
    table = sample.sums().reshape(k, k + 1)
    n, answered = len(truth), int(counted[:, :-1].sum())

    def statistics(sums: Floats) -> dict[Any, Floats]:
        return label_statistics(sums.reshape(*sums.shape[:-1], k, k + 1), ordinal)

    found = bootstrap_rows(sample, statistics, answered, draw)
    found["accuracy"] = replace(found["accuracy"], n=n)
    plain = not rows.weighted and rows.units is None
    right = np.diagonal(counted[:, :-1])
    if plain:
        found["accuracy"] = wilson_row(right.sum(), n, draw.level)
        found["accuracy_answered"] = wilson_row(right.sum(), answered, draw.level)
    if rows.units is None:
        seen = answers >= 0
        for name, own in (("precision", answers[seen]), ("recall", truth[seen])):
            found |= class_proportions(name, own, rows.weight[seen], right, draw.level)
    metrics = {name: row for name, row in found.items() if isinstance(name, str)}
    _explain(metrics, counted, plain)
    whole = bool((table == np.round(table)).all()) and table.sum() == n
    shown = table.astype(np.int64) if whole else table
    by_class, notes = class_table(
        labels, found, counted.sum(1), shown.sum(1), shown[:, :-1].sum(0), shown[:, -1]
    )
    confusion = pd.DataFrame(
        table if rows.weighted else counted,
        index=pd.Index(labels, name="truth"),
        columns=pd.Index([*labels, UNANSWERED], name="predicted"),
    )
    if not classes.declared:
        notes.insert(0, f"order of classes: {classes.order}")
    if rows.weighted:
        notes.append("weighted by 1/pi: shares of all rows, not of the coded ones")
    return Scores(metrics, by_class, confusion, notes)


def _explain(metrics: dict[str, Row], counted: Ints, plain: bool) -> None:
    """Note why a statistic has no value, and what else its reader needs to know."""
    answered, unanswered = counted[:, :-1], int(counted[:, -1].sum())
    one = int(((answered.sum(1) > 0) | (answered.sum(0) > 0)).sum()) == 1
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
            error = kappa_standard_error(answered.astype(np.float64))
            note = f"asymptotic SE {error:.4f}"
        elif unanswered and name != "accuracy":
            note = "answered rows"
        metrics[name] = row.noted(note)


def class_table(
    labels: Sequence[str],
    found: Mapping[Any, Row],
    coded: Ints,
    support: Any,
    predicted: Any,
    unanswered: Any,
) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of classes, and notes on those with few coded rows or none."""
    out: dict[str, Any] = {
        "coded": coded,
        "support": support,
        "predicted": predicted,
        "unanswered": unanswered,
    }
    for name in _PARTS:
        own = [found[name, i] for i in range(len(labels))]
        out[name] = [row.estimate for row in own]
        out[f"{name}_low"] = [row.low for row in own]
        out[f"{name}_high"] = [row.high for row in own]
    few_only = [
        "never seen in truth" if not n else f"{count(n, 'coded case')} only" if n < FEW else ""
        for n in coded.tolist()
    ]
    gaps = ["answered rows" if left else "" for left in unanswered.tolist()]
    out["note"] = ["; ".join(filter(None, both)) for both in zip(few_only, gaps, strict=True)]
    few = [label for label, n in zip(labels, coded, strict=True) if 0 < n < FEW]
    never = [label for label, n in zip(labels, coded, strict=True) if not n]
    notes = [f"fewer than {FEW} coded cases: {', '.join(few)}"] if few else []
    notes += [f"never seen in truth: {', '.join(never)}"] if never else []
    return pd.DataFrame(out, index=pd.Index(list(labels), name="label")), notes
