"""Decide which requests to send, and so what is paid; nothing else decides it.

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
    """The state of every distinct request; all arrays have shape (m,).

    Attributes
    ----------
    rank : numpy.ndarray
        `RANK` of the best answer, -1 without any.
    attempts : numpy.ndarray
        Ended jobs that carried the request and count.
    carried : numpy.ndarray
        Whether a job that is planned, uncertain, live or unread carries it.
    barred : numpy.ndarray
        Whether it was in a job that failed or was cancelled during this call.
    unread : numpy.ndarray
        Whether it has no answer, and the last job that carried it counts more as answered than
        its output holds.
    """

    rank: Ints
    attempts: Ints
    carried: Mask
    excluded: Mask
    unread: Mask

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
    )


def to_send(states: RequestStates, retries: int, *, again: bool = False) -> Mask:
    """Return the requests that need a job.

    Parameters
    ----------
    retries : int
        Attempts beyond the first.
    again : bool
        Whether the user requested one more attempt, however many there were, even for what may
        have been paid already.
    """
    if again:
        return np.asarray(~states.final & ~states.carried & ~states.excluded)
    return np.asarray(states.open & ~states.excluded & (states.attempts < 1 + retries))


def to_reread(states: RequestStates, retries: int) -> Mask:
    """Return the requests that may be answered in an output worth reading again."""
    lacking = states.unread & ~states.carried & ~states.excluded
    return np.asarray(lacking & (states.attempts < 1 + retries))
