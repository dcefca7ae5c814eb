"""The sidecar's lock: held for a step, never while waiting; it records its holder.

Comes in: the folder. Goes out: a context manager. Two parts: the operating system's file lock,
which a dying process cannot leave behind, and an owner record made with O_EXCL, for other hosts
on network folders that do not share file locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.wording import printable
from nyu_llm_frames._sidecar.lock_owner import LockOwner, encoded
from nyu_llm_frames._sidecar.storage import (
    check_there,
    draft_path,
    file_mode,
    is_refused,
    open_new,
    remove,
    sidecar_errors,
)
from nyu_llm_frames.errors import SidecarError, SidecarLockedError

_LOCK, _OWNER = "lock", "lock.owner"
_PAUSE_S = 0.05
_SOON_S, _ASK_S = 2.0, 30.0  # until the first query of the scheduler, and between queries
PATIENCE_S = 600.0
"""Seconds to wait for another holder: longer than the slowest step, a submit."""


def _file_lock(path: Path) -> FileLock:
    check_there(path.parent)  # filelock would make the folder
    # A marker file in place of the system's lock outlives its process, and other hosts cannot
    # find out its owner.
    return FileLock(path, timeout=0, mode=0o600, fallback_to_soft=False)


def _acquire(lock: FileLock, timeout: float | None = None) -> None:
    """Take a file lock; in a shared folder the group may take it afterward."""
    lock.acquire(timeout=timeout)
    path = Path(lock.lock_file)
    with suppress(OSError):  # another user's file
        mode = file_mode(path.parent)
        if mode != 0o600:
            path.chmod(mode)


@contextmanager
def one_trial(folder: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of trials: one at a time, however long it takes; batches never wait for it.

    Parameters
    ----------
    folder : Path
        The sidecar.
    on_wait : callable
        Called with a message when another trial is at work.
    """
    lock = _file_lock(folder / "lock.trial")
    try:
        with sidecar_errors(folder):
            try:
                _acquire(lock)
            except Timeout:
                on_wait("another trial is running in this sidecar: waiting for it to end")
                _acquire(lock, timeout=-1)
        yield
    finally:
        lock.release()


