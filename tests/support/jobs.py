"""A batch job of the stand-in: how it lives, what it answers, and how it is told.

Comes in: a `Behaviour`, frozen when the job is made, and the requests of its input file. Goes
out: the batch object at each poll, the lines of the output, Google's own file.
"""

from __future__ import annotations

import hashlib
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from support import rows, wire

TERMINAL = ("completed", "failed", "expired", "cancelled")
END_FIELD = {
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "failed_at",
    "cancelled": "cancelled_at",
}


def now_ms() -> int:
    """Return the time as the gateway gives it."""
    return time.time_ns() // 1_000_000


@dataclass
class Behaviour:
    """How a batch job lives and what it answers; a job keeps a copy of it from its creation.

    Parameters
    ----------
    validating_polls, running_polls : int
        Polls answered `validating`, then `in_progress`, before the end. With -1 that state stays
        until `gateway.finish()`.
    terminal : str
        Status at the end: `completed failed expired cancelled`, or any other word, which the job
        then shows for ever.
    partial_pct : float, optional
        Percentage of the requests that have an output row. By default all of a completed job and
        none of another one; with none there is no output at all.
    error : dict, optional
        The `errors.data[0]` of the job; failed and cancelled jobs have one by default.
    counts : {"real", "null", "absent"} or callable
        `request_counts`: real ones appear at the end (total a number, the others strings or null),
        `null` is what NYU's documentation prints even for a finished job. A callable gets the job.
    row : callable
        From `custom_id` and body to output lines, see `rows`.
    shuffle : bool
        Whether the output has another order than the input.
    damage : callable, optional
        From `custom_id` and the number of the download to whether the row's text is damaged in
        it; see `rows.damaged`. `/files/{id}/content` is always exact.
    short : {"empty", "cut", "rows", "fake_row", "reset"}
        How the first `short_reads` downloads of the output come back short: no bytes, half of the
        bytes, half of the rows, the one row without id that a 503 behind the gateway turns into,
        or half of the bytes and a cut connection.
    content_fails : int
        How many reads of the raw output file fail with 500; -1 is all.
    list_delay : int
        The job appears in the job list only after so many lists were read since its creation.
    cancelling_polls : int
        Polls answered `cancelling` after a cancel.
    cancel_pct : float
        Percentage of the requests that a cancelled job has answered.
    """

    validating_polls: int = 1
    running_polls: int = 1
    terminal: str = "completed"
    partial_pct: float | None = None
    error: Mapping[str, Any] | None = None
    counts: Literal["real", "null", "absent"] | Callable[[Job], object] = "real"
    row: rows.Row = rows.good
    shuffle: bool = False
    damage: rows.Damage | None = None
    short: Literal["empty", "cut", "rows", "fake_row", "reset"] = "empty"
    short_reads: int = 0
    content_fails: int = 0
    list_delay: int = 0
    cancelling_polls: int = 1
    cancel_pct: float = 0.0


