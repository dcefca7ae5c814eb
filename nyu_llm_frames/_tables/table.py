"""The protocol of every kind of table: it gives pieces of rows and takes new columns.

Comes in: a table of some library. Goes out: plain values of the columns in use, labels for people,
and a table of the same kind with new columns beside the old ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import numpy as np
import pandas as pd
from typing_extensions import TypeVar

T_co = TypeVar("T_co", covariant=True, default=Any)
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

ROWS, BYTES = 10_000, 4 << 20
"""Maximum rows and bytes of a piece of a file, whichever comes first."""

EXACT = 2**53
"""Above this a float cannot hold every whole number."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows as plain Python values."""

    rows: int
    values: dict[Any, list[object]]  # requested columns, as `python_values.to_python` gives them
    # What `index` prints in a template, if the table has labels and they were requested; otherwise
    # the rows are numbered from 0.
    index: list[object] | None
    read: float = 1.0  # part of a file read so far, 0 to 1
    labels: Any = None  # of the rows, for messages; by default `index`, else the numbers

    def take(self, rows: Ints, first: int) -> Piece:
        """Return some rows with their labels; the piece's first row has this number."""
        at = rows.tolist()
        index = range(first, first + self.rows) if self.index is None else self.index
        labels = index if self.labels is None else self.labels
        values = {name: [cells[i] for i in at] for name, cells in self.values.items()}
        return Piece(len(at), values, [index[i] for i in at], self.read, [labels[i] for i in at])


class Head(Protocol):
    """The names that a call is compiled against, before any row is read."""

    @property
    def columns(self) -> Sequence[Hashable]:
        """Names of the columns, as a template uses them."""

    @property
    def index_names(self) -> Sequence[str]:
        """Names of the rows' labels: no new column may have them."""


class Table(ABC, Generic[T_co]):
    """A table in memory. It is never changed."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[Hashable]:
        """Names of the columns, as a template uses them; with duplicates."""

    index_names: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def pieces(
        self, columns: Sequence[Hashable], *, index: bool = False, rows: int | None = None
    ) -> Iterator[Piece]:
        """Read some columns as plain values, `rows` at a time."""

    def label(self, row: int) -> Hashable:
        """Return the label of a row for messages."""
        return row

    def numbers(self) -> Ints:
        """Return the rows' numbers in the whole table."""
        return np.arange(len(self))

    @abstractmethod
    def take(self, rows: Ints) -> Table[T_co]:
        """Return some rows, in this order."""

    @abstractmethod
    def earlier(self, names: Sequence[str]) -> pd.DataFrame:
        """Return the columns with these names, if any, as pandas has them; rows are numbered."""

    def as_pandas(self) -> pd.DataFrame:
        """Return the whole as a pandas frame, for statistics."""
        return self.earlier([str(name) for name in self.columns])

    @abstractmethod
    def beside_labels(self, columns: Mapping[str, Any]) -> T_co:
        """Return a table of these columns alone, with the labels of the rows."""

    @abstractmethod
    def with_columns(self, columns: Mapping[str, Any]) -> T_co:
        """Return a new table with columns at the end, or replaced in place.

        They are as pandas has them: `AnswerColumns` makes them. By position.
        """

    def in_memory(self) -> Table[Any]:
        """Return the rows as a frame, not a query."""
        return self

    def with_record(self, table: Any, name: str, record: Mapping[str, Any]) -> Any:
        """Attach a record to a new table, if its library has a place for it."""
        return table


class Labels(Sequence[Any]):
    """The labels of the rows of several pieces, or of those that were chosen."""

    def __init__(self, parts: Sequence[Sequence[Any]], chosen: Ints | None = None) -> None:
        self._parts, self._chosen = parts, chosen
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        every = int(self._ends[-1]) if len(self._ends) else 0
        return every if self._chosen is None else len(self._chosen)

    def __getitem__(self, row: Any) -> Any:
        row = int(row if self._chosen is None else self._chosen[row])
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[part][row - int(self._ends[part]) + len(self._parts[part])]
