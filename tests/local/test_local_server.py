"""Every call of NYU's page, made by the real client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_support import Served, jsonl, request

MODEL = "gemini-3-flash-preview"


@pytest.fixture
def page(serve: Callable[..., Served]) -> Served:
    """A server without failed jobs: the client cannot read a list with one in it."""
    return serve(answers="echo")


@pytest.fixture
def client(page: Served) -> Iterator[Any]:
    """The client of NYU's page, with the embedded gateway's address and key."""
    from portkey_ai import Portkey

    made = Portkey(
        api_key=page.info.api_key,
        provider="@vertexai",
        base_url=page.info.base_url,
        vertex_storage_bucket_name="my-bucket",
        provider_file_name="run-1/test data.jsonl",
        provider_model=MODEL,
    )
    yield made
    made.openai_client.close()
    made._client.close()


def test_the_script_of_the_page_runs(client: Any, page: Served, tmp_path: Path) -> None:
    rows = jsonl(request("request-1", "Where is NYU located?"), request("request-2"))
    path = tmp_path / "test_dataset.jsonl"
    path.write_bytes(rows)
    with path.open("rb") as handle:
        file = client.files.create(file=handle, purpose="batch")
    assert file.id == "gs%3A%2F%2Fmy-bucket%2Frun-1%2Ftest%20data.jsonl"
    assert (file.object, file.purpose, file.status) == ("file", "batch", "processed")
    assert file.bytes == len(rows)

    job = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        model=MODEL,
    )
    assert job.object == "batch"
    assert job.input_file_id == file.id
    page.wait(job.id)
    job = client.batches.retrieve(job.id)
    assert job.status == "completed"
    assert job.created_at > 1_000_000_000_000
    assert job.request_counts.total == 2

    lines = client.batches.output(job.id).text.split("\n")
    got = {row["custom_id"]: row["response"]["body"] for row in map(json.loads, lines[:-1])}
    message = got["request-1"]["choices"][0]
    assert message["message"]["content"] == "echo: Where is NYU located?"
    assert message["finish_reason"] == "STOP"
    assert got["request-1"]["model"] == "echo"
    assert got["request-1"]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}

    assert job.id in [each.id for each in client.batches.list(limit=100).data]
    assert client.files.retrieve(file.id).bytes == len(rows)
    assert client.files.content(file.id).content == rows
    whole = client.files.content(job.output_file_id).content
    assert client.files.retrieve(job.output_file_id).bytes == len(whole)
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "now"}]
    )
    assert answer.choices[0].message.content == "echo: now"


def test_a_new_job_has_null_counts_like_the_gateways(serve: Any, upstream: Any) -> None:
    upstream.gate = 0
    served: Served = serve(upstream=upstream.url, concurrency=1)
    first = served.submit(jsonl(request("a")))
    second = served.submit(jsonl(request("b")))
    batch = served.poll(second)
    assert batch["status"] == "validating"
    assert batch["request_counts"] == {"total": 0, "completed": None, "failed": None}
    assert list(batch) == [
        "id",
        "object",
        "endpoint",
        "input_file_id",
        "completion_window",
        "status",
        "output_file_id",
        "error_file_id",
        "created_at",
        "in_progress_at",
        "request_counts",
        "model",
    ]
    running = served.wait(first, lambda b: b["status"] == "in_progress")
    assert running["request_counts"] == {"total": 1, "completed": 0, "failed": 0}
    assert served.http.get(f"/batches/{first}/output").status_code == 500
    upstream.open()
    assert served.wait(second)["status"] == "completed"


def test_without_the_key_nothing_is_told(echo: Served) -> None:
    for headers in ({}, {"x-portkey-api-key": "wrong"}, {"Authorization": "Bearer wrong"}):
        for path in ("/batches", "/files/x", "/nowhere"):
            answer = httpx.get(echo.info.base_url + path, headers=headers, trust_env=False)
            assert answer.status_code == 401
    bearer = {"Authorization": f"Bearer {echo.info.api_key}"}
    answer = httpx.get(f"{echo.info.base_url}/batches", headers=bearer, trust_env=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/batches/123", None, 404),
        ("GET", "/batches/abc", None, 404),
        ("GET", f"/batches/{9 * 10**30}", None, 404),
        ("GET", "/batches/123/output", None, 404),
        ("POST", "/batches/123/cancel", None, 404),
        ("GET", "/batches?limit=x", None, 400),
        ("GET", "/files/gs%3A%2F%2Fno%2Fwhere", None, 404),
        ("GET", "/files/gs%3A%2F%2Fno%2Fwhere/content", None, 404),
        ("POST", "/files", b"plain", 400),
        ("POST", "/batches", b"{", 400),
        ("POST", "/batches", b"[]", 400),
        ("POST", "/batches", b"{}", 400),
        ("POST", "/batches", b'{"input_file_id": "nowhere"}', 404),
        ("POST", "/batches", b'{"input_file_id": "x", "endpoint": "/v1/embeddings"}', 400),
        ("POST", "/chat/completions", b'{"messages": []}', 400),
        ("POST", "/chat/completions", b'{"messages": "x", "stream": true}', 400),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/files/x", None, 405),
    ],
)
def test_a_wrong_call_gets_its_status_and_a_message(
    echo: Served, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = echo.http.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_an_upload_without_a_file_or_an_end_leaves_nothing(echo: Served) -> None:
    before = sorted((echo.folder / "files").iterdir())
    head = b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nhalf'
    end = b"\r\n--B--\r\n"
    for body in (
        head + end[2:],
        head + file,
        head + file + b"\r\n",
        file + b"\r\n" + head + end[2:],
    ):
        answer = echo.http.post(
            "/files", content=body, headers={"content-type": "multipart/form-data; boundary=B"}
        )
        assert answer.status_code == 400
    assert sorted((echo.folder / "files").iterdir()) == before


def test_content_that_looks_like_a_boundary_comes_back_byte_exact(echo: Served) -> None:
    content = b"--B\r\nContent-Disposition: form-data\r\n\r\n\x00\xff--B--\r\n" * 5000
    answer = echo.http.get(f"/files/{echo.upload(content, 'odd.jsonl')}/content")
    assert answer.content == content
