"""Finds the kind of table that a value is.

Comes in: a frame of some library. Goes out: a `Table`. Light to import: each library is loaded
when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    from nyu_llm_frames._tables.table import Table


_COLUMNS = ("Array", "ChunkedArray", "Series")  # have a stream too, but are not tables


def library(value: object) -> str:
    """Return the library of a frame; "arrow" for anything with an Arrow stream, else ""."""
    if isinstance(value, type):
        return ""
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("pandas", "polars", "dask") and kind.__name__ in ("DataFrame", "LazyFrame"):
            return root
    is_column = any(kind.__name__ in _COLUMNS for kind in type(value).__mro__)
    return "arrow" if hasattr(value, "__arrow_c_stream__") and not is_column else ""


def open_rows(value: Any, first: int | None = None) -> tuple[Table, int]:
    """Return a value as a table, or its first rows, and how many rows it has.

    A query or a stream is collected here, once.
    """
    from nyu_llm_frames._tables.table import Table

    if isinstance(value, Table):
        return value, len(value)
    if library(value) == "pandas":
        from nyu_llm_frames._tables.frame import PandasTable

        return PandasTable(value if first is None else value.head(first)), len(value)
    if library(value) == "polars":
        from nyu_llm_frames._tables.polars_table import LazyTable, PolarsTable, collected

        if type(value).__name__ == "LazyFrame":
            lazy = LazyTable(collected(value, first))
            return lazy, len(lazy)
        return PolarsTable(value if first is None else value.head(first)), value.height
    import pyarrow as pa

    from nyu_llm_frames._tables.arrow_table import ArrowTable

    try:
        table = pa.table(value)
    except (pa.ArrowException, TypeError) as e:
        raise ConfigurationError(
            f"The Arrow stream of a {type(value).__name__} cannot be read as a table: {e}"
        ) from None
    return ArrowTable(table if first is None else table.slice(0, first)), table.num_rows
