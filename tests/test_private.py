"""Keys and prompts stay private: a canary key is searched in all that a run leaves behind.

The gateway of these tests is malicious or broken: it echoes the key in error pages, in headers, in
the message of a failed job and in a row of an output.
"""

from __future__ import annotations

import json
import os
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support import rows
from support.callers import FAST, MODEL
from support.children import Zygote
from support.faults import operation
from support.http_server import Answer, Request
from support.stand_in import Behaviour, StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._gateway.masking import Mask
from nyu_llm_frames.errors import ConfigurationError, TemplateError

KEY = "CANARY-key-7f3a9c51d2"
TOKEN = "CANARY-token-value"
CANARIES = (KEY, TOKEN)


class Echo(StandIn):
    """A gateway that shows what it was sent, wherever it can."""

    def __init__(self) -> None:
        super().__init__(api_key=KEY)
        self.echoes: dict[str, list[int]] = {}

    def _respond(self, request: Request) -> Answer | None:
        call = operation(f"{request.method} {request.path}")
        if self.echoes.get(call):
            shown = json.dumps(request.headers)
            page = f"<html>{'x' * 280}{shown}{KEY}{'y' * 700}{KEY}{shown}</html>"
            if len(self.echoes[call]) % 2:
                page = json.dumps({"error": {"message": f"{'z' * 290}{KEY} {shown}"}})
            body = page.encode()
            return Answer(self.echoes[call].pop(0), body, headers={"x-echo": KEY, "x-all": TOKEN})
        return super()._respond(request)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.callers") as zygote:
        yield zygote


