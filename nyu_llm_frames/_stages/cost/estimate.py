"""What a call will cost: pure arithmetic on weights, observed answers and a price.

Comes in: what has to be paid, what earlier answers took, a price. Goes out: an `Estimate`, whose
upper end is what a budget is held against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nyu_llm_frames._shared.cards import CARD_STYLE, facts_table
from nyu_llm_frames._shared.wording import count, dollars
from nyu_llm_frames._stages.cost.prices import Price, max_output_tokens
from nyu_llm_frames._stages.cost.tokens import PICTURE, Scale, Weights

Floats = np.ndarray[Any, np.dtype[np.float64]]

ASSUMED_OUTPUT = 500.0
"""Tokens of an answer, thinking included, when nothing is known."""
FEW, MARGIN = 30, 10.0
"""Below `FEW` answers the longest one counts `1 + MARGIN / n` times: 11 for one, 3 for five."""


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known exactly.

    Attributes
    ----------
    low, expected, high : float
        `high` is what may be reached, not what is likely.
    """

    low: float
    expected: float
    high: float

    def __repr__(self) -> str:
        return f"{self.expected:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call asks for.

    Attributes
    ----------
    rows, requests, answered, under_way, given_up : int
    model : str
    weight : Weights
        Of each prompt that has to be paid; k of them.
    attempts : numpy.ndarray
        How often each of them may be sent; shape (k,).
    max_tokens : int or None
    extra_weight : float
        Of what every body holds beside its messages and the model reads too (a schema).
    """

    rows: int
    requests: int
    answered: int
    under_way: int
    given_up: int
    model: str
    weight: Weights
    attempts: Floats
    max_tokens: int | None = None
    extra_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """Output tokens, thinking included, of answers that are stored.

    Attributes
    ----------
    same : numpy.ndarray
        To the same question: template, parameters and model.
    other : numpy.ndarray
        By the same model to other questions.
    """

    same: Floats = field(default_factory=lambda: np.zeros(0))
    other: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would send and cost. Made by ``df.llm.estimate``.

    Attributes
    ----------
    rows, requests : int
        Rows of the frame, and the distinct requests that they make.
    answered, under_way, given_up : int
        Requests that are answered for good, that a batch job carries, and that were tried often
        enough; nothing of them is paid again.
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

    def line(self) -> str:
        """Return what is printed before an upload: one line."""
        parts = [f"{count(self.rows, 'row')}, {count(self.requests, 'distinct request')}"]
        parts.append(f"{self.answered:,} already answered")
        if self.under_way:
            parts.append(f"{self.under_way:,} under way")
        return f"{', '.join(parts)}; {self.cost_line()}"

    def cost_line(self) -> str:
        """Return the cost of what is to pay, with its range and what it rests on."""
        if not self.to_pay:
            return "nothing to pay"
        head = f"{self.to_pay:,} to pay: "
        if self.usd_batch is None:
            return f"{head}cost unknown ({self.basis['price']})"
        if self.usd_batch.high == 0:
            return f"{head}$0 ({self.basis['price']})"
        return (
            f"{head}about {dollars(self.usd_batch.expected)} ({dollars_range(self.usd_batch)}; "
            f"{self.basis['output']})"
        )

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, as people read them."""
        out = [
            ("model", self.model),
            ("rows", f"{self.rows:,}"),
            ("distinct requests", f"{self.requests:,}"),
            ("already answered", f"{self.answered:,}"),
        ]
        if self.under_way:
            out.append(("under way", f"{self.under_way:,}"))
        if self.given_up:
            out.append(("tried often enough", f"{self.given_up:,}"))
        out += [
            ("to pay", f"{self.to_pay:,}"),
            ("prompt tokens", repr(self.prompt_tokens)),
            ("output tokens", repr(self.output_tokens)),
        ]
        for name, usd in (("cost as batch", self.usd_batch), ("cost live", self.usd_live)):
            out.append((name, "unknown" if usd is None else _shown(usd)))
        if self.to_pay:
            out += [(f"  {name}s", text) for name, text in self.basis.items()]
            if self.attempts > 1:
                out.append(("  upper end", f"every request sent {self.attempts} times"))
        return out

    def __repr__(self) -> str:
        lines = self.lines()
        width = max(len(name) for name, _ in lines)
        return "Estimate\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in lines)

    def _repr_html_(self) -> str:
        rows = [(name.strip(), text) for name, text in self.lines()]
        return f'{CARD_STYLE}\n<div class="nlf"><h4>Estimate</h4>{facts_table(rows)}</div>'


def dollars_range(usd: Range) -> str:
    """Write the ends of a range."""
    return f"{dollars(usd.low)} to {dollars(usd.high)}"


def _shown(usd: Range) -> str:
    return "$0" if usd.high == 0 else f"{dollars(usd.expected)} ({dollars_range(usd)})"


@dataclass(frozen=True, slots=True)
class Output:
    """Output tokens of one request."""

    low: float
    expected: float
    high: float
    basis: str


def output_tokens(model: str, max_tokens: int | None, observed: Observed) -> Output:
    """Decide how long answers may be.

    The upper end is `max_tokens`; where that is unset, the 99th percentile of the answers to the
    same question, with a margin while these are few, and without any the model's maximum. Answers
    to other questions say nothing about the longest one, only what is usual.
    """
    most, known = max_output_tokens(model)
    same, other = observed.same, observed.other
    seen = same if len(same) else other
    if len(seen):
        expected, low = float(seen.mean()), float(seen.min())
        if len(same) >= 30:
            error = float(same.std(ddof=1)) / np.sqrt(len(same))
            low = max(low, expected - 3.0 * error)
        low = low if len(same) else min(1.0, low)
    else:
        expected, low = ASSUMED_OUTPUT, 1.0
    if len(same):
        usual = f"{expected:,.0f} tokens an answer by {len(same):,} answers to this question"
    elif len(other):
        usual = f"{expected:,.0f} tokens an answer by {len(other):,} answers to other questions"
    else:
        usual = f"{expected:,.0f} tokens an answer assumed"
    if max_tokens is not None:
        high, bound = float(max_tokens), f"at most max_tokens={max_tokens:,}"
    elif len(same):
        high = float(np.percentile(same, 99, method="higher"))
        bound = "their 99th percentile"
        if len(same) < FEW:
            # The longest of a few is not the longest of all.
            margin = 1.0 + MARGIN / len(same)
            high = max(high, min(high * margin, float(most)))
            bound = f"{bound} with a margin, since they are few"
        bound = f"at most {high:,.0f}, {bound}"
    else:
        high = float(most)
        whose = "the model's maximum" if known else "a usual maximum"
        bound = f"at most {most:,}, {whose}: set max_tokens= or run a trial"
    expected = min(expected, high)
    return Output(min(low, expected), expected, high, f"{usual}, {bound}")


def _media(weight: Weights, scale: Scale) -> str:
    told = ""
    if weight.pictures.any() and scale.picture is PICTURE:
        low, expected, high = PICTURE
        told = f"; {expected:,.0f} tokens an image assumed, {low:,.0f} to {high:,.0f} possible"
    if n := int(np.count_nonzero(weight.beyond)):
        told += f"; {count(n, 'prompt')} with a document or recording of unknown length"
    return told


def estimate(demand: Demand, observed: Observed, scale: Scale, price: Price | None) -> Estimate:
    """Put the numbers together.

    Parameters
    ----------
    demand : Demand
    observed : Observed
    scale : Scale
    price : Price or None
    """
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
    )
