"""Tracks the batch jobs of one call, and which calls of this process drive theirs now.

Comes in: names and records of jobs, from the planners and the driver of one call. Goes out: what
this call must not send again, and whether another thread of this process is at work.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nyu_llm_frames._stages.batches.job import Job


@dataclass(slots=True)
class JobTracker:
    """The jobs of one call, shared by its planners and its driver.

    Attributes
    ----------
    jobs : dict of str to None
        Names of the jobs that carry or carried requests of the call, from any run; ordered.
    failed : dict of str to Job
        Jobs that ended during this call without any answer: their rows are not sent again by it.
    stopped : set of str
        Jobs that were cancelled during this call; the same holds for their rows.
    waited_for : set of str
        Jobs that were under way at some moment of this call.
    reread : set of str
        Jobs whose output was read again before their rows are paid again.
    """

    jobs: dict[str, None] = field(default_factory=dict)
    failed: dict[str, Job] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    waited_for: set[str] = field(default_factory=set)
    reread: set[str] = field(default_factory=set)

    def track(self, job: Job) -> None:
        """Record a job of this call, also when another process records its end first."""
        self.jobs[job.name] = None
        if job.carries:
            self.waited_for.add(job.name)
        elif job.name in self.waited_for:
            self.ended(job)

    def ended(self, job: Job) -> None:
        """Record how a job ended that this call waited for, or that it is to end."""
        if job.name in self.reread:
            return  # it ended before; only its output was read again
        if job.failed_empty:
            self.failed[job.name] = job
        if job.cancel_requested:
            self.stopped.add(job.name)

    def begin_call(self) -> None:
        """Let the next call of the user send again what failed as a whole in the last one."""
        self.waited_for.difference_update(self.failed)
        self.failed.clear()

    def excludes(self, name: str) -> bool:
        """Whether the rows of a job are not sent again by this call."""
        return name in self.failed or name in self.stopped

    def forget_failures(self) -> None:
        """Let rows that failed or were stopped during this call be sent again."""
        self.failed.clear()
        self.stopped.clear()
        self.waited_for.clear()


class _Driven:
    """Names of the runs that a thread of this process is driving now."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def by(self, name: str) -> Iterator[bool]:
        """Drive a run: from before its plan is written to the last step of the call.

        Yields whether no other thread does.
        """
        with self._lock:
            self._names[name] += 1
            alone = self._names[name] == 1
        try:
            yield alone
        finally:
            with self._lock:
                self._names[name] -= 1

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return self._names[name] > 0


driven = _Driven()
