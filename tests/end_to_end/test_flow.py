"""The flow of NYU's page, from one call, through the real Portkey gateway.

The page's own script runs beside it: what reaches the gateway and Google must be the same.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gateway_lab.harness import Harness
from gateway_lab.oracle import expected_answer
from support.http_server import Answer, Request
from support.stand_in import StandIn

import nyu_llm_frames as llm

DATA = Path(__file__).parents[1] / "data"
MODEL = "gemini-3-flash-preview"
GATEWAY_HEADERS = ("x-portkey-", "content-type", "authorization")

# The example file of NYU's page, as it is printed there.
PAGE_FILE = (
    '{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": '
    '{"model": "gemini-3-flash-preview", "messages": [{"role": "user", "content": '
    '"Where is NYU located?"}], "max_tokens": 2048}}\n'
    '{"custom_id": "request-2", "method": "POST", "url": "/v1/chat/completions", "body": '
    '{"model": "gemini-3-flash-preview", "messages": [{"role": "user", "content": '
    '"What resources are available for genAI research at nyu?"}], "max_tokens": 2048}}\n'
)
QUESTIONS = pd.DataFrame(
    {
        "question": [
            "Where is NYU located?",
            "What resources are available for genAI research at nyu?",
        ]
    }
)


@pytest.fixture(scope="module")
def plain_gateway() -> Iterator[Harness]:
    """The gateway as it is published, without the hosted one's way of writing answers."""
    with Harness(hosted_dialect=False) as harness:
        yield harness


@pytest.fixture(params=["hosted", "plain"])
def either_gateway(request: pytest.FixtureRequest) -> Iterator[Harness]:
    harness: Harness = request.getfixturevalue(
        "real_gateway" if request.param == "hosted" else "plain_gateway"
    )
    harness.reset()
    yield harness
    harness.close_clients()


def page_script(gateway: Any, folder: Path) -> None:
    """Run NYU's page: upload, submit, status, output."""
    path = folder / "test_dataset.jsonl"
    path.write_text(PAGE_FILE)
    client = gateway.portkey(
        provider="@vertexai",
        vertex_storage_bucket_name=gateway.bucket,
        provider_file_name="folder/test_dataset.jsonl",
        provider_model=MODEL,
    )
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    client = gateway.portkey(
        provider="@vertexai",
        vertex_storage_bucket_name=gateway.bucket,
        provider_model=MODEL,
    )
    job = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        model=MODEL,
    )
    status = ""
    while status != "completed":
        status = json.loads(client.openai_client.with_raw_response.batches.retrieve(job.id).text)[
            "status"
        ]
    client.batches.output(job.id)


def ask(gateway: Any) -> pd.DataFrame:
    """Ask the page's questions by one call."""
    out: pd.DataFrame = QUESTIONS.llm.batch(
        "{{ question }}", model=MODEL, max_tokens=2048, gateway=llm.Gateway(**gateway.settings)
    )
    return out


