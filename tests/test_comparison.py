"""`df.llm.evaluate` of several columns of answers: which is better, and what each cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from support.answers import coded


def test_columns_of_answers_are_compared_on_the_rows_that_both_answered() -> None:
    frame = coded().assign(a=lambda f: f["response"], b=lambda f: f["code"], c="a")
    frame["a_cost"], frame["a_prompt_tokens"], frame["a_completion_tokens"] = 0.01, 10, 5
    frame["a_custom_id"] = [f"r{i // 2}" for i in range(200)]
    found = frame.llm.evaluate("code", ["a", "b", "c"])
    assert found.metrics.index.names == ["column", "metric"]
    table = found.comparison
    assert table.index.tolist() == [("a", "b"), ("a", "c"), ("b", "c")]
    row = table.loc[("a", "b")]
    assert row["n"] == frame["a"].notna().sum()
    assert row["only_a"] == 0
    assert row["difference"] < 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["cost_a"] == pytest.approx(1.0)  # two rows were one request
    assert row["tokens_a"] == 1500
    assert np.isnan(row["cost_b"])
    assert (table["holm_p"] >= table["mcnemar_p"]).all()
    assert found.metrics.loc[("a", "kappa")].equals(
        frame.llm.evaluate("code", "a").metrics.loc["kappa"]
    )


def test_cost_is_that_of_the_run_which_gave_the_answers() -> None:
    cost = {"response_cost": 0.01, "response_prompt_tokens": 100, "response_completion_tokens": 5}
    frame = coded().assign(keyword="a", **cost)
    row = frame.llm.evaluate("code", ["response", "keyword"], resamples=5).comparison.iloc[0]
    assert [row["cost_a"], row["tokens_a"]] == [pytest.approx(2), 21_000]
    assert np.isnan(row["cost_b"])
    assert np.isnan(row["tokens_b"])
    fields = frame.rename(columns={"response": "drug"}).assign(new_drug="a", new_cost=0.02)
    row = fields.llm.evaluate("code", ["drug", "keyword"], resamples=5).comparison.iloc[0]
    assert row["cost_a"] == row["cost_b"] == pytest.approx(2)  # two fields of one schema
    row = fields.llm.evaluate("code", ["drug", "new_drug"], resamples=5).comparison.iloc[0]
    assert [row["cost_a"], row["cost_b"]] == pytest.approx([2, 4])


def test_there_is_no_exact_test_with_weights() -> None:
    frame = coded().assign(a=lambda f: f["response"], b="a", c="b")
    plain = frame.llm.evaluate("code", ["a", "b", "c"], resamples=20).comparison
    even = frame.llm.evaluate("code", ["a", "b", "c"], pi=0.1, resamples=20).comparison
    pd.testing.assert_frame_equal(plain, even)
    frame["code_pi"] = [0.1, 0.9] * 100
    weighted = frame.llm.evaluate("code", ["a", "b", "c"], resamples=20)
    assert weighted.comparison[["mcnemar_p", "mcnemar_z2", "holm_p"]].isna().all(axis=None)
    assert weighted.comparison["low"].notna().all()
    said = "no exact test with weights: read the interval"
    assert (weighted.comparison["note"] == said).all()
    assert said in repr(weighted)
    frame.loc[frame["code_pi"] == 0.9, "c"] = None  # what is left has one weight
    some = frame.llm.evaluate("code", ["a", "b", "c"], resamples=20).comparison
    tested = some.iloc[1:]["mcnemar_p"]
    assert np.isnan(some["holm_p"].iloc[0])
    assert some["holm_p"].max() == min(1, max(2 * tested.min(), tested.max()))


def test_exact_tests_count_units() -> None:
    once = coded(60).assign(b="a", code_unit=[f"u{i}" for i in range(60)])
    frame = pd.concat([once] * 4, ignore_index=True)
    tests = ["mcnemar_p", "mcnemar_z2", "holm_p", "note"]
    both = ["response", "b"]
    expected = once.llm.evaluate("code", both, resamples=20).comparison
    found = frame.llm.evaluate("code", both, resamples=20).comparison
    pd.testing.assert_frame_equal(found[tests], expected[tests])
    assert found["n"].item() == 4 * expected["n"].item()
    right = frame["code"] == "a"
    frame.loc[right & (frame.index < 60), "b"] = "z"
    row = frame.llm.evaluate("code", both, resamples=20).comparison.iloc[0]
    assert np.isnan(row["mcnemar_p"])
    assert row["note"] == "no exact test of units whose rows differ: read the interval"


def test_the_tables_of_several_columns_can_lose_their_index() -> None:
    found = coded().llm.evaluate("code", ["response", "group"], by="group", resamples=5)
    for table in (found.coverage, found.metrics, found.classes, found.confusion, found.by):
        assert table.reset_index()["column"].unique().tolist() == ["response", "group"]


def test_numbers_are_compared_by_which_is_closer() -> None:
    frame = pd.DataFrame({"code": [1.5, 2.5, 3.5], "a": [1.5, 2.4, 3.3], "b": [1.5, 2.0, 3.4]})
    row = frame.llm.evaluate("code", ["a", "b"], resamples=20).comparison.iloc[0]
    assert [row["only_a"], row["only_b"]] == [1, 1]
    assert row["difference"] == pytest.approx((0.1 + 0.2) / 3 - (0.5 + 0.1) / 3)
