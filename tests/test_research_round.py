"""The whole way of a study: sample, coders, agreement, evaluation, corrected numbers.

The truth of every row is known here, so that each number can be held against it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.coders import fill, units_of

from nyu_llm_frames.errors import CodesError, CodesWarning
from nyu_llm_frames.research.coding_sample import unit_ids

LABELS = ["other", "negative"]


def study(rows: int = 3000) -> pd.DataFrame:
    """Return rows with a truth, and a model's labels that are wrong more often for long texts."""
    rng = np.random.default_rng(7)
    length = rng.gamma(4, 0.5, rows)
    truth = rng.random(rows) < 0.3
    wrong = rng.random(rows) < np.where(truth, 0.3, 0.04 + 0.08 * length)
    said = np.where(truth ^ wrong, "negative", "other")
    return pd.DataFrame(
        {
            "text": [f"text {i} of {size:.3f}" for i, size in enumerate(length)],
            "length": length,
            "truth": np.where(truth, "negative", "other"),
            "label": pd.Categorical(said, LABELS),
        },
        index=[f"row {i}" for i in range(rows)],
    )


def code(df: pd.DataFrame, format: str, careless: float) -> pd.DataFrame:
    """Let two people code: the first knows the truth, the second is wrong now and then."""
    asked: dict[str, Any] = {"show": "text", "by": "label", "labels": LABELS, "format": format}
    df.llm.to_code("codes", n=400, **asked)
    df.llm.to_code("codes", n=60, use="dev", **asked)
    truth = dict(zip(unit_ids([df["text"].tolist()]), df["truth"], strict=True))
    one, two = (Path(f"codes/codes_{coder}.{format}") for coder in "ab")
    rng = np.random.default_rng(1)
    codes = {unit: truth[unit] for unit in units_of(one)}
    other = {"other": "negative", "negative": "other"}
    fill(one, codes)
    fill(two, {u: other[c] if rng.random() < careless else c for u, c in sorted(codes.items())})
    with pytest.warns(CodesWarning, match="Coders differ on"):
        coded = df.llm.from_codes("codes")
    with pytest.raises(CodesError, match="without a settled code"):
        coded.llm.correct("label ~ 1", truth={"label": "code"})
    fill(Path("codes/codes_settle.xlsx"), truth)
    found: pd.DataFrame = df.llm.from_codes("codes")
    return found


@pytest.mark.parametrize("format", ["csv", "xlsx"])
def test_a_study_from_the_sample_to_the_corrected_numbers(format: str) -> None:
    df = study()
    coded = code(df, format, careless=0.1)
    drawn = coded["code"].notna()
    assert (coded.loc[drawn, "code"].astype(str) == df.loc[drawn, "truth"]).all()
    assert coded["code_use"].value_counts().to_dict() == {"test": 400, "dev": 60}

    agreement = coded.llm.agreement(["code_a", "code_b"]).metrics.loc["agreement"]
    same = (coded["code_a"].astype(str) == coded["code_b"].astype(str))[drawn].mean()
    assert agreement["estimate"] == pytest.approx(same)
    assert 0.85 < same < 0.95

    right = (df["label"].astype(str) == df["truth"]).mean()
    accuracy = coded.llm.evaluate("code", "label").metrics.loc["accuracy"]
    assert accuracy["n"] == 400  # dev codes chose the prompt, and do not judge it
    assert accuracy["low"] < right < accuracy["high"]
    every = coded.llm.evaluate("code", "label", use="all").metrics.loc["accuracy"]
    assert every["n"] == 460

    negative = df["truth"] == "negative"
    for formula, term, true in (
        ("label ~ 1", "negative", negative.mean()),
        ("label ~ length", "length", np.polyfit(df["length"], negative, 1)[0]),
    ):
        found = coded.llm.correct(formula, truth={"label": "code"})
        assert found.coded == 400
        row = found.table.loc[term]
        assert not row["naive", "low"] < true < row["naive", "high"]
        assert row["corrected", "low"] < true < row["corrected", "high"]
        assert row["corrected", "se"] < row["human", "se"]


def test_equal_texts_are_one_cluster_with_one_code() -> None:
    df = study(400)
    twice = pd.concat([df, df.set_index(df.index + " again")])
    for frame, name in ((df, "once"), (twice, "twice")):
        frame.llm.to_code(name, "text", n=200, labels=LABELS, format="csv", coders="a")
        truth = dict(zip(unit_ids([frame["text"].tolist()]), frame["truth"], strict=True))
        fill(Path(name, "codes_a.csv"), truth)
    found, doubled = (
        frame.llm.from_codes(name).llm.correct("label ~ length", truth={"label": "code"})
        for frame, name in ((df, "once"), (twice, "twice"))
    )
    assert found.clusters == doubled.clusters == 400
    pd.testing.assert_frame_equal(
        found.table.select_dtypes("number"), doubled.table.select_dtypes("number"), rtol=1e-6
    )
