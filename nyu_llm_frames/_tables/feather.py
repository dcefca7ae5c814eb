"""Reads Feather files (Arrow IPC, as files or streams) batch by batch.

Comes in: paths. Goes out: a source like that of parquet, with types, labels and pandas' index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from nyu_llm_frames._tables.parquet import ParquetSource
from nyu_llm_frames.errors import ConfigurationError

_EXTENSION = b"ARROW:extension:name"
_HEAD = b"ARROW1\0\0"
_TAIL_BYTES = 10  # the footer's length, and ARROW1 again


class FeatherSource(ParquetSource):
    """Feather files of one schema, as one table."""

    kind = "Feather (Arrow IPC)"

    def _measure(self, path: str) -> tuple[pa.Schema, int, int]:
        with _batches(path, None) as (schema, batches):
            sizes = [(batch.num_rows, batch.nbytes) for batch in batches]
        return schema, sum(rows for rows, _ in sizes), sum(bytes_ for _, bytes_ in sizes)

    def _parts(
        self, path: str, names: Sequence[str], size: int
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        try:
            with _batches(path, names) as (_, batches):
                for batch in batches:
                    for start in range(0, batch.num_rows, size):
                        part = batch.slice(start, size)
                        yield part.num_rows, dict(zip(part.schema.names, part.columns, strict=True))
        except (pa.ArrowException, OSError) as e:
            raise ConfigurationError(f"{path} cannot be read as {self.kind}: {e}") from None


def _check_choices(path: str, is_file: bool) -> None:
    """Raise for choices of an extension type, such as intervals.

    pyarrow writes them, but takes them for something else when it reads them, even past their
    memory. So the schema is read without the names of such types: of a file from its end, since
    what Polars writes at the start is no whole message.
    """
    with Path(path).open("rb") as file:
        if is_file:
            size = file.seek(-_TAIL_BYTES, 2) + _TAIL_BYTES
            footer = int.from_bytes(file.read(4), "little") + _TAIL_BYTES
            file.seek(max(size - footer, len(_HEAD)))
            content = _HEAD + file.read()
        else:
            content = pa.ipc.read_message(file).serialize().to_pybytes()
    buffer = pa.py_buffer(content.replace(_EXTENSION, _EXTENSION.lower()))
    for field in pa.ipc.open_file(buffer).schema if is_file else pa.ipc.read_schema(buffer):
        kind = (field.metadata or {}).get(_EXTENSION.lower())
        if kind and pa.types.is_dictionary(field.type):
            raise ConfigurationError(
                f"{path}: the column {field.name!r} holds choices of the type {kind.decode()}, "
                "which pyarrow writes but cannot read again. Write the file again with text in "
                f'their place: df["{field.name}"] = df["{field.name}"].astype(str).'
            )


@contextmanager
def _batches(
    path: str, names: Sequence[str] | None
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open a file or a stream; only some columns are unpacked."""
    with Path(path).open("rb") as head:
        is_file = head.read(6) == b"ARROW1"
    _check_choices(path, is_file)
    with pa.memory_map(path) as mapped:
        read = pa.ipc.open_file if is_file else pa.ipc.open_stream
        schema = read(mapped).schema
        there = [i for i, name in enumerate(schema.names) if names is None or name in names]
        mapped.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=there or [0])
        reader = read(mapped, options=options)
        if is_file:
            yield schema, map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield schema, iter(reader)
