"""One run over a file: planned band by band, driven as one, joined range by range.

Comes in: a file and the arguments of a call. Goes out: batch jobs, answers in the sidecar, and the
output file; or the first rows as a frame, or an estimate. Planning, driving and reading use the
same code as for a frame.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_requests import RequestBands
from nyu_llm_frames._runs.launch import CallExecution, CallPart, first_lines, looked_at
from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._runs.summary import ending
from nyu_llm_frames._shared.clock import Clock, current_clock
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._sidecar.storage import sidecar_errors
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames._tables import sink
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.source import Paths, Source, fingerprint, open_source
from nyu_llm_frames._tables.spill import work_folder
from nyu_llm_frames._tables.table import Piece
from nyu_llm_frames.errors import ConfigurationError


class FileRun:
    """One call of `batch_file`."""

    def __init__(
        self,
        source: Source,
        output: Path,
        arguments: Arguments,
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
        self.cost: float | None = None

    def close(self) -> None:
        self._report.close()
        self.bands.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def stored(self) -> StoredRun:
        """Return the run on the sidecar alone: enough to resolve, wait and cancel."""
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
        self._report.note(*first_lines(head))
        several = not self.source.path.is_dir() and len(self.source.files) > 1
        more = f" and {len(self.source.files) - 1:,} more" if several else ""
        self._report.note(f"reading {self.source.path}{more}")
        self._read = fingerprint(self.source)
        self.bands.is_typed = sink.joins_types(self.source, self.output)
        with sidecar_errors(self._folder):
            self.bands.fill()
        self._check_unchanged()
        used = self.source.columns if sink.is_typed(self.output) else self.bands.used
        self._report.note(*self.source.notes(used))
        self.sidecar = self.bands.sidecar = LargeSidecar(head.sidecar_path, self._clock)
        ctx = Context(
            self.sidecar, head.gateway, head.options, self._clock, self._report, requests=0
        )
        self.execution = CallExecution(
            head,
            ctx,
            self.bands,
            self.bands.requested,
            retries=self._retries,
            max_cost=self._max_cost,
            carried=self.stored,
        )
        self.execution.answer(wait, timeout)

    def _check_unchanged(self) -> None:
        """Refuse a changed file: rows are known by number, which would now mean other rows."""
        if fingerprint(self.source) != self._read:
            raise ConfigurationError(
                f"{self.source.path} was changed since it was read, so its rows may differ now. "
                "Every answer is kept: make the same call again. It reads the file again and pays "
                "only for new rows."
            )

    # --- the end ----------------------------------------------------------------------------
    def write(self) -> tuple[dict[str, int], dict[str, tuple[str, str]]]:
        """Join answers to rows, write the output file, and set `cost` to that of the answers.

        Returns rows per status; and for each kind of failure the first row and its reason.
        """
        status = f"{self.arguments.output}_status" if self._head.arguments.details else ""
        fills = self._head.fills
        columns = NewColumns(self._folder / "columns", self.bands.rows, status, fills=fills)
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        self.cost = 0.0

        def join(part: CallPart, planner: Planner) -> None:
            found = Collected.now(part.call, planner)
            cost = found.cost
            self.cost = None if self.cost is None or cost is None else self.cost + cost
            rows, joined = part.call.table.numbers(), found.frame
            if fills:
                rows, joined = rows[found.answered], joined.filter(pa.array(found.answered))
            columns.add(rows, joined)
            counts.update(found.counts)
            examples.update(found.examples | examples)

        try:
            for _ in self.execution.of_each(join):
                pass
            self._check_unchanged()
            sink.write(self.source, self.output, columns, self._check_unchanged)
        finally:
            columns.close()
        counts["skipped"] = self.bands.requested - sum(counts.values())
        counts["ok"] += self.bands.rows - self.bands.requested
        counts = +counts
        self._report(Progress("done", ending(counts, self.cost)))
        return dict(counts), examples


# --- without sending --------------------------------------------------------------------------
def head(
    path: Paths,
    arguments: Arguments,
    rows: int,
    *,
    check_columns: bool = False,
    sep: str | None = None,
    sheet: str | int | None = None,
) -> pd.DataFrame:
    """Return the first rows, with the columns that the prompts use."""
    source = open_source(path, sep=sep, sheet=sheet)
    with tempfile.TemporaryDirectory() as folder:
        bands = RequestBands(source, arguments, Path(folder), check_columns=check_columns)
        frames, there, found = [], 0, 0
        for piece in source.pieces(bands.used, index=bands.head.template.uses_index):
            chosen, _ = bands.choose(piece, there)
            frames.append(_frame(chosen, there))
            there += piece.rows
            found += chosen.rows
            if found >= rows:
                break
        _tell_notes(bands)
    return pd.concat(frames).head(rows) if frames else pd.DataFrame(columns=list(source.columns))


def _frame(piece: Piece, first: int) -> pd.DataFrame:
    labels: Any = pd.RangeIndex(first, first + piece.rows)
    if piece.index is not None:
        labels = pd.Index(piece.index, dtype=object, tupleize_cols=False)
    columns = {
        name: pd.Series(values, index=labels, dtype=object) for name, values in piece.values.items()
    }
    return pd.DataFrame(columns, index=labels)


def estimate_file(
    path: Paths,
    arguments: Arguments,
    retries: int = 1,
    *,
    sep: str | None = None,
    sheet: str | int | None = None,
) -> Estimate:
    """Estimate a whole file; no network, no file left behind."""
    clock = current_clock()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "requests"
        source = open_source(path, sep=sep, sheet=sheet)
        bands = RequestBands(source, arguments, work, check_columns=False)
        bands.fill()
        _tell_notes(bands)
        path = bands.head.sidecar_path
        bands.sidecar = LargeSidecar(path, clock, create=None)
        ctx = looked_at(bands.head, clock, bands.sidecar)
        return CallExecution(bands.head, ctx, bands, bands.requested, retries=retries).estimate()[0]


def _tell_notes(bands: RequestBands) -> None:
    Reporter(bands.head.options.progress).note(*bands.source.notes(bands.used))
