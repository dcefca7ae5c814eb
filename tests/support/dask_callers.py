"""What a child process does with a Dask frame: one call, with a place at which it dies.

Comes in: the texts of a frame, a sidecar, a place, and a scheduler's address or none. Goes out: the
answers in the order of the rows, and the effects, printed as JSON.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd

import nyu_llm_frames as llm
import nyu_llm_frames.dask
from support import callers
from support.callers import FAST, MODEL, Effects

PARTITIONS = 5


def warm() -> None:
    """Load what a call needs, in the process that others are forked from."""
    callers.warm()
    frame = dd.from_pandas(pd.DataFrame({"q": ["text"]}), npartitions=1)
    with dask.config.set(scheduler="sync"):
        frame.llm.preview("{{ q }}")
    assert nyu_llm_frames.dask


def call(
    texts: list[str],
    sidecar: str,
    *,
    die_at: int = 0,
    per_file: int = 4,
    address: str = "",
    partitions: int = PARTITIONS,
    options: dict[str, Any] | None = None,
) -> None:
    """Make the call, and print its answers and its effects."""
    effects = Effects(die_at)
    warnings.simplefilter("error")
    frame = dd.from_pandas(pd.DataFrame({"q": texts}), npartitions=partitions)
    with ExitStack() as stack:
        stack.enter_context(
            llm.set_options(**{**FAST, "max_requests_per_file": per_file, **(options or {})})
        )
        if address:
            from distributed import Client

            stack.enter_context(Client(address))
        else:
            stack.enter_context(dask.config.set(scheduler="sync"))
        lazy = frame.llm.batch("{{ q }}", model=MODEL, sidecar=sidecar, details=True)
        out = lazy.compute()
    callers.tell(out, effects)
