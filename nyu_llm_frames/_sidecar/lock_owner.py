"""The record of who holds a sidecar's lock, and whether that holder has surely ended.

Comes in: a record in the folder. Goes out: a `LockOwner`. The record is for machines that the
system's file lock does not reach: others on a network folder that does not share locks.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from nyu_llm_frames._shared import machine as _machine
from nyu_llm_frames._shared.clock import Clock, process_token
from nyu_llm_frames._shared.wording import printable


class LockOwner(msgspec.Struct, frozen=True, omit_defaults=True):
    """One holder.

    Attributes
    ----------
    host, pid, since : str, int, str
        For messages; "" and 0 where the record has none.
    start : str
        When the process began, as the kernel counts, to recognize a reused pid.
    boot, machine : str
        Ids of the machine's boot, and of the machine over its boots.
    slurm_job, slurm_restarts, slurm_cluster : str, int, str
        The job of the scheduler that the process belongs to.
    """

    host: str = ""
    pid: int = 0
    since: str = ""
    start: str = ""
    boot: str = ""
    machine: str = ""
    slurm_job: str = ""
    slurm_restarts: int = 0
    slurm_cluster: str = ""

    @classmethod
    def read(cls, path: Path) -> LockOwner | None:
        """Read a record: an empty owner for an empty record, None without one."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return cls()

    @classmethod
    def here(cls, clock: Clock) -> LockOwner:
        """Return this process as an owner."""
        host, _, pid, start = process_token().rsplit("/", 3)
        job = _machine.slurm_job()
        return cls(
            host=host,
            pid=int(pid),
            since=clock.now().isoformat(timespec="seconds"),
            start=start,
            boot=_machine.boot_id(),
            machine=_machine.machine_id(),
            slurm_job=job.id if job else "",
            slurm_restarts=job.restarts if job else 0,
            slurm_cluster=job.cluster if job else "",
        )

    def is_here(self, me: LockOwner) -> bool:
        """Whether it is of this machine: then the file lock shows whether it holds anything.

        One kernel has one table of locks for all its containers, whatever their host names and
        process namespaces. A machine that was rebooted is recognized by its id.
        """
        if not self.machine:
            return bool(self.host) and self.host == me.host  # of a release that recorded no more
        return self.machine == me.machine or bool(self.boot and self.boot == me.boot)

    def has_ended(self, me: LockOwner, *, ask: bool) -> bool:
        """Whether the scheduler says so: it started the same job again, or a query says it ended.

        Never for a process of this machine, where the file lock decides.
        """
        if not self.slurm_job or self.is_here(me):
            return False
        if (self.slurm_job, self.slurm_cluster) == (me.slurm_job, me.slurm_cluster):
            return me.slurm_restarts > self.slurm_restarts
        job = _machine.SlurmJob(self.slurm_job, self.slurm_restarts, self.slurm_cluster)
        return ask and job.is_over()

    def __str__(self) -> str:
        if not self.host:
            return "another process"
        who = f"process {self.pid} on {self.host} since {self.since}"
        if self.slurm_job:
            who += f" (Slurm job {self.slurm_job})"
        return printable(who)[:300]


def encoded(owner: LockOwner) -> str:
    """Return the text of a record."""
    return msgspec.json.encode(owner).decode()
