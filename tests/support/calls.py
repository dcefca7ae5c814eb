"""What each call of the gateway answers, from the jobs and files that there are.

Comes in: a request that arrived whole. Goes out: the answer, and the jobs and files it made.
"""

from __future__ import annotations

import copy
import json
import urllib.parse
from typing import Any

from support import rows, wire
from support.http_server import Answer, Request
from support.jobs import Behaviour, Job, now_ms

BUCKET, MODEL = "fake-bucket", "gemini-3-flash-preview"
FIRST_ID, ID_STEP = 7284652661620604928, 1024


class Calls:
    """The state of the gateway, and one method per call."""

    provider, bucket, model = "@vertexai", BUCKET, MODEL

    def __init__(self, api_key: str) -> None:
        self.api_key = api_key
        self.behaviour = Behaviour()
        self.max_running: int | None = None
        self.jobs: list[Job] = []
        self.uploads: dict[str, bytes] = {}
        self.chats: list[dict[str, Any]] = []
        self._every: list[Job] = []  # with those of other people

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path, _, query = request.path.partition("?")
        if refused := self._refuse(request):
            return refused
        params = dict(urllib.parse.parse_qsl(query))
        match request.method, path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                return self._upload(request)
            case "GET", ["files"]:
                said = "listFiles is not supported by Google Vertex AI"
                body = {"message": said, "status": "failure", "provider": "vertex-ai"}
                return Answer(500, wire.encode(body))
            case "GET", ["files", file_id]:
                return self._file(file_id)
            case "GET", ["files", file_id, "content"]:
                return self._content(file_id)
            case "POST", ["batches"]:
                return self._create(request)
            case "GET", ["batches"]:
                return self._list(int(params.get("limit", 20)))
            case "GET", ["batches", job_id]:
                job = self._find(job_id)
                if job is None:
                    return _not_found("The BatchPredictionJob does not exist.")
                job.advance()
                return _json(job.resource())
            case "GET", ["batches", job_id, "output"]:
                return self._output(self._find(job_id), query)
            case "POST", ["batches", job_id, "cancel"]:
                return self._cancel(self._find(job_id))
            case "POST", ["chat", "completions"]:
                return self._chat(json.loads(request.body))
        return _not_found(f"The requested URL {path} was not found.")

    def _refuse(self, request: Request) -> Answer | None:
        provider = request.headers.get("x-portkey-provider")
        if not provider:
            said = "Either x-portkey-config or x-portkey-provider header is required"
            return _json({"status": "failure", "message": said}, 400)
        if request.headers.get("x-portkey-api-key") != self.api_key:
            said = "Invalid API Key. Error Code: 03"
            return _json({"status": "failure", "message": said}, 401)
        return None

    def _upload(self, request: Request) -> Answer:
        headers = request.headers
        bucket = headers.get("x-portkey-vertex-storage-bucket-name", "")
        refused: dict[str, Any] = {"success": False, "param": None, "provider": "vertex-ai"}
        if not bucket or not headers.get("x-portkey-provider-model"):
            names = "`x-portkey-provider-model` and `x-portkey-vertex-storage-bucket-name`"
            said = f"Invalid request, please provide {names} in the request headers"
            return _json({**refused, "error": said}, 400)
        if bucket != self.bucket:
            return _json({**refused, "error": wire.NO_BUCKET}, 404)
        name = urllib.parse.unquote(headers.get("x-portkey-provider-file-name", ""))
        parts = wire.parse_multipart(headers.get("content-type", ""), request.body)
        key = name or f"unnamed-{len(self.uploads)}.jsonl"
        self.uploads[key] = dict(parts).get("file", b"")
        body = {
            **({"filename": name} if name else {}),
            "id": urllib.parse.quote(f"gs://{bucket}/{key}", safe=""),
            "object": "file",
            "create_at": now_ms(),
            # a purpose that comes after the file is not seen
            "purpose": parts[0][1].decode() if parts and parts[0][0] == "purpose" else "",
            "bytes": len(request.body),
            "status": "processed",
        }
        return _json(body)

    def _stored(self, file_id: str) -> bytes | None:
        """Return a file as Google holds it: requests translated, outputs as they are."""
        for job in self._every:
            if job.lines and urllib.parse.unquote(job.output_file_id) == _uri(file_id):
                return job.raw
        sent = self.uploads.get(_uri(file_id).removeprefix(f"gs://{self.bucket}/"))
        if sent is None:
            return None
        kept = [wire.readable(line) for line in sent.split(b"\n")]
        lines = [json.dumps(wire.google_request(row)) for row in kept if row is not None]
        return "".join(f"{line}\n" for line in lines).encode()

    def _file(self, file_id: str) -> Answer:
        data = self._stored(file_id)
        if data is None:
            return _json({"html-message": "Message: File not found Cause: NA Name: Error"}, 500)
        uri = _uri(file_id)
        body = {
            "bytes": len(data),
            "updatedAt": now_ms(),
            "createdAt": now_ms(),
            "id": urllib.parse.quote(uri, safe=""),
            "filename": uri.rsplit("/", 1)[-1],
            "purpose": None,
            "status": "processed",
        }
        return _json(body)

    def _content(self, file_id: str) -> Answer:
        data = self._stored(file_id)
        for job in self._every:
            if job.lines and urllib.parse.unquote(job.output_file_id) == _uri(file_id):
                b = job.behaviour
                if b.content_fails:
                    b.content_fails -= b.content_fails > 0
                    data = None
        if data is None:
            return _json({"status": "failure", "message": "Something went wrong"}, 500)
        return Answer(200, data, "application/octet-stream")

    def _create(self, request: Request) -> Answer:
        wanted = json.loads(request.body)
        if self.max_running is not None:
            running = sum(job.ended_at is None for job in self.jobs)
            if running >= self.max_running:
                said = "Quota exceeded for concurrent batch jobs."
                return Answer(429, wire.google_error(429, said))
        model = wanted.get("model") or request.headers.get("x-portkey-provider-model", "")
        if not model or "missing" in model:
            return _not_found(f"The PublisherModel {model} does not exist.")
        file_id = urllib.parse.quote(_uri(wanted["input_file_id"]), safe="")
        sent = self.uploads.get(_uri(file_id).removeprefix(f"gs://{self.bucket}/"))
        kept = [wire.readable(line) for line in (sent or b"").split(b"\n")]
        lines = [row for row in kept if row is not None]
        requests = [(str(row.get("custom_id", "")), row["body"]) for row in lines]
        job = self._new_job(file_id, model, requests, [wire.google_request(r) for r in lines])
        b = job.behaviour
        if not lines:
            b.terminal, b.partial_pct = "failed", 0
            b.error = {"code": 3, "message": f"{wire.NO_IMPORT} The input file is empty."}
        if sent is None:
            b.error = {"code": 9, "message": wire.NO_INPUT.format(bucket=self.bucket)}
        job.lists_left = b.list_delay
        self.jobs.append(job)
        self._every.append(job)
        return _json(job.resource())

    def _new_job(
        self,
        file_id: str,
        model: str,
        requests: list[tuple[str, dict[str, Any]]],
        stored: list[dict[str, Any]],
    ) -> Job:
        seq = len(self._every)
        return Job(
            id=str(FIRST_ID + ID_STEP * seq),
            created_seq=seq,
            input_file_id=file_id,
            model=model,
            behaviour=copy.copy(self.behaviour),
            requests=requests,
            stored=stored,
            created_at=now_ms(),
        )

    def _list(self, limit: int) -> Answer:
        shown = [job for job in reversed(self._every) if job.lists_left <= 0]
        for job in self._every:
            job.lists_left -= 1
        page = [job.resource() for job in shown[:limit]]
        body: dict[str, Any] = {"data": page, "object": "list"}
        if page:
            body |= {"first_id": page[0]["id"], "last_id": page[-1]["id"]}
        return _json({**body, "has_more": len(shown) > limit})

    def _output(self, job: Job | None, query: str) -> Answer:
        if job is None or query or not job.has_output:
            return _json({}, 500)
        lines = job.output()
        b, data = job.behaviour, b"".join(line + b"\n" for line in lines)
        kind = "application/octet-stream"
        if job.reads > b.short_reads:
            return Answer(200, data, kind, chunked=True)
        if b.short == "rows":
            data = b"".join(line + b"\n" for line in lines[: len(lines) // 2])
        elif b.short == "cut" or b.short == "reset":
            data = data[: len(data) // 2]
        elif b.short == "fake_row":
            data = wire.FAKE_ROW.replace(rows.JOB.encode(), job.id.encode()) + b"\n"
        else:
            data = b""
        return Answer(200, data, kind, chunked=True, cut=b.short == "reset")

    def _cancel(self, job: Job | None) -> Answer:
        if job is None:
            return _not_found("The BatchPredictionJob does not exist.")
        if job.ended_at is not None or job.cancel_polls is not None:
            said = f"The BatchPredictionJob is in state {job.status} and cannot be cancelled."
            error = {"code": 400, "status": "FAILED_PRECONDITION", "message": said}
            return _json({"error": error}, 400)
        job.status, job.cancel_polls = "cancelling", job.behaviour.cancelling_polls
        return _json({})

    def _chat(self, body: dict[str, Any]) -> Answer:
        self.chats.append(body)
        lines = self.behaviour.row("live", body) or rows.empty_response("live", body)
        row = json.loads(lines[0])
        said = row["response"]["body"]
        if row.get("error"):
            status, error = wire.live_error(row["error"])
            return _json(error, status)
        for choice in said.get("choices", []):
            choice["finish_reason"] = {"STOP": "stop", "MAX_TOKENS": "length"}.get(
                choice["finish_reason"], choice["finish_reason"]
            )
            choice["message"].pop("content_blocks", None)
        return _json({**said, "id": said.get("id", "").replace("chatcmpl", "portkey")})

    def _find(self, job_id: str) -> Job | None:
        return next((job for job in self._every if job.id == job_id), None)


def _uri(file_id: str) -> str:
    return urllib.parse.unquote(file_id)


def _json(body: object, status: int = 200) -> Answer:
    return Answer(status, wire.encode(body))


def _not_found(message: str) -> Answer:
    return Answer(404, wire.google_error(404, message))
