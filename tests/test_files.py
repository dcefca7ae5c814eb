"""Files by path: answered as a frame would be, in one band or many, written whole."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn
from support.table_files import MODEL, csv_file, sample_frame

import nyu_llm_frames as llm
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._runs import file_requests as _requests
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._sidecar.bands import prefixes
from nyu_llm_frames._tables import spill as _spill
from nyu_llm_frames._tables.spill import Spill
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    PartialResultError,
    PartialResultWarning,
    RunTimeoutError,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def gateway(stand_in: StandIn) -> llm.Gateway:
    return llm.Gateway(**stand_in.settings)


# --- the same as a frame ----------------------------------------------------------------------
def test_the_sidecar_and_the_lines_tell_of_a_file_what_they_tell_of_a_frame(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    call = {"template": "{{ text }}", "model": MODEL, "gateway": gateway, "max_tokens": 20}
    stand_in.behaviour.row = rows.says('{"drug": "x"}')
    file = csv_file(tmp_path / "in.csv")
    schema = {"drug": str}
    said: dict[str, list[str]] = {"frame": [], "file": []}
    with llm.set_options(progress=lambda p: said["frame"].append(p.message)):
        frame = pd.read_csv(file).drop(columns="note")
        frame.llm.batch(**call, schema=schema, sidecar=tmp_path / "frame.llm")
    with llm.set_options(progress=lambda p: said["file"].append(p.message)):
        llm.batch_file(file, tmp_path / "out.csv", schema=schema, **call)
    for lines, name in ((said["frame"], "frame"), (said["file"], "out")):
        assert lines[0] == f"new sidecar: {tmp_path / name}.llm"
        assert sum("thinks by default" in line for line in lines) == 1
    runs = [llm.open_sidecar(tmp_path / f"{name}.llm").runs() for name in ("frame", "out")]
    same = ["template", "schema", "params", "model", "realm", "gateway", "output", "versions"]
    pd.testing.assert_frame_equal(*(run[[*same, "rows", "requests"]] for run in runs))
    assert "drug" in runs[1]["schema"][0]


def test_connections_are_closed(
    tmp_path: Path, gateway: llm.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Counter[str]()
    for name in ("__init__", "close"):
        real = getattr(Connection, name)

        def counted(*args: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
            count[_name] += 1
            return _real(*args, **more)

        monkeypatch.setattr(Connection, name, counted)
    llm.batch_file(csv_file(tmp_path / "in.csv"), tmp_path / "out.csv", "{{ text }}", model=MODEL,
                   gateway=gateway)  # fmt: skip
    pd.DataFrame({"q": ["a"]}).llm.submit("{{ q }}", model=MODEL, gateway=gateway, sidecar="s")
    StoredRun("s", gateway=gateway).wait()
    assert count == {"__init__": 3, "close": 3}


def test_a_mistyped_argument_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no argument max_token=\. Did you mean max_tokens=\?"):
        llm.batch_file(
            csv_file(tmp_path / "in.csv"), tmp_path / "o.csv", "x", model="m", max_token=3
        )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_a_file_has_the_same_requests_as_the_frame_that_pandas_reads(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str
) -> None:
    frame = sample_frame().drop(columns=["when"] if suffix in (".jsonl", ".csv", ".tsv") else [])
    path = tmp_path / f"in{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
        read = pd.read_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
        read = pd.read_json(path, lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
        read = pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",")
    extra = " {{ when }}" if "when" in frame else ""
    template = "{{ number }} {{ half }} {{ word }} {{ maybe | default('-') }} {{ index }}" + extra
    result = llm.batch_file(
        path, tmp_path / "out.parquet", template, model=MODEL, gateway=gateway, details=True
    )
    jobs = len(stand_in.jobs)
    expected = read.llm.batch(
        template, model=MODEL, gateway=gateway, details=True, sidecar=result.sidecar
    )
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert len(stand_in.jobs) == jobs  # the frame paid nothing: every id was known
    assert list(out.columns) == list(expected.columns)
    for name in ("response", "response_custom_id", "response_status"):
        assert out[name].tolist() == expected[name].tolist()
    assert result.counts == {"ok": 50}


def test_output_columns_have_the_types_that_a_frame_has(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    path = tmp_path / "in.parquet"
    frame = sample_frame(3)
    frame.to_parquet(path)
    schema = {"kind": ["a", "b"], "n": int, "tags": list[str]}
    arguments: dict[str, Any] = {
        "model": MODEL,
        "gateway": gateway,
        "schema": schema,
        "details": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartialResultWarning)
        llm.batch_file(path, tmp_path / "out.parquet", "{{ word }}", **arguments)
        expected = frame.llm.batch("{{ word }}", sidecar=tmp_path / "out.llm", **arguments)
    expected.to_parquet(tmp_path / "expected.parquet")
    ours = pq.read_schema(tmp_path / "out.parquet")
    theirs = pq.read_schema(tmp_path / "expected.parquet")
    assert ours.names == theirs.names
    for name in ours.names:
        a, b = ours.field(name).type, theirs.field(name).type
        assert str(a).replace("large_", "") == str(b).replace("large_", ""), name


def test_schema_fields_become_columns_of_the_file(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.row = rows.says('{"drug": "heroin"}')
    llm.batch_file(
        csv_file(tmp_path / "in.csv"),
        tmp_path / "out.csv",
        "{{ text }}",
        model=MODEL,
        gateway=gateway,
        schema={"drug": ["cocaine", "heroin"]},
    )
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["drug"].tolist() == ["heroin"] * 3
    assert list(out.columns) == ["id", "year", "text", "note", "drug", "response_error"]


# --- runs -------------------------------------------------------------------------------------
def test_a_second_call_pays_nothing_and_needs_no_key(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    path = csv_file(tmp_path / "in.csv")
    llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    first = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    keyless = llm.Gateway(provider=stand_in.provider)
    llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=keyless)
    assert (tmp_path / "out.csv").read_bytes() == first
    assert len(stand_in.jobs) == 1


def test_no_wait_writes_what_is_there_and_comes_back(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.running_polls = -1
    path = csv_file(tmp_path / "in.csv")
    arguments: dict[str, Any] = {"model": MODEL, "gateway": gateway, "wait": False, "details": True}
    result = llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", **arguments)
    assert result.counts == {"pending": 3}
    stand_in.finish()
    for _ in range(4):
        result = llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", **arguments)
    assert result.counts == {"ok": 3}
    assert len(stand_in.jobs) == 1


def test_a_timeout_leaves_the_jobs_and_hands_over_a_run(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.running_polls = -1
    path = csv_file(tmp_path / "in.csv")
    with pytest.raises(RunTimeoutError) as caught:
        llm.batch_file(
            path, tmp_path / "o.csv", "{{ text }}", model=MODEL, gateway=gateway, timeout=0.1
        )
    assert not (tmp_path / "o.csv").exists()
    stand_in.behaviour.running_polls = 0
    stand_in.finish()
    assert caught.value.run is not None
    caught.value.run.wait()
    result = llm.batch_file(path, tmp_path / "o.csv", "{{ text }}", model=MODEL, gateway=gateway)
    assert result.counts == {"ok": 3}
    assert len(stand_in.jobs) == 1


def test_a_job_without_an_answer_raises(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.terminal = "failed"
    with pytest.raises(BatchJobFailedError):
        llm.batch_file(
            csv_file(tmp_path / "in.csv"),
            tmp_path / "o.csv",
            "{{ text }}",
            model=MODEL,
            gateway=gateway,
        )


def test_rows_without_a_good_answer_warn_or_raise_after_writing(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.row = rows.pick({"plain": rows.blocked})
    path = csv_file(tmp_path / "in.csv")
    with pytest.warns(PartialResultWarning, match=r"1 of 3 rows.*1 blocked \(row 1"):
        llm.batch_file(path, tmp_path / "o.csv", "{{ text }}", model=MODEL, gateway=gateway)
    with pytest.raises(PartialResultError) as caught:
        llm.batch_file(
            path, tmp_path / "p.csv", "{{ text }}", model=MODEL, gateway=gateway, on_error="raise"
        )
    assert caught.value.counts == {"ok": 2, "blocked": 1}
    assert (tmp_path / "p.csv").exists()


def test_nothing_but_output_and_sidecar_is_left(tmp_path: Path, gateway: llm.Gateway) -> None:
    path = csv_file(tmp_path / "in.csv")
    llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "out.csv", "out.llm"}


# --- bands ------------------------------------------------------------------------------------
@pytest.fixture
def _tiny_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_requests, "LIMIT_BYTES", 2_000)
    monkeypatch.setattr(_spill, "LIMIT_BYTES", 2_000)
    monkeypatch.setattr(_requests, "PART_BYTES", 500)
    monkeypatch.setattr(_requests, "BAND_BYTES", 3_000)


@pytest.mark.usefixtures("_tiny_bands")
def test_many_bands_give_what_one_gives(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    frame = pd.DataFrame({"n": [i % 400 for i in range(1_000)], "x": "word " * 3})
    frame.to_csv(tmp_path / "in.csv", index=False)
    result = llm.batch_file(
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        "{{ n }} {{ x }}",
        model=MODEL,
        gateway=gateway,
        details=True,
    )
    assert result.requests == 400
    assert len(stand_in.jobs) > 3  # several bands, a job each
    sent = [custom_id for job in stand_in.jobs for custom_id in job.custom_ids]
    assert len(sent) == len(set(sent)) == 400
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["n"].tolist() == frame["n"].tolist()
    expected = frame.llm.batch(
        "{{ n }} {{ x }}", model=MODEL, gateway=gateway, sidecar=result.sidecar
    )
    assert out["response"].tolist() == expected["response"].tolist()


@pytest.mark.usefixtures("_tiny_bands")
def test_bands_retry_what_failed_and_nothing_else(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    def seven(custom_id: str, body: rows.Body) -> rows.Row | None:
        return rows.failed(503) if "7" in rows.last_user_text(body) else None

    stand_in.behaviour.row = rows.pick(seven)
    frame = pd.DataFrame({"n": range(200), "x": "word " * 3})
    frame.to_csv(tmp_path / "in.csv", index=False)
    with pytest.warns(PartialResultWarning):
        llm.batch_file(
            tmp_path / "in.csv", tmp_path / "o.csv", "{{ n }} {{ x }}", model=MODEL, gateway=gateway
        )
    sent = [custom_id for job in stand_in.jobs for custom_id in job.custom_ids]
    twice = {i for i in sent if sent.count(i) == 2}
    failed = {i for i in range(200) if "7" in str(i)}
    assert len(twice) == len(failed)
    assert len(set(sent)) == 200


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20))
def test_prefixes_are_the_first_six_digits(digests: list[bytes]) -> None:
    ids = pa.array([f"r-{d.hex()}" for d in digests])
    assert prefixes(ids).tolist() == [int(d.hex()[:6], 16) for d in digests]
    assert prefixes(ids[1:]).tolist() == [int(d.hex()[:6], 16) for d in digests[1:]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=8), st.integers(0, 200))
def test_a_spill_gives_back_every_row_of_a_part_in_order(
    tmp_path: Path, tables: list[list[int]], limit: int
) -> None:
    schema = pa.schema([("part", pa.int64()), ("at", pa.int64())])
    spill = Spill(tmp_path / "spill", schema)
    before, _spill.LIMIT_BYTES = _spill.LIMIT_BYTES, limit
    try:
        at = 0
        expected: dict[int, list[int]] = {}
        for parts in tables:
            numbers = pa.array(range(at, at + len(parts)), pa.int64())
            table = pa.Table.from_arrays([pa.array(parts, pa.int64()), numbers], schema=schema)
            spill.add(table, pa.array(parts, pa.int64()).to_numpy())
            for part in parts:
                expected.setdefault(part, []).append(at)
                at += 1
        for part in range(6):
            assert spill.read(part)["at"].to_pylist() == expected.get(part, [])
    finally:
        _spill.LIMIT_BYTES = before
        spill.close()
