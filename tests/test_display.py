"""What a run shows: text, HTML, one moving line. Foreign text stays text."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows
from support.clock import FakeClock
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._api.display import run_html, run_text
from nyu_llm_frames._runs.summary import Summary
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.views import Display, fitting
from nyu_llm_frames._stages.batches import polling as pace
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import RunTimeoutError

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
MODEL = "gemini-3-flash-preview"


def job(number: int, **fields: Any) -> Job:
    given: dict[str, Any] = {
        "name": f"job-{number}",
        "run": "run",
        "owner": "",
        "realm": "@vertexai",
        "model": MODEL,
        "requests": 100,
        "file_bytes": 1,
        "step": "live",
        "status": "validating",
        "batch_id": f"{number}",
        "submitted_at": START,
    }
    return Job(**{**given, **fields})


def done(number: int) -> Job:
    ended = START + timedelta(hours=3, minutes=5)
    return job(number, step="done", outcome="completed", status="completed", ended_at=ended)


def summary(**changes: Any) -> Summary:
    told = Summary(
        name="20260301-090000-1",
        sidecar="/data/llm_sidecar",
        model=MODEL,
        rows=200,
        counts={"ok": 190, "blocked": 2, "failed": 8},
        examples={"failed": ("17", "503 UNAVAILABLE: try later"), "blocked": ("3", "SAFETY")},
        jobs=(done(1), done(2)),
        tokens={name: np.array([10.0, 20.0]) for name in ("prompt", "output", "thinking")},
        costs=np.array([0.25, 0.5]),
        at=START + timedelta(hours=4),
    )
    return dataclasses.replace(told, **changes)


# --- text -----------------------------------------------------------------------------------
@pytest.mark.usefixtures("new_york")
def test_a_finished_run_reads_as_text() -> None:
    assert run_text(summary()) == (
        "Run 20260301-090000-1: finished with failures\n"
        "  rows         200: 190 ok, 2 blocked, 8 failed\n"
        "  model        gemini-3-flash-preview\n"
        "  cost so far  $0.75\n"
        "  submitted    2026-03-01 04:00 EST\n"
        "  ended        2026-03-01 07:05 EST\n"
        "  took         3 h 05 min\n"
        "  sidecar      /data/llm_sidecar\n"
        "  failed       8 (row 17: 503 UNAVAILABLE: try later)\n"
        "  blocked      2 (row 3: SAFETY)\n"
        "  next         run.retry() sends failed, empty, missing and damaged rows once more\n"
        "               blocked rows: the provider refuses their content; see run.failures()\n"
        "               run.failures() shows these rows and their reasons\n"
        "               run.result() returns the joined frame"
    )


def test_a_run_names_the_models_that_answered_only_where_they_are_others() -> None:
    asked = "publishers/google/models/gemini-3-flash-preview"
    assert summary(answered_by=(MODEL,)).models == MODEL
    assert summary(model=asked, answered_by=(MODEL,)).models == asked
    both = summary(answered_by=(MODEL, "small"))
    assert both.models == f"requested {MODEL}, answered by {MODEL}, small"
    assert f"  model        {both.models}\n" in run_text(both)


def test_a_waiting_run_says_for_how_long_and_how_to_go_on() -> None:
    status_line = summary(counts={"pending": 200}, examples={}, jobs=(job(1), done(2)), costs=None)
    text = run_text(status_line)
    assert text.startswith("Run 20260301-090000-1: batch jobs: 1 queued\n")
    assert "waiting for  4 h 00 min" in text
    assert "cost so far  unknown: no price for this model" in text
    assert "run.wait() waits for it" in text
    assert "run.result()" not in text


def test_rows_that_nobody_carries_are_told() -> None:
    lost = summary(counts={"pending": 5, "ok": 195}, examples={}, jobs=())
    assert lost.state == "not running"
    assert lost.next_steps() == ["make the same call again: it sends what is missing"]


def test_an_uncertain_submit_comes_first() -> None:
    uncertain = summary(counts={"pending": 200}, examples={}, jobs=(job(1, step="creating"),))
    assert uncertain.state == "batch jobs: 1 settling"
    assert "run.resolve(...)" in uncertain.next_steps()[0]


# --- HTML -----------------------------------------------------------------------------------
class Tags(HTMLParser):
    """Collects elements and attributes, and complains about what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.names: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


KNOWN = {"style", "div", "h4", "small", "i", "b", "table", "tr", "th", "td", "ul", "li"}


