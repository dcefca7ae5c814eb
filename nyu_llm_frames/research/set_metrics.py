"""Compare two columns of sets of labels.

Comes in: sets. Goes out: what each row adds to the sums, and statistics of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nyu_llm_frames.research.confusion_metrics import _mean, _ratio

Floats = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK = 2_000  # sets that are compared with all others at once
_HEAD = 5


def indicators(sets: Sequence[frozenset[str]], labels: Sequence[str]) -> Floats:
    """Return which labels each set has, n x K, as 0 and 1."""
    place = {label: i for i, label in enumerate(labels)}
    out = np.zeros((len(sets), len(labels)))
    for row, held in enumerate(sets):
        out[row, [place[label] for label in held]] = 1
    return out


def jaccard(a: Floats, b: Floats) -> Floats:
    """Return shared labels / labels of either, row by row; 1 for two empty sets."""
    shared, either = (a * b).sum(-1), np.maximum(a, b).sum(-1)
    return np.where(either > 0, _ratio(shared, np.maximum(either, 1)), 1.0)


def mean_distance(sets: Floats, counts: Floats) -> Floats:
    """
    Return each set's mean Jaccard distance to all other sets, m distinct ones with counts.

    It is the expected disagreement of Krippendorff's alpha, one set at a time.
    """
    size = sets.sum(1)
    out = np.empty(len(sets))
    for start in range(0, len(sets), _BLOCK):
        block = slice(start, start + _BLOCK)
        shared = sets[block] @ sets.T
        either = size[block, None] + size - shared
        apart = 1 - np.where(either > 0, shared / np.maximum(either, 1), 1.0)
        out[block] = apart @ counts / max(counts.sum() - 1, 1)
    return out


def contributions(truth: Floats, answers: Floats, weight: Floats) -> Floats:
    """Return what each row adds to the sums that `set_metrics` reads, n x (5 + 3 K)."""
    both, distinct = np.concatenate([truth, answers]), np.concatenate([weight, weight])
    unique, inverse = np.unique(both, axis=0, return_inverse=True)
    counts = np.bincount(inverse.ravel(), distinct, minlength=len(unique)).astype(np.float64)
    far = mean_distance(unique, counts)
    its = far[inverse.ravel()]
    n = len(truth)
    alike = jaccard(truth, answers)
    head = [np.ones(n), (truth == answers).all(1), alike, its[:n], its[n:]]
    parts = [np.column_stack(head), truth * answers, truth, answers]
    return np.hstack(parts) * weight[:, None]


def set_metrics(sums: Floats, expected: float) -> dict[str, Floats]:
    """
    Return the statistics of sums, (..., 5 + 3 K).

    Alpha is Krippendorff's with the Jaccard distance; in resamples its expected disagreement is
    taken to the first order. Source: Passonneau 2006, LREC, with the distance of Jaccard.

    Parameters
    ----------
    expected : float
        The expected disagreement of all rows.
    """
    n = sums[..., 0]
    right, truth, answers = np.split(sums[..., _HEAD:], 3, axis=-1)
    apart = 1 - _ratio(sums[..., 2], n)
    far = _ratio(sums[..., 3] + sums[..., 4], 2 * n)
    return {
        "exact": _ratio(sums[..., 1], n),
        "Jaccard": _ratio(sums[..., 2], n),
        "micro_F1": _ratio(2 * right.sum(-1), truth.sum(-1) + answers.sum(-1)),
        "macro_F1": _mean(_ratio(2 * right, truth + answers)),
        "alpha": 1 - _ratio(apart, 2 * far - expected),
    }


def expected_disagreement(sums: Floats) -> float:
    """Return the expected disagreement of alpha from the sums of all rows."""
    return float(_ratio(sums[3] + sums[4], 2 * sums[0]))
