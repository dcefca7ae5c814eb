r"""Split a stream of bytes into lines, many at once.

Comes in: the bytes of an output file in chunks of any size. Goes out: lists of lines. Lines end at
``\n`` alone: ``bytes.splitlines`` and the line iterators of HTTP clients also break at U+2028,
U+0085 and others, which are legal in JSON strings.
"""

from __future__ import annotations

MAX_LINE_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 512 * 1024  # small enough for a processor's cache, large enough for its upkeep

BOM = b"\xef\xbb\xbf"


class BlockSplitter:
    r"""
    Split a stream of bytes into blocks of lines.

    A byte order mark at the start and blank lines are dropped; ``\r`` before a newline stays. A
    line of more than `max_line_bytes` is dropped and counted (`dropped`), so that an endless line
    cannot fill the memory. Blocks have at least `block_bytes`, but for the last.
    """

    def __init__(
        self, block_bytes: int = BLOCK_BYTES, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        self.block_bytes, self.max_line_bytes = block_bytes, max_line_bytes
        self.dropped = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._tail: list[bytes] = []  # pieces of the unfinished line, joined once
        self._tail_size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return whole lines, or none until there are enough of them."""
        first, *others = chunk.split(b"\n")
        self._grow(first)
        if others:
            self._finish_line()
            self._grow(others.pop())
            short = [line for line in others if len(line) <= self.max_line_bytes]
            self.dropped += len(others) - len(short)
            self._keep(short)
        return self._block() if self._size >= self.block_bytes else []

    def cut(self) -> list[bytes]:
        """Return the remaining complete lines; the stream broke, so its last line is incomplete."""
        self._tail.clear()
        self._tail_size = 0
        return self.close()

    def close(self) -> list[bytes]:
        """Return what is left, with a last line that no newline ends; ready for another stream."""
        if self._tail_size:
            self._finish_line()
        self._at_start = True
        return self._block()

    def _grow(self, piece: bytes) -> None:
        self._tail_size += len(piece)
        if self._tail_size > self.max_line_bytes:
            self._tail.clear()  # the size keeps counting: the rest of the line is dropped too
        else:
            self._tail.append(piece)

    def _finish_line(self) -> None:
        line, size = b"".join(self._tail), self._tail_size
        self._tail.clear()
        self._tail_size = 0
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if size > self.max_line_bytes:
            self.dropped += 1
        else:
            self._keep([line])

    def _keep(self, lines: list[bytes]) -> None:
        kept = [line for line in lines if line and not line.isspace()]
        self._lines += kept
        self._size += sum(map(len, kept))

    def _block(self) -> list[bytes]:
        lines, self._lines, self._size = self._lines, [], 0
        return lines
