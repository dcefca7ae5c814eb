"""The gateway's words, read without trust: batch objects, job lists, outcomes of a submit.

Comes in: status codes and raw bytes. Goes out: frozen records with closed sets of words. The SDK's
own models raise on every failed job (an integer error code), so the bytes are read here.
"""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass
from typing import Any, Literal

BatchState = Literal["running", "completed", "failed", "expired", "cancelled", "unknown"]

_STATES: dict[str, BatchState] = {
    "validating": "running",
    "in_progress": "running",
    "finalizing": "running",
    "cancelling": "running",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch object of the gateway.

    Attributes
    ----------
    status : str
        The gateway's word, whatever it is.
    state : BatchState
        The same in the closed set; a word nobody knows counts as still running, and is shown.
    counted : int or None
        Rows the gateway says it has finished, good and bad; None when it does not tell.
    total : int
        Rows the gateway says the job has, 0 until it counts them.
    """

    id: str
    status: str
    state: BatchState
    input_file_id: str
    output_file_id: str
    counted: int | None
    error: str | None
    total: int = 0

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state not in ("running", "unknown")


def _count(value: object) -> int | None:
    """Read a count that may be a number, a string of digits, null or absent."""
    if isinstance(value, bool):
        return None
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number >= 0 else None


def _errors(value: Any) -> str | None:
    """Join the messages of a job's ``errors``."""
    data = value.get("data") if isinstance(value, dict) else value
    items = data if isinstance(data, list) else [data]
    texts = []
    for item in items:
        if isinstance(item, dict) and item.get("message"):
            code = item.get("code")
            texts.append(str(item["message"]) + (f" (code {code})" if code is not None else ""))
        elif isinstance(item, str) and item:
            texts.append(item)
    text = "; ".join(texts)[:2000].encode("utf-8", "replace").decode()
    return text or None


def _text(value: object) -> str:
    """Return a text that can be kept and sent; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value if value.isprintable() else ""  # half a surrogate pair is not printable


def batch_from(value: object) -> Batch | None:
    """Read a batch object; None when it is not one (an HTML page, foreign JSON)."""
    if not isinstance(value, dict) or value.get("object") != "batch":
        return None
    batch_id, status = _text(value.get("id")), _text(value.get("status"))
    if not batch_id or not status:
        return None
    counts = value.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    good, bad = _count(counts.get("completed")), _count(counts.get("failed"))
    return Batch(
        id=batch_id,
        status=status,
        state=_STATES.get(status, "unknown"),
        input_file_id=_text(value.get("input_file_id")),
        output_file_id=_text(value.get("output_file_id")),
        counted=None if good is None and bad is None else (good or 0) + (bad or 0),
        error=_errors(value.get("errors")),
        total=_count(counts.get("total")) or 0,
    )


def read_json(body: bytes) -> Any:
    """Decode JSON, or return None."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_batch(body: bytes) -> Batch | None:
    """Read the bytes of a batch object."""
    return batch_from(read_json(body))


@dataclass(frozen=True, slots=True)
class JobList:
    """The one page of the job list that can be had, newest first.

    Attributes
    ----------
    batches : tuple of (str, str)
        Id and input file of each job, of other people's too.
    has_more : bool
    gap_at : int or None
        Number of jobs before the first item that could not be read: it may be any job.
    """

    batches: tuple[tuple[str, str], ...]
    has_more: bool
    gap_at: int | None = None

    @property
    def newest(self) -> str:
        """Id of the newest job; "" when there is none."""
        return self.batches[0][0] if self.batches else ""

    def find(self, input_file_id: str) -> str | None:
        """Return the id of the job that was made of this input file."""
        wanted = _unquoted(input_file_id)
        for batch_id, file_id in self.batches:
            if _unquoted(file_id) == wanted:
                return batch_id
        return None

    def reaches(self, watermark: str | None) -> bool:
        """Whether the page shows everything that came after the watermark.

        None means that no watermark could be taken, "" that the list was empty then.
        """
        surely = self.batches if self.gap_at is None else self.batches[: self.gap_at]
        if watermark and any(batch_id == watermark for batch_id, _ in surely):
            return True
        return not self.has_more and self.gap_at is None


def _unquoted(file_id: str) -> str:
    """Undo percent-encoding, also where somebody on the way encoded what was encoded."""
    for _ in range(3):
        file_id = urllib.parse.unquote(file_id)
    return file_id


def read_list(body: bytes) -> JobList | None:
    """Read the bytes of a job list; None when it is not one."""
    value = read_json(body)
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        return None
    seen: list[tuple[str, str]] = []
    gap_at = None
    for item in data:
        found = item if isinstance(item, dict) else {}
        batch_id, file_id = _text(found.get("id")), _text(found.get("input_file_id"))
        if batch_id and file_id:
            seen.append((batch_id, file_id))
        elif gap_at is None:
            gap_at = len(seen)
    # A list that does not say counts as one with more to come: that never pays twice.
    more = value.get("has_more") is not False
    return JobList(tuple(seen), has_more=more, gap_at=gap_at)


@dataclass(frozen=True, slots=True)
class Created:
    """Certain yes."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Refused:
    """Certain no: the gateway will not make a job of this."""

    status_code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Certain no, for now (429, or never connected): ask again later."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A job may exist."""

    reason: str


CreateOutcome = Created | Refused | Busy | Uncertain

_CERTAIN_NO = frozenset({400, 401, 403, 404, 413, 422})


def classify_create(
    status_code: int, body: bytes, reason: str, retry_after_s: float | None
) -> CreateOutcome:
    """Decide what a submit's answer means.

    Everything that is neither a batch object nor a plain refusal is uncertain: 5xx and 408 are
    known to come back for jobs that exist, and so may an unknown 4xx or a 200 login page.
    """
    if 200 <= status_code < 300:
        batch = read_batch(body)
        return Created(batch) if batch else Uncertain(f"HTTP {status_code} without a batch object")
    if status_code == 429:
        return Busy(reason, retry_after_s)
    if status_code in _CERTAIN_NO:
        return Refused(status_code, reason)
    return Uncertain(reason)
