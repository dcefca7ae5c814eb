"""The default progress hook: what a terminal, a notebook and a log file show of a run.

Comes in: `Progress` records. Goes out: lines that stay, and one place that moves while a run waits:
the last line of a terminal, one output of a notebook cell. A log file gets a line when something
changes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from html import escape
from typing import Any

from nyu_llm_frames._shared.cards import CARD_STYLE
from nyu_llm_frames._shared.progress import MOVING, Progress, duration, logger
from nyu_llm_frames._shared.wording import shortened

HINT = "waiting; Ctrl-C is safe: batch jobs continue, and the same call resumes"
TICK_S = 1.0


class Display:
    """The default hook; what it shows depends on where it runs."""

    def __init__(self) -> None:
        self._view: Any = None
        self._hinted = False
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        view = self._view = self._view or _view()
        if progress.phase in MOVING:
            if progress.phase == "waiting" and not self._hinted:
                self._line(HINT)
                self._hinted = True
            self._last = progress
            view.move(progress, 0.0)
        elif progress.phase != "done":
            self._line(progress.message)
        elif view.has_card or not _logged():
            view.end(progress)

    def _line(self, text: str) -> None:
        if not _logged():
            self._view.line(text)

    def pause(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Sleep, and show that time passes."""
        passed = 0.0
        if self._view is not None and self._view.ticks and self._last is not None:
            while seconds - passed > TICK_S:
                sleep(TICK_S)
                passed += TICK_S
                self._view.move(self._last, passed)
        sleep(seconds - passed)

    def close(self) -> None:
        """End the moving display."""
        if self._view is not None:
            self._view.close()


def _logged() -> bool:
    """Whether the log already shows the same lines."""
    return logger.hasHandlers() and logger.isEnabledFor(logging.INFO)


def _view() -> Any:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and "IPKernelApp" in shell.config:
        return _Notebook()
    return _Terminal() if sys.stderr.isatty() else _Log()


class _Log:
    """A line when the state changes, when trouble begins or ends, and at every tenth answered."""

    ticks, has_card = False, False

    def __init__(self) -> None:
        self._last: object = None

    def line(self, text: str) -> None:
        print(text, flush=True)
        self._last = None

    def move(self, progress: Progress, passed: float) -> None:
        if progress.phase == "asking":
            return
        tenth = 10 * progress.answered // max(progress.requests, 1)
        state = (dict(progress.jobs), bool(progress.trouble), tenth)
        if state != self._last:
            print(f"after {duration(progress.elapsed_s)}: {progress.message}", flush=True)
            self._last = state

    def end(self, progress: Progress) -> None:
        print(progress.message, flush=True)

    def close(self) -> None:
        pass


class _Terminal:
    """Lines that stay, and below them one that moves."""

    ticks, has_card = True, False

    def __init__(self) -> None:
        self._bar: Any = None

    def line(self, text: str) -> None:
        self.close()
        print(text, flush=True)

    def move(self, progress: Progress, passed: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, file=sys.stderr)
        text = fitting(_ticking(progress, passed), self._bar.format_dict["ncols"])
        self._bar.set_description_str(text)

    def end(self, progress: Progress) -> None:
        self.line(progress.message)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Notebook:
    """One output of the cell, changed in place, that ends as the card of the run."""

    ticks, has_card = True, True

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._handle: Any = None
        self._lines: list[str] = []
        self._moving, self._over = "", False

    def line(self, text: str) -> None:
        if self._over:  # another call, maybe in another cell
            self._begin()
        self._moving = ""
        self._lines.append(text)
        self._show(self._html())

    def move(self, progress: Progress, passed: float) -> None:
        if self._over:
            self._begin()
        self._moving = _ticking(progress, passed)
        self._show(self._html())

    def end(self, progress: Progress) -> None:
        self._moving = ""
        self._lines.append(progress.message)
        html = self._html()
        if progress.card is not None:
            lines = f"<summary>What happened</summary>{_divisions(self._lines)}"
            html = f'{progress.card()}\n<details class="nlf">{lines}</details>'
        self._show(html)
        self._over = True

    def close(self) -> None:
        if self._moving:
            self._moving = ""
            self._show(self._html())
        self._over = True

    def _html(self) -> str:
        moving = f"<div><b>{escape(self._moving)}</b></div>" if self._moving else ""
        return f'{CARD_STYLE}\n<div class="nlf">{_divisions(self._lines)}{moving}</div>'

    def _show(self, html: str) -> None:
        from IPython.display import display

        text = "\n".join(filter(None, [*self._lines, self._moving]))
        data = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)


def _divisions(lines: list[str]) -> str:
    return "".join(f"<div>{escape(line)}</div>" for line in lines)


def _ticking(progress: Progress, passed: float) -> str:
    if progress.phase != "waiting":
        return progress.message
    whole = int(progress.elapsed_s + passed)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}  {progress.message}"


def fitting(message: str, columns: int | None) -> str:
    """Drop parts from the end until a message fits; the most important part comes first."""
    if not columns or columns < 20:
        return message
    parts = message.split(" · ")
    while len(parts) > 1 and len(" · ".join(parts)) >= columns:
        parts.pop()
    return shortened(" · ".join(parts), columns - 1)
