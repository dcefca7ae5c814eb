"""Sorts tables into numbered parts, on disk as soon as they are large.

Comes in: tables, and for each row the number of its part. Goes out: the rows of a part. The parts
are compressed Arrow IPC streams in their own folder; small ones are never written.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from nyu_llm_frames._sidecar.storage import draft_path, left_behind, make_folder
from nyu_llm_frames._tables.table import Ints

LIMIT_BYTES = 24 << 20
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def work_folder(output: Path) -> Path:
    """Name a private folder beside an output, made when it is first used.

    What a dead process left behind there is removed, with its unfinished output.
    """
    for old in output.parent.glob(f".{glob.escape(output.name)}.*"):
        if not left_behind(old):
            continue
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    return draft_path(output.with_name(f"{output.name}.work"))


class Spill:
    """Rows by part, in the order in which they were added."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self.schema = folder, schema
        self._held: dict[int, list[pa.Table]] = {}
        self._bytes = 0
        self._written: set[int] = set()

    def add(self, table: pa.Table, parts: Ints) -> None:
        if not len(parts):
            return
        low, high = int(parts.min()), int(parts.max())
        if low == high:
            self._held.setdefault(low, []).append(table)
        else:
            order = np.argsort(parts, kind="stable")
            table = table.take(pa.array(order))
            numbers, starts = np.unique(parts[order], return_index=True)
            ends = [*starts[1:].tolist(), len(parts)]
            for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
                self._held.setdefault(number, []).append(table.slice(start, end - start))
        self._bytes += table.nbytes
        if self._bytes > LIMIT_BYTES:
            self._flush()

    def _flush(self) -> None:
        make_folder(self._folder.parent)  # private: prompts are stored here unencrypted
        make_folder(self._folder)
        for number, tables in self._held.items():
            with (
                self._path(number).open("ab") as file,
                pa.ipc.new_stream(file, self.schema, options=_OPTIONS) as stream,
            ):
                stream.write_table(pa.concat_tables(tables).combine_chunks())
            self._written.add(number)
        self._held.clear()
        self._bytes = 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.arrows"

    def read(self, part: int) -> pa.Table:
        tables = []
        if part in self._written:
            size = self._path(part).stat().st_size
            with pa.OSFile(str(self._path(part))) as file:
                while file.tell() < size:
                    tables.append(pa.ipc.open_stream(file).read_all())
        tables += self._held.get(part, [])
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

    def drop(self, part: int) -> None:
        self._held.pop(part, None)
        if part in self._written:
            self._written.discard(part)
            self._path(part).unlink(missing_ok=True)

    def close(self) -> None:
        self._held.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
