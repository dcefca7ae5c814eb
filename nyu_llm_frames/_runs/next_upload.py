"""What a call would pay: by its requests, and by what the sidecar knows about them.

Comes in: a prepared call, its planner if the sidecar is open. Goes out: an `Estimate`. Nothing is
asked of the gateway, and nothing is written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.estimating import Question, estimate_bodies, estimate_requests
from nyu_llm_frames._runs.prepare import PreparedCall, template_text
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import Reporter
from nyu_llm_frames._sidecar.folder import Sidecar, is_sidecar
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.batches.planning import unknown_states
from nyu_llm_frames._stages.cost.estimate import Estimate, total

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def estimate(call: PreparedCall, clock: Clock, retries: int) -> Estimate:
    """Estimate what the batch would pay; a sidecar that is not there is not made."""
    planner = planner_of(call, clock, retries)
    if planner is not None:
        return next_upload(call, planner)
    states = unknown_states(len(call.requests))
    return estimate_requests(
        call.requests, question(call), len(call.frame), states, None, retries=retries,
        at=clock.now(),
    )  # fmt: skip


def planner_of(call: PreparedCall, clock: Clock, retries: int) -> Planner | None:
    """Return what tells where a call's requests stand; None where there is no sidecar yet."""
    if not is_sidecar(call.sidecar_path):
        return None
    sidecar = Sidecar(call.sidecar_path, clock, create=False)
    n = len(call.requests)
    ctx = Context(sidecar, call.gateway, call.options, clock, Reporter(False), n)
    return Planner("", call.requests, ctx, retries)


def next_upload(call: PreparedCall, planner: Planner, *, again: bool = False) -> Estimate:
    """Estimate what the next upload would cost, by the sidecar as it is now.

    Parameters
    ----------
    call : PreparedCall
    planner : Planner
    again : bool
        Whether requests that were tried often enough are sent once more.
    """
    return estimate_requests(
        call.requests,
        question(call),
        len(call.frame),
        planner.states(),
        planner.ctx.sidecar,
        retries=0 if again else planner.retries,
        at=planner.ctx.clock.now(),
        again=again,
    )


class SharedJobs:
    """What a call would send along with its own requests.

    A job that was planned and not made yet is made whole by whoever needs an answer of it; where
    its run may still be alive, its other requests cannot be taken back.
    """

    def __init__(self) -> None:
        self._own: dict[str, Mask] = {}

    def add(self, planner: Planner) -> None:
        """Take note of the jobs that a part of the call meets."""
        for job, at in planner.unpaid():
            own = at >= 0
            self._own[job.name] = own | self._own.get(job.name, np.zeros_like(own))

    def estimate(self, ctx: Context) -> Estimate | None:
        """Estimate the cost of all those requests; None where there are none."""
        parts = []
        for name, own in self._own.items():
            if own.all():
                continue
            job = ctx.sidecar.job(name)
            others = ctx.sidecar.request_ids(name).filter(pa.array(~own))
            stored = StoredRequests(ctx.sidecar, [job], among=others)
            bodies = stored.bodies(np.arange(len(stored))).to_pylist()
            found = estimate_bodies(
                bodies, [1] * len(bodies), job.realm, job.model, ctx.clock.now()
            )
            parts.append(replace(found, rows=0))
        return total(parts) if parts else None


def question(call: PreparedCall) -> Question:
    """What the call asks, for comparing it with earlier ones."""
    params = json.dumps(call.requests.shape.params)
    return Question(template_text(call.template), params, call.arguments.model, call.gateway.realm)
