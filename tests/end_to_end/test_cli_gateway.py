"""The command line on real rows, through the real Portkey gateway.

What has to outlive a process (a job that goes on, Ctrl-C) is tested with the installed program;
every answer is compared with the one to its own row's prompt.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gateway_lab import scenarios
from gateway_lab.harness import Harness
from gateway_lab.oracle import expected_answer
from terminal import FOR_EVER, Terminal, finish, read_until, submits, until
from verdicts import verdict

from nyu_llm_frames.cli import exits

pytestmark = pytest.mark.gateway

DATA = Path(__file__).parents[1] / "data"
MODEL = "gemini-3-flash-preview"
TEMPLATE = "Which drug is named in this offence? {{ offense }}"
ROWS = 150
BATCH = ("batch", "in.csv", "--template", "prompt.j2", "--model", MODEL, "--out", "out.csv")
SIDECAR = "out.llm"


@pytest.fixture
def rows() -> pd.DataFrame:
    """Real rows, among them some that ask the same; they and the template lie here as files."""
    frame = pd.read_csv(DATA / "commutations.csv", dtype=str, keep_default_na=False).head(ROWS)
    assert 2 < frame["offense"].nunique() < ROWS
    frame.to_csv("in.csv", index=False)
    Path("prompt.j2").write_text(TEMPLATE)
    return frame


@pytest.fixture
def terminal(real_gateway: Harness, rows: pd.DataFrame) -> Terminal:
    return Terminal(real_gateway)


def prompts(rows: pd.DataFrame) -> list[str]:
    return [f"Which drug is named in this offence? {text}" for text in rows["offense"]]


def requests(rows: pd.DataFrame) -> int:
    return rows["offense"].nunique()


def all_right(rows: pd.DataFrame) -> bool:
    """Whether the output holds every row as it was, with the answer to its own prompt."""
    out = pd.read_csv("out.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(out[rows.columns], rows)
    assert list(out.columns) == [*rows.columns, "response", "response_error"]
    assert set(out["response_error"]) == {""}
    return out["response"].tolist() == [expected_answer(text) for text in prompts(rows)]


def prompt_of(body: str) -> str:
    """Return the prompt of a request body, as `--prompts` writes it."""
    (message,) = json.loads(body)["messages"]
    return str(message["content"])


def check_table(table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Compare a table of requests with the rows: each once, with the answer to its own prompt."""
    asked = table["body"].map(prompt_of)
    assert sorted(asked) == sorted(set(prompts(rows)))
    assert set(table["status"]) == {"ok"}
    assert table["text"].tolist() == [expected_answer(text) for text in asked]


