"""Compare columns of answers with each other, on the rows that both answered.

Comes in: hand codes and columns of answers. Goes out: a row for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames.research.coding import Coding
from nyu_llm_frames.research.intervals import holm, mcnemar, percentiles
from nyu_llm_frames.research.labels import Kind, as_numbers, as_set, encode
from nyu_llm_frames.research.resampling import distributions, of_cells, of_rows

Floats = np.ndarray[Any, np.dtype[np.float64]]


def details_of(frame: pd.DataFrame, name: str, output: str, detail: str) -> str | None:
    """
    Return the column of a detail that belongs to a column of answers.

    ``{name}_{detail}``; of a field of a schema, that of the longest beginning of its name; else
    that of `output`.
    """
    parts = str(name).split("_")
    stems = ["_".join(parts[:i]) for i in range(len(parts), 0, -1)]
    for stem in (*stems, output):
        if f"{stem}_{detail}" in frame.columns:
            return f"{stem}_{detail}"
    return None


def _total(frame: pd.DataFrame, name: str, output: str, details: Sequence[str]) -> float:
    """Add up details of all requests: rows with one custom_id were one request."""
    found = [c for d in details if (c := details_of(frame, name, output, d)) is not None]
    if not found:
        return np.nan
    ids = details_of(frame, name, output, "custom_id")
    once = frame.drop_duplicates(ids) if ids is not None else frame
    return float(sum(pd.to_numeric(once[c]).sum() for c in found))


def _errors(kind: Kind, codes: pd.Series[Any], answers: pd.Series[Any]) -> Floats:
    """Return the error of each answer: 0 or 1, or a distance; NaN where there is no answer."""
    if kind == "numeric":
        return np.abs(as_numbers(codes) - as_numbers(answers))
    both = (codes.notna() & answers.notna()).to_numpy(dtype=bool)
    out = np.full(len(codes), np.nan)
    if kind == "set":
        a, b = codes[both].astype(object), answers[both].astype(object)
        out[both] = [as_set(x) != as_set(y) for x, y in zip(a, b, strict=True)]
    else:
        x, y = encode([codes, answers]).codes
        out[both] = (x != y)[both]
    return out


def compare(
    frame: pd.DataFrame,
    codes: pd.Series[Any],
    answers: Sequence[pd.Series[Any]],
    kind: Kind,
    coding: Coding,
    output: str,
    draw: tuple[int, float, int],
) -> pd.DataFrame:
    """
    Compare each pair of columns of answers.

    The difference is that of accuracies, a - b, or for numbers that of mean absolute errors; its
    interval is a paired bootstrap within strata. For numbers "right" is closer to the code. The
    tests count coded rows, unweighted: McNemar's, exact, and Holm's correction over the pairs.
    """
    resamples, level, seed = draw
    wrong = [_errors(kind, codes, a) for a in answers]
    rows = []
    for i, j in combinations(range(len(answers)), 2):
        use = coding.coded & ~np.isnan(wrong[i]) & ~np.isnan(wrong[j])
        a, b, weight = wrong[i][use], wrong[j][use], coding.weights(use)
        units = None if coding.units is None else coding.units[use]
        if kind == "numeric":
            cells = np.where(a == b, 3, np.where(a < b, 1, 2))
            both = np.column_stack([(a - b) * weight, weight])
            sample = of_rows(both, coding.strata[use], units)

            def difference(sums: Floats) -> dict[str, Floats]:
                return {"difference": sums[..., 0] / sums[..., 1]}
        else:
            cells = (2 * a + b).astype(np.int64)
            sample = of_cells(cells, weight, coding.strata[use], units, 4)

            def difference(sums: Floats) -> dict[str, Floats]:
                return {"difference": (sums[..., 1] - sums[..., 2]) / sums.sum(-1)}

        n = [int((cells == c).sum()) for c in range(4)]
        p, z2 = mcnemar(n[1], n[2])
        row: dict[str, Any] = {
            "n": len(a), "both_right": n[0], "only_a": n[1], "only_b": n[2], "both_wrong": n[3],
            "difference": np.nan, "low": np.nan, "high": np.nan, "mcnemar_p": p, "mcnemar_z2": z2,
        }  # fmt: skip
        if len(a):
            row["difference"] = float(difference(sample.sums())["difference"])
            drawn = distributions(sample, difference, resamples, seed)["difference"]
            row["low"], row["high"], _ = percentiles(drawn, level)
        for side, k in (("a", i), ("b", j)):
            name = str(answers[k].name)
            row[f"cost_{side}"] = _total(frame, name, output, ["cost"])
            tokens = ["prompt_tokens", "completion_tokens"]
            row[f"tokens_{side}"] = _total(frame, name, output, tokens)
        rows.append(row)
    pairs = list(combinations([str(a.name) for a in answers], 2))
    index = pd.MultiIndex.from_tuples(pairs, names=["a", "b"]) if pairs else None
    out = pd.DataFrame(rows, index=index)
    if len(out):
        out.insert(
            list(out.columns).index("mcnemar_p") + 1, "holm_p", holm(out["mcnemar_p"].to_numpy())
        )
    return out
