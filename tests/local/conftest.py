"""Servers for the tests: each in its own process and store, ended when its tests are over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from local_support import Served, Upstream

collect_ignore: list[str] = []
if not all(map(find_spec, ("starlette", "uvicorn", "python_multipart", "platformdirs"))):
    if os.environ.get("NYU_LLM_REQUIRE_MODEL") == "1":
        raise RuntimeError("NYU_LLM_REQUIRE_MODEL=1, but the extra 'local' is not installed")
    collect_ignore += [p.name for p in Path(__file__).parent.glob("test_*.py")]


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One echo server for all tests that do not harm it."""
    from local_support import Served

    served = Served(data=tmp_path_factory.mktemp("echo"), answers="echo")
    yield served
    served.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers that a test may harm."""
    from local_support import Served

    from nyu_llm_frames.local import paths

    started: list[Served] = []

    def start(**where: Any) -> Served:
        served = Served(data=tmp_path, **where)
        started.append(served)
        return served

    yield start
    for served in started:
        served.http.close()
        for last in (paths.read_running(p.parent) for p in tmp_path.glob("*/server.json")):
            if last is not None:
                try:
                    os.kill(last.pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
        served.wait_end()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Give a tiny OpenAI-compatible server."""
    from local_support import Upstream

    server = Upstream()
    yield server
    server.close()
