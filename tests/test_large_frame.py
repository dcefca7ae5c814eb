"""Many rows of every dtype, and an output that no memory should hold."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm

MODEL = "gemini-3-flash-preview"
ROWS = 20_000  # above what is rendered, looked up and written at once


def large_frame() -> pd.DataFrame:
    """Return a frame with every kind of column, and labels that come more than once."""
    n: Any = np.arange(ROWS)
    series: Any = pd.Series  # made of more than the stubs know
    stamps: Any = pd.to_datetime
    zoned = stamps(n % 977, unit="h", utc=True).tz_convert("America/New_York")
    index = pd.MultiIndex.from_arrays(
        [zoned, pd.Index(n % 10), pd.Index(n % 7).astype(str)], names=["when", None, "étiquette"]
    )
    nested = series([[int(i), 1] for i in n % 50], dtype=pd.ArrowDtype(pa.list_(pa.int64()))).array
    columns: dict[str, Any] = {
        "id": n,
        "float": np.where(n % 3, n + 0.5, n),
        "Int64": pd.array(np.where(n % 5, n, 0), dtype="Int64"),
        "boolean": pd.array(n % 2 == 0, dtype="boolean"),
        "string": pd.array((n % 1000).astype(str), dtype="string"),
        "arrow": series((n % 1000).astype(str), dtype=pd.ArrowDtype(pa.string())).array,
        "category": series(np.array(["low", "mid", "high"])[n % 3], dtype="category").array,
        "datetime": stamps(n, unit="s"),
        "zoned time": stamps(n, unit="s", utc=True).tz_convert("Asia/Kolkata"),
        "timedelta": pd.to_timedelta(n, unit="s"),
        "period": pd.PeriodIndex(stamps(n % 500, unit="D"), freq="D"),
        "nested": nested,
        "objects": pd.Series([{"a": int(i)} for i in n % 50]).array,
        "with.dots": n,
        "東京": n,
        "index": n * 2,
        "row": n * 3,
        "loop": n * 4,
        "range": n * 5,
        "self": n * 6,
    }
    frame = pd.DataFrame(columns, index=index)
    frame["holes"] = frame["string"].where(n % 10 != 0)
    return frame


TEMPLATE = (
    "{{ id }} {{ float }} {{ boolean }} {{ string }} {{ arrow }} {{ category }} {{ row['index'] }} "
    "{{ row['with.dots'] }} {{ 東京 }} {{ row['zoned time'] }} {{ nested }} "
    "{{ holes if holes is not none else 'none' }} {{ loop }} {{ range }} {{ self }}"
)


def prompt(i: int, zoned: pd.Timestamp) -> str:
    whole = str(i) if i % 3 == 0 else f"{i}.5"
    hole = "none" if i % 10 == 0 else i % 1000
    kind = ("low", "mid", "high")[i % 3]
    return (
        f"{i} {whole} {i % 2 == 0} {i % 1000} {i % 1000} {kind} {i * 2} {i} {i} "
        f"{zoned.to_pydatetime()} [{i % 50}, 1] {hole} {i * 4} {i * 5} {i * 6}"
    )


def test_many_rows_of_every_dtype_keep_their_answers(gateway: StandIn) -> None:
    gateway.behaviour.shuffle = True
    df = large_frame()
    before = df.copy(deep=True)
    with llm.set_options(max_requests_per_file=ROWS // 2):
        out = df.llm.batch(TEMPLATE, model=MODEL)
    pd.testing.assert_frame_equal(out[before.columns], before)
    assert [len(job.requests) for job in gateway.jobs] == [ROWS // 2, ROWS // 2]
    prompts = map(prompt, range(ROWS), df["zoned time"])
    assert out["response"].tolist() == [answer(text) for text in prompts]
    gateway.stop()
    again = df.llm.batch(TEMPLATE, model=MODEL)
    pd.testing.assert_frame_equal(again, out)


# --- an output that is larger than the memory it may take -------------------------------------
OUTPUT_BYTES = 240_000_000
REQUESTS = 12_000
ANSWER_BYTES = OUTPUT_BYTES // REQUESTS + 400
ALLOWED_BYTES = 160_000_000  # 40 to 110 MB were seen, whatever the output's size: allocators differ


NOISE = random.Random(1).randbytes(1_000_000).hex()


def text_of(custom_id: str) -> str:
    """Return a long answer that tells its request, and that does not compress to nothing."""
    start = random.Random(custom_id).randrange(len(NOISE) - ANSWER_BYTES)
    return f"{custom_id} “{NOISE[start : start + ANSWER_BYTES]}”"


class Streaming(BaseHTTPRequestHandler):
    """A gateway whose output is made while it is sent."""

    protocol_version = "HTTP/1.1"
    ids: list[str]
    sent = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _batch(self, status: str) -> dict[str, Any]:
        return {
            "id": "728465",
            "object": "batch",
            "status": status,
            "input_file_id": "gs%3A%2F%2Fb%2Fin.jsonl",
            "output_file_id": "gs%3A%2F%2Fb%2Fout.jsonl",
            "request_counts": {"total": REQUESTS, "completed": str(REQUESTS), "failed": None},
        }

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            type(self).ids = [m.decode() for m in re.findall(rb'"(r-[0-9a-f]{32})"', body)]
            name = urllib.parse.quote("gs://b/in.jsonl", safe="")
            self._json({"id": name, "object": "file", "bytes": len(body)})
        else:
            self._json(self._batch("validating"))

    def do_GET(self) -> None:
        if self.path.startswith("/v1/batches?"):
            self._json({"object": "list", "data": [], "has_more": False})
        elif not self.path.endswith("/output"):
            self._json(self._batch("completed"))
        else:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in self.lines():
                type(self).sent += len(line)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")

    def lines(self) -> Iterator[bytes]:
        for custom_id in reversed(self.ids):
            message = {"role": "assistant", "content": text_of(custom_id)}
            body = {"model": MODEL, "choices": [{"message": message, "finish_reason": "STOP"}]}
            row = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}}
            yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


CHILD = f"""
import json, os, resource, sys
import pandas as pd
import nyu_llm_frames as llm

