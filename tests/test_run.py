"""A run's life: waiting, interruptions, attempts, failed jobs, troubled gateways."""

from __future__ import annotations

import contextlib
import itertools
import linecache
import logging
import operator
import threading
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from support import rows
from support.clock import FakeClock
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._gateway import connection
from nyu_llm_frames._jobs import sending
from nyu_llm_frames._jobs.tracker import driven
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.lock import SidecarLock
from nyu_llm_frames._stages.batches.wire import Busy
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    BudgetError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
    PartialResultError,
    PartialResultWarning,
    RunTimeoutError,
    UncertainSubmissionError,
)

MODEL = "gemini-3-flash-preview"
DF = pd.DataFrame({"x": list("abcd")}, index=["A", "B", "C", "D"])
RIGHT = [answer(f"Say {x}") for x in "abcd"]
FAILING = rows.failed(503, "overloaded")


def ask(frame: pd.DataFrame = DF, **options: Any) -> pd.DataFrame:
    options = {"model": MODEL, "details": True, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartialResultWarning)
        out: pd.DataFrame = frame.llm.batch("Say {{ x }}", **options)
    return out


def submit(frame: pd.DataFrame = DF, **options: Any) -> llm.Run:
    run: llm.Run = frame.llm.submit("Say {{ x }}", **{"model": MODEL, **options})
    return run


def sent(gateway: StandIn) -> list[list[str]]:
    """Return the prompts of every job."""
    return [[rows.last_user_text(body) for _, body in job.requests] for job in gateway.jobs]


# --- sending ----------------------------------------------------------------------------------
def test_retry_sends_at_once(gateway: StandIn) -> None:
    """Whoever closes the laptop after it has a job at the gateway."""
    gateway.behaviour.row = FAILING
    run = submit(retries=0).wait()
    run.retry()
    assert sent(gateway) == [["Say a", "Say b", "Say c", "Say d"]] * 2


def retry_from_the_sidecar() -> None:
    submit(retries=0).wait()
    StoredRun("llm_sidecar").retry()


@pytest.mark.parametrize(
    ("way", "submits_before"),
    [
        (submit, 0),
        (lambda: ask(wait=False), 0),
        (ask, 0),
        (lambda: submit(retries=0).wait().retry(), 1),
        (retry_from_the_sidecar, 1),
    ],
)
def test_another_thread_cannot_take_back_what_is_being_sent(
    gateway: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[], Any],
    submits_before: int,
) -> None:
    """One that asks for some of the same rows, between the upload and the submit."""
    gateway.behaviour.row = lambda *args: (rows.good if len(sent(gateway)) > 1 else FAILING)(*args)
    submits = itertools.count()
    real = sending.submit

    def meet_another(ctx: Any, name: str) -> Any:
        if next(submits) == submits_before:
            other = threading.Thread(target=submit, args=[DF.iloc[:1]])
            other.start()
            other.join()
        return real(ctx, name)

    monkeypatch.setattr(sending, "submit", meet_another)
    with contextlib.suppress(BatchJobFailedError):
        way()
    assert sent(gateway)[submits_before] == ["Say a", "Say b", "Say c", "Say d"]


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_submit_that_is_led_elsewhere_is_uncertain(
    gateway: StandIn, clock: FakeClock, whose: str
) -> None:
    """To a login page on a host that nobody reaches: it may have made a job all the same."""
    gateway.script.add("create", mode="lose", status=302)
    client = gateway.portkey()  # follows redirects: that is its owner's business
    out = ask(gateway=llm.Gateway(client=client) if whose == "theirs" else None)
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("call", ["upload", "create", "poll", "output"])
def test_a_key_goes_nowhere_else(gateway: StandIn, clock: FakeClock, call: str) -> None:
    with StandIn() as other:
        where = f"{other.base_url}/batches"
        gateway.script.add(call, mode="lose", status=307, location=where, times=2)
        with contextlib.suppress(GatewayError):
            ask(timeout=200)
        assert other.log == []
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_words_in_options_stay_in_answers(gateway: StandIn, clock: FakeClock) -> None:
    """Portkey's tags are no secrets; of what is one, only such that no text holds by chance."""
    words = [answer(f"Say {x}")[:7] for x in "abcd"]
    settings = {**gateway.settings, "trace_id": "batch", "metadata": {"a": words, "b": "echo"}}
    gateway.script.add("create", mode="lose")
    out = ask(gateway=llm.Gateway(**settings, Authorization="echo"))
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1
    raw = llm.open_sidecar("llm_sidecar").answers(raw=True)["raw"]
    assert all(text.encode() in b"".join(raw) for text in RIGHT)


@pytest.mark.parametrize("call", ["retrieve", "list", "output", "content", "upload", "create"])
def test_nobody_there_is_told_from_no_answer(call: str, tmp_path: Path) -> None:
    """So that a submit that never arrived is made again, and the embedded gateway started."""
    (tmp_path / "in").write_bytes(b"{}")
    given: dict[str, tuple[Any, ...]] = {
        "list": (),
        "upload": (tmp_path / "in", "name", "model"),
        "create": ("file", "model"),
    }
    gateway = llm.Gateway(api_key="k", bucket="b", base_url="http://127.0.0.1:9/v1")
    made = gateway.connect()
    try:
        method = getattr(made, call)
        if call == "create":
            assert isinstance(method(*given[call]), Busy)
            return
        with pytest.raises(GatewayUnavailableError) as e:
            for _ in method(*given.get(call, ("id",))):
                pass
        assert not e.value.connected
    finally:
        made.close()


def test_files_that_are_too_large_are_cut_anew(gateway: StandIn) -> None:
    gateway.script.add("upload", status=413)
    with pytest.raises(GatewayError, match=r"413.*max_bytes_per_file=.*same call again"):
        ask()
    with llm.set_options(max_requests_per_file=2):
        assert ask()["response"].tolist() == RIGHT
    assert sorted(map(len, sent(gateway))) == [2, 2]


# --- waiting ----------------------------------------------------------------------------------
def test_a_finished_call_needs_neither_server_nor_key(gateway: StandIn) -> None:
    first = ask()
    gateway.stop()
    pd.testing.assert_frame_equal(ask(), first)
    nobody = llm.Gateway(base_url="http://127.0.0.1:9/v1")
    pd.testing.assert_frame_equal(ask(gateway=nobody), first)


def test_steps_without_waiting_lead_to_the_end(gateway: StandIn, clock: FakeClock) -> None:
    seen = []
    for _ in range(10):
        out = ask(wait=False)
        seen.append(out["response_status"].iloc[0])
        if seen[-1] == "ok":
            break
    assert seen == ["pending"] * (len(seen) - 1) + ["ok"]
    assert 2 < len(seen) < 10
    assert out["response"].tolist() == RIGHT
    assert gateway.count("create") == 1
    assert clock.slept == []


