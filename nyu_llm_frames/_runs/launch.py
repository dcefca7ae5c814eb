"""What comes before a run's first effect: open, tell the cost, keep to the limit, plan, record.

Comes in: a prepared call, an estimate, and the way to plan. Goes out: what its steps share, planned
jobs, and the run's record in the sidecar.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._runs.prepare import PreparedCall, template_text, versions
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import Reporter
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.folder import RunRecord, Sidecar, is_sidecar
from nyu_llm_frames._stages.cost.estimate import Estimate, check_budget, total
from nyu_llm_frames._stages.cost.prices import nearest_gemini
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._stages.requests.thinking import advice


def sidecar_line(path: Path, *, is_new: bool | None = None) -> str:
    """Say where the sidecar is, and whether it is new; by default as it is now.

    The first line that a run prints.
    """
    new = not is_sidecar(path) if is_new is None else is_new
    return f"{'new sidecar' if new else 'sidecar'}: {path}"


def opened(call: PreparedCall, clock: Clock) -> Context:
    """Open a call's sidecar, say where it is, and return what the steps on a frame share."""
    ctx = Context(
        Sidecar(call.sidecar_path, clock),
        call.gateway,
        call.options,
        clock,
        Reporter(call.options.progress),
        len(call.requests),
    )
    ctx.notify("note", sidecar_line(call.sidecar_path, is_new=ctx.sidecar.is_new))
    for note in call.schema.notes if call.schema else ():
        ctx.notify("note", note)
    return ctx


def planned(
    ctx: Context,
    call: PreparedCall,
    name: str,
    plan: Callable[[], int],
    *,
    estimate: Estimate,
    shared_jobs: Estimate | None,
    max_cost: float | None,
) -> int:
    """Plan a run and write it down; return how many requests are under way.

    Parameters
    ----------
    ctx : Context
    call : PreparedCall
    name : str
        Of the run.
    plan : callable
        Plans, and returns how many requests are under way.
    estimate : Estimate
        Of the whole run.
    along : Estimate or None
        Of requests of others that are sent along with it.
    max_cost : float or None
        US dollars.

    Raises
    ------
    BudgetError
        Before anything is planned.
    ConfigurationError
        The same, where a key, a bucket or the embedded gateway's extra is missing.
    """
    ctx.notify("note", estimate.line())
    if shared_jobs is not None:
        ctx.notify(
            "note",
            f"sent along: {count(shared_jobs.to_pay, 'request')} of an earlier call, in a batch "
            "job that was planned and not made yet. Where nobody wants those, take them back "
            f"first: nyu-llm-frames cancel {ctx.sidecar.path} (that cancels what runs there, too).",
        )
    if estimate.to_pay:
        tell_unknown_model(ctx, call)
    check_budget(estimate if shared_jobs is None else total([estimate, shared_jobs]), max_cost)
    if estimate.to_pay:
        ctx.connect()
    under_way = plan()
    if under_way or ctx.sidecar.is_new:
        at = ctx.clock.now()
        record = record_of(call, name, rows=estimate.rows, requests=estimate.requests, at=at)
        with ctx.locked():
            ctx.sidecar.save_run(record)
    shape = call.requests.shape
    warned = advice(shape.params, shape.model, route(ctx.realm, shape.model))
    if under_way and warned:
        ctx.notify("note", warned)
    return under_way


def tell_unknown_model(ctx: Context, call: PreparedCall) -> None:
    """Say in one line which known model is nearest; a new one is never locked out."""
    model = call.arguments.model
    nearest = nearest_gemini(model) if route(ctx.realm, model) == "gemini" else None
    if nearest is not None:
        ctx.notify(
            "note",
            f"model {model!r} is not known to this release: a new one, or misspelled? The nearest "
            f"that is known: {nearest}.",
        )


def record_of(
    call: PreparedCall, name: str, *, rows: int, requests: int, at: datetime
) -> RunRecord:
    """Return what the sidecar keeps of a run.

    Parameters
    ----------
    call : PreparedCall
    name : str
        Of the run.
    rows, requests : int
        Of the whole run: a file's is planned in parts.
    at : datetime
        UTC.
    """
    return RunRecord(
        name=name,
        template=template_text(call.template),
        schema=None if call.schema is None else json.dumps(call.schema.source),
        params=json.dumps(call.requests.shape.params),
        model=call.arguments.model,
        realm=call.gateway.realm,
        gateway=call.gateway.identity,
        output=call.arguments.output,
        rows=rows,
        requests=requests,
        versions=versions(),
        created_at=at,
    )
