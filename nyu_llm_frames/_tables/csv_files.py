"""Several CSV files with one header as one table.

Comes in: the files, in order. Goes out: a source. Each file is read by itself, so the result is
that of `pandas.concat` over `pandas.read_csv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from nyu_llm_frames._tables.csv_cells import common_kind
from nyu_llm_frames._tables.csv_text import CsvSource, Records, reading_notes
from nyu_llm_frames._tables.table import Piece
from nyu_llm_frames.errors import ConfigurationError


class CsvFiles:
    """CSV files with one header."""

    index_names = ()

    def __init__(self, parts: Sequence[CsvSource]) -> None:
        self._parts = parts
        first = parts[0]
        self.path, self.files = first.path, [part.path for part in parts]
        self.columns, self.levels = first.columns, first.levels
        self.delimiter, self.line_end = first.delimiter, first.line_end
        self.has_mark, self.header_text = first.has_mark, first.header_text
        self.places = first.places
        for part in parts[1:]:
            if (part.columns, part.levels) != (first.columns, first.levels):
                differ = sorted(set(part.columns) ^ set(first.columns))
                what = f"columns ({', '.join(differ[:5])})" if differ else "places of its columns"
                raise ConfigurationError(
                    f"{part.path} differs from {first.path} in the {what}. CSV files of one table "
                    "must have the same columns in the same order. Or combine them with pandas, "
                    "pd.concat(map(pd.read_csv, files)), and use df.llm.batch."
                )

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        for number, part in enumerate(self._parts):
            for piece in part.pieces(columns, index=index):
                yield replace(piece, read=(number + piece.read) / len(self._parts))

    def schema(self) -> pa.Schema:
        guesses = [part.guesses() for part in self._parts]
        self._kinds = [common_kind(column) for column in zip(*guesses, strict=True)]
        return self._parts[0].schema(self._kinds)

    def tables(self) -> Iterator[pa.Table]:
        self.schema()
        for part in self._parts:
            yield from part.tables(self._kinds)

    def records(self) -> Iterator[Records]:
        """Read all records with their text."""
        for part in self._parts:
            yield from part.records()

    def notes(self, columns: Sequence[str]) -> list[str]:
        kept = [name for part in self._parts for name in part.kept_as_text(columns)]
        return reading_notes(self.levels, list(dict.fromkeys(kept)))
