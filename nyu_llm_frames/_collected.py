"""What a run has so far: the outcome of every request, joined to the frame.

Comes in: a prepared call, its sidecar and the runner that knows its jobs. Goes out: frames, counts
and examples. Nothing is asked of the gateway here, and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._answers.answer import RANK
from nyu_llm_frames._call import Call
from nyu_llm_frames._frames import columns as _columns
from nyu_llm_frames._frames import frame as _frame
from nyu_llm_frames._frames.columns import Outcome
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._money.survey import answer_costs
from nyu_llm_frames._requests.planning import Standing
from nyu_llm_frames._requests.preflight import shown_label
from nyu_llm_frames._sidecar.answer_store import gather, positions
from nyu_llm_frames._sidecar.folder import Sidecar

_ANSWER_COLUMNS = [
    "status",
    "text",
    "error",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "model",
]


class Collected:
    """The half of a `Run` that only looks: made anew from the sidecar at every call."""

    def __init__(self, call: Call, sidecar: Sidecar, runner: Runner) -> None:
        self._call, self.sidecar, self._runner = call, sidecar, runner

    def _jobs(self) -> list[Job]:
        runner = self._runner
        if not runner.mine:
            ids = set(self._call.requests.ids.to_pylist())
            runner.mine = [
                name
                for name, job in self.sidecar.jobs().items()
                if job.realm == runner.ctx.realm
                and not ids.isdisjoint(self.sidecar.request_ids(name).to_pylist())
            ]
        return list(runner.jobs().values())

    @property
    def status(self) -> pd.DataFrame:
        """One row per batch job: where it stands, counts, times (UTC)."""
        columns = [
            "name",
            "batch_id",
            "step",
            "status",
            "model",
            "requests",
            "answers",
            "orphans",
            "duplicates",
            "error",
            "planned_at",
            "submitted_at",
            "ended_at",
            "done_at",
        ]
        rows = [msgspec.structs.asdict(job) for job in self._jobs()]
        return pd.DataFrame([{c: row[c] for c in columns} for row in rows], columns=columns)

    def outcome(self) -> Outcome:
        """Return what became of every distinct request, by the sidecar as it is now."""
        runner, ids = self._runner, self._call.requests.ids
        standing = runner.standing()
        best = self.sidecar.best_answers(ids)
        answers = gather(best, _ANSWER_COLUMNS)
        status = _columns.objects(answers["status"])
        reasons: list[str | None] = [None] * len(ids)
        without = np.flatnonzero(best.rank < 0)
        if len(without):
            status[without] = "pending"
            self._explain(standing, without, status, reasons)
        cost = pa.nulls(len(ids), pa.float64())
        if self._call.asked.details:  # prices are read only for those who look at them
            cost, _ = answer_costs(best, runner.ctx.realm, self._call.asked.model)
        outcome = Outcome(answers, status, reasons, cost)
        schema = self._call.schema
        return outcome if schema is None else _columns.read_schema(outcome, schema)

    def _explain(
        self,
        standing: Standing,
        without: np.ndarray[Any, np.dtype[np.int64]],
        status: np.ndarray[Any, np.dtype[np.object_]],
        reasons: list[str | None],
    ) -> None:
        """Tell pending requests from those whose job is over without an answer."""
        for job in self._jobs():
            if job.step != "done":
                continue
            at = positions(self.sidecar.request_ids(job.name), self._call.requests.ids)
            said = f": {job.error}" if job.error else ""
            text = f"batch job {job.batch_id} {job.outcome} without an answer to this request{said}"
            for i in np.intersect1d(at[at >= 0], without).tolist():
                if not standing.carried[i]:
                    status[i], reasons[i] = "missing", text

    def result(self) -> pd.DataFrame:
        """Return the frame with what is there now; nothing is asked of the gateway.

        Returns
        -------
        pandas.DataFrame
            The input frame, with new columns beside it: same index, order, dtypes and columns.
        """
        return self.joined(self.outcome())

    def joined(self, outcome: Outcome) -> pd.DataFrame:
        """Join an outcome to the frame."""
        call = self._call
        columns = _columns.answer_columns(
            outcome,
            call.requests.ids,
            call.codes,
            call.asked.output,
            prefix=call.asked.prefix,
            details=call.asked.details,
        )
        return _frame.with_columns(call.frame, columns)

    def failures(self) -> pd.DataFrame:
        """Return the rows without a good answer: the input, ``status`` and ``error``.

        Returns
        -------
        pandas.DataFrame
            Index kept; rows that are pending or were skipped are not failures.
        """
        call, outcome = self._call, self.outcome()
        status = _columns.row_status(outcome, call.codes)
        bad = ~np.isin(status, ("ok", "pending", "skipped"))
        error = _columns.spread(_columns.shown_error(outcome), call.codes)
        columns = {
            "status": _columns.status_column(status.tolist()),
            "error": _columns.text_column(error),
        }
        return _frame.with_columns(call.frame, columns).loc[bad]

    def counts(self, outcome: Outcome | None = None) -> dict[str, int]:
        """Return the number of rows per status."""
        status = _columns.row_status(outcome or self.outcome(), self._call.codes)
        return dict(Counter(status.tolist()))

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the answers, each distinct request counted once.

        ``completion_tokens`` leaves thinking out; what is billed is it and ``reasoning_tokens``.
        """
        answers = self.outcome().answers
        names = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
        return {name: int(answers[name].to_pandas().sum()) for name in names}

    @property
    def cost(self) -> float | None:
        """US dollars by the answers' own usage, each distinct request once.

        Rows that share an answer show the same ``_cost``; here it counts once. None where no
        price is known.
        """
        best = self.sidecar.best_answers(self._call.requests.ids)
        costs, unpriced = answer_costs(best, self._runner.ctx.realm, self._call.asked.model)
        return None if unpriced else float(np.nansum(np.asarray(costs.to_pandas(), np.float64)))

    def _examples(self, outcome: Outcome, kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return for each kind of failure the label of its first row, and the reason."""
        status = _columns.row_status(outcome, self._call.codes)
        error = _columns.shown_error(outcome)
        out = {}
        for kind in sorted(kinds, key=lambda s: (RANK.get(s, 0), s)):  # type: ignore[call-overload]
            row = int(np.flatnonzero(status == kind)[0])
            reason = error[int(self._call.codes[row])].as_py()
            out[kind] = (repr(shown_label(self._call.frame.index[row])), str(reason))
        return out