def stored_requests(gateway: Harness, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the input lines of a job as they lie at Google."""
    (uri,) = job["inputConfig"]["gcsSource"]["uris"]
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    assert bucket == gateway.bucket
    return [json.loads(line) for line in gateway.get_object(key).splitlines()]


@pytest.mark.gateway
def test_every_commutation_gets_the_answer_to_its_own_prompt(either_gateway: Harness) -> None:
    df = pd.read_csv(DATA / "commutations.csv")
    before = df.copy(deep=True)
    out = df.llm.batch(
        template="Which drug is named in this offence? {{ offense }}",
        model=MODEL,
        gateway=llm.Gateway(**either_gateway.settings),
    )
    pd.testing.assert_frame_equal(df, before)
    assert list(out.columns) == [*df.columns, "response", "response_error"]
    assert len(out) == 1381
    assert out["response"].tolist() == [
        expected_answer(f"Which drug is named in this offence? {text}") for text in df["offense"]
    ]
    assert out["response_error"].isna().all()
    assert len(either_gateway.jobs()) == 1
    (job,) = either_gateway.jobs()
    requests = stored_requests(either_gateway, job)
    assert len(requests) == df["offense"].nunique()  # an offence that comes twice is sent once


@pytest.mark.gateway
def test_every_speech_gets_the_answer_to_its_own_prompt(either_gateway: Harness) -> None:
    df = pd.read_csv(DATA / "state_of_the_state.csv")
    out = df.llm.batch(
        template=[
            {"role": "system", "content": "You read speeches of the governor of {{ state }}."},
            {"role": "user", "content": "Sum this up.\n\n{{ speech }}"},
        ],
        model=MODEL,
        temperature=0,
        gateway=llm.Gateway(**either_gateway.settings),
    )
    assert out["response"].tolist() == [
        expected_answer(f"Sum this up.\n\n{speech}") for speech in df["speech"]
    ]
    (job,) = either_gateway.jobs()
    told = {
        line["request"]["systemInstruction"]["parts"][0]["text"]
        for line in stored_requests(either_gateway, job)
    }
    assert told == {f"You read speeches of the governor of {state}." for state in df["state"]}


@pytest.mark.gateway
def test_a_finished_call_needs_neither_gateway_nor_key(either_gateway: Harness) -> None:
    first = ask(either_gateway)
    calls = len(either_gateway.log())
    again = QUESTIONS.llm.batch(
        "{{ question }}",
        model=MODEL,
        max_tokens=2048,
        gateway=llm.Gateway(base_url="http://127.0.0.1:9/v1"),
    )
    pd.testing.assert_frame_equal(again, first)
    assert len(either_gateway.log()) == calls


@pytest.mark.gateway
def test_the_open_source_gateway_is_given_google_s_token(real_gateway: Harness) -> None:
    google = llm.Gateway(**{**real_gateway.settings, **real_gateway.info()["oss"]})
    out = QUESTIONS.llm.batch("{{ question }}", model=MODEL, gateway=google)
    assert out["response"].tolist() == [expected_answer(text) for text in QUESTIONS["question"]]


@pytest.mark.gateway
def test_google_holds_what_the_page_would_have_stored(
    either_gateway: Harness, tmp_path: Path
) -> None:
    page_script(either_gateway, tmp_path)
    ask(either_gateway)
    theirs, ours = either_gateway.jobs()
    assert ours["model"] == theirs["model"]
    assert ours["inputConfig"]["instancesFormat"] == theirs["inputConfig"]["instancesFormat"]
    assert ours["outputConfig"].keys() == theirs["outputConfig"].keys()
    (uri,) = ours["inputConfig"]["gcsSource"]["uris"]
    folder = ours["outputConfig"]["gcsDestination"]["outputUriPrefix"]
    assert uri.startswith(f"gs://{either_gateway.bucket}/nyu-llm-frames/")
    assert uri.startswith(folder)  # the output lies beside the input, in a folder of its own
    pairs = zip(
        stored_requests(either_gateway, theirs), stored_requests(either_gateway, ours), strict=True
    )
    for page, own in pairs:
        assert own.pop("requestId").startswith("r-")
        assert page.pop("requestId").startswith("request-")
        assert own == page


class Recorder(StandIn):
    """The stand-in, which also keeps what was posted as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Any] = []

    def route(self, request: Request) -> Answer:
        if request.headers.get("content-type", "") == "application/json" and request.body:
            self.posted.append(json.loads(request.body))
        return super().route(request)

    def calls(self) -> dict[str, dict[str, str]]:
        """Return the headers that matter of each kind of call."""
        found: dict[str, dict[str, str]] = {}
        for (method, path), headers in zip(self.log, self.headers, strict=True):
            name = f"{method} {path}".replace(self.jobs[0].id, "ID")
            chosen = {k: v for k, v in headers.items() if k.startswith(GATEWAY_HEADERS)}
            if "content-type" in chosen:
                chosen["content-type"] = chosen["content-type"].partition(";")[0]
            found.setdefault(name, chosen)
        return found


def test_the_calls_are_those_of_the_page(tmp_path: Path) -> None:
    with Recorder() as page, Recorder() as own:
        page_script(page, tmp_path)
        own.behaviour.content_fails = -1
        ask(own)
        theirs, ours = page.calls(), own.calls()
        (stored,) = [call for call in ours if call.endswith("/content")]  # tried before the output
        # The list is read before the submit.
        assert set(ours) == {*theirs, "GET /v1/batches?limit=100", stored}
        file_name = "x-portkey-provider-file-name"
        assert theirs["POST /v1/files"].pop(file_name) == "folder/test_dataset.jsonl"
        (name,) = own.uploads
        assert ours["POST /v1/files"].pop(file_name) == name
        for call in ("POST /v1/files", "POST /v1/batches"):
            # The page's client sends a placeholder where another gateway would want a key.
            assert theirs[call].pop("authorization") == "Bearer OPENAI_API_KEY"
            assert ours[call] == theirs[call]
        for call in ("GET /v1/batches/ID", "GET /v1/batches/ID/output"):
            for header in ("x-portkey-api-key", "x-portkey-provider"):
                assert ours[call][header] == theirs[call][header]
                assert ours[stored][header] == theirs[call][header]
        (shown,), (sent,) = page.posted, own.posted
        input_file_id = urllib.parse.quote(f"gs://{own.bucket}/{name}", safe="")
        assert sent == {**shown, "input_file_id": input_file_id}
        assert sent == {
            "input_file_id": input_file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "model": MODEL,
        }


def test_the_request_lines_are_those_of_the_page(tmp_path: Path) -> None:
    with StandIn() as gateway:
        ask(gateway)
        (data,) = gateway.uploads.values()
        assert data.isascii()
        lines = [json.loads(line) for line in data.splitlines()]
        examples = [json.loads(line) for line in PAGE_FILE.splitlines()]
        for line, example in zip(lines, examples, strict=True):
            assert list(line) == list(example)  # the keys, in the page's order
            assert list(line["body"]) == list(example["body"])
            assert {**line, "custom_id": ""} == {**example, "custom_id": ""}
