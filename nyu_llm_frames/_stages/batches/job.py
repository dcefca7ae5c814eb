"""The life of a batch job, decided without a clock, a socket or a path.

Comes in: a job's record and what happened. Goes out: the record that must be saved next, and the
one action that the record asks for. `SUCCESSORS` lists every legal step; nothing else moves.

    planned ──▶ uploaded ──▶ creating ──▶ live ──▶ ended ──▶ done
       ▲ │          │ ▲          │ │                 ▲         │
       │ └▶ withdrawn ◀──────────┘ └─▶ rejected      └─────────┘ (short output: look again)
       └──────────────────────────┘ (certainly not made: again, with a new name)

``creating`` is written before the POST. A job found in that step under the lock is an uncertain
submission: it may or may not exist. `settle` decides from the job list, and until then the sidecar
creates no other job.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from nyu_llm_frames._stages.batches.wire import Batch, JobList

Step = Literal["planned", "uploaded", "creating", "live", "ended", "done", "rejected", "withdrawn"]
Action = Literal["upload", "submit", "settle", "poll", "read", "nothing"]
Outcome = Literal["", "completed", "failed", "expired", "cancelled"]

SUCCESSORS: Mapping[Step, frozenset[Step]] = {
    "planned": frozenset({"uploaded", "withdrawn"}),
    "uploaded": frozenset({"uploaded", "creating", "withdrawn"}),
    "creating": frozenset({"live", "uploaded", "planned", "rejected", "creating"}),
    "live": frozenset({"live", "ended"}),
    "ended": frozenset({"ended", "done"}),
    "done": frozenset({"ended"}),
    "rejected": frozenset(),
    "withdrawn": frozenset(),
}

ACTIONS: Mapping[Step, Action] = {
    "planned": "upload",
    "uploaded": "submit",
    "creating": "settle",
    "live": "poll",
    "ended": "read",
    "done": "nothing",
    "rejected": "nothing",
    "withdrawn": "nothing",
}

# Steps in which a request must not be put into another job.
CARRYING: frozenset[Step] = frozenset({"planned", "uploaded", "creating", "live", "ended"})
# Steps in which no job can exist at the gateway.
UNMADE: frozenset[Step] = frozenset({"planned", "uploaded"})
# Steps from which driving the job may make it, and pay for it.
UNPAID: frozenset[Step] = UNMADE | {"creating"}

CANCELLED = "cancelled before it was submitted; a new call sends it"

ENOUGH_REFUSALS = 2
"""Answers that refuse in unknown words: where they made no job, the next would be the same."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One batch job: the content of ``jobs/<name>.parquet``."""

    name: str
    run: str
    owner: str  # the process that planned it (host/boot/pid/start; "" once it has left it)
    realm: str
    model: str
    requests: int
    file_bytes: int
    step: Step = "planned"
    submission: int = 1  # counts file names: every submission has its own
    input_file_id: str | None = None
    gateway: str = ""  # base URL (or "local:") at the time of submission
    # Newest job in the list before submission; "" for an empty list; None when the gateway has no
    # list to read.
    watermark: str | None = None
    # The clock for `submit_settle_s`; before submission, the one that records since when the job
    # list has returned only HTTP 500.
    settle_epoch: str = ""
    settle_from_s: float = 0.0
    refusals: int = 0  # how strongly consecutive answers to submissions suggest a refusal
    looks: int = 0  # conclusive readings of the job list after settling
    blind_looks: int = 0  # and others
    batch_id: str | None = None
    status: str = ""  # the gateway's last word
    output_file_id: str | None = None
    counted: int | None = None  # rows that the ended job counts
    outcome: Outcome = ""
    attempt: bool = True  # whether this job counts as an attempt for its requests
    cancel_requested: bool = False  # by the user
    answers: int = 0
    orphans: int = 0
    duplicates: int = 0
    unread: int = 0  # rows that it counts as answered and that no output held, after all looks
    rereads: int = 0  # readings of such an output by later calls
    complete: bool = False  # whether the output is known to be whole
    error: str | None = None
    planned_at: datetime | None = None
    uploaded_at: datetime | None = None
    submitted_at: datetime | None = None  # of the submission that made the job, or may have
    changed_at: datetime | None = None
    ended_at: datetime | None = None
    done_at: datetime | None = None

    def file_name(self, once: str) -> str:
        """Return a name in the bucket, made unique by `once`: ASCII, in its own folder."""
        return f"nyu-llm-frames/{self.name}-{self.submission}-{once}/requests.jsonl"

    @property
    def action(self) -> Action:
        """What has to be done next."""
        return ACTIONS[self.step]

    @property
    def carries(self) -> bool:
        """Whether its requests must not be put into another job."""
        return self.step in CARRYING

    @property
    def tries(self) -> bool:
        """Whether it tries its requests, or did; False if it was certainly never made."""
        return self.step not in ("rejected", "withdrawn")

    @property
    def has_output_file(self) -> bool:
        """Whether an output object is named; a folder is named where none was written."""
        name = urllib.parse.unquote(self.output_file_id or "")
        return bool(name) and not name.endswith("/")

    @property
    def why_nothing(self) -> str | None:
        """Why a request without an answer will get none; None where one may still come."""
        if self.step == "withdrawn" and self.cancel_requested:
            return CANCELLED
        if self.step != "done":
            return None
        reason = f": {self.error}" if self.error else ""
        text = f"batch job {self.batch_id} {self.outcome} without an answer to this request{reason}"
        if not self.unread:
            return text
        look = "" if self.rereads else "the same call reads it once more, and "
        return (
            f"{text}; the job counts {self.unread:,} more answers than its output holds: {look}"
            "only a retry pays again"
        )

    @property
    def failed_empty(self) -> bool:
        """Whether it failed without any answer, also by its own count."""
        answered = self.answers + self.unread
        return self.step == "done" and self.outcome == "failed" and answered == 0


