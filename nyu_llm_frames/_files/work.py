"""The folder for what does not fit into memory: beside the output, private, gone afterwards.

Comes in: the output's path. Goes out: a folder. One that a dead process left behind is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from nyu_llm_frames._sidecar.storage import draft_path, left_behind


def work_folder(output: Path) -> Path:
    """Name a folder of this process for one output; it is made when something goes into it."""
    for old in _left(output):
        shutil.rmtree(old, ignore_errors=True)
    return draft_path(output.with_name(f"{output.name}.work"))


def _left(output: Path) -> Iterator[Path]:
    for path in output.parent.glob(f".{output.name}.work.*"):
        if path.is_dir() and left_behind(path):
            yield path
