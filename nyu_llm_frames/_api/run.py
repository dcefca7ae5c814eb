"""`Run`: one call that was submitted, to look at, wait for and collect.

Comes in: a prepared call. Goes out: frames and records. It keeps no truth of its own: everything
is read from the sidecar, so that a new kernel sees the same.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from nyu_llm_frames._jobs.driver import Driver
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.budget import check_budget
from nyu_llm_frames._runs.estimating import answer_costs
from nyu_llm_frames._runs.launch import opened, planned
from nyu_llm_frames._runs.next_upload import SharedJobs, next_upload
from nyu_llm_frames._runs.prepare import PreparedCall, template_text, versions
from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._runs.summary import Summary, models_of, summarize
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._sidecar.answer_store import Best
from nyu_llm_frames._sidecar.folder import new_name
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    BudgetError,
    ConfigurationError,
    NotPicklableError,
    PartialResultError,
    PartialResultWarning,
    RunTimeoutError,
    UncertainSubmissionError,
)


def submit(call: PreparedCall, clock: Clock, *, retries: int, max_cost: float | None) -> Run:
    """Plan, upload and submit, without a poll. See `FrameMethods.submit`."""
    run = Run(call, clock, retries, max_cost)
    run._start()
    return run


def batch(
    call: PreparedCall,
    clock: Clock,
    *,
    wait: bool,
    timeout: float | None,
    retries: int,
    max_cost: float | None,
    on_error: str,
) -> pd.DataFrame:
    """Plan, submit, wait or take one step, and join. See `FrameMethods.batch`."""
    run = Run(call, clock, retries, max_cost)
    run._answer(wait, timeout)
    return run._joined(on_error, stacklevel=4)


class Run:
    """One call of ``df.llm.submit`` or ``df.llm.batch``.

    Made by those; everything it shows is read from the sidecar.

    Attributes
    ----------
    name : str
        Its name in the sidecar.
    """

    def __init__(
        self, call: PreparedCall, clock: Clock, retries: int, max_cost: float | None
    ) -> None:
        self._call, self._max_cost = call, max_cost
        self.name = new_name(clock)
        self._ctx = opened(call, clock)
        self._planner = Planner(self.name, call.requests, self._ctx, retries)
        self._driver = Driver(self.name, self._ctx, self._planner.tracker)
        self._collected = Collected(call, self._planner)
        self._shown: tuple[Best, dict[str, Job], Summary] | None = None

    @property
    def sidecar(self) -> Path:
        """Folder of the sidecar."""
        return self._ctx.sidecar.path

    # --- starting ---------------------------------------------------------------------------
    def _plan(self, *, again: bool = False) -> int:
        """Decide what to send and write it down; return how many requests are under way."""
        if again:
            self._planner.tracker.forget_failures()
        shared_jobs = SharedJobs()
        shared_jobs.add(self._planner)
        return planned(
            self._ctx,
            self._call,
            self.name,
            lambda: self._planner.plan(again=again),
            estimate=next_upload(self._call, self._planner, again=again),
            shared_jobs=shared_jobs.estimate(self._ctx),
            max_cost=self._max_cost,
        )

    def _plan_more(self) -> int:
        """Plan what another attempt may cure: within the limit, as all that is sent."""
        if self._max_cost is not None:
            check_budget(next_upload(self._call, self._planner), self._max_cost, more=True)
        return self._planner.plan()

    def _start(self) -> None:
        with self._driving():
            if self._plan():
                self._driver.start()

    def _answer(self, wait: bool, timeout: float | None) -> None:
        with self._driving(timeout):
            if not self._plan():
                return
            if wait:
                self._until_over()
            else:
                self._driver.step()
                self._driver.raise_failed(at_once=True)

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> Run:
        """Advance every batch job by one step: upload, submit, ask or read. Never waits.

        Returns
        -------
        Run
            The run itself.

        Raises
        ------
        UncertainSubmissionError, AuthenticationError, GatewayError
        """
        with self._driving(polls=True):
            self._planner.states()
            if self._planner.lost_its_plan():
                self._plan_more()
            self._driver.step()
            self._driver.raise_failed()
        return self

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until every request has an answer, or has been tried often enough.

        Parameters
        ----------
        timeout : float, optional
            Seconds of waiting; the batch jobs go on after that.

        Returns
        -------
        Run
            The run itself.

        Raises
        ------
        RunTimeoutError, UncertainSubmissionError, BatchJobFailedError, GatewayError
        """
        with self._driving(timeout):
            self._planner.states()
            self._until_over()
        return self

    def _until_over(self) -> None:
        self._driver.until_over(self._plan_more)
        self._driver.raise_failed()

    def retry(self) -> Run:
        """Send failed, empty, missing and damaged requests once more, in any case.

        Also those of an ended job that counts more answers than its output holds, which another
        call only reads again: such a request may be paid for twice.

        Returns
        -------
        Run
            The run itself; ``wait()`` waits for it.
        """
        with self._driving():
            if self._plan(again=True):
                self._driver.start()
        return self

    def cancel(self) -> list[str]:
        """Cancel the run's batch jobs; what they finish before is kept.

        Returns
        -------
        list of str
            Ids of the batch jobs that were asked to stop.
        """
        with self._driving():
            self._planner.find_jobs()  # also where all answers are there, and none is waited for
            return self._driver.cancel()

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> Run:
        """Settle a submit of which nobody knows whether it made a job.

        Parameters
        ----------
        adopt : str, optional
            Id of the batch job that it made.
        resubmit : bool, default False
            Say that it surely made none.

        Returns
        -------
        Run
            The run itself.
        """
        if (adopt is None) == (not resubmit):
            raise ConfigurationError('Give either adopt="<batch id>" or resubmit=True.')
        with self._driving():
            self._driver.resolve(adopt, resubmit)
        return self

    @contextmanager
    def _driving(self, timeout: float | None = None, *, polls: bool = False) -> Iterator[None]:
        """Surround one call of the user; errors that can be answered with the run carry it."""
        try:
            with self._driver.driving(timeout, polls=polls):
                yield
        except (
            BudgetError, UncertainSubmissionError, BatchJobFailedError, RunTimeoutError
        ) as error:  # fmt: skip
            error.run = self
            raise

    # --- looking ----------------------------------------------------------------------------
    @property
    def status(self) -> pd.DataFrame:
        """One row per batch job: where it stands, counts, times (UTC)."""
        return self._collected.status()

    def result(self) -> pd.DataFrame:
        """Return the frame with what is there now; nothing is asked of the gateway.

        Returns
        -------
        pandas.DataFrame
            The input frame, with new columns beside it: same index, order, dtypes and columns.
        """
        return self._collected.joined(self._collected.outcome())

    def failures(self) -> pd.DataFrame:
        """Return the rows without a good answer: the input, ``status`` and ``error``.

        Where the input has a column of such a name, ``{output}_status`` and ``{output}_error``.

        Returns
        -------
        pandas.DataFrame
            Index kept; rows that are pending or were skipped are not failures.
        """
        return self._collected.failures()

    def counts(self) -> dict[str, int]:
        """Return the number of rows per status."""
        return self._collected.counts(self._collected.outcome())

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the answers, each distinct request counted once.

        ``completion_tokens`` leaves thinking out; what is billed is it and ``reasoning_tokens``.
        """
        return self._collected.usage()

    @property
    def cost(self) -> float | None:
        """US dollars by the answers' own usage, each distinct request once.

        Rows that share an answer show the same ``_cost``; here it counts once. None where no
        price is known.
        """
        return self._collected.cost()

    def plot(self) -> Any:
        """
        Draw the run: batch jobs over time, answers by status, tokens, and cost.

        Returns
        -------
        numpy.ndarray of matplotlib.axes.Axes
            Four of them. Needs ``pip install "nyu-llm-frames[plot]"``.

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
        call, outcome = self._call, self._collected.outcome()
        jobs = [job for job in self._planner.find_jobs() if job.batch_id]
        return {
            "sidecar": str(self.sidecar),
            "template": json.loads(template_text(call.template)),
            "model": call.arguments.model,
            "models_that_answered": list(models_of(outcome.answers)),
            "params": call.requests.shape.params,
            "realm": call.gateway.realm,
            "rows": len(call.frame),
            "requests": len(call.requests),
            "counts": self._collected.counts(outcome),
            "recovered": outcome.recovered,
            "batch_jobs": [job.batch_id for job in jobs],
            "submitted_at": [_iso(job.submitted_at) for job in jobs],
            "ended_at": [_iso(job.ended_at) for job in jobs],
            "versions": json.loads(versions()),
        }

    def _summary(self) -> Summary:
        """Return what the displays show, by the sidecar as it is now.

        A notebook draws text and HTML, and a cell is run again: files of answers are read once.
        """
        call, sidecar, at = self._call, self._ctx.sidecar, self._ctx.clock.now()
        best, every = sidecar.best_answers(call.requests.ids), sidecar.jobs()
        shown = self._shown
        if shown is not None and shown[0] is best and shown[1] == every:
            return replace(shown[2], at=at)
        outcome = self._collected.outcome()
        costs, unpriced = answer_costs(best, call.gateway.realm, call.arguments.model)
        summary = summarize(
            name=self.name,
            sidecar=str(self.sidecar),
            model=call.arguments.model,
            rows=len(call.frame),
            counts=self._collected.counts(outcome),
            examples=self._collected.examples(outcome),
            jobs=self._planner.find_jobs(),
            answers=outcome.answers,
            costs=None if unpriced else costs,
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
            "A Run does not leave its process; everything it knows is in its sidecar. Elsewhere, "
            "make the same call again, which pays nothing again, or look with "
            f"open_sidecar({str(self.sidecar)!r})."
        )

    # --- endings ----------------------------------------------------------------------------
    def _joined(self, on_error: str, *, stacklevel: int) -> pd.DataFrame:
        """Return the joined frame, and warn or raise when rows have no good answer.

        Parameters
        ----------
        on_error : {"keep", "raise"}
        stacklevel : int
            Of the warning, so that it points at the user's line.
        """
        result = self._collected.result()
        if result.trouble and on_error == "raise":
            raise PartialResultError(
                result.trouble, run=self, frame=result.frame, counts=result.counts
            )
        if result.trouble:
            warnings.warn(result.trouble, PartialResultWarning, stacklevel=stacklevel)
        return result.frame


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
