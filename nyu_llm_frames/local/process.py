"""Finds the server of a store, or starts one in its own process.

Imports no server and no model, so a client may import it at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from nyu_llm_frames.errors import ConfigurationError, GatewayUnavailableError
from nyu_llm_frames.local import paths
from nyu_llm_frames.local.joining import is_served, join
from nyu_llm_frames.local.spec import MODEL, SERVER, EngineSpec, Options, engine_spec, require
from nyu_llm_frames.local.weights import ensure_weights

START_S = 300.0
LOG_BYTES = 5 * 2**20
USAGE = 2  # exit code of a server that explains itself why it cannot start


_guard = threading.RLock()


def ensure_server(
    *,
    data: Path | None = None,
    model: Path | str | None = None,
    upstream: str | None = None,
    answers: Literal["echo"] | None = None,
    **server_options: Any,
) -> paths.Running:
    """
    Find the running server of this store and engine, or start it and wait until it is ready.

    The server ends some seconds after the last process that called this has ended, however it
    ended. Jobs that are not over stay in the store and go on when the server is next started.
    Arguments are those of `Gateway.local`; options are the fields of `Options`, and others than
    those of a running server are refused.
    """
    spec, options = _described(model, upstream, answers, server_options)
    folder = paths.store_folder(data, spec)
    with _guard:
        try:
            with paths.held(paths.start_lock(folder), START_S):
                deadline = time.monotonic() + START_S
                while True:
                    if not is_served(folder):
                        _check_needs(spec, options)
                        _start(spec, options, folder)
                    running = join(folder, server_options, deadline)
                    if running is not None:
                        return running
        except Timeout as error:
            raise GatewayUnavailableError(
                f"Another process has been starting the server of {folder} for {START_S:.0f} s: "
                f"see {folder / 'server.log'}"
            ) from error


def serve(
    *,
    data: Path | str | None = None,
    model: Path | str | None = None,
    upstream: str | None = None,
    answers: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    until_unused: bool = False,
    **server_options: Any,
) -> None:
    """
    Run the server in this process until Ctrl-C; prints its address and key.

    The port 0 is the last one, or any free one; the key is by default the store's random one. With
    `until_unused` it ends some seconds after the last process that called `ensure_server`.
    """
    spec, options = _described(model, upstream, answers, server_options)
    _check_needs(spec, options)
    from nyu_llm_frames.local.job_run import alone, run

    folder = paths.store_folder(data, spec)
    with alone(folder):
        run(spec, options, folder, host=host, port=port, api_key=api_key, until_unused=until_unused)


def _described(
    model: Path | str | None, upstream: str | None, answers: str | None, given: dict[str, Any]
) -> tuple[EngineSpec, Options]:
    """Read the arguments, and check that the packages are there."""
    spec = engine_spec(model=model, upstream=upstream, answers=answers)
    known = [f.name for f in fields(Options)]
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"The embedded gateway has no option {name!r}. Options: {', '.join(known)}."
            )
    require(*SERVER, *([MODEL] if spec.kind == "model" else []))
    return spec, Options(**given)


def _check_needs(spec: EngineSpec, options: Options) -> None:
    """Raise here, and not in the server's log, if the key or the weights are missing."""
    options.upstream_key()
    if spec.kind == "model" and spec.model is None:
        ensure_weights()


def _start(spec: EngineSpec, options: Options, folder: Path) -> None:
    if not sys.executable:
        raise ConfigurationError(
            "This Python does not know its own program (sys.executable is empty): run "
            "`nyu-llm-frames serve` in a terminal."
        )
    log = folder / "server.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(folder / "server.log.1")
    # -P: no file in the user's folder shadows a module. An empty package stands in for ours, so
    # that the server starts without pandas and loads nothing of the client side.
    home = str(Path(__file__).resolve().parents[1])
    code = (
        "import sys, types; package = types.ModuleType('nyu_llm_frames'); "
        "package.__path__ = [sys.argv.pop(1)]; sys.modules['nyu_llm_frames'] = package; "
        "from nyu_llm_frames.local.__main__ import main; sys.exit(main())"
    )
    given = {**spec.arguments(), **asdict(options), "data": str(folder.parent)}
    command = [sys.executable, "-P", "-c", code, home, json.dumps({**given, "until_unused": True})]
    begin = log.stat().st_size if log.exists() else 0
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            cwd=folder,
            start_new_session=True,  # Ctrl-C in a notebook or terminal must not reach it
        )
    finally:
        os.close(handle)
    # A waiting thread reaps it: no zombie, no warning about a child left running.
    threading.Thread(target=child.wait, name="embedded-gateway", daemon=True).start()
    pause_s = 0.02
    deadline = time.monotonic() + START_S
    while (running := paths.read_running(folder)) is None or running.pid != child.pid:
        code_ = child.poll()
        if code_ is not None:
            if is_served(folder):
                return  # `serve` in a terminal was faster
            _report_death(log, begin, code_)
        if time.monotonic() > deadline:
            child.kill()
            raise GatewayUnavailableError(
                f"The embedded gateway was not ready after {START_S:.0f} s: see {log}"
            )
        time.sleep(pause_s)
        pause_s = min(0.1, pause_s * 1.5)


def _report_death(log: Path, begin: int, code: int) -> None:
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - 3000))
        text = file.read().decode("utf-8", "replace").strip()
    if code == USAGE:  # the server's own message, written for the user
        raise ConfigurationError(text.rpartition("nyu-llm-frames serve: ")[2])
    raise GatewayUnavailableError(
        f"The embedded gateway ended while it started (exit code {code}). The end of {log}:\n"
        f"{text}\nA running server can answer instead: upstream='http://127.0.0.1:11434/v1'."
    )
