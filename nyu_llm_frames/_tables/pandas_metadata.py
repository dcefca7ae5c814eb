"""Keeps pandas' metadata in a schema true where columns are added or change.

Comes in: the schema of the input, with pandas' own ``pandas`` entry, if any. Goes out: a schema
with the new columns that pandas can open.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NotRequired

import msgspec
import pandas as pd
import pyarrow as pa
from typing_extensions import TypedDict

KEY = b"pandas"


class _Column(TypedDict):
    name: str | int | float | bool | None
    field_name: NotRequired[str | None]


class _Frame(TypedDict):
    columns: list[_Column]
    index_columns: NotRequired[list[str | dict[str, Any]]]
    column_indexes: NotRequired[list[dict[str, Any]]]


def read(schema: pa.Schema) -> dict[str, Any]:
    """Return pandas' metadata, or an empty one if there is none that can be read."""
    try:
        meta: dict[str, Any] = json.loads((schema.metadata or {})[KEY])
        msgspec.convert(meta, _Frame)
    except (KeyError, ValueError, msgspec.ValidationError):
        return {}
    return meta


def index_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that are the index of the frame."""
    meta = read(schema).get("index_columns", ())
    return [name for name in meta if isinstance(name, str) and name in schema.names]


def range_index(schema: pa.Schema) -> tuple[int, int]:
    """Return start and step of an index that is a range, not a column."""
    for item in () if index_columns(schema) else read(schema).get("index_columns", ()):
        if isinstance(item, dict) and item.get("kind") == "range" and item.get("step"):
            return int(item["start"]), int(item["step"])
    return 0, 1


def index_names(schema: pa.Schema) -> list[str]:
    """Return every name of an index level, in the file and in pandas."""
    meta = read(schema)
    stored = index_columns(schema)
    names = [entry["name"] for entry in meta.get("columns", ()) if _field(entry) in stored]
    ranges = [i.get("name") for i in meta.get("index_columns", ()) if isinstance(i, dict)]
    return list(dict.fromkeys(n for n in (*stored, *names, *ranges) if isinstance(n, str)))


def zones(schema: pa.Schema) -> dict[str, str]:
    """Return the time zones of columns by pandas' metadata."""
    found = {}
    for entry in read(schema).get("columns", ()):
        zone = (entry.get("metadata") or {}).get("timezone")
        if entry.get("pandas_type") == "datetimetz" and isinstance(zone, str):
            found[str(_field(entry))] = zone
    return found


def has_levels(schema: pa.Schema) -> bool:
    return len(read(schema).get("column_indexes", ())) > 1


def joined(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """Put new columns, as pyarrow made them, in place of those with their names, or last."""
    kept = [new.field(field.name) if field.name in new.names else field for field in old]
    added = [field for field in new if field.name not in old.names]
    schema = pa.schema([*kept, *added], metadata=old.metadata)
    meta = read(old)
    if not meta:
        return schema
    ours = {entry["field_name"]: _readable(entry) for entry in read(new).get("columns", ())}
    index = index_columns(old)
    entries = [ours.pop(_field(entry), _readable(entry)) for entry in meta["columns"]]
    if ours and not _are_text(meta):
        labels = _labels(old)
        entries = [{**e, "name": labels.get(_field(e), e["name"])} for e in entries]
        for names in meta["column_indexes"]:
            names |= {"pandas_type": "mixed", "numpy_type": "object", "metadata": None}
    at_end = [entry for entry in entries if _field(entry) in index]  # where pandas looks for it
    entries = [entry for entry in entries if _field(entry) not in index]
    meta["columns"] = [*entries, *ours.values(), *at_end]
    return schema.with_metadata({**old.metadata, KEY: json.dumps(meta).encode()})


def without_types(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Let pandas infer the types of the columns with these names."""
    meta = read(schema)
    if not meta or not names:
        return schema
    for entry in meta["columns"]:
        if _field(entry) in names:
            entry["numpy_type"] = "object"
    return schema.with_metadata({**schema.metadata, KEY: json.dumps(meta).encode()})


def _field(entry: Mapping[str, Any]) -> Any:
    return entry.get("field_name") or entry["name"]  # fastparquet has written names alone


def _readable(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out a type that pandas writes but cannot read, as for lists and structs of Arrow."""
    if str(entry.get("numpy_type")).endswith("[pyarrow]"):
        try:
            pd.api.types.pandas_dtype(entry["numpy_type"])
        except (TypeError, ValueError, NotImplementedError):
            return {**entry, "numpy_type": "object"}
    return entry


def _are_text(meta: Mapping[str, Any]) -> bool:
    """Whether the names of the columns are texts in pandas."""
    kinds = {names.get("pandas_type") for names in meta.get("column_indexes", ())}
    return kinds <= {"unicode", "string"}


def _labels(schema: pa.Schema) -> dict[str, Any]:
    """Return the names that the columns have in pandas, if JSON can hold them.

    Beside a new column the names are mixed for pandas, but each integer stays one. Dates become
    text, as pandas itself writes mixed names.
    """
    names = [name for name in schema.names if name not in index_columns(schema)]
    try:
        labels = schema.empty_table().to_pandas().columns.tolist()
    except (TypeError, ValueError, NotImplementedError):  # dates that pandas cannot open
        labels = names
    return {
        name: label if isinstance(label, str | int | float | None) else name
        for name, label in zip(names, labels, strict=True)
    }
