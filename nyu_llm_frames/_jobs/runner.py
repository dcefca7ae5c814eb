"""The thin part that acts: it does what the jobs' records ask for, one saved step at a time.

Comes in: the distinct requests of a run, a sidecar, a gateway, a clock. Goes out: effects at the
gateway, each preceded by a record of the intent. Decisions are `_jobs` and `_planning`; here they
are only carried out, under the lock where they write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, assert_never

import msgspec
import numpy as np
import tenacity

from nyu_llm_frames._clock import Clock, process_token
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.wire import Busy, Created, JobList, Refused, Uncertain
from nyu_llm_frames._jobs import job as _jobs
from nyu_llm_frames._jobs.harvest import Harvest
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._options import Options
from nyu_llm_frames._progress import Phase, Progress, Reporter, duration
from nyu_llm_frames._requests import planning as _planning
from nyu_llm_frames._requests import shards as _shards
from nyu_llm_frames._requests.bodies import Requests
from nyu_llm_frames._requests.planning import Standing
from nyu_llm_frames._sidecar.answer_store import positions
from nyu_llm_frames._sidecar.folder import Sidecar, new_name, owner_is_gone
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    GatewayError,
    GatewayUnavailableError,
    RunTimeoutError,
    UncertainSubmissionError,
)

T = TypeVar("T")
_STUCK_S = 3600.0  # without any change of state for so long, every line says so


class Runner:
    """Drives the batch jobs that carry the requests of one run.

    Parameters
    ----------
    name : str
        The run's name in the sidecar.
    requests : Requests
    sidecar : Sidecar
    gateway : Gateway
    options : Options
    clock : Clock
    report : Reporter
    retries : int
        Attempts per request beyond the first.
    """

    def __init__(
        self,
        name: str,
        requests: Requests,
        sidecar: Sidecar,
        gateway: Gateway,
        options: Options,
        clock: Clock,
        report: Reporter,
        retries: int,
    ) -> None:
        self.name, self.requests, self.sidecar = name, requests, sidecar
        self.gateway, self.options, self.clock = gateway, options, clock
        self.report, self.retries = report, retries
        self.realm = gateway.realm
        self.mine: list[str] = []
        self.failed: dict[str, Job] = {}
        self._stopped: set[str] = set()
        self._me = process_token()
        self._connection: Connection | None = None
        self._harvests: dict[str, Harvest] = {}
        self._trouble: GatewayUnavailableError | None = None
        self._idle = 0
        self._since: float | None = None
        self._changed_at = clock.monotonic()
        self._reread: set[str] = set()

    # --- what stands -----------------------------------------------------------------------
    @property
    def connection(self) -> Connection:
        """The open gateway; made at the first effect."""
        if self._connection is None:
            self._connection = self.gateway.connect()
        return self._connection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.sidecar.lock.held(lambda text: self._say("note", text)):
            yield

    def jobs(self) -> dict[str, Job]:
        """The batch jobs of this run as they stand now."""
        every = self.sidecar.jobs()
        return {name: every[name] for name in self.mine if name in every}

    def active(self) -> list[Job]:
        """Those of them that are not over."""
        return [job for job in self.jobs().values() if job.carries]

    def standing(self, every: dict[str, Job] | None = None) -> Standing:
        """Where each distinct request stands, by the sidecar as it is now."""
        ids = self.requests.ids
        m = len(ids)
        standing = Standing(
            rank=self.sidecar.best_answers(ids).rank,
            attempts=np.zeros(m, np.int64),
            carried=np.zeros(m, np.bool_),
            barred=np.zeros(m, np.bool_),
        )
        if standing.final.all():
            return standing
        mine = []
        for job in (self.sidecar.jobs() if every is None else every).values():
            if job.realm != self.realm or job.step in ("rejected", "withdrawn"):
                continue
            at = positions(self.sidecar.request_ids(job.name), ids)
            at = at[at >= 0]
            if not len(at):
                continue
            mine.append(job.name)
            if job.carries:
                standing.carried[at] = True
            elif job.attempt:
                standing.attempts[at] += 1
            if job.name in self.failed or job.name in self._stopped:
                standing.barred[at] = True
        self.mine = mine
        return standing

    # --- planning --------------------------------------------------------------------------
    def plan(self, *, again: bool = False) -> int:
        """Decide under the lock what to send, and write it down; return how much is under way.

        Parameters
        ----------
        again : bool
            Whether to send also what has been tried often enough.
        """
        if not len(self.requests) or self.standing().final.all():
            return 0
        with self._locked():
            self.sidecar.tidy()
            every = self.sidecar.jobs()
            self._withdraw(every)
            standing = self.standing(every)
            send = _planning.to_send(standing, self.retries, again=again)
            if send.any() and self._reopen(every, standing, send):
                standing = self.standing(every)
                send = _planning.to_send(standing, self.retries, again=again)
            chosen = np.flatnonzero(send)
            if len(chosen):
                self._write_plan(chosen)
        return int(standing.carried.sum()) + len(chosen)

    def _withdraw(self, every: dict[str, Job]) -> None:
        """Take back jobs that were never made, when nobody drives them and they carry more.

        A planned job of a run that was interrupted may hold rows that were edited or dropped
        since; driving it would pay for them.
        """
        for name, job in list(every.items()):
            if job.realm != self.realm or job.step not in _jobs.UNMADE:
                continue
            at = positions(self.sidecar.request_ids(name), self.requests.ids)
            hits = int((at >= 0).sum())
            if 0 < hits < len(at) and job.run != self.name and owner_is_gone(job, self._me):
                every[name] = _jobs.withdrawn(job, self.clock.now())
                self.sidecar.save_job(every[name])

    def _reopen(self, every: dict[str, Job], standing: Standing, send: _planning.Mask) -> bool:
        """Read outputs again that may hold what would otherwise be paid again."""
        reopened = False
        unanswered = send & (standing.rank < 0)
        for name, job in list(every.items()):
            if job.step != "done" or job.realm != self.realm or name in self._reread:
                continue
            if job.batch_id is None or job.failed_empty:
                continue
            if job.complete and (job.answers == 0 or self.sidecar.has_answers_of(name)):
                continue
            at = positions(self.sidecar.request_ids(name), self.requests.ids)
            if unanswered[at[at >= 0]].any():
                every[name] = _jobs.anchored(_jobs.reopened(job), "", 0.0)
                self.sidecar.save_job(every[name])
                self._reread.add(name)
                reopened = True
        return reopened

    def _write_plan(self, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        sizes = self.requests.line_bytes()[chosen]
        options = self.options
        now = self.clock.now()
        base = new_name(now)
        ranges = _shards.split(sizes, options.max_requests_per_file, options.max_bytes_per_file)
        for number, (start, stop) in enumerate(ranges, 1):
            part = chosen[start:stop]
            job = Job(
                name=f"{base}-{number}",
                run=self.name,
                owner=self._me,
                realm=self.realm,
                model=self.requests.shape.model,
                requests=len(part),
                file_bytes=int(sizes[start:stop].sum()),
                planned_at=now,
            )
            self.sidecar.add_requests(
                job.name, self.requests.ids.take(part), self.requests.bodies(part)
            )
            self.sidecar.save_job(job)
            self.mine.append(job.name)

    # --- steps -----------------------------------------------------------------------------
    def advance(self) -> bool:
        """Do for every job what it asks for, once; return whether any moved on.

        Raises
        ------
        AuthenticationError, GatewayError, UncertainSubmissionError
        """
        moved = False
        self._trouble = None
        self._settle_others()
        for job in self.active():
            before = job.step
            try:
                after = self._act(job)
            except GatewayUnavailableError as e:
                self._trouble = e
                if self._connection is not None and not e.connected:
                    self._connection.revive()
                continue
            if after is not None and (after.step != before or after.status != job.status):
                self._changed_at = self.clock.monotonic()
                moved = moved or after.step != before
        return moved

    def _act(self, job: Job) -> Job | None:
        action = job.action
        match action:
            case "upload":
                return self._patiently(lambda: self._upload(job.name))
            case "submit":
                return self._submit(job.name)
            case "settle":
                return self._settle(job)
            case "poll":
                return self._poll(job)
            case "harvest":
                return self._read_output(job)
            case "nothing":
                return None
            case _:
                assert_never(action)

    def _patiently(self, step: Callable[[], T]) -> T:
        """Repeat a read or an upload a few times; a submit never comes here."""

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after_s", None)
            return float(asked) if asked is not None else 0.5 * 2.0**state.attempt_number

        def worth_it(error: BaseException) -> bool:
            if not isinstance(error, GatewayUnavailableError) or not error.connected:
                return False  # nobody is there: the pace of polling is right for that
            return (error.retry_after_s or 0) <= self.options.poll_interval_s

        return tenacity.Retrying(
            sleep=self.clock.sleep,
            wait=pause,
            stop=tenacity.stop_after_attempt(3),
            retry=tenacity.retry_if_exception(worth_it),
            reraise=True,
        )(step)

    def _upload(self, name: str) -> Job:
        with self._locked():
            job = self.sidecar.job(name)
            if job.step != "planned":
                return job
            connection = self.connection
            self._say(
                "uploading",
                f"uploading {job.requests:,} requests ({job.file_bytes / 1e6:,.1f} MB)",
            )
            with self.sidecar.request_file(name) as path:
                file_id = connection.upload(path, job.file_name, job.model)
            return self._save(_jobs.uploaded(job, file_id, self.clock.now()))

    def _submit(self, name: str) -> Job:
        with self._locked():
            every = self.sidecar.jobs()
            job = every[name]
            if job.step != "uploaded" or any(j.step == "creating" for j in every.values()):
                return job
            connection = self.connection
            listed = self._list()
            job = self._save(
                _jobs.intended(
                    job,
                    listed,
                    gateway=self.gateway.identity,
                    epoch=self.clock.epoch,
                    from_s=self.clock.monotonic(),
                    at=self.clock.now(),
                )
            )
            assert job.input_file_id
            outcome = connection.create(job.input_file_id, job.model)
            match outcome:
                case Created(batch):
                    job = self._save(_jobs.created(job, batch, self.clock.now()))
                    self._say("submitting", f"submitted as batch job {batch.id}")
                    return job
                case Refused(status_code, reason):
                    if status_code in (401, 403):
                        self._save(_jobs.not_created(job, reason))
                        raise AuthenticationError(reason, status_code=status_code)
                    self._save(_jobs.rejected(job, reason, self.clock.now()))
                    raise GatewayError(
                        f"{reason} Nothing was submitted. Is model={job.model!r} the name of a "
                        "model that the provider has for batch inference?",
                        status_code=status_code,
                    )
                case Busy(reason, retry_after_s):
                    self._save(_jobs.not_created(job, reason))
                    error = GatewayUnavailableError(reason)
                    error.retry_after_s = retry_after_s
                    raise error
                case Uncertain(reason):
                    self._say("settling", f"no certain answer to the submit ({reason})")
                    return self._save(_jobs.doubted(job, reason))
                case _:
                    assert_never(outcome)

    def _list(self) -> JobList | None:
        """Read the job list; None where the gateway has none to read."""
        try:
            return self._patiently(self.connection.list)
        except (GatewayUnavailableError, AuthenticationError) as e:
            if e.status_code == 403:
                return None
            raise
        except GatewayError:
            return None

    def _settle_others(self) -> None:
        """Settle uncertain submits of other runs: nothing is created before."""
        if not any(job.step in _jobs.UNMADE for job in self.active()):
            return
        for job in self.sidecar.jobs().values():
            if job.step == "creating" and job.name not in self.mine:
                try:
                    self._settle(job)
                except GatewayUnavailableError as e:
                    self._trouble = e

    def _settle(self, job: Job) -> Job:
        """Take a look at the job list for a job that may exist."""
        if job.gateway != self.gateway.identity or job.realm != self.realm:
            raise self._uncertain(
                job,
                f"It was submitted through {job.gateway} with provider {job.realm}, and only that "
                "one can tell: make the call once with that gateway.",
            )
        if job.settle_epoch != self.clock.epoch:
            with self._locked():
                fresh = self.sidecar.job(job.name)
                if fresh.step == "creating" and fresh.settle_epoch == job.settle_epoch:
                    fresh = self._save(
                        _jobs.anchored(fresh, self.clock.epoch, self.clock.monotonic())
                    )
                job = fresh
            if job.step != "creating":
                return job
        listed = self._list()
        elapsed = self.clock.monotonic() - job.settle_from_s
        settled = elapsed >= self.options.submit_settle_s
        with self._locked():
            fresh = self.sidecar.job(job.name)
            if fresh != job:
                return fresh  # somebody else looked meanwhile
            fresh = _jobs.settle(job, listed, settled=settled, at=self.clock.now())
            if fresh != job:
                self._save(fresh)
        if fresh.step == "live":
            self._say("settling", f"found at the gateway: batch job {fresh.batch_id}")
        elif fresh.step == "planned":
            self._say("settling", "the uncertain submit made no job; submitting again")
        if _jobs.undecidable(fresh):
            raise self._uncertain(
                fresh, "The job list does not reach back far enough to show that it was not made."
            )
        return fresh

    def _uncertain(self, job: Job, why: str) -> UncertainSubmissionError:
        return UncertainSubmissionError(
            f"A submit of {job.requests:,} requests ended without a certain answer "
            f"({job.error or 'the process died during it'}): the batch job may or may not exist. "
            f"{why} Nothing more is submitted from {self.sidecar.path} until this is settled. "
            f"Look for a job with the input file {job.input_file_id}; then call "
            'error.run.resolve(adopt="<batch id>") if it is there, or '
            "error.run.resolve(resubmit=True) if it surely is not.",
            job=job.name,
            input_file_id=job.input_file_id or "",
        )

    def _poll(self, job: Job) -> Job:
        assert job.batch_id
        try:
            batch = self.connection.retrieve(job.batch_id)
        except AuthenticationError:
            raise
        except GatewayUnavailableError:
            raise
        except GatewayError as e:
            raise GatewayError(
                f"{e} The job was submitted through {job.gateway}"
                + (
                    f", and this call uses {self.gateway.identity}."
                    if job.gateway != self.gateway.identity
                    else ". Its record is kept, and nothing is sent again."
                ),
                status_code=e.status_code,
                body=e.body,
            ) from None
        with self._locked():
            fresh = self.sidecar.job(job.name)
            if fresh.step != "live" or fresh.batch_id != job.batch_id:
                return fresh
            after = _jobs.polled(fresh, batch, self.clock.now())
            if after != fresh:
                self._save(after)
        return after

    def _read_output(self, job: Job) -> Job:
        harvest = self._harvests.get(job.name)
        if harvest is None:
            harvest = Harvest(
                set(self.sidecar.request_ids(job.name).to_pylist()),
                lambda: self.sidecar.prompts_with_replacement(job.name),
            )
            self._harvests[job.name] = harvest
        if harvest.looks == 0:
            self._say("reading", f"batch job {job.batch_id} {job.status}: reading its output")
        writer = self.sidecar.answer_writer(job.name)
        try:
            enough = harvest.look(job, self.connection, writer)
            over = enough or self._output_settled(job)
            if over:
                harvest.finish(writer)
            with self._locked():
                fresh = self.sidecar.job(job.name)
                if fresh.step != "ended":
                    return fresh
                writer.commit()
                if not over:
                    return fresh
                after = self._save(
                    _jobs.harvested(
                        fresh,
                        answers=harvest.answers,
                        orphans=harvest.orphans,
                        duplicates=harvest.duplicates,
                        complete=harvest.whole,
                        at=self.clock.now(),
                    )
                )
        finally:
            writer.discard()
        del self._harvests[job.name]
        if after.failed_empty:
            self.failed[after.name] = after
        if after.cancel_requested:
            self._stopped.add(after.name)
        if not self.options.keep_prompts:
            with self._locked():
                self.sidecar.drop_bodies(after.name)
        self._say("reading", _told(after))
        return after

    def _output_settled(self, job: Job) -> bool:
        """Whether a short output has been read for long enough; the first look starts the time."""
        if job.settle_epoch == self.clock.epoch:
            return self.clock.monotonic() - job.settle_from_s >= self.options.output_settle_s
        with self._locked():
            fresh = self.sidecar.job(job.name)
            if fresh.step == "ended" and fresh.settle_epoch != self.clock.epoch:
                self._save(_jobs.anchored(fresh, self.clock.epoch, self.clock.monotonic()))
        return False

    def _save(self, job: Job) -> Job:
        self.sidecar.save_job(job)
        return job

    # --- waiting ---------------------------------------------------------------------------
    def drive(self, deadline: float | None) -> None:
        """Advance until every job of the run is over.

        Raises
        ------
        RunTimeoutError
            When `deadline` (monotonic seconds) passes first.
        """
        while True:
            moved = self.advance()
            if not self.active():
                return
            if moved:
                self._idle = 0
                if deadline is not None and self.clock.monotonic() >= deadline:
                    raise self._timeout()
                continue
            self._pause(deadline)

    def _pause(self, deadline: float | None) -> None:
        options = self.options
        pause = min(options.poll_interval_s * 1.5**self._idle, options.max_poll_interval_s)
        self._idle = min(self._idle + 1, 60)
        pause *= random.uniform(0.9, 1.1)  # many users, one gateway
        asked = self._trouble.retry_after_s if self._trouble is not None else None
        pause = max(pause, asked or 0.0)
        settling = [j for j in self.active() if j.step in ("creating", "ended")]
        if settling:
            soonest = max(options.poll_interval_s, 0.05)
            pause = min(pause, soonest) if asked is None else pause
        now = self.clock.monotonic()
        if deadline is not None and now + pause >= deadline:
            self.clock.sleep(max(0.0, deadline - now))
            raise self._timeout()
        self._tell_waiting(pause)
        self.clock.sleep(pause)

    def _timeout(self) -> RunTimeoutError:
        states = ", ".join(f"{j.batch_id or j.name}: {j.status or j.step}" for j in self.active())
        return RunTimeoutError(
            f"timeout= is over while batch jobs go on ({states}). Nothing is lost: the same call "
            "picks them up, and pays nothing again."
        )

    def _tell_waiting(self, pause: float) -> None:
        now = self.clock.monotonic()
        self._since = now if self._since is None else self._since
        states: dict[str, int] = {}
        counted = 0
        for job in self.active():
            word = {"validating": "queued", "in_progress": "running"}.get(job.status, job.status)
            word = word or {"creating": "settling"}.get(job.step, job.step)
            if job.step == "ended":
                word = "reading its output"
            states[word] = states.get(word, 0) + 1
            counted += job.counted or 0
        waited = now - self._since
        parts = [", ".join(f"{n} {word}" for word, n in sorted(states.items()))]
        if "queued" in states:
            parts.append("the queue may last up to 72 h")
        if counted:
            parts.append(f"{counted:,} of {len(self.requests):,} done at the gateway")
        quiet = now - self._changed_at
        if quiet >= _STUCK_S:
            parts.append(f"no progress for {duration(quiet)}")
        if self._trouble is not None:
            parts.append(f"trouble: {self._trouble} Trying again")
        parts.append(f"next poll in {duration(pause)}")
        parts.append("interrupt at will: jobs go on, the same call comes back")
        self.report(
            Progress(
                "waiting",
                f"{duration(waited)}: batch jobs: " + " · ".join(parts),
                requests=len(self.requests),
                jobs=states,
                waited_s=waited,
                next_poll_s=pause,
            )
        )

    def _say(self, phase: Phase, message: str) -> None:
        self.report(Progress(phase, message, requests=len(self.requests)))

    # --- endings ---------------------------------------------------------------------------
    def raise_failed(self) -> None:
        """Report the jobs that ended during this call without any answer."""
        if not self.failed:
            return
        messages = {
            job.batch_id or job.name: job.error or "the gateway gave no reason"
            for job in self.failed.values()
        }
        told = "; ".join(f"{batch}: {text}" for batch, text in messages.items())
        rows = sum(job.requests for job in self.failed.values())
        raise BatchJobFailedError(
            f"{len(messages)} batch job(s) with {rows:,} requests failed without an answer. "
            f"{told}. Everything else is saved. The next call submits these rows anew.",
            jobs=messages,
        )

    def cancel(self) -> list[str]:
        """Cancel what is at the gateway, take back what is not; return the batch ids."""
        cancelled = []
        for job in self.active():
            with self._locked():
                fresh = self.sidecar.job(job.name)
                if fresh.step in _jobs.UNMADE:
                    self._save(_jobs.withdrawn(fresh, self.clock.now()))
                    continue
                if fresh.step != "live" or fresh.batch_id is None:
                    continue
                # Written first: rows of a job that the user stopped are not retried by itself.
                fresh = self._save(msgspec.structs.replace(fresh, cancel_requested=True))
            self.connection.cancel(str(fresh.batch_id))
            cancelled.append(str(fresh.batch_id))
        return cancelled

    def resolve(self, adopt: str | None, resubmit: bool) -> None:
        """Settle uncertain submits by the user's word."""
        uncertain = [j for j in self.sidecar.jobs().values() if j.step == "creating"]
        for job in uncertain:
            with self._locked():
                fresh = self.sidecar.job(job.name)
                if fresh.step != "creating":
                    continue
                if resubmit:
                    self._save(_jobs.resubmitted(fresh))
                elif adopt is not None:
                    batch = self.connection.retrieve(adopt)
                    if batch.input_file_id and not JobList(
                        ((batch.id, batch.input_file_id),), False
                    ).find(fresh.input_file_id or ""):
                        continue
                    self._save(_jobs.adopted(fresh, batch.id, self.clock.now()))
                    return
        if adopt is not None:
            raise GatewayError(
                f"Batch job {adopt} was not made of an input file of an uncertain submit here "
                f"({', '.join(str(j.input_file_id) for j in uncertain) or 'there is none'})."
            )


def _told(job: Job) -> str:
    missing = job.requests - job.answers
    text = f"batch job {job.batch_id} {job.status}: {job.answers:,} answers"
    if missing:
        text += f", {missing:,} requests without one"
    if job.orphans:
        text += f", {job.orphans:,} lines that belong to no request"
    if job.duplicates:
        text += f", {job.duplicates:,} duplicates"
    if not job.complete:
        text += "; the output is not known to be whole"
    return text
