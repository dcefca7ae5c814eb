"""Nothing foreign escapes: whatever a gateway, a stranger's sidecar or a file system does.

What a gateway may say is any JSON; what a sidecar may hold is any file. Only our errors come out,
no file and no address outside is touched, and no terminal is steered.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.callers import FAST, MODEL
from support.http_server import Answer, Request
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.wire import (
    Created,
    Refused,
    Uncertain,
    is_plain_id,
    read_batch,
    read_list,
)
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import (
    ConfigurationError,
    GatewayError,
    LLMFramesError,
    NotPicklableError,
    SidecarDamagedError,
    SidecarError,
    SidecarVersionError,
)

FRAME = pd.DataFrame({"q": ["one", "two", "three"]})
BATCH: dict[str, Any] = {
    "id": "7284652661620604928", "object": "batch", "status": "completed",
    "input_file_id": "gs%3A%2F%2Fb%2Fin", "output_file_id": "gs%3A%2F%2Fb%2Fout",
    "request_counts": {"total": 3, "completed": 3, "failed": 0},
}  # fmt: skip


OTHERS = (Refused, Uncertain)


@pytest.fixture(autouse=True)
def _fast(stand_in: StandIn) -> Iterator[None]:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    with llm.set_options(**FAST):
        yield


def batch(stand_in: StandIn, sidecar: Path, **more: Any) -> pd.DataFrame:
    gateway = llm.Gateway(**stand_in.settings)
    return FRAME.llm.batch("{{ q }}", model=MODEL, sidecar=sidecar, gateway=gateway, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sidecar of a run that is over, to be copied."""
    sidecar = tmp_path_factory.mktemp("finished") / "s"
    with StandIn() as gateway, llm.set_options(**FAST):
        gateway.behaviour = Behaviour(validating_polls=0, running_polls=0)
        batch(gateway, sidecar)
    return sidecar


# --- any JSON ----------------------------------------------------------------------------------
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3)
)
like_a_batch = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(BATCH, values), "errors": values}
).map(lambda changed: {**BATCH, **changed})
like_a_list = st.fixed_dictionaries(
    {"data": st.lists(like_a_batch | values, max_size=4)}, optional={"has_more": values}
)
a_word = (values | like_a_batch | like_a_list).map(lambda v: json.dumps(v).encode())


@given(a_word)
def test_what_is_read_of_any_json_can_be_kept_and_sent(body: bytes) -> None:
    found = read_batch(body)
    if found is not None:
        assert is_plain_id(found.id)
        assert found.counted is None or 0 <= found.counted < 2**63
        assert found.error is None or found.error.isprintable() or "\n" in found.error
        pa.scalar(found.counted, pa.int64())
        pa.scalar(found.error, pa.string())
    listed = read_list(body)
    if listed is not None:
        assert all(is_plain_id(batch_id) for batch_id, _ in listed.batches)


@pytest.fixture
def connection(stand_in: StandIn) -> Iterator[Connection]:
    open_ = llm.Gateway(**stand_in.settings).connect()
    yield open_
    open_.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(word=a_word, status=st.sampled_from([200, 246, 400, 446, 500]))
def test_any_json_of_a_gateway_raises_nothing_but_ours(
    word: bytes, status: int, stand_in: StandIn, connection: Connection, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_in, "route", lambda request: Answer(status, word))
        outcome = connection.create("gs://b/in", MODEL)
        assert isinstance(outcome, Created if read_batch(word) and status < 300 else OTHERS)
        calls: list[Callable[[], object]] = [
            lambda: connection.upload(io.BytesIO(b"{}\n"), "n", MODEL),
            lambda: connection.retrieve("1"),
            connection.list,
            lambda: connection.stored_bytes("gs%3A%2F%2Fb%2Fin"),
            lambda: connection.complete(b"{}"),
            lambda: connection.cancel("1"),
        ]
        for call in calls:
            with contextlib.suppress(LLMFramesError):
                call()


