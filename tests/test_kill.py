"""SIGKILL at every effect of a run, then the same call again: nothing twice, nothing lost.

Real processes, the real client, HTTP. The effects are counted in an undisturbed run: every request
(killed before it is sent, when it arrives, and when it was handled but not answered) and every
change on the disk (killed before it, which is after the one before). Each gets a run of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import Child, Zygote
from support.stage import Stage, all_at_points

TEXTS = [f"question {i}\u2028 \u82b1 \U0001f33c" for i in range(10)]
FILES = 3


def stage_in(zygote: Zygote, folder: Path) -> Stage:
    return Stage(zygote, folder, "support.callers:call", TEXTS, FILES)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.callers") as zygote:
        yield zygote


def killed_at_request(zygote: Zygote, folder: Path, n: int, side: str) -> None:
    stage = stage_in(zygote, folder)
    child: list[Child] = []
    born, over = threading.Event(), threading.Event()

    def die(number: int, method: str, path: str) -> None:
        if number == n:
            assert born.wait(30)
            child[0].kill()
            child[0].wait()

    def handled(number: int, method: str, path: str) -> None:
        if side == "handled":
            die(number, method, path)
        if number == n:
            over.set()

    gateway = stage.gateway
    gateway.on_handled = handled
    if side == "arrived":
        gateway.on_request = die
    with gateway:
        child.append(stage.start())
        born.set()
        code = child[0].wait()
        assert code == -9, child[0].said
        assert over.wait(30)
        stage.ends_well()


def test_no_kill_at_any_effect_pays_twice_or_loses_a_row(zygote: Zygote, tmp_path: Path) -> None:
    stage = stage_in(zygote, tmp_path / "undisturbed")
    with stage.gateway:
        effects = stage.ends_well()
        requests = len(stage.gateway.log)
    assert effects.count("request") == requests >= 5 * FILES
    assert effects.count("rename") > 8 * FILES
    points = [("before effect", n) for n in range(1, len(effects) + 1)]
    for side in ("arrived", "handled"):
        points += [(side, n) for n in range(1, requests + 1)]

    def kill(kind: str, n: int) -> None:
        folder = tmp_path / f"{kind} {n}"
        if kind == "before effect":
            stage_in(zygote, folder).killed_before(n)
        else:
            killed_at_request(zygote, folder, n, kind)

    all_at_points(kill, points)


def test_a_job_that_is_made_after_its_caller_died_is_adopted(
    zygote: Zygote, tmp_path: Path
) -> None:
    stage = stage_in(zygote, tmp_path / "late")
    gateway = stage.gateway
    with gateway:
        slow = gateway.script.add("create", "hold", after=1)
        child = stage.start()
        assert slow.arrived.wait(30)
        child.kill()
        assert child.wait() == -9
        before = gateway.count("list")

        def let_go(n: int, method: str, path: str) -> None:
            if gateway.count("list") >= before + 4:  # looked for several times, not there yet
                slow.release()

        gateway.on_request = let_go
        stage.ends_well(options={"submit_settle_s": 30})  # found before, so it is not waited for
        assert slow.done.is_set()
        assert gateway.count("list") >= before + 4
