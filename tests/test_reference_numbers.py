"""Numbers of the literature, and of libraries that this package may not need, come out.

The packages krippendorff, irrCAC and pingouin cannot be needed, not even by tests (their licenses,
or what they pin): what they say stands here as numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import nyu_llm_frames  # noqa: F401  (registers df.llm)
from nyu_llm_frames.research.agreement_statistics import intraclass
from nyu_llm_frames.research.comparison import holm, mcnemar
from nyu_llm_frames.research.confusion_metrics import kappa, kappa_standard_error
from nyu_llm_frames.research.intervals import wilson

NA = np.nan
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability: four coders, twelve units.
EXAMPLE_C = pd.DataFrame(
    {
        "a": [1, 2, 3, 3, 2, 1, 4, 1, 2, NA, NA, NA],
        "b": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NA, 3],
        "c": [NA, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NA],
        "d": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NA],
    }
)
# The same, example A: two coders, ten units, two classes.
EXAMPLE_A = pd.DataFrame({"a": [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], "b": [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]})


def frame_of(table: list[list[int]]) -> pd.DataFrame:
    """Write a table of counts as rows."""
    cells = [
        (chr(97 + i), chr(97 + j))
        for i, row in enumerate(table)
        for j, n in enumerate(row)
        for _ in range(n)
    ]
    return pd.DataFrame(cells, columns=["truth", "answer"])


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [("nominal", 0.743421), ("ordinal", 0.815388), ("numeric", 0.849107), ("ratio", 0.797403)],
)
def test_alpha_of_krippendorffs_example_with_gaps(kind: Any, alpha: float) -> None:
    found = EXAMPLE_C.llm.agreement(list("abcd"), kind=kind).metrics
    assert found.loc["alpha", "estimate"] == pytest.approx(alpha, abs=5e-7)


def test_alpha_of_krippendorffs_binary_example() -> None:
    found = EXAMPLE_A.llm.agreement(["a", "b"]).metrics
    assert found.loc["alpha", "estimate"] == pytest.approx(0.095238, abs=5e-7)
    evaluated = EXAMPLE_A.llm.evaluate("a", "b").metrics
    assert evaluated.loc["alpha", "estimate"] == pytest.approx(0.095238, abs=5e-7)


def test_ac1_of_four_coders_with_gaps() -> None:
    found = EXAMPLE_C.llm.agreement(list("abcd"), kind="nominal").metrics
    assert found.loc["AC1", "estimate"] == pytest.approx(0.775444, abs=5e-7)


LANDIS_KOCH = [[38, 5, 0, 1], [33, 11, 3, 0], [10, 14, 5, 6], [3, 7, 3, 10]]
ALTMAN = [[21, 12, 0, 0], [4, 17, 1, 0], [3, 9, 15, 2], [0, 0, 0, 1]]
PARADOX = [[118, 5], [2, 0]]


def test_kappas_of_landis_and_koch() -> None:
    found = frame_of(LANDIS_KOCH).llm.evaluate("truth", "answer", kind="ordinal").metrics
    assert found.loc["kappa", "estimate"] == pytest.approx(0.2079, abs=5e-5)
    assert found.loc["kappa_linear", "estimate"] == pytest.approx(0.3797, abs=5e-5)


def test_kappa_and_its_standard_error_of_altman() -> None:
    table = np.array(ALTMAN, dtype=np.float64)
    assert float(kappa(table)) == pytest.approx(0.472789, abs=5e-7)
    assert kappa_standard_error(table) == pytest.approx(0.072715, abs=5e-7)
    found = frame_of(ALTMAN).llm.evaluate("truth", "answer").metrics.loc["kappa"]
    assert found["estimate"] == pytest.approx(0.472789, abs=5e-7)
    assert found["note"] == "asymptotic SE 0.0727"
    # The bootstrap says much the same.
    assert (found["high"] - found["low"]) / 3.92 == pytest.approx(0.0727, rel=0.1)


def test_the_paradox_of_kappa() -> None:
    found = frame_of(PARADOX).llm.evaluate("truth", "answer").metrics["estimate"]
    assert found["accuracy"] == pytest.approx(0.944)
    assert found["kappa"] == pytest.approx(-0.023392, abs=5e-7)
    assert found["AC1"] == pytest.approx(0.940776, abs=5e-7)


# Shrout & Fleiss 1979, table 2: six targets, four judges.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=np.float64,
)


def sums_of_squares(ratings: Any) -> list[float]:
    """Return the sums of squares between rows, between columns, and in all."""
    mean = ratings.mean()
    between = [ratings.shape[1 - i] * ((ratings.mean(1 - i) - mean) ** 2).sum() for i in (0, 1)]
    return [*between, ((ratings - mean) ** 2).sum()]


def test_intraclass_correlations_of_shrout_and_fleiss() -> None:
    rows, columns, total = sums_of_squares(JUDGES)
    found = [float(v) for v in intraclass(rows, columns, total, *JUDGES.shape)]
    assert found == pytest.approx([0.1657, 0.2898, 0.7148], abs=5e-5)
    frame = pd.DataFrame(JUDGES, columns=list("abcd"))
    metrics = frame.llm.agreement(list("abcd"), kind="numeric").metrics
    assert metrics.loc["ICC(2,1)", "estimate"] == pytest.approx(0.2898, abs=5e-5)
    two = frame.llm.evaluate("a", "d", kind="numeric").metrics
    expected = intraclass(*sums_of_squares(JUDGES[:, [0, 3]]), 6, 2)[1]
    assert two.loc["ICC(2,1)", "estimate"] == pytest.approx(float(expected), abs=1e-12)


def test_mcnemar_of_agresti() -> None:
    p, z2 = mcnemar(86, 150)
    assert p == pytest.approx(3.7159e-05, rel=5e-5)
    assert z2 == pytest.approx(17.3559, abs=5e-5)
    cells = [(1, 1)] * 794 + [(1, 0)] * 86 + [(0, 1)] * 150 + [(0, 0)] * 570
    frame = pd.DataFrame(cells, columns=["a", "b"]).assign(truth=1)
    row = frame.llm.evaluate("truth", ["a", "b"], resamples=10).comparison.loc[("a", "b")]
    counts = row[["n", "both_right", "only_a", "only_b", "both_wrong"]].tolist()
    assert counts == [1600, 794, 86, 150, 570]
    assert row["mcnemar_p"] == row["holm_p"] == p
    assert row["difference"] == pytest.approx(-64 / 1600)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_intervals_of_newcombe(right: int, n: int, low: float, high: float) -> None:
    assert [float(v) for v in wilson(right, n)] == pytest.approx([low, high], abs=5e-5)
    frame = pd.DataFrame({"truth": ["a"] * n, "answer": ["a"] * right + ["b"] * (n - right)})
    row = frame.llm.evaluate("truth", "answer", resamples=10).metrics.loc["accuracy"]
    assert [row["low"], row["high"]] == pytest.approx([low, high], abs=5e-5)
    assert row["method"] == "Wilson"


def test_twenty_right_of_twenty_are_not_certain() -> None:
    frame = pd.DataFrame({"truth": ["a", "b"] * 10, "answer": ["a", "b"] * 10})
    row = frame.llm.evaluate("truth", "answer", resamples=10).metrics.loc["accuracy"]
    assert row["low"] == pytest.approx(1 - 0.1611, abs=5e-5)
    assert row["high"] == 1


def test_holms_adjusted_p_values() -> None:
    # Wright 1992, Biometrics 48, table 1.
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
