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
    """One answer to one request.

    Attributes
    ----------
    custom_id : str
        Id of the request, exactly as in the line.
    status : Status
        Outcome of the request.
    text : str or None
        The answer's text, always encodable as UTF-8; blank for `empty`. None for `blocked`,
        `refused`, `failed`, `missing`, and for `truncated` when nothing was written.
    error : str or None
        One line of at most 500 characters; None for `ok`.
    finish_reason : str or None
        As the gateway spells it.
    prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens : int or None
        Token counts; None where the line has no usage. `completion_tokens` leaves thinking out:
        both it and `reasoning_tokens` are billed.
    model : str or None
        The model that answered, as the gateway names it.
    raw : bytes
        The line as received, without its newline, and without the request that the provider's own
        rows echo.
    """

    custom_id: str
    status: Status
    text: str | None
    error: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    model: str | None
    raw: bytes
