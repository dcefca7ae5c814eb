"""Reads and writes text files, plain or compressed with gzip or zstd.

Comes in: a path. Goes out: its bytes, unpacked piece by piece, so that memory does not grow with
its size; how much of the file was read; a compressed file.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from nyu_llm_frames.errors import ConfigurationError, LLMFramesError

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


def text_suffix(path: Path) -> str:
    """Return the suffix of a name that says what the file is: ``.csv`` also for ``in.csv.gz``.

    Examples
    --------
    >>> text_suffix(Path("waves/2020.csv.gz")), text_suffix(Path("in.parquet"))
    ('.csv', '.parquet')
    """
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def with_suffix(path: Path, suffix: str) -> Path:
    """Replace all suffixes that say what the file is.

    Examples
    --------
    >>> with_suffix(Path("out.v2.csv.gz"), ".llm").name
    'out.v2.llm'
    """
    is_packed = path.suffix.lower() in COMPRESSED
    return (path.with_suffix("") if is_packed else path).with_suffix(suffix)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the input in the error when it cannot be read."""
    try:
        yield
    except LLMFramesError:
        raise
    except (OSError, EOFError, zlib.error) as e:
        reason = getattr(e, "strerror", None)
        if reason is None and path.suffix.lower() in COMPRESSED:
            raise ConfigurationError(
                f"{path} is damaged or cut off: {str(e).rstrip('.')}. Copy or download it "
                "again, and make the same call."
            ) from None
        raise ConfigurationError(f"{path} cannot be read: {reason or e}.") from None


class TextFile:
    """An open text file; `content` is unpacked."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self._size = max(path.stat().st_size, 1)
        kind = COMPRESSED.get(path.suffix.lower())
        self._text: io.TextIOWrapper | None = None
        self.content: BinaryIO = self._raw
        if kind == "gzip":
            self.content = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw))
        elif kind == "zstd":
            unpacked = pa.CompressedInputStream(self._raw, "zstd")
            self.content = cast(BinaryIO, io.BufferedReader(unpacked))

    def lines(self) -> io.TextIOWrapper:
        """Return the text with its line ends."""
        self._text = io.TextIOWrapper(self.content, encoding="utf-8-sig", newline="")
        return self._text

    @property
    def read(self) -> float:
        """Part of the file read so far, 0 to 1."""
        return min(self._raw.tell() / self._size, 1.0)

    def close(self) -> None:
        (self._text or self.content).close()
        self._raw.close()


@contextmanager
def open_text(path: Path) -> Iterator[TextFile]:
    """Open a text file; errors while it is read name it."""
    with reading(path), closing(TextFile(path)) as file:
        try:
            yield file
        except ConfigurationError:
            while path.suffix.lower() in COMPRESSED and file.content.read(1 << 20):
                pass  # a damaged file gives nonsense before its end shows the damage
            raise


@contextmanager
def compressed(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """Compress a file while it is written, if its name says so."""
    kind = COMPRESSED.get(path.suffix.lower())
    if kind == "gzip":
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            yield cast(BinaryIO, packed)
    elif kind == "zstd":
        with pa.CompressedOutputStream(file, "zstd") as packed:
            yield packed
    else:
        yield file


def other_delimiter(header: str, delimiter: str) -> str:
    """Say how to read a file if another separator occurs in its header of one column."""
    found = [mark for mark in (";", "\t", "|", ",") if mark != delimiter and mark in header]
    if delimiter in header or not found:
        return ""
    mark = max(found, key=header.count)
    return (
        f"The header has no {delimiter!r}, and {header.count(mark):,} {mark!r}: if that "
        f"separates the columns, give sep={mark!r}, as in pd.read_csv(..., sep={mark!r})."
    )


def not_utf_8(path: Path, line: int, text: bytes, e: UnicodeDecodeError) -> ConfigurationError:
    """Name the line and the byte of a text file that is not UTF-8.

    `text` is the line, and `e` the error of decoding it, or a part of it.
    """
    looks = "UTF-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
    if looks != "UTF-16" and b"\0" in text:
        return ConfigurationError(
            f"{path}, line {line:,} is not text: the file is of another kind."
        )
    return ConfigurationError(
        f"{path}, line {line:,}: the byte 0x{e.object[e.start]:02x} is not UTF-8. Save the file as "
        f"UTF-8 (as it looks: iconv -f {looks} -t UTF-8); or read it with pandas (encoding=...) "
        "and use df.llm.batch."
    )
