"""`run.plot()`: pictures of what there is, whatever state the run is in."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._api.run import Run
from nyu_llm_frames.errors import ConfigurationError

MODEL = "gemini-3-flash-preview"


@pytest.fixture(autouse=True)
def gateway(stand_in: StandIn) -> Iterator[StandIn]:
    with llm.set_options(
        gateway=llm.Gateway(**stand_in.settings),
        progress=False,
        poll_interval_s=0.02,
        max_requests_per_file=10,
    ):
        yield stand_in


@pytest.fixture
def plt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as pyplot

    yield pyplot
    pyplot.close("all")


def submit(model: str = MODEL) -> Run:
    frame = pd.DataFrame({"x": [f"text {i}" * (i + 1) for i in range(25)]})
    run: Run = frame.llm.submit("Say {{ x }}", model=model)
    return run


def test_a_finished_run_is_drawn(gateway: StandIn, plt: Any) -> None:
    gateway.behaviour.row = rows.pick({"Say text 0": rows.blocked}, rows.thinking)
    axes = submit().wait().plot()
    assert axes.shape == (4,)
    jobs, statuses, tokens, cost = axes
    assert len(jobs.patches) == 3
    assert [label.get_text() for label in statuses.get_yticklabels()] == ["ok", "blocked"]
    assert [p.get_width() for p in statuses.patches] == [24, 1]
    names = [text.get_text() for text in tokens.get_legend().get_texts()]
    assert [name.split(",")[0] for name in names] == ["prompt", "output", "thinking"]
    assert sum(p.get_height() for p in cost.patches) == 25  # a blocked prompt is read, and paid
    assert "$" in cost.get_title()
    axes[0].figure.canvas.draw()


def test_a_run_without_answers_is_drawn(gateway: StandIn, plt: Any) -> None:
    gateway.behaviour.validating_polls = -1
    axes = submit().plot()
    assert len(axes[0].patches) == 3
    assert axes.shape == (1,)  # all rows are pending, and nothing is known of tokens and cost
    axes[0].figure.canvas.draw()


def test_an_empty_run_is_drawn(gateway: StandIn, plt: Any) -> None:
    axes = pd.DataFrame({"x": pd.Series([], dtype=str)}).llm.submit("{{ x }}", model=MODEL).plot()
    assert [text.get_text() for text in axes[0].texts] == ["nothing was sent yet"]


def test_a_picture_can_be_read_on_white_and_on_black(gateway: StandIn, plt: Any) -> None:
    import numpy as np

    gateway.behaviour.row = rows.thinking
    figure = submit().wait().plot()[0].figure
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba(), dtype=float) / 255
    ink = pixels[pixels[..., 3] > 0.9][:, :3].mean(axis=1)
    assert (pixels[..., 3] == 0).mean() > 0.5  # the page shows through
    assert ink.min() > 0.25
    assert ink.max() < 0.75


def test_the_title_names_the_model_that_answered(gateway: StandIn, plt: Any) -> None:
    gateway.behaviour.row = lambda id_, body: rows.good(id_, {**body, "model": "small"})
    title = submit().wait().plot()[0].figure.get_suptitle()
    assert title == f"requested {MODEL}, answered by small: 25 rows, finished"


@pytest.mark.usefixtures("new_york")
def test_an_unknown_price_has_no_picture(plt: Any) -> None:
    titles = [ax.get_title() for ax in submit("model-of-nobody").wait().plot()]
    assert re.fullmatch(r"Batch jobs over time \(E[SD]T\)", titles[0])
    assert titles[1:] == ["Tokens per request"]


def test_without_matplotlib_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = submit()
    with pytest.raises(ConfigurationError, match=r'pip install "nyu-llm-frames\[plot\]"'):
        run.plot()
