"""Compute naive, human and corrected estimates side by side.

Comes in: a frame, a formula, and columns of hand codes. Goes out: a `Correction`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.coding import Coding, group_keys, read_coding
from nyu_llm_frames.research.design_matrix import Design, build
from nyu_llm_frames.research.intervals import critical_value
from nyu_llm_frames.research.labels import UNANSWERED, column

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

FEW, ENOUGH = 10, 20
"""Coded cases of a class: a warning below the first, tuned lambda from the second on."""
_SHARE = 1e-9
_FEW_CLUSTERS = 30


@dataclass(frozen=True, eq=False)
class Correction:
    """
    Estimates with the model's labels, with hand codes, and with both.

    Attributes
    ----------
    table : pandas.DataFrame
        Index ``term``; below each of ``naive``, ``human`` and ``corrected`` the columns
        ``estimate, se, low, high, p``; then ``lambda``, the weight of the model's part, and
        ``note``. The naive intervals are the narrow, wrong ones.
    formula : str
    family : {"ols", "logit"}
    level : float
    shares : bool
        Whether the terms are the classes of ``label ~ 1``.
    rows, coded, clusters : int
        Rows; coded ones, or where equal texts are known, coded texts; what counts as independent.
    notes : tuple of str
    """

    table: pd.DataFrame
    formula: str
    family: str
    level: float
    rows: int
    coded: int
    clusters: int
    notes: tuple[str, ...]
    shares: bool = False
    _most: int = field(repr=False, default=0)
    _fixed: Floats = field(repr=False, default_factory=lambda: np.zeros(0))
    _drawn: Floats = field(repr=False, default_factory=lambda: np.zeros(0))

    def with_codes(self, n: int) -> pd.DataFrame:
        """
        Return the standard errors to expect from n codes, drawn as these were.

        Parameters
        ----------
        n : int
            Number of codes; at most the number of rows.

        Returns
        -------
        pandas.DataFrame
            Index ``term``; ``human`` and ``corrected``. What more codes cannot take away stays:
            the rows are a sample themselves.
        """
        most = self._most
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 0 < n <= most:
            raise ConfigurationError(f"n must be between 1 and the {most:,} texts, not {n!r}.")
        factor = self.coded / n
        human = self.table["human"]["se"].to_numpy(dtype=np.float64) * np.sqrt(factor)
        variance = np.maximum(self._fixed + self._drawn * factor, 0)
        return pd.DataFrame(
            {"human": human, "corrected": np.sqrt(variance)}, index=self.table.index
        )

    def plot(self) -> Any:
        """Draw the three estimates of each term with their intervals; return an Axes."""
        from nyu_llm_frames.research.result_plots import plot_correction

        return plot_correction(self)

    def __repr__(self) -> str:
        from nyu_llm_frames.research.result_cards import correction_card

        return correction_card(self).text()

    def _repr_html_(self) -> str:
        from nyu_llm_frames.research.result_cards import correction_card

        return correction_card(self).html()


def correct(
    frame: pd.DataFrame,
    formula: str,
    *,
    truth: Mapping[str, str],
    pi: str | float | None = None,
    family: Literal["ols", "logit"] = "ols",
    cluster: str | Sequence[str] | None = None,
    tune: Literal["auto"] | bool = "auto",
    level: float = 0.95,
) -> Correction:
    """Estimate with labels and hand codes; see ``df.llm.correct``."""
    if family not in ("ols", "logit"):
        raise ConfigurationError(f"family must be 'ols' or 'logit', not {family!r}.")
    if tune not in ("auto", True, False):
        raise ConfigurationError(f"tune must be 'auto', True or False, not {tune!r}.")
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ConfigurationError(f"level must be between 0 and 1, as .95, not {level!r}.")
    if not isinstance(truth, Mapping) or not truth:
        raise ConfigurationError('truth must be a dict, as {"label": "code"}.')
    coding = _design(frame, truth, pi)
    design = build(frame, formula, truth, coding.coded, family)
    try:
        from nyu_llm_frames.research import estimating_equations as equations
    except ImportError:
        raise ConfigurationError(
            'df.llm.correct needs formulaic and scipy: pip install "nyu-llm-frames[research]"'
        ) from None
    few = [c for c, n in design.counts.items() if n < FEW]
    enough = min(design.counts.values(), default=int(coding.coded.sum())) >= ENOUGH
    tuned = enough if tune == "auto" else bool(tune)
    clusters, n_clusters = _clusters(frame, cluster, coding)
    _check_columns(design)
    assert coding.pi is not None
    parts: list[dict[str, Any]] = []
    notes = list(design.notes)
    for name, (model_y, human_y) in design.outcomes.items():
        problem = equations.Problem(
            design.model_x, model_y, design.usable, design.human_x, human_y,
            np.flatnonzero(coding.coded), coding.pi[coding.coded], clusters, coding.units, family,
        )  # fmt: skip
        terms = [name] if design.shares else list(design.terms)
        zero = np.zeros(len(terms))
        try:
            human = equations.corrected(problem, zero)
        except equations.NoSolution:
            raise ConfigurationError(_separation(design, human_y)) from None
        try:
            naive = equations.naive(problem)
        except equations.NoSolution:
            naive = None
            notes.append("no naive estimate: the model's labels are separated or collinear")
        if design.shares and name == UNANSWERED:
            both = human  # no coder leaves a row without an answer
        else:
            try:
                both = equations.corrected(problem, tuned, human.estimate)
            except equations.NoSolution:
                both = None
                notes.append("no corrected estimate: too few codes for these terms")
        parts += _rows(terms, naive, human, both)
    if few:
        notes.append(
            f"fewer than {FEW} coded cases of {', '.join(few)}: intervals are too narrow; code more"
        )
    if not tuned and tune == "auto":
        notes.append(f"lambda is 1, since not every class has {ENOUGH} coded cases")
    if n_clusters < _FEW_CLUSTERS:
        notes.append(f"{n_clusters} clusters: too few for these standard errors")
    table = _table(parts, float(level))
    note = f"fewer than {FEW} coded cases of {', '.join(few)}" if few else ""
    table["note", ""] = [note if not design.shares or term in few else "" for term in table.index]
    return Correction(
        table=table,
        formula=formula,
        family=family,
        level=float(level),
        rows=len(frame),
        coded=_distinct(coding, coding.coded),
        clusters=n_clusters,
        notes=tuple(notes),
        shares=design.shares,
        _most=_distinct(coding, np.ones(len(frame), dtype=bool)),
        _fixed=np.array([p["fixed"] for p in parts]),
        _drawn=np.array([p["drawn"] for p in parts]),
    )


def _distinct(coding: Coding, rows: Bools) -> int:
    """Return how many texts some rows have; where texts are unknown, how many rows."""
    return int(rows.sum()) if coding.units is None else len(np.unique(coding.units[rows]))


def _rows(terms: Sequence[str], naive: Any, human: Any, both: Any) -> list[dict[str, Any]]:
    out = []
    for j, term in enumerate(terms):
        row: dict[str, Any] = {"term": term, "fixed": np.nan, "drawn": np.nan, "lambda": np.nan}
        for which, found in (("naive", naive), ("human", human), ("corrected", both)):
            known = found is not None
            row[which] = (
                float(found.estimate[j]) if known else np.nan,
                float(np.sqrt(max(found.covariance[j, j], 0.0))) if known else np.nan,
            )
        if both is not None:
            row["lambda"] = float(both.tuned[j])
            row["drawn"] = float(both.coding[j, j])
            row["fixed"] = float(both.covariance[j, j] - both.coding[j, j])
        out.append(row)
    return out


def _table(parts: Sequence[Mapping[str, Any]], level: float) -> pd.DataFrame:
    from scipy.special import ndtr

    z = critical_value(level)
    columns: dict[tuple[str, str], Any] = {}
    for which in ("naive", "human", "corrected"):
        estimate = np.array([p[which][0] for p in parts])
        se = np.array([p[which][1] for p in parts])
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * ndtr(-np.abs(estimate / se))
        for name, values in (
            ("estimate", estimate), ("se", se), ("low", estimate - z * se),
            ("high", estimate + z * se), ("p", p),
        ):  # fmt: skip
            columns[which, name] = values
    columns["lambda", ""] = np.array([p["lambda"] for p in parts])
    index = pd.Index([p["term"] for p in parts], name="term")
    return pd.DataFrame(columns, index=index)


def _design(frame: pd.DataFrame, truth: Mapping[str, str], pi: str | float | None) -> Coding:
    """Read the one design of all columns of codes."""
    every = []
    for name, code in truth.items():
        column(frame, name, "formula")
        every.append(read_coding(frame, code, pi))
    for other in every[1:]:
        both = every[0].coded & other.coded
        one, two = (None if c.pi is None else c.pi[both] for c in (every[0], other))
        if one is not None and two is not None and (one != two).any():
            raise CodesError(
                "The columns of codes come from different samples: their probabilities differ. "
                "Code all of them on one sample."
            )
    first = every[0]
    coded = np.logical_and.reduce([c.coded for c in every])
    drawn = np.logical_or.reduce([c.drawn for c in every])
    codes = ", ".join(map(repr, truth.values()))
    if not drawn.any() or not coded.any():
        raise CodesError(f"No row has a hand code in {codes}: there is nothing to correct with.")
    if first.pi is None:
        n, rows = int(coded.sum()), len(frame)
        raise CodesError(
            f"The codes in {codes} have no probability pi and no design: a sample picked by hand "
            "cannot be corrected; if it was a simple random sample say "
            f"pi=n/N, here pi={n}/{rows}."
        )
    open_ = drawn & ~coded
    if open_.any():
        row = frame.index[int(np.argmax(open_))]
        raise CodesError(
            f"{count(int(open_.sum()), 'sampled row')} without a settled code (first at row "
            f"{row!r}): leaving them out would drop the hard cases. Settle them, as "
            "from_codes says.",
            row=row,
        )
    return Coding(coded, drawn, first.pi, first.strata, first.units)


def _clusters(
    frame: pd.DataFrame, cluster: str | Sequence[str] | None, coding: Coding
) -> tuple[Ints | None, int]:
    if cluster is not None:
        codes, names = group_keys(frame, cluster, "cluster")
        return codes, len(names)
    if coding.units is not None:
        distinct, codes = np.unique(coding.units, return_inverse=True)
        if len(distinct) < len(frame):
            return codes.astype(np.int64), len(distinct)
    return None, len(frame)


def _check_columns(design: Design) -> None:
    """Refuse a term that is collinear in the coded rows, and name it."""
    x = design.human_x
    kept: list[int] = []
    for j, term in enumerate(design.terms):
        own = x[:, j]
        size = float(np.sqrt(own @ own))
        base = x[:, kept]
        solution = np.linalg.lstsq(base, own, rcond=None)[0] if kept else np.zeros(0)
        rest = own - base @ solution
        if size == 0 or np.sqrt(rest @ rest) <= 1e-8 * size:
            same = [design.terms[k] for k, b in zip(kept, solution, strict=True) if abs(b) > _SHARE]
            why = f"is a combination of {', '.join(same)}" if same else "is 0 in all of them"
            raise ConfigurationError(
                f"Collinearity: among the {len(x):,} coded rows the term {term!r} {why}. Leave it "
                "out, join rare categories, or code more rows."
            )
        kept.append(j)


def _separation(design: Design, y: Floats) -> str:
    """Return a message about terms that separate the outcome of the coded rows."""
    if len(np.unique(y)) < 2:
        return (
            f"Separation: the outcome is {y[0]:g} in every coded row. Code more rows, or draw them "
            "with by= the model's label."
        )
    worst = ""
    for j, term in enumerate(design.terms):
        x = design.human_x[:, j]
        if np.ptp(x) == 0:
            continue
        one, zero = x[y == 1], x[y == 0]
        if len(np.unique(x)) == 2:
            if any(len(np.unique(y[x == v])) == 1 for v in np.unique(x)):
                worst = term
                break
        elif one.min() >= zero.max() or one.max() <= zero.min():
            worst = term
            break
    named = f"the term {worst!r} tells" if worst else "the terms together tell"
    return (
        f"Separation: {named} the outcome of coded rows without error, so that a logit has no "
        "finite estimate. Join rare categories, leave the term out, or code more rows."
    )
