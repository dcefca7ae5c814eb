"""Choose the rules for a request by the provider that answers it."""

from __future__ import annotations

from typing import Literal, TypeAlias

ProviderRoute: TypeAlias = Literal["gemini", "embedded", "open"]
"""Gemini through the gateway, the model on this machine, or any OpenAI-compatible server."""


def route(realm: str, model: str) -> ProviderRoute:
    """Return the rules for a request to a realm: a provider, ``local:...`` or ``upstream:...``.

    Examples
    --------
    >>> route("@vertexai", "gemini-3-flash-preview")
    'gemini'
    """
    if realm.startswith("local:"):
        return "embedded"
    if realm.startswith("upstream:"):
        return "open"
    # A provider of another name that serves Gemini has the same translation behind it.
    return "gemini" if is_vertex(realm) or "gemini" in model.casefold() else "open"


def is_vertex(realm: str) -> bool:
    """Whether the provider is Google's Vertex; a workspace may name it freely."""
    return "vertex" in realm.casefold() and not realm.startswith(("local:", "upstream:"))
