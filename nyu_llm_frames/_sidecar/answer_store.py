"""Stores answers file by file, and finds the best one of each request.

Comes in: parsed answers, in the order in which they arrive. Goes out: files that are never
rewritten, and for a list of requests the rank and place of each one's best answer.

Files are numbered; the number says which answer was stored first. Within one rank the first stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.id_lookup import IdLookup, Ints
from nyu_llm_frames._stages.answers.answer import RANK, Answer

SCHEMA = _storage.marked(
    pa.schema(
        [
            ("custom_id", pa.string()),
            ("status", pa.string()),
            ("text", pa.large_string()),
            ("error", pa.string()),
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("reasoning_tokens", pa.int64()),
            ("cached_tokens", pa.int64()),
            ("model", pa.string()),
            ("raw", pa.large_binary()),
            ("job", pa.string()),
            ("stored_at", pa.timestamp("us", "UTC")),
        ]
    )
)

# What is compressed and written at once: either is enough.
GROUP_ROWS, _GROUP_BYTES = 4096, 4 << 20
_GROUPS_AHEAD = 2

BYTES_OF_32_BITS = 2**31 - 1


def name_of(path: Path) -> tuple[int, str]:
    """Return the number and the job of an answer file; 0 and "" for a file with another name."""
    number, mark, job = path.stem.partition("-")
    return (int(number), job) if mark and number.isdecimal() else (0, "")


class AnswerWriter:
    """Collects the answers of one reading into a file that is not in place yet.

    Compressing and writing happen in a thread of their own, while the next lines are read.

    Parameters
    ----------
    folder : Path
        The ``answers`` folder.
    job : str
        Name of the batch job, or of another source of answers.
    at : datetime
        UTC.
    """

    def __init__(self, folder: Path, job: str, at: datetime) -> None:
        self._folder, self._job, self._at = folder, job, at
        self._draft = _storage.draft_path(folder / f"{job}.parquet")
        self._file: Any = None
        self._writer: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._group: list[Answer] = []
        self._group_bytes = 0

    def write(self, answers: Sequence[Answer]) -> None:
        """Append answers."""
        self._group += answers
        self._group_bytes += sum([len(answer.raw) for answer in answers])
        if len(self._group) >= GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the thread write what has been collected."""
        if not self._group:
            return
        with _storage.sidecar_errors(self._folder):
            # Made here: a second thread that needs the interpreter would only wait for this one.
            table = self._table(self._group)
            self._group, self._group_bytes = [], 0
            self._settle(_GROUPS_AHEAD)
            if self._thread is None:
                self._open()
            assert self._thread is not None
            self._pending.append(self._thread.submit(self._writer.write_table, table))

    def _open(self) -> None:
        _storage.create(self._draft)
        # Not a Python file object: each write to one waits for the thread that reads.
        self._file = pa.OSFile(str(self._draft), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="lz4",
            use_dictionary=["status", "error", "finish_reason", "model", "job"],
            write_statistics=False,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")

    def _table(self, answers: Sequence[Answer]) -> pa.Table:
        n = len(answers)
        columns: list[pa.Array] = [
            _array(list(map(attrgetter(name), answers)), SCHEMA.field(name).type)
            for name in Answer.__struct_fields__
        ]
        columns.append(pa.repeat(self._job, n))
        columns.append(pa.repeat(pa.scalar(self._at, SCHEMA.field("stored_at").type), n))
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    def _settle(self, left: int = 0) -> None:
        """Wait until at most some groups are left to write; raise the thread's error, if any."""
        while len(self._pending) > left:
            self._pending.popleft().result()

    def commit(self) -> None:
        """Put the file in place, numbered after all others. Only under the lock."""
        self._hand_over()
        if self._thread is None:
            return
        with _storage.sidecar_errors(self._folder):
            self._settle()
            self._thread.shutdown()
            self._thread = None
            self._writer.close()
            self._file.close()
            _storage.sync_file(self._draft)
            numbers = [name_of(p)[0] for p in _storage.parquet_files(self._folder)]
            number = max(numbers, default=0) + 1
            self._draft.replace(self._folder / f"{number:06d}-{self._job}.parquet")
            _storage.sync_folder(self._folder)

    def discard(self) -> None:
        """Discard what was written, unless it was committed."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        for part in (self._writer, self._file):
            if part is not None:  # also after a commit that failed halfway
                with suppress(OSError, pa.ArrowException):
                    part.close()
        _storage.remove(self._draft)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if values[0] == values[-1] and len(set(values)) == 1:  # usual for models and finish reasons
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


@dataclass(frozen=True, slots=True)
class Best:
    """The best stored answer of each request; arrays of shape (m,).

    Attributes
    ----------
    rank : numpy.ndarray
        `RANK`, or -1 without an answer.
    file, row : numpy.ndarray
        Position in `files`, and in that file.
    stored : int
        All answers found for these requests.
    """

    files: tuple[Path, ...]
    rank: Ints
    file: Ints
    row: Ints
    stored: int


def _ranks(path: Path, status: pa.ChunkedArray) -> Ints:
    encoded = status.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    unknown = [*(word for word in words if RANK.get(word, 0) < 1), *([None] * encoded.null_count)]
    if unknown:
        raise _storage.damaged(path, f"{unknown[0]!r} is no status of an answer")
    table = np.array([RANK[word] for word in words] or [0])
    return np.asarray(table[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.int64)


def find_best(folder: Path, ids: pa.Array, among: Sequence[Path] | None = None) -> Best:
    """Find the best answer of each request, in all files or in some."""
    files = tuple(_storage.parquet_files(folder) if among is None else among)
    m = len(ids)
    rank, file, row = np.full(m, -1), np.full(m, -1), np.full(m, -1)
    stored = 0
    lookup = IdLookup(ids)
    for number, path in enumerate(files):
        table = read_answers(path, ["custom_id", "status"])
        at = lookup.find(table["custom_id"])
        rows = np.flatnonzero(at >= 0)
        if not len(rows):
            continue
        stored += len(rows)
        at, ranks = at[rows], _ranks(path, table["status"])[rows]
        chosen = np.flatnonzero(ranks > rank[at])
        if np.bincount(at[chosen]).max(initial=0) > 1:
            # An id came twice: its highest rank is first, and of equal ones the earliest.
            chosen = chosen[np.argsort(-ranks[chosen], kind="stable")]
            chosen = chosen[np.unique(at[chosen], return_index=True)[1]]
        at = at[chosen]
        rank[at], file[at], row[at] = ranks[chosen], number, rows[chosen]
    return Best(files, rank, file, row, stored)


def read_answers(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of a file of answers."""
    return _storage.read_table(path, SCHEMA, columns).replace_schema_metadata(None)


def _roomy(table: pa.Table) -> pa.Table:
    """Allow long texts to be joined: Arrow's string type counts bytes in 32 bits."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and table.column(i).nbytes > BYTES_OF_32_BITS:
            table = table.set_column(i, field.name, table.column(i).cast(pa.large_string()))
    return table


def gather(best: Best, columns: list[str]) -> pa.Table:
    """Return columns of the best answers, one row per request, null where there is none."""
    parts = []
    where = np.full(len(best.rank), -1, dtype=np.int64)
    size = 0
    for number, path in enumerate(best.files):
        chosen = np.flatnonzero(best.file == number)
        if not len(chosen):
            continue
        table = read_answers(path, columns)
        rows = best.row[chosen]
        if len(rows) != len(table):
            # In the order of the file: rows are reordered once, by the last take over all files.
            order = np.argsort(rows)
            chosen, rows = chosen[order], rows[order]
            table = table.take(pa.array(rows))
            rows = np.arange(len(rows))
        parts.append(table)
        where[chosen] = size + rows
        size += len(table)
    if not parts:
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        return pa.table({f.name: pa.nulls(len(where), f.type) for f in schema}, schema=schema)
    joined = _roomy(pa.concat_tables(parts))
    if size == len(where) and (where == np.arange(size)).all():
        return joined
    return joined.combine_chunks().take(pa.array(where, mask=where < 0))
