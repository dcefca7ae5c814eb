"""Points a warning at the user's line, however deep in the package it is raised.

Comes in: the stack. Goes out: the `stacklevel` of `warnings.warn`.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])


def users_level() -> int:
    """Return the `stacklevel` at which a warning names the first line outside the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
