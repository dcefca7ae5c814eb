"""Turns failures of the gateway and the network into our errors.

Comes in: HTTP statuses with their bodies, and errors of httpx or a decoder. Goes out: our errors,
without any key, which say where to look: gateway, proxy, certificate, or NYU's VPN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nyu_llm_frames._gateway.masking import Mask
from nyu_llm_frames._shared.options import NYU_BASE_URL, NYU_CONTACT
from nyu_llm_frames._shared.wording import printable, sentence
from nyu_llm_frames._stages.batches import wire as _wire
from nyu_llm_frames.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
)

if TYPE_CHECKING:
    import ssl

    from nyu_llm_frames._gateway.network import NetworkRoute, Proxy

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, AssertionError)
_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_NO_BUDGET = (
    "Portkey reports that the budget is used up. The refused request made nothing; jobs that were "
    "submitted continue. The budgets are in the Model Catalog at app.portkey.ai; for a larger one "
    f"ask the person who runs your workspace, or {NYU_CONTACT}. Then the same call resumes."
)
_PROXY_PASSWORD = 407
_VPN = (
    "NYU's gateway answers only through NYU's VPN: the machine that sends must be on it (a Colab "
    "notebook is not, even if your laptop is)."
)


def _excerpt(body: bytes) -> str:
    """Shorten a response body for a message: the message of JSON, the text of a page or of XML."""
    text = _message(_wire.read_json(body)) or body.decode("utf-8", "replace")
    text = text[:4000].lstrip()
    text = re.sub(r"<[^>]*>", " ", text) if text.startswith("<") else text
    return " ".join(printable(text).split())[:300]


def _message(value: Any) -> str:
    for path in (("error", "message"), ("message",), ("data", "message"), ("error",)):
        found: Any = value
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds (a date means "soon": no clocks are compared)."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, min(float(value), 86_400.0))
    except ValueError:
        pass
    try:
        parsedate_to_datetime(value)
    except ValueError:
        return None
    return 60.0


def _leads_to(headers: Mapping[str, str]) -> str:
    """Say where a redirect leads to, without the private parts of its address."""
    parts = urlsplit(headers.get("location", ""))
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]
    return (
        f"it leads to {printable(where)}. Is the gateway's address right?" if parts.netloc else ""
    )


class Translated:
    """A context manager that turns errors into ours.

    Not a generator: a traceback that shows local variables would show the response and its keys.
    Messages begin with `what` was being done; `ways_out` say how to fix an HTTP status. A user's
    own client has no `route`.
    """

    def __init__(
        self,
        what: str,
        base_url: str,
        mask: Mask,
        ways_out: Mapping[int, str] | None = None,
        route: NetworkRoute | None = None,
    ) -> None:
        self._what, self._base_url, self._mask = what, base_url, mask
        self._ways_out = ways_out or {}
        self._route = route

    @property
    def _proxy(self) -> Proxy | None:
        return None if self._route is None else self._route.proxy

    def __enter__(self) -> Translated:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        ours = self._ours(error)
        # Its frames belong to the client and hold headers: no traceback may lead to them.
        del error, trace
        if ours is not None:
            try:
                raise ours from None
            finally:
                ours.__context__ = None

    def refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> LLMFramesError:
        """Turn an HTTP status into our error."""
        body = self._mask.data(body)  # before it is cut: half a key would not be found
        detail = self._mask.text(_leads_to(headers)) if 300 <= status < 400 else _excerpt(body)
        text = f"{self._what}: the gateway answered {status}" + (f": {detail}" if detail else "")
        if status in self._ways_out:
            text = f"{sentence(text)} {self._ways_out[status]}"
        shown = body[:1000].decode("utf-8", "replace")
        if status == _PROXY_PASSWORD and self._proxy is not None:
            return self._wants_password(self._proxy)
        if status in (401, 403):
            return AuthenticationError(
                f"{sentence(text)} Check PORTKEY_API_KEY, the provider and the bucket; submitted "
                "jobs continue, and the same call picks them up.",
                status_code=status,
                body=shown,
            )
        if status == _wire.BUDGET_USED_UP:
            return BudgetError(f"{sentence(text)} {_NO_BUDGET}", status_code=status)
        # A temporary redirect is mostly a login page. A permanent one: the address is wrong.
        for_a_while = 300 <= status < 400 and status not in (301, 308)
        if status >= 500 or status in _RETRIED_STATUS or for_a_while:
            error = GatewayUnavailableError(sentence(text), status_code=status, body=shown)
            error.retry_after_s = _retry_after(headers)
            return error
        return GatewayError(sentence(text), status_code=status, body=shown)

    def other_answer(self, wanted: str, body: bytes) -> GatewayUnavailableError:
        """Return the error of a response with HTTP 200 that is something else, a login page say."""
        text = f"{self._what}: the response is not {wanted}"
        detail = _excerpt(self._mask.data(body))
        return GatewayUnavailableError(sentence(f"{text}: {detail}" if detail else text))

    def _ours(self, error: BaseException) -> LLMFramesError | None:
        """Turn an error of the client into ours; None if the gateway is not its cause."""
        import httpx

        match error:
            case LLMFramesError():
                return None  # some of our errors are OSErrors too
            case httpx.HTTPError() | httpx.StreamError() | OSError():
                return self._no_answer(error)
            case _ if isinstance(error, (*_UNREADABLE, httpx.InvalidURL)):
                return GatewayUnavailableError(
                    f"{self._what}: {self._base_url} gave an answer that is not a gateway's "
                    f"({type(error).__name__}). Is this the right base URL?"
                )
        return None

    def _no_answer(self, error: Exception) -> LLMFramesError:
        """Say who did not answer, and what to check."""
        import ssl

        import httpx

        detail = printable(self._mask.text(str(error)))[:200]
        tls_error = _tls_error(error)
        if isinstance(tls_error, ssl.SSLCertVerificationError):
            return ConfigurationError(self._about_certificate(tls_error))
        proxy, refused = self._proxy, isinstance(error, httpx.ProxyError)
        unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if proxy is not None and refused and detail.startswith(f"{_PROXY_PASSWORD} "):
            return self._wants_password(proxy)
        reason = f"({type(error).__name__}: {detail})"
        text = f"{self._what}: no answer from {self._base_url} {reason}."
        if proxy is not None and unreachable and tls_error is None:
            text = (
                f"{self._what}: no answer from the proxy {proxy.shown}, which {proxy.variable} "
                f"names {reason}. Is it right, and is it running? NO_PROXY={self._host} bypasses "
                "it."
            )
        elif proxy is not None:
            text += f" The call went through the proxy {proxy.shown} ({proxy.variable})."
            if unreachable and proxy.scheme == "https":
                text += " Most proxies are http://host:port, also for https:// addresses."
        away = unreachable or refused or isinstance(error, httpx.TimeoutException)
        if away and self._host == urlsplit(NYU_BASE_URL).hostname:
            text += f" {_VPN}"
        lost = GatewayUnavailableError(text)
        lost.connected = not (unreachable or refused)
        return lost

    @property
    def _host(self) -> str:
        return urlsplit(self._base_url).hostname or ""

    def _wants_password(self, proxy: Proxy) -> ConfigurationError:
        return ConfigurationError(
            f"{self._what}: the proxy {proxy.shown}, which {proxy.variable} names, asks for a "
            f"user and a password, or refuses those that it got ({_PROXY_PASSWORD}): "
            f"{proxy.variable}=http://user:password@host:port. Special characters are written as "
            "%40 and the like."
        )

    def _about_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        trusted = "" if self._route is None else f" Trusted are the {self._route.certificates}."
        other = "" if self._route is None else self._route.unread
        through = "" if self._proxy is None else f" through the proxy {self._proxy.shown}"
        return (
            f"{self._what}: the certificate of {self._base_url}{through} is not trusted "
            f"({error.verify_message}), so nothing was sent.{trusted} Where a network puts its own "
            "certificates in between, set SSL_CERT_FILE to a PEM file that holds them"
            + (f" ({other} is not read here: is it the one?)" if other else "")
            + ". Submitted jobs continue, and the same call picks them up."
        )


def _causes(error: BaseException | None) -> list[BaseException]:
    out: list[BaseException] = []
    while error is not None and error not in out:
        out.append(error)
        error = error.__cause__ or error.__context__
    return out


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """Find the TLS error that caused an error of httpx."""
    import ssl

    return next((e for e in _causes(error) if isinstance(e, ssl.SSLError)), None)
