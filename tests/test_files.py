"""Files by path: read in pieces, answered as a frame would be, written whole.

Comes in: small tables in every format, the stand-in. Goes out: the promises of `batch_file`.
"""

from __future__ import annotations

import csv
import importlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._runs import file_requests as _requests
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.bands import prefixes
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.storage import draft_path
from nyu_llm_frames._tables import spill as _spill
from nyu_llm_frames._tables.csv_cells import MISSING
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.sink import Line
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames._tables.spill import Spill
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    BudgetError,
    ColumnExistsError,
    ConfigurationError,
    MissingColumnError,
    MissingValueError,
    PartialResultError,
    PartialResultWarning,
    RunTimeoutError,
    SchemaError,
)

MODEL = "gemini-3-flash-preview"
TEXT = (
    "id,year,text,note\n"
    '007,2020,"a, b","he said ""yes"""\n'
    "008,2021,plain,1.50\n"
    '009,2020,"two\nlines",NA\n'
)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with llm.set_options(
        poll_interval_s=0.02,
        max_poll_interval_s=0.1,
        submit_settle_s=0.2,
        output_settle_s=0.2,
        progress=False,
    ):
        yield


@pytest.fixture
def gateway(stand_in: StandIn) -> llm.Gateway:
    return llm.Gateway(**stand_in.settings)


def _csv(path: Path, text: str = TEXT) -> Path:
    path.write_bytes(text.encode())
    return path


def _frame(n: int = 50) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": range(n),
            "half": [i / 2 for i in range(n)],
            "word": [f"word {i % 7}, \u4e2d\U0001f600" for i in range(n)],
            "when": pd.date_range("2024-01-01", periods=n, freq="D"),
            "maybe": pd.array([None if i % 5 == 0 else i for i in range(n)], dtype="Int64"),
        }
    )


# --- the same as a frame ----------------------------------------------------------------------
def test_the_sidecar_and_the_lines_tell_of_a_file_what_they_tell_of_a_frame(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    call = {"template": "{{ text }}", "model": MODEL, "gateway": gateway, "max_tokens": 20}
    stand_in.behaviour.row = rows.says('{"drug": "x"}')
    file = _csv(tmp_path / "in.csv")
    schema = {"drug": str}
    said: dict[str, list[str]] = {"frame": [], "file": []}
    with llm.set_options(progress=lambda p: said["frame"].append(p.message)):
        frame = pd.read_csv(file).drop(columns="note")
        frame.llm.batch(**call, schema=schema, sidecar=tmp_path / "frame.llm")
    with llm.set_options(progress=lambda p: said["file"].append(p.message)):
        llm.batch_file(file, tmp_path / "out.csv", schema=schema, **call)
    for lines, name in ((said["frame"], "frame"), (said["file"], "out")):
        assert lines[0] == f"new sidecar: {tmp_path / name}.llm"
        assert sum("thinks unless told otherwise" in line for line in lines) == 1
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
    llm.batch_file(_csv(tmp_path / "in.csv"), tmp_path / "out.csv", "{{ text }}", model=MODEL,
                   gateway=gateway)  # fmt: skip
    pd.DataFrame({"q": ["a"]}).llm.submit("{{ q }}", model=MODEL, gateway=gateway, sidecar="s")
    StoredRun("s", gateway=gateway).wait()
    assert count == {"__init__": 3, "close": 3}


def test_a_mistyped_argument_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no argument max_token=\. Did you mean max_tokens=\?"):
        llm.batch_file(_csv(tmp_path / "in.csv"), tmp_path / "o.csv", "x", model="m", max_token=3)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_a_file_has_the_same_requests_as_the_frame_that_pandas_reads(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str
) -> None:
    frame = _frame().drop(columns=["when"] if suffix in (".jsonl", ".csv", ".tsv") else [])
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
    frame = _frame(3)
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
        _csv(tmp_path / "in.csv"),
        tmp_path / "out.csv",
        "{{ text }}",
        model=MODEL,
        gateway=gateway,
        schema={"drug": ["cocaine", "heroin"]},
    )
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["drug"].tolist() == ["heroin"] * 3
    assert list(out.columns) == ["id", "year", "text", "note", "drug", "response_error"]


