"""Split requests into shards: how many input files, and which requests go into each.

Comes in: sizes in bytes and two limits. Goes out: ranges of positions. Few large jobs beat many
small ones, so every file is filled up to the first limit that it meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def split(
    sizes: np.ndarray[Any, np.dtype[np.int64]], max_requests: int, max_bytes: int
) -> list[tuple[int, int]]:
    """Split consecutive requests into ranges ``(start, stop)`` within both limits.

    A request that alone is above `max_bytes` gets its own range; the caller has to refuse it
    before.
    """
    ends = np.cumsum(sizes)
    ranges = []
    start, used = 0, 0
    while start < len(sizes):
        fits = int(np.searchsorted(ends, used + max_bytes, side="right"))
        stop = min(max(fits, start + 1), start + max_requests, len(sizes))
        ranges.append((start, stop))
        start, used = stop, int(ends[stop - 1])
    return ranges
