"""Makes this process a user of the server that runs on a store.

A connection that stays open until this process ends shows the server that it is needed. The
operating system closes it however the process ends, so a killed kernel is noticed and no process id
is ever guessed.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import platform
import socket
import time
from pathlib import Path
from typing import Any

from filelock import Timeout

from nyu_llm_frames.errors import ConfigurationError, GatewayUnavailableError
from nyu_llm_frames.local import paths


class NoAnswerError(Exception):
    """The listener there is not a server, or one that is ending."""


# Connections that make this process count as a user, one per server, open until it ends.
_held: dict[tuple[int, str], tuple[int, socket.socket]] = {}


def is_served(folder: Path) -> bool:
    """Whether a server is running: it holds its lock until the operating system frees it."""
    try:
        with paths.held(paths.server_lock(folder), 0):
            return False
    except Timeout:
        return True


def join(folder: Path, given: dict[str, Any], deadline: float) -> paths.Running | None:
    """Become a user of the server that holds the lock; None if it ends before that."""
    pause_s = 0.02
    problem = "it has written no address"
    while is_served(folder):
        running = paths.read_running(folder)
        if running is not None:
            if running.node != platform.node():
                raise ConfigurationError(
                    f"{folder} is in use by a server on {running.node}: choose a folder of this "
                    "computer (data=)."
                )
            try:
                about = _ask(running, "/about")
                if about.get("pid") == running.pid:
                    _compare(given, about, folder)
                    _hold(folder, running)
                    return running
                problem = "another server answers at its address"
            except (OSError, http.client.HTTPException, NoAnswerError) as error:
                problem = repr(error)
        if time.monotonic() > deadline:
            raise GatewayUnavailableError(
                f"The embedded gateway of {folder} does not answer: {problem}. "
                f"See {folder / 'server.log'}"
            )
        time.sleep(pause_s)
        pause_s = min(0.2, pause_s * 1.5)
    return None


def _ask(running: paths.Running, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(running.reachable, running.port, timeout=10)
    try:
        connection.request("GET", path, headers={"x-portkey-api-key": running.api_key})
        response = connection.getresponse()
        if response.status != 200:
            raise NoAnswerError(f"HTTP {response.status}")
        data = json.loads(response.read())
        if not isinstance(data, dict):
            raise NoAnswerError("no JSON object")
        return data
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NoAnswerError(repr(error)) from error
    finally:
        connection.close()


def _compare(given: dict[str, Any], about: dict[str, Any], folder: Path) -> None:
    """Refuse options that the running server does not have: they must not be ignored."""
    has = about.get("options", {})
    differ = {
        name: has.get("slots" if name == "concurrency" else name)
        for name, value in given.items()
        if value is not None and value != has.get("slots" if name == "concurrency" else name)
    }
    if differ:
        name, value = next(iter(differ.items()))
        raise ConfigurationError(
            f"The server of {folder} already runs, with {name}={value!r} and not "
            f"{given[name]!r}. It is shared: leave the option out, end the processes that use it "
            f"(its own process id is {about.get('pid')}), or choose another place with data=."
        )


def _hold(folder: Path, running: paths.Running) -> None:
    """Count as a user of this server until this process ends, even by SIGKILL."""
    name = (os.getpid(), str(folder))
    pid, kept = _held.get(name, (0, None))
    if kept is not None:
        if pid == running.pid:
            return
        kept.close()
    held = socket.create_connection((running.reachable, running.port), timeout=10)
    ask = "GET /hold HTTP/1.1\r\nHost: localhost\r\nx-portkey-api-key: {}\r\n\r\n"
    held.sendall(ask.format(running.api_key).encode("ascii"))
    status = held.recv(12)  # counted from here on
    if status != b"HTTP/1.1 200":
        held.close()
        raise NoAnswerError(f"it answers {status!r}")
    held.settimeout(None)
    _held[name] = (running.pid, held)


@atexit.register
def _leave() -> None:
    for (pid, _), (_, held) in list(_held.items()):
        if pid == os.getpid():
            held.close()
    _held.clear()
