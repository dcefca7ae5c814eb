"""Texts to the inside of ASCII JSON strings, as `json.dumps` escapes them, a column at a time.

Comes in: texts in arrow's memory, or a list of them. Goes out: an array of what stands between the
quotes. What needs no escape, most of most texts, is copied in bulk.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._stages.prompts.texts import JoinedTexts, Texts, text_buffers

Positions = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# What is looked at at once: long documents would need their size several times over.
_BYTES_AT_ONCE = 4 << 20
# Escaping a run of characters by itself, with two edges, takes as long as all of so many bytes.
_BYTES_PER_EDGE = 12


def _size(byte: int) -> int:
    """Return the size of an escaped character by the first byte of it; of other bytes 0."""
    if byte < 0x80:
        return len(encode_basestring_ascii(chr(byte))) - 2
    return 0 if byte < 0xC0 else 6 if byte < 0xF0 else 12  # a pair of surrogates


_SIZES = bytes(map(_size, range(256)))


def escape(text: str) -> str:
    """Escape one text."""
    return encode_basestring_ascii(text)[1:-1]


def escaped(texts: Texts) -> list[Any]:
    """Escape texts; return what stands one after the other in each: strings and arrays."""
    if isinstance(texts, JoinedTexts):
        return [escape(p) if isinstance(p, str) else escape_column(p) for p in texts.parts]
    try:
        return [escape_column(pa.array(texts, pa.large_string()))]
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return [pa.array(list(map(escape, texts)), pa.large_string())]


def escape_column(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Escape an array of texts without nulls.

    Prose has a quotation mark or a letter with an accent here and there: only the runs of such
    characters are looked at. Where they are every other word, all is escaped in one go.
    """
    where, every = text_buffers(texts)
    if where[-1] - where[0] > _BYTES_AT_ONCE and len(texts) > 1:
        half = len(texts) // 2
        return pa.concat_arrays([escape_column(texts[:half]), escape_column(texts[half:])])
    data = every[where[0] : where[-1]]
    where = where - where[0]
    # Unsigned, so that what is below the blank is above the tilde.
    beyond = data - np.uint8(ord(" ")) > ord("~") - ord(" ")
    changes = beyond | (data == ord('"')) | (data == ord("\\"))
    # Where what changes begins and ends, in turn.
    edges = np.flatnonzero(np.diff(changes, prepend=False, append=False))
    if not len(edges):
        return texts
    if len(edges) * _BYTES_PER_EDGE > len(data):
        offsets, buffer = _escape_all(data, where)
    else:
        offsets, buffer = _escape_runs(data, where, edges)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), buffer)


def _escape_all(data: Bytes, where: Positions) -> tuple[Positions, pa.Buffer]:
    """Escape all texts as one, and find their new ends by the sizes of their characters."""
    raw = data.tobytes()
    sizes = np.frombuffer(raw.translate(_SIZES), np.uint8)
    some = np.flatnonzero(np.diff(where))
    offsets = np.zeros(len(where), np.int64)
    offsets[some + 1] = np.add.reduceat(sizes, where[some], dtype=np.int64)
    text = encode_basestring_ascii(raw.decode()).encode("ascii")
    return np.cumsum(offsets), pa.py_buffer(text).slice(1, len(text) - 2)


def _escape_runs(data: Bytes, where: Positions, edges: Positions) -> tuple[Positions, pa.Buffer]:
    """Escape the runs of characters that change, and copy the rest in bulk."""
    # A run that goes on in the next text ends with its own.
    ends = where[1:-1]
    inside = ends[np.searchsorted(edges, ends) % 2 == 1]
    if len(inside):
        edges = np.sort(np.concatenate([edges, inside, inside]))
    starts, stops = edges[::2], edges[1::2]
    # What stays and what changes, in turn.
    bounds = np.concatenate([[0], edges, [len(data)]])
    pieces = pa.LargeStringArray.from_buffers(
        len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data)
    )
    runs = pieces.take(pa.array(np.arange(1, len(pieces), 2))).dictionary_encode()
    known = pa.array(list(map(escape, runs.dictionary.to_pylist())), pa.large_string())
    changed = known.take(runs.indices)
    growth = np.zeros(len(starts) + 1, np.int64)
    growth[1:] = np.cumsum(np.diff(text_buffers(changed)[0]) - (stops - starts))
    whole = pc.binary_join_element_wise(
        pieces.take(pa.array(np.arange(0, len(pieces), 2))),
        pa.concat_arrays([changed, pa.array([""], pa.large_string())]),
        pa.scalar("", pa.large_string()),
    )
    return where + growth[np.searchsorted(starts, where)], whole.buffers()[2]
