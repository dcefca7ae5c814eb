"""Drives the batch jobs of one run to their end.

Comes in: the names of batch jobs, a sidecar, a gateway, a clock. Goes out: batch jobs that are
over, with their answers stored. `_stages.batches.job` decides the next step of a job,
`_jobs.planner` decides what to send, and `_jobs.sending` and `_jobs.reading` take one step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from nyu_llm_frames._jobs import reading, sending
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.side_by_side import attempt, side_by_side
from nyu_llm_frames._jobs.tracker import JobTracker, driven
from nyu_llm_frames._shared.wording import count, first_few, sentence
from nyu_llm_frames._stages.batches import job as _jobs
from nyu_llm_frames._stages.batches import polling
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.wire import JobList
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    BudgetError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
    ResumableRun,
    RunTimeoutError,
    UncertainSubmissionError,
)

_SETTLED_BY_THE_RUN = (
    BudgetError, UncertainSubmissionError, BatchJobFailedError, RunTimeoutError
)  # fmt: skip


class Driver(threading.local):
    """Drives the batch jobs that carry the requests of one run.

    Each thread has its own state. Threads share the sidecar, as processes do, and the tracker,
    which planners share too: its jobs are the ones that are driven.

    Attributes
    ----------
    trouble : GatewayUnavailableError or None
        What kept the last step from going on.
    """

    def __init__(
        self,
        name: str,
        ctx: Context,
        tracker: JobTracker,
        carried: Callable[[], ResumableRun | None],
    ) -> None:
        self.name, self.ctx, self.tracker, self._carried = name, ctx, tracker, carried
        self._reader = reading.JobReader(ctx)
        self.trouble: GatewayUnavailableError | None = None
        self._no_budget: BudgetError | None = None
        self._refused_jobs: dict[str, GatewayError] = {}
        self._idle = 0
        self._since: float | None = None
        self._changed_at, self.changed = ctx.clock.monotonic(), False

    @contextmanager
    def driving(self, timeout: float | None = None, *, polls: bool = False) -> Iterator[Driver]:
        """Surround one call of the user: from before its plan to its last step.

        Parameters
        ----------
        timeout : float, optional
            Seconds that the call may wait: for a lock while it plans, and from `until_over` on
            for everything.
        polls : bool
            Whether the call only checks progress, while another thread may be waiting.

        Meanwhile no other thread of this process withdraws what it planned. At the end the
        connection and the moving progress line are closed; after Ctrl-C a message says how to
        go on. Errors that the run can settle carry it.
        """
        try:
            with driven.by(self.name) as alone:
                self._idle, self._since = 0, None
                self._refused_jobs.clear()
                if alone or not polls:
                    self.tracker.begin_call()
                self.ctx.set_timeout(timeout)
                yield self
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(error, KeyboardInterrupt):
                self._tell_interrupted()
            self._release_jobs()
            if isinstance(error, _SETTLED_BY_THE_RUN):
                error.run = self._carried()
            raise
        finally:
            self.ctx.report.close()
            self.ctx.close()

    def _tell_interrupted(self) -> None:
        self.ctx.report.close()
        made = any(job.step not in _jobs.UNMADE for job in self.active())
        what = "batch jobs at the gateway continue" if made else "nothing was submitted"
        self.ctx.notify(
            "interrupted",
            f"interrupted: {what}. Make the same call again to resume, now or in "
            f"another kernel (sidecar {self.ctx.sidecar.path}).",
        )

    def _release_jobs(self) -> None:
        """Let any call withdraw what this one planned but did not submit."""
        if self.name in driven:
            return  # by another thread
        with suppress(LLMFramesError):
            left = [j for j in self.active() if j.run == self.name and j.step in _jobs.UNMADE]
            if not left:
                return
            self.ctx.set_timeout(0.0)  # without waiting for another process
            with self.ctx.locked():
                for job in left:
                    fresh = self.ctx.sidecar.job(job.name)
                    if fresh.step in _jobs.UNMADE:
                        self.ctx.save(_jobs.left(fresh))

    # --- what stands -----------------------------------------------------------------------
    def active(self) -> list[Job]:
        """The current records of this run's unfinished batch jobs."""
        return self._active(self.ctx.sidecar.jobs())

    def _active(self, every: Mapping[str, Job]) -> list[Job]:
        return [job for name, job in every.items() if job.carries and name in self.tracker.jobs]

    # --- steps -----------------------------------------------------------------------------
    def start(self) -> None:
        """Upload and submit what is planned, without a poll."""
        self.advance()
        self.advance()
        self._tell_what_stays()
        self._raise_no_budget()

    def step(self) -> None:
        """Take every job as far as it goes without waiting: upload, submit, poll or read."""
        for _ in range(4):
            if not self.advance():
                break
        self._tell_what_stays()
        self._raise_no_budget()
        self._raise_refused()

    def until_over(self, plan: Callable[[], int]) -> None:
        """Drive until every job is over, and `plan` says that no more requests are under way."""
        self.ctx.begin_waiting()
        self.drive()
        while plan():
            self.drive()

    def _tell_what_stays(self) -> None:
        """Report what stopped a step; a waiting run reports it by itself."""
        every = self.ctx.sidecar.jobs()
        uncertain = [*self._uncertain_of_others(every), *self._active(every)]
        for job in (job for job in uncertain if job.step == "creating"):
            text = sending.unsettled(job)
            self.ctx.notify("settling", text, trouble=text)
        if self.trouble is not None:
            self.ctx.notify(
                "note",
                f"trouble: {self.trouble} Nothing is lost: make the same call again, or wait for "
                "the run.",
                trouble=str(self.trouble),
            )

    def advance(self) -> bool:
        """Take each job's next step, by one reading of the records; return whether any moved.

        Polls and readings go side by side, and so do uploads; submits go one after the other.
        """
        self.trouble = self._no_budget = None
        every = self.ctx.sidecar.jobs()
        active = [job for job in self._active(every) if job.name not in self._refused_jobs]
        moved = False
        # Jobs at the gateway come first: once the budget is used up nothing more is sent.
        uncertain = [job for job in active if job.step == "creating"]
        for job in [*self._uncertain_of_others(every), *uncertain]:
            moved |= self._took(job, attempt(partial(sending.settle, self.ctx), job))
        for steps in (("live", "ended"), ("planned",)):
            moved |= self._side_by_side([job for job in active if job.step in steps])
        for job in (job for job in active if job.step == "uploaded"):
            if self._no_budget is not None:
                break
            moved |= self._took(job, attempt(partial(sending.submit, self.ctx), job))
        return moved

    def _side_by_side(self, jobs: list[Job]) -> bool:
        """Take the step of some jobs; return whether any moved on."""
        ctx, reader = self.ctx, self._reader
        if any(job.step == "planned" for job in jobs):
            ctx.connect()  # in this thread: it loads a client and may find no key

        def act(job: Job) -> Job:
            match job.action:
                case "upload":
                    return ctx.retry_upload(lambda: sending.upload(ctx, job.name))
                case "poll":
                    return reading.poll(ctx, job)
                case _:
                    return reader.read(job)

        found = side_by_side(ctx, jobs, act, _others_go_on)
        # Errors that end the call come last, so that the other results are recorded first.
        found.sort(key=lambda one: not isinstance(one[1], Job))
        return sum(self._took(job, after) for job, after in found) > 0

    def _took(self, job: Job, after: Job | LLMFramesError) -> bool:
        """Record the outcome of a step; return whether the job moved on."""
        match after:
            case Job():
                stopping = after.step == "live" and after.cancel_requested
                if job.action == "poll" and stopping and after.status != "cancelling":
                    self._cancel_again(str(after.batch_id))  # the first cancel did not reach it
                if after.step != job.step or after.status != job.status:
                    self._changed_at = self.ctx.clock.monotonic()
                as_before = after.rereads < job.rereads  # its output could not be read again
                self.changed |= after.step != job.step and not as_before
                self.tracker.ended(after)
                return after.step != job.step
            case GatewayUnavailableError() if job.unread and self._idle and not after.connected:
                return self._took(job, reading.leave_unread(self.ctx, job, after))
            case GatewayUnavailableError():
                self._note_trouble(after)
                if not after.connected:
                    self.ctx.revive()
            case BudgetError() if job.step in _jobs.UNMADE:
                self._no_budget = after  # raised when the others can go no further
            case GatewayError() if _others_go_on(job, after):
                self._refused_jobs[job.name] = after  # raised when the others are over
            case _:
                raise after
        return False

    def _note_trouble(self, e: GatewayUnavailableError) -> None:
        """Keep the trouble that needs the longest pause."""
        if self.trouble is None or (e.retry_after_s or 0) >= (self.trouble.retry_after_s or 0):
            self.trouble = e

    def _cancel_again(self, batch_id: str) -> None:
        """Cancel once more; where that fails the job is still waited for."""
        try:
            self.ctx.connection.cancel(batch_id)
        except AuthenticationError:
            raise
        except GatewayUnavailableError as e:
            self._note_trouble(e)
        except GatewayError as e:
            self._note_trouble(GatewayUnavailableError(str(e), status_code=e.status_code))

    def _uncertain_of_others(self, every: Mapping[str, Job]) -> list[Job]:
        """Uncertain submissions of other runs: nothing is submitted before they are settled."""
        if not any(job.step in _jobs.UNMADE for job in self._active(every)):
            return []
        known = self.tracker.jobs
        return [j for j in every.values() if j.step == "creating" and j.name not in known]

    # --- waiting ---------------------------------------------------------------------------
    def drive(self) -> None:
        """Advance until every job of the run is over, or the call's deadline passes."""
        while True:
            moved = self.advance()
            if not moved:
                self._raise_no_budget()
            active = [job for job in self.active() if job.name not in self._refused_jobs]
            if not active:
                self._raise_refused()
                return
            self._idle = 0 if moved else self._idle + 1
            if not moved:
                self._pause(active)
            elif self.ctx.left_s() == 0:
                raise polling.timed_out(active, self.trouble)

    def _pause(self, active: list[Job]) -> None:
        ctx, deadline = self.ctx, self.ctx.deadline
        now = ctx.clock.monotonic()
        self._since = now if self._since is None else self._since
        jitter = ctx.clock.jitter(0.9, 1.1)
        pause = polling.pause_s(ctx.options, self._idle - 1, active, self.trouble, jitter)
        if deadline is not None and now + pause >= deadline:
            ctx.clock.sleep(max(0.0, deadline - now))
            raise polling.timed_out(active, self.trouble)
        ctx.report(
            polling.status_line(
                active,
                ctx.requests,
                waited_s=now - self._since,
                quiet_s=now - self._changed_at,
                pause=pause,
                trouble=self.trouble,
                at=ctx.clock.now(),
            )
        )
        ctx.report.pause(pause, ctx.clock.sleep)

    # --- endings ---------------------------------------------------------------------------
    def _raise_no_budget(self) -> None:
        if self._no_budget is not None:
            raise self._no_budget

    def _raise_refused(self) -> None:
        """Report a job that can no longer be polled; its record is kept."""
        for error in self._refused_jobs.values():
            raise error

    def raise_failed(self, *, at_once: bool = False) -> None:
        """Report the jobs that ended during this call without any answer.

        With `at_once` before all others are over: for a call that takes one step.
        """
        failed = list(self.tracker.failed.values())
        if not failed or (self.active() and not at_once):
            return
        messages = {
            job.batch_id or job.name: job.error or "the gateway gave no reason" for job in failed
        }
        reasons = first_few([f"{batch}: {text}" for batch, text in messages.items()], "; ")
        rows = sum(job.requests for job in failed)
        raise BatchJobFailedError(
            f"{count(len(messages), 'batch job')} with {count(rows, 'request')} failed without an "
            f"answer. {sentence(reasons)} Everything else is saved. The next call submits these "
            "rows again.",
            jobs=messages,
        )

    def cancel(self) -> list[str]:
        """Cancel the jobs at the gateway, withdraw the others; return the batch ids.

        The first error is raised after all jobs were tried.
        """
        cancelled = []
        errors: list[GatewayError] = []
        for job in self.active():
            with self.ctx.locked():
                fresh = self.ctx.sidecar.job(job.name)
                if fresh.carries and fresh.step != "ended":
                    fresh = self.ctx.save(_jobs.stopped(fresh, self.ctx.clock.now()))
                self.tracker.ended(fresh)
            if fresh.step == "creating":
                self.ctx.notify(
                    "note",
                    "one submission is uncertain: it may have made a batch job. Wait, and the "
                    "job is cancelled as soon as it is found",
                )
            if fresh.step != "live":
                continue
            try:
                self.ctx.connection.cancel(str(fresh.batch_id))
                cancelled.append(str(fresh.batch_id))
            except AuthenticationError:
                raise
            except GatewayError as e:
                errors.append(e)
        if errors:
            raise errors[0]
        return cancelled

    def resolve(self, adopt: str | None, resubmit: bool) -> None:
        """Settle uncertain submissions as the user says."""
        uncertain = [j for j in self.ctx.sidecar.jobs().values() if j.step == "creating"]
        if not uncertain:
            raise ConfigurationError(f"No submission of {self.ctx.sidecar.path} is uncertain.")
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
                f"Batch job {adopt} was not made of an input file of an uncertain submission here "
                f"({', '.join(str(j.input_file_id) for j in uncertain)})."
            )


def _others_go_on(job: Job, e: LLMFramesError) -> bool:
    """Whether other jobs continue after this error of one; otherwise the call ends."""
    if isinstance(e, AuthenticationError) or not isinstance(e, GatewayError):
        return False
    return isinstance(e, GatewayUnavailableError) or job.action in ("poll", "read")
