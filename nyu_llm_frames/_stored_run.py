"""`StoredRun`: the batch jobs of a sidecar, driven without the frame and the template.

Comes in: the path of a sidecar. Goes out: records and frames, one row per distinct request. The
command line works through it; joining to rows needs the call that made the jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames import _options
from nyu_llm_frames._clock import Clock, SystemClock
from nyu_llm_frames._frames.columns import status_column, text_column
from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._money.survey import answer_costs
from nyu_llm_frames._progress import Progress, Reporter
from nyu_llm_frames._sidecar.answer_store import Best, gather, positions
from nyu_llm_frames._sidecar.folder import Sidecar, new_name
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames.errors import ConfigurationError, SidecarError

# What was never sent, or never will be: only the call that wants it can plan it anew.
_NEVER_MADE = frozenset({"withdrawn", "rejected"})
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_COLUMNS = ["status", "text", "error", "finish_reason", *_TOKENS, "model"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What the requests of a sidecar amount to.

    Attributes
    ----------
    counts : dict of str to int
        Distinct requests per status.
    usage : dict of str to int
        Tokens of their answers, each request counted once.
    cost : float or None
        US dollars by that usage; None where a price is not known.
    """

    counts: dict[str, int]
    usage: dict[str, int]
    cost: float | None


