"""Every scenario of the lab and combinations of them, through the real Portkey gateway.

Each test knows beforehand what must become of every row, and how many jobs may be paid.
"""

from __future__ import annotations

import random
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gateway_lab.harness import Harness
from gateway_lab.oracle import expected_answer
from gateway_lab.scenarios import PRESETS
from verdicts import check, counts

import nyu_llm_frames as llm
from nyu_llm_frames._gateway import connection
from nyu_llm_frames._jobs import sending
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    PartialResultWarning,
    RunTimeoutError,
    UncertainSubmissionError,
)

pytestmark = pytest.mark.gateway

ROWS = 200
MODEL = "gemini-3-flash-preview"
FAILED = {"terminal": "FAILED", "error": {"code": 3, "message": "Failed to import data."}}


@pytest.fixture
def prompts() -> list[str]:
    return [f"Row {i}: naïve “quotes”, 東京 {i * 7919 % 1000}" for i in range(ROWS)]


def ask(gateway: Harness, prompts: list[str], **options: Any) -> pd.DataFrame:
    """Ask one prompt a row, with details; rows without an answer are no surprise here."""
    cells = pd.Series(prompts, dtype=object)  # a column of strings holds no lone surrogates
    frame = cells.to_frame("text").set_axis([f"row {i}" for i in range(len(prompts))])
    options = {"model": MODEL, "details": True, **options}
    options.setdefault("gateway", llm.Gateway(**gateway.settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartialResultWarning)
        out: pd.DataFrame = frame.llm.batch("{{ text }}", **options)
    return out


def all_right(out: pd.DataFrame, prompts: list[str]) -> bool:
    return out["response"].tolist() == [expected_answer(text) for text in prompts]


# --- scenarios in which every row's fate is known ---------------------------------------------
PLAIN = {
    "happy": 1,
    "instant": 1,
    "slow": 1,
    "shuffled": 1,
    "row_failures": 1,
    "missing_rows": 2,
    "duplicates": 1,
    "blocked": 1,
    "max_tokens": 1,
    "output_404_then_ok": 1,
    "poll_burst": 1,
    "create_lost_500": 1,
    "upload_503": 1,
    "busy_project": 1,
}
# These have tests of their own below.
EARLY = {"failed", "expired", "cancelled", "partially_succeeded", "small_jobs"}
UNREADABLE = {"truncated", "output_404"}


def test_every_scenario_of_the_lab_is_tested() -> None:
    assert set(PLAIN) | EARLY | UNREADABLE == set(PRESETS)


@pytest.mark.parametrize(("name", "jobs"), PLAIN.items(), ids=list(PLAIN))
def test_every_row_ends_as_the_scenario_says(
    real_gateway: Harness, prompts: list[str], name: str, jobs: int
) -> None:
    real_gateway.reset(name)
    out = ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == jobs
    check(out, prompts, name)


ROW_KINDS: dict[str, dict[str, Any]] = {
    "everything at once": {
        "shuffle": True,
        "fail_pct": 8,
        "missing_pct": 8,
        "duplicate_pct": 15,
        "conflict_pct": 15,
        "blocked_pct": 8,
        "safety_pct": 8,
        "max_tokens_pct": 8,
        "max_tokens_empty_pct": 8,
        "thought_pct": 10,
        "empty_response_pct": 5,
        "drop_request_id_pct": 5,
        "crlf": True,
        "blank_lines": True,
        "final_newline": False,
    },
    "quota": {"fail_pct": 20, "fail_kind": "resource_exhausted", "shuffle": True},
    "json errors": {"fail_pct": 20, "fail_kind": "json"},
    "plain errors": {"fail_pct": 20, "fail_kind": "plain"},
    "conflicts": {"conflict_pct": 40, "shuffle": True},
    "ids are dropped": {"drop_request_id_pct": 25},
    "no usage, and thoughts": {"no_usage_pct": 40, "thought_pct": 40},
    # Lines that come twice must not make up for those that the gateway leaves out.
    "no usage, and duplicates": {"no_usage_pct": 20, "duplicate_pct": 40, "shuffle": True},
    "numeric ids are numbers": {"coerce_numeric_ids": True},
    "no counts of the job": {"stats_omit": ["successfulCount", "failedCount"], "missing_pct": 10},
    "unknown counts": {"incomplete_count": "-1", "missing_pct": 10},
    "strict importer": {"bq_import": True, "shuffle": True},
    "CRLF and blank lines": {"crlf": True, "blank_lines": True, "duplicate_pct": 30},
}


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("retries", [0, 2])
def test_rows_of_every_kind_end_in_one_known_status(
    real_gateway: Harness, prompts: list[str], kind: str, retries: int
) -> None:
    settings = ROW_KINDS[kind]
    real_gateway.reset("happy", **settings)
    out = ask(real_gateway, prompts, retries=retries)
    check(out, prompts, "happy", **settings)
    curable = {"failed", "missing"} & set(counts(out))
    assert len(real_gateway.jobs()) == (1 + retries if curable else 1)


TYPES: list[str | None] = ["application/octet-stream", "application/json", "text/plain", None]
READ: dict[str, dict[str, Any]] = {
    "everything at once": ROW_KINDS["everything at once"],
    "missing at first": {"output_404_times": 3, "missing_pct": 10},
    "cut once": {"truncate_at": 0.5, "truncate_times": 1, "shuffle": True, "conflict_pct": 30},
    "cleanly short once": {"truncate_at": 0.5, "truncate_times": 1, "truncate_mode": "short"},
    "one row": {"truncate_at": 0.5, "truncate_times": 2, "truncate_mode": "short"},
}


@pytest.mark.parametrize("kind", READ)
def test_the_stored_file_and_the_output_give_the_same_frame_and_jobs(
    real_gateway: Harness, prompts: list[str], kind: str, tmp_path: Path
) -> None:
    """Whether the gateway gives the stored file, refuses it, or wraps it."""
    found = []
    for number, output_type in enumerate(TYPES):
        settings = {**READ[kind], "output_type": output_type}
        real_gateway.reset("happy", **settings)
        some = prompts[:1] if kind == "one row" else prompts
        with llm.set_options(keep_prompts=False):
            out = ask(real_gateway, some, sidecar=tmp_path / str(number))
        check(out, some, "happy", **settings)
        for raw in llm.open_sidecar(tmp_path / str(number)).answers(raw=True)["raw"]:
            assert b'"contents"' not in raw
        found.append((out, [job["_rows_in"] for job in real_gateway.jobs()]))
    (first, jobs), *others = found
    # The gateway's rows say no reason of a blocked prompt, and a job has a name of its own.
    known = ~first["response_status"].isin(["blocked", "missing"])
    for out, paid in others:
        assert paid == jobs
        left_out = out["response_error"].where(known, first["response_error"])
        pd.testing.assert_frame_equal(out.assign(response_error=left_out), first)


def test_the_usual_collect_is_one_request_for_the_stored_file(
    real_gateway: Harness, prompts: list[str]
) -> None:
    real_gateway.reset("instant")
    ask(real_gateway, prompts)
    reads = [e for e in real_gateway.log() if "/prediction-model-" in e["path"]]
    assert [e["method"] for e in reads] == ["GET"]


def test_what_another_attempt_cures_is_sent_again_alone(
    real_gateway: Harness, prompts: list[str]
) -> None:
    settings = {"fail_pct": 20, "fail_kind": "resource_exhausted", "missing_pct": 10}
    real_gateway.reset("happy", **settings)
    first = ask(real_gateway, prompts, retries=0)
    open_rows = int((first["response_status"] != "ok").sum())
    assert open_rows
    real_gateway.scenario("happy")
    out = ask(real_gateway, prompts, retries=1)
    assert all_right(out, prompts)
    _, second_job = real_gateway.jobs()
    assert int(second_job["completionStats"]["successfulCount"]) == open_rows
    done = first["response_status"] == "ok"
    pd.testing.assert_series_equal(out["response"][done], first["response"][done])


def test_jobs_of_another_kind_in_the_project_do_not_keep_ours_from_being_made(
    real_gateway: Harness, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_gateway.scenario("happy", foreign_jobs=1, foreign_tables=True)
    with pytest.raises(RunTimeoutError, match="500"):
        ask(real_gateway, prompts, timeout=0.5)
    assert not real_gateway.jobs()
    monkeypatch.setattr(sending, "LIST_PATIENCE_S", 0.3)
    assert all_right(ask(real_gateway, prompts), prompts)
    assert len(real_gateway.jobs()) == 1


# --- trouble on the way -----------------------------------------------------------------------
BUSY = {"foreign_jobs": 250}
CREATE = "POST /v1/batches"
TROUBLE: dict[str, dict[str, Any]] = {
    "late, cut once, and a burst of errors": {
        "output_404_times": 2,
        "truncate_at": 0.5,
        "truncate_times": 1,
        "running_polls": 6,
        "faults": [
            {"op": "get_job", "status": 429, "times": 2, "after": 1},
            {"op": "get_job", "status": 503, "times": 2, "after": 1},
        ],
    },
    "a short output that looks whole": {
        "truncate_at": 0.4,
        "truncate_mode": "short",
        "truncate_times": 2,
    },
    "lost create in a busy project": {
        **BUSY,
        "faults": [{"op": "create_job", "status": 500, "times": 1, "side_effect": True}],
    },
    "refused create in a busy project": {
        **BUSY,
        "faults": [{"op": "create_job", "status": 503, "times": 1}],
    },
    "quota for jobs": {"faults": [{"op": "create_job", "status": 429, "times": 2}]},
    "answer of the create lost at the door": {
        **BUSY,
        "edge": [{"match": CREATE, "mode": "lose", "times": 1}],
    },
    "504 page after the create": {
        "edge": [{"match": CREATE, "mode": "lose", "status": 504, "times": 1}]
    },
    "login page after the create": {
        "edge": [{"match": CREATE, "mode": "lose", "status": 200, "times": 1}]
    },
    "create reset at the door": {
        **BUSY,
        "edge": [{"match": CREATE, "mode": "reset", "times": 1}],
    },
    "upload 503 twice": {"faults": [{"op": "put_object", "status": 503, "times": 2}]},
    "upload reset at the door": {
        "edge": [{"match": "POST /v1/files", "mode": "reset", "times": 1}]
    },
    "output behind a login page once": {
        "edge": [{"match": "GET /v1/batches/", "mode": "respond", "status": 200, "times": 3}]
    },
    "job list fails at first": {"faults": [{"op": "list_jobs", "status": 503, "times": 2}]},
    "output 503 behind the gateway": {"faults": [{"op": "get_object", "status": 503, "times": 2}]},
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_trouble_costs_time_and_no_second_job(
    real_gateway: Harness, prompts: list[str], kind: str
) -> None:
    real_gateway.reset("happy", shuffle=True, **TROUBLE[kind])
    out = ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == 1
    assert all_right(out, prompts)


@pytest.mark.parametrize("mode", ["lose", "reset"])
def test_a_lost_create_that_the_list_cannot_show_asks_its_user(
    real_gateway: Harness, prompts: list[str], mode: str
) -> None:
    # No list can be read before the submit, and it shows only a hundred of 250 jobs after it.
    refused = {"match": "GET /v1/batches?limit", "mode": "respond", "status": 404, "times": -1}
    real_gateway.reset("happy", **BUSY, edge=[refused, {"match": CREATE, "mode": mode, "times": 1}])
    with pytest.raises(UncertainSubmissionError, match="may or may not exist") as caught:
        ask(real_gateway, prompts)
    made = real_gateway.jobs()
    assert len(made) == (mode == "lose")
    real_gateway.scenario("happy")
    run = caught.value.run
    assert run is not None
    if made:
        run.resolve(adopt=made[0]["name"].rsplit("/", 1)[1])
    else:
        run.resolve(resubmit=True)
    out = ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == 1
    assert all_right(out, prompts)


def test_a_create_that_never_answers_is_found_by_the_next_call(
    real_gateway: Harness, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SUBMIT_S", 0.5)
    real_gateway.reset("happy", edge=[{"match": CREATE, "mode": "hang", "times": 1}])
    out = ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == 1
    assert all_right(out, prompts)


# --- jobs that end early ----------------------------------------------------------------------
ENDS = {
    "expired": 60,
    "cancelled": 40,
    "partially_succeeded": 70,
}


@pytest.mark.parametrize("retries", [0, 1, 2])
@pytest.mark.parametrize("name", ENDS)
def test_a_job_that_ends_early_keeps_its_answers_and_only_the_rest_is_paid(
    real_gateway: Harness, prompts: list[str], name: str, retries: int
) -> None:
    real_gateway.reset(name)
    out = ask(real_gateway, prompts, retries=retries)
    left = len(prompts)
    for _ in range(1 + retries):
        left -= round(left * ENDS[name] / 100)
    found = counts(out)
    assert found == {"ok": len(prompts) - left, "missing": left}
    assert len(real_gateway.jobs()) == 1 + retries
    ok = out["response_status"] == "ok"
    told = out["response"][ok].tolist()
    texts = [text for text, good in zip(prompts, ok, strict=True) if good]
    assert told == [expected_answer(text) for text in texts]
    assert out["response"][~ok].isna().all()
    assert out["response_error"][~ok].str.contains("without an answer").all()
    # The same call again starts nothing over.
    ask(real_gateway, prompts, retries=retries)
    assert len(real_gateway.jobs()) == 1 + retries


@pytest.mark.parametrize("name", ["failed", "small_jobs"])
def test_a_failed_job_is_reported_and_the_next_call_sends_it_anew(
    real_gateway: Harness, prompts: list[str], name: str
) -> None:
    real_gateway.reset(name)
    with pytest.raises(BatchJobFailedError) as caught:
        ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == 1
    (message,) = caught.value.jobs.values()
    expected = "Failed to import data" if name == "failed" else "exceeds 50"
    assert expected in message
    assert message in str(caught.value)
    real_gateway.scenario("happy")
    assert all_right(ask(real_gateway, prompts), prompts)
    assert len(real_gateway.jobs()) == 2


def test_a_failed_job_does_not_take_the_others_along(
    real_gateway: Harness, prompts: list[str]
) -> None:
    real_gateway.reset("happy", max_rows=50)
    with (
        llm.set_options(max_requests_per_file=80),
        pytest.raises(BatchJobFailedError) as caught,
    ):
        ask(real_gateway, prompts)  # 80, 80 and 40 requests
    assert len(real_gateway.jobs()) == 3
    assert len(caught.value.jobs) == 2
    run = caught.value.run
    assert run is not None
    assert run.counts() == {"ok": 40, "missing": 160}
    assert run.result()["response"].tolist()[160:] == [expected_answer(t) for t in prompts[160:]]
    real_gateway.scenario("happy")
    assert all_right(ask(real_gateway, prompts), prompts)


@pytest.mark.parametrize("name", ["truncated", "output_404"])
@pytest.mark.parametrize("told", [{}, {"stats_omit": ["successfulCount", "failedCount"]}])
def test_an_output_that_cannot_be_read_now_is_read_later_and_not_paid_again(
    real_gateway: Harness, prompts: list[str], name: str, told: dict[str, Any]
) -> None:
    real_gateway.reset(name, **told)
    out = ask(real_gateway, prompts, retries=1)
    found = counts(out)
    assert set(found) == ({"ok", "missing"} if name == "truncated" else {"missing"})
    ok = out["response_status"] == "ok"
    texts = [text for text, good in zip(prompts, ok, strict=True) if good]
    assert out["response"][ok].tolist() == [expected_answer(text) for text in texts]
    real_gateway.scenario("happy")
    out = ask(real_gateway, prompts, retries=1)
    assert all_right(out, prompts)
    assert len(real_gateway.jobs()) == 1


def test_a_paused_job_is_waited_for_until_the_timeout_and_then_goes_on(
    real_gateway: Harness, prompts: list[str]
) -> None:
    real_gateway.reset("happy", terminal="PAUSED", write_output=True, partial_pct=100)
    told: list[str] = []
    with (
        llm.set_options(progress=lambda p: told.append(p.message)),
        pytest.raises(RunTimeoutError, match="Nothing is lost") as caught,
    ):
        ask(real_gateway, prompts, timeout=1.0)
    assert any("queued" in message for message in told)
    run = caught.value.run
    assert run is not None
    assert run.counts() == {"pending": len(prompts)}
    real_gateway.scenario("happy")
    (job,) = real_gateway.jobs()
    real_gateway.force_job(job["name"].rsplit("/", 1)[1], state="JOB_STATE_SUCCEEDED", ended="now")
    out = ask(real_gateway, prompts)
    assert len(real_gateway.jobs()) == 1
    assert all_right(out, prompts)


@pytest.mark.parametrize("settings", [{"shards": 3}, {"shards": 3, "shards_counted": True}])
def test_rows_in_further_output_files_are_found(
    real_gateway: Harness, prompts: list[str], settings: dict[str, Any]
) -> None:
    # The gateway names one output file of a job, whichever are there.
    real_gateway.reset("happy", **settings)
    out = ask(real_gateway, prompts, retries=2)
    assert len(real_gateway.jobs()) == 1
    assert all_right(out, prompts)


def test_rows_in_further_output_files_that_are_refused_are_named_missing(
    real_gateway: Harness, prompts: list[str]
) -> None:
    # Rows that are not to be had must not end as anything else than missing, with a reason, nor be
    # paid again.
    real_gateway.reset("happy", shards=2, output_type="application/json")
    out = ask(real_gateway, prompts, retries=2)
    assert len(real_gateway.jobs()) == 1
    assert out["response_error"].dropna().str.contains("counts 100 more").all()
    found = counts(out)
    assert found == {"ok": ROWS // 2, "missing": ROWS // 2}
    ok = out["response_status"] == "ok"
    texts = [text for text, good in zip(prompts, ok, strict=True) if good]
    assert out["response"][ok].tolist() == [expected_answer(text) for text in texts]


def output_name(job: dict[str, Any]) -> str:
    """Return the name of a job's output object in the bucket."""
    prefix = job["outputConfig"]["gcsDestination"]["outputUriPrefix"].split("/", 3)[3]
    return f"{prefix.rstrip('/')}/prediction-model-{job['createTime']}/predictions.jsonl"


@pytest.mark.parametrize("output_type", TYPES)
def test_rows_of_somebody_else_in_the_output_are_counted_and_joined_to_nothing(
    real_gateway: Harness, prompts: list[str], output_type: str | None
) -> None:
    real_gateway.reset("happy", output_type=output_type, running_polls=50)
    frame = pd.DataFrame({"text": prompts})
    gateway = llm.Gateway(**real_gateway.settings)
    run = frame.llm.submit("{{ text }}", model=MODEL, gateway=gateway)
    while not real_gateway.jobs()[0]["_done"]:
        run.poll()
    (job,) = real_gateway.jobs()
    written = real_gateway.get_object(output_name(job))
    foreign = written.split(b"\n")[0].replace(b'"requestId": "r-', b'"requestId": "s-')
    number = job["name"].rsplit("/", 1)[1]
    real_gateway.set_predictions(number, foreign + b"\n" + written + foreign + b"\n")
    real_gateway.force_job(number, state="JOB_STATE_SUCCEEDED", ended="now")
    out = run.wait().result()
    assert all_right(out, prompts)
    assert run.status["orphans"].tolist() == [2]
    assert len(real_gateway.jobs()) == 1


def test_cancel_keeps_what_is_there_and_the_next_call_goes_on(
    real_gateway: Harness, prompts: list[str]
) -> None:
    real_gateway.reset("happy", running_polls=50)
    frame = pd.DataFrame({"text": prompts})
    gateway = llm.Gateway(**real_gateway.settings)
    run = frame.llm.submit("{{ text }}", model=MODEL, gateway=gateway)
    (cancelled,) = run.cancel()
    assert real_gateway.jobs()[0]["name"].endswith(cancelled)
    run.wait()
    assert run.status["status"].tolist() == ["cancelled"]
    assert run.counts() == {"missing": len(prompts)}
    real_gateway.scenario("happy")
    assert all_right(ask(real_gateway, prompts), prompts)
    assert len(real_gateway.jobs()) == 2


# --- text of every kind -----------------------------------------------------------------------
PIECES = [
    "東京都", "😀🏳️‍🌈", "\u2028", "\u2029", "\u0085", "\r\n", "\n", "\x00", "\ud800", "\udfff",
    '"quoted"', "“curly”", "\\", "\\u2028", "{{ text }}", "</script>", "é", "ａ", "\ufeff",
    "\x1b[0m", "\r\n--boundary\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", "\t", " ",
    "x" * 300,
]  # fmt: skip


def wild_texts(n: int) -> list[str]:
    rng = random.Random(20)
    texts = [f"{i} " + "".join(rng.choices(PIECES, k=rng.randint(1, 12))) for i in range(n)]
    # Two halves of a pair side by side are one character, in JSON as in UTF-16.
    return [t.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for t in texts]


def test_five_thousand_wild_prompts_come_back_whole(real_gateway: Harness) -> None:
    # Raw UTF-8 is damaged by the gateway where a character falls on a chunk border.
    real_gateway.reset("happy", shuffle=True, duplicate_pct=3, conflict_pct=3, bq_import=True)
    texts = wild_texts(5000)
    out = ask(real_gateway, texts)
    assert len(real_gateway.jobs()) == 1
    assert counts(out) == {"ok": 5000}
    expected = [whole(expected_answer(text)) for text in texts]
    assert [whole(text) for text in out["response"]] == expected


def whole(text: str) -> str:
    """Return a text as UTF-8 can say it: half of a surrogate pair is one or several U+FFFD."""
    return re.sub(
        "\ufffd+", "\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
