"""The store of one server: uploaded files, jobs and their answers, safe from kill -9.

SQLite in WAL mode with ``synchronous=FULL``: what was committed is on disk, and an answer is stored
once because (job, row) is a key.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote, unquote
from uuid import uuid4

from nyu_llm_frames.local.paths import whole_file

Status = Literal["validating", "in_progress", "cancelling", "completed", "failed", "cancelled"]
OPEN: tuple[Status, ...] = ("validating", "in_progress", "cancelling")
PAGE = 256

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    uri TEXT PRIMARY KEY, blob TEXT NOT NULL, bytes INTEGER NOT NULL, filename TEXT NOT NULL,
    purpose TEXT NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, input_uri TEXT NOT NULL, blob TEXT NOT NULL, output_uri TEXT NOT NULL,
    model TEXT NOT NULL, status TEXT NOT NULL, created_at INTEGER NOT NULL,
    in_progress_at INTEGER, completed_at INTEGER, failed_at INTEGER, cancelling_at INTEGER,
    cancelled_at INTEGER, total INTEGER NOT NULL DEFAULT 0, good INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0, output_bytes INTEGER NOT NULL DEFAULT 0, errors TEXT);
CREATE INDEX IF NOT EXISTS jobs_by_output ON jobs (output_uri);
CREATE TABLE IF NOT EXISTS answers (
    job INTEGER NOT NULL, row INTEGER NOT NULL, line BLOB NOT NULL,
    PRIMARY KEY (job, row)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trying (
    job INTEGER NOT NULL, row INTEGER NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (job, row)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class StoredFile:
    uri: str
    blob: str
    bytes: int
    filename: str
    purpose: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Job:
    """A batch job, as stored; times are milliseconds."""

    id: int
    input_uri: str
    blob: str
    output_uri: str
    model: str
    status: Status
    created_at: int
    in_progress_at: int | None
    completed_at: int | None
    failed_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    total: int
    good: int
    failed: int
    output_bytes: int
    errors: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One output line, by the number of its input line."""

    row: int
    good: bool
    line: bytes


class StoreError(Exception):
    """The folder cannot be used as a store."""


def file_id(uri: str) -> str:
    """Return the id of a file, percent-encoded as by the gateway (encodeURIComponent)."""
    return quote(uri, safe="!'()*-._~")