class StoredRun:
    """The batch jobs of a sidecar, or of one of its runs.

    Parameters
    ----------
    path : str or Path
        The sidecar.
    run : str, optional
        Name of one run; all jobs otherwise.
    gateway : Gateway or "local", optional
        By default the one that the jobs were submitted through, with the environment's key.
    retries : int, default 1
        Attempts per request beyond the first.
    clock : Clock, optional

    Raises
    ------
    SidecarError
        When the folder is no sidecar, or has no such run.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        run: str | None = None,
        gateway: Gateway | str | None = None,
        retries: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.sidecar = Sidecar(Path(path), self._clock, create=False)
        self._run, self._given, self._retries = run, gateway, retries
        self.report = Reporter(_options.current().progress)
        if run is not None and not any(job.run == run for job in self.sidecar.jobs().values()):
            known = sorted({job.run for job in self.sidecar.jobs().values()})
            raise SidecarError(
                f"{self.sidecar.path} has no batch jobs of a run {run!r}. Runs: "
                f"{', '.join(known) or 'none'}.",
                path=str(self.sidecar.path),
            )
        self._runners: dict[tuple[str, str], Runner] = {}

    # --- what there is ----------------------------------------------------------------------
    def jobs(self) -> list[Job]:
        """Return the batch jobs, the oldest first."""
        every = self.sidecar.jobs().values()
        return [job for job in every if self._run is None or job.run == self._run]

    @property
    def pending(self) -> int:
        """Number of batch jobs that are not over."""
        return sum(job.carries for job in self.jobs())

    def answers(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return one row per distinct request: its best answer, or why there is none.

        Parameters
        ----------
        prompts : bool, default False
            Whether to add the request's body, as JSON; NA where prompts are not kept.
        """
        frames = [
            self._answers(StoredRequests(self.sidecar, jobs), jobs, prompts)
            for jobs in self._groups().values()
        ]
        if frames:
            return pd.concat(frames, ignore_index=True)
        empty = StoredRequests(self.sidecar, [])
        return self._answers(empty, [], prompts)

    def failures(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return the requests without a good answer; pending ones are no failures."""
        frame = self.answers(prompts=prompts)
        bad = ~frame["status"].isin(["ok", "pending"])
        return frame.loc[bad].reset_index(drop=True)

    def counts(self) -> dict[str, int]:
        """Return the number of distinct requests per status."""
        return self.totals().counts

    def totals(self) -> Totals:
        """Return the number of distinct requests per status, and what their answers took."""
        counts: Counter[str] = Counter()
        usage = dict.fromkeys(_TOKENS, 0)
        cost: float | None = 0.0
        for (realm, model), jobs in self._groups().items():
            requests = StoredRequests(self.sidecar, jobs)
            best = self.sidecar.best_answers(requests.ids)
            status, answers, _ = self._status(requests, jobs, best)
            counts.update(status.tolist())
            for name in _TOKENS:
                usage[name] += pc.sum(answers[name]).as_py() or 0
            costs, unpriced = answer_costs(best, realm, model)
            cost = None if cost is None or unpriced else cost + (pc.sum(costs).as_py() or 0.0)
        return Totals(dict(counts), usage, cost)

    def _status(
        self, requests: StoredRequests, jobs: Sequence[Job], best: Best
    ) -> tuple[np.ndarray[Any, np.dtype[np.object_]], pa.Table, list[str | None]]:
        answers = gather(best, _COLUMNS)
        status = np.array(answers["status"].to_pylist(), dtype=object)
        reasons: list[str | None] = [None] * len(requests)
        without = best.rank < 0
        if without.any():
            status[without] = "pending"
            carried = np.zeros(len(requests), dtype=np.bool_)
            for job in jobs:
                at = positions(self.sidecar.request_ids(job.name), requests.ids)
                if job.carries:
                    carried[at] = True
                    continue
                said = f": {job.error}" if job.error else ""
                for i in at[without[at]].tolist():
                    reasons[i] = f"batch job {job.batch_id} {job.outcome} without an answer{said}"
            lost = without & ~carried
            status[lost] = "missing"
            for i in np.flatnonzero(without & carried).tolist():
                reasons[i] = None
        return status, answers, reasons

    def _answers(
        self, requests: StoredRequests, jobs: Sequence[Job], prompts: bool
    ) -> pd.DataFrame:
        best = self.sidecar.best_answers(requests.ids)
        status, answers, reasons = self._status(requests, jobs, best)
        error = [r or e for r, e in zip(reasons, answers["error"].to_pylist(), strict=True)]
        out: dict[str, Any] = {
            "custom_id": text_column(requests.ids),
            "status": status_column(status.tolist()),
            "text": text_column(answers["text"].combine_chunks()),
            "error": text_column(pa.array(error, pa.string())),
            "finish_reason": text_column(answers["finish_reason"].combine_chunks()),
        }
        for name in _TOKENS:
            out[name] = pd.array(answers[name].to_pylist(), dtype="Int64")
        out["model"] = text_column(answers["model"].combine_chunks())
        if prompts:
            every = np.arange(len(requests))
            bodies = requests.bodies(every) if requests.kept else pa.nulls(len(every), pa.string())
            out["body"] = text_column(bodies)
        return pd.DataFrame(out)

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> None:
        """Advance every batch job by one step: upload, submit, ask or read. Never waits."""
        with _Closing(self.report):
            runners = self._active()
            for runner in runners:
                runner.standing()
                for _ in range(3):
                    if not runner.advance():
                        break
                self._tell_trouble(runner)
            for runner in runners:
                if not runner.active():
                    runner.raise_failed()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every batch job is over; send again what another attempt may cure.

        Parameters
        ----------
        timeout : float, optional
            Seconds; `RunTimeoutError` after that, and the jobs go on.
        """
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        with _Closing(self.report):
            runners = self._active(also_over=self._retries > 0)
            for runner in runners:
                runner.standing()
            for runner in runners:
                while True:
                    runner.drive(deadline)
                    if not self._can_plan(runner) or not runner.plan():
                        break
            for runner in runners:
                runner.raise_failed()

    def retry(self) -> int:
        """Send failed, missing and damaged requests once more; return how many are under way."""
        with _Closing(self.report):
            under_way = 0
            for runner in self._active(also_over=True):
                under_way += runner.plan(again=True)
                runner.advance()
                runner.advance()
                self._tell_trouble(runner)
            return under_way

    def _tell_trouble(self, runner: Runner) -> None:
        """Say what kept a single step from going on; a run that waits says so by itself."""
        if runner.trouble is not None:
            self.report(
                Progress("note", f"trouble: {runner.trouble} Nothing is lost: try again later.")
            )

    def cancel(self) -> list[str]:
        """Cancel the batch jobs that are not over; what they finish before is kept."""
        with _Closing(self.report):
            out = []
            for runner in self._active():
                runner.standing()
                out += runner.cancel()
            return out

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> None:
        """Settle a submit of which nobody knows whether it made a job."""
        if (adopt is None) == (not resubmit):
            raise ConfigurationError(
                "Give either the id of the batch job, or say that none exists."
            )
        with _Closing(self.report):
            uncertain = [job for job in self.jobs() if job.step == "creating"]
            if not uncertain:
                raise ConfigurationError(f"No submit of {self.sidecar.path} is uncertain.")
            self._runner((uncertain[0].realm, uncertain[0].model)).resolve(adopt, resubmit)

    # --- the runners ------------------------------------------------------------------------
    def _groups(self) -> dict[tuple[str, str], list[Job]]:
        """Sort the jobs by who answers; a runner sends to one realm and one model."""
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs():
            if job.step not in _NEVER_MADE:
                groups.setdefault((job.realm, job.model), []).append(job)
        return groups

    def _active(self, *, also_over: bool = False) -> list[Runner]:
        return [
            self._runner(key)
            for key, jobs in self._groups().items()
            if also_over or any(job.carries for job in jobs)
        ]

    def _can_plan(self, runner: Runner) -> bool:
        requests = runner.requests
        return self._retries > 0 and isinstance(requests, StoredRequests) and requests.kept

    def _runner(self, key: tuple[str, str]) -> Runner:
        if key not in self._runners:
            jobs = self._groups()[key]
            self._runners[key] = Runner(
                self._run or new_name(self._clock.now()),
                StoredRequests(self.sidecar, jobs),
                self.sidecar,
                self._gateway_of(jobs),
                _options.current(),
                self._clock,
                self.report,
                self._retries,
            )
        return self._runners[key]

    def _gateway_of(self, jobs: Sequence[Job]) -> Gateway:
        """Choose the gateway by the jobs' realm, and refuse one that cannot know them.

        The address never comes from the sidecar: one that a stranger shared could name a server
        of his own, and the key would go there.
        """
        realm = jobs[0].realm
        told = next((job.gateway for job in reversed(jobs) if job.gateway), "")
        chosen = self._given if self._given is not None else _options.current().gateway
        if chosen is not None:
            gateway = _gateway.resolve(chosen)
        elif realm.startswith(("local:", "upstream:")):
            gateway = _local(realm, told)
        else:
            gateway = Gateway(provider=realm)
        if gateway.realm != realm or (told and gateway.identity != told):
            raise ConfigurationError(
                f"The batch jobs of {self.sidecar.path} were submitted through {told or realm} "
                f"with provider {realm}; this call would use {gateway.identity} with provider "
                f"{gateway.realm}, which does not know them. Set PORTKEY_BASE_URL and "
                "PORTKEY_PROVIDER, or name the gateway."
            )
        return gateway


def _local(realm: str, told: str) -> Gateway:
    options: dict[str, Any] = {}
    data = told.removeprefix("local:")
    if data:
        options["data"] = Path(data)
    if realm.startswith("upstream:"):
        options["upstream"] = realm.removeprefix("upstream:")
    elif realm == "local:echo":
        options["answers"] = "echo"
    return Gateway.local(**options)


class _Closing:
    """Ends the moving line of a report, however a step ends."""

    def __init__(self, report: Reporter) -> None:
        self._report = report

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        self._report.close()