# --- nothing is changed -----------------------------------------------------------------------
def test_csv_to_csv_copies_every_record_byte_for_byte(tmp_path: Path, gateway: llm.Gateway) -> None:
    awkward = 'id,"te""xt",c\r\n007,"quoted, ""x""",1.50\r\n\r\n 8 ,5" pipe,NA\r\n9,"two\r\nlines",'
    _csv(tmp_path / "in.csv", "\ufeff" + awkward)
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "out.csv", "{{ id }}", model=MODEL, gateway=gateway
    )
    out = (tmp_path / "out.csv").read_bytes().decode()
    assert out.startswith(
        '\ufeffid,"te""xt",c,response,response_error\r\n007,"quoted, ""x""",1.50,'
    )
    assert '\r\n 8 ,5" pipe,NA,' in out
    assert '\r\n9,"two\r\nlines",,' in out
    assert out.endswith("\r\n")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    table=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_csv_is_read_as_pythons_csv_reads_it(tmp_path: Path, table: list[list[str]]) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["a", "b"], *table])
    source = open_source(path)
    found = [row for records in source.records() for row in records.fields]  # type: ignore[attr-defined]
    texts = [text for records in source.records() for text in records.texts]  # type: ignore[attr-defined]
    assert found == table
    again = list(csv.reader(f"{text}\n" for text in texts if "\n" not in text))
    assert again == [row for row in table if "\n" not in "".join(row)]
    assert len(texts) == len(table)


@given(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.none() | st.sampled_from(["yes", "a,b", 'a "b"', "a\nb"])),
)
def test_new_csv_cells_read_back_and_null_is_empty(
    numbers: list[int | None], choices: list[str | None]
) -> None:
    line = Line(",")
    for values, array in (
        (numbers, pa.array(numbers, pa.int64())),
        (choices, pa.array(choices, pa.string())),
        (choices, pa.array(choices, pa.string()).dictionary_encode()),
    ):
        cells = line.cells(pa.chunked_array([array]))
        expected = ["" if v is None else str(v) for v in values]
        assert next(csv.reader([",".join(["first", *cells])])) == ["first", *expected]


def test_short_records_are_filled_and_long_ones_refused(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    _csv(tmp_path / "in.csv", "a,b,c\n1,2\n3,4,5\n")
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", model=MODEL, gateway=gateway
    )
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[1].startswith("1,2,,")
    _csv(tmp_path / "in.csv", "a,b\n4,5\n1,2,3\n")
    with pytest.raises(ConfigurationError, match="3 fields, and the header has 2"):
        llm.batch_file(
            tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", model=MODEL, gateway=gateway
        )


def test_a_replaced_column_stays_in_its_place(tmp_path: Path, gateway: llm.Gateway) -> None:
    _csv(tmp_path / "in.csv", "response,text\nold,x\n")
    arguments: dict[str, Any] = {"model": MODEL, "gateway": gateway}
    with pytest.raises(ColumnExistsError):
        llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", "{{ text }}", **arguments)
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "out.csv", "{{ text }}", if_exists="replace", **arguments
    )
    out = pd.read_csv(tmp_path / "out.csv")
    assert list(out.columns) == ["response", "text", "response_error"]
    assert out["response"][0] != "old"


