"""Rendered partitions on the shared folder: one Arrow file each, whole or not there.

Comes in: the requests of a partition, on a worker. Goes out: ``spool/<run>/<partition>.arrow`` with
ids, line sizes and messages, of which the coordinator reads the columns that it needs. Through
Dask itself travel counts and the names of files.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._sidecar.storage import atomic_path
from nyu_llm_frames._stages.requests.bodies import Requests, ids_of_digests, raw_digests
from nyu_llm_frames._tables.table import Ints
from nyu_llm_frames.dask.text_cells import Sampled, sample
from nyu_llm_frames.dask.worker_call import WorkerCall
from nyu_llm_frames.errors import MissingValueError, SidecarError

Content: TypeAlias = tuple[int, int, int]
"""What the distinct ids of a partition amount to, in whichever order they stand."""

TOKEN, OWNER = "token", "owner"
GROUP_ROWS = 4096
SCHEMA = pa.schema(
    [
        ("digest", pa.binary(16)),
        ("line_bytes", pa.int64()),
        ("rows", pa.int64()),
        ("label", pa.large_string()),
        ("fragment", pa.large_string()),
    ]
)


@dataclass(frozen=True, slots=True)
class SpooledPartition:
    """What a worker tells of a partition that it rendered."""

    number: int
    rows: int  # all of them
    requested: int = 0  # those that are neither skipped nor kept
    kept: int = 0  # those with a good answer from before
    requests: int = 0  # distinct ones
    content: Content = (0, 0, 0)
    missing: MissingValueError | None = None  # then nothing was written
    sampled: Sampled = field(default_factory=dict)  # of columns that may have become text


def content_of(digests: bytes) -> Content:
    """Return what some distinct digests amount to; others amount to something else."""
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    low, high = halves.sum(axis=0, dtype=np.uint64).tolist() if len(halves) else (0, 0)
    return len(halves), low, high


def spool_path(folder: Path, number: int) -> Path:
    """Return the file of a partition."""
    return folder / f"{number:06d}.arrow"


# --- on a worker ------------------------------------------------------------------------------
def read_token(folder: Path) -> tuple[str, str]:
    """Return this host's name, and what it reads of the coordinator's token; "" for nothing."""
    try:
        return socket.gethostname(), (folder / TOKEN).read_text(encoding="utf-8")
    except OSError:
        return socket.gethostname(), ""


def unshared(folder: Path, host: str) -> SidecarError:
    """Return the error of a worker that does not see the coordinator's folder."""
    return SidecarError(
        f"The worker on {host} does not see {folder.parent.parent} as this process does. Put the "
        "sidecar on a folder that every machine of the cluster shares, by its absolute path: "
        "sidecar=...",
        path=str(folder.parent.parent),
    )


def spool_partition(
    frame: pd.DataFrame,
    number: int,
    call: WorkerCall,
    folder: Path,
    token: str,
    suspected: Sequence[Any],
) -> SpooledPartition:
    """Render a partition and write its requests; done again, the same file takes its place.

    `frame` has the columns in use, of which cells of the `suspected` ones are looked at; `token` is
    what the coordinator wrote into the run's spool, `folder`.
    """
    host, found = read_token(folder)
    if found != token:
        raise unshared(folder, host)
    sampled = sample(frame, suspected)
    try:
        prepared = call.render(frame)
    except MissingValueError as e:
        return SpooledPartition(number, len(frame), missing=e, sampled=sampled)
    requests = prepared.requests
    digests = raw_digests(requests.ids)
    if len(requests):
        with _named_host(host):
            _write(spool_path(folder, number), requests, digests, prepared.table.label)
    return SpooledPartition(
        number,
        len(frame),
        requested=int((requests.codes >= 0).sum()),
        kept=prepared.kept,
        requests=len(requests),
        content=content_of(digests),
        sampled=sampled,
    )


def _write(
    path: Path, requests: Requests, digests: bytes, label: Callable[[int], Hashable]
) -> None:
    m = len(requests)
    requested = np.flatnonzero(requests.codes >= 0)
    first = np.empty(m, np.int64)
    first[requests.codes[requested][::-1]] = requested[::-1]
    labels = [repr(label(row)) for row in first.tolist()]
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), m, [None, pa.py_buffer(digests)])
    table = pa.Table.from_arrays(
        [
            ids,
            pa.array(requests.line_bytes(), pa.int64()),
            pa.array(np.bincount(requests.codes[requested], minlength=m), pa.int64()),
            pa.array(labels, pa.large_string()),
            requests.fragments,
        ],
        schema=SCHEMA,
    )
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        atomic_path(path) as draft,
        pa.OSFile(str(draft), "wb") as file,
        pa.ipc.new_file(file, SCHEMA, options=options) as writer,
    ):
        for start in range(0, m, GROUP_ROWS):  # of equal length: fragments are in several chunks
            writer.write_batch(table.slice(start, GROUP_ROWS).combine_chunks().to_batches()[0])


@contextmanager
def _named_host(host: str) -> Iterator[None]:
    try:
        yield
    except SidecarError as e:
        raise SidecarError(f"{e} (on {host})", path=e.path) from None


# --- for the coordinator ----------------------------------------------------------------------
def read_spooled(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a partition's file."""
    with _opened(path, columns) as reader:
        return reader.read_all()


def read_fragments(path: Path, rows: Ints) -> list[pa.Array]:
    """Read the messages of some rows, which are in order."""
    groups = rows // GROUP_ROWS
    parts = []
    with _opened(path, ["fragment"]) as reader:
        for group in np.unique(groups).tolist():
            column = reader.get_batch(group).column(0)
            chosen = rows[groups == group] - group * GROUP_ROWS
            whole = len(chosen) == len(column)
            parts.append(column if whole else column.take(pa.array(chosen)))
    return parts


def ids_in(table: pa.Table) -> pa.StringArray:
    """Return the ids of spooled requests."""
    chunks = [chunk for chunk in table["digest"].chunks if len(chunk)]
    raw = b"".join(
        chunk.buffers()[1].slice(16 * chunk.offset, 16 * len(chunk)).to_pybytes()
        for chunk in chunks
    )
    return ids_of_digests(raw)


@contextmanager
def _opened(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    places = [SCHEMA.get_field_index(name) for name in columns]
    try:
        with (
            pa.OSFile(str(path)) as file,
            pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=places)) as reader,
        ):
            yield reader
    except (OSError, pa.ArrowException) as e:
        raise SidecarError(
            f"{path} cannot be read: {e}. It was written by a worker a moment ago; make the same "
            "call again.",
            path=str(path),
        ) from None
