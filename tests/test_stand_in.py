"""The stand-in speaks as the real gateway does, and its faults are what they say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support import rows
from support.stand_in import Behaviour, StandIn, answer, outage

CREATE = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


def line(custom_id: str, text: str, **fields: Any) -> str:
    messages = [{"role": "user", "content": text}]
    body = {"model": "gemini-3-flash-preview", "messages": messages, **fields}
    url = "/v1/chat/completions"
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def jsonl(n: int = 4, text: str = "text") -> bytes:
    return "".join(line(f"r-{i}", f"{text} {i}") + "\n" for i in range(n)).encode()


class Raw:
    """Plain HTTP with the headers of the real client."""

    def __init__(self, gateway: Any) -> None:
        self.gateway, self.http = gateway, httpx.Client(timeout=20)
        self.headers = {
            "x-portkey-api-key": gateway.api_key,
            "x-portkey-provider": gateway.provider,
            "x-portkey-vertex-storage-bucket-name": gateway.bucket,
            "x-portkey-provider-model": gateway.model,
        }

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        url = f"{self.gateway.base_url}/{path}"
        return self.http.request(method, url, headers=headers, **options)

    def upload(self, data: bytes, name: str = "folder/in.jsonl") -> httpx.Response:
        headers = {"x-portkey-provider-file-name": name}
        files = {"file": ("in.jsonl", data)}
        return self.call("POST", "files", headers=headers, data={"purpose": "batch"}, files=files)

    def create(self, file_id: str, model: str | None = None) -> httpx.Response:
        body = {**CREATE, "input_file_id": file_id, "model": model or self.gateway.model}
        return self.call("POST", "batches", json=body)

    def run(self, data: bytes) -> str:
        """Upload, submit, poll to the end, and return the id of the job."""
        job_id: str = self.create(self.upload(data).json()["id"]).json()["id"]
        for _ in range(3):
            self.poll(job_id)
        return job_id

    def poll(self, job_id: str) -> dict[str, Any]:
        out: dict[str, Any] = self.call("GET", f"batches/{job_id}").json()
        return out

    def output(self, job_id: str) -> list[dict[str, Any]]:
        data = self.call("GET", f"batches/{job_id}/output").content
        return [json.loads(row) for row in data.split(b"\n") if row]


@pytest.fixture
def raw(stand_in: StandIn) -> Iterator[Raw]:
    client = Raw(stand_in)
    yield client
    client.http.close()


@pytest.fixture
def raw_real(real_gateway: Any) -> Iterator[Raw]:
    client = Raw(real_gateway)
    yield client
    client.http.close()


# --- the real client ------------------------------------------------------------------------
def five_calls(gateway: Any) -> list[dict[str, Any]]:
    client = gateway.portkey(provider_file_name="folder/in.jsonl")
    file = client.files.create(file=("in.jsonl", jsonl()), purpose="batch")
    job = client.batches.create(input_file_id=file.id, model=gateway.model, **CREATE)
    seen = [job.status]
    while seen[-1] in ("validating", "in_progress"):
        seen.append(client.batches.retrieve(job.id).status)
    assert seen[0] == "validating"
    assert seen[-1] == "completed"
    assert [j.id for j in client.batches.list(limit=100).data] == [job.id]
    data: bytes = client.batches.output(job.id).content
    return [json.loads(row) for row in data.split(b"\n") if row]


def test_real_client_gets_every_answer_from_the_stand_in(stand_in: StandIn) -> None:
    out = five_calls(stand_in)
    texts = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"] for row in out}
    assert {k: v["content"] for k, v in texts.items()} == {
        f"r-{i}": answer(f"text {i}") for i in range(4)
    }
    assert stand_in.jobs[0].custom_ids == ["r-0", "r-1", "r-2", "r-3"]
    assert stand_in.uploads == {"folder/in.jsonl": jsonl()}
    assert [stand_in.count(c) for c in ("upload", "create", "list", "output")] == [1, 1, 1, 1]


@pytest.mark.gateway
def test_real_client_gets_the_same_answers_from_both(stand_in: StandIn, real_gateway: Any) -> None:
    def contents(gateway: Any) -> dict[str, str]:
        found = five_calls(gateway)
        return {r["custom_id"]: r["response"]["body"]["choices"][0]["message"] for r in found}

    assert contents(stand_in) == contents(real_gateway)


# --- parity with the real gateway -----------------------------------------------------------
def shape(value: Any) -> Any:
    """Key sets and types, without the values; strings of digits are their own type."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value]
    if isinstance(value, str) and value.isdigit():
        return "digits"
    return type(value).__name__


