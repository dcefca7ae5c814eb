"""What a run tells while it works: a frozen record to a hook, lines to a person.

Comes in: facts from the runner. Goes out: one `Progress` per change, lines for people through
the default hook, log records at INFO. Never a prompt, an answer or a key.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger("nyu_llm_frames")

Phase = Literal[
    "planned", "uploading", "submitting", "settling", "waiting", "reading", "done", "note"
]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes
    ----------
    phase : Phase
    message : str
        One line for a person.
    requests, answered : int
        Distinct requests of the run, and how many have a final answer.
    jobs : mapping of str to int
        Batch jobs of the run by the gateway's status (or our step before there is one).
    waited_s : float
        Seconds since the call began to wait.
    next_poll_s : float or None
        Seconds until the next poll.
    """

    phase: Phase
    message: str
    requests: int = 0
    answered: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    waited_s: float = 0.0
    next_poll_s: float | None = None


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class Display:
    """The default hook: lines that stay, and one line that moves while a run waits."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        if progress.phase != "waiting":
            self.close()
            print(progress.message, flush=True)
            self._phase = progress.message
            return
        if not (_in_notebook() or sys.stderr.isatty()):
            # A log file: a line per change of state, not one per poll.
            states = ", ".join(f"{n} {s}" for s, n in sorted(progress.jobs.items()))
            if states != self._phase:
                print(progress.message, flush=True)
                self._phase = states
            return
        if self._bar is None:
            self._bar = _status_line()
        self._bar.set_description_str(progress.message)

    def close(self) -> None:
        """End the moving line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _status_line() -> Any:
    """Return a tqdm that shows a text and no bar (tqdm draws in terminals and notebooks)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True)


class Reporter:
    """Sends records to the hook that the options name.

    Parameters
    ----------
    progress : bool or callable
    """

    def __init__(self, progress: bool | Callable[[Progress], None]) -> None:
        self._display = Display() if progress is True else None
        self._hook = progress if callable(progress) else self._display

    def __call__(self, progress: Progress) -> None:
        if progress.phase != "waiting":
            logger.info("%s", progress.message)
        if self._hook is not None:
            self._hook(progress)

    def close(self) -> None:
        """End the moving line."""
        if self._display is not None:
            self._display.close()
