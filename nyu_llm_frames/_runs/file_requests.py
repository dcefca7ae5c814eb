"""From an input file to bands of requests on disk, each small enough to be planned in memory.

Comes in: a source and what was asked. Goes out: bands, cut by the first digits of the ids. Ids are
digests, so bands are even, equal prompts meet in one band, and a batch job's ids stay in one band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.launch import CallPart
from nyu_llm_frames._runs.prepare import PreparedCall, prepare
from nyu_llm_frames._sidecar.bands import PREFIX, LargeSidecar, prefixes
from nyu_llm_frames._stages.requests.bodies import first_of_each
from nyu_llm_frames._tables import filling
from nyu_llm_frames._tables.frame import missing_value_error
from nyu_llm_frames._tables.source import Piece, Source
from nyu_llm_frames._tables.spill import LIMIT_BYTES, Spill
from nyu_llm_frames.errors import ColumnExistsError, MissingValueError

_PART_BYTES = 8 << 20
_BAND_BYTES = 32 << 20
_BAND_ROWS = 100_000
_MOST_PARTS = 4096
_SCHEMA = pa.schema(
    [("row", pa.int64()), ("custom_id", pa.string()), ("fragment", pa.large_string())]
)


class RequestBands:
    """All requests of a file, by band.

    Parameters
    ----------
    source : Source
    asked : Arguments
    folder : Path
        For what does not stay in memory; removed by `close`.
    check_columns : bool
        Whether new columns will be written, so that they must not be there.

    Attributes
    ----------
    rows, asked : int
        Rows that were read, and those of them that are asked: all but with ``if_exists="fill"``.
    sidecar : LargeSidecar or None
        Of which each band sees what concerns it; None where there is none.
    is_typed : bool
        Whether an output is written whose columns have types.
    """

    def __init__(
        self, source: Source, arguments: Arguments, folder: Path, *, check_columns: bool = True
    ) -> None:
        self.source, self.arguments = source, arguments
        self.rows = self.asked = 0
        self.sidecar: LargeSidecar | None = None
        self.is_typed = False
        empty = pd.DataFrame({name: pd.Series([], dtype=object) for name in source.columns})
        labels = list(source.index_names)
        if labels:
            empty.index = pd.MultiIndex.from_arrays([[] for _ in labels], names=labels)
        try:
            self.head: PreparedCall = prepare(empty, arguments, check_columns=check_columns)
        except ColumnExistsError as e:
            raise _in_file(e, source) from None
        self._asked = replace(
            arguments, gateway=self.head.gateway, details=self.head.arguments.details
        )
        self._spill = Spill(folder, _SCHEMA)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._parts = 1
        self._hold: list[pa.Table] = []

    @property
    def used(self) -> list[str]:
        """The columns that the prompts are made of."""
        images = self.arguments.images
        listed = [images] if isinstance(images, str) else list(images or ())
        wanted = {*self.head.template.columns, *listed, *self._deciding}
        used = [name for name in self.source.columns if name in wanted]
        return used or list(self.source.columns[:1])  # rows have to be counted all the same

    @property
    def _deciding(self) -> list[str]:
        if self.head.fill is None:
            return []
        return filling.deciding(self.arguments.output, self.head.schema, self.arguments.prefix)

    def choose(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a piece that are asked."""
        if self.head.fill is None:
            return frame
        wanted = self.arguments
        return filling.choose(frame, wanted.output, self.head.schema, wanted.prefix).asked

    def fill(self) -> None:
        """Read the file and render every prompt.

        Raises
        ------
        LLMFramesError
            What is wrong in a row, as `prepare` says it; missing values are counted in all rows.
        """
        missing_rows = _Holes()
        held, settled = 0, False
        for piece in self.source.pieces(self.used, index=self.head.template.uses_index):
            frame = self.frame(piece, self.rows)
            self.rows += piece.rows
            try:
                call = prepare(frame, self._asked, check_columns=False, rows=self.rows)
            except MissingValueError as e:
                missing_rows.add(e)
                continue
            self.asked += len(call.frame)
            if call.fill is not None and self.is_typed:
                filling.check_cells(
                    call.fill, self.arguments.output, call.schema,
                    prefix=self.arguments.prefix, first=self.rows - piece.rows,
                )  # fmt: skip
            if missing_rows.first is not None:
                continue
            table = _rows(call, self.rows - piece.rows)
            if settled:
                self._put(table)
                continue
            self._hold.append(table)
            held += table.nbytes
            if held > LIMIT_BYTES:
                total = held / max(piece.read, 1e-3)
                self._parts = int(min(_MOST_PARTS, max(2, total // _PART_BYTES)))
                self._settle()
                settled = True
        missing_rows.report(self.head.template.has_object)
        self._settle()

    @staticmethod
    def frame(piece: Piece, first: int) -> pd.DataFrame:
        """Return a piece as a frame of plain values, for the code that prepares a frame."""
        labels: Any = pd.RangeIndex(first, first + piece.rows)
        if piece.index is not None:
            labels = pd.Index(piece.index, dtype=object, tupleize_cols=False)
        columns = {
            name: pd.Series(values, index=labels, dtype=object)
            for name, values in piece.values.items()
        }
        return pd.DataFrame(columns, index=labels)

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
        """Load one band after the other; each time anew."""
        for start, stop in _grouped([self._sizes.get(n, (0, 0)) for n in range(self._parts)]):
            low = -(-start * PREFIX // self._parts)
            high = -(-stop * PREFIX // self._parts)
            there = self.sidecar
            seen = None if there is None else there.band(low, high)
            yield CallPart(self._call(self._load(start, stop)), seen)
            pa.default_memory_pool().release_unused()

    def _load(self, start: int, stop: int) -> pa.Table:
        return pa.concat_tables([self._spill.read(number) for number in range(start, stop)])

    def _call(self, table: pa.Table) -> PreparedCall:
        """Return the call of some rows: distinct requests, as if they were a frame."""
        table = table.combine_chunks()
        requests = replace(self.head.requests, images=bool(self.arguments.images))
        if table.num_rows:
            ids, codes, first = first_of_each(table["custom_id"].chunk(0))
            texts = table["fragment"].chunk(0)
            if len(ids) < len(texts):
                # The prompt stands at one of equal rows of a piece, so not always at the first.
                given = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
                first[codes[given][::-1]] = given[::-1]
                texts = texts.take(pa.array(first))
            fragments = pa.chunked_array([texts])
            requests = replace(requests, ids=ids, codes=codes, fragments=fragments)
        frame = pd.DataFrame(index=pd.Index(table["row"].to_numpy()))
        return replace(self.head, frame=frame, requests=requests, fill=None)

    def close(self) -> None:
        """Remove what was written."""
        self._spill.close()


def _grouped(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join neighbouring parts into bands, as large as may be in memory."""
    start, bytes_, rows = 0, 0, 0
    for number, (size, count) in enumerate(sizes):
        if number > start and (bytes_ + size > _BAND_BYTES or rows + count > _BAND_ROWS):
            yield start, number
            start, bytes_, rows = number, 0, 0
        bytes_ += size
        rows += count
    yield start, len(sizes)


def _rows(call: PreparedCall, first: int) -> pa.Table:
    """Return a row per row that is asked, with the prompt at the first of equal ones."""
    codes = call.requests.codes
    kept = np.flatnonzero(codes >= 0)
    chosen = codes[kept]
    places = kept if call.fill is None else call.fill.rows[kept]
    _, firsts = np.unique(chosen, return_index=True)
    repeated = np.ones(len(chosen), dtype=np.bool_)
    repeated[firsts] = False
    fragments = call.requests.fragments
    return pa.Table.from_arrays(
        [
            pa.array(places + first, pa.int64()),
            call.requests.ids.take(pa.array(chosen)),
            fragments.take(pa.array(chosen, mask=repeated)),
        ],
        schema=_SCHEMA,
    )


def _in_file(error: ColumnExistsError, source: Source) -> ColumnExistsError:
    """Say of a file what the error says of a frame."""
    if set(error.columns) & set(source.index_names):
        told = "That is its index, which nothing replaces: choose"
    else:
        told = (
            "Is it the output of an earlier call? Then nothing is paid again with "
            'if_exists="replace", and if_exists="fill" asks only the rows without a good answer; '
            "or choose"
        )
    return ColumnExistsError(
        f"{source.path} already has {', '.join(map(repr, error.columns))}. {told} another name "
        "with output= or prefix=.",
        columns=error.columns,
    )


class _Holes:
    """Missing values of all pieces, told in one error."""

    def __init__(self) -> None:
        self.first: MissingValueError | None = None
        self._counts: dict[Any, int] = {}
        self._rows: list[Any] = []

    def add(self, error: MissingValueError) -> None:
        self.first = self.first or error
        for column, count in error.columns.items():
            self._counts[column] = self._counts.get(column, 0) + count
        self._rows += error.rows

    def report(self, has_object: bool) -> None:
        """Raise for all of them."""
        if self.first is None:
            return
        if len(self._counts) == len(self.first.columns) and self._counts == self.first.columns:
            raise self.first
        raise missing_value_error(self._rows[:4], self._counts, has_object)
