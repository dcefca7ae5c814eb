"""Whether a run may start: its upper estimate against what it may cost.

Comes in: an `Estimate` and a limit in US dollars. Goes out: nothing, or a `BudgetError` with the
numbers, before anything is uploaded.
"""

from __future__ import annotations

import math

from nyu_llm_frames._shared.wording import dollars
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames.errors import BudgetError, ConfigurationError


def check_max_cost(max_cost: object, option: float | None) -> float | None:
    """Return the limit in force: the argument, else the option.

    Raises
    ------
    ConfigurationError
        For what is no amount.
    """
    if max_cost is None:
        return option
    number = isinstance(max_cost, int | float) and not isinstance(max_cost, bool)
    if not number or not math.isfinite(max_cost) or max_cost < 0:  # type: ignore[arg-type, operator]
        raise ConfigurationError(f"max_cost must be US dollars, not {max_cost!r}.")
    return float(max_cost)  # type: ignore[arg-type]


def check_budget(
    estimate: Estimate, max_cost: float | None, *, live: bool = False, more: bool = False
) -> None:
    """Refuse a run that may cost more than it may.

    Parameters
    ----------
    estimate : Estimate
    max_cost : float or None
        US dollars.
    live : bool
        Whether requests are answered now, at the live rate.
    more : bool
        Whether something was sent before, which this would be added to.

    Raises
    ------
    BudgetError
        Also when no price is known: then nobody can tell.
    """
    if max_cost is None or not estimate.to_pay:
        return
    usd = estimate.usd_live if live else estimate.usd_batch
    sent = "Nothing more was sent; every answer is kept." if more else "Nothing was sent."
    if usd is None:
        raise BudgetError(
            f"max_cost={max_cost:g} cannot be kept: {estimate.basis['price']}, so nobody can tell "
            f"what {estimate.to_pay:,} requests cost. {sent} Leave max_cost out to go "
            "on without a limit.",
            max_cost=max_cost,
        )
    upper = usd.high
    if upper <= max_cost:
        return
    times = f", each sent up to {estimate.attempts} times" if estimate.attempts > 1 else ""
    basis = estimate.basis
    raise BudgetError(
        f"The upper estimate {dollars(upper)} is above max_cost={dollars(max_cost)}; about "
        f"{dollars(usd.expected)} is likely. It counts {estimate.to_pay:,} "
        f"requests{times}; prompts: {estimate.prompt_tokens.high:,.0f} tokens "
        f"({basis['prompt']}); answers: {estimate.output_tokens.high:,.0f} tokens "
        f"({basis['output']}); price: {basis['price']}. {sent} Ways out: set "
        "max_tokens=, run df.llm.trial(...) so that real answers tell their length, send fewer "
        "rows, set retries=0, or raise max_cost.",
        max_cost=max_cost,
        upper=upper,
    )
