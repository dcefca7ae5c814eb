"""Cells become plain Python values, the same ones whichever dtype held them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._tables.frame_values import index_to_python, series_to_python
from nyu_llm_frames.errors import TemplateError


class Colour(Enum):
    RED = 1


UTC = dt.timezone.utc  # noqa: UP017


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        (2020.0, 2020),
        (-0.0, 0),
        (0.1, 0.1),
        (2.0**53, 2**53),
        (-(2.0**62), -(2**62)),
        (1e17, 10**17),
        (2.0**63, 2.0**63),
        (float("inf"), float("inf")),
        (np.float32(3), 3),
        (np.float16(0.1), 0.1),
        (np.float32(0.1), 0.1),
        (np.float32(16777216), 16777216),
        (np.complex64(0.1 + 2j), 0.1 + 2j),
        (np.array([0.1], np.float32), [0.1]),
        (pd.Series([0.1], dtype="float32"), [0.1]),
        (np.longdouble(1.5), 1.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
        (np.bytes_(b"x"), b"x"),
        ("\ud800", "\ud800"),
        ("", ""),
        (Decimal("1.10"), Decimal("1.10")),
        (dt.time(1, 2), dt.time(1, 2)),
        (pa.MonthDayNano([0, 5, 3_600_000_000_000]), dt.timedelta(days=5, hours=1)),
        (pa.MonthDayNano([-2, 5, 0]), "-2 months, 5 days, 0:00:00"),
        ([pa.MonthDayNano([1, 0, 0])], ["1 month"]),
        (np.datetime64("2020-02-29"), dt.date(2020, 2, 29)),
        (
            np.datetime64("2020-02-29T01:02:03.000004005", "ns"),
            dt.datetime(2020, 2, 29, 1, 2, 3, 4),
        ),
        (np.timedelta64(1500, "ms"), dt.timedelta(seconds=1.5)),
        (pd.Timestamp("2020-02-29 01:02"), dt.datetime(2020, 2, 29, 1, 2)),
        (pd.Timestamp("2020-02-29", tz="UTC"), dt.datetime(2020, 2, 29, tzinfo=UTC)),
        (pd.Timedelta("1D"), dt.timedelta(days=1)),
        (pd.Period("2020-01", "M"), "2020-01"),
        (pd.Interval(0, 1), "(0, 1]"),
        (pa.scalar(5), 5),
        (pa.scalar("x"), "x"),
        (pa.scalar([1.0, None]), [1, None]),
        (np.array([1.0, np.nan]), [1, None]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(7.0), 7),
        (np.array(["2020-01-01"], "datetime64[ns]"), [dt.datetime(2020, 1, 1)]),
        (np.ma.array([1, 2], mask=[True, False]), [None, 2]),
        (pd.Series([1.0, None]), [1, None]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        ((1.0, (np.int64(2),)), [1, [2]]),
        ({"a": np.float64(1), np.int64(2): {"b": pd.NA}}, {"a": 1, 2: {"b": None}}),
        ({"b", "a", "c"}, ["a", "b", "c"]),
        (frozenset({"a", 1}), [1, "a"]),
        (Colour.RED, Colour.RED),
    ],
    ids=lambda value: repr(sorted(value, key=str) if isinstance(value, set | frozenset) else value),
)
def test_cell_becomes_a_plain_value(cell: object, plain: object) -> None:
    (found,) = to_python([cell])
    assert found == plain
    assert type(found) is type(plain)


NOTHING = [
    None,
    float("nan"),
    np.nan,
    np.float32("nan"),
    pd.NA,
    pd.NaT,
    np.datetime64("NaT", "s"),
    np.timedelta64("NaT", "s"),
    Decimal("NaN"),
    np.ma.masked,
    pa.scalar(None),
    pa.scalar(None, pa.string()),
]


@pytest.mark.parametrize("cell", NOTHING, ids=repr)
def test_every_kind_of_missing_value_becomes_none(cell: object) -> None:
    assert to_python([cell, "x"]) == [None, "x"]
    assert to_python([[cell]]) == [[None]]


def test_converting_needs_no_pandas() -> None:
    code = (
        "import sys; from nyu_llm_frames._stages.prompts.python_values import to_python;"
        "assert to_python([1.0]) == [1]; print('pandas' in sys.modules)"
    )
    # The package itself may import pandas; the module alone must not.
    code = (
        "import sys, types; p = types.ModuleType('nyu_llm_frames');"
        f"p.__path__ = {[str(p) for p in __import__('nyu_llm_frames').__path__]!r};"
        "sys.modules['nyu_llm_frames'] = p;" + code
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


cells = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.decimals(allow_nan=True, allow_infinity=False)
    | st.datetimes()
    | st.dates()
    | st.sampled_from(NOTHING)
    | st.integers(-128, 127).map(np.int8)
    | st.floats(width=32).map(np.float32),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=6,
)


@given(st.lists(cells, max_size=6))
def test_converting_twice_changes_nothing_more(values: list[Any]) -> None:
    once = to_python(values)
    assert repr(to_python(once)) == repr(once)


@given(st.lists(cells, max_size=6))
def test_a_cell_does_not_depend_on_its_neighbours(values: list[Any]) -> None:
    assert repr(to_python(values)) == repr([to_python([v])[0] for v in values])


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, max_size=6)


# Lone surrogates cannot be stored by pyarrow.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
floats = st.floats() | st.integers(-5, 5).map(float)
moments = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
spans = st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999))
small = st.integers(-(2**31), 2**31 - 1)
nested = st.dictionaries(st.just("k"), st.lists(st.none() | st.floats(), max_size=2), min_size=1)

COLUMNS: dict[str, tuple[st.SearchStrategy[list[Any]], Any]] = {
    "bool": (st.lists(st.booleans()), "bool"),
    "int64": (st.lists(small), "int64"),
    "uint8": (st.lists(st.integers(0, 255)), "uint8"),
    "uint64": (st.lists(st.integers(0, 2**64 - 1)), "uint64"),
    "big-endian int": (st.lists(small), ">i4"),
    "float64": (optional(floats), "float64"),
    "float16": (optional(st.floats(width=16)), "float16"),
    "complex64": (st.lists(st.complex_numbers(width=64)), "complex64"),
    "float32": (optional(st.floats(width=32)), "float32"),
    "complex": (st.lists(st.complex_numbers()), "complex128"),
    "str": (optional(text), "str"),
    "string": (optional(text), "string"),
    "string[python]": (optional(st.text(max_size=5)), "string[python]"),
    "object of str": (optional(st.text(max_size=5)), object),
    "object": (st.lists(cells, max_size=5), object),
    "Int64": (optional(small), "Int64"),
    "UInt16": (optional(st.integers(0, 65535)), "UInt16"),
    "Float64": (optional(floats), "Float64"),
    "Float32": (optional(st.floats(width=32)), "Float32"),
    "boolean": (optional(st.booleans()), "boolean"),
    "category of str": (optional(st.sampled_from("abc")), "category"),
    "category of int": (optional(small), "category"),
    "category of float": (optional(st.floats(allow_nan=False)), "category"),
    "category of times": (optional(moments), "category"),
    "datetime64[ns]": (optional(moments), "datetime64[ns]"),
    "datetime64[s]": (optional(st.datetimes()), "datetime64[s]"),
    "datetime with zone": (optional(moments), "datetime64[ns, America/New_York]"),
    "datetime of pyzone": (optional(moments), pd.DatetimeTZDtype("us", "UTC")),
    "timedelta64": (optional(spans), "timedelta64[ns]"),
    "period": (optional(small.map(lambda i: pd.Period(ordinal=i % 9999, freq="D"))), "period[D]"),
    "sparse": (optional(floats), pd.SparseDtype("float64", np.nan)),
    "arrow int": (optional(small), pd.ArrowDtype(pa.int64())),
    "arrow uint8": (optional(st.integers(0, 255)), pd.ArrowDtype(pa.uint8())),
    "arrow float": (optional(floats), pd.ArrowDtype(pa.float64())),
    "arrow bool": (optional(st.booleans()), pd.ArrowDtype(pa.bool_())),
    "arrow string": (optional(text), pd.ArrowDtype(pa.string())),
    "arrow large string": (optional(text), pd.ArrowDtype(pa.large_string())),
    "arrow dictionary": (
        optional(st.sampled_from("abc")),
        pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())),
    ),
    "arrow binary": (optional(st.binary(max_size=3)), pd.ArrowDtype(pa.binary())),
    "arrow date": (optional(st.dates()), pd.ArrowDtype(pa.date32())),
    "arrow time": (optional(st.times()), pd.ArrowDtype(pa.time64("us"))),
    "arrow timestamp": (optional(moments), pd.ArrowDtype(pa.timestamp("ns"))),
    "arrow zoned": (optional(moments), pd.ArrowDtype(pa.timestamp("us", "Europe/Rome"))),
    "arrow duration": (optional(spans), pd.ArrowDtype(pa.duration("us"))),
    "arrow decimal": (
        optional(st.decimals(-99, 99, places=2)),
        pd.ArrowDtype(pa.decimal128(10, 2)),
    ),
    "arrow list": (
        optional(st.lists(st.none() | st.floats(), max_size=3)),
        pd.ArrowDtype(pa.list_(pa.float64())),
    ),
    "arrow struct": (
        optional(nested),
        pd.ArrowDtype(pa.struct([("k", pa.list_(pa.float64()))])),
    ),
}


def column(kind: str, data: st.DataObject) -> pd.Series:
    values, dtype = COLUMNS[kind]
    drawn = data.draw(values)
    if dtype is not object:
        return pd.Series(drawn, dtype=dtype)
    series = pd.Series(pd.Index([]).tolist() + [None] * len(drawn), dtype=object)
    for i, value in enumerate(drawn):
        series.iat[i] = value
    return series


def cells_of(series: pd.Series) -> list[Any]:
    """Return the cells with the width that they have: numpy's own iterator widens floats."""
    is_narrow = isinstance(series.dtype, np.dtype) and series.dtype.kind in "fc"
    return list(series.to_numpy() if is_narrow else series)


