"""Kill the coordinator and the workers of a Dask frame at random, for as long as is given.

    python tests/adapters/kill_at_random.py [--minutes 60] [--seed 1] [--workers 4]

Each round is a call over a frame of its own on a cluster of processes: coordinators are killed at
random moments (some also lose a worker), then the last one is left alone. Afterwards every row must
have the answer to its own prompt, and no request may have been paid twice. Prints counts; a round
that fails leaves its folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distributed import Client
from support.children import Child, Zygote
from support.dask_cluster import worker_processes
from support.stand_in import Behaviour, StandIn, answer

ROWS, DISTINCT, PARTITIONS = 60, 45, 5


@dataclass
class Fire:
    """What kills, and what is killed.

    Attributes
    ----------
    seconds : float
        What an undisturbed call takes here and now, within which kills are drawn.
    """

    zygote: Zygote
    client: Client
    chance: random.Random
    seconds: float = 1.0

    def pause(self, low: float, high: float) -> None:
        time.sleep(self.chance.uniform(low, high) * self.seconds)

    def kill_a_worker(self) -> bool:
        """Kill one of the workers that are there."""
        pids = list(self.client.run(os.getpid, on_error="ignore").values())
        if not pids:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        return True

    def one_round(self, number: int, folder: Path) -> Counter[str]:
        """Make a call under fire, some without, and check what came of it."""
        said: Counter[str] = Counter(rounds=1)
        texts = [f"round {number}, question {i % DISTINCT}" for i in range(ROWS)]
        gateway = StandIn()
        gateway.behaviour = Behaviour(validating_polls=0, running_polls=1)

        def start(partitions: int) -> Child:
            return self.zygote.run(
                "support.dask_callers:call",
                environment=gateway.environment,
                folder=folder,
                texts=texts,
                sidecar=str(folder / "s"),
                per_file=9,
                address=self.client.scheduler.address,
                partitions=partitions,
            )

        peaceful = number % 20 < 2  # of the first two, the former imports
        with gateway:
            for _ in range(0 if peaceful else self.chance.randint(1, 4)):
                child = start(self.chance.randint(3, 9))
                child.started()
                self.pause(0.02, 1)
                if self.chance.random() < 0.5:
                    said["workers killed"] += self.kill_a_worker()
                    self.pause(0, 0.3)
                if child.code is None:
                    child.kill()
                    said["coordinators killed"] += child.wait() == -signal.SIGKILL
            began = time.monotonic()
            child = start(PARTITIONS)
            if not peaceful and self.chance.random() < 0.5:
                self.pause(0, 1)
                said["workers killed"] += self.kill_a_worker()
            assert child.wait(300) == 0, child.said
            if peaceful:
                self.seconds = time.monotonic() - began
            out = json.loads(child.said.splitlines()[-1])
            assert out["answers"] == [answer(t) for t in texts]
            assert set(out["status"]) == {"ok"}
            paid = Counter(i for job in gateway.jobs for i in job.custom_ids)
            assert len(paid) == DISTINCT, len(paid)
            assert set(paid.values()) == {1}, paid.most_common(3)
            assert not (folder / "s" / "spool").exists()
        said["rows right"] += ROWS
        said["requests paid once"] += DISTINCT
        return said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    chance, counts = random.Random(args.seed), Counter[str]()
    home = Path(tempfile.mkdtemp(prefix="kill_at_random-"))
    print(f"seed {args.seed}, {args.workers} workers, in {home}", flush=True)
    with (
        Zygote(home, "support.dask_callers") as zygote,
        worker_processes(args.workers, home / "workers", quiet=False) as client,
    ):
        assert zygote.run("os:getpid").wait(300) == 0  # everything is imported
        fire = Fire(zygote, client, chance)
        end = time.monotonic() + args.minutes * 60
        while time.monotonic() < end:
            folder = home / str(counts["rounds"])
            folder.mkdir()
            client.wait_for_workers(chance.randint(1, args.workers), timeout=120)
            counts += fire.one_round(counts["rounds"], folder)
            shutil.rmtree(folder)
            print(f"{dict(counts)}, a call takes {fire.seconds:.1f} s", flush=True)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