@pytest.mark.parametrize(
    "counts", [2**63, -(2**63), 10**400, "9" * 30, "9" * 5000, True, 1e300, "many", [3], {}]
)
def test_a_job_with_any_counts_ends(
    counts: object, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stand_in.route

    def route(request: Request) -> Answer:
        reply = real(request)
        if b'"object": "batch"' in reply.body or b'"object":"batch"' in reply.body:
            value = json.loads(reply.body)
            value["request_counts"] = {"total": counts, "completed": counts, "failed": counts}
            reply.body = json.dumps(value).encode()
        return reply

    monkeypatch.setattr(stand_in, "route", route)
    out = batch(stand_in, tmp_path / "s", timeout=30)
    assert out["response"].tolist() == [answer(q) for q in FRAME["q"]]


# --- ids and addresses -------------------------------------------------------------------------
STRANGE_IDS = ["../files/x?y=1#", "..", ".", "a/b", "a b", "a%2Fb", "ü", "1" * 201, "1\n", ""]


@pytest.mark.parametrize("batch_id", STRANGE_IDS)
def test_no_strange_id_is_read(batch_id: str) -> None:
    page = {"data": [{**BATCH, "id": batch_id}], "has_more": False}
    listed = read_list(json.dumps(page).encode())
    assert listed is not None
    assert listed.batches == ()
    assert not listed.reaches(None)
    assert read_batch(json.dumps({**BATCH, "id": batch_id}).encode()) is None


def test_no_strange_id_of_a_user_or_a_record_gets_into_an_address(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.script.add("create", status=500)
    with llm.set_options(submit_settle_s=1000):
        batch(stand_in, tmp_path / "s", wait=False)
    before, gateway = len(stand_in.log), llm.Gateway(**stand_in.settings)
    (path,) = (tmp_path / "s" / "jobs").glob("*.parquet")
    kept = path.read_bytes()
    for batch_id in [*STRANGE_IDS, 7]:
        path.write_bytes(kept)
        with pytest.raises(ConfigurationError, match="cannot be the id of a batch job"):
            StoredRun(tmp_path / "s", gateway=gateway).resolve(adopt=batch_id)  # type: ignore[arg-type]
        rewrite(path, step="live", batch_id=batch_id)
        with pytest.raises(SidecarDamagedError):
            batch(stand_in, tmp_path / "s", wait=False)
    assert len(stand_in.log) == before


@pytest.mark.parametrize(
    ("file_id", "path"),
    [
        ("gs%3A%2F%2Fb%2Fout%2Fpredictions.jsonl", "gs%3A%2F%2Fb%2Fout%2Fpredictions.jsonl"),
        ("gs://b/out/predictions.jsonl", "gs%3A%2F%2Fb%2Fout%2Fpredictions.jsonl"),
        ("../batches?x#y", "..%2Fbatches%3Fx%23y"),
        ("..", None),
        ("%2e%2e", None),
        ("", None),
    ],
)
def test_a_file_s_id_is_one_part_of_an_address(
    file_id: str, path: str | None, stand_in: StandIn
) -> None:
    with contextlib.closing(llm.Gateway(**stand_in.settings).connect()) as connection:
        connection.stored_bytes(file_id)
        with contextlib.suppress(GatewayError):
            list(connection.content(file_id))
    wanted = [] if path is None else [f"/v1/files/{path}", f"/v1/files/{path}/content"]
    assert [p for _, p in stand_in.log] == wanted


# --- a stranger's sidecar -----------------------------------------------------------------------
def rewrite(path: Path, **changed: Any) -> None:
    """Change cells of a record, as somebody else's program may."""
    table = pq.read_table(path)
    for name, value in changed.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array([value] * len(table)))
    pq.write_table(table, path)


def drop(path: Path, name: str) -> None:
    pq.write_table(pq.read_table(path).drop_columns([name]), path)


def mark(path: Path, version: str) -> None:
    meta = {b"nyu_llm_frames.format": version.encode()}
    pq.write_table(pq.read_table(path).replace_schema_metadata(meta), path)


NO_TEXT = pa.scalar(None, pa.string())
FOREIGN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "answers without a column": ("answers", lambda p: drop(p, "text")),
    "answers of another type": ("answers", lambda p: rewrite(p, text=7)),
    "ids of another type": ("answers", lambda p: rewrite(p, custom_id=7)),
    "an unknown status": ("answers", lambda p: rewrite(p, status="fine")),
    "a status that no answer has": ("answers", lambda p: rewrite(p, status="pending")),
    "no status": ("answers", lambda p: rewrite(p, status=NO_TEXT)),
    "requests without ids": ("requests", lambda p: drop(p, "custom_id")),
    "requests of another type": ("requests", lambda p: rewrite(p, custom_id=7)),
    "requests with no id": ("requests", lambda p: rewrite(p, custom_id=NO_TEXT)),
    "a job without a realm": ("jobs", lambda p: drop(p, "realm")),
    "a job in no step": ("jobs", lambda p: rewrite(p, step="fine")),
    "a job that counts in words": ("jobs", lambda p: rewrite(p, requests="many")),
    "a job named like a path": ("jobs", lambda p: rewrite(p, name="../../elsewhere")),
    "a job of another name": ("jobs", lambda p: rewrite(p, name="20260101-000000-abcdef01-1")),
    "a copy of a job": ("jobs", lambda p: shutil.copy(p, p.with_stem(f"{p.stem} (copy)"))),
    "a live job without an id": ("jobs", lambda p: rewrite(p, step="live", batch_id=None)),
    "a job that says too little": ("jobs", lambda p: rewrite(p, step="creating", input_file_id="")),
    "a run of another name": ("runs", lambda p: rewrite(p, name="../x")),
    "a run without a model": ("runs", lambda p: drop(p, "model")),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_named_with_what_can_be_rebuilt(
    kind: str, finished: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    folder, change = FOREIGN[kind]
    shutil.copytree(finished, tmp_path / "s")
    (path,) = (tmp_path / "s" / folder).glob("*.parquet")
    change(path)
    more = pd.concat([FRAME, pd.DataFrame({"q": ["four"]})])
    asked: dict[str, Any] = {"model": MODEL, "sidecar": tmp_path / "s"}
    asked["gateway"] = llm.Gateway(**stand_in.settings)
    doors: list[Callable[[], object]] = [
        lambda: more.llm.batch("{{ q }}", **asked),
        lambda: StoredRun(tmp_path / "s").answers(),
        lambda: getattr(llm.open_sidecar(tmp_path / "s"), folder)(),
    ]
    if folder == "runs":  # of which only a look at them, and an estimate, reads
        doors = doors[2:]
    if folder == "requests":
        doors = doors[:2]
    if kind.startswith(("an unknown", "a status", "no status")):
        doors = doors[:2]  # to look at it is possible
    for door in doors:
        with pytest.raises(SidecarDamagedError) as e:
            door()
        assert str(path.parent) in str(e.value)
        assert "Delete it" in str(e.value) or "Restore it" in str(e.value)
    assert stand_in.log == []


@pytest.mark.parametrize("version", ["0", "99", "9" * 5000, "one", "-1", ""])
@pytest.mark.parametrize("folder", ["jobs", "requests", "answers", "runs"])
def test_another_format_is_refused(
    folder: str, version: str, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "s")
    (path,) = (tmp_path / "s" / folder).glob("*.parquet")
    mark(path, version)
    stored = Sidecar(tmp_path / "s", SystemClock())
    doors = {
        "jobs": stored.jobs,
        "requests": lambda: stored.request_ids(path.stem),
        "answers": lambda: llm.open_sidecar(tmp_path / "s").answers(),
        "runs": stored.runs,
    }
    kind = SidecarVersionError if version in ("0", "99") else SidecarDamagedError
    with pytest.raises(kind, match=str(path)):
        doors[folder]()


cells = scalars | st.lists(scalars, max_size=2) | st.datetimes() | st.binary()
records = st.dictionaries(st.sampled_from(Job.__struct_fields__), cells, max_size=4)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=records)
def test_any_record_of_a_job_raises_nothing_but_ours(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    sidecar = Sidecar(tmp_path / "s", SystemClock())
    job = Job(name="a", run="r", owner="", realm="@v", model="m", requests=1, file_bytes=1)
    row = {**msgspec.structs.asdict(job), **changed}
    columns = {}
    for name, value in row.items():
        with contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError):
            columns[name] = pa.array([value])
    path = tmp_path / "s" / "jobs" / "a.parquet"
    with contextlib.suppress(pa.ArrowException):
        pq.write_table(
            pa.table(columns).replace_schema_metadata({"nyu_llm_frames.format": "1"}), path
        )
        with contextlib.suppress(LLMFramesError):
            assert sidecar.jobs().keys() <= {"a"}
        with contextlib.suppress(LLMFramesError):
            llm.open_sidecar(tmp_path / "s").jobs()


@pytest.mark.parametrize("what", ["file", "folder", "README.txt"])
def test_a_copy_to_share_follows_no_link(what: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "s")
    secret = tmp_path / "secret"
    secret.write_text("the key")
    if what == "file":
        (tmp_path / "s" / "answers" / "000009-x.parquet").symlink_to(secret)
    elif what == "folder":
        shutil.move(tmp_path / "s" / "runs", tmp_path / "elsewhere")
        (tmp_path / "s" / "runs").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "s" / what).unlink()
        (tmp_path / "s" / what).symlink_to(secret)
    opened = llm.open_sidecar(tmp_path / "s")
    if what == "README.txt":
        opened.export(tmp_path / "copy")  # it has one of its own
    else:
        with pytest.raises(SidecarError, match="is a link"):
            opened.export(tmp_path / "copy")
    copied = list((tmp_path / "copy").rglob("*"))
    assert not any(p.is_file() and b"the key" in p.read_bytes() for p in copied)