def _move(job: Job, step: Step, **changes: Any) -> Job:
    if step not in SUCCESSORS[job.step]:
        raise AssertionError(f"job {job.name}: {job.step} cannot become {step}")
    return msgspec.structs.replace(job, step=step, **changes)


def uploaded(job: Job, input_file_id: str, at: datetime) -> Job:
    """The input file is in the bucket."""
    return _move(job, "uploaded", input_file_id=input_file_id, uploaded_at=at, error=None)


def withdrawn(job: Job, at: datetime) -> Job:
    """It is no longer needed, and was never made."""
    return _move(job, "withdrawn", done_at=at)


def left(job: Job) -> Job:
    """The process that planned it no longer works on it."""
    return msgspec.structs.replace(job, owner="")


def stopped(job: Job, at: datetime) -> Job:
    """The user stopped it: taken back where it was never made, else to be cancelled.

    Written before any call to the gateway: what the user stopped is not sent again on its own.
    """
    job = msgspec.structs.replace(job, cancel_requested=True)
    return withdrawn(job, at) if job.step in UNMADE else job


def intended(
    job: Job, listed: JobList | None, *, gateway: str, epoch: str, from_s: float, at: datetime
) -> Job:
    """A submission is about to be sent; save this record first."""
    return _move(
        job,
        "creating",
        watermark=listed.newest if listed is not None else None,
        gateway=gateway,
        settle_epoch=epoch,
        settle_from_s=from_s,
        looks=0,
        blind_looks=0,
        submitted_at=at,
        error=None,
    )


def created(job: Job, batch: Batch, at: datetime) -> Job:
    """The job exists, according to the gateway's answer or its job list."""
    return _move(job, "live", batch_id=batch.id, status=batch.status, changed_at=at, error=None)


def adopted(job: Job, batch_id: str, at: datetime) -> Job:
    """The job was found at the gateway after an uncertain submission."""
    return _move(job, "live", batch_id=batch_id, status="validating", changed_at=at, error=None)


def not_created(job: Job, reason: str) -> Job:
    """The submission made no job; try again later."""
    return _move(job, "uploaded", submitted_at=None, error=reason, settle_epoch="")


