"""What a line of a batch file must be, and what its answer looks like."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_support import jsonl, request

from nyu_llm_frames.local.rows import (
    Completion,
    Line,
    RowError,
    bad_line,
    check_body,
    failed_line,
    good_line,
    parse_line,
    read_lines,
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary(max_size=30)))
def test_every_line_that_is_not_blank_is_counted_once(pieces: list[bytes]) -> None:
    raw = b"\n".join(pieces)
    lines = list(read_lines(io.BytesIO(raw)))
    want = [
        i
        for i, piece in enumerate(raw.split(b"\n"), 1)
        if (piece.removeprefix(b"\xef\xbb\xbf") if i == 1 else piece).strip()
    ]
    assert [line.number for line in lines] == want


@settings(deadline=None)  # the machine may be busy
@given(st.text(min_size=1), st.text())
def test_any_text_comes_back_in_one_ascii_line(custom_id: str, text: str) -> None:
    line = Line(3, custom_id, {})
    raw = good_line("7", line, Completion("m", "local", text), created=1)
    assert b"\n" not in raw
    data = json.loads(raw.decode("ascii"))
    assert data["custom_id"] == custom_id
    assert data["response"]["body"]["choices"][0]["message"]["content"] == text
    assert data["error"] == ""


def test_a_request_survives_bom_crlf_and_separators_inside_text() -> None:
    body = jsonl(request("a", "one\u2028two\u0085three"), request("b")).replace(b"\n", b"\r\n")
    lines = list(read_lines(io.BytesIO(b"\xef\xbb\xbf" + body)))
    assert [(line.custom_id, line.problem) for line in lines] == [("a", ""), ("b", "")]


@pytest.mark.parametrize(
    ("raw", "custom_id", "says"),
    [
        (b"{", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"[]", None, "not a JSON object"),
        (b'{"custom_id": "a"}', "a", "body is missing"),
        (b'{"custom_id": "a", "body": 3}', "a", "body is missing"),
        (b'{"body": {"messages": [{"role": "user", "content": "x"}]}}', None, "custom_id"),
        (b'{"custom_id": 7, "body": {}}', None, "custom_id"),
        (b'{"custom_id": "a", "url": "/v1/embeddings", "body": {}}', "a", "url must be"),
        (b'{"custom_id": "a", "body": {"messages": []}}', "a", "non-empty list"),
        (b'{"custom_id": "a", "body": {"messages": [{"content": "x"}]}}', "a", "role"),
        (b'{"custom_id": "a", "body": {"messages": [{"role": "user"}]}}', "a", "content"),
    ],
)
def test_a_bad_line_says_why(raw: bytes, custom_id: str | None, says: str) -> None:
    line = parse_line(4, raw)
    assert line.body is None
    assert line.custom_id == custom_id
    assert says in line.problem
    out = json.loads(bad_line("7", line))
    assert out["custom_id"] == custom_id
    assert "line 4" in out["error"]


def test_a_failed_row_has_the_gateways_shape() -> None:
    row = json.loads(failed_line("7", Line(1, "a", {}), RowError(429, "too many")))
    assert row == {
        "id": "batch-7--1",
        "custom_id": "a",
        "response": {"request_id": "batch-7--1", "body": False},
        "error": 'Too Many Requests: {"error": {"code": 429, "message": "too many"}}',
    }


@pytest.mark.parametrize(
    "extra",
    [
        {"max_tokens": 0},
        {"max_tokens": "9"},
        {"max_tokens": True},
        {"max_completion_tokens": -1},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
        {"response_format": {"type": "yaml"}},
        {"response_format": "json"},
    ],
)
def test_a_body_without_meaning_is_refused(extra: dict[str, object]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], **extra}
    with pytest.raises(RowError) as caught:
        check_body(body)
    assert caught.value.status == 400
