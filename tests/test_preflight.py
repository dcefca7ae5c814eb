"""What is refused before anything is uploaded: with the row, the count and a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nyu_llm_frames as llm
from nyu_llm_frames._stages.requests.bodies import BodyShape, custom_ids, distinct, fragments
from nyu_llm_frames._stages.requests.preflight import (
    check_roles,
    check_sizes,
    check_texts,
    empty_texts,
)
from nyu_llm_frames.errors import (
    ConfigurationError,
    MissingValueError,
    RequestError,
    TemplateError,
)

MODEL = "gemini-3-flash-preview"


def preview(frame: pd.DataFrame, template: Any, **asked: Any) -> pd.DataFrame:
    shown: pd.DataFrame = frame.llm.preview(template, model=MODEL, **asked)
    return shown


# --- texts ----------------------------------------------------------------------------------
@given(st.lists(st.sampled_from(["", " \n\t", "\u2003", "a", " a "]), min_size=1))
def test_exactly_the_rows_without_text_are_counted(texts: list[str]) -> None:
    empty = [i for i, text in enumerate(texts) if not text.strip()]
    if not empty:
        check_texts([empty_texts(texts)], ["user"], range(len(texts)))
        return
    with pytest.raises(RequestError) as caught:
        check_texts([empty_texts(texts)], ["user"], range(len(texts)))
    assert (caught.value.row, caught.value.count) == (empty[0], len(empty))


def test_many_rows_are_checked_as_one() -> None:
    # Rows are rendered a few thousand at a time; errors count and name them all the same.
    n = 10_000
    data = pd.DataFrame({"a": ["x"] * n, "b": range(n)}, index=[f"row {i}" for i in range(n)])
    data.loc[["row 4100", "row 9000"], "a"] = " "
    with pytest.raises(RequestError) as empty:
        preview(data, "{{ a }}", n=n)
    assert (empty.value.row, empty.value.count) == ("row 4100", 2)
    data.loc[["row 17", "row 8192", "row 9999"], "a"] = None
    with pytest.raises(MissingValueError) as missing:
        preview(data, "{{ b }} {{ a }}", n=n)
    assert missing.value.columns == {"a": 3}
    assert missing.value.rows == ("row 17", "row 8192", "row 9999")
    with pytest.raises(RequestError) as empty:
        preview(data, "{{ a }}", missing="skip", n=n)
    assert (empty.value.row, empty.value.count) == ("row 4100", 2)
    with pytest.raises(TemplateError) as failed:
        preview(data, "{{ 1 // (b - 8200) }} {{ index }}", n=n)
    assert (failed.value.row, failed.value.position) == ("row 8200", 8200)
    shown = preview(data.assign(a="y"), "{{ index }}: {{ b }} {{ a }}", n=n)
    asked = [m[0]["content"] for m in shown["messages"]]
    assert asked == [f"row {i}: {i} y" for i in range(n)]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_every_message_needs_text(role: str) -> None:
    frame = pd.DataFrame({"x": ["a", "", ""]}, index=pd.Index([7, 8, 9]))
    template = [{"role": role, "content": "{{ x }}"}, {"role": "user", "content": "go on"}]
    with pytest.raises(RequestError, match=f"The {role} message is empty in 2 of 3 rows, first in "
                       "row 8") as caught:  # fmt: skip
        preview(frame, template)
    assert type(caught.value.row) is int


# --- messages -------------------------------------------------------------------------------
def messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"text {i}"} for i, role in enumerate(roles)]


ONE = pd.DataFrame({"x": ["a"]})


@pytest.mark.parametrize(
    "roles",
    [("user",), ("system", "user"), ("user", "user"), ("system", "user", "assistant", "user")],
)
def test_orders_that_arrive_whole_are_allowed(roles: tuple[str, ...]) -> None:
    check_roles(roles, "gemini")
    shown = preview(ONE, messages(*roles))["messages"].iloc[0]
    assert [m["role"] for m in shown] == list(roles)


@pytest.mark.parametrize("roles", [("system", "system", "user"), ("user", "system")])
def test_a_system_message_that_would_be_lost_is_refused(roles: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="system="):
        check_roles(roles, "gemini")
    with pytest.raises(ConfigurationError, match="system message"):
        preview(ONE, messages(*roles))


def test_an_assistant_cannot_have_the_last_word() -> None:
    with pytest.raises(RequestError, match="End with a user message"):
        preview(ONE, messages("user", "assistant"))
    check_roles(("user", "assistant"), "open")


class Broken:
    """A cell that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("template", ["{{ a }}", "{{ a | upper }}"])
def test_a_cell_without_a_text_is_named(template: str) -> None:
    data = pd.DataFrame({"a": ["x"] * 10_000}, index=range(1, 10_001), dtype=object)
    data.loc[9_000, "a"] = Broken()
    with pytest.raises(TemplateError, match="row 9000") as caught:
        preview(data, template, n=len(data))
    assert caught.value.position == 8_999


@pytest.mark.parametrize("template", ["{{ a }}", "{{ a | upper }}"])
@pytest.mark.parametrize("plain", [0, 200])
def test_half_a_character_never_moves_to_the_row_before(template: str, plain: int) -> None:
    # As arrow's readers may leave it: together the two rows are UTF-8, each by itself is not.
    rows = [b"x" * plain + b"caf\xc3", b"\xa9 x"]
    column = pa.array(rows, pa.binary()).view(pa.string())
    frame = pd.DataFrame({"a": pd.arrays.ArrowExtensionArray(pa.chunked_array([column]))})
    with pytest.raises(RequestError, match="column 'a', row 0, is not UTF-8") as caught:
        preview(frame, template)
    assert caught.value.row == 0


# --- sizes and ids --------------------------------------------------------------------------
def test_a_request_too_large_counts_rows_not_requests() -> None:
    frame = pd.DataFrame({"x": ["short", "long " * 200, "long " * 200]}, index=list("abc"))
    with llm.set_options(max_bytes_per_file=1000), pytest.raises(RequestError) as caught:
        preview(frame, "{{ x }}")
    assert (caught.value.row, caught.value.count) == ("b", 2)
    assert "max_bytes_per_file (1,000)" in str(caught.value)


@given(st.lists(st.text("ab", max_size=5), min_size=1, max_size=20), st.integers(200, 420))
def test_exactly_what_is_above_the_limit_is_refused(texts: list[str], limit: int) -> None:
    texts = [t * 20 for t in texts]
    shape = BodyShape(MODEL, ("user",), {})
    made = fragments(("user",), [texts])
    requests = distinct(
        custom_ids("@v", shape, made),
        pa.chunked_array([made]),
        shape,
        np.arange(len(texts)),
        len(texts),
    )
    large = [i for i, code in enumerate(requests.codes) if requests.line_bytes()[code] > limit]
    if not large:
        check_sizes(requests, limit, range(len(texts)))
        return
    with pytest.raises(RequestError) as caught:
        check_sizes(requests, limit, range(len(texts)))
    assert (caught.value.row, caught.value.count) == (large[0], len(large))
