"""Jobs: bad lines, cancel, and a server that is killed in the middle."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from local_support import PATIENCE_S, Served, Upstream, jsonl, request

from nyu_llm_frames.local.worker import Worker


def test_a_bad_line_is_an_error_of_that_line_alone(echo: Served) -> None:
    bad = b'{"custom_id": "no-body"}\nnot json\n'
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "odd"}}}
    content = jsonl(request("good")) + bad + jsonl(request("odd", response_format=schema))
    job = echo.submit(content)
    batch = echo.wait(job)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
    rows = echo.output(job)
    assert {row["custom_id"]: bool(row["error"]) for row in rows} == {
        "good": False,
        "no-body": True,
        None: True,
        "odd": True,
    }
    for row in rows:
        if row["error"]:
            assert row["response"]["body"] is False
            assert row["error"].startswith("Bad Request: ")
            assert json.loads(row["error"].removeprefix("Bad Request: "))["error"]["code"] == 400


def test_a_file_without_a_good_line_fails_and_names_the_lines(echo: Served) -> None:
    batch = echo.wait(echo.submit(b'\nnot json\n{"custom_id": "a"}\n'))
    assert batch["status"] == "failed"
    assert batch["failed_at"] >= batch["created_at"]
    errors = batch["errors"]["data"]
    assert [error["line"] for error in errors] == [2, 3]
    assert errors[0]["code"] == 3
    assert "None of the 2 lines is a request. line 2: not JSON" in errors[0]["message"]
    assert echo.output(batch["id"]) == []


def test_an_empty_file_fails_and_says_so(echo: Served) -> None:
    batch = echo.wait(echo.submit(b"\n\n"))
    assert batch["status"] == "failed"
    assert "empty" in batch["errors"]["data"][0]["message"]


def test_cancel_keeps_the_finished_rows(serve: Callable[..., Served], upstream: Upstream) -> None:
    upstream.gate = 3
    served = serve(upstream=upstream.url, concurrency=1)
    job = served.submit(jsonl(*(request(f"r{i}") for i in range(50))))
    queued = served.submit(jsonl(request("later")))
    served.wait(job, lambda b: b["request_counts"]["completed"] == 3)
    for each in (job, queued):
        assert served.http.post(f"/batches/{each}/cancel").json() == {}
        assert served.http.post(f"/batches/{each}/cancel").status_code == 400
    assert served.poll(job)["status"] == "cancelling"
    upstream.open()
    batch = served.wait(job)
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    kept = {row["custom_id"] for row in served.output(job)}
    assert kept == {"r0", "r1", "r2", "r3"}  # r3 was under way
    assert served.wait(queued)["status"] == "cancelled"
    assert served.output(queued) == []
    assert len(upstream.seen) == 4


def test_a_killed_server_loses_and_doubles_no_row(
    serve: Callable[..., Served], upstream: Upstream
) -> None:
    upstream.gate = 20
    served = serve(upstream=upstream.url, concurrency=3)
    sent = [f"r{i}" for i in range(60)]
    job = served.submit(jsonl(*(request(i, f"text {i}") for i in sent)))
    served.wait(job, lambda b: b["request_counts"]["completed"] == 20)
    address = served.info.base_url
    served.kill()
    upstream.open()
    served.again()
    assert served.info.base_url == address
    batch = served.wait(job)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    got = served.output(job)
    assert sorted(row["custom_id"] for row in got) == sorted(sent)
    for row in got:
        content = row["response"]["body"]["choices"][0]["message"]["content"]
        assert content == f"up: text {row['custom_id']}"
    asked = Counter(body["messages"][-1]["content"] for body in upstream.seen)
    again = [text for text, times in asked.items() if times > 1]
    assert len(again) <= 3  # those under way when it was killed, and no others


def has_answers(number: int, batch: dict[str, Any]) -> bool:
    return (batch["request_counts"]["completed"] or 0) >= number


def test_kills_at_any_moment_leave_every_row_once(serve: Callable[..., Served]) -> None:
    served = serve(answers="echo")
    sent = [f"r{i}" for i in range(4000)]
    job = served.submit(jsonl(*(request(i, i) for i in sent)))
    for part in (0, 1, 1500):
        served.wait(job, partial(has_answers, part))
        served.kill()
        served.again()
    assert served.wait(job)["status"] == "completed"
    assert sorted(row["custom_id"] for row in served.output(job)) == sorted(sent)


def test_an_orderly_end_in_the_middle_goes_on_too(
    serve: Callable[..., Served], upstream: Upstream
) -> None:
    upstream.gate = 2
    served = serve(upstream=upstream.url, concurrency=1)
    job = served.submit(jsonl(*(request(f"r{i}") for i in range(6))))
    served.wait(job, lambda b: b["request_counts"]["completed"] == 2)
    served.end()
    upstream.open()
    served.again()
    served.wait(job)
    assert sorted(row["custom_id"] for row in served.output(job)) == [f"r{i}" for i in range(6)]


def test_rows_are_answered_in_order_with_one_slot(
    serve: Callable[..., Served], upstream: Upstream
) -> None:
    served = serve(upstream=upstream.url, concurrency=1)
    served.wait(served.submit(jsonl(*(request(f"r{i}", str(i)) for i in range(20)))))
    asked: list[Any] = [body["messages"][-1]["content"] for body in upstream.seen]
    assert asked == [str(i) for i in range(20)]


class _Store:
    """A store whose database fails once, behind a job that is over."""

    def __init__(self, failing: int) -> None:
        self.failing, self.asked = failing, 0
        self.ended: list[tuple[Any, ...]] = []
        self.quiet = threading.Event()

    def next_open(self) -> Any:
        self.asked += 1
        if self.asked == self.failing:
            raise sqlite3.DatabaseError("malformed")
        if self.asked < 3:
            return SimpleNamespace(id=self.asked)
        self.quiet.set()
        return None

    def end_job(self, *told: Any) -> None:
        self.ended.append(told)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_database_that_fails_ends_neither_the_worker_nor_a_job(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _Store(failing)
    worker = Worker(cast("Any", store), cast("Any", SimpleNamespace(slots=1, fragile=False)))
    monkeypatch.setattr(worker, "run_job", lambda job: store.end_job(job.id, "completed"))
    monkeypatch.setattr(worker._stop, "wait", lambda seconds: False)
    worker.start()
    assert store.quiet.wait(PATIENCE_S)
    assert worker.stop(PATIENCE_S)
    assert store.ended == [(3 - failing, "completed")]
