"""Costs from the sidecar: what is still to pay, and how many tokens earlier answers took.

Comes in: the requests of a call, an open sidecar or None. Goes out: an `Estimate`, and the cost of
existing answers. Reads only; a missing sidecar is not created.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._jobs.planner import RequestSet
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.answer_store import Best, gather, name_of, read_answers
from nyu_llm_frames._sidecar.folder import IDS, Sidecar
from nyu_llm_frames._sidecar.id_lookup import positions
from nyu_llm_frames._stages.answers.answer import TOKENS
from nyu_llm_frames._stages.batches.job import UNPAID
from nyu_llm_frames._stages.batches.planning import Ints, Mask, RequestStates, to_send
from nyu_llm_frames._stages.batches.wire import read_json
from nyu_llm_frames._stages.cost import tokens as _tokens
from nyu_llm_frames._stages.cost.estimate import Demand, Estimate, estimate, total
from nyu_llm_frames._stages.cost.prices import FREE, Floats, Price, price_of
from nyu_llm_frames._stages.cost.tokens import DEFAULT, Observed, Scale, Weighed, Weights
from nyu_llm_frames._stages.requests.bodies import Requests, encode

TRIAL = "trial-"
"""Names of runs whose answers were bought live, at the live rate."""

_SAMPLE = 300
_WEIGHED = 65_536
_MAX_OBSERVED = 50_000
PRICED_BY = (*TOKENS, "cached_tokens", "job", "stored_at")
"""The columns of an answer that its price depends on."""


def to_pay(
    ids: pa.Array,
    states: RequestStates,
    sidecar: Sidecar | None,
    realm: str,
    *,
    retries: int,
    again: bool | None,
) -> tuple[Mask, Ints]:
    """Return which requests the next upload would pay, and how often each may be sent.

    With `again` also requests with no attempts left; None where only what is planned is sent.
    """
    paid = np.zeros(len(ids), np.bool_)
    if again is not None:
        paid = to_send(states, retries, again=again)
    if sidecar is not None:
        # Not made yet, as far as is known: the next call drives them, and pays for them.
        for name, job in sidecar.jobs().items():
            if job.step in UNPAID and job.realm == realm:
                where = positions(sidecar.request_ids(name), ids)
                paid[where[where >= 0]] = True
    paid &= ~states.final
    return paid, np.maximum(1 + retries - states.attempts[paid], 1)


def estimate_requests(
    requests: RequestSet,
    states: RequestStates,
    sidecar: Sidecar | None,
    *,
    realm: str,
    at: datetime,
    template: str | None = None,
    rows: int = 0,
    retries: int = 0,
    again: bool | None = False,
) -> Estimate:
    """Estimate what the next upload would pay; `again` as for `to_pay`.

    Rendered requests are counted with what the sidecar knows, stored ones by their bodies. Answers
    to the same question, by its template as the sidecar stores it, have similar lengths. Without a
    sidecar all requests are sent.
    """
    paid, left = to_pay(requests.ids, states, sidecar, realm, retries=retries, again=again)
    chosen = np.flatnonzero(paid)
    counts = (
        rows,
        len(requests),
        int(states.final.sum()),
        int((states.carried & ~paid).sum()),
        int((~states.final & ~states.carried & ~paid).sum()),
    )
    model, observed, scale = requests.shape.model, Observed(), None
    if len(chosen) and isinstance(requests, Requests):
        if sidecar is not None:
            observed, scale = _observe(requests, template, realm, sidecar)
        scale = scale or _by_tokenizer(requests, chosen)
    price = price_of(realm, model, at) if len(chosen) else FREE
    parts = []
    for weights, attempts, max_tokens, extra in _weighed(requests, chosen, left):
        demand = Demand(*counts, model, weights, attempts, max_tokens, extra)
        parts.append(estimate(demand, observed, scale or DEFAULT, price))
        counts = (0, 0, 0, 0, 0)
    return total(parts)


def _weighed(
    requests: RequestSet, chosen: Ints, left: Ints
) -> Iterator[tuple[Weights, Floats, int | None, float]]:
    """Yield the weights of prompts, how often each may be sent, and what they all share."""
    attempts = left.astype(np.float64)
    if isinstance(requests, Requests):
        yield _weights(requests, chosen), attempts, *_beside_messages(requests.shape.params)
        return
    groups: dict[tuple[int | None, float], list[tuple[Weighed, float]]] = {}
    for body, times in zip(requests.bodies(chosen).to_pylist(), attempts.tolist(), strict=True):
        fields = _fields(body)
        weighed = _tokens.weigh_messages(fields.get("messages", ()))
        groups.setdefault(_beside_messages(fields), []).append((weighed, times))
    for beside, found in (groups or {(None, 0.0): []}).items():
        weights = _tokens.as_weights([weighed for weighed, _ in found])
        yield weights, np.array([times for _, times in found], np.float64), *beside


def _fields(body: str) -> dict[str, Any]:
    """Read a stored body; one that is not ours has no fields."""
    value = read_json(body.encode())
    messages = value.get("messages") if isinstance(value, dict) else None
    ours = isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
    return value if ours else {}


def _beside_messages(fields: dict[str, Any]) -> tuple[int | None, float]:
    """Return the limit of an answer, and the weight of what the model reads beside the messages."""
    limit = fields.get("max_tokens") or fields.get("max_completion_tokens")
    read = (fields[name] for name in ("response_format", "tools") if name in fields)
    extra = sum(_tokens.weigh_text(encode(value)) for value in read)
    return (limit if type(limit) is int else None), extra


def _weights(requests: Requests, chosen: Ints) -> Weights:
    if not requests.images:
        # In pieces: prompts may be on disk.
        pieces = [chosen[i : i + _WEIGHED] for i in range(0, len(chosen), _WEIGHED)] or [chosen]
        weights = [
            _tokens.weigh_fragments(requests.some_fragments(piece), requests.shape.roles)
            for piece in pieces
        ]
        parts = [(w.text, w.pictures, w.beyond) for w in weights]
        return Weights(*map(np.concatenate, zip(*parts, strict=True)))
    each = (requests.messages(chosen[i : i + 1])[0] for i in range(len(chosen)))  # images are large
    return _tokens.as_weights([_tokens.weigh_messages(messages) for messages in each])


def _sample(among: Ints) -> Ints:
    """Choose an even sample."""
    return among[np.linspace(0, len(among) - 1, min(len(among), _SAMPLE)).astype(np.int64)]


def _by_tokenizer(requests: Requests, chosen: Ints) -> Scale | None:
    """Count the tokens of a sample of the prompts' text; a tokenizer does not count images."""
    sample = _sample(chosen)
    texts = map(_tokens.message_texts, requests.messages(sample))
    counts = _tokens.count_tokens(requests.shape.model, texts)
    if counts is None:
        return None
    basis = "counted with Gemma 3's tokenizer"
    if len(sample) < len(chosen):
        basis += f" in {len(sample):,} of the prompts"
    counts = counts + 4.0 * len(requests.shape.roles)  # marks around each message
    # Models of one family differ: a newer one may split words differently.
    weight = replace(_weights(requests, sample), pictures=np.zeros(len(sample)))
    return _tokens.calibrated(weight, counts, basis, floor=0.25)


