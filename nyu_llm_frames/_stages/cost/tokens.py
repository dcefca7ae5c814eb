"""Estimate the tokens of prompts before they are counted, and of answers before they exist.

A prompt has a weight (text in tokens by a rule of thumb, pictures, documents), and a `Scale` turns
weights into tokens with a range. The rule: four ASCII characters a token, and more for other
scripts. It is only the start: counted prompts correct it. A tokenizer of the family corrects it for
text alone.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._stages.cost.prices import Floats, max_output_tokens
from nyu_llm_frames._stages.requests.models import bare_name

CHARACTERS_PER_TOKEN = 4.0
_OTHER = 0.6  # tokens per UTF-16 unit beyond ASCII: Cyrillic has fewer, Chinese and emoji more
# Digits are single tokens in the Gemini family, so tables of numbers are far above prose.
_LOW, _HIGH = 0.6, 2.5
PICTURE = (256.0, 1_120.0, 2_800.0)
"""Tokens of a picture: at the lowest usual resolution, in Gemini 3, and above its highest."""
# What is no picture: a document, a film, a recording. Its length is unknown here, except
# for pages that a PDF lists uncompressed.
_LONG = re.compile(
    r"data:(?!image/)|.*\.(?:pdf|txt|mp4|mov|webm|mp3|wav)(?:[?#].*)?$", re.IGNORECASE | re.DOTALL
)
_PDF = "data:application/pdf;base64,"
_PAGE = re.compile(rb"/Type\s*/Page\b")
LONGEST = 1_048_576.0
"""The most tokens that models of the Gemini family read."""

ASSUMED_OUTPUT = 500.0
"""Tokens of an answer, thinking included, when nothing is known."""
FEW, MARGIN = 30, 10.0
"""Below `FEW` answers the longest one counts `1 + MARGIN / n` times: 11 for one, 3 for five."""

Weighed: TypeAlias = tuple[float, float, float]
"""Text, pictures and tokens beyond of one prompt, as in `Weights`."""
Bounds: TypeAlias = tuple[float, float, float]
"""Lowest, expected, highest."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What prompts hold; arrays of shape (m,)."""

    text: Floats  # tokens by the rule of thumb
    pictures: Floats  # images, pages of a PDF if it lists them, one for any other document
    beyond: Floats  # further possible tokens, where the length of a document is not known


@dataclass(frozen=True, slots=True)
class Scale:
    """Tokens per unit of weight of the text, and per picture; `basis` is for a person."""

    text: Bounds
    basis: str
    picture: Bounds = PICTURE


DEFAULT = Scale(
    (_LOW, 1.0, _HIGH),
    f"about {CHARACTERS_PER_TOKEN:g} characters per token ({CHARACTERS_PER_TOKEN / _HIGH:.1f} to "
    f"{CHARACTERS_PER_TOKEN / _LOW:.1f})",
)


# --- prompts --------------------------------------------------------------------------------
def weigh_fragments(fragments: pa.ChunkedArray, roles: Sequence[str]) -> Weights:
    """Weigh prompts without images: ASCII JSON of messages, without the brackets around them."""
    frame = sum(len(json.dumps({"role": r, "content": ""}, separators=(",", ":"))) for r in roles)
    counts = [_count_escapes(chunk) for chunk in fragments.chunks]
    length, slashes, escaped = np.concatenate([np.zeros((3, 0)), *counts], axis=1)
    # A short escape (\n) is one character, \u0000 is the character it encodes.
    plain = length - frame - (slashes - escaped) - 6 * escaped
    nothing = np.zeros(len(length))
    return Weights(np.maximum(_weight(plain, escaped), 1.0), nothing, nothing)


def _count_escapes(texts: pa.LargeStringArray) -> Floats:
    """Count bytes, backslashes, and those of ``\\u`` in each text, in one pass over all of them."""
    if not len(texts):
        return np.zeros((3, 0))
    _, where, joined = texts.buffers()
    offsets = np.frombuffer(where, np.int64, len(texts) + 1, texts.offset * 8)
    data = np.frombuffer(joined, np.uint8)
    slashes = np.flatnonzero(data[offsets[0] : offsets[-1]] == ord("\\")) + offsets[0]
    escaped = slashes[data[slashes + 1] == ord("u")]
    places = (offsets, np.searchsorted(slashes, offsets), np.searchsorted(escaped, offsets))
    return np.diff(np.array(places, np.float64))


def as_weights(prompts: Sequence[Weighed]) -> Weights:
    return Weights(*np.array(prompts, dtype=np.float64).reshape(-1, 3).T)


def weigh_messages(messages: Iterable[Any]) -> Weighed:
    """Weigh a prompt's decoded messages.

    A document, a film or a recording counts as one picture, and may be as long as models read.
    """
    pictures, beyond, text = 0, 0.0, []
    for part in _parts(messages):
        if isinstance(part, str):
            text.append(part)
            continue
        url, kind = (str(part.get(key) or "") for key in ("url", "mime_type"))
        coded = url.removeprefix(_PDF)
        pages = len(_PAGE.findall(binascii.a2b_base64(coded))) if coded != url else 0
        pictures += max(pages, 1)
        if not pages and (_LONG.match(url) or not (kind or "image/").startswith("image/")):
            beyond = LONGEST
    return weigh_text("".join(text)), float(pictures), beyond


def message_texts(messages: Iterable[Any]) -> str:
    return "".join(part for part in _parts(messages) if isinstance(part, str))


