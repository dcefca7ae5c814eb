"""What the tests of the embedded gateway share: a server to talk to, and an upstream for it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from nyu_llm_frames.local import paths
from nyu_llm_frames.local.process import ensure_server

PATIENCE_S = 60.0


class Served:
    """A running server, spoken to over plain HTTP."""

    def __init__(self, **where: Any) -> None:
        self.where = where
        self.info: paths.Running = ensure_server(**where)
        self._connect()

    def _connect(self) -> None:
        self.http = httpx.Client(
            base_url=self.info.base_url,
            headers={"x-portkey-api-key": self.info.api_key},
            timeout=PATIENCE_S,
            trust_env=False,
        )

    def again(self) -> None:
        """Call `ensure_server` as the next cell of the user would."""
        self.http.close()
        self.info = ensure_server(**self.where)
        self._connect()

    def kill(self) -> None:
        """End the server as the power button would."""
        os.kill(self.info.pid, signal.SIGKILL)
        self.wait_end()

    def end(self) -> None:
        """End the server in order."""
        self.http.close()
        os.kill(self.info.pid, signal.SIGTERM)
        self.wait_end()

    def wait_end(self) -> None:
        """Wait until the operating system has taken the server's lock."""
        with paths.server_lock(self.folder).acquire(timeout=PATIENCE_S):
            pass

    @property
    def folder(self) -> Path:
        found: list[Path] = [p.parent for p in Path(self.where["data"]).glob("*/server.lock")]
        assert len(found) == 1
        return found[0]

    def upload(self, content: bytes, name: str = "folder/input.jsonl") -> str:
        answer = self.http.post(
            "/files",
            data={"purpose": "batch"},
            files={"file": ("input.jsonl", content)},
            headers={
                "x-portkey-provider-file-name": name,
                "x-portkey-vertex-storage-bucket-name": "bucket",
            },
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def submit(self, content: bytes) -> str:
        order = {"input_file_id": self.upload(content), "endpoint": "/v1/chat/completions"}
        answer = self.http.post("/batches", json=order)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def poll(self, job: str) -> dict[str, Any]:
        data = self.http.get(f"/batches/{job}").json()
        assert isinstance(data, dict)
        return data

    def wait(self, job: str, until: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        """Poll until the job is over, or `until` holds."""
        deadline = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            batch = self.poll(job)
            over = batch["status"] in ("completed", "failed", "cancelled")
            if over or (until and until(batch)):
                return batch
            pause.wait(0.02)
        raise AssertionError(f"still {batch}")

    def output(self, job: str) -> list[dict[str, Any]]:
        answer = self.http.get(f"/batches/{job}/output")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.content.split(b"\n") if line]


def request(custom_id: str, text: str = "hello", **body: Any) -> dict[str, Any]:
    """Write one input line as NYU's page does."""
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": text}], **body},
    }


def jsonl(*rows: Any) -> bytes:
    """Write an input file."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Upstream:
    """A tiny OpenAI-compatible server whose faults and pace a test decides.

    `faults` is a list of (status, headers) to answer first; `gate` set to a number lets so many
    requests through and holds the others until `open()`.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.gate: int | None = None
        self.most_at_once = self._now = 0
        self._opened, self._lock = threading.Event(), threading.Lock()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                upstream.handle(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # a killed client is what some tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self.open()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.seen.append(body)
            self.keys.append(handler.headers.get("authorization"))
            number = len(self.seen)
            fault = self.faults.pop(0) if self.faults else None
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        if self.gate is not None and number > self.gate:
            self._opened.wait(PATIENCE_S)
        with self._lock:
            self._now -= 1
        status, headers = fault or (200, {})
        answer: dict[str, Any] = {"error": {"message": f"fault {status}"}}
        if status == 200:
            text = body["messages"][-1]["content"]
            answer = {
                "model": "the-upstream-model",
                "choices": [{"message": {"content": f"up: {text}"}, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 5},
            }
        raw = json.dumps(answer).encode()
        handler.send_response(status)
        for name, value in {**headers, "content-length": str(len(raw))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)
