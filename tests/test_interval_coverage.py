"""The promise of `correct`: 95 % intervals hold the truth in 95 % of studies.

Five hundred simulated studies of 4,000 rows with 300 hand codes, in four designs. The model is
right in 88 % of rows, and its own intervals hold the truth in half of the studies, or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nyu_llm_frames.research.correction import correct
from nyu_llm_frames.research.estimating_equations import Family, Problem, corrected, naive

pytestmark = pytest.mark.coverage

ROWS, CODES, STUDIES = 4_000, 300, 500
SHARE, SLOPE, LOG_ODDS = 0.3, 0.42, 0.8
INTERCEPT = -0.96206427  # makes the share of true labels 0.3
Z = 1.959964
Study = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]


def study(rng: np.random.Generator) -> Study:
    """Simulate rows: a label that depends on x, and y that depends on the label."""
    x = rng.normal(size=ROWS)
    true = rng.random(ROWS) < 1 / (1 + np.exp(-(INTERCEPT + LOG_ODDS * x)))
    # The model is wrong where x is small, so that its errors go with what explains the label.
    missed, invented = 0.6 / (1 + np.exp(1.5 * x)), 0.2034 / (1 + np.exp(1.5 * x))
    label = np.where(rng.random(ROWS) < np.where(true, missed, invented), ~true, true)
    y = 1 + SLOPE * true + rng.normal(size=ROWS)
    return {"x": x, "y": y, "true": true.astype(float), "label": label.astype(float)}


def simple(rng: np.random.Generator, _: Study) -> tuple[Any, Any]:
    """Draw rows, each as likely as any other."""
    return np.sort(rng.choice(ROWS, CODES, replace=False)), np.full(ROWS, CODES / ROWS)


def by_label(rng: np.random.Generator, rows: Study) -> tuple[Any, Any]:
    """Draw as many rows of each of the model's labels."""
    drawn, pi = [], np.zeros(ROWS)
    for value in (0, 1):
        inside = np.flatnonzero(rows["label"] == value)
        drawn.append(rng.choice(inside, CODES // 2, replace=False))
        pi[inside] = CODES / 2 / len(inside)
    return np.sort(np.concatenate(drawn)), pi


def problem(rows: Study, coded: Any, pi: Any, outcome: str, on: str, family: Family) -> Problem:
    """Write a study down as equations: the model's label is the outcome or explains it."""
    one = np.ones(ROWS)
    label, true = rows["label"], rows["true"]
    if on == "label":
        model_x, human_x = np.column_stack([one, label]), np.column_stack([one, true])
    else:
        model_x = human_x = np.column_stack([one, rows["x"]]) if on else one[:, None]
    model_y, human_y = (label, true) if outcome == "label" else (rows[outcome], rows[outcome])
    usable = np.ones(ROWS, dtype=bool)
    return Problem(
        model_x, model_y, usable, human_x[coded], human_y[coded], coded, pi[coded], None, None,
        family,
    )  # fmt: skip


Design = tuple[Callable[..., Any], str, str, Family, float, float]
DESIGNS: dict[str, Design] = {
    "proportion": (simple, "label", "", "ols", SHARE, 0.55),
    "covariate": (simple, "y", "label", "ols", SLOPE, 0.01),
    "outcome of a logit": (simple, "label", "x", "logit", LOG_ODDS, 0.00),
    "proportion, by label": (by_label, "label", "", "ols", SHARE, 0.55),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_corrected_intervals_hold_the_truth(name: str) -> None:
    draw, outcome, on, family, truth, of_the_model = DESIGNS[name]
    held = np.zeros((2, STUDIES), dtype=bool)
    for i in range(STUDIES):
        rng = np.random.default_rng([i, 1])
        rows = study(rng)
        equations = problem(rows, *draw(rng, rows), outcome, on, family)
        for k, found in enumerate((corrected(equations, True), naive(equations))):
            error = found.estimate[-1] - truth
            held[k, i] = abs(error) <= Z * np.sqrt(found.covariance[-1, -1])
    ours, models = held.mean(axis=1)
    assert 0.92 <= ours <= 0.975
    assert abs(models - of_the_model) <= 0.06


@pytest.mark.parametrize("name", DESIGNS)
def test_the_studies_are_what_correct_estimates(name: str) -> None:
    draw, outcome, on, family, _, _ = DESIGNS[name]
    rng = np.random.default_rng([7, 1])
    rows = study(rng)
    coded, pi = draw(rng, rows)
    frame = pd.DataFrame(rows).assign(pi=pi)
    frame["code"] = frame["true"].where(frame.index.isin(coded))
    found = correct(
        frame, f"{outcome} ~ {on or 1}", truth={"label": "code"}, pi="pi", family=family
    ).table
    equations = problem(rows, coded, pi, outcome, on, family)
    for which, solved in (("corrected", corrected(equations, True)), ("naive", naive(equations))):
        np.testing.assert_allclose(found[which]["estimate"], solved.estimate, rtol=1e-9)
        np.testing.assert_allclose(found[which]["se"] ** 2, np.diag(solved.covariance), rtol=1e-9)
