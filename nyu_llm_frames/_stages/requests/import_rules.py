"""The rules of the Vertex AI importer: a request that breaks one fails the whole job.

Comes in: body fields. Goes out: nothing, or a `RequestError` that names the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nyu_llm_frames.errors import RequestError

MAX_DEPTH = 15
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Keywords that the gateway resolves or removes before the importer sees a schema.
_RESOLVED = frozenset({"$schema", "$defs", "$ref", "additionalProperties", "additional_properties"})


def check_importable(fields: Mapping[str, Any]) -> None:
    """Refuse what fails the import of the whole job: depth, empty objects, names of keys.

    Parameters
    ----------
    fields : mapping
        Top-level fields of the body.

    Raises
    ------
    RequestError
        Names the path.
    """
    for key, value in fields.items():
        if key == "response_format":
            # Only the schema is passed on, at its depth.
            inner = value.get("json_schema")
            if isinstance(inner, Mapping):
                _walk(inner.get("schema", inner), "response_format.json_schema", 4, schema=True)
            continue
        _walk(value, key, 3, schema=key == "tools")


def _walk(value: Any, path: str, depth: int, *, schema: bool) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            _walk(item, f"{path}[{i}]", depth, schema=schema)
        return
    if not isinstance(value, Mapping):
        return
    kept = {k: v for k, v in value.items() if not (schema and k in _RESOLVED)}
    if not kept and "$ref" not in value:
        raise RequestError(
            f"{path} is an empty object, at which the import of the whole job fails. Leave it out, "
            "or give it a field."
        )
    if depth > MAX_DEPTH:
        raise RequestError(
            f"{path} is nested deeper than {MAX_DEPTH} levels, at which the import of the whole "
            "job fails. Make it flatter."
        )
    for key, inner in kept.items():
        if not KEY.fullmatch(key):
            raise RequestError(
                f"{path} has the key {key!r}; the import of the whole job fails at names with "
                "other characters than A-Z, a-z, 0-9 and _, or with a digit first. Rename it."
            )
        _walk(inner, f"{path}.{key}", depth + 1, schema=schema)
