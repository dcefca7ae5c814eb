"""Describe the values of each row: how many, the most frequent, and how they vary.

Comes in: classes, rows x columns, -1 for a gap. Goes out: a table with a row for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Ints = np.ndarray[Any, np.dtype[np.int64]]


def row_table(
    index: pd.Index[Any],
    values: Sequence[pd.Series[Any]],
    codes: Ints,
    labels: Sequence[Any],
) -> pd.DataFrame:
    """
    Return ``answered, majority, share, flips, entropy`` of each row.

    The majority has the columns' dtype where they have one in common, else it is text.
    """
    n, k = codes.shape
    known = codes >= 0
    answered = known.sum(1)
    ordered = np.sort(codes, axis=1)
    # Runs of equal classes in a sorted row: their lengths are the counts.
    entropy = np.zeros(n)
    best = np.zeros(n, dtype=np.int64)
    times_best = np.zeros(n, dtype=np.int64)
    winner = np.full(n, -1, dtype=np.int64)
    for i in range(k):
        here = ordered[:, i]
        first = (here >= 0) & ((ordered[:, i - 1] != here) if i else True)
        length = ((ordered == here[:, None]) & (ordered >= 0)).sum(1)
        share = np.where(first, length / np.maximum(answered, 1), 1.0)
        entropy -= share * np.log2(share)
        more = first & (length > best)
        times_best = np.where(more, 1, times_best + (first & (length == best)))
        winner = np.where(more, here, winner)
        best = np.where(more, length, best)
    flips = np.zeros(n, dtype=np.int64)
    last = codes[:, 0].copy()
    for j in range(1, k):
        here = codes[:, j]
        flips += (last >= 0) & (here >= 0) & (last != here)
        last = np.where(here >= 0, here, last)
    winner = np.where(times_best == 1, winner, -1)
    return pd.DataFrame(
        {
            "answered": answered,
            "majority": _majority(index, values, codes, winner, labels),
            "share": np.where(answered > 0, best / np.maximum(answered, 1), np.nan),
            "flips": flips,
            "entropy": np.where(answered > 0, np.abs(entropy), np.nan),
        },
        index=index,
    )


def _majority(
    index: pd.Index[Any],
    values: Sequence[pd.Series[Any]],
    codes: Ints,
    winner: Ints,
    labels: Sequence[Any],
) -> pd.Series[Any]:
    """Take each winning value from the first column that has it."""
    dtypes = {str(v.dtype) for v in values}
    if len(dtypes) == 1:
        out = values[0].copy()
        out.index = index
        out = out.where(codes[:, 0] == winner)
        for j in range(1, codes.shape[1]):
            out = out.where(codes[:, j] != winner, values[j].set_axis(index))
        return out.where(winner >= 0)
    texts = np.array([*map(str, labels), None], dtype=object)
    return pd.Series(texts[winner], index=index, dtype="string")