def rejected(job: Job, reason: str, at: datetime) -> Job:
    """The gateway will not make a job of this."""
    return _move(job, "rejected", submitted_at=None, error=reason, done_at=at)


def became_uncertain(job: Job, reason: str, *, epoch: str, from_s: float, refusal: int = 0) -> Job:
    """The submission is uncertain; the step stays, the reason is kept.

    The settling time starts again: a submission abandoned after minutes may still be
    under way behind the gateway.
    """
    return _move(
        job,
        "creating",
        error=reason,
        settle_epoch=epoch,
        settle_from_s=from_s,
        refusals=refusal and job.refusals + refusal,
    )


def settling_started(job: Job, epoch: str, from_s: float) -> Job:
    """A settling time starts (again), by a clock that can be read here."""
    return _move(job, job.step, settle_epoch=epoch, settle_from_s=from_s)


def settle(job: Job, listed: JobList | None, *, settled: bool, at: datetime) -> Job:
    """Read the job list, if the gateway has one, once after an uncertain submission.

    `settled` is whether `submit_settle_s` has passed since the intent. Looks before that can find
    the job, but not its absence: a job may appear seconds after its caller died.
    """
    found = listed.find(job.input_file_id or "") if listed is not None else None
    if found is not None:
        return adopted(job, found, at)
    if not settled:
        return job
    if listed is None or not listed.reaches(job.watermark):
        return _move(job, "creating", blind_looks=job.blind_looks + 1)
    if job.looks < 1:
        return _move(job, "creating", looks=job.looks + 1, blind_looks=0)
    if job.refusals >= ENOUGH_REFUSALS:
        return rejected(job, job.error or "", at)
    again = resubmitted(job)
    return stopped(again, at) if job.cancel_requested else again


def resubmitted(job: Job) -> Job:
    """The submission made no job: plan it again, under a file name that was never used."""
    return _move(
        job,
        "planned",
        submission=job.submission + 1,
        cancel_requested=False,
        input_file_id=None,
        watermark=None,
        looks=0,
        blind_looks=0,
        settle_epoch="",
        submitted_at=None,
        error=None,
    )


def undecidable(job: Job) -> bool:
    """Whether the job list was read often enough without a conclusion."""
    return job.step == "creating" and job.blind_looks >= 2


def polled(job: Job, batch: Batch, at: datetime) -> Job:
    """The gateway reported the state of the job."""
    changed = {} if batch.status == job.status else {"changed_at": at}
    # A count of none is left out: it is known where all of the job's rows were counted.
    counted = 0 if batch.counted is None and batch.total >= job.requests else batch.counted
    facts: dict[str, Any] = {
        "status": batch.status,
        "output_file_id": batch.output_file_id or job.output_file_id,
        "counted": counted,
        "error": batch.error,
        **changed,
    }
    if not batch.over:
        return _move(job, "live", **facts)
    # A separate settling time starts with the first reading of the output.
    clock = {"settle_epoch": "", "settle_from_s": 0.0}
    return _move(job, "ended", outcome=batch.state, ended_at=at, **clock, **facts)


def output_read(
    job: Job,
    *,
    answers: int,
    orphans: int,
    duplicates: int,
    unread: int,
    complete: bool,
    at: datetime,
) -> Job:
    """The output was read as far as possible."""
    nothing = job.outcome == "failed" and answers == 0
    return _move(
        job,
        "done",
        answers=answers,
        orphans=orphans,
        duplicates=duplicates,
        unread=unread,
        complete=complete,
        # A job that failed as a whole tried no request, and one that the user stopped did not
        # try the rest: neither uses up an attempt.
        attempt=not (nothing or job.cancel_requested),
        done_at=at,
    )


def reopened(job: Job) -> Job:
    """Rows were missing when reading ended: read the output again before paying again."""
    return _move(job, "ended", rereads=job.rereads + (job.unread > 0))


def not_reread(job: Job) -> Job:
    """The short output could not be read again: its record is as before it was reopened."""
    return _move(job, "done", rereads=job.rereads - 1)
