"""Messages on the command line: what a cure names is an option, and nothing else is changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support import rows
from support.command import Run, command
from support.stand_in import StandIn

import nyu_llm_frames
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.show import OPTIONS, in_options
from nyu_llm_frames.cli.table_commands import batch

MODEL = "gemini-3-flash-preview"


@pytest.fixture
def run(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    with command(stand_in, monkeypatch) as invoke:
        yield invoke


def literals() -> list[str]:
    """Return every text in the package's code, with a blank for each value put in."""
    found: list[str] = []
    for path in Path(nyu_llm_frames.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "7" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_each_of_them_is_an_option_of_batch() -> None:
    words = {word for param in batch.params for word in param.opts}
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS} <= words


def test_in_all_messages_only_the_arguments_change() -> None:
    changed = 0
    for text in literals():
        shown = in_options(text)
        for name in OPTIONS:  # what was written, in Python's words again
            shown = re.sub(rf"--{name.replace('_', '-')}(?![\w-])", f"{name}=", shown)
        back, before = (
            re.sub(r"[\s\"',]|nyu-llm-frames|df\.llm\.|\(\.\.\.\)", "", t) for t in (shown, text)
        )
        if in_options(text) != text and "--" not in text:
            changed += 1
            assert back == before
    assert changed > 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            'with a larger max_tokens= and if_exists="fill".',
            "with a larger --max-tokens and --if-exists fill.",
        ),
        ("if_exists='fill': the column", "--if-exists fill: the column"),
        ("max_tokens=4,096 counts", "--max-tokens 4096 counts"),
        ("above max_cost=$0.010; about", "above --max-cost $0.010; about"),
        ("give sep=';', as", "give --sep ';', as"),
        (r"say so: sep='\t'.", r"say so: --sep '\t'."),
        ("(base_url=, PORTKEY_BASE_URL)?", "(--base-url, PORTKEY_BASE_URL)?"),
        ("run df.llm.trial(...) so", "run nyu-llm-frames trial so"),
    ],
)
def test_arguments_become_options(text: str, shown: str) -> None:
    assert in_options(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        'error.run.resolve(adopt="x", timeout=3) or resolve(resubmit=True)',
        "Gateway(api_key='a', base_url=...)",
        "pd.read_csv('a.csv', sep=';')",
        "runs/seed=3/part.parquet and my seed=3.csv",
        "https://host/v1?seed=3&stop=4",
        "Put the sidecar elsewhere: sidecar=...",
        "  1 | {{ x }} max_tokens=5 \n    | ^^^^",
        "samples=3, n=5, gateway= and the_output=1",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert in_options(text) == text


def test_warnings_errors_and_advice_name_options(run: Run, stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick({"Say b": rows.truncated})
    pd.DataFrame({"text": ["a", "b"]}).to_csv("in.csv", index=False)
    ask = ("--prompt", "Say {{ text }}", "--model", MODEL)
    found = run(
        "batch", "in.csv", *ask, "--out", "out.csv", "--max-tokens", "9", code=exits.NO_GOOD_ANSWER
    )
    assert "Set --thinking low" in found.stderr
    assert "--if-exists fill with a larger --max-tokens sends only such rows" in found.stderr
    found = run("batch", "out.csv", *ask, "--out", "again.csv", code=exits.USAGE)
    assert "use --if-exists replace (costs nothing) or --if-exists fill" in found.stderr
    assert "another name with --output or --prefix" in found.stderr
    found = run("estimate", "in.csv", "--prompt", "New {{ text }}", "--model", MODEL)
    assert "set --max-tokens or run a trial" in found.stdout
    limited = ("--prompt", "New {{ text }}", "--model", MODEL, "--max-cost", "0.0001")
    found = run("batch", "in.csv", *limited, "--out", "limited.csv", code=exits.TOO_EXPENSIVE)
    assert "set --max-tokens, run nyu-llm-frames trial so" in found.stderr
    assert "set --retries 0, or raise --max-cost." in found.stderr
