"""What a run tells while it works: a frozen record to a hook, lines to a person.

Comes in: facts from the runner. Goes out: one `Progress` per change to the hook, log records at
INFO; trouble at WARNING where there is no hook. Never a prompt, an answer or a key. What the
default hook shows is `views`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

logger = logging.getLogger("nyu_llm_frames")

Phase = Literal[
    "planned",
    "uploading",
    "submitting",
    "settling",
    "waiting",
    "asking",
    "reading",
    "done",
    "note",
    "interrupted",
]
MOVING: frozenset[Phase] = frozenset({"waiting", "asking"})
"""Phases that tell the same again and again; a display overwrites its line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes
    ----------
    phase : Phase
    message : str
        One line for a person.
    requests : int
        Distinct requests of the run.
    answered : int
        While waiting: requests that the batch jobs under way have finished, as the gateway counts
        them; while a trial asks: requests that came back.
    jobs : mapping of str to int
        Batch jobs under way by the word that is shown of them, as ``queued`` or ``running``.
    elapsed_s : float
        Seconds since the oldest batch job under way was submitted; a later call goes on counting.
    waited_s : float
        Seconds since the call began to wait.
    next_poll_s : float or None
        Seconds until the next poll.
    trouble : str
        What keeps the run from going on, as a gateway that is not reached; else empty.
    card : callable or None
        Makes the HTML of the run, where it is over.
    """

    phase: Phase
    message: str
    requests: int = 0
    answered: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    next_poll_s: float | None = None
    trouble: str = ""
    card: Callable[[], str] | None = None


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class View:
    """A hook that something moves in."""

    def __call__(self, progress: Progress) -> None:
        """Show a record."""
        raise NotImplementedError

    def pause(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Let time pass, and show that it does."""
        sleep(seconds)

    def close(self) -> None:
        """End what moves."""


class Reporter:
    """Sends records to the hook that the options name.

    Parameters
    ----------
    progress : bool or callable
    """

    def __init__(self, progress: bool | Callable[[Progress], None]) -> None:
        self._hook: Callable[[Progress], None] | None = None
        if progress is True:
            from nyu_llm_frames._shared.views import Display

            self._hook = Display()
        elif callable(progress):
            self._hook = progress
        self._view = self._hook if isinstance(self._hook, View) else None
        self._troubled = False

    def __call__(self, progress: Progress) -> None:
        if progress.trouble and not self._troubled and self._hook is None:
            # A silent run must not wait for a wrong address without a word.
            logger.warning("%s", progress.message)
        elif progress.phase not in MOVING:
            logger.info("%s", progress.message)
        if progress.trouble or progress.phase == "waiting":
            self._troubled = bool(progress.trouble)
        if self._hook is not None:
            self._hook(progress)

    @property
    def listens(self) -> bool:
        """Whether anybody reads what is reported."""
        return self._hook is not None or logger.isEnabledFor(logging.INFO)

    def pause(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Let time pass; where a person looks on, it is shown."""
        if self._view is None:
            sleep(seconds)
        else:
            self._view.pause(seconds, sleep)

    def close(self) -> None:
        """End what moves."""
        if self._view is not None:
            self._view.close()
