"""Sends requests through one pool of connections, with a deadline for every read and write.

Comes in: a `NetworkRoute`, and requests that may have an extension ``deadline``
(`time.monotonic`). Goes out: responses. The client's own timeouts are for a single read, so an
answer of one byte at a time would never end, be it in its headers, its body or a proxy's greeting.

This module imports the client at its top, so it is itself imported only inside functions.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

from nyu_llm_frames._gateway.network import NetworkRoute

_KEEP_ALIVE_S = 5.0
_AT_ONCE = 100
_PIECE = 16_384
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class _Deadline(threading.local):
    """The deadline of this thread's request; one pool serves many threads."""

    at: float | None = None

    def shortened(
        self, timeout: float | None, over: type[httpcore.TimeoutException]
    ) -> float | None:
        """Shorten a timeout to the time left; raise `over` when none is left."""
        if self.at is None:
            return timeout
        left = self.at - time.monotonic()
        if left <= 0:
            raise over("its time is over")
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A socket that keeps the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.shortened(timeout, httpcore.ReadTimeout)
        return self._stream.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _PIECE):  # a slow receiver must not delay it either
            left = self._deadline.shortened(timeout, httpcore.WriteTimeout)
            self._stream.write(view[start : start + _PIECE], left)  # type: ignore[arg-type]

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.shortened(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Opens sockets that keep the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.shortened(timeout, httpcore.ConnectTimeout)
        stream = super().connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Body(httpx.SyncByteStream):
    """The bytes of an answer; the deadline is set for each piece, as threads share the pool."""

    def __init__(self, stream: Any, deadline: _Deadline, at: float | None) -> None:
        self._stream, self._deadline, self._at = stream, deadline, at

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self._stream)
        while True:
            self._deadline.at = self._at
            try:
                piece = next(pieces, None)
            except _FAULTS as e:
                raise _as_httpx(e) from e
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        self._stream.close()


class Transport(httpx.BaseTransport):
    """Sends requests along one route."""

    def __init__(self, route: NetworkRoute) -> None:
        self._deadline = _Deadline()
        self._pool = _pool(route, _Backend(self._deadline))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; return when the headers of its answer have arrived."""
        url = request.url
        at = request.extensions.get("deadline")
        self._deadline.at = at
        try:
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except _FAULTS as e:
            raise _as_httpx(e) from e
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream, self._deadline, at),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def client(route: NetworkRoute) -> httpx.Client:
    """Return a client for this route that follows no redirect and reads no environment."""
    return httpx.Client(transport=Transport(route), trust_env=False, follow_redirects=False)


def _pool(route: NetworkRoute, backend: _Backend) -> httpcore.ConnectionPool:
    common: dict[str, Any] = {
        "ssl_context": route.tls,
        "max_connections": _AT_ONCE,
        "keepalive_expiry": _KEEP_ALIVE_S,
        "network_backend": backend,
    }
    if route.proxy is None:
        return httpcore.ConnectionPool(**common)
    url = httpx.URL(route.proxy.url)
    encrypted, socks = url.scheme == "https", url.scheme.startswith("socks")
    # Both kinds of SOCKS5 are the same here: the proxy resolves names.
    scheme = b"socks5" if socks else url.raw_scheme
    common["proxy_url"] = httpcore.URL(
        scheme=scheme, host=url.raw_host, port=url.port or _PORTS[url.scheme], target=b"/"
    )
    if url.username or url.password:
        common["proxy_auth"] = (url.username.encode(), url.password.encode())
    if socks:
        return httpcore.SOCKSProxy(**common)
    return httpcore.HTTPProxy(**common, proxy_ssl_context=route.tls if encrypted else None)


_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def _as_httpx(error: Exception) -> httpx.TransportError:
    """Return the client's exception of the same name."""
    for kind in type(error).__mro__:
        same = getattr(httpx, kind.__name__, None)
        if isinstance(same, type) and issubclass(same, httpx.TransportError):
            return same(str(error))
    return httpx.TransportError(str(error))
