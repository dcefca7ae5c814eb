"""Kill the coordinator and the workers of a Dask frame at random, for as long as is given.

    python tests/adapters/kill_at_random.py [--minutes 60] [--seed 1]

Each round is a call over a frame of its own on a cluster of two processes: coordinators are killed
at random moments (some also lose a worker), then the last one is left alone. Afterwards every row
must have the answer to its own prompt, and no request may have been paid twice. Prints counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distributed import Client, LocalCluster
from support.children import Zygote
from support.stand_in import Behaviour, StandIn, answer

ROWS, DISTINCT = 60, 45


def kill_a_worker(client: Client, chance: random.Random) -> bool:
    """Kill one of the workers that are there."""
    pids = list(client.run(os.getpid, on_error="ignore").values())
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(pids), signal.SIGKILL)
    return True


def one_round(
    number: int, zygote: Zygote, client: Client, folder: Path, chance: random.Random
) -> Counter[str]:
    """Make a call under fire, and check what came of it."""
    said: Counter[str] = Counter(rounds=1)
    texts = [f"round {number}, question {i % DISTINCT}" for i in range(ROWS)]
    gateway = StandIn()
    gateway.behaviour = Behaviour(validating_polls=0, running_polls=1)
    arguments = {
        "texts": texts,
        "sidecar": str(folder / "s"),
        "per_file": 9,
        "address": client.scheduler.address,
    }
    with gateway:
        for _ in range(chance.randint(1, 4)):
            child = zygote.run(
                "support.dask_callers:call",
                environment=gateway.environment,
                folder=folder,
                partitions=chance.randint(3, 9),
                **arguments,
            )
            child.started()
            time.sleep(chance.uniform(0.05, 2.5))
            if chance.random() < 0.5:
                said["workers killed"] += kill_a_worker(client, chance)
                time.sleep(chance.uniform(0, 1))
            if child.code is None:
                child.kill()
                said["coordinators killed"] += child.wait() == -signal.SIGKILL
        child = zygote.run(
            "support.dask_callers:call", environment=gateway.environment, folder=folder,
            **arguments,
        )  # fmt: skip
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 1))
            said["workers killed"] += kill_a_worker(client, chance)
        assert child.wait(180) == 0, child.said
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
    args = parser.parse_args()
    chance, counts = random.Random(args.seed), Counter[str]()
    end = time.monotonic() + args.minutes * 60
    print(f"seed {args.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as name,
        Zygote(Path(name), "support.dask_callers") as zygote,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        assert zygote.run("os:getpid").wait(300) == 0  # everything is imported
        while time.monotonic() < end:
            folder = Path(name) / str(counts["rounds"])
            folder.mkdir()
            client.wait_for_workers(1, timeout=120)
            counts += one_round(counts["rounds"], zygote, client, folder, chance)
            print(dict(counts), flush=True)


if __name__ == "__main__":
    main()
