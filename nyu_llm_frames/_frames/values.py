"""The cells of a pandas column or index as plain Python values, fast.

Comes in: a Series or Index of any dtype. Goes out: a list that agrees element by element with
`_scalars.to_python` over the same cells, or an array of what `str` makes of them. The dtype saves
looking at each cell, nothing more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._prompts.scalars import LARGEST_WHOLE_FLOAT, to_python


def series_to_python(series: pd.Series) -> list[object]:
    """Convert a column to plain Python values.

    Parameters
    ----------
    series : pandas.Series
        Any dtype: numpy, nullable, pyarrow-backed, categorical, datetime, object.

    Returns
    -------
    list
        One value a row; NA of every kind is None, whole floats are int.
    """
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _from_numpy(series, dtype)
    if isinstance(dtype, pd.CategoricalDtype) and len(dtype.categories) <= len(series):
        # One conversion per category; code -1 is NA and reads the last entry.
        values = [*index_to_python(dtype.categories), None]
        return [values[code] for code in series.cat.codes.tolist()]
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _from_times(series)
    if _is_text(dtype):
        return _fill(series, series.to_numpy(dtype=object).tolist())
    if _is_plain_number(dtype):
        if dtype.kind == "f":
            return _from_floats(series.to_numpy(dtype="float64", na_value=np.nan))
        if dtype.kind == "b":
            return _fill(series, series.to_numpy(dtype="bool", na_value=False).tolist())
        plain = "int64" if dtype.kind == "i" else "uint64"
        return _fill(series, series.to_numpy(dtype=plain, na_value=0).tolist())
    return to_python(series.tolist())


def series_to_text(series: pd.Series) -> pa.LargeStringArray:
    """Return what `str` makes of a column's plain Python values, null where they are NA.

    Raises
    ------
    Exception
        Any that the `str` of a cell raises; UnicodeEncodeError for half a surrogate pair,
        pyarrow.ArrowInvalid for bytes that are not UTF-8, TypeError for lists and dicts, which may
        hold missing values.
    """
    dtype = series.dtype
    found: Any
    if isinstance(dtype, np.dtype) and dtype.kind in "iu" and dtype.isnative:
        found = pa.array(series.to_numpy())
    elif _is_text(dtype):
        found = pa.array(series)
    else:
        values = series_to_python(series)
        kinds = set(map(type, values))
        if kinds & {list, dict}:
            raise TypeError("A cell that holds others is rendered by itself.")
        if kinds - {str, type(None)}:
            values = [None if value is None else str(value) for value in values]
        found = pa.array(values, pa.large_string())
    found = found.cast(pa.large_string())
    found.validate(full=True)  # nobody else looks at the bytes of a column of text
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def index_to_python(index: pd.Index) -> list[object]:
    """Convert index labels to plain Python values; a label of a MultiIndex becomes a list."""
    if isinstance(index, pd.MultiIndex):
        return to_python(index.tolist())
    return series_to_python(pd.Series(index, index=range(len(index))))


def _is_text(dtype: object) -> bool:
    return isinstance(dtype, pd.StringDtype) or (
        isinstance(dtype, pd.ArrowDtype) and dtype.type is str and dtype.kind != "O"
    )


def _is_plain_number(dtype: object) -> bool:
    """Nullable and pyarrow-backed bool, int and float; decimals are neither."""
    if isinstance(dtype, pd.ArrowDtype):
        return dtype.type in (bool, int, float) and dtype.kind in "biuf"
    kind = getattr(dtype, "kind", "O")
    masked = isinstance(dtype, pd.BooleanDtype) or hasattr(dtype, "is_unsigned_integer")
    return (masked and kind in "biu") or isinstance(dtype, pd.Float32Dtype | pd.Float64Dtype)


def _from_numpy(series: pd.Series, dtype: np.dtype) -> list[object]:
    if dtype.kind in "biu":
        return series.tolist()
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return _from_floats(series.to_numpy().astype("float64", copy=False))
    if dtype.kind == "M":
        return _from_times(series)
    if dtype.kind == "m":
        try:
            return _fill(series, pd.TimedeltaIndex(series).to_pytimedelta().tolist())
        except (ValueError, OverflowError):
            return to_python(series.tolist())
    return to_python(series.tolist())


def _from_floats(values: npt.NDArray[np.float64]) -> list[object]:
    whole = (np.abs(values) < LARGEST_WHOLE_FLOAT) & (values == np.floor(values))
    if whole.all():
        integers: list[object] = values.astype("int64").tolist()
        return integers
    cells = values.astype(object)
    cells[whole] = values[whole].astype("int64")
    cells[np.isnan(values)] = None
    mixed: list[object] = cells.tolist()
    return mixed


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
