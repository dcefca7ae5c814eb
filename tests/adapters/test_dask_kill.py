"""The coordinator of a Dask frame killed at every effect, then the same call again.

As `test_kill.py`: real processes, the real client, HTTP, SIGKILL. Workers are threads of the
coordinator here, so that the spool's files are among the effects.
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
from support.dask_callers import PARTITIONS
from support.stand_in import Behaviour, StandIn, answer

TEXTS = [f"question {i % 9}" for i in range(12)]
DISTINCT, FILES = 9, 3
EVERY = 2  # of the effects on the disk: test_kill.py has all of those of a frame


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
            "support.dask_callers:call",
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
        sent = Counter(i for job in self.gateway.jobs for i in job.custom_ids)
        assert len(sent) == DISTINCT
        assert set(sent.values()) == {1}
        assert self.gateway.count("create") == len(self.gateway.jobs) == FILES
        assert not (self.folder / "s" / "spool").exists()
        effects: list[str] = out["effects"]
        return effects


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.dask_callers") as zygote:
        yield zygote


def killed_at_post(zygote: Zygote, folder: Path, n: int, side: str) -> None:
    """Kill it when its n-th POST arrives, or when it was handled and not answered."""
    stage = Stage(zygote, folder)
    child: list[Child] = []
    born, over = threading.Event(), threading.Event()
    posts: list[int] = []

    def die(number: int, method: str, path: str) -> None:
        if method != "POST":
            return
        posts.append(number)
        if len(posts) == n:
            assert born.wait(30)
            child[0].kill()
            child[0].wait()
            over.set()

    if side == "handled":
        stage.gateway.on_handled = die
    else:
        stage.gateway.on_request = die
    with stage.gateway:
        child.append(stage.start())
        born.set()
        assert child[0].wait() == -9, child[0].said
        assert over.wait(30)
        stage.ends_well(partitions=PARTITIONS - 1)


def killed_before(zygote: Zygote, folder: Path, n: int) -> None:
    stage = Stage(zygote, folder)
    with stage.gateway:
        child = stage.start(die_at=n)
        assert child.wait() == -9, child.said
        stage.ends_well()


def test_no_kill_at_any_record_rename_or_post_pays_twice_or_loses_a_row(
    zygote: Zygote, tmp_path: Path
) -> None:
    stage = Stage(zygote, tmp_path / "undisturbed")
    with stage.gateway:
        effects = stage.ends_well()
        posts = sum(method == "POST" for method, _ in stage.gateway.log)
    assert effects.count("rename") > PARTITIONS + 8 * FILES
    points = [("before", n) for n in range(1, len(effects) + 1, EVERY)]
    points += [(side, n) for side in ("arrived", "handled") for n in range(1, posts + 1)]

    def kill(kind: str, n: int) -> None:
        folder = tmp_path / f"{kind} {n}"
        if kind == "before":
            killed_before(zygote, folder, n)
        else:
            killed_at_post(zygote, folder, n, kind)

    with ThreadPoolExecutor(3) as pool:
        runs = [(f"{kind} {n}", pool.submit(kill, kind, n)) for kind, n in points]
    for name, run in runs:
        error = run.exception()
        assert error is None, f"{name}: {error}"
