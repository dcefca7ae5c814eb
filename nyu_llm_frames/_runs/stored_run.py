"""`StoredRun`: the batch jobs of a sidecar, driven without the frame and the template.

Comes in: the path of a sidecar. Goes out: jobs that are over, with their answers stored. The
command line works through it; joining to rows needs the call that made the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.provider import given_provider, with_provider
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.execution import Execution
from nyu_llm_frames._runs.stored_answers import Key, StoredAnswers, StoredPart
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._sidecar.folder import new_name
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.cost.estimate import Estimate, check_budget, check_max_cost, total
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    ConfigurationError,
    GatewayError,
    LLMFramesError,
)


class StoredExecution(Execution[StoredPart]):
    """The jobs of a sidecar that one realm and one model answer."""

    def __init__(self, stored: StoredRun, key: Key) -> None:
        self._stored, self._key = stored, key
        ctx = Context(
            stored.sidecar,
            stored.gateway_of(self.find_jobs()),
            _options.current(),
            stored.clock,
            stored.report,
            requests=0,
        )
        super().__init__(
            stored.run or new_name(stored.clock),
            ctx,
            retries=stored.retries,
            max_cost=stored.max_cost,
            carried=lambda: stored,
        )
        # Only `retry` sends canceled requests again.
        self.tracker.stopped.update(job.name for job in self.find_jobs() if job.cancel_requested)

    def find_jobs(self) -> list[Job]:
        return self._stored.groups()[self._key]

    def parts(self) -> Iterator[StoredPart]:
        jobs, known = self.find_jobs(), self.tracker.jobs
        # Jobs at the gateway are followed to their end, even if their answers came another way.
        # Jobs that it does not have yet are made only if their answers are missing.
        known.clear()
        known.update((job.name, None) for job in jobs if job.carries and job.batch_id)
        self.ctx.requests = 0
        for part in self._stored.parts(jobs):
            self.ctx.requests += len(part.requests)
            yield part
            del part

    def estimate(self, *, again: bool | None = False) -> list[Estimate]:
        return super().estimate(again=again if self._keeps_prompts() else None)

    def plan_parts(self, *, again: bool = False) -> int:
        """Search in parts, and send together: few large jobs beat many small ones."""
        jobs, sidecar = self.find_jobs(), self._stored.sidecar
        found: list[pa.Array] = []

        def look(part: StoredPart, planner: Planner) -> int:
            states = planner.states()
            found.append(part.requests.ids.filter(pa.array(planner.wanted(states, again=again))))
            return int(states.carried.sum())

        def send() -> int:
            requests = StoredRequests(sidecar, jobs, among=pa.concat_arrays(found))
            found.clear()
            return self.planner(StoredPart(jobs, requests, sidecar)).plan(again=again)

        under_way = 0
        for carried in self.of_each(look):
            under_way += carried
            if sum(map(len, found)) >= self._stored.requests_at_once:
                under_way += send()
        if any(map(len, found)):
            under_way += send()
        return under_way

    def plan_more(self) -> int:
        return super().plan_more() if self._retries > 0 and self._keeps_prompts() else 0

    def lost_its_plan(self) -> bool:
        return False  # all jobs that a sidecar alone knows were made

    def _keeps_prompts(self) -> bool:
        return self._stored.keeps_prompts(self.find_jobs())


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
        Why the last step without waiting got no further: the gateway was not reached. Else "".

    Raises
    ------
    SidecarError
        When the folder is not a sidecar, or has no such run.
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
        self._given, self.retries = gateway, retries
        self.max_cost = check_max_cost(max_cost, _options.current().max_cost)
        self.report = Reporter(_options.current().progress)
        self._executions: dict[Key, StoredExecution] = {}
        self.trouble = ""

    def __reduce__(self) -> Any:
        again = partial(
            StoredRun, self.sidecar.path, run=self.run, gateway=self._given,
            retries=self.retries, max_cost=self.max_cost,
        )  # fmt: skip
        return again, ()

    # --- driving ----------------------------------------------------------------------------
    def poll(self) -> None:
        """Advance every batch job by one step: upload, submit, poll or read. Never waits."""
        every = self._active()
        self._check_budget(every, again=None)
        self.trouble = ""

        def step(execution: StoredExecution) -> None:
            execution.poll(at_once=True)
            self.trouble = execution.trouble or self.trouble

        _for_each(every, step)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every batch job is over; send again what another attempt may fix.

        Parameters
        ----------
        timeout : float, optional
            Seconds; `RunTimeoutError` after that, and the jobs continue.
        """
        deadline = None if timeout is None else self.clock.monotonic() + timeout
        every = self._active(also_over=self.retries > 0)
        self._check_budget(every, again=False)

        def until_over(execution: StoredExecution) -> None:
            left = None if deadline is None else max(0.0, deadline - self.clock.monotonic())
            execution.wait(left)

        _for_each(every, until_over)

    def retry(self) -> int:
        """Send again what another attempt may fix; return how many are under way."""
        every = self._active(also_over=True)
        for execution in every:
            execution.tracker.forget_failures()
        self._check_budget(every, again=True)
        under_way = 0
        for execution in every:
            under_way += execution.retry()
            self.trouble = execution.trouble
        return under_way

    def cancel(self) -> list[str]:
        """Cancel the batch jobs that are not over; answers finished before that are kept."""
        return [batch_id for execution in self._active() for batch_id in execution.cancel()]

    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> None:
        """Settle an uncertain submission: it may or may not have created a job."""
        uncertain = [job for job in self.jobs() if job.step == "creating"]
        if not uncertain:
            raise ConfigurationError(f"No submission of {self.sidecar.path} is uncertain.")
        self._execution((uncertain[0].realm, uncertain[0].model)).resolve(adopt, resubmit)

    def _check_budget(self, every: Sequence[StoredExecution], *, again: bool | None) -> None:
        """Refuse to send what may cost more than the limit."""
        if self.max_cost is not None and every:
            parts = [part for execution in every for part in execution.estimate(again=again)]
            check_budget(total(parts), self.max_cost)

    def _active(self, *, also_over: bool = False) -> list[StoredExecution]:
        """Return the execution of each group of jobs."""
        return [
            self._execution(key)
            for key, jobs in self.groups().items()
            if also_over or any(job.carries for job in jobs)
        ]

    def _execution(self, key: Key) -> StoredExecution:
        if key not in self._executions:
            self._executions[key] = StoredExecution(self, key)
        return self._executions[key]

    def gateway_of(self, jobs: Sequence[Job]) -> Gateway:
        """Choose the gateway by the jobs' realm, and refuse one that cannot know them.

        The address never comes from the sidecar: one from an unknown source could name its own
        server, and the key would go there.
        """
        realm = jobs[0].realm
        submitted = next((job.gateway for job in reversed(jobs) if job.gateway), "")
        if self._given is not None or _options.current().gateway is not None:
            gateway = _gateway.resolve(self._given)
            elsewhere = gateway.is_local or realm.startswith(("local:", "upstream:"))
            if given_provider(gateway) is None and not elsewhere:
                gateway = with_provider(gateway, realm)
        elif realm.startswith(("local:", "upstream:")):
            gateway = _local(realm, submitted)
        else:
            gateway = Gateway(provider=realm)
        if gateway.realm != realm or (submitted and gateway.identity != submitted):
            raise ConfigurationError(
                f"The batch jobs of {self.sidecar.path} were submitted through "
                f"{submitted or realm} with provider {realm}; this call would use "
                f"{gateway.identity} with provider {gateway.realm}, which does not know them. Set "
                "PORTKEY_BASE_URL and PORTKEY_PROVIDER, or name the gateway."
            )
        return gateway


def _for_each(
    executions: Sequence[StoredExecution], step: Callable[[StoredExecution], None]
) -> None:
    """Drive every group; an error in one does not stop the others."""
    wrong: LLMFramesError | None = None
    for execution in executions:
        try:
            step(execution)
        except AuthenticationError:
            raise
        except (GatewayError, BatchJobFailedError) as e:
            wrong = wrong or e
    if wrong is not None:
        raise wrong


def _local(realm: str, identity: str) -> Gateway:
    options: dict[str, Any] = {}
    data = identity.removeprefix("local:")
    if data:
        options["data"] = Path(data)
    if realm.startswith("upstream:"):
        options["upstream"] = realm.removeprefix("upstream:")
    elif realm == "local:echo":
        options["answers"] = "echo"
    return Gateway.local(**options)
