"""Opens an input of any format: columns, plain values in pieces, typed tables in pieces.

Comes in: a path, or several. Goes out: a `Source`. Every pass reads the files from the start;
only one piece stays in memory (a workbook is read whole).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from nyu_llm_frames._shared.local_path import local_path, natural_order
from nyu_llm_frames._tables.file_content import (
    EXCEL_FILE,
    FEATHER_FILE,
    HEAD_BYTES,
    MAGIC,
    PARQUET_FILE,
    is_binary,
    kind_of,
    reader,
)
from nyu_llm_frames._tables.open_table import library
from nyu_llm_frames._tables.table import Piece
from nyu_llm_frames._tables.text_file import COMPRESSED, open_text, reading, text_suffix
from nyu_llm_frames.errors import ConfigurationError

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
FEATHER = (".feather", ".arrow", ".arrows", ".ipc")
EXCEL = (".xlsx", ".xlsm")
TEXTS = (*CSV_DELIMITERS, *JSON_LINES)
INPUTS = (*TEXTS, *PARQUET, *FEATHER, *EXCEL)
_CONTENT = {"parquet": PARQUET_FILE, "Feather": FEATHER_FILE, "Excel": EXCEL_FILE}

Paths: TypeAlias = "str | Path | Sequence[str | Path]"


class Source(Protocol):
    """An input: a file, a folder, or several files that are one table."""

    @property
    def path(self) -> Path:
        """The file or the folder; the first of several files."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that are read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, as a template uses them."""

    @property
    def index_names(self) -> Sequence[str]:
        """Names of the rows' labels, if the file has some: no column may have them."""

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        """Read some columns as plain values."""

    def schema(self) -> pa.Schema:
        """Return the types of all columns; may read the whole file."""

    def tables(self) -> Iterator[pa.Table]:
        """Read all columns with the types of `schema`."""

    def notes(self, columns: Sequence[str]) -> list[str]:
        """Return messages for users about how these columns are read."""