def test_parquet_keeps_types_order_and_metadata(tmp_path: Path, gateway: llm.Gateway) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int8()),
            "tags": pa.array([["a"], None], pa.list_(pa.string())),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "money": pa.array(["1.10", "2.20"]).cast(pa.decimal128(9, 2)),
        }
    ).replace_schema_metadata({"source": "archive"})
    pq.write_table(table, tmp_path / "in.parquet")
    llm.batch_file(
        tmp_path / "in.parquet", tmp_path / "o.parquet", "{{ kind }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "o.parquet")
    assert out.select(table.column_names).equals(table)
    assert out.schema.metadata[b"source"] == b"archive"
    llm.batch_file(
        tmp_path / "in.parquet", tmp_path / "o.csv", "{{ kind }}", model=MODEL, gateway=gateway
    )
    assert pd.read_csv(tmp_path / "o.csv")["tags"].tolist()[0] == '["a"]'


def test_a_folder_of_parquet_is_one_table_in_the_order_of_its_names(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    for year, part in ((2021, ["c"]), (2020, ["a", "b"])):
        folder = tmp_path / "in" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"x": part}), folder / "part.parquet")
    llm.batch_file(
        tmp_path / "in",
        tmp_path / "out.parquet",
        "{{ year }} {{ x }}",
        model=MODEL,
        gateway=gateway,
    )
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["x"].tolist() == ["a", "b", "c"]
    assert out["year"].tolist() == [2020, 2020, 2021]


def test_an_index_that_pandas_wrote_is_the_index(tmp_path: Path, gateway: llm.Gateway) -> None:
    frame = pd.DataFrame({"x": ["a", "b"]}, index=pd.Index(["p", "q"], name="key"))
    frame.to_parquet(tmp_path / "in.parquet")
    result = llm.batch_file(
        tmp_path / "in.parquet",
        tmp_path / "out.parquet",
        "{{ index }} {{ x }}",
        model=MODEL,
        gateway=gateway,
    )
    ids = set(llm.open_sidecar(result.sidecar).answers()["custom_id"])
    expected = frame.llm.preview("{{ index }} {{ x }}", model=MODEL, gateway=gateway)
    assert set(expected["custom_id"]) == ids
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out.index.tolist() == ["p", "q"]


# --- what cells mean --------------------------------------------------------------------------
def test_a_late_cell_decides_for_the_whole_column(tmp_path: Path, gateway: llm.Gateway) -> None:
    lines = ["a", *["12"] * 30_000, "012"]
    _csv(tmp_path / "in.csv", "\n".join(lines) + "\n")
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "o.parquet", "{{ a }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "o.parquet")
    assert pa.types.is_string(out.schema.field("a").type)
    assert out["a"][-1].as_py() == "012"