@pytest.mark.parametrize("kind", COLUMNS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_fast_path_agrees_with_cell_by_cell(kind: str, data: st.DataObject) -> None:
    series = column(kind, data)
    fast, slow = series_to_python(series), to_python(cells_of(series))
    assert list(map(repr, fast)) == list(map(repr, slow))
    assert list(map(type, fast)) == list(map(type, slow))
    assert len(fast) == len(series)


def test_one_missing_value_leaves_the_others_whole() -> None:
    whole, holed = pd.Series([2020, 2021]), pd.Series([2020, None])
    assert series_to_python(holed)[0] == series_to_python(whole)[0] == 2020
    assert type(series_to_python(holed)[0]) is int


@pytest.mark.parametrize("rows", [2, 9])
def test_categories_have_the_width_that_they_have(rows: int) -> None:
    codes = [0, -1] * (rows // 2)
    series = pd.Series(pd.Categorical.from_codes(codes, np.float32([0.1, 0.2, 0.3])))
    assert series_to_python(series) == [0.1, None] * (rows // 2)


def test_years_beyond_datetime_become_text() -> None:
    series = pd.Series(np.array(["20000-01-01", "NaT"], "datetime64[s]"))
    assert series_to_python(series) == ["20000-01-01 00:00:00", None]


def test_index_labels_are_converted_like_cells() -> None:
    assert index_to_python(pd.RangeIndex(2, 4)) == [2, 3]
    assert index_to_python(pd.Index([1.0, None])) == [1, None]
    assert index_to_python(pd.MultiIndex.from_tuples([("a", 1.0)])) == [["a", 1]]
    assert index_to_python(pd.date_range("2020", periods=1)) == [dt.datetime(2020, 1, 1)]


class _Plain:
    name = "x"


@pytest.mark.parametrize(
    "cell", [_Plain(), len, lambda: 1, (i for i in "ab"), memoryview(b"x"), [_Plain()], iter([1])]
)
def test_a_cell_without_a_text_of_its_own_is_refused(cell: object) -> None:
    """Its address would make another request, and another bill, in every process."""
    frame = pd.DataFrame({"x": pd.Series([cell], dtype=object)})
    with pytest.raises(TemplateError, match=r"row 0.*has no stable text"):
        frame.llm.preview("{{ x }}")
    with pytest.raises(TemplateError, match=r"row 0.*has no stable text"):
        frame.llm.preview("{{ x }}{{ index }}{{ x | upper }}")


def test_what_is_in_a_cell_without_a_text_can_be_printed() -> None:
    frame = pd.DataFrame({"x": pd.Series([_Plain()], dtype=object)})
    [shown] = frame.llm.preview("{{ x.name }}{% if x %}!{% endif %}")["messages"]
    assert shown[0]["content"] == "x!"
