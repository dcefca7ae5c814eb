"""The same data makes the same requests at every door: frames, parquet, Feather, CSV.

Comes in: columns of every kind. Goes out: equal ids, and the text that a person would write.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from support.kinds import KINDS, NEW_YORK

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_run import head

MODEL = "gemini-3-flash-preview"
TEMPLATE = "x: {% if x is none %}-{% else %}{{ x }}{% endif %}"
OF_PANDAS: dict[str, Any] = {
    "period": pd.period_range("2024-01", periods=2, freq="M"),
    "interval": pd.interval_range(0.5, 2.5),
    "category of times": pd.Categorical(pd.to_datetime(["2024-01-01", "2025-01-01"])),
    "category of float32": pd.Categorical(np.float32([0.1, 2])),
    "Int64": pd.array([1, None], dtype="Int64"),
    "Float32": pd.array([0.1, None], dtype="Float32"),
    "boolean": pd.array([True, None], dtype="boolean"),
    "zone": pd.date_range("2024-03-10", periods=2, tz=NEW_YORK),
    "objects": pd.Series([dt.date(2024, 1, 2), None], dtype=object),
}
AS_CSV = ["int64", "uint64", "float", "float32", "float16", "bool", "text", "nothing"]


def ids_and_prompts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    shown = frame.llm.preview(TEMPLATE, model=MODEL, n=99)
    return [
        (i, m[0]["content"]) for i, m in zip(shown["custom_id"], shown["messages"], strict=True)
    ]


def of_file(path: Path) -> list[tuple[str, str]]:
    return ids_and_prompts(head(path, Arguments(template=TEMPLATE, model=MODEL), 99))


@pytest.mark.parametrize("kind", KINDS)
def test_a_parquet_file_and_its_frames_make_the_same_requests(tmp_path: Path, kind: str) -> None:
    values, type_ = KINDS[kind]
    is_choice = pa.types.is_dictionary(type_)
    array = pa.array(values, type_.value_type if is_choice else type_)
    array = array.dictionary_encode() if is_choice else array
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": array, "n": range(len(values))}), path)
    found = of_file(path)
    assert ids_and_prompts(pd.read_parquet(path)) == found
    assert ids_and_prompts(pd.read_parquet(path, dtype_backend="pyarrow")) == found


@pytest.mark.parametrize("kind", KINDS)
def test_a_feather_file_and_its_frames_make_the_requests_of_the_parquet_file(
    tmp_path: Path, kind: str
) -> None:
    values, type_ = KINDS[kind]
    is_choice = pa.types.is_dictionary(type_)
    array = pa.array(values, type_.value_type if is_choice else type_)
    table = pa.table({"x": array.dictionary_encode() if is_choice else array})
    pq.write_table(table, tmp_path / "in.parquet")
    feather.write_feather(table, str(tmp_path / "in.feather"))
    found = of_file(tmp_path / "in.feather")
    assert found == of_file(tmp_path / "in.parquet")
    assert found == ids_and_prompts(pd.read_feather(tmp_path / "in.feather"))


@pytest.mark.parametrize("kind", OF_PANDAS)
def test_what_only_pandas_knows_makes_the_same_requests(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.parquet"
    frame = pd.DataFrame({"x": OF_PANDAS[kind]})
    frame.to_parquet(path)
    found = ids_and_prompts(frame)
    assert of_file(path) == found
    assert ids_and_prompts(pd.read_parquet(path)) == found
    assert ids_and_prompts(pd.read_parquet(path, dtype_backend="pyarrow")) == found


@pytest.mark.parametrize("kind", AS_CSV)
def test_a_csv_file_makes_the_requests_of_the_parquet_file(tmp_path: Path, kind: str) -> None:
    values, type_ = KINDS[kind]
    frame = pd.DataFrame({"x": pd.Series(values, dtype=pd.ArrowDtype(type_)), "n": 1})
    if kind in ("float32", "float16"):
        frame = frame.astype({"x": kind})
    frame = frame[frame["x"] != ""]  # an empty text is a missing one in a CSV file
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet", index=False)
    assert of_file(tmp_path / "in.csv") == of_file(tmp_path / "in.parquet")
    assert of_file(tmp_path / "in.csv") == ids_and_prompts(frame)


@pytest.mark.parametrize("dtype", ["float16", "float32", "Float32", "float32[pyarrow]", object])
def test_floats_of_few_bits_print_as_they_were_written(dtype: Any) -> None:
    cells = np.float32([0.1, 2, 0.3]) if dtype is object else [0.1, 2, 0.3]
    frame = pd.DataFrame({"x": pd.Series(list(cells), dtype=dtype)})
    assert [text for _, text in ids_and_prompts(frame)] == ["x: 0.1", "x: 2", "x: 0.3"]


@pytest.mark.parametrize("stored", ["UTC", None])
def test_a_zone_that_only_pandas_metadata_knows_is_the_zone(
    tmp_path: Path, stored: str | None
) -> None:
    """As fastparquet writes it."""
    index = pd.date_range("2024-07-01", periods=2, tz=NEW_YORK, name="at", unit="us")
    frame = pd.DataFrame({"x": index}, index=index)
    table = pa.Table.from_pandas(frame)
    plain = [column.cast(pa.int64()).cast(pa.timestamp("us", stored)) for column in table.columns]
    bare = pa.table(dict(zip(table.column_names, plain, strict=True)))
    path = tmp_path / "in.parquet"
    pq.write_table(bare.replace_schema_metadata(table.schema.metadata), path)
    template = "{{ x }} {{ index }}"
    in_file = head(path, Arguments(template=template, model=MODEL), 99).llm.preview(template)
    in_frame = frame.llm.preview(template)
    assert in_file["messages"].tolist() == in_frame["messages"].tolist()
    assert in_file["messages"].iloc[0][0]["content"].endswith("-04:00")
