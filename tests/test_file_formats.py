"""What stands in a file: it comes out as it went in, or is refused before anything is sent.

Comes in: tables with every kind of column, index and name, and files that are not what their name
says. Goes out: the promises of `batch_file` about everything but the answers.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import re
import uuid
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._tables import arrow_columns as made
from nyu_llm_frames._tables import sink
from nyu_llm_frames._tables.frame_values import series_to_python
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import ColumnExistsError, ConfigurationError, LLMFramesError

MODEL = "gemini-3-flash-preview"


def answered(source: Path, output: Path, **more: Any) -> Path:
    """Answer a file by the number of its rows, so that any columns will do."""
    llm.batch_file(source, output, "{{ index }}", model=MODEL, **more)
    return output


# --- pandas -----------------------------------------------------------------------------------
COLUMNS: dict[str, Any] = {
    "int8": np.array([1, 2], "int8"),
    "float32": np.array([1.5, np.nan], "float32"),
    "text": ["a", None],
    "bytes": [b"a", None],
    "Int64": pd.array([1, None], "Int64"),
    "boolean": pd.array([True, None], "boolean"),
    "string": pd.array(["a", None], "string"),
    "pyarrow": pd.array([1, None], "int64[pyarrow]"),
    "category": pd.Categorical(["x", None], categories=["z", "x"]),
    "ordered": pd.Categorical([3, 1], categories=[5, 3, 1], ordered=True),
    "zone": pd.date_range("2020", periods=2, tz="Europe/Berlin"),
    "seconds": pd.date_range("2020", periods=2).as_unit("s"),
    "duration": pd.to_timedelta(["1 days", None]),
    "period": pd.period_range("2020-01", periods=2, freq="M"),
    "interval": pd.interval_range(0, 2),
    "list": [[1], None],
    "struct": [{"a": 1}, None],
    "decimal": [Decimal("1.10"), None],
    "date": [date(2020, 1, 2), None],
    "time": [time(1, 2, 3), None],
    "a.b": [1, 2],
}
if hasattr(pa, "uuid"):  # older releases cannot write them
    COLUMNS["uuid"] = [uuid.UUID(int=1), None]
NAMES: dict[str, Callable[[int], Any]] = {
    "texts": lambda n: pd.Index([f"c{i}" for i in range(n)]),
    "a named row of texts": lambda n: pd.Index([f"c{i}" for i in range(n)], name="names"),
    "integers": lambda n: pd.RangeIndex(n),
    "floats": lambda n: pd.Index([i + 0.5 for i in range(n)]),
    "mixed": lambda n: pd.Index([str(i) if i % 2 else i for i in range(n)], dtype=object),
}
INDEXES: dict[str, Any] = {
    "none": None,
    "a range": pd.RangeIndex(5, 9, 2, name="r"),
    "texts": pd.Index(["p", "q"]),
    "named": pd.Index([2.5, 3.5], name="key"),
    "times": pd.date_range("2020", periods=2, tz="UTC", name="t"),
    "periods": pd.period_range("2020", periods=2, freq="Y"),
    "levels": pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names=["k", None]),
    "duplicates": pd.Index([1, 1]),
}


def with_answers(path: Path, count: int) -> Path:
    """Write a file's output without a gateway."""
    source = open_source(path)
    new = NewColumns(path.parent / "work", count, "")
    yes = pd.array(["yes"] * count, "string")
    new.add(np.arange(count), made.arrow_columns({"response": yes}))
    output = path.with_name("out.parquet")
    sink.write(source, sink.check_output(output, source), new, lambda: None)
    return output


