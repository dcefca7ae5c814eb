"""A sidecar without its frame, looked at in parts: the same as all of it at once.

Comes in: sidecars whose jobs overlap, fail, are retried, hold two models. Goes out: the same
answers in the same order, counts, cost and jobs, however few requests are looked at at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from support import rows
from support.callers import FAST, MODEL
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._jobs.driver import Driver
from nyu_llm_frames._jobs.tracker import driven
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames.errors import BatchJobFailedError, BudgetError, GatewayError, SidecarError

TEXTS = [f"question {i}" for i in range(12)]
BAD = {"question 1": rows.failed(429), "question 6": rows.failed(429), "question 7": rows.blocked}

pytestmark = pytest.mark.filterwarnings("ignore::nyu_llm_frames.errors.PartialResultWarning")
every_size = pytest.mark.parametrize("at_once", [1, 7, 1_000_000])


@pytest.fixture(autouse=True)
def _fast(stand_in: StandIn) -> Iterator[None]:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    with llm.set_options(
        **{**FAST, "gateway": llm.Gateway(**stand_in.settings)}, max_requests_per_file=3
    ):
        yield


def batch(texts: list[str], *, model: str = MODEL, **more: Any) -> Any:
    frame = pd.DataFrame({"q": texts})
    return frame.llm.batch("{{ q }}", model=model, sidecar="s", **more)


@pytest.fixture
def many(stand_in: StandIn) -> None:
    """Failures with a retry, rows of an earlier call, another model, and a job under way."""
    stand_in.behaviour.row = rows.pick(BAD)
    batch(TEXTS[4:8], retries=0)
    batch(TEXTS, retries=1)
    batch(TEXTS[:5], model="gemini-3-pro-preview", retries=0)
    stand_in.behaviour.running_polls = -1
    pd.DataFrame({"q": ["late 1", "late 2"]}).llm.submit("{{ q }}", model=MODEL, sidecar="s")


@every_size
def test_parts_say_what_the_whole_says(
    many: None, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = StoredRun("s")
    totals, answers = whole.totals(), whole.answers(prompts=True)
    failures = whole.failures()
    assert totals.counts == {"ok": 13, "failed": 3, "blocked": 1, "pending": 2}
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    parts = StoredRun("s")
    assert parts.totals() == totals
    pd.testing.assert_frame_equal(parts.answers(prompts=True), answers)
    pd.testing.assert_frame_equal(parts.failures(), failures)
    told = answers[answers["status"] == "ok"]
    for text, body in zip(told["text"], told["body"], strict=True):
        assert text == answer(rows.last_user_text(json.loads(body)))


def test_parts_are_small(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", 3)
    sizes = [len(frame) for frame in StoredRun("s").iter_answers()]
    assert max(sizes) == 3
    assert sum(sizes) == 19


@every_size
def test_what_failed_is_sent_again_together(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    tracker: Counter[str] = Counter()

    def at_first(custom_id: str, body: rows.Body) -> list[bytes]:
        text = rows.last_user_text(body)
        tracker[text] += 1
        return rows.pick(BAD)(custom_id, body) if tracker[text] == 1 else rows.good(custom_id, body)

    stand_in.behaviour.row = at_first
    batch(TEXTS, retries=0)
    assert len(stand_in.jobs) == 4
    StoredRun("s", retries=1).wait()
    assert {text for text, n in tracker.items() if n > 1} == {"question 1", "question 6"}
    assert StoredRun("s").counts() == {"ok": 11, "blocked": 1}
    # One of each part would be sent where a part alone is more than is held at once.
    assert len(stand_in.jobs) == (6 if at_once == 1 else 5)


@every_size
def test_retry_and_cancel_reach_every_part(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    stand_in.behaviour.row = rows.failed(429)
    batch(TEXTS[:6], retries=0)
    stand_in.behaviour.running_polls = -1
    assert StoredRun("s", retries=0).retry() == 6  # however often they were tried
    assert StoredRun("s").retry() == 6  # under way already
    assert len(stand_in.jobs) == 4
    assert len(StoredRun("s").cancel()) == 2
    assert sum(job.cancel_requested for job in StoredRun("s").jobs()) == 2


@every_size
def test_what_one_object_saw_fail_it_sends_again_when_asked(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    stand_in.behaviour.terminal = "failed"
    pd.DataFrame({"q": TEXTS[:6]}).llm.submit("{{ q }}", model=MODEL, sidecar="s")
    run = StoredRun("s")
    with pytest.raises(BatchJobFailedError, match="2 batch jobs with 6 requests"):
        run.wait()
    assert len(stand_in.jobs) == 2  # what failed as a whole is not sent again by itself
    stand_in.behaviour.terminal = "completed"
    assert run.retry() == 6
    run.wait()
    assert run.counts() == {"ok": 6}
    assert len(stand_in.jobs) == 4


def test_a_short_output_is_read_again_once_and_then_sent_again(stand_in: StandIn) -> None:
    # So that nobody can say that this was all.
    stand_in.behaviour.content_fails, stand_in.behaviour.counts = 1000, "absent"
    stand_in.behaviour.row = rows.pick({"question 1": lambda custom_id, body: []})
    batch(TEXTS[:3], retries=0)
    stand_in.behaviour.row = rows.good
    StoredRun("s").wait(timeout=10)  # reading again and again would never end
    assert StoredRun("s").counts() == {"ok": 3}
    assert len(stand_in.jobs) == 2


def test_without_prompts_waiting_ends_with_what_there_is(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick(BAD)
    with llm.set_options(keep_prompts=False):
        batch(TEXTS, retries=0)
        StoredRun("s").wait()
        assert StoredRun("s").counts() == {"ok": 9, "failed": 2, "blocked": 1}
        with pytest.raises(SidecarError, match=r"no prompts any more.* larger retries="):
            StoredRun("s").retry()
        stand_in.behaviour.row = rows.good
        batch(TEXTS, retries=1)  # as the message says
        assert StoredRun("s").counts() == {"ok": 11, "blocked": 1}


def test_what_was_planned_is_driven_before_anything_is_sent(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another thread of this process could take the plan back."""
    stand_in.behaviour.row = rows.failed(429)
    batch(TEXTS[:3], retries=0)
    told = []
    advance = Driver.advance
    monkeypatch.setattr(
        Driver, "advance", lambda self: (told.append(self.name in driven), advance(self))[1]
    )
    StoredRun("s").retry()
    assert all(told)
    assert len(told) == 2


