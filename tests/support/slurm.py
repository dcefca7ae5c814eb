"""Slurm's commands, played: jobs are process groups of this machine, their records are files.

    with Slurm(folder) as slurm:                          # sbatch and scancel in slurm.bin
        number = slurm.submit(script, {**os.environ, **slurm.environment})
        slurm.preempt(number)                             # SIGKILL; with --requeue it starts again

As the manual of sbatch says it: a job has the environment of who submits it; of a job that is
requeued the id stays and SLURM_RESTART_COUNT counts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass
class Slurm:
    """A scheduler without limits: what is submitted runs at once.

    Attributes
    ----------
    folder : Path
        A folder for each job: its script, environment, restarts, process group and output.
    """

    folder: Path
    _started: list[subprocess.Popen[Any]] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)  # of a job that is between two starts

    def __enter__(self) -> Self:
        self.bin.mkdir(parents=True)
        for name in ("sbatch", "scancel"):
            command = self.bin / name
            call = shlex.join([sys.executable, __file__, name])
            command.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
            command.chmod(0o755)
        return self

    def __exit__(self, *exc: object) -> None:
        for job in self.jobs():
            self.kill(job)
        for process in self._started:
            process.wait(30)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """What finds the commands."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PLAYED_SLURM": str(self.folder)}

    def jobs(self) -> list[str]:
        """The ids of all jobs ever started."""
        return sorted((path.parent.name for path in self.folder.glob("*/group")), key=int)

    def submit(self, script: Path, environment: dict[str, str]) -> str:
        """Start a job; return its id."""
        for number in map(str, itertools.count(1)):
            with contextlib.suppress(FileExistsError):
                (job := self.folder / number).mkdir()
                break
        (job / "script").write_text(script.read_text())
        (job / "script").chmod(0o755)
        (job / "environment").write_text(json.dumps(environment))
        self._start(number, 0)
        return number

    def preempt(self, number: str) -> None:
        """Kill a job; start it again where it is to be requeued."""
        lines = (self.folder / number / "script").read_text().splitlines()
        with self._lock:
            self.kill(number)
            if any(line.startswith("#SBATCH") and "--requeue" in line for line in lines):
                self._start(number, self.restarts(number) + 1)

    def kill(self, number: str) -> None:
        """Kill all processes of a job."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((self.folder / number / "group").read_text()), signal.SIGKILL)

    def runs(self, number: str) -> bool:
        """Whether a job has processes."""
        with self._lock:
            for process in self._started:
                process.poll()  # or it stays as a zombie
            try:
                os.killpg(int((self.folder / number / "group").read_text()), 0)
            except ProcessLookupError:
                return False
            return True

    def ended(self, number: str, seconds: float) -> bool:
        """Wait until a job is over; return whether it is."""
        patience = threading.Event()
        for _ in range(int(seconds * 10)):
            if not self.runs(number):
                return True
            patience.wait(0.1)
        return False

    def restarts(self, number: str) -> int:
        """How often a job was requeued."""
        return int((self.folder / number / "restarts").read_text())

    def output(self, number: str) -> str:
        """What a job said."""
        return (self.folder / number / "output").read_text(errors="replace")

    def _start(self, number: str, restarts: int) -> None:
        job = self.folder / number
        environment = json.loads((job / "environment").read_text())
        environment |= {"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": str(restarts)}
        with (job / "output").open("ab") as output:
            process = subprocess.Popen(
                [str(job / "script")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(process)
        (job / "restarts").write_text(str(restarts))
        (job / "group").write_text(str(process.pid))


def main(name: str, argument: str) -> None:
    """Do what one of the commands does."""
    slurm = Slurm(Path(os.environ["PLAYED_SLURM"]))
    if name == "sbatch":
        print("Submitted batch job", slurm.submit(Path(argument), dict(os.environ)))
    else:
        slurm.kill(argument)


if __name__ == "__main__":
    main(*sys.argv[1:])