@pytest.mark.filterwarnings("ignore:The DataFrame has column names of mixed type")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6, unique=True),
    st.sampled_from(sorted(NAMES)),
    st.sampled_from(sorted(INDEXES)),
    st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.booleans()), max_size=2),
)
def test_pandas_reads_of_the_output_what_it_reads_of_the_input(
    tmp_path: Path, kinds: list[str], names: str, index: str, attributes: dict[str, Any]
) -> None:
    frame = pd.DataFrame({kind: COLUMNS[kind] for kind in kinds})
    frame.columns = NAMES[names](len(kinds))
    if INDEXES[index] is not None:
        frame.index = INDEXES[index]
    frame.attrs = attributes
    frame.to_parquet(tmp_path / "in.parquet")
    before = pd.read_parquet(tmp_path / "in.parquet")
    after = pd.read_parquet(with_answers(tmp_path / "in.parquet", 2))
    assert after.columns.tolist() == [*before.columns.tolist(), "response"]
    assert after.columns.names == before.columns.names
    assert after["response"].tolist() == ["yes"] * 2
    left = after.iloc[:, :-1]
    left.columns = before.columns
    pd.testing.assert_frame_equal(left, before)
    assert after.attrs == before.attrs


@pytest.mark.parametrize("group", [1_000, 7_000, 100_000])
def test_categories_keep_their_order_over_many_row_groups(tmp_path: Path, group: int) -> None:
    codes = np.r_[np.full(12_000, 3), np.arange(13_000) % 3]
    column = pd.Categorical.from_codes(codes, ["z", "y", "x", "w", "unused"], ordered=True)
    before = pd.DataFrame({"c": column, "n": range(25_000)})
    before.to_parquet(tmp_path / "in.parquet", row_group_size=group)
    after = pd.read_parquet(with_answers(tmp_path / "in.parquet", 25_000))
    pd.testing.assert_frame_equal(after[["c", "n"]], before)


@pytest.mark.parametrize(
    "labels",
    [
        pd.to_datetime(["2020-01-01", "2021-01-01"]),
        pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("America/New_York"),
        [date(2020, 1, 1), date(2021, 1, 1)],
        pd.CategoricalIndex(["2020", "2021"]),
        [b"2020", b"2021"],
    ],
    ids=lambda labels: type(labels[0]).__name__,
)
def test_names_that_no_file_can_mix_become_text(tmp_path: Path, labels: Any) -> None:
    pd.DataFrame([["a", "b"]], columns=labels).to_parquet(tmp_path / "in.parquet")
    after = pd.read_parquet(with_answers(tmp_path / "in.parquet", 1))
    assert [str(name)[:4] for name in after.columns] == ["2020", "2021", "resp"]
    assert after.iloc[0].tolist() == ["a", "b", "yes"]


def test_columns_of_several_levels_are_refused_as_in_the_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")]))
    frame.to_parquet(tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=r"several levels.*Flatten"):
        answered(tmp_path / "in.parquet", tmp_path / "out.parquet")


