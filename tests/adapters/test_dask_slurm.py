"""The recipe for NYU's cluster, as it is printed: real dask-jobqueue, Slurm's commands played.

A worker's job is preempted while it renders, the coordinator's while batch jobs run: both begin
again, as Slurm requeues them.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from support.slurm import Slurm
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames.dask

pytest.importorskip("dask_jobqueue")

ROWS, DISTINCT, PARTS = 60, 42, 6
HURRY = """
import time
import nyu_llm_frames
nyu_llm_frames.set_options(
    poll_interval_s=0.05, max_poll_interval_s=0.1, submit_settle_s=0.15, output_settle_s=0.15,
    max_requests_per_file=20,
)

def slowly(part):
    time.sleep(0.5 if len(part) else 0)
    return part

"""


def printed(name: str) -> str:
    """Return a file of the recipe."""
    text = nyu_llm_frames.dask.__doc__ or ""
    found = re.search(rf"``{re.escape(name)}``::\n\n((?: {{4}}.*\n|\n)+)", text)
    assert found
    return textwrap.dedent(found[1])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A home with the recipe and its table, in folders of this machine."""
    program = printed("offenses.py")
    for folder in ("/scratch/you", "/archive/you"):
        assert folder in program
        program = program.replace(folder, str(tmp_path))
    program = program.replace("processes=4", "processes=2").replace("jobs=10", "jobs=1")
    program = program.replace('offenses/")', 'offenses/").map_partitions(slowly)')
    (tmp_path / "offenses.py").write_text(HURRY + program.replace("your-bucket", StandIn().bucket))
    script = printed("coordinator.sbatch").replace("python ", f"exec {sys.executable} ")
    (tmp_path / "coordinator.sbatch").write_text(script)
    (tmp_path / ".portkey_key").write_text(StandIn().api_key)
    (tmp_path / "offenses").mkdir()
    frame = pd.DataFrame({"offense": [f"offense {i % DISTINCT}" for i in range(ROWS)]})
    for part in range(PARTS):
        size = ROWS // PARTS
        path = tmp_path / f"offenses/part.{part}.parquet"
        frame[part * size : (part + 1) * size].to_parquet(path)
    return tmp_path


def test_the_printed_recipe_survives_preempted_workers_and_a_requeued_coordinator(
    study: Path,
) -> None:
    gateway = StandIn()
    gateway.behaviour = Behaviour(running_polls=40)  # time to release the workers
    slurm = Slurm(study / "slurm")
    released: list[bool] = []

    def preempt_the_coordinator(n: int, method: str, path: str) -> None:
        if method == "POST" and path.endswith("/batches") and len(gateway.jobs) == 2:
            slurm.preempt("1")

    def look_for_workers(n: int, method: str, path: str) -> None:
        if method == "GET" and re.search(r"/batches/[^/?]+$", path):
            released.append(not slurm.runs(slurm.jobs()[-1]))

    with gateway, slurm:
        environment = {k: v for k, v in gateway.environment.items() if k != "PORTKEY_API_KEY"}
        environment |= {**os.environ, **slurm.environment, "HOME": str(study)}
        environment["DASK_JOBQUEUE__SLURM__SCHEDULER_OPTIONS"] = (
            "{'host': '127.0.0.1', 'dashboard_address': '127.0.0.1:0'}"
        )
        coordinator = slurm.submit(study / "coordinator.sbatch", environment)
        spooled_by(slurm, study)
        slurm.preempt("2")
        gateway.on_handled = preempt_the_coordinator
        gateway.on_request = look_for_workers
        assert slurm.ended(coordinator, 240), slurm.output(coordinator)
        said = slurm.output(coordinator)
        submitted = [slurm.folder / job / "environment" for job in slurm.jobs()]
    answers = [pd.read_parquet(path) for path in sorted((study / "answers").glob("*.parquet"))]
    assert answers, said
    found = pd.concat(answers)
    assert len(found) == ROWS
    assert found["response"].tolist() == [answer(f"Which drug? {o}") for o in found["offense"]]
    paid = Counter(i for job in gateway.jobs for i in job.custom_ids)
    assert len(paid) == DISTINCT
    assert set(paid.values()) == {1}
    assert (slurm.restarts("1"), slurm.restarts("2")) == (1, 1)
    assert any(released)
    assert all(gateway.api_key.encode() not in path.read_bytes() for path in submitted)


def spooled_by(slurm: Slurm, study: Path) -> None:
    """Wait for the first partition that a worker wrote."""
    patience = threading.Event()
    for _ in range(1200):
        if any((study / "offenses.llm").glob("spool/*/*.arrow")):
            return
        patience.wait(0.1)
    raise AssertionError({job: slurm.output(job) for job in slurm.jobs()})
