"""What a run tells while it works: a frozen record to a hook, lines to a person.

Comes in: facts from the runner. Goes out: one `Progress` per change, lines for people through
the default hook, log records at INFO; trouble at WARNING where there is no hook. Never a prompt,
an answer or a key.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

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
        While waiting: rows that the batch jobs under way have finished, as the gateway counts
        them; while a trial asks: requests that came back.
    jobs : mapping of str to int
        Batch jobs under way by the word that is shown of them, as ``queued`` or ``running``.
    waited_s : float
        Seconds since the call began to wait.
    next_poll_s : float or None
        Seconds until the next poll.
    trouble : str
        What keeps the run from going on, as a gateway that is not reached; else empty.
    """

    phase: Phase
    message: str
    requests: int = 0
    answered: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    waited_s: float = 0.0
    next_poll_s: float | None = None
    trouble: str = ""


_HINT = "waiting; Ctrl-C is safe: what was submitted goes on, and the same call picks it up"


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
        self._states: object = None
        self._hinted = False

    def __call__(self, progress: Progress) -> None:
        if progress.phase not in MOVING:
            self.close()
            print(progress.message, flush=True)
            self._states = None
            return
        if progress.phase == "waiting" and not self._hinted:
            print(_HINT, flush=True)
            self._hinted = True
        if not (_in_notebook() or sys.stderr.isatty()):
            # A log file: a line per change of state, not one per poll.
            if progress.phase == "asking":
                return
            states = (dict(progress.jobs), bool(progress.trouble))
            if states != self._states:
                print(progress.message, flush=True)
                self._states = states
            return
        if self._bar is None:
            self._bar = _status_line()
        self._bar.set_description_str(_fitting(progress.message, self._bar.format_dict["ncols"]))

    def close(self) -> None:
        """End the moving line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _fitting(message: str, columns: int | None) -> str:
    """Leave parts out from the end until a message fits; what matters most stands first."""
    if not columns or columns < 20:
        return message
    parts = message.split(" · ")
    while len(parts) > 1 and len(" · ".join(parts)) >= columns:
        parts.pop()
    text = " · ".join(parts)
    return text if len(text) < columns else f"{text[: columns - 2]}…"


def _status_line() -> Any:
    """Return a tqdm that shows a text and no bar.

    The plain one also in notebooks: the widget needs ipywidgets, warns without them, and leaves
    nothing readable in a saved notebook.
    """
    from tqdm import tqdm

    file = sys.stdout if _in_notebook() else sys.stderr
    return tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, file=file)


class Reporter:
    """Sends records to the hook that the options name.

    Parameters
    ----------
    progress : bool or callable
    """

    def __init__(self, progress: bool | Callable[[Progress], None]) -> None:
        self._display = Display() if progress is True else None
        self._hook = progress if callable(progress) else self._display
        self._troubled = False

    def __call__(self, progress: Progress) -> None:
        if progress.trouble and not self._troubled and self._hook is None:
            # A run that is told to be silent must not wait for a wrong address without a word.
            logger.warning("%s", progress.message)
        elif progress.phase not in MOVING:
            logger.info("%s", progress.message)
        if progress.trouble or progress.phase == "waiting":
            self._troubled = bool(progress.trouble)
        if self._hook is not None:
            self._hook(progress)

    def close(self) -> None:
        """End the moving line."""
        if self._display is not None:
            self._display.close()
