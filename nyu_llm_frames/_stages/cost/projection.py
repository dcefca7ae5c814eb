"""The results of a trial, and the cost of the whole projected from them.

Comes in: what a few requests cost. Goes out: a `Trial`, and a total with its interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nyu_llm_frames._shared.wording import count, dollars
from nyu_llm_frames._stages.cost.estimate import Range, dollars_range
from nyu_llm_frames._stages.cost.prices import Floats

# Student's t at 97.5 %, for 1 to 10 degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial used, and what the whole will cost.

    Attributes
    ----------
    rows, requests : int
        Rows drawn, and their distinct requests.
    asked, already_answered, under_way : int
        Requests sent now; answered before; in a batch job and therefore not sent.
    prompt_tokens, output_tokens, thinking_tokens : int
        Of the drawn requests' answers; output without the thinking.
    truncated_rate, refused_rate : float
        Shares of the answers that were cut off, and of those blocked or refused.
    seconds : float
    usd_trial : float or None
        US dollars paid now, at the live rate.
    to_pay : int
        Requests that the batch still has to pay.
    usd_so_far : float or None
        US dollars of all stored answers to the whole call.
    usd_total, usd_total_low, usd_total_high : float or None
        Projected US dollars of the whole: so far, and the rest as batch, sent once.
    """

    rows: int
    requests: int
    asked: int
    already_answered: int
    under_way: int
    prompt_tokens: int
    output_tokens: int
    thinking_tokens: int
    truncated_rate: float
    refused_rate: float
    seconds: float
    usd_trial: float | None
    to_pay: int
    usd_so_far: float | None
    usd_total: float | None
    usd_total_low: float | None
    usd_total_high: float | None

    def record(self) -> dict[str, Any]:
        """Return plain values: ``attrs`` of a frame go into parquet files as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return what is printed."""
        head = f"trial: {count(self.rows, 'row')}, {self.asked:,} asked in {self.seconds:.1f} s"
        if self.already_answered:
            head += f", {self.already_answered:,} answered before"
        if self.under_way:
            head += f", {self.under_way:,} in a batch job and not asked"
        tokens = (
            f"tokens: {self.prompt_tokens:,} prompt, {self.output_tokens:,} output, "
            f"{self.thinking_tokens:,} thinking; {self.truncated_rate:.0%} truncated, "
            f"{self.refused_rate:.0%} refused"
        )
        if self.usd_total is None or self.usd_trial is None:
            cost = "cost: unknown, no price for this model"
        else:
            low, high = self.usd_total_low or 0.0, self.usd_total_high or 0.0
            ends = dollars_range(Range(low, self.usd_total, high))
            cost = (
                f"cost: {dollars(self.usd_trial)} now; projected total {dollars(self.usd_total)} "
                f"({ends}) with {self.to_pay:,} requests to come as batch"
            )
        return [head, tokens, cost]


def interval(each: Floats, times: int) -> Range | None:
    """Project a sum over `times` draws from a sample, with its 95 % interval.

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
