"""Whose lock it is: names that change, machines that start again, containers, jobs that are over.

A lock that is broken while its holder works lets two processes pay for the same rows; one that is
never broken locks its owner out.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support.clock import FakeClock

from nyu_llm_frames._shared import machine
from nyu_llm_frames._shared.clock import SystemClock, is_dead, process_token
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.lock import SidecarLock, one_trial
from nyu_llm_frames._sidecar.lock_owner import LockOwner, encoded
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import SidecarError, SidecarLockedError

ELSEWHERE = {"host": "node7", "pid": 77, "boot": "b7", "machine": "m7"}


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def program(name: str, script: str) -> Path:
    """Make a command; return the file in which it notes how it was called."""
    path, calls = Path("bin") / name, Path(f"{name}.calls").absolute()
    path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
    path.chmod(0o700)
    return calls


def left(**facts: object) -> LockOwner:
    """Leave a record of this process in the folder, but for some facts."""
    here = LockOwner.here(SystemClock())
    owner = msgspec.structs.replace(here, **{"since": "2026-01-01T00:00:00", **facts})
    Path("lock.owner").write_text(encoded(owner))
    return owner


def taken(patience_s: float = 60) -> bool:
    """Whether the lock can be had."""
    lock = SidecarLock(Path(), FakeClock(limit=100_000))
    try:
        with lock.held(patience_s=patience_s):
            return True
    except SidecarLockedError:
        return False


def test_a_lock_makes_no_folder_that_is_gone() -> None:
    """An empty sidecar in its place would pay for every row again."""
    gone = Path("gone.llm").absolute()
    for lock in (SidecarLock(gone, SystemClock()).held(), one_trial(gone, print)):
        with pytest.raises(SidecarError, match="is gone: moved, deleted"), lock:
            pass
    assert not gone.exists()


# --- machines -------------------------------------------------------------------------------
def test_a_machine_that_changed_its_name_breaks_what_a_dead_process_of_it_left() -> None:
    left(host="laptop.home", machine="by its old name")
    assert taken(0)
    assert not Path("lock.owner").exists()


def test_a_machine_that_was_started_again_breaks_what_it_left() -> None:
    left(boot="the one before")
    assert taken(0)


def test_a_container_of_this_kernel_is_this_machine() -> None:
    """The file lock, which we have, is the kernel's, whatever the container is called."""
    left(host="0a1b2c", machine="its image's", pid=1, start="77")
    assert taken(0)


def test_another_machine_of_the_same_name_keeps_its_lock() -> None:
    left(boot="b7", machine="m7", host=socket.gethostname())
    assert not taken()
    assert Path("lock.owner").exists()


def test_a_record_of_a_release_that_told_no_more_goes_by_the_name() -> None:
    left(boot="", machine="", start="")
    assert taken(0)
    left(boot="", machine="", start="", host="node7")
    assert not taken(0)


def test_the_name_of_this_machine_stays_when_it_is_called_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, token = LockOwner.here(SystemClock()), process_token()
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop.vpn")
    machine.machine_id.cache_clear()
    after = LockOwner.here(SystemClock())
    machine.machine_id.cache_clear()
    assert before.is_here(after)
    assert after.is_here(before)
    host, boot, pid, start = token.rsplit("/", 3)
    assert not is_dead(token)
    assert is_dead(f"{host}/{boot}/{pid}/{int(start) - 1}")


def test_a_process_of_another_container_is_not_known_dead() -> None:
    host, boot, _, start = process_token().rsplit("/", 3)
    kernel = boot.partition(":")[0]
    assert not is_dead(f"{host}/{kernel}:abc/{2**22 - 3}/{start}")
    assert is_dead(f"{host}/{kernel[::-1]}:abc/{2**22 - 3}/{start}")