def uri_of(some_id: str) -> str:
    """Read a file id, however often clients and servers have encoded it."""
    while (plain := unquote(some_id)) != some_id:
        some_id = plain
    return some_id


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """Files, jobs and answers in one folder; safe to call from any thread of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "files"
        self.blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self.blobs.glob("*.part"):
            left.unlink(missing_ok=True)
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(
                folder / "jobs.sqlite3", check_same_thread=False, isolation_level=None
            )
            # Only one process, so no shared memory file: WAL then works on network folders too.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > 1:
                raise StoreError(f"{folder} was written by a newer release: update the package")
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{folder / 'jobs.sqlite3'} cannot be used: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- files --------------------------------------------------------------------------
    def add_file(self, content: BinaryIO, *, bucket: str, name: str, purpose: str) -> StoredFile:
        """Store an uploaded file; the same name replaces the file, not the jobs on it."""
        blob = self.blobs / f"{uuid4().hex}.jsonl"
        with whole_file(blob) as out:
            shutil.copyfileobj(content, out, 2**20)
        _sync_folder(self.blobs)
        stored = StoredFile(
            uri=uri_of(f"gs://{bucket}/{name}"),
            blob=blob.name,
            bytes=blob.stat().st_size,
            filename=name,
            purpose=purpose,
            created_at=now_ms(),
        )
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            old = self._db.execute("SELECT blob FROM files WHERE uri = ?", (stored.uri,)).fetchone()
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", astuple(stored)
            )
            used = old and self._db.execute("SELECT 1 FROM jobs WHERE blob = ?", old).fetchone()
        if old and not used:
            (self.blobs / old[0]).unlink(missing_ok=True)
        return stored

    def file(self, uri: str) -> StoredFile | None:
        with self._lock:
            row = self._db.execute("SELECT * FROM files WHERE uri = ?", (uri,)).fetchone()
        return StoredFile(*row) if row else None

    def path(self, blob: str) -> Path:
        return self.blobs / blob

    # --- jobs ---------------------------------------------------------------------------
    def add_job(self, file: StoredFile, model: str) -> Job:
        """Create a job; its id is larger than all earlier ones."""
        folder = file.uri.rpartition("/")[0]
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
            number = max(last + 1, time.time_ns())
            output = f"{folder}/prediction-model-{number}/predictions.jsonl"
            self._db.execute(
                "INSERT INTO jobs (id, input_uri, blob, output_uri, model, status, created_at)"
                " VALUES (?, ?, ?, ?, ?, 'validating', ?)",
                (number, file.uri, file.blob, output, model, now_ms()),
            )
        job = self.job(number)
        assert job is not None
        return job

    def job(self, number: int) -> Job | None:
        return self._one("SELECT * FROM jobs WHERE id = ?", number)

    def job_of_output(self, uri: str) -> Job | None:
        return self._one("SELECT * FROM jobs WHERE output_uri = ?", uri)

    def next_open(self) -> Job | None:
        marks = ", ".join("?" * len(OPEN))
        return self._one(f"SELECT * FROM jobs WHERE status IN ({marks}) ORDER BY id LIMIT 1", *OPEN)

    def jobs(self, limit: int, before: int | None = None) -> tuple[list[Job], bool]:
        """List the newest jobs, and say whether there are more."""
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?",
                (before or 2**63 - 1, limit + 1),
            ).fetchall()
        return [Job(*row) for row in rows[:limit]], len(rows) > limit

    def start_job(self, number: int, total: int) -> None:
        """Record that the input was counted; a resumed job keeps its first time."""
        self._do(
            "UPDATE jobs SET status = 'in_progress', total = ?, in_progress_at ="
            " coalesce(in_progress_at, ?) WHERE id = ? AND status IN ('validating', 'in_progress')",
            total,
            now_ms(),
            number,
        )

    def end_job(self, number: int, status: Status, errors: str | None = None) -> None:
        """Record the end of a job; one that is being cancelled ends cancelled, unless failed."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM trying WHERE job = ?", (number,))
            self._db.execute(
                f"UPDATE jobs SET status = ?, {status}_at = ?, errors = ? WHERE id = ?",
                (status, now_ms(), errors, number),
            )

    def cancel_job(self, number: int) -> bool:
        """Request the end of a job; False if it is over or already ending."""
        with self._lock:
            done = self._db.execute(
                "UPDATE jobs SET status = 'cancelling', cancelling_at = ?"
                " WHERE id = ? AND status IN ('validating', 'in_progress')",
                (now_ms(), number),
            )
            return done.rowcount > 0

    # --- answers ------------------------------------------------------------------------
    def add_answers(self, number: int, answers: Iterable[Answer]) -> None:
        """Commit answers and their count together; the first answer to a row stays."""
        good = failed = size = 0
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for answer in answers:
                new = self._db.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)",
                    (number, answer.row, answer.line),
                ).rowcount
                self._db.execute(
                    "DELETE FROM trying WHERE job = ? AND row = ?", (number, answer.row)
                )
                good += new * answer.good
                failed += new * (not answer.good)
                size += new * (len(answer.line) + 1)
            self._db.execute(
                "UPDATE jobs SET good = good + ?, failed = failed + ?,"
                " output_bytes = output_bytes + ? WHERE id = ?",
                (good, failed, size, number),
            )

    def answered(self, number: int) -> set[int]:
        with self._lock:
            rows = self._db.execute("SELECT row FROM answers WHERE job = ?", (number,)).fetchall()
        return {row for (row,) in rows}

    def output(self, number: int) -> Iterator[bytes]:
        """Read the output in pieces of a few hundred lines."""
        after = -1
        while True:
            with self._lock:
                rows = self._db.execute(
                    "SELECT row, line FROM answers WHERE job = ? AND row > ? ORDER BY row LIMIT ?",
                    (number, after, PAGE),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield b"".join(line + b"\n" for _, line in rows)

    def begin_try(self, number: int, row: int) -> int:
        """Record the start of a row that may end the process; return how often it began before."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (times,) = self._db.execute(
                "INSERT INTO trying VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET times = times + 1"
                " RETURNING times",
                (number, row),
            ).fetchone()
        return int(times) - 1

    def forget_tries(self) -> None:
        """Forget started rows: this process ends on purpose, and no row caused it."""
        self._do("DELETE FROM trying")

    # --- inside -------------------------------------------------------------------------
    def _one(self, sql: str, *values: Any) -> Job | None:
        with self._lock:
            row = self._db.execute(sql, values).fetchone()
        return Job(*row) if row else None

    def _do(self, sql: str, *values: Any) -> None:
        with self._lock:
            self._db.execute(sql, values)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
