"""Reads the bytes of a response, with limits on time, encoding and size.

Comes in: a response that is being received. Goes out: its bytes, or an exception of the client,
which `failures` turns into ours.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nyu_llm_frames._gateway.masking import Secret

if TYPE_CHECKING:
    import httpx

# Batch objects and lists have a few kilobytes; a live answer may have a picture.
SMALL_BYTES, ANSWER_BYTES, REFUSAL_BYTES = 8_000_000, 64_000_000, 100_000
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})  # one layer: two may hold a terabyte


class TooLargeError(ValueError):
    """An answer that is too large to be a gateway's."""


def whole(response: httpx.Response, end: float | None, largest: int, *, cut: bool = False) -> bytes:
    """Read an answer that must be small; with `cut` a large one is cut."""
    check_encoding(response)
    held, size = Secret(bytearray()), -1  # the answer may echo a key
    pieces = response.iter_bytes()
    while size < len(held.value) <= largest:
        size = len(held.value)
        held.value.extend(next(pieces, b""))
        check_time(end)
    if len(held.value) > largest and not cut:
        raise TooLargeError
    return bytes(held.value[:largest])


def check_time(end: float | None) -> None:
    """Raise when the time is over, also for a client that keeps no deadline."""
    import httpx

    if end is not None and time.monotonic() >= end:
        raise httpx.ReadTimeout("its time is over")


def check_encoding(response: httpx.Response) -> None:
    """Refuse an encoding that was not requested."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise ValueError(f"content-encoding: {encoding}")
