"""A sidecar of any size, and what one band of ids sees of it.

Comes in: a sidecar, and the prefixes of a band. Goes out: a sidecar that a planner works with as
with any other: only the jobs and answers whose ids can be in the band. What a file of ids spans is
looked up once and kept as two numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.folder import IDS, Sidecar
from nyu_llm_frames._stages.batches.job import Job

Ints = np.ndarray[Any, np.dtype[np.int64]]

PREFIX = 1 << 24
"""Ids are told apart by their first six hex digits where only their band matters."""


def prefixes(ids: pa.Array) -> Ints:
    """Return the first six hex digits of ``r-<32 hex digits>`` as numbers."""
    if not len(ids):
        return np.zeros(0, np.int64)
    offsets = np.frombuffer(ids.buffers()[1], np.int32, len(ids) + 1, ids.offset * 4)
    data = np.frombuffer(ids.buffers()[2], np.uint8)
    out = np.zeros(len(ids), np.int64)
    for place in range(2, 8):
        digit = data[offsets[:-1] + place].astype(np.int64)
        out = out * 16 + np.where(digit >= 97, digit - 87, digit - 48)
    return out


class LargeSidecar(Sidecar):
    """A sidecar that keeps no ids in memory, and knows what each of its files spans."""

    def __init__(self, folder: Path, clock: Clock, *, create: bool | None = True) -> None:
        super().__init__(folder, clock, create=create)
        self._spans: dict[Path, tuple[int, int]] = {}

    def request_ids(self, name: str) -> pa.Array:
        ids = super().request_ids(name)
        self._ids.pop(name, None)
        return ids

    def span(self, path: Path) -> tuple[int, int]:
        """Return the lowest and the highest prefix of a file's ids; files never change."""
        if path not in self._spans:
            ids = _storage.read_table(path, IDS)["custom_id"].combine_chunks()
            ours = ids.filter(pc.match_substring_regex(ids, r"^r-[0-9a-f]{32}$"))
            found = prefixes(ours)
            self._spans[path] = (int(found.min()), int(found.max())) if len(found) else (PREFIX, -1)
        return self._spans[path]

    def band_of(self, names: Iterable[str]) -> SidecarSlice:
        """Return what the ids of some jobs can see."""
        spans = [self.span(self.path / "requests" / f"{name}.parquet") for name in names]
        return SidecarSlice(self, min(low for low, _ in spans), max(high for _, high in spans) + 1)

    def spans(self, path: Path, low: int, high: int) -> bool:
        """Whether a file can hold ids of a band."""
        first, last = self.span(path)
        return first < high and last >= low


class SidecarSlice(Sidecar):
    """What one band sees of a sidecar."""

    def __init__(self, whole: LargeSidecar, low: int, high: int) -> None:
        super().__init__(whole.path, whole._clock, create=None)
        self.is_new = whole.is_new
        self.lock = whole.lock
        self._jobs = whole._jobs
        self._whole, self._low, self._high = whole, low, high

    def request_ids(self, name: str) -> pa.Array:
        return self._whole.request_ids(name)

    def jobs(self) -> dict[str, Job]:
        whole, low, high = self._whole, self._low, self._high
        return {
            name: job
            for name, job in whole.jobs().items()
            if whole.spans(self.path / "requests" / f"{name}.parquet", low, high)
        }

    def best_answers(self, ids: pa.Array) -> _answer_store.Best:
        files = [
            path
            for path in _storage.parquet_files(self.answers_folder)
            if self._whole.spans(path, self._low, self._high)
        ]
        return _answer_store.find_best(self.answers_folder, ids, files)
