"""Processes that start in milliseconds: forked from one in which everything is imported.

Comes in: the name of a function, its arguments, an environment. Goes out: a process to wait for or
to kill, and what it printed. Each child is a process like any other: its own pid, its own files.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Child:
    """A running or ended process.

    Attributes
    ----------
    code : int or None
        What `os.waitstatus_to_exitcode` says: 0, an exit code, or minus a signal.
    """

    out: Path
    pid: int = 0
    code: int | None = None
    _started: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def started(self) -> int:
        """Return the pid, as soon as there is one."""
        assert self._started.wait(30)
        return self.pid

    def kill(self) -> None:
        """End it as the power supply does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.started(), signal.SIGKILL)

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code."""
        if not self._ended.wait(seconds):
            self.kill()
            raise AssertionError(f"the child does not end; it said: {self.said}")
        assert self.code is not None
        return self.code

    @property
    def said(self) -> str:
        """What it printed, errors too."""
        return self.out.read_text(errors="replace") if self.out.exists() else ""


class Zygote:
    """The process that all others are forked from; it calls `warm()` of each module once."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self._folder, self._n = folder, 0
        self._children: dict[int, Child] = {}
        self._lock = threading.Lock()
        code = "from support.children import serve; serve()"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_TESTS), *filter(None, sys.path)]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for child in self._children.values():
            if child.code is None:
                child.kill()
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()

    def run(
        self,
        function: str,
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        **arguments: Any,
    ) -> Child:
        """Start ``module:function(**arguments)`` in a process of its own."""
        with self._lock:
            self._n += 1
            number = self._n
            child = self._children[number] = Child(self._folder / f"child-{number}.txt")
        wish = {
            "number": number,
            "function": function,
            "arguments": arguments,
            "environment": environment or {},
            "folder": str(folder or self._folder),
            "out": str(child.out),
        }
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
        return child

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            child = self._children[told["number"]]
            if "pid" in told:
                child.pid = told["pid"]
                child._started.set()
            else:
                child.code = told["code"]
                child._ended.set()


# --- in the zygote ---------------------------------------------------------------------------
def serve() -> None:
    """Fork a child for every line on stdin, and tell of its start and its end on stdout."""
    for module in sys.argv[1:]:
        importlib.import_module(module).warm()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *a: None)
    signal.set_wakeup_fd(waker)
    numbers: dict[int, int] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                wish = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _child(wish)
                numbers[pid] = wish["number"]
                _tell(number=wish["number"], pid=pid)
        while numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            _tell(number=numbers.pop(pid), code=os.waitstatus_to_exitcode(status))


def _tell(**said: int) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def _child(wish: dict[str, Any]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(wish["out"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(wish["environment"])
        os.chdir(wish["folder"])
        module, _, name = wish["function"].partition(":")
        getattr(importlib.import_module(module), name)(**wish["arguments"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
