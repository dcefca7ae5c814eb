"""Prompts to requests: bodies, identities, JSON lines.

Comes in: rendered strings per message and the constant part of the body. Goes out: one JSON
fragment and one `custom_id` per row, and on demand the request lines. What is constant in a body
is encoded once.

The identity (format 1). ``custom_id`` is ``r-`` and 32 hex digits: BLAKE2b with a 16-byte digest
of five lines of ASCII, joined by LF: ``nyu_llm_frames/1``, the realm, the endpoint, the body
without its messages (compact JSON, top-level keys sorted, all below in the order in which it is
sent), and the messages as they are sent (compact JSON objects, joined by commas). Whole floats are
written as integers.
"""

from __future__ import annotations

import json
import math
import re
from binascii import hexlify
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames.errors import ConfigurationError

ENDPOINT = "/v1/chat/completions"
ID_FORMAT = "nyu_llm_frames/1"
ID_PATTERN = r"^r-[0-9a-f]{32}$"

# ASCII throughout: the gateway damages multi-byte characters that fall on a chunk border, with
# HTTP 200 and no word about it.
_LINE = ('{"custom_id": "', f'", "method": "POST", "url": "{ENDPOINT}", "body": ', "}\n")
LINE_OVERHEAD = sum(map(len, _LINE)) + 34


_encode_ascii = msgspec.json.Encoder().encode


def _quoted(text: str) -> str:
    """Encode a string as ASCII JSON; for text that is ASCII there is a faster way."""
    if text.isascii() and "\x7f" not in text:  # the one character that the two write differently
        return _encode_ascii(text).decode("ascii")
    return encode_basestring_ascii(text)


def plain_numbers(value: Any, path: str = "params") -> Any:
    """Return a JSON value with whole floats as integers, so that 1 and 1.0 are one request.

    Raises
    ------
    ConfigurationError
        For what JSON cannot say, with its path.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigurationError(f"{path} is {value}, which JSON cannot express.")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigurationError(f"{path} has the key {key!r}; JSON keys are strings.")
        return {k: plain_numbers(v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "item"):  # a numpy scalar
        return plain_numbers(value.item(), path)
    raise ConfigurationError(
        f"{path} is a {type(value).__name__}, which JSON cannot express; use str, int, float, "
        "bool, list or dict."
    )


def encode(value: Any) -> str:
    """Encode as compact ASCII JSON."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class BodyShape:
    """The constant part of all bodies of a run.

    Attributes
    ----------
    model : str
    roles : tuple of str
        Roles of the messages, in order.
    params : dict
        Further top-level fields of the body, JSON values.
    """

    model: str
    roles: tuple[str, ...]
    params: dict[str, Any]

    @property
    def wire(self) -> tuple[str, str]:
        """Text before and after the messages in the body as it is sent (the page's order)."""
        tail = "".join(f",{encode(k)}:{encode(v)}" for k, v in self.params.items())
        return f'{{"model":{encode(self.model)},"messages":[', f"]{tail}}}"

    @property
    def canonical(self) -> str:
        """The same without messages and with sorted keys, as the identity reads it."""
        fields = {"model": self.model, **self.params}
        return encode({key: fields[key] for key in sorted(fields)})


def fragments(
    roles: Sequence[str],
    texts: Sequence[Sequence[str]],
    contents: Mapping[int, Iterable[str]] | None = None,
) -> list[str]:
    """Encode the messages of every row: what stands between the brackets of ``messages``.

    Parameters
    ----------
    roles : sequence of str
    texts : sequence of sequence of str
        One sequence of n strings per message.
    contents : mapping of int to iterable of str, optional
        Ready JSON for the content of some messages (lists of parts, where images are). Taken one
        row at a time, and rows of equal messages share one string: images are large.
    """
    contents = contents or {}
    heads = [f'{{"role":{encode(role)},"content":' for role in roles]
    if len(roles) == 1 and not contents:
        head = heads[0]
        return [f"{head}{_quoted(text)}}}" for text in texts[0]]
    columns: list[Iterable[str]] = []
    for i, head in enumerate(heads):
        lead = head if i == 0 else f"}},{head}"
        if i in contents:
            columns += [repeat(lead, len(texts[i])), contents[i]]
        else:
            columns.append([lead + _quoted(text) for text in texts[i]])
    columns.append(repeat("}", len(texts[0])))
    rows = map("".join, zip(*columns, strict=True))
    if not contents:
        return list(rows)
    known: dict[str, str] = {}
    return [known.setdefault(row, row) for row in rows]