@every_size
def test_a_job_that_was_never_made_is_not_sent_when_its_answers_are_there(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """As when the output of the same requests was taken in by hand in the meantime."""
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    batch(TEXTS[:6])
    run = StoredRun("s")
    with run.sidecar.lock.held():
        for job in run.jobs():
            ids = run.sidecar.request_ids(job.name)
            again = f"{job.name}-again"
            run.sidecar.add_requests(again, [(ids, run.sidecar.bodies(job.name))])
            planned = {"step": "planned", "batch_id": None, "outcome": "", "answers": 0}
            run.sidecar.save_job(msgspec.structs.replace(job, name=again, **planned))
    StoredRun("s").wait()
    StoredRun("s").poll()
    assert stand_in.count("create") == 2
    assert StoredRun("s").pending == 2
    assert StoredRun("s").cancel() == []  # taken back; nobody has to be asked
    assert StoredRun("s").pending == 0


@every_size
@pytest.mark.parametrize("end", ["wait", "poll", "cancel"])
def test_a_job_at_the_gateway_is_not_forgotten_when_its_answers_are_there(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int, end: str
) -> None:
    """It runs, and may be billed, whoever brought the answers."""
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    batch(TEXTS[:6])
    run = StoredRun("s")
    with run.sidecar.lock.held():
        for job in run.jobs():
            live = {"step": "live", "outcome": "", "answers": 0}
            run.sidecar.save_job(msgspec.structs.replace(job, **live))
    if end == "cancel":
        assert len(StoredRun("s").cancel()) == 2
    else:
        getattr(StoredRun("s"), end)()
        assert StoredRun("s").pending == 0
    assert stand_in.count("create") == 2


def test_a_run_cancels_what_is_at_the_gateway_when_its_answers_are_there(
    stand_in: StandIn,
) -> None:
    batch(TEXTS[:6])
    stored = StoredRun("s")
    with stored.sidecar.lock.held():
        for job in stored.jobs():
            live = {"step": "live", "outcome": "", "answers": 0}
            stored.sidecar.save_job(msgspec.structs.replace(job, **live))
    run = pd.DataFrame({"q": TEXTS[:6]}).llm.submit("{{ q }}", model=MODEL, sidecar="s")
    assert len(run.cancel()) == 2
    assert stand_in.count("create") == 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_table_in_parts_is_the_table(
    many: None, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from nyu_llm_frames.cli import sidecar_commands as commands

    read: Any = {
        ".csv": lambda path: path.read_text(),
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: path.read_text(),
    }[suffix]
    whole, parts = Path(f"whole{suffix}"), Path(f"parts{suffix}")
    commands._write(StoredRun("s").iter_answers(), whole)
    monkeypatch.setattr(StoredRun, "requests_at_once", 3)
    monkeypatch.setattr(commands, "JSON_ROWS", 2)
    commands._write(StoredRun("s").iter_answers(), parts)
    a, b = read(whole), read(parts)
    assert a.equals(b) if isinstance(a, pd.DataFrame) else a == b
    assert len(a) if isinstance(a, pd.DataFrame) else a.count("\n") >= 19


def test_a_sidecar_alone_keeps_no_ids(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", 3)
    run = StoredRun("s")
    views = [run.sidecar]
    linked_to = run.sidecar.linked_to
    monkeypatch.setattr(
        run.sidecar, "linked_to", lambda names: (views.append(v) or v for v in linked_to(names))
    )
    run.totals()
    run.poll()
    assert len(views) > 5
    assert all(view._ids == {} for view in views)


@every_size
def test_max_cost_holds_for_what_a_sidecar_alone_sends(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(StoredRun, "requests_at_once", at_once)
    stand_in.behaviour.row = rows.failed(429)
    batch(TEXTS[:6], retries=0, max_tokens=100)
    sent = len(stand_in.jobs)
    for step in (lambda run: run.retry(), lambda run: run.wait()):
        with pytest.raises(BudgetError, match="counts 6 requests"):
            step(StoredRun("s", max_cost=1e-9))
        with llm.set_options(max_cost=1e-9), pytest.raises(BudgetError, match="counts 6 requests"):
            step(StoredRun("s"))
    StoredRun("s", max_cost=1e-9).poll()  # it sends nothing
    StoredRun("s", max_cost=1e-9, retries=0).wait()
    assert len(stand_in.jobs) == sent
    whole = pd.DataFrame({"q": TEXTS[:6]}).llm.estimate(
        "{{ q }}", model=MODEL, sidecar="other", retries=0, max_tokens=100
    )
    with pytest.raises(BudgetError) as e:
        StoredRun("s", max_cost=1e-9).retry()
    assert whole.usd_batch is not None
    assert e.value.upper == pytest.approx(whole.usd_batch.high, rel=0.05)
    assert StoredRun("s", max_cost=e.value.upper).retry() == 6


def test_a_job_that_nobody_knows_does_not_keep_another_model_s(stand_in: StandIn) -> None:
    for model in (MODEL, "gemini-3-pro"):
        pd.DataFrame({"q": TEXTS[:2]}).llm.submit("{{ q }}", model=model, sidecar="s")
    lost = StoredRun("s").jobs()[0].batch_id
    stand_in.script.add(f"GET /v1/batches/{lost}", status=404, times=-1)
    for step in (lambda run: run.poll(), lambda run: run.poll(), lambda run: run.wait()):
        with pytest.raises(GatewayError, match=f"{lost}.*404"):
            step(StoredRun("s"))
    assert StoredRun("s").counts() == {"ok": 2, "pending": 2}


def test_what_was_cancelled_is_sent_again_by_retry_alone(stand_in: StandIn) -> None:
    stand_in.behaviour.running_polls = -1
    batch(TEXTS[:2], wait=False)
    StoredRun("s").cancel()
    StoredRun("s").wait()
    stand_in.behaviour.running_polls = 0
    StoredRun("s").wait()  # another process, another day
    assert [job.status for job in stand_in.jobs] == ["cancelled"]
    run = StoredRun("s")
    assert run.retry() == 2
    run.wait()
    assert [len(job.requests) for job in stand_in.jobs] == [2, 2]
    assert run.counts() == {"ok": 2}


def test_max_cost_counts_what_was_cancelled_where_retry_sends_it(stand_in: StandIn) -> None:
    stand_in.behaviour.running_polls = -1
    batch(TEXTS[:2], wait=False)
    StoredRun("s").cancel()
    StoredRun("s").wait()
    with pytest.raises(BudgetError, match="counts 2 requests") as e:
        StoredRun("s", max_cost=1e-9).retry()
    assert isinstance(e.value.upper, float)
    assert StoredRun("s", max_cost=e.value.upper).retry() == 2
    assert [len(job.requests) for job in stand_in.jobs] == [2, 2]


def test_max_cost_counts_what_one_run_s_jobs_send_along(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.failed(429)
    batch(TEXTS[:2], retries=0)
    [first] = StoredRun("s").jobs()
    stand_in.script.add("upload", status=429, times=-1)
    with llm.set_options(max_requests_per_file=50):
        pd.DataFrame({"q": TEXTS}).llm.submit("{{ q }}", model=MODEL, sidecar="s")
    stand_in.script.clear()
    sidecar = Sidecar(Path("s"), SystemClock())
    planned = next(job for job in sidecar.jobs().values() if job.step == "planned")
    sidecar.save_job(msgspec.structs.replace(planned, owner="node17/boot/7/1"))  # may be alive
    for step in (StoredRun.wait, StoredRun.retry):
        with pytest.raises(BudgetError, match="counts 12 requests"):
            step(StoredRun("s", run=first.run, max_cost=1e-9))
    assert [len(job.requests) for job in stand_in.jobs] == [2]


def test_max_cost_holds_for_another_attempt_of_a_sidecar_s_jobs(stand_in: StandIn) -> None:
    stand_in.behaviour.row, stand_in.behaviour.running_polls = rows.failed(503), 1
    batch(TEXTS[:2], wait=False)
    with pytest.raises(BudgetError, match="Nothing more was sent"):
        StoredRun("s", max_cost=1e-9).wait()
    assert len(stand_in.jobs) == 1


def test_max_cost_counts_a_sidecar_s_uncertain_submit(stand_in: StandIn) -> None:
    stand_in.script.add("create", "reset")
    batch(TEXTS[:2], wait=False)
    with pytest.raises(BudgetError, match=r"Nothing was sent\."):
        StoredRun("s", max_cost=1e-9).wait()
    assert stand_in.jobs == []


def test_max_cost_knows_a_sidecar_s_documents(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.failed(429)
    frame = pd.DataFrame({"file": ["gs://b/film.mp4"]})
    asked: dict[str, Any] = {"model": MODEL, "images": "file", "max_tokens": 9, "retries": 0}
    frame.llm.batch("What?", sidecar="s", **asked)
    with pytest.raises(BudgetError) as caught:
        StoredRun("s", max_cost=1e-9).retry()
    whole = frame.llm.estimate("What?", sidecar="other", **asked)
    assert whole.usd_batch is not None
    assert caught.value.upper == pytest.approx(whole.usd_batch.high, rel=0.01)
