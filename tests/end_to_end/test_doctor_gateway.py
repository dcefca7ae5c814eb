"""`nyu-llm-frames doctor` with the real Portkey gateway: what is well, and what it says to fix.

Each setting and each neighbour is broken once; the step that fails must be the one that is broken.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_lab.harness import Harness, free_port
from gateway_lab.oracle import expected_answer
from terminal import FOR_EVER, Said, Terminal, finish, submits

from nyu_llm_frames._shared.options import NYU_CONTACT
from nyu_llm_frames.cli import exits

pytestmark = pytest.mark.gateway

STEPS = ["versions", "network", "settings", "gateway", "key", "job list", "bucket", "batch"]
PROMPTS = [f"In one word: in which country is {city}?" for city in ("Abu Dhabi", "Shanghai")]


@pytest.fixture
def terminal(real_gateway: Harness) -> Terminal:
    return Terminal(real_gateway)


@pytest.fixture(scope="module")
def breakable_gateway() -> Iterator[Harness]:
    """A gateway for one test, which breaks it."""
    with Harness(hosted_dialect=True) as harness:
        yield harness
        harness.close_clients()


def failed(said: Said) -> dict[str, dict[str, Any]]:
    """Return the steps that failed, as `--json` tells them."""
    return {f["step"]: f for f in said.json if f["state"] == "failed"}


def last(said: Said) -> dict[str, Any]:
    """Return the step that sends two rows."""
    found: dict[str, Any] = said.json[-1]
    assert found["step"] == "batch"
    return found


# --- all is well ------------------------------------------------------------------------------
def test_doctor_finds_all_well_and_pays_nothing(terminal: Terminal, real_gateway: Harness) -> None:
    said = terminal.program("doctor")
    lines = [line.split(":")[0].split(None, 1) for line in said.stdout.splitlines()]
    assert lines == [["ok", step] for step in STEPS[:-1]] + [["-", "batch"]]
    assert "fix:" not in said.stdout
    assert "was not tried" in said.stdout.splitlines()[-1]
    assert not real_gateway.jobs()
    (stored,) = [c for c in real_gateway.log() if c["host"].startswith("storage")]
    assert (stored["method"], stored["status"]) == ("PUT", 200)
    bucket, _, key = urllib.parse.unquote(stored["path"]).lstrip("/").partition("/")
    assert bucket == real_gateway.bucket
    lines_there = [json.loads(line) for line in real_gateway.get_object(key).splitlines()]
    texts = [line["request"]["contents"][0]["parts"][0]["text"] for line in lines_there]
    assert texts == PROMPTS


def test_doctor_sends_two_rows_and_shows_their_answers(
    terminal: Terminal, real_gateway: Harness
) -> None:
    said = terminal.program("doctor", "--send", "--json")
    assert [(f["step"], f["state"], f["fix"]) for f in said.json] == [(s, "ok", "") for s in STEPS]
    for city, prompt in zip(("Abu Dhabi", "Shanghai"), PROMPTS, strict=True):
        assert f"{city}: {expected_answer(prompt)}" in last(said)["found"]
    assert submits(real_gateway) == 1
    # The second time the answers are in the sidecar: that they are right shows nothing about now.
    again = last(terminal.here("doctor", "--send", "--json"))
    assert again["state"] == "ok"
    assert "nothing was sent" in again["found"]
    assert "delete doctor.llm" in again["fix"]
    assert submits(real_gateway) == 1
    terminal.here("doctor", "--send", "--sidecar", "other.llm")
    assert submits(real_gateway) == 2


# --- a setting is wrong -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value", "step", "found", "code"),
    [
        ("PORTKEY_API_KEY", "not-the-key", "key", "401: Invalid API Key", exits.NOT_ALLOWED),
        ("NYU_LLM_BUCKET", "not-my-bucket", "bucket", "NoSuchBucket", exits.ERROR),
        ("PORTKEY_PROVIDER", "@nobody", "job list", "400: Invalid provider", exits.ERROR),
        ("PORTKEY_BASE_URL", "without /v1", "job list", "404: Not Found", exits.ERROR),
        ("PORTKEY_BASE_URL", "nobody listens", "gateway", "Connection refused", exits.TRY_LATER),
    ],
)
def test_doctor_names_the_setting_that_is_wrong(
    terminal: Terminal,
    real_gateway: Harness,
    name: str,
    value: str,
    step: str,
    found: str,
    code: int,
) -> None:
    addresses = {
        "without /v1": real_gateway.base_url.removesuffix("/v1"),
        "nobody listens": f"http://127.0.0.1:{free_port()}/v1",
    }
    terminal.environment[name] = addresses.get(value, value)
    said = terminal.here("doctor", "--send", "--json", code=code)
    first = next(f for f in said.json if f["state"] != "ok")
    assert (first["step"], first["state"]) == (step, "failed")
    assert found in first["found"]
    assert name in first["fix"]
    # Where more than one step fails, the later ones say which comes first.
    assert all("job list" in f["fix"] for f in failed(said).values() if f != first)
    assert last(said)["state"] == "skipped"
    assert not real_gateway.jobs()


def test_doctor_says_in_words_what_to_fix_and_ends_with_a_code(terminal: Terminal) -> None:
    terminal.environment["PORTKEY_API_KEY"] = "not-the-key"
    said = terminal.here("doctor", code=exits.NOT_ALLOWED)
    assert "FAIL  key: " in said.stdout
    assert "      fix: Set PORTKEY_API_KEY" in said.stdout


def test_doctor_tells_an_unknown_model_from_everything_else(
    terminal: Terminal, real_gateway: Harness
) -> None:
    words = ("doctor", "--model", "gemini-missing", "--json")
    assert "gemini-missing was not tried" in last(terminal.here(*words))["found"]
    for _ in range(2):  # a refused submit leaves nothing behind that the next call would believe
        said = terminal.here(*words, "--send", code=exits.ERROR)
        assert list(failed(said)) == ["batch"]
        assert "404: The PublisherModel gemini-missing does not exist" in last(said)["found"]
        assert "'gemini-missing'" in last(said)["fix"]
        assert "--model" in last(said)["fix"]
    assert not real_gateway.jobs()
    terminal.here("doctor", "--send")
    assert submits(real_gateway) == 3


# --- somebody else is in trouble --------------------------------------------------------------
def test_doctor_tells_a_stopped_gateway_from_one_in_trouble(breakable_gateway: Harness) -> None:
    terminal = Terminal(breakable_gateway)
    terminal.here("doctor")
    google, gateway = breakable_gateway._procs
    google.terminate()
    google.wait()
    (trouble,) = failed(terminal.here("doctor", "--json", code=exits.TRY_LATER)).values()
    assert trouble["step"] == "gateway"
    assert "answered 500" in trouble["found"]
    assert "was reached" in trouble["fix"]
    assert "VPN" not in trouble["fix"]
    gateway.terminate()
    gateway.wait()
    (stopped,) = failed(terminal.here("doctor", "--json", code=exits.TRY_LATER)).values()
    assert stopped["step"] == "gateway"
    assert breakable_gateway.base_url in stopped["found"]
    for word in ("VPN", "PORTKEY_BASE_URL"):
        assert word in stopped["fix"]


def test_doctor_sends_where_only_the_list_is_forbidden(
    terminal: Terminal, real_gateway: Harness
) -> None:
    real_gateway.reset("happy", faults=[{"op": "list_jobs", "status": 403, "times": -1}])
    said = terminal.here("doctor", "--send", "--json", code=exits.NOT_ALLOWED)
    (bad,) = failed(said).values()
    assert bad["step"] == "job list"
    assert "right to list" in bad["fix"]
    assert last(said)["state"] == "ok"
    assert submits(real_gateway) == 1


def test_doctor_goes_on_where_only_the_list_fails_over_a_job_of_another_kind(
    terminal: Terminal, real_gateway: Harness
) -> None:
    real_gateway.reset("happy", foreign_jobs=1, foreign_tables=True)
    said = terminal.here("doctor", "--json", code=exits.TRY_LATER)
    (bad,) = failed(said).values()
    assert bad["step"] == "job list"
    assert "BigQuery" in bad["fix"]
    assert "bucket" in [f["step"] for f in said.json]


def test_doctor_asks_for_the_right_to_write_to_the_bucket(
    terminal: Terminal, real_gateway: Harness
) -> None:
    real_gateway.reset("happy", faults=[{"op": "put_object", "status": 403, "times": -1}])
    said = terminal.here("doctor", "--json", code=None)
    (bad,) = failed(said).values()
    assert bad["step"] == "bucket"
    # The gateway hands a 403 of the storage on as it is, or as a 500 that may be anybody's.
    refused = "answered 403" in bad["found"]
    assert said.code == (exits.NOT_ALLOWED if refused else exits.ERROR)
    assert ("write to the bucket" if refused else "lack write access") in bad["fix"]
    assert NYU_CONTACT in bad["fix"]


def test_doctor_comes_back_to_a_job_that_takes_its_time(
    terminal: Terminal, real_gateway: Harness
) -> None:
    words = ("doctor", "--send", "--json", "--timeout", "0.3")
    real_gateway.reset("happy", max_running_jobs=0)
    found = last(terminal.here(*words, code=exits.PENDING))
    assert found["state"] == "pending"
    assert "not submitted" in found["found"]
    assert "429: Quota exceeded" in found["found"]
    assert found["fix"] == "Later: nyu-llm-frames wait doctor.llm"
    assert not real_gateway.jobs()
    real_gateway.scenario("happy", running_polls=FOR_EVER)
    found = last(terminal.here(*words, code=exits.PENDING))
    assert found["found"].startswith("submitted; still running after 0.3 s")
    finish(real_gateway)
    found = last(terminal.here("doctor", "--send", "--json"))
    assert found["state"] == "ok"
    assert "nothing was sent" not in found["found"]
    assert len(real_gateway.jobs()) == 1


def test_doctor_says_how_to_settle_an_uncertain_submit(
    terminal: Terminal, real_gateway: Harness
) -> None:
    real_gateway.reset(
        "happy",
        faults=[{"op": "list_jobs", "status": 403, "times": -1}],
        edge=[{"match": "POST /v1/batches", "mode": "lose"}],
    )
    # The list is forbidden too; that is less than a job that may be paid.
    found = last(terminal.here("doctor", "--send", "--json", code=exits.UNCERTAIN))
    assert found["state"] == "failed"
    assert found["fix"].startswith("nyu-llm-frames resolve doctor.llm")
    (job,) = real_gateway.jobs()
    terminal.here("resolve", "doctor.llm", "--adopt", job["name"].rsplit("/", 1)[1])
    terminal.here("wait", "doctor.llm")
    assert submits(real_gateway) == 1


def test_doctor_shows_why_a_job_failed_and_sends_anew(
    terminal: Terminal, real_gateway: Harness
) -> None:
    real_gateway.reset("failed")
    found = last(terminal.here("doctor", "--send", "--json", code=exits.JOB_FAILED))
    assert "Failed to import data" in found["found"]
    real_gateway.scenario("happy")
    assert last(terminal.here("doctor", "--send", "--json"))["state"] == "ok"
    assert submits(real_gateway) == 2


def test_doctor_tells_old_failures_from_new_ones(terminal: Terminal, real_gateway: Harness) -> None:
    real_gateway.reset("happy", blocked_pct=100)
    words = ("doctor", "--send", "--json")
    found = last(terminal.here(*words, code=exits.NO_GOOD_ANSWER))
    assert "prompt blocked" in found["found"]
    assert found["fix"] == "See: nyu-llm-frames failures doctor.llm"
    real_gateway.scenario("happy")
    found = last(terminal.here(*words, code=exits.NO_GOOD_ANSWER))
    assert "nothing was sent" in found["found"]
    assert "delete doctor.llm" in found["fix"]
    assert submits(real_gateway) == 1
