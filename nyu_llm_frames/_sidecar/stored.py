"""The requests of batch jobs, as a sidecar remembers them: no frame, no template.

Comes in: a sidecar and some of its jobs. Goes out: their distinct ids, and the bodies of those
that are to be sent again. Bodies stay on disk until they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._requests.bodies import LINE_OVERHEAD, BodyShape, first_of_each
from nyu_llm_frames._sidecar.folder import Sidecar

Ints = np.ndarray[Any, np.dtype[np.int64]]


class StoredRequests:
    """The distinct requests that some jobs carry; what a runner needs of a run's requests.

    Parameters
    ----------
    sidecar : Sidecar
    jobs : sequence of Job
        Of one realm and one model.

    Attributes
    ----------
    ids : pyarrow.StringArray
        Distinct custom ids, by first appearance; shape (m,).
    shape : BodyShape
        Holds the model; the rest of a body is in the stored text.
    """

    def __init__(self, sidecar: Sidecar, jobs: Sequence[Job]) -> None:
        self._sidecar = sidecar
        self._jobs = [job.name for job in jobs]
        self.shape = BodyShape(jobs[0].model if jobs else "", (), {})
        carried = [sidecar.request_ids(name) for name in self._jobs]
        every = pa.concat_arrays(carried) if carried else pa.array([], pa.string())
        self.ids: pa.Array
        self.ids, _, first = first_of_each(every)
        starts = np.cumsum([0, *map(len, carried)])
        self._job: Ints = np.searchsorted(starts, first, side="right") - 1
        self._row: Ints = first - starts[self._job] if len(first) else first

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kept(self) -> bool:
        """Whether every job still has its prompts."""
        return all(self._sidecar.has_bodies(name) for name in self._jobs)

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
