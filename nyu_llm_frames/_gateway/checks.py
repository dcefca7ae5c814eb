"""Checks the settings of a gateway, and gives addresses the form in which they are stored.

Comes in: settings from arguments or the environment. Goes out: a sentence that says which one is
wrong, without its value where that may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from nyu_llm_frames._shared.options import NYU_BASE_URL


def normal_url(url: str) -> str:
    """Give a base URL the one form in which jobs record it, without a password."""
    return without_password(url).rstrip("/") + "/"


def without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def problem_of(settings: Mapping[str, Any], where: Mapping[str, str] | None = None) -> str:
    """Say which setting is invalid, without its value where that may be a secret; "" if none.

    They are sent as headers, and a value that no header can hold would look like network trouble.
    """
    for name, value in settings.items():
        place = where[name] if where else f"Gateway({name}=)"
        if value is not None and not isinstance(value, str):
            return f"{place} must be a string."
        text = (value or "").strip()
        if not text.isprintable() or not text.isascii():
            return (
                f"{place} holds a line end or a character that cannot be sent: was too much copied?"
            )
        if name in ("api_key", "base_url", "bucket") and " " in text:
            return f"{place} holds a blank: was too much copied?"
        if name == "base_url" and text and not is_url(text):
            return (
                f"{place} must be an address that begins with https:// (or http://), as "
                f"{NYU_BASE_URL} does, not {without_password(text)!r}."
            )
    return ""


def is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises where it is no number
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def problem_of_client(client: Any, given: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """Say which arguments a ready client would ignore, without values: they may be secret."""
    if not hasattr(client, "openai_client") or not hasattr(client, "allHeaders"):
        return f"client= takes a portkey_ai.Portkey, not {type(client).__name__}."
    ignored = sorted(options)
    for name in ("api_key", "base_url", "provider"):
        own = getattr(client, name, None)
        if name not in given or (name == "provider" and not own):
            continue
        same = given[name] == own
        if name == "base_url":
            same = normal_url(given[name]) == normal_url(str(own))
        if not same:
            ignored.append(name)
    if not ignored:
        return ""
    return (
        f"client= is used as it is, so {', '.join(f'{name}=' for name in ignored)} would have "
        "no effect: make the client with it, or leave client= out."
    )
