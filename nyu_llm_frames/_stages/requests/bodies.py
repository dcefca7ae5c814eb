"""Turn prompts into requests: bodies, ids (`custom_id`) and JSON lines.

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

import itertools
import json
import math
import re
from binascii import hexlify, unhexlify
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from json.encoder import encode_basestring_ascii
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames.errors import ConfigurationError

ENDPOINT = "/v1/chat/completions"
ID_FORMAT = "nyu_llm_frames/1"

# ASCII throughout: the gateway damages multi-byte characters that fall on a chunk border, with
# HTTP 200 and no warning.
_LINE = ('{"custom_id": "', f'", "method": "POST", "url": "{ENDPOINT}", "body": ', "}\n")
REQUEST_START = (_LINE[0] + "r-").encode()
"""How every file of requests begins."""
LINE_OVERHEAD = sum(map(len, _LINE)) + 34

ROWS_AT_ONCE = 8192
"""Texts, JSON and digests of so many rows stay in a processor's cache."""


Positions = np.ndarray[Any, np.dtype[np.int64]]


def plain_numbers(value: Any, path: str = "params") -> Any:
    """Return a JSON value with whole floats as integers, so that 1 and 1.0 are one request.

    What JSON cannot say is an error that names its path.
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
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


IDS_OF_32_BITS = (2**31 - 1) // 34
"""So many ids have their bytes counted by the 32-bit offsets of Arrow's string: 63 million."""


@dataclass(frozen=True, slots=True)
class BodyShape:
    """The constant part of all bodies of a run; `params` are further top-level fields."""

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


def fragments(roles: Sequence[str], texts: Sequence[Sequence[str]]) -> pa.LargeStringArray:
    """Encode the messages of every row: the part between the brackets of ``messages``.

    `texts` are n for each message.
    """
    return pa.array(list(_rows(roles, texts, {})), pa.large_string())


def fragments_with_images(
    roles: Sequence[str], texts: Sequence[Sequence[str]], contents: Mapping[int, Iterable[str]]
) -> list[str]:
    """Do the same where some messages have lists of parts: `contents`, as ready JSON.

    It is taken one row at a time, and rows of equal messages share one string: images are large.
    """
    known: dict[str, str] = {}
    return [known.setdefault(row, row) for row in _rows(roles, texts, contents)]


def _rows(
    roles: Sequence[str], texts: Sequence[Sequence[str]], contents: Mapping[int, Iterable[str]]
) -> Iterator[str]:
    columns: list[Iterable[str]] = []
    end = ""  # of the message before
    for i, (role, column) in enumerate(zip(roles, texts, strict=True)):
        columns.append(repeat(f'{end}{{"role":{encode(role)},"content":', len(column)))
        columns.append(contents[i] if i in contents else map(encode_basestring_ascii, column))
        end = "},"
    return map("".join, zip(*columns, repeat("}", len(texts[0])), strict=True))


def custom_ids(
    realm: str, shape: BodyShape, fragments: pa.LargeStringArray | Sequence[str]
) -> pa.StringArray:
    """Return the identity of every row's request."""
    constant = "\n".join((ID_FORMAT, realm, ENDPOINT, shape.canonical, ""))
    copy = blake2b(constant.encode("ascii", "backslashreplace"), digest_size=16).copy
    digests = []
    for fragment in _encoded(fragments):
        digest = copy()
        digest.update(fragment)
        digests.append(digest.digest())
    return ids_of_digests(b"".join(digests))


def _encoded(fragments: pa.LargeStringArray | Sequence[str]) -> Iterator[bytes | memoryview]:
    if not isinstance(fragments, pa.Array):
        yield from (fragment.encode("ascii") for fragment in fragments)
        return
    if not len(fragments):
        return
    _, offsets, data = fragments.buffers()
    view = memoryview(data)
    # They need not start at 0, where the array is a part of another.
    where = np.frombuffer(offsets, np.int64, len(fragments) + 1, fragments.offset * 8)
    for start, stop in itertools.pairwise(where.tolist()):
        yield view[start:stop]


def ids_of_digests(digests: bytes) -> pa.StringArray:
    """Write 16-byte digests as ids: one pass over all of them."""
    n = len(digests) // 16
    text = np.empty((n, 34), np.uint8)
    text[:, 0], text[:, 1] = ord("r"), ord("-")
    text[:, 2:] = np.frombuffer(hexlify(digests), np.uint8).reshape(n, 32)
    kind = _kind_of_ids(n)
    width = np.int64 if kind == pa.large_string() else np.int32
    offsets = np.arange(0, 34 * (n + 1), 34, dtype=width)
    return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def _kind_of_ids(n: int) -> pa.DataType:
    return pa.string() if n <= IDS_OF_32_BITS else pa.large_string()


def joined_ids(parts: Sequence[pa.Array]) -> pa.Array:
    """Return ids as one array, of large strings where there are too many for Arrow's string."""
    kind = _kind_of_ids(sum(map(len, parts)))
    return pa.concat_arrays([pa.array([], kind), *(part.cast(kind) for part in parts)])


def raw_digests(ids: pa.StringArray) -> bytes:
    """Return the 16-byte digests of ids, one after the other."""
    if not len(ids):
        return b""
    _, offsets, data = ids.buffers()
    where = np.frombuffer(offsets, np.int32, len(ids) + 1, ids.offset * 4)
    text = np.frombuffer(data, np.uint8)[where[0] : where[-1]].reshape(len(ids), 34)
    return unhexlify(text[:, 2:].tobytes())


