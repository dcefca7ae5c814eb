"""The results of a run so far: the outcome of every request, joined to the frame.

Comes in: a prepared call, and the planner that knows the state of its requests. Goes out: frames,
counts and examples. The gateway is not called here, and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.estimating import answer_costs
from nyu_llm_frames._runs.summary import failures_text
from nyu_llm_frames._sidecar.answer_store import Best, gather
from nyu_llm_frames._stages.answers.answer import NO_FAILURE, SHOWN
from nyu_llm_frames._stages.batches.job import CANCELLED, Job
from nyu_llm_frames._stages.batches.planning import Ints, Mask
from nyu_llm_frames._tables import columns as _columns
from nyu_llm_frames._tables.columns import Objects, Outcome

if TYPE_CHECKING:
    from nyu_llm_frames._runs.prepare import PreparedCall  # with Jinja behind it

JOB_COLUMNS = (
    *("name", "batch_id", "step", "status", "model", "requests", "answers", "orphans"),
    *("duplicates", "error", "planned_at", "submitted_at", "ended_at", "done_at"),
)
"""The fields shown of a batch job, everywhere."""


def jobs_frame(jobs: Iterable[Job], columns: Sequence[str] = JOB_COLUMNS) -> pd.DataFrame:
    """Return one row per batch job."""
    rows = [msgspec.structs.asdict(job) for job in jobs]
    return pd.DataFrame([{c: row[c] for c in columns} for row in rows], columns=list(columns))


def outcome_of(
    best: Best, jobs: Iterable[tuple[Job, Ints]], columns: Sequence[str] = SHOWN
) -> Outcome:
    """Return the outcome of every distinct request, or why it has none.

    `jobs` may carry them, the oldest first, each with the positions of its requests among these, -1
    for others. They are read only where answers are missing.
    """
    answers = gather(best, list(columns))
    status = _columns.objects(answers["status"])
    reasons: list[str | None] = [None] * len(status)
    without = best.rank < 0
    if without.any():
        status[without] = "pending"
        carried = np.zeros(len(status), np.bool_)
        for job, at in jobs:
            mine = at[at >= 0]
            mine = mine[without[mine]]
            if job.carries:
                carried[mine] = True
                continue
            why = job.why_nothing
            for i in mine.tolist():
                if why is not None:
                    status[i], reasons[i] = "missing", why
                elif reasons[i] == CANCELLED:  # and planned again since
                    status[i], reasons[i] = "pending", None
        for i in np.flatnonzero(carried).tolist():
            status[i], reasons[i] = "pending", None
    return Outcome(answers, status, reasons, pa.nulls(len(status), pa.float64()))


class Collected:
    """What a call has at one moment, from the sidecar; no network."""

    def __init__(self, call: PreparedCall, best: Best, jobs: Iterable[tuple[Job, Ints]]) -> None:
        self._call, self._best = call, best
        outcome = outcome_of(best, jobs)
        if call.arguments.details:  # prices are read only if they are shown
            outcome = replace(outcome, cost=self._costs[0])
        if call.schema is not None:
            outcome = _columns.read_schema(outcome, call.schema)
        self.outcome = outcome

    @classmethod
    def now(cls, call: PreparedCall, planner: Planner) -> Collected:
        """Return it by the sidecar as it is now."""
        best = planner.ctx.sidecar.best_answers(call.requests.ids)
        return cls(call, best, planner.each_job())

    @cached_property
    def _costs(self) -> tuple[pa.Array, bool]:
        """US dollars per request from the reported usage, and whether a price is unknown."""
        call = self._call
        return answer_costs(self._best, call.gateway.realm, call.arguments.model)

    @property
    def costs(self) -> pa.Array | None:
        """US dollars per request; None where a price is unknown."""
        costs, unpriced = self._costs
        return None if unpriced else costs

    @property
    def cost(self) -> float | None:
        """US dollars, each distinct request once; None where a price is unknown."""
        return None if self.costs is None else float(pc.sum(self.costs).as_py() or 0.0)

    @property
    def frame(self) -> Any:
        """The table of the call with the new columns."""
        call = self._call
        columns = call.new_columns.made(self.outcome, call.requests.ids, call.codes)
        if call.fill is not None:
            columns = call.fill.filled(columns, self.answered)
        table = call.table if call.whole is None else call.whole
        return table.with_columns(columns)

    @property
    def failures(self) -> Any:
        """The rows without a good answer, with ``status`` and ``error``."""
        call, status = self._call, self._status
        bad = np.flatnonzero(~np.isin(status, list(NO_FAILURE)))
        error = _columns.spread(_columns.shown_error(self.outcome), call.codes[bad])
        taken = {"status", "error"} & set(call.table.columns)
        before = f"{call.arguments.output}_" if taken else ""
        columns = {
            f"{before}status": _columns.status_column(status[bad].tolist()),
            f"{before}error": _columns.text_column(error),
        }
        return call.table.take(bad).with_columns(columns)

    @property
    def _status(self) -> Objects:
        return _columns.row_status(self.outcome, self._call.codes)

    @property
    def answered(self) -> Mask:
        """Which of the rows that were sent have an outcome, good or bad."""
        return ~np.isin(self._status, ("pending", "skipped"))

    @property
    def counts(self) -> dict[str, int]:
        """Rows per status; those that were not sent again have a good answer."""
        return dict(Counter(self._status.tolist()) + Counter(ok=self._call.kept))

    @property
    def trouble(self) -> str:
        """The message about rows without a good answer; "" if there are none."""
        where = f"{self._call.arguments.output}_error"
        return failures_text(self.counts, self.examples, where)

    @property
    def examples(self) -> dict[str, tuple[str, str]]:
        """For each kind of failure the label of its first row, and the reason."""
        status, error = self._status, _columns.shown_error(self.outcome)
        out = {}
        for kind in set(status.tolist()) - NO_FAILURE:
            row = int(np.flatnonzero(status == kind)[0])
            reason = error[int(self._call.codes[row])].as_py()
            out[kind] = (repr(self._call.table.label(row)), str(reason))
        return out
