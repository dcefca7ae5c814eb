"""What a child process does: one call of `df.llm.batch`, with a place at which it dies.

Comes in: the texts of a frame, a folder, a place. Goes out: the answers, printed as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import ssl
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import portkey_ai  # noqa: F401  (imported once, in the process that all are forked from)

import nyu_llm_frames as llm

FAST: dict[str, Any] = {
    "progress": False,
    "poll_interval_s": 0.01,
    "max_poll_interval_s": 0.03,
    "submit_settle_s": 0.15,
    "output_settle_s": 0.15,
}
MODEL = "gemini-3-flash-preview"


def warm() -> None:
    """Load what a call needs, and leave out what costs time and means nothing here.

    Called in the process that others are forked from. A killed process's writes survive it without
    fsync; on loopback nobody asks for certificates.
    """
    ssl.SSLContext.load_verify_locations = lambda *a, **k: None  # type: ignore[method-assign]
    os.fsync = lambda fd: None
    frame = pd.DataFrame({"q": ["text"]})
    frame.llm.preview("{{ q }}")
    frame.llm.estimate("{{ q }}", model=MODEL, sidecar="nowhere", gateway=llm.Gateway(bucket="b"))
    llm.Gateway(api_key="none", bucket="b").connect()


class Effects:
    """Counts what the process does to the world, and kills it before one of these effects.

    On the disk every step of the sidecar is a rename, a link, a removal or a new folder; to the
    gateway it is a request. What a killed process has written stays in the system's memory, so
    fsync is no effect of its own.
    """

    def __init__(self, die_at: int) -> None:
        self.die_at, self.names = die_at, list[str]()
        replace, unlink, mkdir, link = Path.replace, Path.unlink, Path.mkdir, os.link
        send = httpx.Client.send

        def watched_unlink(path: Path, *args: Any, **kwargs: Any) -> None:
            self.effect("unlink" if path.exists() else "")
            unlink(path, *args, **kwargs)

        def watched_mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            self.effect("" if path.exists() else "mkdir")
            mkdir(path, *args, **kwargs)

        def watched(act: Callable[..., Any], name: str) -> Callable[..., Any]:
            def acts(*args: Any, **kwargs: Any) -> Any:
                self.effect(name)
                return act(*args, **kwargs)

            return acts

        changed: Any = Path
        changed.replace, changed.unlink = watched(replace, "rename"), watched_unlink
        changed.mkdir, os.link = watched_mkdir, watched(link, "link")
        client: Any = httpx.Client
        client.send = watched(send, "request")

    def effect(self, name: str) -> None:
        """Come by an effect; "" is none, for nothing would change."""
        if name:
            self.names.append(name)
            if len(self.names) == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def call(
    texts: list[str],
    sidecar: str,
    *,
    die_at: int = 0,
    per_file: int = 4,
    wait: bool = True,
    options: dict[str, Any] | None = None,
) -> None:
    """Make the call, and print its answers and its effects."""
    effects = Effects(die_at)
    warnings.simplefilter("error")
    frame = pd.DataFrame({"q": texts})
    with llm.set_options(**{**FAST, "max_requests_per_file": per_file, **(options or {})}):
        out = frame.llm.batch("{{ q }}", model=MODEL, sidecar=sidecar, wait=wait, details=True)
    tell(out, effects)


def tell(out: pd.DataFrame, effects: Effects) -> None:
    """Print answers, statuses and effects."""
    print(
        json.dumps(
            {
                "answers": [None if pd.isna(a) else a for a in out["response"]],
                "status": out["response_status"].astype(str).tolist(),
                "effects": effects.names,
            }
        )
    )
    sys.stdout.flush()


def tell_everything(texts: list[str], sidecar: str, calls: int) -> None:
    """Make calls that fail in many ways, and print all that a person could see of them."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, force=True)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)
    frame = pd.DataFrame({"q": texts})
    gateway = llm.Gateway(api_key=os.environ["PORTKEY_API_KEY"], vertex_token="CANARY-token-value")
    print(repr(gateway), gateway)
    warnings.simplefilter("always")
    for _ in range(calls):
        run: Any = None
        with llm.set_options(**{**FAST, "progress": True}):
            try:
                run = frame.llm.submit(
                    "{{ q }}", model=MODEL, sidecar=sidecar, gateway=gateway, retries=0
                )
                run.wait(timeout=20)
                print("ENDED")
            except llm.errors.LLMFramesError as e:
                shown = traceback.TracebackException.from_exception(e, capture_locals=True)
                print(f"ERROR {type(e).__name__}")
                print("".join(_our_frames(shown)), repr(e), vars(e), pickle.dumps(e))
                logging.exception("failed")
                run = getattr(e, "run", None) or run
        if run is not None:
            print(repr(run), run.status.to_html(), run.failures().to_html(), run.provenance())
            print(getattr(run, "_repr_html_", str)(), run.result().to_html(), vars(run))
    shown_sidecar = llm.open_sidecar(sidecar)
    print(shown_sidecar, shown_sidecar.answers(raw=True).to_dict(), shown_sidecar.jobs().to_dict())
    print(shown_sidecar.runs().to_dict())


def _our_frames(shown: traceback.TracebackException) -> list[str]:
    """Return the lines of a traceback; of other people's frames without their variables."""
    for frame in shown.stack:
        if "nyu_llm_frames" not in frame.filename:
            frame.locals = None
    return list(shown.format())
