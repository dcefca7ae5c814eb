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

from nyu_llm_frames._prompts.texts import JoinedTexts, Texts, text_buffers

Positions = np.ndarray[Any, np.dtype[np.int64]]

# Escaping a run of characters by itself takes as long as walking over so many bytes.
_BYTES_PER_RUN = 24


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

    Only the runs of characters that change are looked at one by one. In prose that is a quotation
    mark or a letter with an accent here and there; where it is every other word, each text is
    escaped as a whole.
    """
    where, every = text_buffers(texts)
    data = every[where[0] : where[-1]]
    where = where - where[0]
    # Unsigned, so that what is below the blank is above the tilde.
    beyond = data - np.uint8(ord(" ")) > ord("~") - ord(" ")
    at = np.flatnonzero(beyond | (data == ord('"')) | (data == ord("\\")))
    if not len(at):
        return texts
    # A run starts after a gap, and anew in each text.
    begins = np.ones(len(at), np.bool_)
    begins[1:] = np.diff(at) > 1
    firsts = np.searchsorted(at, where[1:-1])
    begins[firsts[firsts < len(at)]] = True
    starts = at[begins]
    if len(starts) * _BYTES_PER_RUN > len(data):
        return pa.array(list(map(escape, texts.to_pylist())), pa.large_string())
    stops = np.append(at[np.flatnonzero(begins)[1:] - 1], at[-1]) + 1
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[1:-1:2], edges[2:-1:2], edges[-1] = 0, starts, stops, len(data)
    # What stays and what changes, in turn.
    pieces = pa.LargeStringArray.from_buffers(
        len(edges) - 1, pa.py_buffer(edges), pa.py_buffer(data)
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
    offsets = where + growth[np.searchsorted(starts, where)]
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), whole.buffers()[2])
