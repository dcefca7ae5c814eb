"""An input file, whatever its format: columns, plain values in pieces, typed tables in pieces.

Comes in: a path. Goes out: a `Source`. Every pass reads the file from the start; nothing of it
stays in memory but one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._tables.file_content import HEAD_BYTES, PARQUET_FILE, kind_of
from nyu_llm_frames._tables.table import Piece
from nyu_llm_frames.errors import ConfigurationError, LLMFramesError

ROWS = 10_000
BYTES = 4 << 20
"""A piece ends at so many rows or bytes, whichever comes first."""

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
INPUTS = (*CSV_DELIMITERS, *JSON_LINES, *PARQUET)
OUTPUTS = (*CSV_DELIMITERS, *PARQUET)


class Source(Protocol):
    """An input file."""

    @property
    def path(self) -> Path: ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that are read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, as a template uses them."""

    @property
    def index_names(self) -> Sequence[str]:
        """Names of the rows' labels, where the file keeps some: no column may have them."""

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        """Read some columns as plain values."""

    def schema(self) -> pa.Schema:
        """Return the types of all columns; may read the whole file."""

    def tables(self) -> Iterator[pa.Table]:
        """Read all columns with the types of `schema`."""


def fingerprint(source: Source) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes when a file of the input is written: size, time, and which file it is."""
    told = []
    for file in source.files:
        try:
            stat = file.stat()
        except OSError:  # gone
            continue
        told.append((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(told)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the input when it cannot be read."""
    try:
        yield
    except LLMFramesError:
        raise
    except OSError as e:
        raise ConfigurationError(f"{path} cannot be read: {e.strerror or e}.") from None


def open_source(path: str | Path) -> Source:
    """Open an input file, or a folder of parquet files.

    Raises
    ------
    ConfigurationError
        When it is not there, of no known kind, or not what its name says.
    """
    path = local_path(
        path,
        "The input",
        "Download it first; or read it with pandas, which takes URLs, and use df.llm.batch.",
    )
    with reading(path):
        if path.is_dir():
            from nyu_llm_frames._tables.parquet import ParquetSource

            return ParquetSource(path)
        if not path.exists():
            raise ConfigurationError(f"There is no input file {path}.")
        return _open_file(path)


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    kind = kind_of(path, head)
    if suffix in PARQUET and (kind is None or kind[0] == PARQUET_FILE):
        from nyu_llm_frames._tables.parquet import ParquetSource

        return ParquetSource(path)
    if kind is not None:
        raise ConfigurationError(
            f"{path} is {kind[0]}, whatever its name says. Read it with {kind[1]} and use "
            "df.llm.batch; or save it as CSV or parquet."
        )
    if suffix in CSV_DELIMITERS:
        from nyu_llm_frames._tables.csv_text import CsvSource

        return CsvSource(path, CSV_DELIMITERS[suffix])
    if suffix in JSON_LINES:
        from nyu_llm_frames._tables.json_lines import JsonLinesSource

        return JsonLinesSource(path)
    line = f"pd.read_{'json' if suffix == '.json' else 'csv'}({str(path)!r})"
    raise ConfigurationError(
        f"{path}: the input's name ends in one of {', '.join(INPUTS)}, or it is a folder of "
        f"parquet files. Read it with {line} and use df.llm.batch."
    )


def other_delimiter(header: str, delimiter: str) -> str:
    """Say how to read a file whose header is one column, with another separator in its name."""
    found = [mark for mark in (";", "\t", "|", ",") if mark != delimiter and mark in header]
    if delimiter in header or not found:
        return ""
    mark = max(found, key=header.count)
    return (
        f"The header has no {delimiter!r}, and {header.count(mark):,} {mark!r}: where that "
        f"separates the columns, read the file with pd.read_csv(..., sep={mark!r}) and use "
        "df.llm.batch."
    )


def not_utf_8(path: Path, line: int, text: bytes, e: UnicodeDecodeError) -> ConfigurationError:
    """Name the line and the byte of a text file that is not UTF-8.

    Parameters
    ----------
    path : Path
    line : int
        Number of the line, from 1.
    text : bytes
        The line.
    e : UnicodeDecodeError
        What came of reading it, or a part of it.
    """
    looks = "UTF-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
    if looks != "UTF-16" and b"\0" in text:
        return ConfigurationError(f"{path}, line {line:,} is no text: the file is of another kind.")
    return ConfigurationError(
        f"{path}, line {line:,}: the byte 0x{e.object[e.start]:02x} is not UTF-8. Save the file as "
        f"UTF-8 (as it looks: iconv -f {looks} -t UTF-8); or read it with pandas (encoding=...) "
        "and use df.llm.batch."
    )
