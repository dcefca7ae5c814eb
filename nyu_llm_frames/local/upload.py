"""A multipart upload, streamed to disk as it comes.

Comes in: the body of ``POST /files``, chunk by chunk. Goes out: the file part on disk, and the
small fields. Starlette's own form parser would do it through a temporary file, and ``/tmp`` is
memory on many machines.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

MAX_FIELD_BYTES = 2**20


class UploadError(Exception):
    """The body is no upload."""


class Upload:
    """A parser that writes the part ``file`` to `path` and keeps the other parts as text."""

    def __init__(self, content_type: str, path: Path) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise UploadError("the body must be multipart/form-data with a file in it")
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.has_file = False
        self._path = path
        self._out: BinaryIO | None = None
        self._headers: dict[bytes, bytes] = {}
        self._key, self._value = b"", b""
        self._name: str | None = None
        self._text = b""
        self._ended = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._out:
            self._out.close()
        if kind is not None:  # a client that dies in the middle leaves nothing
            self._path.unlink(missing_ok=True)

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the whole body; `UploadError` when it is no complete upload."""
        try:
            async for chunk in chunks:
                if chunk:
                    await to_thread.run_sync(self._parser.write, chunk)
        except FormParserError as error:
            raise UploadError(f"the multipart body cannot be read: {error}") from error
        if not self._ended:
            raise UploadError("the multipart body ends too early")
        if not self.has_file or self._out is None:
            raise UploadError("the multipart body has no part named 'file'")
        await to_thread.run_sync(self._sync)

    def _sync(self) -> None:
        assert self._out is not None
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()

    def _part_begin(self) -> None:
        self._headers, self._key, self._value = {}, b"", b""
        self._name, self._text = None, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file" and not self.has_file:
            self.has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._out = self._path.open("wb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file" and self._out is not None:
            self._out.write(memoryview(data)[start:end])
        elif len(self._text) + end - start <= MAX_FIELD_BYTES:
            self._text += data[start:end]
        else:
            raise UploadError(f"the part {self._name!r} is too large")

    def _part_end(self) -> None:
        if self._name and self._name != "file":
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
