"""HTTP statuses that only this gateway has, at every call: 412, 246 and 446."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from click.testing import CliRunner
from support.callers import MODEL
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames import Progress
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import BudgetError

TEXTS = [f"question {i}" for i in range(6)]
FRAME = pd.DataFrame({"q": TEXTS})
Call = Literal["list", "upload", "create", "poll", "output", "chat"]


pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    return tmp_path / "s"


def batch(stand_in: StandIn, sidecar: Path, **more: Any) -> pd.DataFrame:
    gateway = llm.Gateway(**stand_in.settings)
    return FRAME.llm.batch("{{ q }}", model=MODEL, sidecar=sidecar, gateway=gateway, **more)


def trial(stand_in: StandIn, sidecar: Path) -> pd.DataFrame:
    gateway = llm.Gateway(**stand_in.settings)
    return FRAME.llm.trial("{{ q }}", n=6, model=MODEL, sidecar=sidecar, gateway=gateway)


# --- 412: the budget is used up --------------------------------------------------------------
@pytest.mark.parametrize("call", ["list", "upload", "create", "poll", "content", "output", "chat"])
def test_a_used_up_budget_ends_the_call_and_the_same_call_goes_on(
    call: Call, stand_in: StandIn, sidecar: Path
) -> None:
    if call == "output":
        stand_in.behaviour.content_fails = -1  # else that is read in its place
    stand_in.script.add(call, status=412, body="json", times=-1)
    with pytest.raises(BudgetError, match="Model Catalog") as e:
        (trial if call == "chat" else batch)(stand_in, sidecar)
    assert "genai-research-support@nyu.edu" in str(e.value)
    assert e.value.status_code == 412
    assert pickle.loads(pickle.dumps(e.value)).status_code == 412
    stand_in.script.clear()
    assert batch(stand_in, sidecar)["response"].tolist() == [answer(t) for t in TEXTS]
    assert len(stand_in.jobs) == 1
    assert stand_in.count("upload") == (2 if call == "upload" else 1)
    assert stand_in.count("create") == (2 if call == "create" else 1)


def test_steps_without_a_budget_upload_once_and_exit_with_7(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    stand_in.script.add("create", status=412, body="json", times=-1)
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    FRAME.to_csv(source, index=False)
    words = ["batch", str(source), "--prompt", "{{ q }}", "--model", MODEL, "--out", str(out)]
    for _ in range(3):
        result = CliRunner().invoke(cli, [*words, "--no-wait"])
        assert result.exit_code == 7, result.output
        assert "Model Catalog" in result.output
    assert (stand_in.count("upload"), stand_in.count("create")) == (1, 3)


def test_what_was_submitted_before_the_budget_was_used_up_is_still_read(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", status=412, body="json", times=-1, after=1)
    with llm.set_options(max_requests_per_file=3):
        for _ in range(2):
            with pytest.raises(BudgetError) as e:
                batch(stand_in, sidecar)
        assert e.value.run is not None
        assert e.value.run.result()["response"].notna().sum() == 3


# --- 246: a success to which a guardrail objected ----------------------------------------------
@pytest.mark.parametrize("call", ["list", "upload", "create", "poll", "content", "output", "chat"])
def test_a_success_with_an_objection_is_read(call: Call, stand_in: StandIn, sidecar: Path) -> None:
    if call == "output":
        stand_in.behaviour.content_fails = -1
    fault = stand_in.script.add(call, "restate", status=246, times=-1)
    out = (trial if call == "chat" else batch)(stand_in, sidecar)
    assert fault.hits
    assert out["response"].tolist() == [answer(t) for t in TEXTS]
    assert len(stand_in.jobs) == (0 if call == "chat" else 1)


def test_stored_files_are_read_with_an_objection(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.behaviour = Behaviour(
        validating_polls=0, running_polls=0, short_reads=99, short="rows"
    )
    for call in ("file", "content"):
        stand_in.script.add(call, "restate", status=246, times=-1)
    assert batch(stand_in, sidecar)["response"].tolist() == [answer(t) for t in TEXTS]
    assert stand_in.count("create") == 1


# --- 446: a guardrail refused, perhaps after the work was done ----------------------------------
def test_a_live_request_that_a_guardrail_refused_may_have_been_paid(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("chat", status=446, body="json", times=-1)
    out = trial(stand_in, sidecar)
    assert out["response_error"].str.contains("guardrail.*may have been paid").all()
    assert stand_in.count("chat") == len(FRAME)


# --- steps --------------------------------------------------------------------------------------
@pytest.mark.parametrize("door", ["batch", "poll", "file", "sidecar"])
def test_every_step_that_leaves_a_submit_unsettled_says_so(
    door: str, stand_in: StandIn, sidecar: Path, tmp_path: Path
) -> None:
    told: list[Progress] = []
    stand_in.script.add("create", status=500)
    gateway = llm.Gateway(**stand_in.settings)
    source = tmp_path / "in.csv"
    FRAME.to_csv(source, index=False)
    with llm.set_options(progress=told.append, submit_settle_s=1000):
        run = FRAME.llm.submit("{{ q }}", model=MODEL, sidecar=sidecar, gateway=gateway)
        for _ in range(3):
            told.clear()
            if door == "batch":
                batch(stand_in, sidecar, wait=False)
            elif door == "poll":
                run.poll()
            elif door == "sidecar":
                StoredRun(sidecar, gateway=gateway).poll()
            else:
                out = tmp_path / "out.csv"
                asked: dict[str, Any] = {"model": MODEL, "sidecar": sidecar, "gateway": gateway}
                llm.batch_file(source, out, "{{ q }}", wait=False, **asked)
            said = [p.message for p in told if "may or may not exist" in p.message]
            assert len(said) == 1, [p.message for p in told]
    assert stand_in.count("create") == 1
