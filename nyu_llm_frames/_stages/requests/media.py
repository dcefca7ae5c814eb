"""Read a cell of an image column: a link, bytes or a file, and its media type.

A URL in a form that the gateway drops or misreads is refused here, by an error without row.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from nyu_llm_frames._shared.wording import shortened
from nyu_llm_frames.errors import RequestError

HEAD_BYTES = 1024

# What Gemini reads, by extension. https://cloud.google.com/vertex-ai/generative-ai/docs/models
_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp4": "video/mp4",
    "mov": "video/mov",
    "webm": "video/webm",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
}
# The gateway guesses these itself, from what follows the last dot of the URL, in lower case only.
_GUESSED = frozenset(_TYPES) - {"heic", "heif"}
_OTHER = {"gif": "image/gif", "bmp": "image/bmp", "tif": "image/tiff", "tiff": "image/tiff"}
UNREAD = frozenset({*_OTHER.values(), "image/avif", "image/svg+xml"})
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
)
_DATASET = {"bytes", "path"}
_SPACE = re.compile(r"[\s\x00-\x1f]")
_BRANDS = {b"avif": "image/avif", b"avis": "image/avif", b"mif1": "image/heif"}
_BRANDS |= {b"msf1": "image/heif"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc"), "image/heic")


@dataclass(frozen=True, slots=True)
class Link:
    """A file that is fetched from elsewhere.

    `mime_type` is there where the gateway would not guess it, and empty where it is unknown.
    """

    url: str
    mime_type: str | None = None


@dataclass(frozen=True, slots=True)
class Inline:
    """A file with its bytes in the frame."""

    data: bytes


@dataclass(frozen=True, slots=True)
class File:
    path: str


Source: TypeAlias = Link | Inline | File


def media_type(head: bytes) -> str | None:
    """Detect the type of a file from its first bytes.

    Examples
    --------
    >>> media_type(b"%PDF-1.7")
    'application/pdf'
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    # A PDF may have some other bytes first.
    return "application/pdf" if b"%PDF-" in head[:HEAD_BYTES] else None


def sources(cell: object) -> tuple[Source, ...]:
    """Return what a cell holds.

    That is a URL, path or bytes, ``{"url", "mime_type"}``, ``{"bytes", "path"}`` as Hugging Face's
    datasets write it, or a list of these. An empty list is no image at all.
    """
    if isinstance(cell, list | tuple):
        return tuple(_source(item) for item in cell)
    return (_source(cell),)


def _source(item: object) -> Source:
    if isinstance(item, bytes | bytearray | memoryview):
        return Inline(bytes(item))
    if isinstance(item, PurePath):
        return File(str(item))
    if isinstance(item, Mapping):
        return _mapping(item)
    if not isinstance(item, str):
        kind = type(item).__name__
        what = "a missing value in a list" if item is None else f"a value of type {kind}"
        raise RequestError(
            f"{what} is not an image. A cell holds a URL, a path, bytes, a PIL image, or a list of "
            "these; an empty list means a row without image."
        )
    if not item.strip():
        raise RequestError("an empty text is not an image. An empty list means a row without.")
    if item[:5].casefold() == "data:":
        return _data_url(item)
    return _link(item) if "://" in item else File(item)


def holds_nothing(cell: object) -> bool:
    """Whether a cell is an image that is missing in the form of a dataset."""
    return (
        isinstance(cell, Mapping) and set(cell) == _DATASET and not any(map(_given, cell.values()))
    )


def _given(value: object) -> bool:
    return value is not None and value == value


def _mapping(item: Mapping[Any, Any]) -> Source:
    if set(item) == _DATASET:
        # Where there are bytes, the path is only the former name of the file.
        return _source(item["bytes"] if _given(item["bytes"]) else item["path"])
    url, kind = item.get("url"), item.get("mime_type")
    if set(item) != {"url", "mime_type"} or not isinstance(url, str) or "://" not in url:
        raise RequestError(
            'a dict must be {"url": "gs://...", "mime_type": "image/png"} or {"bytes": ..., '
            f'"path": ...}}, not one with {list(item)}.'
        )
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", kind):
        raise RequestError(f'mime_type must be as "image/png", not {kind!r}.')
    _check_url(url)
    return Link(url, kind)


def _data_url(text: str) -> Inline:
    head, comma, payload = text.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError
        return Inline(base64.b64decode(payload, validate=True))
    except (ValueError, binascii.Error):
        raise RequestError(
            f"the data URL {text[:40]!r}... is not base64. Give the bytes themselves."
        ) from None


def _check_url(url: str) -> None:
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        raise RequestError(f"{url!r} names a file on this machine: give the path without file://.")
    if scheme not in ("gs", "https"):
        raise RequestError(
            f"{shown_url(url)} would not arrive: the model fetches gs:// and https:// (in lower "
            "case). Put the file into a bucket, or give its path or bytes."
        )
    host, _, path = rest.partition("/")
    if not host or not path or _SPACE.search(host):
        raise RequestError(f"{shown_url(url)} names no file; the form is {scheme}://place/name.")
    if scheme == "https" and _SPACE.search(path):
        raise RequestError(f"{shown_url(url)} has spaces; write them as %20.")


def shown_url(url: str) -> str:
    """Return a URL for a message, cut where it is long."""
    return repr(shortened(url, 200))


def _link(url: str) -> Link:
    _check_url(url)
    # In a bucket's URL a question mark is part of the name.
    path = url if url.startswith("gs://") else urlsplit(url).path
    extension = path.rpartition("/")[2].rpartition(".")[2].casefold()
    kind = _TYPES.get(extension) or _OTHER.get(extension) or ""
    guess = url.rpartition(".")[2]
    return Link(url) if guess in _GUESSED and kind == _TYPES[guess] else Link(url, kind)
