"""One call over a Dask frame: workers render, this process plans and drives, Dask joins later.

Comes in: a Dask frame and the arguments of a call. Goes out: batch jobs, answers in the sidecar,
and a lazy frame. Planning, driving and reading are the code that serves frames and files; nothing
that pays runs inside a Dask task.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import dask
import pandas as pd

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.launch import CallExecution, first_lines, looked_at
from nyu_llm_frames._runs.prepare import PreparedCall, check_prompts_differ, compile_call
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._runs.summary import ending, failures_text
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._sidecar.folder import SPOOL, new_name
from nyu_llm_frames._sidecar.lock_owner import LockOwner, encoded
from nyu_llm_frames._sidecar.storage import make_folder, sidecar_errors, write_text
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames._tables.frame import PandasTable, missing_in_all
from nyu_llm_frames.dask.cluster import Cluster
from nyu_llm_frames.dask.ended_call import EndedCall, cost_of, end_of
from nyu_llm_frames.dask.lazy_join import StoredAnswersOf, join_answers
from nyu_llm_frames.dask.spool_files import (
    OWNER,
    TOKEN,
    SpooledPartition,
    spool_partition,
)
from nyu_llm_frames.dask.spooled_requests import SpooledParts
from nyu_llm_frames.dask.text_cells import (
    SAMPLED_ROWS,
    check_sampled,
    named_bytes,
    sample,
    suspected_columns,
)
from nyu_llm_frames.dask.worker_call import WorkerCall
from nyu_llm_frames.errors import (
    ConfigurationError,
    PartialResultError,
    PartialResultWarning,
)

_INDEX_NOTE = (
    "`index` is the label that a row has in its partition; where Dask counts each partition from "
    "0, rows of several partitions share labels"
)


class DaskCall:
    """One call of ``ddf.llm``; it ends after `timeout` seconds without a worker.

    With `check_columns` new columns must have a place in the frame.
    """

    def __init__(
        self,
        frame: Any,
        arguments: Arguments,
        clock: Clock,
        *,
        check_columns: bool = True,
        timeout: float | None = None,
    ) -> None:
        self.frame, self._clock = frame, clock
        table = PandasTable(frame._meta.iloc[:0])
        self.head: PreparedCall = compile_call(table, arguments, check_columns=check_columns)
        if self.head.template.has_object:
            raise ConfigurationError(
                "A jinja2.Template object cannot travel to Dask's workers. Give its text: "
                "template=..., or the path of its file."
            )
        self.work = WorkerCall.of(self.head)
        self._report = Reporter(self.head.options.progress)
        self._cluster = Cluster(frame, clock, timeout, self._report.note)
        self._timeout = timeout

    @property
    def used(self) -> list[Any]:
        """The columns that the prompts are made of; rows have to be counted all the same."""
        wanted, names = set(self.head.used), list(self.frame.columns)
        if self.head.fills:  # what says which rows lack a good answer, and whether types fit
            wanted |= set(self._ours)
        return [name for name in names if name in wanted] or names[:1]

    @property
    def _ours(self) -> list[str]:
        """The names of all columns that a call like this one makes."""
        return self.head.new_columns.with_details().names

    def _suspected(self) -> dict[Any, bool]:
        """Note what `index` is here; return the columns whose cells may be others than given."""
        if self.head.template.uses_index:
            self._report.note(_INDEX_NOTE)
        return suspected_columns(self.frame, self.used)

    # --- looking ----------------------------------------------------------------------------
    def first_rows(self, n: int, *, used: bool = False) -> pd.DataFrame:
        """Return n rows of the first partitions."""
        from dask.dataframe.methods import concat

        suspected = self._suspected()
        frame = self.frame[self.used] if used else self.frame
        found: list[pd.DataFrame] = []
        samples = []
        for number in range(frame.npartitions):
            left = n - sum(map(len, found))
            if not left:
                break
            rows_read = max(left, SAMPLED_ROWS) if suspected else left
            # Not `head`, which warns where a partition has fewer rows.
            with named_bytes(self.frame):
                (tasks,) = _by_partition(frame.partitions[number])
                task = dask.delayed(pd.DataFrame.head, pure=True)(tasks, rows_read)
                (head,) = self._cluster.results([task])
            samples.append(sample(head, suspected))
            found.append(head.head(left))
        check_sampled(samples, suspected)
        rows: pd.DataFrame = concat(found) if found else frame._meta.iloc[:0]
        return rows

    def estimate(self, retries: int) -> Estimate:
        """Estimate what the call would pay; what is written for it is gone afterwards."""
        path = self.head.sidecar_path
        with self._spooled() as (folder, partitions):
            sidecar = LargeSidecar(path, self._clock, create=None)
            parts = SpooledParts(self.head, folder, partitions, sidecar)
            ctx = looked_at(self.head, self._clock, sidecar)
            rows = sum(partition.rows for partition in partitions)
            execution = CallExecution(self.head, ctx, parts, rows, retries=retries)
            return execution.estimate()[0]

    # --- answering --------------------------------------------------------------------------
    def submit(self, retries: int, max_cost: float | None) -> None:
        """Render, plan, upload and submit."""
        with self._execution(retries, max_cost) as (execution, _):
            execution.start()

    def batch(self, wait: bool, retries: int, max_cost: float | None, on_error: str) -> Any:
        """Render, plan, wait or take one step, and return the lazy frame."""
        with self._execution(retries, max_cost) as (execution, parts):
            execution.answer(wait, self._timeout)
            ended = end_of(execution, parts)
            if self._report.listens:
                message = ending(ended.counts, cost_of(execution))
                self._report(Progress("done", message))
        return self._with_warnings(ended, on_error)

    def result(self, *, failures: bool = False) -> Any:
        """Return the lazy frame with the answers so far; nothing is sent."""
        return self._lazy(self.now().stored, failures=failures)

    def now(self) -> EndedCall:
        """Look at what is there now."""
        with self._execution(0, None) as (execution, parts):
            return end_of(execution, parts)

    def _with_warnings(self, ended: EndedCall, on_error: str) -> Any:
        frame = self._lazy(ended.stored)
        text = failures_text(
            dict(ended.counts), ended.examples, f"{self.head.arguments.output}_error"
        )
        if text and on_error == "raise":
            raise PartialResultError(
                text, run=self.stored(), frame=frame, counts=dict(ended.counts)
            )
        if text:
            warn_user(text, PartialResultWarning)
        return frame

    def stored(self, retries: int = 1, max_cost: float | None = None) -> StoredRun:
        """Return what is left to work with: the sidecar."""
        path, gateway = self.head.sidecar_path, self.head.gateway
        return StoredRun(path, gateway=gateway, retries=retries, max_cost=max_cost)

    @contextmanager
    def _execution(
        self, retries: int, max_cost: float | None
    ) -> Iterator[tuple[CallExecution, SpooledParts]]:
        head = self.head
        self._report.note(*first_lines(head))
        try:
            sidecar = LargeSidecar(head.sidecar_path, self._clock)
            with self._spooled() as (folder, partitions):
                parts = SpooledParts(head, folder, partitions, sidecar)
                ctx = Context(
                    sidecar, head.gateway, head.options, self._clock, self._report, requests=0
                )
                rows = sum(partition.rows for partition in partitions)
                yield (
                    CallExecution(
                        head,
                        ctx,
                        parts,
                        rows,
                        retries=retries,
                        max_cost=max_cost,
                        carried=lambda: self.stored(retries, max_cost),
                    ),
                    parts,
                )
        finally:
            self._report.close()

    # --- rendering on workers ---------------------------------------------------------------
    @contextmanager
    def _spooled(self) -> Iterator[tuple[Path, list[SpooledPartition]]]:
        """Let workers render all partitions into a folder that is gone afterwards."""
        sidecar = self.head.sidecar_path
        suspected = self._suspected()
        was_there = sidecar.exists()
        parent = sidecar / SPOOL
        folder = parent / f"{new_name(self._clock)}~{quote(self._clock.process, safe='')}"
        with sidecar_errors(sidecar):
            if not was_there:
                make_folder(sidecar)
            make_folder(parent)
            self._remove_left_behind(parent)
            make_folder(folder)
        try:
            token = self._clock.unique()
            write_text(folder / OWNER, encoded(LockOwner.here(self._clock)))
            write_text(folder / TOKEN, token)
            self._cluster.prove(folder, token)
            yield folder, self._rendered(folder, token, suspected)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                parent.rmdir()
                if not was_there:
                    sidecar.rmdir()

    def _rendered(
        self, folder: Path, token: str, suspected: dict[Any, bool]
    ) -> list[SpooledPartition]:
        call = dask.delayed(self.work, pure=True)
        spool = dask.delayed(spool_partition, pure=False)
        with named_bytes(self.frame):
            tasks = _by_partition(self.frame[self.used])
            self._report.note(f"rendering {count(len(tasks), 'partition')}")
            found: list[SpooledPartition] = self._cluster.results(
                [
                    spool(task, number, call, folder, token, list(suspected))
                    for number, task in enumerate(tasks)
                ]
            )
        check_sampled([partition.sampled for partition in found], suspected)
        missing = [partition.missing for partition in found if partition.missing is not None]
        if missing:
            raise missing_in_all(missing, has_object=False)
        rows = sum(partition.rows for partition in found)
        check_prompts_differ(self.head, list(self.frame.columns), rows)
        return found

    def _remove_left_behind(self, parent: Path) -> None:
        """Remove what calls of dead processes left, also on a node that Slurm took away."""
        me = LockOwner.here(self._clock)
        for old in parent.iterdir():
            # In the name: a folder has it from its first moment, and one just made is not removed.
            process = unquote(old.name.partition("~")[2])
            owner = LockOwner.read(old / OWNER) or LockOwner()
            if self._clock.is_dead(process) or owner.has_ended(me, ask=True):
                shutil.rmtree(old, ignore_errors=True)

    def _lazy(self, stored: StoredAnswersOf, *, failures: bool = False) -> Any:
        """Return the frame whose partitions are joined when they are computed."""
        empty = self.frame._meta.iloc[:0]
        meta = join_answers(empty, StoredAnswersOf(), self.work, failures=failures)
        dtypes = None
        if self.head.fills and not failures:
            dtypes = {name: meta.dtypes[name] for name in self._ours if name in meta.columns}
        return self.frame.map_partitions(
            join_answers,
            dask.delayed(stored, pure=True),
            self.work,
            dtypes,
            failures=failures,
            meta=meta,
            enforce_metadata=False,
            align_dataframes=False,
        )


def _by_partition(frame: Any) -> list[Any]:
    """Return one delayed partition after the other, as they are numbered.

    Without the step of Dask's optimizer that joins neighbours where few columns are read: the
    join, later, sees all columns and so the partitions themselves.
    """
    with dask.config.set({"optimization.tune.active": False}):
        delayed: list[Any] = frame.to_delayed()
    return delayed
