"""The requests of all partitions in parts, planned on ids alone.

Comes in: what workers wrote, and their summaries. Goes out: parts of consecutive partitions
that fit into memory, whose messages stay on disk until a request file is written. A request that
several partitions have belongs to the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._runs.launch import CallPart
from nyu_llm_frames._runs.prepare import PreparedCall
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._stages.requests.bodies import Requests, first_of_each
from nyu_llm_frames._tables.arrow_columns import RowNumbers
from nyu_llm_frames._tables.table import Ints, Mask
from nyu_llm_frames.dask.spool_files import (
    SpooledPartition,
    ids_in,
    read_fragments,
    read_spooled,
    spool_path,
)

AT_ONCE = 1_000_000
"""Requests of a part; each takes some 200 bytes while it is planned."""

ROWS_OF_A_BAND = 4_000_000


@dataclass(frozen=True, slots=True)
class SpooledRequests(Requests):
    """Distinct requests of some partitions; messages are read when they are needed.

    `codes` are the positions in `ids` of all spooled requests of these partitions.
    """

    paths: tuple[Path, ...] = ()  # the partitions' files
    starts: Any = None  # where each file's requests begin among all, shape (files + 1,)
    places: Any = None  # of each distinct request the first place among all
    sizes: Any = None  # bytes of each distinct request's line

    def some_fragments(self, positions: Ints) -> pa.ChunkedArray:
        places = self.places[positions]
        order = np.argsort(places, kind="stable")
        sorted_places = places[order]
        parts: list[pa.Array] = []
        bounds = np.searchsorted(sorted_places, self.starts)
        for number, (low, high) in enumerate(itertools.pairwise(bounds.tolist())):
            if low < high:
                rows = sorted_places[low:high] - self.starts[number]
                parts += read_fragments(self.paths[number], rows)
        found = pa.chunked_array(parts, pa.large_string())
        if (order == np.arange(len(order))).all():
            return found
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return found.take(pa.array(back))

    def line_bytes(self) -> Ints:
        sizes: Ints = self.sizes
        return sizes


class SpooledParts:
    """All requests of a call, in parts that are loaded one after the other.

    `call` is what all parts have in common, and `folder` the run's spool.
    """

    def __init__(
        self,
        call: PreparedCall,
        folder: Path,
        partitions: Sequence[SpooledPartition],
        sidecar: Sidecar,
    ) -> None:
        self._call, self.folder, self.sidecar = call, folder, sidecar
        self.partitions = partitions
        self._partitions = [p for p in partitions if p.requests]

    def __iter__(self) -> Iterator[CallPart]:
        """Load one part after the other, without what an earlier part has; each time anew."""
        groups = list(self.groups()) or [[]]
        for group in groups:
            yield self.part(group, self._repeated if len(groups) > 1 else None)

    def groups(self) -> Iterator[list[SpooledPartition]]:
        """Yield consecutive partitions, as many as are planned at once."""
        group: list[SpooledPartition] = []
        requests = 0
        for partition in self._partitions:
            if group and requests + partition.requests > AT_ONCE:
                yield group
                group, requests = [], 0
            group.append(partition)
            requests += partition.requests
        if group:
            yield group

    def part(
        self, group: Sequence[SpooledPartition], repeated: dict[int, Mask] | None = None
    ) -> CallPart:
        """Load the requests of some partitions, by number without those that are `repeated`."""
        paths = tuple(spool_path(self.folder, p.number) for p in group)
        tables = [read_spooled(path, ["digest", "line_bytes"]) for path in paths]
        ids = pa.concat_arrays([ids_in(table) for table in tables] or [pa.array([], pa.string())])
        sizes = np.concatenate([t["line_bytes"].to_numpy() for t in tables] or [np.zeros(0, int)])
        del tables
        starts = np.cumsum([0, *(p.requests for p in group)])
        distinct, codes, places = first_of_each(ids)
        if repeated is not None and group:
            left = ~np.concatenate([repeated[p.number] for p in group])[places]
            distinct, places = distinct.filter(pa.array(left)), places[left]
            codes = np.zeros(0, np.int64)  # nobody joins rows by them
        head = self._call.requests
        requests = SpooledRequests(
            distinct, codes, pa.chunked_array([], pa.large_string()), head.shape, head.images,
            paths=paths, starts=starts, places=places, sizes=sizes[places],
        )  # fmt: skip
        rows = RowNumbers(np.arange(sum(p.rows for p in group)))
        return CallPart(replace(self._call, table=rows, requests=requests), self.sidecar)

    @cached_property
    def _repeated(self) -> dict[int, Mask]:
        """Find which requests of each partition an earlier one has; in bands of digests."""
        total = sum(p.requests for p in self._partitions)
        bands = -(-total // ROWS_OF_A_BAND)
        found = {p.number: np.zeros(p.requests, np.bool_) for p in self._partitions}
        starts = np.cumsum([0, *(p.requests for p in self._partitions)])
        for band in range(bands):
            digests: list[pa.Array] = []
            places: list[Ints] = []
            for start, partition in zip(starts, self._partitions, strict=False):
                path = spool_path(self.folder, partition.number)
                column = read_spooled(path, ["digest"])["digest"].combine_chunks()
                rows = np.arange(len(column))
                if bands > 1:
                    raw = column.buffers()[1].slice(16 * column.offset, 16 * len(column))
                    first = np.frombuffer(raw, ">u2").reshape(-1, 8)[:, 0].astype(np.int64)
                    rows = np.flatnonzero(first * bands >> 16 == band)
                    column = column.take(pa.array(rows))
                digests.append(column)
                places.append(start + rows)
            every = np.concatenate(places)
            _, codes, firsts = first_of_each(pa.concat_arrays(digests))
            again = every[firsts[codes] != np.arange(len(codes))]
            bounds = np.searchsorted(again, starts)
            for i, partition in enumerate(self._partitions):
                mine = again[bounds[i] : bounds[i + 1]] - starts[i]
                found[partition.number][mine] = True
        return found
