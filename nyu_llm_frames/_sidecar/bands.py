"""A sidecar of any size, and the part of it that concerns some ids.

Comes in: a sidecar, and the prefixes of a band or the names of some jobs. Goes out: a sidecar for
a planner with only the jobs and answers that can have those ids. One sorted pass over all ids
finds which files share an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.folder import IDS, Sidecar
from nyu_llm_frames._stages.batches.job import Job

Ints = np.ndarray[Any, np.dtype[np.int64]]
Keys = np.ndarray[Any, np.dtype[np.uint64]]

PREFIX = 1 << 24
"""Where only the band of an id matters, its first six hex digits are compared."""

_KEY_BITS = 64
_ID_BYTES = len("r-") + 32


def keys(ids: pa.Array) -> Keys:
    """Return 64 bits of each id: of ``r-<32 hex digits>`` the first 16 digits.

    Equal ids have equal keys; different ones nearly always differ.
    """
    if not len(ids):
        return np.zeros(0, np.uint64)
    ids = ids.cast(pa.string())
    offsets = np.frombuffer(ids.buffers()[1], np.int32, len(ids) + 1, ids.offset * 4)
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


def prefixes(ids: pa.Array) -> Ints:
    """Return the first six hex digits of ``r-<32 hex digits>`` as numbers."""
    return (keys(ids) >> np.uint64(_KEY_BITS - 24)).astype(np.int64)


class LargeSidecar(Sidecar):
    """A sidecar that keeps no ids in memory, and knows which of its files share ids.

    Attributes
    ----------
    keys_at_once : int
        How many ids are held while that is looked up, 8 bytes each.
    """

    keys_at_once = 8_000_000

    def __init__(self, folder: Path, clock: Clock, *, create: bool | None = True) -> None:
        super().__init__(folder, clock, create=create)
        self._spans: dict[Path, tuple[int, int]] = {}
        self._links: tuple[frozenset[Path], dict[Path, set[Path]]] = frozenset(), {}

    def request_ids(self, name: str) -> pa.Array:
        ids = super().request_ids(name)
        self._ids.pop(name, None)
        return ids

    def _keys(self, path: Path) -> Keys:
        found = keys(_storage.read_table(path, IDS)["custom_id"].combine_chunks())
        prefix = found >> np.uint64(_KEY_BITS - 24)
        self._spans[path] = (int(prefix.min()), int(prefix.max())) if len(found) else (PREFIX, -1)
        return found

    def span(self, path: Path) -> tuple[int, int]:
        """Return the lowest and the highest prefix of a file's ids; its ids never change."""
        if path not in self._spans:
            self._keys(path)
        return self._spans[path]

    def spans(self, path: Path, low: int, high: int) -> bool:
        """Whether a file can hold ids of a band."""
        first, last = self.span(path)
        return first < high and last >= low

    def band(self, low: int, high: int) -> SidecarSlice:
        """Return the part for ids with prefixes from `low` to below `high`."""
        return SidecarSlice(self, lambda path: self.spans(path, low, high))

    def linked_to(self, names: Iterable[str]) -> SidecarSlice:
        """Return the part for the ids of some jobs."""
        every = frozenset([*self._request_files(), *_storage.parquet_files(self.answers_folder)])
        if self._links[0] != every:
            self._links = every, self._find_links(sorted(every))
        links = self._links[1]
        own = {self._requests(name) for name in names}
        linked = own.union(*(links.get(path, ()) for path in own))
        # Files that were stored since can have any id.
        return SidecarSlice(self, lambda path: path in linked or path not in every)

    def _request_files(self) -> list[Path]:
        return [self._requests(name) for name in self.jobs()]

    def _find_links(self, files: list[Path]) -> dict[Path, set[Path]]:
        """Find the files that share an id, by bands of keys with the number of their file."""
        carried = 2 * sum(job.requests for job in self.jobs().values())  # and their answers
        bands = 1 + carried // self.keys_at_once
        bits = len(files).bit_length()
        links: dict[Path, set[Path]] = {}
        for band in range(bands):
            low, high = band * PREFIX // bands, (band + 1) * PREFIX // bands
            numbered = [np.zeros(0, np.uint64)]
            for number, path in enumerate(files):
                if bands > 1 and not self.spans(path, low, high):
                    continue
                found = self._keys(path)
                if bands > 1:
                    prefix = found >> np.uint64(_KEY_BITS - 24)
                    found = found[(prefix >= low) & (prefix < high)]
                numbered.append(found >> np.uint64(bits) << np.uint64(bits) | np.uint64(number))
            for one, other in _neighbors(np.concatenate(numbered), bits):
                links.setdefault(files[one], set()).add(files[other])
                links.setdefault(files[other], set()).add(files[one])
        return links


def _neighbors(numbered: Keys, bits: int) -> set[tuple[int, int]]:
    """Return the pairs of files that share an id; the last bits of a key are its file."""
    numbered.sort()
    found: set[tuple[int, int]] = set()
    limit = np.uint64(1 << bits)
    apart, at = 1, np.flatnonzero((numbered[1:] ^ numbered[:-1]) < limit)
    while len(at):  # over ids that are in more and more files
        pairs = np.unique(numbered[at] % limit * limit + numbered[at + apart] % limit)
        found.update(zip((pairs // limit).tolist(), (pairs % limit).tolist(), strict=True))
        apart += 1
        at = at[at < len(numbered) - apart]
        at = at[(numbered[at] ^ numbered[at + apart]) < limit]
    return found


class SidecarSlice(Sidecar):
    """The part of a sidecar that concerns some ids.

    Parameters
    ----------
    whole : LargeSidecar
    sees : callable
        Whether a file of requests or answers can have one of the ids.
    """

    def __init__(self, whole: LargeSidecar, sees: Callable[[Path], bool]) -> None:
        super().__init__(whole.path, whole._clock, create=None)
        self.is_new = whole.is_new
        self.lock = whole.lock
        self._jobs, self._dropped = whole._jobs, whole._dropped
        self._whole, self._sees = whole, sees

    def request_ids(self, name: str) -> pa.Array:
        return self._whole.request_ids(name)

    def jobs(self) -> dict[str, Job]:
        every = self._whole.jobs().items()
        return {name: job for name, job in every if self._sees(self._requests(name))}

    def best_answers(self, ids: pa.Array) -> _answer_store.Best:
        files = [p for p in _storage.parquet_files(self.answers_folder) if self._sees(p)]
        return _answer_store.find_best(self.answers_folder, ids, files)
