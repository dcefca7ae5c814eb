r"""A stream of bytes to blocks of whole lines.

Comes in: the bytes of an output file in chunks of any size. Goes out: blocks that end where a line
ends, and on demand their lines. Lines end at ``\n`` alone: ``bytes.splitlines`` and the line
iterators of HTTP clients also break at U+2028, U+0085 and others, which are legal in JSON strings.
"""

from __future__ import annotations

MAX_LINE_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 512 * 1024  # small enough for a processor's cache, large enough for its upkeep

BOM = b"\xef\xbb\xbf"


class BlockSplitter:
    """
    Group a stream of bytes into blocks of whole lines.

    A byte order mark at the start goes. A line of more than `max_line_bytes` is dropped and
    counted, so that an endless line cannot fill the memory.

    Parameters
    ----------
    block_bytes : int, default 512 KiB
        Blocks have at least as many bytes, but for the last.
    max_line_bytes : int, default 64 MiB

    Attributes
    ----------
    dropped : int
        Number of lines dropped for their length.
    """

    def __init__(
        self, block_bytes: int = BLOCK_BYTES, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        self.block_bytes, self.max_line_bytes = block_bytes, max_line_bytes
        self.dropped = 0
        self._whole: list[memoryview] = []
        self._whole_size = 0
        self._tail: list[memoryview] = []  # pieces of the unfinished line, joined once
        self._tail_size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return whole lines, or nothing until there are enough of them."""
        step = self.max_line_bytes
        for start in range(0, len(chunk), step):
            self._take(chunk, start, min(start + step, len(chunk)))
        return self._block() if self._whole_size >= self.block_bytes else b""

    def cut(self) -> bytes:
        """Return the whole lines that are left; the stream broke, and its last line is none."""
        self._tail.clear()
        self._tail_size = 0
        return self.close()

    def close(self) -> bytes:
        """Return what is left, with a last line that no newline ends; ready for another stream."""
        if self._tail_size:
            self._finish_line()
        self._at_start = True
        return self._block()

    def _take(self, chunk: bytes, start: int, stop: int) -> None:
        pieces = memoryview(chunk)  # copied once, with the block
        cut = chunk.rfind(b"\n", start, stop) + 1
        if cut and self._tail_size:
            first = chunk.index(b"\n", start) + 1
            self._grow(pieces[start:first], without_end=True)
            self._finish_line()
            start = first
        if cut > start:
            self._keep(pieces[start:cut])
            start = cut
        if start < stop:
            self._grow(pieces[start:stop])

    def _grow(self, piece: memoryview, *, without_end: bool = False) -> None:
        self._tail_size += len(piece) - without_end
        if self._tail_size > self.max_line_bytes:
            self._tail.clear()  # the size goes on counting: the rest of the line goes too
        else:
            self._tail.append(piece)

    def _finish_line(self) -> None:
        if self._tail_size > self.max_line_bytes:
            self.dropped += 1
            self._at_start = False
        else:
            self._keep(memoryview(b"".join(self._tail)))
        self._tail.clear()
        self._tail_size = 0

    def _keep(self, lines: memoryview) -> None:
        if self._at_start:
            self._at_start = False
            lines = lines[len(BOM) :] if lines[: len(BOM)] == BOM else lines
        if lines:
            self._whole.append(lines)
            self._whole_size += len(lines)

    def _block(self) -> bytes:
        block = b"".join(self._whole)
        self._whole.clear()
        self._whole_size = 0
        return block


def lines_of(block: bytes) -> list[bytes]:
    r"""Return the lines of a block that are not blank; ``\r`` before a newline stays."""
    return [line for line in block.split(b"\n") if line and not line.isspace()]