def fingerprint(source: Source) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes when an input file is written: path, size, time and inode."""
    stamps = []
    for file in source.files:
        try:
            stat = file.stat()
        except OSError:  # gone
            continue
        stamps.append((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(stamps)


def open_source(path: Paths, *, sep: str | None = None, sheet: str | int | None = None) -> Source:
    """Open an input file, a folder, or a list of files of one kind, or say why it cannot be read.

    `sep` separates the columns of a CSV file; by default its name decides. `sheet` is one of an
    Excel file, by name or by number from 0; by default the first.
    """
    sep = _separator(sep)
    if isinstance(path, list | tuple | Iterator):
        return _open_files([_local(item) for item in path], sep, sheet)
    one = _local(path)
    with reading(one):
        files = _files_of(one) if one.is_dir() else [one]
        kinds = {_kind(file, sep): file for file in files}
        if one.is_dir() and not files:
            raise ConfigurationError(f"The folder {one} holds no data files.")
        if not one.is_dir() or (len(kinds) == 1 and not kinds.keys() & {"parquet", ""}):
            return _open_files(files, sep, sheet)
        _check_kinds(list(kinds.values()))
        from nyu_llm_frames._tables.parquet import ParquetSource

        return ParquetSource(one)  # with any names of files; hive partitions too


def _local(path: Any) -> Path:
    if library(path):
        raise ConfigurationError(
            f"The input must be a path, not a {type(path).__name__}: use df.llm.batch for it, or "
            "llm.batch(table, ...)."
        )
    return local_path(
        path,
        "The input",
        "Download it first; or read it with pandas, which takes URLs, and use df.llm.batch.",
    )


def _separator(sep: str | None) -> str | None:
    if sep is None:
        return None
    sep = "\t" if sep == r"\t" else sep  # as shells pass it
    if isinstance(sep, str) and len(sep) == 1 and sep not in '"\r\n\0\ufeff':
        return sep
    raise ConfigurationError(
        f"sep= is one character, as in sep=';', not {sep!r}. Read the file with pd.read_csv(..., "
        f"sep={sep!r}), which takes patterns, too, and use df.llm.batch."
    )


def _kind(path: Path, sep: str | None) -> str:
    """Say what a file is by its name; "" if unknown."""
    suffix = text_suffix(path)
    for kind, suffixes in (("parquet", PARQUET), ("Feather", FEATHER), ("Excel", EXCEL)):
        if suffix in suffixes:
            return "" if path.suffix.lower() in COMPRESSED else kind
    if suffix in JSON_LINES:
        return "JSON lines"
    if sep is not None or suffix == ".csv":
        return "CSV"
    return "TSV" if suffix in CSV_DELIMITERS else ""


def _files_of(folder: Path) -> list[Path]:
    """Return the data files of a folder, without those that programs leave there."""
    return [
        path
        for path in sorted(folder.rglob("*"), key=natural_order)
        if path.is_file()
        and not any(p.startswith((".", "_", "~$")) for p in path.relative_to(folder).parts)
    ]


def _check_kinds(files: Sequence[Path]) -> None:
    """Raise for files of several kinds; one of each is given."""
    if len(files) > 1:
        names = " and ".join(map(str, files[:2]))
        raise ConfigurationError(
            f"{names} are of two kinds, and the files of one table must be of one kind. Give a "
            "list of such files."
        )


def _open_files(files: Sequence[Path], sep: str | None, sheet: str | int | None) -> Source:
    if not files:
        raise ConfigurationError("There are no input files: the list is empty.")
    for file in files:
        with reading(file):
            _check_file(file, _kind(file, sep))
    kinds = {_kind(file, sep): file for file in files}
    _check_kinds(list(kinds.values()))
    [(kind, file)] = kinds.items()
    for name, value, of in (("sep", sep, "CSV"), ("sheet", sheet, "Excel")):
        if value is not None and kind != of:
            raise ConfigurationError(f"{name}= is for {of} files, and {file} is not one.")
    if kind == "Excel":
        from nyu_llm_frames._tables.excel import ExcelSource

        return ExcelSource(files, sheet)
    if kind == "Feather":
        from nyu_llm_frames._tables.feather import FeatherSource

        return FeatherSource(files[0], files)
    if kind == "parquet":
        from nyu_llm_frames._tables.parquet import ParquetSource

        return ParquetSource(files[0], files if len(files) > 1 else None)
    if kind == "JSON lines":
        from nyu_llm_frames._tables.json_lines import JsonLinesSource

        return JsonLinesSource(files)
    from nyu_llm_frames._tables.csv_text import CsvSource

    return CsvSource(files, sep or ("," if kind == "CSV" else "\t"))


def _check_file(path: Path, kind: str) -> None:
    """Raise if a file is missing, or not what its name says."""
    if not path.exists():
        hint = f" For several files: sorted(glob.glob({str(path)!r}))." if "*" in path.name else ""
        raise ConfigurationError(f"There is no input file {path}.{hint}")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder, and a list is of files. Give it alone.")
    if path.name.startswith("~$"):
        raise ConfigurationError(
            f"{path} is what Excel leaves beside an open workbook. Close the workbook, and give "
            f"{path.with_name(path.name.removeprefix('~$'))}."
        )
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    is_text = kind in ("CSV", "TSV", "JSON lines")
    packed = COMPRESSED.get(path.suffix.lower()) if is_text else None
    if packed and head and not head.startswith(MAGIC[packed]):
        raise ConfigurationError(
            f"{path} is not compressed with {packed}, whatever its name says. If it was unpacked "
            f"when it was downloaded, call it {path.with_suffix('').name}."
        )
    if packed:
        with open_text(path) as text:
            head = text.content.read(HEAD_BYTES)
    found = kind_of(path, head)
    if found is not None and found[0] != _CONTENT.get(kind):
        is_packed = is_text and found[0] == "compressed with gzip"
        way = f" Or call it {path.name}.gz." if is_packed else ""
        whatever = ", whatever its name says" if kind else ""
        raise ConfigurationError(f"{path} is {found[0]}{whatever}. {found[1]}{way}")
    if not kind:
        way = f"Read it with {reader(path)} and use df.llm.batch."
        if is_binary(head):
            way = "Save it as CSV or parquet with the program that made it."
        raise ConfigurationError(
            f"{path}: the input's name ends in one of {', '.join(INPUTS)} (text also in .gz or "
            ".zst), or it is a folder of such files; or sep= says what separates its columns. "
            f"{way}"
        )