def custom_ids(realm: str, shape: BodyShape, fragments: Sequence[str]) -> pa.StringArray:
    """Return the identity of every row's request."""
    constant = "\n".join((ID_FORMAT, realm, ENDPOINT, shape.canonical, ""))
    copy = blake2b(constant.encode("ascii", "backslashreplace"), digest_size=16).copy
    digests = []
    for fragment in fragments:
        digest = copy()
        digest.update(fragment.encode("ascii"))
        digests.append(digest.digest())
    return _named(b"".join(digests))


def _named(digests: bytes) -> pa.StringArray:
    """Write 16-byte digests as ids: one pass over all of them."""
    n = len(digests) // 16
    text = np.empty((n, 34), np.uint8)
    text[:, 0], text[:, 1] = ord("r"), ord("-")
    text[:, 2:] = np.frombuffer(hexlify(digests), np.uint8).reshape(n, 32)
    offsets = np.arange(0, 34 * (n + 1), 34, dtype=np.int64)
    wide = pa.LargeStringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))
    return wide.cast(pa.string())


@dataclass(frozen=True, slots=True)
class Requests:
    """The distinct requests of a run, and which rows share them.

    Attributes
    ----------
    ids : pyarrow.StringArray
        Distinct custom ids, by first appearance; shape (m,).
    codes : numpy.ndarray
        Position in `ids` for each row, -1 for a row that is skipped; shape (n,), int64.
    fragments : list of str
        Messages of each distinct request; shape (m,).
    shape : BodyShape
    """

    ids: pa.Array
    codes: np.ndarray[Any, np.dtype[np.int64]]
    fragments: list[str]
    shape: BodyShape

    def __len__(self) -> int:
        return len(self.ids)

    def bodies(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
        """Return the bodies of some requests as they are sent."""
        head, tail = self.shape.wire
        some = self.fragments
        if len(positions) < len(some):
            some = list(map(some.__getitem__, positions.tolist()))
        chosen = pa.array(some, pa.large_string())
        return _join(head, chosen, tail)

    def batches(
        self, positions: np.ndarray[Any, np.dtype[np.int64]], size: int = 8192
    ) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Yield ids and bodies of some requests, a few thousand at a time."""
        for start in range(0, len(positions), size):
            some = positions[start : start + size]
            yield self.ids.take(pa.array(some)), self.bodies(some)

    def line_bytes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the size of every request line in bytes."""
        constant = sum(map(len, self.shape.wire)) + LINE_OVERHEAD
        sizes = np.fromiter(map(len, self.fragments), np.int64, len(self.fragments))
        return np.asarray(sizes + constant)


def distinct(
    ids: pa.StringArray,
    fragments: Sequence[str],
    shape: BodyShape,
    kept: np.ndarray[Any, np.dtype[np.int64]],
    rows: int,
) -> Requests:
    """Fold equal requests into one.

    Parameters
    ----------
    ids, fragments : sequences
        Of the rows that are not skipped.
    kept : numpy.ndarray
        Positions of those rows in the frame.
    rows : int
        Number of rows of the frame.
    """
    encoded = ids.dictionary_encode()
    inner = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    codes = np.full(rows, -1, dtype=np.int64)
    codes[kept] = inner
    m = len(encoded.dictionary)
    first = np.full(m, -1, dtype=np.int64)
    if m == len(fragments):
        chosen = list(fragments)
    else:
        # Written from the last row to the first, so that the first appearance stays.
        first[inner[::-1]] = np.arange(len(inner) - 1, -1, -1)
        chosen = [fragments[i] for i in first.tolist()]
    return Requests(encoded.dictionary, codes, chosen, shape)


def _join(*parts: Any) -> Any:
    """Concatenate constant strings and large_string arrays, element by element."""
    large = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in (*parts, "")]
    return pc.binary_join_element_wise(*large)


def request_lines(ids: pa.Array, bodies: pa.Array) -> pa.Buffer:
    """Return request lines as one buffer of ASCII JSON lines, in NYU's form."""
    ids = ids.cast(pa.large_string())
    bodies = bodies.cast(pa.large_string())
    lines = _join(_LINE[0], ids, _LINE[1], bodies, _LINE[2])
    if len(lines) == 0:
        return pa.py_buffer(b"")
    offsets = np.frombuffer(lines.buffers()[1], np.int64, len(lines) + 1, lines.offset * 8)
    return lines.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


_PAIR_HALF = re.compile(r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]")


def reads_as_replacement(body: str) -> bool:
    """Whether an encoded body holds U+FFFD, or half of a surrogate pair, which comes back as it."""
    return "\\ufffd" in body or ("\\ud" in body and _PAIR_HALF.search(body) is not None)