@given(st.text(max_size=40), st.sampled_from(["<script>alert(1)</script>", '"><img src=x>', "'"]))
def test_foreign_text_never_becomes_markup(text: str, attack: str) -> None:
    evil = text + attack
    tags = parsed(
        run_html(
            summary(
                name=evil,
                sidecar=evil,
                model=evil,
                answered_by=(evil[::-1],),
                examples={"failed": (repr(evil), evil)},
            )
        )
    )
    assert tags.seen <= KNOWN
    assert tags.names <= {"class", "style", "title", "role", "aria-label"}


def test_html_shows_what_the_text_shows() -> None:
    shown = " ".join(parsed(run_html(summary())).text)
    for part in ("Finished with failures", "$0.75", "3 h 05 min", "503 UNAVAILABLE", "run.retry()"):
        assert part in shown


def test_the_bar_adds_up() -> None:
    widths = re.findall(r"width:([\d.]+)%", run_html(summary()))
    assert sum(map(float, widths)) == pytest.approx(100)


def test_an_empty_run_shows_too() -> None:
    empty = summary(rows=0, counts={}, examples={}, jobs=(), costs=np.zeros(0))
    assert "0 rows: none" in run_html(empty)
    assert "rows         0" in run_text(empty)


def test_both_themes_are_styled() -> None:
    html = run_html(summary())
    assert "prefers-color-scheme:dark" in html
    assert "--jp-layout-color1" in html


