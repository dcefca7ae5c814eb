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


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROC = Path("/proc")


def _boot() -> str:
    """Name this boot of this machine, or this process where the system does not tell."""
    try:
        boot = _BOOT_ID.read_text().strip()
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

    "" when there is no such process here, for one that has ended without being reaped (as happens
    in containers), and on systems without ``/proc``.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
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
    if f"{host}/{boot}" != _BOOT and _BOOT_ID.exists():
        return True  # same host, other boot
    if start and (_PROC / "self" / "stat").exists():
        return _started(number) != start
    return not may_live(number)


def may_live(pid: int) -> bool:
    """Whether a process of this number may be there, on this host; False is certain."""
    if os.name == "nt":
        return True  # a signal would end it there, whatever its number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
