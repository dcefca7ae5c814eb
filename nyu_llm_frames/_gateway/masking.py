"""Keys out of everything that comes back.

Comes in: the credentials of a connection, and texts, bytes and streams of the gateway. Goes out:
the same without them; a gateway may echo a key in an error page, a job's message or a row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

CREDENTIALS = frozenset({"authorization", "x-portkey-api-key", "x-portkey-virtual-key"})
_SHORTEST = 4
# They log headers at DEBUG, those of an answer too, which may echo what was sent.
_TALKATIVE = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "openai",
    "portkey_ai._vendor.openai._base_client",
    "portkey_ai._vendor.openai._legacy_response",
    "portkey_ai._vendor.openai._response",
)


def credentials(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers that say who asks: whole, and without the word "Bearer"."""
    values = [v for k, v in headers.items() if k.lower() in CREDENTIALS]
    return values + [v.rpartition(" ")[2] for v in values]


class Mask:
    """Hides secrets.

    Parameters
    ----------
    secrets : iterable of str
        Shorter ones than four characters are left: they would be found everywhere.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may hold another.
        found = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._secrets = tuple(s.encode() for s in found)
        self._longest = max(map(len, self._secrets), default=1)

    def text(self, value: str) -> str:
        """Take every secret out of a text."""
        for secret in self._secrets:
            value = value.replace(secret.decode(), "***")
        return value

    def data(self, value: bytes) -> bytes:
        """Take every secret out of bytes, which keep their length."""
        for secret in self._secrets:
            value = value.replace(secret, b"*" * len(secret))
        return value

    def stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Do the same to a stream, also where a secret lies on the border of two chunks."""
        rest = b""
        for chunk in chunks:
            data = self.data(rest + chunk)
            cut = max(len(data) - self._longest + 1, 0)
            rest = data[cut:]
            if cut:
                yield data[:cut]
        if rest:
            yield rest


class _InLogs(logging.Filter):
    """Hides the secrets of all connections in the records of the client's libraries."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: frozenset[str] = frozenset()
        self._mask = Mask(())

    def hide(self, secrets: Iterable[str]) -> None:
        """Hide these too, from now on."""
        self._secrets |= frozenset(secrets)
        self._mask = Mask(self._secrets)
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without a secret."""
        text = record.getMessage()
        hidden = self._mask.text(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True


in_logs = _InLogs()
