"""Every type of Arrow, in every kind of output: its value is there, or the call ends unpaid.

Comes in: a file of one row for each type, its choices and its runs. Goes out: an output that holds
the value, or an error before anything is sent.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.sink import check_output, write
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.errors import ConfigurationError

AT = dt.datetime(2024, 7, 1, 12, 30, 15)
UNITS = ("s", "ms", "us", "ns")
VIEWS = hasattr(pa, "decimal32")  # earlier releases can do next to nothing with them
Make = Callable[[], pa.DataType]
# The value, what of it must be in a file without types, and types that hold it.
PLAIN: list[tuple[Any, str, list[Make]]] = [
    (None, "", [pa.null]),
    (True, "rue", [pa.bool_]),
    (7, "7", [pa.int8, pa.int16, pa.int32, pa.int64, pa.uint8, pa.uint16, pa.uint32, pa.uint64]),
    (np.float16(0.1), "0.1", [pa.float16]),
    (0.1, "0.1", [pa.float32, pa.float64]),
    ("a", "a", [pa.string, pa.large_string, pa.string_view]),
    (b"ab", "ab", [pa.binary, pa.large_binary, pa.binary_view, lambda: pa.binary(2)]),
    (Decimal("1.1"), "1.1", [lambda: pa.decimal128(20, 1), lambda: pa.decimal256(50, 1)]),
    (Decimal("1.1"), "1.1", [lambda: pa.decimal32(5, 1), lambda: pa.decimal64(12, 1)]),
    (AT.date(), "2024-07-01", [pa.date32, pa.date64]),
    (AT.time(), "12:30:15", [lambda u=u: pa.time32(u) for u in UNITS[:2]]),
    (AT.time(), "12:30:15", [lambda u=u: pa.time64(u) for u in UNITS[2:]]),
    (AT, "2024-07-01", [lambda u=u: pa.timestamp(u) for u in UNITS]),
    (AT, "2024-07-01", [lambda u=u: pa.timestamp(u, "America/New_York") for u in UNITS]),
    (dt.timedelta(days=1), "1 days", [lambda u=u: pa.duration(u) for u in UNITS]),
    (pa.MonthDayNano([1, 2, 3]), "1", [pa.month_day_nano_interval]),
]
NESTED: list[tuple[Any, str, list[Make]]] = [
    ([1], "1", [lambda: pa.list_(pa.int64()), lambda: pa.large_list(pa.int64())]),
    ([1], "1", [lambda: pa.list_(pa.int64(), 1), lambda: pa.list_view(pa.int64())]),
    ([None], "[", [lambda: pa.list_(pa.null())]),
    ([AT.date()], "2024", [lambda: pa.list_(pa.date32())]),
    ([b"ab"], "ab", [lambda: pa.list_(pa.binary())]),
    ([pa.MonthDayNano([1, 2, 3])], "1", [lambda: pa.list_(pa.month_day_nano_interval())]),
    ({"a": 1}, "1", [lambda: pa.struct({"a": pa.int64()})]),
    ({}, "{", [lambda: pa.struct([])]),
    ([("k", 1)], "1", [lambda: pa.map_(pa.string(), pa.int64())]),
]


def made(value: Any, kind: Make) -> tuple[str, pa.Array] | None:
    """Return a column of one value and the name of its type; None where pyarrow lacks the type."""
    try:
        column = pa.array([value], kind())
    except (AttributeError, pa.ArrowException):
        return None
    if "view" in str(column.type) and not VIEWS:
        return None
    return str(column.type), column


def encoded(name: str, column: pa.Array) -> dict[str, pa.Array]:
    """Return choices and runs of a column's value."""
    found = {f"run of {name}": pa.RunEndEncodedArray.from_arrays([1], column)}
    if not pa.types.is_null(column.type):  # pyarrow itself writes no such choices
        found[f"choice of {name}"] = pa.DictionaryArray.from_arrays(pa.array([0]), column)
    return found


