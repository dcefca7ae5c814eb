"""A sidecar of any size, and the part of it that concerns some ids.

Comes in: a sidecar, and the prefixes of a band or the names of some jobs. Goes out: a sidecar for
a planner with only the jobs and answers that can have those ids. One sorted pass over all ids
finds which files share an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.folder import IDS, Sidecar
from nyu_llm_frames._sidecar.id_lookup import KEY_BITS, Ints, Keys, keys
from nyu_llm_frames._stages.batches.job import Job

PREFIX = 1 << 24
"""Where only the band of an id matters, its first six hex digits are compared."""


def prefixes(ids: pa.Array) -> Ints:
    """Return the first six hex digits of ``r-<32 hex digits>`` as numbers."""
    return (keys(ids) >> np.uint64(KEY_BITS - 24)).astype(np.int64)


class LargeSidecar(Sidecar):
    """A sidecar that keeps no ids in memory, and knows which of its files share ids.

    Attributes
    ----------
    keys_at_once : int
        How many ids are held while that is looked up, 8 bytes each.
    keys_compared : int
        How many of them are compared at once: they stay in the processor's cache.
    """

    keys_at_once = 8_000_000
    keys_compared = 1 << 16

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
        prefix = found >> np.uint64(KEY_BITS - 24)
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

    def linked_to(self, groups: Iterable[Sequence[str]]) -> Iterator[SidecarSlice]:
        """Yield the part for the ids of each group of jobs."""
        answers = _storage.parquet_files(self.answers_folder)
        requests = {name: self._requests(name) for name in self.jobs()}
        # The answers of a job have no other ids than its requests; those of trials may have any.
        source = {path: requests.get(_answer_store.name_of(path)[1], path) for path in answers}
        every = frozenset([*requests.values(), *source.values()])
        if self._links[0] != every:
            self._links = every, self._find_links(sorted(every))
        links = self._links[1]
        for names in groups:
            own = {self._requests(name) for name in names}
            near = own.union(*(links.get(path, ()) for path in own))
            # Files that were stored since can have any id.
            far = (every - near).union(path for path in answers if source[path] not in near)
            part = self._without(far)
            part.shares_ids = any(not own.isdisjoint(links.get(path, ())) for path in own)
            yield part

    def _without(self, files: frozenset[Path]) -> SidecarSlice:
        return SidecarSlice(self, lambda path: path not in files)

    def _find_links(self, files: list[Path]) -> dict[Path, set[Path]]:
        """Find the files that share an id, by bands of keys with the number of their file."""
        carried = sum(job.requests for job in self.jobs().values())
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
                    prefix = found >> np.uint64(KEY_BITS - 24)
                    found = found[(prefix >= low) & (prefix < high)]
                numbered.append(found >> np.uint64(bits) << np.uint64(bits) | np.uint64(number))
            for one, other in _neighbors(np.concatenate(numbered), bits, self.keys_compared):
                links.setdefault(files[one], set()).add(files[other])
                links.setdefault(files[other], set()).add(files[one])
        return links


def _neighbors(numbered: Keys, bits: int, at_once: int) -> set[tuple[int, int]]:
    """Return the pairs of files that share an id; the last bits of a key are its file."""
    numbered.sort()
    found: set[tuple[int, int]] = set()
    limit, size = np.uint64(1 << bits), np.uint64(bits)
    last = limit - np.uint64(1)
    for start in range(0, len(numbered) - 1, at_once):
        block = numbered[start : start + at_once + 1]
        apart, at = 1, start + np.flatnonzero((block[1:] ^ block[:-1]) < limit)
        while len(at):  # over ids that are in more and more files
            every = (numbered[at] & last) << size | (numbered[at + apart] & last)
            pairs = pc.unique(pa.array(every)).to_numpy()
            found.update(zip((pairs >> size).tolist(), (pairs & last).tolist(), strict=True))
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

    Attributes
    ----------
    shares_ids : bool
        Whether two of the jobs that it was made for may carry the same id.
    """

    shares_ids = True

    def __init__(self, whole: LargeSidecar, sees: Callable[[Path], bool]) -> None:
        super().__init__(whole.path, whole._clock, create=None)
        self.is_new = whole.is_new
        self.lock = whole.lock
        self._jobs, self._dropped = whole._jobs, whole._dropped
        self._whole, self._sees = whole, sees
        self._seen: dict[str, bool] = {}

    def request_ids(self, name: str) -> pa.Array:
        return self._whole.request_ids(name)

    def jobs(self) -> dict[str, Job]:
        every = self._whole.jobs()
        for name in every.keys() - self._seen.keys():
            self._seen[name] = self._sees(self._requests(name))
        return {name: job for name, job in every.items() if self._seen[name]}

    def best_answers(self, ids: pa.Array) -> _answer_store.Best:
        files = [p for p in _storage.parquet_files(self.answers_folder) if self._sees(p)]
        return _answer_store.find_best(self.answers_folder, ids, files)
