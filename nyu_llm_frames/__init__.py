"""One pandas call from a dataframe and a prompt template to a joined column.

Importing registers ``df.llm`` on every `pandas.DataFrame`.

>>> import pandas as pd
>>> import nyu_llm_frames as llm
>>> pd.DataFrame({"x": [1]}).llm.preview("What is {{ x }} + 1?")["messages"].iloc[0]
[{'role': 'user', 'content': 'What is 1 + 1?'}]
"""

import importlib as _importlib
import sys as _sys
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

from nyu_llm_frames import errors

if _TYPE_CHECKING:
    from nyu_llm_frames._api.exchange import read_output
    from nyu_llm_frames._api.files import FileResult, batch_file
    from nyu_llm_frames._api.open_sidecar import open_sidecar
    from nyu_llm_frames._api.register import register
    from nyu_llm_frames._api.run import Run
    from nyu_llm_frames._api.sample import sample
    from nyu_llm_frames._api.verbs import batch, estimate, preview, submit, trial
    from nyu_llm_frames._gateway.gateway import Gateway
    from nyu_llm_frames._shared.options import set_options
    from nyu_llm_frames._shared.progress import Progress
    from nyu_llm_frames._stages.cost.estimate import Estimate

__version__ = "0.1.0"

# Loaded at first use, so that importing the package costs little beyond pandas.
_LATER = {
    "Estimate": "_stages.cost.estimate",
    "FileResult": "_api.files",
    "Gateway": "_gateway.gateway",
    "Progress": "_shared.progress",
    "Run": "_api.run",
    "batch": "_api.verbs",
    "batch_file": "_api.files",
    "estimate": "_api.verbs",
    "open_sidecar": "_api.open_sidecar",
    "preview": "_api.verbs",
    "read_output": "_api.exchange",
    "register": "_api.register",
    "sample": "_api.sample",
    "set_options": "_shared.options",
    "submit": "_api.verbs",
    "trial": "_api.verbs",
}

__all__ = [
    "Estimate",
    "FileResult",
    "Gateway",
    "Progress",
    "Run",
    "batch",
    "batch_file",
    "errors",
    "estimate",
    "open_sidecar",
    "preview",
    "read_output",
    "register",
    "sample",
    "set_options",
    "submit",
    "trial",
]


if not _TYPE_CHECKING:  # else type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _register() -> None:
    from nyu_llm_frames._api.register import claim

    claim("pandas")


# The command's own process runs no user code, so nothing there needs `df.llm`: help and completion
# start without pandas.
_PROGRAM = _Path((getattr(_sys, "argv", None) or [""])[0]).name.removesuffix(".exe")
if _PROGRAM != "nyu-llm-frames":
    _register()
