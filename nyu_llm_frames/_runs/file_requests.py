"""From an input file to bands of requests on disk, each small enough to be planned in memory.

Comes in: a source and the arguments of a call. Goes out: bands, cut by the first digits of the ids.
Ids are digests, so bands are even, equal prompts meet in one band, and a batch job's ids stay in
one band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.launch import CallPart
from nyu_llm_frames._runs.prepare import PreparedCall, check_prompts_differ, compile_call
from nyu_llm_frames._runs.rendering import render
from nyu_llm_frames._sidecar.bands import PREFIX, LargeSidecar, prefixes
from nyu_llm_frames._stages.requests.bodies import Requests, first_of_each
from nyu_llm_frames._tables import filling
from nyu_llm_frames._tables.arrow_columns import RowNumbers
from nyu_llm_frames._tables.frame import missing_in_all
from nyu_llm_frames._tables.source import Source
from nyu_llm_frames._tables.spill import LIMIT_BYTES, Spill
from nyu_llm_frames._tables.table import Ints, Piece
from nyu_llm_frames.errors import ColumnExistsError, MissingValueError

PART_BYTES = 8 << 20
BAND_BYTES = 32 << 20
_BAND_ROWS = 100_000
_MOST_PARTS = 4096
_SCHEMA = pa.schema(
    [("row", pa.int64()), ("custom_id", pa.string()), ("fragment", pa.large_string())]
)


class RequestBands:
    """All requests of a file, by band.

    Each band gets the part of the `sidecar` that concerns it, if there is one; `is_typed` says
    whether an output is written whose columns have types.
    """

    def __init__(
        self, source: Source, arguments: Arguments, folder: Path, *, check_columns: bool = True
    ) -> None:
        self.source, self.arguments = source, arguments
        self.rows = self.requested = 0  # rows that were read, and those that are sent
        self.sidecar: LargeSidecar | None = None
        self.is_typed = False
        try:
            self.head = compile_call(source, arguments, check_columns=check_columns)
        except ColumnExistsError as e:
            raise _in_file(e, source) from None
        self._spill = Spill(folder, _SCHEMA)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._parts = 1
        self._hold: list[pa.Table] = []

    @property
    def used(self) -> list[str]:
        """The columns that the prompts are made of."""
        wanted = {*self.head.used, *(self.head.new_columns.deciding if self.head.fills else ())}
        used = [name for name in self.source.columns if name in wanted]
        return used or list(self.source.columns[:1])  # rows have to be counted anyway

    def choose(self, piece: Piece, first: int) -> tuple[Piece, filling.Fill | None]:
        """Return the rows of a piece that are sent, and their places in it."""
        if not self.head.fills:
            return piece, None
        new, cells = self.head.new_columns, piece.values
        columns = {
            name: pd.Series(cells[name], dtype=object) for name in new.deciding if name in cells
        }
        fill = filling.choose(pd.DataFrame(columns, index=range(piece.rows)), new)
        return piece.take(fill.rows, first), fill

    def fill(self) -> None:
        """Read the file and render every prompt; missing values are counted in all rows."""
        missing: list[MissingValueError] = []
        held, settled = 0, False
        for piece in self.source.pieces(self.used, index=self.head.template.uses_index):
            first, self.rows = self.rows, self.rows + piece.rows
            check_prompts_differ(self.head, self.source.columns, self.rows)
            chosen, fill = self.choose(piece, first)
            try:
                requests = render(self.head, [chosen], first)
            except MissingValueError as e:
                missing.append(e)
                continue
            self.requested += chosen.rows
            if fill is not None and self.is_typed:
                filling.check_cells(fill, self.head.new_columns, first=first)
            if missing:
                continue
            table = _rows(requests, first, None if fill is None else fill.rows)
            if settled:
                self._put(table)
                continue
            self._hold.append(table)
            held += table.nbytes
            if held > LIMIT_BYTES:
                total = held / max(piece.read, 1e-3)
                self._parts = int(min(_MOST_PARTS, max(2, total // PART_BYTES)))
                self._settle()
                settled = True
        if missing:
            raise missing_in_all(missing, self.head.template.has_object)
        self._settle()

    def _settle(self) -> None:
        for table in self._hold:
            self._put(table)
        self._hold.clear()

    def _put(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        if not table.num_rows:
            return
        ids = table["custom_id"].chunk(0)
        parts = prefixes(ids) * self._parts // PREFIX
        lengths = pc.fill_null(pc.binary_length(table["fragment"]), 0).to_numpy()
        numbers, places = np.unique(parts, return_inverse=True)
        sizes = np.bincount(places, weights=lengths)
        counts = np.bincount(places)
        for number, size, count in zip(numbers.tolist(), sizes, counts, strict=True):
            known = self._sizes.get(number, (0, 0))
            self._sizes[number] = (known[0] + int(size), known[1] + int(count))
        self._spill.add(table, parts)

    def __iter__(self) -> Iterator[CallPart]:
        """Load one band after the other, each time again."""
        for start, stop in _grouped([self._sizes.get(n, (0, 0)) for n in range(self._parts)]):
            low = -(-start * PREFIX // self._parts)
            high = -(-stop * PREFIX // self._parts)
            there = self.sidecar
            band = None if there is None else there.band(low, high)
            yield CallPart(self._call(self._load(start, stop)), band)
            pa.default_memory_pool().release_unused()

    def _load(self, start: int, stop: int) -> pa.Table:
        return pa.concat_tables([self._spill.read(number) for number in range(start, stop)])

    def _call(self, table: pa.Table) -> PreparedCall:
        """Return the call for some rows: distinct requests, as if the rows were a frame."""
        table = table.combine_chunks()
        requests = self.head.requests
        if table.num_rows:
            ids, codes, first = first_of_each(table["custom_id"].chunk(0))
            texts = table["fragment"].chunk(0)
            if len(ids) < len(texts):
                # Only one of the equal rows of a piece holds the prompt, not always the first.
                given = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
                first[codes[given][::-1]] = given[::-1]
                texts = texts.take(pa.array(first))
            fragments = pa.chunked_array([texts])
            requests = replace(requests, ids=ids, codes=codes, fragments=fragments)
        return replace(self.head, table=RowNumbers(table["row"].to_numpy()), requests=requests)

    def close(self) -> None:
        self._spill.close()


def _grouped(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join neighboring parts into bands, as large as memory allows."""
    start, bytes_, rows = 0, 0, 0
    for number, (size, count) in enumerate(sizes):
        if number > start and (bytes_ + size > BAND_BYTES or rows + count > _BAND_ROWS):
            yield start, number
            start, bytes_, rows = number, 0, 0
        bytes_ += size
        rows += count
    yield start, len(sizes)


