"""Compute naive, human and corrected estimates side by side.

Comes in: a frame, a formula, and columns of hand codes. Goes out: a `Correction`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.allowed import check_choice
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError, MissingValueError
from nyu_llm_frames.research import result_cards as cards
from nyu_llm_frames.research.arithmetic import Bools, Floats, Ints
from nyu_llm_frames.research.coding import Coding, group_keys, read_coding
from nyu_llm_frames.research.design_matrix import Design, build
from nyu_llm_frames.research.intervals import FEW, check_level, critical_value
from nyu_llm_frames.research.labels import UNANSWERED, column

if TYPE_CHECKING:  # scipy comes with the extra
    from nyu_llm_frames.research.estimating_equations import Solution

ENOUGH = 20
"""Coded cases of each class from which on lambda is tuned."""
_FEW_CLUSTERS = 30
_ESTIMATES = ("naive", "human", "corrected")


@dataclass(frozen=True, eq=False, repr=False)
class Correction(cards.Result):
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
    shares: bool
    _most: int
    _fixed: Floats = field(repr=False)
    _drawn: Floats = field(repr=False)

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
        """Draw the three estimates of each term with their intervals; return an array of Axes."""
        from nyu_llm_frames.research.result_plots import plot_correction

        title = f"{self.formula}: {self.coded:,} codes for {count(self.rows, 'row')}"
        unit = "log odds" if self.family == "logit" else "estimate"
        unit = "share of rows" if self.shares else unit
        return plot_correction(self.table, title, self.level, unit, self.shares)

    def _card(self) -> cards.Card:
        shown: dict[str, list[str]] = {}
        for which in _ESTIMATES:
            part = self.table[which]
            texts = zip(cards.numbers(part["estimate"]), cards.numbers(part["se"]), strict=True)
            shown[which] = [f"{estimate} ({se})" for estimate, se in texts]
            shown[f"{which} {cards.percent(self.level)}"] = cards.intervals(part)
        shown["p"] = list(map(cards.p_value, self.table["corrected"]["p"]))
        shown["lambda"] = [f"{v:.2f}" for v in self.table["lambda"]]
        facts = [
            ("family", self.family),
            ("rows", f"{self.rows:,}, of which {self.coded:,} coded"),
            ("clusters", f"{self.clusters:,}"),
        ]
        tables = [("Estimates (standard errors)", pd.DataFrame(shown, index=self.table.index))]
        return cards.Card(self.formula, facts, tables, self.notes)


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
    check_choice("family", family, ("ols", "logit"))
    if tune not in ("auto", True, False):
        raise ConfigurationError(f"tune must be 'auto', True or False, not {tune!r}.")
    check_level(level)
    if not isinstance(truth, Mapping) or not truth:
        raise ConfigurationError('truth must be a dict, as {"label": "code"}.')
    coding, pi_ = _sample(frame, truth, pi)
    try:
        import formulaic  # noqa: F401

        from nyu_llm_frames.research import estimating_equations as equations
    except ImportError:
        raise ConfigurationError(
            'df.llm.correct needs formulaic and scipy: pip install "nyu-llm-frames[research]"'
        ) from None
    design = build(frame, formula, truth, coding.coded, family)
    clusters, n_clusters = _clusters(frame, cluster, coding)
    _check_columns(design)
    few = {key: n for key, n in design.counts.items() if n < FEW}
    enough = min(design.counts.values(), default=int(coding.coded.sum())) >= ENOUGH
    tuned = enough if tune == "auto" else bool(tune)
    notes = design.notes

    def solved(solve: Callable[..., Solution], *given: Any) -> Solution | None:
        try:
            return solve(*given)
        except equations.NoSolution:
            return None

    solutions: dict[str, list[Solution | None]] = {which: [] for which in _ESTIMATES}
    for name, (model_y, human_y) in design.outcomes.items():
        problem = equations.Problem(
            design.model_x, model_y, design.usable, design.human_x, human_y,
            np.flatnonzero(coding.coded), pi_[coding.coded], clusters, coding.units, family,
        )  # fmt: skip
        human = solved(equations.corrected, problem, np.zeros(len(design.terms)))
        if human is None:
            raise ConfigurationError(_separation(design, human_y))
        naive = solved(equations.naive, problem)
        if naive is None:
            notes.append("no naive estimate: the model's labels are separated or collinear")
        if design.shares and name == UNANSWERED:
            both: Solution | None = human  # no coder leaves a row without an answer
        else:
            varies = bool((human_y != human_y[0]).any())  # else a weight of 0 would be certain
            both = solved(equations.corrected, problem, tuned and varies, human.estimate)
        if both is None:
            notes.append("no corrected estimate: too few codes for these terms")
        for which, found in zip(_ESTIMATES, (naive, human, both), strict=True):
            solutions[which].append(found)
    about_few = ""
    if few:
        listed = ", ".join(f"{label} of {name} ({n})" for (name, label), n in few.items())
        about_few = f"fewer than {FEW} coded cases: {listed}"
        notes.append(f"{about_few}: intervals are too narrow; code more")
    if not tuned and tune == "auto":
        notes.append(f"lambda is 1, since not every class has {ENOUGH} coded cases")
    about_rows = _about_rows(coding, clusters)
    if about_rows:
        notes.append(about_rows)
    if n_clusters < _FEW_CLUSTERS:
        notes.append(f"{n_clusters} clusters: too few for these standard errors")
    terms = list(design.outcomes) if design.shares else list(design.terms)
    table, fixed, drawn = _table(terms, solutions, level)
    warned = {label for _, label in few} if design.shares else terms
    own = (about_few if term in warned else "" for term in terms)
    table["note", ""] = ["; ".join(filter(None, (note, about_rows))) for note in own]
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
        _fixed=fixed,
        _drawn=drawn,
    )


def _distinct(coding: Coding, rows: Bools) -> int:
    """Return how many texts some rows have; where texts are unknown, how many rows."""
    return int(rows.sum()) if coding.units is None else len(np.unique(coding.units[rows]))


def _table(
    terms: Sequence[str], solutions: Mapping[str, Sequence[Solution | None]], level: float
) -> tuple[pd.DataFrame, Floats, Floats]:
    """Return the estimates, and the variance without and with a part in the choice of rows."""
    from scipy.special import ndtr

    def stacked(which: str, read: Callable[[Solution], Floats]) -> Floats:
        width = len(terms) // len(solutions[which])
        unknown = np.full(width, np.nan)
        return np.concatenate([unknown if s is None else read(s) for s in solutions[which]])

    z = critical_value(level)
    columns: dict[tuple[str, str], Floats] = {}
    for which in _ESTIMATES:
        estimate = stacked(which, lambda s: s.estimate)
        variance = stacked(which, lambda s: np.diag(s.covariance))
        se = np.sqrt(np.maximum(variance, 0.0))
        columns[which, "estimate"], columns[which, "se"] = estimate, se
        columns[which, "low"], columns[which, "high"] = estimate - z * se, estimate + z * se
        with np.errstate(divide="ignore", invalid="ignore"):
            columns[which, "p"] = 2 * ndtr(-np.abs(estimate / se))
    columns["lambda", ""] = stacked("corrected", lambda s: s.tuned)
    drawn = stacked("corrected", lambda s: np.diag(s.coding))
    return pd.DataFrame(columns, index=pd.Index(terms, name="term")), variance - drawn, drawn


# --- the sample -------------------------------------------------------------------------------
def _sample(
    frame: pd.DataFrame, truth: Mapping[str, str], pi: str | float | None
) -> tuple[Coding, Floats]:
    """Read the one design of all columns of codes, and its probabilities."""
    every = []
    for name, code in truth.items():
        column(frame, name, "formula")
        if code == name:
            raise ConfigurationError(f"truth= gives {name!r}, the model's column, as its own code.")
        every.append(read_coding(frame, code, pi))
    first = every[0]
    for other in every[1:]:
        both = first.coded & other.coded
        if first.pi is None or other.pi is None:
            continue
        if (first.pi[both] != other.pi[both]).any():
            raise CodesError(
                "The columns of codes come from different samples: their probabilities differ. "
                "Code all of them on one sample."
            )
    coded = np.logical_and.reduce([c.coded for c in every])
    drawn = np.logical_or.reduce([c.drawn for c in every])
    codes = ", ".join(map(repr, truth.values()))
    if not coded.any():
        raise CodesError(f"No row has a hand code in {codes}: there is nothing to correct with.")
    if first.pi is None:
        n, rows = int(coded.sum()), len(frame)
        raise CodesError(
            f"The codes in {codes} have no probability pi and no design: a sample picked by hand "
            "cannot be corrected; if it was a simple random sample, pass "
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
    return Coding(coded, drawn, first.pi, first.strata, first.units), first.pi


def _about_rows(coding: Coding, clusters: Ints | None) -> str:
    """Say where the coded rows stand for others than those of the frame, as when it has no more."""
    assert coding.pi is not None
    first: Any = slice(None)
    if coding.units is not None:
        first = np.unique(coding.units, return_index=True)[1]
    coded = coding.coded[first]
    pi = coding.pi[first][coded]
    n, stand_for = len(coded), float((1 / pi).sum())
    spread = np.sqrt(1 - pi) / pi
    if clusters is not None:  # whose rows may have been drawn together
        spread = np.bincount(clusters[first][coded], spread)
    by_chance = 4 * float(np.sqrt((spread**2).sum()))
    if abs(stand_for - n) <= by_chance + n / 100:
        return ""
    what = "rows" if coding.units is None else "texts"
    return (
        f"by pi, the {len(pi):,} coded {what} stand for {stand_for:,.0f}, and the frame has {n:,}: "
        "all rows that the sample was drawn from are needed, with the pi of that draw"
    )


def _clusters(
    frame: pd.DataFrame, cluster: str | Sequence[str] | None, coding: Coding
) -> tuple[Ints | None, int]:
    if cluster is not None:
        columns = [cluster] if isinstance(cluster, str) else list(cluster)
        for name in columns:
            missing = column(frame, name, "cluster").isna().to_numpy(dtype=bool)
            if missing.any():
                row, n = frame.index[int(np.argmax(missing))], int(missing.sum())
                raise MissingValueError(
                    f"{count(n, 'row')} without a cluster in {name!r} (first: row {row!r}). They "
                    "would all be one cluster: give each a value, one of its own if it stands "
                    "alone.",
                    columns={str(name): n},
                    rows=(row,),
                )
        codes, names = group_keys(frame, columns, "cluster")
        return codes, len(names)
    if coding.units is not None:
        distinct, codes = np.unique(coding.units, return_inverse=True)
        if len(distinct) < len(frame):
            return codes.astype(np.int64), len(distinct)
    return None, len(frame)


# --- what has no estimate ---------------------------------------------------------------------
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
            same = [design.terms[k] for k, b in zip(kept, solution, strict=True) if abs(b) > 1e-9]
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
    terms = zip(design.terms, design.human_x.T, strict=True)
    worst = next((term for term, x in terms if _separates(x, y)), None)
    named = f"the term {worst!r} tells" if worst else "the terms together tell"
    return (
        f"Separation: {named} the outcome of coded rows without error, so that a logit has no "
        "finite estimate. Join rare categories, leave the term out, or code more rows."
    )


def _separates(x: Floats, y: Floats) -> bool:
    values = np.unique(x)
    if len(values) < 2:
        return False
    if len(values) == 2:
        return any(len(np.unique(y[x == v])) == 1 for v in values)
    one, zero = x[y == 1], x[y == 0]
    return bool(one.min() >= zero.max() or one.max() <= zero.min())
