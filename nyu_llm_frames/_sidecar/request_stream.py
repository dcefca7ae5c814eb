"""The input file of a job, made while it is sent from the sidecar's ids and bodies.

Comes in: the file of a job's requests. Goes out: an open file that can be read again from its
start when an upload is retried. Nothing is on disk, and one group is in memory.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._stages.requests.bodies import request_lines
from nyu_llm_frames.errors import SidecarDamagedError


class RequestStream(io.RawIOBase):
    """The request lines of a job.

    Parameters
    ----------
    path : Path
        Its ids and bodies.
    size : int
        Bytes of all lines, from the job's record: an upload announces it before it begins.

    Raises
    ------
    SidecarDamagedError
        While it is read, if its lines have another size or its prompts were removed.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._blocks = self._read_blocks()
        self._block, self._at = memoryview(b""), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the start or to the end; nothing else is supported."""
        at = {os.SEEK_SET: 0, os.SEEK_END: self._size}.get(whence, -1) + offset
        if at not in (0, self._size):
            raise io.UnsupportedOperation("a stream of requests is read from its start")
        self._blocks.close()
        self._block, self._at = memoryview(b""), at
        if at == 0:
            self._blocks = self._read_blocks()
        return at

    def readinto(self, buffer: Any) -> int:
        while not self._block:
            block = next(self._blocks, None)
            if block is None:
                self._check(self._at == self._size)
                return 0
            self._block = memoryview(block).cast("B")
        into = memoryview(buffer).cast("B")
        n = min(len(into), len(self._block))
        into[:n], self._block = self._block[:n], self._block[n:]
        self._at += n
        self._check(self._at <= self._size)
        return n

    def _check(self, holds: bool) -> None:
        if not holds:
            reason = f"its lines are not the {self._size:,} bytes of its job's record"
            raise _storage.damaged(self._path, reason)

    def _read_blocks(self) -> Generator[Any, None, None]:
        path = self._path
        with _storage.reading(path) as file:
            if "body" not in file.schema_arrow.names:
                raise SidecarDamagedError(f"{path} has no prompts any more.", path=str(path))
            for group in _storage.groups(file, ["custom_id", "body"]):
                yield request_lines(*(column.combine_chunks() for column in group.columns))

    def close(self) -> None:
        self._blocks.close()
        super().close()