@pytest.mark.parametrize("index", [pd.RangeIndex(2), pd.Index(["a", "b"])])
def test_a_file_without_columns_is_refused(tmp_path: Path, index: pd.Index) -> None:
    pd.DataFrame(index=index).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=r"has no columns.*reset_index"):
        answered(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_replaced_columns_of_any_type_read_back_as_the_answers(
    tmp_path: Path, gateway: StandIn
) -> None:
    kinds = [kind for kind in COLUMNS if kind.isidentifier()]
    fields = [*kinds, "new"]
    pd.DataFrame({k: COLUMNS[k] for k in kinds}).to_parquet(tmp_path / "in.parquet")
    gateway.behaviour.row = rows.says(json.dumps({name: f"an {name}" for name in fields}))
    more: dict[str, Any] = {"schema": dict.fromkeys(fields, str), "if_exists": "replace"}
    after = pd.read_parquet(answered(tmp_path / "in.parquet", tmp_path / "out.parquet", **more))
    assert after.columns.tolist() == [*fields, "response_error"]
    for name in fields:
        assert after[name].tolist() == [f"an {name}"] * 2
        assert after[name].dtype == "string"


def test_lists_of_an_earlier_call_are_opened_by_pandas(tmp_path: Path, gateway: StandIn) -> None:
    """It writes the name of their type, and cannot read it."""
    frame = pd.DataFrame({"x": ["a", "b"]})
    earlier = frame.llm.batch("{{ x }}", model=MODEL, schema={"tags": list[str]}, output="first")
    earlier.to_parquet(tmp_path / "in.parquet")
    for name, read in (("out.parquet", pd.read_parquet), ("out.feather", pd.read_feather)):
        answered(tmp_path / "in.parquet", tmp_path / name, prefix="new_", schema={"a": bool})
        again = read(tmp_path / name)
        assert list(map(list, again["tags"])) == earlier["tags"].tolist()


def test_new_columns_have_in_pandas_the_types_of_a_frame(tmp_path: Path, gateway: StandIn) -> None:
    fields: dict[str, Any] = {
        "text": str,
        "n": int,
        "x": float,
        "b": bool,
        "kind": ["a", "b"],
        "day": date,
        "at": datetime,
        "tags": list[str],
        "days": list[date],
    }
    answer = {
        "text": "t",
        "n": 1,
        "x": 0.5,
        "b": True,
        "kind": "b",
        "day": "2020-01-02",
        "at": "2020-01-02T03:04:05",
        "tags": ["u"],
        "days": ["2020-01-02"],
    }
    gateway.behaviour.row = rows.says(json.dumps(answer))
    pd.DataFrame({"id": [1]}).to_parquet(tmp_path / "in.parquet")
    more: dict[str, Any] = {"schema": fields, "details": True, "sidecar": tmp_path / "s"}
    answered(tmp_path / "in.parquet", tmp_path / "out.parquet", **more)
    after = pd.read_parquet(tmp_path / "out.parquet")
    frame = pd.read_parquet(tmp_path / "in.parquet")
    frame = frame.llm.batch("{{ index }}", model=MODEL, **more)
    for name in frame:
        if name not in ("tags", "days"):  # pandas cannot read the types that it writes of lists
            assert after[name].dtype == frame[name].dtype, name
    assert after["days"][0].tolist() == [date(2020, 1, 2)]
    answered(tmp_path / "in.parquet", tmp_path / "out.csv", **more)
    out = pd.read_csv(tmp_path / "out.csv")
    assert out[["tags", "days"]].iloc[0].tolist() == ['["u"]', '["2020-01-02"]']


# --- the index --------------------------------------------------------------------------------
@pytest.mark.parametrize("if_exists", ["error", "replace"])
@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["FR", "US"], name="response"),
        pd.RangeIndex(2, name="response_error"),
        pd.MultiIndex.from_tuples([("FR", 1), ("US", 2)], names=["a", "response"]),
    ],
)
def test_an_index_with_the_name_of_a_new_column_is_never_overwritten(
    tmp_path: Path, gateway: StandIn, index: pd.Index, if_exists: str
) -> None:
    frame = pd.DataFrame({"x": ["a", "b"]}, index=index)
    frame.to_parquet(tmp_path / "in.parquet")
    more: dict[str, Any] = {"if_exists": if_exists}
    with pytest.raises(ColumnExistsError, match=r"in\.parquet .*its index.*output="):
        answered(tmp_path / "in.parquet", tmp_path / "out.parquet", **more)
    with pytest.raises(ColumnExistsError, match="frame's index"):
        frame.llm.batch("{{ x }}", model=MODEL, **more)
    assert gateway.log == []