def test_a_disk_that_forgets_a_handle_hides_no_answer(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def unlink(path: Any, *args: Any, **more: Any) -> None:
        if ".parquet." in str(path) or ".jsonl." in str(path):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        real(path, *args, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    assert batch(stand_in, tmp_path / "s")["response"].notna().all()


# --- what is shown ------------------------------------------------------------------------------
EVIL = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>\u202egnp.exe\r\x9b31m\u2066"


def steers(text: str) -> bool:
    return any(c in text for c in "\x1b\x07\r\x9b\u202e\u2066")


def test_no_message_of_a_gateway_steers_a_terminal_or_a_notebook(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.behaviour = Behaviour(
        validating_polls=0, running_polls=0, terminal="failed", error={"code": 3, "message": EVIL}
    )
    gateway = llm.Gateway(**stand_in.settings)
    with llm.set_options(progress=True):
        run = FRAME.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
        with pytest.raises(LLMFramesError) as e:
            run.wait()
    shown = [str(e.value), repr(run), run._repr_html_(), *capsys.readouterr()]
    shown += [str(run.status.to_dict()), str(run.failures().to_dict())]
    for command in ("status", "failures"):
        shown.append(CliRunner().invoke(cli, [command, str(tmp_path / "s")]).output)
    assert "alert(1)" in str(e.value)
    assert "<script>" not in run._repr_html_()
    assert not any(map(steers, shown)), [text for text in shown if steers(text)]


def test_no_prompt_and_no_json_steers_a_terminal(tmp_path: Path) -> None:
    evil, source = EVIL.replace("\r", ""), tmp_path / "in.csv"
    pd.DataFrame({"q": [f"see {evil}"]}).to_csv(source, index=False)
    words = ["preview", str(source), "--prompt", "{{ q }}"]
    shown, as_json = (CliRunner().invoke(cli, [*words, *m]).output for m in ([], ["--json"]))
    assert "alert(1)" in shown
    assert not steers(shown)
    assert not steers(as_json)
    assert json.loads(as_json)[0]["messages"][0]["content"] == f"see {evil}"


def test_no_record_and_no_page_steers_a_terminal(
    finished: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "s")
    (path,) = (tmp_path / "s" / "jobs").glob("*.parquet")
    rewrite(path, error=EVIL, status=EVIL, model=EVIL)
    for command in (["status"], ["failures"], ["wait"]):
        assert not steers(CliRunner().invoke(cli, [*command, str(tmp_path / "s")]).output)
    real = stand_in.route
    stand_in.route = lambda request: Answer(400, f"<p>{EVIL}".encode())  # type: ignore[method-assign]
    opened = contextlib.closing(llm.Gateway(**stand_in.settings).connect())
    with opened as connection, pytest.raises(LLMFramesError) as e:
        connection.retrieve("1")
    stand_in.route = real  # type: ignore[method-assign]
    assert not steers(str(e.value))


# --- what travels -------------------------------------------------------------------------------
def test_a_gateway_travels_without_its_secrets(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "canary-secret-value"
    gateway = llm.Gateway(
        api_key=secret, base_url=stand_in.base_url, bucket=stand_in.bucket, trace_id="t"
    )
    sent = pickle.dumps(gateway)
    assert secret.encode() not in sent
    there = pickle.loads(sent)
    assert repr(there) == repr(gateway).replace("api_key='***', ", "")
    assert (there.realm, there.identity) == (gateway.realm, gateway.identity)
    assert copy.deepcopy(gateway) == copy.copy(gateway) == gateway
    with pytest.raises(ConfigurationError, match="PORTKEY_API_KEY"):
        there.connect()
    monkeypatch.setenv("PORTKEY_API_KEY", stand_in.api_key)
    out = FRAME.llm.batch("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=there)
    assert out["response"].notna().all()


@pytest.mark.parametrize(
    "options",
    [
        {"Authorization": "Bearer canary-secret"},
        {"virtual_key": "canary-secret"},
        {"config": '{"targets": [{"api_key": "canary-secret"}]}'},
        {"config": {"targets": [{"api_key": "canary-secret"}]}},
        {"base_url": "https://me:canary-secret@example.org/v1"},
    ],
)
def test_an_option_that_is_a_secret_stays_and_is_told(options: dict[str, Any]) -> None:
    gateway = llm.Gateway(api_key="canary-secret", bucket="b", vertex_project_id="p", **options)
    for _ in range(2):  # there, and further on
        sent = pickle.dumps(gateway)
        assert b"canary" not in sent
        gateway = pickle.loads(sent)
    assert "vertex_project_id='p'" in repr(gateway)
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        gateway.connect()


def test_what_cannot_travel_says_so(stand_in: StandIn, tmp_path: Path) -> None:
    with httpx.Client() as client:
        for gateway, name in [
            (llm.Gateway(client=stand_in.portkey()), "client="),
            (llm.Gateway(http_client=client), "http_client="),
        ]:
            with pytest.raises(NotPicklableError, match=name):
                pickle.dumps(gateway)
    gateway = llm.Gateway(**stand_in.settings)
    run = FRAME.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
    with pytest.raises(NotPicklableError, match="open_sidecar") as e:
        pickle.dumps(run)
    assert isinstance(pickle.loads(pickle.dumps(e.value)), TypeError)


def test_what_only_reads_a_sidecar_travels(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = llm.Gateway(**stand_in.settings)
    FRAME.llm.submit("{{ q }}", model=MODEL, sidecar=tmp_path / "s", gateway=gateway)
    monkeypatch.setenv("PORTKEY_API_KEY", stand_in.api_key)
    stored = pickle.loads(pickle.dumps(StoredRun(tmp_path / "s", gateway=gateway, retries=0)))
    stored.wait()
    opened = pickle.loads(pickle.dumps(llm.open_sidecar(tmp_path / "s")))
    assert len(opened.answers()) == len(FRAME)
