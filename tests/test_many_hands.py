"""Several processes on one sidecar: equal, overlapping and growing rows, some of them killed.

Each request is in one job, whoever made it; every process ends with its own right frame. A folder
that cannot be locked or written says so, and nothing in it is harmed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import rows
from support.callers import FAST, MODEL
from support.children import Child, Zygote
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._shared.clock import SystemClock, is_dead, process_token
from nyu_llm_frames._sidecar import lock as lock_module
from nyu_llm_frames._sidecar.lock import SidecarLock
from nyu_llm_frames.errors import (
    PartialResultWarning,
    RunTimeoutError,
    SidecarDamagedError,
    SidecarError,
    SidecarLockedError,
    SidecarVersionError,
)

TEXTS = [f"question {i}" for i in range(40)]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.callers") as zygote:
        yield zygote


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with llm.set_options(**FAST):
        yield


def batch(gateway: StandIn, sidecar: Path, texts: list[str] = TEXTS, **more: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"q": texts})
    settings = llm.Gateway(**gateway.settings)
    out: pd.DataFrame = frame.llm.batch(
        "{{ q }}", model=MODEL, sidecar=sidecar, gateway=settings, **more
    )
    return out


def right(child: Child, texts: list[str]) -> None:
    assert child.wait() == 0, child.said
    out = json.loads(child.said.splitlines()[-1])
    assert out["answers"] == [answer(t) for t in texts]


def once(gateway: StandIn, texts: list[str]) -> None:
    sent = Counter(i for job in gateway.jobs for i in job.custom_ids)
    assert set(sent.values()) == {1}
    assert len(sent) == len(texts)


# --- several at once ------------------------------------------------------------------------
SHARES = {
    "equal": (TEXTS, TEXTS, TEXTS),
    "overlapping": (TEXTS[:25], TEXTS[15:], TEXTS[5:35]),
    "growing": (TEXTS[:10], TEXTS[:25], TEXTS),
}


@pytest.mark.parametrize("share", SHARES)
def test_processes_at_once_send_each_request_once(
    share: str, zygote: Zygote, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.behaviour = Behaviour(validating_polls=1, running_polls=2)
    children = [
        zygote.run(
            "support.callers:call",
            environment=stand_in.environment,
            texts=texts,
            sidecar=str(tmp_path / "s"),
            per_file=6,
        )
        for texts in SHARES[share]
    ]
    for child, texts in zip(children, SHARES[share], strict=True):
        right(child, texts)
    once(stand_in, TEXTS)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_process_killed_among_others_loses_and_doubles_nothing(
    share: str, at: int, zygote: Zygote, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=1)
    born = threading.Event()
    children: list[Child] = []

    def die(n: int, method: str, path: str) -> None:
        if n == at:
            assert born.wait(30)
            children[0].kill()

    stand_in.on_request = die
    for texts in SHARES[share]:
        wish: dict[str, Any] = {"texts": texts, "sidecar": str(tmp_path / "s"), "per_file": 6}
        environment = stand_in.environment
        children.append(zygote.run("support.callers:call", environment=environment, **wish))
    born.set()
    for child, texts in list(zip(children, SHARES[share], strict=True))[1:]:
        right(child, texts)
    assert children[0].wait() in (0, -9), children[0].said
    again = zygote.run(
        "support.callers:call",
        environment=stand_in.environment,
        texts=TEXTS,
        sidecar=str(tmp_path / "s"),
    )
    right(again, TEXTS)
    once(stand_in, TEXTS)


def test_two_threads_of_one_process_do_not_take_back_each_others_plans(
    stand_in: StandIn, tmp_path: Path
) -> None:
    out: dict[int, pd.DataFrame] = {}
    shares = [TEXTS[:25], TEXTS[15:]]
    threads = [
        threading.Thread(
            target=lambda i=i: out.update({i: batch(stand_in, tmp_path / "s", shares[i])})
        )
        for i in range(2)
    ]
    with llm.set_options(max_requests_per_file=4):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for i, texts in enumerate(shares):
        assert out[i]["response"].tolist() == [answer(t) for t in texts]
    once(stand_in, TEXTS)
    steps = set(llm.open_sidecar(tmp_path / "s").jobs()["step"])
    assert steps == {"done"}


def test_one_run_in_two_threads_loses_no_answer_and_pays_none_twice(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits, and its download stands still half-way; another polls, and reads all of it."""
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    half, go = threading.Event(), threading.Event()
    content = Connection.content

    def held(connection: Connection, file_id: str) -> Iterator[bytes]:
        lines = b"".join(content(connection, file_id)).splitlines(keepends=True)
        yield from lines[: len(lines) // 2]
        if threading.current_thread() is not threading.main_thread():
            half.set()
            assert go.wait(60)
        yield from lines[len(lines) // 2 :]

    monkeypatch.setattr(Connection, "content", held)
    # More than one block, so that a part of it is taken before the rest is there.
    texts = [f"question {i} {'long ' * 40}" for i in range(6000)]
    frame = pd.DataFrame({"q": texts})
    gateway = llm.Gateway(**stand_in.settings)
    run = frame.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run.wait, timeout=300)
        assert half.wait(60)
        assert run.poll().counts() == {"ok": len(texts)}
        go.set()
        waiting.result()
    assert run.result()["response"].tolist() == [answer(t) for t in texts]
    batch(stand_in, tmp_path / "s", texts)
    once(stand_in, texts)


def test_a_poll_in_another_thread_does_not_take_a_wait_s_timeout_away(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.behaviour = Behaviour(running_polls=10**6)
    gateway = llm.Gateway(**stand_in.settings)
    frame = pd.DataFrame({"q": TEXTS})
    run = frame.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run.wait, timeout=1)
        for _ in range(3000):
            if waiting.done():
                break
            run.poll()
        stand_in.finish()
        with pytest.raises(RunTimeoutError):
            waiting.result()


def test_a_job_that_failed_for_one_process_is_not_sent_again_by_another_that_waited_for_it(
    zygote: Zygote, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=3, terminal="failed")
    wish: dict[str, Any] = {"texts": TEXTS, "sidecar": str(tmp_path / "s"), "per_file": 40}
    children = [
        zygote.run("support.callers:call", environment=stand_in.environment, **wish)
        for _ in range(2)
    ]
    for child in children:
        assert child.wait() == 1
        assert "BatchJobFailedError" in child.said
    assert len(stand_in.jobs) <= 2  # 2 only if one began when the other had ended


# --- the lock -------------------------------------------------------------------------------
def test_a_lock_of_a_dead_process_of_this_host_does_not_block(
    stand_in: StandIn, tmp_path: Path
) -> None:
    batch(stand_in, tmp_path / "s", TEXTS[:2])
    dead = {"host": socket.gethostname(), "pid": 2**22 - 3, "since": "2026-01-01T00:00:00"}
    (tmp_path / "s" / "lock.owner").write_text(json.dumps(dead))
    batch(stand_in, tmp_path / "s", TEXTS[:4])
    assert not (tmp_path / "s" / "lock.owner").exists()


def test_a_lock_of_another_host_is_respected_and_named(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch(stand_in, tmp_path / "s", TEXTS[:2])
    owner = tmp_path / "s" / "lock.owner"
    owner.write_text(json.dumps({"host": "greene", "pid": 77, "since": "2026-01-01T00:00:00"}))
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.2)
    with pytest.raises(SidecarLockedError, match="process 77 on greene since 2026") as e:
        batch(stand_in, tmp_path / "s", TEXTS[:4])
    assert str(owner) in str(e.value)
    assert (e.value.host, e.value.pid) == ("greene", 77)
    assert owner.exists()
    assert len(stand_in.jobs) == 1


def test_timeout_covers_waiting_for_the_lock(stand_in: StandIn, tmp_path: Path) -> None:
    """Of another process, while planning and while driving."""
    batch(stand_in, tmp_path / "s", TEXTS[:2])
    owner = tmp_path / "s" / "lock.owner"
    theirs = json.dumps({"host": "greene", "pid": 77, "since": "2026-01-01T00:00:00"})
    owner.write_text(theirs)
    with pytest.raises(RunTimeoutError, match="process 77 on greene"):
        batch(stand_in, tmp_path / "s", TEXTS[:4], timeout=0.2)
    owner.unlink()
    stand_in.behaviour.running_polls = -1
    frame = pd.DataFrame({"q": TEXTS[:4]})
    gateway = llm.Gateway(**stand_in.settings)
    run = frame.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
    owner.write_text(theirs)
    with pytest.raises(RunTimeoutError) as e:
        run.wait(timeout=0.2)
    assert e.value.run is run


def test_an_owner_record_that_says_nothing_is_not_broken(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host writes it this very moment, where there are no hard links."""
    batch(stand_in, tmp_path / "s", TEXTS[:2])
    owner = tmp_path / "s" / "lock.owner"
    owner.write_text("")
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.2)
    with pytest.raises(SidecarLockedError, match="If nobody is using this sidecar") as e:
        batch(stand_in, tmp_path / "s", TEXTS[:4])
    assert str(owner) in str(e.value)
    assert owner.exists()


def test_a_lock_is_free_again_also_when_its_record_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(self: Path, **more: Any) -> None:
        if self.name == "lock.owner":
            raise PermissionError(errno.EACCES, "in use")
        unlink(self, **more)

    with (
        pytest.raises(SidecarError, match="not allowed") as caught,
        SidecarLock(tmp_path, SystemClock()).held(),
    ):
        monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.undo()
    with SidecarLock(tmp_path, SystemClock()).held(patience_s=0):
        pass
    assert caught.tb  # a notebook holds the frames of its last error, too, and so the lock in them


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_is_free_again_after_an_interrupt_while_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def link(source: Path, target: Path) -> None:
        if links:
            Path(target).write_text(Path(source).read_text())
            raise KeyboardInterrupt
        monkeypatch.setattr(os, "fdopen", interrupt)
        raise PermissionError(errno.EPERM, "no hard links here")

    def interrupt(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise KeyboardInterrupt

    lock = SidecarLock(tmp_path, SystemClock())
    lock.prove()
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt) as caught, lock.held():
        pass
    monkeypatch.undo()
    with SidecarLock(tmp_path, SystemClock()).held(patience_s=0):
        pass
    assert caught.tb  # as a notebook holds it


def test_an_interrupt_does_not_take_another_host_s_lock_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    lock = SidecarLock(tmp_path, SystemClock())
    lock.prove()
    owner = tmp_path / "lock.owner"
    owner.write_text(json.dumps({"host": "greene", "pid": 77, "since": "2026-01-01T00:00:00"}))
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        with pytest.raises(KeyboardInterrupt), lock.held():
            pass
    assert owner.exists()


@pytest.mark.parametrize("system", ["with /proc", "without"])
def test_a_process_is_known_to_be_dead(system: str) -> None:
    """Also where boots have no names and processes no start: on macOS."""
    proc = Path("/proc" if system == "with /proc" else "/nowhere")
    token = "import nyu_llm_frames._shared.clock as c; print(c.process_token())"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{token}; input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    host, boot, pid, _ = name.rsplit("/", 3)
    if system == "without":
        name = f"{host}/{boot[::-1]}/{pid}/"
    elsewhere = f"greene/b7/{pid}/7"
    assert not is_dead(name, proc)
    assert not is_dead(elsewhere, proc)
    child.communicate("\n")
    assert is_dead(name, proc)
    assert not is_dead(elsewhere, proc)
    assert not is_dead("nonsense", proc)


def test_a_reused_process_number_is_told_apart() -> None:
    host, boot, pid, start = process_token().rsplit("/", 3)
    assert not is_dead(process_token())
    assert is_dead(f"{host}/{boot}/{pid}/{int(start) - 1}")
    assert is_dead(f"{host}/{boot[::-1]}/{pid}/{start}")  # before the machine was started again


def test_a_finished_run_needs_no_lock(stand_in: StandIn, tmp_path: Path) -> None:
    first = batch(stand_in, tmp_path / "s")
    with SidecarLock(tmp_path / "s", SystemClock()).held():
        pd.testing.assert_frame_equal(batch(stand_in, tmp_path / "s"), first)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_folder_without_locks_is_refused_before_anything_is_sent(
    number: int, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(SidecarError, match="locks have no effect here"):
        batch(stand_in, tmp_path / "s")
    assert stand_in.log == []


def test_a_folder_whose_locks_do_not_exclude_is_refused(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    with pytest.raises(SidecarError, match="locks have no effect here"):
        batch(stand_in, tmp_path / "s")
    assert stand_in.log == []


# --- folders that refuse --------------------------------------------------------------------
class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextlib.contextmanager
def permissions_bind() -> Iterator[None]:
    """Let permission bits hold for this thread, root or not: without CAP_DAC_OVERRIDE."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(0x20080522, 0), (_Data * 2)()
    assert libc.capget(ctypes.byref(header), data) == 0
    before = data[0].effective
    data[0].effective = before & ~0b1110  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
    assert libc.capset(ctypes.byref(header), data) == 0
    try:
        yield
    finally:
        data[0].effective = before
        assert libc.capset(ctypes.byref(header), data) == 0


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write from a folder and all in it, as an archive does."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with permissions_bind():
            yield
    finally:
        for path in paths:
            path.chmod(0o700 if path.is_dir() else 0o600)


def test_a_finished_run_in_a_read_only_sidecar_gives_its_frame(
    stand_in: StandIn, tmp_path: Path
) -> None:
    first = batch(stand_in, tmp_path / "s")
    asked = len(stand_in.log)
    with read_only(tmp_path / "s"):
        with pytest.raises(PermissionError):
            (tmp_path / "s" / "x").write_text("")
        pd.testing.assert_frame_equal(batch(stand_in, tmp_path / "s"), first)
        assert len(llm.open_sidecar(tmp_path / "s").answers()) == len(TEXTS)
    assert len(stand_in.log) == asked


def test_rows_tried_often_enough_need_no_right_to_write(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.behaviour = Behaviour(row=rows.pick({TEXTS[1]: rows.failed(503)}))
    with pytest.warns(PartialResultWarning):
        first = batch(stand_in, tmp_path / "s", retries=0)
    with read_only(tmp_path / "s"), pytest.warns(PartialResultWarning):
        again = batch(stand_in, tmp_path / "s", retries=0)
    pd.testing.assert_frame_equal(again, first)


def test_a_new_row_in_a_read_only_sidecar_is_refused_before_anything_is_sent(
    stand_in: StandIn, tmp_path: Path
) -> None:
    batch(stand_in, tmp_path / "s", TEXTS[:3])
    asked = len(stand_in.log)
    with read_only(tmp_path / "s"), pytest.raises(SidecarError, match=r"not allowed.*sidecar="):
        batch(stand_in, tmp_path / "s", TEXTS[:4])
    assert len(stand_in.log) == asked
    batch(stand_in, tmp_path / "s", TEXTS[:4])
    once(stand_in, TEXTS[:4])


def test_a_new_sidecar_where_writing_is_forbidden_is_refused(
    stand_in: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    with read_only(tmp_path / "archive"), pytest.raises(SidecarError, match="not allowed"):
        batch(stand_in, tmp_path / "archive" / "s")
    assert stand_in.log == []


PAGE = 4096


class Disk:
    """A file system of its own that can be filled; where none is to be had, a pretended one."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._patch = path, monkeypatch
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
        able = os.geteuid() == 0 and shutil.which("mount")
        self.real = bool(able) and not subprocess.run(command, capture_output=True).returncode

    def fill(self, pages: int) -> None:
        """Leave so many pages free."""
        if self.real:
            free = os.statvfs(self.path).f_bavail - pages
            (self.path / "filler").write_bytes(b"x" * PAGE * free)
            return
        left, fsync = itertools.count(pages, -1), os.fsync

        def full(descriptor: int) -> None:
            if next(left) <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        self._patch.setattr(os, "fsync", full)

    def free(self) -> None:
        self._patch.undo()
        (self.path / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.real:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch)
        yield disk
        disk.close()


def test_a_disk_that_is_full_at_any_write_is_said_and_harms_nothing(
    disk: Disk, stand_in: StandIn
) -> None:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    full = 0
    for pages in range(40):
        sidecar = disk.path / f"s{pages}"
        stand_in.jobs.clear()
        disk.fill(pages)
        try:
            with llm.set_options(max_requests_per_file=2):
                batch(stand_in, sidecar, TEXTS[:4])
        except SidecarError as e:
            assert "disk is full" in str(e)  # noqa: PT017 (it may also go well)
            full += 1
        disk.free()
        with llm.set_options(max_requests_per_file=2):
            out = batch(stand_in, sidecar, TEXTS[:4])
        assert out["response"].tolist() == [answer(t) for t in TEXTS[:4]]
        once(stand_in, TEXTS[:4])
        assert len(stand_in.jobs) == 2
        shutil.rmtree(sidecar)
        if full < pages:
            break
    assert full > 10
    assert full < 39


# --- files that are not as they were written ------------------------------------------------
def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("<html>quota exceeded</html>")


def damage_other(path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), path)


WAYS = [damage_cut, damage_zeros, damage_empty, damage_text, damage_other]
WAY_OUT = {
    "jobs": "Restore it from a backup",
    "requests": "Restore it from a backup",
    "answers": "Delete it: the next call reads its answers again",
    "runs": "Delete it: only the description",
}


def touch_all(gateway: StandIn, sidecar: Path) -> None:
    """Read every kind of file."""
    batch(gateway, sidecar, TEXTS[:3])
    batch(gateway, sidecar, TEXTS[:4])
    llm.open_sidecar(sidecar).runs()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WAY_OUT)
def test_a_damaged_file_is_named_with_the_way_out(
    kind: str, way: Callable[[Path], None], stand_in: StandIn, tmp_path: Path
) -> None:
    batch(stand_in, tmp_path / "s", TEXTS[:3])
    (path,) = (tmp_path / "s" / kind).glob("*.parquet")
    way(path)
    paid = len(stand_in.jobs)
    with pytest.raises(SidecarDamagedError) as e:
        touch_all(stand_in, tmp_path / "s")
    assert str(path) in str(e.value)
    assert e.value.path == str(path)
    assert WAY_OUT[kind] in str(e.value)
    assert len(stand_in.jobs) <= paid + (kind == "runs")  # nothing is sent over damage


def test_a_damaged_file_of_answers_is_rebuilt_without_paying(
    stand_in: StandIn, tmp_path: Path
) -> None:
    first = batch(stand_in, tmp_path / "s")
    (path,) = (tmp_path / "s" / "answers").glob("*.parquet")
    damage_cut(path)
    with pytest.raises(SidecarDamagedError):
        batch(stand_in, tmp_path / "s")
    path.unlink()
    pd.testing.assert_frame_equal(batch(stand_in, tmp_path / "s"), first)
    assert len(stand_in.jobs) == 1


@pytest.mark.parametrize("lose", [Path.unlink, damage_cut])
def test_without_its_requests_a_job_can_be_forgotten(
    lose: Callable[[Path], None], stand_in: StandIn, tmp_path: Path
) -> None:
    first = batch(stand_in, tmp_path / "s")
    (path,) = (tmp_path / "s" / "requests").glob("*.parquet")
    lose(path)
    with pytest.raises(SidecarDamagedError, match="without one, delete jobs/") as e:
        batch(stand_in, tmp_path / "s", [*TEXTS, "one more"])
    assert e.value.path == str(path)
    (job,) = (tmp_path / "s" / "jobs").glob("*.parquet")
    assert f"jobs/{job.name}" in str(e.value)
    job.unlink()
    pd.testing.assert_frame_equal(batch(stand_in, tmp_path / "s"), first)
    assert len(batch(stand_in, tmp_path / "s", [*TEXTS, "one more"])) == 41
    assert [len(job.requests) for job in stand_in.jobs] == [40, 1]


def test_a_strange_copy_among_the_answers_does_no_harm(stand_in: StandIn, tmp_path: Path) -> None:
    """As a synchronised folder makes one."""
    batch(stand_in, tmp_path / "s", TEXTS[:3])
    (path,) = (tmp_path / "s" / "answers").glob("*.parquet")
    shutil.copy(path, path.with_name(f"Copy of {path.name}"))
    shutil.copy(path, path.with_name("conflict.parquet"))
    out = batch(stand_in, tmp_path / "s", TEXTS[:5])
    assert out["response"].tolist() == [answer(text) for text in TEXTS[:5]]
    assert [len(job.requests) for job in stand_in.jobs] == [3, 2]


@pytest.mark.parametrize("kind", WAY_OUT)
def test_a_newer_format_is_named(kind: str, stand_in: StandIn, tmp_path: Path) -> None:
    batch(stand_in, tmp_path / "s", TEXTS[:3])
    (path,) = (tmp_path / "s" / kind).glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"nyu_llm_frames.format": "3"}), path)
    with pytest.raises(SidecarVersionError, match=r"format 3.*pip install -U nyu-llm-frames") as e:
        touch_all(stand_in, tmp_path / "s")
    assert e.value.path == str(path)
