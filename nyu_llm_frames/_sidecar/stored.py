"""The requests of batch jobs, as a sidecar stores them: no frame, no template.

Comes in: a sidecar and some of its jobs. Goes out: their distinct ids, and the bodies of those
that are sent again. Bodies stay on disk until they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.id_lookup import IdLookup, Ints, positions
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.requests.bodies import (
    LINE_OVERHEAD,
    BodyShape,
    first_of_each,
    joined_ids,
)


class StoredRequests:
    """The distinct requests that some jobs carry; what a driver needs of a run's requests.

    Parameters
    ----------
    sidecar : Sidecar
    jobs : sequence of Job
        Of one realm and one model.
    before : sequence of Job, optional
        Requests that these also carry are left out.
    among : pyarrow.StringArray, optional
        Only these ids.
    distinct : bool, default False
        Whether no id is known to be carried twice.

    Attributes
    ----------
    ids : pyarrow.StringArray
        Distinct custom ids, by first appearance; shape (m,).
    shape : BodyShape
        Holds the model; the rest of a body is in the stored text.
    """

    def __init__(
        self,
        sidecar: Sidecar,
        jobs: Sequence[Job],
        *,
        before: Sequence[Job] = (),
        among: pa.Array | None = None,
        distinct: bool = False,
    ) -> None:
        self._sidecar = sidecar
        self._jobs = [job.name for job in jobs]
        self.shape = BodyShape(jobs[0].model if jobs else "", (), {})
        ids, rows = [], [np.zeros(0, np.int64)]
        for name in self._jobs:
            carried = sidecar.request_ids(name)
            chosen = np.arange(len(carried))
            if among is not None:
                chosen = np.flatnonzero(positions(carried, among) >= 0)
                carried = carried.take(pa.array(chosen))
            ids.append(carried)
            rows.append(chosen)
        number = np.repeat(np.arange(len(rows)) - 1, [len(part) for part in rows])
        self.ids: pa.Array
        self.ids, first = joined_ids(ids), np.arange(len(number))
        if not distinct:
            self.ids, _, first = first_of_each(self.ids)
        new = np.ones(len(self.ids), np.bool_)
        if before:
            lookup = IdLookup(self.ids)
            for job in before:
                at = lookup.find(sidecar.request_ids(job.name))
                new[at[at >= 0]] = False
            self.ids, first = self.ids.filter(pa.array(new)), first[new]
        self._job: Ints = number[first]
        self._row: Ints = np.concatenate(rows)[first]

    def __len__(self) -> int:
        return len(self.ids)

    def bodies(self, positions: Ints) -> pa.Array:
        """Return the bodies of some requests as they were sent."""
        parts = []
        back = np.empty(len(positions), dtype=np.int64)
        done = 0
        for number in np.unique(self._job[positions]).tolist():
            mine = np.flatnonzero(self._job[positions] == number)
            column = self._sidecar.bodies(self._jobs[number])
            parts.append(column.take(pa.array(self._row[positions[mine]])))
            back[mine] = np.arange(done, done + len(mine))
            done += len(mine)
        if not parts:
            return pa.array([], pa.large_string())
        return pa.concat_arrays([p.cast(pa.large_string()) for p in parts]).take(pa.array(back))

    def line_bytes(self) -> Ints:
        """Return the size of every request line in bytes."""
        sizes = np.zeros(len(self.ids), dtype=np.int64)
        for number, name in enumerate(self._jobs):
            mine = np.flatnonzero(self._job == number)
            if len(mine):
                lengths = pc.binary_length(self._sidecar.bodies(name)).to_numpy()
                sizes[mine] = lengths[self._row[mine]]
        return sizes + LINE_OVERHEAD
