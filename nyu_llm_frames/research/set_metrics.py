"""Score sets of labels against sets.

Comes in: sets of two sides. Goes out: `Scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nyu_llm_frames.research.agreement_statistics import (
    indicators,
    jaccard_distance,
    mean_distance,
)
from nyu_llm_frames.research.arithmetic import Floats, known_mean, ratio
from nyu_llm_frames.research.confusion_metrics import (
    class_proportions,
    class_statistics,
    class_table,
)
from nyu_llm_frames.research.intervals import Bootstrap, Scores, bootstrap_rows, wilson_row
from nyu_llm_frames.research.resampling import Rows, of_rows

SET_METRICS = ("exact", "Jaccard", "micro_F1", "macro_F1", "alpha")
_HEAD = 5


def score_sets(
    truth: Sequence[frozenset[str]],
    answers: Sequence[frozenset[str]],
    rows: Rows,
    draw: Bootstrap,
) -> Scores:
    """Score sets of labels against sets, none missing."""
    labels = sorted({label for held in (*truth, *answers) for label in held})
    x, y = indicators(truth, labels), indicators(answers, labels)
    sample = of_rows(contributions(x, y, rows.weight), rows)
    sums = sample.sums()
    expected = float(ratio(sums[3] + sums[4], 2 * sums[0]))

    def statistics(sums: Floats) -> dict[Any, Floats]:
        return set_metrics(sums, expected)

    found = bootstrap_rows(sample, statistics, len(x), draw)
    if not rows.weighted and rows.units is None:
        found["exact"] = wilson_row(float((x == y).all(1).sum()), len(x), draw.level)
    if rows.units is None:
        right = (x * y).sum(0)
        for name, own in (("precision", y), ("recall", x)):
            place, label = np.nonzero(own)
            found |= class_proportions(name, label, rows.weight[place], right, draw.level)
    metrics = {name: found[name] for name in SET_METRICS}
    for name, row in metrics.items():
        if np.isnan(row.estimate):
            metrics[name] = row.noted("nothing varies" if name == "alpha" else "no label")
    _, known, given = np.split(sums[_HEAD:], 3)
    coded = x.sum(0).astype(np.int64)
    classes, notes = class_table(labels, found, coded, known, given, np.zeros(len(labels)))
    return Scores(metrics, classes, notes=notes)


def contributions(truth: Floats, answers: Floats, weight: Floats) -> Floats:
    """Return what each row adds to the sums that `set_metrics` reads, n x (5 + 3 K)."""
    unique, inverse = np.unique(np.concatenate([truth, answers]), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    counts = np.bincount(inverse, np.concatenate([weight, weight]), minlength=len(unique))
    far = mean_distance(jaccard_distance(unique), counts.astype(np.float64))[inverse]
    n = len(truth)
    shared, either = (truth * answers).sum(-1), np.maximum(truth, answers).sum(-1)
    alike = np.where(either > 0, shared / np.maximum(either, 1), 1.0)  # two empty sets: 1
    head = np.column_stack([np.ones(n), (truth == answers).all(1), alike, far[:n], far[n:]])
    return np.hstack([head, truth * answers, truth, answers]) * weight[:, None]


def set_metrics(sums: Floats, expected: float) -> dict[Any, Floats]:
    """
    Return the statistics of sums, (..., 5 + 3 K).

    Alpha is Krippendorff's with the Jaccard distance; in resamples its expected disagreement, that
    of all rows being `expected`, is taken to the first order. Source: Passonneau 2006, LREC, with
    the distance of Jaccard.
    """
    n = sums[..., 0]
    right, truth, answers = np.split(sums[..., _HEAD:], 3, axis=-1)
    apart = 1 - ratio(sums[..., 2], n)
    far = ratio(sums[..., 3] + sums[..., 4], 2 * n)
    return {
        "exact": ratio(sums[..., 1], n),
        "Jaccard": ratio(sums[..., 2], n),
        "micro_F1": ratio(2 * right.sum(-1), truth.sum(-1) + answers.sum(-1)),
        "macro_F1": known_mean(ratio(2 * right, truth + answers)),
        "alpha": 1 - ratio(apart, 2 * far - expected),
        **class_statistics(right, truth, answers),
    }
