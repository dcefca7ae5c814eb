"""The same data makes the same requests at every door, and is paid once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from adapters.doors import DOORS, door_of, here
from support.kinds import KINDS
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.errors import ConfigurationError

# Dask itself still calls pandas so.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

TEMPLATE = "x: {% if x is none %}-{% else %}{{ x }}{% endif %}"
POLARS = {"Polars", "a query of Polars"}
# What a library makes of these before we see them is something else, or nothing.
OTHERS = {
    "float16": {"DuckDB"},
    "list of lists of float16": {"DuckDB"},
    "zone": {"DuckDB"},  # the same moment in the zone of the session
    "span": {"DuckDB"},  # months, days and nanoseconds
    "map": {*POLARS, "DuckDB"},  # a list of structs, or a dict
    "offset": {*POLARS, "DuckDB"},  # no zone of an offset alone
    "choice of numbers": {*POLARS, "DuckDB"},
    "choice of float32": {*POLARS, "DuckDB"},
    "choice of days": {*POLARS, "DuckDB"},
}
AS_CSV = {"int8", "int64", "uint64", "float", "bool", "text", "large text"}


def table_of(kind: str) -> pa.Table:
    values, type_ = KINDS[kind]
    is_choice = pa.types.is_dictionary(type_)
    array = pa.array(values, type_.value_type if is_choice else type_)
    return pa.table(
        {"x": array.dictionary_encode() if is_choice else array, "n": range(len(array))}
    )


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_makes_the_same_requests(tmp_path: Path, kind: str, name: str) -> None:
    door, table = door_of(name), table_of(kind)
    if name in POLARS and "float16" in kind:
        import polars as pl

        if not hasattr(pl, "Float16"):
            return  # a release that widens them
    if name in OTHERS.get(kind, ()) or (name == "a CSV file" and kind not in AS_CSV):
        return
    if name == "a CSV file":  # an empty text is a missing one there
        table = table.filter(
            pa.compute.fill_null(pa.compute.not_equal(table["x"].cast("string"), ""), True)
        )
    expected = DOORS["Arrow"].requests(table, TEMPLATE)
    assert door.requests(door.opened(table, tmp_path), TEMPLATE) == expected


PANDAS_CHOICES = {
    "intervals": pd.cut(pd.Series([1.0, 5.0, None, 9.0]), 3),
    "intervals of times": pd.Categorical(pd.interval_range(pd.Timestamp("2024"), periods=4)),
    "times": pd.Categorical(pd.to_datetime(["2024-01-01", None, "2200-01-01", "1700-01-01"])),
    "lists": pd.Categorical([(1, 2), None, (3,), (4, 5)]),
}
if hasattr(pa, "decimal32"):  # earlier releases convert no such choices
    PERIODS = pd.Categorical(pd.period_range("2024-01", periods=4, freq="M"))
    PANDAS_CHOICES["periods"] = PERIODS


@pytest.mark.parametrize("choices", PANDAS_CHOICES)
def test_choices_that_only_pandas_has_print_the_same_at_every_door(choices: str) -> None:
    frame = pd.DataFrame({"x": PANDAS_CHOICES[choices], "n": range(4)})
    expected = frame.llm.preview(TEMPLATE)["custom_id"].tolist()
    table = pa.Table.from_pandas(frame)
    assert llm.preview(table, TEMPLATE)["custom_id"].to_pylist() == expected
    if "Polars" in here():
        import polars as pl

        if hasattr(pl, "Extension"):  # earlier releases show how Arrow stores them
            assert llm.preview(pl.from_arrow(table), TEMPLATE)["custom_id"].to_list() == expected


def test_an_index_of_intervals_prints_the_same_from_arrow() -> None:
    labels = pd.CategoricalIndex(pd.cut([1.0, 9.0], 2))
    frame = pd.DataFrame({"x": ["a", "b"]}, index=labels)
    template = "{{ index }} {{ x }}"
    shown = llm.preview(pa.Table.from_pandas(frame), template)
    assert shown["custom_id"].to_pylist() == frame.llm.preview(template)["custom_id"].tolist()


@pytest.mark.parametrize("kind", [pa.float32(), pa.string(), pa.string_view(), pa.date32()])
def test_runs_of_equal_values_print_like_the_values(kind: pa.DataType) -> None:
    values = pa.array(KINDS["float32"][0][:1] if kind == pa.float32() else [None], kind)
    runs = pa.RunEndEncodedArray.from_arrays([2], values)
    shown = llm.preview(pa.table({"x": runs, "n": [1, 2]}), TEMPLATE + "{{ n }}")
    plain = pa.concat_arrays([values, values])
    expected = llm.preview(pa.table({"x": plain, "n": [1, 2]}), TEMPLATE + "{{ n }}")
    assert shown["custom_id"].equals(expected["custom_id"])


def test_rows_without_labels_are_numbered_from_0(tmp_path: Path) -> None:
    table = pa.table({"x": ["a", "b"]})
    for door in here().values():
        found = door.requests(door.opened(table, tmp_path), "{{ index }} {{ x }}")
        assert [messages[0]["content"] for _, messages in found] == ["0 a", "1 b"]


def test_a_template_may_name_no_column_but_the_number_of_the_row(tmp_path: Path) -> None:
    table = pa.table({"x": ["a", "b"]})
    for door in here().values():
        found = door.requests(door.opened(table, tmp_path), "row {{ index }}")
        assert [messages[0]["content"] for _, messages in found] == ["row 0", "row 1"]


def test_a_stream_that_is_no_table_is_refused() -> None:
    class Column:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.chunked_array([[1]]).__arrow_c_stream__(requested_schema)

    with pytest.raises(ConfigurationError, match="stream of a Column cannot be read as a table"):
        llm.preview(Column(), "{{ x }}")


def test_images_of_a_frame_of_polars_are_those_of_pandas() -> None:
    pl = pytest.importorskip("polars")
    frame = pd.DataFrame({"x": ["a"], "at": ["gs://b/c.png"]})
    expected = llm.preview(frame, "{{ x }}", images="at")
    shown = llm.preview(pl.DataFrame(frame.to_dict("list")), "{{ x }}", images="at")
    assert shown["custom_id"].to_list() == expected["custom_id"].tolist()
    content = json.loads(shown["messages"][0][0]["content"])
    assert content == expected["messages"].iloc[0][0]["content"]


def test_an_index_that_pandas_wrote_beside_the_columns_counts() -> None:
    frame = pd.DataFrame({"x": ["a", "b"]}, index=pd.Index(["k", "l"], name="key"))
    table = pa.Table.from_pandas(frame)
    shown = llm.preview(table, "{{ index }} {{ x }}", model="m")
    assert [m[0]["content"] for m in shown["messages"].to_pylist()] == ["k a", "l b"]
    assert shown.to_pandas().index.equals(frame.index)
    with pytest.raises(llm.errors.MissingColumnError):
        llm.preview(table, "{{ key }}", model="m")


def test_nan_and_null_are_missing_at_every_door(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([0.5, float("nan"), None]), "n": [1, 2, 3]})
    prompts = [
        [m[0]["content"] for _, m in door.requests(door.opened(table, tmp_path), TEMPLATE)]
        for door in here().values()
    ]
    assert prompts == [["x: 0.5", "x: -", "x: -"]] * len(prompts)


def test_what_one_door_paid_no_other_pays_again(tmp_path: Path, gateway: StandIn) -> None:
    table = pa.table({"x": ["a", "b", "a"], "n": [1, 2, 3]})
    told = []
    for name, door in here().items():
        folder = tmp_path / name
        folder.mkdir()
        out = door.batch(door.opened(table, folder), "{{ x }} {{ n }}", sidecar=tmp_path / "one")
        told.append((name, type(out).__name__))
        assert len(gateway.jobs) == 1
    assert told == [(name, door.kind) for name, door in here().items()]


def test_cells_that_are_addresses_are_refused() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object), "y": ["a"]})
    with pytest.raises(ConfigurationError, match=r"type Object.*addresses"):
        llm.preview(frame, "{{ x }}")
    assert llm.preview(frame, "{{ y }}").height == 1


@pytest.mark.parametrize("kind", ["Int128", "UInt128"])
def test_a_type_that_arrow_lacks_names_the_cast(kind: str) -> None:
    pl = pytest.importorskip("polars")
    if not hasattr(pl, kind):
        kind = "Int128"
    frame = pl.DataFrame({"x": [1]}).with_columns(pl.col("x").cast(getattr(pl, kind)))
    with pytest.raises(ConfigurationError, match=f"{kind}.*cast") as caught:
        llm.preview(frame, "{{ x }}")
    cast: Any = eval(
        str(caught.value).partition("first: df.")[2].partition("), or")[0] + ")",
        {},
        {"with_columns": frame.with_columns, "pl": pl},
    )
    assert llm.preview(cast, "{{ x }}").equals(llm.preview(pl.DataFrame({"x": [1]}), "{{ x }}"))