def test_pending_rows_have_neither_text_nor_error(gateway: StandIn) -> None:
    out = ask(wait=False)
    assert out["response"].isna().all()
    assert out["response_error"].isna().all()
    assert out["response"].dtype == pd.StringDtype()


@pytest.mark.parametrize("call", ["upload", "list", "poll"])
def test_timeout_covers_an_answer_that_does_not_come(
    gateway: StandIn, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Not a submit: one that is cut short may have made a job."""
    monkeypatch.setattr(connection, "_SHORTEST_S", 0.2)
    monkeypatch.setattr(connection, "_SHORTEST_UPLOAD_S", 0.2)
    gateway.script.add(call, mode="hang", times=-1)
    started = time.monotonic()
    with pytest.raises(RunTimeoutError):
        ask(timeout=0.2)
    assert time.monotonic() - started < 20


def test_timeout_leaves_the_job_running_and_the_next_call_picks_it_up(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.behaviour.running_polls = -1
    with pytest.raises(RunTimeoutError) as caught:
        ask(timeout=100)
    assert isinstance(caught.value, TimeoutError)
    assert sum(clock.slept) == pytest.approx(100)
    run = caught.value.run
    assert run is not None
    assert run.counts() == {"pending": 4}
    gateway.finish()
    assert ask()["response"].tolist() == RIGHT
    assert run.result()["response"].tolist() == RIGHT
    assert gateway.count("create") == 1


@pytest.mark.parametrize("status", [None, 429])
def test_a_timeout_says_what_kept_the_run_from_going_on(
    gateway: StandIn, clock: FakeClock, status: int | None
) -> None:
    told: list[llm.Progress] = []
    gateway.behaviour.running_polls = -1
    run = submit()
    if status is None:
        gateway.stop()
    else:
        gateway.script.add("poll", status=status, times=-1)
    with llm.set_options(progress=told.append), pytest.raises(RunTimeoutError) as caught:
        run.wait(timeout=1)
    assert not any(p.phase == "waiting" for p in told)  # the time was over before the first line
    said = f"no answer from {gateway.base_url}" if status is None else "the gateway answered 429"
    trouble = f"Trouble: Polling batch job {gateway.jobs[0].id}: {said}"
    assert trouble in str(caught.value)
    assert ".." not in str(caught.value)
    if status is None:
        gateway.start()
    gateway.script.clear()
    with pytest.raises(RunTimeoutError) as caught:
        run.wait(timeout=1)
    assert "Trouble" not in str(caught.value)


def test_polling_backs_off_between_its_two_intervals(gateway: StandIn, clock: FakeClock) -> None:
    gateway.behaviour.running_polls = 30
    with llm.set_options(poll_interval_s=10, max_poll_interval_s=100):
        ask()
    assert all(9 <= s <= 110 for s in clock.slept)
    assert clock.slept[0] <= 11
    assert all(s >= 90 for s in clock.slept[10:30])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(
    gateway: StandIn, clock: FakeClock, at: int
) -> None:
    gateway.behaviour.running_polls = 5
    told: list[llm.Progress] = []

    def press(n: int) -> None:
        if n == at:
            raise KeyboardInterrupt

    clock.on_sleep = press
    with llm.set_options(progress=told.append), pytest.raises(KeyboardInterrupt):
        ask()
    assert told[-1].phase == "interrupted"
    assert "the same call again" in told[-1].message
    assert "llm_sidecar" in told[-1].message
    clock.on_sleep = None
    assert ask()["response"].tolist() == RIGHT
    assert gateway.count("create") == 1


@pytest.mark.parametrize("phase", ["note", "uploading", "submitting", "waiting", "reading"])
def test_an_interruption_at_any_message_loses_nothing(gateway: StandIn, phase: str) -> None:
    def hook(progress: llm.Progress) -> None:
        if progress.phase == phase:
            raise KeyboardInterrupt

    with llm.set_options(progress=hook), contextlib.suppress(KeyboardInterrupt):
        ask()
        pytest.fail(f"nothing was said in phase {phase}")
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_progress_tells_where_the_sidecar_is_and_never_what_is_in_it(
    gateway: StandIn, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="nyu_llm_frames")
    df = pd.DataFrame({"x": ["a secret prompt", "another"]})
    with llm.set_options(progress=True):
        ask(df)
        ask(df)
    told = capsys.readouterr()
    first, *_ = told.out.splitlines()
    assert first.startswith("new sidecar: /")
    assert first.endswith("/llm_sidecar")
    assert sum(line.startswith("sidecar: /") for line in told.out.splitlines()) == 1
    everything = told.out + told.err + caplog.text
    assert "secret" not in everything
    assert "echo:" not in everything
    assert gateway.api_key not in everything
    assert "submitted as batch job" in caplog.text


def test_one_thing_is_told_in_the_singular(gateway: StandIn) -> None:
    told: list[str] = []
    gateway.behaviour.counts = "real"
    with llm.set_options(progress=lambda p: told.append(p.message)):
        ask(DF.iloc[:1])
        gateway.behaviour.terminal = "failed"
        with pytest.raises(BatchJobFailedError) as caught:
            ask(DF.iloc[1:2])
    assert sum(text.startswith("uploading 1 request (") for text in told) == 2
    assert any(text.endswith("completed: 1 answer") for text in told)
    assert str(caught.value).startswith("1 batch job with 1 request failed without an answer. ")


def test_a_hook_gets_frozen_records(gateway: StandIn) -> None:
    told: list[llm.Progress] = []
    with llm.set_options(progress=told.append):
        ask()
    assert {p.phase for p in told} >= {"note", "uploading", "submitting", "waiting", "reading"}
    with pytest.raises(AttributeError):
        told[0].message = "changed"  # type: ignore[misc]


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
        "The reasons stand in response_error."
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
    ids=str,
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


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("counts", ["real", "null", "absent"])
@pytest.mark.parametrize("short", ["empty", "cut", "rows", "fake_row", "reset"])
def test_a_short_output_is_read_again_and_nothing_is_paid_again(
    gateway: StandIn, clock: FakeClock, short: Any, counts: Any, stored: bool
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.counts, b.content_fails = short, 3, counts, 0 if stored else -1
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1
    assert sum(clock.slept) < 60


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_steps_look_at_damaged_texts_as_often_as_a_call_that_waits(
    gateway: StandIn, clock: FakeClock, reads: int
) -> None:
    b = gateway.behaviour
    b.damage, b.content_fails = rows.damaged(reads), -1
    frame = pd.DataFrame({"x": ["é", "東"]})
    for _ in range(6):
        out = ask(frame, wait=False)
        clock.sleep(3600)
    assert out["response"].tolist() == [answer("Say é"), answer("Say 東")]
    assert len(gateway.jobs) == 1


def test_a_further_look_that_fails_loses_nothing_of_the_first(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.validating_polls = b.running_polls = 0
    b.content_fails = -1
    b.damage = lambda custom_id, read: custom_id == gateway.jobs[0].custom_ids[1]
    frame = pd.DataFrame({"x": ["a", "東"]})
    for _ in range(2):  # until the first look
        out = ask(frame, wait=False, retries=0)
    assert out["response_status"].tolist() == ["ok", "pending"]
    clock.sleep(3600)
    gateway.script.add("output", status=503, times=-1, after=1)
    out = ask(frame, wait=False, retries=0)
    assert out["response_status"].tolist() == ["ok", "damaged"]
    assert out["response"].iloc[0] == answer("Say a")


@pytest.mark.parametrize("short", ["empty", "rows"])
@pytest.mark.parametrize("told", [0, 2])
def test_a_count_that_is_too_low_hides_no_row(
    gateway: StandIn, clock: FakeClock, short: Any, told: int
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads = short, 1
    b.counts = lambda job: {"total": told, "completed": str(told), "failed": None}
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("page", ["json", "html"])
@pytest.mark.parametrize("short", ["empty", "rows", "cut", "reset"])
def test_a_page_in_place_of_the_stored_file_does_not_end_the_reading(
    gateway: StandIn, clock: FakeClock, short: Any, page: str
) -> None:
    """A login page with HTTP 200 is longer than a small output; it proves nothing."""
    b = gateway.behaviour
    b.short, b.short_reads = short, 2
    gateway.script.add("file", status=500, times=-1)
    gateway.script.add("content", status=200, body=page, times=2)
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_a_size_that_is_not_told_does_not_end_the_reading(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads = "rows", 2
    gateway.script.add("file", status=500, times=-1)
    gateway.script.add("content", status=500, times=-1)
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_a_better_row_behind_a_cut_is_looked_for(gateway: StandIn, clock: FakeClock) -> None:
    """The gateway writes a failed row first and the good one at the end; the stream breaks."""

    def twice(custom_id: str, body: rows.Body) -> list[bytes]:
        refused = rows.failed(400, "no")(custom_id, body)
        return [*refused, *rows.good(custom_id, body)]

    b = gateway.behaviour
    b.row, b.short, b.short_reads, b.content_fails = twice, "reset", 1, -1
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("status", [302, 400, 404, 409, 425, 429, 502, 507, 520, 524])
def test_an_output_that_cannot_be_had_for_long_is_not_paid_again(
    gateway: StandIn, clock: FakeClock, status: int
) -> None:
    gateway.behaviour.content_fails = -1
    gateway.script.add("output", status=status, times=60)
    for _ in range(70):
        try:
            out = ask(timeout=1000)
            break
        except (GatewayError, RunTimeoutError):
            continue
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("content_fails", [0, -1])
def test_damage_is_repaired_also_where_the_prompt_has_such_characters(
    gateway: StandIn, clock: FakeClock, content_fails: int
) -> None:
    frame = DF.assign(x=[f"\ufffd {x} \u4e2d" for x in DF["x"]])
    right = [answer(f"Say {x}") for x in frame["x"]]
    gateway.behaviour.damage = rows.damaged(1)
    gateway.behaviour.content_fails = content_fails
    out = ask(frame)
    assert out["response_status"].tolist() == ["ok"] * 4
    if not content_fails:
        assert out["response"].tolist() == right
    assert len(gateway.jobs) == 1


def test_an_output_that_stays_short_is_given_up_after_the_settling_time(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows", 1000, -1
    with llm.set_options(output_settle_s=600):
        out = ask(retries=0)
    assert out["response_status"].tolist() == ["ok", "ok", "missing", "missing"]
    assert 600 <= sum(clock.slept) < 700
    b.short_reads = gateway.jobs[0].behaviour.short_reads = 0
    assert ask(retries=1)["response"].tolist() == RIGHT  # read again, not paid again
    assert len(gateway.jobs) == 1


NEVER_WHOLE = [
    ("rows", "real", ["ok", "ok", "missing", "missing"]),
    ("reset", "null", ["ok", "missing", "missing", "missing"]),
    ("empty", "real", ["missing"] * 4),
    ("empty", "null", ["missing"] * 4),
    ("fake_row", "real", ["missing"] * 4),
]


@pytest.mark.parametrize(("short", "counts", "status"), NEVER_WHOLE)
def test_what_the_job_counts_and_no_file_holds_is_paid_again_by_retry_alone(
    gateway: StandIn, clock: FakeClock, short: Any, counts: Any, status: list[str]
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.counts, b.content_fails = short, 1000, counts, -1
    out = ask(retries=3)
    lacking = [x for x, s in zip("abcd", status, strict=True) if s == "missing"]
    assert out["response_status"].tolist() == status
    assert out["response_error"].dropna().str.contains("only a retry pays again").all()
    waited, reads = sum(clock.slept), gateway.count("output")
    pd.testing.assert_frame_equal(ask(retries=3), out)  # reads it once more, and waits for nothing
    assert gateway.count("output") == reads + 1
    assert sum(clock.slept) == waited
    assert len(gateway.jobs) == 1
    b.short_reads = 0
    run = submit(retries=3)
    run.retry().wait()
    assert sent(gateway)[1:] == [[f"Say {x}" for x in lacking]]
    assert run.counts() == {"ok": 4}
    assert ask()["response"].tolist() == RIGHT


def test_a_sidecar_alone_pays_again_for_what_no_file_holds_by_retry_alone(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows", 1000, -1
    ask(sidecar="s")
    run = StoredRun("s", retries=3, clock=clock)
    run.wait()
    assert run.counts() == {"ok": 2, "missing": 2}
    assert len(gateway.jobs) == 1
    b.short_reads = 0
    run.retry()
    run.wait()
    assert run.counts() == {"ok": 4}
    assert sent(gateway)[1:] == [["Say c", "Say d"]]


def test_a_trial_and_a_request_file_leave_out_what_may_be_paid_for(
    gateway: StandIn, clock: FakeClock, tmp_path: Path
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows", 1000, -1
    ask()
    DF.llm.trial("Say {{ x }}", model=MODEL)
    assert not gateway.chats
    assert not DF.llm.to_jsonl(tmp_path / "in.jsonl", "Say {{ x }}", model=MODEL)


def test_a_stored_file_that_is_older_than_the_job_is_read_again(
    gateway: StandIn, clock: FakeClock
) -> None:
    """Both ways show the same object, which is whole by its size and lacks half of the rows."""
    full: dict[str, Any] = {}

    def older(n: int, method: str, path: str) -> None:
        if not path.endswith("/output"):
            return
        job = gateway.jobs[0]
        full.setdefault("file", (list(job.lines), job.raw))
        lines, raw = full["file"]
        if gateway.count("output") <= 2:
            lines, raw = lines[:2], b"".join(raw.splitlines(keepends=True)[:2])
        job.lines, job.raw = lines, raw

    gateway.on_request = older
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_no_prompt_is_kept_with_the_answers_where_the_stored_file_is_read(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads = "rows", 1000
    with llm.set_options(keep_prompts=False):
        out = ask(pd.DataFrame({"x": ["my secret", "my other secret"]}))
    assert out["response_status"].tolist() == ["ok", "ok"]
    kept = llm.open_sidecar("llm_sidecar").answers(raw=True)
    assert any(b"requestId" in raw for raw in kept["raw"])
    for raw, text in zip(kept["raw"], kept["text"], strict=True):
        assert b"Say my" not in raw.replace(text.encode(), b"")


@pytest.mark.parametrize("page", ["json", "html"])
def test_a_stored_file_of_another_type_is_refused_unread(gateway: StandIn, page: str) -> None:
    gateway.script.add("content", status=200, body=page)
    connection = llm.Gateway(**gateway.settings).connect()
    try:
        with pytest.raises(GatewayError, match=f"it came as [a-z]+/{page}"):
            next(connection.content("file"))
    finally:
        connection.close()


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


# --- failed, cancelled and odd jobs -----------------------------------------------------------
@pytest.mark.parametrize("call", ["poll", "output"])
def test_a_job_that_nobody_knows_any_more_does_not_keep_the_others(
    gateway: StandIn, clock: FakeClock, call: str
) -> None:
    gateway.behaviour.content_fails = -1
    with llm.set_options(max_requests_per_file=1):
        run = submit()
        first = llm.open_sidecar("llm_sidecar").jobs()["batch_id"][0]
        path = f"GET /v1/batches/{first}" + ("/output" if call == "output" else "")
        gateway.script.add(path, status=404, times=-1)
        for _ in range(2):
            with pytest.raises(GatewayError, match=f"{first}.*404"):
                run.wait()
            assert run.counts() == {"ok": 3, "pending": 1}
        with pytest.raises(GatewayError, match="404"):
            ask(wait=False)
    assert len(gateway.jobs) == 4


def test_the_next_wait_of_a_run_submits_anew_what_failed_as_a_whole(gateway: StandIn) -> None:
    gateway.behaviour.terminal = "failed"
    run = submit()
    for jobs in (1, 2):
        with pytest.raises(BatchJobFailedError):
            run.wait()
        assert len(gateway.jobs) == jobs
    gateway.behaviour.terminal = "completed"
    assert run.wait().counts() == {"ok": 4}


@pytest.mark.parametrize("status", [404, 403, 500])
def test_the_stored_file_stands_in_for_an_output_that_cannot_be_had(
    gateway: StandIn, clock: FakeClock, status: int
) -> None:
    gateway.script.add("output", status=404, times=-1)
    assert ask()["response"].tolist() == RIGHT
    gateway.script.add("content", status=status, times=-1)
    with pytest.raises(GatewayError, match="404"):
        ask(DF.assign(x=list("efgh")))
    assert len(gateway.jobs) == 2


def test_steps_without_waiting_tell_of_a_failed_job_also_while_others_run(
    gateway: StandIn, clock: FakeClock
) -> None:
    """A call that takes one step never sees the end of all jobs."""
    with llm.set_options(max_requests_per_file=2):
        submit()
        gateway.jobs[0].behaviour.terminal = "failed"
        gateway.jobs[1].behaviour.running_polls = -1
        with pytest.raises(BatchJobFailedError):
            [ask(wait=False) for _ in range(5)]
    assert len(gateway.jobs) == 2


def test_a_failed_job_raises_and_the_next_call_submits_anew(gateway: StandIn) -> None:
    gateway.behaviour.terminal = "failed"
    for on_error in ("keep", "raise"):
        before = len(gateway.jobs)
        with pytest.raises(BatchJobFailedError, match="Failed to import data") as caught:
            ask(on_error=on_error, retries=3)
        assert len(gateway.jobs) == before + 1
        assert list(caught.value.jobs) == [gateway.jobs[-1].id]
        assert "The next call submits these rows anew" in str(caught.value)
    run = caught.value.run
    assert run is not None
    assert run.counts() == {"missing": 4}
    assert run.failures()["error"].str.contains("Failed to import data").all()
    gateway.behaviour.terminal = "completed"
    assert ask(retries=0)["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 3


def test_a_failed_job_waits_for_the_others(gateway: StandIn) -> None:
    def jobs_ends(n: int, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/batches"):
            gateway.behaviour.terminal = "failed" if not gateway.jobs else "completed"

    gateway.on_request = jobs_ends
    with llm.set_options(max_requests_per_file=2), pytest.raises(BatchJobFailedError) as caught:
        ask()
    run = caught.value.run
    assert run is not None
    assert run.counts() == {"missing": 2, "ok": 2}
    assert run.result()["response"].tolist() == [pd.NA, pd.NA, *RIGHT[2:]]


@pytest.mark.parametrize("terminal", ["failed", "expired", "cancelled"])
def test_partial_output_is_kept_and_only_the_rest_is_sent(gateway: StandIn, terminal: str) -> None:
    gateway.behaviour.terminal, gateway.behaviour.partial_pct = terminal, 50
    out = ask(retries=0)
    assert out["response"].tolist() == [*RIGHT[:2], pd.NA, pd.NA]
    assert out["response_status"].tolist() == ["ok", "ok", "missing", "missing"]
    assert out["response_error"].str.contains(terminal).tolist()[2:] == [True, True]
    gateway.behaviour.terminal = "completed"
    gateway.behaviour.partial_pct = None
    assert ask(retries=1)["response"].tolist() == RIGHT
    assert sent(gateway)[1:] == [["Say c", "Say d"]]


def test_cancel_tries_every_job(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = -1
    with llm.set_options(max_requests_per_file=1):
        run = submit()
        run.poll()
        gateway.script.add("cancel", status=500)
        with pytest.raises(GatewayError):
            run.cancel()
    assert gateway.count("cancel") == 4


def test_a_job_that_counts_nothing_is_read_again_before_it_is_paid_again(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.counts = lambda job: {"total": 0, "completed": 0, "failed": 0}
    b.short, b.short_reads, b.content_fails = "empty", 1, -1
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_a_cancelled_job_is_read_once_more_only_for_what_it_had(gateway: StandIn) -> None:
    """Its rows without an answer are sent by the very call that reads it again."""
    gateway.behaviour.running_polls, gateway.behaviour.cancel_pct = -1, 50
    run = submit()
    run.poll()
    run.cancel()
    run.wait()
    assert run.counts() == {"ok": 2, "missing": 2}
    for path in Path("llm_sidecar/answers").glob("*.parquet"):
        path.unlink()
    gateway.behaviour.running_polls = 0
    assert ask()["response"].tolist() == RIGHT
    assert [len(job.requests) for job in gateway.jobs] == [4, 2]


def test_a_job_that_had_nothing_is_not_read_again(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = -1
    run = submit()
    run.poll()
    run.cancel()
    run.wait()
    read = gateway.count("output")
    gateway.behaviour.running_polls = 0
    assert ask()["response"].tolist() == RIGHT
    assert (gateway.count("output"), gateway.count("content")) == (read, 1)


def test_cancel_then_the_same_call_sends_what_is_left(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = -1
    gateway.behaviour.cancel_pct = 50
    run = submit()
    run.poll()
    assert run.cancel() == [gateway.jobs[0].id]
    run.wait()
    assert run.status["status"].tolist() == ["cancelled"]
    assert run.counts() == {"ok": 2, "missing": 2}
    assert len(gateway.jobs) == 1  # what the user stopped is not sent again by itself
    gateway.behaviour.running_polls = 1
    assert ask(retries=0)["response"].tolist() == RIGHT
    assert sent(gateway)[1:] == [["Say c", "Say d"]]


def test_what_cancel_takes_back_is_not_sent_by_the_wait_that_follows(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = -1
    gateway.script.add("create", status=429, times=-1, after=1)
    with llm.set_options(max_requests_per_file=1):
        run = submit()
    assert run.status["step"].tolist() == ["live", "uploaded", "uploaded", "uploaded"]
    run.cancel()
    gateway.script.clear()
    run.wait()
    assert [job.status for job in gateway.jobs] == ["cancelled"]
    assert run.status["step"].tolist() == ["done", "withdrawn", "withdrawn", "withdrawn"]
    gateway.behaviour.running_polls = 0
    # A new call is a new wish, and what was never made was no attempt.
    assert ask(retries=0)["response"].tolist() == RIGHT


def test_a_call_that_waits_does_not_send_again_what_somebody_else_cancels(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.behaviour.running_polls = -1
    gateway.script.add("create", status=429, times=-1, after=1)

    def cancel(progress: llm.Progress) -> None:
        if progress.phase == "waiting" and gateway.jobs[0].status == "in_progress":
            gateway.script.clear()
            with llm.set_options(progress=False):
                StoredRun("llm_sidecar").cancel()

    with llm.set_options(max_requests_per_file=2, progress=cancel):
        out = ask()
    assert [len(job.requests) for job in gateway.jobs] == [2]
    assert out["response_status"].tolist() == ["missing"] * 4
    told = ["without an answer"] * 2 + ["cancelled before it was submitted"] * 2
    assert all(map(operator.contains, out["response_error"], told))


def test_a_call_that_others_cancel_before_anything_was_made_says_so(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("create", status=429, times=-1)

    def cancel(progress: llm.Progress) -> None:
        if progress.phase == "waiting":
            with llm.set_options(progress=False):
                StoredRun("llm_sidecar").cancel()

    with llm.set_options(progress=cancel), pytest.raises(PartialResultError) as caught:
        ask(on_error="raise")
    assert caught.value.counts == {"missing": 4}
    assert "cancelled before it was submitted" in str(caught.value)
    gateway.script.clear()
    assert ask()["response"].tolist() == RIGHT


def test_what_was_cancelled_and_asked_anew_is_pending_whoever_took_it_back(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("create", status=429, times=-1)
    submit().cancel()
    clock.sleep(1)
    run = submit()
    clock.sleep(1)
    gateway.script.clear()
    ask(frame=DF.iloc[:1])
    assert run.counts() == {"ok": 1, "pending": 3}
    for _ in range(5):
        run.poll()
    assert run.counts() == {"ok": 4}


def one_that_failed(gateway: StandIn) -> llm.Run:
    gateway.behaviour.terminal = "failed"
    run = submit()
    with pytest.raises(BatchJobFailedError):
        run.wait()
    return run


def test_a_wait_sends_again_what_failed_before_also_while_another_thread_polls(
    gateway: StandIn, clock: FakeClock
) -> None:
    run = one_that_failed(gateway)
    gateway.behaviour.terminal = "completed"
    with driven.by(run.name):  # as in a poll of another thread
        assert run.wait().counts() == {"ok": 4}
    assert len(gateway.jobs) == 2


def test_a_poll_beside_a_wait_does_not_let_it_send_again_what_failed(
    gateway: StandIn, clock: FakeClock
) -> None:
    run = one_that_failed(gateway)
    with driven.by(run.name), pytest.raises(BatchJobFailedError):  # as in a wait elsewhere
        run.poll()
    run.poll()  # alone: it was told
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("elsewhere", [True, False])
def test_an_error_leaves_a_plan_to_others_unless_another_thread_drives_it(
    gateway: StandIn, clock: FakeClock, elsewhere: bool
) -> None:
    gateway.script.add("create", status=429, times=-1)
    run = submit()
    gateway.script.clear()
    gateway.script.add("create", status=401, times=-1)
    with (
        driven.by(run.name) if elsewhere else contextlib.nullcontext(),
        pytest.raises(AuthenticationError),
    ):
        run.poll()
    [job] = Sidecar(run.sidecar, clock).jobs().values()
    assert bool(job.owner) is elsewhere


def test_a_poll_sends_nothing_of_what_was_cancelled_or_cared_for_by_others(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("create", status=429, times=-1)
    cancelled = submit()
    cancelled.cancel()
    assert not cancelled._planner.lost_its_plan()
    clock.sleep(1)
    run = submit(retries=5)
    clock.sleep(1)
    gateway.script.clear()
    ask(frame=DF.iloc[:1])
    assert run._planner.lost_its_plan()
    gateway.behaviour.row = rows.missing
    ask(retries=0)
    for _ in range(6):  # also time enough to read its output again
        run.poll()
        clock.sleep(3600)
    assert [len(job.requests) for job in gateway.jobs] == [1, 3]


def test_a_poll_plans_again_what_another_cell_took_back_and_left(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("create", status=429, times=-1)
    run = submit()
    gateway.script.clear()
    ask(frame=DF.iloc[:1])
    assert sorted(run.status["step"]) == ["done", "withdrawn"]
    for _ in range(5):
        run.poll()
    assert run.counts() == {"ok": 4}
    assert run.result()["response"].tolist() == RIGHT
    assert [len(job.requests) for job in gateway.jobs] == [1, 3]


@pytest.mark.parametrize("made", [True, False])
def test_cancel_also_stops_a_submit_of_which_nobody_knows_yet(gateway: StandIn, made: bool) -> None:
    gateway.script.add("create", "lose" if made else "reset")
    run = submit()
    assert run.status["step"].tolist() == ["creating"]
    assert run.cancel() == []
    run.wait()
    assert [job.status for job in gateway.jobs] == ["cancelled"] * made
    assert run.status["step"].tolist() == ["done" if made else "withdrawn"]
    assert gateway.count("create") == 1


def test_a_stopped_submit_that_the_user_sends_again_runs_to_its_end(gateway: StandIn) -> None:
    gateway.script.add("create", "reset")
    run = submit()
    run.cancel()
    run.resolve(resubmit=True)
    run.wait()
    assert run.result()["response"].tolist() == RIGHT
    assert [job.status for job in gateway.jobs] == ["completed"]


def test_a_job_that_is_being_cancelled_is_left_in_peace(gateway: StandIn) -> None:
    gateway.behaviour.running_polls, gateway.behaviour.cancelling_polls = -1, 4
    run = submit()
    run.cancel()
    run.wait()
    assert gateway.count("cancel") == 1


def test_a_cancel_that_was_not_heard_is_asked_for_again(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = -1
    run = submit()
    gateway.script.add("cancel", status=500)
    with pytest.raises(GatewayError):
        run.cancel()
    run.wait()
    assert [job.status for job in gateway.jobs] == ["cancelled"]


def test_a_job_that_cannot_be_cancelled_is_waited_for_all_the_same(gateway: StandIn) -> None:
    gateway.script.add("cancel", status=404, times=-1)
    told: list[llm.Progress] = []
    with llm.set_options(progress=told.append):
        run = submit()
        with pytest.raises(GatewayError, match="404"):
            run.cancel()
        run.wait()
    assert run.result()["response"].tolist() == RIGHT
    assert any("404" in p.trouble for p in told if p.phase == "waiting")


# --- within the limit -------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["expired", "rows fail"])
def test_max_cost_holds_for_another_attempt_of_what_is_under_way(
    gateway: StandIn, how: str
) -> None:
    if how == "expired":
        gateway.behaviour.terminal = "expired"
    else:
        gateway.behaviour.row = rows.failed(503)
    submit()
    with pytest.raises(BudgetError, match=r"Nothing more was sent; every answer is kept\."):
        ask(max_cost=0.0)
    assert len(gateway.jobs) == 1
    ask(max_cost=0.0, retries=0)
    assert len(gateway.jobs) == 1


def test_max_cost_counts_an_uncertain_submit(gateway: StandIn) -> None:
    gateway.script.add("create", "reset")
    submit()
    with pytest.raises(BudgetError, match=r"Nothing was sent\."):
        ask(max_cost=0.0)
    assert gateway.jobs == []


def planned_elsewhere(gateway: StandIn, frame: pd.DataFrame) -> None:
    """Leave a planned job behind, of a process that nobody here can know to be dead."""
    gateway.script.add("upload", status=503, times=-1)
    submit(frame)
    gateway.script.clear()
    sidecar = Sidecar(Path("llm_sidecar"), SystemClock())
    (job,) = sidecar.jobs().values()
    assert job.step == "planned"
    sidecar.save_job(msgspec.structs.replace(job, owner="node17/boot/7/1"))


def test_max_cost_counts_what_is_sent_along(gateway: StandIn) -> None:
    many = pd.DataFrame({"x": [f"text {i}" for i in range(50)]})
    planned_elsewhere(gateway, many)
    few = many.head(2)
    alone = few.llm.estimate("Say {{ x }}", model=MODEL, max_tokens=100, sidecar="other")
    assert alone.usd_batch is not None
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        with pytest.raises(BudgetError, match="counts 50 requests"):
            ask(few, max_cost=2 * alone.usd_batch.high)
        assert gateway.jobs == []
        ask(few)
    assert any("sent along: 48 requests of an earlier call" in line for line in told)
    assert [len(job.requests) for job in gateway.jobs] == [50]


@pytest.mark.parametrize("how", ["interrupt", "error"])
def test_what_an_interrupted_call_planned_is_not_sent_by_one_that_wants_less(
    gateway: StandIn, clock: FakeClock, how: str
) -> None:
    """The kernel of the interrupted call lives: its notebook is still open."""

    def interrupt(progress: llm.Progress) -> None:
        if progress.phase == "uploading" and how == "interrupt":
            raise KeyboardInterrupt

    if how == "error":
        gateway.script.add("upload", status=401)
    stopped = pytest.raises((KeyboardInterrupt, AuthenticationError))
    with llm.set_options(progress=interrupt), stopped:
        ask()
    # From here on as another process sees it.
    clock.process = "another/b/1/1"
    assert ask(DF.head(1))["response"].tolist() == RIGHT[:1]
    assert [len(job.requests) for job in gateway.jobs] == [1]


def test_what_is_taken_back_does_not_count_for_max_cost(gateway: StandIn) -> None:
    planned_elsewhere(gateway, DF)
    sidecar = Sidecar(Path("llm_sidecar"), SystemClock())
    (job,) = sidecar.jobs().values()
    sidecar.save_job(msgspec.structs.replace(job, owner=""))
    few = DF.head(1)
    alone = few.llm.estimate("Say {{ x }}", model=MODEL, sidecar="other")
    assert alone.usd_batch is not None
    assert ask(few, max_cost=alone.usd_batch.high)["response"].tolist() == RIGHT[:1]
    assert [len(job.requests) for job in gateway.jobs] == [1]


def test_an_interrupt_waits_for_nobody(gateway: StandIn, clock: FakeClock) -> None:
    gateway.script.add("upload", status=503, times=-1)
    with contextlib.ExitStack() as somebody:

        def interrupt(progress: llm.Progress) -> None:
            if progress.phase == "waiting":
                clock.slept.clear()
                lock = SidecarLock(Path("llm_sidecar").absolute(), SystemClock())
                somebody.enter_context(lock.held())
                raise KeyboardInterrupt

        with llm.set_options(progress=interrupt), pytest.raises(KeyboardInterrupt):
            ask()
        assert sum(clock.slept) < 1


def test_an_upload_is_not_repeated_when_the_time_is_over(gateway: StandIn) -> None:
    gateway.script.add("upload", status=503, times=-1)
    with pytest.raises(RunTimeoutError):
        ask(timeout=0)
    assert gateway.count("upload") == 1


def test_an_unknown_status_is_shown_by_name_and_still_running(gateway: StandIn) -> None:
    gateway.behaviour.terminal = "defrosting"
    told: list[llm.Progress] = []
    with llm.set_options(progress=told.append), pytest.raises(RunTimeoutError, match="defrosting"):
        ask(timeout=3600)
    assert any("defrosting" in p.message for p in told if p.phase == "waiting")
    assert any(p.jobs == {"defrosting": 1} for p in told)
    assert len(gateway.jobs) == 1


def test_a_job_that_does_not_move_says_so(gateway: StandIn) -> None:
    gateway.behaviour.validating_polls = -1
    told: list[str] = []
    with (
        llm.set_options(progress=lambda p: told.append(p.message)),
        pytest.raises(RunTimeoutError),
    ):
        ask(timeout=4 * 3600)
    assert any("no progress for 3 h" in message for message in told)


# --- a gateway in trouble ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "status"),
    [
        *[(call, 401) for call in ("upload", "list", "create", "poll", "output")],
        # A key that may submit but not list goes ahead without a list.
        *[(call, 403) for call in ("upload", "create", "poll", "output")],
    ],
)
def test_a_refused_key_ends_at_once_and_keeps_the_state(
    gateway: StandIn, clock: FakeClock, call: str, status: int
) -> None:
    gateway.script.add(call, status=status, body="json")
    if call == "output":
        gateway.script.add("content", status=status, body="json")
    with pytest.raises(AuthenticationError, match=f"{status}") as caught:
        ask()
    assert caught.value.status_code == status
    assert gateway.api_key not in str(caught.value)
    assert sum(clock.slept) < 60
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_an_unknown_model_is_named_and_nothing_is_paid(gateway: StandIn) -> None:
    with pytest.raises(GatewayError, match="'gemini-missing'") as caught:
        ask(model="gemini-missing")
    assert caught.value.status_code == 404
    assert "gemini-missing does not exist. Nothing was submitted" in str(caught.value)
    assert gateway.jobs == []
    assert ask()["response"].tolist() == RIGHT


@pytest.mark.parametrize("body", ["html", "json", "empty"])
@pytest.mark.parametrize("call", ["upload", "list", "create", "poll", "output"])
def test_a_foreign_answer_with_200_is_no_answer(gateway: StandIn, call: str, body: str) -> None:
    gateway.script.add(call, status=200, body=body, times=2)
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("call", ["upload", "list", "create", "poll", "output"])
def test_trouble_that_passes_is_waited_out(gateway: StandIn, call: str, status: int) -> None:
    gateway.script.add(call, status=status, times=4)
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("mode", ["reset", "lose"])
@pytest.mark.parametrize("call", ["upload", "list", "create", "poll", "output"])
def test_a_lost_connection_makes_no_second_job(gateway: StandIn, call: str, mode: Any) -> None:
    gateway.script.add(call, mode)
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("foreign", [0, 50, 150])
def test_a_job_counts_as_never_made_only_when_the_list_reaches_back_far_enough(
    gateway: StandIn, foreign: int
) -> None:
    gateway.add_foreign(200)
    gateway.script.add("create", "reset", hook=lambda: gateway.add_foreign(foreign))
    if foreign <= 100:
        assert ask()["response"].tolist() == RIGHT
        assert len(gateway.jobs) == 1
        return
    # The list shows a hundred jobs, all newer than the last one that was seen before.
    with pytest.raises(UncertainSubmissionError, match="reach back"):
        ask()
    with pytest.raises(UncertainSubmissionError) as caught:
        ask(DF.assign(x="other " + DF["x"]))  # nothing else is submitted before it is settled
    assert gateway.jobs == []
    assert caught.value.run is not None
    caught.value.run.resolve(resubmit=True)
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_retry_after_is_honoured(gateway: StandIn, clock: FakeClock) -> None:
    gateway.script.add("poll", status=429, retry_after=1234)
    ask()
    assert any(s >= 1234 for s in clock.slept)


@pytest.mark.parametrize("when", ["at first", "while it runs"])
def test_a_dead_gateway_is_waited_for(gateway: StandIn, clock: FakeClock, when: str) -> None:
    told: list[str] = []

    def power(n: int) -> None:
        if n == 3 and when == "while it runs":
            gateway.stop()
        if n == 12:
            gateway.start()

    gateway.behaviour.running_polls = 8
    clock.on_sleep = power
    if when == "at first":
        gateway.stop()
    with llm.set_options(progress=lambda p: told.append(p.message)):
        out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1
    assert any("trouble: " in message for message in told)


def test_a_gateway_that_is_dead_for_hours_ends_in_the_timeout(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.stop()
    with pytest.raises(RunTimeoutError, match="is over and nothing was submitted yet"):
        ask(timeout=8 * 3600)
    gateway.start()
    assert ask()["response"].tolist() == RIGHT


@pytest.mark.parametrize("how", ["submit", "one step"])
def test_a_single_step_says_when_the_gateway_kept_it_from_going_on(
    gateway: StandIn, how: str
) -> None:
    gateway.stop()
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        if how == "submit":
            assert submit().status["step"].tolist() == ["planned"]
        else:
            assert ask(wait=False)["response_status"].tolist() == ["pending"] * 4
    said = f"trouble: Uploading the request file: no answer from {gateway.base_url}"
    assert told[-1].startswith(said)
    gateway.start()
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize(("status", "made"), [(500, 1), (503, 0)])
def test_a_list_that_never_works_is_done_without(
    gateway: StandIn, clock: FakeClock, status: int, made: int
) -> None:
    """Somebody's job of another kind in the same project makes the gateway answer 500."""
    gateway.script.add("list", status=status, times=-1)
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        if made:
            assert ask(timeout=3600)["response"].tolist() == RIGHT
        else:
            with pytest.raises(RunTimeoutError):
                ask(timeout=3600)
    assert any("going on without the job list" in text for text in told) == bool(made)
    assert len(gateway.jobs) == made
    assert sum(clock.slept) >= 600


def test_an_uncertain_submit_waits_for_a_list_that_may_work_again(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("create", "lose")
    gateway.script.add("list", status=500, times=-1, after=1)
    with pytest.raises(RunTimeoutError):
        ask(timeout=400)  # longer than a submit takes to settle
    gateway.script.clear()
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_steps_do_without_a_list_that_never_works(gateway: StandIn, clock: FakeClock) -> None:
    gateway.script.add("list", status=500, times=-1)
    run = submit()
    clock.sleep(400)
    run.poll()
    assert not gateway.jobs
    clock.sleep(400)
    ask(wait=False)  # another call, as another process would make it
    assert len(gateway.jobs) == 1
    gateway.script.clear()
    assert run.wait().counts() == {"ok": 4}


@pytest.mark.parametrize("between", [503, None])
def test_a_list_in_other_trouble_is_waited_for(
    gateway: StandIn, clock: FakeClock, between: int | None
) -> None:
    """Only ten minutes of nothing but 500 count, and not those before it worked."""
    gateway.script.add("list", status=500, times=1)
    run = submit()
    clock.sleep(500)
    gateway.script.clear()
    if between is None:
        gateway.script.add("create", status=429, times=1)
    else:
        gateway.script.add("list", status=between, times=-1)
    run.poll()
    clock.sleep(500)
    gateway.script.clear()
    gateway.script.add("list", status=500, times=-1)
    run.poll()
    assert not gateway.jobs
    clock.sleep(500)
    run.poll()
    assert not gateway.jobs
    clock.sleep(500)
    run.poll()
    assert len(gateway.jobs) == 1


def test_an_uncertain_submit_without_a_list_asks_its_user(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("list", status=500, times=-1)
    gateway.script.add("create", "lose")
    with pytest.raises(UncertainSubmissionError) as caught:
        ask(timeout=7200)
    assert len(gateway.jobs) == 1
    caught.value.run.resolve(adopt=gateway.jobs[0].id)
    assert caught.value.run.wait().counts() == {"ok": 4}
    assert len(gateway.jobs) == 1


FAULTS: list[Callable[[StandIn], object]] = [
    lambda g: g.script.add("poll", status=200, body="html", times=-1),
    lambda g: g.script.add("poll", status=418, times=-1),
    lambda g: g.script.add("create", status=200, body="html", times=-1),
    lambda g: g.script.add("create", status=409, times=-1),
    lambda g: g.script.add("upload", status=413, times=-1),
    lambda g: g.script.add("upload", status=200, body="json", times=-1),
    lambda g: g.script.add("list", status=500, times=-1),
    lambda g: g.script.add("output", status=404, times=-1),
    lambda g: g.script.add("output", "reset", times=-1),
    lambda g: g.script.add("output", status=200, body="html", times=-1),
    lambda g: setattr(g.behaviour, "counts", lambda job: "nonsense"),
    lambda g: setattr(g.behaviour, "counts", lambda job: {"total": "x", "completed": [1]}),
    lambda g: setattr(g.behaviour, "error", {"code": "x", "message": None}),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_but_our_errors_escapes(gateway: StandIn, fault: Callable[..., object]) -> None:
    fault(gateway)
    with contextlib.suppress(LLMFramesError):
        ask(timeout=600)
    gateway.script.clear()
    gateway.behaviour = type(gateway.behaviour)()
    gateway.finish()
    assert len(gateway.jobs) <= 2
    out = ask(retries=1)
    found = dict(zip(out["response_status"], out["response"], strict=True))
    assert set(found) <= {"ok", "missing"}
    assert out["response"].dropna().tolist() == RIGHT[: out["response"].notna().sum()]


# --- what a run shows -------------------------------------------------------------------------
def test_submit_returns_at_once_and_a_run_shows_where_it_stands(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.behaviour.running_polls = -1
    run = submit()
    assert clock.slept == []
    assert gateway.count("create") == 1
    assert gateway.count("poll") == 0
    assert run.status["step"].tolist() == ["live"]
    assert run.status["batch_id"].tolist() == [gateway.jobs[0].id]
    assert run.poll() is run
    assert run.status["status"].tolist() == ["validating"]
    assert run.result()["response"].isna().all()
    gateway.finish()
    assert run.wait() is run
    assert run.status[["status", "requests", "answers"]].to_numpy().tolist() == [
        ["completed", 4, 4]
    ]
    assert run.result()["response"].tolist() == RIGHT
    assert run.usage == {"prompt_tokens": 4, "completion_tokens": 24, "reasoning_tokens": 0}
    assert "4 ok" in repr(run)
    assert gateway.api_key not in repr(run)
    found = run.provenance()
    assert found["model"] == MODEL
    assert found["batch_jobs"] == [gateway.jobs[0].id]
    ((submitted,), (ended,)) = found["submitted_at"], found["ended_at"]
    assert datetime.fromisoformat(submitted) <= datetime.fromisoformat(ended)
    assert found["counts"] == {"ok": 4}


def test_a_run_names_the_model_that_answered_where_it_is_another(gateway: StandIn) -> None:
    def another(custom_id: str, body: rows.Body) -> list[bytes]:
        return rows.good(custom_id, {**body, "model": "another-model-001"})

    gateway.behaviour.row = another
    run = submit()
    assert f"\n  model        {MODEL}\n" in repr(run)  # nobody has answered
    run.wait()
    assert f"asked {MODEL}, answered by another-model-001\n" in repr(run)
    assert f"asked {MODEL}, answered by another-model-001<" in run._repr_html_()
    assert run.provenance()["models_that_answered"] == ["another-model-001"]
    path = f"publishers/google/models/{MODEL}"  # another name of the same model

    def same(custom_id: str, body: rows.Body) -> list[bytes]:
        return rows.good(custom_id, {**body, "model": path})

    gateway.behaviour.row = same
    run = submit(DF.assign(x=DF["x"] * 2)).wait()
    assert f"\n  model        {MODEL}\n" in repr(run)


def test_two_runs_share_one_job(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = 3
    one, two = submit(), submit(DF.iloc[::-1])
    assert gateway.count("create") == 1
    two.wait()
    assert two.result()["response"].tolist() == RIGHT[::-1]
    assert one.result()["response"].tolist() == RIGHT


def test_overlapping_runs_send_each_request_once(gateway: StandIn) -> None:
    gateway.behaviour.running_polls = 3
    one = submit(DF.iloc[:3])
    two = submit(DF.iloc[1:])
    assert sent(gateway) == [["Say a", "Say b", "Say c"], ["Say d"]]
    assert two.wait().result()["response"].tolist() == RIGHT[1:]
    assert one.wait().result()["response"].tolist() == RIGHT[:3]
    assert len(gateway.jobs) == 2