# --- the main job -----------------------------------------------------------------------------
def test_batch_joins_every_answer_to_its_own_row(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset("shuffled", duplicate_pct=20)
    said = terminal.program(*BATCH)
    line = f"{Path('out.csv').absolute()}: {ROWS} rows: {ROWS} ok; cost $"
    assert said.stdout.startswith(line)
    assert "submitted as batch job" in said.stderr
    assert all_right(rows)
    written = Path("out.csv").read_bytes()
    asked = len(real_gateway.log())
    again = terminal.program(*BATCH, "--json", keyless=True)  # all is here: nobody is asked
    counted = again.json
    assert said.stdout.endswith(f"cost ${counted.pop('cost'):.3f}\n")
    assert counted == {
        "output": str(Path("out.csv").absolute()),
        "sidecar": str(Path(SIDECAR).absolute()),
        "rows": ROWS,
        "requests": requests(rows),
        "counts": {"ok": ROWS},
        "trouble": "",
        "changed": False,
    }
    assert Path("out.csv").read_bytes() == written
    assert len(real_gateway.log()) == asked
    assert submits(real_gateway) == 1


def test_a_job_goes_on_with_the_sidecar_alone(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame, tmp_path: Path
) -> None:
    real_gateway.reset("shuffled", running_polls=FOR_EVER)
    asked_for = requests(rows)
    said = terminal.program(*BATCH, "--no-wait", "--json", code=exits.PENDING)
    assert said.json["counts"] == {"pending": ROWS}
    (job,) = real_gateway.jobs()
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("in.csv", "prompt.j2", "out.csv"):
        shutil.move(name, kept)

    asked = len(real_gateway.log())
    said = terminal.program("status", SIDECAR, "--json", code=exits.PENDING, keyless=True)
    assert said.json["counts"] == {"pending": asked_for}
    (shown,) = said.json["jobs"]
    assert shown["batch_id"] == job["name"].rsplit("/", 1)[1]
    assert (shown["step"], shown["requests"], shown["answers"]) == ("live", asked_for, 0)
    assert len(real_gateway.log()) == asked

    said = terminal.here("collect", SIDECAR, code=exits.PENDING)
    assert said.stdout == f"{asked_for} requests: {asked_for} pending\n"
    said = terminal.here("wait", SIDECAR, "--timeout", "0.2", code=exits.PENDING)
    assert "Nothing is lost" in said.stderr
    finish(real_gateway)
    said = terminal.program("wait", SIDECAR, "--json")
    assert (said.json["counts"], said.json["jobs_pending"]) == ({"ok": asked_for}, 0)
    assert said.json["usage"]["completion_tokens"] > 0
    assert said.json["cost_usd"] > 0
    terminal.here("collect", SIDECAR, "--out", "answers.jsonl", "--prompts")
    told = pd.read_json("answers.jsonl", lines=True)
    assert {name: told[name].sum() for name in said.json["usage"]} == said.json["usage"]
    check_table(pd.read_json("answers.jsonl", lines=True), rows)
    assert "completed" in terminal.here("status", SIDECAR).stdout

    for name in ("in.csv", "prompt.j2", "out.csv"):
        shutil.move(kept / name, name)
    terminal.here(*BATCH, "--no-wait")
    assert all_right(rows)
    assert submits(real_gateway) == 1


def test_collect_takes_one_step_and_stores_what_is_there(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset("happy", running_polls=FOR_EVER)
    terminal.here(*BATCH, "--no-wait", code=exits.PENDING)
    said = terminal.here("collect", SIDECAR, "--json", code=exits.PENDING)
    assert (said.json["counts"], said.json["jobs_pending"]) == ({"pending": requests(rows)}, 1)
    finish(real_gateway)
    said = terminal.here("collect", SIDECAR, "--out", "a.parquet", "--prompts", "--json")
    assert (said.json["counts"], said.json["jobs_pending"]) == ({"ok": requests(rows)}, 0)
    check_table(pd.read_parquet("a.parquet"), rows)


# --- failures, retry, export, cancel ----------------------------------------------------------
def test_retry_cures_what_failures_lists(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    settings: dict[str, Any] = {"fail_pct": 20, "fail_kind": "resource_exhausted"}
    real_gateway.reset("shuffled", **settings)
    said = terminal.here(*BATCH, "--retries", "0", code=exits.NO_GOOD_ANSWER)
    assert "rows have no good answer" in said.stderr
    for name in ("in.csv", "prompt.j2"):
        Path(name).unlink()

    terminal.here("export", SIDECAR, "first.csv", "--prompts")
    first = pd.read_csv("first.csv", keep_default_na=False)
    scenario = scenarios.resolve({"name": "shuffled", **settings})
    told = {
        i: verdict(scenario, i, prompt_of(b))[0]
        for i, b in zip(first.custom_id, first.body, strict=True)
    }
    assert dict(zip(first.custom_id, first.status, strict=True)) == told
    failed = {id_ for id_, status in told.items() if status == "failed"}
    assert 0 < len(failed) < len(told)
    listed = terminal.here(
        "failures", SIDECAR, "--all", "--json", "--prompts", code=exits.NO_GOOD_ANSWER
    ).json
    assert {line["custom_id"] for line in listed} == failed
    assert all("Resource exhausted" in line["error"] for line in listed)
    assert {prompt_of(line["body"]) for line in listed} <= set(prompts(rows))
    shown = terminal.here("failures", SIDECAR, "--all", code=exits.NO_GOOD_ANSWER).stdout
    assert len(shown.splitlines()) == 1 + len(failed)

    # The same rows fail again; whoever asks once more gets it, however often they were tried.
    terminal.here("retry", SIDECAR, code=exits.PENDING)
    terminal.here("wait", SIDECAR, "--retries", "0", code=exits.NO_GOOD_ANSWER)
    real_gateway.scenario("shuffled")
    said = terminal.here("retry", SIDECAR, code=exits.PENDING)
    assert f"{len(failed)} requests under way" in said.stderr
    assert terminal.here("wait", SIDECAR, "--json").json["counts"] == {"ok": len(told)}
    assert terminal.here("failures", SIDECAR, "--json").json == []
    sent = [job["_rows_in"] for job in real_gateway.jobs()]
    assert sent == [len(told), len(failed), len(failed)]
    terminal.here("export", SIDECAR, "copy.llm")
    readers: dict[str, Callable[..., pd.DataFrame]] = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
    }
    for suffix, read in readers.items():
        for sidecar in (SIDECAR, "copy.llm"):
            terminal.here("export", sidecar, f"all.{suffix}", "--prompts")
            check_table(read(f"all.{suffix}"), rows)


def test_cancel_stops_the_job_and_nothing_is_sent_again_unasked(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset("happy", running_polls=FOR_EVER)
    terminal.here(*BATCH, "--no-wait", code=exits.PENDING)
    (job,) = real_gateway.jobs()
    id_ = job["name"].rsplit("/", 1)[1]
    said = terminal.here("cancel", SIDECAR, "--json")
    assert said.json == {"cancelled": [id_]}
    (job,) = real_gateway.jobs()
    assert job["state"] == "JOB_STATE_CANCELLING"
    terminal.here("wait", SIDECAR, code=exits.NO_GOOD_ANSWER)
    assert terminal.here("cancel", SIDECAR).stdout == "cancellation requested: none\n"
    listed = terminal.here("failures", SIDECAR, "--all", "--json", code=exits.NO_GOOD_ANSWER).json
    assert len(listed) == requests(rows)
    assert all(f"batch job {id_} cancelled" in line["error"] for line in listed)
    assert submits(real_gateway) == 1
    real_gateway.scenario("happy")
    terminal.here("retry", SIDECAR, code=exits.PENDING)
    terminal.here("wait", SIDECAR)
    terminal.here(*BATCH)
    assert all_right(rows)
    assert submits(real_gateway) == 2


# --- exit codes -------------------------------------------------------------------------------
def test_a_refused_key_has_its_code_and_the_next_call_goes_on(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    key, terminal.environment["PORTKEY_API_KEY"] = terminal.environment["PORTKEY_API_KEY"], "wrong!"
    said = terminal.here(*BATCH, code=exits.NOT_ALLOWED)
    assert "PORTKEY_API_KEY" in said.stderr
    assert not real_gateway.jobs()
    terminal.environment["PORTKEY_API_KEY"] = key
    terminal.here(*BATCH)
    assert all_right(rows)
    assert submits(real_gateway) == 1


def test_a_failed_job_has_its_code_and_the_next_call_submits_anew(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset("failed")
    said = terminal.here(*BATCH, code=exits.JOB_FAILED)
    assert "Failed to import data" in said.stderr
    real_gateway.scenario("happy")
    terminal.here(*BATCH)
    assert all_right(rows)
    assert submits(real_gateway) == 2


def test_what_is_refused_has_its_code_and_makes_no_job(
    terminal: Terminal, real_gateway: Harness
) -> None:
    said = terminal.here(*BATCH, "--max-cost", "0.000001", code=exits.TOO_EXPENSIVE)
    assert "raise --max-cost" in said.stderr
    nobody = ("--prompt", "{{ offence }}", "--model", MODEL, "--out", "x.csv")
    assert "offense" in terminal.here("batch", "in.csv", *nobody, code=exits.USAGE).stderr
    assert not real_gateway.log()
    other = ("--prompt", "{{ offense }}", "--model", "gemini-missing", "--out", "y.csv")
    said = terminal.here("batch", "in.csv", *other, code=exits.ERROR)
    assert "does not exist. Nothing was submitted" in said.stderr
    assert "model='gemini-missing'" in said.stderr
    assert not real_gateway.jobs()


def test_an_uncertain_submit_has_its_code_and_is_settled_by_hand(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset(
        "happy",
        faults=[{"op": "list_jobs", "status": 403, "times": -1}],
        edge=[{"match": "POST /v1/batches", "mode": "lose"}],
    )
    said = terminal.here(*BATCH, code=exits.UNCERTAIN)
    assert "nyu-llm-frames resolve SIDECAR --adopt" in said.stderr
    terminal.here("wait", SIDECAR, code=exits.UNCERTAIN)
    (job,) = real_gateway.jobs()
    said = terminal.here("resolve", SIDECAR, "--adopt", job["name"].rsplit("/", 1)[1])
    assert f"nyu-llm-frames wait {Path(SIDECAR).absolute()}" in said.stdout
    terminal.here("wait", SIDECAR)
    terminal.here(*BATCH)
    assert all_right(rows)
    assert submits(real_gateway) == 1


@pytest.fixture(scope="module")
def breakable_gateway() -> Iterator[Harness]:
    """A gateway for one test, which breaks it."""
    with Harness("happy", hosted_dialect=True) as harness:
        yield harness
        harness.close_clients()


def test_a_stopped_gateway_has_its_code(breakable_gateway: Harness, rows: pd.DataFrame) -> None:
    terminal = Terminal(breakable_gateway)
    terminal.here(*BATCH, "--no-wait", code=exits.PENDING)
    breakable_gateway.gateway.terminate()
    breakable_gateway.gateway.wait()
    said = terminal.here("cancel", SIDECAR, code=exits.TRY_LATER)
    assert breakable_gateway.base_url in said.stderr
    assert submits(breakable_gateway) == 1
    said = terminal.here("wait", SIDECAR, "--timeout", "0.05", code=exits.PENDING)
    assert f"no answer from {breakable_gateway.base_url} (ConnectError" in said.stderr
    # A single step says what kept it from going on.
    more = (*BATCH[:-1], "more.csv", "--no-wait")
    for words in (("collect", SIDECAR), more, ("retry", "more.llm")):
        said = terminal.here(*words, code=exits.TRY_LATER)
        assert f"no answer from {breakable_gateway.base_url} (ConnectError" in said.stderr


# --- Ctrl-C -----------------------------------------------------------------------------------
def test_ctrl_c_while_waiting_leaves_the_job_and_the_same_command_finishes(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    real_gateway.reset("happy", running_polls=FOR_EVER)
    for words in (BATCH, ("wait", SIDECAR)):
        with terminal.started(*words) as process:
            told = read_until(process, "batch jobs: 1 running")
            process.send_signal(signal.SIGINT)
            said = terminal.ended(process, exits.INTERRUPTED, told)
        assert "Ctrl-C is safe" in said.stderr
        assert said.stderr.endswith("; the same command picks it up.\n")
        assert said.stderr.lower().count("interrupted") == 1
        assert said.stdout == ""
    assert not Path("out.csv").exists()
    (job,) = real_gateway.jobs()
    assert job["state"] == "JOB_STATE_RUNNING"
    finish(real_gateway)
    assert f"{ROWS} ok" in terminal.program(*BATCH).stdout
    assert all_right(rows)
    assert submits(real_gateway) == 1


def test_ctrl_c_during_the_submit_pays_once(
    terminal: Terminal, real_gateway: Harness, rows: pd.DataFrame
) -> None:
    hangs = {"op": "create_job", "mode": "hang", "hang_s": 4, "side_effect": True}
    real_gateway.reset("happy", faults=[hangs])  # Google has made the job, and does not say so
    with terminal.started(*BATCH) as process:
        until(lambda: bool(real_gateway.jobs()))
        process.send_signal(signal.SIGINT)
        said = terminal.ended(process, exits.INTERRUPTED)
    assert "the same command" in said.stderr
    assert said.stderr.lower().count("interrupted") == 1
    assert "submitted as batch job" not in said.stderr
    said = terminal.program("status", SIDECAR, "--json", code=exits.PENDING, keyless=True)
    assert [(job["step"], job["batch_id"]) for job in said.json["jobs"]] == [("creating", None)]
    said = terminal.program(*BATCH)
    assert "found at the gateway" in said.stderr
    assert all_right(rows)
    until(lambda: submits(real_gateway) > 0)  # the one that hangs is logged when it ends
    assert submits(real_gateway) == len(real_gateway.jobs()) == 1
