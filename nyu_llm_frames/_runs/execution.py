"""One run over requests in parts: estimated, planned within the limit, driven to its end.

Comes in: parts of requests, each loaded when needed, and what all steps share. Goes out: batch jobs
that are over, with their answers stored. A frame is one part, a file or a sidecar alone has many;
nothing here depends on which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.driver import Driver
from nyu_llm_frames._jobs.planner import Planner, RequestSet
from nyu_llm_frames._jobs.tracker import JobTracker
from nyu_llm_frames._runs.estimating import estimate_requests
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.planning import Mask, unknown_states
from nyu_llm_frames._stages.cost.estimate import Estimate, check_budget, total
from nyu_llm_frames.errors import ConfigurationError, ResumableRun

T = TypeVar("T")


class Part(Protocol):
    """Some distinct requests of a run, and the part of the sidecar that concerns them."""

    planner: Planner | None

    @property
    def requests(self) -> RequestSet: ...
    @property
    def sidecar(self) -> Sidecar | None: ...
    @property
    def rows(self) -> int: ...
    @property
    def template(self) -> str | None: ...


P = TypeVar("P", bound=Part)


class Execution(ABC, Generic[P]):
    """One run of requests in parts; `carried` returns the run that an error carries."""

    def __init__(
        self,
        name: str,
        ctx: Context,
        *,
        retries: int,
        max_cost: float | None = None,
        carried: Callable[[], ResumableRun | None] = lambda: None,
    ) -> None:
        self.name, self.ctx = name, ctx
        self._retries, self._max_cost = retries, max_cost
        self.tracker = JobTracker()
        self._driver = Driver(name, ctx, self.tracker, carried)

    @abstractmethod
    def parts(self) -> Iterator[P]:
        """Load one part after the other, each time again; none is kept here."""

    @abstractmethod
    def find_jobs(self) -> list[Job]:
        """Return the run's jobs, even when all its answers exist."""

    @property
    def trouble(self) -> str:
        """What blocked the last step: the gateway was not reached. Else ""."""
        return str(self._driver.trouble or "")

    @property
    def changed(self) -> bool:
        """Whether any batch job advanced since the run was opened."""
        return self._driver.changed

    def planner(self, part: P) -> Planner:
        """Return the planner for the requests of a part."""
        if part.planner is None:
            ctx = replace(self.ctx, sidecar=part.sidecar or self.ctx.sidecar)
            part.planner = Planner(self.name, part.requests, ctx, self._retries, self.tracker)
        return part.planner

    def of_each(self, look: Callable[[P, Planner], T]) -> Iterator[T]:
        """Apply `look` to each part in turn; none stays in memory while the next is loaded."""
        for part in self.parts():
            found = look(part, self.planner(part))
            del part
            yield found

    # --- what it costs ----------------------------------------------------------------------
    def estimate(self, *, again: bool | None = False) -> list[Estimate]:
        """Estimate what the next upload would cost, by the sidecar as it is now.

        The first estimate is for the run's own requests. The others are for requests sent with
        them: a job that was planned but not made yet is made whole by any run that needs one of its
        answers. While its own run may be alive, its other requests cannot be removed.
        """
        at, retries = self.ctx.clock.now(), 0 if again else self._retries
        shared: dict[str, Mask] = {}

        def look(part: P, planner: Planner) -> Estimate:
            for job, where in planner.unpaid():
                own = where >= 0
                shared[job.name] = own | shared.get(job.name, np.zeros_like(own))
            return estimate_requests(
                part.requests,
                planner.states(),
                planner.ctx.sidecar,
                realm=self.ctx.realm,
                template=part.template,
                rows=part.rows,
                retries=retries,
                again=again,
                at=at,
            )

        own = total(list(self.of_each(look)))
        return [
            own,
            *(
                self._estimate_shared(name, at, ours)
                for name, ours in shared.items()
                if not ours.all()
            ),
        ]

    def _estimate_shared(self, name: str, at: datetime, ours: Mask) -> Estimate:
        """Estimate those requests of a job that are not of this run."""
        sidecar = self.ctx.sidecar
        job, others = sidecar.job(name), sidecar.request_ids(name).filter(pa.array(~ours))
        stored = StoredRequests(sidecar, [job], among=others)
        return estimate_requests(stored, unknown_states(len(stored)), None, realm=job.realm, at=at)

    # --- planning ---------------------------------------------------------------------------
    def plan(self, *, again: bool = False) -> int:
        """Plan the run; with `again`, also requests with no attempts left and canceled ones.

        Return how many requests are under way.
        """
        if again:
            self.tracker.forget_failures()
        return self.plan_parts(again=again)

    def plan_parts(self, *, again: bool = False) -> int:
        """Record what has to be sent; return how many requests are under way."""
        return sum(self.of_each(lambda _, planner: planner.plan(again=again)))

    def plan_more(self) -> int:
        """Plan what another attempt may fix, within the cost limit like everything that is sent."""
        if self._max_cost is not None:
            check_budget(total(self.estimate()), self._max_cost, more=True)
        return self.plan_parts()

    def read_states(self) -> None:
        """Read the state of every request, and so which jobs concern the run."""
        for _ in self.of_each(lambda _, planner: planner.states()):
            pass

    def lost_its_plan(self) -> bool:
        """Whether other processes removed planned requests, which no job carries now."""
        return any(self.of_each(lambda _, planner: planner.lost_its_plan()))

    # --- driving ----------------------------------------------------------------------------
    def start(self) -> None:
        """Plan, upload and submit, without a poll."""
        with self._driver.driving() as driver:
            if self.plan():
                driver.start()

    def answer(self, wait: bool, timeout: float | None) -> None:
        """Plan, and wait until all is over or take one step."""
        with self._driver.driving(timeout) as driver:
            if not self.plan():
                return
            if wait:
                driver.until_over(self.plan_more)
            else:
                driver.step()
            driver.raise_failed(at_once=not wait)

    def poll(self, *, at_once: bool = False) -> None:
        """Advance every batch job by one step; report failed ones `at_once`, or at the end."""
        with self._driver.driving(polls=True) as driver:
            self.read_states()
            if self.lost_its_plan():
                self.plan_more()
            driver.step()
            driver.raise_failed(at_once=at_once)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every request has an answer, or has no attempts left."""
        with self._driver.driving(timeout) as driver:
            self.read_states()
            driver.until_over(self.plan_more)
            driver.raise_failed()

    def retry(self) -> int:
        """Send all without a good answer again, even with no attempts left; return how many."""
        with self._driver.driving() as driver:
            under_way = self.plan(again=True)
            if under_way:
                driver.start()
        return under_way

    def cancel(self) -> list[str]:
        """Cancel the run's jobs; return the batch ids."""
        with self._driver.driving() as driver:
            self.tracker.jobs.update((job.name, None) for job in self.find_jobs())
            return driver.cancel()

    def resolve(self, adopt: str | None, resubmit: bool) -> None:
        """Settle uncertain submissions as the user decides."""
        if (adopt is None) == (not resubmit):
            raise ConfigurationError(
                'Give either adopt="<batch id>" or resubmit=True (--adopt BATCH_ID or --resubmit).'
            )
        with self._driver.driving() as driver:
            driver.resolve(adopt, resubmit)