def told(response: httpx.Response) -> tuple[int, str, Any]:
    kind = response.headers.get("content-type", "").partition(";")[0]
    try:
        return response.status_code, kind, shape(response.json())
    except ValueError:
        return response.status_code, kind, "not JSON"


KINDS = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["a", "b", "c"]},
        "count": {"type": "integer"},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "many": {"type": "array", "items": {"$ref": "#/$defs/Flag"}},
    },
    "$defs": {"Flag": {"type": "boolean"}},
}
CHATS: dict[str, dict[str, Any]] = {
    "turns": {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "second"},
            {"role": "user", "content": [{"type": "text", "text": "third"}]},
        ]
    },
    "schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": KINDS}}
    },
    "json": {"response_format": {"type": "json_object"}},
}


def calls(raw: Raw) -> dict[str, Any]:
    """Every call in a good and in a bad case."""
    seen: dict[str, Any] = {}
    seen["empty list"] = told(raw.call("GET", "batches?limit=100"))
    upload = raw.upload(jsonl())
    seen["upload"], file_id = told(upload), upload.json()["id"]
    assert upload.json()["bytes"] > len(jsonl())
    created = raw.create(file_id)
    seen["create"], job_id = told(created), created.json()["id"]
    seen["poll"] = [told(raw.call("GET", f"batches/{job_id}")) for _ in range(4)]
    seen["statuses"] = [raw.poll(job_id)["status"]]
    seen["list"] = told(raw.call("GET", "batches?limit=100"))
    output = raw.call("GET", f"batches/{job_id}/output")
    seen["output"] = output.status_code, output.headers["content-type"], output.content[-1:]
    seen["rows"] = [shape(row) for row in raw.output(job_id)]
    seen["output with a query"] = told(raw.call("GET", f"batches/{job_id}/output?a=b"))
    seen["output of nothing"] = told(raw.call("GET", "batches/999/output"))
    seen["slash"] = raw.call("GET", f"batches/{job_id}/output/").status_code
    seen["unknown job"] = told(raw.call("GET", "batches/999"))
    output_file_id = raw.poll(job_id)["output_file_id"]
    for name, one in {"input": file_id, "result": output_file_id}.items():
        seen[f"{name} file"] = told(raw.call("GET", f"files/{one}"))
        content = raw.call("GET", f"files/{one}/content")
        size = raw.call("GET", f"files/{one}").json()["bytes"]
        assert size == len(content.content)
        found = [json.loads(row) for row in content.content.split(b"\n") if row]
        seen[f"{name} content"] = (
            content.headers["content-type"],
            [{k: shape(v) for k, v in row.items() if k != "response"} for row in found],
        )
        seen[f"{name} texts"] = [
            [row["requestId"], row.get("response", {}).get("candidates", [{}])[0].get("content")]
            for row in found
        ]
    seen["unknown file"] = told(raw.call("GET", "files/gs%3A%2F%2Ffake-bucket%2Fno"))
    seen["unknown content"] = told(raw.call("GET", "files/gs%3A%2F%2Ffake-bucket%2Fno/content"))
    seen["file list"] = told(raw.call("GET", "files"))
    seen["delete"] = raw.call("DELETE", f"files/{file_id}").status_code
    seen["late cancel"] = told(raw.call("POST", f"batches/{job_id}/cancel"))
    seen["unknown cancel"] = told(raw.call("POST", "batches/999/cancel"))
    bad = {"x-portkey-api-key": "wrong"}
    seen["wrong key"] = told(raw.call("GET", f"batches/{job_id}", headers=bad))
    for name in ("bucket-name", "provider-model", "bucket-name: other"):
        key, _, value = name.partition(": ")
        headers = {k: v for k, v in raw.headers.items() if not k.endswith(key)}
        if value:
            headers["x-portkey-vertex-storage-bucket-name"] = value
        part = {"file": ("in.jsonl", jsonl())}
        url = f"{raw.gateway.base_url}/files"
        seen[f"upload, {name}"] = told(
            raw.http.post(url, headers=headers, data={"purpose": "batch"}, files=part)
        )
    unnamed = raw.call("POST", "files", files={"file": ("in.jsonl", jsonl())})
    seen["unnamed upload"] = told(unnamed), unnamed.json()["purpose"]
    seen["wrong model"] = told(raw.create(file_id, "missing-model"))
    body = json.loads(line("a", "hello"))["body"]
    seen["chat"] = told(raw.call("POST", "chat/completions", json=body))
    for name, extra in CHATS.items():
        chat = raw.call("POST", "chat/completions", json={**body, **extra}).json()
        seen[f"chat, {name}"] = chat["choices"][0], chat["usage"]
    nothing = raw.create("gs%3A%2F%2Ffake-bucket%2Fno")
    seen["create without input"] = told(nothing)
    for _ in range(3):
        end = raw.call("GET", f"batches/{nothing.json()['id']}")
    seen["failed job"] = told(end)
    seen["failed output"] = told(raw.call("GET", f"batches/{nothing.json()['id']}/output"))
    later = raw.create(file_id).json()["id"]
    seen["cancel"] = told(raw.call("POST", f"batches/{later}/cancel"))
    seen["cancelling"] = [told(raw.call("GET", f"batches/{later}")) for _ in range(3)]
    seen["second cancel"] = told(raw.call("POST", f"batches/{later}/cancel"))
    unreadable = [
        "not json",
        '{"custom_id": "a", "body": 5}',
        '{"custom_id": "a", "body": {"messages": "x"}}',
        '{"custom_id": "a", "body": {"messages": [{"content": "no role"}]}}',
        '{"custom_id": "kept", "body": {"model": "m"}}',
        line("kept too", "hello"),
    ]
    dropped = raw.upload("\n".join(unreadable).encode()).json()["id"]
    kept = raw.call("GET", f"files/{dropped}/content").content.split(b"\n")
    seen["kept lines"] = [json.loads(row) for row in kept if row]
    return seen


