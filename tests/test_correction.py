"""`df.llm.correct`: three estimates side by side, and what cannot be estimated is named."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nyu_llm_frames.errors import (
    CodesError,
    ConfigurationError,
    LLMFramesError,
    MissingColumnError,
    MissingValueError,
)

TRUTH = {"label": "code"}
WHICH = ("naive", "human", "corrected")


def posts(n: int = 4000, coded: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows whose label the model gets wrong more often where x is large."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    true = rng.random(n) < 1 / (1 + np.exp(-x))
    wrong = rng.random(n) < 0.3 / (1 + np.exp(-2 * x))
    frame = pd.DataFrame({"x": x, "group": rng.choice(list("abc"), n)})
    frame["true"], frame["label"] = true.astype(int), np.where(wrong, ~true, true).astype(int)
    frame["y"] = 1 + 0.5 * true + 0.2 * x + rng.normal(size=n)
    drawn = np.isin(np.arange(n), rng.choice(n, coded, replace=False))
    frame["code"] = frame["true"].where(drawn)
    frame["code_pi"] = np.where(drawn, coded / n, np.nan)
    return frame


def words(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with labels that are words."""
    names = {0: "neg", 1: "pos"}
    return frame.assign(label=frame["label"].map(names), code=frame["code"].map(names))


# --- estimates --------------------------------------------------------------------------------
def test_the_three_estimates_stand_together() -> None:
    table = posts().llm.correct("label ~ x", truth=TRUTH, family="logit").table
    assert table.index.tolist() == ["Intercept", "x"]
    assert table.columns.get_level_values(0).unique().tolist() == [*WHICH, "lambda", "note"]
    for which in WHICH:
        assert table[which].columns.tolist() == ["estimate", "se", "low", "high", "p"]
    assert table["lambda"].between(0, 1).all()
    corrected = table["corrected"].loc["x"]
    assert corrected["low"] < 1 < corrected["high"]
    assert table["naive"].loc["x", "high"] < 1
    assert (table["corrected"]["se"] < table["human"]["se"]).all()


def test_naive_and_human_are_what_statsmodels_says() -> None:
    api = pytest.importorskip("statsmodels.api")
    frame = posts()
    frame["code_pi"] = np.where(frame["code"].notna(), np.where(frame["x"] > 0, 0.1, 0.05), np.nan)
    coded = frame.dropna(subset="code")
    for family, kind in (("ols", api.families.Gaussian()), ("logit", api.families.Binomial())):
        found = frame.llm.correct("label ~ x", truth=TRUTH, family=family).table  # type: ignore[arg-type]
        every = api.GLM(frame["label"], api.add_constant(frame["x"]), family=kind)
        few = api.GLM(
            coded["code"], api.add_constant(coded["x"]), family=kind,
            freq_weights=1 / coded["code_pi"],
        )  # fmt: skip
        naive = every.fit(cov_type="HC0", tol=1e-12)
        np.testing.assert_allclose(found["naive"]["estimate"], naive.params, rtol=1e-8)
        np.testing.assert_allclose(found["naive"]["se"], naive.bse, rtol=1e-7)
        np.testing.assert_allclose(found["naive"]["p"], naive.pvalues, atol=1e-9)
        np.testing.assert_allclose(found["human"]["estimate"], few.fit(tol=1e-12).params, rtol=1e-7)


