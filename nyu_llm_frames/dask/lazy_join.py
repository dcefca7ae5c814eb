"""The join that Dask runs when somebody computes: answers by the ids of the rows at hand.

Comes in: a partition, and the files of answers as they were when the call ended. Goes out: the
partition with new columns. Rows are rendered again and looked up by `custom_id`, never by number
or place: Dask renumbers partitions, and moves rows between them. No HTTP, no lock.
"""

from __future__ import annotations

import socket
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._sidecar.answer_store import Best, find_best
from nyu_llm_frames._sidecar.folder import IDS
from nyu_llm_frames._sidecar.id_lookup import IdLookup
from nyu_llm_frames._sidecar.storage import read_table
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.requests.bodies import raw_digests
from nyu_llm_frames._tables.table import Ints, Table
from nyu_llm_frames.dask.spool_files import Content, content_of
from nyu_llm_frames.dask.worker_call import WorkerCall
from nyu_llm_frames.errors import ConfigurationError, PartitionChangedError, SidecarError


@dataclass(frozen=True, slots=True)
class StoredAnswersOf:
    """Where the answers to a call were when it ended; the same for every partition."""

    files: tuple[str, ...] = ()  # of answers, that hold a best one of this call, the oldest first
    # By what the distinct ids of a partition amount to, the files that hold its answers. Other sets
    # of rows look into all of them.
    own: Mapping[Content, tuple[int, ...]] = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()  # that carried requests without an answer, the oldest first

    def __dask_tokenize__(self) -> str:
        text = repr((self.files, sorted(self.own.items()), self.jobs))
        return blake2b(text.encode(), digest_size=16).hexdigest()


def join_answers(
    frame: pd.DataFrame,
    stored: StoredAnswersOf,
    call: WorkerCall,
    dtypes: Mapping[Hashable, Any] | None = None,
    *,
    failures: bool = False,
) -> pd.DataFrame:
    """Return a partition with its new columns; of no rows, the columns with their types.

    `dtypes` were promised of columns that are filled. With `failures` only the rows without a good
    answer come back, with ``status`` and ``error``.
    """
    prepared = call.render(frame, with_schema=True)
    requests = prepared.requests
    chosen = stored.own.get(content_of(raw_digests(requests.ids)))
    names: Sequence[str] = stored.files if len(requests) else ()
    if chosen is not None:
        names = [stored.files[number] for number in chosen]
    try:
        folder = call.sidecar / "answers"
        best = find_best(folder, requests.ids, [folder / name for name in names])
        jobs = _jobs(best, requests.ids, stored, call.sidecar)
    except SidecarError as e:
        raise SidecarError(f"{e} (on {socket.gethostname()})", path=e.path) from None
    _refuse_others(best, jobs, prepared.table, requests.codes)
    collected = Collected(prepared, best, jobs)
    joined: pd.DataFrame = collected.failures if failures else collected.frame
    for name, dtype in (dtypes or {}).items():
        if joined[name].dtype != dtype:
            raise ConfigurationError(
                f"if_exists='fill': the column {name!r} is {dtype} and cannot hold what is new "
                f"beside it, which is {joined[name].dtype}. Convert it first (ddf.astype), or use "
                'if_exists="replace": nothing is paid again.'
            )
    return joined


def _jobs(
    best: Best, ids: pa.Array, stored: StoredAnswersOf, sidecar: Path
) -> list[tuple[Job, Ints]]:
    """Return the jobs that carried what has no answer, and the positions of their requests."""
    if (best.rank >= 0).all():
        return []
    found, lookup = [], IdLookup(ids)
    for job in stored.jobs:
        carried = read_table(sidecar / "requests" / f"{job.name}.parquet", IDS)["custom_id"]
        found.append((job, lookup.find(carried)))
    return found


def _refuse_others(best: Best, jobs: Sequence[tuple[Job, Ints]], table: Table, codes: Ints) -> None:
    """Refuse rows whose requests were neither answered nor sent."""
    known = best.rank >= 0
    for _, at in jobs:
        known[at[at >= 0]] = True
    if known.all():
        return
    others = np.flatnonzero((codes >= 0) & ~known[codes])
    row = table.label(int(others[0]))
    raise PartitionChangedError(
        f"{len(others):,} of {len(codes):,} rows of a partition have changed since the call was "
        f"made, first row {row!r}: they were never sent, and have no answers. A frame whose rows "
        "differ from run to run (random numbers, a file that is written to, the current time) "
        "needs ddf.persist(), or to be written and read again, before ddf.llm.batch.",
        count=len(others),
        rows=len(codes),
        row=row,
    )