class SidecarLock:
    """Exclusive access to one sidecar, across threads, processes and hosts.

    Parameters
    ----------
    folder : Path
    clock : Clock
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._owner, self._removing = folder / _OWNER, folder / f"{_OWNER}.removed"
        self._proved = False

    def prove(self) -> None:
        """Check that locking works in this folder: a held lock cannot be taken again."""
        if self._proved:
            return
        probe = self._folder / "lock.probe"
        first, second = _file_lock(probe), _file_lock(probe)
        try:
            with sidecar_errors(self._folder):
                try:
                    _acquire(first)
                    _acquire(second)
                    works = False
                except Timeout:
                    works = True  # held by us, or by another process that makes the same check now
                except OSError as e:
                    if is_refused(e):
                        raise
                    works = False
        finally:
            first.release(force=True)
            second.release(force=True)
        if not works:
            raise SidecarError(
                f"{self._folder}: file locks have no effect here. Without them two processes "
                "could pay for the same rows. Put the sidecar on a local disk.",
                path=str(self._folder),
            )
        self._proved = True

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Take the lock of some work without waiting; yield whether no other process here has it.

        It only saves work: where a file system loses locks, two processes do it.
        """
        path = self._folder / f"{_LOCK}.{name}"
        lock = _file_lock(path)
        try:
            with sidecar_errors(self._folder), suppress(Timeout):
                _acquire(lock)
            yield lock.is_locked
        finally:
            if lock.is_locked:
                remove(path)
                lock.release()

    @contextmanager
    def held(
        self, on_wait: Callable[[str], None] | None = None, patience_s: float | None = None
    ) -> Iterator[None]:
        """Hold the lock.

        Parameters
        ----------
        on_wait : callable, optional
            Called once with the holder, when waiting takes longer.
        patience_s : float, optional
            Seconds to wait for another holder, `PATIENCE_S` at most.

        Raises
        ------
        SidecarLockedError
            When another process or host holds it for longer than the patience.
        """
        self.prove()
        lock = _file_lock(self._folder / _LOCK)
        patience = PATIENCE_S if patience_s is None else min(patience_s, PATIENCE_S)
        start, shown, ask_at = self._clock.monotonic(), False, _SOON_S
        # An interrupt may come at any point, and a kept traceback would keep the lock.
        try:
            while True:
                holder = self._try(lock)
                if holder is None:
                    break
                waited = self._clock.monotonic() - start
                ask = waited >= ask_at
                ask_at += _ASK_S if ask else 0.0
                if holder.has_ended(self._me(), ask=ask) and self._remove(holder):
                    continue
                if waited >= patience:
                    raise self._locked(holder)
                if waited > _SOON_S and not shown and on_wait is not None:
                    on_wait(f"waiting for the sidecar's lock, held by {holder}")
                    shown = True
                self._clock.sleep(_PAUSE_S)
            yield
        finally:
            if lock.is_locked:
                self._let_go(lock)

    def _me(self) -> LockOwner:
        return LockOwner.here(self._clock)

    def _let_go(self, lock: FileLock) -> None:
        """Remove the owner record and release the file lock."""
        try:
            with sidecar_errors(self._folder):
                # Under this machine's file lock a record of this machine is ours.
                owner = LockOwner.read(self._owner)
                if owner is not None and owner.is_here(self._me()):
                    self._owner.unlink(missing_ok=True)
        finally:
            with sidecar_errors(self._folder):
                lock.release()

    def _try(self, lock: FileLock) -> LockOwner | None:
        """Take both parts, or return what is known about the holder."""
        try:
            _acquire(lock)
        except Timeout:
            return LockOwner.read(self._owner) or LockOwner()
        except OSError:  # caught here, not around the call: a Timeout is an OSError too
            with sidecar_errors(self._folder):
                raise
        me = self._me()
        for _ in range(2):
            try:
                self._record(self._owner, encoded(me))
            except FileExistsError:
                owner = LockOwner.read(self._owner) or LockOwner()
                if not owner.is_here(me):
                    # Another machine's. An empty one may be, too: without hard links it is empty
                    # for the moment in which it is written.
                    lock.release()
                    return owner
                # This machine's, while we hold its file lock: its process is dead.
                with sidecar_errors(self._folder):
                    self._owner.unlink(missing_ok=True)
                continue
            except OSError:
                lock.release()
                with sidecar_errors(self._folder):
                    raise
            return None
        lock.release()
        return me

    def holder(self) -> LockOwner | None:
        """Return the holder by the record; None without a record."""
        return LockOwner.read(self._owner)

    def unlock(self, holder: LockOwner) -> None:
        """Remove the record of a holder that has ended, as the user says.

        Parameters
        ----------
        holder : LockOwner
            As it was shown. If the record has changed since, it stays.

        Raises
        ------
        SidecarLockedError
            When a process of this machine holds the lock.
        """
        remove(self._removing)  # left by a process that died while it removed a record
        if not self._remove(holder):
            raise self._locked(holder)

    def _remove(self, holder: LockOwner) -> bool:
        """Remove a record; return False if another process holds the lock or is removing it."""
        lock = _file_lock(self._folder / _LOCK)
        try:
            with sidecar_errors(self._folder):
                try:
                    _acquire(lock)
                    # One at a time, over all machines: a process that read the old record must not
                    # remove the new one of a faster process.
                    self._record(self._removing, encoded(self._me()))
                except (Timeout, FileExistsError):
                    return False
                try:
                    if self.holder() == holder:
                        self._owner.unlink(missing_ok=True)
                finally:
                    remove(self._removing)
                return True
        finally:
            lock.release()

    def _record(self, owner_path: Path, text: str) -> None:
        """Make the owner record, whole from its first moment; FileExistsError if there is one."""
        draft = draft_path(owner_path)
        try:
            with os.fdopen(open_new(draft), "w") as file:
                file.write(text)
            try:
                os.link(draft, owner_path)
            except FileExistsError:
                raise
            except OSError:  # no hard links here (some network and memory-card file systems)
                descriptor = open_new(owner_path)
                try:
                    with os.fdopen(descriptor, "w") as file:
                        file.write(text)
                except BaseException:
                    owner_path.unlink(missing_ok=True)  # it has no owner
                    raise
        finally:
            draft.unlink(missing_ok=True)

    def _locked(self, holder: LockOwner) -> SidecarLockedError:
        text = f"{self._folder}: the sidecar is locked by {holder}."
        remedy = f"nyu-llm-frames unlock {self._folder} (it removes {self._owner})."
        if not holder.host:
            text += f" The holder is unknown. If nobody is using this sidecar: {remedy}"
        elif not holder.is_here(self._me()):
            text += (
                f" That is another machine. If you are sure that process {holder.pid} on "
                f"{printable(holder.host)} has ended: {remedy}"
            )
        return SidecarLockedError(
            text, path=str(self._folder), host=holder.host, pid=holder.pid, since=holder.since
        )
