"""Evaluate answers against hand codes, with intervals.

Comes in: a frame and the names of its columns. Goes out: an `Evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research import result_cards as cards
from nyu_llm_frames.research.arithmetic import Bools
from nyu_llm_frames.research.coding import by_group, read_coding
from nyu_llm_frames.research.comparison import compare, details_of
from nyu_llm_frames.research.confusion_metrics import score_labels
from nyu_llm_frames.research.intervals import Bootstrap, Row, Scores, metric_frame
from nyu_llm_frames.research.labels import (
    Column,
    Kind,
    as_numbers,
    as_sets,
    column,
    encode,
    kind_of,
    values_of,
)
from nyu_llm_frames.research.rating_metrics import RATING_METRICS, score_ratings
from nyu_llm_frames.research.resampling import Rows
from nyu_llm_frames.research.set_metrics import SET_METRICS, score_sets


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(cards.Result):
    """
    How answers compare with hand codes.

    With several columns of answers the first index level of every table is their name, ``column``.

    Attributes
    ----------
    coverage : pandas.DataFrame
        Rows, coded rows, answered ones of these; in all and by status.
    metrics : pandas.DataFrame
        Index ``metric``; ``estimate, low, high, method, n, note``.
    classes : pandas.DataFrame
        Index ``label``; ``coded`` (rows), ``support, predicted, unanswered``, ``precision, recall,
        F1``, each with ``_low`` and ``_high``, ``note``. `support` counts unanswered rows;
        precision, recall and F1 are of answered rows. With pi the counts are sums of weights,
        scaled so that support sums to the number of coded rows.
    confusion : pandas.DataFrame
        Truth by answer, with a column ``(unanswered)``; with pi, weights as in `classes`.
    by : pandas.DataFrame or None
        `metrics` of each group.
    comparison : pandas.DataFrame or None
        Each pair of columns of answers, on the rows that both answered: counts of rows, then the
        ``difference`` with its interval. ``mcnemar_p`` and ``holm_p`` are exact tests, which know
        no weights: they are NaN, and ``note`` says why, where rows differ in 1/pi, or where rows of
        one unit (which counts once) differ in who is right. Cost and tokens are those of a
        column's run, else, where no column has any of its own, those of `output`.
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
    notes: tuple[str, ...]

    def plot(self) -> Any:
        """Draw the confusion table and the classes with intervals; return an array of Axes."""
        from nyu_llm_frames.research.result_plots import plot_evaluation

        return plot_evaluation(
            self._title(), self.metrics, self.classes, self.confusion, self.level
        )

    def _title(self) -> str:
        return f"{', '.join(self.predicted)} against {self.truth}"

    def _card(self) -> cards.Card:
        alone = len(self.predicted) == 1
        every = self.coverage if alone else self.coverage.groupby(level=0).first()
        rows, coded, answered = (int(every.iloc[0][c]) for c in ("rows", "coded", "answered"))
        facts = [("rows", f"{rows:,}, of which {coded:,} coded")]
        if alone:
            facts.append(("answered", f"{answered:,} of the coded ones"))
        facts.append(("kind", self.kind))
        tables = [("", cards.metric_texts(self.metrics, self.level))]
        if len(self.classes):
            tables.append(("Classes", _class_texts(self.classes)))
        if 0 < len(self.confusion) <= 12 and alone:
            tables.append(("Confusion: truth by answer", self.confusion.map(_count_text)))
        if self.comparison is not None and len(self.comparison):
            tables.append(("Comparison", _comparison_texts(self.comparison, self.level)))
        return cards.Card(self._title(), facts, tables, self.notes)


def _class_texts(classes: pd.DataFrame) -> pd.DataFrame:
    shown = {"coded": [f"{n:,}" for n in classes["coded"]]}
    shown |= {c: list(map(_count_text, classes[c])) for c in ("support", "predicted")}
    for name in ("precision", "recall", "F1"):
        texts = zip(cards.numbers(classes[name]), cards.intervals(classes, f"{name}_"), strict=True)
        shown[name] = [f"{value} {interval}".strip() for value, interval in texts]
    shown["note"] = classes["note"].tolist()
    return pd.DataFrame(shown, index=classes.index)


def _comparison_texts(table: pd.DataFrame, level: float) -> pd.DataFrame:
    out = table[["n", "both_right", "only_a", "only_b", "both_wrong"]].map(_count_text)
    out["difference"] = cards.numbers(table["difference"])
    out[cards.percent(level)] = cards.intervals(table)
    out["McNemar p"] = list(map(cards.p_value, table["mcnemar_p"]))
    out["Holm p"] = list(map(cards.p_value, table["holm_p"]))
    out["note"] = table["note"]
    return out


