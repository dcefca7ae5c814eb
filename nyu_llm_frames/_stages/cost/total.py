"""The estimate of a whole that was estimated in parts.

Comes in: estimates of disjoint parts of one call. Goes out: one estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nyu_llm_frames._stages.cost.estimate import Estimate, Range


def total(parts: Sequence[Estimate]) -> Estimate:
    """Add estimates up. What a band has nothing to say about, another may."""
    paying = [part for part in parts if part.to_pay] or list(parts)
    first = paying[0]

    def number(read: Callable[[Estimate], int]) -> int:
        return sum(map(read, parts))

    def usd(read: Callable[[Estimate], Range | None]) -> Range | None:
        found = [read(part) for part in paying]
        known = [r for r in found if r is not None]
        return _sum(known) if len(known) == len(found) else None

    return replace(
        first,
        rows=number(lambda e: e.rows),
        requests=number(lambda e: e.requests),
        answered=number(lambda e: e.answered),
        under_way=number(lambda e: e.under_way),
        given_up=number(lambda e: e.given_up),
        to_pay=number(lambda e: e.to_pay),
        prompt_tokens=_sum([e.prompt_tokens for e in paying]),
        output_tokens=_sum([e.output_tokens for e in paying]),
        usd_batch=usd(lambda e: e.usd_batch),
        usd_live=usd(lambda e: e.usd_live),
        attempts=max(e.attempts for e in parts),
    )


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(
        sum(r.low for r in ranges), sum(r.expected for r in ranges), sum(r.high for r in ranges)
    )
