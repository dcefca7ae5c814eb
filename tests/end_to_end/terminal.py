"""The command line as a user meets it: the installed program, or the same words in this process.

Comes in: words, the settings of a gateway. Goes out: an exit code, standard output and error. What
nobody may ever read there, a traceback or the key, is looked for after every command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from gateway_lab.harness import Harness

from nyu_llm_frames.cli.main import cli

PROGRAM = Path(sysconfig.get_path("scripts")) / "nyu-llm-frames"
QUICK = ("--poll-interval", "0.05")
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What a script reads: standard output is one JSON document and nothing else."""
        return json.loads(self.stdout)


class Terminal:
    """Commands with the settings of a gateway; `environment` may be changed."""

    def __init__(self, gateway: Harness) -> None:
        self._gateway = gateway
        self.environment = dict(gateway.environment)

    def program(self, *words: str, code: int = 0, keyless: bool = False) -> Said:
        """Run the installed program in a process of its own, without any settings if `keyless`."""
        with self.started(*words, keyless=keyless) as process:
            return self.ended(process, code)

    @contextmanager
    def started(self, *words: str, keyless: bool = False) -> Iterator[subprocess.Popen[str]]:
        """Start the program, for a block that ends with `ended`."""
        settings = {} if keyless else self.environment
        # A shell's background job ignores Ctrl-C, and so would the program that it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [PROGRAM, *QUICK, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **settings},
            )
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            try:
                yield process
            finally:
                process.kill()  # nothing, when it has ended

    def ended(self, process: subprocess.Popen[str], code: int, before: str = "") -> Said:
        """Wait for the end of a program of which `before` was read already, and look at it."""
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        return self._looked_at(Said(process.returncode, stdout, before + stderr), code)

    def here(self, *words: str, code: int | None = 0) -> Said:
        """Run the same words in this process, where a process of its own would add nothing.

        None for `code` leaves it to the test.
        """
        result = CliRunner().invoke(
            cli, [*QUICK, *words], prog_name="nyu-llm-frames", env=self.environment
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return self._looked_at(Said(result.exit_code, result.stdout, result.stderr), code)

    def _looked_at(self, said: Said, code: int | None) -> Said:
        assert code in (None, said.code), f"{said.stdout}\n{said.stderr}"
        told = said.stdout + said.stderr
        assert "Traceback" not in told, told
        for key in (self._gateway.api_key, self.environment["PORTKEY_API_KEY"]):
            assert key not in told
        return said


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read a program's standard error to the line that holds a word; return what was read."""
    assert process.stderr is not None
    guard = threading.Timer(PATIENCE_S, process.kill)  # a program that says nothing ends here
    guard.start()
    told = ""
    try:
        for line in process.stderr:
            told += line
            if word in line:
                return told
    finally:
        guard.cancel()
    raise AssertionError(f"it never said {word!r}, but: {told}")


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true at the gateway."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


def submits(gateway: Harness) -> int:
    """Count the submits that reached Google: each may be a paid job."""
    return sum(
        call["method"] == "POST" and call["path"].endswith("/batchPredictionJobs")
        for call in gateway.log()
    )


def finish(gateway: Harness) -> None:
    """Let every job that runs for ever end at its next poll."""
    for job in gateway.jobs():
        gateway.force_job(job["name"].rsplit("/", 1)[1], polls=10**9)


FOR_EVER = 10**8
"""Polls that a job runs, until `finish`."""
