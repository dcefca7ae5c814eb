"""Prices of tokens in US dollars, live and in batch, from the tables of genai-prices.

None is ever invented. The tables come with the package: nothing is looked up.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from nyu_llm_frames._stages.requests.models import bare_name

Floats = np.ndarray[Any, np.dtype[np.float64]]

_MILLION = 1e6
# Slugs of a workspace are free text; these words show which provider it leads to.
_PROVIDERS = {
    "vertex": "google",
    "google": "google",
    "gemini": "google",
    "azure": "azure",
    "openai": "openai",
    "anthropic": "anthropic",
    "bedrock": "aws",
}
# Makers whose models cost the same wherever they are sold by the token.
_MAKERS = frozenset({"google", "openai", "anthropic"})

DEFAULT_MAX_OUTPUT = 65_536
_MAX_OUTPUT = {"gemini-1": 8_192, "gemini-2.0": 8_192, "gemini-": 65_536}


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars per million tokens.

    `tiers` are in ascending order: above so many prompt tokens all tokens of the request cost this.
    """

    base: float
    tiers: tuple[tuple[int, float], ...] = ()

    def at(self, prompt_tokens: Floats) -> Floats | float:
        """Return the rate for requests with prompts of these sizes."""
        if not self.tiers:
            return self.base
        rate = np.full(prompt_tokens.shape, self.base)
        for start, price in self.tiers:
            rate[prompt_tokens > start] = price
        return rate

    def times(self, factor: float) -> Rate:
        return Rate(self.base * factor, tuple((s, p * factor) for s, p in self.tiers))


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one kind of service, batch or live; thinking is output."""

    input: Rate
    cached: Rate
    output: Rate


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs; `source` tells a person where the numbers come from."""

    batch: Rates
    live: Rates
    source: str

    def cost(
        self,
        prompt: Floats,
        output: Floats | float,
        cached: Floats | float = 0.0,
        *,
        live: bool = False,
    ) -> Floats:
        """Return US dollars per request.

        All counts are tokens per request: `output` with the thinking, `cached` the part of the
        prompt that was read from a cache, whose discount takes precedence. `live` is whether the
        request is answered now, outside a batch job.
        """
        rates = self.live if live else self.batch
        read = np.minimum(cached, prompt)
        dollars = (
            (prompt - read) * rates.input.at(prompt)
            + read * rates.cached.at(prompt)
            + output * rates.output.at(prompt)
        )
        return np.asarray(dollars / _MILLION)


_NOTHING = Rates(Rate(0.0), Rate(0.0), Rate(0.0))
FREE = Price(_NOTHING, _NOTHING, "answered on this machine, free of charge")


def _rate(value: Any) -> Rate | None:
    if value is None:
        return None
    if hasattr(value, "tiers"):
        tiers = sorted((int(t.start), float(t.price)) for t in value.tiers)
        return Rate(float(value.base), tuple(tiers))
    return Rate(float(value))


def _rates(table: Any) -> Rates | None:
    read = {name: _rate(getattr(table, f"{name}_mtok", None)) for name in ("input", "output")}
    if read["input"] is None or read["output"] is None:
        return None
    cached = _rate(getattr(table, "cache_read_mtok", None))
    return Rates(read["input"], cached or read["input"], read["output"])


def _half(live: Rates) -> Rates:
    """Batch rates where the tables do not list them: half, but caching is not halved."""
    return Rates(live.input.times(0.5), live.cached, live.output.times(0.5))


@lru_cache(maxsize=64)
def price_of(realm: str, model: str, at: datetime) -> Price | None:
    """Find the price of a model at a time, UTC; None where none is known.

    `realm` is who answers: a provider, ``local:<model>`` or ``upstream:<url>``. The model may be
    named with or without ``publishers/google/models/``.
    """
    if realm.startswith("local:"):
        return FREE
    if realm.startswith("upstream:"):
        return None
    import genai_prices

    slug = realm.lower()
    provider = next((name for word, name in _PROVIDERS.items() if word in slug), None)
    name = bare_name(model)

    def look(context: dict[str, str] | None) -> Any:
        return genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1, output_tokens=1),
            name,
            provider_id=provider,
            genai_request_timestamp=at,
            price_context=context,
        )

    try:
        standard, batched = look(None), look({"processing": "batch"})
    except LookupError:
        return None
    if provider is None and standard.provider.id not in _MAKERS:
        return None
    live, batch = _rates(standard.model_price), _rates(batched.model_price)
    if live is None or batch is None:
        return None
    source = f"genai-prices {genai_prices.__version__}, {standard.provider.id} {standard.model.id}"
    if batch == live:
        return Price(_half(live), live, f"{source}: half of the live rate")
    return Price(batch, live, f"{source}: batch rate")


@dataclass(frozen=True, slots=True)
class Model:
    """A model for batch jobs; `context` is the longest prompt in tokens, None where not known."""

    name: str
    context: int | None
    price: Price


# What answers with no text, or not in batch jobs.
_OTHER_KINDS = re.compile(
    r"embedding|image|banana|tts|live|robotics|omni|gemini-pro|-1\.5|gemini-1"
)


def _google() -> Any:
    from genai_prices.data import providers

    return next(p for p in providers if p.id == "google")


def gemini_models(at: datetime) -> list[Model]:
    """Return the Gemini models that answer with text and are not deprecated, by name."""
    found = []
    for model in _google().models:
        name = model.id
        if not name.startswith("gemini") or model.deprecated or _OTHER_KINDS.search(name):
            continue
        price = price_of("@vertexai", name, at)
        if price is not None:
            found.append(Model(name, model.context_window, price))
    return sorted(found, key=lambda model: model.name)


def nearest_gemini(model: str) -> str | None:
    """Return the known Gemini nearest to a name; None where the name itself is known."""
    known: list[str] = [m.id for m in _google().models if m.id.startswith("gemini")]
    found = _google().find_model(bare_name(model))
    if found is not None and found.id in known:
        return None
    return difflib.get_close_matches(bare_name(model), known, 1, cutoff=0.0)[0]


def max_output_tokens(model: str) -> tuple[int, bool]:
    """Return the longest answer that a model can give, and whether that is known."""
    name = bare_name(model)
    for start, most in _MAX_OUTPUT.items():
        if name.startswith(start):
            return most, True
    return DEFAULT_MAX_OUTPUT, False
