"""Reads CSV files of any separator record by record, with the exact text of each.

Comes in: a path. Goes out: plain values, typed tables, or records as they were written, so that a
copy keeps every byte of the unchanged columns. Python's `csv` splits the cells as pandas does; a
reader in blocks could not keep the text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa

from nyu_llm_frames._shared.wording import count, first_names
from nyu_llm_frames._tables.csv_cells import TYPES, Guess, Kind, common_kind, parsed, plain, typed
from nyu_llm_frames._tables.table import BYTES, ROWS, Piece
from nyu_llm_frames._tables.text_file import TextFile, not_utf_8, open_text, other_delimiter
from nyu_llm_frames.errors import ConfigurationError

_FEW = 100
"""After this many cells most text columns are known to be text."""
_LARGEST_CELL = 1 << 30


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records: their fields, and the text of each up to its line end."""

    fields: list[list[str]]
    texts: list[str]
    read: float


class CsvFile:
    """A CSV file in UTF-8 with a header line, of any separator.

    `levels` is the number of fields before the first column that are row labels: those by which the
    first record is longer than the header, as in pandas.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self._guesses: dict[int, Guess] = {}
        with open_text(path) as file:
            self.has_mark = file.content.read(3) == b"\xef\xbb\xbf"
        with open_text(path) as file:
            start = list(islice(self._rows(file), 2))
        if not start:
            raise ConfigurationError(f"{path} is empty: it has no header line.")
        header, self.header_text, _ = start[0]
        self.line_end = self.header_text[len(self.header_text.rstrip("\r\n")) :] or "\n"
        self.columns = column_names(header)
        self._width = max(len(header), len(start[-1][0]))
        self.levels = self._width - len(header)
        if self.levels and other_delimiter(self.header_text, delimiter):
            raise self._too_long(self._width, start[1][2], len(header))

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        levels = self.levels if index else 0
        at = [*range(levels), *self.places(columns)]
        self._look(at)
        for records in self.records():
            values = [plain(cells, found) for cells, found in self._cells(records, at)]
            labels: list[object] | None = values[0] if levels else None
            if levels > 1:
                labels = list(zip(*values[:levels], strict=True))
            named = dict(zip(columns, values[levels:], strict=True))
            yield Piece(len(records.fields), named, labels, records.read)

    def guesses(self) -> list[Guess]:
        """Read all cells, and return the kind of each field of a record."""
        self._look(range(self._width))
        return [self._guesses[i] for i in range(self._width)]

    def schema(self, kinds: Sequence[Kind]) -> pa.Schema:
        levels = [f"__index_level_{i}__" for i in range(self.levels)]
        names, places = [*self.columns, *levels], self._labels_last()
        types = [TYPES[kinds[i]] for i in places]
        schema = pa.schema(zip(names, types, strict=True))
        if not levels:
            return schema
        frame = schema.empty_table().to_pandas().set_index(levels)
        frame.index.names = [None] * self.levels
        return schema.with_metadata(pa.Schema.from_pandas(frame).metadata)

    def tables(self, kinds: Sequence[Kind]) -> Iterator[pa.Table]:
        """Read all columns with these kinds, which may be wider than their own."""
        schema, at = self.schema(kinds), self._labels_last()
        wanted = [kinds[i] for i in at]
        for records in self.records():
            columns = zip(wanted, self._cells(records, at), strict=True)
            arrays = [
                typed(cells, None if kind == "text" else found, kind)
                for kind, (cells, found) in columns
            ]
            yield pa.Table.from_arrays(arrays, schema=schema)

    def _labels_last(self) -> list[int]:
        return [*self.places(self.columns), *range(self.levels)]

    def places(self, columns: Sequence[str]) -> list[int]:
        """Return the positions of these columns in a record."""
        place = {name: self.levels + i for i, name in enumerate(self.columns)}
        return [place[name] for name in columns]

    def records(self) -> Iterator[Records]:
        """Read all records with their text."""
        with open_text(self.path) as file:
            fields: list[list[str]] = []
            texts: list[str] = []
            size = 0
            for row, text, line in islice(self._rows(file), 1, None):
                if len(row) != self._width:
                    if len(row) > self._width:
                        raise self._too_long(len(row), line, self._width)
                    missing = self._width - len(row)  # filled up as in pandas
                    row += [""] * missing
                    text = text.rstrip("\r\n") + self.delimiter * missing
                fields.append(row)
                texts.append(text.rstrip("\r\n"))
                size += len(text)
                if len(fields) >= ROWS or size >= BYTES:
                    yield Records(fields, texts, file.read)
                    fields, texts, size = [], [], 0
            if fields:
                yield Records(fields, texts, 1.0)

    def kept_as_text(self, columns: Sequence[str]) -> list[str]:
        at = self.places(columns)
        self._look(at)
        return [c for c, i in zip(columns, at, strict=True) if self._guesses[i].is_damaged]

    def _look(self, places: Sequence[int]) -> None:
        """Find the kinds of columns from all their cells, never from a sample."""
        new = {i: Guess() for i in places if i not in self._guesses}
        if new:
            for records in self.records():
                for rows in (records.fields[:_FEW], records.fields[_FEW:]):
                    still = {i: guess for i, guess in new.items() if guess.is_open}
                    cells = [[row[i] for row in rows] for i in still]
                    for guess, some, found in zip(
                        still.values(), cells, parsed(cells), strict=True
                    ):
                        guess.look(some, found)
                if not still:
                    break
        self._guesses |= new

    def _cells(
        self, records: Records, places: Sequence[int]
    ) -> Iterator[tuple[list[str], pd.Series | None]]:
        """Yield the cells of columns, and pandas' values of those that are not text."""
        kinds = [self._guesses[i].kind for i in places]
        columns = [[row[i] for row in records.fields] for i in places]
        numbers = [(c, kind) for c, kind in zip(columns, kinds, strict=True) if kind != "text"]
        found = iter(parsed(*zip(*numbers, strict=True)) if numbers else ())
        for kind, cells in zip(kinds, columns, strict=True):
            yield cells, None if kind == "text" else next(found)

    def _rows(self, file: TextFile) -> Iterator[tuple[list[str], str, int]]:
        """Yield each record's fields, text and first line; blank lines are skipped."""
        if csv.field_size_limit() < _LARGEST_CELL:
            csv.field_size_limit(_LARGEST_CELL)
        blank = " \t\r\n".replace(self.delimiter, "")
        text, line, next_line, kept = "", 1, 1, list[str]()

        def lines() -> Iterator[str]:
            for some in file.lines():
                kept.append(some)
                yield some

        reader = csv.reader(lines(), delimiter=self.delimiter)
        try:
            for row in reader:
                text, line, next_line = "".join(kept), next_line, reader.line_num + 1
                kept.clear()
                if text.strip(blank):
                    yield row, text, line
            if len(list(csv.reader([text, "x"], delimiter=self.delimiter))) < 2:
                raise self._unclosed(line)
        except UnicodeDecodeError:
            raise self._not_utf_8() from None
        except csv.Error as e:
            raise ConfigurationError(f"{self.path}, line {reader.line_num:,}: {e}.") from None

    def _not_utf_8(self) -> ConfigurationError:
        """Find the line; the reader decodes many lines at once."""
        number = 1
        with open_text(self.path) as file:
            for line in file.content:
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as e:
                    number += line[: e.start].count(b"\r")  # line ends of old Macs
                    return not_utf_8(self.path, number, line, e)
                number += 1 + line.count(b"\r") - line.endswith(b"\r\n")
        return ConfigurationError(f"{self.path} changed while it was read: make the call again.")

    def _unclosed(self, line: int) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: a quote is opened in the record at line {line:,} and never closed, so "
            "all later lines would be one cell. Close it, or double it where it is part of the "
            "text."
        )

    def _too_long(self, fields: int, line: int, width: int) -> ConfigurationError:
        """Report a record with more fields than those before it, and a possible cause."""
        before = "the header" if width == len(self.columns) else "the first record"
        found = (
            f"{self.path}, line {line:,}: a record has {fields} fields, and {before} has {width}."
        )
        advice = other_delimiter(self.header_text, self.delimiter)
        return ConfigurationError(
            f"{found} {advice or f'Is a text with {self.delimiter!r} in it not quoted?'}"
        )


