"""Parquet files that are whole or not there: the only place that writes into a sidecar.

Comes in: tables and paths. Goes out: files written beside their name, fsynced, atomically put in
place (mode 0600, folders 0700), and errors that name the file and what can be done about it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nyu_llm_frames.errors import SidecarDamagedError, SidecarError, SidecarVersionError

FORMAT = 1
_FORMAT_KEY = b"nyu_llm_frames.format"

_HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()

_REBUILD: Mapping[str, str] = {
    "jobs": (
        "It says which batch job at the gateway holds which rows. Restore it from a backup; "
        "deleting it forgets the job, and its rows are sent and paid again."
    ),
    "requests": (
        "It says which rows its batch job carries. Restore it from a backup; deleting it forgets "
        "that these rows were sent, and those without an answer are paid again."
    ),
    "answers": (
        "Delete it: the next call reads its answers again from the gateway, free of charge, as "
        "long as the batch job is kept there."
    ),
    "runs": "Delete it: only the description of a past run is lost, no answer.",
}


@contextmanager
def sidecar_errors(path: Path) -> Iterator[None]:
    """Turn what a file system can do into our errors."""
    try:
        yield
    except SidecarError:
        raise
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full. Free some space and call again; nothing was lost"
        elif e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = "writing is not allowed here. Choose a folder of your own with sidecar="
        else:
            what = e.strerror or str(e)
        raise SidecarError(f"{path}: {what}.", path=str(path)) from None


def make_folder(path: Path) -> None:
    """Make a private folder, and its parents as the system makes them."""
    with sidecar_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)


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


def draft_path(path: Path) -> Path:
    """Return a name beside `path` for a file that is not whole yet."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears whole, with all it held, or not at all."""
    draft = draft_path(path)
    with sidecar_errors(path):
        try:
            descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


def marked(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the format version in its metadata."""
    return schema.with_metadata({_FORMAT_KEY: str(FORMAT).encode()})


def write_table(path: Path, table: pa.Table, *, strings: bool = True) -> None:
    """Write a table atomically.

    Parameters
    ----------
    strings : bool
        Whether to look for repeated values; off for columns where every value differs.
    """
    table = table.replace_schema_metadata(marked(table.schema).metadata)
    with atomic_file(path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=1,
            use_dictionary=strings,
            write_statistics=False,
        )


def _check_format(path: Path, metadata: Mapping[bytes, bytes] | None) -> None:
    found = (metadata or {}).get(_FORMAT_KEY)
    if found is None or not found.isdigit():
        raise SidecarDamagedError(
            f"{path} is no file of a sidecar (it has no format version).", path=str(path)
        )
    if int(found) > FORMAT:
        raise SidecarVersionError(
            f"{path} was written in sidecar format {int(found)}; this release reads up to "
            f"{FORMAT}. Upgrade: pip install -U nyu-llm-frames",
            path=str(path),
        )


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a parquet file of the sidecar, with errors that name it and the way out.

    Raises
    ------
    SidecarDamagedError, SidecarVersionError, SidecarError
    """
    with sidecar_errors(path):
        try:
            with pq.ParquetFile(path) as file:
                _check_format(path, file.schema_arrow.metadata)
                yield file
        except (pa.ArrowException, UnicodeDecodeError, KeyError) as e:
            raise _damaged(path, e) from None
        except OSError as e:
            if e.errno is None:  # pyarrow reports damage as an OSError without a number
                raise _damaged(path, e) from None
            raise


def _damaged(path: Path, e: Exception) -> SidecarDamagedError:
    way_out = _REBUILD.get(path.parent.name, "")
    reason = " ".join(str(e).split())[:120]
    return SidecarDamagedError(f"{path} is damaged ({reason}). {way_out}".strip(), path=str(path))


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table, or some columns of it."""
    with reading(path) as file:
        return file.read(columns=columns)


def parquet_files(folder: Path) -> list[Path]:
    """Return the whole files of a folder, by name."""
    with sidecar_errors(folder):
        if not folder.is_dir():
            return []
        return sorted(
            p for p in folder.iterdir() if p.suffix == ".parquet" and not p.name.startswith(".")
        )


def remove_drafts(folder: Path) -> None:
    """Remove what dead processes of this host left half-written."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name.count(".") >= 2:
            host, pid, _ = (path.name.rpartition(".")[2] + "--").split("-", 2)
            if host == _HOST and pid.isdigit() and not _alive(int(pid)):
                path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
