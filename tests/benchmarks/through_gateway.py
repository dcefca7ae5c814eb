"""Submit and collect through the real gateway, against the loop that NYU's page teaches.

    python tests/benchmarks/through_gateway.py [--rows 20000] [--repeat 7]

The gateway is Portkey's own, Google is played on this machine (`tests/gateway_lab`). By hand is the
page's recipe with its client: lines of JSON, upload, submit, poll, `/output`, `json.loads`, a join.
Both sides take turns in one process, which sends first, and the answers of both are checked before
anything is counted. Told are medians and ranges: of CPU time of this process alone, and of wall
time, in which the gateway and Google work on the same cores.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from frames import MODEL, TEMPLATE, by_hand_build, by_hand_render, frame

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway_lab.harness import Harness, find_gateway
from gateway_lab.oracle import expected_answer

import nyu_llm_frames as llm
from nyu_llm_frames._stages.cost import tokens

T = TypeVar("T")
Times = dict[str, list[tuple[float, float]]]


# --- by hand, as the page has it --------------------------------------------------------------
def by_hand_submit(lab: Harness, df: pd.DataFrame, path: Path) -> str:
    """Write the file, upload it, submit it; return the job's id."""
    by_hand_build(df, path)
    portkey = lab.portkey(provider_file_name=path.name)
    with path.open("rb") as lines:
        file = portkey.files.create(file=lines, purpose="batch")
    job = portkey.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        model=MODEL,
    )
    return str(job.id)


def by_hand_collect(lab: Harness, df: pd.DataFrame, job_id: str) -> pd.DataFrame:
    """Poll, read the output, join it to the rows."""
    portkey = lab.portkey()
    while portkey.batches.retrieve(job_id).status != "completed":
        time.sleep(0.01)
    answers = {}
    for line in portkey.batches.output(job_id).text.split("\n"):
        if line:
            row = json.loads(line)
            content = row["response"]["body"]["choices"][0]["message"]["content"]
            answers[row["custom_id"]] = content
    ids = [f"request-{i}" for i in range(len(df))]
    return df.assign(response=pd.Series(answers).reindex(ids).to_numpy())


# --- ours --------------------------------------------------------------------------------------
def our_submit(lab: Harness, df: pd.DataFrame, sidecar: Path) -> Any:
    return df.llm.submit(
        TEMPLATE,
        model=MODEL,
        max_tokens=2048,
        gateway=llm.Gateway(**lab.settings),
        sidecar=sidecar,
    )


def our_collect(run: Any) -> pd.DataFrame:
    joined: pd.DataFrame = run.wait().result()
    return joined


# --- the clock ---------------------------------------------------------------------------------
def timed(times: list[tuple[float, float]], function: Callable[[], T]) -> T:
    """Call a function, and note its CPU and wall seconds."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    value = function()
    times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return value


def wait_for_answers(lab: Harness) -> None:
    """Wait until Google is done with all jobs: it shares the cores with who is measured."""
    while not all(job["_done"] for job in lab.jobs()):
        time.sleep(0.05)


@contextmanager
def tokenizer(there: bool) -> Any:
    """Have the extra `tokens` installed or not."""
    known = sys.modules.get("splintr")
    if not there:
        sys.modules["splintr"] = None  # type: ignore[assignment]
    tokens.gemma.cache_clear()
    tokens.gemma()  # a process loads it once
    try:
        yield
    finally:
        sys.modules.pop("splintr", None)
        if known is not None:
            sys.modules["splintr"] = known
        tokens.gemma.cache_clear()


def rows_damaged_at_most(rows: int) -> float:
    return 1 + 0.05 * rows


def turn(lab: Harness, df: pd.DataFrame, work: Path, number: int, times: Times) -> None:
    """Let both sides submit and collect the same rows, the one first and then the other."""
    lab.reset("instant")
    expected = [expected_answer(text) for text in by_hand_render(df)]
    folder = work / str(number)
    folder.mkdir()

    def ours() -> None:
        run = timed(times["submit, ours"], lambda: our_submit(lab, df, folder / "sidecar"))
        wait_for_answers(lab)
        joined = timed(times["collect, ours"], lambda: our_collect(run))
        assert joined["response"].tolist() == expected
        assert len(lab.jobs()) == jobs_before + 1

    def hand() -> None:
        path = folder / "by_hand.jsonl"
        job = timed(times["submit, hand"], lambda: by_hand_submit(lab, df, path))
        wait_for_answers(lab)
        joined = timed(times["collect, hand"], lambda: by_hand_collect(lab, df, job))
        found = joined["response"].tolist()
        wrong = [text for text, right in zip(found, expected, strict=True) if text != right]
        # `/output` damages characters on chunk borders, which this side does not notice.
        assert all("\ufffd" in text for text in wrong)
        assert len(wrong) < rows_damaged_at_most(len(df))
        lab.close_clients()

    for side in (ours, hand) if number % 2 else (hand, ours):
        jobs_before = len(lab.jobs())
        side()
    shutil.rmtree(folder)


def measure(lab: Harness, rows: int, repeat: int, extra: bool) -> Times:
    """Take turns; the first is not counted, since it loads what a process loads once."""
    names = [f"{stage}, {side}" for stage in ("submit", "collect") for side in ("ours", "hand")]
    work = Path(tempfile.mkdtemp())
    times: Times = {name: [] for name in names}
    within: AbstractContextManager[None] = tokenizer(extra)
    try:
        with within:
            turn(lab, frame(200), work, 0, {name: [] for name in names})
            for number in range(1, repeat + 1):
                turn(lab, frame(rows), work, number, times)
    finally:
        shutil.rmtree(work)
    return times


# --- told --------------------------------------------------------------------------------------
def versions() -> str:
    """Name what was measured with."""
    names = ("pandas", "pyarrow", "portkey-ai", "httpx", "msgspec")
    ours = [f"{name} {importlib.metadata.version(name)}" for name in names]
    package = find_gateway().parent.parent / "package.json"
    gateway = json.loads(package.read_text())["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return ", ".join(
        [
            f"Python {platform.python_version()}",
            *ours,
            f"@portkey-ai/gateway {gateway}",
            f"node {node.stdout.strip()}",
            f"{os.cpu_count()} cores",
        ]
    )


def table(times: Times, rows: int, extra: bool) -> str:
    """Tell medians and ranges in microseconds a row."""
    lines = []
    for stage in ("submit", "collect"):
        for i, kind in enumerate(("CPU", "wall")):
            both = [[t[i] / rows * 1e6 for t in times[f"{stage}, {s}"]] for s in ("ours", "hand")]
            cells = [f"{statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in both]
            ratio = statistics.median(both[1]) / statistics.median(both[0])
            name = f"{stage}{', with `tokens`' if extra else ''}"
            lines.append(f"| {rows:,} | {name} | {kind} | {' | '.join(cells)} | {ratio:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000])
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    llm.set_options(progress=False, poll_interval_s=0.01)
    print(versions())
    print("\n| rows | what | time | ours, µs a row | by hand, µs a row | ratio |")
    print("| ---: | --- | --- | ---: | ---: | ---: |")
    installed = importlib.util.find_spec("splintr") is not None
    with Harness(hosted_dialect=True) as lab:
        for rows in args.rows:
            for extra in (False, True) if installed else (False,):
                print(table(measure(lab, rows, args.repeat, extra), rows, extra), flush=True)
    if not installed:
        print("\nThe extra `tokens` is not installed: measured without it alone.")


if __name__ == "__main__":
    main()
