"""What the lab will do to a request, told before it is sent.

Comes in: a scenario, an id, a prompt. Goes out: the status and the text that its row must have.
The lab decides by (seed, kind, id, text) alone, so every status can be known beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
from gateway_lab import oracle, scenarios

FAIL_STATUS = {
    "bad_request": "refused",
    "resource_exhausted": "failed",
    "json": "failed",
    "plain": "failed",
}


def verdict(scenario: dict[str, Any], custom_id: str, prompt: str) -> tuple[str, str | None]:
    """Return status and text of the request's answer, when its job is read to the end."""

    def hit(kind: str) -> bool:
        pct = scenario[f"{kind}_pct"]
        return bool(pct) and oracle.fraction(scenario["seed"], kind, custom_id, prompt) < pct / 100

    bad = FAIL_STATUS[scenario["fail_kind"]]
    if hit("missing") or hit("drop_request_id"):
        return "missing", None
    if hit("fail"):
        return bad, None
    status, text = answered(hit, prompt)
    # A row of a conflict comes twice, the bad one first: the better one stays.
    rank = ("failed", "refused", "blocked", "truncated", "ok").index
    worse = rank(status) < rank(bad) or {status, bad} == {"refused", "blocked"}
    return (bad, None) if hit("conflict") and worse else (status, text)


def answered(hit: Callable[[str], bool], prompt: str) -> tuple[str, str | None]:
    """Return status and text of a row that Google did not fail."""
    text = oracle.expected_answer(prompt)
    if hit("empty_response"):
        return "failed", None
    if hit("blocked"):
        return "blocked", None
    if hit("max_tokens"):
        return "truncated", text[: max(1, len(text) // 2)]
    if hit("max_tokens_empty"):
        return "truncated", None
    if hit("safety"):
        return "blocked", None
    return "ok", text


def check(out: pd.DataFrame, prompts: list[str], name: str = "happy", **settings: Any) -> None:
    """Compare every row of a result (made with ``details=True``) with what the lab did to it."""
    scenario = scenarios.resolve({"name": name, **settings})
    assert len(out) == len(prompts)
    expected = [
        verdict(scenario, custom_id, prompt)
        for custom_id, prompt in zip(out["response_custom_id"], prompts, strict=True)
    ]
    found = [
        (status, None if pd.isna(text) else text)
        for status, text in zip(out["response_status"], out["response"], strict=True)
    ]
    wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert not wrong, [(found[i], expected[i]) for i in wrong[:3]]
    told = out["response_error"].notna() == (out["response_status"] != "ok")
    assert told.all(), "a row without a good answer has no reason"


def counts(out: pd.DataFrame) -> dict[str, int]:
    """Return the rows per status; their sum is all rows."""
    found = Counter(out["response_status"].tolist())
    assert sum(found.values()) == len(out)
    return dict(found)
