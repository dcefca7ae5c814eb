"""A sidecar seen by one band: only the jobs and answers whose ids can be in it.

Comes in: a sidecar, and the prefixes of a band. Goes out: a sidecar that a planner works with as
with any other. What a file of ids spans is looked up once and kept as two numbers.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from nyu_llm_frames._clock import Clock
from nyu_llm_frames._files.requests import PREFIX, prefixes
from nyu_llm_frames._jobs.job import Job
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.folder import Sidecar


class WholeSidecar(Sidecar):
    """A sidecar that keeps no ids in memory, and knows what each of its files spans."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder, clock)
        self._spans: dict[Path, tuple[int, int]] = {}

    def request_ids(self, name: str) -> pa.Array:
        ids = super().request_ids(name)
        self._ids.pop(name, None)
        return ids

    def span(self, path: Path) -> tuple[int, int]:
        """Return the lowest and the highest prefix of a file's ids; files never change."""
        if path not in self._spans:
            ids = _storage.read_table(path, ["custom_id"])["custom_id"].combine_chunks()
            ours = ids.filter(pa.compute.match_substring_regex(ids, r"^r-[0-9a-f]{32}$"))
            found = prefixes(ours)
            self._spans[path] = (int(found.min()), int(found.max())) if len(found) else (PREFIX, -1)
        return self._spans[path]

    def spans(self, path: Path, low: int, high: int) -> bool:
        """Whether a file can hold ids of a band."""
        first, last = self.span(path)
        return first < high and last >= low


class BandSidecar(Sidecar):
    """What one band sees of a sidecar."""

    def __init__(self, whole: WholeSidecar, low: int, high: int) -> None:
        super().__init__(whole.path, whole._clock)
        self.is_new = whole.is_new
        self.lock = whole.lock
        self._jobs = whole._jobs
        self._whole, self._low, self._high = whole, low, high

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