def test_clusters_are_what_statsmodels_says() -> None:
    api = pytest.importorskip("statsmodels.api")
    frame = posts().assign(author=lambda f: (f.index // 7).astype(str))
    found = frame.llm.correct("label ~ x", truth=TRUTH, cluster="author")
    groups = pd.factorize(frame["author"])[0]
    naive = api.OLS(frame["label"], api.add_constant(frame["x"])).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    np.testing.assert_allclose(found.table["naive"]["se"], naive.bse, rtol=1e-8)
    assert found.clusters == len(np.unique(groups))


def test_a_proportion_by_hand() -> None:
    frame = posts()
    n, coded = len(frame), frame.dropna(subset="code")
    row = frame.llm.correct("label ~ 1", truth=TRUTH, tune=False).table.loc["Intercept"]
    shift = (coded["code"] - coded["label"]).mean()
    assert row["corrected", "estimate"] == pytest.approx(frame["label"].mean() + shift)
    pi = len(coded) / n
    each = np.array(frame["label"] - row["corrected", "estimate"])
    each[frame["code"].notna()] += (coded["code"] - coded["label"]) / pi
    assert row["corrected", "se"] == pytest.approx(np.sqrt((each**2).sum()) / n)
    assert row["lambda", ""] == 1


def test_lambda_makes_the_variance_least() -> None:
    frame = posts()
    tuned = frame.llm.correct("label ~ x", truth=TRUTH, tune=True).table["corrected"]["se"]
    for tune in (False,):
        other = frame.llm.correct("label ~ x", truth=TRUTH, tune=tune).table["corrected"]["se"]
        assert (tuned <= other + 1e-6).all()
    human = frame.llm.correct("label ~ x", truth=TRUTH).table["human"]["se"]
    assert (tuned <= human + 1e-6).all()


def test_labels_that_are_the_codes_need_no_correction() -> None:
    frame = posts().assign(label=lambda f: f["true"])
    table = frame.llm.correct("label ~ x", truth=TRUTH, tune=False).table
    np.testing.assert_allclose(table["naive"]["estimate"], table["corrected"]["estimate"])
    np.testing.assert_allclose(table["naive"]["se"], table["corrected"]["se"])


def test_lambda_is_one_unless_every_class_has_twenty_codes() -> None:
    few = posts(coded=30)
    found = few.llm.correct("label ~ x", truth=TRUTH)
    assert (found.table["lambda"] == 1).all()
    assert any("lambda is 1" in note for note in found.notes)
    assert (posts().llm.correct("label ~ x", truth=TRUTH).table["lambda"] < 1).all()


def test_few_codes_of_a_class_are_a_warning_in_table_and_repr() -> None:
    frame = posts(coded=12)
    found = frame.llm.correct("label ~ 1", truth=TRUTH)
    assert found.table["note", ""].str.startswith("fewer than 10 coded cases").all()
    assert "fewer than 10 coded cases" in repr(found)
    assert "fewer than 10 coded cases" in found._repr_html_()


@pytest.mark.parametrize("units", [False, True])
def test_codes_that_stand_for_other_rows_are_a_warning_in_table_and_repr(units: bool) -> None:
    frame = posts(4000, 300)
    if units:  # one text that a third of the rows have is one unit: the sample need not have it
        frame["code_unit"] = "u-" + frame.index.astype(str)
        many = frame.loc[frame["code"].isna()].iloc[[0] * 2000]
        frame = pd.concat([frame, many], ignore_index=True)
    assert (frame.llm.correct("label ~ 1", truth=TRUTH).table["note"] == "").all()
    some = frame[frame["x"] > 0].llm.correct("label ~ 1", truth=TRUTH)
    assert not any("stand for" in note for note in some.notes)
    what = "texts" if units else "rows"
    said = f"the 300 coded {what} stand for 4,000, and the frame has"
    coded = frame[frame["code"].notna()].llm.correct("label ~ 1", truth=TRUTH)
    assert coded.table["note", ""].str.contains(f"{said} 300: all rows").all()
    assert f"{said} 300" in repr(coded)
    # Clusters drawn whole, of which the sample has none of the large ones.
    wholly = posts().assign(code=lambda f: f["true"].where(f.index < 200), code_pi=0.1)
    wholly["author"] = np.where(wholly.index < 200, wholly.index // 20, 100 + wholly.index // 90)
    for cluster, noted in (("author", False), (None, True)):
        found = wholly.llm.correct("label ~ 1", truth=TRUTH, cluster=cluster, pi=0.1)
        assert any("stand for" in note for note in found.notes) == noted
    wrong = frame.llm.correct("label ~ 1", truth=TRUTH, pi=0.5)
    assert "stand for 600, and the frame has 4,000" in repr(wrong)


def test_a_formula_may_use_what_learns_from_the_data() -> None:
    frame = posts().rename(columns={"x": "the x"})
    own = (frame["the x"] - frame["the x"].mean()) / frame["the x"].std()
    formulas = ("label ~ scale(`the x`) + group", "label ~ own + group")
    one, two = (frame.assign(own=own).llm.correct(f, truth=TRUTH).table for f in formulas)
    np.testing.assert_allclose(one["corrected"], two["corrected"], rtol=1e-6)
    curve = posts().llm.correct("label ~ poly(x, 2) + bs(y, df=3)", truth=TRUTH).table
    assert len(curve) == 6


@pytest.mark.parametrize("arrow", [False, True])
def test_decimals_are_numbers_in_a_formula(arrow: bool) -> None:
    frame = posts()
    steps = (frame["x"] * 2).round() / 2
    decimals = steps.map(lambda v: Decimal(str(v))).astype(object)
    if arrow:
        decimals = decimals.astype(pd.ArrowDtype(pa.decimal128(5, 2)))
    one = frame.assign(x=steps).llm.correct("y ~ label + x", truth=TRUTH).table
    two = frame.assign(x=decimals).llm.correct("y ~ label + x", truth=TRUTH).table
    pd.testing.assert_frame_equal(one, two)


# --- labels -----------------------------------------------------------------------------------
def test_words_and_numbers_say_the_same() -> None:
    frame = posts()
    numbers = frame.llm.correct("label ~ x", truth=TRUTH, family="logit")
    texts = words(frame).llm.correct("label ~ x", truth=TRUTH, family="logit")
    assert "outcome: label is 'pos'" in texts.notes
    pd.testing.assert_frame_equal(numbers.table, texts.table)
    booleans = frame.assign(
        label=frame["label"] == 1, code=frame["code"].map({1: "TRUE", 0: "FALSE"})
    )
    found = booleans.llm.correct("label ~ x", truth=TRUTH, family="logit")
    pd.testing.assert_frame_equal(numbers.table, found.table)
    written = words(frame).llm.correct("I(label == 'pos') ~ x", truth=TRUTH, family="logit")
    pd.testing.assert_frame_equal(numbers.table, written.table)


def test_a_covariate_of_words_is_one_of_numbers() -> None:
    frame = posts()
    numbers = frame.llm.correct("y ~ label + x", truth=TRUTH).table
    texts = words(frame).llm.correct("y ~ label + x", truth=TRUTH).table
    assert texts.index.tolist() == ["Intercept", "label[T.pos]", "x"]
    np.testing.assert_allclose(
        texts["corrected"], numbers.loc[["Intercept", "label", "x"], "corrected"]
    )


def test_categories_give_the_share_of_each_class() -> None:
    frame = words(posts())
    found = frame.llm.correct("label ~ 1", truth=TRUTH)
    assert found.shares
    assert found.table.index.tolist() == ["neg", "pos"]
    numbers = posts().llm.correct("label ~ 1", truth=TRUTH).table
    np.testing.assert_allclose(
        found.table["corrected"].loc["pos"], numbers["corrected"].loc["Intercept"]
    )
    assert found.table["corrected"]["estimate"].sum() == pytest.approx(1)


@pytest.mark.parametrize("labels", ["words", "numbers", "bools"])
def test_a_missing_answer_is_a_class_of_its_own(labels: str) -> None:
    as_words = labels == "words"
    frame = posts(coded=800)
    rng = np.random.default_rng(1)
    # The model refuses where the truth is 1: to drop these rows would make 1 rare.
    refused = (frame["true"] == 1) & (rng.random(len(frame)) < 0.4)
    frame["label"] = frame["label"].astype(float).mask(refused)
    if as_words:
        frame = words(frame)
    elif labels == "bools":  # objects, as pandas holds True, False and None
        frame["label"] = frame["label"].map({1.0: True, 0.0: False}).astype(object)
    found = frame.llm.correct("label ~ 1", truth=TRUTH)
    true = float(frame["true"].mean())
    row = found.table.loc["pos" if as_words else "Intercept", "corrected"]
    assert row["low"] <= true <= row["high"]
    assert any(f"{refused.sum():,} rows without an answer" in note for note in found.notes)
    if as_words:
        assert found.table["naive"]["estimate"].sum() == pytest.approx(1)
        missing = found.table.loc["(unanswered)"]
        assert missing["naive", "estimate"] == pytest.approx(refused.mean())
        assert missing["corrected", "estimate"] == 0
    slope = frame.llm.correct("y ~ label + x", truth=TRUTH).table["corrected"].iloc[1]
    assert slope["low"] <= 0.5 <= slope["high"]


def test_missing_categories_are_no_reference_class() -> None:
    frame = posts()
    frame.loc[::5, "group"] = None
    table = frame.llm.correct("label ~ group", truth=TRUTH).table
    assert table.index.tolist() == ["Intercept", "group[T.b]", "group[T.c]", "group[T.(missing)]"]
    with pytest.raises(MissingValueError, match=r"'x' of the formula has 2 missing numbers") as e:
        frame.assign(x=frame["x"].mask(frame.index < 2)).llm.correct("label ~ x", truth=TRUTH)
    assert e.value.columns == {"x": 2}


def test_rows_with_one_text_are_one_cluster() -> None:
    frame = posts(1000, 200).assign(code_unit=lambda f: "u" + f.index.astype(str))
    twice = pd.concat([frame, frame], ignore_index=True)
    once = frame.llm.correct("label ~ x", truth=TRUTH)
    found = twice.llm.correct("label ~ x", truth=TRUTH)
    for which in WHICH:
        np.testing.assert_allclose(found.table[which], once.table[which], rtol=1e-6, atol=1e-12)
    assert (found.coded, found.clusters, found.rows) == (200, 1000, 2000)
    np.testing.assert_allclose(found.with_codes(500), once.with_codes(500), rtol=1e-6)


def test_codes_for_developing_do_not_correct() -> None:
    frame = posts()
    dev = frame["code"].notna() & (frame.index % 2 == 0)
    frame["code_use"] = np.where(frame["code"].isna(), None, np.where(dev, "dev", "test"))
    found = frame.llm.correct("label ~ x", truth=TRUTH)
    assert found.coded == int((frame["code"].notna() & ~dev).sum())


def test_nothing_depends_on_the_order_of_rows() -> None:
    frame = words(posts())
    shuffled = frame.sample(frac=1, random_state=1)
    one = frame.llm.correct("label ~ x + group", truth=TRUTH, family="logit").table
    two = shuffled.llm.correct("label ~ x + group", truth=TRUTH, family="logit").table
    pd.testing.assert_frame_equal(one, two, rtol=1e-7)


def test_more_codes_give_the_standard_error_that_was_expected() -> None:
    few, many = posts(20_000, 300, seed=3), posts(20_000, 2_000, seed=3)
    found = few.llm.correct("label ~ x", truth=TRUTH)
    expected = found.with_codes(2_000)
    seen = many.llm.correct("label ~ x", truth=TRUTH).table
    np.testing.assert_allclose(expected["corrected"], seen["corrected"]["se"], rtol=0.15)
    np.testing.assert_allclose(expected["human"], seen["human"]["se"], rtol=0.25)
    now = found.with_codes(300)
    np.testing.assert_allclose(now["corrected"], found.table["corrected"]["se"])
    for n in (0, 20_001, True, 2.5):
        with pytest.raises(ConfigurationError, match="n must be between 1 and the 20,000"):
            found.with_codes(n)  # type: ignore[arg-type]


# --- errors -----------------------------------------------------------------------------------
def test_a_sample_without_probabilities_cannot_be_corrected() -> None:
    with pytest.raises(CodesError) as e:
        posts().drop(columns="code_pi").llm.correct("label ~ 1", truth=TRUTH)
    assert "a sample picked by hand cannot be corrected" in str(e.value)
    assert "if it was a simple random sample, pass pi=n/N, here pi=400/4000" in str(e.value)


def test_a_sampled_row_without_a_settled_code_is_named() -> None:
    frame = posts()
    row = frame["code"].first_valid_index()
    frame.loc[row, "code"] = np.nan
    with pytest.raises(CodesError, match=f"1 sampled row without a settled code.*row {row}") as e:
        frame.llm.correct("label ~ 1", truth=TRUTH)
    assert e.value.row == row


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_rows_without_a_cluster_are_not_one_cluster(missing: Any) -> None:
    authors = [f"a{i // 7}" for i in range(4000)]
    authors[5:8] = [missing] * 3
    frame = posts().assign(author=authors)
    with pytest.raises(MissingValueError, match=r"^3 rows without a cluster in 'author'.*5") as e:
        frame.llm.correct("label ~ x", truth=TRUTH, cluster=["group", "author"])
    assert (e.value.columns, e.value.rows) == ({"author": 3}, (5,))


def broken(**columns: Any) -> pd.DataFrame:
    return posts().assign(**columns)


@pytest.mark.parametrize(
    ("frame", "arguments", "said"),
    [
        (broken(code_pi=0.0), {}, "a probability pi of 0 or below"),
        (broken(code_pi="half"), {}, "column 'code_pi' for pi= holds 'half'.*row 0"),
        (broken(code_pi=2.0), {}, "a probability pi above 1"),
        (broken(code=np.nan, code_pi=0.1), {}, "No row has a hand code"),
        (broken(x2=lambda f: 2 * f["x"]), {"formula": "label ~ x + x2"},
         "the term 'x2' is a combination of x"),
        (broken(flag=lambda f: (f.index == 0) * 1.0), {"formula": "label ~ flag"}, "'flag' is"),
        (broken(same=lambda f: f["true"]), {"formula": "label ~ same", "family": "logit"},
         "Separation: the term 'same' tells"),
        (broken(code=lambda f: f["code"] * 0), {"formula": "label ~ x", "family": "logit"},
         "the outcome is 0 in every coded row"),
        (broken(), {"formula": "label ~ nope"}, "no column 'nope'"),
        (broken(), {"formula": "label ~ x +"}, "cannot be read"),
        (broken(), {"formula": "label ~~ x"}, r"cannot be read: [^\n\x1b]+$"),
        (broken(), {"formula": "x"}, "has no outcome"),
        (broken(), {"formula": "y ~ label | x"}, "has several parts"),
        (broken(), {"formula": "y | x ~ label"}, "has several parts"),
        (broken(), {"formula": "label ~ 0"}, "has no term"),
        (broken(z=lambda f: f.index % 5), {"formula": "y ~ label + log(z)"},
         r"'log\(z\)' is missing or infinite in 800 rows"),
        (broken(y=lambda f: f["y"].mask(f.index == 1, np.inf)), {"formula": "y ~ label"},
         "'y' is missing or infinite in 1 row"),
        (broken(), {"formula": "log(x) ~ label"}, r"'log\(x\)' is missing or infinite"),
        (broken(), {"formula": "y ~ x"}, "does not name"),
        (broken(), {"formula": "y ~ label", "family": "logit"}, "of a logit is 0 or 1"),
        (broken(label=["a", "b", "c", "d"] * 1000), {"formula": "label ~ x"}, "must hold|has"),
        (broken(), {"truth": {}}, "truth must be a dict"),
        (broken(), {"truth": {"label": "nope"}}, "no column 'nope'"),
        (broken(), {"truth": {"label": "label"}}, "'label', the model's column, as its own code"),
        (broken(), {"family": "probit"}, "family must be"),
        (broken(), {"tune": "no"}, "tune must be"),
        (broken(), {"cluster": "nope"}, "no column 'nope' for cluster="),
        (broken(), {"cluster": []}, "cluster= names no column"),
        (broken(), {"formula": ["label ~ 1"]}, "The formula must be text.*, not a list"),
        (broken(), {"level": 2}, "level must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_estimated_is_named(
    frame: pd.DataFrame, arguments: dict[str, Any], said: str
) -> None:
    given = {"formula": "label ~ 1", "truth": TRUTH, **arguments}
    with pytest.raises(LLMFramesError, match=said) as e:
        frame.llm.correct(given.pop("formula"), **given)
    assert isinstance(e.value, CodesError | ConfigurationError | MissingColumnError)


def test_a_code_that_the_model_never_gave_is_no_row_of_zeros() -> None:
    frame = posts()
    frame["label"] += 1.0
    frame["code"] = (frame["code"] + 1.0).mask(frame["code"].notna() & (frame.index % 9 == 0), 3.0)
    with pytest.raises(CodesError, match=r"that the model never gave.*3\.0"):
        frame.llm.correct("y ~ C(label)", truth=TRUTH)


def test_a_class_that_was_never_coded_counts_by_no_label() -> None:
    frame = words(posts())
    frame.loc[frame["code"].isna() & (frame.index % 50 == 0), "label"] = "odd"
    found = frame.llm.correct("y ~ label", truth=TRUTH)
    assert found.table.index.tolist() == ["Intercept", "label[T.pos]"]
    assert any(note.startswith("odd of label has no coded row") for note in found.notes)


# --- rare classes -----------------------------------------------------------------------------
def test_a_rare_class_is_named_also_where_another_column_has_its_label() -> None:
    frame = words(posts())
    rare = frame.index[frame["code"].notna()][:5]
    frame["early"] = np.where(frame.index.isin(rare), "pos", "neg")
    frame["early_code"] = frame["early"].where(frame["code"].notna())
    truth = {"early": "early_code", "label": "code"}
    found = frame.llm.correct("y ~ early + label", truth=truth, pi=0.1)
    assert "fewer than 10 coded cases: pos of early (5)" in repr(found)
    assert (found.table["lambda"] == 1).all()


@pytest.mark.parametrize("tune", ["auto", True])
def test_a_class_that_no_coder_gave_is_no_certain_zero(tune: Any) -> None:
    frame = words(posts())
    frame.loc[frame.index % 10 == 0, "label"] = "odd"
    found = frame.llm.correct("label ~ 1", truth=TRUTH, tune=tune)
    plain = frame.llm.correct("label ~ 1", truth=TRUTH, tune=False)
    pd.testing.assert_frame_equal(
        found.table.loc[["odd"], "corrected"], plain.table.loc[["odd"], "corrected"]
    )
    assert found.table.loc["odd", ("corrected", "se")] > 0
    assert found.table.loc["odd", ("lambda", "")] == 1
    said = "fewer than 10 coded cases: odd of label (0)"
    assert found.table["note", ""].tolist() == ["", said, ""]
    assert said in repr(found)
    written = frame.llm.correct("I(label == 'odd') ~ 1", truth=TRUTH, tune=tune)
    np.testing.assert_allclose(
        written.table["corrected"].iloc[0], found.table.loc["odd", "corrected"].astype(float)
    )


@pytest.mark.parametrize(("formula", "family"), [("y ~ label", "ols"), ("label ~ x", "logit")])
def test_a_class_that_no_coder_gave_is_a_warning_in_every_formula(
    formula: str, family: Any
) -> None:
    frame = words(posts())
    frame.loc[frame.index % 10 == 0, "label"] = "odd"
    found = frame.llm.correct(formula, truth=TRUTH, family=family)
    assert (found.table["lambda"] == 1).all()
    assert found.table["note", ""].str.contains("odd of label (0)", regex=False).all()
