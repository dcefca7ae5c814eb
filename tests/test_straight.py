"""Templates of constants and cells are filled by the column: the same prompts, ids and errors."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nyu_llm_frames  # noqa: F401  (df.llm)
from nyu_llm_frames._stages.prompts.template import PromptTemplate, compile_template
from nyu_llm_frames.errors import LLMFramesError, RequestError, TemplateError

MODEL = "gemini-3-flash-preview"

STRAIGHT: list[Any] = [
    "{{ a }}",
    "{{ a }}{{ b }}",
    " {{ b }}\n{{ row['c d'] }}  ",
    'Which drug is named in "{{ a }}"? {# a comment #}{{ a }} é {{ row.b }}\n',
    "{% raw %}{{ a }}{% endraw %} {{ b }}",
    "nothing of the row",
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "{{ a }}"},
        {"role": "assistant", "content": "ok {{ b }}"},
        {"role": "user", "content": "{{ row['c d'] }}"},
    ],
]
OTHERS = [
    "{{ a | upper }}",
    "{{ a if b else 'x' }}",
    "{% if a %}{{ a }}{% endif %}",
    "{{ index }}: {{ a }}",
    "{{ row }}",
    "{{ 'x' }} {{ a }}",
    "{{ a ~ b }}",
    "{% set x = a %}{{ x }}",
    "{{ a.b }}",
]
COLUMNS = ["a", "b", "c d"]


@pytest.mark.parametrize("template", STRAIGHT)
def test_constants_and_cells_are_straight(template: Any) -> None:
    assert compile_template(template, None, COLUMNS).is_straight


@pytest.mark.parametrize("template", OTHERS)
def test_whatever_computes_is_not(template: str) -> None:
    assert not compile_template(template, None, COLUMNS).is_straight
    mixed = [{"role": "user", "content": "{{ a }}"}, {"role": "user", "content": template}]
    assert not compile_template(mixed, None, COLUMNS).is_straight


class Loud(str):
    """A string that prints as something else."""

    def __str__(self) -> str:
        return self.upper()


class Broken:
    """A cell that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")


CELLS = (
    st.none()
    | st.text(max_size=8)
    | st.text(" \t\n\x1c\u2003", max_size=2)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.integers(), max_size=2)
    | st.sampled_from([b"bytes", "\ud83d", "\ude00", Loud("loud"), Broken(), pd.NA, "a\x00b"])
)
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(0, 6))

    def values(cells: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(cells, min_size=n, max_size=n))

    anything = np.empty(n, object)
    anything[:] = values(CELLS)
    return pd.DataFrame(
        {
            "a": pd.Series(values(TEXTS), dtype="str"),
            "b": pd.Series(anything, dtype=object)
            if draw(st.booleans())
            else pd.Series(values(st.integers(0, 9)), dtype="int64"),
            "c d": pd.Series(values(TEXTS), dtype=draw(st.sampled_from([object, "string"]))),
        }
    )


def outcome(frame: pd.DataFrame, template: Any, missing: str) -> Any:
    try:
        shown = frame.llm.preview(template, model=MODEL, missing=missing, n=len(frame))
    except LLMFramesError as e:
        return type(e), str(e), vars(e)
    return shown.to_dict("list"), list(shown.index)


@pytest.mark.parametrize("template", STRAIGHT)
@settings(max_examples=60, deadline=None)
@given(frame=frames(), missing=st.sampled_from(["error", "skip"]), at_once=st.integers(1, 4))
@example(
    frame=pd.DataFrame({"a": ["x", "\u2003", "é"], "b": ["\x1c", " ", "."], "c d": ["", "", "z"]}),
    missing="error",
    at_once=2,
)
@example(
    frame=pd.DataFrame({"a": "x", "b": pd.Series([Loud("loud")], dtype=object), "c d": "z"}),
    missing="error",
    at_once=1,
)
def test_filling_says_what_rendering_row_by_row_says(
    template: Any, frame: pd.DataFrame, missing: str, at_once: int
) -> None:
    with mock.patch("nyu_llm_frames._stages.requests.bodies.ROWS_AT_ONCE", at_once):
        filled = outcome(frame, template, missing)
        with mock.patch.object(PromptTemplate, "is_straight", False):
            rendered = outcome(frame, template, missing)
    assert filled == rendered


def test_a_straight_template_is_filled() -> None:
    # Or else the law above would compare rendering with itself.
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
    with mock.patch.object(PromptTemplate, "render", side_effect=AssertionError):
        shown = frame.llm.preview("{{ a }} {{ b }}", model=MODEL)
        assert [m[0]["content"] for m in shown["messages"]] == ["x 1", "y 2"]
        with pytest.raises(AssertionError):
            frame.llm.preview("{{ a | upper }}", model=MODEL)


def test_only_the_block_with_an_unusual_cell_is_rendered_row_by_row() -> None:
    n = 3 * 8192
    frame = pd.DataFrame({"a": ["x"] * n}, dtype=object)
    frame.loc[8192 + 5, "a"] = "\ud83d"
    render = PromptTemplate.render
    with mock.patch.object(PromptTemplate, "render", autospec=True, side_effect=render) as spied:
        shown = frame.llm.preview("{{ a }}", model=MODEL, n=n)
    assert spied.call_count == 1
    assert [m[0]["content"] for m in shown["messages"]] == frame["a"].to_list()


def test_a_cell_without_a_text_is_named() -> None:
    frame = pd.DataFrame({"a": ["x", Broken()]}, index=["first", "second"])
    with pytest.raises(TemplateError, match="row 'second'"):
        frame.llm.preview("{{ a }}", model=MODEL)


@pytest.mark.parametrize("template", ["{{ a }}", "{{ a | upper }}"])
@pytest.mark.parametrize("plain", [0, 200])
def test_half_a_character_never_moves_to_the_row_before(template: str, plain: int) -> None:
    # As arrow's readers may leave it: together the two rows are UTF-8, each by itself is not.
    rows = [b"x" * plain + b"caf\xc3", b"\xa9 x"]
    column = pa.array(rows, pa.binary()).view(pa.string())
    frame = pd.DataFrame({"a": pd.arrays.ArrowExtensionArray(pa.chunked_array([column]))})
    with pytest.raises(RequestError, match="column 'a', row 0, is not UTF-8") as caught:
        frame.llm.preview(template, model=MODEL)
    assert caught.value.row == 0
