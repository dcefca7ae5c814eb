"""What counts for the limit: other attempts, uncertain submits, what is sent along."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pandas as pd
import pytest
from support import rows
from support.clock import FakeClock
from support.four_rows import DF, MODEL, RIGHT, ask, submit
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames.errors import (
    AuthenticationError,
    BudgetError,
)


# --- within the limit -------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["expired", "rows fail"])
def test_max_cost_holds_for_another_attempt_of_what_is_under_way(
    gateway: StandIn, how: str
) -> None:
    if how == "expired":
        gateway.behaviour.terminal = "expired"
    else:
        gateway.behaviour.row = rows.failed(503)
    submit()
    with pytest.raises(BudgetError, match=r"Nothing more was sent; every answer is kept\."):
        ask(max_cost=0.0)
    assert len(gateway.jobs) == 1
    ask(max_cost=0.0, retries=0)
    assert len(gateway.jobs) == 1


def test_max_cost_counts_an_uncertain_submit(gateway: StandIn) -> None:
    gateway.script.add("create", "reset")
    submit()
    with pytest.raises(BudgetError, match=r"Nothing was sent\."):
        ask(max_cost=0.0)
    assert gateway.jobs == []


def planned_elsewhere(gateway: StandIn, frame: pd.DataFrame) -> None:
    """Leave a planned job behind, of a process that nobody here can know to be dead."""
    gateway.script.add("upload", status=503, times=-1)
    submit(frame)
    gateway.script.clear()
    sidecar = Sidecar(Path("llm_sidecar"), SystemClock())
    (job,) = sidecar.jobs().values()
    assert job.step == "planned"
    sidecar.save_job(msgspec.structs.replace(job, owner="node17/boot/7/1"))


def test_max_cost_counts_what_is_sent_along(gateway: StandIn) -> None:
    many = pd.DataFrame({"x": [f"text {i}" for i in range(50)]})
    planned_elsewhere(gateway, many)
    few = many.head(2)
    alone = few.llm.estimate("Say {{ x }}", model=MODEL, max_tokens=100, sidecar="other")
    assert alone.usd_batch is not None
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        with pytest.raises(BudgetError, match="counts 50 requests"):
            ask(few, max_cost=2 * alone.usd_batch.high)
        assert gateway.jobs == []
        ask(few)
    assert any("also sent: 48 requests of an earlier call" in line for line in told)
    assert [len(job.requests) for job in gateway.jobs] == [50]


@pytest.mark.parametrize("how", ["interrupt", "error"])
def test_what_an_interrupted_call_planned_is_not_sent_by_one_that_wants_less(
    gateway: StandIn, clock: FakeClock, how: str
) -> None:
    """The kernel of the interrupted call lives: its notebook is still open."""

    def interrupt(progress: llm.Progress) -> None:
        if progress.phase == "uploading" and how == "interrupt":
            raise KeyboardInterrupt

    if how == "error":
        gateway.script.add("upload", status=401)
    stopped = pytest.raises((KeyboardInterrupt, AuthenticationError))
    with llm.set_options(progress=interrupt), stopped:
        ask()
    # From here on as another process sees it.
    clock.process = "another/b/1/1"
    assert ask(DF.head(1))["response"].tolist() == RIGHT[:1]
    assert [len(job.requests) for job in gateway.jobs] == [1]


def test_what_is_taken_back_does_not_count_for_max_cost(gateway: StandIn) -> None:
    planned_elsewhere(gateway, DF)
    sidecar = Sidecar(Path("llm_sidecar"), SystemClock())
    (job,) = sidecar.jobs().values()
    sidecar.save_job(msgspec.structs.replace(job, owner=""))
    few = DF.head(1)
    alone = few.llm.estimate("Say {{ x }}", model=MODEL, sidecar="other")
    assert alone.usd_batch is not None
    assert ask(few, max_cost=alone.usd_batch.high)["response"].tolist() == RIGHT[:1]
    assert [len(job.requests) for job in gateway.jobs] == [1]
