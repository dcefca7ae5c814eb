"""Makes the gateway's JSON objects, a batch job and a file, with its fields in its order."""

from __future__ import annotations

import json
from typing import Any

from nyu_llm_frames.local.rows import ENDPOINT
from nyu_llm_frames.local.store import OPEN, Job, StoredFile, file_id


def upload_object(stored: StoredFile) -> dict[str, Any]:
    return {
        "id": file_id(stored.uri),
        "bytes": stored.bytes,
        "created_at": None,
        "filename": stored.filename,
        "object": "file",
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
        "create_at": stored.created_at,
    }


def output_object(job: Job) -> dict[str, Any]:
    """Describe the output of a job as a file; its size is that of ``/output``."""
    at = job.completed_at or job.cancelled_at or job.failed_at or job.created_at
    return file_object(job.output_uri, job.output_bytes, at, None)


def batch_object(job: Job) -> dict[str, Any]:
    """Describe a job as the gateway does: later times appear only when they are known."""
    folder = file_id(job.input_uri.rpartition("/")[0] + "/")
    out: dict[str, Any] = {
        "id": str(job.id),
        "object": "batch",
        "endpoint": ENDPOINT,
        "input_file_id": file_id(job.input_uri),
        "completion_window": None,
        "status": job.status,
        "output_file_id": folder if job.status in OPEN else file_id(job.output_uri),
        "error_file_id": folder,
        "created_at": job.created_at,
    }
    for name in ("completed_at", "failed_at", "cancelling_at", "cancelled_at"):
        if getattr(job, name) is not None:
            out[name] = getattr(job, name)
    out["in_progress_at"] = job.in_progress_at
    out["request_counts"] = (
        {"total": job.total, "completed": job.good, "failed": job.failed}
        if job.total
        else {"total": 0, "completed": None, "failed": None}
    )
    if job.errors:
        out["errors"] = json.loads(job.errors)
    out["model"] = job.model
    return out


def file_object(uri: str, size: int, at: int, purpose: str | None) -> dict[str, Any]:
    """Make the answer about a file; its shape differs from the upload's."""
    return {
        "id": file_id(uri),
        "object": "file",
        "bytes": size,
        "createdAt": at,
        "updatedAt": at,
        "filename": uri.rpartition("/")[2],
        "purpose": purpose,
        "status": "processed",
    }
