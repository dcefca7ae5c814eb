"""The command in this process, with the stand-in as its gateway.

Comes in: words. Goes out: the code and both streams.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

import nyu_llm_frames as llm
from nyu_llm_frames.cli.main import cli
from support.stand_in import StandIn

Run = Callable[..., Result]

# Before click 8.2 both streams come as one unless that is forbidden; later no word is taken for it.
STREAMS = "mix_stderr" in inspect.signature(CliRunner).parameters
SEPARATE: dict[str, Any] = {"mix_stderr": False} if STREAMS else {}


@contextmanager
def command(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Give a function that runs the command with short waits and checks its exit code."""
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)

    def invoke(*words: str, code: int = 0) -> Result:
        result = CliRunner(**SEPARATE).invoke(
            cli, ["--poll-interval", "0.02", *words], prog_name="nyu-llm-frames"
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    with llm.set_options(submit_settle_s=0.2, output_settle_s=0.2, max_poll_interval_s=0.1):
        yield invoke
