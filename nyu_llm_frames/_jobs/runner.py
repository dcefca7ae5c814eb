"""The thin part that drives a run: advance every job, wait, and end.

Comes in: the distinct requests of a run, a sidecar, a gateway, a clock. Goes out: batch jobs that
are over, with their answers stored. What to do with a job says `_jobs.job`, what to send says
`_jobs.planner`, one step is `_jobs.sending` or `_jobs.reading`.
"""

from __future__ import annotations

import random
from typing import assert_never

import msgspec

from nyu_llm_frames._clock import Clock
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.wire import JobList
from nyu_llm_frames._jobs import job as _jobs
from nyu_llm_frames._jobs import pace, reading, sending
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._jobs.planner import Planner, Wanted, driven
from nyu_llm_frames._options import Options
from nyu_llm_frames._progress import Reporter
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._words import count, sentence
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    GatewayError,
    GatewayUnavailableError,
    RunTimeoutError,
)


class Runner(Planner):
    """Drives the batch jobs that carry the requests of one run.

    Parameters
    ----------
    name : str
        The run's name in the sidecar.
    requests : Wanted
    sidecar : Sidecar
    gateway : Gateway
    options : Options
    clock : Clock
    report : Reporter
    retries : int
        Attempts per request beyond the first.

    Attributes
    ----------
    trouble : GatewayUnavailableError or None
        What kept the last step from going on.
    """

    def __init__(
        self,
        name: str,
        requests: Wanted,
        sidecar: Sidecar,
        gateway: Gateway,
        options: Options,
        clock: Clock,
        report: Reporter,
        retries: int,
    ) -> None:
        ctx = Context(sidecar, gateway, options, clock, report, len(requests), gateway.realm)
        super().__init__(name, requests, ctx, retries)
        self._reader = reading.Reader(ctx)
        self.trouble: GatewayUnavailableError | None = None
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

    # --- steps -----------------------------------------------------------------------------
    def advance(self) -> bool:
        """Do for every job what it asks for, once; return whether any moved on.

        Raises
        ------
        AuthenticationError, GatewayError, UncertainSubmissionError
        """
        try:
            return self._advance()
        finally:
            driven.discard(self)

    def _advance(self) -> bool:
        moved = False
        self.trouble = None
        for job in [*self._uncertain_of_others(), *self.active()]:
            try:
                after = self._act(job)
            except GatewayUnavailableError as e:
                self._worry(e)
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

    def _worry(self, e: GatewayUnavailableError) -> None:
        """Keep the trouble that asks for the longest pause."""
        if self.trouble is None or (e.retry_after_s or 0) >= (self.trouble.retry_after_s or 0):
            self.trouble = e

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
        driven.add(self)
        try:
            while True:
                moved = self._advance()
                active = self.active()
                if not active:
                    return
                if not moved:
                    self._pause(active, deadline)
                    self._idle += 1
                    continue
                self._idle = 0
                if deadline is not None and self.ctx.clock.monotonic() >= deadline:
                    raise _timeout(active, self.trouble)
        finally:
            driven.discard(self)

    def _pause(self, active: list[Job], deadline: float | None) -> None:
        ctx = self.ctx
        now = ctx.clock.monotonic()
        self._since = now if self._since is None else self._since
        jitter = random.uniform(0.9, 1.1)
        pause = pace.pause_s(ctx.options, self._idle, active, self.trouble, jitter)
        if deadline is not None and now + pause >= deadline:
            ctx.clock.sleep(max(0.0, deadline - now))
            raise _timeout(active, self.trouble)
        ctx.report(
            pace.waiting(
                active,
                len(self.requests),
                waited_s=now - self._since,
                quiet_s=now - self._changed_at,
                pause=pause,
                trouble=self.trouble,
                at=ctx.clock.now(),
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
            f"{count(len(messages), 'batch job')} with {count(rows, 'request')} failed without an "
            f"answer. {sentence(told)} Everything else is saved. The next call submits these rows "
            "anew.",
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


def _timeout(active: list[Job], trouble: GatewayUnavailableError | None) -> RunTimeoutError:
    states = ", ".join(f"{j.batch_id or j.name}: {pace.state_word(j)}" for j in active)
    why = f" Trouble: {sentence(str(trouble))}" if trouble is not None else ""
    unmade = all(job.step in _jobs.UNMADE for job in active)
    what = "and nothing was submitted yet" if unmade else "while batch jobs go on"
    return RunTimeoutError(
        f"timeout= is over {what} ({states}).{why} Nothing is lost: the same call picks them up, "
        "and pays nothing again."
    )