def test_an_answer_with_markup_is_escaped_in_a_real_run(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.failed(400, "no <script>alert(1)</script> here")
    frame = pd.DataFrame({"x": ["<b>one</b>", "two"]}, index=["<i>a</i>", "b"])
    with llm.set_options(
        gateway=llm.Gateway(**stand_in.settings), progress=False, poll_interval_s=0.02
    ):
        run = frame.llm.submit("Say {{ x }}", model=MODEL).wait()
        told = frame.llm.estimate("Tell {{ x }}", model="<b>model</b>")
    assert parsed(run._repr_html_()).seen <= KNOWN
    assert "&lt;script&gt;" in run._repr_html_()
    assert "<script>" in repr(run)
    assert parsed(told._repr_html_()).seen <= KNOWN
    assert "&lt;b&gt;model" in told._repr_html_()


def test_a_run_that_did_not_change_is_shown_again_without_its_answers(gateway: StandIn) -> None:
    run = pd.DataFrame({"x": ["a", "b"]}).llm.submit("Say {{ x }}", model=MODEL)
    assert "2 pending" in repr(run)
    assert "2 ok" in repr(run.wait())  # what changed is seen
    for file in (run.sidecar / "answers").iterdir():
        file.write_bytes(b"")
    assert "2 ok" in repr(run)
    assert "<b>2</b> ok" in run._repr_html_()


# --- the waiting line -----------------------------------------------------------------------
def test_the_waiting_line_is_read_at_a_glance() -> None:
    told = pace.status_line(
        [job(1), job(2, status="in_progress"), job(3, step="ended", counted=40)],
        1_000,
        waited_s=10,
        quiet_s=0,
        pause=300,
        trouble=None,
        at=START + timedelta(minutes=95),
    )
    assert told.message == (
        "batch jobs: 1 queued, 1 reading, 1 running · 40 of 300 requests done · "
        "the queue may last 72 h"
    )
    assert told.elapsed_s == 95 * 60  # since the submit: a later call goes on counting
    assert len(fitting(f"1:35:00  {told.message}", 80)) < 80


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def status_line(message: str, **jobs: int) -> Progress:
    return Progress("waiting", message, jobs=jobs)


def test_a_terminal_overwrites_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    display = Display()
    for i in range(3):
        display(status_line(f"poll {i}", queued=1))
    display(Progress("note", "after"))
    drawn = terminal.getvalue()
    assert "\n" not in drawn
    assert [f"poll {i}" in drawn for i in range(3)] == [True] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines == [lines[0], "after"]
    assert "Ctrl-C is safe" in lines[0]


def test_a_log_gets_a_line_per_change_of_state(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display(Progress("asking", "trial: 1 of 5"))
    for message, states in [("a", {"queued": 1}), ("b", {"queued": 1}), ("c", {"running": 1})]:
        display(status_line(message, **states))
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:] == ["after 0 s: a", "after 0 s: c"]
    assert captured.err == ""


def test_a_log_gets_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    for answered in range(0, 1_000, 5):
        display(Progress("waiting", f"{answered}", 1_000, answered, jobs={"running": 1}))
    shown = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == [str(100 * i) for i in range(10)]


def test_a_terminal_ticks_every_second_and_a_log_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream, ticks in ((Terminal(), 5), (io.StringIO(), 1)):
        monkeypatch.setattr(sys, "stderr", stream)
        clock = FakeClock()
        display = Display()
        display(Progress("waiting", "1 running", jobs={"running": 1}, elapsed_s=3598))
        display.pause(4.5, clock.sleep)
        assert (len(clock.slept), sum(clock.slept)) == (ticks, 4.5)
        for second in ("0:59:58", "0:59:59", "1:00:00", "1:00:01", "1:00:02"):
            assert (second in stream.getvalue()) == (ticks == 5)
    capsys.readouterr()


def test_what_a_log_tells_is_not_printed_too(
    gateway: StandIn, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    frame = pd.DataFrame({"x": ["one", "two"]})
    with caplog.at_level("INFO", "nyu_llm_frames"), llm.set_options(progress=True):
        frame.llm.batch("Say {{ x }}", model=MODEL, sidecar="a.llm")
    logged = [record.getMessage() for record in caplog.records]
    assert any("new sidecar" in line for line in logged)
    assert not set(logged) & set(capsys.readouterr().out.splitlines())


def test_a_log_tells_when_trouble_begins_and_when_it_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = Display()
    for message, trouble in [("a", ""), ("b", "no answer"), ("c", "no answer"), ("d", "")]:
        display(Progress("waiting", message, jobs={"running": 1}, trouble=trouble))
    assert capsys.readouterr().out.splitlines()[1:] == [f"after 0 s: {m}" for m in "abd"]


@pytest.mark.parametrize("wait", [True, False])
def test_a_silent_run_does_not_wait_for_a_wrong_address_without_a_word(
    stand_in: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture, wait: bool
) -> None:
    frame = pd.DataFrame({"x": ["one", "two"]})
    gateway = llm.Gateway(**{**stand_in.settings, "base_url": "http://127.0.0.1:1/v1"})
    with llm.set_options(gateway=gateway, progress=False):
        if wait:
            with pytest.raises(RunTimeoutError):
                frame.llm.batch("{{ x }}", model="gemini-3-flash-preview", timeout=3600)
        else:
            frame.llm.batch("{{ x }}", model="gemini-3-flash-preview", wait=False)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == 1
    assert "no answer from http://127.0.0.1:1/v1" in told[0]


def test_progress_false_is_silent(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"x": ["one", "two"]})
    with llm.set_options(
        gateway=llm.Gateway(**stand_in.settings), progress=False, poll_interval_s=0.02
    ):
        frame.llm.trial("Say {{ x }}", model=MODEL, n=1)
        frame.llm.batch("Say {{ x }}", model=MODEL)
    assert capsys.readouterr() == ("", "")


def test_a_call_ends_with_what_it_cost(
    gateway: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.behaviour.row = rows.pick({"Say two": rows.blocked}, rows.good)
    pd.DataFrame({"x": ["one", "two"]}).to_csv("in.csv", index=False)
    frame = pd.read_csv("in.csv")
    with llm.set_options(progress=True):
        with pytest.warns(llm.errors.PartialResultWarning):
            frame.llm.batch("Say {{ x }}", model=MODEL)
        with pytest.warns(llm.errors.PartialResultWarning):
            result = llm.batch_file("in.csv", "out.csv", "Say {{ x }}", model=MODEL)
    run = frame.llm.submit("Say {{ x }}", model=MODEL)
    assert run.cost is not None
    assert run.cost == result.cost > 0
    ends = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done: ")]
    assert len(ends) == 2
    assert all(
        re.fullmatch(r"done: 2 rows \(1 ok, 1 blocked\); cost \$0\.\d+", end) for end in ends
    )


def test_a_step_says_so_far(gateway: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.behaviour.validating_polls = -1
    with llm.set_options(progress=True):
        pd.DataFrame({"x": ["one"]}).llm.batch("Say {{ x }}", model=MODEL, wait=False)
    assert capsys.readouterr().out.splitlines()[-1] == "so far: 1 row (1 pending); cost $0"


@given(st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1), st.integers(20, 120))
def test_a_line_never_wraps(parts: list[str], columns: int) -> None:
    line = fitting(" · ".join(parts), columns)
    assert len(line) < columns
    assert line.startswith(parts[0][: columns - 2])


def test_a_line_of_unknown_width_is_left_alone() -> None:
    assert fitting("a · b" * 100, None) == "a · b" * 100
