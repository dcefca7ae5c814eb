"""Every door through which a table comes in: how to open one, and how to read what comes out.

A door of another library is one more entry of `DOORS`. What a test compares are plain values, None
for missing, so that the same test holds for all.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import nyu_llm_frames as llm
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_run import head

MODEL = "gemini-3-flash-preview"
Values = dict[str, list[Any]]


class Stream:
    """Arrow data that can be read once, as of a query."""

    def __init__(self, table: pa.Table) -> None:
        self._reader = table.to_reader()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._reader.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class Door:
    """A kind of table.

    Attributes
    ----------
    opened : callable
        Makes a table of this kind of Arrow's, in a folder where that is a file.
    library : str
        Without it the door's tests are skipped.
    kind : str
        What comes back, as its class is called.
    """

    opened: Callable[[pa.Table, Path], Any]
    kind: str
    library: str = "pandas"

    def batch(self, table: Any, template: Any, **options: Any) -> Any:
        """Return what comes out: a table of the same kind, or the path of a file."""
        options = {"model": MODEL, **options}
        if not isinstance(table, Path):
            return llm.batch(table, template, **options)
        out = table.with_name(f"out{len(list(table.parent.iterdir()))}{table.suffix}")
        return llm.batch_file(table, out, template, **options).output

    def requests(self, table: Any, template: Any, **options: Any) -> list[tuple[Any, Any]]:
        """Return id and messages of every row."""
        options = {"model": MODEL, **options}
        if isinstance(table, Path):
            table = head(table, Arguments(template=template, **options), 999)
        shown = values_of(llm.preview(table, template, n=999, **options))
        return list(zip(shown["custom_id"], shown["messages"], strict=True))


def values_of(table: Any) -> Values:
    """Return plain values of a table or of a file."""
    if isinstance(table, Path):
        table = pd.read_csv(table) if table.suffix == ".csv" else pq.read_table(table)
    if type(table).__name__ == "LazyFrame":
        table = table.collect()
    if type(table).__module__.startswith("dask."):
        table = table.compute(scheduler="sync")
    if isinstance(table, pa.Table):
        found: Mapping[str, list[Any]] = table.to_pydict()
    elif isinstance(table, pd.DataFrame):
        found = {name: table[name].astype(object).tolist() for name in table}
    else:
        found = table.to_dict(as_series=False)
    return {name: list(map(_plain, cells)) for name, cells in found.items()}


def _plain(cell: Any) -> Any:
    if cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return cell


def _polars(table: pa.Table, folder: Path) -> Any:
    import polars as pl

    return pl.from_arrow(table)


def _duckdb(table: pa.Table, folder: Path) -> Any:
    import duckdb

    return duckdb.connect().from_arrow(table)


def _dask(table: pa.Table, folder: Path) -> Any:
    import dask.dataframe as dd

    for number, half in enumerate((table.slice(0, 2), table.slice(2))):
        pq.write_table(half, folder / f"part.{number}.parquet")
    return dd.read_parquet(str(folder / "part.*.parquet"))


def _parquet(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "in.parquet")
    return folder / "in.parquet"


def _csv(table: pa.Table, folder: Path) -> Path:
    pacsv.write_csv(table, folder / "in.csv")
    return folder / "in.csv"


DOORS = {
    "pandas": Door(lambda table, _: table.to_pandas(), "DataFrame"),
    "pandas on pyarrow": Door(
        lambda table, _: table.to_pandas(types_mapper=pd.ArrowDtype), "DataFrame"
    ),
    "Polars": Door(_polars, "DataFrame", "polars"),
    "a query of Polars": Door(lambda t, f: _polars(t, f).lazy(), "LazyFrame", "polars"),
    "Arrow": Door(lambda table, _: table, "Table"),
    "a stream of Arrow": Door(lambda table, _: Stream(table), "Table"),
    "DuckDB": Door(_duckdb, "Table", "duckdb"),
    "Dask": Door(_dask, "DataFrame", "dask"),
    "a parquet file": Door(_parquet, "PosixPath"),
    "a CSV file": Door(_csv, "PosixPath"),
}


def door_of(name: str) -> Door:
    """Return a door, or skip the test where its library is not installed."""
    door = DOORS[name]
    if importlib.util.find_spec(door.library) is None:
        pytest.skip(f"{door.library} is not installed")
    return door


def here() -> dict[str, Door]:
    """Return the doors whose libraries are installed."""
    return {n: d for n, d in DOORS.items() if importlib.util.find_spec(d.library) is not None}
