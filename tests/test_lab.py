"""A lab in one sidecar: the group goes on with each other's runs, and Portkey shows who asks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pandas as pd
import pytest
from support.stand_in import StandIn

import nyu_llm_frames as llm

MODEL = "gemini-3-flash-preview"
FRAME = pd.DataFrame({"x": list("abcdef")})
FAST = {"poll_interval_s": 0.02, "max_poll_interval_s": 0.05, "submit_settle_s": 0.1}


@pytest.fixture
def modes(stand_in: StandIn, tmp_path: Path) -> dict[str, int]:
    """Modes of all that lay in the sidecar while the gateway was asked."""
    found: dict[str, int] = {}

    def look(*_: object) -> None:
        for path in (tmp_path / "s", *(tmp_path / "s").rglob("*")):
            try:
                found[path.name] = stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue

    stand_in.on_request = look
    return found


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_shared_sidecar_is_the_groups_with_all_that_is_in_it(
    mask: int, stand_in: StandIn, tmp_path: Path, modes: dict[str, int]
) -> None:
    gateway = llm.Gateway(**stand_in.settings)
    before = os.umask(mask)
    try:
        with llm.set_options(**FAST, gateway=gateway, sidecar=tmp_path / "s", progress=False):
            with llm.set_options(shared=True):
                FRAME.llm.trial("Say {{ x }}", model=MODEL, n=2)
            FRAME.llm.batch("Say {{ x }}", model=MODEL)  # a colleague who knows of no option
            with llm.set_options(shared=True):
                llm.open_sidecar(tmp_path / "s").export(tmp_path / "copy")
    finally:
        os.umask(before)
    for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        modes[f"copy/{path.name}"] = stat.S_IMODE(path.stat().st_mode)
    places = {"s", "jobs", "requests", "answers", "runs"}
    folders = {n for n in modes if n.removeprefix("copy/") in places | {"copy"}}
    assert {oct(modes[n]) for n in folders} == {"0o2770"}
    assert {n: oct(m) for n, m in modes.items() if n not in folders and m != 0o660} == {}
    for name in ("lock", "lock.owner", "README.txt"):
        assert name in modes
    assert "you and your group" in (tmp_path / "s" / "README.txt").read_text()


def test_a_private_sidecar_stays_private_whatever_the_option(
    stand_in: StandIn, tmp_path: Path, modes: dict[str, int]
) -> None:
    with llm.set_options(**FAST, gateway=llm.Gateway(**stand_in.settings), progress=False):
        FRAME.llm.batch("Say {{ x }}", model=MODEL, sidecar=tmp_path / "s")
        with llm.set_options(shared=True):
            FRAME.llm.batch("Say it: {{ x }}", model=MODEL, sidecar=tmp_path / "s")
    assert set(modes.values()) == {0o700, 0o600}


def test_every_call_carries_the_metadata_and_no_request_knows_it(
    stand_in: StandIn, tmp_path: Path
) -> None:
    words = {"_user": "jane", "project": "courts"}
    named = llm.Gateway(**stand_in.settings, metadata=words)
    with llm.set_options(**FAST, sidecar=tmp_path / "s", progress=False):
        FRAME.llm.trial("Say {{ x }}", model=MODEL, n=2, gateway=named)
        FRAME.llm.batch("Say {{ x }}", model=MODEL, gateway=named)
        told = [headers.get("x-portkey-metadata") for headers in stand_in.headers]
        assert len({path.partition("?")[0] for _, path in stand_in.log}) > 4
        assert set(told) == {'{"_user": "jane", "project": "courts"}'}
        plain = llm.Gateway(**stand_in.settings)
        assert FRAME.llm.estimate("Say {{ x }}", model=MODEL, gateway=plain).to_pay == 0
        FRAME.llm.batch("Say it: {{ x }}", model=MODEL, gateway=plain)
    assert not any("x-portkey-metadata" in headers for headers in stand_in.headers[len(told) :])
