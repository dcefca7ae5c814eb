"""Pickles a gateway without its secrets.

Comes in: the state of a `Gateway` that is pickled. Goes out: the same without a key, a password or
an option that may hold one. Their names are kept, so that an error can say what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nyu_llm_frames._gateway.checks import without_password
from nyu_llm_frames._gateway.masking import secrets_in
from nyu_llm_frames.errors import NotPicklableError


def portable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a gateway without its secrets; a client or an object is refused."""
    options: dict[str, Any] = state["_portkey_options"]
    objects = [f"{name}=" for name, value in options.items() if not _is_plain(value)]
    if state["_client"] is not None:
        objects.append("client=")
    if objects:
        raise NotPicklableError(
            f"A Gateway with {', '.join(objects)} cannot be pickled: make it where it is used, as "
            "in Gateway() there, which reads that machine's environment."
        )
    given = {name: value for name, value in state["_given"].items() if name != "api_key"}
    left = [name for name, value in options.items() if _is_secret(name, value)]
    url = given.get("base_url", "")
    if url != (bare := without_password(url)):
        given["base_url"] = bare
        left.append("base_url")
    kept = {name: value for name, value in options.items() if name not in left}
    left_behind = (*state["_left_behind"], *left)
    return {**state, "_given": given, "_portkey_options": kept, "_left_behind": left_behind}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _is_secret(name: str, value: Any) -> bool:
    """Whether an option may hold a credential, by its name or a name inside it."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)  # a config
        except (ValueError, RecursionError):
            return True
    return bool(secrets_in({name: value}) or secrets_in({name: ""}))
