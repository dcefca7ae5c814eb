"""Scenario settings of the fake Google, and the named presets.

A scenario is a flat dict; POST /__control/scenario merges {"name": preset, **overrides}.
Row settings are frozen into a job when the job is created; HTTP faults act at once.
"""

from __future__ import annotations

import copy
from typing import Any

DEFAULT: dict[str, Any] = {
    "name": "happy",
    "seed": "0",
    # --- job life cycle: one step per GET of the job (or per second, see *_s) -----------
    "queued_polls": 0,  # polls answered JOB_STATE_QUEUED
    "pending_polls": 1,  # polls answered JOB_STATE_PENDING
    "running_polls": 1,  # polls answered JOB_STATE_RUNNING
    "min_pending_s": 0.0,  # and at least that long in the state
    "min_running_s": 0.0,
    "terminal": "SUCCEEDED",  # SUCCEEDED FAILED CANCELLED EXPIRED PARTIALLY_SUCCEEDED PAUSED
    "error": None,  # google.rpc.Status of the job, e.g. {"code": 3, "message": ".."}
    "write_output": None,  # None: by terminal state; True/False forces
    "partial_pct": 60,  # % of rows written when the job ends early
    "stats_omit": [],  # completionStats keys left out, e.g. ["failedCount"]
    "incomplete_count": None,  # e.g. "-1" (Google: unknown)
    "cancel_lag_polls": 1,  # polls answered CANCELLING after :cancel
    # --- rows (percentages of rows; decided by hash(seed, requestId, text)) --------------
    "shuffle": False,
    "fail_pct": 0,
    "fail_kind": "bad_request",  # bad_request resource_exhausted json plain
    "missing_pct": 0,  # row absent from the output
    "duplicate_pct": 0,  # row written twice, identical
    "conflict_pct": 0,  # row written twice: an error row and a good row
    "blocked_pct": 0,  # promptFeedback.blockReason, no candidates
    "safety_pct": 0,  # candidate with finishReason SAFETY and no content
    "max_tokens_pct": 0,  # finishReason MAX_TOKENS, answer cut in half
    "max_tokens_empty_pct": 0,  # finishReason MAX_TOKENS, all tokens spent on thoughts
    "no_usage_pct": 0,  # response without usageMetadata
    "empty_response_pct": 0,  # status "" and response {}
    "thought_pct": 0,  # a thought part before the answer
    "drop_request_id_pct": 0,  # requestId not echoed
    "coerce_numeric_ids": False,  # "000123" comes back as the number 123
    "blank_lines": False,
    "crlf": False,
    "final_newline": True,
    "shards": 1,  # >1: rows spread over predictions_0000N.jsonl + predictions.jsonl
    "shards_counted": False,  # they are called predictions.jsonl-0000N-of-0000M, all of them
    "bq_import": False,  # enforce the BigQuery-style import rules (whole job FAILED)
    "max_rows": 200_000,  # more input rows than that: the job FAILS (Google's limit)
    # --- the project around the job --------------------------------------------------------
    "foreign_jobs": 0,  # other people's jobs in the listing, every second one FAILED
    "foreign_tables": False,  # they read and write BigQuery: the gateway's list answers 500
    "max_running_jobs": None,  # POST answers 429 while that many jobs are not terminal
    # --- reading the output object -------------------------------------------------------
    "output_type": "application/octet-stream",  # Content-Type of the output object
    "output_404_times": 0,  # first N GETs of predictions.jsonl answer 404 (-1: always)
    "truncate_at": None,  # fraction of bytes after which the download stops
    "truncate_mode": "cut",  # cut: full Content-Length then RST; short: clean but short
    "truncate_times": -1,  # how many downloads are truncated (-1: all)
    "stall_at": None,
    "stall_s": 0.0,  # pause in the middle of the download
    # --- HTTP faults at Google (see README, "faults") ------------------------------------
    "faults": [],
    # --- HTTP faults at the gateway's own door (a proxy in front of it) ------------------
    "edge": [],
}

PRESETS: dict[str, dict[str, Any]] = {
    "happy": {},
    "instant": {"pending_polls": 0, "running_polls": 0},
    "slow": {"queued_polls": 1, "pending_polls": 2, "running_polls": 4},
    "shuffled": {"shuffle": True},
    "row_failures": {"shuffle": True, "fail_pct": 10},
    "missing_rows": {"shuffle": True, "missing_pct": 10},
    "duplicates": {"shuffle": True, "duplicate_pct": 20},
    "blocked": {"blocked_pct": 10, "safety_pct": 10},
    "max_tokens": {"max_tokens_pct": 20, "max_tokens_empty_pct": 10},
    "truncated": {"truncate_at": 0.5},
    "output_404": {"output_404_times": -1},
    "output_404_then_ok": {"output_404_times": 2},
    "poll_burst": {
        "running_polls": 6,
        "faults": [
            {"op": "get_job", "status": 429, "times": 2, "after": 1},
            {"op": "get_job", "status": 503, "times": 2, "after": 1},
        ],
    },
    "create_lost_500": {
        "faults": [{"op": "create_job", "status": 500, "times": 1, "side_effect": True}]
    },
    "upload_503": {"faults": [{"op": "put_object", "status": 503, "times": 1}]},
    "failed": {
        "terminal": "FAILED",
        "error": {
            "code": 3,
            "message": "Failed to import data. Please check 'Prepare input' section of "
            "the batch predictions documentation.",
        },
    },
    "expired": {"terminal": "EXPIRED", "partial_pct": 60, "write_output": True},
    "cancelled": {
        "terminal": "CANCELLED",
        "partial_pct": 40,
        "write_output": True,
        "error": {"code": 1, "message": "CANCELED"},
    },
    "partially_succeeded": {"terminal": "PARTIALLY_SUCCEEDED", "partial_pct": 70, "shuffle": True},
    "small_jobs": {"max_rows": 50},
    "busy_project": {"foreign_jobs": 7},
}


def resolve(spec: dict[str, Any] | str | None) -> dict[str, Any]:
    """{"name": preset, **overrides} -> a full settings dict; unknown keys are an error."""
    if spec is None:
        spec = {}
    if isinstance(spec, str):
        spec = {"name": spec}
    name = spec.get("name", "happy")
    if name not in PRESETS:
        raise KeyError(f"unknown scenario {name!r}; known: {', '.join(sorted(PRESETS))}")
    unknown = set(spec) - set(DEFAULT)
    if unknown:
        raise KeyError(f"unknown scenario settings: {sorted(unknown)}")
    out = copy.deepcopy(DEFAULT)
    out.update(copy.deepcopy(PRESETS[name]))
    out.update(copy.deepcopy(spec))
    out["name"] = name
    return out
