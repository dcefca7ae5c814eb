"""The run's folder, its sidecar: jobs, requests, answers and runs, and one lock.

Comes in: records. Goes out: the same after a crash. Layout, one kind of file per folder:
``jobs/<name>.parquet`` (replaced whole at every step), ``requests/<name>.parquet`` (ids, bodies),
``answers/<number>-<job>.parquet`` (appended), ``runs/<name>.parquet``. No key is ever stored.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

import msgspec
import pyarrow as pa

from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.wording import printable
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.lock import SidecarLock
from nyu_llm_frames._sidecar.request_stream import RequestStream
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.wire import is_plain_id
from nyu_llm_frames._stages.requests.bodies import reads_as_replacement
from nyu_llm_frames.errors import SidecarError

FOLDERS = ("jobs", "requests", "answers", "runs")
SPOOL = "spool"
"""Files that Dask's workers write during a call."""

_README = """\
This folder belongs to nyu_llm_frames. It remembers which batch jobs were submitted for a
dataframe and what came back, so that the same call can be made again at no cost.

  jobs/      one small file per batch job: its id at the gateway, status, times
  requests/  which requests each job carries, and their prompts
  answers/   every answer, with token counts and the response as received
  runs/      what each run requested: template, parameters, versions

Look inside with  nyu_llm_frames.open_sidecar("<this folder>")  or with any parquet reader.
Prompts and answers are stored here unencrypted; the folder is readable by {readers}. Keys are
never stored. Deleting the folder forgets everything: the next call pays again.
"""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run: one file in ``runs/``. JSON where a value has structure."""

    name: str
    template: str
    schema: str | None
    params: str
    model: str
    realm: str
    gateway: str
    output: str
    rows: int
    requests: int
    versions: str
    created_at: datetime | None = None


def new_name(clock: Clock) -> str:
    """Return a unique name for a run or a job: ASCII, sorted by time."""
    return f"{clock.now():%Y%m%d-%H%M%S}-{clock.unique()}"


def _arrow_schema(record: type) -> pa.Schema:
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = []
    for name, hint in get_type_hints(record).items():
        plain = [h for h in getattr(hint, "__args__", (hint,)) if h is not type(None)]
        kind = plain[0] if plain else str
        if kind is datetime:
            fields.append((name, pa.timestamp("us", "UTC")))
        else:
            fields.append((name, kinds.get(kind, pa.string())))
    return pa.schema(fields)


IDS = pa.schema([("custom_id", pa.string())])
_BODIES = pa.schema([("body", pa.large_string())])
_REQUESTS = pa.unify_schemas([IDS, _BODIES])
_JOB_SCHEMA = _arrow_schema(Job)
_RUN_SCHEMA = _arrow_schema(RunRecord)


def is_sidecar(path: Path) -> bool:
    """Whether a folder is a complete sidecar.

    Raises
    ------
    SidecarError
        The folder may not be read.
    """
    with _storage.sidecar_errors(path):
        return (path / "jobs").is_dir()


class Sidecar:
    """One sidecar folder.

    Parameters
    ----------
    folder : Path
    clock : Clock
    create : bool or None, default True
        Whether to make a missing folder; with None it is read as an empty one.

    Raises
    ------
    SidecarError
        When the folder holds something else, or cannot be made.
    """

    def __init__(self, folder: Path, clock: Clock, *, create: bool | None = True) -> None:
        self.path = local_path(folder, "The sidecar").absolute()
        self._clock = clock
        self.is_new = not is_sidecar(self.path)
        if self.is_new and create is not None:
            self._make(create)
        self._was_there = not self.is_new or create is not None
        self.lock = SidecarLock(self.path, clock)
        self._jobs: dict[str, tuple[_storage.Stamp, Job]] = {}
        self._ids: dict[str, pa.Array] = {}
        self._dropped: set[str] = set()
        self._best: tuple[pa.Array, tuple[str, ...], _answer_store.Best] | None = None

    def _make(self, create: bool) -> None:
        path = self.path
        with _storage.sidecar_errors(path):
            if path.exists() and not path.is_dir():
                raise SidecarError(f"{path} is a file, not a folder.", path=str(path))
            foreign = path.is_dir() and any(
                p.name not in (*FOLDERS, SPOOL, "README.txt", ".gitignore")
                and not p.name.startswith(("lock", "."))
                for p in path.iterdir()
            )
        if foreign:
            raise SidecarError(
                f"{path} holds other files and is no sidecar. Name a folder of its own with "
                "sidecar=.",
                path=str(path),
            )
        if not create and not path.exists():
            raise SidecarError(
                f"There is no sidecar {path}. A call makes one: where sidecar= says, else "
                "llm_sidecar in the folder that it ran in; for a file <output>.llm beside its "
                "output.",
                path=str(path),
            )
        if not create:
            raise SidecarError(f"{path} is no sidecar: it has no jobs folder.", path=str(path))
        shared = _options.current().shared
        readers = "you and your group" if shared else "you alone"
        _storage.make_folder(path, shared=shared)
        for name in reversed(FOLDERS):  # jobs last: it marks a complete sidecar
            if name == "jobs":
                _storage.write_text(path / "README.txt", _README.format(readers=readers))
                _storage.write_text(path / ".gitignore", "*\n")
            _storage.make_folder(path / name, shared=shared)

    # --- jobs -------------------------------------------------------------------------------
    def jobs(self) -> dict[str, Job]:
        """Read all jobs, by name."""
        if self._was_there:
            _storage.check_there(self.path, "jobs")
        return {
            name: self._read_job(path, stamp)
            for name, path, stamp in _storage.stamped_files(self.path / "jobs")
        }

    def job(self, name: str) -> Job:
        """Read one job."""
        path = self.path / "jobs" / f"{name}.parquet"
        with _storage.sidecar_errors(path):
            stamp = _storage.stamp(path.stat())
        return self._read_job(str(path), stamp)

    def _read_job(self, name: str, stamp: _storage.Stamp) -> Job:
        known = self._jobs.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        path = Path(name)
        job: Job = _read_record(path, Job)
        problem = _problem_of(job)
        if problem:
            raise _storage.damaged(path, problem)
        job = msgspec.structs.replace(job, error=printable(job.error) if job.error else None)
        self._jobs[name] = (stamp, job)
        return job

    def save_job(self, job: Job) -> None:
        """Write a job's record. Only under the lock."""
        path = self.path / "jobs" / f"{job.name}.parquet"
        table = pa.Table.from_pylist([msgspec.structs.asdict(job)], schema=_JOB_SCHEMA)
        _storage.write_table(path, table)
        self._jobs.pop(str(path), None)

    # --- requests ---------------------------------------------------------------------------
    def add_requests(self, name: str, batches: Iterable[tuple[pa.Array, pa.Array]]) -> None:
        """Write what a job carries (ids and bodies), before the job's record exists."""
        _storage.write_batches(
            self._requests(name),
            _REQUESTS,
            (pa.record_batch([ids.cast("string"), bodies], _REQUESTS) for ids, bodies in batches),
        )

    def _requests(self, name: str) -> Path:
        return self.path / "requests" / f"{name}.parquet"

    def request_ids(self, name: str) -> pa.Array:
        """Return the ids that a job carries; they never change."""
        if name not in self._ids:
            ids = _storage.read_table(self._requests(name), IDS)["custom_id"].combine_chunks()
            if ids.null_count:
                raise _storage.damaged(self._requests(name), "a request has no id")
            self._ids[name] = ids
        return self._ids[name]

    def has_bodies(self, name: str) -> bool:
        """Whether the prompts of a job are still stored; removed ones do not come back."""
        if name not in self._dropped:
            with _storage.reading(self._requests(name)) as file:
                if "body" in file.schema_arrow.names:
                    return True
            self._dropped.add(name)
        return False

    def bodies(self, name: str) -> pa.Array:
        """Return the bodies that a job carries, in the order of its ids."""
        if not self.has_bodies(name):
            raise SidecarError(
                f"{self._requests(name)} has no prompts any more (keep_prompts=False), so they "
                "cannot be sent again from here. To send them from the data, make the same call "
                "with a larger retries=, or submit(...).retry() in Python.",
                path=str(self._requests(name)),
            )
        bodies = _storage.read_table(self._requests(name), _BODIES)["body"].combine_chunks()
        if bodies.null_count:
            raise _storage.damaged(self._requests(name), "a request has no body")
        return bodies

    def prompts_with_replacement(self, name: str) -> set[str]:
        """Return the ids whose prompt has U+FFFD itself, or characters that come back as it."""
        found = set()
        with _storage.reading(self._requests(name)) as file:
            if "body" not in file.schema_arrow.names:
                return set(self.request_ids(name).to_pylist())
            for batch in _storage.groups(file, ["custom_id", "body"]):
                ids, bodies = batch["custom_id"].to_pylist(), batch["body"].to_pylist()
                found |= {i for i, b in zip(ids, bodies, strict=True) if reads_as_replacement(b)}
        return found

    def request_file(self, name: str, size: int) -> BinaryIO:
        """Open a job's input file of so many bytes: made while it is read, never on disk."""
        return io.BufferedReader(RequestStream(self._requests(name), size))

    def drop_bodies(self, name: str) -> None:
        """Remove the prompts of a job that is over; its ids stay."""
        table = _storage.read_table(self._requests(name), IDS)
        _storage.write_table(self._requests(name), table)

    # --- answers ----------------------------------------------------------------------------
    @property
    def answers_folder(self) -> Path:
        return self.path / "answers"

    def answer_writer(self, job: str) -> _answer_store.AnswerWriter:
        """Start a file of answers."""
        return _answer_store.AnswerWriter(self.answers_folder, job, self._clock.now())

    def best_answers(self, ids: pa.Array) -> _answer_store.Best:
        """Find the best stored answer of each request."""
        # Files of answers are never rewritten, so comparing their names is enough.
        names = tuple(p.name for p in _storage.parquet_files(self.answers_folder))
        known = self._best
        if known is None or known[0] is not ids or known[1] != names:
            known = (ids, names, _answer_store.find_best(self.answers_folder, ids))
            self._best = known
        return known[2]

    def has_answers_of(self, job: str) -> bool:
        """Whether a file holds answers of a job."""
        files = _storage.parquet_files(self.answers_folder)
        return any(_answer_store.name_of(p)[1] == job for p in files)

    # --- runs -------------------------------------------------------------------------------
    def save_run(self, run: RunRecord) -> None:
        """Write the record of a run. Only under the lock."""
        table = pa.Table.from_pylist([msgspec.structs.asdict(run)], schema=_RUN_SCHEMA)
        _storage.write_table(self.path / "runs" / f"{run.name}.parquet", table)

    def runs(self) -> list[RunRecord]:
        """Read all runs, the oldest first."""
        paths = _storage.parquet_files(self.path / "runs")
        return [_read_record(path, RunRecord) for path in paths]

    def who_ran(self, name: str) -> str:
        """Return the user who made a run, by the owner of its record; "" if unknown."""
        path = self.path / "runs" / f"{name}.parquet"
        try:
            return path.owner()
        except KeyError:  # a number without a name, as in containers
            return str(path.stat().st_uid)
        except (OSError, NotImplementedError):
            return ""

    def tidy(self) -> None:
        """Remove unfinished files of crashed processes. Only under the lock."""
        with _storage.sidecar_errors(self.path):
            for folder in (self.path, *(self.path / name for name in FOLDERS)):
                _storage.remove_drafts(folder)
            named = {p.name for p in _storage.parquet_files(self.path / "jobs")}
            for path in _storage.parquet_files(self.path / "requests"):
                if path.name not in named:  # planned, but the plan was never recorded
                    path.unlink(missing_ok=True)


