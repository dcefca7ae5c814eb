"""A call in a process of its own that is killed, then made again: nothing twice, nothing lost.

Comes in: what a child process calls, its texts, and the files that they need. Goes out: a check of
all that the gateway was sent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from support.children import Child, Zygote
from support.stand_in import Behaviour, StandIn, answer


@dataclass
class Stage:
    """A gateway with a folder, and the processes that use them."""

    zygote: Zygote
    folder: Path
    call: str
    texts: list[str]
    files: int
    gateway: StandIn = field(default_factory=StandIn)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.gateway.behaviour = Behaviour(validating_polls=0, running_polls=0)

    def start(self, **arguments: object) -> Child:
        return self.zygote.run(
            self.call,
            environment=self.gateway.environment,
            folder=self.folder,
            **{"texts": self.texts, "sidecar": str(self.folder / "s"), **arguments},
        )

    def ends_well(self, **arguments: object) -> list[str]:
        """Make the call again in a new process, and check everything; return its effects."""
        child = self.start(**arguments)
        code = child.wait()
        assert code == 0, child.said
        out = json.loads(child.said.splitlines()[-1])
        assert out["answers"] == [answer(t) for t in self.texts], out
        assert set(out["status"]) == {"ok"}, out
        sent = Counter(i for job in self.gateway.jobs for i in job.custom_ids)
        assert len(sent) == len(set(self.texts)), sent
        assert set(sent.values()) == {1}, sent
        assert self.gateway.count("create") == len(self.gateway.jobs) == self.files
        assert not (self.folder / "s" / "spool").exists()
        effects: list[str] = out["effects"]
        return effects

    def killed_before(self, n: int) -> None:
        """Let a process die before its n-th effect, and make the call again."""
        with self.gateway:
            child = self.start(die_at=n)
            assert child.wait() == -9, child.said
            self.ends_well()


def all_at_points(kill: Callable[[str, int], None], points: Iterable[tuple[str, int]]) -> None:
    """Kill at each point, three at a time, and say at which it went wrong."""
    with ThreadPoolExecutor(3) as pool:
        runs = [(f"{kind} {n}", pool.submit(kill, kind, n)) for kind, n in points]
    for name, run in runs:
        error = run.exception()
        assert error is None, f"{name}: {error}"