def test_a_mac_is_named_by_its_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    program("ioreg", """echo '  "IOPlatformUUID" = "F00D-42"'""")
    monkeypatch.setattr(sys, "platform", "darwin")
    names = set()
    for host in ("laptop.home", "laptop.vpn"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        machine.machine_id.cache_clear()
        names.add(machine.machine_id())
    Path("bin/ioreg").unlink()
    machine.machine_id.cache_clear()
    names.add(machine.machine_id())  # it does not tell: by the host's name
    machine.machine_id.cache_clear()
    assert len(names) == 2


def test_where_the_kernel_names_no_boot_there_is_none(tmp_path: Path) -> None:
    assert machine.boot_id(tmp_path / "none") == ""
    assert machine.pid_namespace(tmp_path / "none") == ""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()
    assert machine.pid_namespace(tmp_path) != ""


# --- jobs of the scheduler ------------------------------------------------------------------
@pytest.mark.parametrize(("restarts", "free"), [("2", True), ("1", False), ("", False)])
def test_a_requeued_job_takes_its_own_lock_over(
    restarts: str, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(**ELSEWHERE, slurm_job="4711", slurm_restarts=1)
    calls = program("squeue", "echo RUNNING")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert taken(60) is free
    assert not calls.exists()  # nobody has to be asked


@pytest.mark.parametrize(
    ("squeue", "sacct", "free"),
    [
        ("echo RUNNING", "echo COMPLETED", False),
        ("echo COMPLETING", "echo RUNNING", False),
        ("echo PENDING", "echo PREEMPTED", False),
        ("echo TIMEOUT", "exit 1", True),
        ("echo", "echo COMPLETED", True),
        ("exit 1", "echo 'CANCELLED by 1000'", True),
        ("exit 1", "echo RUNNING", False),
        ("exit 1", "echo", False),
        ("exit 1", "exit 1", False),
        ("", "", False),
    ],
)
def test_a_lock_of_a_job_is_broken_when_the_scheduler_says_that_it_is_over(
    squeue: str, sacct: str, free: bool
) -> None:
    left(**ELSEWHERE, slurm_job="4711")
    calls = [program(n, text) for n, text in (("squeue", squeue), ("sacct", sacct)) if text]
    assert taken(1) is False
    assert not any(call.exists() for call in calls)  # not for a holder of a moment
    assert taken(100) is free
    for call in calls:
        asked = call.read_text().splitlines() if call.exists() else []
        assert len(asked) < 6
        assert all("--jobs=4711" in line.split() for line in asked)


def test_a_job_of_another_cluster_is_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    left(**ELSEWHERE, slurm_job="4711", slurm_cluster="torch")
    calls = program("squeue", "echo COMPLETED")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "greene")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")  # of another cluster's count
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert taken()
    assert "--clusters=torch" in calls.read_text().split()


@pytest.mark.parametrize("number", ["7;touch x", "--all", "7 8", ""])
def test_what_is_no_number_of_a_job_is_not_asked(number: str) -> None:
    left(**ELSEWHERE, slurm_job=number)
    calls = program("squeue", "echo COMPLETED")
    assert not taken()
    assert not calls.exists()


def test_a_process_of_this_machine_is_not_asked_of_the_scheduler() -> None:
    calls = program("squeue", "echo COMPLETED")
    lock = SidecarLock(Path(), SystemClock())
    with lock.held():
        owner = lock.holder()
        assert owner is not None
        Path("lock.owner").write_text(encoded(msgspec.structs.replace(owner, slurm_job="4711")))
        assert not taken()
        assert not calls.exists()


# --- taking it away -------------------------------------------------------------------------
def test_who_read_an_old_record_does_not_remove_a_new_one() -> None:
    old = left(**ELSEWHERE)
    new = left(**{**ELSEWHERE, "pid": 78})
    lock = SidecarLock(Path(), SystemClock())
    lock.unlock(old)
    assert lock.holder() == new
    lock.unlock(new)
    assert lock.holder() is None


def test_one_at_a_time_removes_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine, whose file locks we do not see, removes it this very moment."""
    left(**ELSEWHERE, slurm_job="4711")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    Path("lock.owner.removed").write_text("{}")
    assert not taken()
    Path("lock.owner.removed").unlink()
    assert taken()
    assert [p.name for p in Path().glob("lock.owner*")] == []


def unlocked(*words: str, say: str = "") -> tuple[int, str]:
    ran = CliRunner().invoke(cli, ["unlock", "s", *words], input=say)
    return ran.exit_code, ran.output


@pytest.fixture
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Sidecar:
    """A sidecar whose folder is also where records are left."""
    made = Sidecar(Path("s"), SystemClock())
    monkeypatch.chdir("s")
    left(**ELSEWHERE)
    monkeypatch.chdir("..")
    return made


def test_unlock_shows_the_holder_and_asks(sidecar: Sidecar) -> None:
    code, said = unlocked(say="n\n")
    assert code == exits.ERROR
    assert "process 77 on node7 since 2026-01-01T00:00:00" in said
    assert sidecar.lock.holder() is not None
    code, said = unlocked(say="y\n")
    assert (code, sidecar.lock.holder()) == (exits.OK, None)
    code, said = unlocked()
    assert (code, said) == (exits.OK, "s is not locked\n")


def test_unlock_in_a_script_asks_nobody(sidecar: Sidecar) -> None:
    (sidecar.path / "lock.owner").write_text("")  # a record that says nothing
    code, said = unlocked("--yes")
    assert code == exits.OK
    assert "another process" in said
    assert sidecar.lock.holder() is None


def test_unlock_takes_nothing_from_a_process_that_works_here(sidecar: Sidecar) -> None:
    (sidecar.path / "lock.owner").unlink()
    with sidecar.lock.held():
        code, _ = unlocked("--yes")
        assert code == exits.TRY_LATER
        assert sidecar.lock.holder() is not None
