"""A pandas frame as a table, and the checks of every table's columns.

Comes in: a frame, which is not changed. Goes out: plain Python values of the columns in use, or a
new frame with the same index, order, dtypes and columns, plus the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._stages.prompts.python_values import PlaceName
from nyu_llm_frames._stages.requests.bodies import ROWS_AT_ONCE
from nyu_llm_frames._stages.requests.preflight import shown_label
from nyu_llm_frames._tables.frame_values import index_to_python, series_to_python, undecodable
from nyu_llm_frames._tables.table import Head, Ints, Mask, Piece, Table
from nyu_llm_frames.errors import (
    ColumnExistsError,
    ConfigurationError,
    MissingValueError,
    RequestError,
)


def own_copy(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy that is independent of later changes of the frame, and the reverse.

    Where pandas copies on write a shallow one is enough; pandas 2 does so only by option.
    """
    old = int(pd.__version__.partition(".")[0]) < 3
    return frame.copy(deep=old and pd.get_option("mode.copy_on_write") is not True)


class PandasTable(Table[pd.DataFrame]):
    """A copy of a pandas frame, whose columns can be named in a template."""

    def __init__(self, frame: pd.DataFrame) -> None:
        if isinstance(frame.columns, pd.MultiIndex):
            raise ConfigurationError(
                "The frame has columns of several levels, which a template cannot name. Flatten "
                'them first: df.columns = ["_".join(map(str, c)) for c in df.columns]'
            )
        self.frame = own_copy(frame)
        self.index_names = [name for name in frame.index.names if isinstance(name, str)]

    @property
    def columns(self) -> list[Hashable]:
        return list(self.frame.columns)

    def __len__(self) -> int:
        return len(self.frame)

    def pieces(
        self, columns: Sequence[Hashable], *, index: bool = False, rows: int | None = None
    ) -> Iterator[Piece]:
        size = rows or ROWS_AT_ONCE
        for start in range(0, len(self), size):
            part = self.frame.iloc[start : start + size]
            labels = index_to_python(part.index) if index else None
            yield Piece(len(part), column_values(part, columns), labels, labels=part.index)

    def label(self, row: int) -> Hashable:
        return shown_label(self.frame.index[row])

    def take(self, rows: Ints) -> PandasTable:
        return PandasTable(self.frame.iloc[rows])

    def earlier(self, names: Sequence[str]) -> pd.DataFrame:
        at = {name: there[0] for name in names if (there := places(self.columns, name))}
        found = self.frame.iloc[:, list(at.values())].reset_index(drop=True)
        found.columns = pd.Index(list(at))
        return found

    def beside_labels(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        return PandasTable(pd.DataFrame(index=self.frame.index)).with_columns(columns)

    def with_columns(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        out = own_copy(self.frame)
        for name, values in columns.items():
            there = places(list(out.columns), name)
            if not there:
                out.insert(len(out.columns), name, values)
            for place in there:
                out.isetitem(place, values)
        return out

    def with_record(self, table: Any, name: str, record: Mapping[str, Any]) -> Any:
        table.attrs[name] = dict(record)
        return table


def column_values(frame: pd.DataFrame, columns: Sequence[Hashable]) -> dict[Hashable, list[object]]:
    """Return plain Python values of some columns, NA as None.

    A text that is not UTF-8, as arrow's readers may leave one, is an error; pandas cannot show it
    either.
    """
    # By position: a label may be anything, also something that `frame[label]` reads differently.
    at: dict[Hashable, int] = {label: place for place, label in enumerate(frame.columns)}
    anything: Any = frame.iloc
    values = {}
    for label in columns:
        series = anything[:, at[label]]
        try:
            values[label] = series_to_python(series)
        except (pa.ArrowException, UnicodeDecodeError):
            row, error = undecodable(pa.chunked_array(pa.array(series)))
            if error is None:
                raise
            name = shown_label(frame.index[row])
            raise RequestError(
                f"The text in column {label!r}, row {name!r}, is not UTF-8 ({error.reason} at byte "
                f"{error.start}). Read the file again with the right encoding, as "
                'pandas.read_csv(path, encoding="latin-1").',
                row=name,
            ) from None
    return values


def rows_with_na(
    values: Mapping[Hashable, Sequence[object]], columns: Sequence[Hashable], rows: int
) -> tuple[Mask, dict[Hashable, int]]:
    """Return which rows have a missing value in one of the columns, and how many per column."""
    missing = np.zeros(rows, dtype=np.bool_)
    counts: dict[Hashable, int] = {}
    for label in columns:
        missing_rows = np.fromiter((v is None for v in values[label]), np.bool_, rows)
        if missing_rows.any():
            counts[label] = int(missing_rows.sum())
            missing |= missing_rows
    return missing, counts


def missing_value_error(
    rows: Sequence[Hashable], counts: Mapping[Hashable, int], has_object: bool
) -> MissingValueError:
    """Say how many values are missing, where, and how to fix it.

    `rows` are labels of the first rows; of more than three, three are shown. `has_object`: a
    message is a `jinja2.Template`.
    """
    places = ", ".join(
        f"{n:,} in {label if isinstance(label, PlaceName) else f'column {label!r}'}"
        for label, n in counts.items()
    )
    column = next((label for label in counts if not isinstance(label, PlaceName)), "x")
    name = str(column) if str(column).isidentifier() else f"row[{column!r}]"
    shown = f"{', '.join(map(repr, rows[:3]))}{', …' if len(rows) > 3 else ''}"
    shown = f"row {shown}" if len(rows) == 1 else f"rows {shown}"
    tests = f'{{% if {name} %}}…{{% endif %}} or {{{{ {name} | default("unknown") }}}}'
    skip = 'missing="skip" leaves these rows without an answer'
    text = (
        f"Missing values in what the prompt prints or compares: {places} ({shown}). To fix "
        f"it: {skip}; test for them in the template, as in {tests}; or fill or drop them first."
    )
    if has_object:
        text = (
            f"Missing values in columns of a jinja2.Template: {places} ({shown}). Its text "
            "is not kept, so their use is unknown. To fix it, pass its text as the template, in "
            f"which {tests} handle them, and {skip}; or fill or drop them first."
        )
    return MissingValueError(text, columns=counts, rows=rows[:3])


def missing_in_all(errors: Sequence[MissingValueError], has_object: bool) -> MissingValueError:
    """Count the missing values of several parts of a table in one error."""
    if len(errors) == 1:
        return errors[0]
    counts: Counter[Any] = Counter()
    for error in errors:
        counts.update(error.columns)
    rows = [row for error in errors for row in error.rows]
    return missing_value_error(rows[:4], counts, has_object)


def check_new_columns(table: Head, names: Sequence[str], if_exists: str) -> None:
    twice = sorted({n for n in names if list(names).count(n) > 1})
    if twice:
        raise ConfigurationError(
            f"Two new columns would be called {twice[0]!r}. Choose another output= or prefix=."
        )
    labels = [n for n in names if n in table.index_names]
    if labels:
        raise ColumnExistsError(
            f"The frame's index is called {', '.join(map(repr, labels))}. Choose another name "
            "with output= or prefix=, or rename the index.",
            columns=labels,
        )
    columns = list(table.columns)
    found = {n: len(places(columns, n)) for n in names}
    there = [n for n in names if found[n]]
    if there and if_exists == "error":
        raise ColumnExistsError(
            f"The frame already has {', '.join(map(repr, there))}. Was this cell run before? "
            'If so, use if_exists="replace" (costs nothing) or if_exists="fill" (sends only rows '
            "without a good answer). Otherwise choose another name with output= or prefix=.",
            columns=there,
        )
    for name in there:
        if found[name] > 1:
            raise ConfigurationError(
                f"{found[name]} columns are called {name!r}; choose another output= or prefix=."
            )


def places(columns: Sequence[Hashable], name: str) -> list[int]:
    """Return the positions of the columns with a name."""
    # A label may be anything, also pd.NA, and its comparisons are not bool.
    return [i for i, label in enumerate(columns) if isinstance(label, str) and label == name]
