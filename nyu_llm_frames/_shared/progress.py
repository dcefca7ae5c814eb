"""What a run reports while it works: a frozen record to a hook, lines to a person.

Comes in: facts from the runner. Goes out: one `Progress` per change to the hook, log records at
INFO; trouble at WARNING where there is no hook. Never a prompt, an answer or a key. The default
hook is in `views`.
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
"""Phases that report repeatedly; a display overwrites their line."""


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
        them; during a trial: requests that came back.
    jobs : mapping of str to int
        Batch jobs under way per state as shown, such as ``queued`` or ``running``.
    elapsed_s : float
        Seconds since the oldest batch job under way was submitted; a later call goes on counting.
    waited_s : float
        Seconds since the call began to wait.
    next_poll_s : float or None
        Seconds until the next poll.
    trouble : str
        What blocks the run, such as a gateway that is not reached; else empty.
    card : callable or None
        Makes the HTML card of the run, once it is over.
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
    """A hook with a moving display."""

    def __call__(self, progress: Progress) -> None:
        """Show a record."""
        raise NotImplementedError

    def pause(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Sleep, and show that time passes."""
        sleep(seconds)

    def close(self) -> None:
        """End the moving display."""


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
            # Even a silent run must warn before it waits for a wrong address.
            logger.warning("%s", progress.message)
        elif progress.phase not in MOVING:
            logger.info("%s", progress.message)
        if progress.trouble or progress.phase == "waiting":
            self._troubled = bool(progress.trouble)
        if self._hook is not None:
            self._hook(progress)

    @property
    def listens(self) -> bool:
        """Whether a hook or a log receives reports."""
        return self._hook is not None or logger.isEnabledFor(logging.INFO)

    def pause(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Sleep; a display shows that time passes."""
        if self._view is None:
            sleep(seconds)
        else:
            self._view.pause(seconds, sleep)

    def close(self) -> None:
        """End the moving display."""
        if self._view is not None:
            self._view.close()
