"""Build pandas arrays from lists of plain values, by the kind of their field."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._stages.schema.node import Node

if TYPE_CHECKING:
    from pandas.api.extensions import ExtensionArray


_DTYPES: dict[str, Any] = {
    "integer": pd.Int64Dtype,
    "number": pd.Float64Dtype,
    "boolean": pd.BooleanDtype,
}
_TYPES: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
}


def to_array(node: Node, chunks: list[pa.Array]) -> ExtensionArray:
    """Join what `to_arrow` made of the chunks of one column into its pandas array."""
    column = pa.concat_arrays(chunks)
    dtype: Any
    match node.kind:
        case "choice":
            codes, categories = column.to_numpy(), pd.Index(node.choices)
            return pd.Categorical.from_codes(codes, categories=categories, ordered=False)
        case "date" | "datetime":
            times = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
            array: ExtensionArray = pd.array(times, dtype="datetime64[us]")
            return array
        case "array" | "object":
            dtype = pd.ArrowDtype(column.type)
        case kind:
            dtype = _DTYPES.get(kind, pd.StringDtype)()
    return cast("ExtensionArray", dtype.__from_arrow__(column))


def to_arrow(node: Node, values: list[Any]) -> pa.Array:
    """Build one chunk of a column; choices as codes, -1 for missing."""
    if node.kind == "choice":
        codes = {choice: code for code, choice in enumerate(node.choices)}
        return pa.array([codes.get(v, -1) for v in values], pa.int32())
    return _inner(node, values)


def dtype_name(node: Node) -> str:
    """The dtype of a column, as pandas prints it."""
    return str(to_array(node, [to_arrow(node, [])]).dtype)


def arrow_type(node: Node) -> pa.DataType:
    """The type inside a list or an object; choices have the type of their values there."""
    match node.kind:
        case "choice":
            kinds = {type(c) for c in node.choices}
            if kinds == {bool}:
                return pa.bool_()
            if kinds <= {int, float}:
                return pa.int64() if kinds == {int} else pa.float64()
            return pa.string()
        case "array":
            assert node.items is not None
            return pa.list_(arrow_type(node.items))
        case "object":
            return pa.struct([(k, arrow_type(n)) for k, n in node.properties.items()])
        case kind:
            return _TYPES.get(kind, pa.string())


def _inner(node: Node, values: list[Any]) -> pa.Array:
    """Build column by column at every level: rows of dicts take pyarrow ten times as long."""
    kind = arrow_type(node)
    if node.kind == "array" and node.items is not None:
        sizes = np.fromiter((0 if v is None else len(v) for v in values), np.int32, len(values))
        ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
        flat = list(chain.from_iterable(v for v in values if v is not None))
        offsets, inner = pa.array(ends), _inner(node.items, flat)
        return pa.ListArray.from_arrays(offsets, inner, type=kind, mask=_missing(values))
    if node.kind == "object":
        parts = [
            _inner(sub, [None if v is None else v.get(name) for v in values])
            for name, sub in node.properties.items()
        ]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=_missing(values))
    if node.kind == "choice" and kind == pa.string():
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(values, kind)


def _missing(values: list[Any]) -> pa.Array | None:
    missing = [v is None for v in values]
    return pa.array(missing, pa.bool_()) if any(missing) else None