def test_what_is_said_of_a_file_does_not_speak_of_a_frame_or_a_cell(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("response,x\n1,a\n2,\n")
    for template in ("{{ x }}", "{{ y }}"):
        for more in ({}, {"if_exists": "replace"}):
            with pytest.raises(LLMFramesError) as caught:
                llm.batch_file(
                    tmp_path / "in.csv", tmp_path / "o.csv", template, model=MODEL, **more
                )
            assert "frame" not in str(caught.value).replace("df.llm", "")
            assert "cell" not in str(caught.value)
    with pytest.raises(ColumnExistsError, match=r"in\.csv already has 'response'.*earlier call"):
        answered(tmp_path / "in.csv", tmp_path / "o.csv")


def test_what_writes_no_columns_does_not_mind_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("response,x\n1,a\n")
    for command in ("preview", "estimate"):
        words = [command, "in.csv", "--prompt", "{{ x }}", "--model", MODEL]
        assert CliRunner().invoke(cli, words).exit_code == 0


# --- arrow ------------------------------------------------------------------------------------
def _extension(kind: pa.DataType, storage: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, storage)


ARROW: dict[str, Callable[[], pa.Array]] = {
    "uuid": lambda: _extension(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
    "json": lambda: _extension(pa.json_(), pa.array(['{"a": 1}', None])),
    "bool8": lambda: _extension(pa.bool8(), pa.array([1, None], pa.int8())),
    "opaque": lambda: _extension(pa.opaque(pa.string(), "geo", "pg"), pa.array(["x", None])),
    "tensor": lambda: _extension(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    ),
    "large_string": lambda: pa.array(["a", None], pa.large_string()),
    "string_view": lambda: pa.array(["a", None], pa.string_view()),
    "binary_view": lambda: pa.array([b"a", None], pa.binary_view()),
    "dictionary": lambda: pa.DictionaryArray.from_arrays([1, None], ["z", "x"], ordered=True),
    "list_view": lambda: pa.array([[1], None], pa.list_view(pa.int64())),
    "fixed list": lambda: pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
    "map": lambda: pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "struct": lambda: pa.array([{"a": [{"b": "x"}]}, None]),
    "decimal256": lambda: pa.array([Decimal("1.10"), None], pa.decimal256(50, 2)),
    "time64": lambda: pa.array([1_000, None], pa.time64("ns")),
    "duration": lambda: pa.array([2**40, None], pa.duration("s")),
    "null": lambda: pa.nulls(2),
    "half": lambda: pa.array([np.float16(1.5), None], pa.float16()),
    "far": lambda: pa.array([400_000_000_000, None], pa.timestamp("ms", "UTC")),
    "far nested": lambda: pa.array([[400_000_000_000_000], None], pa.list_(pa.timestamp("ms"))),
    "uint64": lambda: pa.array([2**64 - 1, None], pa.uint64()),
    "a": lambda: pa.array([{"b": 1}, {"b": 2}]),
    "a.b": lambda: pa.array(["x", "y"]),
}


def arrow_columns() -> dict[str, pa.Array]:
    """Return the columns that this release of pyarrow can make and write."""
    columns = {}
    for name, make in ARROW.items():
        try:
            pq.write_table(pa.table({"x": make()}), pa.BufferOutputStream())
        except (AttributeError, pa.ArrowNotImplementedError):
            continue
        columns[name] = make()
    return columns


@pytest.mark.parametrize("store_schema", [True, False])
def test_arrow_keeps_types_labels_and_nullability(
    tmp_path: Path, gateway: StandIn, store_schema: bool
) -> None:
    other = {b"ARROW:extension:name": b"somebody.else", b"ARROW:extension:metadata": b"x"}
    columns = arrow_columns()
    fields = [
        pa.field(name, array.type, metadata={"label": f"é {name}"})
        for name, array in columns.items()
    ]
    fields += [
        pa.field("id", pa.int64(), nullable=False, metadata={"label": "number"}),
        pa.field("theirs", pa.int64(), metadata=other),
    ]
    arrays = [*columns.values(), pa.array([1, 2]), pa.array([3, None])]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"source": "archive"}))
    pq.write_table(table, tmp_path / "in.parquet", store_schema=store_schema)
    answered(tmp_path / "in.parquet", tmp_path / "out.parquet")
    before, after = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("in", "out"))
    after = after.select(before.column_names)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.equals(before)


