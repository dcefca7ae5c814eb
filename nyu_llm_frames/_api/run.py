"""`Run`: one submitted call, to inspect, wait for and collect.

Comes in: a prepared call. Goes out: frames and records. It keeps no state of its own: everything
is read from the sidecar, so a new kernel sees the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Generic

import pandas as pd
from typing_extensions import TypeVar

from nyu_llm_frames._runs.launch import CallExecution, opened
from nyu_llm_frames._runs.prepare import (
    PreparedCall,
    check_retries,
    check_timeout,
    template_text,
    versions,
)
from nyu_llm_frames._runs.result import Collected, jobs_frame
from nyu_llm_frames._runs.summary import Summary, ending, models_of, summarize
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._sidecar.answer_store import Best
from nyu_llm_frames._stages.answers.answer import TOKENS
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.cost.estimate import check_max_cost
from nyu_llm_frames.errors import NotPicklableError, PartialResultError, PartialResultWarning

T = TypeVar("T", default=pd.DataFrame)


class Run(Generic[T]):
    """One call of ``df.llm.submit`` or ``df.llm.batch``.

    Made by those; everything it shows is read from the sidecar.

    Attributes
    ----------
    name : str
        Its name in the sidecar.
    """

    def __init__(self, call: PreparedCall, retries: int, max_cost: float | None) -> None:
        limit, attempts = check_max_cost(max_cost, call.options.max_cost), check_retries(retries)
        self._ctx = opened(call, current_clock())
        self._execution = CallExecution(
            call, self._ctx, retries=attempts, max_cost=limit, carried=lambda: self
        )
        self.name = self._execution.name
        self._call, self._planner = self._execution.one_part()
        self._shown: tuple[Best, dict[str, Job], Summary] | None = None

    @property
    def sidecar(self) -> Path:
        """Folder of the sidecar."""
        return self._ctx.sidecar.path

    # --- driving ----------------------------------------------------------------------------
    def poll(self) -> Run[T]:
        """Advance every batch job by one step: upload, submit, poll or read. Never waits.

        Returns
        -------
        Run
            The run itself.

        Raises
        ------
        UncertainSubmissionError, AuthenticationError, GatewayError
        """
        self._execution.poll()
        return self

    def wait(self, timeout: float | None = None) -> Run[T]:
        """Wait until every request has an answer, or has no attempts left.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the batch jobs continue after that.

        Returns
        -------
        Run
            The run itself.

        Raises
        ------
        RunTimeoutError, UncertainSubmissionError, BatchJobFailedError, GatewayError
        ConfigurationError
            For a `timeout` that is not a number.
        """
        self._execution.wait(check_timeout(timeout))
        return self

    def retry(self) -> Run[T]:
        """Send failed, empty, missing and damaged requests again, even with no attempts left.

        This includes requests of an ended job that counts more answers than its output holds; other
        calls only read that output again. Such a request may be paid for twice.

        Returns
        -------
        Run
            The run itself; ``wait()`` waits for it.

        Raises
        ------
        UncertainSubmissionError, AuthenticationError, GatewayError, ConfigurationError
            As `poll`; without a key or a bucket.
        """
        self._execution.retry()
        return self

    def cancel(self) -> list[str]:
        """Cancel the run's batch jobs; answers finished before that are kept.

        Returns
        -------
        list of str
            Ids of the batch jobs that were requested to stop.

        Raises
        ------
        AuthenticationError, GatewayError
            The gateway refused, or was not reached.
        """
        return self._execution.cancel()

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> Run[T]:
        """Settle an uncertain submission: it may or may not have created a job.

        Parameters
        ----------
        adopt : str, optional
            Id of the batch job that it made.
        resubmit : bool, default False
            Confirm that it made none.

        Returns
        -------
        Run
            The run itself.

        Raises
        ------
        ConfigurationError
            For both arguments or neither, or when no submission is uncertain.
        """
        self._execution.resolve(adopt, resubmit)
        return self

    # --- inspecting -------------------------------------------------------------------------
    @property
    def status(self) -> pd.DataFrame:
        """One row per batch job: its status, counts, times (UTC)."""
        return jobs_frame(self._planner.find_jobs())

    def result(self) -> T:
        """Return the frame with all answers so far; the gateway is not called.

        Returns
        -------
        pandas.DataFrame
            The input frame plus the new columns: same index, order, dtypes and columns.
        """
        out: T = self._collected().frame
        return out

    def failures(self) -> T:
        """Return the rows without a good answer: the input, ``status`` and ``error``.

        If the input has such a column, the names are ``{output}_status`` and ``{output}_error``.

        Returns
        -------
        pandas.DataFrame
            Index kept; rows that are pending or were skipped are not failures.
        """
        out: T = self._collected().failures
        return out

    def counts(self) -> dict[str, int]:
        """Return the number of rows per status."""
        return self._collected().counts

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the answers, each distinct request counted once.

        ``completion_tokens`` excludes thinking; it is billed together with ``reasoning_tokens``.
        """
        answers = self._collected().outcome.answers
        return {name: int(answers[name].to_pandas().sum()) for name in TOKENS}

    @property
    def cost(self) -> float | None:
        """US dollars, from the usage that answers report, each distinct request once.

        Rows that share an answer show the same ``_cost``; here it counts once. None where no
        price is known.
        """
        return self._collected().cost

    def plot(self) -> Any:
        """
        Draw the run: batch jobs over time, rows by status, tokens, and cost, where there are any.

        Returns
        -------
        numpy.ndarray of matplotlib.axes.Axes
            One for each plot. Needs ``pip install "nyu-llm-frames[plot]"``.

        Raises
        ------
        ConfigurationError
            Without matplotlib.
        """
        from nyu_llm_frames._api.plot import plot

        return plot(self._summary())

    def provenance(self) -> dict[str, Any]:
        """Return what a methods section needs: template, parameters, models, versions, times.

        Times are UTC, one for each batch job.
        """
        call, now = self._call, self._collected()
        jobs = [job for job in self._planner.find_jobs() if job.batch_id]
        return {
            "sidecar": str(self.sidecar),
            "template": json.loads(template_text(call.template)),
            "model": call.arguments.model,
            "models_that_answered": list(models_of(now.outcome.answers)),
            "params": call.requests.shape.params,
            "realm": call.gateway.realm,
            "rows": len(call.table) + call.kept,
            "requests": len(call.requests),
            "counts": now.counts,
            "recovered": now.outcome.recovered,
            "batch_jobs": [job.batch_id for job in jobs],
            "submitted_at": [_iso(job.submitted_at) for job in jobs],
            "ended_at": [_iso(job.ended_at) for job in jobs],
            "versions": json.loads(versions()),
        }

    def _collected(self) -> Collected:
        return Collected.now(self._call, self._planner)

    def _summary(self) -> Summary:
        """Return what the displays show, from the sidecar as it is now.

        A notebook draws both text and HTML, and reruns cells: files of answers are read once.
        """
        call, sidecar, at = self._call, self._ctx.sidecar, self._ctx.clock.now()
        best, every = sidecar.best_answers(call.requests.ids), sidecar.jobs()
        shown = self._shown
        if shown is not None and shown[0] is best and shown[1] == every:
            return replace(shown[2], at=at)
        now = self._collected()
        summary = summarize(
            name=self.name,
            sidecar=str(self.sidecar),
            model=call.arguments.model,
            rows=len(call.table) + call.kept,
            counts=now.counts,
            examples=now.examples,
            jobs=self._planner.find_jobs(),
            answers=now.outcome.answers,
            costs=now.costs,
            at=at,
        )
        self._shown = best, every, summary
        return summary

    def __repr__(self) -> str:
        from nyu_llm_frames._api.display import run_text

        return run_text(self._summary())

    def _repr_html_(self) -> str:
        from nyu_llm_frames._api.display import run_html

        return run_html(self._summary())

    def __reduce__(self) -> Any:
        raise NotPicklableError(
            "A Run cannot leave its process; everything it knows is in its sidecar. Elsewhere, "
            "make the same call again, which pays for nothing twice, or look with "
            f"open_sidecar({str(self.sidecar)!r})."
        )

    # --- endings ----------------------------------------------------------------------------
    def _joined(self, on_error: str) -> T:
        """Return the joined frame, and warn or raise when rows have no good answer."""
        result = self._collected()
        if self._ctx.report.listens:
            message = ending(result.counts, result.cost)
            self._ctx.report(Progress("done", message, card=self._repr_html_))
        trouble = result.trouble
        if trouble and on_error == "raise":
            raise PartialResultError(trouble, run=self, frame=result.frame, counts=result.counts)
        if trouble:
            warn_user(trouble, PartialResultWarning)
        out: T = result.frame
        return out


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
