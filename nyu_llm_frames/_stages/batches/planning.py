"""Decide which requests to send, and so what is paid, and in which files; nothing else does.

Comes in: for every distinct request the rank of its best answer, how many jobs have tried it, and
whether a job carries it now. Goes out: a mask. To send = requested - answered - carried - tried
often enough - answered according to the job, though unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nyu_llm_frames._stages.answers.answer import RANK, RETRYABLE

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_RETRYABLE_RANKS = np.array(sorted(RANK[s] for s in RETRYABLE))


@dataclass(frozen=True, slots=True)
class RequestStates:
    """The state of every distinct request; all arrays have shape (m,)."""

    rank: Ints  # `RANK` of the best answer, -1 without any
    attempts: Ints  # ended jobs that carried the request and count
    carried: Mask  # by a job that is planned, uncertain, live or unread
    excluded: Mask  # it was in a job that failed or was cancelled during this call
    unread: Mask  # no answer, and its last job counts more as answered than its output holds
    reread: Mask  # the same, and a later call has read that output in vain

    @property
    def final(self) -> Mask:
        """Answered, or refused for good: it is not sent again."""
        return np.asarray((self.rank >= 0) & ~np.isin(self.rank, _RETRYABLE_RANKS))

    @property
    def open(self) -> Mask:
        """A retry may fix it, and is not known to pay for it twice."""
        return np.asarray(~self.final & ~self.carried & ~self.unread)


def unknown_states(m: int) -> RequestStates:
    """Return the state of m requests about which nothing is known."""
    return RequestStates(
        rank=np.full(m, -1, np.int64),
        attempts=np.zeros(m, np.int64),
        carried=np.zeros(m, np.bool_),
        excluded=np.zeros(m, np.bool_),
        unread=np.zeros(m, np.bool_),
        reread=np.zeros(m, np.bool_),
    )


def to_send(states: RequestStates, retries: int, *, again: bool = False) -> Mask:
    """Return the requests that need a job; `retries` are attempts beyond the first.

    With `again` the user requested one more attempt, however many there were, even for what may
    have been paid already.
    """
    if again:
        return np.asarray(~states.final & ~states.carried & ~states.excluded)
    return np.asarray(states.open & ~states.excluded & (states.attempts < 1 + retries))


def to_reread(states: RequestStates) -> Mask:
    """Return the requests that may be answered in an output worth reading again, at no cost."""
    return np.asarray(states.unread & ~states.reread & ~states.carried & ~states.excluded)


def split(sizes: Ints, max_requests: int, max_bytes: int) -> list[tuple[int, int]]:
    """Split consecutive requests, by their sizes in bytes, into ranges ``(start, stop)``.

    Few large jobs beat many small ones, so every file is filled up to the first limit that it
    meets. A request that alone is above `max_bytes` gets its own range; the caller has to refuse it
    before.
    """
    ends = np.cumsum(sizes)
    ranges = []
    start, used = 0, 0
    while start < len(sizes):
        fits = int(np.searchsorted(ends, used + max_bytes, side="right"))
        stop = min(max(fits, start + 1), start + max_requests, len(sizes))
        ranges.append((start, stop))
        start, used = stop, int(ends[stop - 1])
    return ranges