def test_a_name_with_a_dot_is_no_path_into_a_struct(tmp_path: Path) -> None:
    table = pa.table({"a": [{"b": 1, "c": 5}], "a.b": ["x"], "b": [2]})
    pq.write_table(table, tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    for names in (["a.b"], ["b", "a.b"], ["a.b", "a"], ["a"]):
        [piece] = source.pieces(names)
        assert piece.values == {name: table[name].to_pylist() for name in names}


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_beyond_all_years_are_the_text_that_a_frame_has(
    tmp_path: Path, zone: str | None
) -> None:
    times = pa.timestamp("ms", zone)
    columns = {
        "time": pa.array([400_000_000_000_000, None, 5], times),
        "nested": pa.array([[400_000_000_000_000], None, []], pa.list_(pa.timestamp("ms"))),
        "duration": pa.array([2**60, None, 5], pa.duration("ms")),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    [piece] = open_source(tmp_path / "in.parquet").pieces(list(columns))
    frame = pd.read_parquet(tmp_path / "in.parquet")
    for name in columns:
        assert to_python(piece.values[name]) == series_to_python(frame[name])
    assert str(to_python(piece.values["time"])[0]).startswith("14645-06-30")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.struct([("a", pa.timestamp("s"))]), {"a": 400_000_000_000}, "14645-06-30T15:06:40"),
        (pa.map_(pa.string(), pa.date32()), [("k", 4_000_000)], "12921-08-18"),
        (pa.list_(pa.struct([("a", pa.date32())])), [{"a": 4_000_000}], "12921-08-18"),
    ],
    ids=str,
)
def test_nested_times_that_pandas_cannot_read_are_text(
    tmp_path: Path, kind: pa.DataType, value: object, text: str
) -> None:
    pq.write_table(pa.table({"x": pa.array([value, None], kind)}), tmp_path / "in.parquet")
    [piece] = open_source(tmp_path / "in.parquet").pieces(["x"])
    assert text in str(piece.values["x"][0])
    assert piece.values["x"][1] is None


def test_a_folder_keeps_labels_and_what_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    label = {"label": "number"}
    pd.DataFrame({"n": pd.array([1, None], "Int64"), "m": [1, 2]}).to_parquet(tmp_path / "in/0.pq")
    first = pq.read_table(tmp_path / "in/0.pq")
    fields = [
        pa.field("n", pa.int64(), metadata=label),
        pa.field("m", pa.int64(), False, metadata=label),
    ]
    first = first.cast(pa.schema(fields, metadata=first.schema.metadata))
    pq.write_table(first, tmp_path / "in/0.pq")
    pq.write_table(pa.table({"n": [0.5]}), tmp_path / "in/1.pq")
    source = open_source(tmp_path / "in")
    n, m = source.schema()
    assert (n.type, n.metadata) == (pa.float64(), {b"label": b"number"})
    assert m.nullable
    frame = pa.concat_tables(source.tables()).to_pandas()
    assert frame["n"].isna().tolist() == [False, True, False]
    assert frame["m"].isna().tolist() == [False, False, True]