@pytest.mark.gateway
def test_stand_in_answers_each_call_as_the_real_gateway(raw: Raw, raw_real: Raw) -> None:
    ours, real = calls(raw), calls(raw_real)
    for name, value in real.items():
        assert ours[name] == value, name


SHAPES: dict[str, tuple[rows.Row, dict[str, Any]]] = {
    "blocked": (rows.blocked, {"blocked_pct": 100}),
    "safety": (rows.safety, {"safety_pct": 100}),
    "truncated": (rows.truncated, {"max_tokens_pct": 100}),
    "truncated_empty": (rows.truncated_empty, {"max_tokens_empty_pct": 100}),
    "thinking": (rows.thinking, {"thought_pct": 100}),
    "empty_response": (rows.empty_response, {"empty_response_pct": 100}),
    "response_id_as_id": (rows.response_id_as_id, {"drop_request_id_pct": 100}),
    "missing": (rows.missing, {"missing_pct": 100}),
    "duplicate": (rows.duplicate, {"duplicate_pct": 100}),
    "conflict": (rows.conflict, {"conflict_pct": 100}),
    "failed, str": (rows.failed(400), {"fail_pct": 100}),
    "failed, 429": (rows.failed(429), {"fail_pct": 100, "fail_kind": "resource_exhausted"}),
    "failed, object": (rows.failed(500, form="object"), {"fail_pct": 100, "fail_kind": "json"}),
    "failed, plain": (rows.failed(form="plain"), {"fail_pct": 100, "fail_kind": "plain"}),
}


