"""Resolve, compare and merge JSON Schema keywords.

Those that begin with ``x-`` are ours, for what JSON Schema cannot express of a Python type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from nyu_llm_frames.errors import SchemaError

REFUSED = "x-refused"
"""Why a type cannot be requested; with the path, the text of a `SchemaError`."""
REMARKS = "x-remarks"
"""Constraints of a type without a keyword in JSON Schema, in words."""
VALIDATOR = "x-validator"
"""The name of the validator that a value comes from."""


def wrong(path: str, what: str) -> SchemaError:
    """Make the error for a place in a schema."""
    return SchemaError(f"{path}: {what}", path=path)


def json_type(value: Any) -> str:
    """The JSON Schema type of a Python scalar."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "null" if value is None else "string" if isinstance(value, str) else "object"


def lookup(root: Mapping[str, Any], ref: Any, path: str) -> Any:
    """The target of a ``#/...`` reference."""
    target: Any = root
    if not isinstance(ref, str) or not ref.startswith("#"):
        raise wrong(
            path,
            f"reference {ref!r} points outside of the schema; copy the definition into "
            "its $defs and write #/$defs/<name>",
        )
    for part in [p for p in ref[1:].split("/") if p]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        elif isinstance(target, Mapping) and key in target:
            target = target[key]
        else:
            raise wrong(path, f"reference {ref!r} leads nowhere; define it")
    return target


def refuse_recursion(root: Mapping[str, Any]) -> None:
    """Raise where a definition contains itself, along the keywords that are sent."""
    done: set[str] = set()

    def walk(schema: Any, path: str, open_refs: tuple[str, ...]) -> None:
        if not isinstance(schema, Mapping):
            return
        ref = schema.get("$ref")
        if ref in open_refs:
            raise wrong(
                path,
                f"{str(ref).rsplit('/', 1)[-1]} contains itself, and Gemini takes no "
                "recursive schema; write the levels out to a fixed depth, or ask for a flat list "
                "of entries that name their parent",
            )
        if ref is not None and ref not in done:
            walk(lookup(root, ref, path), path, (*open_refs, ref))
            done.add(ref)
        for name, sub in (schema.get("properties") or {}).items():
            walk(sub, f"{path}.{name}", open_refs)
        for sub in (schema.get("items"), *(schema.get("prefixItems") or ())):
            walk(sub, f"{path}[]", open_refs)
        for key in ("allOf", "anyOf", "oneOf"):
            for sub in schema.get(key) or ():
                walk(sub, path, open_refs)

    walk(root, "$", ())


def scalar_key(value: Any) -> tuple[bool, Any]:
    """Equality in JSON: 1 equals 1.0, and true is not 1."""
    return isinstance(value, bool), value


def unique(values: Iterable[Any]) -> tuple[Any, ...]:
    """The distinct values, in order of first occurrence."""
    return tuple({scalar_key(v): v for v in reversed(list(values))}.values())[::-1]


def type_names(s: Mapping[str, Any]) -> list[str]:
    types = s.get("type")
    return [] if types is None else [types] if isinstance(types, str) else list(types)


def merge(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Merge schemas that must both hold. Where that cannot be written, keep `a`: checked later."""
    out = dict(a)
    for key, theirs in b.items():
        if key not in out or out[key] == theirs:
            out[key] = theirs
            continue
        ours = out[key]
        if key == "type":
            left, right = type_names(a), type_names(b)
            both = [t for t in left if t in right or (t == "integer" and "number" in right)]
            both += [t for t in right if t == "integer" and "number" in left and t not in both]
            if not both:
                raise wrong(
                    path,
                    f"must be {' or '.join(left)} and {' or '.join(right)} at once; "
                    "no value is both",
                )
            out[key] = both[0] if len(both) == 1 else both
        elif key == "enum":
            keys = {scalar_key(v) for v in theirs if not isinstance(v, (dict, list))}
            out[key] = [
                v for v in ours if not isinstance(v, (dict, list)) and scalar_key(v) in keys
            ]
            if not out[key]:
                raise wrong(path, "its enums have no value in common")
        elif key == "required":
            out[key] = [*ours, *(r for r in theirs if r not in ours)]
        elif key == "properties":
            out[key] = {
                **ours,
                **{k: {"allOf": [ours[k], v]} if k in ours else v for k, v in theirs.items()},
            }
        elif key == "items":
            out[key] = {"allOf": [ours, theirs]}
        elif key in ("minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"):
            out[key] = max(ours, theirs)
        elif key in ("maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"):
            out[key] = min(ours, theirs)
        elif key == "additionalProperties" and theirs is False:
            out[key] = False
        elif key in ("$defs", "definitions"):
            out[key] = {**theirs, **ours}
    return out
