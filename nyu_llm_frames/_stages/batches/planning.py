"""Which requests to send: the one place that decides what is paid.

Comes in: for every distinct request the rank of its best answer, how many jobs have tried it, and
whether a job carries it now. Goes out: a mask. To send = requested - answered - carried - tried
often enough - answered by all accounts, and not to be read.
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
    """Where every distinct request stands; all arrays have shape (m,).

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
        """Answered, or refused for good: nothing will be sent for it again."""
        return np.asarray((self.rank >= 0) & ~np.isin(self.rank, _RETRYABLE_RANKS))

    @property
    def open(self) -> Mask:
        """Another attempt may cure it, and is not known to pay for it twice."""
        return np.asarray(~self.final & ~self.carried & ~self.unread)


def unknown_states(m: int) -> RequestStates:
    """Return the standing of m requests of which nothing is known."""
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
        Whether the user asked for one more attempt, however many there were, and also of what
        may be paid for.
    """
    if again:
        return np.asarray(~states.final & ~states.carried & ~states.excluded)
    return np.asarray(states.open & ~states.excluded & (states.attempts < 1 + retries))


def to_reread(states: RequestStates, retries: int) -> Mask:
    """Return the requests whose output is worth another reading: they may have been answered."""
    lacking = states.unread & ~states.carried & ~states.excluded
    return np.asarray(lacking & (states.attempts < 1 + retries))