def _read_record(path: Path, kind: type[Any]) -> Any:
    with _storage.reading(path) as file:
        if file.metadata.num_rows != 1:
            raise _storage.damaged(path, f"it holds {file.metadata.num_rows} rows")
        row = file.read(use_threads=False).to_pylist()[0]
    try:
        record = msgspec.convert(row, kind)
    except msgspec.ValidationError as e:
        raise _storage.damaged(path, e) from None
    if record.name != path.stem or not is_plain_id(record.name):
        raise _storage.damaged(path, f"it is named {record.name!r} inside; is it a copy?")
    return record


def _problem_of(job: Job) -> str:
    """Describe what in a job's record no step of ours can have written; "" if nothing."""
    if job.batch_id is not None and not is_plain_id(job.batch_id):
        return f"{job.batch_id!r} is no id of a batch job"
    if job.step in ("live", "ended") and job.batch_id is None:
        return f"step {job.step} without the id of a batch job"
    if job.step in ("uploaded", "creating") and not job.input_file_id:
        return f"step {job.step} without an input file"
    return ""


def owner_is_gone(job: Job, me: str, clock: Clock) -> bool:
    """Whether no process drives a job: left, its process dead, or this one between two calls."""
    return job.owner in ("", me) or clock.is_dead(job.owner)
