"""The one worker of a server, which takes the oldest open job and answers its rows.

Answers are committed in small groups. Stopped at any point, it resumes from the store.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from nyu_llm_frames.local.engine import Engine
from nyu_llm_frames.local.rows import (
    Line,
    RowError,
    bad_line,
    failed_line,
    good_line,
    read_lines,
)
from nyu_llm_frames.local.store import Answer, Job, Status, Store

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 0.05
COMMIT_ROWS = 256
MAX_TRIES = 3
MAX_REPORTED = 100


class Worker:
    """A thread that works through the jobs of a store."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store, self._engine = store, engine
        self._wake, self._stop = threading.Event(), threading.Event()
        self._current: tuple[int, threading.Event] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="batch-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def cancelled(self, number: int) -> None:
        """Report that a job is to end; rows that wait stop waiting."""
        with self._lock:
            if self._current and self._current[0] == number:
                self._current[1].set()
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """End after the rows under way; False if they take longer than `timeout_s`."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            if self._current:
                self._current[1].set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                job = self._store.next_open()
                if job is None:
                    self._wake.wait()
                    continue
                self._run_to_an_end(job)
            except sqlite3.Error:  # for instance a full disk: the job stays open
                log.exception("The store cannot be read or written; trying again")
                self._stop.wait(5)

    def _run_to_an_end(self, job: Job) -> None:
        try:
            self.run_job(job)
        except sqlite3.Error:
            raise
        except Exception as error:
            log.exception("Job %s failed", job.id)
            problem = f"The embedded gateway could not run this job: {error!r}"
            self._end(job.id, "failed", [{"code": 13, "message": problem}])

    def run_job(self, job: Job) -> None:
        halt = threading.Event()
        with self._lock:
            self._current = job.id, halt
        try:
            fresh = self._store.job(job.id)
            if fresh is None or self._stop.is_set():
                return
            if fresh.status == "cancelling":
                self._end(job.id, "cancelled")
                return
            path = self._store.path(job.blob)
            if fresh.status == "validating":
                with path.open("rb") as file:
                    total, good, problems = _check_lines(read_lines(file))
                if not good:
                    self._end(job.id, "failed", _no_good_line(total, problems))
                    return
                self._store.start_job(job.id, total)
                log.info("Job %s: %d rows", job.id, total)
            done = self._store.answered(job.id)
            with path.open("rb") as file:
                todo = (line for line in read_lines(file) if line.number not in done)
                self._answer_all(job.id, todo, halt)
            if self._stop.is_set():
                return
            fresh = self._store.job(job.id)
            cancelled = fresh is not None and fresh.status == "cancelling"
            self._end(job.id, "cancelled" if cancelled else "completed")
        finally:
            with self._lock:
                self._current = None

    def _answer_all(self, job: int, todo: Iterator[Line], halt: threading.Event) -> None:
        """Keep the engine's slots filled, in order; commit what is ready."""
        waiting: set[Future[Answer | None]] = set()
        ready: list[Answer] = []
        last = time.monotonic()
        with ThreadPoolExecutor(self._engine.slots, "row") as pool:
            more = True
            while more or waiting:
                while more and len(waiting) < self._engine.slots and not halt.is_set():
                    line = next(todo, None)
                    if line is None:
                        more = False
                    else:
                        waiting.add(pool.submit(self._answer, job, line, halt))
                if halt.is_set():
                    more = False
                over, waiting = wait(waiting, COMMIT_EVERY_S, FIRST_COMPLETED)
                ready += [answer for future in over if (answer := future.result())]
                now = time.monotonic()
                if ready and (now - last >= COMMIT_EVERY_S or len(ready) >= COMMIT_ROWS):
                    self._store.add_answers(job, ready)
                    ready, last = [], now
            if ready:
                self._store.add_answers(job, ready)

    def _answer(self, job: int, line: Line, halt: threading.Event) -> Answer | None:
        if line.body is None:
            return Answer(line.number, False, bad_line(job, line))
        if halt.is_set():
            return None
        try:
            if self._engine.fragile and self._store.begin_try(job, line.number) >= MAX_TRIES:
                raise RowError(
                    500, f"the server's process ended {MAX_TRIES} times during this request"
                )
            answer = self._engine.answer(line.body, halt)
        except RowError as error:
            if halt.is_set() and error.status >= 500:
                return None  # given up because of the job's end, not because of the row
            return Answer(line.number, False, failed_line(job, line, error))
        except Exception as error:
            log.exception("Job %s, line %d: the engine failed", job, line.number)
            failure = RowError(500, f"the engine failed: {error!r}")
            return Answer(line.number, False, failed_line(job, line, failure))
        return Answer(
            line.number,
            True,
            good_line(job, line, answer, created=int(time.time())),
        )

    def _end(self, job: int, status: Status, errors: list[dict[str, object]] | None = None) -> None:
        text = json.dumps({"object": "list", "data": errors}) if errors else None
        self._store.end_job(job, status, text)
        log.info("Job %s: %s", job, status)


def _check_lines(lines: Iterator[Line]) -> tuple[int, int, list[Line]]:
    total = good = 0
    problems: list[Line] = []
    for line in lines:
        total += 1
        if line.body is not None:
            good += 1
        elif len(problems) < MAX_REPORTED:
            problems.append(line)
    return total, good, problems


def _no_good_line(total: int, problems: list[Line]) -> list[dict[str, object]]:
    if not total:
        return [{"code": 3, "message": "Failed to import data. The input file is empty."}]
    start = f"Failed to import data. None of the {total} lines is a request. "
    return [
        {
            "code": 3,
            "message": f"{start if i == 0 else ''}line {line.number}: {line.problem}",
            "line": line.number,
        }
        for i, line in enumerate(problems)
    ]
