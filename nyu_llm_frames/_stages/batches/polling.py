"""Decide how long to wait between polls, and what progress to show; no clock is read here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nyu_llm_frames._shared.options import Options
from nyu_llm_frames._shared.progress import Progress, duration
from nyu_llm_frames._shared.wording import count, first_few, sentence
from nyu_llm_frames._stages.batches.job import UNMADE, Job, undecidable
from nyu_llm_frames.errors import GatewayUnavailableError, RunTimeoutError

STUCK_S = 3600.0
"""Seconds without any change of state after which every line says so."""

_WORDS = {"validating": "queued", "in_progress": "running", "": "new"}


def pause_s(
    options: Options,
    idle: int,
    active: Sequence[Job],
    trouble: GatewayUnavailableError | None,
    jitter: float,
) -> float:
    """Return seconds until the next round, after `idle` rounds without any change.

    `jitter` is around 1: many users share one gateway.
    """
    pause = min(options.poll_interval_s * 1.5 ** min(idle, 60), options.max_poll_interval_s)
    if any(job.step in ("creating", "ended") for job in active):
        pause = min(pause, options.poll_interval_s)  # a settling time runs
    retry_after_s = trouble.retry_after_s if trouble is not None else None
    return max(pause * jitter, retry_after_s or 0.0)


def state_word(job: Job) -> str:
    """Return the state of a job in plain words."""
    if job.step == "live":
        return _WORDS.get(job.status, job.status)
    if undecidable(job):
        return "uncertain"
    return {"creating": "settling", "ended": "reading"}.get(job.step, job.step)


def status_line(
    active: Sequence[Job],
    requests: int,
    *,
    waited_s: float,
    quiet_s: float,
    pause: float,
    trouble: GatewayUnavailableError | None,
    at: datetime | None = None,
) -> Progress:
    """Return the record of a waiting run; its line starts with what matters most.

    With `at`, the time now, it counts from when the jobs were submitted, as later calls do.
    """
    states: dict[str, int] = {}
    for job in active:
        word = state_word(job)
        states[word] = states.get(word, 0) + 1
    counted = sum(job.counted or 0 for job in active)
    words = ", ".join(f"{n} {word}" for word, n in sorted(states.items()))
    parts = [f"batch jobs: {words}"]
    if trouble is not None:
        parts.append(f"trouble: {trouble}")
    if counted:
        parts.append(f"{counted:,} of {count(sum(job.requests for job in active), 'request')} done")
    if quiet_s >= STUCK_S:
        parts.append(f"no progress for {duration(quiet_s)}")
    if "queued" in states:
        parts.append("the queue may last 72 h")
    return Progress(
        "waiting",
        " · ".join(parts),
        requests=requests,
        answered=counted,
        jobs=states,
        elapsed_s=max(waited_s, _since_submit(active, at)),
        waited_s=waited_s,
        next_poll_s=pause,
        trouble="" if trouble is None else str(trouble),
    )


def _since_submit(active: Sequence[Job], at: datetime | None) -> float:
    submitted = [job.submitted_at for job in active if job.submitted_at is not None]
    if at is None or not submitted:
        return 0.0
    return (at - min(submitted)).total_seconds()


def timed_out(active: Sequence[Job], trouble: GatewayUnavailableError | None) -> RunTimeoutError:
    """Return the error of a call that reached its timeout."""
    states = first_few([f"{j.batch_id or j.name}: {state_word(j)}" for j in active])
    why = f" Trouble: {sentence(str(trouble))}" if trouble is not None else ""
    unmade = all(job.step in UNMADE for job in active)
    what = "and nothing was submitted yet" if unmade else "while batch jobs continue"
    return RunTimeoutError(
        f"The timeout expired {what} ({states}).{why} Nothing is lost: the same call resumes at no "
        "extra cost."
    )