@dataclass
class Job:
    """A batch job as the gateway holds it; whether it is paid for is not asked."""

    id: str
    created_seq: int
    input_file_id: str
    model: str
    behaviour: Behaviour
    requests: list[tuple[str, dict[str, Any]]]
    stored: list[dict[str, Any]]
    created_at: int
    status: str = "validating"
    in_progress_at: int | None = None
    ended_at: int | None = None
    polls: int = 0
    lists_left: int = 0
    reads: int = 0
    cancel_polls: int | None = None
    finish_now: bool = False
    foreign: bool = False
    lines: list[tuple[str, bytes]] = field(default_factory=list)
    raw: bytes = b""
    failed_rows: int = 0
    answered: int = 0

    @property
    def custom_ids(self) -> list[str]:
        """The ids of its requests, in the order of the input file."""
        return [custom_id for custom_id, _ in self.requests]

    @property
    def folder(self) -> str:
        """The url-encoded folder of the input file, where the output goes by default."""
        uri = urllib.parse.unquote(self.input_file_id)
        return urllib.parse.quote(uri.rsplit("/", 1)[0] + "/", safe="")

    @property
    def output_file_id(self) -> str:
        """The url-encoded name of the output; the folder as long as there is none."""
        if not self.lines and not self.has_output:
            return self.folder
        name = f"prediction-model-{self.created_seq}/predictions.jsonl"
        return self.folder + urllib.parse.quote(name, safe="")

    @property
    def pct(self) -> float:
        """The percentage of requests that are answered when the job ends."""
        b = self.behaviour
        if self.status == "cancelled" and self.cancel_polls is not None:
            return b.cancel_pct
        if b.partial_pct is not None:
            return b.partial_pct
        return 100.0 if b.terminal == "completed" else 0.0

    @property
    def has_output(self) -> bool:
        """Whether the job has ended with an output file."""
        return self.status in TERMINAL and self.pct > 0

    def advance(self) -> None:
        """Go on by one poll."""
        b = self.behaviour
        if self.ended_at is not None:
            return
        if self.cancel_polls is not None:
            self.cancel_polls -= 1
            if self.cancel_polls < 0:
                self._end("cancelled")
            return
        self.polls += 1
        n, v, r = self.polls, b.validating_polls, b.running_polls
        if self.finish_now:
            self._end(b.terminal)
        elif v < 0 or n <= v:
            self.status = "validating"
        elif r < 0 or n <= v + r:
            self.status, self.in_progress_at = "in_progress", self.in_progress_at or now_ms()
        else:
            self._end(b.terminal)

    def _end(self, status: str) -> None:
        self.status = status
        if self.cancel_polls is None:
            self.in_progress_at = self.in_progress_at or now_ms()
        if status not in TERMINAL:
            return
        self.ended_at = now_ms()
        if self.has_output:
            self._produce()

    def _produce(self) -> None:
        order = list(range(len(self.requests)))
        if self.behaviour.shuffle:
            order.sort(key=lambda i: hashlib.sha1(f"{self.id}/{i}".encode()).digest())
        raw = []
        for i in order[: round(len(order) * self.pct / 100)]:
            custom_id, body = self.requests[i]
            lines = self.behaviour.row(custom_id, body)
            for line in lines:
                mine = line.replace(f'"batch-{rows.JOB}-'.encode(), f'"batch-{self.id}-'.encode())
                self.lines.append((custom_id, mine))
                raw.append(wire.google_row(mine, self.stored[i]))
            bad = bool(lines) and b'"body":false' in lines[-1]
            self.failed_rows += bad
            self.answered += bool(lines) and not bad
        self.raw = b"".join(line + b"\n" for line in raw)

    def output(self) -> list[bytes]:
        """Return the lines as this download of the output shows them."""
        self.reads += 1
        damage = self.behaviour.damage
        return [
            rows.damage_line(line) if damage and damage(custom_id, self.reads) else line
            for custom_id, line in self.lines
        ]

    def resource(self) -> dict[str, Any]:
        """Return the batch object."""
        b = self.behaviour
        out: dict[str, Any] = {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.input_file_id,
            "completion_window": None,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.folder,
            "created_at": self.created_at,
        }
        if self.ended_at is not None:
            out[END_FIELD[self.status]] = self.ended_at
        out["in_progress_at"] = self.in_progress_at
        if callable(b.counts):
            out["request_counts"] = b.counts(self)
        elif b.counts != "absent":
            real = b.counts == "real" and (self.has_output or self.foreign)
            out["request_counts"] = {
                "total": len(self.requests) if real else 0,
                "completed": str(self.answered) if real and self.answered else None,
                "failed": str(self.failed_rows) if real and self.failed_rows else None,
            }
        error = b.error
        if error is None and self.status == "failed":
            error = {"code": 3, "message": wire.NO_IMPORT}
        if error is None and self.status == "cancelled":
            error = {"code": 1, "message": "CANCELED"}
        if error is not None and self.ended_at is not None:
            out["errors"] = {"object": "list", "data": [dict(error)]}
        out["model"] = f"publishers/google/models/{self.model}"
        return out
