"""How results look: text, a card, pictures; foreign text stays text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nyu_llm_frames.errors import ConfigurationError

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def plt() -> Iterator[Any]:
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as pyplot

    yield pyplot
    pyplot.close("all")


def frame(evil: str = "neg") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = np.array(["pos", evil, "neutral"], dtype=object)
    truth = names[rng.choice(3, 300, p=[0.5, 0.4, 0.1])]
    out = pd.DataFrame({"code": truth, "x": rng.normal(size=300)})
    for name in ("a", "b", "c"):
        out[name] = np.where(rng.random(300) < 0.8, truth, rng.choice(names, 300))
    out.loc[:8, "a"] = None
    return out


def results(evil: str = "neg") -> dict[str, Any]:
    rows = frame(evil)
    half = rows.assign(code=rows["code"].where(rows.index % 2 == 0))
    numbers = rows.assign(y=rows["x"] + rows.index % 7 / 10)
    sets = rows.assign(s=[[c] for c in rows["code"]], t=[["pos", str(c)] for c in rows["b"]])
    truth = {"a": "code"}
    return {
        "labels": rows.llm.evaluate("code", "a", resamples=50),
        "several": rows.llm.evaluate("code", ["a", "b"], resamples=50),
        "numbers": numbers.llm.evaluate("x", "y", resamples=50),
        "sets": sets.llm.evaluate("s", "t", resamples=50),
        "agreement": rows.llm.agreement(["a", "b", "c"], resamples=50),
        "two": rows.llm.agreement(["a", "b"], resamples=50),
        "shares": half.llm.correct("a ~ 1", truth=truth, pi=0.5),
        "terms": half.llm.correct("x ~ a", truth=truth, pi=0.5),
    }


def test_a_correction_reads_as_text() -> None:
    label = [1, 1, 1, 0] * 100
    code = [1, 1, 0, 0] * 25 + [None] * 300
    rows = pd.DataFrame({"label": label, "code": code})
    assert repr(rows.llm.correct("label ~ 1", truth={"label": "code"}, pi=0.25)) == (
        "label ~ 1\n"
        "  family       ols\n"
        "  rows         400, of which 100 coded\n"
        "  clusters     400\n"
        "\n"
        "Estimates (standard errors)\n"
        "                     naive       naive 95%          human       human 95%      corrected  "
        " corrected 95%      p lambda\n"
        "  term\n"
        "  Intercept  0.750 (0.022)  [0.708, 0.792]  0.500 (0.050)  [0.402, 0.598]  0.500 (0.045)  "
        "[0.412, 0.588]  <.001   0.50"
    )


def test_every_result_has_text_and_a_card_and_foreign_text_stays_text() -> None:
    for name, found in results(EVIL).items():
        text, html = repr(found), found._repr_html_()
        assert len(text.splitlines()) > 5, name
        assert html.count("<div") == html.count("</div>")
        assert html.count("<tr") == html.count("</tr>")
        assert '<div class="nlf">' in html  # the card of runs and estimates
        assert "<script" not in html
    labels = results(EVIL)["labels"]
    assert "&lt;script&gt;" in labels._repr_html_()
    assert "9 rows without an answer: wrong" in repr(labels)


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("labels", 2),
        ("several", 9),
        ("numbers", 1),
        ("sets", 2),
        ("agreement", 3),
        ("two", 2),
        ("shares", 1),
        ("terms", 3),
    ],
)
def test_every_result_has_a_picture(plt: Any, name: str, panels: int) -> None:
    axes = results()[name].plot()
    assert len(axes) == panels
    axes[0].figure.canvas.draw()
    assert axes[0].figure.get_facecolor()[3] == 0  # a notebook is light or dark


def test_the_picture_of_the_feature_shows_all_three(plt: Any) -> None:
    found = results()["terms"]
    for ax, term in zip(found.plot(), found.table.index, strict=True):
        assert ax.get_title() == term
        assert [t.get_text() for t in ax.get_yticklabels()] == ["naive", "human", "corrected"]
        points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
        expected = [found.table.loc[term, (w, "estimate")] for w in ("naive", "human", "corrected")]
        assert points == expected


def test_the_confusion_table_is_a_heat_map(plt: Any) -> None:
    found = results()["labels"]
    heat = found.plot()[0]
    shown = {t.get_text() for t in heat.texts}
    counts = found.confusion.to_numpy()
    assert shown == {str(n) for n in counts[counts > 0]}
    assert [t.get_text() for t in heat.get_xticklabels()][-1] == "(unanswered)"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = results()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for result in found.values():
        with pytest.raises(ConfigurationError, match=r"nyu-llm-frames\[plot\]"):
            result.plot()


def test_without_formulaic_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "formulaic", None)
    with pytest.raises(ConfigurationError, match=r"nyu-llm-frames\[research\]"):
        frame().llm.correct("x ~ a", truth={"a": "code"}, pi=0.5)
    assert frame().llm.evaluate("code", "a", resamples=5).kind == "nominal"
