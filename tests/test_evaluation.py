"""`df.llm.evaluate`: what counts, what is weighted, what is said where a number means little."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answers import coded

from nyu_llm_frames.errors import CodesError, ConfigurationError, MissingColumnError
from nyu_llm_frames.research.evaluation import evaluate
from nyu_llm_frames.research.resampling import MOST_PATTERNS


# --- what counts ------------------------------------------------------------------------------
def test_a_row_without_an_answer_is_wrong_in_accuracy_alone() -> None:
    frame = pd.DataFrame({"code": list("aabb"), "response": ["a", None, "b", "a"]})
    found = frame.llm.evaluate("code", "response")
    assert found.metrics.loc["accuracy", ["estimate", "n"]].tolist() == [0.5, 4]
    assert found.metrics.loc["accuracy_answered", ["estimate", "n"]].tolist() == [2 / 3, 3]
    assert found.metrics.loc["accuracy", "note"] == "1 row without an answer: wrong"
    assert found.confusion.columns.tolist() == ["a", "b", "(unanswered)"]
    assert found.confusion.to_numpy().tolist() == [[1, 0, 1], [1, 1, 0]]
    assert found.classes.loc["a", ["coded", "support", "unanswered", "recall"]].tolist() == [
        2, 2, 1, 1.0,
    ]  # fmt: skip


def test_a_class_says_that_its_recall_is_of_answered_rows() -> None:
    frame = pd.DataFrame({"code": ["a"] * 10 + ["b"] * 9})
    frame["response"] = ["a"] * 5 + [None] * 5 + ["b"] * 8 + [None]
    found = frame.llm.evaluate("code", "response")
    classes = found.classes
    assert classes.loc["a", ["support", "unanswered", "recall"]].tolist() == [10, 5, 1.0]
    assert classes["note"].tolist() == ["answered rows", "9 coded cases only; answered rows"]
    assert "  b         9       9         8  1.000" in repr(found)
    answered = frame.fillna({"response": "a"}).llm.evaluate("code", "response").classes
    assert answered.loc["a", "note"] == ""


def test_rows_without_a_code_are_covered_and_do_not_count() -> None:
    frame = coded().assign(response_status=["ok", "blocked"] * 100)
    frame.loc[:149, "code"] = None
    found = frame.llm.evaluate("code", "response")
    assert found.coverage.loc["all"].tolist() == [200, 50, 47]
    assert found.coverage.loc["ok", "rows"] == 100
    assert found.coverage.loc[["ok", "blocked"], "coded"].sum() == 50
    alone = frame.iloc[150:].llm.evaluate("code", "response")
    pd.testing.assert_frame_equal(found.metrics, alone.metrics)


def test_drawn_rows_without_a_settled_code_are_noted() -> None:
    frame = coded().assign(code_pi=0.5)
    assert not any("settled" in n for n in frame.llm.evaluate("code", "response").notes)
    frame.loc[[0, 1], "code"] = None
    frame.loc[frame.index > 5, "code_pi"] = frame.loc[frame.index > 5, "code"] = None
    found = frame.llm.evaluate("code", "response", resamples=20)
    assert found.notes[0].startswith("2 drawn rows without a settled code left out")
    assert "2 drawn rows" in repr(found)


def test_codes_that_chose_the_prompt_do_not_judge_it() -> None:
    frame = coded().assign(code_use=["test"] * 100 + ["dev"] * 100)
    found = frame.llm.evaluate("code", "response")
    assert found.metrics.loc["accuracy", "n"] == 100
    assert frame.llm.evaluate("code", "response", use="all").metrics.loc["accuracy", "n"] == 200
    with pytest.raises(CodesError, match=r"No test code in 'code': its 100 codes are for develop"):
        frame.iloc[100:].llm.evaluate("code", "response")
    with pytest.raises(CodesError, match="No row has a hand code"):
        frame.assign(code=None).llm.evaluate("code", "response")


def test_codes_of_one_coder_have_the_design_of_the_sample() -> None:
    frame = coded().assign(code_use=["test"] * 100 + ["dev"] * 100, code_pi=[0.25, 0.5] * 100)
    frame["code_unit"] = [f"u-{i // 2}" for i in range(len(frame))]
    together = frame.llm.evaluate("code", "response").metrics
    alone = frame.assign(code_a=frame["code"]).llm.evaluate("code_a", "response").metrics
    assert alone.loc["accuracy", "n"] == 100
    pd.testing.assert_frame_equal(alone, together)
    own = frame.assign(code_a=frame["code"], code_a_pi=1.0).llm.evaluate("code_a", "response")
    assert own.metrics.loc["accuracy", "n"] == 200
    other = frame.rename(columns={"code_unit": "code_unit_price"}).assign(code_a=frame["code"])
    assert other.llm.evaluate("code_a", "response").metrics.loc["accuracy", "n"] == 200


# --- labels -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("codes", "answers"),
    [
        (["1", "2", "1"], [1, 2, 2]),
        (["1", "2", "1"], [1.0, 2.0, np.nan]),
        (pd.array([1, 2, None], "Int64"), ["1", "2", "2"]),
        (["TRUE", "FALSE", "TRUE"], [True, False, False]),
        (pd.Categorical(["x", "y", "x"]), pd.array(["x", "y", "y"], "string")),
    ],
)
def test_labels_compare_by_value_as_text(codes: Any, answers: Any) -> None:
    frame = pd.DataFrame({"code": codes, "response": answers})
    found = frame.llm.evaluate("code", "response", kind="nominal", resamples=5)
    assert found.confusion.iloc[:, :2].to_numpy().trace() == 2


@pytest.mark.parametrize(
    "answers", [[1, 2, 3], [True, False, True], [0.5, 1.5, 2.5]], ids=["int", "bool", "float"]
)
def test_types_that_cannot_match_are_an_error_with_both_label_sets(answers: Any) -> None:
    frame = pd.DataFrame({"code": ["pos", "neg", "pos"], "response": answers})
    with pytest.raises(CodesError, match=r"No label can match.*'code' has text: neg, pos") as e:
        frame.llm.evaluate("code", "response", kind="nominal")
    assert str(answers[0]) in str(e.value)


DAYS = pd.to_datetime(["2024-01-01", "2024-02-01"] * 5)


@pytest.mark.parametrize(
    ("codes", "answers", "said"),
    [
        (DAYS, ["2024-01-01", "2024-02-01"] * 5, "datetime: 2024-01-01 00:00:00.*text: 2024-01-01"),
        (DAYS, list(DAYS.date), "datetime: .*date: 2024-01-01, 2024-02-01"),
        (DAYS.tz_localize("UTC"), DAYS, "datetime with time zone: .*datetime: "),
        (DAYS - DAYS[0], ["0 days", "31 days"] * 5, "timedelta: .*text: 0 days, 31 days"),
        ([b"a", b"b"] * 5, ["a", "b"] * 5, "bytes: b'a', b'b'.*text: a, b"),
        (pd.Series([1, 2] * 5, dtype=object), ["a", "b"] * 5, "numbers: 1, 2.*text: a, b"),
    ],
)
def test_kinds_of_labels_with_other_texts_cannot_match(codes: Any, answers: Any, said: str) -> None:
    frame = pd.DataFrame({"code": codes, "response": answers})
    with pytest.raises(CodesError, match=f"No label can match: 'code' has {said}"):
        frame.llm.evaluate("code", "response")
    with pytest.raises(CodesError, match="No label can match"):
        frame.llm.agreement(["code", "response"], kind="nominal")


def test_dates_match_their_text_and_times_those_of_another_dtype() -> None:
    frame = pd.DataFrame({"code": DAYS.date, "response": DAYS.strftime("%Y-%m-%d")})
    assert frame.llm.evaluate("code", "response").metrics.loc["accuracy", "estimate"] == 1
    frame = pd.DataFrame({"code": DAYS, "response": pd.Series(list(DAYS), dtype=object)})
    assert frame.llm.evaluate("code", "response").metrics.loc["accuracy", "estimate"] == 1


def test_a_group_may_share_no_label_by_chance() -> None:
    frame = pd.DataFrame({"code": ["1", "2"] * 5, "response": [1, 2] * 5, "group": ["u"] * 10})
    frame.loc[9, ["response", "group"]] = [1, "v"]
    found = frame.llm.evaluate("code", "response", by="group", resamples=5).by["estimate"]
    assert found["u", "accuracy"] == 1
    assert found["v", "accuracy"] == 0


def test_classes_stand_in_declared_order_else_sorted_which_is_said() -> None:
    frame = coded()
    assert frame.llm.evaluate("code", "response", resamples=5).notes[0] == (
        "order of classes: labels sorted as text"
    )
    declared = pd.CategoricalDtype(["c", "a", "b"], ordered=True)
    found = frame.astype({"response": declared}).llm.evaluate("code", "response", resamples=5)
    assert found.confusion.index.tolist() == ["c", "a", "b"]
    assert found.kind == "ordinal"
    assert "kappa_quadratic" in found.metrics.index
    assert not [note for note in found.notes if "order" in note]
    numbers = pd.DataFrame({"code": [10, 9, 2] * 5, "response": [10, 9, 9] * 5})
    found = numbers.llm.evaluate("code", "response", resamples=5)
    assert found.confusion.index.tolist() == ["2", "9", "10"]


def test_a_class_that_truth_never_has_stays_a_class() -> None:
    frame = pd.DataFrame({"code": ["a", "b"] * 10, "response": ["a", "b"] * 9 + ["z", "b"]})
    found = frame.llm.evaluate("code", "response")
    assert found.classes.index.tolist() == ["a", "b", "z"]
    assert np.isnan(found.classes.loc["z", "recall"])
    assert found.classes.loc["z", "note"] == "never seen in truth"
    f1 = found.classes["F1"]
    assert found.metrics.loc["macro_F1", "estimate"] == pytest.approx(f1.mean())
    assert "never seen in truth: z" in found.notes


def test_one_class_has_no_kappa_and_says_why() -> None:
    frame = pd.DataFrame({"code": ["a"] * 20, "response": ["a"] * 20})
    metrics = frame.llm.evaluate("code", "response").metrics
    for name in ("kappa", "alpha", "Matthews"):
        assert np.isnan(metrics.loc[name, "estimate"])
        assert metrics.loc[name, "note"] == "one class only"
    assert metrics.loc["AC1", "estimate"] == 1.0
    constant = frame.assign(code=["a", "b"] * 10).llm.evaluate("code", "response").metrics
    assert constant.loc["kappa", "estimate"] == 0
    assert "one side has one class only" in constant.loc["Matthews", "note"]


def test_few_cases_of_a_class_are_noted() -> None:
    frame = pd.DataFrame({"code": ["a"] * 30 + ["b"] * 3, "response": ["a"] * 33})
    found = frame.llm.evaluate("code", "response")
    assert found.classes.loc["b", "note"] == "3 coded cases only"
    assert "fewer than 10 coded cases: b" in found.notes


def test_resamples_without_a_value_are_left_out_and_counted() -> None:
    frame = pd.DataFrame({"code": ["a", "a", "b"], "response": ["a", "a", "b"]})
    row = frame.llm.evaluate("code", "response").metrics.loc["kappa"]
    assert row["note"].startswith("29") or "of 1,000 resamples have no value" in row["note"]
    assert row["low"] == row["high"] == 1


# --- weights ----------------------------------------------------------------------------------
def test_weights_make_the_sample_stand_for_all_rows() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    truth = rng.random(n) < 0.1
    label = np.where(rng.random(n) < np.where(truth, 0.7, 0.95), truth, ~truth)
    everything = pd.DataFrame({"true": truth, "label": label})
    drawn, pi = np.zeros(n, dtype=bool), np.zeros(n)
    for value in (False, True):
        inside = np.flatnonzero(label == value)
        drawn[rng.choice(inside, 400, replace=False)] = True
        pi[inside] = 400 / len(inside)
    sample = everything.assign(code=everything["true"].astype(object).where(drawn), code_pi=pi)
    sample["code_stratum"] = label.astype(str)
    whole = everything.llm.evaluate("true", "label", resamples=5).metrics["estimate"]
    found = sample.llm.evaluate("code", "label").metrics
    unweighted = sample.drop(columns="code_pi").llm.evaluate("code", "label").metrics["estimate"]
    for name in ("accuracy", "macro_F1", "kappa", "AC1"):
        assert found.loc[name, "low"] <= whole[name] <= found.loc[name, "high"]
        assert abs(found.loc[name, "estimate"] - whole[name]) < 0.03
    assert abs(unweighted["accuracy"] - whole["accuracy"]) > 0.05
    assert found.loc["accuracy", "method"] == "bootstrap"
    evaluated = sample.llm.evaluate("code", "label", resamples=5)
    assert evaluated.classes["support"].sum() == pytest.approx(800)
    assert evaluated.confusion.to_numpy().sum() == pytest.approx(800)


def test_a_class_without_an_error_has_wilsons_interval_in_sets_and_strata_too() -> None:
    low = 0.838875  # of 20 out of 20, where the bootstrap says [1, 1]
    sets = pd.DataFrame({"code": [["a"], ["a", "b"]] * 10, "response": [["a"], ["a", "b"]] * 10})
    found = sets.llm.evaluate("code", "response", resamples=20).classes.loc["a"]
    assert found[["precision_low", "recall_low"]].tolist() == pytest.approx([low, low], abs=1e-6)
    # Strata of the model's labels: weights differ, but not among the rows of one precision.
    frame = pd.DataFrame({"code": ["a"] * 20 + ["a", "b"] * 10})
    frame["response"] = ["a"] * 20 + ["b"] * 20
    frame["code_pi"] = [0.1] * 20 + [0.5] * 20
    frame["code_stratum"] = frame["response"]
    found = frame.llm.evaluate("code", "response", resamples=20)
    row = found.classes.loc["a"]
    assert row[["precision_low", "precision_high"]].tolist() == pytest.approx([low, 1], abs=1e-6)
    assert row["recall"] == pytest.approx(200 / 220)
    assert found.metrics.loc["accuracy", "method"] == "bootstrap"


def test_one_probability_for_all_is_no_weight() -> None:
    frame = coded()
    plain = frame.llm.evaluate("code", "response")
    weighted = frame.llm.evaluate("code", "response", pi=0.1)
    pd.testing.assert_frame_equal(plain.metrics, weighted.metrics)


@pytest.mark.parametrize(
    ("pi", "said"),
    [
        (0, "0 or below"),
        (1.5, "above 1"),
        (True, "must be a column or a number"),
        ("none", "no column 'none' for pi="),
        ("holes", "a code and no probability"),
        ("text", "column 'text' for pi= holds 'half'.*row 7"),
        ("day", "column 'day' for pi= holds Timestamp.*row 0"),
    ],
)
def test_a_probability_that_is_none_is_named(pi: Any, said: str) -> None:
    frame = coded().assign(holes=[0.5] * 199 + [np.nan], day=pd.Timestamp(0))
    frame["text"] = ["0.5"] * 7 + ["half"] * 193
    with pytest.raises((CodesError, ConfigurationError, MissingColumnError), match=said):
        frame.llm.evaluate("code", "response", pi=pi)


def test_rows_with_one_text_are_drawn_together() -> None:
    frame = coded(60)
    repeated = pd.concat([frame.assign(code_unit=[f"u{i}" for i in range(60)])] * 4)
    alone = repeated.drop(columns="code_unit").llm.evaluate("code", "response").metrics
    together = repeated.llm.evaluate("code", "response").metrics
    once = frame.llm.evaluate("code", "response").metrics
    assert together.loc["kappa", "estimate"] == pytest.approx(once.loc["kappa", "estimate"])
    width = (together["high"] - together["low"])["kappa"]
    assert width == pytest.approx((once["high"] - once["low"])["kappa"], rel=0.1)
    assert width > 1.8 * (alone["high"] - alone["low"])["kappa"]


# --- laws -------------------------------------------------------------------------------------
@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["nominal", "numeric", "set"]))
def test_nothing_depends_on_the_order_of_rows_or_the_index(seed: int, kind: Any) -> None:
    frame = coded(80, seed)
    if kind == "numeric":
        frame[["code", "response"]] = np.random.default_rng(seed).normal(size=(80, 2)).round(1)
    if kind == "set":
        frame["code"] = [list(c) for c in frame["code"]]
        frame["response"] = [None if r is None else [r, "c"] for r in frame["response"]]
    frame["code_pi"] = np.random.default_rng(seed).choice([0.1, 0.3, 0.7], 80)
    frame["code_stratum"] = frame["group"]
    shuffled = frame.sample(frac=1, random_state=seed)
    shuffled.index = pd.Index(["same"] * 80)
    one = evaluate(frame, "code", "response", kind=kind, by="group", resamples=50)
    two = evaluate(shuffled, "code", "response", kind=kind, by="group", resamples=50)
    pd.testing.assert_frame_equal(one.metrics, two.metrics, rtol=1e-12)
    pd.testing.assert_frame_equal(one.classes, two.classes, rtol=1e-12)
    pd.testing.assert_frame_equal(one.by, two.by, rtol=1e-12)


def test_a_group_is_evaluated_as_if_it_were_alone() -> None:
    frame = coded()
    frame.loc[:9, "group"] = None
    found = frame.llm.evaluate("code", "response", by="group").by
    assert found.index.get_level_values("group").unique().tolist() == ["u", "v", "(missing)"]
    for name in ("u", "v"):
        alone = frame[frame["group"] == name].llm.evaluate("code", "response").metrics
        pd.testing.assert_frame_equal(found.loc[name], alone)
    two = frame.llm.evaluate("code", "response", by=["group", "response"], resamples=5).by
    assert two.index.names == ["group", "response", "metric"]


def test_a_seed_gives_the_same_numbers_and_another_others() -> None:
    frame = coded()
    one, two = (frame.llm.evaluate("code", "response", seed=s).metrics for s in (1, 1))
    pd.testing.assert_frame_equal(one, two)
    other = frame.llm.evaluate("code", "response", seed=2).metrics
    assert (one["low"] != other["low"]).any()
    assert (one["estimate"] == other["estimate"]).all()


def test_the_frame_stays_as_it_is() -> None:
    frame = coded()
    before = frame.copy(deep=True)
    frame.llm.evaluate("code", "response", by="group")
    pd.testing.assert_frame_equal(frame, before)


def test_the_normal_limit_says_what_resampling_says() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=MOST_PATTERNS + 1)
    frame = pd.DataFrame({"code": x, "response": x + rng.normal(size=len(x))})
    limit = frame.llm.evaluate("code", "response").metrics
    drawn = frame.iloc[:-1].llm.evaluate("code", "response", resamples=300).metrics
    assert limit.loc["RMSE", "method"] == "normal limit"
    assert drawn.loc["RMSE", "method"] == "bootstrap"
    widths = [(m["high"] - m["low"]).to_numpy() for m in (limit, drawn)]
    np.testing.assert_allclose(*widths, rtol=0.2)


def test_a_table_of_very_many_labels_is_drawn_cell_by_cell() -> None:
    # As a matrix, what each cell adds to all 160,400 of the table would take 30 GB.
    codes, answers = np.random.default_rng(3).integers(0, 400, (2, 30_000)).astype(str)
    frame = pd.DataFrame({"code": np.char.add("c", codes), "response": np.char.add("c", answers)})
    assert len(frame.drop_duplicates()) > MOST_PATTERNS
    found = frame.llm.evaluate("code", "response", resamples=20).metrics.loc["kappa"]
    assert found["method"] == "bootstrap"
    assert found["low"] < found["estimate"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.000288, rel=0.5)


def test_spearmans_influence_gives_the_width_of_ranking_anew() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=1500).round(1)
    frame = pd.DataFrame({"code": x, "response": (x + rng.normal(size=1500)).round(1)})
    frame["code_unit"] = np.repeat(np.arange(750).astype(str), 2)
    drawn = frame.drop(columns="code_unit").llm.evaluate("code", "response").metrics
    by_influence = frame.llm.evaluate("code", "response").metrics
    assert drawn.loc["Spearman", "method"] == "bootstrap"
    assert by_influence.loc["Spearman", "method"].startswith("normal")
    one, two = (m.loc["Spearman", "high"] - m.loc["Spearman", "low"] for m in (drawn, by_influence))
    assert one == pytest.approx(two, rel=0.15)


# --- kinds ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ([0.5, 1.5], "numeric"),
        ([1, 2], "nominal"),
        ([[1], [2]], "set"),
        (pd.Categorical(["a", "b"], ordered=True), "ordinal"),
        (pd.Categorical(["a", "b"]), "nominal"),
        ([True, False], "nominal"),
    ],
)
def test_the_kind_is_read_off_the_columns(codes: Any, kind: str) -> None:
    frame = pd.DataFrame({"code": codes, "response": codes})
    assert frame.llm.evaluate("code", "response", resamples=5).kind == kind


def test_codes_are_read_as_text_and_numbers_compare_as_numbers() -> None:
    frame = pd.DataFrame({"code": ["0.50", "1.5", "2"], "response": [0.5, 1.5, 2.5]})
    found = frame.llm.evaluate("code", "response", resamples=5)
    assert found.kind == "numeric"
    assert found.metrics.loc["bias", "estimate"] == pytest.approx(0.5 / 3)
    with pytest.raises(CodesError, match="'x'"):
        frame.assign(code="x").llm.evaluate("code", "response", kind="numeric")


# --- arguments and shape ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "words"}, "kind must be one of auto"),
        ({"use": "dev"}, "use must be 'test' or 'all'"),
        ({"resamples": 0}, "resamples must be"),
        ({"level": 95}, "level must be between 0 and 1"),
        ({"seed": "a"}, "seed must be"),
        ({"by": "nope"}, "no column 'nope' for by="),
        ({"by": []}, "by= names no column"),
        ({"status": "nope"}, "no column 'nope' for status="),
        ({"predicted": []}, "names no column"),
        ({"predicted": "respons"}, "Did you mean 'response'"),
        ({"predicted": "code"}, "'code', the column of hand codes itself"),
        ({"truth": pd.Series(["a"])}, "Give the name of a column for truth=, not a Series"),
    ],
)
def test_an_argument_without_meaning_is_named(arguments: dict[str, Any], said: str) -> None:
    given = {"truth": "code", "predicted": "response", **arguments}
    with pytest.raises((ConfigurationError, MissingColumnError), match=said):
        coded().llm.evaluate(**given)


@pytest.mark.parametrize("label", [np.int64(2020), pd.Timestamp("2020-01-01"), True])
def test_a_column_may_have_any_label(label: Any) -> None:
    frame = coded().rename(columns={"code": label})
    found = frame.llm.evaluate(label, "response", resamples=20)
    pd.testing.assert_frame_equal(
        found.metrics, coded().llm.evaluate("code", "response", resamples=20).metrics
    )


@pytest.mark.parametrize("arrow", [False, True])
def test_decimals_are_numbers(arrow: bool) -> None:
    cells = [Decimal("1.00"), Decimal("2.0"), Decimal("3"), pd.NA]
    column = pd.Series(cells, dtype=pd.ArrowDtype(pa.decimal128(5, 2)) if arrow else object)
    frame = pd.DataFrame({"code": column, "whole": [1, 2, 3, 3], "text": list("1233")})
    for name in ("whole", "text"):
        found = frame.llm.evaluate("code", name, resamples=20)
        assert found.metrics.loc["accuracy", ["estimate", "n"]].tolist() == [1.0, 3]
    assert frame.llm.agreement(["code", "whole"], resamples=20).rows["flips"].tolist() == [0] * 4


def test_an_infinite_number_is_named() -> None:
    frame = pd.DataFrame({"code": [1.5, 2.5, np.inf], "response": [1.0, 2.5, 3.0]})
    for call in (
        lambda: frame.llm.evaluate("code", "response"),
        lambda: frame.llm.agreement(["code", "response"]),
    ):
        with pytest.raises(CodesError, match="'code' is infinite in 1 row"):
            call()


def test_results_are_frozen_and_wide_levels_are_wider() -> None:
    frame = coded()
    found = frame.llm.evaluate("code", "response")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.level = 0.5
    wide = frame.llm.evaluate("code", "response", level=0.99).metrics
    assert (wide["low"] <= found.metrics["low"]).all()
    assert (wide["high"] >= found.metrics["high"]).all()
    assert list(found.metrics.columns) == ["estimate", "low", "high", "method", "n", "note"]