def _parts(messages: Iterable[Any]) -> Iterator[str | dict[str, Any]]:
    """Give the texts and the images (or the like) of decoded messages."""
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
            elif isinstance(part, dict) and isinstance(part.get("image_url"), dict):
                yield part["image_url"]


def weigh_text(text: str) -> float:
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    plain = len(text.encode("ascii", "ignore"))
    return max(1.0, float(_weight(plain, units - plain)))


def _weight(plain: Any, other: Any) -> Any:
    return np.maximum(plain, 0.0) / CHARACTERS_PER_TOKEN + other * _OTHER


@lru_cache(maxsize=1)
def gemma() -> Any:
    """Return the tokenizer of the Gemini family, or None.

    Google's own offline counter uses Gemma 3's vocabulary for Gemini 2 and later. It fetches that
    from the network; the extra ``tokens`` brings the same vocabulary inside a package.
    """
    try:
        from splintr import Tokenizer

        return Tokenizer.from_pretrained("gemma3")
    except Exception:  # not installed, or a release without it: characters are counted instead
        return None


def count_tokens(model: str, texts: Iterable[str]) -> Floats | None:
    """Count the tokens of texts; None where no tokenizer of the model's family is installed."""
    tokenizer = gemma() if bare_name(model).startswith("gemini-") else None
    if tokenizer is None:
        return None
    whole = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
    return np.array([len(tokenizer.encode(text)) for text in whole], dtype=np.float64)


def calibrated(prompts: Weights, counted: Floats, basis: str, *, floor: float = 0.03) -> Scale:
    """Fit a scale to prompts with known token counts.

    Where some have pictures and some have none, both are fitted; where all have some, text and
    pictures share one factor; where none has, pictures count as assumed. `floor` is the relative
    uncertainty that no number of pairs takes away.
    """
    pictured = prompts.pictures > 0
    if pictured.all():
        usual = PICTURE[1]
        low, expected, high = _fitted(prompts.text + prompts.pictures * usual, counted, floor)
        picture = (low * usual, expected * usual, high * usual)
        return Scale((low, expected, high), basis, picture)
    text = _fitted(prompts.text[~pictured], counted[~pictured], floor)
    if not pictured.any():
        return Scale(text, basis)
    rest = np.maximum(counted[pictured] - prompts.text[pictured] * text[1], 0.0)
    return Scale(text, basis, _fitted(prompts.pictures[pictured], rest, floor))


def _fitted(weight: Floats, counted: Floats, floor: float) -> Bounds:
    ratio = float(counted.sum() / weight.sum())
    spread = 0.3  # one or two show no spread
    if (n := len(weight)) > 2:
        error = float(np.std(counted / weight, ddof=1)) / np.sqrt(n)
        spread = 3.0 * error / ratio if ratio else 0.0
    spread = min(floor + spread, 0.6)
    return ratio * (1 - spread), ratio, ratio * (1 + spread)


# --- answers --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Observed:
    """Output tokens, thinking included, of stored answers by the same model.

    Those to the same question (template and parameters), and those to others.
    """

    same: Floats = field(default_factory=lambda: np.zeros(0))
    other: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class Output:
    """Output tokens of one request.

    `basis` is what the numbers rest on; `unsure` says in a few words what makes the range wide, ""
    where there were enough answers.
    """

    low: float
    expected: float
    high: float
    basis: str
    unsure: str


def output_tokens(model: str, max_tokens: int | None, observed: Observed) -> Output:
    """Decide how long answers may be.

    The upper end is `max_tokens`; where that is unset, the 99th percentile of the answers to the
    same question, with a margin while these are few, and without any the model's maximum. Answers
    to other questions say nothing about the longest one, only what is usual.
    """
    most, known = max_output_tokens(model)
    same, other = observed.same, observed.other
    low, expected, source = 1.0, ASSUMED_OUTPUT, ""
    if n := len(same):
        low, expected = float(same.min()), float(same.mean())
        source = f"{count(n, 'answer')} to this question"
        if n >= FEW:
            low = max(low, expected - 3.0 * float(same.std(ddof=1)) / np.sqrt(n))
    elif len(other):
        low, expected = min(1.0, float(other.min())), float(other.mean())
        source = f"{count(len(other), 'answer')} to other questions"
    if max_tokens is not None:
        high, bound = float(max_tokens), f"the limit is {max_tokens:,}"
    elif n:
        high, margin = float(np.percentile(same, 99, method="higher")), ""
        if n < FEW:  # the longest of a few is not the longest of all
            high = max(high, min(high * (1.0 + MARGIN / n), float(most)))
            margin = " with a margin, since they are few"
        bound = f"upper end {high:,.0f}, their 99th percentile{margin}"
    else:
        high = float(most)
        whose = "the model's limit" if known else "a usual limit"
        bound = f"{whose} is {most:,}; set max_tokens= or run a trial"
    if expected >= high:
        basis, expected = f"each counted at the limit of {high:,.0f}", high
    elif source:
        basis = f"{expected:,.0f} each, the mean of {source}; {bound}"
    else:
        basis = f"{expected:,.0f} each is a guess; {bound}"
    what = "thinking and answer" if bare_name(model).startswith("gemini-") else "an answer"
    unsure = "" if n >= FEW else f"{what}: up to {high:,.0f} tokens"
    return Output(min(low, expected), expected, high, basis, unsure)
