"""Writes and reads the sidecar's files, each whole or not there; nothing else writes into one.

Comes in: tables and paths. Goes out: files written under a draft name, fsynced, atomically put in
place (mode 0600, folders 0700; in a shared sidecar 0660 and 2770), and errors that name the file
and how to fix it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from nyu_llm_frames._shared.clock import may_live
from nyu_llm_frames._shared.wording import printable
from nyu_llm_frames.errors import (
    LLMFramesError,
    SidecarDamagedError,
    SidecarError,
    SidecarVersionError,
)

T = TypeVar("T")
Stamp: TypeAlias = tuple[int, int, int]

FORMAT = 2
_FORMAT_KEY = b"nyu_llm_frames.format"

_HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()

_REBUILD: Mapping[str, str] = {
    "jobs": (
        "It says which batch job at the gateway holds which rows. Restore it from a backup; "
        "deleting it forgets the job, and its rows without an answer are sent and paid again."
    ),
    "requests": (
        "It says which rows its batch job carries. Restore it from a backup; without one, delete "
        "jobs/{name}: that forgets the job, and its rows without an answer are sent and paid again."
    ),
    "answers": (
        "Delete it: the next call reads its answers again from the gateway, free of charge, as "
        "long as the batch job is kept there (those of a trial are paid again)."
    ),
    "runs": "Delete it: only the description of a past run is lost, no answer.",
}


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def is_refused(e: OSError) -> bool:
    """Whether the disk is full or writing is forbidden: nothing is wrong with the folder."""
    return e.errno in _FULL | _FORBIDDEN


@contextmanager
def sidecar_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except SidecarError:
        raise
    except OSError as e:
        if e.errno in _FULL:
            what = "the disk is full. Free some space and call again; nothing was lost"
        elif e.errno in _FORBIDDEN:
            what = (
                "reading or writing is not allowed here. Choose a folder of your own with sidecar=;"
                " for another person's sidecar, ask for a copy (export)"
            )
        else:
            what = e.strerror or str(e)
        raise SidecarError(f"{path}: {what}.", path=str(path)) from None


def check_there(sidecar: Path, part: str = "") -> None:
    """Refuse to go on without a sidecar that was there: as an empty one it would be paid again."""
    with sidecar_errors(sidecar):
        if not (sidecar / part).is_dir():
            raise SidecarError(
                f"{sidecar} is gone: moved, deleted, or on a disk that is not mounted. It records "
                "what was submitted; submitted jobs continue. Put it back, or name its new place "
                "with sidecar=: without it, the same call pays for every row again.",
                path=str(sidecar),
            )


def make_folder(path: Path, *, shared: bool = False) -> None:
    """Make a private folder, or one shared with its group; parents with the system's mode."""
    with sidecar_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            path.chmod(0o700)  # an empty folder that was made open to all
        if shared:
            path.chmod(0o2770)  # new files inside belong to the same group


def file_mode(folder: Path) -> int:
    """Return the mode of new files: with the group's rights where the group may write."""
    return 0o660 if folder.stat().st_mode & stat.S_IWGRP else 0o600


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def remove(draft: Path) -> None:
    """Remove an unneeded file; where that fails it is tidied up another time."""
    with suppress(OSError):
        draft.unlink(missing_ok=True)


def draft_path(path: Path) -> Path:
    """Return a name beside `path` for a file that is not whole yet."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def open_new(path: Path, mode: int | None = None) -> int:
    """Make a file for its owner, in a shared folder for the group too; return it open.

    A `mode` is narrowed by the process's mask, like that of any file.
    """
    wanted = file_mode(path.parent) if mode is None else mode
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, wanted)
    if mode is None and wanted != 0o600:
        path.chmod(wanted)  # whatever the mask
    return descriptor


def create(path: Path, mode: int | None = None) -> None:
    """Make such a file, empty."""
    os.close(open_new(path, mode))


def copy(source: Path, target: Path) -> None:
    """Copy a file, with the mode of files at its new place."""
    create(target)
    shutil.copyfile(source, target)


def sync_file(path: Path) -> None:
    """Make what was written to a closed file durable."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a path to write to; the file then appears whole under its own name, or not at all."""
    draft = draft_path(path)
    with sidecar_errors(path):
        try:
            create(draft, mode)
            yield draft
            sync_file(draft)
            # Kernels stamp files by a clock that ticks every few milliseconds, and readers
            # recognize a new version of a file by its time.
            now = time.time_ns()
            os.utime(draft, ns=(now, now))
            draft.replace(path)
            sync_folder(path.parent)
        except BaseException:
            remove(draft)
            raise


