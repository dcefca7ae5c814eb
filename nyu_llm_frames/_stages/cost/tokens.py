"""How many tokens a prompt has, before anybody counted them.

Comes in: the messages of requests, and real counts of some. Goes out: the weight of each prompt
(text in tokens by a rule of thumb, pictures, documents) and a `Scale` that turns weights into
tokens with a range. The rule: four ASCII characters a token, and more for other scripts. It is
only the start: counted prompts correct it. A tokenizer of the family corrects it for text alone.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from nyu_llm_frames._stages.requests.bodies import text_buffers

Floats = np.ndarray[Any, np.dtype[np.float64]]

CHARACTERS_PER_TOKEN = 4.0
_OTHER = 0.6  # tokens per UTF-16 unit beyond ASCII: Cyrillic has fewer, Chinese and emoji more
# Digits are single tokens in the Gemini family, so tables of numbers are far above prose.
_LOW, _HIGH = 0.6, 2.5
PICTURE = (256.0, 1_120.0, 2_800.0)
"""Tokens of a picture: at the lowest usual resolution, of Gemini 3, and more than its highest."""
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_IMAGE_PART = re.compile(
    rf',?\{{"type":"image_url","image_url":\{{"url":{_STRING}(?:,"mime_type":{_STRING})?\}}\}}'
)
_AROUND_PARTS = len('[{"type":"text","text":}]')
# What is no picture: a document, a film, a recording. Its length cannot be told from here, except
# by the pages that a PDF names in the clear.
_LONG_PART = re.compile(
    r'"url":"data:(?!image/)|"mime_type":"(?!image/)'
    r'|"url":"[^"]*\.(?:pdf|txt|mp4|mov|webm|mp3|wav)(?:[?#][^"]*)?"',
    re.IGNORECASE,
)
_PDF = re.compile(r'"url":"data:application/pdf;base64,([^"]*)"')
_PAGE = re.compile(rb"/Type\s*/Page\b")
LONGEST = 1_048_576.0
"""Tokens that the models of the Gemini family read at most."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What prompts hold; arrays of shape (m,).

    Attributes
    ----------
    text : numpy.ndarray
        Tokens by the rule of thumb.
    pictures : numpy.ndarray
        Images, pages that a PDF names in the clear, and one for any other document or recording.
    beyond : numpy.ndarray
        Tokens that may come on top, where the length of a document or recording is not known.
    """

    text: Floats
    pictures: Floats
    beyond: Floats


def as_weights(prompts: Sequence[tuple[float, float, float]]) -> Weights:
    """Put weighed prompts together."""
    return Weights(*np.array(prompts, dtype=np.float64).reshape(-1, 3).T)


Bounds: TypeAlias = tuple[float, float, float]
"""Lowest, expected, highest."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Tokens of what prompts hold.

    Attributes
    ----------
    text : tuple of float
        Per unit of weight: lowest, expected, highest.
    basis : str
        What it rests on, for a person.
    picture : tuple of float
        Per picture.
    """

    text: Bounds
    basis: str
    picture: Bounds = PICTURE


DEFAULT = Scale(
    (_LOW, 1.0, _HIGH),
    f"{CHARACTERS_PER_TOKEN:g} characters a token assumed, {CHARACTERS_PER_TOKEN / _HIGH:.1f} to "
    f"{CHARACTERS_PER_TOKEN / _LOW:.1f} possible",
)


def weights(fragments: pa.ChunkedArray, roles: Sequence[str], *, images: bool = False) -> Weights:
    """Weigh the prompts of requests.

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
    return Weights(*map(np.concatenate, zip(*parts, strict=True))) if parts else as_weights(())


