"""Evaluate answers against hand codes, with intervals.

Comes in: a frame and the names of its columns. Goes out: an `Evaluation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.coding import Bools, Coding, group_keys, read_coding
from nyu_llm_frames.research.comparison import compare, details_of
from nyu_llm_frames.research.labels import Kind, as_numbers, as_set, column, encode, kind_of
from nyu_llm_frames.research.metric_tables import (
    Scores,
    score_labels,
    score_ratings,
    score_sets,
)

COLUMNS = ("estimate", "low", "high", "method", "n", "note")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """
    How answers compare with hand codes.

    With a list of columns of answers every table has the column's name as its first index level.

    Attributes
    ----------
    coverage : pandas.DataFrame
        Rows, coded rows, answered ones of these; in all and by status.
    metrics : pandas.DataFrame
        Index ``metric``; ``estimate, low, high, method, n, note``.
    classes : pandas.DataFrame
        Index ``label``; ``coded`` (rows), ``support, predicted, unanswered`` (weighted by 1/pi when
        there is one), ``precision, recall, F1``, each with ``_low`` and ``_high``, ``note``.
    confusion : pandas.DataFrame
        Truth by answer, with a column ``(unanswered)``; weighted as `classes`.
    by : pandas.DataFrame or None
        `metrics` of each group.
    comparison : pandas.DataFrame or None
        Each pair of columns of answers, on the rows that both answered.
    kind : {"nominal", "ordinal", "numeric", "set"}
    level : float
    truth : str
    predicted : tuple of str
    notes : tuple of str
        What a reader needs to know.
    """

    coverage: pd.DataFrame
    metrics: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    by: pd.DataFrame | None
    comparison: pd.DataFrame | None
    kind: Kind
    level: float
    truth: str
    predicted: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def plot(self) -> Any:
        """Draw the confusion table and the classes with intervals; return an array of Axes."""
        from nyu_llm_frames.research.result_plots import plot_evaluation

        return plot_evaluation(self)

    def __repr__(self) -> str:
        from nyu_llm_frames.research.result_cards import evaluation_card

        return evaluation_card(self).text()

    def _repr_html_(self) -> str:
        from nyu_llm_frames.research.result_cards import evaluation_card

        return evaluation_card(self).html()


def check_sampling(resamples: object, level: object, seed: object) -> None:
    """Refuse invalid `resamples`, `level` and `seed`."""
    for name, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigurationError(
                f"{name} must be a whole number, {least} or above, not {value!r}."
            )
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ConfigurationError(f"level must be between 0 and 1, as .95, not {level!r}.")


def evaluate(
    frame: pd.DataFrame,
    truth: str,
    predicted: str | Sequence[str],
    *,
    kind: str = "auto",
    by: str | Sequence[str] | None = None,
    pi: str | float | None = None,
    status: str | None = None,
    output: str = "response",
    use: Literal["test", "all"] = "test",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compare columns of answers with a column of hand codes; see ``df.llm.evaluate``."""
    check_sampling(resamples, level, seed)
    several = not isinstance(predicted, str)
    names = [predicted] if isinstance(predicted, str) else list(predicted)
    if not names:
        raise ConfigurationError("predicted names no column.")
    codes = column(frame, truth, "truth")
    answers = [column(frame, name, "predicted") for name in names]
    kind_ = kind_of([codes, *answers], kind)
    coding = read_coding(frame, truth, pi, use)
    if not coding.coded.any():
        raise CodesError(_no_codes(frame, truth, use))
    scores = [
        _score(kind_, codes, answer, coding, coding.coded, resamples, level, seed)
        for answer in answers
    ]
    coverage = [
        _coverage(frame, answer, coding.coded, _status(frame, name, status, output))
        for name, answer in zip(names, answers, strict=True)
    ]
    groups = None
    if by is not None:
        groups = [
            _by_group(frame, by, kind_, codes, answer, coding, (resamples, level, seed))
            for answer in answers
        ]
    comparison = None
    if several:
        comparison = compare(frame, codes, answers, kind_, coding, output, (resamples, level, seed))

    def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, keys=names, names=["predicted"]) if several else tables[0]

    notes = [note for s in scores for note in s.notes]
    return Evaluation(
        coverage=stacked(coverage),
        metrics=stacked([s.metrics for s in scores]),
        classes=stacked([s.classes for s in scores]),
        confusion=stacked([s.confusion for s in scores]),
        by=None if groups is None else stacked(groups),
        comparison=comparison,
        kind=kind_,
        level=float(level),
        truth=truth,
        predicted=tuple(names),
        notes=tuple(dict.fromkeys(notes)),
    )


def _score(
    kind: Kind,
    codes: pd.Series[Any],
    answers: pd.Series[Any],
    coding: Coding,
    rows: Bools,
    resamples: int,
    level: float,
    seed: int,
) -> Scores:
    """Score the coded rows in a subset."""
    weight = coding.weights(rows)
    strata = coding.strata[rows]
    units = None if coding.units is None else coding.units[rows]
    draw = (resamples, level, seed)
    truth, given = codes[rows], answers[rows]
    if kind == "numeric":
        return score_ratings(as_numbers(truth), as_numbers(given), weight, strata, units, draw)
    if kind == "set":
        sets = [[as_set(v) if known else None for v, known in zip(c, c.notna(), strict=True)]
                for c in (truth.astype(object), given.astype(object))]  # fmt: skip
        return score_sets(sets[0], sets[1], weight, strata, units, draw)
    classes = encode([truth, given])
    return score_labels(classes, kind == "ordinal", weight, strata, units, draw)


def _by_group(
    frame: pd.DataFrame,
    by: str | Sequence[str],
    kind: Kind,
    codes: pd.Series[Any],
    answers: pd.Series[Any],
    coding: Coding,
    draw: tuple[int, float, int],
) -> pd.DataFrame:
    key, groups = group_keys(frame, by)
    tables, kept = [], []
    for g in range(len(groups)):
        rows = coding.coded & (key == g)
        if rows.any():
            tables.append(_score(kind, codes, answers, coding, rows, *draw).metrics)
            kept.append(g)
    return pd.concat(tables, keys=list(groups[kept]), names=list(groups.names))


def _status(
    frame: pd.DataFrame, name: str, status: str | None, output: str
) -> pd.Series[Any] | None:
    if status is not None:
        return column(frame, status, "status")
    found = details_of(frame, name, output, "status")
    return None if found is None else column(frame, found)


def _coverage(
    frame: pd.DataFrame,
    answers: pd.Series[Any],
    coded: Bools,
    status: pd.Series[Any] | None,
) -> pd.DataFrame:
    """Count rows, coded and answered ones, in all and by status."""
    answered = answers.notna().to_numpy(dtype=bool)
    parts = pd.DataFrame({"rows": True, "coded": coded, "answered": coded & answered})
    out = parts.sum().to_frame("all").T
    if status is not None:
        words = status.astype(object).where(status.notna(), "(none)").to_numpy()
        each = parts.groupby(words).sum().sort_values("rows", ascending=False, kind="stable")
        out = pd.concat([out, each])
    out.index.name = "status"
    return out.astype(np.int64)


def _no_codes(frame: pd.DataFrame, truth: str, use: str) -> str:
    found = int(frame[truth].notna().sum())
    if found and use == "test":
        return (
            f"No test code in {truth!r}: its {count(found, 'code')} are for developing the "
            "prompt, which would flatter it. Draw test codes, or say use='all'."
        )
    return f"No row has a hand code in {truth!r}: there is nothing to compare with."
