"""Check the images and documents of a run, and put them into the last user message.

No file is opened here: what the shell reads from them comes in by functions.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import PurePath
from typing import TypeAlias

from nyu_llm_frames._stages.requests.media import (
    HEAD_BYTES,
    UNREAD,
    File,
    Inline,
    Link,
    Source,
    media_type,
    shown_url,
    sources,
)
from nyu_llm_frames._stages.requests.preflight import shown_label
from nyu_llm_frames._stages.requests.routes import ProviderRoute
from nyu_llm_frames.errors import RequestError

MAX_INLINE_BYTES = 7 * 2**20
"""Google's documented limit of one file inside a request; in a bucket it may be 30 MB or more."""

Look: TypeAlias = Callable[[str], tuple[int, bytes]]
"""Size of a file and its first `HEAD_BYTES`; a `RequestError` when it cannot be read."""
Read: TypeAlias = Callable[[str], bytes]
Piece: TypeAlias = str | Inline | File
"""A checked source; a link is its part of the message already, which a million rows hold better."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for the files of a call.

    `max_bytes` is that of one input file, into which an image must fit in base64; `root` is the
    folder that files may be read from, any where there is none.
    """

    way: ProviderRoute
    max_bytes: int
    root: PurePath | None = None


def _check_link(link: Link, rules: Rules) -> None:
    """Refuse a link that would not arrive, or would be refused."""
    if rules.way == "open" and link.url.startswith("gs://"):
        raise RequestError(
            f"{shown_url(link.url)} is in a Google bucket, which this server cannot read. "
            "Give the file's path or bytes."
        )
    if rules.way == "gemini" and link.mime_type == "":
        raise RequestError(
            f"the type of {shown_url(link.url)} is not clear from its name, and without a "
            'type the model refuses it. Give a dict: {"url": ..., "mime_type": "image/jpeg"}.'
        )
    if rules.way == "gemini" and link.mime_type in UNREAD:
        raise RequestError(f"{shown_url(link.url)}: {_unread(link.mime_type)}")


def _check_file(name: str, size: int, head: bytes, rules: Rules) -> str:
    if size == 0:
        raise RequestError(f"{name} is empty.")
    kind = media_type(head)
    if kind is None:
        raise RequestError(
            f"{name} is not a JPEG, PNG, WebP, HEIC or PDF by its first bytes. Text belongs into "
            "the template."
        )
    if rules.way == "gemini" and kind in UNREAD:
        raise RequestError(f"{name}: {_unread(kind)}")
    limit = rules.max_bytes * 3 // 4
    if rules.way == "gemini":
        limit = min(limit, MAX_INLINE_BYTES)
    if size > limit:
        raise RequestError(
            f"{name} has {size:,} bytes, above the {limit:,} that fit into a request. Make it "
            "smaller, or put it into a bucket and give its gs:// URL."
        )
    return kind


def _unread(kind: str | None) -> str:
    return f"Gemini does not read {kind}. Convert it to PNG or JPEG."


def row_sources(
    columns: Mapping[Hashable, Sequence[object]],
    labels: Sequence[Hashable],
    rules: Rules,
    look: Look,
) -> list[tuple[Piece, ...]]:
    """Read and check the image cells of all rows: one tuple per row, in the order of the columns.

    An error names the first row with a problem, and how many rows have one.
    """
    if rules.way == "embedded":
        raise RequestError(
            "The model on this machine reads text only, so images= would fail in every row. Use a "
            "gateway with Gemini, or Gateway.local(upstream=...) with a model that takes images.",
            count=len(labels),
        )
    problems: dict[Source, str] = {}
    found: list[tuple[Piece, ...]] = [()] * len(labels)
    bad: dict[int, tuple[Hashable, str]] = {}
    for column, cells in columns.items():
        for i, cell in enumerate(cells):
            try:
                found[i] += tuple(_piece(s, rules, look, problems) for s in sources(cell))
            except RequestError as e:
                bad.setdefault(i, (column, str(e)))
    if bad:
        first = min(bad)
        (column, problem), row = bad[first], shown_label(labels[first])
        more = f" {len(bad):,} rows have an image that cannot be sent." if len(bad) > 1 else ""
        raise RequestError(
            f"Row {row!r}, column {column!r}: {problem}{more}", row=row, count=len(bad)
        )
    return found


def _piece(source: Source, rules: Rules, look: Look, problems: dict[Source, str]) -> Piece:
    """Check a source; a file is looked at once, and what is wrong with it kept in `problems`."""
    if isinstance(source, Link):
        _check_link(source, rules)
        return _link_part(source, rules)
    if source not in problems:
        problems[source] = ""
        try:
            if isinstance(source, Inline):
                _check_file("the image", len(source.data), source.data[:HEAD_BYTES], rules)
            else:
                _check_file(repr(source.path), *look(source.path), rules)
        except RequestError as e:
            problems[source] = str(e)
    if problems[source]:
        raise RequestError(problems[source])
    return source


def contents(
    texts: Sequence[str], rows: Sequence[tuple[Piece, ...]], rules: Rules, read: Read
) -> Iterator[str]:
    """Encode the content of the last user message of every row, one at a time.

    A row without image keeps its text as plain content, so that it is the same request with
    ``images=`` as without. A file used by several rows is read once.
    """
    left = Counter(piece for row in rows for piece in row if not isinstance(piece, str))
    kept: dict[Piece, str] = {}
    for text, row in zip(texts, rows, strict=True):
        if not row:
            yield _quoted(text)
            continue
        parts = []
        for piece in row:
            if isinstance(piece, str):
                parts.append(piece)
                continue
            part = kept.pop(piece, None) or _data_part(piece, rules, read)
            left[piece] -= 1
            if left[piece]:
                kept[piece] = part
            parts.append(part)
        yield f'[{{"type":"text","text":{_quoted(text)}}},{",".join(parts)}]'


def _link_part(link: Link, rules: Rules) -> str:
    kind = ""
    if link.mime_type and rules.way == "gemini":  # others lack the field
        kind = f',"mime_type":{_quoted(link.mime_type)}'
    return f'{{"type":"image_url","image_url":{{"url":{_quoted(link.url)}{kind}}}}}'


def _data_part(source: Inline | File, rules: Rules, read: Read) -> str:
    data, name = (
        (source.data, "the image")
        if isinstance(source, Inline)
        else (read(source.path), repr(source.path))
    )
    # Checked again: a file may have changed meanwhile.
    kind = _check_file(name, len(data), data[:HEAD_BYTES], rules)
    payload = base64.b64encode(data).decode("ascii")
    return f'{{"type":"image_url","image_url":{{"url":"data:{kind};base64,{payload}"}}}}'
