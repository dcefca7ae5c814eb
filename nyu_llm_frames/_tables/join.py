"""Joins answers by band into new columns in the order of the rows.

Comes in: for every band its rows and their new columns. Goes out: the same columns, consecutive
rows at a time. In between they are sorted into ranges of rows on disk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._tables.filling import IS_NEW, with_choices
from nyu_llm_frames._tables.spill import Spill
from nyu_llm_frames._tables.table import Ints, Mask
from nyu_llm_frames.errors import ConfigurationError

_RANGE_BYTES = 16 << 20


class NewColumns:
    """The new columns of a file of so many rows.

    `status` names the status column, if any: rows without a request are "skipped". With `fills`,
    rows that were not added keep their cells of the input. `folder` is for data that does not stay
    in memory.
    """

    def __init__(self, folder: Path, rows: int, status: str, *, fills: bool = False) -> None:
        self._folder, self._rows, self._status, self.fills = folder, rows, status, fills
        self._spill: Spill | None = None
        self._choices: dict[str, pa.Array] = {}
        self._per_range = 1
        self._next = 0
        self._ready: pa.Table | None = None
        self.schema = pa.schema([])  # with pandas' metadata about the columns

    def add(self, rows: Ints, table: pa.Table) -> None:
        if self._spill is None:
            self.schema = table.schema
            self._choices = {
                field.name: table[field.name].combine_chunks().dictionary
                for field in table.schema
                if pa.types.is_dictionary(field.type)
            }
            spilled = pa.schema([("row", pa.int64()), *self.schema])
            self._spill = Spill(self._folder, spilled)
            per_row = table.nbytes / max(table.num_rows, 1) + 1
            self._per_range = int(min(200_000, max(1_000, _RANGE_BYTES / per_row)))
        columns = [pa.array(rows, pa.int64()), *table.columns]
        numbered = pa.Table.from_arrays(columns, schema=self._spill.schema)
        self._spill.add(numbered, rows // self._per_range)

    def take(self, count: int) -> pa.Table:
        """Return the new columns of the next rows; with `fills` also which are new (`IS_NEW`)."""
        parts = []
        while count:
            if self._ready is None or not self._ready.num_rows:
                self._ready = self._load()
            part = self._ready.slice(0, count)
            self._ready = self._ready.slice(part.num_rows)
            count -= part.num_rows
            parts.append(part)
        if parts:
            return pa.concat_tables(parts)
        return self._marked(self.schema.empty_table(), np.empty(0, np.bool_))

    def _load(self) -> pa.Table:
        assert self._spill is not None
        number = self._next // self._per_range
        stop = min(self._next + self._per_range, self._rows)
        if stop <= self._next:
            raise ConfigurationError("The input has more rows now than when it was read.")
        table = self._spill.read(number)
        self._spill.drop(number)
        place = np.full(stop - self._next, -1, dtype=np.int64)
        place[table["row"].to_numpy() - self._next] = np.arange(table.num_rows)
        self._next = stop
        ordered = table.take(pa.array(place, mask=place < 0)).select(self.schema.names)
        if self._status in ordered.column_names and not self.fills:
            at = ordered.column_names.index(self._status)
            filled = pc.fill_null(ordered[self._status], "skipped")
            ordered = ordered.set_column(at, self.schema.field(at), filled)
        return self._marked(ordered.replace_schema_metadata(self.schema.metadata), place >= 0)

    def _marked(self, table: pa.Table, is_new: Mask) -> pa.Table:
        if not self.fills:
            return table
        for name, choices in self._choices.items():  # also if none of these rows is new
            column = with_choices(name, table[name], choices)
            table = table.set_column(table.column_names.index(name), name, column)
        return table.append_column(IS_NEW, pa.array(is_new))

    def close(self) -> None:
        if self._spill is not None:
            self._spill.close()