def test_json_lines_of_mixed_types_become_text(tmp_path: Path, gateway: llm.Gateway) -> None:
    _csv(tmp_path / "in.jsonl", '{"a": 1, "b": [1]}\n{"a": "x", "c": 2.5}\n')
    llm.batch_file(
        tmp_path / "in.jsonl", tmp_path / "o.parquet", "{{ a }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "o.parquet")
    assert out["a"].to_pylist() == ["1", "x"]
    assert out["b"].to_pylist() == [[1], None]
    assert out["c"].to_pylist() == [None, 2.5]


def test_missing_cells_are_those_of_pandas() -> None:
    parsers = importlib.import_module("pandas._libs.parsers")
    assert parsers.STR_NA_VALUES == MISSING


# --- errors before anything is sent -----------------------------------------------------------
def test_missing_values_of_all_pieces_are_counted(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    lines = ["a,b", *[f"{i},x" if i % 10_000 else ",x" for i in range(30_000)]]
    _csv(tmp_path / "in.csv", "\n".join(lines) + "\n")
    arguments: dict[str, Any] = {"model": MODEL, "gateway": gateway}
    with pytest.raises(MissingValueError, match="3 in column 'a'"):
        llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", **arguments)
    assert not (tmp_path / "out.llm").exists()
    assert not stand_in.uploads


def test_skipped_rows_are_in_the_output(tmp_path: Path, gateway: llm.Gateway) -> None:
    _csv(tmp_path / "in.csv", "a,b\n1,x\n,y\n")
    result = llm.batch_file(
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        "{{ a }}",
        model=MODEL,
        gateway=gateway,
        missing="skip",
        details=True,
    )
    out = pd.read_csv(tmp_path / "out.csv")
    assert result.counts == {"ok": 1, "skipped": 1}
    assert out["response_status"].tolist() == ["ok", "skipped"]
    assert out["response"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("input_name", "output_name", "told"),
    [
        ("in.csv", "in.csv", "is the input"),
        ("in.csv", "out.xlsx", "ends in"),
        ("nothing.csv", "out.csv", "no input file"),
        ("in.csv", "nowhere/out.csv", "no folder"),
        ("in.txt", "out.csv", "ends in one of"),
    ],
)
def test_paths_that_cannot_be_are_refused(
    tmp_path: Path, input_name: str, output_name: str, told: str
) -> None:
    _csv(tmp_path / "in.csv")
    _csv(tmp_path / "in.txt")
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(tmp_path / input_name, tmp_path / output_name, "{{ id }}", model=MODEL)


def test_an_unknown_column_names_those_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match="'text'"):
        llm.batch_file(_csv(tmp_path / "in.csv"), tmp_path / "o.csv", "{{ txt }}", model=MODEL)
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_file_that_is_not_utf_8_is_refused_with_its_line_and_a_way_out(
    tmp_path: Path, end: bytes
) -> None:
    lines = [b"a", *(b"row %d" % i for i in range(3000)), b"caf\xe9"]
    (tmp_path / "in.csv").write_bytes(end.join([*lines, b"more", b""]))
    told = r"line 3,002: the byte 0xe9 is not UTF-8.*WINDOWS-1252.*encoding="
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(tmp_path / "in.csv", tmp_path / "o.csv", "{{ a }}", model=MODEL)


def test_a_file_in_utf_16_is_told_from_one_of_single_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("a\nété\n".encode("utf-16"))
    with pytest.raises(ConfigurationError, match=r"line 1: the byte 0xff.*UTF-16"):
        llm.batch_file(tmp_path / "in.csv", tmp_path / "o.csv", "{{ a }}", model=MODEL)


def test_json_lines_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": "tea"}\n{"a": "caf\xe9"}\n')
    with pytest.raises(ConfigurationError, match=r"line 2: the byte 0xe9 is not UTF-8"):
        llm.batch_file(tmp_path / "in.jsonl", tmp_path / "o.csv", "{{ a }}", model=MODEL)


def test_parquet_that_is_not_utf_8_is_refused_with_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"ok", b"caf\xc3", b"\xa9 x"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": texts}), tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match="column 'a', row 1: the text is not UTF-8"):
        llm.batch_file(tmp_path / "in.parquet", tmp_path / "o.csv", "{{ a }}", model=MODEL)


# --- runs -------------------------------------------------------------------------------------
def test_a_second_call_pays_nothing_and_needs_no_key(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    path = _csv(tmp_path / "in.csv")
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
    path = _csv(tmp_path / "in.csv")
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
    path = _csv(tmp_path / "in.csv")
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
            _csv(tmp_path / "in.csv"),
            tmp_path / "o.csv",
            "{{ text }}",
            model=MODEL,
            gateway=gateway,
        )


def test_rows_without_a_good_answer_warn_or_raise_after_writing(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.row = rows.pick({"plain": rows.blocked})
    path = _csv(tmp_path / "in.csv")
    with pytest.warns(PartialResultWarning, match=r"1 of 3 rows.*1 blocked \(row 1"):
        llm.batch_file(path, tmp_path / "o.csv", "{{ text }}", model=MODEL, gateway=gateway)
    with pytest.raises(PartialResultError) as caught:
        llm.batch_file(
            path, tmp_path / "p.csv", "{{ text }}", model=MODEL, gateway=gateway, on_error="raise"
        )
    assert caught.value.counts == {"ok": 2, "blocked": 1}
    assert (tmp_path / "p.csv").exists()


def test_nothing_but_output_and_sidecar_is_left(tmp_path: Path, gateway: llm.Gateway) -> None:
    path = _csv(tmp_path / "in.csv")
    llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "out.csv", "out.llm"}


# --- bands ------------------------------------------------------------------------------------
@pytest.fixture
def _tiny_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_requests, "LIMIT_BYTES", 2_000)
    monkeypatch.setattr(_spill, "LIMIT_BYTES", 2_000)
    monkeypatch.setattr(_requests, "_PART_BYTES", 500)
    monkeypatch.setattr(_requests, "_BAND_BYTES", 3_000)


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


