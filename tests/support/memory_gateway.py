"""The gateway in memory: no socket, no thread, no time of its own; it can die at every effect.

Comes in: the calls of a `Connection`, and a test's wishes (faults, ends of jobs, crashes). Goes
out: what the gateway would answer, and a check at every submit that nothing is paid twice.
"""

from __future__ import annotations

import copy
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._stages.batches import wire as our_wire
from nyu_llm_frames.errors import GatewayError, GatewayUnavailableError
from support import wire
from support.jobs import Behaviour, Job

BUCKET, MODEL, PAGE = "memory-bucket", "gemini-3-flash-preview", 100


class Crash(BaseException):
    """The process dies here."""


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.epoch, self._t = "boot-0", 1000.0

    def monotonic(self) -> float:
        return self._t

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._t)

    def sleep(self, seconds: float) -> None:
        self._t += seconds

    def reboot(self) -> None:
        """Start to count anew, as a machine does."""
        self.epoch, self._t = f"{self.epoch}'", 10.0


class World:
    """All that outlives a process: the provider's jobs and files, and the clock.

    Attributes
    ----------
    behaviour : Behaviour
        For the jobs to come.
    outcomes : list of str
        What becomes of the next submits: `made`, `lost` (made, the answer is lost), `late` (the
        same, and the list shows it `late_s` later), `slow` (the same, but it is only made then),
        `nothing` (not made, no answer), `busy`, `refused`, `forbidden`.
    rush : int
        So many jobs of others follow a submit whose answer is lost.
    trouble : int
        So many calls other than a submit fail as unavailable.
    crash_at : int or None
        The process dies at the effect of this number from now.
    at_effect : callable, optional
        Called with the name of each effect, before a crash is considered.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.behaviour = Behaviour()
        self.outcomes: list[str] = []
        self.late_s = 20.0
        self.rush = 0
        self.trouble = 0
        self.crash_at: int | None = None
        self.dead = False  # until its threads have ended, too
        self.at_effect: Callable[[str], None] | None = None
        self.files: dict[str, bytes] = {}
        self.jobs: list[Job] = []  # everybody's
        self.hidden: dict[str, float] = {}
        self._slow: list[tuple[float, str, str]] = []
        self.submitted: list[str] = []
        self._lock = threading.Lock()

    def reboot(self) -> None:
        """Let the machine start again, which takes longer than any submit is under way."""
        self.hidden.clear()
        self._slow = [(0.0, file_id, model) for _, file_id, model in self._slow]
        self.clock.reboot()
        self.pass_time()

    # --- crashes ----------------------------------------------------------------------------
    def effect(self, name: str) -> None:
        """Come by an effect: a point at which the process may die."""
        if self.at_effect is not None:
            self.at_effect(name)
        with self._lock:
            if self.crash_at is not None:
                self.crash_at -= 1
                self.dead = self.dead or self.crash_at < 0
                self.crash_at = None if self.dead else self.crash_at
        if self.dead:
            raise Crash(name)

    # --- jobs -------------------------------------------------------------------------------
    @property
    def ours(self) -> list[Job]:
        """The jobs of the package; each one is paid."""
        return [job for job in self.jobs if not job.foreign]

    def pass_time(self) -> None:
        """Make the jobs whose submit was under way until now."""
        due = [slow for slow in self._slow if self.clock.monotonic() >= slow[0]]
        self._slow = [slow for slow in self._slow if slow not in due]
        for _, file_id, model in due:
            self.make(file_id, model)

    def in_flight(self, file_id: str) -> bool:
        """Say whether a job will still be made of a file."""
        return any(f == file_id for _, f, _ in self._slow)

    def make(self, file_id: str, model: str) -> Job:
        """Make a batch job, and check that none of its requests is paid already."""
        lines = [json.loads(line) for line in self.files[_name(file_id)].splitlines()]
        job = Job(
            id=str(10_000 + len(self.jobs)),
            created_seq=len(self.jobs),
            input_file_id=file_id,
            model=model,
            behaviour=copy.copy(self.behaviour),
            requests=[(line["custom_id"], line["body"]) for line in lines],
            stored=[wire.google_request(line) for line in lines],
            created_at=int(self.clock.monotonic() * 1000),
        )
        for custom_id in job.custom_ids:
            for other in self.ours:
                if custom_id in other.custom_ids:
                    self._check_sent_again(custom_id, other)
        assert len(set(job.custom_ids)) == len(job.custom_ids)
        self.jobs.append(job)
        return job

    def _check_sent_again(self, custom_id: str, other: Job) -> None:
        assert other.ended_at is not None, f"{custom_id} is sent while job {other.id} runs"
        answered = [line for _, line in other.lines if _answers(line, custom_id)]
        assert not answered, f"{custom_id} is sent although job {other.id} answered it"

    def add_foreign(self, n: int) -> None:
        """Let other people submit jobs."""
        for _ in range(n):
            job = Job(
                id=str(10_000 + len(self.jobs)),
                created_seq=len(self.jobs),
                input_file_id="gs%3A%2F%2Fother%2Fin.jsonl",
                model=MODEL,
                behaviour=Behaviour(),
                requests=[],
                stored=[],
                created_at=0,
            )
            job.foreign = True
            self.jobs.append(job)

    def find(self, file_id: str) -> Job | None:
        """Return the job that was made of a file."""
        return next((job for job in self.ours if job.input_file_id == file_id), None)


def _answers(line: bytes, custom_id: str) -> bool:
    row = json.loads(line)
    good = not row.get("error") and bool(row["response"]["body"].get("choices"))
    return good and row.get("custom_id") == custom_id


def _file_id(name: str) -> str:
    return urllib.parse.quote(f"gs://{BUCKET}/{name}", safe="")


def _name(file_id: str) -> str:
    return urllib.parse.unquote(file_id).removeprefix(f"gs://{BUCKET}/")


def _batch(job: Job) -> our_wire.Batch:
    batch = our_wire.read_batch(wire.encode(job.resource()))
    assert batch is not None
    return batch


class MemoryConnection:
    """What a `Connection` does, done in memory."""

    stored_refused = False

    def close(self) -> None:
        """Nothing to close."""

    def load_client(self) -> None:
        """No client makes its headers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _read(self, name: str) -> None:
        world = self._world
        world.effect(f"before {name}")
        world.pass_time()
        if world.trouble:
            world.trouble -= 1
            raise GatewayUnavailableError(f"{name}: trouble", status_code=503)

    def upload(self, file: BinaryIO, file_name: str, model: str) -> str:
        self._read("upload")
        assert file_name not in self._world.files  # dead before it was written down, it is another
        file_id = _file_id(file_name)
        self._world.files[file_name] = file.read()
        self._world.effect("after upload")
        return file_id

    def create(self, input_file_id: str, model: str) -> our_wire.CreateOutcome:
        world = self._world
        world.effect("before create")
        world.pass_time()
        assert input_file_id not in world.submitted, "a file is submitted twice"
        outcome = world.outcomes.pop(0) if world.outcomes else "made"
        if outcome == "busy":
            return our_wire.Busy("quota", 30.0)
        if outcome in ("refused", "forbidden"):
            status = 400 if outcome == "refused" else 401
            world.effect("after create")
            return our_wire.Refused(status, outcome)
        world.submitted.append(input_file_id)
        if outcome == "slow":
            world._slow.append((world.clock.monotonic() + world.late_s, input_file_id, model))
        elif outcome != "nothing":
            job = world.make(input_file_id, model)
            if outcome == "late":
                world.hidden[job.id] = world.clock.monotonic() + world.late_s
        if outcome != "made":
            world.add_foreign(world.rush)
        world.effect("after create")
        if outcome != "made":
            return our_wire.Uncertain("the answer was lost")
        return our_wire.Created(_batch(job))

    def _job(self, batch_id: str) -> Job:
        job = next((j for j in self._world.jobs if j.id == batch_id), None)
        if job is None:
            raise GatewayError("no such job", status_code=404)
        return job

    def retrieve(self, batch_id: str) -> our_wire.Batch:
        self._read("retrieve")
        job = self._job(batch_id)
        job.advance()
        self._world.effect("after retrieve")
        return _batch(job)

    def list(self) -> our_wire.JobList:
        self._read("list")
        world = self._world
        now = world.clock.monotonic()
        shown = [j for j in reversed(world.jobs) if world.hidden.get(j.id, 0.0) <= now]
        page = tuple((j.id, j.input_file_id) for j in shown[:PAGE])
        world.effect("after list")
        return our_wire.JobList(page, has_more=len(shown) > PAGE)

    def cancel(self, batch_id: str) -> None:
        self._read("cancel")
        job = self._job(batch_id)
        if job.ended_at is None and job.cancel_polls is None:
            job.status, job.cancel_polls = "cancelling", job.behaviour.cancelling_polls
        self._world.effect("after cancel")

    def output(self, batch_id: str) -> Iterator[bytes]:
        self._read("output")
        job = self._job(batch_id)
        if not job.has_output:
            raise GatewayUnavailableError("no output", status_code=500)
        lines = job.output()
        data = b"".join(line + b"\n" for line in lines)
        if job.reads <= job.behaviour.short_reads:
            data = b"".join(line + b"\n" for line in lines[: len(lines) // 2])
        for start in range(0, len(data), 700):
            yield data[start : start + 700]
            self._world.effect("during output")

    def content(self, file_id: str) -> Iterator[bytes]:
        self._read("content")
        job = self._output_of(file_id)
        if job is None or job.behaviour.content_fails:
            raise GatewayUnavailableError("not readable", status_code=500)
        yield job.raw

    def stored_bytes(self, file_id: str) -> int | None:
        self._read("size")
        job = self._output_of(file_id)
        return None if job is None else len(job.raw)

    def _output_of(self, file_id: str) -> Job | None:
        return next((j for j in self._world.jobs if j.lines and j.output_file_id == file_id), None)

    def revive(self) -> None:
        pass


class MemoryGateway(Gateway):
    """A gateway whose connection is memory."""

    def __init__(self, world: World) -> None:
        super().__init__(api_key="memory", bucket=BUCKET, provider="@memory")
        object.__setattr__(self, "world", world)

    @property
    def identity(self) -> str:
        return "memory:"

    def connect(self) -> Any:
        return MemoryConnection(self.world)  # type: ignore[attr-defined]
