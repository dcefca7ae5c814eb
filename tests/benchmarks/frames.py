"""Frame to frame, measured against the loops that people write by hand.

    python tests/benchmarks/frames.py [--rows 100000 1000000] [--repeat 3]

Each figure is the best of a few repeats of both sides in one process, in turn, after the answers
of both were compared. Ratios are what counts; seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa

import nyu_llm_frames as llm
from nyu_llm_frames._stages.batches.wire import Batch, Created, JobList

TEMPLATE = "Which drug is named in this offence? {{ offense }} (case {{ case_id }})"
MODEL = "gemini-3-flash-preview"
DATA = Path(__file__).parent.parent / "data"


class InProcess(llm.Gateway):
    """A gateway without a network: takes request files and streams prepared output files."""

    def connect(self) -> Any:
        return CONNECTION


class Connection:
    """Keeps uploaded files, and answers each line in a file for each job."""

    def close(self) -> None:
        """Nothing to close."""

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder
        self.numbers = itertools.count()  # several upload at a time
        self.inputs: dict[int, tuple[str, Path]] = {}
        self.outputs: dict[int, Path] = {}

    @property
    def files(self) -> list[Path]:
        """The request files in the order of their rows."""
        return [path for _, path in sorted(self.inputs.values())]

    def upload(self, file: BinaryIO, file_name: str, model: str) -> str:
        number = next(self.numbers)
        path = self.folder / f"input-{number}.jsonl"
        with path.open("wb") as out:
            shutil.copyfileobj(file, out)
        self.inputs[number] = file_name, path
        return str(number)

    def load_client(self) -> None:
        """No client makes its headers."""

    def create(self, input_file_id: str, model: str) -> Created:
        return Created(self._batch(int(input_file_id)))

    def _batch(self, number: int) -> Batch:
        return Batch(f"b{number}", "completed", "completed", "", "", None, None)

    def list(self) -> JobList:
        return JobList((), False)

    def retrieve(self, batch_id: str) -> Batch:
        return self._batch(int(batch_id[1:]))

    def output(self, batch_id: str) -> Iterator[bytes]:
        with self.outputs[int(batch_id[1:])].open("rb", buffering=0) as file:
            while chunk := file.read(1 << 16):
                yield chunk

    def prepare_outputs(self) -> None:
        for number, (_, path) in self.inputs.items():
            self.outputs[number] = self.folder / f"output-{number}.jsonl"
            with path.open("rb") as lines, self.outputs[number].open("wb") as file:
                file.writelines(map(output_line, lines))


CONNECTION = Connection()
RANDOM = random.Random(1)


def output_line(line: bytes) -> bytes:
    """Answer a request line in the gateway's form, with ids and counts of its own."""
    request = json.loads(line)
    text = f"echo: {request['body']['messages'][-1]['content']}"
    job = f"batch-7284652661620604928-{RANDOM.getrandbits(92):023x}"
    read, written = len(text) // 5, len(text) // 4
    row = {
        "id": job,
        "custom_id": request["custom_id"],
        "response": {
            "status_code": 200,
            "request_id": job,
            "body": {
                "id": f"chatcmpl-{RANDOM.getrandbits(120):030x}",
                "object": "chat.completion",
                "created": 1771430797 + RANDOM.randrange(3600),
                "model": MODEL,
                "provider": "vertex-ai",
                "choices": [
                    {
                        "message": {
                            "role": "assistant",
                            "content": text,
                            "content_blocks": [{"type": "text", "text": text}],
                        },
                        "index": 0,
                        "finish_reason": "STOP",
                    }
                ],
                "usage": {
                    "prompt_tokens": read,
                    "completion_tokens": written,
                    "total_tokens": read + written,
                    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                },
            },
        },
        "error": "",
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def frame(rows: int) -> pd.DataFrame:
    """Return real offences, repeated with a number each so that all rows differ."""
    offenses = pd.read_csv(DATA / "commutations.csv")["offense"].dropna().to_numpy()
    return pd.DataFrame(
        {
            "case_id": np.arange(rows),
            "offense": [f"{offenses[i % len(offenses)]} (no. {i})" for i in range(rows)],
            "other": np.random.default_rng(1).random(rows),
        }
    )


def by_hand_build(df: pd.DataFrame, path: Path) -> None:
    """Write a request file the way NYU's page teaches it, with a template."""
    template = jinja2.Template(TEMPLATE)
    with path.open("w") as file:
        for i, row in enumerate(df.to_dict("records")):
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": template.render(row)}],
                "max_tokens": 2048,
            }
            line = {
                "custom_id": f"request-{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
            file.write(json.dumps(line) + "\n")


def by_hand_collect(df: pd.DataFrame, ids: list[str], outputs: list[Path]) -> pd.DataFrame:
    """Join output files by hand: a dict, a frame, a reindex."""
    answers = {}
    for path in outputs:
        with path.open() as lines:
            for line in lines:
                row = json.loads(line)
                content = row["response"]["body"]["choices"][0]["message"]["content"]
                answers[row["custom_id"]] = content
    joined = pd.DataFrame({"response": pd.Series(answers)}).reindex(ids)
    return df.assign(response=joined["response"].to_numpy())


def by_hand_render(df: pd.DataFrame) -> list[str]:
    template = jinja2.Template(TEMPLATE)
    return [template.render(row) for row in df.to_dict("records")]


def check_same_bodies(ours: list[Path], by_hand: Path) -> None:
    """Hold our request lines against those made by hand, one by one."""
    with by_hand.open() as lines:
        for path in ours:
            with path.open() as file:
                for line, expected in zip(file, lines, strict=False):
                    assert json.loads(line)["body"] == json.loads(expected)["body"]
        assert next(lines, None) is None


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def measure(rows: int, repeat: int) -> list[tuple[str, float, float]]:
    """Return (name, ours, by hand) in seconds."""
    df = frame(rows)
    gateway = InProcess(api_key="none", bucket="none")
    call = {"template": TEMPLATE, "model": MODEL, "max_tokens": 2048, "gateway": gateway}
    best: dict[str, list[float]] = {n: [9e9, 9e9] for n in ("build", "collect", "finished again")}
    work = Path(tempfile.mkdtemp())
    try:
        for turn in range(repeat):
            folder = work / str(turn)
            folder.mkdir()
            CONNECTION.__init__(folder)  # type: ignore[misc]
            sidecar = folder / "sidecar"
            ours, run = timed(lambda s=sidecar: df.llm.submit(**call, sidecar=s))
            hand, _ = timed(lambda: by_hand_build(df, work / "by_hand.jsonl"))
            check_same_bodies(CONNECTION.files, work / "by_hand.jsonl")
            best["build"] = [min(best["build"][0], ours), min(best["build"][1], hand)]

            CONNECTION.prepare_outputs()
            ids = run._call.requests.ids.take(pa.array(run._call.codes)).to_pylist()
            ours, joined = timed(lambda r=run: r.wait().result())
            hand, expected = timed(
                lambda i=ids: by_hand_collect(df, i, list(CONNECTION.outputs.values()))
            )
            assert (joined["response"].to_numpy() == expected["response"].to_numpy()).all()
            best["collect"] = [min(best["collect"][0], ours), min(best["collect"][1], hand)]
            del expected, run

            ours, again = timed(lambda s=sidecar: df.llm.batch(**call, sidecar=s))
            hand, _ = timed(lambda: by_hand_render(df))
            pd.testing.assert_frame_equal(again, joined)
            old = best["finished again"]
            best["finished again"] = [min(old[0], ours), min(old[1], hand)]
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(work)
    return [(name, ours, hand) for name, (ours, hand) in best.items()]


def measure_import(repeat: int = 5) -> tuple[float, float]:
    """Return seconds that importing adds to pandas, and pandas' own."""
    code = (
        "import time; a=time.perf_counter(); import pandas; b=time.perf_counter(); "
        "import nyu_llm_frames; print(time.perf_counter()-b, b-a)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(repeat)
    ]
    values = [tuple(map(float, run.stdout.split())) for run in runs]
    return min(v[0] for v in values), min(v[1] for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    llm.set_options(progress=False, poll_interval_s=0.001)
    print(f"Python {platform.python_version()}, pandas {pd.__version__}, pyarrow {pa.__version__}")
    print("\n| rows | what | ours, µs a row | by hand, µs a row | ratio |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for rows in args.rows:
        for name, ours, hand in measure(rows, args.repeat):
            a, b = ours / rows * 1e6, hand / rows * 1e6
            print(f"| {rows:,} | {name} | {a:.2f} | {b:.2f} | {b / a:.1f} |")
    added, alone = measure_import()
    print(f"\n`import nyu_llm_frames`: {added:.3f} s after pandas ({alone:.3f} s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"Peak memory of this process, both sides together: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
