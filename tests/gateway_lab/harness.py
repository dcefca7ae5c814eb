"""Start the fake Google and the real Portkey gateway on free loopback ports.

    python3 harness.py [--scenario NAME|JSON] [--gateway-port N] [--google-port N] [--keep DIR]

prints one JSON line when both are up, and stops both on SIGTERM or SIGINT (on Linux also when
this process is killed).  From a test:

    from gateway_lab.harness import Harness
    with Harness("row_failures") as h:
        client = h.portkey(provider_file_name="folder/in.jsonl")
        h.scenario("poll_burst", running_polls=8)
        assert len(h.jobs()) == 1

Needs Node >= 20 and the npm package @portkey-ai/gateway (start.sh installs it).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUCKET, MODEL = "fake-bucket", "gemini-3-flash-preview"
PROJECT, REGION = "fake-project", "us-central1"


def find_gateway() -> Path:
    """The gateway's build/start-server.js; PORTKEY_GATEWAY overrides."""
    tail = "node_modules/@portkey-ai/gateway/build/start-server.js"
    tries = [os.environ.get("PORTKEY_GATEWAY"), HERE / tail, HERE.parent / tail]
    for t in tries:
        if t and Path(t).exists():
            return Path(t)
    raise FileNotFoundError(
        "no @portkey-ai/gateway here: run start.sh, or npm install it, "
        "or set PORTKEY_GATEWAY to its build/start-server.js"
    )


