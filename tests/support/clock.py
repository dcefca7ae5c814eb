"""A clock that a test turns: no test waits, and none can wait for ever.

Comes in: the seconds that the code wants to sleep. Goes out: the same seconds, gone at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from nyu_llm_frames._shared.clock import SystemClock, process_token


class FakeClock(SystemClock):
    """What the package needs of time.

    Attributes
    ----------
    slept : list of float
        Every pause so far, in seconds.
    on_sleep : callable, optional
        Called with the number of the pause, from 1, before it is over.
    limit : int
        Pauses after which the run counts as one that never ends.
    process : str
        As the package names this process.
    """

    epoch = "test/clock"
    process = ""

    def __init__(self, limit: int = 3000) -> None:
        self.slept: list[float] = []
        self.on_sleep: Callable[[int], object] | None = None
        self.limit = limit
        self.process = process_token()

    def monotonic(self) -> float:
        return sum(self.slept)

    def now(self) -> datetime:
        return datetime(2026, 2, 18, 12, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def sleep(self, seconds: float) -> None:
        if len(self.slept) >= self.limit:
            raise AssertionError(f"still waiting after {self.limit} pauses")
        self.slept.append(seconds)
        if self.on_sleep is not None:
            self.on_sleep(len(self.slept))
