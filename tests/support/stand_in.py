"""A stand-in of the gateway in a thread: real HTTP on loopback, no dependencies, no waiting.

Comes in: requests of the real client, and a test's wishes (behaviour of jobs, faults, hooks).
Goes out: the answers that the real gateway gives, and a record of everything that was asked.

    with StandIn() as gateway:
        gateway.behaviour.row = rows.pick({"hello": rows.blocked})
        gateway.script.add("create", "lose")            # the job is made, the answer is lost
        frame.llm.batch(..., gateway=llm.Gateway(**gateway.settings))
        assert len(gateway.jobs) == 1                   # every job ever made would be paid
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

from gateway_lab.harness import close

from support import rows, wire
from support.calls import MODEL, Calls
from support.faults import Script, operation
from support.http_server import Answer, Request, Server
from support.jobs import Behaviour, Job, now_ms

__all__ = ["Behaviour", "Job", "StandIn", "answer", "outage"]
answer = rows.answer


class StandIn(Calls):
    """The gateway, with everything that a test may look at or change.

    Attributes
    ----------
    base_url, api_key, provider, bucket, model : str
    jobs : list of Job
        Every job ever created here, oldest first; each would be paid.
    uploads : dict of str to bytes
        The files as they were sent, by name in the bucket.
    chats : list of dict
        The bodies of the live calls.
    log : list of tuple of str
        Method and path (with query) of every request that arrived whole.
    headers : list of dict
        The headers of the same requests, names in lower case.
    errors : list of Exception
        What a hook or a callable of the test raised; leaving the `with` block raises the first.
    behaviour : Behaviour
        For the jobs to come; also the rows of live calls.
    script : Script
        The faults to come.
    on_request, on_handled : callable, optional
        Called with (n, method, path) before a request is handled, and after that but before it is
        answered; n counts requests from 1. They run in the server's thread.
    max_running : int, optional
        A create is answered 429 while so many jobs have not ended.
    """

    def __init__(
        self,
        *,
        api_key: str = "stand-in-key",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(api_key)
        self.script = Script()
        self.on_request: Callable[[int, str, str], object] | None = None
        self.on_handled: Callable[[int, str, str], object] | None = None
        self.log: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.errors: list[Exception] = []
        self._clients: list[Any] = []
        self._lock = threading.RLock()
        self._server = Server(self._serve, port, tls)

    # --- life -------------------------------------------------------------------------------
    def start(self) -> Self:
        """Listen; after a `stop`, on the same port and with the same state."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the port and all connections, as an outage does; the state stays."""
        for fault in self.script.faults:
            if fault.mode != "hold":
                fault.release()
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *exc: object) -> None:
        self.script.clear()
        self.stop()
        for client in self._clients:
            close(client)
        if self.errors and kind is None:
            raise self.errors[0]

    @property
    def base_url(self) -> str:
        """The address, as a client takes it."""
        return f"http{'s' if self._server.tls else ''}://127.0.0.1:{self._server.port}/v1"

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

    def portkey(self, **options: Any) -> Any:
        """Return the real client for this gateway."""
        from portkey_ai import Portkey

        defaults = {
            "api_key": self.api_key,
            "provider": self.provider,
            "base_url": self.base_url,
            "vertex_storage_bucket_name": self.bucket,
            "provider_model": self.model,
        }
        client = Portkey(**{**defaults, **options})
        self._clients.append(client)
        return client

    # --- what a test may do -----------------------------------------------------------------
    def count(self, call: str) -> int:
        """Return how many requests of this kind arrived: upload, create, poll, list, ..."""
        return sum(operation(f"{method} {path}") == call for method, path in self.log)

    def finish(self, job: Job | None = None) -> None:
        """Let a job (by default all of them) end at its next poll."""
        for j in [job] if job else self.jobs:
            j.finish_now = True

    def add_foreign(self, n: int = 1, *, status: str = "completed") -> None:
        """Let other people's jobs appear in the list, newer than all before."""
        with self._lock:
            for _ in range(n):
                job = self._new_job("gs%3A%2F%2Fother-bucket%2Fin.jsonl", MODEL, [], [])
                job.behaviour = Behaviour(terminal=status)
                job.foreign, job.answered = True, 5
                job.status, job.in_progress_at, job.ended_at = status, now_ms(), now_ms()
                self._every.append(job)

    # --- requests ---------------------------------------------------------------------------
    def _serve(self, request: Request) -> Answer | None:
        """Handle one request; None cuts the connection."""
        try:
            return self._respond(request)
        except Exception as error:  # in a hook or in the stand-in: the test has to see it
            self.errors.append(error)
            return Answer(500, b"the stand-in failed", "text/plain")

    def _respond(self, request: Request) -> Answer | None:
        with self._lock:
            self.log.append((request.method, request.path))
            self.headers.append(request.headers)
            n = len(self.log)
        if self.on_request:
            self.on_request(n, request.method, request.path)
        fault = self.script.take(f"{request.method} {request.path}")
        if fault:
            if fault.hook:
                fault.hook()
            fault.arrived.set()
            if fault.mode == "delay":
                self._server.stopping.wait(fault.delay_s)
            elif fault.mode == "hold":
                fault.released.wait()
            elif fault.mode == "hang":
                fault.released.wait()
                return None
            elif fault.mode == "reset":
                return None
            elif fault.mode == "respond":
                return _page(fault.status or 504, fault.body, fault.retry_after, fault.location)
        with self._lock:
            reply = self.route(request)
        if fault:
            fault.done.set()
        if self.on_handled:
            self.on_handled(n, request.method, request.path)
        if fault and fault.mode == "hold_answer":
            fault.released.wait()
        if fault and fault.mode == "restate":
            return replace(reply, status=fault.status or reply.status)
        if fault and fault.mode == "trickle":
            return replace(reply, trickle=fault.body)
        if fault and fault.mode == "lose":
            if not fault.status:
                return None
            return _page(fault.status, fault.body, fault.retry_after, fault.location)
        return reply


def _page(status: int, kind: str, retry_after: float | None, location: str) -> Answer:
    body, content_type = wire.error_page(status, kind)
    extra = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    if 300 <= status < 400:
        extra["location"] = location
    return Answer(status, body, content_type, headers=extra)


@contextlib.contextmanager
def outage(gateway: StandIn) -> Iterator[None]:
    """Close the gateway for the time of a block."""
    gateway.stop()
    try:
        yield
    finally:
        gateway.start()
