"""`status`, `failures`, `models` and the options of tables, as a person and a script read them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from support import rows
from support.command import Run, command
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.cli import exits

MODEL = "gemini-3-flash-preview"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def run(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [f"{i},{w} {EVIL if i == 1 else ''}" for i, w in enumerate("abcdef")]
    Path("in.csv").write_text("\n".join(["id,text", *lines]) + "\n")
    with command(stand_in, monkeypatch) as invoke:
        yield invoke


def batch(*more: str, prompt: str = "Say {{ text }}", out: str = "out.csv") -> tuple[str, ...]:
    return ("batch", "in.csv", "--prompt", prompt, "--model", MODEL, "--out", out, *more)


def spoilt(run: Run, stand_in: StandIn) -> None:
    """A sidecar with three kinds of failures: cut (twice), refused (twice, other words), failed."""

    def choose(_: str, body: rows.Body) -> rows.Row | None:
        word = rows.last_user_text(body).split()[1]
        failures = {
            "a": rows.failed(400, "no role 'x1'"), "b": rows.truncated, "c": rows.truncated,
            "d": rows.failed(400, "no role 'x22'"), "e": rows.failed(503),
        }  # fmt: skip
        return failures.get(word)

    stand_in.behaviour.row = rows.pick(choose)
    run(*batch("--retries", "0"), code=exits.NO_GOOD_ANSWER)


# --- failures -----------------------------------------------------------------------------------
def test_failures_are_told_by_reason_with_one_prompt_and_the_cure(
    run: Run, stand_in: StandIn
) -> None:
    spoilt(run, stand_in)
    shown = run("failures", "out.llm", code=exits.NO_GOOD_ANSWER).stdout
    assert re.findall(r"^(\d+) (\w+): ", shown, re.MULTILINE) == [
        ("2", "refused"),
        ("2", "truncated"),
        ("1", "failed"),
    ]
    assert f"Say b {EVIL}" in shown
    assert "nyu-llm-frames retry out.llm" in shown
    assert "--if-exists fill --max-tokens" in shown
    found = json.loads(run("failures", "out.llm", "--json", code=exits.NO_GOOD_ANSWER).stdout)
    assert {f["status"]: f["requests"] for f in found} == {
        "refused": 2,
        "truncated": 2,
        "failed": 1,
    }
    assert "body" not in found[0]
    every = run("failures", "out.llm", "--all", code=exits.NO_GOOD_ANSWER).stdout
    assert len(every.splitlines()) == 1 + 5
    whole = run("failures", "out.llm", "--all", "--prompts", "--json", code=exits.NO_GOOD_ANSWER)
    prompts = {one["status"]: one["body"] for one in json.loads(whole.stdout)}
    assert "Say e" in prompts["failed"]
    assert "Say c" in prompts["truncated"]
    assert len(re.findall(r"^r-[0-9a-f]{32} ", every, re.MULTILINE)) == 5  # ids are never cut
    every = run("failures", "out.llm", "--all", "--json", code=exits.NO_GOOD_ANSWER).stdout
    assert len(json.loads(every)) == 5


def test_failures_without_kept_prompts_say_so(run: Run, stand_in: StandIn) -> None:
    with llm.set_options(keep_prompts=False):
        spoilt(run, stand_in)
    shown = run("failures", "out.llm", code=exits.NO_GOOD_ANSWER).stdout
    assert "(prompts are not kept)" in shown
    assert "Say" not in shown


def test_failures_say_that_only_the_output_knows_what_fits_a_schema(
    run: Run, stand_in: StandIn
) -> None:
    stand_in.behaviour.row = rows.says("not JSON")
    Path("schema.json").write_text('{"kind": ["a", "b"]}')
    run(*batch("--schema", "schema.json"), code=exits.NO_GOOD_ANSWER)
    found = run("failures", "out.llm")
    assert found.stdout == "no failures\n"
    assert "do not fit the schema are in the output alone" in found.stderr
    assert run("failures", "out.llm", "--json").stderr == ""
    run(*batch(out="plain.csv"))
    assert run("failures", "plain.llm").stderr == ""


def test_the_command_that_failures_name_fills_the_table(run: Run, stand_in: StandIn) -> None:
    spoilt(run, stand_in)
    stand_in.behaviour.row = rows.good
    again = ("batch", "out.csv", "--prompt", "Say {{ text }}", "--model", MODEL)
    fill = (*again, "--out", "filled.csv", "--if-exists", "fill", "--max-tokens", "9000")
    found = json.loads(run("estimate", *fill[1:], "--json").stdout)
    assert (found["rows"], found["to_pay"]) == (5, 5)
    shown = json.loads(
        run("preview", *again[1:], "--if-exists", "fill", "--n", "9", "--json").stdout
    )
    assert len(shown) == 5
    run("trial", *fill[1:], "--n", "1", "--random-state", "1")
    result = run(*fill)
    assert "filled.csv: 6 rows: 6 ok" in result.stdout
    assert len(stand_in.jobs[-1].requests) == 4  # the trial paid one of five
    assert pd.read_csv("filled.csv")["response_error"].isna().all()
    jobs = len(stand_in.jobs)
    run(*fill)
    assert len(stand_in.jobs) == jobs


# --- status -------------------------------------------------------------------------------------
@pytest.mark.usefixtures("new_york")
def test_status_has_six_columns_in_local_time(run: Run, stand_in: StandIn) -> None:
    spoilt(run, stand_in)
    lines = run("status", "out.llm", code=exits.NO_GOOD_ANSWER).stdout.splitlines()
    assert re.split(r"\s{2,}", lines[1].replace("EDT", "EST")) == [
        "batch job", "state", "model", "answers", "submitted EST", "error"
    ]  # fmt: skip
    job, found = stand_in.jobs[0], llm.open_sidecar("out.llm").jobs().iloc[0]
    assert lines[2].startswith(f"{job.id}  completed  ")
    assert "6/6" in lines[2]
    assert f"{found['submitted_at'].to_pydatetime().astimezone():%b %d %H:%M}" in lines[2]
    assert all(len(line) <= 80 for line in lines[1:3])


def test_several_sidecars_have_a_total_and_the_code_of_all(run: Run, stand_in: StandIn) -> None:
    run(*batch())
    assert "total" not in run("status", "out.llm").stdout
    stand_in.behaviour.running_polls = -1
    run(*batch("--no-wait", prompt="Tell {{ text }}", out="b.csv"), code=exits.PENDING)
    shown = run("status", "out.llm", "b.llm", code=exits.PENDING).stdout
    assert "total of 2 sidecars\n12 requests: 6 ok, 6 pending\n" in shown
    found = json.loads(run("status", "out.llm", "b.llm", "--json", code=exits.PENDING).stdout)
    assert [Path(one["sidecar"]).name for one in found["sidecars"]] == ["out.llm", "b.llm"]
    assert found["total"]["counts"] == {"ok": 6, "pending": 6}
    one = json.loads(run("status", "out.llm", "--json").stdout)
    assert found["total"]["cost_usd"] == one["cost_usd"]


def test_a_sidecar_and_the_link_beside_a_filled_output_count_once(
    run: Run, stand_in: StandIn
) -> None:
    run(*batch())
    run("batch", "out.csv", *batch("--if-exists", "fill", out="b.csv")[2:])
    assert Path("b.llm").is_symlink()
    alone = json.loads(run("status", "out.llm", "--json").stdout)
    for sidecars in (["b.llm"], ["out.llm", "b.llm"], ["b.llm", "out.llm"]):
        found = json.loads(run("status", *sidecars, "--json").stdout)
        assert found | {"sidecar": ""} == alone | {"sidecar": ""}


def test_a_month_is_that_of_the_submit(run: Run, stand_in: StandIn) -> None:
    run(*batch())
    at = llm.open_sidecar("out.llm").jobs().iloc[0]["submitted_at"].to_pydatetime().astimezone()
    assert "6 ok" in run("status", "out.llm", "--month", f"{at:%Y-%m}").stdout
    assert "no batch jobs" in run("status", "out.llm", "--month", "2020-01").stdout
    run("status", "out.llm", "--month", "November", code=exits.USAGE)


def test_who_made_a_run_is_told(run: Run, stand_in: StandIn) -> None:
    run(*batch())
    me = Path("in.csv").owner()
    assert llm.open_sidecar("out.llm").runs()["user"].tolist() == [me]
    assert json.loads(run("status", "out.llm", "--json").stdout)["jobs"][0]["user"] == me


class _Page(HTMLParser):
    """Collects what a page loads, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("several", [False, True])
