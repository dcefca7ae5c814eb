"""A file's own cells: copied as they are, read as pandas reads them, or refused."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.stand_in import StandIn
from support.table_files import MODEL, csv_file

import nyu_llm_frames as llm
from nyu_llm_frames._tables.csv_cells import MISSING
from nyu_llm_frames._tables.sink import Line
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.errors import (
    ColumnExistsError,
    ConfigurationError,
    MissingColumnError,
    MissingValueError,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def gateway(stand_in: StandIn) -> llm.Gateway:
    return llm.Gateway(**stand_in.settings)


# --- nothing is changed -----------------------------------------------------------------------
def test_csv_to_csv_copies_every_record_byte_for_byte(tmp_path: Path, gateway: llm.Gateway) -> None:
    awkward = 'id,"te""xt",c\r\n007,"quoted, ""x""",1.50\r\n\r\n 8 ,5" pipe,NA\r\n9,"two\r\nlines",'
    csv_file(tmp_path / "in.csv", "\ufeff" + awkward)
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
    csv_file(tmp_path / "in.csv", "a,b,c\n1,2\n3,4,5\n")
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", model=MODEL, gateway=gateway
    )
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[1].startswith("1,2,,")
    csv_file(tmp_path / "in.csv", "a,b\n4,5\n1,2,3\n")
    with pytest.raises(ConfigurationError, match="3 fields, and the header has 2"):
        llm.batch_file(
            tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", model=MODEL, gateway=gateway
        )


def test_a_replaced_column_stays_in_its_place(tmp_path: Path, gateway: llm.Gateway) -> None:
    csv_file(tmp_path / "in.csv", "response,text\nold,x\n")
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
    csv_file(tmp_path / "in.csv", "\n".join(lines) + "\n")
    llm.batch_file(
        tmp_path / "in.csv", tmp_path / "o.parquet", "{{ a }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "o.parquet")
    assert pa.types.is_string(out.schema.field("a").type)
    assert out["a"][-1].as_py() == "012"


def test_json_lines_of_mixed_types_become_text(tmp_path: Path, gateway: llm.Gateway) -> None:
    csv_file(tmp_path / "in.jsonl", '{"a": 1, "b": [1]}\n{"a": "x", "c": 2.5}\n')
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
    csv_file(tmp_path / "in.csv", "\n".join(lines) + "\n")
    arguments: dict[str, Any] = {"model": MODEL, "gateway": gateway}
    with pytest.raises(MissingValueError, match="3 in column 'a'"):
        llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", "{{ a }}", **arguments)
    assert not (tmp_path / "out.llm").exists()
    assert not stand_in.uploads


def test_skipped_rows_are_in_the_output(tmp_path: Path, gateway: llm.Gateway) -> None:
    csv_file(tmp_path / "in.csv", "a,b\n1,x\n,y\n")
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
        ("in.csv", "out.sav", "ends in"),
        ("nothing.csv", "out.csv", "no input file"),
        ("in.csv", "nowhere/out.csv", "no folder"),
        ("in.txt", "out.csv", "ends in one of"),
    ],
)
def test_paths_that_cannot_be_are_refused(
    tmp_path: Path, input_name: str, output_name: str, told: str
) -> None:
    csv_file(tmp_path / "in.csv")
    csv_file(tmp_path / "in.txt")
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(tmp_path / input_name, tmp_path / output_name, "{{ id }}", model=MODEL)


def test_an_unknown_column_names_those_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match="'text'"):
        llm.batch_file(csv_file(tmp_path / "in.csv"), tmp_path / "o.csv", "{{ txt }}", model=MODEL)
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
