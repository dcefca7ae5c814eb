"""The private folder for data that does not fit into memory, beside the output until the end.

Comes in: the output's path. Goes out: a folder. Files that a dead process left behind are removed,
with its unfinished output.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from nyu_llm_frames._sidecar.storage import draft_path, left_behind


def work_folder(output: Path) -> Path:
    """Name a folder of this process for one output; it is made when it is first used."""
    for old in output.parent.glob(f".{glob.escape(output.name)}.*"):
        if not left_behind(old):
            continue
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    return draft_path(output.with_name(f"{output.name}.work"))
