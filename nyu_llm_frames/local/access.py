"""Checks the key of every call, and counts the users who keep the server alive."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from anyio import move_on_after
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nyu_llm_frames.local.rows import phrase

HOLD_LOOK_S = 0.25


class Users:
    """The users of this server: processes that keep a connection open, and calls.

    The connection is closed by the operating system however its process ends, so a killed
    kernel is noticed and no process id is ever guessed.
    """

    def __init__(self) -> None:
        self.held = 0
        self.came = False
        self.last_seen = time.monotonic()

    def idle_s(self) -> float:
        """Return the seconds since the last user left; 0 while there is one."""
        return 0.0 if self.held else time.monotonic() - self.last_seen

    def enter(self) -> None:
        self.held += 1

    def leave(self) -> None:
        self.held -= 1
        self.last_seen = time.monotonic()


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse(
        {"error": {"code": status, "message": message, "status": phrase(status)}}, status
    )


def guarded(app: ASGIApp, *, key: str, users: Users, ending: Callable[[], bool]) -> ASGIApp:
    """Admit callers with the key, count calls, and answer ``/hold`` until its caller is gone."""
    secret = key.encode()

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = (
            headers.get(b"x-portkey-api-key", b""),
            headers.get(b"authorization", b"").removeprefix(b"Bearer "),
        )
        if not any(hmac.compare_digest(secret, one) for one in given):
            no = refusal(401, "x-portkey-api-key is not the key of this embedded gateway")
            await no(scope, receive, send)
            return
        if ending():  # no process may come to depend on a server that is about to end
            await refusal(503, "this embedded gateway is ending")(scope, receive, send)
            return
        users.enter()
        try:
            if scope["path"] == "/hold":
                users.came = True
                await _hold(receive, send, ending)
            else:
                await app(scope, receive, send)
        finally:
            users.leave()

    return call


async def _hold(receive: Receive, send: Send, ending: Callable[[], bool]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"held\n", "more_body": True})
    while not ending():
        with move_on_after(HOLD_LOOK_S):
            if (await receive())["type"] == "http.disconnect":
                return
