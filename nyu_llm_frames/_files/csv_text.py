"""CSV and TSV files, read record by record with the exact text of each.

Comes in: a path. Goes out: plain values, typed tables, or records as they were written, so that a
copy keeps every byte of the columns that nobody touched. Quoting is read by Python's `csv`, as
pandas reads it; a reader in blocks could neither keep the text nor see a stray quote.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from nyu_llm_frames._files.cells import Guess, Kind, arrow_type, plain, typed
from nyu_llm_frames._files.source import (
    BYTES,
    ROWS,
    Piece,
    not_utf_8,
    other_delimiter,
    reading,
)
from nyu_llm_frames.errors import ConfigurationError

_STEP = 256
# Read behind the last line: a record of its own, unless a quote before it was never closed.
_END = f"end {uuid.uuid4().hex}"
_LARGEST_CELL = 1 << 30


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records: their fields, and the text between two line ends if it was asked for."""

    fields: list[list[str]]
    texts: list[str]
    read: float


class CsvSource:
    """A CSV or TSV file in UTF-8 with a header line."""

    index_names = ()

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self.files = [path]
        self._kinds: dict[str, Kind] = {}
        with path.open("rb") as file:
            self.has_mark = file.read(3) == b"\xef\xbb\xbf"
        self._size = max(path.stat().st_size, 1)
        header = next(self._batches(raw=True, header=True), None)
        if header is None or not header.fields:
            raise ConfigurationError(f"{path} is empty: it has no header line.")
        self.header_text = header.texts[0]
        ending = header.texts[0][len(header.texts[0].rstrip("\r\n")) :]
        self.line_end = ending or "\n"
        self.columns = _names(header.fields[0])

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        kinds = self.kinds(columns)
        at = [self.columns.index(name) for name in columns]
        for records in self._batches():
            rows = records.fields
            values = {
                name: plain([row[i] for row in rows], kinds[name])
                for name, i in zip(columns, at, strict=True)
            }
            yield Piece(len(rows), values, None, records.read)

    def schema(self) -> pa.Schema:
        kinds = self.kinds(self.columns)
        return pa.schema([(name, arrow_type(kinds[name])) for name in self.columns])

    def tables(self) -> Iterator[pa.Table]:
        schema = self.schema()
        kinds = [self._kinds[name] for name in self.columns]
        for records in self._batches():
            cells = zip(*records.fields, strict=True)
            arrays = [typed(column, kind) for column, kind in zip(cells, kinds, strict=True)]
            yield pa.Table.from_arrays(arrays, schema=schema)

    def records(self) -> Iterator[Records]:
        """Read records with their text."""
        return self._batches(raw=True)

    def kinds(self, columns: Sequence[str]) -> dict[str, Kind]:
        """Find the kind of columns from all their cells, never from a part of them.

        The pass ends as soon as every column is known to be text.
        """
        guesses = {name: Guess() for name in columns if name not in self._kinds}
        at = {name: self.columns.index(name) for name in guesses}
        if guesses:
            for records in self._batches():
                for name, guess in guesses.items():
                    if guess.open:
                        i = at[name]
                        guess.look([row[i] for row in records.fields])
                if not any(guess.open for guess in guesses.values()):
                    break
        self._kinds |= {name: guess.kind for name, guess in guesses.items()}
        return {name: self._kinds[name] for name in columns}

    def _batches(self, *, raw: bool = False, header: bool = False) -> Iterator[Records]:
        if csv.field_size_limit() < _LARGEST_CELL:
            csv.field_size_limit(_LARGEST_CELL)
        with reading(self.path), self.path.open("rb") as file:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="")
            lines: Iterator[str] = chain(text, [f"{_END}\n"])
            if raw:
                lines = _Lines(lines)
            reader = csv.reader(lines, delimiter=self.delimiter)
            try:
                if header:
                    first = next((row for row in reader if row), [])
                    if first == [_END]:
                        return
                    if any(_END in cell for cell in first):
                        raise self._unclosed()
                    if first and isinstance(lines, _Lines):
                        yield Records([first], ["".join(lines.take()).lstrip("\r\n")], 0.0)
                    return
                next((row for row in reader if row), None)
                if isinstance(lines, _Lines):
                    lines.take()
                yield from self._group(reader, lines, file)
            except UnicodeDecodeError:
                raise self._not_utf_8() from None
            except csv.Error as e:
                raise ConfigurationError(f"{self.path}, line {reader.line_num:,}: {e}.") from None

    def _group(self, reader: Reader, lines: Iterator[str], file: BinaryIO) -> Iterator[Records]:
        rows: list[list[str]] = []
        texts: list[str] = []
        start, more, before = file.tell(), True, -1
        while more:
            if isinstance(lines, _Lines):
                some = []
                for row in islice(reader, _STEP):
                    text = "".join(lines.take()).rstrip("\r\n")
                    if row:
                        some.append(row)
                        texts.append(text + self.delimiter * (len(self.columns) - len(row)))
                    if row == [_END]:
                        texts.pop()
            else:
                some = [row for row in islice(reader, _STEP) if row]  # blank lines are no rows
            more = reader.line_num != before
            before = reader.line_num
            if some and some[-1] == [_END]:
                some.pop()
                more = False
            elif not more:
                raise self._unclosed()
            self._even_out(some)
            rows += some
            if rows and (not more or len(rows) >= ROWS or file.tell() - start >= BYTES):
                yield Records(rows, texts, min(file.tell() / self._size, 1.0))
                rows, texts, start = [], [], file.tell()

    def _not_utf_8(self) -> ConfigurationError:
        """Find the line; what reads the file decodes many lines at once."""
        number = 1
        with self.path.open("rb") as file:
            for line in file:
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as e:
                    number += line[: e.start].count(b"\r")  # alone, as old Macs end lines
                    return not_utf_8(self.path, number, line, e)
                number += 1 + line.count(b"\r") - line.endswith(b"\r\n")
        return ConfigurationError(f"{self.path} changed while it was read: make the call again.")

    def _unclosed(self) -> ConfigurationError:
        """Name the line with the quote that swallowed all that follows."""
        line = self._first_line(lambda record: any(_END in cell for cell in record))
        return ConfigurationError(
            f"{self.path}: a quote is opened in the record at line {line:,} and never closed, so "
            "that all lines behind it would be one cell. Close it, or write it twice where it is "
            "a part of the text."
        )

    def _first_line(self, is_wanted: Callable[[list[str]], bool]) -> int:
        """Return where the first such record begins."""
        with self.path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(chain(text, [f"{_END}\n"]), delimiter=self.delimiter)
            line = 1
            for record in reader:
                if is_wanted(record):
                    break
                line = reader.line_num + 1
        return line

    def _even_out(self, rows: list[list[str]]) -> None:
        """Fill short records, as pandas does; a long one has no columns to go to."""
        width = len(self.columns)
        if set(map(len, rows)) <= {width}:
            return
        for row in rows:
            if len(row) > width:
                line = self._first_line(lambda record: len(record) > width)
                advice = other_delimiter(self.header_text, self.delimiter)
                raise ConfigurationError(
                    f"{self.path}, line {line:,}: a record has {len(row)} fields, and the header "
                    f"has {width}. "
                    + (advice or f"Is a text with {self.delimiter!r} in it not quoted?")
                )
            row += [""] * (width - len(row))


class Reader(Protocol):
    """What `csv.reader` gives."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


class _Lines:
    """Lines of a file, each also kept until it is taken."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._kept: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._kept.append(line)
        return line

    def take(self) -> list[str]:
        """Return the lines read since the last time: those of one record."""
        kept, self._kept = self._kept, []
        return kept


def _names(header: Sequence[str]) -> tuple[str, ...]:
    """Name the columns as pandas does where the header leaves one out or names one twice."""
    out: list[str] = []
    for number, name in enumerate(header):
        name = name or f"Unnamed: {number}"
        chosen, count = name, 0
        while chosen in out:
            count += 1
            chosen = f"{name}.{count}"
        out.append(chosen)
    return tuple(out)
