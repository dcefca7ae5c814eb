"""`StoredRun`: the batch jobs of a sidecar, driven without the frame and the template.

Comes in: the path of a sidecar. Goes out: jobs that are over, with their answers stored. The
command line works through it; joining to rows needs the call that made the jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from nyu_llm_frames import _options
from nyu_llm_frames._clock import Clock
from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._jobs.planner import Counted, Planner, driven
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._progress import Progress, Reporter
from nyu_llm_frames._requests.bodies import BodyShape
from nyu_llm_frames._requests.planning import Standing, to_send
from nyu_llm_frames._sidecar.folder import new_name
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stored_answers import Key, Part, StoredAnswers
from nyu_llm_frames.errors import ConfigurationError


class StoredRun(StoredAnswers):
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
        super().__init__(path, run=run, clock=clock)
        self._given, self._retries = gateway, retries
        self.report = Reporter(_options.current().progress)
        self._runners: dict[Key, Runner] = {}

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
    def _active(self, *, also_over: bool = False) -> list[Key]:
        return [
            key
            for key, jobs in self._groups().items()
            if also_over or any(job.carries for job in jobs)
        ]

    def _runner(self, key: Key) -> Runner:
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

    def _surveyed(self, key: Key) -> Runner:
        """Return the runner of a group, which knows now what jobs have something left to do."""
        runner = self._runner(key)
        for _ in self._standings(key, runner):
            pass
        return runner

    def _standings(self, key: Key, runner: Runner) -> Iterator[tuple[Part, Standing]]:
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

    def _planner(self, runner: Runner, part: Part) -> Planner:
        ctx = replace(runner.ctx, sidecar=part.sidecar)
        planner = Planner(runner.name, part.requests, ctx, self._retries)
        planner.share_with(runner)
        return planner

    def _plan(self, key: Key, runner: Runner, *, again: bool = False) -> int:
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
            planner = self._planner(runner, Part(jobs, requests, self.sidecar))
            sent = planner.plan(again=again)
            planned.extend(planner.mine)
            return sent

        for part, standing in self._standings(key, runner):
            under_way += int(standing.carried.sum())
            chosen = to_send(standing, self._retries, again=again)
            found.append(part.requests.ids.filter(pa.array(chosen)))
            if sum(map(len, found)) >= self.requests_at_once:
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
