"""Names of this machine, its boot and its scheduled job, which outlive a process.

Comes in: what the system reports. Goes out: short texts, equal where the thing is the same. A host
name is not one: a laptop gets another on a VPN, and containers on two machines may share one.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_BOOT_ID = "sys/kernel/random/boot_id"
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # fixed by Linux (PROC_PID_INIT_INO)
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_PATIENCE_S = 10


def boot_id(proc: Path = _PROC) -> str:
    """Name this boot of this machine: equal for all processes of one kernel; "" where unknown."""
    try:
        return (proc / _BOOT_ID).read_text().strip()
    except OSError:
        return _mac_boot() if sys.platform == "darwin" else ""


def _mac_boot() -> str:
    """Ask macOS for the name of this boot."""
    text = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(text))
    try:
        call = ctypes.CDLL(None).sysctlbyname
        failed = call(b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0))
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode("ascii", "replace").lower()


def pid_namespace(proc: Path = _PROC) -> str:
    """Name the namespace of process numbers, in a container; else ""."""
    try:
        inode = (proc / "self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return "" if inode == _INITIAL_PID_NAMESPACE else f"{inode:x}"


@cache
def machine_id() -> str:
    """Name this machine across restarts, as a digest.

    On Linux, nodes of a cluster and containers of one image may share an id, so the host name is
    included. A Mac reports the id of its hardware.
    """
    name = _mac_hardware() if sys.platform == "darwin" else ""
    if not name:
        name = f"{_first_line(_MACHINE_IDS)}/{socket.gethostname()}"
    return hashlib.blake2b(name.encode(), digest_size=8, person=b"nyu_llm_frames").hexdigest()


def _first_line(paths: tuple[Path, ...]) -> str:
    for path in paths:
        try:
            text = path.read_text().strip()
        except (OSError, ValueError):
            continue
        if text:
            return text
    return ""


def _mac_hardware() -> str:
    output = _said("ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
    found = re.search(r'"IOPlatformUUID" = "([^"]+)"', output or "")
    return found[1] if found else ""


def _said(*command: str) -> str | None:
    """Return what a program prints; None where it is missing, fails or does not answer."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return ran.stdout


# --- Slurm -----------------------------------------------------------------------------------
# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A Slurm job, at one of its starts."""

    id: str  # stays the same when the job is requeued
    restarts: int  # how often it was requeued
    cluster: str = ""  # ids are unique within it

    def is_over(self) -> bool:
        """Whether the scheduler reports it as over; False where it cannot be queried."""
        if not re.fullmatch(r"\d+", self.id) or not re.fullmatch(r"[\w.-]*", self.cluster):
            return False
        here = os.environ.get("SLURM_CLUSTER_NAME", "")
        where = [f"--clusters={self.cluster}"] if self.cluster and self.cluster != here else []
        known = _said("squeue", "--noheader", "--format=%T", f"--jobs={self.id}", *where)
        if known is not None and known.split():
            return set(known.split()) <= _OVER  # one that is completing may still work
        output = _said("sacct", "-n", "-X", "-P", "-o", "State", f"--jobs={self.id}", *where)
        states = [line.split()[0] for line in (output or "").splitlines() if line.split()]
        return bool(states) and set(states) <= _OVER


def slurm_job() -> SlurmJob | None:
    """Return the Slurm job of this process."""
    number, restarts = (os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "RESTART_COUNT"))
    if not number:
        return None
    cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
    return SlurmJob(number, int(restarts) if restarts.isdecimal() else 0, cluster)
