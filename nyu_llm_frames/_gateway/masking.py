"""Removes keys from everything that comes back.

Comes in: the credentials of a connection, and texts, bytes and streams of the gateway. Goes out:
the same without them; a gateway may echo a key in an error page, a job's message or a row.

Messages lose every value that may be private. Data (ids, counts, answers) lose only credentials
that are too long to occur by chance: a word in an option must not vanish from an answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

CREDENTIALS = frozenset({"authorization", "x-portkey-api-key", "x-portkey-virtual-key"})
# Options of the client that say where, not who.
NO_SECRETS = frozenset({"vertex_project_id", "vertex_region", "request_timeout"})
_SHORTEST = 4
_SHORTEST_IN_DATA = 12  # "none" and "dummy" are also keys, for servers that require any
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|authorization|credential")
# They log headers at DEBUG, also those of responses, which may echo what was sent.
_TALKATIVE = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


@dataclass(frozen=True, slots=True, repr=False)
class Secret(Generic[T]):
    """A value that no repr shows: a traceback may show the variables of every frame in it.

    Read the value only in the expression that passes it on; never bind it to a name.
    """

    value: T


def credentials(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers that identify the caller: whole, and without "Bearer"."""
    values = [v for k, v in headers.items() if k.lower() in CREDENTIALS]
    return values + [v.rpartition(" ")[2] for v in values]


def strings(value: Any) -> list[str]:
    """Return every string in nested options."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [s for v in value.values() for s in strings(v)]
    if isinstance(value, list | tuple):
        return [s for v in value for s in strings(v)]
    return []


def secrets_in(options: Mapping[str, Any]) -> list[str]:
    """Return the strings in nested options that have the name of a credential."""
    found = []
    for name, value in options.items():
        if _SECRET_NAME.search(str(name)):
            found += strings(value)
        elif isinstance(value, Mapping):
            found += secrets_in(value)
        elif isinstance(value, list | tuple):
            found += [s for item in value if isinstance(item, Mapping) for s in secrets_in(item)]
    return found


class Mask:
    """Hides secrets of four characters or more, in `data` of twelve: others are everywhere."""

    def __init__(self, secrets: Iterable[str], *, data: bool = False) -> None:
        shortest = _SHORTEST_IN_DATA if data else _SHORTEST
        known = {form for s in secrets for form in (s, s.strip(), repr(s)[1:-1])}
        # The longest first: one may contain another.
        found = sorted({s for s in known if len(s) >= shortest}, key=len, reverse=True)
        self._secrets = tuple(s.encode("utf-8", "surrogatepass") for s in found)
        self._longest = max(map(len, self._secrets), default=1)

    def text(self, value: str) -> str:
        """Mask every secret in a text."""
        for secret in self._secrets:
            value = value.replace(secret.decode("utf-8", "surrogatepass"), "***")
        return value

    def data(self, value: bytes) -> bytes:
        """Mask every secret in bytes, which keep their length."""
        for secret in self._secrets:
            value = value.replace(secret, b"*" * len(secret))
        return value

    def stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Do the same in a stream, also for a secret across two chunks."""
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
        """Hide these secrets too from now on."""
        self._secrets |= frozenset(secrets)
        self._mask = Mask(self._secrets)
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record on without its secrets."""
        text = record.getMessage()
        hidden = self._mask.text(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True


in_logs = _InLogs()