def status(name):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) * 1024

LINUX = sys.platform == "linux"
seen = {{}}

def hook(progress):
    if progress.phase == "reading" and "base" not in seen:
        if LINUX:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # forget the peak so far
            seen["base"] = status("VmRSS")
        else:
            seen["base"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

llm.set_options(progress=hook, poll_interval_s=0.01, gateway=llm.Gateway(
    api_key="key", base_url=sys.argv[1], bucket="b"))
df = pd.DataFrame({{"x": range({REQUESTS})}})
run = df.llm.submit("{{{{ x }}}}", model="{MODEL}").wait()
peak = status("VmHWM") if LINUX else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ids = df.llm.preview("{{{{ x }}}}", model="{MODEL}", n=len(df))["custom_id"]
texts = run.result()["response"]
right = [text.startswith(i + " “") and text.endswith("”") for i, text in zip(ids, texts)]
print(json.dumps({{"grown": peak - seen["base"], "right": sum(right)}}))
"""


def test_an_output_is_collected_without_holding_it_in_memory(tmp_path: Any) -> None:
    handler: Any = type("Handler", (Streaming,), {"ids": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, f"http://127.0.0.1:{server.server_port}/v1"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert handler.sent > OUTPUT_BYTES
    assert found["right"] == REQUESTS
    assert found["grown"] < ALLOWED_BYTES


@pytest.mark.parametrize("rows", [1, 2, 49, 50, 51])
def test_files_are_full_to_the_limit_and_hold_every_request_once(
    gateway: StandIn, rows: int
) -> None:
    df = pd.DataFrame({"x": range(rows)})
    with llm.set_options(max_requests_per_file=25):
        out = df.llm.batch("{{ x }}", model=MODEL)
    sizes = [len(job.requests) for job in gateway.jobs]
    assert sum(sizes) == rows
    assert sizes == [25] * (rows // 25) + ([rows % 25] if rows % 25 else [])
    assert out["response"].tolist() == [answer(str(i)) for i in range(rows)]
