"""The coordinator of a Dask frame killed at every effect, then the same call again.

As `test_kill.py`: real processes, the real client, HTTP, SIGKILL. Workers are threads of the
coordinator here, so that the spool's files are among the effects.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import Child, Zygote
from support.dask_callers import PARTITIONS
from support.stage import Stage, all_at_points

TEXTS = [f"question {i % 9}" for i in range(12)]
FILES = 3
EVERY = 2  # of the effects on the disk: test_kill.py has all of those of a frame


def stage_in(zygote: Zygote, folder: Path) -> Stage:
    return Stage(zygote, folder, "support.dask_callers:call", TEXTS, FILES)


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.dask_callers") as zygote:
        yield zygote


def killed_at_post(zygote: Zygote, folder: Path, n: int, side: str) -> None:
    """Kill it when its n-th POST arrives, or when it was handled and not answered."""
    stage = stage_in(zygote, folder)
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


def test_no_kill_at_any_record_rename_or_post_pays_twice_or_loses_a_row(
    zygote: Zygote, tmp_path: Path
) -> None:
    stage = stage_in(zygote, tmp_path / "undisturbed")
    with stage.gateway:
        effects = stage.ends_well()
        posts = sum(method == "POST" for method, _ in stage.gateway.log)
    assert effects.count("rename") > PARTITIONS + 8 * FILES
    points = [("before", n) for n in range(1, len(effects) + 1, EVERY)]
    points += [(side, n) for side in ("arrived", "handled") for n in range(1, posts + 1)]

    def kill(kind: str, n: int) -> None:
        folder = tmp_path / f"{kind} {n}"
        if kind == "before":
            stage_in(zygote, folder).killed_before(n)
        else:
            killed_at_post(zygote, folder, n, kind)

    all_at_points(kill, points)