def test_the_page_is_one_file_with_card_plot_and_failures(
    run: Run, stand_in: StandIn, several: bool
) -> None:
    pytest.importorskip("matplotlib")
    spoilt(run, stand_in)
    paths = ["out.llm"]
    if several:
        stand_in.behaviour.row = rows.good
        run(*batch(prompt="Tell {{ text }}", out="b.csv"))
        paths.append("b.llm")
    run("status", *paths, "--html", "page.html", code=exits.NO_GOOD_ANSWER)
    text = Path("page.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert all(link.startswith("#") for link in page.loads)  # within the SVG
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags.count("svg") == len(paths)
    assert f"Say b {EVIL}" in page.text
    assert "Without a good answer" in page.text
    assert "run.wait" not in page.text
    assert ("12 requests: " in page.text) is several
    assert stand_in.jobs[0].id in page.text
    assert stand_in.api_key not in text
    assert "currentColor" in text  # readable in light and dark


@pytest.mark.usefixtures("new_york")
def test_the_page_has_one_kind_of_time_and_names_the_cures(run: Run, stand_in: StandIn) -> None:
    pytest.importorskip("matplotlib")
    spoilt(run, stand_in)
    run("status", "out.llm", "--html", "page.html", code=exits.NO_GOOD_ANSWER)
    page = _Page()
    page.feed(Path("page.html").read_text(encoding="utf-8"))
    # The card (submitted, ended), the table of batch jobs, the foot; and the plot's title.
    assert len(re.findall(r"\d\d-\d\d \d\d:\d\d E[SD]T", page.text)) == 4
    assert re.search(r"over time \(E[SD]T\)", page.text)
    assert "UTC" not in page.text
    assert "nyu-llm-frames retry" in page.text
    assert "--if-exists fill --max-tokens" in page.text
    assert "refused: another prompt" in page.text


def test_a_page_needs_no_matplotlib(
    run: Run, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(run, stand_in)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("status", "out.llm", "--html", "page.html", code=exits.NO_GOOD_ANSWER)
    assert "written: page.html" in result.stderr
    assert "nyu-llm-frames[plot]" in result.stderr
    assert "<svg" not in Path("page.html").read_text()


# --- models -------------------------------------------------------------------------------------
def test_models_have_names_context_and_batch_prices(run: Run, stand_in: StandIn) -> None:
    found = json.loads(run("models", "--json").stdout)
    names = [model["model"] for model in found]
    assert MODEL in names
    assert names == sorted(names)
    assert all(model["batch_usd_per_million_output_tokens"] > 0 for model in found)
    assert not [n for n in names if re.search("embed|image|tts|live", n)]
    shown = run("models", "3-FLASH").stdout
    assert MODEL in shown
    assert "context" in shown.splitlines()[0]
    assert "no model" in run("models", "gpt").stdout
    assert not stand_in.log


def test_a_listed_model_costs_what_an_estimate_says(run: Run) -> None:
    listed = {m["model"]: m for m in json.loads(run("models", "--json").stdout)}[MODEL]
    df = pd.DataFrame({"x": ["word " * 2_000]})
    found = df.llm.estimate("{{ x }}", model=MODEL, max_tokens=1, thinking="low")
    million = 1e6 * found.usd_batch.low
    prompt = found.prompt_tokens.low * listed["batch_usd_per_million_prompt_tokens"]
    assert million == pytest.approx(prompt, rel=0.01)


# --- options ------------------------------------------------------------------------------------
def test_help_of_batch_is_in_groups_and_ends_with_an_example(run: Run) -> None:
    shown = run("batch", "--help").stdout
    titles = re.findall(r"^(\w[\w ]*):$", shown, re.MULTILINE)
    assert titles == ["Input", "Prompt", "Model", "New columns", "Run", "Gateway", "Options"]
    assert "--if-exists fill --max-tokens" in shown
    for hidden in ("--upstream", "--gguf", "--answers", "--data "):
        assert hidden not in shown
        assert hidden in run("demo", "--help").stdout


def test_hidden_options_of_the_embedded_gateway_are_still_taken(run: Run) -> None:
    result = run(*batch("--upstream", "http://127.0.0.1:9"), code=exits.USAGE)
    assert "--upstream needs --gateway local" in result.stderr


def test_trial_and_estimate_take_the_output_of_the_batch_to_come(
    run: Run, stand_in: StandIn
) -> None:
    words = batch()[1:]
    run("trial", *words, "--n", "2", "--random-state", "1")
    assert Path("out.llm").is_dir()
    assert json.loads(run("estimate", *words, "--json").stdout)["to_pay"] == 4
    assert "Give the --out" in run("trial", *words[:-2], code=exits.USAGE).stderr


def test_a_limit_that_thinking_eats_is_told_by_a_quiet_command(run: Run) -> None:
    assert "counts thinking too" in run("-q", *batch("--max-tokens", "50")).stderr
    quiet = run("-q", *batch("--max-tokens", "50", "--thinking", "low", out="b.csv"))
    assert not quiet.stderr
