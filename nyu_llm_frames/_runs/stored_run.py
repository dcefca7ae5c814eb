"""`StoredRun`: the batch jobs of a sidecar, driven without the frame and the template.

Comes in: the path of a sidecar. Goes out: jobs that are over, with their answers stored. The
command line works through it; joining to rows needs the call that made the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.provider import given_provider, of_provider
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.driver import Driver
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._jobs.tracker import JobTracker
from nyu_llm_frames._runs.budget import check_budget, check_max_cost
from nyu_llm_frames._runs.estimating import estimate_bodies
from nyu_llm_frames._runs.stored_answers import Key, Part, StoredAnswers
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import Reporter
from nyu_llm_frames._sidecar.answer_store import positions
from nyu_llm_frames._sidecar.folder import new_name
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.batches.job import UNPAID, Job
from nyu_llm_frames._stages.batches.planning import RequestStates, to_reread, to_send
from nyu_llm_frames._stages.cost.total import total
from nyu_llm_frames.errors import (
    AuthenticationError,
    ConfigurationError,
    GatewayError,
    UncertainSubmissionError,
)


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
    max_cost : float, optional
        US dollars that one call of a method may cost at most; by default the option of that name.
    clock : Clock, optional

    Attributes
    ----------
    trouble : str
        What kept the last step without waiting from going on: the gateway was not reached. Else "".

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
        max_cost: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(path, run=run, clock=clock)
        self._given, self._retries = gateway, retries
        self._max_cost = check_max_cost(max_cost, _options.current().max_cost)
        self.report = Reporter(_options.current().progress)
        self._drivers: dict[Key, Driver] = {}
        self.trouble = ""

    def __reduce__(self) -> Any:
        again = partial(
            StoredRun, self.sidecar.path, run=self._run, gateway=self._given,
            retries=self._retries, max_cost=self._max_cost,
        )  # fmt: skip
        return again, ()

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> None:
        """Advance every batch job by one step: upload, submit, ask or read. Never waits."""
        self._check_budget(self._active(), again=None)
        drivers = {key: self._surveyed(key) for key in self._active()}
        self.trouble = ""

        def step(key: Key, driver: Driver) -> None:
            with driver.driving():
                driver.step()
            self.trouble = str(driver.trouble or self.trouble)

        self._for_each(drivers, step)
        for driver in drivers.values():
            driver.raise_failed(at_once=True)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every batch job is over; send again what another attempt may cure.

        Parameters
        ----------
        timeout : float, optional
            Seconds; `RunTimeoutError` after that, and the jobs go on.
        """
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        also_over = self._retries > 0
        self._check_budget(self._active(also_over=also_over), again=False)
        drivers = {key: self._surveyed(key) for key in self._active(also_over=also_over)}

        def until_over(key: Key, driver: Driver) -> None:
            left = None if deadline is None else max(0.0, deadline - self._clock.monotonic())
            with driver.driving(left):
                driver.until_over(partial(self._plan_retries, key))

        self._for_each(drivers, until_over)
        for driver in drivers.values():
            driver.raise_failed()

    def _for_each(self, drivers: dict[Key, Driver], step: Callable[[Key, Driver], None]) -> None:
        """Drive every group; what the gateway refuses in one does not keep the others."""
        refused: GatewayError | None = None
        for key, driver in drivers.items():
            try:
                step(key, driver)
            except (AuthenticationError, UncertainSubmissionError):
                raise
            except GatewayError as e:
                refused = refused or e
        if refused is not None:
            raise refused

    def _plan_retries(self, key: Key) -> int:
        if self._retries > 0 and self._kept(self._groups()[key]):
            self._check_budget([key], again=False, more=True)
            return self._plan(key)
        return 0

    def retry(self) -> int:
        """Send what another attempt may cure once more; return how many are under way."""
        under_way = 0
        self._check_budget(self._active(also_over=True), again=True)
        for key in self._active(also_over=True):
            driver = self._driver(key)
            with driver.driving():
                driver.tracker.forget_failures()
                under_way += self._plan(key, again=True)
                driver.start()
            self.trouble = str(driver.trouble or "")
        return under_way

    def _check_budget(self, keys: Sequence[Key], *, again: bool | None, more: bool = False) -> None:
        """Refuse to send what may cost more than it may; `again` is None where none is retried."""
        if self._max_cost is None:
            return
        parts = []
        for key in keys:
            driver, jobs = self._driver(key), self._groups()[key]
            retried = again is not None and self._kept(jobs)  # without prompts nothing can be
            for part, states in self._standings(key, driver):
                sending = np.zeros(len(part.requests), np.bool_)
                if retried:
                    sending |= to_send(states, self._retries, again=bool(again))
                for job in jobs:
                    if job.step in UNPAID:
                        at = positions(self.sidecar.request_ids(job.name), part.requests.ids)
                        sending[at[at >= 0]] = True
                sending &= ~states.final
                chosen = np.flatnonzero(sending)
                tried = states.attempts[chosen]
                left = np.maximum(1 + (0 if again else self._retries) - tried, 1)
                bodies = part.requests.bodies(chosen).to_pylist()
                found = estimate_bodies(bodies, left.tolist(), *key, self._clock.now())
                parts.append(found)
        if parts:
            check_budget(total(parts), self._max_cost, more=more)

    def cancel(self) -> list[str]:
        """Cancel the batch jobs that are not over; what they finish before is kept."""
        out = []
        for key in self._active():
            driver = self._driver(key)
            driver.tracker.jobs.update((job.name, None) for job in self._groups()[key])
            with driver.driving():
                out += driver.cancel()
        return out

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> None:
        """Settle a submit of which nobody knows whether it made a job."""
        if (adopt is None) == (not resubmit):
            raise ConfigurationError(
                "Give either the id of the batch job, or say that none exists."
            )
        uncertain = [job for job in self.jobs() if job.step == "creating"]
        if not uncertain:
            raise ConfigurationError(f"No submit of {self.sidecar.path} is uncertain.")
        driver = self._driver((uncertain[0].realm, uncertain[0].model))
        with driver.driving():
            driver.resolve(adopt, resubmit)

    # --- the runners ------------------------------------------------------------------------
    def _active(self, *, also_over: bool = False) -> list[Key]:
        return [
            key
            for key, jobs in self._groups().items()
            if also_over or any(job.carries for job in jobs)
        ]

    def _driver(self, key: Key) -> Driver:
        """Return a runner that drives the jobs of a group; what it sends is planned in parts."""
        if key not in self._drivers:
            gateway = self._gateway_of(self._groups()[key])
            options = _options.current()
            ctx = Context(self.sidecar, gateway, options, self._clock, self.report, requests=0)
            name = self._run or new_name(self._clock)
            # What the user stopped is sent again by `retry` alone.
            stopped = {job.name for job in self._groups()[key] if job.cancel_requested}
            self._drivers[key] = Driver(name, ctx, JobTracker(stopped=stopped))
        return self._drivers[key]

    def _surveyed(self, key: Key) -> Driver:
        """Return the runner of a group, which knows now what jobs have something left to do."""
        driver = self._driver(key)
        for _ in self._standings(key, driver):
            pass
        return driver

    def _standings(self, key: Key, driver: Driver) -> Iterator[tuple[Part, RequestStates]]:
        """Yield where the requests of each part stand; at the end the runner knows its jobs."""
        jobs = self._groups()[key]
        # What the gateway has is seen to its end, also where its answers came another way. What it
        # does not have yet is made only if somebody lacks its answers.
        tracker = driver.tracker.jobs
        tracker.clear()
        tracker.update((job.name, None) for job in jobs if job.carries and job.batch_id)
        driver.ctx.requests = 0
        for part in self._parts(jobs):
            driver.ctx.requests += len(part.requests)
            yield part, self._planner(driver, part).states()

    def _planner(self, driver: Driver, part: Part) -> Planner:
        ctx = replace(driver.ctx, sidecar=part.sidecar)
        return Planner(driver.name, part.requests, ctx, self._retries, driver.tracker)

    def _plan(self, key: Key, *, again: bool = False) -> int:
        """Plan what has to be sent; return how many requests are under way.

        Looked for in parts, and sent together: few large jobs beat many small ones.
        """
        driver, jobs = self._driver(key), self._groups()[key]
        found: list[pa.Array] = []
        under_way = 0

        def send() -> int:
            requests = StoredRequests(self.sidecar, jobs, among=pa.concat_arrays(found))
            found.clear()
            return self._planner(driver, Part(jobs, requests, self.sidecar)).plan(again=again)

        for part, states in self._standings(key, driver):
            under_way += int(states.carried.sum())
            chosen = to_send(states, self._retries, again=again)
            chosen |= to_reread(states, self._retries)
            found.append(part.requests.ids.filter(pa.array(chosen)))
            if sum(map(len, found)) >= self.requests_at_once:
                under_way += send()
        if any(map(len, found)):
            under_way += send()
        return under_way

    def _gateway_of(self, jobs: Sequence[Job]) -> Gateway:
        """Choose the gateway by the jobs' realm, and refuse one that cannot know them.

        The address never comes from the sidecar: one that a stranger shared could name a server
        of his own, and the key would go there.
        """
        realm = jobs[0].realm
        told = next((job.gateway for job in reversed(jobs) if job.gateway), "")
        if self._given is not None or _options.current().gateway is not None:
            gateway = _gateway.resolve(self._given)
            elsewhere = gateway.is_local or realm.startswith(("local:", "upstream:"))
            if given_provider(gateway) is None and not elsewhere:
                gateway = of_provider(gateway, realm)
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
