"""What a run has so far: the outcome of every request, joined to the frame.

Comes in: a prepared call, and the planner that knows where its requests stand. Goes out: frames,
counts and examples. Nothing is asked of the gateway here, and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.estimating import answer_costs
from nyu_llm_frames._runs.prepare import PreparedCall
from nyu_llm_frames._runs.summary import failures_text
from nyu_llm_frames._sidecar.answer_store import Best, gather
from nyu_llm_frames._stages.answers.answer import NO_FAILURE, SHOWN, TOKENS
from nyu_llm_frames._stages.batches.job import CANCELLED, Job
from nyu_llm_frames._stages.batches.planning import Ints
from nyu_llm_frames._stages.requests.preflight import shown_label
from nyu_llm_frames._tables import columns as _columns
from nyu_llm_frames._tables import frame as _frame
from nyu_llm_frames._tables.columns import Outcome

JOB_COLUMNS = (
    *("name", "batch_id", "step", "status", "model", "requests", "answers", "orphans"),
    *("duplicates", "error", "planned_at", "submitted_at", "ended_at", "done_at"),
)
"""What is shown of a batch job, wherever one is."""


def jobs_frame(jobs: Iterable[Job], columns: Sequence[str] = JOB_COLUMNS) -> pd.DataFrame:
    """Return one row per batch job."""
    rows = [msgspec.structs.asdict(job) for job in jobs]
    return pd.DataFrame([{c: row[c] for c in columns} for row in rows], columns=list(columns))


def outcome_of(
    best: Best, jobs: Iterable[tuple[Job, Ints]], columns: Sequence[str] = SHOWN
) -> Outcome:
    """Say of every distinct request what came of it, or why nothing did.

    Parameters
    ----------
    best : Best
        Its best answer, if any; shape (m,).
    jobs : iterable of tuple of (Job, numpy.ndarray)
        Jobs that may carry them, the oldest first, and where the requests of each stand among
        these, -1 where they do not. Looked at only where answers are missing.
    columns : sequence of str
        What to read of the answers; "status" among them.
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
                elif reasons[i] == CANCELLED:  # and planned anew since
                    status[i], reasons[i] = "pending", None
        for i in np.flatnonzero(carried).tolist():
            status[i], reasons[i] = "pending", None
    return Outcome(answers, status, reasons, pa.nulls(len(status), pa.float64()))


class Result(NamedTuple):
    """What a call has at one moment.

    Attributes
    ----------
    frame : pandas.DataFrame
        The joined frame.
    counts : dict of str to int
        Rows per status.
    trouble : str
        What a person has to be told of the rows without a good answer; "" if there are none.
    """

    frame: pd.DataFrame
    counts: dict[str, int]
    trouble: str


class Collected:
    """What a call has so far: made anew from the sidecar at every look.

    Parameters
    ----------
    call : PreparedCall
    planner : Planner
        Of the same requests.
    """

    def __init__(self, call: PreparedCall, planner: Planner) -> None:
        self._call, self._planner = call, planner
        self.sidecar = planner.ctx.sidecar

    def status(self) -> pd.DataFrame:
        """One row per batch job: where it stands, counts, times (UTC)."""
        return jobs_frame(self._planner.find_jobs())

    def outcome(self) -> Outcome:
        """Return what became of every distinct request, by the sidecar as it is now."""
        call, best = self._call, self.sidecar.best_answers(self._call.requests.ids)
        outcome = outcome_of(best, self._planner.each_job())
        if call.arguments.details:  # prices are read only for those who look at them
            cost, _ = answer_costs(best, call.gateway.realm, call.arguments.model)
            outcome = replace(outcome, cost=cost)
        return outcome if call.schema is None else _columns.read_schema(outcome, call.schema)

    def result(self) -> Result:
        """Join what is there now."""
        outcome = self.outcome()
        counts = self.counts(outcome)
        where = f"{self._call.arguments.output}_error"
        trouble = failures_text(counts, self.examples(outcome), where)
        return Result(self.joined(outcome), counts, trouble)

    def joined(self, outcome: Outcome) -> pd.DataFrame:
        """Join an outcome to the frame."""
        call = self._call
        columns = _columns.answer_columns(
            outcome,
            call.requests.ids,
            call.codes,
            call.arguments.output,
            prefix=call.arguments.prefix,
            details=call.arguments.details,
        )
        return _frame.with_columns(call.frame, columns)

    def failures(self) -> pd.DataFrame:
        """Return the rows without a good answer: the input, ``status`` and ``error``.

        Where the input has a column of such a name, ``{output}_status`` and ``{output}_error``.
        """
        call, outcome = self._call, self.outcome()
        status = _columns.row_status(outcome, call.codes)
        bad = ~np.isin(status, list(NO_FAILURE))
        error = _columns.spread(_columns.shown_error(outcome), call.codes)
        taken = {"status", "error"} & set(call.frame.columns)
        before = f"{call.arguments.output}_" if taken else ""
        columns = {
            f"{before}status": _columns.status_column(status.tolist()),
            f"{before}error": _columns.text_column(error),
        }
        return _frame.with_columns(call.frame, columns).loc[bad]

    def counts(self, outcome: Outcome) -> dict[str, int]:
        """Return the number of rows per status."""
        status = _columns.row_status(outcome, self._call.codes)
        return dict(Counter(status.tolist()))

    def usage(self) -> dict[str, int]:
        """Return the tokens of the answers, each distinct request counted once."""
        answers = self.outcome().answers
        return {name: int(answers[name].to_pandas().sum()) for name in TOKENS}

    def cost(self) -> float | None:
        """Return US dollars by the answers' own usage; None where no price is known."""
        best = self.sidecar.best_answers(self._call.requests.ids)
        costs, unpriced = answer_costs(best, self._call.gateway.realm, self._call.arguments.model)
        return None if unpriced else float(np.nansum(np.asarray(costs.to_pandas(), np.float64)))

    def examples(self, outcome: Outcome) -> dict[str, tuple[str, str]]:
        """Return for each kind of failure the label of its first row, and the reason."""
        status = _columns.row_status(outcome, self._call.codes)
        error = _columns.shown_error(outcome)
        out = {}
        for kind in set(status.tolist()) - NO_FAILURE:
            row = int(np.flatnonzero(status == kind)[0])
            reason = error[int(self._call.codes[row])].as_py()
            out[kind] = (repr(shown_label(self._call.frame.index[row])), str(reason))
        return out
