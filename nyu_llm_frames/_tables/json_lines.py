"""Reads JSON lines: one object a line, each decoded by itself.

Comes in: paths. Goes out: plain values and typed tables. The type of a column comes from all its
values, never from a block of them; where they do not fit one type, the column is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._tables.table import BYTES, EXACT, ROWS, Piece
from nyu_llm_frames._tables.text_file import not_utf_8, open_text
from nyu_llm_frames.errors import ConfigurationError

_SURROGATE = re.compile("[\ud800-\udfff]")
_decode = msgspec.json.Decoder().decode


class JsonLinesSource:
    """Files of JSON objects, one a line, in UTF-8."""

    index_names = ()

    def __init__(self, files: Sequence[Path]) -> None:
        self.path, self.files = files[0], files
        self._schema: pa.Schema | None = None
        names: dict[str, None] = {}
        for rows, _, _ in self.objects():
            for row in rows:
                names.update(dict.fromkeys(row))
        self.columns = tuple(names)
        if not names:
            raise ConfigurationError(f"{self.path} holds no JSON objects.")

    def pieces(self, columns: Sequence[str], *, index: bool = False) -> Iterator[Piece]:
        for rows, _, read in self.objects():
            values = {name: to_python([row.get(name) for row in rows]) for name in columns}
            yield Piece(len(rows), values, None, read)

    def schema(self) -> pa.Schema:
        if self._schema is None:
            types: dict[str, pa.DataType] = {name: pa.null() for name in self.columns}
            large: set[str] = set()
            for rows, _, _ in self.objects():
                for name, known in types.items():
                    values = [row.get(name) for row in rows]
                    types[name] = _joined(known, values)
                    if any(type(v) is int and abs(v) > EXACT for v in values):
                        large.add(name)
            for name, kind in types.items():
                no_float = name in large and pa.types.is_floating(kind)
                if no_float or pa.types.is_null(kind) or _holds_nothing(kind):
                    types[name] = pa.string()
            self._schema = pa.schema(types.items())
        return self._schema

    def tables(self) -> Iterator[pa.Table]:
        schema = self.schema()
        for rows, _, _ in self.objects():
            arrays = []
            for field in schema:
                values = [row.get(field.name) for row in rows]
                if pa.types.is_string(field.type):
                    values = [cell_text(v) for v in values]
                arrays.append(pa.array(values, field.type))
            yield pa.Table.from_arrays(arrays, schema=schema)

    def notes(self, columns: Sequence[str]) -> list[str]:
        return []

    def objects(self) -> Iterator[tuple[list[dict[str, Any]], list[bytes], float]]:
        """Read all objects, each with its text and the part of the files read so far."""
        for number, path in enumerate(self.files):
            for rows, texts, read in _objects(path):
                yield rows, texts, (number + read) / len(self.files)


def _objects(path: Path) -> Iterator[tuple[list[dict[str, Any]], list[bytes], float]]:
    rows: list[dict[str, Any]] = []
    texts: list[bytes] = []
    size = 0
    with open_text(path) as file:
        for number, line in enumerate(file.content, 1):
            size += len(line)
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.isspace():
                continue
            try:
                row = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                raise _unreadable(path, number, line, e) from None
            if not isinstance(row, dict):
                hint = f" Read it with pd.read_json({str(path)!r}) and use df.llm.batch."
                raise ConfigurationError(
                    f"{path}, line {number:,} is not a JSON object but a "
                    f"{type(row).__name__}.{hint if isinstance(row, list) else ''}"
                )
            rows.append(row)
            texts.append(line.strip())
            if len(rows) >= ROWS or size >= BYTES:
                yield rows, texts, file.read
                rows, texts, size = [], [], 0
    if rows:
        yield rows, texts, 1.0


def _unreadable(path: Path, number: int, line: bytes, error: Exception) -> ConfigurationError:
    try:  # releases of msgspec differ in the error for text that is not UTF-8
        line.decode()
    except UnicodeDecodeError as e:
        return not_utf_8(path, number, line, e)
    for name in _with_half_characters(line):
        return ConfigurationError(
            f"{path}, line {number:,}: {name!r} has half of a character (an unpaired surrogate), "
            "which is no text. Write the file again without it, as with "
            'text.encode("utf-8", "ignore").decode().'
        )
    for constant in _constants(line):
        return ConfigurationError(
            f"{path}, line {number:,}: {constant} is not JSON. Read the file with "
            f"pd.read_json({str(path)!r}, lines=True), which takes it, and use df.llm.batch."
        )
    text = str(error).removesuffix(".")
    return ConfigurationError(
        f"{path}, line {number:,}: {text}. Each line must be one whole JSON object; of other JSON, "
        f"pd.read_json({str(path)!r}) may make a table for df.llm.batch."
    )


def _with_half_characters(line: bytes) -> Iterator[str]:
    """Yield the names of values with surrogates, which json reads, unlike msgspec."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return
    for name, value in row.items() if isinstance(row, dict) else ():
        if _SURROGATE.search(name + json.dumps(value, ensure_ascii=False)):
            yield name


def _constants(line: bytes) -> list[str]:
    """Return the numbers that only Python's json writes and reads, such as NaN."""
    found: list[str] = []
    with suppress(ValueError, RecursionError):
        json.loads(line, parse_constant=found.append)
    return found


def cell_text(value: object) -> str | None:
    """Return a JSON value as the text of a cell; dates in it as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    return json_text(value)


def json_text(value: object) -> str:
    """Return a value as JSON, which has no NaN: null stands in its place."""
    try:
        return _dumps(value, allow_nan=False)
    except ValueError:
        return _dumps(_without_nan(value))


_dumps = partial(
    json.dumps,
    ensure_ascii=False,
    default=lambda v: v.isoformat() if hasattr(v, "isoformat") else str(v),
)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_without_nan, value))
    return None if value != value else value


def _holds_nothing(kind: pa.DataType) -> bool:
    """Whether a type has an object without fields, which no columnar file can hold."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_holds_nothing(kind.field(i).type) for i in range(kind.num_fields))


def _joined(known: pa.DataType, values: Sequence[object]) -> pa.DataType:
    """Return a type that holds the earlier values of a column and these."""
    if pa.types.is_string(known):
        return known
    try:
        found = pa.array(values).type
        schemas = [pa.schema([("x", known)]), pa.schema([("x", found)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowException, OverflowError):
        return pa.string()