# --- CSV --------------------------------------------------------------------------------------
def test_a_csv_file_says_of_a_value_what_pandas_says(tmp_path: Path, gateway: StandIn) -> None:
    kinds = ["duration", "period", "interval", "decimal", "date", "time", "ordered", "zone"]
    kinds += [kind for kind in COLUMNS if kind == "uuid"]
    frame = pd.DataFrame({kind: COLUMNS[kind] for kind in kinds})
    frame.to_parquet(tmp_path / "in.parquet")
    answered(tmp_path / "in.parquet", tmp_path / "out.csv")
    pd.read_parquet(tmp_path / "in.parquet").to_csv(tmp_path / "expected.csv", index=False)
    ours, theirs = (
        pd.read_csv(tmp_path / name, dtype=str)[kinds] for name in ("out.csv", "expected.csv")
    )
    for table in (ours, theirs):  # two ways to write the same time
        table["time"] = table["time"].str.removesuffix(".000000")
        table["duration"] = pd.to_timedelta(table["duration"])
        table["zone"] = pd.to_datetime(table["zone"], utc=True)
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_separator_is_named_with_the_way_to_read_it(tmp_path: Path, mark: str) -> None:
    (tmp_path / "in.csv").write_text(f"id{mark}text\n1{mark}one, two\n")
    with pytest.raises(ConfigurationError, match=r"line 2.*pd\.read_csv\(\.\.\., sep=") as caught:
        answered(tmp_path / "in.csv", tmp_path / "out.csv")
    assert f"sep={mark!r}" in str(caught.value)
    assert "quoted" not in str(caught.value)


# --- files that are not what their name says --------------------------------------------------
def _zip(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "<x/>")


_TABLE = pa.table({"a": [1, 2]})
CONTENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"a\n1\n")), 'compression="gzip"'),
    "zip": (lambda p: _zip(p, "in.csv"), 'compression="zip"'),
    "xlsx": (lambda p: _zip(p, "xl/workbook.xml"), "pd.read_excel("),
    "ods": (lambda p: _zip(p, "content.xml"), "pd.read_excel("),
    "xls": (lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9)), "read_excel("),
    "zstd": (
        lambda p: p.write_bytes(pa.compress(b"a\n1\n", "zstd", asbytes=True)),
        'compression="zstd"',
    ),
    "parquet": (lambda p: pq.write_table(_TABLE, p), "pd.read_parquet("),
    "feather": (lambda p: feather.write_feather(_TABLE, str(p)), "pd.read_feather("),
    "orc": (lambda p: orc.write_table(_TABLE, str(p)), "pd.read_orc("),
    "hdf5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "pd.read_hdf("),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": [1]})), "pd.read_pickle("),
    "spss": (lambda p: p.write_bytes(b"$FL2@(#) SPSS DATA FILE" + bytes(99)), "pd.read_spss("),
    "stata": (lambda p: pd.DataFrame({"a": [1]}).to_stata(p), "pd.read_stata("),
    "sas": (lambda p: p.write_bytes(bytes(12) + b"\xc2\xea\x81\x60" + bytes(99)), "pd.read_sas("),
    "html": (lambda p: p.write_text("<!DOCTYPE html><html>log in</html>"), "a web page"),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".dat"])
@pytest.mark.parametrize("content", CONTENTS)
def test_content_of_another_kind_is_named_with_the_line_of_pandas(
    tmp_path: Path, content: str, suffix: str
) -> None:
    make, told = CONTENTS[content]
    path = tmp_path / f"in{suffix}"
    make(path)
    if content == suffix[1:]:
        assert open_source(path).columns == ("a",)
        return
    with pytest.raises(ConfigurationError) as caught:
        answered(path, tmp_path / "out.csv")
    assert told in str(caught.value)
    assert "WINDOWS" not in str(caught.value)


