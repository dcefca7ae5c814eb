"""Writes down what a run sends before it is sent: the effects around `_stages.batches.planning`.

Comes in: the distinct requests of a run and what the sidecar holds. Goes out: planned jobs, made
under the lock; jobs of others that carry the same requests are waited for, not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.tracker import JobTracker, driven
from nyu_llm_frames._sidecar.folder import new_name, owner_is_gone
from nyu_llm_frames._sidecar.id_lookup import IdLookup
from nyu_llm_frames._stages.batches import job as _jobs
from nyu_llm_frames._stages.batches import planning as _planning
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.planning import RequestStates
from nyu_llm_frames._stages.requests.bodies import ROWS_AT_ONCE, BodyShape
from nyu_llm_frames.errors import ConfigurationError

Positions = np.ndarray[Any, np.dtype[np.int64]]

_WRITERS = 2
BYTES_AT_ONCE = 16 << 20  # limits long documents; for short ones the number of rows does


class RequestSet(Protocol):
    """The distinct requests of a run: rendered in memory, or as a sidecar remembers them."""

    @property
    def ids(self) -> pa.Array: ...
    @property
    def shape(self) -> BodyShape: ...
    def __len__(self) -> int: ...
    def bodies(self, positions: Positions) -> pa.Array: ...
    def line_bytes(self) -> Positions: ...


class Planner:
    """Decides what a run sends, and tracks the jobs that concern it.

    Parameters
    ----------
    requests : RequestSet
        All requests of the run, or a part that is planned by itself.
    tracker : JobTracker, optional
        Shared with the other parts of the run and with its driver.
    """

    def __init__(
        self,
        name: str,
        requests: RequestSet,
        ctx: Context,
        retries: int,
        tracker: JobTracker | None = None,
    ) -> None:
        self.name, self.requests, self.ctx, self.retries = name, requests, ctx, retries
        self.tracker = JobTracker() if tracker is None else tracker
        self._me = ctx.clock.process
        self._at: dict[str, Positions] = {}

    # --- what stands -----------------------------------------------------------------------
    def states(self, every: dict[str, Job] | None = None) -> RequestStates:
        """The state of each distinct request, by the sidecar as it is now."""
        ids = self.requests.ids
        states = replace(
            _planning.unknown_states(len(ids)), rank=self.ctx.sidecar.best_answers(ids).rank
        )
        if states.final.all():
            return states
        every = self.ctx.sidecar.jobs() if every is None else every
        jobs = [
            job
            for job in every.values()
            if job.realm == self.ctx.realm and (job.tries or job.cancel_requested)
        ]
        for job in jobs:
            at = self._positions(job.name)
            at = at[at >= 0]
            if not len(at):
                continue
            self.tracker.track(job)
            if job.carries:
                states.carried[at] = True
            elif job.tries:
                states.attempts[at] += job.attempt
                states.unread[at] = (states.rank[at] < 0) & (job.unread > 0)
                states.reread[at] = states.unread[at] & (job.rereads > 0)
            if self.tracker.excludes(job.name):
                states.excluded[at] = True
        return states

    def find_jobs(self) -> list[Job]:
        """Return the jobs that carry or carried requests of this run, whoever made them.

        This includes those of a run that is over, which `states` does not need.
        """
        every = self.ctx.sidecar.jobs()
        theirs = [name for name, job in every.items() if job.realm == self.ctx.realm]
        ours = (name for name in theirs if (self._positions(name) >= 0).any())
        self.tracker.jobs.update((name, None) for name in ours)
        return [job for name, job in every.items() if name in self.tracker.jobs]

    def each_job(self) -> Iterator[tuple[Job, Positions]]:
        """Yield the same jobs, each with the positions of its requests in this run."""
        for job in self.find_jobs():
            yield job, self._positions(job.name)

    def lost_its_plan(self) -> bool:
        """Whether others withdrew what this run had planned, and no job carries it now.

        They do so when they need a part of it and no process seems to drive the rest.
        """
        lacking, cared_for = np.zeros((2, len(self.requests)), np.bool_)
        for job, at in self.each_job():
            at = at[at >= 0]
            if job.step == "withdrawn":
                lacking[at] = not job.cancel_requested  # the last word holds
            else:
                cared_for[at] = True
        lacking &= ~cared_for
        return bool(lacking.any() and (self.states().rank[lacking] < 0).any())

    def _positions(self, name: str) -> Positions:
        """Positions of a job's requests in this run; -1 for those of other runs."""
        if name not in self._at:
            self._at[name] = self._lookup.find(self.ctx.sidecar.request_ids(name))
        return self._at[name]

    @cached_property
    def _lookup(self) -> IdLookup:
        return IdLookup(self.requests.ids)

    # --- planning --------------------------------------------------------------------------
    def plan(self, *, again: bool = False) -> int:
        """Decide under the lock what to send, and write it down; return how many are under way.

        With `again` also requests that are out of retries.
        """
        if not len(self.requests):
            return 0
        if not self.ctx.options.keep_prompts:
            self._forget_prompts()
        states = self.states()
        send = self.wanted(states, again=again)
        if not (send.any() or states.carried.any()):
            return 0  # over: neither a lock nor a writable folder is needed
        with self.ctx.locked():
            self.ctx.sidecar.tidy()
            every = self.ctx.sidecar.jobs()
            self._withdraw(every)
            states = self.states(every)
            wanted = self.wanted(states, again=again)
            if wanted.any() and self._reopen(every, states, wanted, again=again):
                states = self.states(every)
            chosen = np.flatnonzero(_planning.to_send(states, self.retries, again=again))
            if len(chosen):
                self._write_plan(chosen)
        return int(states.carried.sum()) + len(chosen)

    def wanted(self, states: RequestStates, *, again: bool) -> _planning.Mask:
        """Requests to send, or to look for once more in the output of an ended job."""
        send = _planning.to_send(states, self.retries, again=again)
        return send | _planning.to_reread(states)

    def take_back(self) -> None:
        """Withdraw jobs that were never made and that no process drives: their rows go now."""
        if any(self._is_abandoned(job) for job in self.ctx.sidecar.jobs().values()):
            with self.ctx.locked():
                self._withdraw(self.ctx.sidecar.jobs(), also_equal=True)

    def unpaid(self) -> Iterator[tuple[Job, Positions]]:
        """Yield the jobs that this call would make, with their requests' positions in the run.

        Jobs that it would withdraw are left out.
        """
        for name, job in self.ctx.sidecar.jobs().items():
            if job.realm != self.ctx.realm or job.step not in _jobs.UNPAID:
                continue
            at = self._positions(name)
            if (at >= 0).any() and not self._is_abandoned(job):
                yield job, at

    def _withdraw(self, every: dict[str, Job], *, also_equal: bool = False) -> None:
        """Withdraw jobs that were never made, that no process drives, and that carry more.

        A planned job of an interrupted run may hold rows that were edited or dropped since;
        driving it would pay for them. One that is above the current limits of a file is split
        anew.

        Changes are made in `every`. `also_equal`: also jobs that carry nothing but rows of this
        run.
        """
        for name, job in list(every.items()):
            if not self._is_abandoned(job):
                continue
            at = self._positions(name)
            hits = int((at >= 0).sum())
            if hits and (also_equal or hits < len(at) or self._is_too_large(job)):
                every[name] = _jobs.withdrawn(job, self.ctx.clock.now())
                self.ctx.sidecar.save_job(every[name])

    def _is_too_large(self, job: Job) -> bool:
        options = self.ctx.options
        return job.requests > 1 and (
            job.requests > options.max_requests_per_file
            or job.file_bytes > options.max_bytes_per_file
        )

    def _is_abandoned(self, job: Job) -> bool:
        """Whether a job was planned and never made, and its planner does not work on it."""
        return (
            job.realm == self.ctx.realm
            and job.step in _jobs.UNMADE
            and job.run not in driven
            and job.run != self.name
            and owner_is_gone(job, self._me, self.ctx.clock)
        )

    def _reopen(
        self, every: dict[str, Job], states: RequestStates, wanted: _planning.Mask, *, again: bool
    ) -> bool:
        """Read outputs again that may hold rows that would be paid again, or be missing."""
        reopened = False
        unanswered = wanted & (states.rank < 0)
        for name, job in list(every.items()):
            if job.step != "done" or job.realm != self.ctx.realm or name in self.tracker.reread:
                continue
            if job.batch_id is None or job.failed_empty:
                continue
            if job.unread and (again or name in self.tracker.waited_for or not self._can_read()):
                continue  # it was read for long enough, and nothing is paid again silently
            nothing = job.answers == 0 and job.outcome != "completed"
            if job.complete and (
                nothing or (job.answers and self.ctx.sidecar.has_answers_of(name))
            ):
                continue
            at = self._positions(name)
            if unanswered[at[at >= 0]].any():
                every[name] = _jobs.settling_started(_jobs.reopened(job), "", 0.0)
                self.ctx.sidecar.save_job(every[name])
                self.tracker.reread.add(name)
                reopened = True
        return reopened

    def _can_read(self) -> bool:
        """Whether there is a key: what is stored can be shown without."""
        try:
            return self.ctx.connection is not None
        except ConfigurationError:
            return False

    def _write_plan(self, chosen: Positions) -> None:
        sizes = self.requests.line_bytes()[chosen]
        options = self.ctx.options
        now = self.ctx.clock.now()
        base = new_name(self.ctx.clock)
        ranges = _planning.split(sizes, options.max_requests_per_file, options.max_bytes_per_file)
        jobs: dict[str, tuple[Positions, Positions]] = {}
        digits = len(str(len(ranges)))  # so that names sort in the order of the rows
        for number, (start, stop) in enumerate(ranges, 1):
            jobs[f"{base}-{number:0{digits}}"] = chosen[start:stop], sizes[start:stop]
        sidecar = self.ctx.sidecar
        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="plan") as threads:
            written = {
                name: threads.submit(sidecar.add_requests, name, self._batches(*part))
                for name, part in jobs.items()
            }
        for name, (part, bytes_of_each) in jobs.items():
            written[name].result()
            job = Job(
                name=name,
                run=self.name,
                owner=self._me,
                realm=self.ctx.realm,
                model=self.requests.shape.model,
                requests=len(part),
                file_bytes=int(bytes_of_each.sum()),
                planned_at=now,
            )
            sidecar.save_job(job)
            self._at[name] = part
            self.tracker.track(job)

    def _batches(self, part: Positions, sizes: Positions) -> Iterator[tuple[pa.Array, pa.Array]]:
        for start, stop in _planning.split(sizes, ROWS_AT_ONCE, BYTES_AT_ONCE):
            some = part[start:stop]
            yield self.requests.ids.take(pa.array(some)), self.requests.bodies(some)

    def _forget_prompts(self) -> None:
        """Drop the prompts of jobs that are over; a crash may have prevented it before."""
        sidecar = self.ctx.sidecar
        over = [n for n, job in sidecar.jobs().items() if not job.carries and sidecar.has_bodies(n)]
        for name in over:
            with self.ctx.locked():
                if not sidecar.job(name).carries:
                    sidecar.drop_bodies(name)
