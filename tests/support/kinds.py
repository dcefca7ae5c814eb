"""Columns of every kind, as Arrow has them: values and type."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

AT = dt.datetime(2024, 7, 1, 12, 30, 15, 250000)
NEW_YORK = "America/New_York"
KINDS: dict[str, tuple[list[Any], pa.DataType]] = {
    "int8": ([1, None], pa.int8()),
    "int64": ([2**53 + 1, 5], pa.int64()),
    "uint64": ([2**64 - 1], pa.uint64()),
    "float": ([0.1, 2.0, 1e300, None], pa.float64()),
    "float32": ([0.1, 2.0, 1e-7, 123456789.0, 3e38, None], pa.float32()),
    "float16": (list(np.float16([0.1, 2, 1e-4])), pa.float16()),
    "bool": ([True, None], pa.bool_()),
    "text": (["a", "", None], pa.string()),
    "large text": (["a", None], pa.large_string()),
    "bytes": ([b"x", None], pa.binary()),
    "date": ([AT.date(), None], pa.date32()),
    "time": ([AT.time(), None], pa.time64("us")),
    "seconds": ([AT.replace(microsecond=0), None], pa.timestamp("s")),
    "nanoseconds": ([AT, None], pa.timestamp("ns")),
    "zone": ([AT, None], pa.timestamp("us", NEW_YORK)),
    "offset": ([AT, None], pa.timestamp("ms", "+05:30")),
    "span": ([dt.timedelta(days=1, seconds=5), None], pa.duration("ns")),
    "decimal": ([Decimal("1.10"), Decimal("2.00"), None], pa.decimal128(9, 2)),
    "choice": (["a", None, "a"], pa.dictionary(pa.int32(), pa.string())),
    "choice of numbers": ([1, None, 2], pa.dictionary(pa.int8(), pa.int64())),
    "choice of float32": ([0.1, None], pa.dictionary(pa.int8(), pa.float32())),
    "choice of days": ([AT.date(), None], pa.dictionary(pa.int32(), pa.date32())),
    "list": ([[1, 2], None, []], pa.list_(pa.int64())),
    "list of float32": ([[0.1, 2.0], None], pa.list_(pa.float32())),
    "list of lists of float16": ([[list(np.float16([0.1]))]], pa.list_(pa.list_(pa.float16()))),
    "vector": ([[0.1, 2.0]], pa.list_(pa.float32(), 2)),
    "list of days": ([[AT.date()], None], pa.large_list(pa.date32())),
    "list of times": ([[AT], None], pa.list_(pa.timestamp("us"))),
    "struct": ([{"a": 1, "b": "x"}, None], pa.struct({"a": "int64", "b": "str"})),
    "struct of float32": ([{"a": 0.1}, None], pa.struct([("a", pa.float32())])),
    "struct of lists": ([{"a": [0.1]}, None], pa.struct([("a", pa.list_(pa.float32()))])),
    "structs": ([[{"a": 0.1}], None], pa.list_(pa.struct([("a", pa.float32())]))),
    "map": ([[("k", [0.1])], None], pa.map_(pa.string(), pa.list_(pa.float32()))),
    "nothing": ([None, None], pa.null()),
}
