"""Convert a cell to one plain Python value, whichever library it comes from.

Comes in: numpy, pandas and pyarrow scalars, Python values, nested ones. Goes out: int, float, bool,
str, date, datetime, time, timedelta, Decimal, None, and lists and dicts of them. A prompt prints
what comes out of here, and a request's id depends on it, so equal cells must come out equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeAlias

import numpy as np

from nyu_llm_frames._shared.wording import count

Convert: TypeAlias = Callable[[Any], object]

LARGEST_WHOLE_FLOAT = 2.0**63
"""From here on a float was no integer of 64 bits."""


class PlaceName(str):
    """The name of a missing value that is not in a column itself."""

    __slots__ = ()


def to_python(values: Sequence[object]) -> list[object]:
    """Convert cells to plain Python values.

    Every kind of missing value (None, NaN, NaT, ``pd.NA``, masked) becomes None. Whole floats
    become int, because one missing value elsewhere in a column turns 2020 into 2020.0 and must not
    turn every row into a new request. Sets become sorted lists: their own order differs from one
    process to the next. Objects of unknown types stay as they are.

    Examples
    --------
    >>> to_python([2020.0, 0.5, float("nan"), np.int8(3), (1.0, None)])
    [2020, 0.5, None, 3, [1, None]]
    """
    types = set(map(type, values))
    converters = {t: convert for t in types if (convert := _converter(t)) is not None}
    if not converters:
        return list(values)
    if len(types) == 1:
        (only,) = converters.values()
        return list(map(only, values))
    get = converters.get
    return [v if (convert := get(type(v))) is None else convert(v) for v in values]


def _one(value: object) -> object:
    convert = _converter(type(value))
    return value if convert is None else convert(value)


def _converter(kind: type[Any]) -> Convert | None:
    """What to do with values of a type; None when they stay as they are."""
    if kind in _KNOWN:
        return _KNOWN[kind]
    if kind.__name__ == "MonthDayNano":  # pyarrow's, which is a tuple
        return _from_interval
    for base, convert in _KINDS:
        if issubclass(kind, base):
            return convert
    library = kind.__module__.partition(".")[0]
    if library == "pandas":
        from_pandas: Convert = _PANDAS.get(kind.__name__, _pandas_other)
        return from_pandas
    if library == "pyarrow":
        return _from_pyarrow
    return _Unprintable if _prints_its_address(kind) else None


def _prints_its_address(kind: type[Any]) -> bool:
    """Whether the text of such an object differs in every process."""
    if issubclass(kind, (FunctionType, BuiltinFunctionType, MethodType, memoryview, Iterator)):
        return True
    mine: tuple[Any, Any] = kind.__str__, kind.__repr__
    return mine == (object.__str__, object.__repr__)


class _Unprintable:
    """Replaces a cell with a text that would make a new, paid request at every run.

    Its attributes and items can be used all the same.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value: Any = value

    def __str__(self) -> str:
        kind = type(self._value).__name__
        raise TypeError(
            f"a cell of type {kind} has no stable text: print its content, such as its "
            "attributes, or turn the column into text first"
        )

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)

    def __getitem__(self, key: Any) -> Any:
        return self._value[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)


def unwrapped(value: object) -> object:
    """Return a cell as it was given where it has no stable text; in lists, too."""
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value._value if isinstance(value, _Unprintable) else value


def _from_float(value: float) -> object:
    if value != value:
        return None
    if value.is_integer() and -LARGEST_WHOLE_FLOAT < value < LARGEST_WHOLE_FLOAT:
        return int(value)
    return value


def _from_numpy_float(value: Any) -> object:
    # The shortest text that is this very number among those of its width: 0.1, whereas `float`
    # alone tells 0.10000000149011612 from a float32 that was written as 0.1.
    return _from_float(float(str(value) if value.itemsize < 8 else value))


def _from_complex(value: Any) -> object:
    if value != value:
        return None
    return complex(str(value) if getattr(value, "itemsize", 16) < 16 else value)


