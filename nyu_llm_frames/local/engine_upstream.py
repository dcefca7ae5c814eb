"""The engine that calls any OpenAI-compatible server: vLLM, Ollama, llama.cpp, a hosted one.

Answers have the upstream's own model name. Temporary failures (429, 408, 5xx, lost connections) are
retried, after a wait as ``Retry-After`` says.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local.rows import Completion, RowError, asked_tokens, completion_from

_SETUP = frozenset({401, 403, 404})  # faults of the upstream, not of the row
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
TRIES = 6
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 60.0
MAX_RETRY_AFTER_S = 600.0
TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class UpstreamEngine:
    """Passes requests on, `slots` at once."""

    model = ""  # the upstream's answers name it
    fragile = False

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        slots: int,
        max_tokens: int,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        parts = urlsplit(url)
        base = url if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
        self.slots = slots
        self._url = f"{base.rstrip('/')}/chat/completions"
        self._max_tokens = max_tokens
        self._first_wait_s = first_wait_s
        self._unreachable = False
        try:
            self._client = httpx.Client(
                headers={"authorization": f"Bearer {key}"} if key else {},
                timeout=TIMEOUT,
                limits=httpx.Limits(max_connections=None),
                # No proxy for this host itself.
                trust_env=not _is_loopback(parts.hostname or ""),
            )
        except Exception as error:  # any wrong network setting of the environment
            reason = f"{type(error).__name__}"
        else:
            return
        names = [name for name in os.environ if name.upper() in _NETWORK]
        raise ConfigurationError(
            f"The upstream {url} cannot be reached with the environment's proxies and "
            f"certificates ({reason}): one of {', '.join(names) or ', '.join(_NETWORK)} is wrong."
        )

    def answer(self, body: Mapping[str, Any], stop: Event) -> Completion:
        """Call the upstream, again where that may help."""
        passed = {k: v for k, v in body.items() if v is not None and k != "stream"}
        if asked_tokens(body) is None:
            passed["max_tokens"] = self._max_tokens
        # ASCII escapes: a lone surrogate has no UTF-8, but it has an escape.
        content = json.dumps(passed).encode("ascii")
        wait_s = self._first_wait_s
        for attempt in range(1, TRIES + 1):
            pause: float | None = None
            try:
                response = self._client.post(
                    self._url, content=content, headers={"content-type": "application/json"}
                )
            except httpx.TransportError as error:
                failure = RowError(503, f"the upstream {self._url} cannot be reached: {error!r}")
                # Known to be unreachable: one try a row, so that a long job does not wait for each.
                if self._unreachable:
                    raise failure from error
                if attempt == TRIES:
                    self._unreachable = isinstance(error, httpx.ConnectError)
            else:
                self._unreachable = False
                if response.status_code == 200:
                    return _completion(response)
                failure = RowError(response.status_code, _message(response))
                if response.status_code in _SETUP:
                    # Another attempt succeeds once the key is right or the model is there.
                    raise RowError(502, f"the upstream answered {failure.status}: {failure}")
                if response.status_code not in (408, 429) and response.status_code < 500:
                    raise failure
                pause = retry_after(response.headers.get("retry-after"), time.time())
            if attempt == TRIES:
                raise failure
            if pause is None:
                pause = wait_s * random.uniform(0.5, 1.0)
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            if stop.wait(pause):
                raise RowError(503, "given up: the job is to end")
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._client.close()


def _completion(response: httpx.Response) -> Completion:
    try:
        data = response.json()
        return completion_from(data, provider="upstream", model=str(data.get("model") or ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = response.text[:200]
        raise RowError(502, f"the upstream's answer is not a chat completion: {start!r}") from error


def retry_after(value: str | None, now: float) -> float | None:
    """Read ``Retry-After`` in either form; None if it is absent or unreadable.

    Examples
    --------
    >>> retry_after("3", 0)
    3.0
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _message(response: httpx.Response) -> str:
    try:
        data = response.json()
        error = data.get("error", data)
        text = error.get("message") if isinstance(error, dict) else error
        return str(text or response.text)[:1000]
    except (ValueError, AttributeError):
        return response.text[:1000] or f"the upstream answered {response.status_code}"


def _is_loopback(host: str) -> bool:
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified  # 0.0.0.0, as servers print it
