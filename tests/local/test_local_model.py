"""The real model: same answers in any order, schema kept, bad rows alone fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_support import Served, jsonl, request

pytestmark = pytest.mark.model

LABELS = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative"]}},
    "required": ["label"],
    "additionalProperties": False,
}
TASK = "Classify the sentiment of the review as positive or negative. Reply with JSON.\n\nReview: "
REVIEWS = {
    "A wonderful film, I loved every minute.": "positive",
    "Terrible. A waste of time and money.": "negative",
    "Brilliant acting and a beautiful story.": "positive",
    "Boring, badly written, awful.": "negative",
}


def schema(of: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": of}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the default model, which is fetched when it is not there."""
    served = Served(data=tmp_path_factory.mktemp("model"))
    yield served
    served.end()


def test_a_job_is_answered_by_the_real_model(model: Served) -> None:
    assert model.info.realm == "local:SmolLM2-135M-Instruct.Q4_1"
    rows = [
        request(f"r{i}", TASK + text, response_format=schema(LABELS))
        for i, text in enumerate(REVIEWS)
    ]
    rows += [
        request("long", "word " * 5000),
        request("odd", response_format=schema({"type": "nonsense"})),
        request("image")
        | {"body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
    ]
    answers = []
    for order in (rows, rows[::-1]):
        job = model.submit(jsonl(*order))
        assert model.wait(job)["request_counts"] == {"total": 7, "completed": 4, "failed": 3}
        answers.append({row["custom_id"]: row for row in model.output(job)})
    got = {}
    for i, text in enumerate(REVIEWS):
        bodies = [each[f"r{i}"]["response"]["body"] for each in answers]
        first, second = (body["choices"][0]["message"]["content"] for body in bodies)
        assert first == second
        assert bodies[0]["model"] == "SmolLM2-135M-Instruct.Q4_1"
        got[text] = json.loads(first)["label"]
    assert sum(got[text] == label for text, label in REVIEWS.items()) >= 3
    assert "context is 2048" in answers[0]["long"]["error"]
    for name in ("long", "odd", "image"):
        assert answers[0][name]["error"].startswith("Bad Request")


def test_the_length_is_capped_and_said(model: Served) -> None:
    ask = {"messages": [{"role": "user", "content": "Count upwards."}], "max_tokens": 5}
    choice = model.http.post("/chat/completions", json=ask).json()
    assert choice["choices"][0]["finish_reason"] == "MAX_TOKENS"
    assert choice["usage"]["completion_tokens"] == 5
    huge = {"messages": ask["messages"], "max_tokens": 2**40, "stop": ["\n", "."]}
    answer = model.http.post("/chat/completions", json=huge).json()
    assert answer["usage"]["completion_tokens"] > 1


def test_the_engines_own_listener_is_locked(model: Served) -> None:
    import httpx

    mine = int(model.info.base_url.split(":")[2].split("/")[0])
    ports = [port for port in listening(model.info.pid) if port != mine]
    for port in ports:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        assert httpx.post(url, json=body, trust_env=False).status_code == 401


def listening(pid: int) -> list[int]:
    """Give the ports on which a process listens (Linux)."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("reads Linux's /proc")
    mine = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in mine
    ]


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 7])
def test_every_seed_gives_the_same_answer_again(model: Served, seed: int) -> None:
    told = [{"role": "user", "content": "Name any animal, and say why."}]
    ask = {"messages": told, "max_tokens": 24, "temperature": 1.5, "seed": seed}
    bodies = [model.http.post("/chat/completions", json=ask).json() for _ in range(3)]
    texts = {body["choices"][0]["message"]["content"] for body in bodies}
    assert len(texts) == 1
