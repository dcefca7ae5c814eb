"""`DaskRun`: a call over a Dask frame that was submitted.

Comes in: the call. Goes out: its batch jobs driven by the sidecar alone, and the lazy frame.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from nyu_llm_frames._runs.result import jobs_frame
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames.dask.dask_run import DaskCall
from nyu_llm_frames.errors import NotPicklableError


class DaskRun(StoredRun):
    """What ``ddf.llm.submit`` gives: the jobs of its sidecar, and the frame.

    ``poll``, ``wait``, ``retry``, ``cancel``, ``resolve``, ``failures`` and ``counts`` work on the
    sidecar, by request; rows are rendered again for `result`.
    """

    def __init__(self, call: DaskCall, retries: int, max_cost: float | None) -> None:
        super().__init__(
            call.head.sidecar_path,
            gateway=call.head.gateway,
            retries=retries,
            max_cost=max_cost,
        )
        self._call = call

    @property
    def status(self) -> pd.DataFrame:
        """One row per batch job: where it stands, counts, times (UTC)."""
        return jobs_frame(self.jobs())

    def result(self) -> Any:
        """Return the lazy frame with what is there now; nothing is asked of the gateway.

        Returns
        -------
        dask.dataframe.DataFrame
            As `batch` returns it.
        """
        return self._call.result()

    def __repr__(self) -> str:
        return f"<run over a Dask frame: {len(self.jobs()):,} batch jobs in {self.sidecar.path}>"

    def __reduce__(self) -> Any:
        raise NotPicklableError(
            "A run does not leave its process; everything it knows is in its sidecar. Elsewhere, "
            "make the same call again, which pays nothing again."
        )
