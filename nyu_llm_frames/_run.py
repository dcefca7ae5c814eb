"""`Run`: one call that was submitted, to look at, wait for and collect.

Comes in: a prepared call. Goes out: frames and records. It keeps no truth of its own: everything
is read from the sidecar, so that a new kernel sees the same.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd

from nyu_llm_frames._call import Call, template_text, versions
from nyu_llm_frames._clock import Clock
from nyu_llm_frames._collected import Collected
from nyu_llm_frames._frames.columns import Outcome
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._money.budget import check_budget
from nyu_llm_frames._money.estimate import Estimate
from nyu_llm_frames._money.survey import Question, answer_costs, survey
from nyu_llm_frames._progress import Progress, Reporter
from nyu_llm_frames._requests.routes import route
from nyu_llm_frames._requests.thinking import advice
from nyu_llm_frames._sidecar.folder import RunRecord, Sidecar, new_name
from nyu_llm_frames._summary import QUIET, Summary, models_of, summarize
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    ConfigurationError,
    PartialResultError,
    PartialResultWarning,
    RunTimeoutError,
    UncertainSubmissionError,
)

if TYPE_CHECKING:
    from types import TracebackType


class Run(Collected):
    """One call of ``df.llm.submit`` or ``df.llm.batch``.

    Made by those; everything it shows is read from the sidecar.
    """

    def __init__(
        self,
        call: Call,
        clock: Clock,
        retries: int,
        max_cost: float | None = None,
        *,
        part_of: tuple[str, Sidecar] | None = None,
    ) -> None:
        self._clock, self._retries, self._max_cost = clock, retries, max_cost
        self.report = Reporter(call.options.progress)
        # A file is answered in parts: one run, one sidecar, and a `Run` for each part.
        fresh = part_of is None
        self.name, sidecar = part_of or (
            new_name(clock.now()),
            Sidecar(call.sidecar_path, clock),
        )
        runner = Runner(
            self.name,
            call.requests,
            sidecar,
            call.gateway,
            call.options,
            clock,
            self.report,
            retries,
        )
        super().__init__(call, sidecar, runner)
        if fresh:
            self._announce()

    # --- starting ---------------------------------------------------------------------------
    def _announce(self) -> None:
        new = "new sidecar" if self.sidecar.is_new else "sidecar"
        self._tell(f"{new}: {self.sidecar.path}")

    def _tell(self, message: str) -> None:
        self.report(Progress("note", message, requests=len(self._call.requests)))

    def _tell_trouble(self) -> None:
        """Say what kept a single step from going on; a run that waits says so by itself."""
        if self._runner.trouble is not None:
            self._tell(
                f"trouble: {self._runner.trouble} Nothing is lost: make the same call again, or "
                "wait for the run."
            )

    def plan(self, *, again: bool = False) -> int:
        """Decide what to send and write it down; return how many requests are under way."""
        runner = self._runner
        if again:
            runner.failed.clear()
        estimate = self._estimate(again=again)
        self._tell(estimate.line())
        check_budget(estimate, self._max_cost)
        under_way = runner.plan(again=again)
        if under_way or self.sidecar.is_new:
            self._record()
        shape, realm = self._call.requests.shape, self._runner.ctx.realm
        warned = advice(shape.params, shape.model, route(realm, shape.model))
        if under_way and warned:
            self._tell(warned)
        return under_way

    def _estimate(self, *, again: bool = False) -> Estimate:
        """What the next upload would cost, by the sidecar as it is now."""
        call = self._call
        return survey(
            call.requests,
            question(call),
            len(call.frame),
            self._runner.standing(),
            self.sidecar,
            retries=0 if again else self._retries,
            at=self._clock.now(),
            again=again,
        )

    def _record(self) -> None:
        call = self._call
        record = RunRecord(
            name=self.name,
            template=template_text(call.template),
            schema=None if call.schema is None else json.dumps(call.schema.source),
            params=json.dumps(call.requests.shape.params),
            model=call.asked.model,
            realm=self._runner.ctx.realm,
            gateway=call.gateway.identity,
            output=call.asked.output,
            rows=len(call.frame),
            requests=len(call.requests),
            versions=versions(),
            created_at=self._clock.now(),
        )
        with self.sidecar.lock.held():
            self.sidecar.save_run(record)

    def start(self) -> None:
        """Upload and submit, without a poll."""
        with self._carried():
            self._runner.advance()
            self._runner.advance()
        self._tell_trouble()

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
        with self._carried():
            runner = self._runner
            runner.standing()
            for _ in range(3):  # upload, submit and ask follow each other at once
                if not runner.advance():
                    break
            if not runner.active():
                runner.raise_failed()
        self._tell_trouble()
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
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        runner = self._runner
        with self._carried():
            runner.standing()
            while True:
                runner.drive(deadline)
                if not runner.plan():
                    break
            runner.raise_failed()
        return self

    def retry(self) -> Run:
        """Send failed, missing and damaged requests once more, however often they were tried.

        Returns
        -------
        Run
            The run itself; ``wait()`` waits for it.
        """
        with self._carried():
            self.plan(again=True)
            self._runner.advance()
        return self

    def cancel(self) -> list[str]:
        """Cancel the run's batch jobs; what they finish before is kept.

        Returns
        -------
        list of str
            Ids of the batch jobs that were asked to stop.
        """
        with self._carried():
            self._runner.standing()
            self._jobs()  # also where all answers are there, and nothing is left to wait for
            return self._runner.cancel()

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
        with self._carried():
            self._runner.resolve(adopt, resubmit)
        return self

    def _carried(self) -> _HandsOver:
        return _HandsOver(self)

    # --- views ------------------------------------------------------------------------------
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
        from nyu_llm_frames._plot import plot

        return plot(self._summary())

    def provenance(self) -> dict[str, Any]:
        """Return what a methods section needs: template, parameters, models, versions, times."""
        call, outcome = self._call, self.outcome()
        return {
            "sidecar": str(self.sidecar.path),
            "template": json.loads(template_text(call.template)),
            "model": call.asked.model,
            "models_that_answered": list(models_of(outcome.answers)),
            "params": call.requests.shape.params,
            "realm": self._runner.ctx.realm,
            "rows": len(call.frame),
            "requests": len(call.requests),
            "counts": self.counts(outcome),
            "recovered": outcome.recovered,
            "batch_jobs": [job.batch_id for job in self._jobs() if job.batch_id],
            "versions": json.loads(versions()),
        }

    def _summary(self) -> Summary:
        """Return what the displays show, by the sidecar as it is now."""
        call, outcome = self._call, self.outcome()
        counts = self.counts(outcome)
        best = self.sidecar.best_answers(call.requests.ids)
        costs, unpriced = answer_costs(best, self._runner.ctx.realm, call.asked.model)
        return summarize(
            name=self.name,
            sidecar=str(self.sidecar.path),
            model=call.asked.model,
            rows=len(call.frame),
            counts=counts,
            examples=self._examples(outcome, [s for s in counts if s not in QUIET]),
            jobs=self._jobs(),
            answers=outcome.answers,
            costs=None if unpriced else costs,
            at=self._clock.now(),
        )

    def __repr__(self) -> str:
        from nyu_llm_frames._display import run_text

        return run_text(self._summary())

    def _repr_html_(self) -> str:
        from nyu_llm_frames._display import run_html

        return run_html(self._summary())

    # --- endings ----------------------------------------------------------------------------
    def finished(self, on_error: str, *, stacklevel: int = 3) -> pd.DataFrame:
        """Return the joined frame, and warn or raise when rows have no good answer.

        Parameters
        ----------
        stacklevel : int
            Of the warning, so that it points at the user's line: 3 from a method of the accessor.
        """
        outcome = self.outcome()
        frame = self.joined(outcome)
        counts = self.counts(outcome)
        bad = {s: n for s, n in counts.items() if s not in QUIET}
        if not bad:
            return frame
        text = self._partial(outcome, bad, len(frame))
        if on_error == "raise":
            raise PartialResultError(text, run=self, frame=frame, counts=counts)
        warnings.warn(text, PartialResultWarning, stacklevel=stacklevel)
        return frame

    def _partial(self, outcome: Outcome, bad: dict[str, int], rows: int) -> str:
        kinds = [
            f"{bad[kind]:,} {kind} (row {row}: {reason})"
            for kind, (row, reason) in self._examples(outcome, list(bad)).items()
        ]
        return (
            f"{sum(bad.values()):,} of {rows:,} rows have no good answer: {'; '.join(kinds)}. "
            f"The reasons stand in {self._call.asked.output}_error."
        )


def question(call: Call) -> Question:
    """What the call asks, for comparing it with earlier ones."""
    params = json.dumps(call.requests.shape.params)
    return Question(template_text(call.template), params, call.asked.model, call.gateway.realm)


class _HandsOver:
    """Gives errors that leave a run the run itself, and says how to come back after Ctrl-C."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run.report.close()
        self._run._runner.ctx.close()
        if isinstance(error, UncertainSubmissionError | BatchJobFailedError | RunTimeoutError):
            error.run = self._run
        if isinstance(error, KeyboardInterrupt):
            self._run.report(
                Progress(
                    "interrupted",
                    "interrupted: batch jobs at the gateway go on. Make the same call again to "
                    "pick them up, now or in another kernel "
                    f"(sidecar {self._run.sidecar.path}).",
                    requests=len(self._run._call.requests),
                )
            )
