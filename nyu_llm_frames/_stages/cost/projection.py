"""The results of a trial, and the cost of the whole projected from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nyu_llm_frames._shared.wording import count, dollars
from nyu_llm_frames._stages.cost.estimate import Range
from nyu_llm_frames._stages.cost.prices import Floats

# Student's t at 97.5%, for 1 to 10 degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial used, and what the whole will cost."""

    rows: int
    requests: int
    sent: int  # by this trial
    already_answered: int
    under_way: int  # in a batch job and therefore not sent
    prompt_tokens: int
    output_tokens: int  # without the thinking
    thinking_tokens: int
    truncated_rate: float  # shares of the requests with an outcome: cut off
    refused_rate: float  # blocked or refused
    failed_rate: float
    seconds: float
    usd_trial: float | None  # paid now, at the live rate
    to_pay: int  # requests that the batch still has to pay
    usd_so_far: float | None  # of all stored answers to the whole call
    usd_total: float | None  # projected: so far, and the rest as batch, sent once
    usd_total_low: float | None
    usd_total_high: float | None

    def lines(self) -> list[str]:
        head = f"trial: {count(self.rows, 'row')}, {self.sent:,} sent in {self.seconds:.1f} s"
        if self.already_answered:
            head += f", {self.already_answered:,} answered before"
        if self.under_way:
            head += f", {self.under_way:,} already in a batch job, not sent"
        tokens = (
            f"tokens: {self.prompt_tokens:,} prompt, {self.output_tokens:,} output, "
            f"{self.thinking_tokens:,} thinking; {self.truncated_rate:.0%} truncated, "
            f"{self.refused_rate:.0%} blocked or refused, {self.failed_rate:.0%} failed"
        )
        if self.usd_total is None or self.usd_trial is None:
            cost = "cost: unknown, no price for this model"
        else:
            low, high = self.usd_total_low or 0.0, self.usd_total_high or 0.0
            ends = f" ({dollars(low)} to {dollars(high)})" if low < high else ""
            cost = (
                f"cost: {dollars(self.usd_trial)} now; projected total {dollars(self.usd_total)}"
                f"{ends} with {count(self.to_pay, 'request')} to come as batch"
            )
        return [head, tokens, cost]


def interval(each: Floats, times: int) -> Range | None:
    """Project a sum over `times` draws from a sample, with its 95% interval.

    None without a sample. One value has no spread: its interval is a factor of three.
    """
    k = len(each)
    if not k:
        return None
    mean = float(each.mean())
    if k == 1:
        return Range(times * mean / 3, times * mean, times * mean * 3)
    t = _T[k - 2] if k - 2 < len(_T) else 1.96 + 2.4 / (k - 1)
    # Of a total over `times` more: they scatter by themselves, and the mean is not known.
    error = t * float(each.std(ddof=1)) * float(np.sqrt(times * times / k + times))
    return Range(max(0.0, times * mean - error), times * mean, times * mean + error)
