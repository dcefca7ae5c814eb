"""Time and process identity, passed in wherever a decision needs them.

Comes in: nothing. Goes out: seconds that only go forward, UTC for people, a sleep, and names of
processes that outlive them, so that a later process can tell whether the earlier one is dead.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the runner needs of time."""

    @property
    def epoch(self) -> str:
        """Name of the zero of `monotonic`; equal names have comparable seconds."""

    def monotonic(self) -> float:
        """Return seconds since the epoch; never goes back."""

    def now(self) -> datetime:
        """Return UTC, for records that people read; never compared."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


def _boot() -> str:
    """Name this boot of this machine, or this process where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = uuid.uuid4().hex
    return f"{socket.gethostname()}/{boot}"


_BOOT = _boot()


class SystemClock:
    """The real one. Linux's monotonic seconds are shared by all processes of one boot."""

    epoch = _BOOT

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _started(pid: int) -> str:
    """Return the kernel's start time of a process, so that a reused pid is told apart.

    "" when there is no such process here, and for one that has ended without being reaped (as
    happens in containers).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def process_token() -> str:
    """Name this process: ``host/boot/pid/start``."""
    return f"{_BOOT}/{os.getpid()}/{_started(os.getpid())}"


def is_dead(token: str) -> bool:
    """Whether the process of a token has surely ended. Another host's is never known dead."""
    try:
        host, boot, pid, start = token.rsplit("/", 3)
        number = int(pid)
    except ValueError:
        return False
    if host != socket.gethostname():
        return False
    if f"{host}/{boot}" != _BOOT:
        # Same host, other boot: dead, if boots have names of their own here.
        return Path("/proc/sys/kernel/random/boot_id").exists()
    if start and Path("/proc/self/stat").exists():
        return _started(number) != start
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
