"""The folder for what does not fit into memory: beside the output, private, gone afterwards.

Comes in: the output's path. Goes out: a folder. What a dead process left behind is removed, its
half-written output, too.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from nyu_llm_frames._sidecar.storage import draft_path, left_behind


def work_folder(output: Path) -> Path:
    """Name a folder of this process for one output; it is made when something goes into it."""
    for old in output.parent.glob(f".{glob.escape(output.name)}.*"):
        if not left_behind(old):
            continue
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    return draft_path(output.with_name(f"{output.name}.work"))
