"""The command line: every command, its exit code, and what a script can read.

Comes in: words of a command line, the stand-in behind the environment's settings. Goes out:
tables, JSON and exit codes; one test starts the real program.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from support import rows
from support.command import Run, command
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames import errors
from nyu_llm_frames._shared.clock import SystemClock, use_clock
from nyu_llm_frames._shared.wording import dollars
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.demo import DRUGS
from nyu_llm_frames.cli.main import cli

MODEL = "gemini-3-flash-preview"
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def run(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    Path("in.csv").write_text('id,text\n007,"a, b"\n008,c\n009,"a, b"\n')
    with command(stand_in, monkeypatch) as invoke:
        yield invoke


BATCH = ("batch", "in.csv", "--prompt", "Say {{ text }}", "--model", MODEL, "--out", "out.csv")


# --- tables -----------------------------------------------------------------------------------
def test_batch_writes_the_table_and_says_so(run: Run, stand_in: StandIn) -> None:
    result = run(*BATCH)
    assert re.search(r"out\.csv: 3 rows: 3 ok; cost \$0\.\d+$", result.stdout.strip())
    assert "uploading 2 requests" in result.stderr
    out = pd.read_csv("out.csv", dtype=str)
    assert out["id"].tolist() == ["007", "008", "009"]
    assert out["response"].notna().all()
    assert Path("out.llm").is_dir()
    again = json.loads(run(*BATCH, "--json").stdout)
    assert again["counts"] == {"ok": 3}
    assert 0 < again["cost"] < 0.01
    assert len(stand_in.jobs) == 1


def test_no_wait_says_pending_until_it_is_done(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.running_polls = -1
    run(*BATCH, "--no-wait", code=exits.PENDING)
    run(*BATCH, "--timeout", "0.05", code=exits.PENDING)
    stand_in.finish()
    run("wait", "out.llm")
    run(*BATCH, "--no-wait")
    assert len(stand_in.jobs) == 1


def test_a_quiet_step_that_changes_nothing_prints_nothing(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.running_polls = -1
    stand_in.behaviour.row = rows.pick({"Say c": rows.blocked})
    step = ("-q", *BATCH, "--no-wait", "--max-tokens", "50")
    first = run(*step, code=exits.PENDING)
    assert first.stdout
    assert first.stderr.count("counts thinking too") == 1
    for _ in range(2):  # from queued to running, and on
        again = run(*step, code=exits.PENDING)
        assert (again.stdout, again.stderr) == ("", "")
    stand_in.finish()
    ended = run(*step, code=exits.NO_GOOD_ANSWER)
    assert "ok" in ended.stdout
    assert "without a good answer" in ended.stderr or "no good answer" in ended.stderr
    assert "counts thinking too" not in ended.stderr
    again = run(*step, code=exits.NO_GOOD_ANSWER)
    assert (again.stdout, again.stderr) == ("", "")


def test_a_quiet_step_says_once_that_an_output_cannot_be_read(run: Run, stand_in: StandIn) -> None:
    b = stand_in.behaviour
    b.short, b.short_reads, b.content_fails = "empty", 1000, -1
    run(*BATCH, code=exits.NO_GOOD_ANSWER)
    for _ in range(2):
        again = run("-q", *BATCH, "--no-wait", code=exits.NO_GOOD_ANSWER)
        assert (again.stdout, again.stderr) == ("", "")
    stand_in.jobs[0].behaviour.short_reads = 0
    assert "3 ok" in run("-q", *BATCH, "--no-wait").stdout


def test_one_row_is_told_in_the_singular(run: Run) -> None:
    Path("in.csv").write_text("id,text\n1,c\n")
    result = run(*BATCH)
    assert "out.csv: 1 row: 1 ok; cost $" in result.stdout
    assert "uploading 1 request (" in result.stderr
    assert "\n1 request: 1 ok\n" in run("status", "out.llm").stdout
    assert "0 requests under way" in run("retry", "out.llm").stderr


@pytest.mark.parametrize("words", [BATCH, ("wait", "out.llm"), ("-q", *BATCH)])
def test_ctrl_c_is_told_once_with_the_way_back(
    run: Run, stand_in: StandIn, words: tuple[str, ...]
) -> None:
    class Pressed(SystemClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    stand_in.behaviour.running_polls = -1
    run(*BATCH, "--no-wait", code=exits.PENDING)
    with use_clock(Pressed()):
        result = run(*words, code=exits.INTERRUPTED)
    assert result.stderr.lower().count("interrupted") == 1
    assert result.stderr.endswith("the same command picks it up.\n")


def test_rows_without_a_good_answer_have_an_exit_code(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick({"Say c": rows.blocked})
    result = run(*BATCH, code=exits.NO_GOOD_ANSWER)
    assert "1 of 3 rows have no good answer" in result.stderr


def test_template_schema_and_parameters_reach_the_request(run: Run, stand_in: StandIn) -> None:
    Path("prompt.j2").write_text("Which? {{ text }}")
    Path("system.txt").write_text("Be short.")
    Path("schema.json").write_text('{"kind": ["a", "b"]}')
    stand_in.behaviour.row = rows.says('{"kind": "b"}')
    run(
        *("batch", "in.csv", "--template", "prompt.j2", "--system-file", "system.txt"),
        *("--schema", "schema.json", "--max-tokens", "9", "--temperature", "0", "--stop", "END"),
        *("--param", "top_k=3", "--prefix", "x_", "--model", MODEL, "--out", "out.parquet"),
    )
    [upload] = stand_in.uploads.values()
    body = json.loads(upload.splitlines()[0])["body"]
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert (body["max_tokens"], body["temperature"], body["top_k"]) == (9, 0, 3)
    assert body["stop"] == ["END"]
    assert body["response_format"]["type"] == "json_schema"
    assert pd.read_parquet("out.parquet")["x_kind"].tolist() == ["b", "b", "b"]


def test_preview_shows_prompts_without_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORTKEY_API_KEY")
    words = ("preview", "in.csv", "--prompt", "Say {{ text }}", "--n", "2", "--model", MODEL)
    assert "user: Say a, b" in run(*words).stdout
    found = json.loads(run(*words, "--json").stdout)
    assert found[1]["messages"] == [{"role": "user", "content": "Say c"}]
    expected = pd.read_csv("in.csv").llm.preview("Say {{ text }}", model=MODEL)
    assert [r["custom_id"] for r in found] == expected["custom_id"].tolist()[:2]


def test_trial_projects_the_whole_file(run: Run, stand_in: StandIn) -> None:
    Path("long.csv").write_text("text\n" + "".join(f"row {i}\n" for i in range(10_050)))
    words = ("--prompt", "Say {{ text }}", "--model", MODEL, "--n", "1", "--sidecar", "out.llm")
    assert (
        "the whole file: 10,050 rows, 10,050 distinct requests, 1 already"
        in run("trial", "long.csv", *words).stdout
    )


def test_trial_answers_live_and_the_batch_pays_the_rest(run: Run, stand_in: StandIn) -> None:
    words = ("--prompt", "Say {{ text }}", "--model", MODEL)
    found = run(
        "trial",
        "in.csv",
        *words,
        "--n",
        "1",
        "--random-state",
        "1",
        "--sidecar",
        "out.llm",
        "--json",
    )
    assert json.loads(found.stdout)[0]["response"]
    assert len(stand_in.chats) == 1
    run(*BATCH)
    assert sum(len(job.custom_ids) for job in stand_in.jobs) == 1


def test_estimate_needs_no_network(run: Run, stand_in: StandIn) -> None:
    words = ("estimate", "in.csv", "--prompt", "Say {{ text }}", "--model", MODEL)
    found = json.loads(run(*words, "--json").stdout)
    assert (found["rows"], found["requests"], found["to_pay"]) == (3, 2, 2)
    assert "distinct requests" in run(*words).stdout
    assert not stand_in.log


def test_max_cost_refuses_before_anything_is_sent(run: Run, stand_in: StandIn) -> None:
    run(*BATCH, "--max-cost", "0.0000001", code=exits.TOO_EXPENSIVE)
    assert not stand_in.log


# --- the sidecar alone ------------------------------------------------------------------------
@pytest.fixture
def sidecar(run: Run, stand_in: StandIn) -> Path:
    """A sidecar with a job that runs; neither input nor template is there any more."""
    stand_in.behaviour.running_polls = -1
    stand_in.behaviour.row = rows.pick({"Say c": rows.blocked})
    run(*BATCH, "--no-wait", code=exits.PENDING)
    for name in ("in.csv", "out.csv"):
        Path(name).unlink()
    return Path("out.llm")


def test_status_shows_jobs_and_asks_nobody(run: Run, sidecar: Path, stand_in: StandIn) -> None:
    asked = len(stand_in.log)
    found = json.loads(run("status", str(sidecar), "--json", code=exits.PENDING).stdout)
    assert found["counts"] == {"pending": 2}
    assert found["jobs"][0]["batch_id"] == stand_in.jobs[0].id
    assert "2 pending" in run("status", str(sidecar), code=exits.PENDING).stdout
    assert len(stand_in.log) == asked


def test_wait_then_failures_then_export(run: Run, sidecar: Path, stand_in: StandIn) -> None:
    run("wait", str(sidecar), "--timeout", "0.05", code=exits.PENDING)
    stand_in.finish()
    found = json.loads(run("wait", str(sidecar), "--json", code=exits.NO_GOOD_ANSWER).stdout)
    assert found["counts"] == {"ok": 1, "blocked": 1}
    bad = json.loads(
        run("failures", str(sidecar), "--json", "--prompts", code=exits.NO_GOOD_ANSWER).stdout
    )
    assert [r["status"] for r in bad] == ["blocked"]
    assert "Say c" in bad[0]["body"]
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        run("export", str(sidecar), f"answers{suffix}")
        assert sorted(read(f"answers{suffix}")["status"]) == ["blocked", "ok"]
    run("export", str(sidecar), "copy.llm")
    assert len(llm.open_sidecar("copy.llm").answers()) == 2
    run("status", "copy.llm", code=exits.NO_GOOD_ANSWER)


def test_wait_says_at_its_timeout_that_the_gateway_is_not_there(
    run: Run, sidecar: Path, stand_in: StandIn
) -> None:
    stand_in.stop()
    result = run("wait", str(sidecar), "--timeout", "0.05", code=exits.PENDING)
    assert f"no answer from {stand_in.base_url}" in result.stderr
    assert "Nothing is lost" in result.stderr


def test_a_step_that_reaches_nobody_says_so_by_its_code(run: Run, stand_in: StandIn) -> None:
    """For cron and Slurm, which read nothing else."""
    stand_in.stop()
    result = run("-q", *BATCH, "--no-wait", code=exits.TRY_LATER)
    assert result.stderr.count(f"no answer from {stand_in.base_url}") == 1
    result = run(*BATCH, "--no-wait", code=exits.TRY_LATER)
    assert result.stderr.count(f"no answer from {stand_in.base_url}") == 1
    run("collect", "out.llm", code=exits.TRY_LATER)
    stand_in.start()
    run(*BATCH, "--no-wait", code=exits.PENDING)


def test_a_job_that_was_refused_for_now_has_no_time_of_its_submit(
    run: Run, stand_in: StandIn
) -> None:
    stand_in.script.add("create", status=429, times=-1)
    run(*BATCH, "--no-wait", code=exits.TRY_LATER)
    (job,) = json.loads(run("status", "out.llm", "--json", code=exits.PENDING).stdout)["jobs"]
    assert (job["step"], job["batch_id"], job["submitted_at"]) == ("uploaded", None, None)
    assert "429" in job["error"]


def test_what_came_back_is_told_in_tokens_and_dollars(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.running_polls = -1
    stand_in.behaviour.row = rows.pick({"Say c": rows.blocked}, rows.thinking)
    run(*BATCH, "--no-wait", code=exits.PENDING)
    found = json.loads(run("collect", "out.llm", "--json", code=exits.PENDING).stdout)
    assert (sum(found["usage"].values()), found["cost_usd"]) == (0, 0.0)
    assert "tokens" not in run("status", "out.llm", code=exits.PENDING).stdout
    stand_in.finish()
    found = json.loads(run("wait", "out.llm", "--json", code=exits.NO_GOOD_ANSWER).stdout)
    with llm.set_options(progress=False):
        frame = pd.read_csv("in.csv")
        seen = frame.llm.submit("Say {{ text }}", model=MODEL, sidecar="out.llm")
    assert found["usage"] == seen.usage
    assert found["usage"]["reasoning_tokens"] == 17
    assert found["cost_usd"] == pytest.approx(seen.cost)
    assert found["cost_usd"] > 0
    prompt, output, thinking = found["usage"].values()
    line = (
        f"tokens: {prompt} prompt, {output} output, {thinking} thinking; cost so far: "
        f"{dollars(found['cost_usd'])}\n"
    )
    told = run("status", "out.llm", code=exits.NO_GOOD_ANSWER)
    assert told.stdout.endswith(line)
    assert run("collect", "out.llm", code=exits.NO_GOOD_ANSWER).stdout.endswith(line)
    shown = json.loads(run("status", "out.llm", "--json", code=exits.NO_GOOD_ANSWER).stdout)
    assert (shown["usage"], shown["cost_usd"]) == (found["usage"], found["cost_usd"])


def test_an_unknown_price_is_no_price(run: Run) -> None:
    nobody = ("--model", "model-of-nobody", "--out", "out.csv")
    run("batch", "in.csv", "--prompt", "Say {{ text }}", *nobody)
    assert "cost so far: unknown, no price for this model" in run("status", "out.llm").stdout
    assert json.loads(run("status", "out.llm", "--json").stdout)["cost_usd"] is None


def test_collect_takes_one_step_and_writes_a_table(
    run: Run, sidecar: Path, stand_in: StandIn
) -> None:
    run("collect", str(sidecar), code=exits.PENDING)
    stand_in.finish()
    run("collect", str(sidecar), "--out", "a.jsonl", "--prompts", code=exits.NO_GOOD_ANSWER)
    table = pd.read_json("a.jsonl", lines=True)
    assert sorted(table["status"]) == ["blocked", "ok"]
    assert table["body"].str.contains("Say").all()


def test_cancel_stops_and_keeps(run: Run, sidecar: Path, stand_in: StandIn) -> None:
    found = json.loads(run("cancel", str(sidecar), "--json").stdout)
    assert found["cancelled"] == [stand_in.jobs[0].id]
    run("wait", str(sidecar), code=exits.NO_GOOD_ANSWER)
    assert len(stand_in.jobs) == 1  # what was stopped is not sent again by itself


def test_retry_sends_what_failed_once_more(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick({"Say c": rows.failed(503)})
    run(*BATCH, "--retries", "0", code=exits.NO_GOOD_ANSWER)
    Path("in.csv").unlink()
    stand_in.behaviour.row = rows.good
    run("retry", "out.llm", code=exits.PENDING)
    run("wait", "out.llm")
    assert [len(job.custom_ids) for job in stand_in.jobs] == [2, 1]
    assert json.loads(run("status", "out.llm", "--json").stdout)["counts"] == {"ok": 2}


def test_wait_retries_as_batch_does(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick({"Say c": rows.failed(503)})
    stand_in.behaviour.running_polls = -1
    run(*BATCH, "--no-wait", code=exits.PENDING)
    stand_in.finish()
    stand_in.behaviour.running_polls = 0
    run("wait", "out.llm", code=exits.NO_GOOD_ANSWER)
    assert [len(job.custom_ids) for job in stand_in.jobs] == [2, 1]


def test_an_uncertain_submit_is_settled_from_the_command_line(run: Run, stand_in: StandIn) -> None:
    stand_in.script.add("create", "lose", status=500)

    def others(n: int, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/batches"):
            stand_in.on_handled = None
            stand_in.add_foreign(101)  # the list shows neither the job nor what came before it

    stand_in.on_handled = others
    result = run(*BATCH, code=exits.UNCERTAIN)
    assert "nyu-llm-frames resolve" in result.stderr
    assert "uncertain" in run("status", "out.llm", code=exits.UNCERTAIN).stdout
    run("resolve", "out.llm", code=exits.USAGE)
    run("resolve", "out.llm", "--adopt", stand_in.jobs[0].id)
    run("wait", "out.llm")
    assert len(stand_in.jobs) == 1


def test_a_key_never_goes_to_an_address_from_a_sidecar(
    run: Run, sidecar: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTKEY_BASE_URL", "http://127.0.0.1:9/v1")
    asked = len(stand_in.log)
    result = run("wait", str(sidecar), code=exits.USAGE)
    assert "PORTKEY_BASE_URL" in result.stderr
    assert len(stand_in.log) == asked


def test_a_file_in_place_of_a_sidecar_is_told_where_its_sidecar_is(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").touch()
    told = run("status", str(tmp_path / "out.csv"), code=exits.USAGE).stderr
    assert told.rstrip().endswith("out.csv is a file, not a folder.")
    (tmp_path / "out.llm").mkdir()
    told = run("status", str(tmp_path / "out.csv"), code=exits.USAGE).stderr
    assert told.rstrip().endswith("the sidecar beside it is " + str(tmp_path / "out.llm") + ".")


def test_a_folder_that_is_no_sidecar_is_named(run: Run) -> None:
    result = run("status", "nowhere", code=exits.ERROR)
    assert "nowhere" in result.stderr
    assert not Path("nowhere").exists()


# --- doctor -----------------------------------------------------------------------------------
def test_doctor_warns_of_a_folder_whose_files_are_removed(
    run: Run, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "folder" not in [f["step"] for f in json.loads(run("doctor", "--json").stdout)]
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    found = {f["step"]: f for f in json.loads(run("doctor", "--json").stdout)}
    assert found["folder"]["state"] == "warning"
    assert "60 days" in found["folder"]["found"]
    assert "sidecar" in found["folder"]["fix"]


def test_doctor_goes_step_by_step(run: Run, stand_in: StandIn) -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert [(f["step"], f["state"]) for f in found] == [
        ("versions", "ok"),
        ("network", "ok"),
        ("settings", "ok"),
        ("gateway", "ok"),
        ("key", "ok"),
        ("job list", "ok"),
        ("bucket", "ok"),
        ("batch", "skipped"),
    ]
    assert len(stand_in.uploads) == 1
    assert not stand_in.jobs
    assert stand_in.api_key not in run("doctor").stdout


def test_doctor_sends_two_rows_when_asked(run: Run, stand_in: StandIn) -> None:
    found = json.loads(run("doctor", "--send", "--json").stdout)
    assert (found[-1]["step"], found[-1]["state"]) == ("batch", "ok")
    assert [len(job.custom_ids) for job in stand_in.jobs] == [2]


@pytest.mark.parametrize(("fails", "told"), [(0, "[0-9,]+ bytes"), (-1, "Reading the stored")])
def test_doctor_says_which_way_outputs_can_be_read(
    run: Run, stand_in: StandIn, fails: int, told: str
) -> None:
    stand_in.behaviour.content_fails = fails
    said = json.loads(run("doctor", "--send", "--json").stdout)[-1]["found"]
    assert re.search(f"stored file: {told}.*; /output: [0-9,]+ bytes in [0-9]+ piece", said)


def test_doctor_says_what_to_fix(
    run: Run, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTKEY_API_KEY", "wrong-key")
    found = json.loads(run("doctor", "--json", code=exits.NOT_ALLOWED).stdout)
    [bad] = [f for f in found if f["state"] == "failed"]
    assert (bad["step"], "PORTKEY_API_KEY" in bad["fix"]) == ("key", True)
    assert bad["code"] == exits.NOT_ALLOWED
    monkeypatch.delenv("NYU_LLM_BUCKET")
    found = json.loads(run("doctor", "--json", code=exits.USAGE).stdout)
    [bad] = [f for f in found if f["state"] == "failed"]
    assert bad["step"] == "settings"
    assert "NYU_LLM_BUCKET" in bad["fix"]
    stand_in.stop()
    monkeypatch.setenv("NYU_LLM_BUCKET", "bucket")
    result = run("doctor", code=exits.TRY_LATER)
    assert "VPN" in result.stdout
    assert "wrong-key" not in result.stdout


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("list", 401, exits.NOT_ALLOWED),
        ("list", 403, exits.NOT_ALLOWED),
        ("list", 404, exits.ERROR),
        ("list", 503, exits.TRY_LATER),
        ("upload", 403, exits.NOT_ALLOWED),
        ("upload", 404, exits.ERROR),
        ("upload", 500, exits.ERROR),  # the storage's 403 may look like that
        ("create", 403, exits.NOT_ALLOWED),
        ("create", 404, exits.ERROR),
    ],
)
def test_doctor_ends_with_the_code_of_the_first_step_that_failed(
    run: Run, stand_in: StandIn, call: str, status: int, code: int
) -> None:
    stand_in.script.add(call, status=status, times=-1)
    found = json.loads(run("doctor", "--send", "--json", code=code).stdout)
    first = next(f for f in found if f["state"] == "failed")
    assert first["code"] == code
    assert all(f["code"] == exits.OK for f in found if f["state"] in ("ok", "skipped"))


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"row": rows.blocked}, exits.NO_GOOD_ANSWER),
        ({"terminal": "failed"}, exits.JOB_FAILED),
        ({"running_polls": -1}, exits.PENDING),
    ],
)
def test_doctor_ends_with_the_code_that_batch_would_have(
    run: Run, stand_in: StandIn, behaviour: dict[str, Any], code: int
) -> None:
    for name, value in behaviour.items():
        setattr(stand_in.behaviour, name, value)
    found = json.loads(run("doctor", "--send", "--timeout", "1", "--json", code=code).stdout)
    assert found[-1]["code"] == code


# --- the embedded gateway ---------------------------------------------------------------------
def test_serve_hands_its_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nyu_llm_frames.local import process

    seen: dict[str, Any] = {}
    monkeypatch.setattr(process, "serve", lambda **given: seen.update(given))
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    monkeypatch.setenv("MY_KEY", "k")
    run("serve", "--answers", "echo", "--port", "8123", "--api-key-env", "MY_KEY")
    assert (seen["answers"], seen["port"], seen["api_key"]) == ("echo", 8123, "k")
    assert seen["host"] == "127.0.0.1"
    run("serve", "--api-key-env", "NOT_SET", code=exits.USAGE)


def test_demo_shows_the_main_job_and_is_instant_the_second_time(run: Run) -> None:
    for name in ("starlette", "uvicorn", "python_multipart", "platformdirs"):
        pytest.importorskip(name)
    words = ("demo", "--answers", "echo", "--data", "gateway", "--rows", "4")
    first = run(*words)
    assert "demo.llm" in first.stdout
    assert "nyu-llm-frames batch" in first.stdout
    assert "every answer is in the sidecar" in run(*words).stdout


def test_the_sample_comes_with_its_credit_and_a_drug_in_every_offence() -> None:
    frame = llm.sample()
    assert len(frame) == 20
    for offence in frame["offense"]:
        assert sum(drug in offence.lower() for drug in DRUGS) == 1
    credit = Path(llm.__file__).parent / "_api" / "data" / "CREDIT.txt"
    assert "CC BY 4.0" in credit.read_text()
    original = pd.read_csv(Path(__file__).parent / "data" / "commutations.csv")
    assert frame.merge(original, how="inner").shape == frame.shape


# --- the program ------------------------------------------------------------------------------
def test_the_program_keeps_results_and_reports_apart(run: Run, stand_in: StandIn) -> None:
    code = "from nyu_llm_frames.cli import main; main()"
    words = [sys.executable, "-c", code, "--poll-interval", "0.02", *BATCH, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 3
    assert "uploading" in done.stderr
    assert stand_in.api_key not in done.stdout + done.stderr


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback() -> None:
    code = """
