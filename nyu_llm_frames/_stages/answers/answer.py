"""The record of one answer, and the statuses that a row can have.

Enter a new status here first: in `Status`, `RANK`, and where it applies, in `NO_FAILURE` and
`RETRYABLE`. `classify` decides the status of a line, and `answer_store` keeps the best answer of an
id.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import msgspec

Status = Literal[
    "ok",
    "empty",
    "truncated",
    "invalid",
    "blocked",
    "refused",
    "failed",
    "missing",
    "damaged",
    "pending",
    "skipped",
]
"""The statuses of a row; the last two mean that there is no answer, or none yet."""

STATUSES: tuple[Status, ...] = get_args(Status)

RANK: Mapping[Status, int] = MappingProxyType(
    {
        "ok": 8,
        "damaged": 7,
        "empty": 6,
        "truncated": 5,
        "invalid": 4,
        "blocked": 3,
        "refused": 3,
        "failed": 2,
        "missing": 1,
        "pending": 0,
        "skipped": 0,
    }
)
"""Of two answers to one id, the one of higher rank is kept."""

RETRYABLE: frozenset[Status] = frozenset({"failed", "missing", "damaged", "empty"})
"""Statuses that a retry of the same request may fix."""


NO_FAILURE: frozenset[Status] = frozenset({"ok", "pending", "skipped"})
"""Statuses that need no warning."""

TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
SHOWN = ("status", "text", "error", "finish_reason", *TOKENS, "model")
"""What is shown of an answer, wherever one is."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One answer to one request."""

    custom_id: str  # exactly as in the line
    status: Status
    # Always encodable as UTF-8; blank for `empty`. None for `blocked`, `refused`, `failed`,
    # `missing`, and for `truncated` when nothing was written.
    text: str | None
    error: str | None  # one line of at most 500 characters; None for `ok`
    finish_reason: str | None  # as the gateway spells it
    # Counts are None where the line has no usage. Thinking is not in `completion_tokens`: both it
    # and `reasoning_tokens` are billed.
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    model: str | None  # that answered, as the gateway names it
    # The line as received, without its newline, and the request that the provider's own rows echo.
    raw: bytes
