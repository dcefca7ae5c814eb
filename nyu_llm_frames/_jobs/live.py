"""Live answers: sends requests now, a few at a time, and stores the answers as they come.

Comes in: positions of requests, an open gateway. Goes out: answers in the sidecar. Only requests
that certainly were not answered are retried: 429, 503 and connections that failed. A live request
that ended otherwise may have been paid and is not sent again here.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._shared.progress import Progress, duration
from nyu_llm_frames._stages.answers.answer import Answer, Status
from nyu_llm_frames._stages.answers.classify import no_answer
from nyu_llm_frames._stages.answers.lines import parse_completion
from nyu_llm_frames._stages.answers.row_errors import one_line
from nyu_llm_frames._stages.batches.planning import Ints
from nyu_llm_frames._stages.requests.bodies import Requests
from nyu_llm_frames.errors import AuthenticationError, GatewayError, GatewayUnavailableError

WORKERS = 4
_TRIES = 8
_LONGEST_WAIT_S = 600.0
_STORE_EVERY_S = 1.0
_SLICE_S = 0.5
_NOT_ANSWERED = frozenset({429, 503})


class LiveRequests:
    """Sends requests live and stores their answers.

    Parameters
    ----------
    name : str
        Name under which the answers are stored.
    requests : Requests
    ctx : Context

    Attributes
    ----------
    unstored : dict of int to Answer
        Responses without an answer, by position: shown, and left to the batch.
    """

    def __init__(self, name: str, requests: Requests, ctx: Context) -> None:
        self._name, self._requests, self._ctx = name, requests, ctx
        self._stop = threading.Event()
        self._pace = threading.Lock()
        self._not_before = 0.0
        self._fresh: list[Answer] = []
        self.unstored: dict[int, Answer] = {}

    def send(self, positions: Ints) -> None:
        """Send the requests at these positions.

        Raises
        ------
        ConfigurationError, AuthenticationError, GatewayError
            Earlier answers are stored.
        """
        connection = self._ctx.connect()
        ids = self._requests.ids.take(positions).to_pylist()
        bodies = self._requests.bodies(positions).to_pylist()
        stored_at = self._ctx.clock.monotonic()
        done = 0
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="nyu-llm-trial")
        try:
            open_ = {
                pool.submit(self._keep, connection, place, custom_id, body.encode("ascii"))
                for place, custom_id, body in zip(positions.tolist(), ids, bodies, strict=True)
            }
            while open_:
                finished, open_ = wait(open_, timeout=_SLICE_S, return_when=FIRST_COMPLETED)
                done += len(finished)
                self._tell(done, len(positions))
                for future in finished:
                    future.result()
                now = self._ctx.clock.monotonic()
                if now - stored_at >= _STORE_EVERY_S:
                    self._store()
                    stored_at = now
        except BaseException:
            # Requests under way are paid: wait for them, so that their answers are not lost.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._store()
            self._ctx.close()

    def _keep(self, connection: Connection, place: int, custom_id: str, body: bytes) -> None:
        """Send, and keep the answer in the same thread: an interrupt cannot lose it."""
        answer, answered = self._one(connection, custom_id, body)
        if answered:
            self._fresh.append(answer)
        else:
            self.unstored[place] = answer

    def _store(self) -> None:
        """Store new answers in the sidecar, all in one file."""
        if not self._fresh:
            return
        writer = self._ctx.sidecar.answer_writer(self._name)
        try:
            fresh = self._fresh[:]  # others append meanwhile
            writer.write(fresh)
            with self._ctx.locked():
                writer.commit()
            del self._fresh[: len(fresh)]
        finally:
            writer.discard()

    def _tell(self, done: int, total: int) -> None:
        left = self._not_before - self._ctx.clock.monotonic()
        text = f"trial: {done:,} of {total:,} answered"
        if left > 0 and done < total:
            text += f" · the gateway asks to wait {duration(left)}"
        self._ctx.report(Progress("asking", text, requests=total, answered=done))

    # --- in a thread ------------------------------------------------------------------------
    def _one(self, connection: Connection, custom_id: str, body: bytes) -> tuple[Answer, bool]:
        """Send one request; return its answer, and whether the model gave it."""
        for attempt in range(_TRIES):
            self._wait()
            try:
                return parse_completion(custom_id, connection.complete(body)), True
            except GatewayUnavailableError as e:
                if e.connected and e.status_code not in _NOT_ANSWERED:
                    return _without(custom_id, "failed", e), False
                pause = e.retry_after_s if e.retry_after_s is not None else 0.5 * 2.0**attempt
                if attempt + 1 == _TRIES or pause > _LONGEST_WAIT_S or self._stop.is_set():
                    raise
                if not e.connected:
                    connection.revive()
                with self._pace:  # when one has to wait, all do
                    until = self._ctx.clock.monotonic() + pause
                    self._not_before = max(self._not_before, until)
            except AuthenticationError:
                raise
            except GatewayError as e:
                if e.status_code == 404:  # wrong model or address: the same for every row
                    raise
                return _without(custom_id, "refused", e), False
        raise AssertionError("the last try returns or raises")

    def _wait(self) -> None:
        while not self._stop.is_set():
            left = self._not_before - self._ctx.clock.monotonic()
            if left <= 0:
                return
            self._ctx.clock.sleep(min(left, _SLICE_S))


def _without(custom_id: str, status: Status, error: GatewayError) -> Answer:
    return no_answer(custom_id, status, one_line(str(error)), b"")
