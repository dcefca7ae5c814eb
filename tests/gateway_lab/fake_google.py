"""A fake of the Google endpoints that Portkey's `vertex-ai` provider talks to (stdlib only).

  storage.googleapis.com           XML API: PUT/GET/HEAD/DELETE /{bucket}/{object}
  {region}-aiplatform.googleapis.com   v1 batchPredictionJobs create/get/list/:cancel,
                                   models :generateContent, :streamGenerateContent, :predict
  oauth2.googleapis.com            POST /token

The host that is meant comes in the `x-fake-host` header (see preload.mjs).  Requests without
that header are the control plane, /__control/... (see README.md).  Objects live in files under
--data, so large uploads and downloads do not sit in this process's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import html
import itertools
import json
import re
import shutil
import socket
import struct
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import oracle
import scenarios

CHUNK = 64 * 1024
REASON = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def now_rfc3339() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def google_error(status: int, message: str) -> dict[str, Any]:
    return {
        "error": {
            "code": status,
            "message": message,
            "status": REASON.get(status, "UNKNOWN"),
            "details": [],
        }
    }


def xml_error(code: str, message: str, details: str = "") -> bytes:
    tail = f"<Details>{html.escape(details)}</Details>" if details else ""
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
        f"<Message>{html.escape(message)}</Message>{tail}</Error>"
    ).encode()


HTML_502 = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n"
    b"</body>\r\n</html>\r\n"
)


class Drop(Exception):
    """Close the client's connection without an answer."""


class Importer(Exception):
    """The job's input cannot be imported (job ends FAILED, code 3)."""


