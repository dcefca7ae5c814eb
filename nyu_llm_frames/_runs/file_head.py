"""The first rows of a file as a frame, and what the whole file would cost.

Comes in: a path and what is asked. Goes out: a frame with the columns that the prompts use, whose
requests are those of `batch_file`; an estimate.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_requests import RequestBands
from nyu_llm_frames._runs.launch import CallExecution, looked_at
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.progress import Progress, Reporter
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._stages.cost.estimate import Estimate
from nyu_llm_frames._tables.csv_text import notes
from nyu_llm_frames._tables.source import open_source


def head(
    path: str | Path, arguments: Arguments, rows: int, *, check_columns: bool = False
) -> pd.DataFrame:
    """Return the first rows, with the columns that the prompts use."""
    source = open_source(path)
    with tempfile.TemporaryDirectory() as folder:
        bands = RequestBands(source, arguments, Path(folder), check_columns=check_columns)
        frames, there, found = [], 0, 0
        for piece in source.pieces(bands.used, index=bands.head.template.uses_index):
            frame = bands.choose(bands.frame(piece, there))
            there += piece.rows
            frames.append(frame)
            found += len(frame)
            if found >= rows:
                break
        _tell_notes(bands)
    return pd.concat(frames).head(rows) if frames else pd.DataFrame(columns=list(source.columns))


def estimate_file(path: str | Path, arguments: Arguments, retries: int = 1) -> Estimate:
    """Estimate a whole file; no network, nothing written that stays."""
    clock = current_clock()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "requests"
        bands = RequestBands(open_source(path), arguments, work, check_columns=False)
        bands.fill()
        _tell_notes(bands)
        path = bands.head.sidecar_path
        bands.sidecar = LargeSidecar(path, clock, create=None)
        ctx = looked_at(bands.head, clock, bands.sidecar)
        return CallExecution(bands.head, ctx, bands, bands.asked, retries=retries).estimate()[0]


def _tell_notes(bands: RequestBands) -> None:
    for note in notes(bands.source, bands.used):
        Reporter(bands.head.options.progress)(Progress("note", note))
