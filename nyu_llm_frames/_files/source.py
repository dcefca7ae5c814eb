"""An input file, whatever its format: columns, plain values in pieces, typed tables in pieces.

Comes in: a path. Goes out: a `Source`. Every pass reads the file from the start; nothing of it
stays in memory but one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from nyu_llm_frames.errors import ConfigurationError

ROWS = 10_000
BYTES = 4 << 20
"""A piece ends at so many rows or bytes, whichever comes first."""

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
INPUTS = (*CSV_DELIMITERS, *JSON_LINES, *PARQUET)
OUTPUTS = (*CSV_DELIMITERS, *PARQUET)


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows as plain Python values.

    Attributes
    ----------
    rows : int
    values : dict of str to list
        The columns asked for.
    index : list or None
        Row labels, where the file keeps some; else the rows are numbered from 0.
    read : float
        Part of the file that has been read, 0 to 1.
    """

    rows: int
    values: dict[str, list[object]]
    index: list[object] | None
    read: float


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


def open_source(path: str | Path) -> Source:
    """Open an input file, or a folder of parquet files.

    Raises
    ------
    ConfigurationError
        When it is not there, or of no known kind.
    """
    if not isinstance(path, str | Path) or not str(path).strip():
        raise ConfigurationError(f"The input is the path of a file or folder, not {path!r}.")
    path = Path(path).expanduser()
    if path.is_dir():
        from nyu_llm_frames._files.parquet import ParquetSource

        return ParquetSource(path)
    if not path.exists():
        raise ConfigurationError(f"There is no input file {path}.")
    suffix = path.suffix.lower()
    if suffix in CSV_DELIMITERS:
        from nyu_llm_frames._files.csv_text import CsvSource

        return CsvSource(path, CSV_DELIMITERS[suffix])
    if suffix in JSON_LINES:
        from nyu_llm_frames._files.json_lines import JsonLinesSource

        return JsonLinesSource(path)
    if suffix in PARQUET:
        from nyu_llm_frames._files.parquet import ParquetSource

        return ParquetSource(path)
    raise ConfigurationError(
        f"{path}: the input's name ends in one of {', '.join(INPUTS)}, or it is a folder of "
        "parquet files."
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
    return ConfigurationError(
        f"{path}, line {line:,}: the byte 0x{e.object[e.start]:02x} is not UTF-8. Save the file as "
        f"UTF-8 (as it looks: iconv -f {looks} -t UTF-8); or read it with pandas (encoding=...) "
        "and use df.llm.batch."
    )