@pytest.mark.gateway
@pytest.mark.parametrize("name", SHAPES)
def test_row_has_the_shape_of_the_real_one(name: str, raw: Raw, raw_real: Raw) -> None:
    row, scenario = SHAPES[name]
    raw.gateway.behaviour.row = row
    raw_real.gateway.reset("happy", **scenario)
    ours, real = ([shape(r) for r in one.output(one.run(jsonl(2)))] for one in (raw, raw_real))
    assert ours == real


@pytest.mark.gateway
@pytest.mark.parametrize(
    ("scenario", "behaviour"),
    [
        ("failed", Behaviour(terminal="failed")),
        ("expired", Behaviour(terminal="expired", partial_pct=60)),
        ("partially_succeeded", Behaviour(partial_pct=70)),
    ],
)
def test_end_of_a_job_is_told_as_the_real_one(
    scenario: str, behaviour: Behaviour, raw: Raw, raw_real: Raw
) -> None:
    raw.gateway.behaviour = behaviour
    raw_real.gateway.reset(scenario)
    ours, real = (one.poll(one.run(jsonl())) for one in (raw, raw_real))
    if scenario == "partially_succeeded":
        real["completed_at"] = 0  # the stand-in has one kind of completed, with its time
    assert shape(ours) == shape(real)
    assert ours["status"] == real["status"]


# --- what a test may wish -------------------------------------------------------------------
def test_lost_answer_leaves_a_job_that_the_list_shows(raw: Raw) -> None:
    file_id = raw.upload(jsonl()).json()["id"]
    raw.gateway.script.add("create", "lose")
    with pytest.raises(httpx.TransportError):
        raw.create(file_id)
    raw.gateway.script.add("create", "lose", status=504)
    assert raw.create(file_id).status_code == 504
    found = raw.call("GET", "batches?limit=100").json()["data"]
    assert [job["input_file_id"] for job in found] == [file_id, file_id]
    assert len(raw.gateway.jobs) == 2


def test_refused_create_makes_no_job(raw: Raw) -> None:
    file_id = raw.upload(jsonl()).json()["id"]
    raw.gateway.script.add("create", status=429, body="json", retry_after=2)
    refused = raw.create(file_id)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    raw.gateway.script.add("create", "reset")
    with pytest.raises(httpx.ReadError):
        raw.create(file_id)
    assert raw.gateway.jobs == []
    assert raw.create(file_id).status_code == 200


def test_fault_lets_requests_pass_first_and_hits_so_many(raw: Raw) -> None:
    fault = raw.gateway.script.add("list", status=503, after=1, times=2)
    codes = [raw.call("GET", "batches?limit=1").status_code for _ in range(4)]
    assert codes == [200, 503, 503, 200]
    assert fault.hits == 2


def test_hanging_request_ends_with_the_client(raw: Raw) -> None:
    raw.gateway.script.add("poll", "hang")
    with pytest.raises(httpx.ReadTimeout):
        raw.call("GET", "batches/1", timeout=0.05)


def creator(raw: Raw, file_id: str) -> subprocess.Popen[bytes]:
    """Start a process of its own that submits a job."""
    code = f"""
import httpx
headers = {raw.headers!r}
body = {{"input_file_id": {file_id!r}, "model": "m"}}
httpx.post({raw.gateway.base_url + "/batches"!r}, headers=headers, json=body, timeout=60)
"""
    return subprocess.Popen([sys.executable, "-c", code])


def test_held_create_makes_its_job_after_the_caller_died(raw: Raw) -> None:
    file_id = raw.upload(jsonl()).json()["id"]
    held = raw.gateway.script.add("create", "hold")
    caller = creator(raw, file_id)
    assert held.arrived.wait(30)
    caller.kill()
    caller.wait()
    assert raw.call("GET", "batches").json()["data"] == []
    held.release()
    assert held.done.wait(30)
    assert len(raw.call("GET", "batches").json()["data"]) == 1