# --- what would put answers on other rows, or lose some ------------------------------------------
EDITS: dict[str, Any] = {
    "sorted": lambda frame: frame.iloc[::-1],
    "a row less": lambda frame: frame.iloc[1:],
    "a row more": lambda frame: pd.concat([frame, frame.iloc[:1].assign(text="new")]),
    "a cell": lambda frame: frame.assign(text=["other", *frame["text"][1:]]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_input_that_changes_meanwhile_is_not_joined(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, edit: str, suffix: str
) -> None:
    def save(frame: pd.DataFrame) -> None:
        path = tmp_path / f"in{suffix}"
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)

    frame = pd.DataFrame({"id": range(3), "text": ["weed", "heroin", "meth"]})
    save(frame)
    call: dict[str, Any] = {"template": "{{ text }}", "model": MODEL, "gateway": gateway}
    stand_in.on_handled = lambda n, method, path: save(EDITS[edit](frame)) if n == 2 else None
    with pytest.raises(ConfigurationError, match=r"was changed since it was read.*same call"):
        llm.batch_file(tmp_path / f"in{suffix}", tmp_path / "out.parquet", **call)
    assert not (tmp_path / "out.parquet").exists()
    stand_in.on_handled = None
    llm.batch_file(tmp_path / f"in{suffix}", tmp_path / "out.parquet", **call)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["text"].tolist() == EDITS[edit](frame)["text"].tolist()
    assert out["response"].tolist() == [rows.answer(text) for text in out["text"]]
    assert sum(len(job.requests) for job in stand_in.jobs) == 3 + (edit in ("a row more", "a cell"))


def test_an_input_that_changes_while_the_output_is_written_is_not_joined(
    tmp_path: Path, gateway: llm.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _csv(tmp_path / "in.csv")
    take = NewColumns.take

    def edit_and_take(self: NewColumns, count: int) -> pa.Table:
        path.write_text(TEXT + "010,2022,late,x\n")
        return take(self, count)

    monkeypatch.setattr(NewColumns, "take", edit_and_take)
    with pytest.raises(ConfigurationError, match="was changed since it was read"):
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.llm"]


def test_a_file_s_limit_holds_for_another_attempt_and_for_what_is_sent_along(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    path, out = _csv(tmp_path / "in.csv"), tmp_path / "out.csv"
    call: dict[str, Any] = {"model": MODEL, "gateway": gateway, "sidecar": tmp_path / "s"}
    stand_in.behaviour.terminal = "expired"
    llm.batch_file(path, out, "{{ text }}", wait=False, **call)
    with pytest.raises(BudgetError, match="Nothing more was sent"):
        llm.batch_file(path, out, "{{ text }}", max_cost=0, **call)
    assert len(stand_in.jobs) == 1
    # More rows, planned by a process that nobody can know to be dead.
    stand_in.script.add("upload", status=503, times=-1)
    texts = [*pd.read_csv(path)["text"], *(f"more {i}" for i in range(40))]
    call = {**call, "sidecar": tmp_path / "t"}
    with llm.set_options(poll_interval_s=0.01):
        pd.DataFrame({"text": texts}).llm.submit("{{ text }}", **call)
    stand_in.script.clear()
    sidecar = Sidecar(tmp_path / "t", SystemClock())
    (job,) = sidecar.jobs().values()
    sidecar.save_job(msgspec.structs.replace(job, owner="node17/boot/7/1"))
    with pytest.raises(BudgetError, match=f"counts {len(set(texts))} requests"):
        llm.batch_file(path, out, "{{ text }}", max_cost=0, **call)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_choices_of_several_types_are_texts_in_a_file(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str
) -> None:
    said = iter(['{"a": true}', '{"a": "red"}', '{"a": 2.5}'] * 2)
    stand_in.behaviour.row = lambda custom_id, body: [rows.with_text(custom_id, body, next(said))]
    path = _csv(tmp_path / "in.csv", "text\nweed\nheroin\nmeth\n")
    call: dict[str, Any] = {"model": MODEL, "schema": {"a": [True, "red", 2.5]}, "gateway": gateway}
    llm.batch_file(path, tmp_path / f"out{suffix}", "{{ text }}", **call)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    assert sorted(map(str, read(tmp_path / f"out{suffix}")["a"])) == ["2.5", "red", "true"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    "beyond",
    ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "\\u0039999-12-31T23:00-05:00"],
)
def test_a_time_beyond_all_years_is_one_row_s_trouble(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str, beyond: str
) -> None:
    says = {"weed": "2020-01-01T05:00:00+05:00", "heroin": beyond}
    stand_in.behaviour.row = lambda custom_id, body: [
        rows.with_text(custom_id, body, f'{{"end": "{says[rows.last_user_text(body)]}"}}')
    ]
    path = _csv(tmp_path / "in.csv", "text\nweed\nheroin\n")
    call: dict[str, Any] = {"model": MODEL, "schema": {"end": datetime}, "gateway": gateway}
    with pytest.warns(PartialResultWarning, match="1 invalid"):
        llm.batch_file(path, tmp_path / f"out{suffix}", "{{ text }}", **call)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    out = read(tmp_path / f"out{suffix}")
    assert pd.to_datetime(out["end"]).tolist() == [pd.Timestamp(2020, 1, 1), pd.NaT]
    assert "cannot be stored as datetime" in out["response_error"][1]


def test_what_lies_beside_the_parts_of_a_folder_may_change(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pd.DataFrame({"text": ["weed", "heroin"]}).to_parquet(folder / "0.parquet")
    (folder / "_SUCCESS").touch()

    def write(n: int, method: str, path: str) -> None:
        (folder / "_SUCCESS").write_text(str(n))
        (folder / ".part.crc").write_text(str(n))

    stand_in.on_handled = write
    llm.batch_file(folder, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["response"].tolist() == [rows.answer(text) for text in out["text"]]


def test_the_run_of_an_error_keeps_to_the_limit_of_its_call(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.terminal = "failed"
    path = _csv(tmp_path / "in.csv")
    call: dict[str, Any] = {"model": MODEL, "gateway": gateway, "retries": 0}
    with llm.set_options(max_cost=1e-9), pytest.raises(BatchJobFailedError) as caught:
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", max_cost=9, **call)
    run: Any = caught.value.run
    stand_in.behaviour.terminal = "completed"
    assert run.retry() == 3
    run.wait()
    assert len(stand_in.jobs) == 2


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(("before", "behind"), [(0, 1), (300, 500), (255, 0)])
def test_a_quote_that_is_never_closed_is_named(
    tmp_path: Path, suffix: str, before: int, behind: int
) -> None:
    delimiter = "," if suffix == ".csv" else "\t"
    good = f"1{delimiter}text"
    lines = [f"id{delimiter}text", *[good] * before, f'2{delimiter}"open', *[good] * behind, ""]
    path = _csv(tmp_path / f"in{suffix}", "\n".join(lines))
    with pytest.raises(ConfigurationError, match=f"line {before + 2:,} and never closed"):
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL)
    assert not (tmp_path / "out.llm").exists()


DIFFERENT = {
    "integers and text": ([7], ["007"]),
    "yes/no and integers": ([True], [5]),
    "days and times": ([date(2020, 1, 2)], [datetime(2020, 1, 2, 3, 4)]),
    "structs": ([{"a": 1}], [{"a": 1, "b": 2}]),
    "signed and unsigned": (np.int64([1]), np.uint64([2**64 - 1])),
}


@pytest.mark.parametrize("kinds", DIFFERENT)
def test_a_folder_of_other_types_is_refused_with_the_files(tmp_path: Path, kinds: str) -> None:
    (tmp_path / "in").mkdir()
    for number, values in enumerate(DIFFERENT[kinds]):
        pq.write_table(pa.table({"x": values, "id": [number]}), tmp_path / f"in/{number}.parquet")
    with pytest.raises(ConfigurationError, match=r"column 'x' is .*0\.parquet and .*1\.parquet"):
        llm.batch_file(tmp_path / "in", tmp_path / "out.parquet", "{{ id }}", model=MODEL)


def test_a_folder_of_types_that_hold_each_other_keeps_all(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    (tmp_path / "in").mkdir()
    parts = [
        pa.table({"x": pa.nulls(1), "n": pa.array([1], pa.int8()), "t": ["a"]}),
        pa.table({"x": ["text"], "n": [2**40], "t": pa.array(["b"]).dictionary_encode()}),
        pa.table({"x": ["more"], "n": [3], "t": pa.array(["c"], pa.large_string()), "late": [9]}),
    ]
    for number, table in enumerate(parts):
        pq.write_table(table, tmp_path / f"in/{number}.parquet")
    llm.batch_file(
        tmp_path / "in", tmp_path / "out.parquet", "{{ n }} {{ t }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert out["x"] == [None, "text", "more"]
    assert out["n"] == [1, 2**40, 3]
    assert out["t"] == ["a", "b", "c"]
    assert out["late"] == [None, None, 9]
    assert out["response"] == [
        rows.answer(f"{n} {t}") for n, t in zip(out["n"], "abc", strict=True)
    ]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.array([1, 2]), pa.array([0.5, None]), [1.0, 2.0, 0.5, None]),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), [0.5, 0.1]),
        (pa.array([[]], pa.list_(pa.null())), pa.array([["x"]]), [[], ["x"]]),
        (pa.array([None], pa.timestamp("ms")), pa.array([5], pa.timestamp("ns")), [None, 5]),
        (pa.array([{"a": None}]), pa.array([{"a": 1}]), [{"a": None}, {"a": 1}]),
    ],
)
def test_what_pandas_makes_of_one_column_is_one_column(
    tmp_path: Path, one: pa.Array, other: pa.Array, both: list[object]
) -> None:
    (tmp_path / "in").mkdir()
    for number, column in enumerate((one, other)):
        pq.write_table(pa.table({"x": column}), tmp_path / f"in/{number}.parquet")
    source = open_source(tmp_path / "in")
    found = pa.concat_tables(source.tables())["x"]
    if pa.types.is_timestamp(found.type):
        found = found.cast(pa.int64())
    assert found.to_pylist() == both


def test_whole_numbers_that_no_fraction_can_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, values in enumerate(([0.5], [2**53 + 1])):
        pq.write_table(pa.table({"x": values}), tmp_path / f"in/{number}.parquet")
    with pytest.raises(ConfigurationError, match=r"1\.parquet has values that do not fit"):
        list(open_source(tmp_path / "in").tables())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty: it has no header line"),
        ("\n\n", "is empty: it has no header line"),
        ('"id,text\n1,a\n', "line 1 and never closed"),
        ("id,text\n1,a\n2,b,c\n3,d\n", "line 3: a record has 3 fields"),
    ],
)
def test_a_csv_that_is_none_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(_csv(tmp_path / "in.csv", text), tmp_path / "o.csv", "{{ id }}", model=MODEL)


