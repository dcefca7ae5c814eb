"""How many tokens a prompt has, before anybody counted them.

Comes in: the messages of requests as JSON, pairs of weight and real count. Goes out: a weight per
prompt (tokens by a rule of thumb) and a `Scale` that turns weights into tokens with a range. The
rule: four ASCII characters a token, and more for other scripts. It is only the start: counted
prompts, of the model itself or of its family's tokenizer, correct it.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._prompts.texts import text_buffers

Floats = np.ndarray[Any, np.dtype[np.float64]]

CHARACTERS_PER_TOKEN = 4.0
_OTHER = 0.6  # tokens per UTF-16 unit beyond ASCII: Cyrillic has fewer, Chinese and emoji more
# Digits are single tokens in the Gemini family, so tables of numbers are far above prose.
_LOW, _HIGH = 0.6, 2.5
_IMAGE = 1_120.0
_IMAGE_MARK = '"type":"image_url"'
_IMAGE_PART = re.compile(r'\{"type":"image_url"[^}]*\}\}')
# What is no picture: a document, a film, a recording. Its length cannot be told from here, except
# by the pages that a PDF names in the clear.
_LONG_PART = re.compile(r'"url":"(?:data:(?!image/)|[^"]*\.(?:pdf|txt|mp4|mov|webm|mp3|wav)")')
_PDF = re.compile(r'"url":"data:application/pdf;base64,([^"]*)"')
_PAGE = re.compile(rb"/Type\s*/Page\b")
LONGEST = 1_048_576.0
"""Tokens that the models of the Gemini family read at most."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Tokens per unit of weight.

    Attributes
    ----------
    low, expected, high : float
    basis : str
        What it rests on, for a person.
    """

    low: float
    expected: float
    high: float
    basis: str


DEFAULT = Scale(
    _LOW,
    1.0,
    _HIGH,
    f"{CHARACTERS_PER_TOKEN:g} characters a token assumed, {CHARACTERS_PER_TOKEN / _HIGH:.1f} to "
    f"{CHARACTERS_PER_TOKEN / _LOW:.1f} possible",
)


def weights(fragments: pa.ChunkedArray, roles: Sequence[str], *, images: bool = False) -> Floats:
    """Weigh prompts: tokens by the rule of thumb, shape (m,).

    Parameters
    ----------
    fragments : pyarrow.ChunkedArray of large_string
        JSON of the messages, ASCII, without the brackets around them; shape (m,).
    roles : sequence of str
        Of the messages of each prompt.
    images : bool
        Whether to look for images among them.
    """
    frame = sum(len(json.dumps({"role": r, "content": ""}, separators=(",", ":"))) for r in roles)
    parts = [_chunk_weights(chunk, frame, images) for chunk in fragments.chunks]
    return np.concatenate(parts) if parts else np.zeros(0)


def _chunk_weights(fragments: pa.LargeStringArray, frame: int, images: bool) -> Floats:
    pictures = np.zeros(len(fragments))
    if images:
        texts = fragments.to_pylist()
        pictures = np.array([_pictures(text) for text in texts])
        fragments = pa.array([_IMAGE_PART.sub("", text) for text in texts], pa.large_string())
    where, data = text_buffers(fragments)
    first, last = int(where[0]), int(where[-1])
    slashes = np.flatnonzero(data[first:last] == ord("\\")) + first
    beyond = data[slashes + 1] == ord("u")  # no text ends with a backslash
    escaped = np.diff(np.searchsorted(slashes[beyond], where))
    others = np.diff(np.searchsorted(slashes[~beyond], where))
    plain = np.diff(where) - frame - 6 * escaped - others
    return np.asarray(np.maximum(_weight(plain, escaped) + pictures * _IMAGE, 1.0))


def _weight(plain: Any, other: Any) -> Any:
    return np.maximum(plain, 0.0) / CHARACTERS_PER_TOKEN + other * _OTHER


def beyond(fragments: pa.ChunkedArray) -> Floats:
    """Return the tokens that prompts may have more, for what is long in them; shape (m,).

    A document, a film or a recording counts as one picture, and may be as long as models read.
    """
    return np.array([_beyond(text) for chunk in fragments.chunks for text in chunk.to_pylist()])


def beyond_messages(messages: Sequence[Any]) -> float:
    """Do the same for decoded messages."""
    parts = [p for m in messages if isinstance(m, dict) for p in _parts(m.get("content"))]
    return _beyond(json.dumps(parts, separators=(",", ":"))) if parts else 0.0


def _beyond(text: str) -> float:
    long = (part for part in _IMAGE_PART.findall(text) if _LONG_PART.search(part))
    return LONGEST if any(not _pages(part) for part in long) else 0.0


def _pages(part: str) -> int:
    """Pages that a PDF names in the clear; 0 for what is none, or names none."""
    inline = _PDF.search(part)
    return len(_PAGE.findall(binascii.a2b_base64(inline[1]))) if inline else 0


def _pictures(text: str) -> float:
    """Pictures in encoded messages; a page is one."""
    parts = _IMAGE_PART.findall(text) if _PDF.search(text) else ()
    return float(text.count(_IMAGE_MARK) + sum(max(_pages(part) - 1, 0) for part in parts))


def _parts(content: object) -> list[Any]:
    """Images and the like among the parts of a decoded message."""
    found = content if isinstance(content, list) else []
    return [p for p in found if isinstance(p, dict) and p.get("type") == "image_url"]


def weigh_text(text: str) -> float:
    """Weigh one text."""
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    plain = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return max(1.0, float(_weight(plain, units - plain)))


def weigh_messages(messages: Sequence[Any]) -> float:
    """Weigh decoded messages, images included."""
    images = [p for m in messages if isinstance(m, dict) for p in _parts(m.get("content"))]
    pictures = _pictures(json.dumps(images, separators=(",", ":"))) if images else 0.0
    return float(weigh_text(message_texts(messages)) + pictures * _IMAGE)


def message_texts(messages: Iterable[Any]) -> str:
    """Return all the text of decoded messages."""
    out = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            out.append(content)
        elif isinstance(content, list):
            out += [p["text"] for p in content if isinstance(p, dict) and "text" in p]
    return "".join(out)


def calibrated(weight: Floats, counted: Floats, basis: str, *, floor: float = 0.03) -> Scale:
    """Fit a scale to prompts whose tokens were counted.

    Parameters
    ----------
    weight, counted : numpy.ndarray
        Pairs, at least one.
    basis : str
    floor : float
        Relative uncertainty that no number of pairs takes away.
    """
    ratio = float(counted.sum() / weight.sum())
    n = len(weight)
    if n < 3:
        spread = 0.3
    else:
        spread = 3.0 * float(np.std(counted / weight, ddof=1)) / ratio / np.sqrt(n) if ratio else 0
    spread = min(floor + spread, 0.6)
    return Scale(ratio * (1 - spread), ratio, ratio * (1 + spread), basis)
