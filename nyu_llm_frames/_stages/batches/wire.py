"""Parse the gateway's responses defensively: batch objects, job lists, submission outcomes.

The SDK's own models raise on every failed job (an integer error code), so the bytes are read here.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any, Literal

from nyu_llm_frames._shared.wording import printable

# Our own counts are far below, and the sum of two still fits where it is stored.
_LARGEST_COUNT = 2**53
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")

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
    """A batch object of the gateway."""

    id: str
    status: str  # exactly as the gateway gives it
    state: BatchState  # the same; an unknown status counts as still running, and is shown
    input_file_id: str
    output_file_id: str
    # Rows that are finished, good and bad; None where it does not say. Of a failed job the good
    # ones alone: one that failed as a whole counts rows as failed that nothing was answered to.
    counted: int | None
    error: str | None
    total: int = 0  # rows of the job, 0 until they are counted

    @property
    def over(self) -> bool:
        return self.state not in ("running", "unknown")


def _count(value: object) -> int | None:
    """Read a count that may be a number, a string of digits, null or absent."""
    if isinstance(value, bool):
        return None
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= _LARGEST_COUNT else None


def _errors(value: Any) -> str | None:
    """Join the messages of a job's ``errors``."""
    data = value.get("data") if isinstance(value, dict) else value
    items = data if isinstance(data, list) else [data]
    texts = []
    for item in items:
        fields = item if isinstance(item, dict) else {}
        message, code = fields.get("message"), fields.get("code")
        if message and isinstance(message, str | int | float):
            known = isinstance(code, str | int | float)
            texts.append(f"{message}{f' (code {code})' if known else ''}")
        elif isinstance(item, str) and item:
            texts.append(item)
    return printable("; ".join(texts)[:2000]) or None


def _text(value: object) -> str:
    """Return a text that can be kept and sent; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value if value.isprintable() else ""  # half a surrogate pair is not printable


def is_plain_id(text: str) -> bool:
    """Whether a text is safe, unescaped, in a URL that receives the key, or as a file name.

    Examples
    --------
    >>> is_plain_id("7284652661620604928"), is_plain_id("../files/x?y=1#")
    (True, False)
    """
    return _PLAIN_ID.fullmatch(text) is not None and text.strip(".") != ""


def file_in_address(file_id: str) -> str | None:
    """Return a file's id as used in a URL, encoded once; None for what cannot be one.

    Examples
    --------
    >>> file_in_address("gs%3A%2F%2Fb%2Fin.jsonl"), file_in_address("gs://b/in.jsonl")
    ('gs%3A%2F%2Fb%2Fin.jsonl', 'gs%3A%2F%2Fb%2Fin.jsonl')
    """
    plain = urllib.parse.unquote(file_id)
    if not plain.strip(".") or not plain.isprintable():
        return None
    return urllib.parse.quote(plain, safe="")


def read_batch(body: bytes) -> Batch | None:
    """Read a batch object; None when it is not one (an HTML page, foreign JSON)."""
    value = read_json(body)
    if not isinstance(value, dict) or value.get("object") != "batch":
        return None
    batch_id, status = _text(value.get("id")), _text(value.get("status"))
    if not is_plain_id(batch_id) or not status:
        return None
    counts = value.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    good, bad = _count(counts.get("completed")), _count(counts.get("failed"))
    state = _STATES.get(status, "unknown")
    if state == "failed":
        bad = None
    return Batch(
        id=batch_id,
        status=status,
        state=state,
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


@dataclass(frozen=True, slots=True)
class JobList:
    """The one page of the job list that is available, newest first."""

    batches: tuple[tuple[str, str], ...]  # id and input file, also of other users' jobs
    has_more: bool
    gap_at: int | None = None  # jobs before the first item that could not be read: any job
    newest_first: bool = True  # by the times of the first and the last

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
        certain = self.batches if self.gap_at is None else self.batches[: self.gap_at]
        if watermark and self.newest_first and any(id_ == watermark for id_, _ in certain):
            return True
        return not self.has_more and self.gap_at is None


def _unquoted(file_id: str) -> str:
    """Undo percent-encoding, also where it was applied more than once."""
    for _ in range(3):
        file_id = urllib.parse.unquote(file_id)
    return file_id


def read_list(body: bytes) -> JobList | None:
    """Read the bytes of a job list; None when it is not one."""
    value = read_json(body)
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        return None
    batches: list[tuple[str, str]] = []
    times: list[float] = []
    gap_at = None
    for item in data:
        found = item if isinstance(item, dict) else {}
        batch_id, file_id = _text(found.get("id")), _text(found.get("input_file_id"))
        if is_plain_id(batch_id) and file_id:
            batches.append((batch_id, file_id))
            at = found.get("created_at")
            times += [at] if isinstance(at, int | float) else []
        elif gap_at is None:
            gap_at = len(batches)
    # A list that does not report it counts as incomplete: that never pays twice.
    more = value.get("has_more") is not False
    in_order = not times or times[0] >= times[-1]
    return JobList(tuple(batches), has_more=more, gap_at=gap_at, newest_first=in_order)


@dataclass(frozen=True, slots=True)
class Created:
    """Certain yes."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Refused:
    """Certain no: the gateway refuses to make a job of this."""

    status_code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Certain no, for now (429, or never connected): try again later."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A job may exist.

    `refusal` is how strongly the response suggests a refusal, if no job turns up: a redirect (2)
    is enough, an unknown 4xx (1) takes two in a row.
    """

    reason: str
    refusal: int = 0


CreateOutcome = Created | Refused | Busy | Uncertain

BUDGET_USED_UP = 412
_PASSING = frozenset({408, 409, 425})
_CERTAIN_NO = frozenset({400, 401, 403, 404, BUDGET_USED_UP, 413, 422})


def classify_create(
    status_code: int, body: bytes, reason: str, retry_after_s: float | None
) -> CreateOutcome:
    """Decide what the response to a submission means.

    Everything that is neither a batch object nor a plain refusal is uncertain: 5xx and 408 are
    known to come back for jobs that exist, and so may an unknown 4xx or a 200 login page. 446 is a
    guardrail that may have objected after the job was made; 246 is a success that one flagged.
    """
    if 200 <= status_code < 300:
        batch = read_batch(body)
        return Created(batch) if batch else Uncertain(f"HTTP {status_code} without a batch object")
    if status_code == 429:
        return Busy(reason, retry_after_s)
    if status_code in _CERTAIN_NO:
        return Refused(status_code, reason)
    if 300 <= status_code < 400:
        return Uncertain(reason, refusal=2)
    return Uncertain(reason, refusal=int(400 <= status_code < 500 and status_code not in _PASSING))
