"""The frozen `Gateway` that a user names: where requests go.

Comes in: arguments, environment, options. Goes out: a `Gateway` that knows its realm without a
network, and that opens a connection when one is first needed.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nyu_llm_frames._gateway.checks import (
    is_url,
    normal_url,
    problem_of,
    problem_of_client,
    without_password,
)
from nyu_llm_frames._gateway.masking import NO_SECRETS, Secret
from nyu_llm_frames._gateway.portable import portable
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.options import NYU_BASE_URL, NYU_CONTACT, NYU_PROVIDER
from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    from nyu_llm_frames._gateway.connection import Connection
    from nyu_llm_frames._gateway.network import NetworkRoute

_DEFAULTS = {"base_url": NYU_BASE_URL, "provider": NYU_PROVIDER}


class Gateway:
    """A Portkey gateway, and how to reach it. Frozen; nothing is contacted before it is needed.

    A pickled one has no key: it takes the key from the environment where it is used.

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
        A ready client, used as it is: with its key, address, provider and options. Of the other
        arguments only ``bucket`` adds to it.
    **portkey_options
        Passed to the constructor of `portkey_ai.Portkey`, for instance ``vertex_project_id=``, or
        ``metadata={"_user": "netid", "project": "courts"}``: words that Portkey shows beside every
        call in its logs, so that a lab sees who spent what. They are no part of a request.

    Attributes
    ----------
    api_key, base_url, provider, bucket : str or None
        The effective value: the argument, else the environment's. With a client its address and
        provider; its key and bucket are not shown.

    Raises
    ------
    ConfigurationError
        For an invalid key or address, a misspelled argument, and arguments that a client would
        ignore.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.Gateway(api_key="secret", bucket="my-bucket")
    Gateway(api_key='***', bucket='my-bucket')
    """

    _given: dict[str, str]
    _client: Any
    _portkey_options: dict[str, Any]
    _local: dict[str, Any] | None
    _left_behind: tuple[str, ...]

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        provider: str | None = None,
        bucket: str | None = None,
        client: Any = None,
        **portkey_options: Any,
    ) -> None:
        self._put({}, None, {}, None)  # a traceback may show this object
        named = {"api_key": api_key, "base_url": base_url, "provider": provider, "bucket": bucket}
        del api_key  # and these variables
        problem = problem_of(
            named | {k: v for k, v in portkey_options.items() if isinstance(v, str)}
        )
        for name in () if problem else portkey_options:
            if near := get_close_matches(name, named, 1, 0.8):
                problem = f"Gateway has no argument {name}=. Did you mean {near[0]}=?"
        given = {name: value.strip() for name, value in named.items() if value and not problem}
        options = {k: v.strip() if isinstance(v, str) else v for k, v in portkey_options.items()}
        if client is not None and not problem:
            problem = problem_of_client(client, given, options)
        if problem:
            del client
            for held in (named, given, options, portkey_options):
                held.clear()
            raise ConfigurationError(problem)
        self._put(given, client, options, None)

    def _put(
        self,
        given: dict[str, str],
        client: Any,
        portkey_options: dict[str, Any],
        local: dict[str, Any] | None,
    ) -> None:
        vars(self).update(
            _given=given, _client=client, _portkey_options=portkey_options, _local=local,
            _left_behind=(),
        )  # fmt: skip

    @classmethod
    def local(
        cls,
        *,
        data: str | Path | None = None,
        model: str | Path | None = None,
        upstream: str | None = None,
        answers: Literal["echo"] | None = None,
        max_tokens: int | None = None,
        context: int | None = None,
        concurrency: int | None = None,
        upstream_key_env: str | None = None,
        grace_s: float | None = None,
    ) -> Gateway:
        """Return the embedded gateway: a small real model on this machine, no key.

        Parameters
        ----------
        data : str or Path, optional
            Folder of its jobs; by default one in the user's data folder.
        model : str or Path, optional
            A GGUF file; by default a small model that is downloaded the first time.
        upstream : str, optional
            URL of an OpenAI-compatible server that answers instead.
        answers : "echo", optional
            No model: every answer repeats its prompt. For tests and teaching.
        max_tokens : int, default 256
            Longest answer in tokens, unless a request sets it.
        context : int, default 2048
            Longest prompt plus answer, in tokens.
        concurrency : int, optional
            Requests that are answered at the same time.
        upstream_key_env : str, optional
            Name of the variable that holds the upstream's key.
        grace_s : float, default 10
            Seconds that the server stays after its last user has left.
        """
        given = {
            "data": None if data is None else local_path(data, "data").absolute(),
            "model": model,
            "upstream": upstream,
            "answers": answers,
            "max_tokens": max_tokens,
            "context": context,
            "concurrency": concurrency,
            "upstream_key_env": upstream_key_env,
            "grace_s": grace_s,
        }
        gateway = cls.__new__(cls)
        gateway._put({}, None, {}, {k: v for k, v in given.items() if v is not None})
        return gateway

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"a Gateway is frozen: make a new one with {name}=")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError("a Gateway is frozen")

    def __getstate__(self) -> dict[str, Any]:
        return portable(vars(self))

    def __copy__(self) -> Gateway:
        return self  # it is frozen; a pickled copy has no key

    def __deepcopy__(self, memo: object) -> Gateway:
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self._given.items())), id(self._client)))

    def __repr__(self) -> str:
        if self._local is not None:
            shown = [f"{k}={v!r}" for k, v in self._local.items()]
            return f"Gateway.local({', '.join(shown)})"
        parts = []
        for name, value in self._given.items():
            text = without_password(value) if name == "base_url" else value
            parts.append(f"{name}={'***' if name == 'api_key' else text!r}")
        if self._client is not None:
            parts.append("client=<Portkey>")
        for name, option in self._portkey_options.items():
            parts.append(f"{name}={option!r}" if name in NO_SECRETS else f"{name}='***'")
        return f"Gateway({', '.join(parts)})"

    @property
    def is_local(self) -> bool:
        """Whether it is the embedded one."""
        return self._local is not None

    @property
    def api_key(self) -> str | None:
        """The key."""
        return self._found("api_key")

    @property
    def base_url(self) -> str | None:
        """The address; None for the embedded gateway, which has one while it runs."""
        return self._found("base_url")

    @property
    def provider(self) -> str | None:
        """The provider; None for the embedded gateway."""
        return self._found("provider")

    @property
    def bucket(self) -> str | None:
        """The bucket."""
        return self._found("bucket")

    def _found(self, name: str) -> str | None:
        """Return a setting: the argument, else the client's, else the environment's."""
        if self._local is not None:
            return None
        if self._client is not None and name == "base_url":
            return str(self._client.base_url)
        if name in self._given:
            return self._given[name]
        if self._client is not None and name == "provider":
            own = getattr(self._client, "provider", None)
            if isinstance(own, str) and own:
                return own
        if self._client is not None and name != "provider":
            return None
        value: str | None = getattr(_options.read_environment(), name)
        return value or _DEFAULTS.get(name)

    @property
    def route(self) -> NetworkRoute | None:
        """How calls reach the gateway; None where a user's own client decides.

        Raises
        ------
        ConfigurationError
            For a proxy or a file of certificates that cannot be used.
        """
        from nyu_llm_frames._gateway import network  # loads sockets and TLS: only when needed

        if self._local is not None:
            return network.local_route()
        if self._client is not None or self._portkey_options.get("http_client") is not None:
            return None
        if not is_url(self.base_url or NYU_BASE_URL):
            return None  # connect() says what is wrong with it
        return network.route(without_password(self.base_url or NYU_BASE_URL))

    @property
    def realm(self) -> str:
        """Who answers: part of every request's identity, known without a network."""
        if self._local is not None:
            from nyu_llm_frames.local.spec import engine_spec

            engine = {k: self._local.get(k) for k in ("model", "upstream", "answers")}
            return engine_spec(**engine).realm
        return self.provider or NYU_PROVIDER

    @property
    def identity(self) -> str:
        """Which gateway this is, as jobs record it; has no key."""
        if self._local is not None:
            return f"local:{self._local.get('data') or ''}"
        return normal_url(self.base_url or NYU_BASE_URL)

    def connect(self) -> Connection:
        """Open the connection, or say which setting is missing.

        Raises
        ------
        ConfigurationError
        """
        from nyu_llm_frames._gateway import clients

        if self._local is not None:
            from nyu_llm_frames.local.process import ensure_server

            options = self._local
            server = ensure_server(**options)
            return clients.connect(
                Secret(server.api_key),
                Secret(server.base_url),
                "local",
                "local",
                Secret({}),
                self.route,
                restart=lambda: ensure_server(**options).base_url,
            )
        if self._client is not None:
            extra = {}
            if self.bucket:
                extra["x-portkey-vertex-storage-bucket-name"] = self.bucket
            ways = [f"x-portkey-{name}" for name in ("provider", "config", "virtual-key")]
            if "provider" in self._given and not any(map(self._client.allHeaders.get, ways)):
                extra[ways[0]] = self.realm
            return clients.connect_through(self._client, extra)
        self._require_credentials()
        return clients.connect(
            Secret(self.api_key or ""),
            Secret(self.base_url or ""),
            self.realm,
            self.bucket or "",
            Secret(self._portkey_options),
            self.route,
        )

    def _require_credentials(self) -> None:
        names = ("api_key", "base_url", "provider", "bucket")
        problem = problem_of(
            {n: self._found(n) for n in names if n not in self._given}, _options.VARIABLES
        )
        if problem:
            raise ConfigurationError(problem)
        if self._left_behind:
            names_left = ", ".join(f"{name}=" for name in self._left_behind)
            raise ConfigurationError(
                f"This Gateway was pickled without the secrets in {names_left}: make a new one "
                "here, as Gateway(...)."
            )
        missing = []
        if not self.api_key:
            missing.append("the key: set PORTKEY_API_KEY, or Gateway(api_key=...)")
        if not self.bucket:
            missing.append("the bucket: set NYU_LLM_BUCKET, or Gateway(bucket=...)")
        if missing:
            raise ConfigurationError(
                f"The gateway {self.identity} needs credentials. Missing is "
                f"{'; and '.join(missing)}. NYU's bucket comes from {NYU_CONTACT}. To try things "
                'without any, use gateway="local", which needs none.'
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
    raise ConfigurationError(_options.no_gateway(chosen))
