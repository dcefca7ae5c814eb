"""Exit codes: what a script, cron or Slurm learns from a command without reading its text.

Comes in: an error of the package. Goes out: the number that stands for its kind.
"""

from __future__ import annotations

from collections.abc import Iterable

from nyu_llm_frames import errors
from nyu_llm_frames._stages.answers.answer import NO_FAILURE

OK = 0
ERROR = 1
USAGE = 2
NO_GOOD_ANSWER = 3
PENDING = 4
UNCERTAIN = 5
JOB_FAILED = 6
TOO_EXPENSIVE = 7
NOT_ALLOWED = 8
TRY_LATER = 9
INTERRUPTED = 130

MEANING: dict[int, str] = {
    OK: "done; every row has a good answer",
    ERROR: "any other error; the message says what to do",
    USAGE: "the call is invalid: options, template, columns, schema, missing settings",
    NO_GOOD_ANSWER: "done, but some rows have no good answer; the reasons are in the output",
    PENDING: "not over yet: batch jobs continue, and the same command resumes",
    UNCERTAIN: "a submission may or may not have created a job; settle it with `resolve`",
    JOB_FAILED: "a batch job ended without a single answer; the next call submits its rows again",
    TOO_EXPENSIVE: "above --max-cost, no price is known, or the gateway's budget is used up",
    NOT_ALLOWED: "the gateway refused the key (401, 403)",
    TRY_LATER: "a step did not reach the gateway, or the sidecar is locked; try again later",
    INTERRUPTED: "interrupted; batch jobs continue",
}

# The first match counts.
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    (errors.UncertainSubmissionError, UNCERTAIN),
    (errors.BatchJobFailedError, JOB_FAILED),
    (errors.RunTimeoutError, PENDING),
    (errors.PartialResultError, NO_GOOD_ANSWER),
    (errors.BudgetError, TOO_EXPENSIVE),
    (errors.AuthenticationError, NOT_ALLOWED),
    ((errors.GatewayUnavailableError, errors.SidecarLockedError), TRY_LATER),
    ((errors.ConfigurationError, errors.TemplateError, errors.MissingValueError), USAGE),
    ((errors.ColumnExistsError, errors.RequestError, errors.SchemaError), USAGE),
)


def of_error(error: Exception) -> int:
    return next((code for kind, code in _KINDS if isinstance(error, kind)), ERROR)


def of_statuses(statuses: Iterable[str], trouble: str = "") -> int:
    """Return the exit code of rows or requests with these statuses; `trouble` blocked a step."""
    distinct = set(statuses)
    if "pending" in distinct:
        return TRY_LATER if trouble else PENDING
    return NO_GOOD_ANSWER if distinct - NO_FAILURE else OK