def search(folder: Path) -> list[str]:
    """Return where a canary is found in a folder: in bytes, or in a parquet file's values."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            data += repr((table.to_pydict(), table.schema.metadata)).encode()
        found += [f"{path}: {name}" for name in CANARIES if name.encode() in data]
    return found


def test_no_key_is_left_anywhere_by_a_run_that_fails_in_every_way(
    zygote: Zygote, tmp_path: Path
) -> None:
    with Echo() as gateway:
        gateway.echoes = {
            "upload": [401, 503, 500],
            "list": [500, 403],
            "create": [401, 400, 500],
            "poll": [500, 401, 404],
            "output": [503, 401],
        }
        message = {"code": 3, "message": f"no access for {KEY} with {TOKEN}"}
        row = rows.failed(400, f"the key {KEY} is not allowed")
        gateway.behaviour = Behaviour(0, 0, "failed", error=message)
        for name in ("home", "temporary", "work"):
            (tmp_path / name).mkdir()
        environment = {
            **gateway.environment,
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "temporary"),
        }

        def then(n: int, method: str, path: str) -> None:
            if len(gateway.jobs) == 2:  # after the first has failed as a whole
                gateway.behaviour = Behaviour(0, 0, row=rows.pick({"secret 1": row}))

        gateway.on_request = then
        child = zygote.run(
            "support.callers:tell_everything",
            environment=environment,
            folder=tmp_path / "work",
            texts=[f"secret {i}" for i in range(5)],
            sidecar=str(tmp_path / "s"),
            calls=14,
        )
        assert child.wait() == 0, child.said
        assert not any(gateway.echoes.values())
    said = child.said
    for kind in ("AuthenticationError", "GatewayError", "BatchJobFailedError"):
        assert f"ERROR {kind}" in said
    assert "ENDED" in said
    assert "is not allowed" in said  # the row's error is there, without the key
    lines = [line[:300] for line in said.splitlines() if any(c in line for c in CANARIES)]
    assert lines == []
    assert search(tmp_path) == []


def test_half_a_key_at_a_cut_is_no_leak() -> None:
    mask = Mask([KEY])
    text = f"{'x' * 990}{KEY}{'y' * 50}".encode()
    for size in range(1, len(KEY) + 2):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        out = b"".join(mask.stream(chunks))
        assert KEY.encode() not in out
        assert len(out) == len(text)  # sizes are compared with the stored file's


def test_a_stream_without_a_key_comes_through_unchanged() -> None:
    data = bytes(range(256)) * 50
    chunks = [data[i : i + 777] for i in range(0, len(data), 777)]
    assert b"".join(Mask([KEY]).stream(chunks)) == data
    assert b"".join(Mask([]).stream(chunks)) == data


def test_a_missing_bucket_shows_no_key_in_a_traceback_with_variables() -> None:
    gateway = llm.Gateway(api_key=KEY)
    with pytest.raises(ConfigurationError) as e:
        gateway.connect()
    shown = traceback.TracebackException.from_exception(e.value, capture_locals=True)
    assert KEY not in "".join(shown.format())


def test_a_password_in_the_address_is_not_remembered() -> None:
    gateway = llm.Gateway(base_url=f"https://me:{KEY}@host/v1")
    assert gateway.identity == "https://host/v1/"
    assert KEY not in repr(gateway)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_folders_are_0700_and_files_0600(mask: int, stand_in: StandIn, tmp_path: Path) -> None:
    modes: dict[str, int] = {}

    def look(*_: object) -> None:
        for path in (tmp_path / "s").rglob("*"):
            try:
                modes[str(path)] = stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue

    gateway = llm.Gateway(**stand_in.settings)
    before = os.umask(mask)
    stand_in.on_request = look
    try:
        (tmp_path / "s").mkdir()  # somebody made it, open to all
        with llm.set_options(**FAST):
            pd.DataFrame({"q": ["a", "b"]}).llm.batch(
                "{{ q }}",
                model=MODEL,
                sidecar=tmp_path / "s",
                gateway=gateway,
            )
        look()
        llm.open_sidecar(tmp_path / "s").export(tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            modes[str(path)] = stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    folders = {p for p in modes if Path(p).name in ("jobs", "requests", "answers", "runs")}
    assert len(folders) == 8
    assert {modes[p] for p in folders} == {0o700}
    assert {p: oct(m) for p, m in modes.items() if p not in folders and m != 0o600} == {}
    for name in ("lock", "lock.owner", ".gitignore"):
        assert str(tmp_path / "s" / name) in modes
    assert any(Path(p).name.startswith("lock.2") for p in modes)  # while the file is sent
    assert not any("jsonl" in p for p in modes)


def test_prompts_go_when_they_are_not_to_be_kept(stand_in: StandIn, tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": ["a secret prompt"]})
    common: dict[str, Any] = {
        "model": MODEL,
        "sidecar": tmp_path / "s",
        "gateway": llm.Gateway(**stand_in.settings),
    }
    stand_in.behaviour = Behaviour(row=rows.says("an answer"))
    with llm.set_options(**FAST):
        frame.llm.batch("{{ q }}", **common)
        assert _holds(tmp_path / "s", "a secret prompt")
        with llm.set_options(keep_prompts=False):
            frame.llm.batch("{{ q }}", **common)  # finished: what was left is dropped now
    assert not _holds(tmp_path / "s", "a secret prompt")


def _holds(folder: Path, text: str) -> bool:
    values = [repr(pq.read_table(path).to_pydict()) for path in folder.rglob("*.parquet")]
    return any(text in value for value in values)


ESCAPES = [
    "{{ q.__class__ }}",
    "{{ q.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__.__base__ }}",
    "{{ q.format.__globals__ }}",
    "{{ '{0.__class__}'.format(q) }}",
    "{{ '{0.__class__}'.format_map({'0': q}) }}",
    "{{ (q|attr('__class__')) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.environ }}",
    "{{ lipsum.__globals__ }}",
    "{{ joiner.__init__ }}",
    "{{ namespace.__init__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config }}",
    "{{ range.__self__ }}",
    "{{ range(10**9)|list }}",
    "{{ row.__class__ }}",
    "{{ row['__class__'] }}",
    "{{ row|attr('_values') }}",
    "{{ row.update({'q': 1}) }}",
    "{{ [].append(q) }}{% set x = [] %}{{ x.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% extends '/etc/passwd' %}",
    "{{ (q.encode() ~ '').__class__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    frame = pd.DataFrame({"q": ["text"]})
    with pytest.raises(TemplateError):
        frame.llm.preview(template)


def test_a_forbidden_attribute_of_many_is_an_error() -> None:
    with pytest.raises(TemplateError, match="access to attribute '__class__'"):
        pd.DataFrame({"q": ["ab"]}).llm.preview("{{ q|map(attribute='__class__')|list }}")