def _chunk_weights(
    fragments: pa.LargeStringArray, frame: int, images: bool
) -> tuple[Floats, Floats, Floats]:
    pictures, beyond = np.zeros((2, len(fragments)))
    if images:
        texts = fragments.to_pylist()
        media = [_media(_IMAGE_PART.findall(text)) for text in texts]
        pictures, beyond = np.array(media, dtype=np.float64).reshape(-1, 2).T
        fragments = pa.array([_IMAGE_PART.sub("", text) for text in texts], pa.large_string())
    where, data = text_buffers(fragments)
    first, last = int(where[0]), int(where[-1])
    slashes = np.flatnonzero(data[first:last] == ord("\\")) + first
    coded = data[slashes + 1] == ord("u")  # no text ends with a backslash
    escaped = np.diff(np.searchsorted(slashes[coded], where))
    others = np.diff(np.searchsorted(slashes[~coded], where))
    plain = np.diff(where) - frame - _AROUND_PARTS * (pictures > 0) - 6 * escaped - others
    return np.maximum(_weight(plain, escaped), 1.0), pictures, beyond


def _weight(plain: Any, other: Any) -> Any:
    return np.maximum(plain, 0.0) / CHARACTERS_PER_TOKEN + other * _OTHER


def _media(parts: Iterable[str]) -> tuple[float, float]:
    """Pictures and tokens beyond them in the parts of a message, as JSON.

    A document, a film or a recording counts as one picture, and may be as long as models read.
    """
    pictures, beyond = 0, 0.0
    for part in parts:
        pages = _pages(part)
        pictures += max(pages, 1)
        if not pages and _LONG_PART.search(part):
            beyond = LONGEST
    return float(pictures), beyond


def _pages(part: str) -> int:
    """Pages that a PDF names in the clear; 0 for what is none, or names none."""
    inline = _PDF.search(part)
    return len(_PAGE.findall(binascii.a2b_base64(inline[1]))) if inline else 0


def _parts(content: object) -> list[Any]:
    """Images and the like among the parts of a decoded message."""
    found = content if isinstance(content, list) else []
    return [p for p in found if isinstance(p, dict) and p.get("type") == "image_url"]


def weigh_text(text: str) -> float:
    """Weigh one text."""
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    plain = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    return max(1.0, float(_weight(plain, units - plain)))


def weigh_messages(messages: Sequence[Any]) -> tuple[float, float, float]:
    """Weigh a prompt's decoded messages: what `Weights` holds of it."""
    media = [p for m in messages if isinstance(m, dict) for p in _parts(m.get("content"))]
    parts = (json.dumps(part, separators=(",", ":")) for part in media)
    return weigh_text(message_texts(messages)), *_media(parts)


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


def calibrated(prompts: Weights, counted: Floats, basis: str, *, floor: float = 0.03) -> Scale:
    """Fit a scale to prompts whose tokens were counted.

    Where some have pictures and some have none, both are fitted; where all have some, text and
    pictures share one factor; where none has, pictures count as assumed.

    Parameters
    ----------
    prompts : Weights
        At least one.
    counted : numpy.ndarray
        Their tokens.
    basis : str
    floor : float
        Relative uncertainty that no number of pairs takes away.
    """
    seen = prompts.pictures > 0
    if seen.all():
        usual = PICTURE[1]
        low, expected, high = _fitted(prompts.text + prompts.pictures * usual, counted, floor)
        picture = (low * usual, expected * usual, high * usual)
        return Scale((low, expected, high), basis, picture)
    text = _fitted(prompts.text[~seen], counted[~seen], floor)
    if not seen.any():
        return Scale(text, basis)
    rest = np.maximum(counted[seen] - prompts.text[seen] * text[1], 0.0)
    return Scale(text, basis, _fitted(prompts.pictures[seen], rest, floor))


def _fitted(weight: Floats, counted: Floats, floor: float) -> Bounds:
    ratio = float(counted.sum() / weight.sum())
    n = len(weight)
    if n < 3:
        spread = 0.3
    else:
        spread = 3.0 * float(np.std(counted / weight, ddof=1)) / ratio / np.sqrt(n) if ratio else 0
    spread = min(floor + spread, 0.6)
    return ratio * (1 - spread), ratio, ratio * (1 + spread)
