"""The gateway's words, read without trust."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from nyu_llm_frames._gateway.failures import Translated
from nyu_llm_frames._gateway.masking import Mask, secrets_in
from nyu_llm_frames._stages.batches.job import Job, became_uncertain, settling_started
from nyu_llm_frames._stages.batches.wire import read_batch, read_list
from nyu_llm_frames.errors import GatewayError, GatewayUnavailableError

BATCH: dict[str, Any] = {
    "id": "batch-1",
    "object": "batch",
    "status": "completed",
    "input_file_id": "gs%3A%2F%2Fb%2Fin",
    "output_file_id": "gs%3A%2F%2Fb%2Fout",
    "request_counts": {"total": 5, "completed": "3", "failed": "1"},
}


def batch(**changed: Any) -> Any:
    return read_batch(json.dumps({**BATCH, **changed}).encode())


# --- batch objects ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changed",
    [
        {"object": "list"},
        {"object": None},
        {"id": None},
        {"id": ""},
        {"id": 7},
        {"id": "batch-\ud800"},
        {"status": None},
        {"status": ""},
        {"status": "done\n"},
    ],
)
def test_what_is_no_batch_object_is_none(changed: dict[str, Any]) -> None:
    assert batch() is not None
    assert batch(**changed) is None


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", b"[]", b"null", b"{" * 100_000])
def test_bytes_that_are_no_object_are_none(body: bytes) -> None:
    assert read_batch(body) is None
    assert read_list(body) is None


@pytest.mark.parametrize(
    ("counts", "counted"),
    [
        ({"total": 5, "completed": "3", "failed": "1"}, 4),
        ({"total": 5, "completed": 3, "failed": None}, 3),
        ({"total": 5, "completed": None, "failed": None}, None),
        ({"total": 5}, None),
        ({"completed": True, "failed": "many"}, None),
        ({"completed": 2**63, "failed": "9" * 30}, None),
        ({"completed": -1, "failed": 2}, 2),
        (None, None),
        ("5", None),
    ],
)
def test_counts_are_numbers_strings_or_nothing(counts: object, counted: int | None) -> None:
    assert batch(request_counts=counts).counted == counted


@pytest.mark.parametrize(("completed", "counted"), [(None, None), (0, 0), ("2", 2)])
def test_a_failed_job_counts_its_good_rows_alone(completed: object, counted: int | None) -> None:
    counts = {"total": 4, "completed": completed, "failed": 4}
    assert batch(status="failed", request_counts=counts).counted == counted


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ({"data": [{"code": 3, "message": "no bucket"}]}, "no bucket (code 3)"),
        ({"data": [{"code": 0, "message": "nothing"}]}, "nothing (code 0)"),
        ({"data": [{"message": "a"}, "b", {"code": 1}]}, "a; b"),
        ({"data": [{"message": "half \ud800 pair"}]}, "half   pair"),
        ("no bucket", "no bucket"),
        (None, None),
        ({"data": None}, None),
    ],
)
def test_errors_are_told_with_their_codes(errors: object, told: str | None) -> None:
    assert batch(errors=errors).error == told


@pytest.mark.parametrize(
    ("status", "over"),
    [
        *[(word, False) for word in ("validating", "in_progress", "finalizing", "cancelling")],
        *[(word, True) for word in ("completed", "failed", "expired", "cancelled")],
        ("a word of tomorrow", False),
    ],
)
def test_a_word_that_nobody_knows_is_still_running(status: str, over: bool) -> None:
    assert batch(status=status).over is over


# --- job lists --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("more", "complete"), [(False, True), (True, False), (None, False), ("no", False), (0, False)]
)
def test_a_list_is_complete_only_where_it_says_so(more: object, complete: bool) -> None:
    item = {"id": "batch-1", "input_file_id": "in"}
    listed = read_list(json.dumps({"data": [item], "has_more": more}).encode())
    assert listed is not None
    assert listed.reaches(None) is complete
    assert listed.reaches("batch-1")
    silent = read_list(json.dumps({"data": [item]}).encode())
    assert silent is not None
    assert not silent.reaches(None)


# --- settling ---------------------------------------------------------------------------------
def test_settling_counts_from_the_last_word_on_a_clock_that_is_known() -> None:
    at = datetime.now(UTC)
    job = Job(
        name="j", run="r", owner="o", realm="@v", model="m", requests=1, file_bytes=1,
        step="creating", settle_epoch="a", settle_from_s=5.0, looks=1, blind_looks=1, planned_at=at,
    )  # fmt: skip
    late = became_uncertain(job, "504", epoch="a", from_s=330.0)  # the POST itself took its time
    assert (late.settle_epoch, late.settle_from_s) == ("a", 330.0)
    other = settling_started(job, "another boot", 7.0)
    assert (other.settle_epoch, other.settle_from_s) == ("another boot", 7.0)


# --- refusals ---------------------------------------------------------------------------------
def refusal(status: int, body: bytes = b"", **headers: str) -> GatewayError:
    return Translated("Polling", "http://g/v1/", Mask(["sk-secret-key"])).refusal(
        status, body, {k.replace("_", "-"): v for k, v in headers.items()}
    )


@pytest.mark.parametrize("status", [302, 408, 409, 425, 429, 500, 502, 503, 504, 520])
def test_what_may_pass_is_unavailable(status: int) -> None:
    assert isinstance(refusal(status), GatewayUnavailableError)
    assert not isinstance(refusal(404), GatewayUnavailableError)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 86_400.0),
        ("Mon, 23 Nov 2026 12:00:00 GMT", 60.0),  # a date: soon, no clocks are compared
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_soon(value: str, seconds: float | None) -> None:
    error = refusal(429, retry_after=value)
    assert isinstance(error, GatewayUnavailableError)
    assert error.retry_after_s == seconds


def test_a_key_is_in_no_message_whatever_form_it_has() -> None:
    mask = Mask(["sk-secret-key\n"])
    shown = mask.text(f"sk-secret-key\n and {'sk-secret-key' + chr(10)!r} and sk-secret-key")
    assert "secret" not in shown
    error = refusal(500, b'{"error": {"message": "key sk-secret-key is bad"}}')
    assert "secret" not in str(error) + error.body


def test_what_is_a_secret_in_options_is_told_by_its_name() -> None:
    options = {
        "trace_id": "batch",
        "metadata": {"team": "economics", "x_api_key": "nested-key-123"},
        "config": {"targets": [{"virtual_key": "virtual-123"}, {"weight": 1}]},
        "Authorization": "Bearer token-123456",
    }
    found = secrets_in(options)
    assert sorted(found) == ["Bearer token-123456", "nested-key-123", "virtual-123"]
    data = Mask(found, data=True)
    assert data.data(b"economics of a batch") == b"economics of a batch"
    assert data.data(b"nested-key-123") == b"*" * 14
    assert Mask(["none", "dummy"], data=True).data(b"none of the dummy") == b"none of the dummy"
