"""Summarizes a sidecar for people: its totals, and its failures by reason.

Comes in: a sidecar, opened for reading. Goes out: a `Summary` of its requests, and a `FailureKind`
for each reason, with one prompt as an example. Prompts are read only for the examples.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nyu_llm_frames._runs.estimating import PRICED_BY, answer_costs
from nyu_llm_frames._runs.stored_answers import StoredAnswers
from nyu_llm_frames._runs.summary import Summary, summarize
from nyu_llm_frames._shared.wording import shortened
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.answers.answer import NO_FAILURE, RETRYABLE, TOKENS
from nyu_llm_frames._tables.columns import shown_error

_EXCERPT = 200
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(slots=True)
class FailureKind:
    """Requests without a good answer for one reason.

    Attributes
    ----------
    status, error : str
        Of the first such request.
    requests : int
    custom_id : str
        The first one.
    prompt : str or None
        The start of its prompt; None where prompts are not kept.
    body : str or None
        The whole request, as JSON.
    """

    status: str
    error: str
    requests: int
    custom_id: str
    prompt: str | None = None
    body: str | None = None


def failure_kinds(stored: StoredAnswers) -> list[FailureKind]:
    """Group the failures by reason, the most frequent first; values in a reason are ignored."""
    kinds: dict[tuple[str, str], FailureKind] = {}
    for jobs in stored.groups().values():
        new: list[FailureKind] = []
        for part in stored.parts(jobs):
            _, outcome = part.outcome(jobs, ["status", "error"])
            bad = np.flatnonzero(~np.isin(outcome.status, list(NO_FAILURE)))
            errors = shown_error(outcome).take(pa.array(bad)).to_pylist()
            for i, error in zip(bad.tolist(), errors, strict=True):
                status = str(outcome.status[i])
                key = status, _VALUES.sub("…", error or "")
                if key not in kinds:
                    custom_id = part.requests.ids[i].as_py()
                    kinds[key] = FailureKind(status, error or "", 0, custom_id)
                    new.append(kinds[key])
                kinds[key].requests += 1
        if new and stored.keeps_prompts(jobs):
            ids = pa.array([kind.custom_id for kind in new])
            _add_prompts(new, StoredRequests(stored.sidecar, jobs, among=ids))
    return sorted(kinds.values(), key=lambda kind: -kind.requests)


def cures(kinds: Sequence[FailureKind], sidecar: str) -> list[str]:
    """Return what may fix these failures, in the words of the command line."""
    statuses = {kind.status for kind in kinds}
    lines = []
    if again := statuses & RETRYABLE:
        words = ", ".join(sorted(again))
        lines.append(f"{words}: one more attempt may help: nyu-llm-frames retry {sidecar}")
    if "truncated" in statuses:
        lines.append(
            "truncated: batch OUTPUT --out FILLED --if-exists fill --max-tokens MORE sends only "
            'these rows; in Python if_exists="fill", max_tokens=...'
        )
    if refused := statuses & {"blocked", "refused"}:
        words = ", ".join(sorted(refused))
        lines.append(f"{words}: another prompt, or leave these rows out; the same one fails again")
    return lines


def _add_prompts(kinds: list[FailureKind], requests: StoredRequests) -> None:
    bodies = requests.bodies(np.arange(len(requests))).to_pylist()
    found = dict(zip(requests.ids.to_pylist(), bodies, strict=True))
    for kind in kinds:
        kind.body = found[kind.custom_id]
        kind.prompt = excerpt(kind.body)


def excerpt(body: str) -> str:
    """Return the start of the last message of a request, in one line."""
    content = json.loads(body)["messages"][-1]["content"]
    if not isinstance(content, str):
        content = " ".join(part.get("text") or f"[{part['type']}]" for part in content)
    return shortened(" ".join(content.split()), _EXCERPT)


def summary_of(stored: StoredAnswers) -> Summary:
    """Return what the displays show of a sidecar, with its requests as the rows."""
    counts: Counter[str] = Counter()
    answers, costs = [], []
    unknown = False
    for (realm, model), jobs in stored.groups().items():
        for part in stored.parts(jobs):
            best, outcome = part.outcome(jobs, ["status", "model", *PRICED_BY])
            counts.update(outcome.counts())
            answers.append(outcome.answers.select(["model", *TOKENS]))
            paid, unpriced = answer_costs(best, realm, model, outcome.answers)
            costs.append(paid)
            unknown |= unpriced
    none = pa.table(
        {"model": pa.array([], pa.string())} | {n: pa.array([], "int64") for n in TOKENS}
    )
    return summarize(
        name=stored.run or stored.sidecar.path.name,
        sidecar=str(stored.sidecar.path),
        model=", ".join(dict.fromkeys(model for _, model in stored.groups())),
        rows=sum(counts.values()),
        counts=dict(counts),
        examples={},
        jobs=stored.jobs(),
        answers=pa.concat_tables(answers) if answers else none,
        costs=None if unknown else pa.concat_arrays(costs) if costs else pa.array([], "float64"),
        at=stored.clock.now(),
        noun="request",
    )