def _rows(requests: Requests, first: int, rows: Ints | None) -> pa.Table:
    """Return a row per row that is sent, with the prompt at the first of equal ones."""
    codes = requests.codes
    kept = np.flatnonzero(codes >= 0)
    chosen = codes[kept]
    places = kept if rows is None else rows[kept]
    _, firsts = np.unique(chosen, return_index=True)
    repeated = np.ones(len(chosen), dtype=np.bool_)
    repeated[firsts] = False
    return pa.Table.from_arrays(
        [
            pa.array(places + first, pa.int64()),
            requests.ids.take(pa.array(chosen)),
            requests.fragments.take(pa.array(chosen, mask=repeated)),
        ],
        schema=_SCHEMA,
    )


def _in_file(error: ColumnExistsError, source: Source) -> ColumnExistsError:
    """Word an error about a frame for a file."""
    if set(error.columns) & set(source.index_names):
        text = "That is its index, which nothing replaces. Choose"
    else:
        text = (
            'Is it the output of an earlier call? If so, use if_exists="replace" (costs nothing) '
            'or if_exists="fill" (sends only rows without a good answer). Otherwise choose'
        )
    return ColumnExistsError(
        f"{source.path} already has {', '.join(map(repr, error.columns))}. {text} another name "
        "with output= or prefix=.",
        columns=error.columns,
    )
