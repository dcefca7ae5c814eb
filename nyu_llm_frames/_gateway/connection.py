"""The gateway's calls as effects: one method, one HTTP request, nothing retried here.

Comes in: paths, names, ids. Goes out: raw bytes read by `wire`, or one of our errors. Every
exception of the client, of httpx and of their decoders ends here, and no key leaves in a message.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nyu_llm_frames._gateway import wire as _wire
from nyu_llm_frames._gateway.failures import Translated
from nyu_llm_frames._gateway.masking import Mask, credentials, in_logs
from nyu_llm_frames.errors import GatewayError, GatewayUnavailableError

ENDPOINT = "/v1/chat/completions"

_NO_FILE = frozenset({"application/json", "text/html"})

_CONNECT_S, _READ_S, _UPLOAD_S, _SUBMIT_S = 15.0, 120.0, 330.0, 330.0
_SHORTEST_S = 2.0  # also a call that may not wait asks once
_SHORTEST_UPLOAD_S = 60.0  # a call that is made again and again must get its file there at last

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
_OF_ANSWERS = {404: f"Check the name of the model and {_ADDRESS}"}


def _patience_s(within_s: float | None, shortest: float, longest: float) -> float:
    return longest if within_s is None else min(max(within_s, shortest), longest)


def _passwords(url: str) -> list[str]:
    found = urllib.parse.urlsplit(url).password
    return [found] if found else []


class Connection:
    """An open way to the gateway, through a `portkey_ai.Portkey` client.

    Parameters
    ----------
    client : portkey_ai.Portkey
    secrets : tuple of str
        Credentials: they must appear nowhere.
    private : tuple of str
        What else must not appear in any message.
    headers : mapping, optional
        Added to every call.
    restart : callable, optional
        Brings a dead embedded server back and returns its base URL.
    owned : bool, default True
        Whether the client is ours to close.

    Attributes
    ----------
    stored_refused : bool
        Set by who reads outputs: stored files are not to be had through this connection.
    """

    def __init__(
        self,
        client: Any,
        *,
        secrets: tuple[str, ...] = (),
        private: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        restart: Callable[[], str] | None = None,
        owned: bool = True,
    ) -> None:
        # The client retries by itself once, POSTs too: that makes two paid jobs of one submit.
        self._openai = client.openai_client.with_options(max_retries=0)
        self.stored_refused = False
        self._headers = dict(headers or {})
        own = {k: v for k, v in client.allHeaders.items() if isinstance(v, str)}
        hidden = [*secrets, *credentials(own), *_passwords(str(client.base_url))]
        self._mask, self._data_mask = Mask([*hidden, *private]), Mask(hidden, data=True)
        in_logs.hide([*hidden, *private])
        self._read_headers = {**own, **self._headers}
        self._base_url = str(client.base_url).rstrip("/")
        self._restart = restart
        self._owned = client if owned else None
        if owned:
            # A redirect leads to a login page, and takes the key along; a submit that was
            # redirected may have made a job.
            self._openai._client.follow_redirects = False

    def close(self) -> None:
        """Close the client's two connection pools, unless the client is the user's own."""
        if self._owned is not None:
            self._owned.openai_client.close()
            self._owned.close()

    def clean(self, text: str) -> str:
        """Take every secret out of a text."""
        return self._mask.text(text)

    def _translated(self, what: str, ways_out: Mapping[int, str] | None = None) -> Translated:
        """Let only our errors out."""
        return Translated(what, self._mask.text(self._base_url), self._mask, ways_out)

    def _get(self, what: str, path: str, within_s: float | None = None) -> bytes:
        """Read a small answer."""
        import httpx

        patience = _patience_s(within_s, _SHORTEST_S, _READ_S)
        with self._translated(what) as block:
            response = self._openai._client.get(
                f"{self._base_url}{path}",
                headers=self._read_headers,
                follow_redirects=False,
                timeout=httpx.Timeout(patience, connect=min(patience, _CONNECT_S)),
            )
            if response.status_code != 200:
                raise block.refusal(response.status_code, response.content, response.headers)
            return self._data_mask.data(response.content)

    def _stream(self, what: str, path: str, *, stored: bool = False) -> Iterator[bytes]:
        """Read a large answer in pieces; the whole is never in memory.

        Of a stored file an answer of a type that none has is refused unread.
        """
        import httpx

        with (
            self._translated(what) as block,
            self._openai._client.stream(
                "GET",
                f"{self._base_url}{path}",
                headers=self._read_headers,
                follow_redirects=False,
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            ) as response,
        ):
            if response.status_code != 200:
                raise block.refusal(response.status_code, response.read(), response.headers)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if stored and kind in _NO_FILE:
                # A file of an unlucky type comes whole inside of one JSON string, a page as HTML.
                raise GatewayError(f"{what}: it came as {kind}.", status_code=response.status_code)
            yield from self._data_mask.stream(response.iter_bytes())

    def revive(self) -> None:
        """Start the embedded server again when it has died; nothing for any other gateway."""
        if self._restart is not None:
            base_url = self._restart().rstrip("/")
            if base_url != self._base_url:
                self._base_url = base_url
                self._openai = self._openai.with_options(base_url=base_url)

    # --- the calls --------------------------------------------------------------------------
    def upload(self, path: Path, file_name: str, model: str, within_s: float | None = None) -> str:
        """Upload a request file under a name of its own; return the file's id."""
        import httpx

        patience = _patience_s(within_s, _SHORTEST_UPLOAD_S, _UPLOAD_S)
        what = "Uploading the request file"
        with self._translated(what, _OF_UPLOADS), path.open("rb") as file:
            # An open file is streamed; a path or bytes would sit in memory three times over.
            response = self._openai.with_raw_response.files.create(
                file=file,
                purpose="batch",
                extra_headers={
                    **self._headers,
                    "x-portkey-provider-file-name": file_name,
                    "x-portkey-provider-model": model,
                },
                timeout=httpx.Timeout(patience, connect=_CONNECT_S),
            )
            value = json.loads(response.text)
            file_id = value["id"]
            if not isinstance(file_id, str) or not file_id or not file_id.isprintable():
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
                status, body = response.status_code, self._data_mask.data(response.content)
        except GatewayUnavailableError as e:
            if e.status_code is None:
                return _wire.Uncertain(str(e)) if e.connected else _wire.Busy(str(e), None)
            return _wire.classify_create(e.status_code, b"", str(e), e.retry_after_s)
        except GatewayError as e:
            return _wire.classify_create(e.status_code or 0, b"", str(e), None)
        return _wire.classify_create(status, body, what, None)

    def retrieve(self, batch_id: str, within_s: float | None = None) -> _wire.Batch:
        """Read the state of a job; seconds of patience are optional."""
        what = f"Polling batch job {batch_id}"
        batch = _wire.read_batch(self._get(what, f"/batches/{batch_id}", within_s))
        if batch is None:
            raise GatewayUnavailableError(f"{what}: what came back is no batch object.")
        return batch

    def list(self, within_s: float | None = None) -> _wire.JobList:
        """Read the one page of the job list."""
        what = "Reading the list of batch jobs"
        jobs = _wire.read_list(self._get(what, "/batches?limit=100", within_s))
        if jobs is None:
            raise GatewayUnavailableError(f"{what}: what came back is no list.")
        return jobs

    def cancel(self, batch_id: str) -> None:
        """Ask for a job to be cancelled; poll afterwards."""
        import httpx

        what = f"Cancelling batch job {batch_id}"
        with self._translated(what) as block:
            response = self._openai._client.post(
                f"{self._base_url}/batches/{batch_id}/cancel",
                headers={**self._read_headers, "content-type": "application/json"},
                follow_redirects=False,
                content=b"{}",
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            )
            if response.status_code not in (200, 400):  # 400: ended, or cancelled before
                raise block.refusal(response.status_code, response.content, response.headers)

    def output(self, batch_id: str) -> Iterator[bytes]:
        """Stream the output lines of a job."""
        return self._stream(f"Reading the output of {batch_id}", f"/batches/{batch_id}/output")

    def content(self, file_id: str) -> Iterator[bytes]:
        """Stream a stored file, byte for byte (the provider's own rows)."""
        return self._stream("Reading the stored output", f"/files/{file_id}/content", stored=True)

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
        with self._translated(what, _OF_ANSWERS) as block:
            response = self._openai._client.post(
                f"{self._base_url}/chat/completions",
                headers={**self._read_headers, "content-type": "application/json"},
                follow_redirects=False,
                content=body,
                timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            )
            if response.status_code != 200:
                raise block.refusal(response.status_code, response.content, response.headers)
            return self._data_mask.data(response.content)
