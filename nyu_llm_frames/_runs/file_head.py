"""The first rows of a file as a frame, and what the whole file would cost.

Comes in: a path and the arguments of a call. Goes out: a frame with the columns that the prompts
use, which makes the same requests as `batch_file`; an estimate.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_requests import RequestBands
from nyu_llm_frames._runs.launch import CallExecution, looked_at
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.reporter import Reporter
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames._tables.source import Paths, open_source
from nyu_llm_frames._tables.table import Piece


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
    """Return a piece as a frame of plain values."""
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
        return CallExecution(bands.head, ctx, bands, bands.asked, retries=retries).estimate()[0]


def _tell_notes(bands: RequestBands) -> None:
    for note in bands.source.notes(bands.used):
        Reporter(bands.head.options.progress)(Progress("note", note))
