"""Time, process identity and randomness: one object, passed in wherever a decision needs them.

Comes in: nothing. Goes out: seconds that only go forward, UTC for people, a sleep, process names
that let a later process tell whether an earlier one is dead, and unique names. Each call takes
`current_clock()` once and hands it down.
"""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from nyu_llm_frames._shared.machine import boot_id, pid_namespace


class Clock(Protocol):
    """What a run needs to know of time, its process and randomness."""

    @property
    def epoch(self) -> str:
        """Name of the zero point of `monotonic`; seconds under equal names are comparable."""

    def monotonic(self) -> float:
        """Return seconds since the epoch; never goes back."""

    def now(self) -> datetime:
        """Return UTC, for records that people read; never compared."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    @property
    def process(self) -> str:
        """Name this process: ``host/boot/pid/start``."""

    def is_dead(self, process: str) -> bool:
        """Whether the process of such a name has surely ended."""

    def unique(self) -> str:
        """Return eight hexadecimal digits that are unique."""

    def jitter(self, low: float, high: float) -> float:
        """Return a random number between `low` and `high`."""


_PROC = Path("/proc")


def _boot() -> str:
    """Name this boot of this machine, or this process where the system names no boot.

    Includes a container's process namespace: its processes are not visible from another one.
    """
    boot, namespace = boot_id(_PROC) or uuid.uuid4().hex, pid_namespace(_PROC)
    return f"{socket.gethostname()}/{boot}" + (f":{namespace}" if namespace else "")


_BOOT = _boot()


class SystemClock:
    """The real clock. On Linux, all processes of one boot share the monotonic seconds."""

    epoch = _BOOT

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @property
    def process(self) -> str:
        return process_token()

    def is_dead(self, process: str) -> bool:
        return is_dead(process)

    def unique(self) -> str:
        return uuid.uuid4().hex[:8]

    def jitter(self, low: float, high: float) -> float:
        return random.uniform(low, high)


class _Current:
    clock: Clock = SystemClock()


def current_clock() -> Clock:
    """Return the clock of a new call."""
    return _Current.clock


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Use another clock for all calls that begin in this block, in every thread; for tests."""
    before, _Current.clock = _Current.clock, clock
    try:
        yield
    finally:
        _Current.clock = before


def _started(pid: int, proc: Path = _PROC) -> str:
    """Return the kernel's start time of a process, to recognize a reused pid.

    "" when there is no such process here, for one that has ended without being reaped (as happens
    in containers), and on systems without ``/proc``.
    """
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def process_token() -> str:
    """Name this process: ``host/boot/pid/start``."""
    return f"{_BOOT}/{os.getpid()}/{_started(os.getpid())}"


def is_dead(token: str, proc: Path = _PROC) -> bool:
    """Whether the process of a token has surely ended; False for one on another machine.

    Where there is no `proc`, boots have no names and processes no start times.
    """
    try:
        host, boot, pid, start = token.rsplit("/", 3)
        number = int(pid)
    except ValueError:
        return False
    mine = _BOOT.rpartition("/")[2]
    if boot != mine:
        if host != socket.gethostname():
            return False
        if boot_id(proc):  # same host: an earlier boot, or another container of this boot
            return boot.partition(":")[0] != mine.partition(":")[0]
    # Whatever the host is called now: a laptop gets another name on a VPN.
    if start and (proc / "self" / "stat").exists():
        return _started(number, proc) != start
    return not may_live(number)


def may_live(pid: int) -> bool:
    """Whether a process with this number may exist on this host; False is certain."""
    if os.name == "nt":
        return True  # on Windows any signal would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
