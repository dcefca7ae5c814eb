"""Rows without a good answer, and how often each is tried."""

from __future__ import annotations

import linecache
import warnings

import pandas as pd
import pytest
from support import rows
from support.four_rows import DF, FAILING, MODEL, RIGHT, ask, sent, submit
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.errors import (
    PartialResultError,
    PartialResultWarning,
)


# --- rows without a good answer ---------------------------------------------------------------
def test_one_warning_counts_the_kinds_and_points_at_the_call(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick(
        {
            "Say a": rows.blocked,
            "Say b": rows.failed(400, "no such role"),
            "Say c": rows.failed(400),
        }
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DF.llm.batch("Say {{ x }}", model=MODEL)  # the line that the warning names
    (warning,) = caught
    assert warning.category is PartialResultWarning
    line = linecache.getline(warning.filename, warning.lineno)
    assert "the line that the warning names" in line
    assert str(warning.message) == (
        "3 of 4 rows have no good answer: 1 blocked (row 'A': prompt blocked: PROHIBITED_CONTENT); "
        "2 refused (row 'B': 400 INVALID_ARGUMENT: no such role). "
        "The reasons are in response_error."
    )


def test_on_error_raise_comes_after_everything_is_saved(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say a": rows.blocked})
    with pytest.raises(PartialResultError) as caught:
        ask(on_error="raise")
    frame = caught.value.frame
    assert frame is not None
    assert frame["response"].tolist()[1:] == RIGHT[1:]
    assert caught.value.counts == {"blocked": 1, "ok": 3}
    gateway.stop()
    assert ask()["response"].tolist()[1:] == RIGHT[1:]


def test_failures_are_the_rows_with_their_reasons(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say b": rows.blocked, "Say d": rows.missing})
    run = submit(retries=0)
    assert len(run.failures()) == 0  # nothing has failed while it is pending
    run.wait()
    bad = run.failures()
    assert bad.index.tolist() == ["B", "D"]
    assert list(bad.columns) == ["x", "status", "error"]
    assert bad["status"].tolist() == ["blocked", "missing"]
    assert bad["error"].notna().all()
    own = submit(DF.assign(status=["open", "shut", "open", "shut"]), retries=0).failures()
    assert own["status"].tolist() == ["shut", "shut"]  # the user's column is never written over
    assert own["response_status"].tolist() == ["blocked", "missing"]


@pytest.mark.parametrize(
    ("row", "status", "attempts"),
    [
        (rows.good, "ok", 1),
        (rows.thinking, "ok", 1),
        (rows.duplicate, "ok", 1),
        (rows.conflict, "ok", 1),
        (rows.truncated, "truncated", 1),
        (rows.truncated_empty, "truncated", 1),
        (rows.blocked, "blocked", 1),
        (rows.blocked_message, "blocked", 1),
        (rows.safety, "blocked", 1),
        (rows.finished("RECITATION"), "blocked", 1),
        (rows.failed(400), "refused", 1),
        (rows.failed(404, form="list"), "refused", 1),
        (rows.failed(429), "failed", 3),
        (rows.failed(408, form="object"), "failed", 3),
        (rows.failed(500, form="list"), "failed", 3),
        (rows.failed(500, "overloaded", form="plain"), "failed", 3),
        (rows.finished("MALFORMED_FUNCTION_CALL"), "failed", 3),
        (rows.empty_response, "failed", 3),
        (rows.thinking_only, "failed", 3),
        (rows.missing, "missing", 3),
        (rows.no_id, "missing", 3),
        (rows.numeric_id, "missing", 3),
        (rows.response_id_as_id, "missing", 3),
        (rows.not_json, "missing", 1),  # counted as answered
        (rows.says("broken \ufffd text"), "damaged", 3),
    ],
    ids=lambda value: value.__qualname__.split(".")[0] if callable(value) else str(value),
)
def test_every_shape_of_a_row_has_one_status_and_its_number_of_attempts(
    gateway: StandIn, row: rows.Row, status: str, attempts: int
) -> None:
    gateway.behaviour.row = rows.pick({"Say b": row})
    gateway.behaviour.content_fails = -1
    out = ask(retries=2)
    assert out["response_status"].tolist() == ["ok", status, "ok", "ok"]
    assert (out["response_error"].iloc[1] is pd.NA) == (status == "ok")
    assert sent(gateway) == [[f"Say {x}" for x in "abcd"]] + [["Say b"]] * (attempts - 1)
    jobs = llm.open_sidecar("llm_sidecar").jobs()
    assert jobs["requests"].tolist() == [4] + [1] * (attempts - 1)


# --- attempts ---------------------------------------------------------------------------------
def test_attempts_are_counted_per_request_and_not_restarted_by_calling_again(
    gateway: StandIn,
) -> None:
    gateway.behaviour.row = rows.pick({"Say a": FAILING, "Say b": rows.in_turn(FAILING, rows.good)})
    out = ask(retries=2)
    assert sent(gateway)[1:] == [["Say a", "Say b"], ["Say a"]]
    assert out["response_status"].tolist() == ["failed", "ok", "ok", "ok"]
    assert out["response_error"].iloc[0] == "503 UNKNOWN: overloaded"
    for _ in range(3):
        pd.testing.assert_frame_equal(ask(retries=2), out)
        pd.testing.assert_frame_equal(ask(retries=0), out)
    assert len(gateway.jobs) == 3


def test_a_larger_retries_and_run_retry_go_on(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say a": FAILING})
    ask(retries=0)
    assert len(gateway.jobs) == 1
    ask(retries=1)
    assert len(gateway.jobs) == 2
    run = submit(retries=1)
    assert run.counts() == {"failed": 1, "ok": 3}
    assert len(gateway.jobs) == 2
    gateway.behaviour.row = rows.good
    run.retry().wait()
    assert run.counts() == {"ok": 4}
    assert sent(gateway)[2] == ["Say a"]
    assert run.result()["response"].tolist() == RIGHT


def test_what_cannot_be_cured_is_not_sent_again_by_retry(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say a": rows.blocked, "Say b": rows.truncated})
    run = submit()
    run.wait()
    run.retry().wait()
    assert len(gateway.jobs) == 1


def test_an_answer_stays_when_others_are_added(gateway: StandIn) -> None:
    first = ask(pd.DataFrame({"x": ["b"]}))
    gateway.behaviour.row = rows.says("another answer")
    out = ask()
    assert sent(gateway) == [["Say b"], ["Say a", "Say c", "Say d"]]
    assert out["response"].iloc[1] == first["response"].iloc[0] == RIGHT[1]


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (rows.failed(503, "first"), rows.failed(503, "second"), "503 UNKNOWN: first"),
        (rows.says("first \ufffd"), rows.says("second \ufffd"), "first \ufffd"),
        (rows.failed(503, "first"), rows.says("second \ufffd"), "second \ufffd"),
        (rows.says("first \ufffd"), rows.blocked, "first \ufffd"),
        (rows.says("first \ufffd"), rows.failed(503), "first \ufffd"),
        (rows.missing, rows.failed(503, "second"), "503 UNKNOWN: second"),
        (rows.failed(503, "first"), rows.missing, "503 UNKNOWN: first"),
    ],
)
def test_the_better_answer_stays_and_of_equal_ones_the_first(
    gateway: StandIn, first: rows.Row, second: rows.Row, shown: str
) -> None:
    gateway.behaviour.row = rows.in_turn(first, second)
    gateway.behaviour.content_fails = -1
    out = ask(DF.iloc[:1], retries=1)
    assert len(gateway.jobs) == 2
    assert out["response"].fillna(out["response_error"]).tolist() == [shown]
    sidecar = llm.open_sidecar("llm_sidecar")
    assert len(sidecar.answers()) == sidecar.jobs()["answers"].sum()  # the others are kept, too


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_answer_is_tried_again(gateway: StandIn, text: str) -> None:
    blank = rows.says(text)
    gateway.behaviour.row = rows.pick({"Say a": blank, "Say b": rows.in_turn(blank, rows.good)})
    out = ask()
    assert sent(gateway)[1:] == [["Say a", "Say b"]]
    assert out["response_status"].tolist() == ["empty", "ok", "ok", "ok"]
    assert out["response"].tolist() == [text, *RIGHT[1:]]
    assert out["response_error"].notna().tolist() == [True, False, False, False]


def test_rows_of_another_job_are_orphans_and_change_nothing(gateway: StandIn) -> None:
    first = ask(DF.iloc[:2])
    known = first["response_custom_id"].tolist()

    def row(custom_id: str, body: rows.Body) -> list[bytes]:
        strange = [rows.with_text(other, body, "not yours") for other in (*known, "r-" + "0" * 32)]
        return [*strange, *rows.good(custom_id, body)]

    gateway.behaviour.row = row
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert llm.open_sidecar("llm_sidecar").jobs()["orphans"].tolist() == [0, 6]
    assert "not yours" not in set(llm.open_sidecar("llm_sidecar").answers()["text"])