class CsvSource:
    """CSV files with one header, each read by itself: `pandas.concat` over `pandas.read_csv`."""

    index_names = ()

    def __init__(self, files: Sequence[Path], delimiter: str) -> None:
        self._parts = parts = [CsvFile(file, delimiter) for file in files]
        first = parts[0]
        self.path, self.files = first.path, files
        self.columns, self.levels = first.columns, first.levels
        self.delimiter, self.line_end = first.delimiter, first.line_end
        self.has_mark, self.header_text = first.has_mark, first.header_text
        self.places = first.places
        for part in parts[1:]:
            if (part.columns, part.levels) != (first.columns, first.levels):
                differ = sorted(set(part.columns) ^ set(first.columns))
                what = f"columns ({', '.join(differ[:5])})" if differ else "places of its columns"
                raise ConfigurationError(
                    f"{part.path} differs from {first.path} in the {what}. CSV files of one table "
                    "must have the same columns in the same order. Or combine them with pandas, "
                    "pd.concat(map(pd.read_csv, files)), and use df.llm.batch."
                )

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        for number, part in enumerate(self._parts):
            for piece in part.pieces(columns, index=index):
                yield replace(piece, read=(number + piece.read) / len(self._parts))

    def _kinds(self) -> list[Kind]:
        guesses = [part.guesses() for part in self._parts]
        return [common_kind(column) for column in zip(*guesses, strict=True)]

    def schema(self) -> pa.Schema:
        return self._parts[0].schema(self._kinds())

    def tables(self) -> Iterator[pa.Table]:
        kinds = self._kinds()
        for part in self._parts:
            yield from part.tables(kinds)

    def records(self) -> Iterator[Records]:
        for part in self._parts:
            yield from part.records()

    def kept_as_text(self, columns: Sequence[str]) -> list[str]:
        """Return the columns that stay text although pandas would read numbers."""
        kept = [name for part in self._parts for name in part.kept_as_text(columns)]
        return list(dict.fromkeys(kept))

    def notes(self, columns: Sequence[str]) -> list[str]:
        return reading_notes(self.levels, self.kept_as_text(columns))


def column_names(header: Sequence[str]) -> tuple[str, ...]:
    """Name the columns as pandas does where the header omits or repeats names."""
    if all(header) and len({*header}) == len(header):
        return tuple(header)  # pandas takes a second for some thousand names
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(header)
    text.seek(0)
    return tuple(pd.read_csv(text, index_col=False, nrows=0, dtype=str).columns)


def reading_notes(levels: int, kept: Sequence[str]) -> list[str]:
    """Describe what may surprise users in how a CSV file is read."""
    notes = []
    if levels:
        notes.append(
            f"the records have {count(levels, 'field')} more than the header: the first is "
            "read as the row's label, as in pandas.read_csv"
        )
    if kept:
        names = first_names(kept)
        notes.append(
            "kept as text, as pandas.read_csv would change what is written (zeros or a + in front, "
            "whole numbers of more than 15 digits beside fractions or missing values): "
            f"{names}. A frame makes the same requests with pandas.read_csv(..., "
            f"dtype=dict.fromkeys([{names}], str))"
        )
    return notes