def _numbers(table: pa.Table, name: str) -> Floats:
    """A column of counts with NaN for null."""
    return np.asarray(table[name].to_pandas(), dtype=np.float64)


def _output(table: pa.Table) -> Floats:
    """Output tokens with the thinking, where they were reported."""
    written = _numbers(table, "completion_tokens")
    thought = np.nan_to_num(_numbers(table, "reasoning_tokens"))
    # All tokens went to thinking: nothing was written, and no number was reported for it.
    total = np.where(np.isnan(written) & (thought > 0), thought, written + thought)
    return np.asarray(total[~np.isnan(total)])


def _observe(
    requests: Requests, template: str | None, realm: str, sidecar: Sidecar
) -> tuple[Observed, Scale | None]:
    """Read how many tokens answers of the same model took."""
    jobs, model = sidecar.jobs(), requests.shape.model
    question = (template, json.dumps(requests.shape.params))
    own = gather(sidecar.best_answers(requests.ids), list(TOKENS))
    same, other = [_output(own)], [np.zeros(0)]
    counted = _numbers(own, "prompt_tokens")
    known = _sample(np.flatnonzero(counted > 0))
    scale = None
    if len(known):
        basis = f"calibrated by the real counts of {len(known):,} prompts of this call"
        scale = _tokens.calibrated(_weights(requests, known), counted[known], basis)
    runs = {run.name: run for run in sidecar.runs()}
    pairs: list[tuple[Weighed, float]] = []
    left = _MAX_OBSERVED - len(same[0])
    for path in reversed(_storage.parquet_files(sidecar.answers_folder)):
        if left <= 0:
            break
        name = name_of(path)[1]
        job = jobs.get(name)
        run = runs.get(job.run if job is not None else name)
        maker = job or run
        if maker is None or (maker.realm, maker.model) != (realm, model):
            continue
        table = read_answers(path, ["custom_id", *TOKENS])
        others = np.flatnonzero(positions(table["custom_id"], requests.ids) < 0)[:left]
        table = table.take(pa.array(others))
        left -= len(others)
        theirs = (run.template, run.params) if run is not None else None
        (same if theirs == question else other).append(_output(table))
        if scale is None and job is not None and len(pairs) < _SAMPLE:
            pairs += _pairs(sidecar.path / "requests" / f"{name}.parquet", table)
    if scale is None and pairs:
        weight = _tokens.as_weights([prompt for prompt, _ in pairs])
        basis = f"calibrated by the real counts of {len(pairs):,} earlier prompts of this model"
        counts = np.array([n for _, n in pairs])
        scale = _tokens.calibrated(weight, counts, basis, floor=0.15)  # other texts, other words
    return Observed(np.concatenate(same), np.concatenate(other)), scale


