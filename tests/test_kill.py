"""SIGKILL at every effect of a run, then the same call again: nothing twice, nothing lost.

Real processes, the real client, HTTP. The effects are counted in an undisturbed run: every request
(killed before it is sent, when it arrives, and when it was handled but not answered) and every
change on the disk (killed before it, which is after the one before). Each gets a run of its own.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.children import Child, Zygote
from support.stand_in import Behaviour, StandIn, answer

TEXTS = [f"question {i}\u2028 \u82b1 \U0001f33c" for i in range(10)]
FILES = 3


@dataclass
class Stage:
    """A gateway with a folder, and the processes that use them."""

    zygote: Zygote
    folder: Path
    gateway: StandIn = field(default_factory=StandIn)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.gateway.behaviour = Behaviour(validating_polls=0, running_polls=0)

    def start(self, **arguments: object) -> Child:
        return self.zygote.run(
            "support.callers:call",
            environment=self.gateway.environment,
            folder=self.folder,
            **{"texts": TEXTS, "sidecar": str(self.folder / "s"), **arguments},
        )

    def ends_well(self, **arguments: object) -> list[str]:
        """Make the call again in a new process, and check everything; return its effects."""
        child = self.start(**arguments)
        code = child.wait()
        assert code == 0, child.said
        out = json.loads(child.said.splitlines()[-1])
        assert out["answers"] == [answer(t) for t in TEXTS]
        assert set(out["status"]) == {"ok"}
        assert len(self.gateway.jobs) == FILES
        sent = Counter(i for job in self.gateway.jobs for i in job.custom_ids)
        assert len(sent) == len(TEXTS)
        assert set(sent.values()) == {1}
        assert self.gateway.count("create") == FILES
        effects: list[str] = out["effects"]
        return effects


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.callers") as zygote:
        yield zygote


def killed_at_request(zygote: Zygote, folder: Path, n: int, side: str) -> None:
    stage = Stage(zygote, folder)
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


def killed_before(zygote: Zygote, folder: Path, n: int) -> None:
    stage = Stage(zygote, folder)
    with stage.gateway:
        child = stage.start(die_at=n)
        assert child.wait() == -9, child.said
        stage.ends_well()


def test_no_kill_at_any_effect_pays_twice_or_loses_a_row(zygote: Zygote, tmp_path: Path) -> None:
    stage = Stage(zygote, tmp_path / "undisturbed")
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
            killed_before(zygote, folder, n)
        else:
            killed_at_request(zygote, folder, n, kind)

    with ThreadPoolExecutor(3) as pool:
        runs = [(f"{kind} {n}", pool.submit(kill, kind, n)) for kind, n in points]
    for name, run in runs:
        error = run.exception()
        assert error is None, f"{name}: {error}"


def test_a_job_that_is_made_after_its_caller_died_is_adopted(
    zygote: Zygote, tmp_path: Path
) -> None:
    stage = Stage(zygote, tmp_path / "late")
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
