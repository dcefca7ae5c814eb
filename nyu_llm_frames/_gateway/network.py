"""Decides the route of a connection: its proxy, if any, and the certificates it trusts.

Comes in: the gateway's address, the environment and the system's proxy settings. Goes out: a
frozen `NetworkRoute`, or a `ConfigurationError` that names the variable. Nothing else reads these
settings: httpx, whose errors for wrong ones are unclear, is set to ignore them.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import ssl
import urllib.request
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from nyu_llm_frames._gateway.masking import Secret
from nyu_llm_frames.errors import ConfigurationError

_PLAIN, _SOCKS = ("http", "https"), ("socks5", "socks5h")
_SYSTEM = "the proxy setting of this computer"
_PEM = "set it to a file of certificates (-----BEGIN CERTIFICATE-----), or unset it."
# Read by other programs; people set them and expect all of Python to use them.
_UNREAD = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy. It may have a password, so it has no repr."""

    url: str
    variable: str  # where it is set

    @property
    def scheme(self) -> str:
        """The kind of proxy."""
        return self.url.partition("://")[0]

    @property
    def shown(self) -> str:
        """The address without user and password."""
        rest = self.url.partition("://")[2]
        return f"{self.scheme}://{rest.rpartition('@')[2].rstrip('/')}"

    @property
    def secrets(self) -> list[str]:
        """User and password in every form in which they are sent."""
        parts = urlsplit(self.url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not user and not password:
            return []
        both = base64.b64encode(f"{user}:{password}".encode()).decode()
        return [both, password, parts.password or ""]


@dataclass(frozen=True, slots=True)
class NetworkRoute:
    """How one connection is made."""

    proxy: Proxy | None
    tls: ssl.SSLContext | None  # None where nothing on the route is encrypted
    certificates: str  # those that are trusted, in words
    unread: str = ""  # a variable that names certificates for other programs only

    def __str__(self) -> str:
        way = f"through the proxy {self.proxy.shown} ({self.proxy.variable})" if self.proxy else ""
        return f"{way or 'directly, without a proxy'}; {self.certificates}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: it is reached without a proxy."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def route(base_url: str) -> NetworkRoute:
    """Decide how to reach an address; settings that cannot be used are errors."""
    parts = urlsplit(base_url)
    proxy = None if is_loopback(parts.hostname or "") else _proxy_for(parts)
    encrypted = parts.scheme == "https" or (proxy is not None and proxy.scheme == "https")
    tls, certificates = _trusted(encrypted)
    unread = next((name for name in _UNREAD if os.environ.get(name)), "")
    return NetworkRoute(proxy, tls, certificates, unread)


def local_route() -> NetworkRoute:
    """Return the route to the embedded gateway, which needs no settings."""
    return NetworkRoute(None, None, "no certificates are needed")


# --- proxies ------------------------------------------------------------------------------------
def _proxy_for(parts: SplitResult) -> Proxy | None:
    """Return the proxy for an address.

    Every proxy variable must have a proxy's address. One that is not used, because a more specific
    variable comes first, may be of an unsupported kind: all_proxy=socks5://... beside
    https_proxy=http://... is common.
    """
    found = Secret(urllib.request.getproxies())
    if _is_direct(parts, found.value.get("no", "")):
        return None
    proxies = {
        scheme: _checked(Proxy(_url(found.value[scheme]), _variable(scheme)))
        for scheme in ("http", "https", "all")
        if found.value.get(scheme, "").strip()
    }
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is not None and proxy.scheme in _SOCKS and not importlib.util.find_spec("socksio"):
        raise ConfigurationError(
            f"{proxy.variable} names the SOCKS proxy {proxy.shown}, and the package that speaks to "
            f'one is not installed: pip install "httpx[socks]", or unset {proxy.variable}.'
        )
    return proxy


def _is_direct(parts: SplitResult, exceptions: str) -> bool:
    """Whether NO_PROXY, or the system's list, names the host."""
    if "*" in [name.strip() for name in exceptions.split(",")]:
        return True
    host = parts.hostname or ""
    forms = [host, f"[{host}]"] if ":" in host else [host]
    port = f":{parts.port}" if parts.port else ""
    return any(urllib.request.proxy_bypass(f"{form}{port}") for form in forms)


def _variable(scheme: str) -> str:
    """Name the variable of a proxy; the lower-case one comes first."""
    names = [name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name]]
    return min(names, key=lambda name: not name.islower(), default=_SYSTEM)


def _url(value: str) -> str:
    """Normalize a proxy's address; without a scheme it is http."""
    kind, mark, rest = value.strip().partition("://")
    return f"{kind.lower()}://{rest}" if mark else f"http://{kind}"


def _checked(proxy: Proxy) -> Proxy:
    wrong = ""
    if proxy.scheme not in (*_PLAIN, *_SOCKS):
        wrong = f"a proxy can be http://, https:// or socks5://, not {proxy.scheme}://"
    elif not _is_address(proxy):
        wrong = "a proxy's address is http://host:port"
    if wrong:
        raise ConfigurationError(
            f"{proxy.variable} says {proxy.shown!r}: {wrong}. Correct it, or unset it."
        )
    return proxy


def _is_address(proxy: Proxy) -> bool:
    import httpx

    try:
        parts = urlsplit(proxy.url)
        parts.port  # noqa: B018 - raises where it is no number
        return bool(parts.hostname) and proxy.url.isascii() and bool(httpx.URL(proxy.url).host)
    except (ValueError, httpx.InvalidURL):
        return False


# --- certificates -------------------------------------------------------------------------------
def _trusted(encrypted: bool) -> tuple[ssl.SSLContext | None, str]:
    """Load the certificates to trust; a file or folder that is named must be valid in any case."""
    file, folder = (os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if file:
        try:
            with Path(file).open("rb"):
                pass
        except OSError as e:
            problem = f"which cannot be read ({e.strerror})"
        else:
            return _context(file=file), f"certificates of SSL_CERT_FILE={file}"
        raise ConfigurationError(f"SSL_CERT_FILE names {file}, {problem}: {_PEM}")
    if folder:
        if not any(Path(one).is_dir() for one in folder.split(os.pathsep)):
            raise ConfigurationError(
                f"SSL_CERT_DIR names {folder}, which is not a folder: set it to a folder of "
                "certificates (as `openssl rehash` makes them), or unset it."
            )
        return _context(folder=folder), f"certificates of SSL_CERT_DIR={folder}"
    if not encrypted:
        return None, "no certificates are needed"
    return _context(), "certificates of the package certifi"


def _context(*, file: str | None = None, folder: str | None = None) -> ssl.SSLContext:
    import certifi

    default = certifi.where() if file is None and folder is None else None
    try:
        return ssl.create_default_context(cafile=file or default, capath=folder)
    except ssl.SSLError:
        problem = f"{file or default} holds no certificates in PEM form"
        if file is not None:
            problem = f"SSL_CERT_FILE names {file}, which holds no certificates in PEM form: {_PEM}"
    except OSError as e:  # of SSLKEYLOGFILE, which Python reads too
        name = " (SSLKEYLOGFILE)" if os.environ.get("SSLKEYLOGFILE") else ""
        problem = f"{e.filename or 'A file'}{name} cannot be used for encryption: {e.strerror}"
    raise ConfigurationError(problem)
