"""Read annotations and descriptions of fields from a class, without what only its source has."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import typing
from functools import lru_cache
from typing import Any

from pydantic.fields import FieldInfo


def hints(cls: Any) -> dict[str, Any]:
    """The annotations of a class, none where a name in them is not known."""
    try:
        return dict(typing.get_type_hints(cls, include_extras=True))
    except Exception:
        return {}


@lru_cache(maxsize=64)
def attribute_docs(cls: Any) -> dict[str, str]:
    """The string literals below the fields of a class, where its source is known."""
    if getattr(cls, "__fields_of_a_dict__", False):
        return {}  # made by us: no source has it, and inspect would parse ours to find out
    try:
        source = inspect.getsource(getattr(cls, "__documented__", cls))
        tree = ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    out = {}
    for statement, below in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            out[statement.target.id] = inspect.cleandoc(below.value.value)
    return out


def descriptions(cls: Any) -> dict[str, str | None]:
    """Each field with its description: "" where it has none, None where a source file has it."""
    docs = attribute_docs(cls)
    known: dict[str, FieldInfo] | None = getattr(cls, "__pydantic_fields__", None)
    out: dict[str, str | None] = {}
    for name, hint in ({} if known is None else known).items() or hints(cls).items():
        if isinstance(hint, FieldInfo):
            is_read = hint.description and "description" not in hint._attributes_set
            infos = [*hint.metadata] if is_read else [*hint.metadata, hint]
        else:
            is_read = name in docs
            default = getattr(getattr(cls, "__dataclass_fields__", {}).get(name), "default", None)
            infos = [*getattr(hint, "__metadata__", ())]
            infos += [default] if isinstance(default, FieldInfo) else []
        words = [i.description if isinstance(i, FieldInfo) else i for i in infos[::-1]]
        words = [w for w in words if isinstance(w, str)]
        out[name] = words[0] if words else None if is_read else ""
    return out


def aliases(cls: Any, name: str) -> list[str]:
    """The names of a field in JSON, first the one in a JSON Schema."""
    field = (getattr(cls, "__pydantic_fields__", None) or {}).get(name)
    alias = getattr(field, "validation_alias", None)
    return [a for a in getattr(alias, "choices", [alias]) if isinstance(a, str)]