_ROWS = b'[{"x": 1}]'
READ_BY: dict[str, tuple[bytes, str]] = {
    "in.json": (_ROWS, "pd.read_json({})"),
    "in.json.gz": (gzip.compress(_ROWS), 'pd.read_json({}, compression="gzip")'),
    "in.jsonl.bz2": (bz2.compress(_ROWS[1:-1]), 'pd.read_json({}, lines=True, compression="bz2")'),
    "in.csv.xz": (lzma.compress(b"x\n1\n"), 'pd.read_csv({}, compression="xz")'),
    "in.tsv.bz2": (bz2.compress(b"x\ty\n1\t2\n"), 'pd.read_csv({}, sep="\\t", compression="bz2")'),
    "in.fwf": (b"x  y\n1  2\n", "pd.read_fwf({})"),
    "in.md": (b"x\n1\n", "pd.read_csv({})"),
    "in.xml": (b"<a><b><x>1</x></b></a>", "pd.read_xml({})"),
    "xml.csv": (b"<?xml version='1.0'?><a/>", "pd.read_xml({})"),
    "in.rds": (gzip.compress(b"X\n\0\0"), "pyreadr.read_r({})"),
    "in.RData": (bz2.compress(b"RDX3\n"), "pyreadr.read_r({})"),
    "in.rda": (b"RDX3\nX\n\0", "pyreadr.read_r({})"),
    "in.avro": (b"Obj\x01\x04", "fastavro.reader(open({}"),
    "in.por": (b"ASCII SPSS PORT FILE", "pyreadstat.read_por({})[0]"),
}


@pytest.mark.parametrize("name", READ_BY)
def test_a_refusal_names_the_line_that_reads_the_file(tmp_path: Path, name: str) -> None:
    content, told = READ_BY[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        open_source(tmp_path / name)
    told = told.format(repr(str(tmp_path / name)))
    assert told in str(caught.value)
    assert f"called {name}.gz" not in str(caught.value)
    if told.startswith(("pd.read_csv", "pd.read_json", "pd.read_fwf")):
        assert eval(told, {"pd": pd})["x"].tolist() == [1]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (r'{"n": 1, "x": "cut \ud83d"}', "'x'"),
        (r'{"x": {"a": ["\ude00 b"]}}', "'x'"),
        (r'{"a\ud83d": 1}', r"'a\ud83d'"),
    ],
)
def test_half_a_character_in_json_is_named(tmp_path: Path, line: str, name: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"x": "\\ud83d\\ude00"}\n' + line + "\n")
    message = re.escape(f"in.jsonl, line 2: {name} has half of a character")
    with pytest.raises(ConfigurationError, match=message):
        open_source(path)


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_numbers_that_only_python_writes_as_json_are_named(tmp_path: Path, number: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"x": 1}}\n{{"x": {number}}}\n')
    message = re.escape(f"in.jsonl, line 2: {number} is not JSON. Read the file with pd.read_json(")
    with pytest.raises(ConfigurationError, match=message):
        open_source(path)
    assert len(pd.read_json(path, lines=True)) == 2  # as the message says


@pytest.mark.parametrize("header", ["ORCID,name", "PAR1,PAR2", "ARROW1,x", "BZh9,x", "$FL2,x"])
def test_a_header_that_begins_like_a_format_is_a_header(tmp_path: Path, header: str) -> None:
    (tmp_path / "in.csv").write_text(f"{header}\n1,2\n")
    assert open_source(tmp_path / "in.csv").columns == tuple(header.split(","))


# --- files that cannot be read ----------------------------------------------------------------
class _Keys(pe.KmsClient):  # type: ignore[misc]
    def wrap_key(self, key: bytes, name: str) -> bytes:
        return key.hex().encode()

    def unwrap_key(self, key: bytes, name: str) -> bytes:
        return bytes.fromhex(key.decode())


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_encrypted_columns_are_refused_before_they_end_the_process(
    tmp_path: Path, gateway: StandIn, plain: bool, suffix: str
) -> None:
    table = pa.table({"id": [1], "secret": ["x"]})
    keys = pe.EncryptionConfiguration("k", column_keys={"k": ["secret"]}, plaintext_footer=plain)
    factory = pe.CryptoFactory(lambda settings: _Keys())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
    path = tmp_path / "in.parquet"
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(ConfigurationError, match=r"in\.parquet has encrypted columns.*keys"):
        llm.batch_file(path, tmp_path / f"out{suffix}", "{{ id }}", model=MODEL)
    assert gateway.log == []


