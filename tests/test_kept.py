"""What is kept for ever: ids, request lines, and a sidecar with answers of every status.

Comes in: `data/kept`, made by `support/kept.py`. Goes out: the same from today's code, through
public names alone. A change that makes one of these tests fail makes users pay again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from support import kept, rows
from support.clock import FakeClock
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.main import cli

REQUESTS = kept.kept_calls()
FRAMES = json.loads((kept.KEPT / "frames.json").read_text("ascii"))


def test_every_call_is_kept() -> None:
    assert list(REQUESTS) == list(kept.CALLS)
    assert len(REQUESTS) > 40


@pytest.mark.parametrize("name", list(kept.CALLS))
def test_a_call_makes_the_kept_requests(name: str, tmp_path: Path) -> None:
    call = kept.CALLS[name]
    with llm.set_options(progress=False):
        assert call.ids() == REQUESTS[name]["ids"]
        assert call.lines(tmp_path) == REQUESTS[name]["lines"]


def test_todays_answers_make_the_kept_frames(gateway: StandIn, clock: FakeClock) -> None:
    gateway.behaviour.row = rows.pick(kept.STATUSES)
    every = kept.batch_of_every_status(Path("s"))
    gateway.behaviour.row = rows.pick(kept.FITS)
    fields = kept.batch_with_fields(Path("s"))
    assert kept.plain(every) == FRAMES["every status"]
    assert kept.plain(fields) == FRAMES["fields"]
    pd.testing.assert_frame_equal(every[["q", "n_in"]], kept.FRAME)


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    return kept.copy_of_the_kept_sidecar(tmp_path / "kept.llm")


def test_the_kept_sidecar_answers_without_network_or_key(sidecar: Path) -> None:
    with llm.set_options(progress=False):
        every = kept.batch_of_every_status(sidecar)
        assert kept.plain(every) == FRAMES["every status"]
        assert kept.plain(kept.batch_with_fields(sidecar)) == FRAMES["fields"]
        estimate = kept.FRAME.llm.estimate(
            "{{ q }}", model=kept.MODEL, missing="skip", retries=0, sidecar=sidecar
        )
    assert estimate.to_pay == 0


@pytest.mark.filterwarnings("ignore::nyu_llm_frames.errors.PartialResultWarning")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_kept_sidecar_answers_a_file_of_the_same_rows(sidecar: Path, suffix: str) -> None:
    if suffix == ".csv":
        kept.FRAME.to_csv("in.csv")
    else:
        kept.FRAME.to_parquet("in.parquet")
    with llm.set_options(progress=False):
        result = llm.batch_file(
            f"in{suffix}",
            "out.parquet",
            "{{ q }}",
            model=kept.MODEL,
            missing="skip",
            retries=0,
            details=True,
            sidecar=sidecar,
        )
    out = pd.read_parquet("out.parquet")
    expected = FRAMES["every status"]
    for name in ("response", "response_status", "response_custom_id"):
        values = [None if pd.isna(value) else value for value in out[name]]
        assert values == expected[name]["values"], name
    assert sum(result.counts.values()) == len(kept.FRAME)


def test_the_kept_sidecar_is_read_by_its_own_tools(sidecar: Path, tmp_path: Path) -> None:
    opened = llm.open_sidecar(sidecar)
    assert len(opened.jobs()) == len(opened.runs()) == 2
    answers = opened.answers(raw=True)
    copy = opened.export(tmp_path / "copy.llm")
    pd.testing.assert_frame_equal(llm.open_sidecar(copy).answers(raw=True), answers)

    counts, bad = {}, {}
    for path in (sidecar, copy):
        told = CliRunner().invoke(cli, ["status", str(path), "--json"])
        listed = CliRunner().invoke(cli, ["failures", str(path), "--all", "--json"])
        assert told.exit_code == listed.exit_code == exits.NO_GOOD_ANSWER
        counts[path] = json.loads(told.stdout)["counts"]
        bad[path] = {row["custom_id"]: row["status"] for row in json.loads(listed.stdout)}
    assert counts[sidecar] == counts[copy]
    # Which answers fit a schema is known to the call alone.
    expected = {
        custom_id: status
        for frame in FRAMES.values()
        for custom_id, status in zip(
            frame["response_custom_id"]["values"], frame["response_status"]["values"], strict=True
        )
        if status not in ("ok", "skipped", "invalid")
    }
    assert bad[sidecar] == bad[copy] == expected
