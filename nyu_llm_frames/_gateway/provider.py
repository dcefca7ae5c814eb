"""Decides the provider of a call: from the model's name, the gateway, or the environment.

Comes in: a gateway, and the model of the call. Goes out: a gateway of one provider, and the name
that is sent.
"""

from __future__ import annotations

from nyu_llm_frames._gateway.gateway import Gateway, resolve
from nyu_llm_frames._stages.requests.models import check_family, split_name
from nyu_llm_frames.errors import ConfigurationError


def resolve_model(gateway: Gateway | str | None, model: str) -> tuple[Gateway, str]:
    """Return the gateway of a call, and the model's name as it is sent."""
    found = resolve(gateway)
    if found.is_local:
        return found, model  # it takes any name
    provider, name = split_name(model)
    if provider:
        if given_provider(found) not in (None, provider):
            raise ConfigurationError(
                f"model={model!r} names the provider {provider!r}, and the gateway has "
                f"provider={given_provider(found)!r}. Give one of them."
            )
        found = with_provider(found, provider)
    check_family(name, found.realm)
    return found, name


def given_provider(gateway: Gateway) -> str | None:
    """Return the provider that a gateway or its client was given, not the environment's."""
    own: str | None = getattr(gateway._client, "provider", None)
    return gateway._given.get("provider") or own or None


def with_provider(gateway: Gateway, provider: str) -> Gateway:
    """Return the same gateway with this provider."""
    other = object.__new__(type(gateway))
    vars(other).update(vars(gateway), _given={**gateway._given, "provider": provider})
    return other
