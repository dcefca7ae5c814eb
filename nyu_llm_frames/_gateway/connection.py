"""The calls of the gateway: one HTTP request for each method, and no retries.

Comes in: paths, names, ids. Goes out: raw bytes read by `wire`, or one of our errors. Every
exception of the client and of its decoders ends here, no message has a key, and no call lasts
longer than its caller may wait.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from nyu_llm_frames._gateway.failures import Translated
from nyu_llm_frames._gateway.masking import Mask, Secret, credentials, in_logs
from nyu_llm_frames._gateway.received import (
    ANSWER_BYTES,
    REFUSAL_BYTES,
    SMALL_BYTES,
    check_encoding,
    check_time,
    whole,
)
from nyu_llm_frames._stages.batches import wire as _wire
from nyu_llm_frames.errors import (
    BudgetError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
    RunTimeoutError,
)

if TYPE_CHECKING:
    import httpx

    from nyu_llm_frames._gateway.network import NetworkRoute

ENDPOINT = "/v1/chat/completions"

_NO_FILE = frozenset({"application/json", "text/html"})
_PAGE_PIECES = 4  # enough of a web page to quote

_CONNECT_S, _READ_S, _UPLOAD_S, SUBMIT_S = 15.0, 120.0, 330.0, 330.0
# A call that may not wait still tries once. Its submit has time for an answer, so that it does not
# become uncertain, and its files and outputs have time to arrive, however often it is repeated.
SHORTEST_S, SHORTEST_SUBMIT_S, SHORTEST_UPLOAD_S, SHORTEST_OUTPUT_S = 2.0, 5.0, 5.0, 10.0
_FAST, _SLOW = 1_000_000, 50_000  # bytes a second, by which a file gets more time

_SMALLER = (
    "If it stays like that, make the files smaller: set_options(max_bytes_per_file=...), and make "
    "the same call again."
)
# Too large, or slower than the gateway waits.
_ADDRESS = "the gateway's address (base_url=, PORTKEY_BASE_URL)."
_OF_UPLOADS = {
    **dict.fromkeys((408, 413, 504), _SMALLER),
    404: f"Check the bucket (bucket=, NYU_LLM_BUCKET) and {_ADDRESS}",
}
_OF_ANSWERS = {
    404: f"Check the name of the model and {_ADDRESS}",
    446: "A guardrail of the gateway refused the request or its answer; it may have been paid.",
}
_JSON = {"content-type": "application/json"}


def _of_batch(batch_id: str, rest: str = "") -> str:
    """Return the address of a batch job; the id may come from a user or another sidecar."""
    if not isinstance(batch_id, str) or not _wire.is_plain_id(batch_id):
        raise ConfigurationError(
            f"{batch_id!r} cannot be the id of a batch job: a string of letters, digits and _.-"
        )
    return f"/batches/{batch_id}{rest}"


def _of_file(file_id: str, rest: str = "") -> str:
    encoded = _wire.file_in_address(file_id)
    if encoded is None:
        raise GatewayError(f"{file_id!r} cannot be the id of a stored file.")
    return f"/files/{encoded}{rest}"


def _passwords(url: str) -> list[str]:
    found = urllib.parse.urlsplit(url).password
    return [found] if found else []


class Connection:
    """An open connection to the gateway.

    `secrets` are credentials, which must appear nowhere; `private` values must not appear in any
    message. `client_headers` loads Portkey's client, and returns the headers of calls that send
    something; without it they have the same `headers` as those that only read. There is no `route`
    where the client is a user's own, which is not `owned`: not ours to close. `restart` starts a
    dead embedded server again and returns its base URL.
    """

    def __init__(
        self,
        client: httpx.Client,
        base_url: str,
        headers: Secret[dict[str, str]],
        *,
        secrets: Secret[list[str]],
        private: Secret[list[str]] | None = None,
        route: NetworkRoute | None = None,
        restart: Callable[[], str] | None = None,
        owned: bool = True,
        client_headers: Callable[[], Secret[dict[str, str]]] | None = None,
    ) -> None:
        self._client, self._headers, self._route = client, headers, route
        self._base_url = base_url.rstrip("/")
        proxy = None if route is None else route.proxy
        hidden = Secret([*secrets.value, *credentials(headers.value), *_passwords(base_url)])
        hidden.value.extend([] if proxy is None else proxy.secrets)
        every = Secret([*hidden.value, *([] if private is None else private.value)])
        self._mask, self._data_mask = Mask(every.value), Mask(hidden.value, data=True)
        in_logs.hide(every.value)
        self.stored_refused = False  # set by readers of outputs: it refuses stored files
        self._restart = restart
        self._owned = owned
        self._client_headers = client_headers
        # How many seconds a call may still take; None without a limit.
        self.left_s: Callable[[], float | None] = lambda: None

    def close(self) -> None:
        """Close the client's connections, unless the client is the user's own."""
        if self._owned:
            self._client.close()

    def load_client(self) -> None:
        """Let Portkey's client make the headers from now on: something will be sent."""
        if self._client_headers is not None:
            self._headers, self._client_headers = self._client_headers(), None

    def _translated(self, what: str, ways_out: Mapping[int, str] | None = None) -> Translated:
        """Turn all errors into ours."""
        return Translated(what, self._mask.text(self._base_url), self._mask, ways_out, self._route)

    def _patience_s(self, shortest: float, longest: float) -> float:
        left = self.left_s()
        return longest if left is None else min(max(left, shortest), longest)

    # --- one request ------------------------------------------------------------------------
    def _open(
        self,
        method: str,
        path: str,
        end: float | None,
        stall_s: float,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> AbstractContextManager[httpx.Response]:
        """Send a request that must be over at `end`, without a pause longer than `stall_s`.

        A redirect is not followed: it leads to a login page and would pass the key on.
        """
        import httpx

        if method != "GET":
            self.load_client()
        return self._client.stream(
            method,
            f"{self._base_url}{path}",
            headers={**self._headers.value, "accept-encoding": "gzip, deflate", **(headers or {})},
            follow_redirects=False,
            timeout=httpx.Timeout(stall_s, connect=min(stall_s, _CONNECT_S)),
            extensions={} if end is None else {"deadline": end},
            **body,
        )

    def _small(
        self,
        block: Translated,
        method: str,
        path: str,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        *,
        largest: int = SMALL_BYTES,
        also: int = 200,
        **body: Any,
    ) -> tuple[int, bytes]:
        """Make a call with a small answer within some seconds; return status and answer.

        `also` is another status that is not a refusal here.
        """
        end = time.monotonic() + seconds
        with self._open(method, path, end, seconds, headers, **body) as response:
            status = response.status_code
            if not response.is_success and status != also:
                raise self._refusal(block, response, end)
            return status, self._data_mask.data(whole(response, end, largest))

    def _refusal(
        self, block: Translated, response: httpx.Response, end: float | None
    ) -> LLMFramesError:
        import httpx

        body = Secret(b"")
        with suppress(httpx.HTTPError, httpx.StreamError, ValueError):  # the status is what counts
            body = Secret(whole(response, end, REFUSAL_BYTES, cut=True))
        return block.refusal(response.status_code, body.value, response.headers)

    def _get(self, what: str, path: str) -> bytes:
        """Read a small answer."""
        with self._translated(what) as block:
            return self._small(block, "GET", path, self._patience_s(SHORTEST_S, _READ_S))[1]

    def _stream(self, what: str, path: str, *, stored: bool = False) -> Iterator[bytes]:
        """Read a large answer in pieces; the whole is never in memory.

        An answer that the caller's deadline cuts off must not look like a short one: its rows are
        paid, and would be paid again. A stored file of a type that none has is refused unread.
        """
        left = self.left_s()
        end = None if left is None else time.monotonic() + max(left, SHORTEST_OUTPUT_S)
        try:
            with (
                self._translated(what) as block,
                self._open("GET", path, end, _READ_S) as response,
            ):
                if not response.is_success:
                    raise self._refusal(block, response, end)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if stored and kind in _NO_FILE:
                    # A file of an unreadable type comes whole in one JSON string, a web page as
                    # HTML.
                    raise GatewayError(
                        f"{what}: it came as {kind}.", status_code=response.status_code
                    )
                check_encoding(response)
                pieces = self._data_mask.stream(response.iter_bytes())
                first = next(pieces, b"")
                if first.lstrip().startswith(b"<"):
                    page = b"".join([first, *itertools.islice(pieces, _PAGE_PIECES)])
                    raise block.other_answer("an output", page)
                for piece in itertools.chain([first], pieces):
                    check_time(end)
                    yield piece
                return
        except GatewayUnavailableError as e:
            if end is None or time.monotonic() < end:
                raise
            reason = str(e)
        raise RunTimeoutError(
            f"The timeout expired before an output was read to its end. {reason} Nothing is lost: "
            "the same call reads it again; if it is large, with a longer timeout=."
        )

    def revive(self) -> None:
        """Restart the embedded server if it has died; do nothing for any other gateway."""
        if self._restart is not None:
            self._base_url = self._restart().rstrip("/")

    # --- the calls --------------------------------------------------------------------------
    def upload(self, file: BinaryIO, file_name: str, model: str) -> str:
        """Upload an open file in pieces under a unique name; return the file's id."""
        what, size, left = "Uploading the request file", file.seek(0, os.SEEK_END), self.left_s()
        file.seek(0)
        seconds = _UPLOAD_S + size / _SLOW
        if left is not None:
            seconds = min(max(left, SHORTEST_UPLOAD_S + size / _FAST), seconds)
        named = {"x-portkey-provider-file-name": file_name, "x-portkey-provider-model": model}
        with self._translated(what, _OF_UPLOADS) as block:
            # A path or bytes would sit in memory three times over.
            _, data = self._small(
                block,
                "POST",
                "/files",
                seconds,
                named,
                data={"purpose": "batch"},
                files={"file": ("requests.jsonl", file, "application/octet-stream")},
            )
            file_id = json.loads(data)["id"]
            if not isinstance(file_id, str) or not file_id or not file_id.isprintable():
                raise KeyError("id")
        return file_id

    def create(self, input_file_id: str, model: str) -> _wire.CreateOutcome:
        """Submit once: one call is one POST, whatever happens. Never raises."""
        what = "Submitting the batch job"
        body = {
            "input_file_id": input_file_id,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "model": model,
        }
        try:
            with self._translated(what) as block:
                status, data = self._small(
                    block,
                    "POST",
                    "/batches",
                    self._patience_s(SHORTEST_SUBMIT_S, SUBMIT_S),
                    {**_JSON, "x-portkey-provider-model": model},
                    content=json.dumps(body).encode("ascii"),
                )
        except ConfigurationError as e:  # a wrong proxy or certificate: nothing was sent
            return _wire.Busy(str(e), None)
        except GatewayUnavailableError as e:
            if e.status_code is None:
                return _wire.Uncertain(str(e)) if e.connected else _wire.Busy(str(e), None)
            return _wire.classify_create(e.status_code, b"", str(e), e.retry_after_s)
        except (GatewayError, BudgetError) as e:
            return _wire.classify_create(e.status_code or 0, b"", str(e), None)
        return _wire.classify_create(status, data, what, None)

    def retrieve(self, batch_id: str) -> _wire.Batch:
        """Read the state of a job."""
        what = f"Polling batch job {batch_id}"
        data = self._get(what, _of_batch(batch_id))
        batch = _wire.read_batch(data)
        if batch is None:
            raise self._translated(what).other_answer("a batch object", data)
        return batch

    def list(self) -> _wire.JobList:
        """Read the one page of the job list."""
        what = "Reading the list of batch jobs"
        data = self._get(what, "/batches?limit=100")
        jobs = _wire.read_list(data)
        if jobs is None:
            raise self._translated(what).other_answer("a list", data)
        return jobs

    def cancel(self, batch_id: str) -> None:
        """Request the cancellation of a job; poll afterward."""
        path = _of_batch(batch_id, "/cancel")
        seconds = self._patience_s(SHORTEST_S, _READ_S)
        with self._translated(f"Cancelling batch job {batch_id}") as block:
            # 400: it has ended, or was cancelled before.
            self._small(block, "POST", path, seconds, _JSON, content=b"{}", also=400)

    def output(self, batch_id: str) -> Iterator[bytes]:
        """Stream the output lines of a job."""
        return self._stream(f"Reading the output of {batch_id}", _of_batch(batch_id, "/output"))

    def content(self, file_id: str) -> Iterator[bytes]:
        """Stream a stored file, byte for byte (the provider's own rows)."""
        what = "Reading the stored output"
        return self._stream(what, _of_file(file_id, "/content"), stored=True)

    def stored_bytes(self, file_id: str) -> int | None:
        """Return the size of a stored file, or None if it is unknown."""
        try:
            value = _wire.read_json(self._get("Reading the size", _of_file(file_id)))
        except (GatewayUnavailableError, GatewayError):
            return None
        size = value.get("bytes") if isinstance(value, dict) else None
        return size if isinstance(size, int) and not isinstance(size, bool) else None

    def complete(self, body: bytes) -> bytes:
        """Answer one request now, through ``/chat/completions``."""
        with self._translated("Answering a request", _OF_ANSWERS) as block:
            return self._small(
                block,
                "POST",
                "/chat/completions",
                _READ_S,
                _JSON,
                largest=ANSWER_BYTES,
                content=body,
            )[1]
