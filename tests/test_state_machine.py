"""Runs against a gateway in memory, with crashes between any two effects.

One sidecar is driven in turn by a frame, a file, the command line, and by itself. Whatever dies
and whatever the gateway does: nothing is paid twice, every answer stands in the row of its prompt,
and once the world is quiet the same call ends with every row answered. The sidecar is the real
one, in a folder; the clock moves only when somebody sleeps.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pandas as pd
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import rows
from support.jobs import Behaviour
from support.memory_gateway import Crash, MemoryGateway, World
from support.stand_in import answer

import nyu_llm_frames as llm
from nyu_llm_frames._shared.clock import SystemClock, use_clock
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    GatewayError,
    PartialResultWarning,
    RunTimeoutError,
    UncertainSubmissionError,
)

TEXTS = st.integers(0, 30)
ENDS: dict[str, dict[str, Any]] = {
    "good": {},
    "slow": {"validating_polls": 4, "running_polls": 4},
    "failed": {"terminal": "failed"},
    "failed with some answers": {"terminal": "failed", "partial_pct": 50.0},
    "expired with some answers": {"terminal": "expired", "partial_pct": 50.0},
    "expired": {"terminal": "expired"},
    "cancelled": {"terminal": "cancelled", "partial_pct": 30.0},
    "a word nobody knows": {"terminal": "paused_by_moonlight"},
    "stuck": {"running_polls": -1},
    "some rows missing": {"row": rows.some(rows.missing, 40)},
    "some rows failed": {"row": rows.some(rows.failed(503), 40)},
    "every row twice": {"row": rows.duplicate},
    "failed and good rows": {"row": rows.conflict},
    "rows without id": {"row": rows.some(rows.no_id, 40)},
    "short at first": {"short_reads": 2, "content_fails": -1},
    "short at first, file readable": {"short_reads": 1},
    "no counts": {"counts": "absent", "short_reads": 1},
    "damaged characters": {"damage": rows.damaged(2), "content_fails": -1},
}
OUTCOMES = ["made", "lost", "late", "slow", "nothing", "busy", "refused", "forbidden"]
PROCESS = st.integers(0, 1)
MOOD = st.tuples(
    st.lists(st.sampled_from(OUTCOMES), max_size=3),
    st.sampled_from(sorted(ENDS)),
    st.sampled_from([0, 0, 0, 120]),
)
OPTIONS: dict[str, Any] = {
    "progress": False,
    "max_requests_per_file": 3,
    "poll_interval_s": 5,
    "max_poll_interval_s": 60,
    "submit_settle_s": 60,
    "output_settle_s": 60,
}


class Uncertain(Exception):
    """A command ended because of an uncertain submission."""


def command(*words: object) -> int:
    """Run a command of the command line; return its exit code."""
    found = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    if found.exit_code == exits.UNCERTAIN:
        raise Uncertain(found.output)
    refused = "refused" in found.output or "forbidden" in found.output
    may_end = {exits.OK, exits.NO_GOOD_ANSWER, exits.PENDING, exits.JOB_FAILED, exits.TRY_LATER}
    assert found.exit_code in may_end or refused, found.output
    return found.exit_code


def by_frame(folder: Path, frame: pd.DataFrame, *, wait: bool, retries: int) -> pd.DataFrame:
    out: pd.DataFrame = frame.llm.batch(
        "{{ q }}",
        model=MODEL,
        wait=wait,
        timeout=TIMEOUT_S if wait else None,
        retries=retries,
        details=True,
        sidecar=folder / "s",
    )
    return out


def by_file(folder: Path, frame: pd.DataFrame, *, wait: bool, retries: int) -> pd.DataFrame:
    frame.to_parquet(folder / "in.parquet")
    llm.batch_file(
        folder / "in.parquet",
        folder / "out.parquet",
        "{{ q }}",
        model=MODEL,
        wait=wait,
        timeout=TIMEOUT_S if wait else None,
        retries=retries,
        details=True,
        sidecar=folder / "s",
    )
    return pd.read_parquet(folder / "out.parquet")


def by_command(
    folder: Path, frame: pd.DataFrame, *, wait: bool, retries: int
) -> pd.DataFrame | None:
    frame.to_parquet(folder / "in.parquet")
    how = ["--timeout", TIMEOUT_S] if wait else ["--no-wait"]
    call = ["--prompt", "{{ q }}", "--model", MODEL, "--retries", retries, "--details"]
    place = ["--out", folder / "out.parquet", "--sidecar", folder / "s"]
    (folder / "out.parquet").unlink(missing_ok=True)
    command("-q", "batch", folder / "in.parquet", *call, *place, *how)
    written = (folder / "out.parquet").exists()
    return pd.read_parquet(folder / "out.parquet") if written else None


def by_sidecar_alone(folder: Path, frame: pd.DataFrame, *, wait: bool, retries: int) -> None:
    """Go on with what other calls began; there is no frame to look at."""
    if not (folder / "s" / "jobs").exists():
        return
    if retries > 1:
        command("-q", "retry", folder / "s")
    if wait:
        command("-q", "wait", folder / "s", "--retries", retries, "--timeout", TIMEOUT_S)
    else:
        command("-q", "collect", folder / "s")


MODEL, TIMEOUT_S = "gemini-3-flash-preview", 4 * 3600
DOORS: dict[str, Callable[..., pd.DataFrame | None]] = {
    "frame": by_frame,
    "file": by_file,
    "command line": by_command,
    "sidecar alone": by_sidecar_alone,
}


class Surroundings(SystemClock):
    """The world's time, for whichever of the two processes has its turn; no dice."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self._time, self._names = runs, runs.world.clock, itertools.count()

    @property
    def epoch(self) -> str:  # type: ignore[override]
        return self._time.epoch

    def monotonic(self) -> float:
        return self._time.monotonic()

    def now(self) -> datetime:
        return self._time.now()

    def sleep(self, seconds: float) -> None:
        self._time.sleep(seconds)

    @property
    def process(self) -> str:
        return self._runs.tokens[self._runs.now]

    def is_dead(self, process: str) -> bool:
        return process in self._runs.dead

    def unique(self) -> str:
        return f"{next(self._names):08d}"

    def jitter(self, low: float, high: float) -> float:
        return high


