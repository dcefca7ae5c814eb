"""Warns at the user's line, however deep in the package.

Comes in: a text. Goes out: a warning that names the first line outside the package.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])


def warn_user(text: str, kind: type[Warning] = UserWarning) -> None:
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, kind, stacklevel=level)