@contextmanager
def atomic_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all."""
    with atomic_path(path, mode) as draft, draft.open("wb") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


def marked(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the format version in its metadata."""
    return schema.with_metadata({_FORMAT_KEY: str(FORMAT).encode()})


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table atomically.

    Records of jobs are written at every step: in memory and without dictionaries, which takes a
    fifth of the time.
    """
    table = table.replace_schema_metadata(marked(table.schema).metadata)
    made = pa.BufferOutputStream()
    pq.write_table(table, made, compression="lz4", use_dictionary=False, write_statistics=False)
    with atomic_file(path) as file:
        file.write(made.getvalue())


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a large table of distinct values atomically, batch by batch."""
    with (
        atomic_path(path) as draft,
        # Not a Python file object: each write to one waits for the thread that makes the batches.
        pa.OSFile(str(draft), "wb") as file,
        pq.ParquetWriter(
            file, marked(schema), compression="lz4", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        for batch in one_ahead(batches):
            writer.write_batch(batch)


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items while a thread makes the next one."""
    source = iter(items)
    end: list[T] = []
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        pending = thread.submit(lambda: next(source, end))
        while (item := pending.result()) is not end:
            pending = thread.submit(lambda: next(source, end))
            yield item  # type: ignore[misc]


def _check_format(path: Path, metadata: Mapping[bytes, bytes] | None) -> None:
    found = (metadata or {}).get(_FORMAT_KEY)
    if found is None or not found.isdigit() or len(found) > 9:
        raise damaged(path, "it has no format version")
    if int(found) < FORMAT:
        raise SidecarVersionError(
            f"{path} was written in sidecar format {int(found)}, which no release has. Begin a new "
            "sidecar; the version that wrote this one can read it.",
            path=str(path),
        )
    if int(found) > FORMAT:
        raise SidecarVersionError(
            f"{path} was written in sidecar format {int(found)}; this release reads up to "
            f"{FORMAT}. Upgrade: pip install -U nyu-llm-frames",
            path=str(path),
        )


def _check_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            raise damaged(path, f"it has {len(places)} columns {field.name}")
        kind = found.field(places[0]).type
        if kind != field.type:
            raise damaged(path, f"its column {field.name} is {kind}, not {field.type}")


@contextmanager
def reading(path: Path, expected: pa.Schema | None = None) -> Iterator[pq.ParquetFile]:
    """Open a parquet file of the sidecar, with errors that name it and how to fix it.

    Parameters
    ----------
    path : Path
    expected : pyarrow.Schema, optional
        Columns that it must have.

    Raises
    ------
    SidecarDamagedError, SidecarVersionError, SidecarError
    """
    with sidecar_errors(path):
        try:
            with pq.ParquetFile(path) as file:
                _check_format(path, file.schema_arrow.metadata)
                _check_columns(path, file.schema_arrow, expected or pa.schema([]))
                yield file
        except LLMFramesError:
            raise  # an OSError or a ValueError too
        except (pa.ArrowException, ValueError, OverflowError, KeyError) as e:
            raise damaged(path, e) from None
        except FileNotFoundError:
            raise SidecarDamagedError(
                f"{path} is missing. {_remedy(path)}".strip(), path=str(path)
            ) from None
        except OSError as e:
            if e.errno is None:  # pyarrow reports damage as an OSError without a number
                raise damaged(path, e) from None
            raise


def groups(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    """Yield a file's row groups, as they were written."""
    for number in range(file.num_row_groups):
        # Two columns are read before threads would start.
        yield file.read_row_group(number, columns=columns, use_threads=False)


def damaged(path: Path, reason: object) -> SidecarDamagedError:
    """Return the error that names a file, what is wrong with it, and how to fix it."""
    text = " ".join(printable(str(reason).replace(str(path), "it")).split())[:120]
    return SidecarDamagedError(
        f"{path} is damaged ({text}). {_remedy(path)}".strip(), path=str(path)
    )


def _remedy(path: Path) -> str:
    return _REBUILD.get(path.parent.name, "").format(name=path.name)


def read_table(path: Path, expected: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table that must have the expected columns, or some of these."""
    with reading(path, expected) as file:
        # Starting threads takes longer than reading a record.
        many = file.metadata.num_rows > 1_000
        return file.read(columns=list(columns or expected.names), use_threads=many)


def parquet_files(folder: Path) -> list[Path]:
    """Return the whole files of a folder, by name."""
    with sidecar_errors(folder):
        if not folder.is_dir():
            return []
        return sorted(
            p for p in folder.iterdir() if p.suffix == ".parquet" and not p.name.startswith(".")
        )


def stamp(stat: os.stat_result) -> Stamp:
    """Return the stamp by which two versions of a file differ."""
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def stamped_files(folder: Path) -> list[tuple[str, str, Stamp]]:
    """Return the whole files of a folder, by name: name, path, stamp.

    There may be thousands, and a step looks at all of them: so nothing more is read.
    """
    suffix = ".parquet"
    with sidecar_errors(folder):
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name.removesuffix(suffix), entry.path, stamp(entry.stat()))
                for entry in entries
                if entry.name.endswith(suffix) and not entry.name.startswith(".")
            )


def remove_drafts(folder: Path) -> None:
    """Remove unfinished files of dead processes of this host."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file() and left_behind(path):
            path.unlink(missing_ok=True)


def left_behind(path: Path) -> bool:
    """Whether a name made by `draft_path` belongs to a dead process of this host."""
    if not path.name.startswith(".") or path.name.count(".") < 2:
        return False
    host, pid, _ = (path.name.rpartition(".")[2] + "--").split("-", 2)
    return host == _HOST and pid.isdigit() and not may_live(int(pid))
