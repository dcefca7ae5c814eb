"""Converts cells of typed columns for files without such types.

Comes in: Arrow columns. Goes out: columns that a CSV file, JSON or a sheet can hold, or None.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from nyu_llm_frames._tables.filling import IS_NEW, beside_kept
from nyu_llm_frames._tables.frame_values import as_written as written
from nyu_llm_frames._tables.frame_values import decoded, is_encoded, with_leaves
from nyu_llm_frames._tables.json_lines import cell_text

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_TEXT_EXTENSIONS = ("arrow.uuid", "arrow.json", "pandas.period", "pandas.interval")


def has_text(kind: pa.DataType, inside: bool = False) -> bool:
    """Whether the cells of a type are text in a CSV file; lists and structs become JSON."""
    is_ = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return not inside and kind.extension_name in _TEXT_EXTENSIONS
    if is_encoded(kind):
        return has_text(kind.value_type, inside)
    if is_.is_nested(kind):
        return all(has_text(kind.field(i).type, True) for i in range(kind.num_fields))
    if is_.is_interval(kind):  # months, days and nanoseconds
        return False
    if is_.is_temporal(kind) or is_.is_decimal(kind):
        return not inside
    always = (is_.is_boolean, is_.is_integer, is_.is_floating, is_.is_null, *_TEXTS)
    return any(is_kind(kind) for is_kind in always)


def flat(column: pa.ChunkedArray, *, nested: bool = False) -> pa.ChunkedArray:
    """Turn types that only Arrow and pandas have into their values or text.

    With `nested`, lists and structs stay; otherwise they become JSON text. Their short floats are
    widened as in `as_written`.
    """
    column = decoded(column)
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_duration(kind):
        texts = [None if pd.isna(v) else str(v) for v in column.to_pandas()]
        return pa.chunked_array([texts], pa.string())
    texts = _with_floats(kind, pa.string())
    if pa.types.is_nested(kind) and texts != kind:
        column = column.cast(texts).cast(_with_floats(kind, pa.float64()))
    if pa.types.is_nested(kind) and not nested:
        return pa.chunked_array([[cell_text(v) for v in column.to_pylist()]], pa.string())
    return column


def _with_floats(kind: pa.DataType, to: pa.DataType) -> pa.DataType:
    """Return a type with another one in place of its 32-bit floats."""
    return with_leaves(kind, lambda leaf: to if pa.types.is_float32(leaf) else leaf)


def as_written(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Widen short floats to their written values: 0.1, not 0.10000000149011612."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        return pa.chunked_array([pa.array(written(column.to_numpy()), from_pandas=True)])
    return column


def beside(table: pa.Table, new: pa.Table, schema: pa.Schema) -> pa.Table:
    """Put new columns beside those of the input, or in their place.

    With `IS_NEW` among the new columns, only the cells that it marks are replaced.
    """
    columns = []
    for name in schema.names:
        column = new[name] if name in new.schema.names else table[name]
        if IS_NEW in new.schema.names and name in new.schema.names and name in table.schema.names:
            column = beside_kept(name, column, new[IS_NEW], table[name])
        kind = schema.field(name).type
        columns.append(column if column.type == kind else column.cast(kind))
    return pa.Table.from_arrays(columns, schema=schema)


def new_rows(table: pa.Table) -> list[bool]:
    """Return for each row of new columns whether its cells replace those of the input."""
    marks: list[bool] = table[IS_NEW].to_pylist() if IS_NEW in table.column_names else []
    return marks or [True] * table.num_rows


def plain_text(value: Any) -> str:
    """Return the text of a cell that pandas.to_csv would write."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict | list):
        return cell_text(value) or ""
    return value.isoformat(" ") if hasattr(value, "hour") else str(value)
