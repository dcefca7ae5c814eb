"""README.md: every snippet of it does what it shows, and it stays short."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.cli.main import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w*)\n(.*?)^ *```", TEXT, re.DOTALL | re.MULTILINE)
PYTHON = [code for kind, code in BLOCKS if kind == "python"]
SHELL = [code for kind, code in BLOCKS if kind != "python"]


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_every_file_that_it_names_is_there() -> None:
    named = [*re.findall(r"\]\(([^)#:]+)\)", TEXT), *re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)]
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_its_python_runs_from_top_to_bottom(stand_in: StandIn) -> None:
    names: dict[str, Any] = {"gateway": llm.Gateway(**stand_in.settings)}
    with llm.set_options(gateway=names["gateway"], progress=False, poll_interval_s=0.02):
        for code in PYTHON:
            exec(code.replace('gateway="local"', "gateway=gateway"), names)
            out = names["out"]
            assert len(out) == len(llm.sample())
            assert out["response_error"].isna().all()
    assert {"drug", "weapon", "kind"} <= set(out)
    assert out["weapon"].dtype == "boolean"


def test_the_table_that_it_shows_has_rows_of_the_sample() -> None:
    shown = re.search(r"\| offense \| drug \|\n\| --- .*?\n((?:\|.*\n)+)", TEXT)
    assert shown is not None
    offenses = llm.sample()["offense"].tolist()
    for line in shown[1].splitlines():
        offense, drug = (cell.strip() for cell in line.strip("|").split("|"))
        assert any(text.startswith(offense.removesuffix("…")) for text in offenses)
        assert drug in ("cocaine", "methamphetamine")


def test_its_commands_run(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"text": ["good", "bad"]}).to_csv("reviews.csv", index=False)
    (code,) = (block for block in SHELL if "batch reviews.csv" in block)
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    codes = []
    for line in code.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "nyu-llm-frames"
        codes.append(CliRunner().invoke(cli, words, catch_exceptions=False).exit_code)
    assert codes == [4, 4]  # a step, and where it stands
    assert Path("answered.parquet").is_file()


@pytest.mark.parametrize("block", SHELL)
def test_its_shell_is_shell(block: str) -> None:
    line = re.sub(r"^(\S+ ){5}", "", block) if block.startswith("*/30") else block
    text = line.replace("<address of this repository>", "address")
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "again"), [(0, False), (3, False), (4, True), (6, False), (9, True)]
)
def test_its_slurm_job_comes_back_until_it_is_over(tmp_path: Path, code: int, again: bool) -> None:
    (script,) = (block for block in SHELL if "#SBATCH" in block)
    assert "--account=" in script  # NYU's cluster refuses jobs without
    seen = played(tmp_path, script, code)
    assert ("sbatch --begin=now+2hours" in seen) == again
    assert "nyu-llm-frames -q batch in.parquet" in seen


@pytest.mark.parametrize("code", [0, 4, 6])
def test_its_cron_line_stops_at_a_job_without_answers(tmp_path: Path, code: int) -> None:
    (line,) = (block for block in SHELL if block.startswith("*/30"))
    played(tmp_path, re.sub(r"^(\S+ ){5}", "", line), code)
    assert (tmp_path / "study/stopped").exists() == (code == 6)
    assert ("nyu-llm-frames" in played(tmp_path, re.sub(r"^(\S+ ){5}", "", line), 0)) == (code != 6)


def played(home: Path, script: str, code: int) -> str:
    """Run a script with commands that only write down how they were called."""
    (home / "study").mkdir(exist_ok=True)
    (home / "bin").mkdir(exist_ok=True)
    for name, ends in (("nyu-llm-frames", code), ("sbatch", 0)):
        command = home / "bin" / name
        command.write_text(f'#!/bin/sh\necho {name} "$@" >> "$HOME/calls"\nexit {ends}\n')
        command.chmod(0o755)
    (home / "study/keys.sh").write_text("export PORTKEY_API_KEY=k NYU_LLM_BUCKET=b\n")
    (home / "calls").write_text("")
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", script], env={"HOME": str(home), "PATH": path}, check=False)
    return (home / "calls").read_text()
