"""Encode the cells of several columns by one list of classes.

Comes in: columns. Goes out: the classes in their order, and for each column the class of every row.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Number
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._stages.prompts.template_errors import no_column
from nyu_llm_frames.errors import CodesError, ConfigurationError
from nyu_llm_frames.research.arithmetic import Floats, Ints

Column: TypeAlias = "pd.Series[Any]"
Kind = Literal["nominal", "ordinal", "numeric", "set"]
KINDS = ("nominal", "ordinal", "numeric", "set")

UNANSWERED = "(unanswered)"
_MOST_NUMBERS = 10  # distinct whole numbers that still look like labels
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Classes:
    """One list of classes for several columns."""

    labels: tuple[str, ...]  # in order
    codes: tuple[Ints, ...]  # of each column, the position of every row's label; -1 where missing
    declared: bool  # whether the order is that of a categorical column
    order: str  # where it comes from, in words


def column(frame: pd.DataFrame, name: Hashable, argument: str = "") -> Column:
    """Return one column, or raise with the available ones."""
    where = f" for {argument}=" if argument else ""
    if not isinstance(name, Hashable):
        kind = type(name).__name__
        raise ConfigurationError(f"Give the name of a column{where}, not a {kind}.")
    if name not in frame.columns:
        raise no_column(f"There is no column {name!r}{where}.", name, frame.columns)
    found = frame[name]
    if isinstance(found, pd.DataFrame):
        raise ConfigurationError(f"There are {found.shape[1]} columns {name!r}; rename them.")
    return found


def values_of(frame: pd.DataFrame, name: Hashable, argument: str) -> Column:
    """Return one column of labels or numbers; decimals, as databases have them, as floats."""
    found = column(frame, name, argument)
    decimals = isinstance(found.dtype, pd.ArrowDtype) and "decimal" in str(found.dtype)
    if found.dtype == object:
        known = found.dropna()
        decimals = len(known) > 0 and all(isinstance(v, Decimal) for v in known)
    return pd.Series(_floats(found), found.index, name=found.name) if decimals else found


def texts(values: Any) -> list[str]:
    """Return values as text, by the conversion that templates use: 1, 1.0 and "1" are one label."""
    return [str(v) for v in to_python(list(values))]


def _family(values: Column, raw: Sequence[Any], cells: Sequence[Any]) -> str:
    """Return what kind of labels a column has; those of two kinds rarely have the same text."""
    if is_bool_dtype(values.dtype) or (cells and all(isinstance(v, bool) for v in cells)):
        return "true or false"
    if is_numeric_dtype(values.dtype) or (cells and all(isinstance(v, Number) for v in cells)):
        return "numbers"
    kinds = {
        (v if isinstance(cell, str) else cell).__class__.__name__
        + (" with time zone" if getattr(cell, "tzinfo", None) else "")
        for v, cell in zip(raw, cells, strict=True)
        if not isinstance(v, str)
    }
    return kinds.pop() if len(kinds) == 1 and not any(isinstance(v, str) for v in raw) else "text"


def _order(declared: list[str], labels: set[str]) -> tuple[list[str], str]:
    rest = sorted(labels - set(declared))
    try:
        rest = sorted(rest, key=float)
        how = "numbers by size"
    except ValueError:
        how = "labels sorted as text"
    if declared:
        how = "declared categories" if not rest else f"declared categories, then {how}"
    return [*declared, *rest], how


def encode(columns: Sequence[Column], check: bool = True) -> Classes:
    """
    Number the labels of some columns by one list of classes.

    Labels compare by value, as text. The order is that of declared categories, else by size for
    numbers, else by text. With `check`, types that differ and share no label are refused: they can
    never match.
    """
    raw: list[tuple[Ints, list[str]]] = []
    declared: list[str] = []
    families: list[str] = []
    for values in columns:
        try:
            codes, found = pd.factorize(values, use_na_sentinel=True)
        except TypeError:
            raise ConfigurationError(
                f"Column {values.name!r} holds lists; kind='set' compares those."
            ) from None
        cells = to_python(list(found))
        raw.append((codes.astype(np.int64), [str(v) for v in cells]))
        families.append(_family(values, list(found), cells))
        if isinstance(values.dtype, pd.CategoricalDtype):
            declared += [t for t in texts(values.dtype.categories) if t not in declared]
    if "true or false" in families:  # "TRUE" is what a spreadsheet makes of True
        raw = [(codes, list(map(_truth_value, uniques))) for codes, uniques in raw]
        declared = list(map(_truth_value, declared))
    used = {label for _, uniques in raw for label in uniques}
    if check and len(set(families)) > 1:
        _check_shared(columns, families, [set(u) for _, u in raw])
    labels, how = _order(list(dict.fromkeys(declared)), used)
    place = {label: i for i, label in enumerate(labels)}
    coded = []
    for codes, uniques in raw:
        lookup = np.array([*(place[u] for u in uniques), -1], dtype=np.int64)
        coded.append(lookup[codes])
    return Classes(tuple(labels), tuple(coded), bool(declared), how)


def _truth_value(label: str) -> str:
    return label.capitalize() if label.casefold() in ("true", "false") else label


def used_labels(codes: Ints, labels: Sequence[Any]) -> tuple[Ints, list[Any]]:
    """Return codes and labels without those labels that have no code."""
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(labels)))
    place = np.full(len(labels) + 1, -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return place[codes], [labels[int(i)] for i in used]


def _check_shared(
    columns: Sequence[Column], families: Sequence[str], labels: Sequence[set[str]]
) -> None:
    for i in range(1, len(columns)):
        if families[i] != families[0] and labels[0] and labels[i] and not labels[0] & labels[i]:
            values = "; ".join(
                f"{columns[k].name!r} has {families[k]}: {_listed(labels[k])}" for k in (0, i)
            )
            raise CodesError(f"No label can match: {values}. Convert one of the two columns.")


def _listed(labels: set[str]) -> str:
    shown = ", ".join(sorted(labels)[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown}, ... ({len(labels):,} in all)"


def is_list(cell: object) -> bool:
    """Return whether a cell holds several labels."""
    return isinstance(cell, list | tuple | set | frozenset | np.ndarray)


def kind_of(columns: Sequence[Column], kind: str) -> Kind:
    """
    Return how labels compare: the argument, or what the columns look like.

    Lists are sets. Ordered categories are ordinal. Numbers are numeric when one of them is not
    whole or when there are more than ten; a few whole numbers are labels.
    """
    if kind != "auto":
        if kind not in KINDS:
            raise ConfigurationError(f"kind must be one of auto, {', '.join(KINDS)}, not {kind!r}.")
        return kind  # type: ignore[return-value]
    for values in columns:
        if values.dtype == object and any(map(is_list, values.head(1000).dropna())):
            return "set"
        if isinstance(values.dtype, pd.ArrowDtype) and "list" in str(values.dtype):
            return "set"
    if any(isinstance(v.dtype, pd.CategoricalDtype) and v.dtype.ordered for v in columns):
        return "ordinal"
    numbers = [is_numeric_dtype(v.dtype) and not is_bool_dtype(v.dtype) for v in columns]
    if any(numbers):  # hand codes are read as text: "3.5" beside a column of numbers is one
        try:
            every = np.concatenate([_floats(v) for v in columns])
        except CodesError:
            return "nominal"
        every = every[~np.isnan(every)]
        whole = not len(every) or bool(np.all(every == np.round(every)))
        if not whole or len(np.unique(every)) > _MOST_NUMBERS:
            return "numeric"
    return "nominal"


def as_numbers(values: Column) -> Floats:
    """Return a column as floats, NaN where a cell is missing; refuse a cell that is no number."""
    found = _floats(values)
    endless = int(np.isinf(found).sum())
    if endless:
        raise CodesError(
            f"Column {values.name!r} is infinite in {count(endless, 'row')}: no mean takes that. "
            "Make these cells missing."
        )
    return found


def _floats(values: Column) -> Floats:
    if is_numeric_dtype(values.dtype):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        found = pd.to_numeric(values.astype(object).where(values.notna(), None))
    except (ValueError, TypeError):
        bad = [v for v in values.dropna() if pd.isna(pd.to_numeric(v, errors="coerce"))][:1]
        raise CodesError(
            f"Column {values.name!r} is compared as numbers and holds {bad[0] if bad else ''!r}."
        ) from None
    return np.asarray(found, dtype=np.float64)


def as_sets(values: Column) -> list[frozenset[str] | None]:
    """Return the labels of each cell, None where it is missing."""
    cells = zip(values.astype(object), values.notna(), strict=True)
    return [_as_set(cell) if known else None for cell, known in cells]


def _as_set(cell: Any) -> frozenset[str]:
    """Return the labels of a cell: of a list, of its JSON, or of text with semicolons."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("["):
            try:
                return frozenset(texts(json.loads(text)))
            except (ValueError, TypeError):
                pass
        return frozenset(part.strip() for part in text.split(";") if part.strip())
    return frozenset(texts(cell)) if is_list(cell) else frozenset(texts([cell]))
