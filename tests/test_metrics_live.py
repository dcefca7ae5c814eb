"""scikit-learn and statsmodels say the same of random tables, weighted and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames.research import confusion_metrics as ours
from nyu_llm_frames.research.comparison import holm, mcnemar
from nyu_llm_frames.research.evaluation import evaluate
from nyu_llm_frames.research.intervals import wilson

theirs = pytest.importorskip("sklearn.metrics")
pytestmark = [
    pytest.mark.filterwarnings("ignore:A single label was found:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*(y_pred|y_true).*:UserWarning"),
]
Floats = np.ndarray[Any, np.dtype[np.float64]]

rows = st.integers(2, 5).flatmap(
    lambda k: st.lists(
        st.tuples(st.integers(0, k - 1), st.integers(0, k - 1), st.sampled_from([1, 2, 3.5, 8])),
        min_size=4,
        max_size=60,
    )
)


def both_sides(cells: list[tuple[int, int, float]]) -> tuple[Any, Any, Floats]:
    truth, answers, weight = map(np.array, zip(*cells, strict=True))
    return truth, answers, weight.astype(np.float64)


def close(found: Any, expected: float) -> None:
    assert float(found) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


@settings(max_examples=30)
@given(rows, st.booleans())
def test_statistics_of_labels(cells: list[tuple[int, int, float]], weighted: bool) -> None:
    truth, answers, weight = both_sides(cells)
    frame = pd.DataFrame({"t": truth, "a": answers, "pi": 1 / weight if weighted else 1.0})
    w = weight if weighted else None
    found = evaluate(frame, "t", "a", kind="ordinal", pi="pi", resamples=1).metrics["estimate"]
    close(found["accuracy"], theirs.accuracy_score(truth, answers, sample_weight=w))
    labels = np.unique(np.concatenate([truth, answers]))
    if len(labels) < 2:
        assert np.isnan(found["kappa"])
        return
    scored = {"labels": labels, "sample_weight": w, "zero_division": 0}
    close(found["macro_F1"], theirs.f1_score(truth, answers, average="macro", **scored))
    close(found["weighted_F1"], theirs.f1_score(truth, answers, average="weighted", **scored))
    recall = theirs.recall_score(truth, answers, average=None, **scored)
    close(found["balanced_accuracy"], recall[np.isin(labels, truth)].mean())
    for name, weights in (("kappa", None), ("kappa_linear", "linear"),
                          ("kappa_quadratic", "quadratic")):  # fmt: skip
        expected = theirs.cohen_kappa_score(truth, answers, weights=weights, sample_weight=w)
        close(found[name], expected)
    expected = theirs.matthews_corrcoef(truth, answers, sample_weight=w)
    if np.isnan(found["Matthews"]):
        assert min(len(np.unique(truth)), len(np.unique(answers))) == 1
    else:
        close(found["Matthews"], expected)


@settings(max_examples=30)
@given(rows, st.booleans())
def test_classes(cells: list[tuple[int, int, float]], weighted: bool) -> None:
    truth, answers, weight = both_sides(cells)
    frame = pd.DataFrame({"t": truth, "a": answers, "pi": 1 / weight if weighted else 1.0})
    found = evaluate(frame, "t", "a", kind="nominal", pi="pi", resamples=1)
    labels = np.unique(np.concatenate([truth, answers]))
    parts = theirs.precision_recall_fscore_support(
        truth, answers, labels=labels, sample_weight=weight if weighted else None,
        zero_division=np.nan,
    )  # fmt: skip
    for name, expected in zip(("precision", "recall", "F1"), parts, strict=False):
        np.testing.assert_allclose(found.classes[name], expected, rtol=1e-12, atol=1e-12)
    counts = theirs.confusion_matrix(truth, answers, labels=labels)
    if not weighted:
        np.testing.assert_array_equal(found.confusion.iloc[:, :-1], counts)
    never = found.classes["recall"].isna()
    assert (found.classes["note"][never] == "never seen in truth").all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # statsmodels: a variance of rounded -0
@settings(max_examples=30)
@given(rows)
def test_standard_error_of_kappa(cells: list[tuple[int, int, float]]) -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    truth, answers, _ = both_sides(cells)
    table = theirs.confusion_matrix(truth, answers).astype(np.float64)
    if len(table) < 2 or np.isnan(ours.kappa(table)):
        return
    expected = inter_rater.cohens_kappa(table)
    close(ours.kappa(table), expected.kappa)
    if expected.var_kappa > 1e-12:
        assert ours.kappa_standard_error(table) == pytest.approx(expected.std_kappa, rel=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_and_exact_tests(a: int, b: int, level: float) -> None:
    stats = pytest.importorskip("statsmodels.stats")
    from statsmodels.stats.contingency_tables import mcnemar as of_pairs
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    assert stats
    n = a + b
    if not n:
        assert mcnemar(0, 0) == (1.0, 0.0)
        return
    low, high = wilson(a, n, level)
    expected = proportion_confint(a, n, alpha=1 - level, method="wilson")
    np.testing.assert_allclose([low, high], np.clip(expected, 0, 1), atol=1e-12)
    close(mcnemar(a, b)[0], of_pairs([[1, a], [b, 1]], exact=True).pvalue)
    p = np.random.default_rng(n).random(a % 7 + 1)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_wilson_of_none_is_nothing() -> None:
    assert np.isnan(wilson(0, 0)[0])
    frame = pd.DataFrame({"t": ["a"], "a": [None]})
    found = evaluate(frame, "t", "a", resamples=1).metrics
    assert found.loc["accuracy", "estimate"] == 0
    assert np.isnan(found.loc["accuracy_answered", "estimate"])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_numbers(seed: int, weighted: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 60))
    x = np.round(rng.normal(size=n), 1)
    y = np.round(x + rng.normal(size=n), 1)
    weight = rng.choice([1.0, 2.0, 4.0], n) if weighted else np.ones(n)
    frame = pd.DataFrame({"t": x, "a": y, "pi": 1 / weight})
    found = evaluate(frame, "t", "a", kind="numeric", pi="pi", resamples=1).metrics["estimate"]
    w = {"sample_weight": weight}
    close(found["MAE"], theirs.mean_absolute_error(x, y, **w))
    close(found["RMSE"] ** 2, theirs.mean_squared_error(x, y, **w))
    close(found["bias"], np.average(y - x, weights=weight))
    whole = np.repeat(np.arange(n), weight.astype(int))
    assert found["Pearson"] == pytest.approx(np.corrcoef(x[whole], y[whole])[0, 1], abs=1e-10)
    assert found["Spearman"] == pytest.approx(
        stats.spearmanr(x[whole], y[whole]).statistic, abs=1e-10
    )


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, names = int(rng.integers(5, 40)), np.array(list("abcd"))
    held = rng.random((2, n, 4)) < 0.4
    held[:, held.sum((0, 2)) == 0, 0] = True  # scikit-learn has no Jaccard of two empty sets
    frame = pd.DataFrame({k: [list(names[r]) for r in held[i]] for i, k in enumerate("ta")})
    found = evaluate(frame, "t", "a", resamples=1).metrics["estimate"]
    seen = held.any((0, 1))
    truth, answers = held[0][:, seen], held[1][:, seen]
    empty = ~(truth | answers).any(1)
    expected = theirs.jaccard_score(truth, answers, average=None, zero_division=0)
    assert len(expected) == seen.sum()
    each = np.where(empty, 1, (truth & answers).sum(1) / np.maximum((truth | answers).sum(1), 1))
    close(found["Jaccard"], each.mean())
    close(found["exact"], theirs.accuracy_score(truth, answers))
    for average in ("micro", "macro"):
        expected = theirs.f1_score(truth, answers, average=average, zero_division=0)
        close(found[f"{average}_F1"], expected)
