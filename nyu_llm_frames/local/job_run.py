"""Runs a server in this process, with its record on disk, from its start to its end.

That is a signal, Ctrl-C, or (if started for others) when its last user is gone.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import uvicorn
from filelock import Timeout

from nyu_llm_frames.errors import ConfigurationError, GatewayError
from nyu_llm_frames.local import paths
from nyu_llm_frames.local.access import Users
from nyu_llm_frames.local.engine import build
from nyu_llm_frames.local.server import Gateway, application
from nyu_llm_frames.local.spec import EngineSpec, Key, Options
from nyu_llm_frames.local.store import Store, StoreError
from nyu_llm_frames.local.worker import Worker

FIRST_USER_S = 60.0
WATCH_EVERY_S = 0.25
STOP_S = 2.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Server(uvicorn.Server):  # type: ignore[misc]
    """A uvicorn server that signals end cleanly, without being raised again afterward."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(number: int, frame: FrameType | None) -> None:
            self.should_exit = True

        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, end) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only server of a store; its record is gone at the end."""
    try:
        # Wait a moment: others test the lock by taking it.
        with paths.held(paths.server_lock(folder), 2):
            paths.forget_running(folder)
            try:
                yield
            finally:
                paths.forget_running(folder)
    except Timeout as error:
        raise ConfigurationError(
            f"A server already runs on {folder}: use it, end it, or choose another place (--data)."
        ) from error
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


def run(
    spec: EngineSpec,
    options: Options,
    folder: Path,
    *,
    host: str,
    port: int,
    api_key: str | None,
    until_unused: bool,
) -> None:
    """Serve until the end; see `nyu_llm_frames.local.process.serve`."""
    key = Key(api_key) if api_key else paths.store_key(folder)
    store = Store(folder)
    tempfile.tempdir = str(store.blobs)  # for uploads: /tmp is in memory on many machines
    engine = build(spec, options)
    worker = Worker(store, engine)
    users = Users()
    listener = _listen(host, port or paths.last_port(folder), exact=bool(port))
    bound = int(listener.getsockname()[1])
    about: dict[str, Any] = {
        "pid": os.getpid(),
        "realm": spec.realm,
        "model": engine.model,
        "options": {**asdict(options), "slots": engine.slots},
    }
    gateway = Gateway(store, worker, engine, about=about)

    async def watch() -> None:
        """Wait a minute for the first user; end soon after the last one has left."""
        while True:
            await anyio.sleep(WATCH_EVERY_S)
            if server.should_exit:
                gateway.closing.set()
            patience_s = options.grace_s if users.came else max(FIRST_USER_S, options.grace_s)
            if until_unused and users.idle_s() > patience_s:
                logging.getLogger(__name__).info("The last user has ended")
                server.should_exit = True

    server = _Server(
        uvicorn.Config(
            application(
                gateway,
                key=key,
                users=users,
                watch=watch,
                ending=lambda: server.should_exit,
            ),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
        )
    )
    worker.start()
    paths.write_private(folder / "port", str(bound))
    paths.write_running(
        folder,
        paths.Running(os.getpid(), host, bound, key, spec.realm, platform.node()),
    )
    if not until_unused:
        _greet(spec, folder, host, bound, key, shown=api_key is None)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        paths.forget_running(folder)
        ended = worker.stop(STOP_S) & gateway.stop(STOP_S)
        store.forget_tries()
        store.close()
        if not ended:
            # A row in native code cannot be stopped, and ending the interpreter around it crashes.
            # Its answer was not stored; the row is done again at the next start.
            sys.stdout.flush()
            os._exit(0)


def _listen(host: str, port: int, *, exact: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        if exact or not port:
            listener.close()
            raise GatewayError(f"Cannot listen on {host}:{port}: {error}") from error
        listener.bind((host, 0))
    listener.listen(128)  # readers of the record may connect at once
    return listener


def _greet(spec: EngineSpec, folder: Path, host: str, port: int, key: str, *, shown: bool) -> None:
    name = f"[{host}]" if ":" in host else host
    print(f"base_url: http://{name}:{port}/v1")
    print(f"api_key:  {key if shown else 'the one you gave'}")
    print(f"answers:  {spec.realm}")
    print(f"store:    {folder}")
    # Answers are stored under the provider: another one would claim them for its model.
    print("To use it: set PORTKEY_BASE_URL and PORTKEY_API_KEY to these,")
    print(f"  PORTKEY_PROVIDER={spec.realm} and NYU_LLM_BUCKET=any; or, on this machine, give")
    print('  gateway="local" (--gateway local) with the options of this server.')
    if host not in LOOPBACK:
        print("Other computers can reach this server; anyone with the key can use it.")
    print("Ctrl-C ends it; unfinished jobs continue at the next start.", flush=True)
