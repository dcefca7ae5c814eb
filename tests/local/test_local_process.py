"""One server per store, found or started, alive as long as somebody uses it."""

from __future__ import annotations

import ast
import errno
import fcntl
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from local_support import PATIENCE_S, Served, Upstream, jsonl, request

import nyu_llm_frames
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local import paths, process
from nyu_llm_frames.local.spec import EngineSpec, engine_spec

HOME = Path(nyu_llm_frames.__file__).parents[1]
USER = """
import sys
from pathlib import Path
from nyu_llm_frames.local.process import ensure_server
info = ensure_server(data=Path(sys.argv[1]), answers="echo", grace_s=0.2)
print(info.pid, info.base_url, flush=True)
sys.stdin.read()
"""


def serving(**given: Any) -> list[str]:
    """The command of a server in a process of its own."""
    return [sys.executable, "-m", "nyu_llm_frames.local", json.dumps(given)]


def user(data: Path) -> subprocess.Popen[str]:
    """Start another kernel that uses the gateway until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )


def said(kernel: subprocess.Popen[str]) -> list[str]:
    assert kernel.stdout is not None
    return kernel.stdout.readline().split()


def close(kernel: subprocess.Popen[str]) -> None:
    kernel.communicate(timeout=PATIENCE_S)


def wait_end(data: Path) -> None:
    with paths.server_lock(next(data.glob("*/server.lock")).parent).acquire(timeout=PATIENCE_S):
        pass


def test_kernels_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    kernels = [user(tmp_path) for _ in range(3)]
    answers = [said(kernel) for kernel in kernels]
    assert len(answers[0]) == 2
    assert answers[1:] == answers[:-1]
    for kernel in kernels:
        close(kernel)
    wait_end(tmp_path)


def test_the_server_ends_after_its_last_user_even_a_killed_one(tmp_path: Path) -> None:
    one, two = user(tmp_path), user(tmp_path)
    server = int(said(one)[0])
    assert int(said(two)[0]) == server
    close(one)
    os.kill(server, 0)  # the other still uses it
    two.send_signal(signal.SIGKILL)
    close(two)
    wait_end(tmp_path)
    three = user(tmp_path)
    assert int(said(three)[0]) != server
    close(three)
    wait_end(tmp_path)


def test_a_second_call_finds_the_same_server(echo: Served) -> None:
    assert process.ensure_server(**echo.where) == echo.info


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_folder_without_locks_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigurationError, match=f"{tmp_path}.* cannot be locked"):
        process.ensure_server(data=tmp_path, answers="echo")


def test_a_server_with_other_options_is_not_taken_silently(echo: Served) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens=256"):
        process.ensure_server(**echo.where, max_tokens=99)
    with pytest.raises(ConfigurationError, match="no option 'colour'"):
        process.ensure_server(**echo.where, colour="red")


def test_a_second_server_on_the_same_store_is_refused(echo: Served) -> None:
    done = subprocess.run(
        serving(answers="echo", data=str(echo.where["data"])),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert done.returncode == 2
    assert "A server already runs" in done.stderr


def test_serve_prints_where_it_is_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    child = subprocess.Popen(
        serving(answers="echo", api_key="mine", data=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("base_url: http://127.0.0.1:")
    assert not any("mine" in line for line in lines)
    info = process.ensure_server(data=tmp_path, answers="echo")
    assert (info.pid, info.api_key) == (child.pid, "mine")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    assert not list(tmp_path.glob("*/server.json"))


def test_ctrl_c_does_not_wait_for_a_live_answer(
    tmp_path: Path, upstream: Upstream, serve: Callable[..., Served]
) -> None:
    upstream.gate = 0
    child = subprocess.Popen(
        serving(upstream=upstream.url, data=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("base_url: ")
    served = serve(upstream=upstream.url)
    with ThreadPoolExecutor(1) as threads:
        live = threads.submit(
            served.http.post, "/chat/completions", json=request("r", "now")["body"]
        )
        pause = threading.Event()
        while not upstream.seen and not live.done():
            pause.wait(0.02)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=PATIENCE_S / 2)
        assert live.result().status_code == 503
    assert "ending" in live.result().text
    assert (child.returncode, "Traceback" in told) == (0, False), told


def test_what_lies_in_the_store_is_for_its_owner_only(echo: Served) -> None:
    assert stat.S_IMODE(echo.folder.stat().st_mode) == 0o700
    for name in ("key", "server.json", "server.log", "jobs.sqlite3"):
        assert stat.S_IMODE((echo.folder / name).stat().st_mode) == 0o600
    assert echo.info.api_key not in repr(echo.info)
    assert echo.info.api_key not in repr(paths.read_running(echo.folder))


def test_realms_keep_answers_apart(tmp_path: Path) -> None:
    assert engine_spec().realm == "local:SmolLM2-135M-Instruct.Q4_1"
    assert engine_spec(answers="echo").realm == "local:echo"
    assert engine_spec(upstream="http://h:1/v1/").realm == "upstream:http://h:1/v1"
    one, two = tmp_path / "a" / "my.gguf", tmp_path / "b" / "my.gguf"
    for path, tail in ((one, b"1"), (two, b"2")):
        path.parent.mkdir()
        path.write_bytes(b"GGUF" + b"\0" * 3_000_000 + tail)
    assert engine_spec(model=one).realm.startswith("local:my-")
    assert engine_spec(model=one).realm != engine_spec(model=two).realm
    assert engine_spec(model=one).realm == engine_spec(model=str(one)).realm


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "/no/such.gguf"}, "cannot be read"),
        ({"upstream": "localhost:11434"}, "give a URL"),
        ({"upstream": "http://user:pw@h/v1"}, "upstream_key_env"),
        ({"answers": "parrot"}, "'echo'"),
        ({"answers": "echo", "upstream": "http://h/v1"}, "only one"),
    ],
)
def test_an_engine_without_meaning_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        engine_spec(**wrong)


def test_folders_of_two_realms_are_never_the_same() -> None:
    names = [EngineSpec("upstream", realm).folder for realm in ("upstream:a/b", "upstream:a-b")]
    assert names[0] != names[1]
    assert all(set(name) <= set(paths_safe()) for name in names)


def paths_safe() -> str:
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"


def test_a_missing_extra_names_the_command_and_the_other_ways(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "xllamacpp" else known(name, *rest),
    )
    with pytest.raises(ConfigurationError) as caught:
        process.ensure_server(data=tmp_path)
    text = str(caught.value)
    for word in ('pip install "nyu-llm-frames[local]"', "upstream=", "macOS 13", "answers='echo'"):
        assert word in text


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    folder = paths.store_folder(tmp_path, engine_spec(answers="echo"))
    (folder / "jobs.sqlite3").write_bytes(b"no database at all, but long enough to see it" * 40)
    with pytest.raises(ConfigurationError, match=r"^\S+jobs\.sqlite3 cannot be used"):
        process.ensure_server(data=tmp_path, answers="echo")


def test_a_record_of_a_dead_server_is_not_believed(serve: Callable[..., Served]) -> None:
    served = serve(answers="echo")
    record = (served.folder / "server.json").read_bytes()
    served.end()
    (served.folder / "server.json").write_bytes(record)
    before = served.info.pid
    served.again()
    assert served.info.pid != before
    assert served.wait(served.submit(jsonl(request("a"))))["status"] == "completed"


def test_finding_a_server_imports_no_server_and_no_model() -> None:
    code = (
        "import sys, nyu_llm_frames.local.process, json; "
        "print(json.dumps([m for m in ('starlette', 'uvicorn', 'xllamacpp', 'httpx', "
        "'portkey_ai', 'anyio') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        check=True,
    )
    assert json.loads(done.stdout) == []


def test_no_code_is_shared_with_the_client_side() -> None:
    allowed = ("nyu_llm_frames.local", "nyu_llm_frames.errors")
    for path in Path(process.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [f"{node.module}.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            for name in names:
                assert not name.startswith("nyu_llm_frames") or name.startswith(allowed), path


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"file/echo.*data="):
        process.ensure_server(data=tmp_path / "file" / "echo", answers="echo")


def test_the_demo_goes_through_no_proxy(echo: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    asked = ["demo", "--rows", "3", "--answers", "echo", "--data", str(echo.where["data"])]
    result = CliRunner().invoke(cli, asked)
    assert result.exit_code == 0, result.output
    assert "of 3 answers name a drug" in result.output
