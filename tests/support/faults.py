"""The faults that a test scripts into the stand-in, and the requests they hit.

Comes in: `add(...)` from a test, one line `METHOD /path` per request. Goes out: the fault to
apply to a request, or None. A fault that holds a request is steered by events, not by time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal[
    "respond", "reset", "hang", "lose", "restate", "delay", "hold", "hold_answer", "trickle"
]
NOWHERE = "http://127.0.0.1:9/login"
CALLS = ("upload", "create", "list", "poll", "output", "cancel", "file", "content", "chat")


def operation(line: str) -> str:
    """Return the name of the call that a line `METHOD /path` is, or ""."""
    method, _, path = line.partition(" ")
    parts = path.partition("?")[0].removeprefix("/v1/").split("/")
    match method, parts:
        case "POST", ["files"]:
            return "upload"
        case "POST", ["batches"]:
            return "create"
        case "POST", ["batches", _, "cancel"]:
            return "cancel"
        case "GET", ["batches"]:
            return "list"
        case "GET", ["batches", _]:
            return "poll"
        case "GET", ["batches", _, "output"]:
            return "output"
        case "GET", ["files", _]:
            return "file"
        case "GET", ["files", _, "content"]:
            return "content"
        case "POST", ["chat", "completions"]:
            return "chat"
    return ""


@dataclass
class Fault:
    """One scripted fault.

    Parameters
    ----------
    match : str
        A call (`upload create poll list output cancel file content chat`), or the beginning of
        `METHOD /path?query`.
    mode : str
        `respond`: answer `status` with a `body`, nothing is done. `reset`: cut the connection,
        nothing is done. `hang`: no answer until the fault is released or the server stops, nothing
        is done. `lose`: the work is done, the answer is lost (a reset; with `status`, that error
        page). `restate`: the work is done and answered, with `status`. `delay`: `delay_s` before
        the work. `hold`: the work waits for `release()`, also when the caller has died.
        `hold_answer`: the work is done, the answer waits. `trickle`: the work is done, the answer
        comes a byte at a time, for half a minute; `body` says from where ("head", "body").
    times : int
        How many requests are hit; -1 is always.
    after : int
        How many matching requests pass first.
    location : str
        Where a redirect leads to; by default to nobody.
    hook : callable, optional
        Called when the fault hits, before anything else.
    """

    match: str
    mode: Mode = "respond"
    status: int | None = None
    body: str = "html"
    times: int = 1
    after: int = 0
    retry_after: float | None = None
    delay_s: float = 0.0
    hook: Callable[[], object] | None = None
    location: str = NOWHERE
    hits: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let the held requests go on."""
        self.released.set()

    def hits_line(self, line: str) -> bool:
        """Say whether this fault is meant for the request."""
        if self.match in CALLS:
            return operation(line) == self.match
        return line.startswith(self.match)


class Script:
    """The faults to come, in the order in which they were added."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        match: str,
        mode: Mode = "respond",
        *,
        status: int | None = None,
        body: str = "html",
        times: int = 1,
        after: int = 0,
        retry_after: float | None = None,
        delay_s: float = 0.0,
        hook: Callable[[], object] | None = None,
        location: str = NOWHERE,
    ) -> Fault:
        """Add a fault; see `Fault`."""
        fault = Fault(match, mode, status, body, times, after, retry_after, delay_s, hook, location)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all faults and let held requests go on."""
        for fault in self.faults:
            fault.release()
        self.faults = []

    def take(self, line: str) -> Fault | None:
        """Return the fault that hits this request, and count it."""
        with self._lock:
            for fault in self.faults:
                if not fault.hits_line(line):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    return None
                if fault.times == 0:
                    continue
                fault.times -= fault.times > 0
                fault.hits += 1
                return fault
        return None