class Runs(RuleBasedStateMachine):
    """One sidecar, two processes that take turns, one gateway."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.gateway = MemoryGateway(self.world)
        self.texts: list[int] = []
        self.dead: set[str] = set()
        self.incarnation = itertools.count()
        self.tokens = [self._born(), self._born()]
        self.now = 0
        self.interlude: Callable[[], None] | None = None
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._stack.enter_context(llm.set_options(**OPTIONS, gateway=self.gateway))
        world = self.world
        replace = Path.replace

        def watched(path: Path, target: Any) -> Path:
            world.effect("before rename")
            out = replace(path, target)
            world.effect("after rename")
            return out

        self._stack.enter_context(mock.patch.object(Path, "replace", watched))
        self._stack.enter_context(mock.patch.object(os, "fsync", return_value=None))
        self._stack.enter_context(use_clock(Surroundings(self)))
        world.at_effect = self._come_by

    def teardown(self) -> None:
        try:
            if self.texts:
                self._end_well()
        finally:
            self._stack.close()

    # --- processes --------------------------------------------------------------------------
    def _born(self) -> str:
        return f"host/boot/{next(self.incarnation)}/1"

    def _dies(self) -> None:
        self.world.dead = False
        self.dead.add(self.tokens[self.now])
        self.tokens[self.now] = self._born()

    def _come_by(self, effect: str) -> None:
        """Let the other process take a step where this one holds no lock."""
        free = not (self.folder / "s" / "lock.owner").exists()
        if self.interlude is not None and free and effect in ("before retrieve", "during output"):
            act, self.interlude = self.interlude, None
            me, crash = self.now, self.world.crash_at
            self.now, self.world.crash_at = 1 - me, None
            try:
                act()
            finally:
                self.now, self.world.crash_at = me, crash

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame({"q": [f"question {t}\u2028{t}" for t in self.texts]})

    def call(self, *, wait: bool = True, retries: int = 1, door: str = "frame") -> Any:
        """Make the call; None where it ended with an error that it may end with."""
        frame = self.frame()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PartialResultWarning)
                out = DOORS[door](self.folder, frame, wait=wait, retries=retries)
        except Crash:
            self._dies()
            return None
        except UncertainSubmissionError as e:
            if e.run is None:
                raise
            self._settle(e.input_file_id, e.run.resolve)
            return None
        except Uncertain:
            self._settle_alone()
            return None
        except (BatchJobFailedError, RunTimeoutError):
            return None
        except GatewayError as e:
            if not str(e).startswith(("refused", "forbidden")):
                raise
            return None
        if out is not None:
            self._check(frame, out)
        return out

    def _check(self, frame: pd.DataFrame, out: pd.DataFrame) -> None:
        assert len(out) == len(frame)
        status = out["response_status"].astype(str)
        for q, text, error, s in zip(
            out["q"], out["response"], out["response_error"], status, strict=True
        ):
            if s == "ok":
                assert text == answer(q)
            elif s == "pending":
                assert pd.isna(text)
                assert pd.isna(error)
            else:
                assert s in ("failed", "empty", "missing", "damaged"), s
                assert isinstance(error, str)
                assert error

    def _settle(self, input_file_id: str, resolve: Callable[..., object]) -> None:
        """Do what the message asks of the user, by what is true at the gateway."""
        while self.world.in_flight(input_file_id):
            self.world.clock.sleep(60)
            self.world.pass_time()
        job = self.world.find(input_file_id)
        try:
            if job is not None:
                resolve(adopt=job.id)
            else:
                resolve(resubmit=True)
        except Crash:  # the user's process can die there, too
            self._dies()

    def _settle_alone(self) -> None:
        """Settle by the command line what a command left uncertain."""

        def resolve(adopt: str = "", resubmit: bool = False) -> None:
            command("resolve", sidecar, "--resubmit" if resubmit else f"--adopt={adopt}")

        sidecar = self.folder / "s"
        jobs = llm.open_sidecar(sidecar).jobs()
        for name in jobs[jobs["step"] == "creating"]["input_file_id"]:
            self._settle(name, resolve)

    # --- what may happen --------------------------------------------------------------------
    @initialize(texts=st.lists(TEXTS, min_size=1, max_size=8))
    def start(self, texts: list[int]) -> None:
        self.texts = texts

    def _mood(self, mood: tuple[list[str], str, int]) -> None:
        outcomes, end, rush = mood
        self.world.outcomes, self.world.rush = list(outcomes), rush
        self.world.behaviour = Behaviour(**ENDS[end])

    @rule(
        process=PROCESS,
        mood=MOOD,
        wait=st.booleans(),
        retries=st.integers(0, 2),
        door=st.sampled_from(sorted(DOORS)),
    )
    def run(self, process: int, mood: Any, wait: bool, retries: int, door: str) -> None:
        self.now = process
        self._mood(mood)
        self.call(wait=wait, retries=retries, door=door)

    @rule(
        process=PROCESS,
        mood=MOOD,
        wait=st.booleans(),
        at=st.integers(0, 60),
        door=st.sampled_from(sorted(DOORS)),
    )
    def run_and_die(self, process: int, mood: Any, wait: bool, at: int, door: str) -> None:
        self.now, self.world.crash_at = process, at
        self._mood(mood)
        self.call(wait=wait, door=door)
        self.world.crash_at = None

    @rule(process=PROCESS, mood=MOOD, texts=st.lists(TEXTS, min_size=1, max_size=4))
    def run_while_the_other_steps(self, process: int, mood: Any, texts: list[int]) -> None:
        mine, theirs = self.texts, self.texts[1:] + texts

        def other() -> None:
            self.texts = theirs
            try:
                self.call(wait=False)
            finally:
                self.texts = mine

        self._mood(mood)
        self.now, self.interlude = process, other
        self.call()
        self.interlude = None

    @rule(n=st.integers(1, 5))
    def trouble(self, n: int) -> None:
        self.world.trouble = n

    @rule(n=st.sampled_from([1, 3, 120]))
    def others_submit(self, n: int) -> None:
        if len(self.world.jobs) < 400:
            self.world.add_foreign(n)

    @rule(text=TEXTS)
    def add_row(self, text: int) -> None:
        if len(self.texts) < 10:
            self.texts.append(text)

    @precondition(lambda self: len(self.texts) > 1)
    @rule(at=st.integers(0, 20))
    def drop_row(self, at: int) -> None:
        del self.texts[at % len(self.texts)]

    @rule(at=st.integers(0, 20), text=TEXTS)
    def edit_row(self, at: int, text: int) -> None:
        self.texts[at % len(self.texts)] = text

    @rule(seconds=st.sampled_from([1.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.sleep(seconds)

    @rule()
    def stuck_jobs_go_on(self) -> None:
        for job in self.world.ours:
            job.finish_now = True

    @rule(cancelled=st.integers(0, 5))
    def somebody_cancels(self, cancelled: int) -> None:
        jobs = self.world.ours
        if jobs and jobs[cancelled % len(jobs)].ended_at is None:
            jobs[cancelled % len(jobs)].cancel_polls = 0

    @rule()
    def reboot(self) -> None:
        self.dead.update(self.tokens)
        self.tokens = [self._born(), self._born()]
        self.world.reboot()

    # --- what is always so ------------------------------------------------------------------
    @invariant()
    def every_job_was_meant(self) -> None:
        files = [job.input_file_id for job in self.world.ours]
        assert len(files) == len(set(files))

    def _end_well(self) -> None:
        """Let the world be quiet: the same call then ends with every row answered."""
        world = self.world
        world.trouble = 0
        self._mood(([], "good", 0))
        for _ in range(12):
            for job in world.ours:
                job.finish_now = True
                job.behaviour.terminal = job.behaviour.terminal.replace("paused", "failed")
                if job.behaviour.terminal.startswith("failed"):
                    job.behaviour.terminal = "failed"
            out = self.call(retries=100)
            if out is not None and (out["response_status"].astype(str) == "ok").all():
                break
        else:
            raise AssertionError(f"not all ok: {out}")
        paid = len(world.ours)
        again = self.call()
        assert again is not None
        pd.testing.assert_frame_equal(again, out)
        assert len(world.ours) == paid


Runs.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATE_MACHINE_EXAMPLES", "25")),
    stateful_step_count=20,
    deadline=None,
    # A failure is shown as it was found: making it smaller takes minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestRuns = Runs.TestCase
