"""`StoredRun`: the batch jobs of a sidecar, driven without the frame and the template.

Comes in: the path of a sidecar. Goes out: records and frames, one row per distinct request. The
command line works through it; joining to rows needs the call that made the jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames import _options
from nyu_llm_frames._clock import Clock, SystemClock
from nyu_llm_frames._frames.columns import objects, status_column, text_column
from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._jobs.planner import Counted, Planner, driven
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._money.survey import answer_costs
from nyu_llm_frames._progress import Progress, Reporter
from nyu_llm_frames._requests import shards
from nyu_llm_frames._requests.bodies import BodyShape
from nyu_llm_frames._requests.planning import Standing, to_send
from nyu_llm_frames._sidecar.answer_store import Best, gather, positions_of_each
from nyu_llm_frames._sidecar.bands import WholeSidecar
from nyu_llm_frames._sidecar.folder import Sidecar, new_name
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames.errors import ConfigurationError, SidecarError

# What is looked at at once: a sidecar may hold more requests than fit into memory.
_REQUESTS_AT_ONCE = 200_000
# What was never sent, or never will be: only the call that wants it can plan it anew.
_NEVER_MADE = frozenset({"withdrawn", "rejected"})
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_Key: TypeAlias = tuple[str, str]  # realm and model
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


class _Part(NamedTuple):
    """Some distinct requests of a sidecar, and what they can see of it."""

    jobs: Sequence[Job]
    requests: StoredRequests
    sidecar: Sidecar


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
        self.sidecar = WholeSidecar(Path(path), self._clock, create=False)
        self._run, self._given, self._retries = run, gateway, retries
        self.report = Reporter(_options.current().progress)
        if run is not None and not any(job.run == run for job in self.sidecar.jobs().values()):
            known = sorted({job.run for job in self.sidecar.jobs().values()})
            raise SidecarError(
                f"{self.sidecar.path} has no batch jobs of a run {run!r}. Runs: "
                f"{', '.join(known) or 'none'}.",
                path=str(self.sidecar.path),
            )
        self._runners: dict[_Key, Runner] = {}

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
        return pd.concat(self.iter_answers(prompts=prompts), ignore_index=True)

    def iter_answers(self, *, prompts: bool = False) -> Iterator[pd.DataFrame]:
        """Yield the same in parts that fit into memory; one at least, which may be empty."""
        none = True
        for jobs in self._groups().values():
            for part in self._parts(jobs):
                yield self._answers(part, jobs, prompts)
                none = False
        if none:
            nothing = _Part([], StoredRequests(self.sidecar, []), self.sidecar)
            yield self._answers(nothing, [], prompts)

    def failures(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return the requests without a good answer; pending ones are no failures."""
        bad = [
            frame.loc[~frame["status"].isin(["ok", "pending"])]
            for frame in self.iter_answers(prompts=prompts)
        ]
        return pd.concat(bad, ignore_index=True)

    def counts(self) -> dict[str, int]:
        """Return the number of distinct requests per status."""
        return self.totals().counts

    def totals(self) -> Totals:
        """Return the number of distinct requests per status, and what their answers took."""
        counts: Counter[str] = Counter()
        usage = dict.fromkeys(_TOKENS, 0)
        cost: float | None = 0.0
        for (realm, model), jobs in self._groups().items():
            for part in self._parts(jobs):
                best = part.sidecar.best_answers(part.requests.ids)
                answers = gather(best, ["status", *_TOKENS])
                status, _ = self._status(part, jobs, best, answers)
                counts.update(status.tolist())
                for name in _TOKENS:
                    usage[name] += pc.sum(answers[name]).as_py() or 0
                costs, unpriced = answer_costs(best, realm, model)
                cost = None if cost is None or unpriced else cost + (pc.sum(costs).as_py() or 0.0)
        return Totals(dict(counts), usage, cost)

    def _parts(self, jobs: Sequence[Job]) -> Iterator[_Part]:
        """Yield the distinct requests of some jobs by first appearance, not too many at once."""
        sizes = np.array([job.requests for job in jobs], np.int64)
        ranges = shards.split(sizes, len(jobs), _REQUESTS_AT_ONCE)
        for start, stop in ranges:
            some = jobs[start:stop]
            whole = len(ranges) == 1
            sidecar = self.sidecar if whole else self.sidecar.band_of(job.name for job in some)
            seen = sidecar.jobs()
            before = [job for job in jobs[:start] if job.name in seen]
            yield _Part(some, StoredRequests(sidecar, some, before=before), sidecar)

    def _status(
        self, part: _Part, jobs: Sequence[Job], best: Best, answers: pa.Table
    ) -> tuple[np.ndarray[Any, np.dtype[np.object_]], list[str | None]]:
        ids = part.requests.ids
        status = objects(answers["status"])
        reasons: list[str | None] = [None] * len(ids)
        without = best.rank < 0
        if without.any():
            status[without] = "pending"
            carried = np.zeros(len(ids), dtype=np.bool_)
            seen = part.sidecar.jobs()
            theirs = ((job, self.sidecar.request_ids(job.name)) for job in jobs if job.name in seen)
            for job, at in positions_of_each(theirs, ids):
                mine = at[at >= 0]
                if job.carries:
                    carried[mine] = True
                    continue
                said = f": {job.error}" if job.error else ""
                for i in mine[without[mine]].tolist():
                    reasons[i] = f"batch job {job.batch_id} {job.outcome} without an answer{said}"
            lost = without & ~carried
            status[lost] = "missing"
            for i in np.flatnonzero(without & carried).tolist():
                reasons[i] = None
        return status, reasons

    def _answers(self, part: _Part, jobs: Sequence[Job], prompts: bool) -> pd.DataFrame:
        requests = part.requests
        best = part.sidecar.best_answers(requests.ids)
        answers = gather(best, _COLUMNS)
        status, reasons = self._status(part, jobs, best, answers)
        error = [r or e for r, e in zip(reasons, answers["error"].to_pylist(), strict=True)]
        out: dict[str, Any] = {
            "custom_id": text_column(requests.ids),
            "status": status_column(status.tolist()),
            "text": text_column(answers["text"]),
            "error": text_column(pa.array(error, pa.string())),
            "finish_reason": text_column(answers["finish_reason"]),
        }
        for name in _TOKENS:
            out[name] = pd.array(answers[name].to_pylist(), dtype="Int64")
        out["model"] = text_column(answers["model"])
        if prompts:
            every = np.arange(len(requests))
            kept = self._kept(part.jobs)
            bodies = requests.bodies(every) if kept else pa.nulls(len(every), pa.string())
            out["body"] = text_column(bodies)
        return pd.DataFrame(out)

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> None:
        """Advance every batch job by one step: upload, submit, ask or read. Never waits."""
        with _Closing(self.report):
            runners = [self._surveyed(key) for key in self._active()]
            for runner in runners:
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
            also_over = self._retries > 0
            runners = {key: self._surveyed(key) for key in self._active(also_over=also_over)}
            for key, runner in runners.items():
                while True:
                    runner.drive(deadline)
                    if not also_over or not self._kept(self._groups()[key]):
                        break
                    if not self._plan(key, runner):
                        break
            for runner in runners.values():
                runner.raise_failed()

    def retry(self) -> int:
        """Send failed, missing and damaged requests once more; return how many are under way."""
        with _Closing(self.report):
            under_way = 0
            for key in self._active(also_over=True):
                runner = self._runner(key)
                runner.forget_failures()
                under_way += self._plan(key, runner, again=True)
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
            for key in self._active():
                runner = self._runner(key)
                runner.mine = [job.name for job in self._groups()[key]]
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
    def _groups(self) -> dict[_Key, list[Job]]:
        """Sort the jobs by who answers; a runner sends to one realm and one model."""
        groups: dict[_Key, list[Job]] = {}
        for job in self.jobs():
            if job.step not in _NEVER_MADE:
                groups.setdefault((job.realm, job.model), []).append(job)
        return groups

    def _active(self, *, also_over: bool = False) -> list[_Key]:
        return [
            key
            for key, jobs in self._groups().items()
            if also_over or any(job.carries for job in jobs)
        ]

    def _kept(self, jobs: Sequence[Job]) -> bool:
        """Whether every job still has its prompts."""
        return all(self.sidecar.has_bodies(job.name) for job in jobs)

    def _runner(self, key: _Key) -> Runner:
        """Return a runner that drives the jobs of a group; what it sends is planned in parts."""
        if key not in self._runners:
            self._runners[key] = Runner(
                self._run or new_name(self._clock.now()),
                Counted(0, BodyShape(key[1], (), {})),
                self.sidecar,
                self._gateway_of(self._groups()[key]),
                _options.current(),
                self._clock,
                self.report,
                self._retries,
            )
        return self._runners[key]

    def _surveyed(self, key: _Key) -> Runner:
        """Return the runner of a group, which knows now what jobs have something left to do."""
        runner = self._runner(key)
        for _ in self._standings(key, runner):
            pass
        return runner

    def _standings(self, key: _Key, runner: Runner) -> Iterator[tuple[_Part, Standing]]:
        """Yield where the requests of each part stand; at the end the runner knows its jobs."""
        jobs = self._groups()[key]
        # What the gateway has is seen to its end, also where its answers came another way. What it
        # does not have yet is made only if somebody lacks its answers.
        mine = {job.name: None for job in jobs if job.carries and job.batch_id}
        count = 0
        for part in self._parts(jobs):
            planner = self._planner(runner, part)
            yield part, planner.standing()
            mine.update(dict.fromkeys(planner.mine))
            count += len(part.requests)
        runner.mine = list(mine)
        runner.ctx.requests = count
        runner.requests = Counted(count, runner.requests.shape)

    def _planner(self, runner: Runner, part: _Part) -> Planner:
        ctx = replace(runner.ctx, sidecar=part.sidecar)
        planner = Planner(runner.name, part.requests, ctx, self._retries)
        planner.share_with(runner)
        return planner

    def _plan(self, key: _Key, runner: Runner, *, again: bool = False) -> int:
        """Plan what has to be sent; return how many requests are under way.

        Looked for in parts, and sent together: few large jobs beat many small ones.
        """
        driven.add(runner)
        jobs = self._groups()[key]
        found: list[pa.Array] = []
        planned: list[str] = []
        under_way = 0

        def send() -> int:
            requests = StoredRequests(self.sidecar, jobs, among=pa.concat_arrays(found))
            found.clear()
            planner = self._planner(runner, _Part(jobs, requests, self.sidecar))
            sent = planner.plan(again=again)
            planned.extend(planner.mine)
            return sent

        for part, standing in self._standings(key, runner):
            under_way += int(standing.carried.sum())
            chosen = to_send(standing, self._retries, again=again)
            found.append(part.requests.ids.filter(pa.array(chosen)))
            if sum(map(len, found)) >= _REQUESTS_AT_ONCE:
                under_way += send()
        if any(map(len, found)):
            under_way += send()
        runner.mine = list(dict.fromkeys([*runner.mine, *planned]))
        if not under_way:
            driven.discard(runner)
        return under_way

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