# ----------------------------------------------------------------------------------------
class Job:
    """One batchPredictionJob and its life cycle."""

    def __init__(self, world: World, project: str, location: str, body: dict[str, Any]):
        self.world, self.lock = world, threading.Lock()
        self.scn = scenarios.resolve(world.scenario)
        self.id = str(7284652661620604928 + next(world.job_seq) * 1024)
        self.name = f"projects/{project}/locations/{location}/batchPredictionJobs/{self.id}"
        self.body = body
        uris = body.get("inputConfig", {}).get("gcsSource", {}).get("uris") or []
        self.uris = [uris] if isinstance(uris, str) else list(uris)
        self.prefix = body["outputConfig"]["gcsDestination"]["outputUriPrefix"]
        self.created = now_rfc3339()
        self.updated, self.started, self.ended = self.created, None, None
        self.state, self.error = "JOB_STATE_PENDING", None
        self.polls, self.t0 = 0, time.monotonic()
        self.cancel_polls: int | None = None
        self.stats: dict[str, str] | None = None
        self.output_dir: str | None = None
        self.rows_in = self.rows_written = self.rows_failed = 0
        self.done = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    # --- output ---------------------------------------------------------------------
    @property
    def embedding(self) -> bool:
        return "embedding" in self.body.get("model", "")

    def _work(self) -> None:
        try:
            self._produce()
        except Importer as e:
            self.scn["terminal"], self.scn["write_output"] = "FAILED", False
            self.scn["error"] = {
                "code": 3,
                "message": "Failed to import data. Please check "
                "'Prepare input' section of the batch predictions "
                f"documentation. {e}",
            }
        except Exception as e:  # a bug in the harness: make it visible
            traceback.print_exc()
            self.scn["terminal"], self.scn["error"] = "FAILED", {"code": 13, "message": repr(e)}
        finally:
            self.done.set()

    def _produce(self) -> None:
        scn, store = self.scn, self.world
        path = store.object_path(*split_gs(self.uris[0])) if self.uris else None
        if path is None or not path.exists():
            bucket = split_gs(self.uris[0])[0] if self.uris else "?"
            scn["terminal"], scn["write_output"] = "FAILED", False
            scn["error"] = {
                "code": 9,
                "message": f"Failed to get GCS bucket location for "
                f"{bucket}. Please check that the bucket exists and permissions "
                "are set correctly.",
            }
            return
        offsets = check_import(path, scn)
        self.rows_in = len(offsets)
        if not offsets:
            raise Importer("The input file is empty.")
        if len(offsets) > scn["max_rows"]:
            raise Importer(f"The number of requests {len(offsets)} exceeds {scn['max_rows']}.")
        write = scn["write_output"]
        if write is None:
            write = scn["terminal"] in ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
        if not write:
            return
        seed = scn["seed"]
        if scn["shuffle"]:
            offsets.sort(key=lambda o: oracle.fraction(seed, "order", str(o)))
        if scn["terminal"] != "SUCCEEDED":
            offsets = offsets[: round(len(offsets) * scn["partial_pct"] / 100)]
        bucket, prefix = split_gs(self.prefix)
        directory = f"{prefix.rstrip('/') + '/' if prefix else ''}prediction-model-{self.created}"
        names = ["000000000000.jsonl" if self.embedding else "predictions.jsonl"]
        names += [f"predictions_{i:05d}.jsonl" for i in range(1, scn["shards"])]
        if scn["shards_counted"]:
            names = [f"{names[0]}-{i:05d}-of-{len(names):05d}" for i in range(len(names))]
        eol = b"\r\n" if scn["crlf"] else b"\n"
        first = [True] * len(names)
        with contextlib.ExitStack() as stack:
            src = stack.enter_context(path.open("rb"))
            files = []
            for n in names:
                p = store.object_path(bucket, f"{directory}/{n}")
                p.parent.mkdir(parents=True, exist_ok=True)
                files.append(stack.enter_context(p.open("wb")))
            for i, off in enumerate(offsets):
                src.seek(off)
                line = json.loads(src.readline())
                for row in self.rows(line):
                    k = i % len(files)
                    data = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
                    if not first[k]:
                        files[k].write(eol)
                        if scn["blank_lines"] and i % 5 == 0:
                            files[k].write(eol)
                    files[k].write(data)
                    first[k] = False
            if scn["final_newline"]:
                for f in files:
                    f.write(eol)
        self.output_dir = f"gs://{bucket}/{directory}"
        stats = {
            "successfulCount": str(self.rows_written),
            "failedCount": str(self.rows_failed),
            "incompleteCount": str(self.rows_in - self.rows_written - self.rows_failed),
        }
        if stats["failedCount"] == "0":
            del stats["failedCount"]
        if stats["incompleteCount"] == "0":
            del stats["incompleteCount"]
        if scn["incomplete_count"] is not None:
            stats["incompleteCount"] = str(scn["incomplete_count"])
        self.stats = {k: v for k, v in stats.items() if k not in scn["stats_omit"]}

    def rows(self, line: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Output rows (0, 1 or 2) of one input line."""
        scn = self.scn
        rid = line.get("requestId")
        req = line.get("request") or {}
        text = line.get("content", "") if self.embedding else oracle.last_user_text(req)

        def hit(kind: str) -> bool:
            pct = scn[f"{kind}_pct"]
            return pct and oracle.fraction(scn["seed"], kind, str(rid), text) < pct / 100

        if hit("missing"):
            return
        base: dict[str, Any] = {"status": "", "processed_time": now_rfc3339()}
        if rid is not None and not hit("drop_request_id"):
            base["requestId"] = rid
            if scn["coerce_numeric_ids"] and re.fullmatch(r"-?\d+(\.\d+)?", str(rid)):
                base["requestId"] = float(rid) if "." in str(rid) else int(rid)
        if self.embedding:
            self.rows_written += 1
            n = oracle.tokens(text)
            yield {
                "instance": {
                    "content": text,
                    **{k: v for k, v in base.items() if k == "requestId"},
                },
                "predictions": [
                    {
                        "embeddings": {
                            "values": oracle.embedding(text),
                            "statistics": {"token_count": n, "truncated": False},
                        }
                    }
                ],
                "status": "",
            }
            return
        good = {**base, "request": req, "response": self.response(req, text, hit)}
        bad = {**base, "request": req, "status": row_error(scn["fail_kind"]), "response": {}}
        if hit("fail"):
            self.rows_failed += 1
            yield bad
            return
        self.rows_written += 1
        if hit("conflict"):
            yield bad
        yield good
        if hit("duplicate"):
            yield good

    def response(self, req: dict[str, Any], text: str, hit: Any) -> dict[str, Any]:
        return gemini_response(self.body.get("model", ""), req, text, hit)

    # --- state ----------------------------------------------------------------------
    def poll(self) -> dict[str, Any]:
        """The resource as Google shows it now; each poll moves the life cycle on."""
        with self.lock:
            self._advance()
            self.polls += 1
            return self.resource()

    def _advance(self) -> None:
        scn, el = self.scn, time.monotonic() - self.t0
        if self.ended or self.state == "JOB_STATE_PAUSED":
            return
        if self.cancel_polls is not None:
            if self.cancel_polls > 0:
                self.cancel_polls -= 1
                return
            self._finish("CANCELLED", {"code": 1, "message": "CANCELED"})
            return
        q, p, r = scn["queued_polls"], scn["pending_polls"], scn["running_polls"]
        if self.polls < q:
            self.state = "JOB_STATE_QUEUED"
        elif self.polls < q + p or el < scn["min_pending_s"]:
            self.state = "JOB_STATE_PENDING"
        elif (
            self.polls < q + p + r
            or el < scn["min_pending_s"] + scn["min_running_s"]
            or not self.done.is_set()
        ):
            self.state = "JOB_STATE_RUNNING"
            self.started = self.started or now_rfc3339()
        elif scn["terminal"] == "PAUSED":
            self.state = "JOB_STATE_PAUSED"
        else:
            self.started = self.started or now_rfc3339()
            self._finish(scn["terminal"], scn["error"])
        self.updated = now_rfc3339()

    def _finish(self, terminal: str, error: dict[str, Any] | None) -> None:
        self.state, self.error = f"JOB_STATE_{terminal}", error
        self.ended = self.updated = now_rfc3339()

    def cancel(self) -> None:
        with self.lock:
            if self.ended:
                raise ValueError(self.state)
            self.state, self.cancel_polls = "JOB_STATE_CANCELLING", self.scn["cancel_lag_polls"]
            self.scn["write_output"] = False

    def resource(self) -> dict[str, Any]:
        out = {
            "name": self.name,
            "displayName": self.body.get("displayName", ""),
            "model": self.body["model"],
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": self.uris}},
            "outputConfig": self.body["outputConfig"],
            "state": self.state,
            "createTime": self.created,
            "updateTime": self.updated,
            "modelVersionId": "1",
        }
        if self.body.get("instanceConfig"):
            out["instanceConfig"] = self.body["instanceConfig"]
        if self.body.get("labels"):
            out["labels"] = self.body["labels"]
        if self.started:
            out["startTime"] = self.started
        if self.ended:
            out["endTime"] = self.ended
            if self.error:
                out["error"] = self.error
            if self.output_dir and self.scn["write_output"] is not False:
                out["outputInfo"] = {"gcsOutputDirectory": self.output_dir}
                out["completionStats"] = self.stats
        return out


def foreign_job(project: str, location: str, i: int, *, to_tables: bool) -> dict[str, Any]:
    """Somebody else's job in the same project; every second one has failed."""
    t = f"2026-01-0{1 + i % 9}T00:00:00.000000Z"
    out = {
        "name": f"projects/{project}/locations/{location}/batchPredictionJobs/{1000 + i}",
        "displayName": f"other-{i}",
        "model": "publishers/google/models/gemini-2.5-pro",
        "inputConfig": {
            "instancesFormat": "jsonl",
            "gcsSource": {"uris": [f"gs://other-bucket/in-{i}.jsonl"]},
        },
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://other-bucket/out/"},
        },
        "state": "JOB_STATE_SUCCEEDED",
        "createTime": t,
        "startTime": t,
        "endTime": t,
        "updateTime": t,
        "completionStats": {"successfulCount": "5"},
        "modelVersionId": "1",
    }
    if to_tables:
        out["inputConfig"] = {
            "instancesFormat": "bigquery",
            "bigquerySource": {"inputUri": f"bq://{project}.theirs.in_{i}"},
        }
        out["outputConfig"] = {
            "predictionsFormat": "bigquery",
            "bigqueryDestination": {"outputUri": f"bq://{project}.theirs.out_{i}"},
        }
    if i % 2:
        out |= {
            "state": "JOB_STATE_FAILED",
            "error": {"code": 13, "message": "System error. Please try this operation again."},
        }
    return out


