"""Reads one sheet of Excel workbooks, whole, as pandas does.

Comes in: paths and a sheet. Goes out: a source. Each cell is also kept as it is in the book:
pandas turns the text "007" into the number 7.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from nyu_llm_frames._shared.wording import first_names
from nyu_llm_frames._tables.arrow_rows import without_duplicates
from nyu_llm_frames._tables.csv_cells import MISSING, Guess, parsed
from nyu_llm_frames._tables.frame_values import series_to_python
from nyu_llm_frames._tables.table import ROWS, Piece
from nyu_llm_frames.errors import ConfigurationError


def check_openpyxl() -> None:
    """Raise if the package for Excel files is not installed."""
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            'Excel files need openpyxl: pip install "nyu-llm-frames[excel]"'
        ) from None


class ExcelSource:
    """A sheet of one workbook, or of several in sequence."""

    index_names = ()

    def __init__(self, files: Sequence[Path], sheet: str | int | None = None) -> None:
        check_openpyxl()
        self.path, self.files = files[0], files
        self._notes: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, mixed labels, empty columns
            read = [self._read(path, sheet) for path in files]
            frame, cells = (
                pd.concat(parts, ignore_index=True) for parts in zip(*read, strict=True)
            )
            kept = [label for label in frame if _is_damaged(cells[label], frame[label])]
            for label in kept:
                frame[label] = cells[label].map(_or_none).astype(object)
            table = frame.copy(deep=False)
            for label in table:
                if not _is_of_one_type(table[label]):
                    table[label] = pd.Series(list(map(_text, table[label])), dtype=object)
            self._table = pa.Table.from_pandas(table, preserve_index=False)
        self.columns = tuple(without_duplicates(self._table.schema, self.path).names)
        if not self.columns:
            raise ConfigurationError(f"{self.path}: the sheet is empty: it has no header row.")
        self.labels: list[Any] = frame.columns.tolist()
        self._frame, self._cells = frame, cells
        self._kept = [name for name, c in zip(self.columns, frame, strict=True) if c in kept]

    def _read(self, path: Path, sheet: str | int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the sheet as pandas reads it, and its cells as they are."""
        try:
            with pd.ExcelFile(path, engine="openpyxl") as book:
                names = book.sheet_names
                known = isinstance(sheet, int) and sheet in range(len(names))
                if sheet is not None and sheet not in names and (not known or sheet is True):
                    raise ConfigurationError(
                        f"{path} has no sheet {sheet!r}. Its sheets: {', '.join(map(repr, names))}."
                    )
                if sheet is None and len(names) > 1:
                    self._notes.append(
                        f"{path}: of {len(names)} sheets the first is read, {names[0]!r}; use "
                        "sheet= for another"
                    )
                wanted: Any = 0 if sheet is None else sheet
                frame = pd.read_excel(book, sheet_name=wanted)
                return frame, pd.read_excel(book, sheet_name=wanted, dtype=object, na_filter=False)
        except ConfigurationError:
            raise
        except Exception as e:  # a damaged book makes openpyxl and zipfile raise anything
            raise ConfigurationError(f"{path} cannot be read as an Excel file: {e}") from None

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        at = {name: place for place, name in enumerate(self.columns)}
        values = {name: series_to_python(self._frame.iloc[:, at[name]]) for name in columns}
        for start in range(0, len(self._frame), ROWS):
            stop = min(start + ROWS, len(self._frame))
            some = {name: cells[start:stop] for name, cells in values.items()}
            yield Piece(stop - start, some, None, stop / len(self._frame))

    def schema(self) -> pa.Schema:
        return self._table.schema

    def tables(self) -> Iterator[pa.Table]:
        for start in range(0, self._table.num_rows, ROWS):
            yield self._table.slice(start, ROWS)

    def cells(self) -> Iterator[dict[str, list[Any]]]:
        """Read all columns as they are in the book; an empty cell is None."""
        for start in range(0, len(self._cells), ROWS):
            part = self._cells.iloc[start : start + ROWS]
            yield {
                name: [None if _is_empty(v) else v for v in part.iloc[:, place]]
                for place, name in enumerate(self.columns)
            }

    def notes(self, columns: Sequence[str]) -> list[str]:
        kept = [name for name in columns if name in self._kept]
        if not kept:
            return self._notes
        names = first_names(kept)
        return [
            *self._notes,
            "kept as is, since pandas.read_excel would change it (text with zeros or a + in "
            f"front, long numbers as text, truth values beside empty cells): {names}. A frame "
            f"makes the same requests with pd.read_excel(..., dtype=dict.fromkeys([{names}], "
            "object))",
        ]


def _is_damaged(cells: pd.Series, found: pd.Series) -> bool:
    """Whether pandas changes the values of the cells."""
    if found.dtype.kind not in "iuf" or isinstance(found.dtype, pd.CategoricalDtype):
        return False
    values = cells.tolist()
    if any(isinstance(value, bool) for value in values):
        return True
    texts = [v if isinstance(v, str) else "" if _is_empty(v) else "1" for v in values]
    if not any(text not in MISSING and text != "1" for text in texts):
        return False
    guess = Guess()
    guess.look(texts, parsed([texts])[0])
    return guess.is_damaged


def _is_empty(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value)


def _or_none(value: Any) -> Any:
    return None if _is_empty(value) or (isinstance(value, str) and value in MISSING) else value


def _is_of_one_type(column: pd.Series) -> bool:
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return False
    return True


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)
