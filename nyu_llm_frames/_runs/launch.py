"""The steps before a run's first effect: open, report the cost, keep the limit, plan, record.

Comes in: a prepared call, in one part or many. Goes out: its estimate, what its steps share,
planned jobs, and the run's record in the sidecar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.execution import Execution
from nyu_llm_frames._runs.prepare import PreparedCall, template_text, versions
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.folder import RunRecord, Sidecar, is_sidecar, new_name
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.cost.estimate import Estimate, check_budget, total
from nyu_llm_frames._stages.cost.prices import nearest_gemini
from nyu_llm_frames._stages.requests.bodies import Requests
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._stages.requests.thinking import advice
from nyu_llm_frames.errors import ResumableRun, TruncationWarning


def first_lines(call: PreparedCall) -> list[str]:
    """Return what a run prints first: where its sidecar is or will be, and notes on its schema."""
    path, schema = call.sidecar_path, call.schema
    where = f"{'sidecar' if is_sidecar(path) else 'new sidecar'}: {path}"
    return [where, *(schema.notes if schema else ())]


def looked_at(call: PreparedCall, clock: Clock, sidecar: Sidecar | None = None) -> Context:
    """Return the context to read a call: prints nothing, and creates no sidecar."""
    sidecar = sidecar or Sidecar(call.sidecar_path, clock, create=None)
    quiet = Reporter(False)
    return Context(sidecar, call.gateway, call.options, clock, quiet, len(call.requests))


def opened(call: PreparedCall, clock: Clock) -> Context:
    """Open a call's sidecar, report where it is, and return what the steps on a frame share."""
    lines = first_lines(call)
    ctx = looked_at(call, clock, Sidecar(call.sidecar_path, clock))
    ctx.report = Reporter(call.options.progress)
    for line in lines:
        ctx.notify("note", line)
    return ctx


@dataclass(slots=True)
class CallPart:
    """Rows of a call, all of a frame's or some of a file's, and their part of the sidecar."""

    call: PreparedCall
    sidecar: Sidecar | None
    planner: Planner | None = None

    @property
    def requests(self) -> Requests:
        return self.call.requests

    @property
    def rows(self) -> int:
        """Number of rows that share these requests."""
        return len(self.call.table)

    @property
    def template(self) -> str:
        """The template, which identifies answers to the same question."""
        return template_text(self.call.template)


class CallExecution(Execution[CallPart]):
    """A call's run, in one part or many: its plan reports the cost and is recorded.

    `call` is what all parts share; without `parts` it is the only one. `rows` are those of the
    whole call, and `kind` is a prefix of the run's name.
    """

    def __init__(
        self,
        call: PreparedCall,
        ctx: Context,
        parts: Iterable[CallPart] = (),
        rows: int | None = None,
        *,
        retries: int = 0,
        max_cost: float | None = None,
        carried: Callable[[], ResumableRun | None] = lambda: None,
        kind: str = "",
    ) -> None:
        name = f"{kind}{new_name(ctx.clock)}"
        super().__init__(name, ctx, retries=retries, max_cost=max_cost, carried=carried)
        self._call, self._parts = call, parts or [CallPart(call, ctx.sidecar)]
        self._rows = len(call.table) if rows is None else rows

    def parts(self) -> Iterator[CallPart]:
        return iter(self._parts)

    def one_part(self) -> tuple[PreparedCall, Planner]:
        (part,) = self._parts
        return part.call, self.planner(part)

    def estimate(self, *, again: bool | None = False) -> list[Estimate]:
        own, *others = super().estimate(again=again)
        return [replace(own, rows=self._rows), *others]

    def record(self, requests: int) -> RunRecord:
        call = self._call
        return RunRecord(
            name=self.name,
            template=template_text(call.template),
            schema=None if call.schema is None else json.dumps(call.schema.source),
            params=json.dumps(call.requests.shape.params),
            model=call.arguments.model,
            realm=call.gateway.realm,
            gateway=call.gateway.identity,
            output=call.arguments.output,
            rows=self._rows,
            requests=requests,
            versions=versions(),
            created_at=self.ctx.clock.now(),
        )

    def find_jobs(self) -> list[Job]:
        found = self.of_each(lambda _, planner: planner.find_jobs())
        return list({job.name: job for jobs in found for job in jobs}.values())

    def plan(self, *, again: bool = False) -> int:
        """Report the cost, keep the limit, plan, and record the run.

        The limit, and settings that are missing, are errors before anything is planned.
        """
        if again:
            self.tracker.forget_failures()
        ctx, call = self.ctx, self._call
        own, *shared = self.estimate(again=again)
        ctx.requests = own.requests
        for line in (own.line(), *own.cost_lines()):
            ctx.notify("note", line)
        if shared:
            ctx.notify(
                "note",
                f"also sent: {count(total(shared).to_pay, 'request')} of an earlier call, in a "
                "batch job that was planned but not made yet. If they are not needed, remove them "
                f"first: nyu-llm-frames cancel {ctx.sidecar.path} (this also cancels running jobs "
                "there).",
            )
        if own.to_pay:
            tell_unknown_model(ctx, call)
            if call.fills:
                tell_of_other_requests(ctx, own.under_way)
        check_budget(total([own, *shared]), self._max_cost)
        if own.to_pay:
            ctx.connect()
        under_way = self.plan_parts(again=again)
        if under_way or ctx.sidecar.is_new:
            record = self.record(own.requests)
            with ctx.locked():
                ctx.sidecar.save_run(record)
        if own.to_pay:
            tell_of_cut_answers(ctx, call)
        return under_way


def tell_of_other_requests(ctx: Context, ours: int) -> None:
    """Report that a fill sends rows again that another call's batch jobs are about to answer."""
    jobs = ctx.sidecar.jobs().values()
    others = sum(job.requests for job in jobs if job.carries and job.realm == ctx.realm) - ours
    if others > 0:
        ctx.notify(
            "note",
            f"{count(others, 'request')} of other calls are under way in this sidecar: rows that "
            "wait for their answers are sent and paid again here. To wait for them first, make the "
            "earlier call again.",
        )


def tell_of_cut_answers(ctx: Context, call: PreparedCall) -> None:
    """Warn, before anything is paid, of a limit that thinking may use up; with any `progress`."""
    shape = call.requests.shape
    text = advice(shape.params, shape.model, route(ctx.realm, shape.model))
    if text is None:
        return
    if call.options.progress is False:
        warn_user(text, TruncationWarning)
    else:
        ctx.notify("note", text)


def tell_unknown_model(ctx: Context, call: PreparedCall) -> None:
    """Report in one line which known model is nearest; a new one is never refused."""
    model = call.arguments.model
    nearest = nearest_gemini(model) if route(ctx.realm, model) == "gemini" else None
    if nearest is not None:
        ctx.notify(
            "note",
            f"model {model!r} is not known to this release: a new one, or misspelled? The nearest "
            f"that is known: {nearest}.",
        )
