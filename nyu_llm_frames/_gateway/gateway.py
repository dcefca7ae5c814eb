"""Where requests go: the frozen `Gateway` that a user names.

Comes in: arguments, environment, options. Goes out: a `Gateway` that knows its realm without a
network, and that opens a connection when the first effect asks for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nyu_llm_frames import _options
from nyu_llm_frames._options import NYU_BASE_URL, NYU_CONTACT, NYU_PROVIDER
from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    from nyu_llm_frames._gateway.connection import Connection

# Header options whose value says where, not who.
_SHOWN = frozenset({"vertex_project_id", "vertex_region", "request_timeout"})


def _normal_url(url: str) -> str:
    """Give a base URL the one form under which jobs are remembered, without a password."""
    return _without_password(url).rstrip("/") + "/"


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, init=False, repr=False)
class Gateway:
    """A Portkey gateway, and how to reach it. Frozen; nothing is contacted until it must be.

    Parameters
    ----------
    api_key : str, optional
        Default: the variable ``PORTKEY_API_KEY``.
    base_url : str, optional
        Default: ``PORTKEY_BASE_URL``, else NYU's gateway. With or without a trailing slash.
    provider : str, optional
        Default: ``PORTKEY_PROVIDER``, else ``"@vertexai"``.
    bucket : str, optional
        Cloud storage bucket for the request files. Default: ``NYU_LLM_BUCKET``. NYU's comes from
        genai-research-support@nyu.edu.
    client : portkey_ai.Portkey, optional
        A ready client, used as it is.
    **portkey_options
        Passed to the constructor of `portkey_ai.Portkey`, for instance ``vertex_project_id=``.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.Gateway(api_key="secret", bucket="my-bucket")
    Gateway(api_key='***', bucket='my-bucket')
    """

    api_key: str | None
    base_url: str | None
    provider: str | None
    bucket: str | None
    client: Any
    portkey_options: dict[str, Any] = field(hash=False)
    local_options: dict[str, Any] | None = field(hash=False)

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        provider: str | None = None,
        bucket: str | None = None,
        client: Any = None,
        **portkey_options: Any,
    ) -> None:
        for name, value in (
            ("api_key", api_key),
            ("base_url", base_url),
            ("provider", provider),
            ("bucket", bucket),
        ):
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"Gateway({name}=) must be a string.")
        put = object.__setattr__
        put(self, "api_key", api_key or None)
        put(self, "base_url", base_url or None)
        put(self, "provider", provider or None)
        put(self, "bucket", bucket or None)
        put(self, "client", client)
        put(self, "portkey_options", dict(portkey_options))
        put(self, "local_options", None)

    @classmethod
    def local(cls, **options: Any) -> Gateway:
        """Return the embedded gateway: a small real model on this machine, no key.

        Parameters
        ----------
        **options
            ``data=`` (folder of its jobs), ``model=`` (path of a GGUF file), ``upstream=`` (URL
            of an OpenAI-compatible server), ``answers="echo"`` (for tests and teaching).
        """
        gateway = cls()
        known = {
            "data",
            "model",
            "upstream",
            "answers",
            "max_tokens",
            "concurrency",
            "slots",
            "context",
            "upstream_key_env",
        }
        unknown = set(options) - known
        if unknown:
            raise ConfigurationError(
                f"Gateway.local() has no option {sorted(unknown)[0]!r}. "
                f"Options: {', '.join(sorted(known))}."
            )
        object.__setattr__(gateway, "local_options", dict(options))
        return gateway

    def __repr__(self) -> str:
        if self.local_options is not None:
            shown = [f"{k}={v!r}" for k, v in self.local_options.items()]
            return f"Gateway.local({', '.join(shown)})"
        parts = []
        for name in ("api_key", "base_url", "provider", "bucket"):
            value = getattr(self, name)
            if value is not None:
                text = _without_password(value) if name == "base_url" else value
                parts.append(f"{name}={'***' if name == 'api_key' else text!r}")
        if self.client is not None:
            parts.append("client=<Portkey>")
        for name, value in self.portkey_options.items():
            parts.append(f"{name}={value!r}" if name in _SHOWN else f"{name}='***'")
        return f"Gateway({', '.join(parts)})"

    @property
    def realm(self) -> str:
        """Who answers: part of every request's identity, known without a network."""
        if self.local_options is not None:
            from nyu_llm_frames.local.process import realm

            return realm(**{k: self.local_options.get(k) for k in ("model", "upstream", "answers")})
        if self.provider:
            return self.provider
        if self.client is not None:
            own = getattr(self.client, "provider", None)
            if isinstance(own, str) and own:
                return own
        return _options.read_environment().provider or NYU_PROVIDER

    @property
    def identity(self) -> str:
        """Which gateway this is, as jobs remember it; holds no key."""
        if self.local_options is not None:
            return f"local:{self.local_options.get('data') or ''}"
        if self.client is not None:
            return _normal_url(str(self.client.base_url))
        return _normal_url(self.base_url or _options.read_environment().base_url or NYU_BASE_URL)

    def connect(self) -> Connection:
        """Open the connection, or say which setting is missing.

        Raises
        ------
        ConfigurationError
        """
        from nyu_llm_frames._gateway.connection import Connection

        if self.local_options is not None:
            from nyu_llm_frames.local.process import ensure_server

            server = ensure_server(**self.local_options)
            return Connection(
                make_client(server.api_key, server.base_url, "local", "local", {}),
                secrets=(server.api_key,),
                restart=lambda: ensure_server(**self.local_options or {}).base_url,
            )
        if self.client is not None:
            secret = getattr(self.client, "api_key", None)
            extra = {}
            if self.bucket:
                extra["x-portkey-vertex-storage-bucket-name"] = self.bucket
            return Connection(
                self.client,
                secrets=(secret,) if isinstance(secret, str) else (),
                headers=extra,
                owned=False,
            )
        self._require_credentials()
        return self._open()

    def _require_credentials(self) -> None:
        environment = _options.read_environment()
        missing = []
        if not (self.api_key or environment.api_key):
            missing.append("the key: set PORTKEY_API_KEY, or Gateway(api_key=...)")
        if not (self.bucket or environment.bucket):
            missing.append(
                f"the bucket: set NYU_LLM_BUCKET, or Gateway(bucket=...); NYU's bucket comes from "
                f"{NYU_CONTACT}"
            )
        if missing:
            raise ConfigurationError(
                f"The gateway {self.identity} needs credentials. Missing is "
                + "; and ".join(missing)
                + '. To try things without any, use gateway="local", which needs none.'
            )

    def _open(self) -> Connection:
        from nyu_llm_frames._gateway.connection import Connection

        environment = _options.read_environment()
        key, bucket = self.api_key or environment.api_key, self.bucket or environment.bucket
        assert key
        assert bucket
        url = self.base_url or environment.base_url or NYU_BASE_URL
        hidden = [v for k, v in self.portkey_options.items() if k not in _SHOWN]
        return Connection(
            make_client(key, url, self.realm, bucket, self.portkey_options),
            secrets=(key, *_strings(hidden)),
        )


def _strings(value: Any) -> list[str]:
    """Return every string in nested options."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for v in value.values() for s in _strings(v)]
    if isinstance(value, list | tuple):
        return [s for v in value for s in _strings(v)]
    return []


def make_client(
    api_key: str, base_url: str, provider: str, bucket: str, options: dict[str, Any]
) -> Any:
    """Build the Portkey client with the options of NYU's page."""
    from portkey_ai import Portkey  # takes over a second: only when something is sent

    return Portkey(
        api_key=api_key,
        provider=provider,
        base_url=base_url.rstrip("/"),
        vertex_storage_bucket_name=bucket,
        **options,
    )


def resolve(gateway: Gateway | str | None) -> Gateway:
    """Return the gateway of a call: the argument, else the option, else the environment's."""
    chosen = gateway if gateway is not None else _options.current().gateway
    if chosen is None:
        return Gateway()
    if isinstance(chosen, Gateway):
        return chosen
    if chosen == "local":
        return Gateway.local()
    raise ConfigurationError(f'gateway must be a Gateway or the word "local", not {chosen!r}.')


Connect = Callable[[], "Connection"]