@pytest.mark.parametrize("column", ["text", "other"])
def test_a_damaged_page_is_said_of_its_file_column_and_row_group(
    tmp_path: Path, gateway: StandIn, column: str
) -> None:
    texts = [f"text {i:06d}" for i in range(40)]
    path = tmp_path / "in.parquet"
    options: dict[str, Any] = {"compression": "snappy", "use_dictionary": False}
    pq.write_table(pa.table({"text": texts, "other": texts}), path, row_group_size=20, **options)
    place = pq.read_metadata(path).row_group(1).column(int(column == "other"))
    data = bytearray(path.read_bytes())
    end = place.data_page_offset + place.total_compressed_size
    data[end - 60 : end] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        llm.batch_file(path, tmp_path / "out.parquet", "{{ text }}", model=MODEL)
    assert str(caught.value).startswith(f"{path}, column {column!r} in row group 1 cannot be read")
    assert len(gateway.jobs) == (column == "other")  # nobody reads a column that no prompt has
    assert not (tmp_path / "out.parquet").exists()


def test_an_input_that_goes_away_meanwhile_is_named(tmp_path: Path, gateway: StandIn) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        path = tmp_path / f"in{suffix}"
        if suffix == ".parquet":
            pq.write_table(_TABLE, path)
        else:
            path.write_text('{"a": 1}\n' * 2)
        source = open_source(path)
        path.unlink()
        with pytest.raises(ConfigurationError, match=rf"in\{suffix} cannot be read: No such file"):
            list(source.pieces(source.columns))


# --- URLs -------------------------------------------------------------------------------------
FRAME = pd.DataFrame({"a": ["x"]})
DOORS: dict[str, Callable[[Any], object]] = {
    "input": lambda url: llm.batch_file(url, "out.csv", "{{ a }}", model=MODEL),
    "output": lambda url: llm.batch_file("in.csv", url, "{{ a }}", model=MODEL),
    "sidecar of a file": lambda url: llm.batch_file(
        "in.csv", "out.csv", "{{ a }}", model=MODEL, sidecar=url
    ),
    "sidecar": lambda url: FRAME.llm.batch("{{ a }}", model=MODEL, sidecar=url),
    "open_sidecar": llm.open_sidecar,
    "template": lambda url: FRAME.llm.preview(Path(url)),
    "to_jsonl": lambda url: FRAME.llm.to_jsonl(url, "{{ a }}", model=MODEL),
    "from_jsonl": lambda url: FRAME.llm.from_jsonl(url, "{{ a }}", model=MODEL),
    "read_output": llm.read_output,
    "data of the local gateway": lambda url: llm.Gateway.local(data=url),
    "image": lambda url: FRAME.assign(i=[Path(url)]).llm.preview("{{ a }}", images="i"),
}


@pytest.mark.parametrize("url", ["s3://b/k.csv", "gs://b/k.csv", "https://b.org/k.csv"])
@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("door", DOORS)
def test_a_url_in_place_of_a_path_is_called_one(
    tmp_path: Path, door: str, as_path: type, url: str, gateway: StandIn
) -> None:
    (tmp_path / "in.csv").write_text("a\nx\n")
    with pytest.raises(LLMFramesError) as caught:
        DOORS[door](as_path(url))
    assert url in str(caught.value)
    assert "is a URL" in str(caught.value)
    assert gateway.log == []
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    "words",
    [
        ["batch", "s3://b/k.csv", "--out", "o.csv"],
        ["batch", "in.csv", "--out", "gs://b/o.csv"],
        ["batch", "in.csv", "--out", "o.csv", "--sidecar", "gs://b/s"],
        ["preview", "file:///data/k.csv"],
    ],
)
def test_a_url_on_the_command_line_is_called_one(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "in.csv").write_text("a\nx\n")
    model = ["--model", MODEL] if words[0] == "batch" else []
    found = CliRunner().invoke(cli, [*words, "--prompt", "{{ a }}", *model])
    assert found.exit_code == 2
    assert "is a URL" in found.output
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]
