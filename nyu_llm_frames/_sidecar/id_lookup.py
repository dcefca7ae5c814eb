"""Finds ids among other ids, by 64 bits of each.

Comes in: arrays of ids. Goes out: their keys, and where each id stands among distinct ones.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Keys: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

KEY_BITS = 64
_ID_BYTES = len("r-") + 32


class IdLookup:
    """Finds ids among distinct ids, in half of the time that hashing texts takes.

    Different ids may have one key: what is found is compared in full.

    Parameters
    ----------
    among : pyarrow.Array
        Distinct ids.
    """

    def __init__(self, among: pa.Array) -> None:
        self._among, every = among, keys(among)
        self._order = np.argsort(every)
        self._keys = every[self._order]
        self._distinct = bool((self._keys[1:] != self._keys[:-1]).all())

    def find(self, ids: pa.Array | pa.ChunkedArray) -> Ints:
        """Return where each id stands, -1 where it does not."""
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        ids = ids.cast(self._among.type)
        if not self._distinct:
            at = pc.fill_null(pc.index_in(ids, value_set=self._among), -1)
            return np.asarray(at, np.int64)
        wanted = keys(ids)
        rows = np.argsort(wanted)  # in order, neighbors are found near each other
        at = np.searchsorted(self._keys, wanted[rows])
        near = at < len(self._keys)
        out = np.full(len(ids), -1)
        out[rows[near]] = self._order[at[near]]
        same = pc.equal(ids, self._among.take(pa.array(out, mask=out < 0)))
        out[~np.asarray(pc.fill_null(same, False), np.bool_)] = -1
        return out


def positions(ids: pa.Array | pa.ChunkedArray, among: pa.Array) -> Ints:
    """Return where each id stands among distinct ones, -1 where it does not."""
    return IdLookup(among).find(ids)


def keys(ids: pa.Array) -> Keys:
    """Return 64 bits of each id: of ``r-<32 hex digits>`` the first 16 digits.

    Equal ids have equal keys; different ones nearly always differ.
    """
    if not len(ids):
        return np.zeros(0, np.uint64)
    ids = pc.fill_null(ids, "")
    size = np.int64 if pa.types.is_large_string(ids.type) else np.int32
    at = ids.offset * np.dtype(size).itemsize
    offsets = np.frombuffer(ids.buffers()[1], size, len(ids) + 1, at)
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    usual = np.diff(offsets) == _ID_BYTES
    if usual.all():
        return _hex_keys(data[offsets[0] : offsets[-1]])
    out = np.empty(len(ids), np.uint64)
    mask = pa.array(usual)
    out[usual] = keys(ids.filter(mask)) if usual.any() else 0
    unusual = np.flatnonzero(~usual)
    out[unusual] = [_digest(text) for text in ids.take(pa.array(unusual)).to_pylist()]
    return out


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _hex_keys(data: np.ndarray[Any, np.dtype[np.uint8]]) -> Keys:
    """Read sixteen hex digits of every id, eight at once as the bytes of one number."""
    halves = []
    for place in (2, 10):
        rows = (len(data) // _ID_BYTES,)
        text = np.ndarray(rows, ">u8", data, place, (_ID_BYTES,)).astype(np.uint64)
        text = (text & np.uint64(0x0F0F0F0F0F0F0F0F)) + np.uint64(9) * (
            text >> np.uint64(6) & np.uint64(0x0101010101010101)
        )
        for shift, mask in ((4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF), (16, 0xFFFFFFFF)):
            text = (text | text >> np.uint64(shift)) & np.uint64(mask)
        halves.append(text)
    return np.asarray(halves[0] << np.uint64(32) | halves[1])