@pytest.mark.parametrize(("side", "jobs"), [("on_request", 0), ("on_handled", 1)])
def test_client_can_be_killed_on_either_side_of_a_request(side: str, jobs: int, raw: Raw) -> None:
    file_id = raw.upload(jsonl()).json()["id"]
    started = threading.Event()
    seen: list[tuple[int, str, str, int]] = []

    def kill(n: int, method: str, path: str) -> None:
        assert started.wait(30)
        caller.kill()
        caller.wait()
        seen.append((n, method, path, len(raw.gateway.jobs)))

    setattr(raw.gateway, side, kill)
    caller = creator(raw, file_id)
    started.set()
    assert caller.wait(30) == -signal.SIGKILL
    raw.gateway.on_request = raw.gateway.on_handled = None
    raw.call("GET", "batches")  # the server is there for the next client
    assert seen == [(2, "POST", "/v1/batches", jobs)]


def test_hooks_stand_on_both_sides_of_the_work(raw: Raw) -> None:
    file_id, seen = raw.upload(jsonl()).json()["id"], []
    raw.gateway.on_request = lambda n, m, p: seen.append((n, m, p, len(raw.gateway.jobs)))
    raw.gateway.on_handled = lambda n, m, p: seen.append((n, m, p, len(raw.gateway.jobs)))
    raw.create(file_id)
    assert seen == [(2, "POST", "/v1/batches", 0), (2, "POST", "/v1/batches", 1)]


def test_what_a_hook_raises_reaches_the_test() -> None:
    def hook(n: int, method: str, path: str) -> None:
        raise KeyError(path)

    gateway = StandIn()
    gateway.on_request = hook
    with pytest.raises(KeyError, match="batches"), gateway:
        httpx.get(f"{gateway.base_url}/batches")


def test_outage_keeps_port_and_state(raw: Raw) -> None:
    job_id = raw.run(jsonl())
    with outage(raw.gateway), pytest.raises(httpx.TransportError):
        raw.poll(job_id)
    assert raw.poll(job_id)["status"] == "completed"


def test_job_keeps_the_behaviour_of_its_creation(raw: Raw) -> None:
    raw.gateway.behaviour.terminal = "frozen_by_admin"
    job_id = raw.run(jsonl())
    raw.gateway.behaviour.terminal = "completed"
    assert raw.poll(job_id)["status"] == "frozen_by_admin"
    assert raw.poll(raw.run(jsonl()))["status"] == "completed"


def test_job_without_end_ends_when_told(raw: Raw) -> None:
    raw.gateway.behaviour.running_polls = -1
    job_id = raw.run(jsonl())
    assert raw.poll(job_id)["status"] == "in_progress"
    raw.gateway.finish()
    assert raw.poll(job_id)["status"] == "completed"


def test_foreign_jobs_push_ours_off_the_list(raw: Raw) -> None:
    job_id = raw.run(jsonl())
    raw.gateway.add_foreign(3, status="failed")
    page = raw.call("GET", "batches?limit=3").json()
    assert page["has_more"]
    assert job_id not in [job["id"] for job in page["data"]]
    assert raw.call("GET", "batches?limit=4").json()["data"][-1]["id"] == job_id
    assert page["data"][0]["errors"]["data"][0]["code"] == 3


def test_new_job_may_be_late_in_the_list(raw: Raw) -> None:
    raw.gateway.behaviour.list_delay = 2
    raw.run(jsonl())
    shown = [len(raw.call("GET", "batches").json()["data"]) for _ in range(3)]
    assert shown == [0, 0, 1]


def test_create_over_the_quota_waits_for_the_running_job(raw: Raw) -> None:
    raw.gateway.max_running = 1
    file_id = raw.upload(jsonl()).json()["id"]
    job_id = raw.create(file_id).json()["id"]
    assert raw.create(file_id).status_code == 429
    for _ in range(3):
        raw.poll(job_id)
    assert raw.create(file_id).status_code == 200


@pytest.mark.parametrize(("short", "found"), [("empty", 0), ("rows", 2), ("fake_row", 1)])
def test_short_output_is_whole_at_the_next_read(short: Any, found: int, raw: Raw) -> None:
    raw.gateway.behaviour = Behaviour(short=short, short_reads=1)
    job_id = raw.run(jsonl())
    assert len(raw.output(job_id)) == found
    assert len(raw.output(job_id)) == 4
    assert raw.poll(job_id)["request_counts"] == {"total": 4, "completed": "4", "failed": None}