def _count_text(value: Any) -> str:
    return f"{value:,.0f}" if math.isclose(value, round(value)) else f"{value:,.1f}"


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
    draw = Bootstrap(resamples, level, seed)
    several = not isinstance(predicted, str)
    names = [predicted] if isinstance(predicted, str) else list(predicted)
    if not names:
        raise ConfigurationError("predicted names no column.")
    codes = values_of(frame, truth, "truth")
    if truth in names:
        raise ConfigurationError(f"predicted names {truth!r}, the column of hand codes itself.")
    answers = [values_of(frame, name, "predicted") for name in names]
    kind_ = kind_of([codes, *answers], kind)
    coding = read_coding(frame, truth, pi, use)
    coded = coding.coded
    if not coded.any():
        raise CodesError(_no_codes(codes, use))

    if kind_ in ("nominal", "ordinal"):
        for answer in answers:  # of all rows: a few may share no label by chance
            encode([codes[coded], answer])

    def score(answer: Column, rows: Bools) -> Scores:
        return _score(kind_, codes[rows], answer[rows], coding.where(rows), draw)

    def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, keys=names, names=["column"]) if several else tables[0]

    def grouped(answer: Column) -> pd.DataFrame:
        assert by is not None
        return by_group(frame, by, coded, lambda rows: metric_frame(score(answer, rows).metrics))

    open_ = int((coding.drawn & ~coded).sum())
    left_out = []
    if open_:
        left_out.append(
            f"{count(open_, 'drawn row')} without a settled code left out: the hard cases, without "
            "which answers look better"
        )
    scores = [score(answer, coded) for answer in answers]
    coverage = [_coverage(frame, answer, coded, status, output) for answer in answers]
    return Evaluation(
        coverage=stacked(coverage),
        metrics=stacked([metric_frame(s.metrics) for s in scores]),
        classes=stacked([s.classes for s in scores]),
        confusion=stacked([s.confusion for s in scores]),
        by=None if by is None else stacked(list(map(grouped, answers))),
        comparison=(
            compare(frame, codes, answers, kind_, coding, output, draw) if several else None
        ),
        kind=kind_,
        level=float(level),
        truth=truth,
        predicted=tuple(names),
        notes=tuple(dict.fromkeys([*left_out, *(note for s in scores for note in s.notes)])),
    )


def _score(kind: Kind, truth: Column, given: Column, rows: Rows, draw: Bootstrap) -> Scores:
    """Score coded rows; of numbers and sets, those with an answer."""
    if kind in ("nominal", "ordinal"):
        return score_labels(encode([truth, given], check=False), kind == "ordinal", rows, draw)
    if kind == "numeric":
        x, y = as_numbers(truth), as_numbers(given)
        use = ~np.isnan(y)
    else:
        sets = list(zip(as_sets(truth), as_sets(given), strict=True))
        use = np.array([b is not None for _, b in sets], dtype=bool)
    left = int((~use).sum())
    notes = [f"{count(left, 'coded row')} without an answer"] if left else []
    if not use.any():
        names = RATING_METRICS if kind == "numeric" else SET_METRICS
        return Scores(dict.fromkeys(names, Row(note="no coded row has an answer")), notes=notes)
    if kind == "numeric":
        found = score_ratings(x[use], y[use], rows.where(use), draw)
    else:
        both = [(a, b) for a, b in sets if a is not None and b is not None]
        found = score_sets([a for a, _ in both], [b for _, b in both], rows.where(use), draw)
    return replace(found, notes=[*notes, *found.notes])


def _coverage(
    frame: pd.DataFrame, answers: Column, coded: Bools, status: str | None, output: str
) -> pd.DataFrame:
    """Count rows, coded and answered ones, in all and by status."""
    answered = answers.notna().to_numpy(dtype=bool)
    parts = pd.DataFrame({"rows": True, "coded": coded, "answered": coded & answered})
    out = parts.sum().to_frame("all").T
    if status is None:
        status = details_of(frame, str(answers.name), output, "status")
    if status is not None:
        cells = column(frame, status, "status")
        words = cells.astype(object).where(cells.notna(), "(none)").to_numpy()
        each = parts.groupby(words).sum().sort_values("rows", ascending=False, kind="stable")
        out = pd.concat([out, each])
    out.index.name = "status"
    return out.astype(np.int64)


def _no_codes(codes: Column, use: str) -> str:
    found = int(codes.notna().sum())
    if found and use == "test":
        return (
            f"No test code in {codes.name!r}: its {count(found, 'code')} are for developing the "
            "prompt, which would flatter it. Draw test codes, or pass use='all'."
        )
    return f"No row has a hand code in {codes.name!r}: there is nothing to compare with."
