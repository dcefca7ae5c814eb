"""The context that every step shares: the sidecar, the open gateway, the clock, the reporter.

Comes in: the parts of a run. Goes out: the lock, a connection that opens when it is needed, saved
records, and retries of uploads. A submit is never retried here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.options import Options
from nyu_llm_frames._shared.progress import Phase, Progress
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.lock import PATIENCE_S
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import GatewayUnavailableError, RunTimeoutError, SidecarLockedError

T = TypeVar("T")


class _Own(threading.local):
    """The state of one thread: one may wait for a run while another checks its progress."""

    timeout: float | None = None
    deadline: float | None = None
    connection: Connection | None = None
    say: Callable[[Progress], object] | None = None


@dataclass(slots=True)
class Context:
    """What the steps of one run work with.

    Attributes
    ----------
    requests : int
        Number of distinct requests of the run, for messages.
    """

    sidecar: Sidecar
    gateway: Gateway
    options: Options
    clock: Clock
    report: Reporter
    requests: int
    _own: _Own = field(default_factory=_Own, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def deadline(self) -> float | None:
        """When this thread's waiting ends, in the clock's seconds; None before it begins."""
        return self._own.deadline

    def set_timeout(self, timeout: float | None) -> None:
        """Set how many seconds the user's call in this thread may wait."""
        self._own.timeout, self._own.deadline = timeout, None

    def begin_waiting(self) -> None:
        """Start counting those seconds."""
        timeout = self._own.timeout
        self._own.deadline = None if timeout is None else self.clock.monotonic() + timeout

    @property
    def realm(self) -> str:
        """Who answers."""
        return self.gateway.realm

    @property
    def connection(self) -> Connection:
        """The open gateway, for calls that only read.

        Raises
        ------
        ConfigurationError
            For what it lacks.
        """
        if self._own.connection is None:
            self._own.connection = self.gateway.connect()
            self._own.connection.left_s = self.left_s
        return self._own.connection

    def connect(self) -> Connection:
        """Open the gateway for calls that send something; sends nothing.

        Raises
        ------
        ConfigurationError
            For what it lacks, and for a client of Portkey's that does not load.
        """
        connection = self.connection
        connection.load_client()
        return connection

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        if self._own.connection is not None:
            connection, self._own.connection = self._own.connection, None
            connection.close()

    def lend(self, say: Callable[[Progress], object]) -> Callable[[], AbstractContextManager[None]]:
        """Share this thread's connection and deadline with threads that work for it.

        Parameters
        ----------
        say : callable
            Takes the messages that they would show.
        """
        timeout, deadline, connection = self._own.timeout, self._own.deadline, self.connection

        @contextmanager
        def borrowed() -> Iterator[None]:
            own = self._own
            own.timeout, own.deadline, own.connection = timeout, deadline, connection
            own.say = say
            yield

        return borrowed

    def revive(self) -> None:
        """Restart the gateway, if it is the embedded one."""
        if self._own.connection is not None:
            self._own.connection.revive()

    def left_s(self) -> float | None:
        """Return the seconds that the call may still wait; None without a limit."""
        if self._own.deadline is None:
            return self._own.timeout
        return max(0.0, self._own.deadline - self.clock.monotonic())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sidecar's lock for a step.

        Raises
        ------
        RunTimeoutError
            When the call may not wait any longer for its holder.
        """
        patience = self.left_s()
        with ExitStack() as stack:
            if self._own.say is not None:
                stack.enter_context(self._turn)  # threads that work for one thread take turns
            try:
                stack.enter_context(
                    self.sidecar.lock.held(lambda text: self.notify("note", text), patience)
                )
            except SidecarLockedError as e:
                if patience is None or patience >= PATIENCE_S:
                    raise
                raise RunTimeoutError(f"The timeout expired, waiting for the sidecar. {e}") from e
            yield

    def save(self, job: Job) -> Job:
        """Write a job's record; only under the lock."""
        self.sidecar.save_job(job)
        return job

    def notify(self, phase: Phase, message: str, *, trouble: str = "") -> None:
        """Show a message."""
        say = self._own.say or self.report
        say(Progress(phase, message, requests=self.requests, trouble=trouble))

    def retry_upload(self, step: Callable[[], T]) -> T:
        """Retry an upload a few times; a submit never comes here."""
        for pause_s in (1.0, 2.0):
            try:
                return step()
            except GatewayUnavailableError as e:
                wished_s = e.retry_after_s
                # Without a connection, or where the gateway wants rest: at the pace of polling.
                if not e.connected or (wished_s or 0) > self.options.poll_interval_s:
                    raise
                if self.left_s() == 0:
                    raise
            self.clock.sleep(pause_s if wished_s is None else wished_s)
        return step()