def of_other_kinds() -> dict[str, tuple[pa.Array, str]]:
    word = pa.array(["a"]).dictionary_encode()
    period = pa.array(pd.period_range("2024-01", periods=1, freq="M"))
    sparse = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])
    return {
        "period": (period, "2024-01"),
        "interval of pandas": (pa.array(pd.interval_range(0, 1)), "(0, 1]"),
        "list of periods": (pa.ListArray.from_arrays([0, 1], period), "2024"),
        "list of choices": (pa.ListArray.from_arrays([0, 1], word), "a"),
        "struct of choices": (pa.StructArray.from_arrays([word], ["a"]), "a"),
        "union": (sparse, "1"),
        "tensor": (pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, 2]])), "1"),
    }


COLUMNS = of_other_kinds()
for _value, _text, _kinds in PLAIN + NESTED:
    for _found in (made(_value, kind) for kind in _kinds):
        if _found is not None:
            for _name, _column in {_found[0]: _found[1], **encoded(*_found)}.items():
                COLUMNS[_name] = (_column, _text)


def in_a_file(path: Path, column: pa.Array) -> Path:
    table = pa.table({"n": [1], "x": column})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".xlsx", ".parquet", ".feather"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_an_output_holds_the_value_or_is_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    column, text = COLUMNS[kind]
    refusal = ""
    try:
        source = open_source(in_a_file(tmp_path / "in.arrow", column))
        out = check_output(tmp_path / f"out{suffix}", source)
    except ConfigurationError as e:
        refusal = str(e)
    if refusal:
        assert "'x'" in refusal
        return
    new = NewColumns(tmp_path / "new", 1, "")
    new.add(np.array([0]), pa.table({"response": ["yes"]}))
    write(source, out, new, lambda: None)
    new.close()
    if suffix in (".parquet", ".feather"):
        table = pq.read_table(out) if suffix == ".parquet" else pa.ipc.open_file(out).read_all()
        assert table["x"].to_pylist() == column.to_pylist()
        return
    if suffix == ".csv":
        cell = pd.read_csv(out, dtype=str, keep_default_na=False)["x"][0]
    elif suffix == ".jsonl":
        cell = json.loads(out.read_text())["x"]
    else:
        cell = pd.read_excel(out, dtype=object)["x"][0]
    assert text in str(cell)


NAN, INF = float("nan"), float("inf")
IN_LISTS: list[Any] = [[1.0, NAN], [{"b": NAN}], {"a": [[NAN]]}, {"c": NAN, "d": [NAN]}]


@pytest.mark.parametrize("value", IN_LISTS)
def test_nan_is_null_in_json_at_every_depth(tmp_path: Path, gateway: StandIn, value: Any) -> None:
    table = pa.table({"n": [1, 2], "c": [value, None], "x": [NAN, 0.5]})
    pq.write_table(table, tmp_path / "in.parquet")
    for suffix in (".jsonl", ".csv"):
        out = tmp_path / f"out{suffix}"
        llm.batch_file(tmp_path / "in.parquet", out, "{{ n }}", model="gemini-3-flash-preview")
        assert "NaN" not in out.read_text()
        if suffix == ".jsonl":
            row = json.loads(out.read_text().splitlines()[0])
            assert json.dumps(row["c"]) == json.dumps(value).replace("NaN", "null")
            assert row["x"] is None


CHOICE = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([INF]))


@pytest.mark.parametrize(
    "column", [pa.array([[1.0, -INF]]), pa.array([{"a": [{"b": INF}]}]), CHOICE]
)
def test_infinity_in_json_is_refused_at_every_depth(
    tmp_path: Path, gateway: StandIn, column: pa.Array
) -> None:
    in_a_file(tmp_path / "in.arrow", column)
    with pytest.raises(ConfigurationError, match=r"no infinity, and the column 'x' has"):
        llm.batch_file(
            tmp_path / "in.arrow", tmp_path / "out.jsonl", "{{ n }}", model="gemini-3-flash-preview"
        )
    assert not gateway.log


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".xlsx", ".parquet"])
def test_a_span_of_months_ends_the_call_before_anything_is_sent(
    tmp_path: Path, gateway: StandIn, suffix: str
) -> None:
    spans = pa.array([pa.MonthDayNano([1, 2, 3])])
    path = in_a_file(tmp_path / "in.arrow", spans)
    with pytest.raises(ConfigurationError, match=r"cannot hold the column 'x'.*month_day_nano"):
        llm.batch_file(path, tmp_path / f"out{suffix}", "{{ n }}", model="gemini-3-flash-preview")
    assert not gateway.log