@dataclass(frozen=True, slots=True)
class Requests:
    """The distinct requests of a run, and which rows share them."""

    ids: pa.Array  # distinct custom ids, by first appearance; shape (m,)
    codes: Positions  # position in `ids` for each row, -1 for one that is skipped; shape (n,)
    fragments: pa.ChunkedArray  # messages of each distinct request, large_string; shape (m,)
    shape: BodyShape
    images: bool = False  # whether there may be images in them

    def __len__(self) -> int:
        return len(self.ids)

    def some_fragments(self, positions: Positions) -> pa.ChunkedArray:
        """Return the messages of some requests; neighbors are not copied."""
        n = len(positions)
        if not n or (positions[-1] - positions[0] == n - 1 and (np.diff(positions) == 1).all()):
            return self.fragments.slice(int(positions[0]) if n else 0, n)
        # Chunk by chunk: pyarrow would first copy all of them into one.
        starts = np.cumsum([0, *map(len, self.fragments.chunks)])
        chunks = np.searchsorted(starts, positions, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), n]
        parts = [
            self.fragments.chunk(int(chunks[a])).take(pa.array(positions[a:b] - starts[chunks[a]]))
            for a, b in itertools.pairwise(edges)
        ]
        return pa.chunked_array(parts, self.fragments.type)

    def messages(self, positions: Positions) -> list[list[dict[str, Any]]]:
        """Return the messages of some requests as they are sent."""
        return [json.loads(f"[{text}]") for text in self.some_fragments(positions).to_pylist()]

    def bodies(self, positions: Positions) -> pa.Array:
        """Return the bodies of some requests as they are sent."""
        head, tail = self.shape.wire
        found = joined([head, self.some_fragments(positions), tail])
        return found.combine_chunks()

    def line_bytes(self) -> Positions:
        """Return the size of every request line in bytes."""
        constant = sum(map(len, self.shape.wire)) + LINE_OVERHEAD
        return np.asarray(pc.binary_length(self.fragments).to_numpy()) + constant


def no_requests(shape: BodyShape, *, images: bool = False) -> Requests:
    none: Positions = np.zeros(0, np.int64)
    texts = pa.chunked_array([], pa.large_string())
    return Requests(pa.array([], pa.string()), none, texts, shape, images)


def distinct(
    ids: pa.StringArray,
    fragments: pa.ChunkedArray | list[str],
    shape: BodyShape,
    kept: Positions,
    rows: int,
) -> Requests:
    """Fold equal requests into one.

    `kept` are the positions of the rows that are not skipped, among all `rows` of the frame; `ids`
    and `fragments` are theirs. Where there are images the latter is a list, which is emptied, so
    that they are not held twice.
    """
    codes = np.full(rows, -1, dtype=np.int64)
    dictionary, inner, first = first_of_each(ids)
    codes[kept] = inner
    if isinstance(fragments, pa.ChunkedArray):
        texts = fragments if len(first) == len(fragments) else fragments.take(pa.array(first))
        return Requests(dictionary, codes, texts, shape)
    chosen = [fragments[i] for i in first.tolist()]
    fragments.clear()
    return Requests(dictionary, codes, pa.chunked_array([_packed(chosen)]), shape, images=True)


def joined(parts: Sequence[Any]) -> Any:
    """Concatenate constants and large_string arrays (or chunked ones), element by element."""
    large = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
    return pc.binary_join_element_wise(*large, pa.scalar("", pa.large_string()))


def _packed(texts: list[str]) -> pa.LargeStringArray:
    """Put ASCII strings into one array, and free each as soon as it is copied: they are large."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in texts])
    data = pa.allocate_buffer(int(offsets[-1]))
    view = memoryview(data).cast("B")
    for i, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        view[start:stop] = texts[i].encode("ascii")
        texts[i] = ""
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), data)


def first_of_each(ids: pa.StringArray) -> tuple[pa.StringArray, Positions, Positions]:
    """Return the distinct ids by first appearance, the place of each id, and each one's first row.

    Their shapes are (m,), (n,) and (m,).
    """
    encoded = ids.dictionary_encode()
    places = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    first = np.full(len(encoded.dictionary), -1, dtype=np.int64)
    # Written from the last row to the first, so that the first appearance stays.
    first[places[::-1]] = np.arange(len(places) - 1, -1, -1)
    return encoded.dictionary, places, first


def request_lines(ids: pa.Array, bodies: pa.Array) -> pa.Buffer:
    """Return request lines as one buffer of ASCII JSON lines, in NYU's form."""
    ids = ids.cast(pa.large_string())
    bodies = bodies.cast(pa.large_string())
    lines = joined([_LINE[0], ids, _LINE[1], bodies, _LINE[2]])
    if len(lines) == 0:
        return pa.py_buffer(b"")
    offsets = np.frombuffer(lines.buffers()[1], np.int64, len(lines) + 1, lines.offset * 8)
    return lines.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


_PAIR_HALF = re.compile(r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f]")


def reads_as_replacement(body: str) -> bool:
    """Whether an encoded body holds U+FFFD, or half of a surrogate pair, which comes back as it."""
    return "\\ufffd" in body or ("\\ud" in body and _PAIR_HALF.search(body) is not None)
