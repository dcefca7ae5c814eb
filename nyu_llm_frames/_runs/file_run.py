"""One run over a file: planned band by band, driven as one, joined range by range.

Comes in: a source and the arguments of a call. Goes out: batch jobs, answers in the sidecar, and
the output file. Planning, driving and reading are the code that serves a frame.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import pandas as pd

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.driver import Driver
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._jobs.tracker import JobTracker
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.budget import check_budget
from nyu_llm_frames._runs.file_requests import Band, RequestBands
from nyu_llm_frames._runs.launch import planned, sidecar_line
from nyu_llm_frames._runs.next_upload import SharedJobs, next_upload
from nyu_llm_frames._runs.prepare import PreparedCall
from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._shared.clock import Clock
from nyu_llm_frames._shared.progress import Progress, Reporter
from nyu_llm_frames._sidecar.bands import LargeSidecar, SidecarSlice
from nyu_llm_frames._sidecar.folder import new_name
from nyu_llm_frames._sidecar.storage import sidecar_errors
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames._stages.cost.total import total
from nyu_llm_frames._tables import sink
from nyu_llm_frames._tables.csv_text import notes
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.source import PARQUET, Source, fingerprint
from nyu_llm_frames._tables.work import work_folder
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    BudgetError,
    ConfigurationError,
    RunTimeoutError,
    UncertainSubmissionError,
)

_WITH_RUN = BatchJobFailedError, BudgetError, RunTimeoutError, UncertainSubmissionError


@dataclass(slots=True)
class FileOutcome:
    """What became of the rows of a file.

    Attributes
    ----------
    counts : dict of str to int
        Rows per status.
    examples : dict of str to tuple of (str, str)
        For each kind of failure the first row and its reason.
    """

    counts: dict[str, int]
    examples: dict[str, tuple[str, str]]


class FileRun:
    """One call of `batch_file`. A context manager: leaving it removes what lay on disk for it."""

    def __init__(
        self,
        source: Source,
        output: Path,
        arguments: Arguments,
        *,
        retries: int,
        max_cost: float | None,
        clock: Clock,
    ) -> None:
        self.source, self.output, self.arguments = source, output, arguments
        self._retries, self._max_cost, self._clock = retries, max_cost, clock
        self._folder = work_folder(output)
        self.bands = RequestBands(source, arguments, self._folder / "requests")
        self._head = self.bands.head
        self._report = Reporter(self._head.options.progress)
        self._tracker = JobTracker()
        self.name = new_name(clock)
        self.requests = 0
        self.trouble = ""

    def __enter__(self) -> FileRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._report.close()
        self.bands.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, _WITH_RUN):
            error.run = self.stored()

    def stored(self) -> StoredRun:
        """Return what is left to work with: the sidecar. Enough to resolve, wait and cancel."""
        return StoredRun(
            self.sidecar.path,
            gateway=self._head.gateway,
            retries=self._retries,
            max_cost=self._max_cost,
        )

    # --- answering --------------------------------------------------------------------------
    def answer(self, wait: bool, timeout: float | None) -> None:
        """Render, estimate, plan, and wait or take one step."""
        head = self._head
        self._tell(sidecar_line(head.sidecar_path))
        for note in head.schema.notes if head.schema else ():
            self._tell(note)
        self._tell(f"reading {self.source.path}")
        self._read = fingerprint(self.source)
        with sidecar_errors(self._folder):
            self.bands.fill()
        self._check_unchanged()
        is_typed = self.output.suffix.lower() in PARQUET
        for note in notes(self.source, self.source.columns if is_typed else self.bands.used):
            self._tell(note)
        self.sidecar = LargeSidecar(head.sidecar_path, self._clock)
        self._ctx = Context(
            self.sidecar, head.gateway, head.options, self._clock, self._report, requests=0
        )
        driver = Driver(self.name, self._ctx, self._tracker)
        with driver.driving(timeout):
            estimate = self._estimate()
            self._ctx.requests = self.requests = estimate.requests
            under_way = planned(
                self._ctx,
                head,
                self.name,
                self._plan,
                estimate=estimate,
                shared_jobs=self._shared_jobs.estimate(self._ctx),
                max_cost=self._max_cost,
            )
            if not under_way:
                return
            if wait:
                driver.until_over(self._plan_more)
            else:
                driver.step()
                self.trouble = str(driver.trouble or "")
            driver.raise_failed(at_once=not wait)

    def _check_unchanged(self) -> None:
        """Rows are told by their number: in a file that changed they would be others."""
        if fingerprint(self.source) != self._read:
            raise ConfigurationError(
                f"{self.source.path} was changed since it was read, so that its rows may be "
                "others now. Every answer is kept: make the same call again. It reads the file "
                "anew and pays only for rows that are new."
            )

    def _tell(self, message: str) -> None:
        self._report(Progress("note", message))

    def _estimate(self) -> Estimate:
        parts = []
        self._shared_jobs = SharedJobs()
        for band in self.bands:
            call, planner = self._call(band), self._planner(band)
            self._shared_jobs.add(planner)
            parts.append(next_upload(call, planner))
            del band, call, planner  # before the next one is loaded
        return replace(total(parts), rows=self.bands.rows)

    def _plan(self) -> int:
        """Plan what has to be sent, band by band; return how many requests are under way."""
        under_way = 0
        for band in self.bands:
            under_way += self._planner(band).plan()
            del band
        return under_way

    def _plan_more(self) -> int:
        """Plan what another attempt may cure: within the limit, as all that is sent."""
        if self._max_cost is not None:
            check_budget(self._estimate(), self._max_cost, more=True)
        return self._plan()

    def _call(self, band: Band) -> PreparedCall:
        """Return the call of one band: what a frame of its rows would be."""
        frame = pd.DataFrame(index=pd.Index(band.rows))
        return replace(self._head, frame=frame, requests=band.requests)

    def _planner(self, band: Band) -> Planner:
        ctx = replace(self._ctx, sidecar=SidecarSlice(self.sidecar, band.low, band.high))
        return Planner(self.name, band.requests, ctx, self._retries, self._tracker)

    # --- the end ----------------------------------------------------------------------------
    def write(self) -> FileOutcome:
        """Join answers to rows and write the output file."""
        status = f"{self.arguments.output}_status" if self.arguments.details else ""
        columns = NewColumns(self._folder / "columns", self.bands.rows, status)
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        try:
            for band in self.bands:
                part = Collected(self._call(band), self._planner(band))
                outcome = part.outcome()
                columns.add(band.rows, part.joined(outcome))
                counts.update(part.counts(outcome))
                examples = part.examples(outcome) | examples
                del band, part, outcome
            self._check_unchanged()
            sink.write(self.source, self.output, columns, self._check_unchanged)
        finally:
            columns.close()
        skipped = self.bands.rows - sum(counts.values())
        if skipped:
            counts["skipped"] = skipped
        return FileOutcome(dict(counts), examples)
