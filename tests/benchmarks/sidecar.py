"""A large sidecar alone: what `status` and `failures` take, in CPU seconds and peak memory.

    python tests/benchmarks/sidecar.py 300_000 3_000_000

For each number of answers a sidecar is made whose jobs ended well, but for one row in a thousand;
each command is then a process of its own, and what it says is checked. Modules are compiled before,
as in an installation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

PER_JOB = 50_000
AT_ONCE = 10_000
BAD = 1000  # one row in so many failed
BODY = '{"messages": [{"role": "user", "content": "%s"}]}' % ("Which offense is named? " * 8)


def ids(rng: np.random.Generator, n: int) -> pa.Array:
    """Return ids as digests are: even."""
    raw = rng.integers(0, 256, (n, 16), np.uint8).tobytes().hex()
    return pa.array([f"r-{raw[i : i + 32]}" for i in range(0, len(raw), 32)])


def make(folder: Path, answers: int) -> None:
    """Write a sidecar whose jobs are over."""
    from nyu_llm_frames._shared.clock import current_clock
    from nyu_llm_frames._sidecar import answer_store, storage
    from nyu_llm_frames._sidecar.folder import Sidecar
    from nyu_llm_frames._stages.batches.job import Job

    sidecar, rng = Sidecar(folder, current_clock()), np.random.default_rng(1)
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def stored(every: pa.Array, job: str, first: int) -> Iterator[pa.RecordBatch]:
        schema = answer_store.SCHEMA
        for start in range(0, len(every), AT_ONCE):
            some = every.slice(start, AT_ONCE)
            n = len(some)
            bad = pa.array(np.arange(first + start, first + start + n) % BAD == 0)
            columns = {
                "custom_id": some,
                "status": pc.if_else(bad, "failed", "ok"),
                "text": pc.if_else(bad, None, "larceny, of a bicycle " * 3),
                "error": pc.if_else(bad, "503: try later", None),
                "job": pa.repeat(job, n),
                "raw": pa.repeat(b'{"usage": {"prompt_tokens": 40}}' * 8, n),
                "stored_at": pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), n),
                **{f: pa.repeat(40, n) for f in schema.names if f.endswith("_tokens")},
            }
            arrays = [columns.get(f.name, pa.repeat("STOP", n)).cast(f.type) for f in schema]
            yield pa.record_batch(arrays, schema=schema)

    for number, first in enumerate(range(0, answers, PER_JOB), 1):
        every = ids(rng, min(PER_JOB, answers - first))
        name = f"20260101-000000-abcdefab-{number:04}"
        parts = (every.slice(i, AT_ONCE) for i in range(0, len(every), AT_ONCE))
        batches = ((p, pa.repeat(pa.scalar(BODY, pa.large_string()), len(p))) for p in parts)
        sidecar.add_requests(name, batches)
        path = sidecar.answers_folder / f"{number:06d}-{name}.parquet"
        storage.write_batches(path, answer_store.SCHEMA, stored(every, name, first))
        sidecar.save_job(
            Job(
                name=name, run="r", owner="", realm="@vertexai", model="gemini-3-flash-preview",
                requests=len(every), file_bytes=len(every) * len(BODY), step="done",
                batch_id=str(number), status="completed", outcome="completed",
                answers=len(every), complete=True, done_at=at,
            )
        )  # fmt: skip


def measure(folder: Path, answers: int, command: str) -> None:
    """Run a command in a process of its own, check it, and print what it took."""
    code = "from nyu_llm_frames.cli import main; main()"
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", _PEAK.format(code=code), *command.split(), str(folder), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    bad = -(-answers // BAD)
    if command == "status":
        assert json.loads(run.stdout)["counts"] == {"ok": answers - bad, "failed": bad}, run.stderr
    else:
        assert len(json.loads(run.stdout)) == bad, run.stderr
    peak = int(run.stderr.rpartition("peak ")[2]) / 1024
    print(f"{answers:>12,} {command:>14}: {cpu:6.1f} s of CPU, {wall:6.1f} s, {peak:5.0f} MB")


_PEAK = """
import atexit, resource, sys
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
atexit.register(lambda: sys.stderr.write(f"peak {{peak()}}"))
{code}
"""


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, help="keep the sidecars here")
    given = parser.parse_args()
    base = given.folder or Path(tempfile.mkdtemp())
    for answers in (1000, *given.answers):  # the first compiles what is imported
        folder = base / f"{answers}.llm"
        if not folder.exists():
            make(folder, answers)
        for command in ("status", "failures --all"):
            measure(folder, answers, command)
    if given.folder is None:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
