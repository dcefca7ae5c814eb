"""Jobs that failed, were cancelled, or that nobody knows any more."""

from __future__ import annotations

import contextlib
import operator
from pathlib import Path

import pandas as pd
import pytest
from support import rows
from support.clock import FakeClock
from support.four_rows import DF, RIGHT, ask, sent, submit
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._jobs.tracker import driven
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    GatewayError,
    PartialResultError,
    RunTimeoutError,
)


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
        assert "The next call submits these rows again" in str(caught.value)
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


def test_messages_name_the_first_few_of_many_jobs(gateway: StandIn, clock: FakeClock) -> None:
    gateway.behaviour.terminal, gateway.behaviour.running_polls = "failed", -1
    frame = pd.DataFrame({"x": range(12)})
    with llm.set_options(max_requests_per_file=1):
        with pytest.raises(RunTimeoutError, match="and 7 more") as late:
            ask(frame, timeout=60)
        gateway.finish()
        with pytest.raises(BatchJobFailedError, match=r"12 batch jobs .* and 7 more") as failed:
            ask(frame)
    ids = [job.id for job in gateway.jobs]
    assert sorted(failed.value.jobs) == ids
    for caught in (late, failed):
        assert sum(batch_id in str(caught.value) for batch_id in ids) == 5


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


@pytest.mark.parametrize("terminal", ["failed", "expired", "cancelled"])
def test_partial_output_that_cannot_be_read_is_not_paid_again(
    gateway: StandIn, terminal: str
) -> None:
    gateway.behaviour.terminal, gateway.behaviour.partial_pct = terminal, 50
    gateway.script.add("content", status=500, times=-1)
    gateway.script.add("output", status=500, times=-1)
    assert ask(retries=0)["response_status"].tolist() == ["missing"] * 4
    gateway.script.clear()
    gateway.behaviour.terminal, gateway.behaviour.partial_pct = "completed", None
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


@pytest.mark.parametrize("ended", [True, False])
def test_a_cancel_that_comes_twice_or_too_late_is_no_error(gateway: StandIn, ended: bool) -> None:
    gateway.behaviour.running_polls = -1
    run = submit()
    if ended:
        gateway.jobs[0].finish_now = True
        gateway.jobs[0].advance()
    for _ in range(2):
        assert run.cancel() == [gateway.jobs[0].id]
    run.wait()
    assert run.counts() == ({"ok": 4} if ended else {"missing": 4})
    assert len(gateway.jobs) == 1


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