def die_with_parent() -> None:
    """In a child, before exec: get SIGTERM when this process ends, however it ends (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def close(client: Any) -> None:
    """Close both connection pools of a Portkey client, which has no `close` of its own for both."""
    client.openai_client.close()
    client.close()


class Harness:
    """Two child processes and the control plane of the fake."""

    provider, api_key = (
        "@vertexai",
        "fake-portkey-key",
    )  # the hosted form (as in NYU's documentation)
    bucket, model, project, region = BUCKET, MODEL, PROJECT, REGION
    google_token = "fake-google-token"

    def __init__(
        self,
        scenario: str | dict[str, Any] = "happy",
        gateway_port: int = 0,
        google_port: int = 0,
        keep: str | None = None,
        node_args: Sequence[str] = (),
        hosted_dialect: bool = False,
    ):
        self._scenario, self._keep = scenario, keep
        self.gateway_port = gateway_port or free_port()
        self._google_port, self._node_args = google_port, list(node_args)
        self._hosted_dialect = hosted_dialect
        self._procs: list[subprocess.Popen[bytes]] = []
        self._clients: list[Any] = []
        self._files = contextlib.ExitStack()

    # --- life ---------------------------------------------------------------------------
    def start(self) -> Harness:
        self.dir = Path(self._keep or tempfile.mkdtemp(prefix="fakegw-"))
        self.dir.mkdir(parents=True, exist_ok=True)
        edge = self.dir / "edge.json"
        spec = self._scenario if isinstance(self._scenario, str) else json.dumps(self._scenario)
        glog = self._files.enter_context((self.dir / "google.log").open("ab"))
        wlog = self._files.enter_context((self.dir / "gateway.log").open("ab"))
        google = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "fake_google.py"),
                "--port",
                str(self._google_port),
                "--data",
                str(self.dir / "data"),
                "--edge-file",
                str(edge),
                "--token",
                self.google_token,
                "--bucket",
                self.bucket,
                "--scenario",
                spec,
            ],
            stdout=subprocess.PIPE,
            stderr=glog,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        self._procs.append(google)
        assert google.stdout is not None
        self._files.enter_context(google.stdout)
        atexit.register(self.stop)
        line = google.stdout.readline()
        if not line:
            raise RuntimeError(f"fake Google did not start, see {self.dir}/google.log")
        self.google_url = json.loads(line)["fake_google"]
        env = {
            **os.environ,
            "FAKE_GOOGLE": self.google_url,
            "EDGE_FILE": str(edge),
            "HOSTED_SLUG": self.provider.lstrip("@"),
            "HOSTED_KEY": self.api_key,
            "HOSTED_TOKEN": self.google_token,
            "HOSTED_PROJECT": self.project,
            "HOSTED_REGION": self.region,
            "HOSTED_DIALECT": "1" if self._hosted_dialect else "",
            "NODE_ENV": "production",
        }
        self.gateway = subprocess.Popen(
            [
                "node",
                *self._node_args,
                "--import",
                str(HERE / "preload.mjs"),
                str(find_gateway()),
                f"--port={self.gateway_port}",
                "--headless",
            ],
            stdout=wlog,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            preexec_fn=die_with_parent,
        )
        self._procs.append(self.gateway)
        self.base_url = f"http://127.0.0.1:{self.gateway_port}/v1"
        # The port answers about a second before the gateway has installed its handlers for
        # unhandled rejections (until then one aborted upload kills it): wait for its own word.
        for _ in range(400):
            if self.gateway.poll() is not None:
                break
            if b"Ready for connections" in (self.dir / "gateway.log").read_bytes()[-4096:]:
                return self
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the gateway did not start, see {self.dir}/gateway.log")

    def stop(self) -> None:
        for p in reversed(self._procs):
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(5)
                except subprocess.TimeoutExpired:
                    p.kill()
        self._procs.clear()
        self._files.close()
        if not self._keep and hasattr(self, "dir"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def close_clients(self) -> None:
        """Close the connections of all clients handed out."""
        for client in self._clients:
            close(client)
        self._clients.clear()

    __enter__ = start

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    # --- control plane ------------------------------------------------------------------
    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        req = urllib.request.Request(f"{self.google_url}/__control/{path}", data, method=method)
        try:
            raw = urllib.request.urlopen(req, timeout=120).read()
        except urllib.error.HTTPError as e:
            raise ValueError(f"control {path}: {e.read().decode()}") from None
        try:
            return json.loads(raw)
        except ValueError:
            return raw

    def scenario(self, name: str = "happy", **overrides: Any) -> Any:
        """Set the scenario for what follows (jobs already created keep theirs)."""
        return self._call("POST", "scenario", {"name": name, **overrides})

    def reset(self, name: str = "happy", **overrides: Any) -> None:
        """Forget all jobs, objects and logs, and set a scenario."""
        self._call("POST", "reset", {"name": name, **overrides})

    def jobs(self) -> list[dict[str, Any]]:
        """Every batchPredictionJob ever created (a paid job each)."""
        return list(self._call("GET", "jobs"))

    def log(self, clear: bool = False) -> list[dict[str, Any]]:
        """Requests that reached Google, oldest first."""
        out = list(self._call("GET", "log"))
        if clear:
            self._call("DELETE", "log")
        return out

    def get_object(self, key: str, bucket: str = BUCKET) -> bytes:
        q = urllib.parse.urlencode({"bucket": bucket, "key": key})
        with urllib.request.urlopen(f"{self.google_url}/__control/object?{q}") as r:
            data: bytes = r.read()
        return data

    def put_object(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        q = urllib.parse.urlencode({"bucket": bucket, "key": key})
        self._call("PUT", f"object?{q}", data)

    def set_predictions(self, job_id: str, data: bytes) -> None:
        """Replace a job's predictions.jsonl by arbitrary bytes."""
        self._call("PUT", f"jobs/{job_id}/predictions", data)

    def force_job(self, job_id: str, **fields: Any) -> Any:
        """Overwrite attributes of fake_google.Job, e.g. state="JOB_STATE_PAUSED"."""
        return self._call("PUT", f"jobs/{job_id}", fields)

    @property
    def settings(self) -> dict[str, str]:
        """What `Gateway(**settings)` takes."""
        return {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "provider": self.provider,
            "bucket": self.bucket,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables, for a client in a process of its own."""
        return {
            "PORTKEY_API_KEY": self.api_key,
            "PORTKEY_BASE_URL": self.base_url,
            "PORTKEY_PROVIDER": self.provider,
            "NYU_LLM_BUCKET": self.bucket,
        }

    # --- what a client needs ------------------------------------------------------------
    def info(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "provider": self.provider,
            "vertex_storage_bucket_name": self.bucket,
            "provider_model": self.model,
            "oss": {
                "provider": "vertex-ai",
                "Authorization": self.google_token,
                "vertex_project_id": self.project,
                "vertex_region": self.region,
            },
            "google_url": self.google_url,
            "control_url": self.google_url + "/__control",
            "gateway_pid": self.gateway.pid,
            "dir": str(self.dir),
        }

    def portkey(self, **kw: Any) -> Any:
        """A portkey_ai.Portkey client in the hosted form of NYU's documentation."""
        from portkey_ai import Portkey

        args = {
            "api_key": self.api_key,
            "provider": self.provider,
            "base_url": self.base_url,
            "vertex_storage_bucket_name": self.bucket,
            "provider_model": self.model,
        }
        client = Portkey(**{**args, **kw})
        self._clients.append(client)
        return client

    def portkey_oss(self, **kw: Any) -> Any:
        """The same in the open-source gateway's own form (no model catalog)."""
        from portkey_ai import Portkey

        args = {
            "api_key": "unused",
            "provider": "vertex-ai",
            "base_url": self.base_url,
            "Authorization": self.google_token,
            "vertex_project_id": self.project,
            "vertex_region": self.region,
            "vertex_storage_bucket_name": self.bucket,
            "provider_model": self.model,
        }
        client = Portkey(**{**args, **kw})
        self._clients.append(client)
        return client


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--scenario", default=os.environ.get("FAKE_SCENARIO", "happy"))
    ap.add_argument("--gateway-port", type=int, default=0)
    ap.add_argument("--google-port", type=int, default=0)
    ap.add_argument(
        "--hosted-dialect",
        action="store_true",
        help="rewrite batch answers to the shape printed in NYU's documentation",
    )
    ap.add_argument("--keep", help="directory for data and logs, kept afterwards")
    args = ap.parse_args()
    h = Harness(
        args.scenario,
        args.gateway_port,
        args.google_port,
        args.keep,
        hosted_dialect=args.hosted_dialect,
    ).start()
    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    print(json.dumps(h.info()), flush=True)
    while not stop.wait(0.2):
        if any(p.poll() is not None for p in h._procs):
            print("a child process ended early", file=sys.stderr)
            break
    h.stop()


if __name__ == "__main__":
    main()