import sys
from nyu_llm_frames.cli import main

class Press:
    def find_spec(self, name, *rest):
        if name == "nyu_llm_frames.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Press())
main()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code, "status"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == exits.INTERRUPTED
    assert (done.stdout, done.stderr) == ("", "Interrupted before anything was done.\n")


# As pip writes it, with a word at the end about what was loaded.
PROGRAM = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from nyu_llm_frames.cli import main
for words in json.loads(sys.argv.pop(1)):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def loaded_by_the_program(
    folder: Path, *lines: list[str], **variables: str
) -> tuple[str, set[str]]:
    """Run the program of this name in a process of its own; return its output and its modules."""
    program = folder / "nyu-llm-frames"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    words = [sys.executable, str(program), json.dumps(lines)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


HEAVY = {"pandas", "numpy", "pyarrow", "portkey_ai", "httpx", "jinja2", "pydantic"}


def test_help_version_and_completion_load_no_pandas(tmp_path: Path) -> None:
    helps = [[name, "--help"] for name in cli.commands]
    shown, loaded = loaded_by_the_program(tmp_path, ["--help"], ["--version"], *helps)
    assert shown.count("Usage: nyu-llm-frames") == 1 + len(helps)
    assert llm.__version__ in shown
    assert not loaded & HEAVY
    variables = {"_NYU_LLM_FRAMES_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    words = {"COMP_WORDS": "nyu-llm-frames status --j"}
    shown, loaded = loaded_by_the_program(tmp_path, [], **variables, **words)
    assert shown == "plain,--json\n"
    assert not loaded & HEAVY


def test_a_step_that_only_reads_loads_no_client(
    run: Run, stand_in: StandIn, tmp_path: Path
) -> None:
    """Portkey's client takes over a second to load."""
    stand_in.behaviour.running_polls = -1
    run(*BATCH, "--no-wait", code=exits.PENDING)
    stand_in.finish()
    shown, loaded = loaded_by_the_program(tmp_path, ["collect", "out.llm"])
    assert shown.startswith("2 requests: 2 ok")
    assert not loaded & {"portkey_ai", "openai", "jinja2", "matplotlib"}


def test_the_program_works_on_frames_without_df_llm(tmp_path: Path) -> None:
    Path("in.csv").write_text("text\nb\n")
    shown, loaded = loaded_by_the_program(tmp_path, ["preview", "in.csv", "--prompt", "{{ text }}"])
    assert "user: b" in shown
    assert "pandas" in loaded


def test_completion_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    words = BashComplete(cli, {}, "nyu-llm-frames", "_NYU_LLM_FRAMES_COMPLETE")
    found = {item.value for item in words.get_completions([], "e")}
    assert found == {"estimate", "export"}


# --- documentation ----------------------------------------------------------------------------
COMMANDS = sorted(cli.commands)


def test_the_commands_are_those_that_were_promised() -> None:
    promised = "batch preview trial estimate status wait collect retry cancel failures export"
    more = {"serve", "demo", "doctor", "resolve", "models", "unlock"}
    assert set(COMMANDS) == {*promised.split(), *more}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    command = cli.commands[name]
    assert len(command.help or "") > 30
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    plain = {
        "missing",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "if_exists",
        "on_error",
        "retries",
        "host",
        "rows",
        "sidecar",
        "model",
        "n",
    }
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help or option.name in plain, option.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name: str) -> None:
    assert re.search(rf"(nyu-llm-frames |`){name}\b", README.read_text(encoding="utf-8"))


def test_every_exit_code_stands_in_the_readme_and_the_help() -> None:
    text = README.read_text(encoding="utf-8")
    shown = CliRunner().invoke(cli, ["--help"]).output
    for code in exits.MEANING:
        assert f"| {code} |" in text
        assert re.search(rf"^\s+{code}  ", shown, re.MULTILINE)


def test_every_error_has_an_exit_code() -> None:
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.LLMFramesError):
            assert exits.of_error(kind("text")) in exits.MEANING
