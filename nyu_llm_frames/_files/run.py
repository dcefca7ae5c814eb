"""One run over a file: planned band by band, driven as one, joined range by range.

Comes in: a source and what was asked. Goes out: batch jobs, answers in the sidecar, and the output
file. Planning, driving and reading are the same code as for a frame; only the bands are new.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import pandas as pd

from nyu_llm_frames._asked import Asked
from nyu_llm_frames._call import template_text, versions
from nyu_llm_frames._clock import Clock
from nyu_llm_frames._files import sink
from nyu_llm_frames._files.estimate import total
from nyu_llm_frames._files.join import NewColumns
from nyu_llm_frames._files.requests import Band, RequestBands
from nyu_llm_frames._files.source import Source
from nyu_llm_frames._files.work import work_folder
from nyu_llm_frames._jobs.planner import Counted
from nyu_llm_frames._jobs.runner import Runner
from nyu_llm_frames._money.budget import check_budget
from nyu_llm_frames._progress import Progress, Reporter
from nyu_llm_frames._run import Run
from nyu_llm_frames._sidecar.bands import BandSidecar, WholeSidecar
from nyu_llm_frames._sidecar.folder import RunRecord, new_name
from nyu_llm_frames._stored_run import StoredRun
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    RunTimeoutError,
    UncertainSubmissionError,
)


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
        asked: Asked,
        *,
        retries: int,
        max_cost: float | None,
        clock: Clock,
    ) -> None:
        self.source, self.output, self.asked = source, output, asked
        self._retries, self._max_cost, self._clock = retries, max_cost, clock
        self._folder = work_folder(output)
        self.bands = RequestBands(source, asked, self._folder / "requests")
        self._head = self.bands.head
        self.report = Reporter(self._head.options.progress)
        self.name = new_name(clock.now())
        self.requests = 0

    def __enter__(self) -> FileRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.report.close()
        self.bands.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, UncertainSubmissionError | BatchJobFailedError | RunTimeoutError):
            # Only the sidecar is left to work with; it is enough to resolve, wait and cancel.
            error.run = StoredRun(self.sidecar.path, gateway=self._head.gateway)  # type: ignore[assignment]
        if isinstance(error, KeyboardInterrupt):
            self.report(
                Progress(
                    "interrupted",
                    "interrupted: batch jobs at the gateway go on. Make the same call again to "
                    "pick them up.",
                    requests=self.requests,
                )
            )

    def _tell(self, message: str) -> None:
        self.report(Progress("note", message, requests=self.requests))

    # --- planning ---------------------------------------------------------------------------
    def start(self) -> int:
        """Render, estimate, and plan; return how many requests are under way."""
        self._tell(f"reading {self.source.path}")
        self.bands.fill()
        self.sidecar = WholeSidecar(self._head.sidecar_path, self._clock)
        new = "new sidecar" if self.sidecar.is_new else "sidecar"
        self._tell(f"{new}: {self.sidecar.path}")
        head = self._head
        self._driver = Runner(
            self.name,
            Counted(0, head.requests.shape),
            self.sidecar,
            head.gateway,
            head.options,
            self._clock,
            self.report,
            self._retries,
        )
        estimates = []
        for band in self.bands:
            self.requests += len(band.requests)
            estimates.append(self._part(band)._estimate())
            del band  # before the next one is loaded
        estimate = replace(total(estimates), rows=self.bands.rows)
        self._tell(estimate.line())
        check_budget(estimate, self._max_cost)
        self._driver.requests = Counted(self.requests, head.requests.shape)
        self._driver.ctx.requests = self.requests
        under_way = self.plan()
        if under_way or self.sidecar.is_new:
            self._record()
        return under_way

    def plan(self) -> int:
        """Plan what has to be sent, band by band; return how many requests are under way."""
        under_way = 0
        mine: dict[str, None] = {}
        for band in self.bands:
            runner = self._part(band)._runner
            under_way += runner.plan()
            mine.update(dict.fromkeys(runner.mine))
            del band, runner
        self._driver.mine = list(mine)
        return under_way

    def _part(self, band: Band) -> Run:
        """Return the run of one band: what a frame of its rows would be."""
        call = replace(
            self._head,
            frame=pd.DataFrame(index=pd.Index(band.rows)),
            requests=band.requests,
        )
        sidecar = BandSidecar(self.sidecar, band.low, band.high)
        part = Run(call, self._clock, self._retries, part_of=(self.name, sidecar))
        part._runner.share_with(self._driver)
        return part

    def _record(self) -> None:
        head = self._head
        record = RunRecord(
            name=self.name,
            template=template_text(head.template),
            schema=None,
            params=json.dumps(head.requests.shape.params),
            model=head.asked.model,
            realm=head.gateway.realm,
            gateway=head.gateway.identity,
            output=head.asked.output,
            rows=self.bands.rows,
            requests=self.requests,
            versions=versions(),
            created_at=self._clock.now(),
        )
        with self.sidecar.lock.held():
            self.sidecar.save_run(record)

    # --- going on ---------------------------------------------------------------------------
    def poll(self) -> None:
        """Advance every batch job by one step; never waits."""
        for _ in range(3):
            if not self._driver.advance():
                break
        if self._driver.trouble is not None:
            self._tell(
                f"trouble: {self._driver.trouble} Nothing is lost: make the same call again."
            )
        if not self._driver.active():
            self._driver.raise_failed()

    def wait(self, timeout: float | None) -> None:
        """Wait until every request has an answer, or has been tried often enough."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        while True:
            self._driver.drive(deadline)
            if not self.plan():
                break
        self._driver.raise_failed()

    # --- the end ----------------------------------------------------------------------------
    def write(self) -> FileOutcome:
        """Join answers to rows and write the output file."""
        status = f"{self.asked.output}_status" if self.asked.details else ""
        columns = NewColumns(self._folder / "columns", self.bands.rows, status)
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        try:
            for band in self.bands:
                part = self._part(band)
                outcome = part.outcome()
                columns.add(band.rows, part.joined(outcome))
                found = part.counts(outcome)
                counts.update(found)
                bad = [s for s in found if s not in ("ok", "pending", "skipped")]
                examples = part._examples(outcome, bad) | examples
                del band, part, outcome
            sink.write(self.source, self.output, columns)
        finally:
            columns.close()
        skipped = self.bands.rows - sum(counts.values())
        if skipped:
            counts["skipped"] = skipped
        return FileOutcome(dict(counts), examples)