def test_nothing_of_ours_lies_in_the_input_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in/1.parquet")
    call: dict[str, Any] = {"template": "{{ x }}", "model": MODEL}
    with pytest.raises(ConfigurationError, match="lies in the input folder"):
        llm.batch_file(tmp_path / "in", tmp_path / "in/out.parquet", **call)
    with pytest.raises(ConfigurationError, match="lies in the input folder"):
        llm.batch_file(tmp_path / "in", tmp_path / "o.parquet", sidecar=tmp_path / "in/s", **call)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"x"]),
        pa.array([b"x"], pa.binary(1)),
        pa.array([[b"x"]]),
        pa.array([[date(2020, 1, 2)]]),
        pa.array([[("k", datetime(2020, 1, 2))]], pa.map_(pa.string(), pa.timestamp("s"))),
        pa.array([{"a": [{"b": Decimal("1.10")}]}]),
        pa.array([{"a": time(1, 2)}]),
        pa.array([[timedelta(1)]]),
    ],
    ids=str,
)
def test_an_output_that_cannot_hold_a_column_is_refused_before_anything_is_sent(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, column: pa.Array
) -> None:
    try:
        pq.write_table(pa.table({"id": [1], "odd": column}), tmp_path / "in.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this pyarrow writes no {column.type}")
    call: dict[str, Any] = {"template": "{{ id }}", "model": MODEL, "gateway": gateway}
    with pytest.raises(ConfigurationError, match="cannot hold the column 'odd'"):
        llm.batch_file(tmp_path / "in.parquet", tmp_path / "out.csv", **call)
    assert stand_in.log == []
    llm.batch_file(tmp_path / "in.parquet", tmp_path / "out.parquet", **call)
    assert pq.read_table(tmp_path / "out.parquet")["odd"].to_pylist() == column.to_pylist()


