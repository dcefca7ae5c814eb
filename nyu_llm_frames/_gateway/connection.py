"""The gateway's calls as effects: one method, one HTTP request, nothing retried here.

Comes in: paths, names, ids. Goes out: raw bytes read by `_wire`, or one of our errors. Every
exception of the client, of httpx and of their decoders ends here, and no key leaves in a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from nyu_llm_frames._gateway import wire as _wire
from nyu_llm_frames.errors import (
    AuthenticationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
)

ENDPOINT = "/v1/chat/completions"

_CONNECT_S, _READ_S, _UPLOAD_S, _SUBMIT_S = 15.0, 120.0, 330.0, 330.0
_RETRIED_STATUS = frozenset({408, 409, 425, 429})


def _excerpt(body: bytes, limit: int = 300) -> str:
    """Shorten a foreign body for a message: the text of an HTML page, the message of JSON."""
    value = _wire.read_json(body)
    if isinstance(value, dict):
        for path in (("error", "message"), ("message",), ("data", "message"), ("error",)):
            found: Any = value
            for key in path:
                found = found.get(key) if isinstance(found, dict) else None
            if isinstance(found, str) and found:
                return found[:limit]
    text = body[:4000].decode("utf-8", "replace")
    text = re.sub(r"<[^>]*>", " ", text) if "<" in text else text
    return " ".join(text.split())[:limit]


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


class Connection:
    """An open way to the gateway, through a `portkey_ai.Portkey` client.

    Parameters
    ----------
    client : portkey_ai.Portkey
    secrets : tuple of str
        Values that must not appear in any message.
    headers : mapping, optional
        Added to every call.
    restart : callable, optional
        Brings a dead embedded server back and returns its base URL.
    """

    def __init__(
        self,
        client: Any,
        *,
        secrets: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        restart: Callable[[], str] | None = None,
    ) -> None:
        # The client retries by itself once, POSTs too: that makes two paid jobs of one submit.
        self._openai = client.openai_client.with_options(max_retries=0)
        self._secrets = tuple(s for s in secrets if len(s) >= 4)
        self._headers = dict(headers or {})
        own = {k: v for k, v in client.allHeaders.items() if isinstance(v, str)}
        self._read_headers = {**own, **self._headers}
        self._base_url = str(client.base_url).rstrip("/")
        self._restart = restart

    # --- what happens to exceptions ---------------------------------------------------------
    def clean(self, text: str) -> str:
        """Take every secret out of a text."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _error(
        self, what: str, status: int, body: bytes, headers: Mapping[str, str]
    ) -> GatewayError:
        """Make our error of an HTTP status."""
        said = self.clean(_excerpt(body))
        text = f"{what}: the gateway answered {status}" + (f": {said}" if said else "")
        shown = self.clean(body[:1000].decode("utf-8", "replace"))
        if status in (401, 403):
            return AuthenticationError(
                f"{text}. Check PORTKEY_API_KEY, the provider and the bucket; jobs that were "
                "submitted go on, and the same call picks them up.",
                status_code=status,
                body=shown,
            )
        if status >= 500 or status in _RETRIED_STATUS:
            error = GatewayUnavailableError(text + ".", status_code=status, body=shown)
            error.retry_after_s = _retry_after(headers)
            return error
        return GatewayError(text + ".", status_code=status, body=shown)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Let only our errors out."""
        import httpx
        from portkey_ai._vendor import openai

        try:
            yield
        except LLMFramesError:
            raise  # some of ours are OSErrors too
        except openai.APIStatusError as e:
            body = e.response.content if e.response.is_closed else e.response.read()
            raise self._error(what, e.status_code, body, e.response.headers) from None
        except (openai.APIConnectionError, httpx.HTTPError, httpx.StreamError, OSError) as e:
            cause = e.__cause__ or e
            error = GatewayUnavailableError(
                f"{what}: no answer from {self._base_url} "
                f"({type(cause).__name__}: {self.clean(str(cause))[:200]})."
            )
            error.connected = not isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
            raise error from None
        except (ValueError, TypeError, AttributeError, KeyError, openai.OpenAIError) as e:
            raise GatewayUnavailableError(
                f"{what}: {self._base_url} gave an answer that is none of a gateway "
                f"({type(e).__name__}). Is this the right base URL?"
            ) from None

    def _get(self, what: str, path: str) -> bytes:
        """Read a small answer."""
        import httpx

        with self._translated(what):
            response = self._openai._client.get(
                f"{self._base_url}{path}",
                headers=self._read_headers,
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            )
            if response.status_code != 200:
                raise self._error(what, response.status_code, response.content, response.headers)
            return bytes(response.content)

    def _stream(self, what: str, path: str) -> Iterator[bytes]:
        """Read a large answer in pieces; the whole is never in memory."""
        import httpx

        with (
            self._translated(what),
            self._openai._client.stream(
                "GET",
                f"{self._base_url}{path}",
                headers=self._read_headers,
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            ) as response,
        ):
            if response.status_code != 200:
                raise self._error(what, response.status_code, response.read(), response.headers)
            yield from response.iter_bytes()

    def revive(self) -> None:
        """Start the embedded server again when it has died; nothing for any other gateway."""
        if self._restart is not None:
            base_url = self._restart().rstrip("/")
            if base_url != self._base_url:
                self._base_url = base_url
                self._openai = self._openai.with_options(base_url=base_url)

    # --- the calls --------------------------------------------------------------------------
    def upload(self, path: Path, file_name: str, model: str) -> str:
        """Upload a request file under a name of its own; return the file's id."""
        import httpx

        what = "Uploading the request file"
        with self._translated(what), path.open("rb") as file:
            # An open file is streamed; a path or bytes would sit in memory three times over.
            response = self._openai.with_raw_response.files.create(
                file=file,
                purpose="batch",
                extra_headers={
                    **self._headers,
                    "x-portkey-provider-file-name": file_name,
                    "x-portkey-provider-model": model,
                },
                timeout=httpx.Timeout(_UPLOAD_S, connect=_CONNECT_S),
            )
            value = json.loads(response.text)
            file_id = value["id"]
            if not isinstance(file_id, str) or not file_id:
                raise KeyError("id")
        return file_id

    def create(self, input_file_id: str, model: str) -> _wire.CreateOutcome:
        """Submit once: one call is one POST, whatever happens. Never raises."""
        import httpx

        what = "Submitting the batch job"
        try:
            with self._translated(what):
                response = self._openai.with_raw_response.batches.create(
                    input_file_id=input_file_id,
                    endpoint=ENDPOINT,
                    completion_window="24h",
                    extra_body={"model": model},
                    extra_headers={**self._headers, "x-portkey-provider-model": model},
                    timeout=httpx.Timeout(_SUBMIT_S, connect=_CONNECT_S),
                )
                status, body = response.status_code, response.content
        except GatewayUnavailableError as e:
            if e.status_code is None:
                return _wire.Uncertain(str(e)) if e.connected else _wire.Busy(str(e), None)
            return _wire.classify_create(e.status_code, b"", str(e), e.retry_after_s)
        except GatewayError as e:
            return _wire.classify_create(e.status_code or 0, b"", str(e), None)
        return _wire.classify_create(status, body, what, None)

    def retrieve(self, batch_id: str) -> _wire.Batch:
        """Read the state of a job."""
        what = f"Polling batch job {batch_id}"
        batch = _wire.read_batch(self._get(what, f"/batches/{batch_id}"))
        if batch is None:
            raise GatewayUnavailableError(f"{what}: what came back is no batch object.")
        return batch

    def list(self) -> _wire.JobList:
        """Read the one page of the job list."""
        what = "Reading the list of batch jobs"
        jobs = _wire.read_list(self._get(what, "/batches?limit=100"))
        if jobs is None:
            raise GatewayUnavailableError(f"{what}: what came back is no list.")
        return jobs

    def cancel(self, batch_id: str) -> None:
        """Ask for a job to be cancelled; poll afterwards."""
        import httpx

        what = f"Cancelling batch job {batch_id}"
        with self._translated(what):
            response = self._openai._client.post(
                f"{self._base_url}/batches/{batch_id}/cancel",
                headers={**self._read_headers, "content-type": "application/json"},
                content=b"{}",
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            )
            if response.status_code not in (200, 400):  # 400: ended, or cancelled before
                raise self._error(what, response.status_code, response.content, response.headers)

    def output(self, batch_id: str) -> Iterator[bytes]:
        """Stream the output lines of a job."""
        return self._stream(f"Reading the output of {batch_id}", f"/batches/{batch_id}/output")

    def content(self, file_id: str) -> Iterator[bytes]:
        """Stream a stored file, byte for byte (the provider's own rows)."""
        return self._stream("Reading the stored output", f"/files/{file_id}/content")

    def stored_bytes(self, file_id: str) -> int | None:
        """Return the size of a stored file, or None where it is not told."""
        try:
            value = _wire.read_json(self._get("Reading the size", f"/files/{file_id}"))
        except (GatewayUnavailableError, GatewayError):
            return None
        size = value.get("bytes") if isinstance(value, dict) else None
        return size if isinstance(size, int) and not isinstance(size, bool) else None

    def complete(self, body: bytes) -> bytes:
        """Answer one request now, through ``/chat/completions``."""
        import httpx

        what = "Answering a request"
        with self._translated(what):
            response = self._openai._client.post(
                f"{self._base_url}/chat/completions",
                headers={**self._read_headers, "content-type": "application/json"},
                content=body,
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            )
            if response.status_code != 200:
                raise self._error(what, response.status_code, response.content, response.headers)
            return bytes(response.content)
