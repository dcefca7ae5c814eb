"""A Dask frame on one and on two workers of this machine.

    python tests/benchmarks/dask_frames.py [--rows 100000 1000000] [--workers 1 2] [--repeat 3]

Answers are checked first, against the prompts that were sent. Rendering is timed alone (rows to
spool files, by the workers), then planning and writing request files (by the coordinator, with a
gateway in this process), and the join; medians. CPU time means the same on a busy machine, seconds
do not. Memory is the peak of each process since its counter was reset, on Linux.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
from distributed import Client, LocalCluster
from frames import CONNECTION, MODEL, TEMPLATE, InProcess, frame

import nyu_llm_frames as llm
import nyu_llm_frames.dask
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames.dask.dask_run import DaskCall

PER_PARTITION = 25_000
assert nyu_llm_frames.dask


def make(rows: int, folder: Path) -> None:
    """Write the input, in a process of its own: its memory is not what is measured."""
    whole = frame(rows)
    for number, start in enumerate(range(0, rows, PER_PARTITION)):
        part = whole.iloc[start : start + PER_PARTITION]
        part.to_parquet(folder / f"part.{number:04d}.parquet")


def peak_mb() -> float:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def reset_peak() -> None:
    """Let the peak begin from what is used now."""
    Path("/proc/self/clear_refs").write_text("5")


def timed(client: Client, repeat: int, act: Callable[[], object]) -> tuple[float, float]:
    """Return the medians of seconds and of the workers' CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeat):
        cpu, start = sum(client.run(time.process_time).values()), time.perf_counter()
        act()
        walls.append(time.perf_counter() - start)
        cpus.append(sum(client.run(time.process_time).values()) - cpu)
    return statistics.median(walls), statistics.median(cpus)


def check(part: Any) -> Any:
    """Hold a partition's answers against its own rows; return the number of rows."""
    prompts = [
        f"echo: Which drug is named in this offence? {o} (case {c})"
        for o, c in zip(part["offense"], part["case_id"], strict=True)
    ]
    assert part["response"].tolist() == prompts
    return part[["case_id"]]


def measure(rows: int, workers: int, folder: Path, repeat: int) -> str:
    """Return a row of the table."""
    source = folder / f"input-{rows}"
    if not source.exists():
        source.mkdir()
        subprocess.run([sys.executable, __file__, "--make", str(rows), str(source)], check=True)
    gateway = InProcess(api_key="none", bucket="none")
    call: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 2048,
        "gateway": gateway,
        "thinking": "low",
    }
    with (
        tempfile.TemporaryDirectory(dir=folder) as work,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        CONNECTION.__init__(Path(work))  # type: ignore[misc]
        lazy = dd.read_parquet(str(source))
        lazy.llm.preview(TEMPLATE, n=1)
        client.run(lambda: __import__("nyu_llm_frames.dask"))
        arguments = Arguments(template=TEMPLATE, sidecar=f"{work}/s", **call)
        rendering = DaskCall(lazy, arguments, current_clock())

        def render() -> None:
            with rendering._spooled() as (_, partitions):
                assert sum(p.requests for p in partitions) == rows

        idle = max(client.run(peak_mb).values())
        render()  # once before it is timed: pages and imports
        render_s, render_cpu = timed(client, repeat, render)
        reset_peak()
        before, cpu = peak_mb(), time.process_time()
        run = lazy.llm.submit(TEMPLATE, sidecar=f"{work}/s", **call)
        plan_cpu = time.process_time() - cpu
        CONNECTION.prepare_outputs()
        run.wait()
        out = run.result()
        grown = peak_mb() - before
        checked = out.map_partitions(check, meta=lazy._meta[["case_id"]])
        assert len(checked) == rows
        joined = out.map_partitions(len, meta=(None, int))
        join_s, join_cpu = timed(client, repeat, joined.compute)
        peak = max(client.run(peak_mb).values())
    return (
        f"| {rows:,} | {workers} | {render_s:.1f} s | {render_cpu / rows * 1e6:.1f} | "
        f"{rows / render_cpu:,.0f} | {plan_cpu / rows * 1e6:.1f} | {join_s:.1f} s | "
        f"{join_cpu / rows * 1e6:.1f} | {peak:,.0f} MB ({idle:,.0f} idle) | "
        f"{grown:,.0f} MB ({grown * 2**20 / rows:,.0f} bytes a request) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(int(args.make[0]), Path(args.make[1]))
        return
    llm.set_options(progress=False, poll_interval_s=0.001)
    print(
        "| rows | workers | render | CPU, µs a row | rows a second of a core | plan, CPU | "
        "join | CPU, µs a row | peak memory of a worker | the coordinator's growth |"
    )
    print("| ---: " * 10 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for rows in args.rows:
            for workers in args.workers:
                print(measure(rows, workers, Path(folder), args.repeat), flush=True)


if __name__ == "__main__":
    main()
