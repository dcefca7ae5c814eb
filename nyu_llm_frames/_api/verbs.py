"""The methods as functions that type checkers know: ``llm.batch(table, ...)`` and the others.

Comes in: a table of any kind. Goes out: what its methods return, of the same kind.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, Required, TypeVar, overload

from typing_extensions import Unpack

from nyu_llm_frames._api.accessor import FrameMethods, TableMethods
from nyu_llm_frames._runs.arguments import Common, Template
from nyu_llm_frames._tables.open_table import library
from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from nyu_llm_frames._api.run import Run
    from nyu_llm_frames._stages.cost.estimate import Estimate

Frame = TypeVar("Frame", bound="pd.DataFrame | pl.DataFrame | pl.LazyFrame")
F = TypeVar("F", bound=Callable[..., Any])

METHODS: dict[str, Callable[[Any], Any]] = {"pandas": FrameMethods}
"""The methods of a library's frames, where they differ; `nyu_llm_frames.<library>` adds its own."""


class ArrowStream(Protocol):
    """Anything that gives Arrow data: a relation of DuckDB, a table of pyarrow or ibis."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


class PreviewArguments(Common, total=False):
    """Arguments of `preview`."""

    model: str
    n: int


class EstimateArguments(Common, total=False):
    """Arguments of `estimate`."""

    model: Required[str]
    retries: int


class TrialArguments(Common, total=False):
    """Arguments of `trial`."""

    model: Required[str]
    n: int
    random_state: Any


class SubmitArguments(Common, total=False):
    """Arguments of `submit`."""

    model: Required[str]
    retries: int
    max_cost: float | None


class BatchArguments(SubmitArguments, total=False):
    """Arguments of `batch`."""

    wait: bool
    timeout: float | None
    on_error: Literal["keep", "raise"]


def methods_of(table: Any) -> Any:
    """Return the methods of a table of any kind."""
    kind = library(table)
    if not kind:
        raise ConfigurationError(
            "A table is a DataFrame of pandas, Polars or Dask, or anything with an Arrow stream "
            f"(DuckDB, pyarrow, ibis), not a {type(table).__name__}.{_instead(table)}"
        )
    if kind == "dask" and kind not in METHODS:
        importlib.import_module(f"nyu_llm_frames.{kind}")
    return METHODS.get(kind, TableMethods)(table)


def _instead(table: Any) -> str:
    if isinstance(table, str | os.PathLike):
        return " For files: llm.batch_file(input, output, template, model=...)."
    kind = type(table).__name__
    if kind == "Series":
        return ' For a Series alone: series.to_frame("x"), with {{ x }} in the template.'
    if "GroupBy" in kind:
        return " Each group is a prompt once it is a row: aggregate the groups first."
    if isinstance(table, list | dict):
        return " pandas makes one of it: pd.DataFrame(...)."
    return ""


_TABLE = """Parameters
----------
table : DataFrame or LazyFrame, or anything with an Arrow stream
    Of pandas, Polars or Dask; of DuckDB, pyarrow, ibis and others, which is collected once into a
    `pyarrow.Table`. The result is of the same kind.
"""


def _as_method(function: F) -> F:
    """Show the signature and the docstring of the method of this name."""
    method = getattr(TableMethods, function.__name__)
    signature = inspect.signature(method)
    table = inspect.Parameter("table", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    others = list(signature.parameters.values())[1:]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[table, *others]
    )
    text = inspect.cleandoc(method.__doc__).partition("\n\nExamples\n")[0]
    function.__doc__ = text.replace("Parameters\n----------\n", _TABLE, 1)
    return function


@overload
def preview(
    table: pl.LazyFrame, template: Template, **arguments: Unpack[PreviewArguments]
) -> pl.DataFrame: ...
@overload
def preview(table: Frame, template: Template, **arguments: Unpack[PreviewArguments]) -> Frame: ...
@overload
def preview(
    table: ArrowStream, template: Template, **arguments: Unpack[PreviewArguments]
) -> pa.Table: ...
@overload
def preview(
    table: dd.DataFrame, template: Template, **arguments: Unpack[PreviewArguments]
) -> pd.DataFrame: ...
@_as_method
def preview(table: Any, *args: Any, **arguments: Any) -> Any:
    return methods_of(table).preview(*args, **arguments)


@overload
def estimate(
    table: Frame, template: Template, **arguments: Unpack[EstimateArguments]
) -> Estimate: ...
@overload
def estimate(
    table: ArrowStream, template: Template, **arguments: Unpack[EstimateArguments]
) -> Estimate: ...
@overload
def estimate(
    table: dd.DataFrame, template: Template, **arguments: Unpack[EstimateArguments]
) -> Estimate: ...
@_as_method
def estimate(table: Any, *args: Any, **arguments: Any) -> Any:
    return methods_of(table).estimate(*args, **arguments)


@overload
def trial(
    table: pl.LazyFrame, template: Template, **arguments: Unpack[TrialArguments]
) -> pl.DataFrame: ...
@overload
def trial(table: Frame, template: Template, **arguments: Unpack[TrialArguments]) -> Frame: ...
@overload
def trial(
    table: ArrowStream, template: Template, **arguments: Unpack[TrialArguments]
) -> pa.Table: ...
@overload
def trial(
    table: dd.DataFrame, template: Template, **arguments: Unpack[TrialArguments]
) -> pd.DataFrame: ...
@_as_method
def trial(table: Any, *args: Any, **arguments: Any) -> Any:
    return methods_of(table).trial(*args, **arguments)


@overload
def submit(
    table: Frame, template: Template, **arguments: Unpack[SubmitArguments]
) -> Run[Frame]: ...
@overload
def submit(
    table: ArrowStream, template: Template, **arguments: Unpack[SubmitArguments]
) -> Run[pa.Table]: ...
@overload
def submit(
    table: dd.DataFrame, template: Template, **arguments: Unpack[SubmitArguments]
) -> Any: ...
@_as_method
def submit(table: Any, *args: Any, **arguments: Any) -> Any:
    return methods_of(table).submit(*args, **arguments)


@overload
def batch(table: Frame, template: Template, **arguments: Unpack[BatchArguments]) -> Frame: ...
@overload
def batch(
    table: ArrowStream, template: Template, **arguments: Unpack[BatchArguments]
) -> pa.Table: ...
@overload
def batch(
    table: dd.DataFrame, template: Template, **arguments: Unpack[BatchArguments]
) -> dd.DataFrame: ...
@_as_method
def batch(table: Any, *args: Any, **arguments: Any) -> Any:
    return methods_of(table).batch(*args, **arguments)
