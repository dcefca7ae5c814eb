"""Makes the clients of a connection: Portkey's makes the headers, httpx's sends.

Portkey's takes over a second to load. So calls that only read do without it, with the same
headers, unless the gateway has options of its own.

Comes in: what a `Gateway` holds, with keys as `Secret`. Goes out: an open `Connection`, or a
`ConfigurationError` that says what to set or to install. No frame here has a key in a variable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._gateway.masking import NO_SECRETS, Mask, Secret, secrets_in, strings
from nyu_llm_frames._gateway.network import NetworkRoute
from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx


def connect(
    key: Secret[str],
    base_url: Secret[str],
    provider: str,
    bucket: str,
    options: Secret[dict[str, Any]],
    route: NetworkRoute | None,
    restart: Callable[[], str] | None = None,
) -> Connection:
    """Open a gateway by its address; without a route, through the client in `options`.

    `restart` brings the embedded gateway back and returns its address.
    """
    from nyu_llm_frames._gateway import transport

    if route is not None:
        http = transport.client(route)
    else:
        theirs = options.value.get("http_client")
        problem = f"Gateway(http_client=) takes an httpx.Client, not {type(theirs).__name__}"
        http = _checked(theirs, problem)

    def by_client() -> Secret[dict[str, str]]:
        return _headers(_portkey(key, base_url, provider, bucket, options, http))

    plain = not options.value
    return Connection(
        http,
        base_url.value,
        plain_headers(key, provider, bucket) if plain else by_client(),
        client_headers=by_client if plain else None,
        secrets=Secret([key.value, *secrets_in(options.value)]),
        private=Secret(strings([v for k, v in options.value.items() if k not in NO_SECRETS])),
        route=route,
        restart=restart,
        owned=route is not None,
    )


def connect_through(client: Any, extra: dict[str, str]) -> Connection:
    """Open the gateway of a user's own client, with additional headers.

    Proxies and certificates are its owner's business.
    """
    http = _checked(
        getattr(getattr(client, "openai_client", None), "_client", None),
        f"client= takes a portkey_ai.Portkey, not {type(client).__name__}",
    )
    headers = _headers(client)
    headers.value.update(extra)
    secret = Secret(getattr(client, "api_key", None))
    return Connection(
        http,
        str(client.base_url),
        headers,
        secrets=Secret([secret.value] if isinstance(secret.value, str) else []),
        owned=False,
    )


def plain_headers(key: Secret[str], provider: str, bucket: str) -> Secret[dict[str, str]]:
    """Return the headers of Portkey's client without options, except those about the client."""
    return Secret(
        {
            "x-portkey-api-key": key.value,
            "x-portkey-provider": provider,
            "x-portkey-strict-open-ai-compliance": "false",
            "x-portkey-vertex-storage-bucket-name": bucket,
        }
    )


def _checked(client: object, otherwise: str) -> httpx.Client:
    """Return the client for calls, after checking that it is one and open."""
    import httpx

    if not isinstance(client, httpx.Client):
        raise ConfigurationError(f"{otherwise}.")
    if client.is_closed:
        raise ConfigurationError("The client of the Gateway is closed: make a new one.")
    return client


def _headers(portkey: Any) -> Secret[dict[str, str]]:
    return Secret({k: v for k, v in portkey.allHeaders.items() if isinstance(v, str)})


def _portkey(
    key: Secret[str],
    base_url: Secret[str],
    provider: str,
    bucket: str,
    options: Secret[dict[str, Any]],
    http: httpx.Client,
) -> Any:
    """Build the Portkey client with the options on NYU's page; it makes the headers of all calls.

    Its errors have the key among their variables, so another error is raised in their place.
    """
    try:
        from portkey_ai import Portkey
    except Exception as e:  # also of a broken installation
        problem = (
            f"The package portkey-ai cannot be imported ({type(e).__name__}: {e}): "
            "pip install --upgrade portkey-ai"
        )
    else:
        try:
            return Portkey(
                **{
                    "api_key": key.value,
                    "provider": provider,
                    "base_url": base_url.value.rstrip("/"),
                    "vertex_storage_bucket_name": bucket,
                    **options.value,
                    "http_client": http,
                }
            )
        except Exception as e:
            reason = Mask([key.value, *strings(options.value)]).text(str(e))
            problem = f"portkey_ai.Portkey does not take the options of the Gateway: {reason}"
    raise ConfigurationError(problem)
