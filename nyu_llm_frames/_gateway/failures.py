"""What went wrong at the gateway, as one of our errors.

Comes in: HTTP statuses with their bodies, and whatever the client, httpx or their decoders raise.
Goes out: errors of ours, which hold no key. The client has two families of exceptions of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from nyu_llm_frames._gateway import wire as _wire
from nyu_llm_frames._gateway.masking import Mask
from nyu_llm_frames._options import NYU_CONTACT
from nyu_llm_frames._words import printable, sentence
from nyu_llm_frames.errors import (
    AuthenticationError,
    BudgetError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
)

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, AssertionError)
_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_NO_BUDGET = (
    "That is Portkey's word for a budget that is used up: nothing was made of this call, and what "
    "was submitted before goes on. The budgets are in the Model Catalog at app.portkey.ai; for a "
    f"larger one ask the person who runs your workspace, or {NYU_CONTACT}. Then the same call goes "
    "on from here."
)


def _excerpt(body: bytes, limit: int = 300) -> str:
    """Shorten a foreign body for a message: the text of an HTML page, the message of JSON."""
    value = _wire.read_json(body)
    if isinstance(value, dict):
        for path in (("error", "message"), ("message",), ("data", "message"), ("error",)):
            found: Any = value
            for key in path:
                found = found.get(key) if isinstance(found, dict) else None
            if isinstance(found, str) and found:
                return printable(found[:limit])
    text = body[:4000].decode("utf-8", "replace")
    text = re.sub(r"<[^>]*>", " ", text) if "<" in text else text
    return " ".join(printable(text).split())[:limit]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds (a date is read as "soon": no clocks are compared)."""
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


class Translated:
    """A block whose errors become ours.

    No generator: a traceback that shows local variables would show what came back, key and all.

    Parameters
    ----------
    what : str
        What was being done, as the message begins.
    base_url : str
    mask : Mask
    ways_out : mapping of int to str, optional
        What may help against an HTTP status.
    """

    def __init__(
        self, what: str, base_url: str, mask: Mask, ways_out: Mapping[int, str] | None = None
    ) -> None:
        self._what, self._base_url, self._mask = what, base_url, mask
        self._ways_out = ways_out or {}

    def __enter__(self) -> Translated:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        ours = self._ours(error)
        del error
        if ours is not None:
            raise ours from None

    def refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> LLMFramesError:
        """Make our error of an HTTP status."""
        body = self._mask.data(body)  # before it is cut: half a key is a key's half
        said = _excerpt(body)
        text = f"{self._what}: the gateway answered {status}" + (f": {said}" if said else "")
        if status in self._ways_out:
            text = f"{sentence(text)} {self._ways_out[status]}"
        shown = body[:1000].decode("utf-8", "replace")
        if status in (401, 403):
            return AuthenticationError(
                f"{sentence(text)} Check PORTKEY_API_KEY, the provider and the bucket; jobs that "
                "were submitted go on, and the same call picks them up.",
                status_code=status,
                body=shown,
            )
        if status == _wire.BUDGET_USED_UP:
            return BudgetError(f"{sentence(text)} {_NO_BUDGET}", status_code=status)
        # A redirect leads to somebody else's login page, and mostly for a while.
        if status >= 500 or status in _RETRIED_STATUS or 300 <= status < 400:
            error = GatewayUnavailableError(sentence(text), status_code=status, body=shown)
            error.retry_after_s = _retry_after(headers)
            return error
        return GatewayError(sentence(text), status_code=status, body=shown)

    def _ours(self, error: BaseException) -> LLMFramesError | None:
        """Make our error of the client's; None for what is not the gateway's doing."""
        import httpx
        from portkey_ai._vendor import openai

        match error:
            case LLMFramesError():
                return None  # some of ours are OSErrors too
            case openai.APIStatusError():
                response = error.response
                try:
                    body = response.content if response.is_closed else response.read()
                except (httpx.HTTPError, httpx.StreamError):
                    body = b""
                return self.refusal(error.status_code, body, response.headers)
            case openai.APIConnectionError() | httpx.HTTPError() | httpx.StreamError() | OSError():
                # The client wraps what httpx raises, and httpx what its transport raises.
                wrapped = isinstance(error, openai.APIConnectionError)
                cause = (error.__cause__ if wrapped else None) or error
                lost = GatewayUnavailableError(
                    f"{self._what}: no answer from {self._base_url} "
                    f"({type(cause).__name__}: {printable(self._mask.text(str(cause)))[:200]})."
                )
                nobody = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
                lost.connected = not (nobody and self._went_to_us(cause))
                return lost
            case _ if isinstance(error, (*_UNREADABLE, httpx.InvalidURL, openai.OpenAIError)):
                return GatewayUnavailableError(
                    f"{self._what}: {self._base_url} gave an answer that is none of a gateway "
                    f"({type(error).__name__}). Is this the right base URL?"
                )
        return None

    def _went_to_us(self, error: Any) -> bool:
        """Whether a request that nobody took went to the gateway, and not where it led."""
        try:
            return str(error.request.url).startswith(self._base_url)
        except RuntimeError:  # it does not know its request
            return True
