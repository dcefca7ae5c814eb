"""The HTTP interface: NYU's five calls and related ones, as an ASGI application.

Its objects are the gateway's own, field by field (null counts before the rows are counted, times in
milliseconds, percent-encoded file ids).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from threading import Event
from typing import Any
from uuid import uuid4

from anyio import create_task_group
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from nyu_llm_frames.local.access import Users, guarded, refusal
from nyu_llm_frames.local.engine import Engine
from nyu_llm_frames.local.objects import batch_object, file_object, output_object, upload_object
from nyu_llm_frames.local.rows import ENDPOINT, Completion, RowError, check_body, completion_body
from nyu_llm_frames.local.store import OPEN, Job, Store, StoredFile, file_id, uri_of
from nyu_llm_frames.local.worker import Worker

MAX_LIST = 100
CLOSING_LOOK_S = 0.1


class Gateway:
    """The routes over one store, worker and engine."""

    def __init__(
        self, store: Store, worker: Worker, engine: Engine, *, about: dict[str, Any]
    ) -> None:
        self._store, self._worker, self._engine, self._about = store, worker, engine, about
        self.closing = Event()
        # Calls that wait for the model must not use up the threads that polls need.
        self._threads = ThreadPoolExecutor(engine.slots, thread_name_prefix="live")
        self._live: set[Future[Completion]] = set()

    def stop(self, timeout_s: float) -> bool:
        """End live requests; False if that takes longer than `timeout_s`."""
        self.closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not wait(list(self._live), timeout_s).not_done

    def routes(self) -> list[Route]:
        """Return the table of calls; ids may have slashes, percent-encoded or not."""
        return [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files/{file:path}/content", self.file_content, methods=["GET"]),
            Route("/v1/files/{file:path}", self.file, methods=["GET"]),
            Route("/v1/batches", self.submit, methods=["POST"]),
            Route("/v1/batches", self.list_jobs, methods=["GET"]),
            Route("/v1/batches/{job}", self.poll, methods=["GET"]),
            Route("/v1/batches/{job}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/batches/{job}/output", self.output, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/about", self.about, methods=["GET"]),
        ]

    async def about(self, request: Request) -> Response:
        return JSONResponse(self._about)

    async def upload(self, request: Request) -> Response:
        try:
            async with request.form() as form:
                stored = await self._stored(form, request.headers)
        except ClientDisconnect:
            return Response(status_code=400)
        return JSONResponse(upload_object(stored))

    async def _stored(self, form: FormData, headers: Headers) -> StoredFile:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "the body must be multipart/form-data with a whole 'file'")
        if purpose != "batch":
            raise HTTPException(400, f"purpose must be 'batch', not {purpose!r}")
        if next(iter(form)) == "file":  # NYU's gateway passes the file on as it comes
            raise HTTPException(400, "the part 'purpose' must come before the file")
        plain = PurePosixPath(file.filename or "").name or "input.jsonl"
        stored: StoredFile = await run_in_threadpool(
            self._store.add_file,
            file.file,
            bucket=headers.get("x-portkey-vertex-storage-bucket-name") or "local",
            name=headers.get("x-portkey-provider-file-name") or f"{uuid4()}/{plain}",
            purpose=purpose,
        )
        return stored

    async def file(self, request: Request) -> Response:
        found = await self._file(request)
        if isinstance(found, Job):
            return JSONResponse(output_object(found))
        return JSONResponse(file_object(found.uri, found.bytes, found.created_at, found.purpose))

    async def file_content(self, request: Request) -> Response:
        """Stream an uploaded file as it came, or the output of a job."""
        found = await self._file(request)
        if isinstance(found, Job):
            return self._stream(found)
        return FileResponse(self._store.path(found.blob), media_type="application/octet-stream")

    async def _file(self, request: Request) -> StoredFile | Job:
        """Find an uploaded file, or the job that writes the output."""
        uri = uri_of(request.path_params["file"])
        for find in (self._store.file, self._store.job_of_output):
            found: StoredFile | Job | None = await run_in_threadpool(find, uri)
            if found is not None:
                return found
        raise HTTPException(404, f"there is no file {file_id(uri)}")

    async def submit(self, request: Request) -> Response:
        order = await _json_object(request)
        given = order.get("input_file_id")
        if not isinstance(given, str) or not given:
            raise HTTPException(400, "input_file_id is missing")
        if order.get("endpoint", ENDPOINT) != ENDPOINT:
            raise HTTPException(400, f"endpoint must be {ENDPOINT}")
        stored: StoredFile | None = await run_in_threadpool(self._store.file, uri_of(given))
        if stored is None:
            raise HTTPException(404, f"there is no file {given}: upload it first")
        model = self._engine.model or str(order.get("model") or "")
        job = await run_in_threadpool(self._store.add_job, stored, model)
        self._worker.wake()
        return JSONResponse(batch_object(job))

    async def list_jobs(self, request: Request) -> Response:
        try:
            limit = min(max(int(request.query_params.get("limit", 20)), 1), MAX_LIST)
            before = int(request.query_params.get("after", 0)) or None
        except ValueError as error:
            raise HTTPException(400, "limit and after must be numbers") from error
        jobs, more = await run_in_threadpool(self._store.jobs, limit, before)
        data = [batch_object(job) for job in jobs]
        return JSONResponse(
            {
                "data": data,
                "object": "list",
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": more,
            }
        )

    async def poll(self, request: Request) -> Response:
        return JSONResponse(batch_object(await self._job(request)))

    async def cancel(self, request: Request) -> Response:
        """Ask a job to end after the rows under way."""
        job = await self._job(request)
        if not await run_in_threadpool(self._store.cancel_job, job.id):
            raise HTTPException(400, f"the batch job is {job.status} and cannot be cancelled")
        self._worker.cancelled(job.id)
        return JSONResponse({})

    async def output(self, request: Request) -> Response:
        """Stream the answers of a job that is over."""
        job = await self._job(request)
        if job.status in OPEN:  # the gateway says 500 here, and its clients wait for that
            raise HTTPException(500, f"the batch job is {job.status}: it has no output yet")
        return self._stream(job)

    async def chat(self, request: Request) -> Response:
        body = await _json_object(request)
        if body.get("stream"):
            raise HTTPException(400, "stream is not supported by the embedded gateway")
        try:
            check_body(body)
            answer = await self._answer(body)
        except RowError as error:
            raise HTTPException(error.status, error.message) from error
        request_id = f"chatcmpl-{uuid4().hex}"
        return JSONResponse(
            completion_body(answer, request_id=request_id, created=int(time.time()))
        )

    async def _answer(self, body: dict[str, Any]) -> Completion:
        """Wait for the engine, but not longer than this server runs."""
        work = self._threads.submit(self._engine.answer, body, self.closing)
        self._live.add(work)
        work.add_done_callback(self._live.discard)
        waiting = asyncio.wrap_future(work)
        while not (await asyncio.wait([waiting], timeout=CLOSING_LOOK_S))[0]:
            if self.closing.is_set():
                waiting.cancel()
                raise HTTPException(503, "this embedded gateway is ending")
        return await waiting

    async def _job(self, request: Request) -> Job:
        text = request.path_params["job"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 + 1 else -1
        job: Job | None = await run_in_threadpool(self._store.job, min(number, 2**63 - 1))
        if job is None:
            raise HTTPException(404, f"there is no batch job {text}")
        return job

    def _stream(self, job: Job) -> Response:
        pieces = iterate_in_threadpool(self._store.output(job.id))
        return StreamingResponse(pieces, media_type="application/octet-stream")


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return data


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, error.detail)


async def _any_error(request: Request, error: Exception) -> Response:
    return refusal(500, f"the embedded gateway failed: {error!r}")


def application(
    gateway: Gateway,
    *,
    key: str,
    users: Users,
    watch: Callable[[], Coroutine[Any, Any, None]],
    ending: Callable[[], bool],
) -> ASGIApp:
    """Combine the routes, the check of the key and the count of users."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with create_task_group() as tasks:
            tasks.start_soon(watch)
            yield
            tasks.cancel_scope.cancel()

    inner = Starlette(
        routes=gateway.routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _any_error},
    )
    return guarded(inner, key=key, users=users, ending=ending)