def test_cut_output_is_clean_or_broken(raw: Raw) -> None:
    raw.gateway.behaviour = Behaviour(short="cut", short_reads=1)
    job_id = raw.run(jsonl())
    cut = raw.call("GET", f"batches/{job_id}/output").content
    whole = raw.call("GET", f"batches/{job_id}/output").content
    assert 0 < len(cut) < len(whole)
    assert whole.startswith(cut)
    raw.gateway.behaviour = Behaviour(short="reset", short_reads=1)
    job_id = raw.run(jsonl())
    with pytest.raises(httpx.RemoteProtocolError):
        raw.output(job_id)
    assert len(raw.output(job_id)) == 4


def test_damage_goes_away_and_never_reaches_the_raw_file(raw: Raw) -> None:
    raw.gateway.behaviour = Behaviour(damage=rows.damaged(2, ["r-1"]), shuffle=True)
    job_id = raw.run(jsonl(text="中文 😀"))
    for damaged in (["r-1"], ["r-1"], []):
        found = {row["custom_id"]: json.dumps(row) for row in raw.output(job_id)}
        assert sorted(found) == ["r-0", "r-1", "r-2", "r-3"]
        assert [i for i, text in found.items() if "\\ufffd" in text] == damaged
    name = raw.poll(job_id)["output_file_id"]
    content = raw.call("GET", f"files/{name}/content").content.decode()
    assert "\ufffd" not in content
    assert all(answer(f"中文 😀 {i}") in content for i in range(4))


def test_row_that_fails_once_is_answered_by_the_next_job(raw: Raw) -> None:
    raw.gateway.behaviour.row = rows.in_turn(rows.failed(500, form="list"), rows.good)
    first, second = (raw.output(raw.run(jsonl(1))) for _ in range(2))
    assert first[0]["error"] == [
        {"error": {"code": 500, "message": "row error 500", "status": "INTERNAL"}}
    ]
    assert second[0]["error"] == ""


def test_counts_can_be_null_or_absent_or_wrong(raw: Raw) -> None:
    wanted: dict[Any, Any] = {
        "null": {"total": 0, "completed": None, "failed": None},
        (lambda job: {"total": 1}): {"total": 1},
    }
    for counts, told_counts in wanted.items():
        raw.gateway.behaviour = Behaviour(counts=counts)
        assert raw.poll(raw.run(jsonl()))["request_counts"] == told_counts
    raw.gateway.behaviour = Behaviour(counts="absent")
    assert "request_counts" not in raw.poll(raw.run(jsonl()))


def test_cancelled_job_keeps_what_it_has_answered(raw: Raw) -> None:
    raw.gateway.behaviour = Behaviour(running_polls=-1, cancel_pct=50)
    job_id = raw.run(jsonl())
    assert raw.call("POST", f"batches/{job_id}/cancel").json() == {}
    assert [raw.poll(job_id)["status"] for _ in range(2)] == ["cancelling", "cancelled"]
    assert len(raw.output(job_id)) == 2


def test_requests_in_parallel_are_all_counted(raw: Raw) -> None:
    uploaded = [
        threading.Thread(target=raw.upload, args=(jsonl(), f"f/{i}.jsonl")) for i in range(8)
    ]
    for thread in uploaded:
        thread.start()
    for thread in uploaded:
        thread.join()
    assert sorted(raw.gateway.uploads) == [f"f/{i}.jsonl" for i in range(8)]
    assert raw.gateway.count("upload") == 8


@pytest.mark.gateway
def test_refused_live_call_is_told_as_the_real_one(raw: Raw, raw_real: Raw) -> None:
    raw.gateway.behaviour.row = rows.failed(429)
    raw_real.gateway.reset(faults=[{"op": "generate", "status": 429}])
    body = json.loads(line("a", "hello"))["body"]
    ours, real = (one.call("POST", "chat/completions", json=body) for one in (raw, raw_real))
    assert told(ours) == told(real)
    assert ours.json()["error"]["code"] == real.json()["error"]["code"]
