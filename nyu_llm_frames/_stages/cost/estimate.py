"""Estimate what a call costs, and enforce `max_cost`, from weights, earlier answers and a price.

A budget is compared with the upper end of the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from html import escape
from typing import Any

import numpy as np

from nyu_llm_frames._shared.cards import CARD_STYLE, facts_table
from nyu_llm_frames._shared.wording import count, dollars
from nyu_llm_frames._stages.cost.prices import Floats, Price
from nyu_llm_frames._stages.cost.tokens import FEW, PICTURE, Observed, Scale, Weights, output_tokens
from nyu_llm_frames.errors import BudgetError, ConfigurationError

_FIRST = 5
"""Rows of the trial that a small table is worth: the default of `trial`."""


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known exactly.

    Attributes
    ----------
    low, expected, high : float
        `high` is what is possible, not what is likely.
    """

    low: float
    expected: float
    high: float

    def __repr__(self) -> str:
        return f"{self.expected:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call sends; the counts are those of `Estimate`."""

    rows: int
    requests: int
    answered: int
    under_way: int
    given_up: int
    model: str
    weight: Weights  # of each prompt that has to be paid; k of them
    attempts: Floats  # how often each of them may be sent; shape (k,)
    max_tokens: int | None = None
    extra_weight: float = 0.0  # of what the model reads in every body beside messages: a schema


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would send and cost. Made by ``df.llm.estimate``.

    Attributes
    ----------
    rows, requests : int
        Rows of the frame, and the distinct requests that they make.
    answered, under_way, given_up : int
        Requests that are answered for good, that a batch job carries, and that are out of retries;
        none of them is paid again.
    to_pay : int
        Requests that the next call sends.
    prompt_tokens, output_tokens : Range
        Of the requests to pay, sent once; output with the thinking, which is billed as output.
    usd_batch, usd_live : Range or None
        US dollars; the upper end counts every allowed attempt. None where no price is known.
    attempts : int
        How often the upper end counts a request at most.
    basis : dict of str to str
        What the numbers rest on: ``prompt``, ``output``, ``price``.
    unsure : str
        What makes the range wide; "" where there were enough answers.
    """

    rows: int
    requests: int
    answered: int
    under_way: int
    given_up: int
    to_pay: int
    prompt_tokens: Range
    output_tokens: Range
    usd_batch: Range | None
    usd_live: Range | None
    attempts: int
    basis: dict[str, str]
    model: str
    unsure: str = ""

    def line(self) -> str:
        """Return how much there is to do and to pay: one line."""
        parts = [f"{count(self.rows, 'row')}, {count(self.requests, 'distinct request')}"]
        parts.append(f"{self.answered:,} already answered")
        if self.under_way:
            parts.append(f"{self.under_way:,} under way")
        to_pay = f"{self.to_pay:,} to pay" if self.to_pay else "nothing to pay"
        return f"{', '.join(parts)}; {to_pay}"

    def cost_lines(self) -> list[str]:
        """Return the likely cost, the highest cost, and how to estimate more exactly."""
        if not self.to_pay:
            return []
        usd, live = self.usd_batch, self.usd_live
        if usd is None or live is None:
            return [f"cost unknown: {self.basis['price']}"]
        if usd.high == 0:
            return [f"cost: $0 ({self.basis['price']})"]
        likely = f"cost: about {dollars(usd.expected)}"
        if not self.unsure:
            return [f"{likely}, probably no more than {dollars(usd.high)}"]
        out = [f"{likely}, at most {dollars(usd.high)} ({self.unsure})"]
        if self.to_pay > 3 * FEW:  # paid live: of a small table it would cost more than the rest
            rows, effect = FEW, "will tell"
        elif self.to_pay > 2 * _FIRST and not self.answered:
            rows, effect = _FIRST, "will narrow this"
        else:
            return out
        trial = dollars(rows * live.expected / self.to_pay)
        return [*out, f"a trial of {rows} rows (about {trial}) {effect}"]

    def head(self) -> list[str]:
        """Return what people read first: the cost, and how much there is to do."""
        return [*self.cost_lines(), self.line()]

    def facts(self) -> list[tuple[str, str]]:
        """Return what the cost rests on: names and values, without what `head` says."""
        out = [("model", self.model)]
        if self.given_up:
            out.append(("out of retries", count(self.given_up, "request")))
        if not self.to_pay:
            return out
        for name, tokens, basis in (
            ("prompt tokens", self.prompt_tokens, "prompt"),
            ("output tokens", self.output_tokens, "output"),
        ):
            out.append((name, f"{tokens!r}: {self.basis[basis]}"))
        if self.usd_live is not None and self.usd_live.high:
            out += [("price", self.basis["price"]), ("if sent live", _shown(self.usd_live))]
            if self.attempts > 1:
                out.append(("retries", f"upper end assumes {self.attempts} attempts per request"))
        return out

    def __repr__(self) -> str:
        facts = self.facts()
        width = max(len(name) for name, _ in facts)
        return "\n".join([*self.head(), *(f"  {name:<{width}}  {text}" for name, text in facts)])

    def _repr_html_(self) -> str:
        head = "".join(f"<div>{escape(line)}</div>" for line in self.head())
        body = f"<h4>Estimate</h4>{head}{facts_table(self.facts())}"
        return f'{CARD_STYLE}\n<div class="nlf">{body}</div>'


def _shown(usd: Range) -> str:
    return f"about {dollars(usd.expected)}, at most {dollars(usd.high)}"


def _media(weight: Weights, scale: Scale) -> str:
    text = ""
    if weight.pictures.any() and scale.picture is PICTURE:
        low, expected, high = PICTURE
        text = f"; about {expected:,.0f} tokens per image ({low:,.0f} to {high:,.0f})"
    if n := int(np.count_nonzero(weight.beyond)):
        text += f"; {count(n, 'prompt')} with a document or recording of unknown length"
    return text


def estimate(demand: Demand, observed: Observed, scale: Scale, price: Price | None) -> Estimate:
    """Combine the numbers into an estimate."""
    k = len(demand.weight.text)
    output = output_tokens(demand.model, demand.max_tokens, observed)
    weight = demand.weight
    extra = (0.0, demand.extra_weight, demand.extra_weight)  # a schema may not count as prompt
    prompts = [
        (weight.text + more) * text + weight.pictures * picture
        for more, text, picture in zip(extra, scale.text, scale.picture, strict=True)
    ]
    prompts[2] = prompts[2] + 4.0 + weight.beyond
    outputs = [output.low, output.expected, output.high]
    usd: dict[bool, Range | None] = {False: None, True: None}
    if price is not None:
        for live in usd:
            each = [price.cost(p, o, live=live) for p, o in zip(prompts, outputs, strict=True)]
            each[2] = each[2] * demand.attempts
            usd[live] = Range(*(float(e.sum()) for e in each))
    unknown = f"no price is known for {demand.model!r}"
    return Estimate(
        rows=demand.rows,
        requests=demand.requests,
        answered=demand.answered,
        under_way=demand.under_way,
        given_up=demand.given_up,
        to_pay=k,
        prompt_tokens=Range(*(float(p.sum()) for p in prompts)),
        output_tokens=Range(*(k * o for o in outputs)),
        usd_batch=usd[False],
        usd_live=usd[True],
        attempts=int(demand.attempts.max()) if k else 1,
        basis={
            "prompt": scale.basis + _media(weight, scale),
            "output": output.basis,
            "price": price.source if price is not None else unknown,
        },
        model=demand.model,
        unsure=output.unsure,
    )


def total(parts: Sequence[Estimate]) -> Estimate:
    """Add up estimates of disjoint parts of one call; each may fill what another lacks."""
    paying = [part for part in parts if part.to_pay] or list(parts)
    counts = ("rows", "requests", "answered", "under_way", "given_up", "to_pay")
    added: dict[str, Any] = {name: sum(getattr(p, name) for p in parts) for name in counts}
    for name in ("prompt_tokens", "output_tokens", "usd_batch", "usd_live"):
        ranges = [getattr(part, name) for part in paying]
        ends = None if None in ranges else zip(*map(astuple, ranges), strict=True)
        added[name] = ends and Range(*map(sum, ends))
    return replace(paying[0], **added, attempts=max(part.attempts for part in parts))


# --- budgets --------------------------------------------------------------------------------
def check_max_cost(max_cost: object, option: float | None) -> float | None:
    """Return the limit in force: the argument, else the option."""
    if max_cost is None:
        return option
    number = isinstance(max_cost, int | float) and not isinstance(max_cost, bool)
    if not number or not math.isfinite(max_cost) or max_cost < 0:  # type: ignore[arg-type, operator]
        raise ConfigurationError(f"max_cost must be US dollars, not {max_cost!r}.")
    return float(max_cost)  # type: ignore[arg-type]


def check_budget(
    estimate: Estimate, max_cost: float | None, *, live: bool = False, more: bool = False
) -> None:
    """Refuse a run that may cost more than its limit in US dollars, or whose price is not known.

    With `live` requests are answered now, at the live rate; with `more` this would be added to
    something that was sent before.
    """
    if max_cost is None or not estimate.to_pay:
        return
    usd = estimate.usd_live if live else estimate.usd_batch
    sent = "Nothing more was sent; every answer is kept." if more else "Nothing was sent."
    if usd is None:
        raise BudgetError(
            f"max_cost={max_cost:g} cannot be kept: {estimate.basis['price']}, so it is unknown "
            f"what {estimate.to_pay:,} requests cost. {sent} Leave max_cost out to go "
            "on without a limit.",
            max_cost=max_cost,
        )
    upper = usd.high
    if upper <= max_cost:
        return
    basis = estimate.basis
    times = f", up to {estimate.attempts} attempts each" if estimate.attempts > 1 else ""
    raise BudgetError(
        f"This may cost up to {dollars(upper)}, above max_cost={dollars(max_cost)}; about "
        f"{dollars(usd.expected)} is likely. {sent} The upper end counts {estimate.to_pay:,} "
        f"requests{times}, {estimate.prompt_tokens.high:,.0f} prompt tokens ({basis['prompt']}) "
        f"and {estimate.output_tokens.high:,.0f} output tokens ({basis['output']}); price: "
        f"{basis['price']}. To fix it, set max_tokens=, run df.llm.trial(...) so that real answers "
        "show their length, send fewer rows, set retries=0, or raise max_cost=.",
        max_cost=max_cost,
        upper=upper,
    )
