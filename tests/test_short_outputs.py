"""Outputs that are short, late, damaged or of another type: read again, not paid again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import rows
from support.clock import FakeClock
from support.four_rows import DF, MODEL, RIGHT, ask, sent, submit
from support.stand_in import StandIn, answer, outage

import nyu_llm_frames as llm
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames.errors import (
    GatewayError,
    RunTimeoutError,
)


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


@pytest.mark.parametrize("status", [200, 302, 400, 404, 409, 425, 429, 502, 507, 520, 524])
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


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize(("short", "counts", "status"), NEVER_WHOLE)
def test_what_the_job_counts_and_no_file_holds_is_paid_again_by_retry_alone(
    gateway: StandIn, clock: FakeClock, short: Any, counts: Any, status: list[str], retries: int
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.counts, b.content_fails = short, 1000, counts, -1
    out = ask(retries=retries)
    lacking = [x for x, s in zip("abcd", status, strict=True) if s == "missing"]
    assert out["response_status"].tolist() == status
    promise = "the same call reads it once more, and only a retry pays again"
    assert out["response_error"].dropna().str.endswith(promise).all()
    waited, reads = sum(clock.slept), gateway.count("output")
    again = ask(retries=retries)  # reads it once more, and waits for nothing
    assert gateway.count("output") == reads + 1
    assert sum(clock.slept) == waited
    # Where some rows came it is finished, until somebody pays again, and no reason promises more.
    reasons = out["response_error"]
    if "ok" in status:
        reasons = reasons.str.replace("the same call reads it once more, and ", "")
    pd.testing.assert_frame_equal(again, out.assign(response_error=reasons))
    calls = len(gateway.log)
    for _ in range(2):
        pd.testing.assert_frame_equal(ask(retries=retries), again)
    assert (len(gateway.log) == calls) == ("ok" in status)
    assert sum(clock.slept) == waited
    assert len(gateway.jobs) == 1
    b.short_reads = 0
    run = submit(retries=retries)
    run.retry().wait()
    assert sent(gateway)[1:] == [[f"Say {x}" for x in lacking]]
    assert run.counts() == {"ok": 4}
    assert ask()["response"].tolist() == RIGHT


@pytest.mark.parametrize("short", ["empty", "fake_row"])
@pytest.mark.parametrize("at_first", ["rows", "nothing"])
def test_an_output_that_gives_no_row_at_all_is_not_given_up(
    gateway: StandIn, clock: FakeClock, short: Any, at_first: str
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows" if at_first == "rows" else short, 1000, -1
    out = ask()
    counts = llm.open_sidecar("llm_sidecar").jobs()[["answers", "unread"]]
    gateway.jobs[0].behaviour.short = short
    for _ in range(2):
        pd.testing.assert_frame_equal(ask(), out)
    assert llm.open_sidecar("llm_sidecar").jobs()[["answers", "unread"]].equals(counts)
    gateway.jobs[0].behaviour.short_reads = 0
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_without_a_key_a_short_output_is_shown_as_it_was_stored(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows", 1000, -1
    out = ask()
    with llm.set_options(gateway=llm.Gateway()):
        pd.testing.assert_frame_equal(ask(), out)
        pd.testing.assert_frame_equal(ask(retries=0), out)
    b.short_reads = gateway.jobs[0].behaviour.short_reads = 0
    assert ask()["response"].tolist() == RIGHT  # with a key it is looked for


def test_without_a_network_a_short_output_is_shown_as_it_was_stored(
    gateway: StandIn, clock: FakeClock
) -> None:
    b = gateway.behaviour
    b.short, b.short_reads, b.content_fails = "rows", 1000, -1
    out = ask()
    waited = sum(clock.slept)
    with outage(gateway):
        for _ in range(2):
            pd.testing.assert_frame_equal(ask(), out)
    assert sum(clock.slept) - waited < 20
    b.short_reads = gateway.jobs[0].behaviour.short_reads = 0
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


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


@pytest.mark.parametrize("content_fails", [0, -1])
def test_a_stored_file_in_the_form_of_the_output_gives_the_same_answers(
    gateway: StandIn, clock: FakeClock, content_fails: int
) -> None:
    """As OpenAI's is: the gateway has nothing to convert."""

    def unconverted(n: int, method: str, path: str) -> None:
        if path.endswith("/content"):
            job = gateway.jobs[0]
            job.raw = b"".join(line + b"\n" for _, line in job.lines)

    gateway.on_request, gateway.behaviour.content_fails = unconverted, content_fails
    assert ask()["response"].tolist() == RIGHT
    assert gateway.count("output") == bool(content_fails)
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