def test_odd_values_of_json_lines_come_through(tmp_path: Path, gateway: llm.Gateway) -> None:
    lines = [{"id": i, "n": 0.5, "e": {}, "l": [{}]} for i in range(10_001)]
    lines[3]["n"] = 2**53 + 1
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    llm.batch_file(path, tmp_path / "out.parquet", "{{ id % 3 }}", model=MODEL, gateway=gateway)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["n"][3].as_py() == str(2**53 + 1)
    assert out["e"][0].as_py() == "{}"
    assert out["l"][0].as_py() == "[{}]"


@pytest.mark.parametrize("choices", [[2**70, 1], [2**63, "a", 1], [-(2**63) - 1, 1]])
def test_choices_that_no_column_of_integers_holds_are_refused(choices: list[Any]) -> None:
    with pytest.raises(SchemaError, match=r"beyond 64 bits.*as text"):
        pd.DataFrame({"text": ["a"]}).llm.preview("{{ text }}", schema={"kind": choices})


def test_periods_print_as_in_a_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame({"when": pd.period_range("2020-01", periods=2, freq="M")})
    frame.to_parquet(tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    [piece] = source.pieces(["when"])
    assert [str(v) for v in piece.values["when"]] == ["2020-01", "2020-02"]


def test_what_a_killed_process_left_beside_the_output_goes(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    left = draft_path(tmp_path / "out.csv")
    _, pid, mark = left.name.rpartition(".")[2].split("-")
    dead = left.with_name(left.name.replace(f"-{pid}-", f"-{2**22 - 3}-"))
    living = left.with_name(left.name.replace(mark, "12345678"))
    for path in (dead, living):
        path.write_text("half")
    llm.batch_file(
        _csv(tmp_path / "in.csv"), tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway
    )
    assert not dead.exists()
    assert living.exists()
