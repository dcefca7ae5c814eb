"""Many texts at once: constants and columns that stand one after the other.

Comes in: what a template prints, and columns of text. Goes out: `JoinedTexts`, which are not put
together before somebody needs them: most are needed as JSON only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Positions = np.ndarray[Any, np.dtype[np.int64]]
Texts: TypeAlias = "Sequence[str] | JoinedTexts"


@dataclass(frozen=True, slots=True)
class Cell:
    """A place where a template prints the cell of a column as it is."""

    label: Hashable


@dataclass(frozen=True, slots=True)
class JoinedTexts:
    """One message's texts.

    Attributes
    ----------
    parts : tuple of str and pyarrow.LargeStringArray
        What stands one after the other in each text; arrays have shape (n,) and no nulls.
    rows : int
        n.
    """

    parts: tuple[Any, ...]
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(joined(self.parts, self.rows).to_pylist())

    def blank(self) -> list[int]:
        """Return the positions of texts that are empty or white space."""
        if any(isinstance(part, str) and part.strip() for part in self.parts):
            return []
        seen = np.zeros(self.rows, np.bool_)
        for part in self.parts:
            if not isinstance(part, str):  # what has one of these surely is not blank
                found = pc.match_substring_regex(part, "[!-~]")
                seen |= found.to_numpy(zero_copy_only=False)
        doubtful = np.flatnonzero(~seen)
        rest = JoinedTexts(
            tuple(p if isinstance(p, str) else p.take(pa.array(doubtful)) for p in self.parts),
            len(doubtful),
        )
        return [i for i, text in zip(doubtful.tolist(), rest, strict=True) if not text.strip()]


def fill(
    pieces: Sequence[str | Cell], cells: Mapping[Hashable, pa.LargeStringArray], rows: int
) -> JoinedTexts:
    """Put columns into the places for their cells."""
    return JoinedTexts(tuple(p if isinstance(p, str) else cells[p.label] for p in pieces), rows)


def joined(parts: Sequence[Any], rows: int) -> Any:
    """Concatenate constants and large_string arrays (or chunked ones), element by element."""
    merged: list[Any] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    large = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in merged]
    if not any(isinstance(part, pa.Array | pa.ChunkedArray) for part in large):
        return pa.repeat(large[0] if large else pa.scalar("", pa.large_string()), rows)
    return pc.binary_join_element_wise(*large, pa.scalar("", pa.large_string()))


def text_buffers(array: pa.LargeStringArray) -> tuple[Positions, np.ndarray[Any, Any]]:
    """Return where each text starts and ends in the bytes, shape (n + 1,), and the bytes, uint8.

    The first need not start at 0, where the array is a part of another.
    """
    if not len(array):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    _, offsets, data = array.buffers()
    where = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    return where, np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
