"""File to file: time must grow with the rows in a straight line, and peak memory not at all.

    python tests/benchmarks/files.py 10_000 100_000 1_000_000 10_000_000 --plot linear.svg

For each number of rows a process of its own makes a CSV of 300 characters a row, answers it with
`batch_file` through a gateway in the same process (answers made on the fly), checks the output
row by row, and reports seconds and peak memory, also of a command on the sidecar alone. `--folder`
names a place with space, about 15 GB for the largest; `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

WORDS = "the court found that a person of this name was sentenced for an offence of that kind "
TEMPLATE = "Which of the offences is it? {{ text }}"
_ID = re.compile(rb'"custom_id": "(r-[0-9a-f]{32})"')


class OnTheFly:
    """A connection whose jobs end at once; every answer is the id of its request."""

    stored_refused = True  # the output is what it makes

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, str] = {}

    def load_client(self) -> None:
        """There is none."""

    def upload(self, file: BinaryIO, file_name: str, model: str) -> str:
        """Keep the ids alone."""
        file_id = f"gs%3A%2F%2Fbucket%2F{file_name.replace('/', '%2F')}"
        with self._ids(file_id).open("wb") as out:
            for line in file:
                out.write(_ID.search(line[:80])[1] + b"\n")  # type: ignore[index]
        return file_id

    def _ids(self, file_id: str) -> Path:
        return self._folder / f"{uuid.uuid5(uuid.NAMESPACE_URL, file_id)}.ids"

    def create(self, input_file_id: str, model: str) -> object:
        from nyu_llm_frames._stages.batches.wire import Created

        batch_id = str(len(self._jobs) + 1)
        self._jobs[batch_id] = input_file_id
        return Created(self._batch(batch_id, "validating", "running"))

    def _batch(self, batch_id: str, status: str, state: str) -> object:
        from nyu_llm_frames._stages.batches.wire import Batch

        file_id = self._jobs[batch_id]
        return Batch(batch_id, status, state, file_id, f"{file_id}.out", None, None)  # type: ignore[arg-type]

    def retrieve(self, batch_id: str) -> object:
        return self._batch(batch_id, "completed", "completed")

    def list(self) -> object:
        from nyu_llm_frames._stages.batches.wire import JobList

        return JobList((), False)

    def output(self, batch_id: str) -> Iterator[bytes]:
        body = (
            b'{"id": "batch-1", "custom_id": "%b", "response": {"status_code": 200, "body": '
            b'{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": '
            b'[{"message": {"role": "assistant", "content": "answer %b: %b"}, "index": 0, '
            b'"finish_reason": "STOP"}], "usage": {"prompt_tokens": 80, "completion_tokens": 20, '
            b'"total_tokens": 100}}}, "error": ""}\n'
        )
        filler = b"a sentence that says why this is so, in words " * 2
        held: list[bytes] = []
        with self._ids(self._jobs[batch_id]).open("rb") as ids:
            for line in ids:
                custom_id = line[:-1]
                held.append(body % (custom_id, custom_id, filler))
                if len(held) == 500:
                    yield b"".join(held)
                    held = []
        yield b"".join(held)

    def content(self, file_id: str) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing to close."""

    def stored_bytes(self, file_id: str) -> int | None:
        return None

    def cancel(self, batch_id: str) -> None:
        return None

    def revive(self) -> None:
        return None


def make(path: Path, rows: int) -> None:
    """Write the input: 300 characters of text a row, quotes and commas in it."""
    text = (WORDS * 4)[:280]
    with path.open("w", newline="") as file:
        file.write("id,text,year\n")
        for start in range(0, rows, 10_000):
            lines = [
                f'{i:08d},"{text}, ""{i:012d}""",{1970 + i % 50}\n'
                for i in range(start, min(start + 10_000, rows))
            ]
            file.write("".join(lines))


def check(source: Path, output: Path) -> None:
    """Compare the output with the input, record by record, and every answer with its id."""
    with source.open(newline="") as a, output.open(newline="") as b:
        ins, outs = csv.reader(a), csv.reader(b)
        header = next(outs)
        assert header[:3] == next(ins)
        at = header.index("response_custom_id")
        count = 0
        for row, out in zip(ins, outs, strict=True):
            assert out[:3] == row, (row, out)
            assert out[3].startswith(f"answer {out[at]}: "), out
            assert out[4] == "", out
            count += 1
    print(f"  checked: {count:,} rows, every one its own", flush=True)


