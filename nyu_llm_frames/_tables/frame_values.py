"""Converts the cells of a pandas column or index to plain Python values, fast.

Comes in: a Series or Index of any dtype. Goes out: a list that agrees element by element with
`to_python` over the same cells. Knowing the dtype only saves checking each cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._stages.prompts.python_values import LARGEST_WHOLE_FLOAT, to_python

_INTEGERS = (f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64))
_HELD_BY_ARROW = (
    *(pd.ArrowDtype, pd.BooleanDtype, pd.Float32Dtype, pd.Float64Dtype),
    *(getattr(pd, name) for name in _INTEGERS),
)
_PLAIN = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
"""Types whose values Python holds as they are."""


def series_to_python(series: pd.Series) -> list[object]:
    """Convert a column of any dtype to plain values; NA is None, whole floats are int."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _from_numpy(series, dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        # One conversion per category; code -1 is NA and reads the last entry.
        if len(dtype.categories) > len(series):
            series = series.cat.remove_unused_categories()
        values = [*index_to_python(series.cat.categories), None]
        return [values[code] for code in series.cat.codes.tolist()]
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _from_times(series)
    if isinstance(dtype, _HELD_BY_ARROW) or getattr(dtype, "storage", "") == "pyarrow":
        column = pa.array(series)
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return arrow_to_python(pa.chunked_array(chunks, column.type))
    return to_python(series.tolist())


def arrow_to_python(column: pa.ChunkedArray) -> list[object]:
    """Convert an Arrow column to plain values, those of the series that pandas makes of it."""
    column = decoded(column)
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # such as pandas' periods: their own values
        return to_python(list(column.to_pandas()))
    if pa.types.is_floating(kind):
        return _from_floats(column.to_numpy())
    if any(is_kind(kind) for is_kind in _PLAIN):
        plain: list[object] = column.to_pylist()
        return plain
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):  # times that Python cannot hold: as in a frame
        if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
            return series_to_python(column.to_pandas())
        values = list(map(_cell, column))
    if _lists_floats(kind):
        values = [_as_listed(value, kind) for value in values]
    return to_python(values)


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with its values in place of choices or runs of them."""
    kind = column.type
    if not is_encoded(kind):
        return column
    try:
        # Not `cast`, which knows neither intervals nor lists.
        is_choice = pa.types.is_dictionary(kind)
        decode = pa.DictionaryArray.dictionary_decode if is_choice else pc.run_end_decode
        chunks = [decode(chunk) for chunk in column.chunks]
    except pa.ArrowNotImplementedError:  # views of text
        chunks = [pa.array(column.to_pylist(), kind.value_type)]
    return decoded(pa.chunked_array(chunks, kind.value_type))


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a type holds choices, or runs of equal values."""
    return bool(pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind))


