"""Sends a run's progress to whoever listens: the hook of the options, and the log.

Comes in: `Progress` records. Goes out: the same records to the hook, log records at INFO; trouble
at WARNING where there is no hook.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from nyu_llm_frames._shared.progress import MOVING, Progress, logger
from nyu_llm_frames._shared.views import Display


class Reporter:
    """Sends records to the hook that the options name."""

    def __init__(self, progress: bool | Callable[[Progress], None]) -> None:
        self._hook: Callable[[Progress], None] | None = None
        if progress is True:
            self._hook = Display()
        elif callable(progress):
            self._hook = progress
        self._view = self._hook if isinstance(self._hook, Display) else None
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

    def note(self, *lines: str) -> None:
        """Send lines that stay."""
        for line in lines:
            self(Progress("note", line))

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