def one(rows: int, folder: Path) -> None:
    """Run one size in this process."""
    import nyu_llm_frames as llm
    from nyu_llm_frames._gateway.gateway import Gateway

    base = peak_mb()
    source, output = folder / "in.csv", folder / "out.csv"
    make(source, rows)
    connection = OnTheFly(folder)

    class Local(Gateway):
        def connect(self) -> object:  # type: ignore[override]
            return connection

    gateway = Local(api_key="none", base_url="http://localhost/v1", provider="@bench", bucket="b")
    llm.set_options(poll_interval_s=0.01, max_poll_interval_s=0.02, progress=Steps())
    times = {}
    for name in ("first", "again"):
        start = time.perf_counter()
        result = llm.batch_file(
            source, output, TEMPLATE, model="gemini-3-flash-preview", gateway=gateway, details=True
        )
        times[name] = time.perf_counter() - start
        assert result.counts == {"ok": rows}, result.counts
        if name == "first":
            first_peak = peak_mb()
    used = sum(f.stat().st_size for f in (folder / "out.llm").rglob("*") if f.is_file())
    peak = peak_mb()
    check(source, output)
    status_s, status_mb = sidecar_command("status", folder / "out.llm")
    print(
        json.dumps(
            {
                "rows": rows,
                "input_mb": round(source.stat().st_size / 1e6),
                "output_mb": round(output.stat().st_size / 1e6),
                "sidecar_mb": round(used / 1e6),
                "jobs": len(connection._jobs),
                "first_s": round(times["first"], 1),
                "again_s": round(times["again"], 1),
                "us_per_row": round(times["first"] / rows * 1e6, 1),
                "peak_mb_import": round(base),
                "peak_mb_first": round(first_peak),
                "peak_mb": round(peak),
                "status_s": round(status_s, 1),
                "status_mb": round(status_mb),
            }
        ),
        flush=True,
    )


# A small process between: a child begins with the peak of the process that made it.
_MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def sidecar_command(name: str, sidecar: Path) -> tuple[float, float]:
    """Run a command of the command line on a sidecar; return its seconds and its peak memory."""
    code = "from nyu_llm_frames.cli.main import cli; cli()"
    command = [sys.executable, "-c", code, name, str(sidecar), "--json"]
    told = subprocess.check_output(
        [sys.executable, "-c", _MEASURED, *command],
        env={**os.environ, "PYTHONPATH": sys.path[0]},
    )
    seconds, peak = json.loads(told)
    return seconds, megabytes(peak)


class Steps:
    """Prints where the time and the memory go."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._said = 0.0

    def __call__(self, progress: object) -> None:
        now = time.perf_counter() - self._start
        if progress.phase in ("note", "planned") or now - self._said > 20:  # type: ignore[attr-defined]
            self._said = now
            text = str(progress.message)[:110]  # type: ignore[attr-defined]
            print(f"  {now:7.1f} s {peak_mb():6.0f} MB  {text}", flush=True)


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def megabytes(peak: int) -> float:
    """Convert what the operating system tells of peak memory."""
    return peak / (1024 if os.uname().sysname != "Darwin" else 1 << 20)


def measured(rows: int, parent: Path | None) -> dict[str, float]:
    """Run one size in a process of its own, and pass on what it says."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    command = [sys.executable, __file__, str(rows), "--here", "--folder", str(folder)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            for line in child.stdout:
                print(line, end="", flush=True)
        assert child.returncode == 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, float] = json.loads(line)
    return found


def table(results: list[dict[str, float]]) -> str:
    """Return the results as the README has them."""
    lines = [
        "| rows | first call | called again | µs a row | peak memory | `status`, its peak memory |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        lines.append(
            f"| {r['rows']:,} | {r['first_s']:,.1f} s | {r['again_s']:,.1f} s "
            f"| {r['us_per_row']:.0f} | {r['peak_mb']:.0f} MB "
            f"| {r['status_s']:,.1f} s, {r['status_mb']:.0f} MB |"
        )
    return "\n".join(lines)


def plot(results: list[dict[str, float]], path: Path) -> None:
    """Draw time and peak memory against rows; a straight line through zero for comparison."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    rows = [r["rows"] for r in results]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, label in (("first_s", "first call"), ("again_s", "called again")):
        left.loglog(rows, [r[name] for r in results], "o-", label=label)
    each = results[-1]["first_s"] / rows[-1]
    left.loglog(
        rows, [n * each for n in rows], ":", color="gray", label=f"{each * 1e6:.0f} µs a row"
    )
    left.set(xlabel="rows", ylabel="seconds", title="Time, file to file")
    left.legend()
    right.semilogx(rows, [r["peak_mb"] for r in results], "o-")
    right.set(xlabel="rows", ylabel="MB", title="Peak memory", ylim=(0, 650))
    right.axhline(600, color="gray", linestyle=":")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", type=int, default=[1_000_000])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        one(given.rows[0], given.folder)
        return
    results = []
    for rows in given.rows:
        print(f"{rows:,} rows", flush=True)
        results.append(measured(rows, given.folder))
    print(f"\n{table(results)}")
    if given.plot is not None:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
