"""The verbs of every kind of table, as a person uses them. Only type-checked, never run.

Checked by mypy and by pyright, with all extras installed: what comes back is of the same kind.
mypy is told to skip Dask, and so cannot say what is no table.
"""

from __future__ import annotations

from typing import Any, assert_type

import dask.dataframe as dd
import pandas as pd
import polars as pl

import nyu_llm_frames as llm
from nyu_llm_frames import Estimate, Run


class Stream:
    """Anything that gives Arrow data."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


class Own(pd.DataFrame):
    """A frame of a package that builds on pandas."""


pandas = pd.DataFrame({"x": [1]})
polars = pl.DataFrame({"x": [1]})
lazy = polars.lazy()

assert_type(llm.batch(pandas, "{{ x }}", model="m"), pd.DataFrame)
assert_type(llm.batch(polars, "{{ x }}", model="m"), pl.DataFrame)
assert_type(llm.batch(lazy, "{{ x }}", model="m"), pl.LazyFrame)
assert_type(llm.batch(Own(), "{{ x }}", model="m"), Own)
llm.batch(Stream(), "{{ x }}", model="m")


def of_dask(ddf: dd.DataFrame) -> dd.DataFrame:
    shown: pd.DataFrame = llm.preview(ddf, "{{ x }}")
    shown.info()
    assert_type(llm.estimate(ddf, "{{ x }}", model="m"), Estimate)
    return llm.batch(ddf, "{{ x }}", model="m")


llm.batch(
    polars,
    template="{{ x }}",
    model="m",
    schema={"a": int},
    if_exists="fill",
    details=True,
    wait=False,
    timeout=3,
    retries=2,
    max_cost=1.5,
    on_error="raise",
    gateway="local",
)

assert_type(llm.preview(pandas, "{{ x }}", n=3), pd.DataFrame)
assert_type(llm.preview(polars, "{{ x }}"), pl.DataFrame)
assert_type(llm.preview(lazy, "{{ x }}"), pl.DataFrame)
assert_type(llm.trial(pandas, "{{ x }}", model="m", random_state=1), pd.DataFrame)
assert_type(llm.trial(lazy, "{{ x }}", model="m"), pl.DataFrame)
assert_type(llm.estimate(polars, "{{ x }}", model="m", retries=0), Estimate)
assert_type(llm.estimate(Stream(), "{{ x }}", model="m"), Estimate)
assert_type(llm.submit(pandas, "{{ x }}", model="m"), Run[pd.DataFrame])
assert_type(llm.submit(pandas, "{{ x }}", model="m").result(), pd.DataFrame)
assert_type(llm.submit(lazy, "{{ x }}", model="m", max_cost=2).result(), pl.LazyFrame)

llm.batch([1], "{{ x }}", model="m")  # pyright: ignore
llm.batch(polars, "{{ x }}")  # type: ignore[call-overload] # pyright: ignore
llm.batch(polars, "{{ x }}", model="m", temprature=1)  # type: ignore[call-overload] # pyright: ignore
llm.preview(pandas, "{{ x }}", wait=True)  # type: ignore[call-overload] # pyright: ignore
