"""A gateway in trouble: refusals, foreign answers, lost connections, no list."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import FakeClock
from support.four_rows import DF, RIGHT, ask, submit
from support.stand_in import StandIn, outage

import nyu_llm_frames as llm
from nyu_llm_frames.errors import (
    AuthenticationError,
    GatewayError,
    LLMFramesError,
    RunTimeoutError,
    UncertainSubmissionError,
)


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


@pytest.mark.parametrize("call", ["list", "poll", "output"])
def test_a_page_in_place_of_an_answer_is_quoted(
    gateway: StandIn, clock: FakeClock, call: str
) -> None:
    gateway.behaviour.content_fails = -1
    gateway.script.add(call, status=200, body="html", times=-1)
    page = "200 Gateway Time-out"
    with pytest.raises(RunTimeoutError, match=rf"the response is not an? .*: {page} {page}\."):
        ask(timeout=600)


def test_an_output_that_is_refused_for_a_while_is_announced_once(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.behaviour.content_fails = -1
    gateway.script.add("output", status=503, times=9)
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        assert ask()["response"].tolist() == RIGHT
    assert sum(message.endswith("reading its output") for message in told) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("call", ["upload", "list", "create", "poll", "output"])
def test_trouble_that_passes_is_waited_out(gateway: StandIn, call: str, status: int) -> None:
    gateway.script.add(call, status=status, times=4)
    out = ask()
    assert out["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize(
    ("retry_after", "times", "pauses"),
    [
        (None, 1, [1]),
        (None, 2, [1, 2]),
        (3, 2, [3, 3]),
        (0, 1, [0]),
        (None, 3, None),
        (90, 1, None),
    ],
)
def test_an_upload_is_repeated_at_once_a_few_times(
    gateway: StandIn, clock: FakeClock, retry_after: Any, times: int, pauses: list[float] | None
) -> None:
    """Else a step that does not wait would leave its job to the next one."""
    gateway.script.add("upload", status=503, times=times, retry_after=retry_after)
    submit()
    if pauses is None:  # at the pace of polling
        assert not gateway.jobs
    else:
        assert clock.slept == pauses
        assert gateway.count("upload") == times + 1
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_an_upload_without_a_connection_is_not_repeated_at_once(
    gateway: StandIn, clock: FakeClock
) -> None:
    with outage(gateway):
        submit()
    assert not clock.slept
    assert ask()["response"].tolist() == RIGHT


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
    with pytest.raises(RunTimeoutError, match="expired and nothing was submitted yet"):
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
    last = [text for text in told if not text.startswith("so far: ")][-1]
    assert last.startswith(said)
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
    with pytest.raises(UncertainSubmissionError, match="list could not be read") as caught:
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
