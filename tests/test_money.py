"""Prices, estimates and budgets: what is told before paying holds for what is paid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._stages.cost import tokens as tokenizers
from nyu_llm_frames._stages.cost.estimate import (
    Demand,
    check_max_cost,
    dollars,
    estimate,
)
from nyu_llm_frames._stages.cost.prices import FREE, Price, Rate, Rates, price_of
from nyu_llm_frames._stages.cost.projection import interval
from nyu_llm_frames._stages.cost.tokens import (
    DEFAULT,
    PICTURE,
    Observed,
    Weights,
    calibrated,
    output_tokens,
    weigh_fragments,
    weigh_messages,
    weigh_text,
)
from nyu_llm_frames._stages.requests.bodies import fragments
from nyu_llm_frames.errors import BudgetError, ConfigurationError

AT = datetime(2026, 11, 1, tzinfo=UTC)
MODEL = "gemini-3-flash-preview"
QUESTION = "Which drug is named in this offence? {{ offense }}"
FLAT = Rates(Rate(0.25), Rate(0.05), Rate(1.5))
PRICE = Price(FLAT, Rates(Rate(0.5), Rate(0.05), Rate(3.0)), "test")

tokens = st.integers(0, 1_000_000)


@pytest.fixture
def frame() -> pd.DataFrame:
    texts = [f"possession of {i} g of cocaine, base; count {i} of {i + 3}" for i in range(40)]
    return pd.DataFrame({"offense": [*texts, *texts[:10]]})


@pytest.fixture
def gateway(quick_gateway: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    # The stand-in counts characters, not Gemini's tokens: a real tokenizer would be wrong there.
    monkeypatch.setattr(tokenizers, "gemma", lambda: None)
    return quick_gateway


def array(*values: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def texts(*weight: float) -> Weights:
    """Prompts without pictures."""
    return Weights(array(*weight), np.zeros(len(weight)), np.zeros(len(weight)))


# --- prices ---------------------------------------------------------------------------------
@given(tokens, tokens, tokens, tokens)
def test_cost_is_additive_in_tokens(a: int, b: int, c: int, d: int) -> None:
    whole = PRICE.cost(array(a + b), array(c + d))
    parts = PRICE.cost(array(a), array(c)) + PRICE.cost(array(b), array(d))
    assert whole == pytest.approx(parts)


@given(tokens, tokens, tokens, tokens)
def test_cost_never_falls_with_more_tokens(prompt: int, output: int, more: int, out: int) -> None:
    tiers = Price(
        Rates(Rate(1.0, ((200_000, 2.0),)), Rate(0.1), Rate(5.0, ((200_000, 9.0),))), FLAT, "test"
    )
    less = tiers.cost(array(prompt), array(output))
    assert tiers.cost(array(prompt + more), array(output + out)) >= less


@given(tokens, tokens, tokens)
def test_cached_prompt_tokens_never_cost_more(prompt: int, cached: int, output: int) -> None:
    plain = PRICE.cost(array(prompt), array(output))
    assert PRICE.cost(array(prompt), array(output), array(cached)) <= plain


def test_long_prompts_pay_the_higher_tier_for_all_their_tokens() -> None:
    rate = Rate(1.0, ((200_000, 2.0),))
    assert rate.at(array(200_000, 200_001)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "model", ["gemini-2.5-flash", "gemini-2.5-pro", MODEL, f"publishers/google/models/{MODEL}"]
)
def test_batch_costs_half_and_says_why(model: str) -> None:
    price = price_of("@vertexai", model, AT)
    assert price is not None
    assert price.batch.input.base == pytest.approx(price.live.input.base / 2)
    assert price.batch.output.base == pytest.approx(price.live.output.base / 2)
    assert price.source.endswith(("batch rate", "half of the live rate"))


@pytest.mark.parametrize(
    ("realm", "model"),
    [
        ("@vertexai", "gemini-of-nobody"),
        ("@vertexai", "gpt-4o"),
        ("@somebody", "llama-3-70b"),
        ("upstream:http://localhost:1", MODEL),
    ],
)
def test_an_unknown_price_is_none(realm: str, model: str) -> None:
    assert price_of(realm, model, AT) is None


def test_this_machine_answers_for_free() -> None:
    price = price_of("local:echo", "anything", AT)
    assert price is FREE
    assert FREE.cost(array(10), array(10)).tolist() == [0.0]


# --- tokens ---------------------------------------------------------------------------------
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_a_prompt_weighs_the_same_as_json_and_as_text(texts: list[str]) -> None:
    plain = [t.replace("\\", "/") for t in texts]  # an escaped backslash is a plain character
    by_json = weigh_fragments(pa.chunked_array([fragments(("user",), [plain])]), ("user",))
    part = fragments(("user",), [["a \\ path", *plain]]).slice(1)  # as of rows that are left
    assert (
        weigh_fragments(pa.chunked_array([part]), ("user",)).text.tolist() == by_json.text.tolist()
    )
    # The short escapes of JSON are seen as one character, \u escapes as what they stand for.
    by_text = [weigh_text(t) for t in plain]
    control = [sum((c < " " and c not in "\b\f\n\r\t") or c == "\x7f" for c in t) for t in plain]
    for a, b, n in zip(by_json.text, by_text, control, strict=True):
        assert a == pytest.approx(b, abs=0.36 * n + 1e-9)


def prompt_with(url: str, **more: str) -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": url, **more}}
    return [{"role": "user", "content": [{"type": "text", "text": "what is this"}, image]}]


@pytest.mark.parametrize(
    "url",
    [
        "gs://b/a}.png",
        'gs://b/"a\\.png',
        "https://h/a.png?x={}",
        "data:image/png;base64," + "A" * 900,
    ],
)
def test_a_picture_with_any_address_counts_as_one_and_never_as_text(url: str) -> None:
    assert weigh_messages(prompt_with(url)) == (3, 1, 0)


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("data:application/pdf;base64,AAAA", {}),
        ("gs://b/a.PDF", {}),
        ("https://h/a.mp4?x=1", {}),
        ("https://h/a", {"mime_type": "audio/wav"}),
    ],
)
def test_a_document_of_unknown_length_may_be_as_long_as_models_read(
    url: str, more: dict[str, str]
) -> None:
    assert weigh_messages(prompt_with(url, **more)) == (3, 1, 1_048_576)
    pages = "data:application/pdf;base64," + b64encode(b"/Type /Page /Type /Page").decode()
    assert weigh_messages(prompt_with(pages)) == (3, 2, 0)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 900)), min_size=1, max_size=40))
def test_a_calibrated_scale_holds_what_it_was_fitted_to(pairs: list[tuple[int, int]]) -> None:
    weight, counted = np.array(pairs, dtype=np.float64).T
    low, expected, high = calibrated(texts(*weight), counted, "test").text
    assert low <= counted.sum() / weight.sum() <= high
    assert low <= expected <= high


@given(
    st.floats(0.3, 3),
    st.integers(60, 3_000),
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 3)), min_size=1, max_size=20),
)
def test_pictures_are_fitted_apart_from_text(
    per_weight: float, per_picture: int, prompts: list[tuple[int, int]]
) -> None:
    text, pictures = np.array(prompts, dtype=np.float64).T
    counted = text * per_weight + pictures * per_picture
    scale = calibrated(Weights(text, pictures, 0 * text), counted, "test")
    if not pictures.all():
        assert scale.text[1] == pytest.approx(per_weight)
        assert scale.picture[1] == pytest.approx(per_picture if pictures.any() else PICTURE[1])
    told = estimate(
        replace(demand([1.0] * len(text), 1, 9), weight=Weights(text, pictures, 0 * text)),
        Observed(),
        scale,
        None,
    )
    assert told.prompt_tokens.low <= counted.sum() * (1 + 1e-9)
    assert counted.sum() <= told.prompt_tokens.high
    if pictures.any():
        assert told.prompt_tokens.expected == pytest.approx(counted.sum())


# --- output ---------------------------------------------------------------------------------
def test_max_tokens_bounds_the_answers() -> None:
    output = output_tokens(MODEL, 50, Observed(same=array(10, 20, 400)))
    assert (output.high, output.expected) == (50, 50)
    assert output.basis == "each counted at the limit of 50"


def test_the_99th_percentile_bounds_the_answers_when_max_tokens_is_unset() -> None:
    output = output_tokens(MODEL, None, Observed(same=np.arange(1.0, 201.0)))
    assert output.high == 199
    assert "99th percentile" in output.basis


@pytest.mark.parametrize(("n", "high"), [(1, 440), (5, 120), (10, 80), (30, 40), (200, 40)])
def test_a_few_answers_bound_the_others_with_a_margin(n: int, high: float) -> None:
    output = output_tokens(MODEL, None, Observed(same=np.full(n, 40.0)))
    assert output.high == high
    assert ("few" in output.basis) == (n < 30)


def test_the_margin_goes_no_further_than_the_model() -> None:
    assert output_tokens(MODEL, None, Observed(same=array(60_000))).high == 65_536
    assert output_tokens(MODEL, None, Observed(same=array(70_000))).high == 70_000


def test_thinking_is_part_of_what_answers_took(gateway: StandIn) -> None:
    gateway.behaviour.row = lambda custom_id, body: [
        rows.with_text(custom_id, body, "one two", thinking="long")
    ]
    frame = pd.DataFrame({"q": [f"q {i}" for i in range(60)]})
    run = frame.iloc[:40].llm.submit("{{ q }}", model=MODEL).wait()
    took = run.usage["completion_tokens"] + run.usage["reasoning_tokens"]
    assert run.usage["reasoning_tokens"] > 0
    ahead = frame.llm.estimate("{{ q }}", model=MODEL)
    assert ahead.output_tokens.high == ahead.output_tokens.expected == took / 40 * 20


def test_other_questions_tell_the_usual_length_but_bound_nothing() -> None:
    output = output_tokens(MODEL, None, Observed(other=array(10, 20, 30)))
    assert output.expected == 20
    assert output.high == 65_536
    assert "the model's limit" in output.basis


def test_the_maximum_of_a_foreign_model_is_called_usual() -> None:
    assert "a usual limit" in output_tokens("llama", None, Observed()).basis


# --- estimates ------------------------------------------------------------------------------
def demand(weight: list[float], attempts: int, max_tokens: int | None) -> Demand:
    k = len(weight)
    prompts = texts(*weight)
    return Demand(k, k, 0, 0, 0, MODEL, prompts, np.full(k, float(attempts)), max_tokens)


@given(
    st.lists(st.floats(1, 1e5), max_size=20),
    st.integers(1, 3),
    st.none() | st.integers(1, 10_000),
    st.lists(st.integers(0, 60_000), max_size=30),
)
def test_ranges_are_in_order(
    weight: list[float], attempts: int, max_tokens: int | None, seen: list[int]
) -> None:
    told = estimate(
        demand(weight, attempts, max_tokens), Observed(same=array(*seen)), DEFAULT, PRICE
    )
    assert told.usd_batch is not None
    assert told.usd_live is not None
    for part in (told.prompt_tokens, told.output_tokens, told.usd_batch, told.usd_live):
        assert 0 <= part.low <= part.expected * (1 + 1e-9)
        assert part.expected <= part.high * (1 + 1e-9)


def test_the_upper_end_counts_every_attempt() -> None:
    once = estimate(demand([10, 20], 1, 100), Observed(), DEFAULT, PRICE).usd_batch
    twice = estimate(demand([10, 20], 2, 100), Observed(), DEFAULT, PRICE).usd_batch
    assert once is not None
    assert twice is not None
    assert twice.high == pytest.approx(2 * once.high)
    assert twice.expected == once.expected


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0"), (12.3, "$12.30"), (1234.5, "$1,234.50"), (0.0421, "$0.042"), (3.1e-5, "$0.000031")],
)
def test_dollars_show_the_digits_that_matter(amount: float, text: str) -> None:
    assert dollars(amount) == text


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 1000))
def test_a_projection_holds_its_own_mean(each: list[float], times: int) -> None:
    told = interval(array(*each), times)
    assert told is not None
    assert 0 <= told.low <= told.expected <= told.high
    assert told.expected == pytest.approx(times * np.mean(each))


def test_an_estimate_covers_what_is_paid(gateway: StandIn, frame: pd.DataFrame) -> None:
    before = frame.llm.estimate(QUESTION, model=MODEL)
    assert (before.rows, before.requests, before.to_pay) == (50, 40, 40)
    run = frame.llm.submit(QUESTION, model=MODEL).wait()
    assert before.usd_batch is not None
    assert run.cost is not None
    assert before.usd_batch.low <= run.cost <= before.usd_batch.high
    assert before.prompt_tokens.low <= run.usage["prompt_tokens"] <= before.prompt_tokens.high
    after = frame.llm.estimate(QUESTION, model=MODEL)
    assert (after.answered, after.to_pay) == (40, 0)
    assert after.line().endswith("; nothing to pay")
    assert after.cost_lines() == []


def test_earlier_answers_sharpen_an_estimate_of_new_rows(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    vague = frame.iloc[20:40].llm.estimate(QUESTION, model=MODEL)
    frame.iloc[:20].llm.batch(QUESTION, model=MODEL)
    sharp = frame.iloc[20:40].llm.estimate(QUESTION, model=MODEL)
    assert sharp.to_pay == 20
    assert "earlier prompts" in sharp.basis["prompt"]
    assert "99th percentile" in sharp.basis["output"]
    assert sharp.output_tokens.high < vague.output_tokens.high
    run = frame.iloc[20:40].llm.submit(QUESTION, model=MODEL).wait()
    assert run.cost is not None
    assert sharp.usd_batch is not None
    assert sharp.usd_batch.low <= run.cost <= sharp.usd_batch.high


def test_an_estimate_makes_no_sidecar_and_no_call(gateway: StandIn, frame: pd.DataFrame) -> None:
    frame.llm.estimate(QUESTION, model=MODEL)
    assert not Path("llm_sidecar").exists()
    assert gateway.log == []


def test_an_estimate_makes_no_column_and_minds_none(frame: pd.DataFrame) -> None:
    known = frame.assign(response="from an earlier call")
    told = [f.llm.estimate(QUESTION, model=MODEL) for f in (known, frame)]
    assert told[0] == told[1]


def test_an_estimate_needs_no_key(frame: pd.DataFrame) -> None:
    told = frame.llm.estimate(QUESTION, model="model-of-nobody")
    assert told.usd_batch is None
    assert "no price is known" in repr(told)


def test_requests_under_way_are_not_paid_again(gateway: StandIn, frame: pd.DataFrame) -> None:
    gateway.behaviour.validating_polls = -1
    frame.iloc[:30].llm.submit(QUESTION, model=MODEL)
    told = frame.llm.estimate(QUESTION, model=MODEL)
    assert (told.under_way, told.to_pay) == (30, 10)


def test_a_tokenizer_of_the_family_is_named(frame: pd.DataFrame) -> None:
    pytest.importorskip("splintr")
    told = frame.llm.estimate(QUESTION, model=MODEL)
    assert told.basis["prompt"] == "counted with Gemma 3's tokenizer"
    other = frame.llm.estimate(QUESTION, model="other-model")
    assert "characters per token" in other.basis["prompt"]


class Words:
    """A tokenizer that has a token for each word."""

    def encode(self, text: str) -> list[str]:
        return text.split()


def test_the_tokenizer_reads_three_hundred_prompts_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Reading(Words):
        def encode(self, text: str) -> list[str]:
            read.append(text)
            return super().encode(text)

    monkeypatch.setattr(tokenizers, "gemma", Reading)
    many = pd.DataFrame({"q": [f"{i} " * (i % 7 + 1) for i in range(5_000)]})
    told = many.llm.estimate("{{ q }}", model=MODEL)
    assert told.basis["prompt"] == "counted with Gemma 3's tokenizer in 300 of the prompts"
    assert len(read) == 300
    tokens = sum(len(q.split()) + 4 for q in many["q"])
    assert told.prompt_tokens.expected == pytest.approx(tokens, rel=0.1)


@pytest.mark.parametrize("tokenizer", [None, Words()], ids=["characters", "tokenizer"])
def test_whatever_counts_text_pictures_are_counted_the_same_way(
    tokenizer: Words | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers, "gemma", lambda: tokenizer)
    photos = pd.DataFrame(
        {"q": ["What is in it?"] * 9, "photo": [f"gs://b/{i}.png" for i in range(9)]}
    )

    def told(images: str | None) -> llm.Estimate:
        found = photos.assign(q=photos.q + photos.photo)
        return found.llm.estimate("{{ q }}", model=MODEL, max_tokens=9, images=images)

    with_photos, without = told("photo").prompt_tokens, told(None).prompt_tokens
    assert with_photos.low - without.low == pytest.approx(9 * PICTURE[0])
    assert with_photos.expected - without.expected == pytest.approx(9 * PICTURE[1])
    assert with_photos.high - without.high == pytest.approx(9 * PICTURE[2])
    assert "1,120 tokens per image" in told("photo").basis["prompt"]
    with pytest.raises(BudgetError):
        photos.llm.batch(
            "{{ q }}", model=MODEL, max_tokens=9, retries=0, images="photo", max_cost=0.003
        )


def test_earlier_prompts_without_pictures_do_not_make_pictures_cheap(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    frame.llm.batch(QUESTION, model=MODEL)
    photos = pd.DataFrame({"photo": [f"gs://b/{i}.png" for i in range(9)]})
    told = photos.llm.estimate("What is in it?", model=MODEL, images="photo")
    assert "earlier prompts" in told.basis["prompt"]
    assert told.prompt_tokens.high > 9 * PICTURE[2]


# --- budgets --------------------------------------------------------------------------------
def test_a_budget_refuses_before_the_upload(gateway: StandIn, frame: pd.DataFrame) -> None:
    with pytest.raises(BudgetError) as caught:
        frame.llm.batch(QUESTION, model=MODEL, max_tokens=1_000, max_cost=0.01)
    assert gateway.uploads == {}
    assert caught.value.max_cost == 0.01
    assert caught.value.upper is not None
    assert caught.value.upper > 0.01
    for part in ("40 requests", "2 attempts", "the limit is 1,000", "genai-prices", "$0.010"):
        assert part in str(caught.value)


def test_a_budget_counts_retries(gateway: StandIn, frame: pd.DataFrame) -> None:
    once = frame.llm.estimate(QUESTION, model=MODEL, max_tokens=100, retries=0).usd_batch
    assert once is not None
    limit = once.high * 1.5
    with pytest.raises(BudgetError):
        frame.llm.submit(QUESTION, model=MODEL, max_tokens=100, max_cost=limit)
    run = frame.llm.submit(QUESTION, model=MODEL, max_tokens=100, max_cost=limit, retries=0)
    assert run.wait().counts() == {"ok": 50}


def test_the_option_holds_for_every_call(gateway: StandIn, frame: pd.DataFrame) -> None:
    with llm.set_options(max_cost=1e-6), pytest.raises(BudgetError):
        frame.llm.batch(QUESTION, model=MODEL, max_tokens=10)
    with llm.set_options(max_cost=1e-6):  # the argument goes before
        frame.llm.batch(QUESTION, model=MODEL, max_tokens=10, max_cost=5)


def test_a_budget_without_a_price_raises(gateway: StandIn, frame: pd.DataFrame) -> None:
    with pytest.raises(BudgetError, match="no price is known"):
        frame.llm.batch(QUESTION, model="model-of-nobody", max_cost=100)
    assert gateway.uploads == {}


def test_an_answered_call_is_within_any_budget(gateway: StandIn, frame: pd.DataFrame) -> None:
    frame.llm.batch(QUESTION, model="model-of-nobody")
    out = frame.llm.batch(QUESTION, model="model-of-nobody", max_cost=0)
    assert out["response"].notna().all()


@pytest.mark.parametrize("value", [-1, "5", True, float("nan"), float("inf")])
def test_max_cost_must_be_an_amount(value: object) -> None:
    with pytest.raises(ConfigurationError):
        check_max_cost(value, None)


# --- afterwards -----------------------------------------------------------------------------
def test_thinking_is_billed_as_output(gateway: StandIn, frame: pd.DataFrame) -> None:
    gateway.behaviour.row = rows.thinking
    out = frame.llm.batch(QUESTION, model=MODEL, details=True)
    price = price_of("@vertexai", MODEL, datetime.now(UTC))
    assert price is not None
    assert (out["response_reasoning_tokens"] > 0).all()
    billed = out["response_completion_tokens"] + out["response_reasoning_tokens"]
    expected = price.cost(out["response_prompt_tokens"].to_numpy(float), billed.to_numpy(float))
    assert out["response_cost"].to_numpy(float) == pytest.approx(expected)


def test_rows_that_share_an_answer_count_once(gateway: StandIn, frame: pd.DataFrame) -> None:
    run = frame.llm.submit(QUESTION, model=MODEL, details=True).wait()
    out = run.result()
    assert out["response_cost"].iloc[40] == out["response_cost"].iloc[0]
    distinct = out.drop_duplicates("response_custom_id")
    assert run.cost == pytest.approx(distinct["response_cost"].sum())
    assert run.usage["prompt_tokens"] == distinct["response_prompt_tokens"].sum()
    assert run.cost < out["response_cost"].sum()


def test_without_a_price_the_cost_is_unknown(gateway: StandIn, frame: pd.DataFrame) -> None:
    run = frame.llm.submit(QUESTION, model="model-of-nobody", details=True).wait()
    assert run.cost is None
    assert run.result()["response_cost"].isna().all()


def test_a_run_tells_its_cost_in_short_lines_before_its_upload(
    gateway: StandIn, frame: pd.DataFrame
) -> None:
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        frame.llm.batch(QUESTION, model=MODEL, max_tokens=20)
    line = next(i for i, text in enumerate(told) if "distinct requests" in text)
    assert told[line] == "50 rows, 40 distinct requests, 0 already answered; 40 to pay"
    cost, cure = told[line + 1 : line + 3]
    assert re.fullmatch(
        r"cost: about \$\S+, at most \$\S+ \(thinking and answer: up to 20 tokens\)", cost
    )
    assert re.fullmatch(r"a trial of 5 rows \(about \$\S+\) will narrow this", cure)
    assert max(map(len, told[line : line + 3])) < 80
    assert line + 2 < next(i for i, text in enumerate(told) if "uploading" in text)


def test_the_guess_never_contradicts_the_limit(frame: pd.DataFrame) -> None:
    def basis(max_tokens: int) -> str:
        found = frame.llm.estimate(QUESTION, model="model-of-nobody", max_tokens=max_tokens)
        return str(found.basis["output"])

    assert basis(50) == "each counted at the limit of 50"
    assert basis(4096) == "500 each is a guess; the limit is 4,096"


def test_a_printed_estimate_begins_with_the_cost_and_says_nothing_twice(
    frame: pd.DataFrame,
) -> None:
    found = frame.llm.estimate(QUESTION, model=MODEL, max_tokens=50)
    assert repr(found).splitlines()[:3] == [*found.cost_lines(), found.line()]
    assert len(repr(found).splitlines()) <= 9
    for line in found.cost_lines():
        assert found._repr_html_().count(escape(line)) == 1


@pytest.mark.parametrize(("rows", "cure"), [(5, None), (20, "a trial of 5 rows"), (91, "of 30")])
def test_a_trial_is_suggested_where_it_is_a_part_of_the_table(rows: int, cure: str | None) -> None:
    frame = pd.DataFrame({"x": range(rows)})
    lines = frame.llm.estimate("Say {{ x }}", model=MODEL).cost_lines()[1:]
    assert [cure in line for line in lines if cure] == [True] * len(lines)
    assert bool(lines) == (cure is not None)


def test_enough_answers_narrow_the_cost(gateway: StandIn) -> None:
    frame = pd.DataFrame({"x": range(80)})
    frame.iloc[:40].llm.batch("Say {{ x }}", model=MODEL)
    (line,) = frame.llm.estimate("Say {{ x }}", model=MODEL).cost_lines()
    assert re.fullmatch(r"cost: about \$\S+, probably no more than \$\S+", line)


def test_importing_the_package_imports_no_prices_and_no_plots() -> None:
    code = (
        "import sys, json, nyu_llm_frames; heavy = ('genai_prices', 'matplotlib', 'portkey_ai', "
        "'splintr', 'tqdm'); print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
