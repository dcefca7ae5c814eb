"""What a run reports while it works: one frozen record per change.

Comes in: facts from the runner. Goes out: `Progress` records, which never hold a prompt, an answer
or a key. `reporter` sends them; `views` has the default hook.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

logger = logging.getLogger("nyu_llm_frames")

Phase = Literal[
    "uploading",
    "submitting",
    "settling",
    "waiting",
    "asking",
    "reading",
    "done",
    "note",
    "interrupted",
]
MOVING: frozenset[Phase] = frozenset({"waiting", "asking"})
"""Phases that report repeatedly; a display overwrites their line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Attributes
    ----------
    phase : Phase
    message : str
        One line for a person.
    requests : int
        Distinct requests of the run.
    answered : int
        While waiting: requests that the batch jobs under way have finished, as the gateway counts
        them; during a trial: requests that came back.
    jobs : mapping of str to int
        Batch jobs under way per state as shown, such as ``queued`` or ``running``.
    elapsed_s : float
        Seconds since the oldest batch job under way was submitted; a later call continues counting.
    waited_s : float
        Seconds since the call began to wait.
    next_poll_s : float or None
        Seconds until the next poll.
    trouble : str
        What blocks the run, such as a gateway that is not reached; else empty.
    card : callable or None
        Makes the HTML card of the run, once it is over.
    """

    phase: Phase
    message: str
    requests: int = 0
    answered: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    next_poll_s: float | None = None
    trouble: str = ""
    card: Callable[[], str] | None = None


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