def _from_decimal(value: Decimal) -> object:
    return None if value.is_nan() else value


def _from_numpy_time(value: Any) -> object:
    # `item` alone gives an int for nanoseconds, and for years that datetime cannot hold.
    if np.isnat(value):
        return None
    found = value.item()
    if isinstance(found, int):
        unit = np.datetime_data(value.dtype)[0]
        if unit in ("ns", "ps", "fs", "as"):
            found = value.astype(f"{value.dtype.kind}8[us]").item()
    return str(value) if isinstance(found, int) else found


def _from_interval(value: Any) -> object:
    """Months have no fixed length, so with them it is text: ``2 months, 5 days, 0:00:00``."""
    rest = timedelta(value.days, microseconds=value.nanoseconds // 1000)
    if not value.months:
        return rest
    return f"{count(value.months, 'month')}, {rest}" if rest else count(value.months, "month")


def _from_array(value: Any) -> object:
    if isinstance(value, np.ma.MaskedArray) and value.ndim == 0 and value.mask:
        return None
    if value.ndim == 0:
        return _one(value[()])
    # Not `tolist`: it gives integers for nanosecond times.
    return to_python(list(value))


def _from_items(value: Any) -> object:
    return to_python(list(value))


def _from_set(value: Any) -> object:
    found = to_python(list(value))
    try:
        return sorted(found)  # type: ignore[type-var]
    except TypeError:
        return sorted(found, key=lambda v: (type(v).__name__, _shown(v)))


def _shown(value: object) -> str:
    return "" if isinstance(value, _Unprintable) else repr(value)


def _from_dict(value: Any) -> object:
    keys = [tuple(to_python(k)) if isinstance(k, tuple) else _one(k) for k in value]
    return dict(zip(keys, to_python(list(value.values())), strict=True))


def _from_timestamp(value: Any) -> object:
    try:
        return value.to_pydatetime(warn=False)
    except (ValueError, OverflowError, NotImplementedError):  # a year that datetime cannot hold
        # pandas itself cannot print one with a time zone.
        return str(value) if value.tz is None else f"{value.tz_convert(None)}+00:00"


def _from_timedelta(value: Any) -> object:
    try:
        return value.to_pytimedelta()
    except (ValueError, OverflowError):
        return str(value)


def _pandas_other(value: Any) -> object:
    """Series, Index and arrays are sequences of cells; Period, Interval and others are text."""
    if getattr(value, "ndim", None) == 1:
        return to_python(list(np.asarray(value)))  # its own iterator widens float32
    return str(value)


def _from_pyarrow(value: Any) -> object:
    if hasattr(value, "as_py"):
        return _one(value.as_py())
    if hasattr(value, "to_pylist"):
        return _one(value.to_pylist())
    return value


_KNOWN: dict[type, Convert | None] = {
    str: None,
    int: None,
    bool: None,
    type(None): None,
    float: _from_float,
    Decimal: _from_decimal,
    list: _from_items,
    tuple: _from_items,
    dict: _from_dict,
    type(np.ma.masked): _from_array,
}
# The first that fits.
_KINDS: tuple[tuple[type[Any], Convert], ...] = (
    (np.ndarray, _from_array),
    (list, _from_items),
    (tuple, _from_items),
    (dict, _from_dict),
    (set, _from_set),
    (frozenset, _from_set),
    (np.bool_, bool),
    (np.datetime64, _from_numpy_time),
    (np.timedelta64, _from_numpy_time),  # numpy counts it among the integers
    (np.integer, int),
    (np.floating, _from_numpy_float),
    (float, lambda value: _from_float(float(value))),
    (np.str_, str),
    (np.bytes_, bytes),
    (np.complexfloating, _from_complex),
    (complex, _from_complex),
    (np.void, lambda value: _one(value.item())),
)
# By name, so that reading a file without pandas does not import it.
_PANDAS: dict[str, Convert] = {
    "NAType": lambda value: None,
    "NaTType": lambda value: None,
    "Timestamp": _from_timestamp,
    "Timedelta": _from_timedelta,
}
