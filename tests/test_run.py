"""A run's life: what it sends, how it waits, interruptions, and what it shows."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import rows
from support.clock import FakeClock
from support.four_rows import DF, FAILING, MODEL, RIGHT, ask, sent, submit
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._gateway import connection
from nyu_llm_frames._jobs import sending
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.lock import SidecarLock
from nyu_llm_frames._stages.batches.wire import Busy
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    RunTimeoutError,
    SidecarError,
)


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
def test_nobody_there_is_told_from_no_answer(call: str) -> None:
    """So that a submit that never arrived is made again, and the embedded gateway started."""
    given: dict[str, tuple[Any, ...]] = {
        "list": (),
        "upload": (io.BytesIO(b"{}"), "name", "model"),
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


def test_a_step_collects_what_is_over_when_it_looks(gateway: StandIn, clock: FakeClock) -> None:
    gateway.behaviour.validating_polls = gateway.behaviour.running_polls = 0
    assert ask(wait=False)["response"].tolist() == RIGHT
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
    monkeypatch.setattr(connection, "SHORTEST_S", 0.2)
    monkeypatch.setattr(connection, "SHORTEST_UPLOAD_S", 0.2)
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
    df = pd.DataFrame({"x": ["a secret prompt", "another"]})
    with llm.set_options(progress=True):
        ask(df)
        ask(df)
    with llm.set_options(progress=False), caplog.at_level("DEBUG", "nyu_llm_frames"):
        df.llm.batch("Say {{ x }}", model="gemini-3-flash-preview", sidecar="logged.llm")
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


def test_a_wait_of_no_number_of_seconds_is_named(gateway: StandIn, clock: FakeClock) -> None:
    run: Any = submit()
    for seconds in ("5m", -1, True):
        with pytest.raises(ConfigurationError, match=f"timeout must be .* not {seconds!r}"):
            run.wait(seconds)


def test_a_sidecar_that_is_gone_is_no_new_one(gateway: StandIn, clock: FakeClock) -> None:
    """Nothing is planned anew, and nothing takes its place: the next call would pay again."""
    here, there = Path("llm_sidecar"), Path("elsewhere")
    run = submit()
    moved = itertools.count()
    gateway.on_handled = lambda *_: here.rename(there) if next(moved) == 0 else None
    with pytest.raises(SidecarError):  # in the middle of a step
        run.wait()
    actions: list[Callable[[], object]] = [run.wait, run.poll, run.retry, run.result, run.cancel]
    for action in actions:
        with pytest.raises(SidecarError, match="llm_sidecar is gone: moved, deleted"):
            action()
    assert not here.exists()
    there.rename(here)
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


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
    assert f"requested {MODEL}, answered by another-model-001\n" in repr(run)
    assert f"requested {MODEL}, answered by another-model-001<" in run._repr_html_()
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