def _pairs(path: Path, answers: pa.Table) -> list[tuple[Weighed, float]]:
    """Weights of prompts that a job keeps, and their real token counts."""
    with _storage.reading(path, IDS) as file:
        if "body" not in file.schema_arrow.names:
            return []
        batch = next(file.iter_batches(_SAMPLE, columns=["custom_id", "body"]), None)
    if batch is None:
        return []
    at = positions(batch.column(0), answers["custom_id"].combine_chunks())
    counted = _numbers(answers, "prompt_tokens")
    out = []
    for body, i in zip(batch.column(1).to_pylist(), at.tolist(), strict=True):
        if i >= 0 and counted[i] > 0:
            weight = _tokens.weigh_messages(_fields(body).get("messages", ()))
            if not weight[2]:  # a document has any length, so it shows nothing about others
                out.append((weight, float(counted[i])))
    return out


def answer_costs(
    best: Best, realm: str, model: str, answers: pa.Table | None = None
) -> tuple[pa.Array, bool]:
    """Return US dollars per request by the reported usage, and whether a price was missing.

    Null where there is no answer, no usage or no price. `answers` are those of `best`, if they are
    in memory, with the columns `PRICED_BY`.
    """
    table = gather(best, list(PRICED_BY)) if answers is None else answers
    m = len(best.rank)
    prompt = _numbers(table, "prompt_tokens")
    written, thought = _numbers(table, "completion_tokens"), _numbers(table, "reasoning_tokens")
    reported = ~(np.isnan(prompt) & np.isnan(written) & np.isnan(thought))
    cached = np.nan_to_num(_numbers(table, "cached_tokens"))
    prompt, output = np.nan_to_num(prompt), np.nan_to_num(written) + np.nan_to_num(thought)
    out = np.full(m, np.nan)
    unpriced = False
    for number in np.flatnonzero(np.bincount(best.file[best.file >= 0])).tolist():
        chosen = np.flatnonzero((best.file == number) & reported)
        if not len(chosen):
            continue
        job = table["job"][int(chosen[0])].as_py() or ""
        price: Price | None = price_of(realm, model, table["stored_at"][int(chosen[0])].as_py())
        if price is None:
            unpriced = True
            continue
        live = job.startswith(TRIAL)
        out[chosen] = price.cost(prompt[chosen], output[chosen], cached[chosen], live=live)
    return pa.array(out, mask=np.isnan(out)), unpriced
