"""`DaskRun`: a call over a Dask frame that was submitted.

Comes in: the call. Goes out: its batch jobs driven by the sidecar alone, and lazy frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nyu_llm_frames._runs.prepare import check_timeout
from nyu_llm_frames._runs.result import jobs_frame
from nyu_llm_frames.dask.dask_run import DaskCall
from nyu_llm_frames.errors import NotPicklableError


class DaskRun:
    """What ``ddf.llm.submit`` gives: the jobs of its sidecar, and the frame.

    What drives jobs works on the sidecar alone, and so on all of its jobs; what is shown of
    single rows is rendered again.
    """

    def __init__(self, call: DaskCall, retries: int, max_cost: float | None) -> None:
        self._call, self._stored = call, call.stored(retries, max_cost)

    @property
    def sidecar(self) -> Path:
        """Folder of the sidecar."""
        return self._stored.sidecar.path

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> DaskRun:
        """Advance every batch job by one step: upload, submit, poll or read. Never waits."""
        self._stored.poll()
        return self

    def wait(self, timeout: float | None = None) -> DaskRun:
        """Wait until every batch job is over; after `timeout` seconds the jobs continue."""
        self._stored.wait(check_timeout(timeout))
        return self

    def retry(self) -> DaskRun:
        """Send failed, empty, missing and damaged requests once more, in any case."""
        self._stored.retry()
        return self

    def cancel(self) -> list[str]:
        """Cancel the batch jobs; return their ids. What they finish before is kept."""
        return self._stored.cancel()

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> DaskRun:
        """Settle an uncertain submission: it may or may not have created a job."""
        self._stored.resolve(adopt, resubmit)
        return self

    # --- looking ----------------------------------------------------------------------------
    @property
    def status(self) -> pd.DataFrame:
        """One row per batch job: its status, counts, times (UTC)."""
        return jobs_frame(self._stored.jobs())

    def result(self) -> Any:
        """Return the lazy frame with the answers so far; nothing is sent to the gateway."""
        return self._call.result()

    def failures(self) -> Any:
        """Return the rows without a good answer, with ``status`` and ``error``; a lazy frame."""
        return self._call.result(failures=True)

    def counts(self) -> dict[str, int]:
        """Return the number of rows per status."""
        return dict(self._call.now().counts)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the sidecar's answers, each distinct request counted once."""
        return self._stored.totals().usage

    @property
    def cost(self) -> float | None:
        """US dollars by that usage; None where no price is known."""
        return self._stored.totals().cost

    def __repr__(self) -> str:
        return f"<run over a Dask frame: {len(self._stored.jobs()):,} batch jobs in {self.sidecar}>"

    def __reduce__(self) -> Any:
        raise NotPicklableError(
            "A run does not leave its process; everything it knows is in its sidecar. Elsewhere, "
            "make the same call again: it resumes at no extra cost."
        )