def row_error(kind: str) -> str:
    def err(code: int, message: str) -> str:
        return json.dumps({"error": {"code": code, "message": message, "status": REASON[code]}})

    return {
        "bad_request": "Bad Request: " + err(400, "Please use a valid role: user, model."),
        "resource_exhausted": "Too Many Requests: "
        + err(429, "Resource exhausted. Please try again later."),
        "json": err(500, "Internal error encountered."),
        "plain": "Internal error encountered.",
    }[kind]


def gemini_response(model: str, req: dict[str, Any], text: str, hit: Any) -> dict[str, Any]:
    """A GenerateContentResponse; `hit(kind)` says which oddities this row has."""
    if hit("empty_response"):
        return {}
    cfg = req.get("generationConfig") or {}
    answer = oracle.expected_answer(text)
    if cfg.get("responseSchema"):
        answer = json.dumps(oracle.expected_json(text, cfg["responseSchema"]), ensure_ascii=False)
    elif cfg.get("responseMimeType") == "application/json":
        answer = json.dumps({"answer": answer}, ensure_ascii=False)
    h = hashlib.sha1(repr((text, time.time())).encode("utf-8", "surrogatepass")).hexdigest()
    n_in, n_out = oracle.tokens(text), oracle.tokens(answer)
    usage: dict[str, Any] = {
        "promptTokenCount": n_in,
        "candidatesTokenCount": n_out,
        "totalTokenCount": n_in + n_out,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": n_in}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": n_out}],
    }
    out: dict[str, Any] = {
        "createTime": now_rfc3339(),
        "modelVersion": model.split("/")[-1],
        "responseId": h[:22],
    }
    if hit("blocked"):
        out["promptFeedback"] = {
            "blockReason": "PROHIBITED_CONTENT",
            "blockReasonMessage": "The prompt could not be submitted.",
        }
        out["usageMetadata"] = {"promptTokenCount": n_in, "totalTokenCount": n_in}
        return out
    parts, finish = [{"text": answer}], "STOP"
    cand: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "avgLogprobs": -0.25}
    if hit("thought"):
        parts.insert(0, {"text": f"thinking about {text[:40]}", "thought": True})
        usage["thoughtsTokenCount"] = 17
    if hit("max_tokens"):
        finish, parts[-1]["text"] = "MAX_TOKENS", answer[: max(1, len(answer) // 2)]
    elif hit("max_tokens_empty"):
        finish, cand["content"] = "MAX_TOKENS", {"role": "model"}
        usage["thoughtsTokenCount"] = usage.pop("candidatesTokenCount")
    elif hit("safety"):
        finish = "SAFETY"
        del cand["content"]
        cand["safetyRatings"] = [
            {"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "HIGH", "blocked": True}
        ]
    out["candidates"] = [{**cand, "finishReason": finish}]
    if not hit("no_usage"):
        out["usageMetadata"] = usage
    return out


def check_import(path: Path, scn: dict[str, Any]) -> list[int]:
    """Byte offsets of the input lines; raises Importer as Vertex's importer would."""
    offsets, pos = [], 0
    with path.open("rb") as f:
        for raw in f:
            if raw.strip():
                try:
                    obj = json.loads(raw)
                except ValueError as e:
                    raise Importer(
                        f"Error while reading data, error message: Parser terminated "
                        f"before end of string; line starting at byte {pos}: {e}"
                    ) from e
                if not isinstance(obj, dict) or not ("request" in obj or "content" in obj):
                    raise Importer("Missing field: request")
                if scn["bq_import"]:
                    bq_rules(obj)
                offsets.append(pos)
            pos += len(raw)
    return offsets


def bq_rules(node: Any, path: str = "", depth: int = 1) -> None:
    """Import rules reported from production use of Vertex batch (see README)."""
    if isinstance(node, dict):
        if depth > 15:
            raise Importer(
                "Schema nested too deeply, at least 16 compared to the maximum allowed level of 15"
            )
        if not node and path:
            raise Importer(f"Cannot store struct '{path}' with no fields")
        for k, v in node.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", k):
                raise Importer(f'Invalid field name "{k}"')
            bq_rules(v, f"{path}.{k}" if path else k, depth + 1)
    elif isinstance(node, list):
        for v in node:
            bq_rules(v, path, depth)


def split_gs(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    return bucket, key


# ----------------------------------------------------------------------------------------
class World:
    """All state of the fake."""

    def __init__(self, data: Path, edge_file: Path | None, token: str, buckets: set[str]):
        self.data, self.edge_file, self.token = data, edge_file, token
        self.buckets = buckets
        self.lock = threading.Lock()
        self.reset({})

    def reset(self, spec: dict[str, Any] | str) -> None:
        self.job_seq = itertools.count()
        self.jobs: dict[str, Job] = {}
        self.log: list[dict[str, Any]] = []
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, exist_ok=True)
        self.set_scenario(spec)

    def set_scenario(self, spec: dict[str, Any] | str) -> None:
        full = scenarios.resolve(spec)
        self.spec, self.faults = full, [dict(f) for f in full["faults"]]
        self.scenario = dict(full.items())
        self.output_404_left = full["output_404_times"]
        self.truncate_left = full["truncate_times"]
        if self.edge_file:
            tmp = self.edge_file.with_suffix(".tmp")
            tmp.write_text(json.dumps({"epoch": time.time_ns(), "faults": full["edge"]}))
            tmp.replace(self.edge_file)

    def object_path(self, bucket: str, key: str) -> Path:
        """Object files are named by hash: keys may hold any character."""
        d = self.data / urllib.parse.quote(bucket, safe="")
        return d / urllib.parse.quote(key, safe="")[-180:] / hashlib.sha1(key.encode()).hexdigest()

    def take_fault(self, op: str) -> dict[str, Any] | None:
        with self.lock:
            for f in self.faults:
                if f["op"] != op:
                    continue
                if f.get("after", 0) > 0:
                    f["after"] -= 1
                    return None
                if f.get("times", 1) == 0:
                    continue
                if f.get("times", 1) > 0:
                    f["times"] = f.get("times", 1) - 1
                return f
        return None


# ----------------------------------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "UploadServer", ""
    world: World

    def log_message(self, *a: Any) -> None:
        pass

    # --- plumbing -------------------------------------------------------------------
    def body_iter(self) -> Iterator[bytes]:
        """The request body, chunked or not, in pieces."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while True:
                head = self.rfile.readline()
                if not head:
                    raise ConnectionError("client closed inside a chunked body")
                size = int(head.split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return
                left = size
                while left:
                    piece = self.rfile.read(min(left, CHUNK))
                    if not piece:
                        raise ConnectionError("client closed inside a chunk")
                    left -= len(piece)
                    yield piece
                self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                piece = self.rfile.read(min(left, CHUNK))
                if not piece:
                    raise ConnectionError("client closed inside the body")
                left -= len(piece)
                yield piece

    def answer(
        self,
        status: int,
        body: bytes | dict | list = b"",
        ctype: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        if isinstance(body, (dict, list)):
            body, ctype = json.dumps(body, indent=2).encode(), "application/json; charset=UTF-8"
        self.status_sent = status
        self.send_response(status)
        if ctype:
            self.send_header("Content-Type", ctype)
        self.send_header("Content-Length", str(len(body)))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset_connection(self) -> None:
        """Close with RST, so the peer sees a broken connection and not a clean end."""
        try:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        except OSError:
            pass
        self.close_connection = True

    def fault(self, op: str) -> bool:
        """Apply a fault for this operation; True: the request is answered already.

        With side_effect the caller carries on and `self.swallow` hides its answer."""
        f = self.world.take_fault(op)
        if not f:
            return False
        self.pending_fault = f
        if f.get("side_effect"):
            return False
        self.fail_with(f)
        return True

    def fail_with(self, f: dict[str, Any]) -> None:
        time.sleep(f.get("delay_s", 0))
        mode = f.get("mode", "respond")
        if mode == "reset":
            raise Drop
        if mode == "hang":
            time.sleep(f.get("hang_s", 30))
            raise Drop
        status, kind = f.get("status", 503), f.get("body", "json")
        extra = {"Retry-After": str(f["retry_after"])} if "retry_after" in f else {}
        if kind == "html":
            self.answer(status, HTML_502.replace(b"502", str(status).encode()), "text/html", extra)
        elif kind == "xml":
            self.answer(
                status,
                xml_error("InternalError", "We encountered an internal error."),
                "application/xml; charset=UTF-8",
                extra,
            )
        elif kind == "empty":
            self.answer(status, b"", None, extra)
        else:
            body = google_error(status, f.get("message", f"injected fault {status}"))
            self.answer(status, json.dumps(body).encode(), "application/json; charset=UTF-8", extra)

    def finish_job_op(self, status: int, body: dict[str, Any]) -> None:
        f = getattr(self, "pending_fault", None)
        if f and f.get("side_effect"):
            self.pending_fault = None
            self.fail_with(f)
        else:
            self.answer(status, body)

    def handle_any(self) -> None:
        self.status_sent, self.pending_fault, self.seen = 0, None, 0
        t0 = time.time()
        host = self.headers.get("x-fake-host", "")
        url = urllib.parse.urlsplit(self.path)
        try:
            if not host:
                self.control(url)
                return
            if host == "oauth2.googleapis.com":
                b"".join(self.body_iter())
                self.answer(
                    200,
                    {"access_token": self.world.token, "expires_in": 3599, "token_type": "Bearer"},
                )
            elif self.headers.get("Authorization") != f"Bearer {self.world.token}":
                for _ in self.body_iter():
                    pass
                if host == "storage.googleapis.com":
                    self.answer(
                        401,
                        xml_error("AuthenticationRequired", "Authentication required."),
                        "application/xml; charset=UTF-8",
                    )
                else:
                    self.answer(
                        401,
                        google_error(
                            401,
                            "Request had invalid authentication "
                            "credentials. Expected OAuth 2 access token, login cookie or "
                            "other valid authentication credential.",
                        ),
                    )
            elif host == "storage.googleapis.com":
                self.storage(url)
            else:
                self.vertex(url)
        except Drop:
            self.status_sent = -1
            self.reset_connection()
        except (ConnectionError, BrokenPipeError):
            self.status_sent = -2
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self.status_sent = -3
            self.reset_connection()
        finally:
            if host:
                self.world.log.append(
                    {
                        "t": round(t0, 3),
                        "ms": round((time.time() - t0) * 1000),
                        "host": host,
                        "method": self.command,
                        "path": self.path,
                        "status": self.status_sent,
                        "bytes_in": self.seen,
                        "headers": {k.lower(): v for k, v in self.headers.items()},
                    }
                )

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = handle_any

    # --- storage.googleapis.com -------------------------------------------------------
    def storage(self, url: urllib.parse.SplitResult) -> None:
        w = self.world
        bucket, _, key = urllib.parse.unquote(url.path.lstrip("/")).partition("/")
        path = w.object_path(bucket, key)
        if bucket not in w.buckets:
            for _ in self.body_iter():
                pass
            self.answer(
                404,
                xml_error("NoSuchBucket", "The specified bucket does not exist."),
                "application/xml; charset=UTF-8",
            )
            return None
        if self.command == "PUT":
            if self.fault("put_object"):
                self.close_connection = True
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp = path.with_suffix(f".{threading.get_ident()}")
            md5 = hashlib.md5()
            with tmp.open("wb") as f:
                for piece in self.body_iter():
                    self.seen += len(piece)
                    md5.update(piece)
                    f.write(piece)
            tmp.replace(path)
            (path.parent / "meta").write_text(
                json.dumps({"bucket": bucket, "key": key, "type": self.headers.get("Content-Type")})
            )
            if self.pending_fault:
                return self.fail_with(self.pending_fault)
            self.answer(
                200,
                b"",
                "text/html; charset=UTF-8",
                {"ETag": f'"{md5.hexdigest()}"', "x-goog-generation": str(time.time_ns())},
            )
            return None
        if self.fault("get_object"):
            return None
        is_output = "/prediction-model-" in f"/{key}"
        gone = False
        if is_output and w.output_404_left and self.command == "GET":
            gone = True
            w.output_404_left -= 1 if w.output_404_left > 0 else 0
        if gone or not path.exists():
            self.answer(
                404,
                xml_error(
                    "NoSuchKey",
                    "The specified key does not exist.",
                    f"No such object: {bucket}/{key}",
                ),
                "application/xml; charset=UTF-8",
            )
            return None
        size, scn = path.stat().st_size, w.scenario
        headers = {
            "Last-Modified": self.date_time_string(int(path.stat().st_mtime)),
            "Accept-Ranges": "bytes",
            "x-goog-generation": "1",
        }
        if self.command == "HEAD":
            self.status_sent = 200
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            for k, v in headers.items():
                self.send_header(k, v)
            self.end_headers()
            return None
        stop = size
        if is_output and scn["truncate_at"] is not None and w.truncate_left:
            stop = int(size * scn["truncate_at"])
            w.truncate_left -= 1 if w.truncate_left > 0 else 0
        clean = scn["truncate_mode"] == "short"
        stall = int(size * scn["stall_at"]) if is_output and scn["stall_at"] is not None else None
        self.status_sent = 200
        self.send_response(200)
        ctype = scn["output_type"] if is_output else "application/octet-stream"
        if ctype:
            self.send_header("Content-Type", ctype)
        self.send_header("Content-Length", str(stop if clean else size))
        for k, v in headers.items():
            self.send_header(k, v)
        self.end_headers()
        sent = 0
        with path.open("rb") as f:
            while sent < stop:
                piece = f.read(min(CHUNK, stop - sent))
                if stall is not None and sent <= stall < sent + len(piece):
                    self.wfile.flush()
                    time.sleep(scn["stall_s"])
                self.wfile.write(piece)
                sent += len(piece)
        if stop < size and not clean:
            self.wfile.flush()
            time.sleep(0.2)  # let the bytes arrive before the RST
            raise Drop
        return None

    # --- aiplatform.googleapis.com ----------------------------------------------------
    def vertex(self, url: urllib.parse.SplitResult) -> None:
        w, raw = self.world, b"".join(self.body_iter())
        self.seen = len(raw)
        m = re.fullmatch(r"/v1(?:beta1)?/projects/([^/]+)/locations/([^/]+)/(.+)", url.path)
        if not m:
            self.answer(404, google_error(404, f"The requested URL {url.path} was not found."))
            return
        project, location, rest = m.groups()
        if m2 := re.fullmatch(r"publishers/google/models/([^/:]+):(\w+)", rest):
            self.online(m2.group(1), m2.group(2), json.loads(raw))
        elif rest == "batchPredictionJobs" and self.command == "POST":
            if self.fault("create_job"):
                return
            body = json.loads(raw)
            quota = w.scenario["max_running_jobs"]
            if quota is not None and sum(not j.ended for j in w.jobs.values()) >= quota:
                self.answer(429, google_error(429, "Quota exceeded for concurrent batch jobs."))
                return
            model = body.get("model", "")
            if not re.fullmatch(r"publishers/[a-z]+/models/[\w.@-]+", model) or "missing" in model:
                self.answer(
                    404,
                    google_error(404, f"The PublisherModel {model.split('/')[-1]} does not exist."),
                )
                return
            job = Job(w, project, location, body)
            w.jobs[job.id] = job
            self.finish_job_op(200, job.resource())
        elif rest == "batchPredictionJobs":
            if self.fault("list_jobs"):
                return
            q = urllib.parse.parse_qs(url.query)
            size = int((q.get("pageSize") or ["50"])[0] or 50)
            start = int((q.get("pageToken") or ["0"])[0] or 0)
            every = [j.resource() for j in list(w.jobs.values())[::-1]]
            every += [
                foreign_job(project, location, i, to_tables=w.scenario["foreign_tables"])
                for i in range(w.scenario["foreign_jobs"])
            ]
            page = every[start : start + size]
            out: dict[str, Any] = {"batchPredictionJobs": page} if page else {}
            if start + size < len(every):
                out["nextPageToken"] = str(start + size)
            self.answer(200, out)
        elif m3 := re.fullmatch(r"batchPredictionJobs/([^/:]+)(:cancel)?", rest):
            job = w.jobs.get(m3.group(1))
            op = "cancel_job" if m3.group(2) else "get_job"
            if self.fault(op):
                return
            if job is None:
                self.answer(404, google_error(404, "The BatchPredictionJob does not exist."))
            elif op == "cancel_job":
                try:
                    job.cancel()
                    self.finish_job_op(200, {})
                except ValueError as e:
                    self.answer(
                        400,
                        {
                            "error": {
                                "code": 400,
                                "status": "FAILED_PRECONDITION",
                                "message": f"The BatchPredictionJob is in state {e} and "
                                "cannot be cancelled.",
                            }
                        },
                    )
            else:
                self.finish_job_op(200, job.poll())
        else:
            self.answer(404, google_error(404, f"Not found: {rest}"))

    def online(self, model: str, verb: str, body: dict[str, Any]) -> None:
        if self.fault("generate"):
            return
        if verb == "predict":
            self.answer(
                200,
                {
                    "predictions": [
                        {
                            "embeddings": {
                                "values": oracle.embedding(i.get("content", "")),
                                "statistics": {"token_count": 1, "truncated": False},
                            }
                        }
                        for i in body.get("instances", [])
                    ]
                },
            )
            return
        text = oracle.last_user_text(body)
        resp = gemini_response(model, body, text, lambda kind: False)
        if verb == "streamGenerateContent":
            self.answer(200, f"data: {json.dumps(resp)}\r\n\r\n".encode(), "text/event-stream")
        else:
            self.answer(200, resp)

    # --- control plane ----------------------------------------------------------------
    def control(self, url: urllib.parse.SplitResult) -> None:
        w, raw = self.world, b"".join(self.body_iter())
        parts = url.path.strip("/").split("/")
        q = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        if parts[:1] != ["__control"]:
            self.answer(404, {"error": "set x-fake-host, or use /__control"})
            return
        what, rest = ([*parts, ""])[1], parts[2:]
        try:
            if what == "scenario" and self.command == "POST":
                w.set_scenario(json.loads(raw))
                self.answer(200, w.spec)
            elif what == "scenario":
                self.answer(200, w.spec)
            elif what == "scenarios":
                self.answer(200, scenarios.PRESETS)
            elif what == "reset":
                w.reset(json.loads(raw or b"{}"))
                self.answer(200, {"ok": True})
            elif what == "log" and self.command == "DELETE":
                w.log.clear()
                self.answer(200, {"ok": True})
            elif what == "log":
                self.answer(200, list(w.log))
            elif what == "jobs" and len(rest) == 2 and rest[1] == "predictions":
                job = w.jobs[rest[0]]
                if self.command == "PUT":  # replace the output by arbitrary bytes
                    job.done.wait(60)
                    bucket, prefix = split_gs(job.prefix)
                    sep = "/" if prefix and not prefix.endswith("/") else ""
                    d = f"{prefix}{sep}prediction-model-{job.created}"
                    p = w.object_path(bucket, f"{d}/predictions.jsonl")
                    p.parent.mkdir(parents=True, exist_ok=True)
                    p.write_bytes(raw)
                    job.output_dir, job.stats = f"gs://{bucket}/{d}", job.stats or {}
                    self.answer(200, {"dir": job.output_dir})
            elif what == "jobs" and rest and self.command == "PUT":  # force state / fields
                job = w.jobs[rest[0]]
                for k, v in json.loads(raw).items():
                    setattr(job, k, v)
                self.answer(200, job.resource())
            elif what == "jobs":
                self.answer(
                    200,
                    [
                        {
                            **j.resource(),
                            "_polls": j.polls,
                            "_rows_in": j.rows_in,
                            "_done": j.done.is_set(),
                            "_create_body": j.body,
                        }
                        for j in w.jobs.values()
                    ],
                )
            elif what == "object":
                p = w.object_path(q["bucket"], q["key"])
                if self.command == "PUT":
                    p.parent.mkdir(parents=True, exist_ok=True)
                    p.write_bytes(raw)
                    (p.parent / "meta").write_text(
                        json.dumps({"bucket": q["bucket"], "key": q["key"], "type": None})
                    )
                    self.answer(200, {"ok": True})
                else:
                    self.answer(200, p.read_bytes(), "application/octet-stream")
            elif what == "objects":
                self.answer(200, [{**json.loads(m.read_text())} for m in w.data.rglob("meta")])
            elif what == "ping":
                self.answer(200, {"ok": True})
            else:
                self.answer(404, {"error": f"unknown control {what}"})
        except (KeyError, FileNotFoundError, json.JSONDecodeError) as e:
            self.answer(400, {"error": f"{type(e).__name__}: {e}"})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, BrokenPipeError, OSError)):
            super().handle_error(request, client_address)


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--edge-file", type=Path)
    ap.add_argument("--token", default="fake-google-token")
    ap.add_argument("--bucket", action="append", help="buckets that exist")
    ap.add_argument("--scenario", default="{}", help="preset name or JSON")
    args = ap.parse_args()
    Handler.world = World(
        args.data, args.edge_file, args.token, set(args.bucket or ["fake-bucket"])
    )
    spec = args.scenario
    Handler.world.set_scenario(json.loads(spec) if spec.lstrip().startswith("{") else spec)
    server = Server(("127.0.0.1", args.port), Handler)
    print(json.dumps({"fake_google": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
