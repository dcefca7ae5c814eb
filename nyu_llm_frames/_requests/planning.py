"""Which requests to send: the one place that decides what is paid.

Comes in: for every distinct request the rank of its best answer, how many jobs have tried it, and
whether a job carries it now. Goes out: a mask. To send = requested - answered - carried - tried
often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nyu_llm_frames._answers.answer import RANK, RETRYABLE

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_RETRYABLE_RANKS = np.array(sorted(RANK[s] for s in RETRYABLE))


@dataclass(frozen=True, slots=True)
class Standing:
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
    """

    rank: Ints
    attempts: Ints
    carried: Mask
    barred: Mask

    @property
    def final(self) -> Mask:
        """Answered, or refused for good: nothing will be sent for it again."""
        return np.asarray((self.rank >= 0) & ~np.isin(self.rank, _RETRYABLE_RANKS))

    @property
    def open(self) -> Mask:
        """Another attempt may cure it."""
        return np.asarray(~self.final & ~self.carried)


def nothing_stands(m: int) -> Standing:
    """Return the standing of m requests of which nothing is known."""
    return Standing(
        rank=np.full(m, -1, np.int64),
        attempts=np.zeros(m, np.int64),
        carried=np.zeros(m, np.bool_),
        barred=np.zeros(m, np.bool_),
    )


def to_send(standing: Standing, retries: int, *, again: bool = False) -> Mask:
    """Return the requests that need a job.

    Parameters
    ----------
    retries : int
        Attempts beyond the first.
    again : bool
        Whether the user asked for one more attempt, however many there were.
    """
    allowed = standing.open & ~standing.barred
    if again:
        return np.asarray(allowed)
    return np.asarray(allowed & (standing.attempts < 1 + retries))
