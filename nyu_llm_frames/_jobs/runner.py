"""The thin part that drives a run: plan, advance every job, wait, and end.

Comes in: the distinct requests of a run, a sidecar, a gateway, a clock. Goes out: batch jobs that
are over, with their answers stored. What to do with a job says `_jobs.job`, what to send says
`_requests.planning`, one step is `_jobs.sending` or `_jobs.reading`.
"""

from __future__ import annotations

import random
from typing import Any, assert_never

import msgspec
import numpy as np

from nyu_llm_frames._clock import Clock, process_token
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.wire import JobList
from nyu_llm_frames._jobs import job as _jobs
from nyu_llm_frames._jobs import pace, reading, sending
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._options import Options
from nyu_llm_frames._progress import Reporter
from nyu_llm_frames._requests import planning as _planning
from nyu_llm_frames._requests import shards as _shards
from nyu_llm_frames._requests.bodies import Requests
from nyu_llm_frames._requests.planning import Standing
from nyu_llm_frames._sidecar.answer_store import positions
from nyu_llm_frames._sidecar.folder import Sidecar, new_name, owner_is_gone
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    GatewayError,
    GatewayUnavailableError,
    RunTimeoutError,
)


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

    Attributes
    ----------
    mine : list of str
        Names of the jobs that carry or carried requests of this run, whoever made them.
    failed : dict of str to Job
        Jobs that ended during this call without any answer: their rows are not sent again by it.
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
        self.name, self.requests, self.retries = name, requests, retries
        self.ctx = Context(sidecar, gateway, options, clock, report, len(requests), gateway.realm)
        self.mine: list[str] = []
        self.failed: dict[str, Job] = {}
        self._stopped: set[str] = set()
        self._reread: set[str] = set()
        self._me = process_token()
        self._reader = reading.Reader(self.ctx)
        self._trouble: GatewayUnavailableError | None = None
        self._idle = 0
        self._since: float | None = None
        self._changed_at = clock.monotonic()

    # --- what stands -----------------------------------------------------------------------
    def jobs(self) -> dict[str, Job]:
        """The batch jobs of this run as they stand now."""
        every = self.ctx.sidecar.jobs()
        return {name: every[name] for name in self.mine if name in every}

    def active(self) -> list[Job]:
        """Those of them that are not over."""
        return [job for job in self.jobs().values() if job.carries]

    def standing(self, every: dict[str, Job] | None = None) -> Standing:
        """Where each distinct request stands, by the sidecar as it is now."""
        ids = self.requests.ids
        m = len(ids)
        standing = Standing(
            rank=self.ctx.sidecar.best_answers(ids).rank,
            attempts=np.zeros(m, np.int64),
            carried=np.zeros(m, np.bool_),
            barred=np.zeros(m, np.bool_),
        )
        if standing.final.all():
            return standing
        mine = []
        for job in (self.ctx.sidecar.jobs() if every is None else every).values():
            if job.realm != self.ctx.realm or job.step in ("rejected", "withdrawn"):
                continue
            at = positions(self.ctx.sidecar.request_ids(job.name), ids)
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
        with self.ctx.locked():
            self.ctx.sidecar.tidy()
            every = self.ctx.sidecar.jobs()
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
            if job.realm != self.ctx.realm or job.step not in _jobs.UNMADE:
                continue
            at = positions(self.ctx.sidecar.request_ids(name), self.requests.ids)
            hits = int((at >= 0).sum())
            if 0 < hits < len(at) and job.run != self.name and owner_is_gone(job, self._me):
                every[name] = _jobs.withdrawn(job, self.ctx.clock.now())
                self.ctx.sidecar.save_job(every[name])

    def _reopen(self, every: dict[str, Job], standing: Standing, send: _planning.Mask) -> bool:
        """Read outputs again that may hold what would otherwise be paid again."""
        reopened = False
        unanswered = send & (standing.rank < 0)
        for name, job in list(every.items()):
            if job.step != "done" or job.realm != self.ctx.realm or name in self._reread:
                continue
            if job.batch_id is None or job.failed_empty:
                continue
            if job.complete and (job.answers == 0 or self.ctx.sidecar.has_answers_of(name)):
                continue
            at = positions(self.ctx.sidecar.request_ids(name), self.requests.ids)
            if unanswered[at[at >= 0]].any():
                every[name] = _jobs.anchored(_jobs.reopened(job), "", 0.0)
                self.ctx.sidecar.save_job(every[name])
                self._reread.add(name)
                reopened = True
        return reopened

    def _write_plan(self, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        sizes = self.requests.line_bytes()[chosen]
        options = self.ctx.options
        now = self.ctx.clock.now()
        base = new_name(now)
        ranges = _shards.split(sizes, options.max_requests_per_file, options.max_bytes_per_file)
        for number, (start, stop) in enumerate(ranges, 1):
            part = chosen[start:stop]
            job = Job(
                name=f"{base}-{number}",
                run=self.name,
                owner=self._me,
                realm=self.ctx.realm,
                model=self.requests.shape.model,
                requests=len(part),
                file_bytes=int(sizes[start:stop].sum()),
                planned_at=now,
            )
            self.ctx.sidecar.add_requests(
                job.name, self.requests.ids.take(part), self.requests.bodies(part)
            )
            self.ctx.sidecar.save_job(job)
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
        for job in [*self._uncertain_of_others(), *self.active()]:
            try:
                after = self._act(job)
            except GatewayUnavailableError as e:
                self._trouble = e
                if not e.connected:
                    self.ctx.revive()
                continue
            if after.step != job.step or after.status != job.status:
                self._changed_at = self.ctx.clock.monotonic()
                moved = moved or after.step != job.step
            if after.failed_empty and job.step == "ended":
                self.failed[after.name] = after
            if after.cancel_requested:
                self._stopped.add(after.name)
        return moved

    def _act(self, job: Job) -> Job:
        """Take the one step that a job asks for."""
        ctx, action = self.ctx, job.action
        match action:
            case "upload":
                return ctx.patiently(lambda: sending.upload(ctx, job.name))
            case "submit":
                return sending.submit(ctx, job.name)
            case "settle":
                return sending.settle(ctx, job)
            case "poll":
                return reading.poll(ctx, job)
            case "harvest":
                return self._reader.read(job)
            case "nothing":
                return job
            case _:
                assert_never(action)

    def _uncertain_of_others(self) -> list[Job]:
        """Uncertain submits of other runs: nothing is created before they are settled."""
        if not any(job.step in _jobs.UNMADE for job in self.active()):
            return []
        every = self.ctx.sidecar.jobs().values()
        return [j for j in every if j.step == "creating" and j.name not in self.mine]

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
            active = self.active()
            if not active:
                return
            if not moved:
                self._pause(active, deadline)
                self._idle += 1
                continue
            self._idle = 0
            if deadline is not None and self.ctx.clock.monotonic() >= deadline:
                raise _timeout(active)

    def _pause(self, active: list[Job], deadline: float | None) -> None:
        ctx = self.ctx
        now = ctx.clock.monotonic()
        self._since = now if self._since is None else self._since
        jitter = random.uniform(0.9, 1.1)
        pause = pace.pause_s(ctx.options, self._idle, active, self._trouble, jitter)
        if deadline is not None and now + pause >= deadline:
            ctx.clock.sleep(max(0.0, deadline - now))
            raise _timeout(active)
        ctx.report(
            pace.waiting(
                active,
                len(self.requests),
                waited_s=now - self._since,
                quiet_s=now - self._changed_at,
                pause=pause,
                trouble=self._trouble,
            )
        )
        ctx.clock.sleep(pause)

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
            with self.ctx.locked():
                fresh = self.ctx.sidecar.job(job.name)
                if fresh.step in _jobs.UNMADE:
                    self.ctx.save(_jobs.withdrawn(fresh, self.ctx.clock.now()))
                    continue
                if fresh.step != "live" or fresh.batch_id is None:
                    continue
                # Written first: rows of a job that the user stopped are not retried by itself.
                fresh = self.ctx.save(msgspec.structs.replace(fresh, cancel_requested=True))
            self.ctx.connection.cancel(str(fresh.batch_id))
            cancelled.append(str(fresh.batch_id))
        return cancelled

    def resolve(self, adopt: str | None, resubmit: bool) -> None:
        """Settle uncertain submits by the user's word."""
        uncertain = [j for j in self.ctx.sidecar.jobs().values() if j.step == "creating"]
        for job in uncertain:
            with self.ctx.locked():
                fresh = self.ctx.sidecar.job(job.name)
                if fresh.step != "creating":
                    continue
                if resubmit:
                    self.ctx.save(_jobs.resubmitted(fresh))
                elif adopt is not None:
                    batch = self.ctx.connection.retrieve(adopt)
                    if batch.input_file_id and not JobList(
                        ((batch.id, batch.input_file_id),), False
                    ).find(fresh.input_file_id or ""):
                        continue
                    self.ctx.save(_jobs.adopted(fresh, batch.id, self.ctx.clock.now()))
                    return
        if adopt is not None:
            raise GatewayError(
                f"Batch job {adopt} was not made of an input file of an uncertain submit here "
                f"({', '.join(str(j.input_file_id) for j in uncertain) or 'there is none'})."
            )


def _timeout(active: list[Job]) -> RunTimeoutError:
    states = ", ".join(f"{j.batch_id or j.name}: {pace.state_word(j)}" for j in active)
    return RunTimeoutError(
        f"timeout= is over while batch jobs go on ({states}). Nothing is lost: the same call "
        "picks them up, and pays nothing again."
    )
