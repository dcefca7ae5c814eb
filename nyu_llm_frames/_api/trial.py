"""A trial: a few rows answered live before the whole batch is paid for.

Comes in: a frame and the arguments of a call. Goes out: n rows answered now through
``/chat/completions`` with the same bodies as the batch, their answers stored so that the batch does
not pay for them again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.live import LiveRequests
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.estimating import TRIAL, answer_costs
from nyu_llm_frames._runs.launch import (
    CallExecution,
    opened,
    tell_of_cut_answers,
    tell_unknown_model,
)
from nyu_llm_frames._runs.prepare import PreparedCall
from nyu_llm_frames._runs.rendering import prepare
from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._shared.allowed import whole_number
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._sidecar.answer_store import gather
from nyu_llm_frames._sidecar.lock import one_trial
from nyu_llm_frames._stages.answers.answer import TOKENS, Answer
from nyu_llm_frames._stages.batches.planning import Ints, RequestStates
from nyu_llm_frames._stages.cost.estimate import check_budget
from nyu_llm_frames._stages.cost.prices import price_of
from nyu_llm_frames._stages.cost.projection import Trial, interval
from nyu_llm_frames._tables.columns import Objects, Outcome
from nyu_llm_frames.errors import ConfigurationError


def draw(rows: int, n: int, random_state: Any) -> Ints:
    """Draw n of `rows` rows at random, in their order."""
    every, n = pd.Series(np.arange(rows)), whole_number("n", n, 1)
    try:
        chosen = every.sample(min(n, rows), random_state=random_state)
    except (ValueError, TypeError):
        raise ConfigurationError(
            f"random_state must be a whole number or a numpy generator, not {random_state!r}."
        ) from None
    return np.sort(chosen.to_numpy())


def trial(frame: Any, arguments: Arguments, *, n: int, random_state: Any, clock: Clock) -> Any:
    """Answer n rows now. See `FrameMethods.trial`."""
    draw(0, n, random_state)  # an invalid draw is reported first
    whole = prepare(frame, arguments)  # every row is checked, and the projection needs them all
    sent = np.flatnonzero(whole.codes >= 0)  # a row that is skipped shows nothing
    drawn = whole.table.in_memory().take(sent[draw(len(sent), n, random_state)])
    part = prepare(drawn, arguments)
    ctx = opened(part, clock)
    execution = CallExecution(part, ctx, kind=TRIAL)
    _, planner = execution.one_part()
    planner.take_back()  # plans of a call that failed before it made anything block no row
    states = planner.states()
    unanswered = np.flatnonzero(states.open)
    live = LiveRequests(execution.name, part.requests, ctx)
    started = clock.monotonic()
    if len(unanswered):
        upper, *_ = execution.estimate(again=True)
        check_budget(upper, part.options.max_cost, live=True)
        with one_trial(ctx.sidecar.path, lambda text: ctx.notify("note", text)):
            states = planner.states()  # another trial may have sent them meanwhile
            unanswered = np.flatnonzero(states.open)
            started = clock.monotonic()
            if len(unanswered):
                _send(part, execution, live, unanswered)
    seconds = clock.monotonic() - started
    collected = Collected.now(part, planner)
    collected.outcome = with_unstored(collected.outcome, live.unstored)
    out = collected.frame
    report = _report(ctx, part, whole, collected.outcome.status, unanswered, states, seconds)
    for line in report.lines():
        ctx.notify("note", line)
    # Plain values: ``attrs`` of a frame go into parquet files as JSON.
    return drawn.with_record(out, "trial", dataclasses.asdict(report))


def _send(
    part: PreparedCall, execution: CallExecution, live: LiveRequests, unanswered: Ints
) -> None:
    ctx = execution.ctx
    ctx.connect()
    tell_unknown_model(ctx, part)
    tell_of_cut_answers(ctx, part)
    record = execution.record(len(part.requests))
    with ctx.locked():
        ctx.sidecar.save_run(record)
    try:
        live.send(unanswered)
    finally:
        ctx.report.close()


def with_unstored(outcome: Outcome, unstored: dict[int, Answer]) -> Outcome:
    """Show what came back without an answer, where there is none from before."""
    status, reasons = outcome.status.copy(), list(outcome.reasons)
    for i, answer in unstored.items():
        if status[i] in ("pending", "missing"):
            status[i], reasons[i] = answer.status, answer.error
    return dataclasses.replace(outcome, status=status, reasons=reasons)


def _report(
    ctx: Context,
    part: PreparedCall,
    whole: PreparedCall,
    status: Objects,
    unanswered: Ints,
    states: RequestStates,
    seconds: float,
) -> Trial:
    realm, model = whole.gateway.realm, whole.arguments.model
    best = ctx.sidecar.best_answers(part.requests.ids)
    answers = gather(best, list(TOKENS))
    prompt, written, thought = (
        np.nan_to_num(np.asarray(answers[name].to_pandas(), dtype=np.float64))
        for name in answers.column_names
    )
    ahead = CallExecution(whole, ctx).estimate()[0]
    price = price_of(realm, model, ctx.clock.now())
    now = so_far = rest = None
    if price is not None:
        paid = np.nan_to_num(np.asarray(answer_costs(best, realm, model)[0].to_pandas(), float))
        now = float(paid[unanswered].sum())
        every = ctx.sidecar.best_answers(whole.requests.ids)
        costs = np.asarray(answer_costs(every, realm, model)[0].to_pandas(), float)
        so_far = float(np.nansum(costs))
        known = prompt > 0
        rest = interval(price.cost(prompt[known], (written + thought)[known]), ahead.to_pay)
        rest = rest or ahead.usd_batch
    over = status[~np.isin(status, ("pending", "missing"))]

    def rate(*kinds: str) -> float:
        return float(np.isin(over, kinds).sum()) / max(1, len(over))

    total: list[float | None] = [None, None, None]
    if rest is not None and so_far is not None:
        total = [so_far + usd for usd in (rest.expected, rest.low, rest.high)]
    return Trial(
        rows=len(part.table),
        requests=len(part.requests),
        sent=len(unanswered),
        already_answered=int(states.final.sum()),
        under_way=int(states.carried.sum()),
        prompt_tokens=int(prompt.sum()),
        output_tokens=int(written.sum()),
        thinking_tokens=int(thought.sum()),
        truncated_rate=rate("truncated"),
        refused_rate=rate("blocked", "refused"),
        failed_rate=rate("failed"),
        seconds=round(seconds, 3),
        usd_trial=now,
        to_pay=ahead.to_pay,
        usd_so_far=so_far,
        usd_total=total[0],
        usd_total_low=total[1],
        usd_total_high=total[2],
    )
