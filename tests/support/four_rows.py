"""Four rows, and the calls that the tests of a run make with them."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

import nyu_llm_frames as llm
from nyu_llm_frames.errors import (
    PartialResultWarning,
)
from support import rows
from support.stand_in import StandIn, answer

MODEL = "gemini-3-flash-preview"

DF = pd.DataFrame({"x": list("abcd")}, index=["A", "B", "C", "D"])

RIGHT = [answer(f"Say {x}") for x in "abcd"]

FAILING = rows.failed(503, "overloaded")


def ask(frame: pd.DataFrame = DF, **options: Any) -> pd.DataFrame:
    options = {"model": MODEL, "details": True, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartialResultWarning)
        out: pd.DataFrame = frame.llm.batch("Say {{ x }}", **options)
    return out


def submit(frame: pd.DataFrame = DF, **options: Any) -> llm.Run:
    run: llm.Run = frame.llm.submit("Say {{ x }}", **{"model": MODEL, **options})
    return run


def sent(gateway: StandIn) -> list[list[str]]:
    """Return the prompts of every job."""
    return [[rows.last_user_text(body) for _, body in job.requests] for job in gateway.jobs]