def with_leaves(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with others in place of those inside its lists and structs."""
    is_ = pa.types
    inner = [kind.field(i) for i in range(kind.num_fields)]
    inner = [field.with_type(with_leaves(field.type, leaf)) for field in inner]
    if is_.is_struct(kind):
        return pa.struct(inner)
    if is_.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    if is_.is_list(kind):
        return pa.list_(inner[0])
    return pa.large_list(inner[0]) if is_.is_large_list(kind) else leaf(kind)


def without_views(kind: pa.DataType, *, only_choices: bool = False) -> pa.DataType:
    """Return a type with plain texts and bytes for the views that Polars and DataFusion write."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}

    def leaf(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            words = plain.get(kind.value_type, kind.value_type)
            return pa.dictionary(kind.index_type, words, kind.ordered)
        return kind if only_choices else plain.get(kind, kind)

    return with_leaves(kind, leaf)


def undecodable(column: pa.ChunkedArray) -> tuple[int, UnicodeDecodeError | None]:
    """Return the first row whose text is not UTF-8, and why; (0, None) if there is none."""
    for row, cell in enumerate(column):
        try:
            cell.as_py()
        except UnicodeDecodeError as error:
            return row, error
    return 0, None


def _cell(cell: pa.Scalar) -> object:
    """Return a cell's value; text for a time that Python cannot hold."""
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        if isinstance(cell, pa.StructScalar):
            return {name: _cell(cell[name]) for name in cell}
        if isinstance(cell, pa.MapScalar):
            return [(_cell(item["key"]), _cell(item["value"])) for item in cell.values]
        if isinstance(cell, pa.ListScalar):  # of all kinds of lists
            return [_cell(item) for item in cell.values]
        if pa.types.is_date(cell.type):
            return str(cell.cast(pa.string()))
        make = np.timedelta64 if pa.types.is_duration(cell.type) else np.datetime64
        return str(make(cell.value, cell.type.unit))


def _is_narrow(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float32(kind) or pa.types.is_float16(kind))


def _lists_floats(kind: pa.DataType) -> bool:
    """Whether a type may have lists of 16- or 32-bit floats."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return any(map(_is_narrow, inner)) or any(map(_lists_floats, inner))


def _as_listed(value: Any, kind: pa.DataType) -> Any:
    """Keep the width of floats in lists, as numpy does in a frame's lists.

    pandas itself widens those in structs and maps.
    """
    if value is None or not kind.num_fields:
        return value
    if pa.types.is_struct(kind):
        return {f.name: _as_listed(value[f.name], f.type) for f in kind}
    if pa.types.is_map(kind):
        return [(k, _as_listed(v, kind.item_type)) for k, v in value]
    item = kind.field(0).type
    if _is_narrow(item):
        width = np.float32 if item.bit_width == 32 else np.float16
        return [None if v is None else width(v) for v in value]
    return [_as_listed(v, item) for v in value]


def index_to_python(index: pd.Index) -> list[object]:
    """Convert index labels to plain Python values; a label of a MultiIndex becomes a list."""
    if isinstance(index, pd.MultiIndex):
        return to_python(index.tolist())
    return series_to_python(pd.Series(index, index=range(len(index))))


def _from_numpy(series: pd.Series, dtype: np.dtype) -> list[object]:
    if dtype.kind in "biu":
        return series.tolist()
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return _from_floats(series.to_numpy())
    if dtype.kind == "M":
        return _from_times(series)
    if dtype.kind == "m":
        try:
            return _fill(series, pd.TimedeltaIndex(series).to_pytimedelta().tolist())
        except (ValueError, OverflowError):
            return to_python(series.tolist())
    return to_python(list(series.to_numpy()))  # `tolist` would widen complex64


def _from_floats(narrow: npt.NDArray[Any]) -> list[object]:
    values = as_written(narrow)
    whole = (np.abs(values) < LARGEST_WHOLE_FLOAT) & (values == np.floor(values))
    if whole.all():
        integers: list[object] = values.astype("int64").tolist()
        return integers
    cells = values.astype(object)
    cells[whole] = values[whole].astype("int64")
    cells[np.isnan(values)] = None
    mixed: list[object] = cells.tolist()
    return mixed


def as_written(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return numbers with the shortest texts of 16- or 32-bit floats."""
    if values.itemsize == 8:
        return values.astype("float64", copy=False)
    if values.itemsize == 2:
        return values.astype(str).astype("float64")
    texts = pa.array(values.astype("float32", copy=False)).cast(pa.string())
    widened: npt.NDArray[np.float64] = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return widened


def _from_times(series: pd.Series) -> list[object]:
    try:
        return _fill(series, pd.DatetimeIndex(series).to_pydatetime().tolist())
    except (ValueError, OverflowError, NotImplementedError):  # a year that datetime cannot hold
        return [_time(series.iloc[[i]]) for i in range(len(series))]


def _time(one: pd.Series) -> object:
    try:
        return to_python(one.tolist())[0]
    except NotImplementedError:  # pandas cannot bring such a year to its zone
        return to_python(one.dt.tz_convert("UTC").tolist())[0]


def _fill(series: pd.Series, values: list[object]) -> list[object]:
    for position in np.flatnonzero(series.isna().to_numpy()):
        values[position] = None
    return values
