"""Compare columns of answers with each other, on the rows that both answered.

Comes in: hand codes and columns of answers. Goes out: a row for each pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames.research.arithmetic import Floats, Ints
from nyu_llm_frames.research.coding import Coding, detail_column
from nyu_llm_frames.research.intervals import Bootstrap, Row, bootstrap_rows
from nyu_llm_frames.research.labels import Column, Kind, as_numbers, as_sets, encode
from nyu_llm_frames.research.resampling import Rows, of_cells, of_rows

_COST = ("cost",)
_TOKENS = ("prompt_tokens", "completion_tokens")


def compare(
    frame: pd.DataFrame,
    codes: Column,
    answers: Sequence[Column],
    kind: Kind,
    coding: Coding,
    output: str,
    draw: Bootstrap,
) -> pd.DataFrame:
    """
    Compare each pair of columns of answers.

    The difference is that of accuracies, a - b, or for numbers that of mean absolute errors; its
    interval is a paired bootstrap within strata. For numbers "right" is closer to the code. The
    tests are McNemar's, exact, and Holm's correction over the pairs. They count units, and there is
    none of rows with weights, or of units that are right in one row and wrong in another.
    """
    wrong = [_errors(kind, codes, a) for a in answers]
    names = [str(a.name) for a in answers]
    named = any(f"{name}_{d}" in frame.columns for name in names for d in (*_COST, *_TOKENS))
    # Details of `output` are those of a schema's fields, which do not stand beside a run's answers.
    shared = None if named else output
    table = []
    for i, j in combinations(range(len(answers)), 2):
        use = coding.coded & ~np.isnan(wrong[i]) & ~np.isnan(wrong[j])
        a, b, rows = wrong[i][use], wrong[j][use], coding.where(use)
        if kind == "numeric":
            cells = np.where(a == b, 3, np.where(a < b, 1, 2))
            sample = of_rows(np.column_stack([(a - b) * rows.weight, rows.weight]), rows)

            def difference(sums: Floats) -> dict[str, Floats]:
                return {"difference": sums[..., 0] / sums[..., 1]}
        else:
            cells = (2 * a + b).astype(np.int64)
            sample = of_cells(cells, rows, 4)

            def difference(sums: Floats) -> dict[str, Floats]:
                return {"difference": (sums[..., 1] - sums[..., 2]) / sums.sum(-1)}

        n = [int((cells == c).sum()) for c in range(4)]
        own, why = _tested(cells, rows)
        p, z2 = (np.nan, np.nan) if why else mcnemar(int((own == 1).sum()), int((own == 2).sum()))
        found = bootstrap_rows(sample, difference, len(a), draw)["difference"] if len(a) else Row()
        row: dict[str, Any] = {
            "n": len(a), "both_right": n[0], "only_a": n[1], "only_b": n[2], "both_wrong": n[3],
            "difference": found.estimate, "low": found.low, "high": found.high,
            "mcnemar_p": p, "holm_p": p, "mcnemar_z2": z2,
        }  # fmt: skip
        for side, name in (("a", names[i]), ("b", names[j])):
            row[f"cost_{side}"] = _total(frame, name, shared, _COST)
            row[f"tokens_{side}"] = _total(frame, name, shared, _TOKENS)
        row["note"] = f"no exact test {why}: read the interval" if why else ""
        table.append(row)
    if not table:
        return pd.DataFrame()
    pairs = list(combinations(names, 2))
    out = pd.DataFrame(table, index=pd.MultiIndex.from_tuples(pairs, names=["a", "b"]))
    out["holm_p"] = holm(out["mcnemar_p"].to_numpy())
    return out


def _tested(cells: Ints, rows: Rows) -> tuple[Ints, str]:
    """Return what McNemar's test counts, and why there is none."""
    if rows.weighted:
        return cells, "with weights"
    if rows.units is None:
        return cells, ""
    _, first, inverse = np.unique(rows.units, return_index=True, return_inverse=True)
    same = bool((cells == cells[first][inverse]).all())
    return cells[first], "" if same else "of units whose rows differ"


def _errors(kind: Kind, codes: Column, answers: Column) -> Floats:
    """Return the error of each answer: 0 or 1, or a distance; NaN where there is no answer."""
    if kind == "numeric":
        return np.abs(as_numbers(codes) - as_numbers(answers))
    both = (codes.notna() & answers.notna()).to_numpy(dtype=bool)
    out = np.full(len(codes), np.nan)
    if kind == "set":
        sets = zip(as_sets(codes[both]), as_sets(answers[both]), strict=True)
        out[both] = [x != y for x, y in sets]
    else:
        x, y = encode([codes, answers]).codes
        out[both] = (x != y)[both]
    return out


# --- details of requests ----------------------------------------------------------------------
def details_of(frame: pd.DataFrame, name: str, output: str | None, detail: str) -> str | None:
    """
    Return the column of a detail that belongs to a column of answers.

    ``{name}_{detail}``; of a field of a schema, that of the longest beginning of its name; else
    that of `output`.
    """
    found, shared = detail_column(frame, name, detail), f"{output}_{detail}"
    return shared if found is None and output and shared in frame.columns else found


def _total(frame: pd.DataFrame, name: str, output: str | None, details: Sequence[str]) -> float:
    """Add up details of all requests: rows with one custom_id were one request."""
    found = [c for d in details if (c := details_of(frame, name, output, d)) is not None]
    if not found:
        return np.nan
    ids = details_of(frame, name, output, "custom_id")
    once = frame.drop_duplicates(ids) if ids is not None else frame
    return float(sum(pd.to_numeric(once[c]).sum() for c in found))


# --- tests ------------------------------------------------------------------------------------
def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """
    Return the exact p value of McNemar's test and the squared z.

    Exact: twice the smaller binomial tail of the discordant pairs. Source: Agresti, Categorical
    Data Analysis, 2nd ed., 10.1.

    Examples
    --------
    >>> p, z2 = mcnemar(86, 150)
    >>> f"{p:.4e} {z2:.4f}"
    '3.7159e-05 17.3559'
    """
    n, least = only_a + only_b, min(only_a, only_b)
    if not n:
        return 1.0, 0.0
    steps = np.log(np.arange(1, n + 1, dtype=np.float64))
    factorial = np.concatenate([[0.0], np.cumsum(steps)])
    k = np.arange(least + 1)
    log_tail = factorial[n] - factorial[k] - factorial[n - k] - n * math.log(2)
    tail = float(np.exp(log_tail).sum())
    return min(1.0, 2 * tail), (only_a - only_b) ** 2 / n


def holm(p: Floats) -> Floats:
    """
    Return p values adjusted for all of them; NaN is none of them.

    Source: Holm 1979, Scand. J. Statist. 6, 65-70.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    scaled = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    out = np.full_like(p, np.nan)
    out[order] = np.minimum(scaled, 1.0)
    return out
