"""A trial answers rows now, and the batch never pays for them again."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    GatewayError,
    RunTimeoutError,
)

MODEL = "gemini-3-flash-preview"
QUESTION = "Which drug is named in this offence? {{ offense }}"


@pytest.fixture
def frame() -> pd.DataFrame:
    texts = [f"possession of drug number {i}" + " and more" * (i % 7) for i in range(30)]
    return pd.DataFrame({"offense": texts})


@pytest.fixture(autouse=True)
def gateway(quick_gateway: StandIn) -> StandIn:
    return quick_gateway


def trial(frame: pd.DataFrame, n: int = 5, **options: Any) -> pd.DataFrame:
    out: pd.DataFrame = frame.llm.trial(QUESTION, model=MODEL, n=n, random_state=1, **options)
    return out


def asked(gateway: StandIn) -> list[str]:
    return [rows.last_user_text(body) for body in gateway.chats]


def test_a_trial_answers_n_rows_of_the_frame(gateway: StandIn, frame: pd.DataFrame) -> None:
    out = trial(frame)
    assert len(out) == 5
    assert out.index.is_monotonic_increasing
    pd.testing.assert_series_equal(out["offense"], frame.loc[out.index, "offense"])
    prompts = "Which drug is named in this offence? " + out["offense"]
    assert out["response"].tolist() == [answer(p) for p in prompts]
    assert out["response_error"].isna().all()
    assert "response" not in frame


def test_rows_that_are_skipped_are_not_drawn(gateway: StandIn, frame: pd.DataFrame) -> None:
    frame["offense"] = frame["offense"].mask(frame.index >= 6)
    out = trial(frame, missing="skip", details=True)
    assert (out["response_status"] == "ok").all()
    assert len(out) == len(gateway.chats) == 5
    nothing = trial(frame.iloc[6:], missing="skip")
    assert list(nothing.columns) == ["offense", "response", "response_error"]
    assert len(nothing) == 0
    assert len(gateway.chats) == 5


def test_no_row_is_paid_twice(gateway: StandIn, frame: pd.DataFrame) -> None:
    first = trial(frame)
    out = frame.llm.batch(QUESTION, model=MODEL)
    assert len(gateway.chats) == 5
    assert [len(job.requests) for job in gateway.jobs] == [25]
    assert out["response"].notna().all()
    assert out.loc[first.index, "response"].tolist() == first["response"].tolist()


def test_answered_rows_are_not_asked_again(gateway: StandIn, frame: pd.DataFrame) -> None:
    frame.iloc[:25].llm.batch(QUESTION, model=MODEL)
    out = trial(frame, n=30)
    assert len(gateway.chats) == 5
    assert out["response"].notna().all()
    trial(frame, n=30)
    assert len(gateway.chats) == 5


def test_rows_in_a_batch_job_are_left_to_it(gateway: StandIn, frame: pd.DataFrame) -> None:
    gateway.behaviour.validating_polls = -1
    frame.llm.submit(QUESTION, model=MODEL)
    out = trial(frame, details=True)
    assert gateway.chats == []
    assert (out["response_status"] == "pending").all()
    assert out.attrs["trial"]["under_way"] == 5


def test_bodies_are_those_of_the_batch(gateway: StandIn, frame: pd.DataFrame) -> None:
    options: dict[str, Any] = {"max_tokens": 50, "temperature": 0, "system": "Be brief."}
    trial(frame, n=30, **options)
    live = sorted(json.dumps(body) for body in gateway.chats)
    frame.llm.batch(QUESTION, model=MODEL, sidecar="other", **options)
    sent = sorted(json.dumps(body) for _, body in gateway.jobs[0].requests)
    assert live == sent


def test_equal_prompts_are_asked_once(gateway: StandIn) -> None:
    frame = pd.DataFrame({"offense": ["same"] * 4}, index=["a", "a", "b", "b"])
    out = trial(frame, n=4)
    assert len(gateway.chats) == 1
    assert out.index.tolist() == ["a", "a", "b", "b"]
    assert out["response"].nunique() == 1


def test_a_random_state_draws_the_same_rows(frame: pd.DataFrame) -> None:
    assert trial(frame).index.equals(trial(frame).index)
    other = frame.llm.trial(QUESTION, model=MODEL, n=5, random_state=np.random.default_rng(7))
    assert len(other) == 5


@pytest.mark.parametrize("options", [{"n": 0}, {"n": True}, {"random_state": "x"}])
def test_a_draw_without_meaning_raises(
    gateway: StandIn, frame: pd.DataFrame, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        frame.llm.trial(QUESTION, model=MODEL, **options)
    assert gateway.log == []


# --- trouble --------------------------------------------------------------------------------
def test_a_busy_gateway_is_waited_for(gateway: StandIn, frame: pd.DataFrame) -> None:
    gateway.script.add("chat", status=429, times=3, retry_after=0.3)
    start = time.monotonic()
    out = trial(frame)
    assert time.monotonic() - start >= 0.3
    assert out["response"].notna().all()
    assert gateway.count("chat") == 8
    assert len(gateway.chats) == 5


def test_a_gateway_that_stays_busy_keeps_what_was_answered(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    gateway.script.add("chat", status=429, times=-1, after=2, retry_after=5_000)
    with pytest.raises(llm.errors.GatewayUnavailableError):
        trial(frame)
    gateway.script.clear()
    assert len(gateway.chats) == 2
    trial(frame)
    assert len(gateway.chats) == 5


def test_two_trials_at_once_ask_each_row_once(gateway: StandIn) -> None:
    frame = pd.DataFrame({"q": [f"q {i}" for i in range(6)]})
    other = threading.Event()  # has seen what stands, and waits

    def hold(number: int, method: str, path: str) -> None:
        if "chat" in path:
            other.wait(10)

    def hear(progress: Progress) -> None:
        if "another trial" in progress.message:
            other.set()

    gateway.on_request = hold
    with llm.set_options(progress=hear), ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(frame.llm.trial, "{{ q }}", model=MODEL, n=6) for _ in range(2)]
        found = [one.result() for one in asked]
    right = [answer(q) for q in frame["q"]]
    assert [out["response"].tolist() for out in found] == [right, right]
    assert len(gateway.chats) == 6
    assert sorted(out.attrs["trial"]["sent"] for out in found) == [0, 6]


def test_a_call_that_failed_before_anything_was_made_keeps_no_row_from_the_trial(
    gateway: StandIn,
) -> None:
    frame = pd.DataFrame({"q": ["one", "two", "three"]})
    call: dict[str, Any] = {"template": "{{ q }}", "model": MODEL}
    settings = {**gateway.settings, "base_url": "http://127.0.0.1:9/v1"}  # where nobody is
    with pytest.raises(RunTimeoutError, match="nothing was submitted"):
        frame.llm.batch(**call, gateway=llm.Gateway(**settings), timeout=0)
    out = frame.llm.trial(**call, n=2, random_state=1, details=True)
    assert out["response_status"].tolist() == ["ok", "ok"]
    assert len(gateway.chats) == 2
    whole = frame.llm.batch(**call)
    assert whole["response"].tolist() == [answer(q) for q in frame["q"]]
    assert [len(job.requests) for job in gateway.jobs] == [1]


def test_max_cost_of_the_options_holds_for_a_trial(gateway: StandIn) -> None:
    frame = pd.DataFrame({"q": ["one", "two", "three"]})
    with llm.set_options(max_cost=1e-9), pytest.raises(BudgetError, match="Nothing was sent"):
        frame.llm.trial("{{ q }}", model=MODEL, n=2)
    assert gateway.log == []
    with llm.set_options(max_cost=1):
        frame.llm.trial("{{ q }}", model=MODEL, n=2, max_tokens=100)
    assert len(gateway.chats) == 2


def test_a_lost_answer_is_not_asked_again_by_the_trial(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    gateway.script.add("chat", "lose")
    out = trial(frame, details=True)
    assert len(gateway.chats) == 5
    assert out["response_status"].tolist().count("failed") == 1
    assert out["response_error"].notna().sum() == 1
    frame.llm.batch(QUESTION, model=MODEL)
    assert [len(job.requests) for job in gateway.jobs] == [26]


def test_a_refused_request_is_shown_and_left_to_the_batch(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    gateway.script.add("chat", status=400, body="json", times=1)
    out = trial(frame, details=True)
    assert out["response_status"].tolist().count("refused") == 1
    assert out.attrs["trial"]["refused_rate"] == pytest.approx(0.2)
    frame.llm.batch(QUESTION, model=MODEL)
    assert [len(job.requests) for job in gateway.jobs] == [26]


def test_rates_are_of_all_that_was_sent_the_failed_too(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    gateway.script.add("chat", "lose")
    gateway.script.add("chat", status=400, body="json", times=1, after=1)
    told = trial(frame).attrs["trial"]
    assert (told["refused_rate"], told["failed_rate"], told["truncated_rate"]) == (0.2, 0.2, 0)


@pytest.mark.parametrize(
    ("status", "kind", "way_out"),
    [
        (401, AuthenticationError, "Check PORTKEY_API_KEY"),
        (404, GatewayError, "Check the name of the model and the gateway's address"),
    ],
)
def test_what_is_wrong_for_every_row_raises(
    gateway: StandIn, frame: pd.DataFrame, status: int, kind: type[Exception], way_out: str
) -> None:
    gateway.script.add("chat", status=status, times=-1)
    with pytest.raises(kind, match=way_out):
        trial(frame, n=30)
    assert gateway.count("chat") < 30


def test_an_interrupt_keeps_the_answers_that_were_paid(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.phase == "asking" and progress.answered:
            raise KeyboardInterrupt

    with llm.set_options(progress=interrupt), pytest.raises(KeyboardInterrupt):
        trial(frame, n=30)
    paid = len(gateway.chats)
    assert 0 < paid < 30
    assert len(llm.open_sidecar("llm_sidecar").answers()) == paid
    trial(frame, n=30)
    assert len(gateway.chats) == len(set(asked(gateway))) == 30


def test_an_interrupt_while_requests_are_handed_out_keeps_what_was_paid(
    gateway: StandIn, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[object] = []
    submit_one = ThreadPoolExecutor.submit

    def interrupt(self: ThreadPoolExecutor, *args: Any) -> object:
        handed.append(submit_one(self, *args))
        if len(handed) == 3:
            raise KeyboardInterrupt
        return handed[-1]

    with monkeypatch.context() as patched:
        patched.setattr(ThreadPoolExecutor, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trial(frame, n=30)
    paid = len(gateway.chats)
    assert len(llm.open_sidecar("llm_sidecar").answers()) == paid <= 3
    trial(frame, n=30)
    assert len(gateway.chats) == len(set(asked(gateway))) == 30


def test_at_most_four_are_asked_at_once(gateway: StandIn, frame: pd.DataFrame) -> None:
    fault = gateway.script.add("chat", "hold", times=-1)
    worker = threading.Thread(target=trial, args=(frame,), kwargs={"n": 12})
    worker.start()
    deadline = time.monotonic() + 10
    while fault.hits < 4 and time.monotonic() < deadline:
        fault.arrived.wait(0.05)
    hits = fault.hits
    gateway.script.clear()
    worker.join()
    assert hits == 4
    assert len(gateway.chats) == 12


def test_progress_counts_up_to_the_number_asked(frame: pd.DataFrame) -> None:
    told: list[Progress] = []
    with llm.set_options(progress=told.append):
        trial(frame, n=12)
    steps = [(p.answered, p.requests) for p in told if p.phase == "asking"]
    assert {total for _, total in steps} == {12}
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (12, 12)


def test_a_missing_key_is_named_only_when_something_is_asked(frame: pd.DataFrame) -> None:
    trial(frame)
    with llm.set_options(gateway=None):
        assert trial(frame)["response"].notna().all()
        with pytest.raises(ConfigurationError, match="PORTKEY_API_KEY"):
            trial(frame, n=30)


# --- the report -----------------------------------------------------------------------------
def test_the_report_tells_tokens_rates_and_cost(gateway: StandIn, frame: pd.DataFrame) -> None:
    gateway.behaviour.row = rows.pick(lambda _, body: rows.truncated, rows.good)
    out = trial(frame, n=10, details=True)
    told = out.attrs["trial"]
    assert (told["rows"], told["sent"], told["to_pay"]) == (10, 10, 20)
    assert told["truncated_rate"] == 1.0
    assert told["prompt_tokens"] == out["response_prompt_tokens"].sum()
    assert told["usd_trial"] == pytest.approx(out["response_cost"].sum())
    assert told["usd_total_low"] <= told["usd_total"] <= told["usd_total_high"]


def test_the_projection_holds_what_is_paid_in_the_end(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    told = trial(frame, n=10).attrs["trial"]
    run = frame.llm.submit(QUESTION, model=MODEL).wait()
    assert run.cost is not None
    assert told["usd_total_low"] <= run.cost <= told["usd_total_high"]


def test_live_answers_cost_the_live_rate(gateway: StandIn, frame: pd.DataFrame) -> None:
    live = trial(frame, n=30, details=True)["response_cost"].sum()
    batch = frame.llm.batch(QUESTION, model=MODEL, details=True, sidecar="other")
    assert live == pytest.approx(2 * batch["response_cost"].sum())


def test_the_report_travels_with_the_frame_into_a_file(frame: pd.DataFrame) -> None:
    out = trial(frame)
    out.to_parquet("trial.parquet")
    assert pd.read_parquet("trial.parquet").attrs["trial"] == out.attrs["trial"]


def test_the_trial_stands_among_the_runs(frame: pd.DataFrame) -> None:
    trial(frame)
    runs = llm.open_sidecar("llm_sidecar").runs()
    answers = llm.open_sidecar("llm_sidecar").answers()
    assert runs["name"].tolist() == answers["job"].unique().tolist()
    assert runs["name"].str.startswith("trial-").all()


def test_a_trial_prints_its_report(frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    with llm.set_options(progress=True):
        trial(frame)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("new sidecar: ")
    assert lines[1].startswith("trial: 5 rows, 5 sent in ")
    assert lines[2].startswith("tokens: ")
    assert lines[3].startswith("cost: $")
    assert len(lines) == 4
