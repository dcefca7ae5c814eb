"""Tasks on whatever runs Dask: a cluster whose workers may die, or threads of this process.

Comes in: delayed tasks. Goes out: their results, errors in their place, or a `WorkersLostError`
where Dask itself would wait without a word. No worker is needed while batch jobs run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask

from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import duration
from nyu_llm_frames.dask.spool_files import read_token, unshared
from nyu_llm_frames.errors import ConfigurationError, PartitionError, WorkersLostError

PATIENCE_S = 600.0
_LOOK_S = 1.0


class Cluster:
    """What computes a frame; for `patience_s` there may be no worker."""

    def __init__(
        self, frame: Any, clock: Clock, patience_s: float | None, tell: Callable[[str], None]
    ) -> None:
        self._clock, self._tell = clock, tell
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        scheduler = dask.base.get_scheduler(collections=[frame])
        owner = getattr(scheduler, "__self__", None)
        self.client = owner if hasattr(owner, "scheduler_info") else None

    def prove(self, folder: Path, token: str) -> None:
        """Let every worker read the coordinator's token.

        Workers that come later read it before they write.
        """
        if self.client is None:
            return
        for worker, found in self.client.run(read_token, folder, on_error="return").items():
            if isinstance(found, ImportError):
                raise ConfigurationError(
                    f"The worker {worker} cannot import what this call needs ({found}): install "
                    'pip install "nyu-llm-frames[dask]" where it runs.'
                ) from None
            if isinstance(found, OSError | TimeoutError):
                continue  # it is dying; who takes its place reads the token itself
            if isinstance(found, Exception):
                raise found
            host, seen = found
            if seen != token:
                raise unshared(folder, host)

    def results(self, tasks: Sequence[Any]) -> list[Any]:
        """Compute all tasks; the first error in their order is raised."""
        if self.client is None:
            return list(dask.compute(*tasks))
        futures = self.client.compute(list(tasks), optimize_graph=False)
        try:
            self._wait(futures)
            found = [self._result(number, future) for number, future in enumerate(futures)]
            killed = [n for n, result in enumerate(found) if isinstance(result, PartitionError)]
            for number in killed if len(killed) > 1 else ():
                # A worker that dies takes the tasks beside it along: each is tried again alone.
                self.client.retry([futures[number]])
                self._wait([futures[number]])
                found[number] = self._result(number, futures[number])
            for result in found:
                if isinstance(result, PartitionError):
                    raise result
            return found
        finally:
            with suppress(Exception):  # of a scheduler that is gone
                self.client.cancel(futures)

    def _wait(self, futures: Sequence[Any]) -> None:
        from distributed import wait

        gone_at: float | None = None
        left = list(futures)
        while left:
            try:
                left = list(wait(left, timeout=_LOOK_S, return_when="FIRST_COMPLETED").not_done)
                gone_at = None
                continue
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                raise self._lost("The Dask scheduler is gone, and its tasks with it") from None
            now = self._clock.monotonic()
            if self._workers():
                gone_at = None
            elif gone_at is None:
                gone_at = now
                self._tell(
                    "there is no Dask worker; waiting for one "
                    f"for at most {duration(self._patience_s)}"
                )
            if gone_at is not None and now - gone_at >= self._patience_s:
                raise self._lost(f"No Dask worker for {duration(self._patience_s)}")

    def _workers(self) -> int:
        try:
            return len(self.client.nthreads())  # type: ignore[union-attr]
        except (OSError, TimeoutError, ValueError):
            raise self._lost("The Dask scheduler is gone") from None

    @staticmethod
    def _lost(what: str) -> WorkersLostError:
        return WorkersLostError(
            f"{what}. Nothing was lost: what was recorded is in the sidecar, and "
            "submitted jobs continue. Start workers and make the same call again."
        )

    def _result(self, number: int, future: Any) -> Any:
        """Return the result of a task, or the error of one that killed its workers."""
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as e:
            return PartitionError(
                f"Partition {number} ended one Dask worker after the other while its prompts were "
                f"rendered (the last one: {getattr(e.last_worker, 'address', 'unknown')}). Nothing "
                "was planned. Is it too large for a worker's memory? Repartition the frame, as "
                'ddf.repartition(partition_size="100MB"), or give the workers more memory.',
                partition=number,
            )
        except asyncio.CancelledError:
            raise self._lost("The Dask scheduler is gone, and its tasks with it") from None
