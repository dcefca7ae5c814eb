"""`df.llm.agreement`: repeats, coders and models, with gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames.errors import CodesError, ConfigurationError, MissingColumnError
from nyu_llm_frames.research.agreement import agreement

NAMES = ["r_1", "r_2", "r_3"]


def repeats(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    first = rng.choice(list("abc"), n)
    frame = pd.DataFrame(
        {name: np.where(rng.random(n) < 0.8, first, rng.choice(list("abc"), n)) for name in NAMES}
    ).astype(object)
    return frame.mask(rng.random(frame.shape) < 0.1, None)


def by_pairs(codes: Any, kind: str, values: Any) -> float:
    """Alpha as it is defined: mean differences within units and among all values."""
    held = [[v for v in row if v >= 0] for row in codes]
    held = [row for row in held if len(row) > 1]
    every = [v for row in held for v in row]
    n = len(every)
    count = np.bincount(every, minlength=len(values))

    def apart(a: int, b: int) -> float:
        x, y = values[a], values[b]
        if kind == "nominal":
            return float(a != b)
        if kind == "numeric":
            return float((x - y) ** 2)
        if kind == "ratio":
            return float(((x - y) / (x + y)) ** 2)
        low, high = min(a, b), max(a, b)
        return float((count[low : high + 1].sum() - (count[a] + count[b]) / 2) ** 2)

    inside = sum(
        apart(a, b) / (len(row) - 1)
        for row in held
        for i, a in enumerate(row)
        for j, b in enumerate(row)
        if i != j
    )
    among = sum(apart(a, b) for i, a in enumerate(every) for j, b in enumerate(every) if i != j)
    return 1 - (inside / n) / (among / (n * (n - 1)))


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_alpha_is_what_its_definition_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 4, (10, 3))
    values = np.array([1.0, 2.0, 3.5, 7.0])
    if ((codes >= 0).sum(1) >= 2).sum() < 2:
        return
    for kind in ("nominal", "ordinal", "numeric", "ratio"):
        expected = by_pairs(codes, kind, values)
        frame = pd.DataFrame(np.where(codes >= 0, values[codes], np.nan), columns=NAMES)
        found = agreement(frame, NAMES, kind=kind, resamples=1).metrics.loc["alpha", "estimate"]
        assert found == pytest.approx(expected, abs=1e-9)


def test_columns_default_to_the_repeats_of_a_run() -> None:
    frame = repeats().rename(columns=lambda n: n.replace("r_", "response_"))
    assert frame.llm.agreement().columns == ("response_1", "response_2", "response_3")
    assert repeats().llm.agreement(output="r").columns == tuple(NAMES)
    with pytest.raises(ConfigurationError, match="There are no columns response_1"):
        repeats().llm.agreement()


def test_rows_say_how_far_their_values_agree() -> None:
    frame = pd.DataFrame(
        [["x", "x", "y"], ["x", "y", "x"], ["x", "y", None], [None, "y", None], [None] * 3],
        columns=NAMES, index=list("pqrst"),
    )  # fmt: skip
    rows = frame.llm.agreement(NAMES).rows
    assert rows.index.tolist() == list("pqrst")
    assert rows["answered"].tolist() == [3, 3, 2, 1, 0]
    assert rows["majority"].isna().tolist() == [False, False, True, False, True]
    assert rows["majority"].tolist()[:2] == ["x", "x"]
    assert rows["flips"].tolist() == [1, 2, 1, 0, 0]
    assert rows["share"].tolist()[:4] == [2 / 3, 2 / 3, 0.5, 1.0]
    assert rows["entropy"].tolist()[:4] == pytest.approx([0.9183, 0.9183, 1, 0], abs=1e-4)
    assert rows[["share", "entropy"]].iloc[4].isna().all()


@pytest.mark.parametrize("dtype", ["string", pd.CategoricalDtype(["x", "y"]), "Int64", "float64"])
def test_the_majority_has_the_dtype_of_the_columns(dtype: Any) -> None:
    numbers = dtype in ("Int64", "float64")
    cells = [[1, 1, 2], [1, 2, None]] if numbers else [["x", "x", "y"], ["x", "y", None]]
    frame = pd.DataFrame(cells, columns=NAMES).astype(dtype)
    majority = frame.llm.agreement(NAMES, kind="nominal").rows["majority"]
    assert majority.dtype == frame["r_1"].dtype
    assert majority.isna().tolist() == [False, True]


def test_pairs_are_counted_on_the_rows_that_have_both() -> None:
    frame = repeats()
    pairs = frame.llm.agreement(NAMES).pairs
    both = frame[["r_1", "r_3"]].dropna()
    row = pairs.loc[("r_1", "r_3")]
    assert row["n"] == len(both)
    assert row["agreement"] == pytest.approx((both["r_1"] == both["r_3"]).mean())
    two = frame.llm.agreement(["r_1", "r_3"]).metrics
    assert two.loc["kappa", "estimate"] == pytest.approx(row["kappa"])
    evaluated = frame.llm.evaluate("r_1", "r_3").metrics["estimate"]
    for name in ("kappa", "alpha", "AC1"):
        if name != "AC1":  # its shares also count rows with one value
            assert two.loc[name, "estimate"] == pytest.approx(evaluated[name])
    assert "kappa" not in frame.llm.agreement(NAMES).metrics.index


def test_a_group_is_looked_at_as_if_it_were_alone() -> None:
    frame = repeats().assign(group=["u", "v"] * 30)
    found = frame.llm.agreement(NAMES, by="group").by
    alone = frame[frame["group"] == "v"].llm.agreement(NAMES).metrics
    pd.testing.assert_frame_equal(found.loc["v"], alone)


def test_one_class_only_and_nothing_to_compare() -> None:
    frame = pd.DataFrame({"a": ["x"] * 5, "b": ["x"] * 5})
    metrics = frame.llm.agreement(["a", "b"]).metrics
    assert metrics.loc["agreement", "estimate"] == metrics.loc["AC1", "estimate"] == 1
    assert np.isnan(metrics.loc["alpha", "estimate"])
    assert metrics.loc["alpha", "note"] == "one class only"
    alone = pd.DataFrame({"a": ["x", None], "b": [None, "y"]}).llm.agreement(["a", "b"]).metrics
    assert alone.loc["alpha", "note"] == "no row has two values"
    with pytest.raises(CodesError, match="has a value"):
        pd.DataFrame({"a": [None], "b": [None]}).llm.agreement(["a", "b"])


@pytest.mark.parametrize("kind", ["nominal", "ordinal", "numeric", "ratio", "set"])
@pytest.mark.parametrize("names", [NAMES, NAMES[:2]])
def test_no_row_with_two_values_leaves_every_metric_without_one(kind: Any, names: Any) -> None:
    whole = pd.DataFrame({"r_1": [1, 2, 3], "r_2": [1, 3, 3], "r_3": [2, 2, 1]})
    alone = whole[names].where(np.eye(3, len(names), dtype=bool))
    found = alone.llm.agreement(names, kind=kind, resamples=5)
    expected = whole.llm.agreement(names, kind=kind, resamples=5).metrics
    assert found.metrics.index.tolist() == expected.index.tolist()
    assert found.metrics[["estimate", "low", "high"]].isna().all(axis=None)
    assert (found.metrics["n"] == 0).all()
    assert (found.metrics["note"] == "no row has two values").all()
    assert "no row has two values" in repr(found)


def test_sets_agree_by_the_labels_they_share() -> None:
    frame = pd.DataFrame({"a": [["x"], ["x", "y"], []], "b": [["x"], ["x"], []]})
    found = frame.llm.agreement(["a", "b"])
    assert found.kind == "set"
    assert found.metrics.loc["agreement", "estimate"] == pytest.approx(2 / 3)
    evaluated = frame.llm.evaluate("a", "b").metrics.loc["alpha", "estimate"]
    assert found.metrics.loc["alpha", "estimate"] == pytest.approx(evaluated)


# --- units ------------------------------------------------------------------------------------
def test_rows_with_one_text_were_coded_once() -> None:
    once = pd.DataFrame(
        {"code_unit": ["u-1", "u-2", "u-3", "u-4"], "code_a": list("nnpp"), "code_b": list("nnpn")}
    )
    frame = once.loc[np.repeat(range(4), [97, 1, 1, 1])].assign(group=["x", "y"] * 50)
    found = frame.llm.agreement(["code_a", "code_b"], by="group")
    expected = once.llm.agreement(["code_a", "code_b"])
    pd.testing.assert_frame_equal(found.metrics, expected.metrics)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    assert found.metrics.loc["agreement", ["estimate", "n"]].tolist() == [0.75, 4]
    assert found.by.loc[("x", "agreement"), "n"] == 2  # u1 and u3
    assert found.rows.index.equals(frame.index)
    assert found.notes == ("rows of one unit count once",)


@pytest.mark.parametrize("unit", [None, "USD"])
def test_rows_without_a_unit_stay_rows(unit: str | None) -> None:
    frame = repeats().rename(columns={"r_1": "code_a", "r_2": "code_b"})
    found = frame.assign(code_unit=unit).llm.agreement(["code_a", "code_b"])
    expected = frame.llm.agreement(["code_a", "code_b"])
    pd.testing.assert_frame_equal(found.metrics, expected.metrics)


@pytest.mark.parametrize("kind", ["nominal", "ordinal", "numeric", "ratio", "set"])
def test_rows_of_a_unit_with_different_answers_are_one_cluster(kind: Any) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 5, 80)
    once = pd.DataFrame({"code_a": codes, "response": np.where(rng.random(80) < 0.7, codes, 1)})
    once["code_unit"] = [f"u-{i}" for i in range(80)]
    frame = pd.concat([once] * 4, ignore_index=True)
    frame.loc[0, "response"] = 5 - frame.loc[0, "response"]
    names = ["code_a", "response"]
    found = frame.llm.agreement(names, kind=kind)
    rows = frame.drop(columns="code_unit").llm.agreement(names, kind=kind)
    assert found.notes[-1] == "rows of one unit are one cluster"
    np.testing.assert_allclose(found.metrics["estimate"], rows.metrics["estimate"])
    units = once.llm.agreement(names, kind=kind).metrics
    for name in units.index:
        width, of_units, of_rows = (
            m.loc[name, "high"] - m.loc[name, "low"] for m in (found.metrics, units, rows.metrics)
        )
        assert width == pytest.approx(of_units, rel=0.15)
        assert width > 1.7 * of_rows
    pair = found.pairs.iloc[0]
    assert pair["high"] - pair["low"] > 1.7 * (rows.pairs["high"] - rows.pairs["low"]).item()


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_nothing_depends_on_the_order_of_rows(seed: int) -> None:
    frame = repeats(40, seed)
    shuffled = frame.sample(frac=1, random_state=seed)
    one = agreement(frame, NAMES, resamples=50)
    two = agreement(shuffled, NAMES, resamples=50)
    pd.testing.assert_frame_equal(one.metrics, two.metrics, rtol=1e-12)
    pd.testing.assert_frame_equal(one.rows, two.rows.loc[frame.index])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("r_1", "must be a list"),
        (["r_1"], "two or more"),
        (["r_1", "r_1"], "two or more"),
        (["r_1", "nope"], "no column 'nope'"),
    ],
)
def test_columns_without_meaning_are_named(columns: Any, said: str) -> None:
    with pytest.raises((ConfigurationError, MissingColumnError), match=said):
        repeats().llm.agreement(columns)
