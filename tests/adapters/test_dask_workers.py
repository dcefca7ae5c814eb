"""Workers of a real cluster that die, or are gone; SIGKILL, real processes, a real server."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, wait
from support.dask_cluster import worker_processes
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
import nyu_llm_frames.dask
from nyu_llm_frames.dask import spool_files

MODEL = "gemini-3-flash-preview"
WORKERS, PARTITIONS = 4, 5
assert nyu_llm_frames.dask


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Processes of one thread each; one that dies comes again."""
    with worker_processes(WORKERS, tmp_path_factory.mktemp("workers")) as client:
        yield client


def frame_of(name: str, n: int = 30) -> pd.DataFrame:
    return pd.DataFrame({"q": [f"{name} {i % 23}" for i in range(n)], "n": range(n)})


def expected(frame: pd.DataFrame) -> list[str]:
    return [answer(q) for q in frame["q"]]


def paid_once(gateway: StandIn, n: int) -> None:
    sent = Counter(i for job in gateway.jobs for i in job.custom_ids)
    assert len(sent) == n
    assert set(sent.values()) <= {1}


class Once:
    """Kills the worker that calls it, the first time."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "killed"

    def __call__(self) -> None:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def killing_in(place: str, once: Once) -> None:
    """Let the worker die after a stage, once; runs on the worker."""
    import nyu_llm_frames.dask.lazy_join as lazy_join
    import nyu_llm_frames.dask.worker_call as worker_call

    at: dict[str, tuple[Any, str]] = {
        "render": (worker_call, "rendered"),
        "write": (spool_files, "content_of"),
        "join": (lazy_join, "find_best"),
    }
    module, name = at[place]
    act: Callable[..., Any] = getattr(module, name)

    def acts(*args: Any, **kwargs: Any) -> Any:
        found = act(*args, **kwargs)
        once()
        return found

    setattr(module, name, acts)


def nothing(folder: Path) -> tuple[str, str]:
    return "node-17", ""


def go_blind(name: str, blind: bool) -> None:
    """Let a process see nothing of the coordinator's token, or see again."""
    module: Any = importlib.import_module(name)
    if blind:
        module.told, module.read_token = module.read_token, nothing
    else:
        module.read_token = module.told


@pytest.mark.parametrize("place", ["render", "write", "join"])
def test_a_worker_that_dies_repeats_its_work_and_nothing_is_paid_twice(
    cluster: Client, gateway: StandIn, tmp_path: Path, place: str
) -> None:
    frame = frame_of(place)
    once = Once(tmp_path)
    cluster.wait_for_workers(WORKERS, timeout=120)  # each of them is to die
    with llm.set_options(max_requests_per_file=6):
        cluster.run(killing_in, place, once)
        out = dd.from_pandas(frame, npartitions=PARTITIONS).llm.batch("{{ q }}", model=MODEL)
        found = out.compute()
    assert once.mark.exists()
    assert found["response"].tolist() == expected(frame)
    assert found.dtypes.equals(out.dtypes)
    paid_once(gateway, 23)
    assert not Path("llm_sidecar/spool").exists()


def test_a_partition_that_kills_its_workers_is_named_before_anything_is_planned(
    cluster: Client, gateway: StandIn
) -> None:
    def deadly(part: pd.DataFrame) -> pd.DataFrame:
        if (part["n"] == 13).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    lazy = dd.from_pandas(frame_of("deadly"), npartitions=PARTITIONS)
    with pytest.raises(llm.errors.PartitionError, match="Partition 2 ended") as error:
        lazy.map_partitions(deadly, meta=lazy._meta).llm.batch("{{ q }}", model=MODEL)
    assert pickle.loads(pickle.dumps(error.value)).partition == 2
    assert not gateway.log
    assert not list(Path("llm_sidecar/jobs").iterdir())
    assert not Path("llm_sidecar/spool").exists()


def test_no_worker_is_needed_while_jobs_run(cluster: Client, gateway: StandIn) -> None:
    frame = frame_of("alone")
    processes: Any = cluster.cluster
    seen: list[int] = []

    def gone(n: int, method: str, path: str) -> None:
        if method == "POST" and path.endswith("/batches"):
            processes.scale(0)
            seen.append(gateway.count("poll"))

    gateway.on_handled = gone
    lazy = dd.from_pandas(frame, npartitions=PARTITIONS)
    out = lazy.llm.batch("{{ q }}", model=MODEL)
    assert seen == [0]
    assert gateway.count("poll") > 1
    processes.scale(WORKERS)
    cluster.wait_for_workers(WORKERS, timeout=120)
    assert out.compute()["response"].tolist() == expected(frame)


def test_without_workers_the_call_ends_and_its_repetition_goes_on(
    cluster: Client, stand_in: StandIn
) -> None:
    frame = frame_of("lost")
    processes: Any = cluster.cluster
    processes.scale(0)
    while cluster.nthreads():
        wait([], timeout=1)
    lazy = dd.from_pandas(frame, npartitions=PARTITIONS)
    with llm.set_options(
        gateway=llm.Gateway(**stand_in.settings), progress=False, poll_interval_s=0.01
    ):
        with pytest.raises(llm.errors.WorkersLostError, match="same call again") as error:
            lazy.llm.batch("{{ q }}", model=MODEL, timeout=0.5)
        assert isinstance(error.value, llm.errors.RunTimeoutError)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
        processes.scale(WORKERS)
        cluster.wait_for_workers(WORKERS, timeout=120)
        out = lazy.llm.batch("{{ q }}", model=MODEL)
    assert out.compute()["response"].tolist() == expected(frame)
    paid_once(stand_in, 23)


def test_a_folder_that_a_worker_does_not_see_is_an_error_with_its_host(
    cluster: Client, gateway: StandIn
) -> None:
    lazy = dd.from_pandas(frame_of("far"), npartitions=2)
    # What the coordinator asks every worker, and what each task looks at for itself: a worker may
    # have come later.
    for go in (
        lambda blind: go_blind("nyu_llm_frames.dask.cluster", blind),
        lambda blind: cluster.run(go_blind, "nyu_llm_frames.dask.spool_files", blind),
    ):
        go(True)
        try:
            with pytest.raises(llm.errors.SidecarError, match="worker on node-17 does not see"):
                lazy.llm.batch("{{ q }}", model=MODEL)
        finally:
            go(False)
    assert not gateway.log
    assert lazy.llm.batch("{{ q }}", model=MODEL).compute()["response"].notna().all()


def test_errors_of_rows_come_from_workers_as_they_are(cluster: Client, gateway: StandIn) -> None:
    frame = frame_of("holes")
    frame.loc[[2, 17, 29], "q"] = None
    lazy = dd.from_pandas(frame, npartitions=PARTITIONS)
    with pytest.raises(llm.errors.MissingValueError, match="3 in column 'q'"):
        lazy.llm.batch("{{ q }}", model=MODEL)
    with pytest.raises(llm.errors.TemplateError) as error:
        lazy.llm.batch("{{ 1 // (n - 13) }}", model=MODEL)
    assert error.value.row == 13
    assert not gateway.log


def test_the_key_is_in_no_task_no_spool_and_no_log(
    cluster: Client, gateway: StandIn, tmp_path: Path
) -> None:
    frame = frame_of("key")
    kept: list[bytes] = []

    def keep(n: int, method: str, path: str) -> None:
        if not kept:
            spool = Path("llm_sidecar/spool")
            kept.extend(p.read_bytes() for p in spool.rglob("*") if p.is_file())

    gateway.on_request = keep
    lazy = dd.from_pandas(frame, npartitions=PARTITIONS)
    given = llm.Gateway(**gateway.settings)
    out = lazy.llm.batch("{{ q }}", model=MODEL, gateway=given)
    held = out.persist()
    wait(held)
    logs = [*cluster.get_worker_logs().values(), cluster.get_scheduler_logs()]
    told = cluster.run_on_scheduler(
        lambda dask_scheduler: repr(
            [(t.key, t.run_spec, t.annotations) for t in dask_scheduler.tasks.values()]
        )
    )
    key = gateway.api_key.encode()
    assert len(kept) > PARTITIONS
    for text in (*kept, repr(logs).encode(), told.encode(), pickle.dumps(out)):
        assert key not in text
    assert held.compute()["response"].tolist() == expected(frame)


@pytest.mark.parametrize("slice_of", ["partitions", "shuffle", "repartition", "tail"])
def test_slices_computed_by_processes_are_right(
    cluster: Client, gateway: StandIn, slice_of: str
) -> None:
    frame = frame_of("slices")
    with llm.set_options(max_requests_per_file=5):
        out = dd.from_pandas(frame, npartitions=PARTITIONS).llm.batch("{{ q }}", model=MODEL)
    with warnings.catch_warnings():
        found = {
            "partitions": lambda: out.partitions[[3, 1]].compute(),
            "shuffle": lambda: out.shuffle("n").compute(),
            "repartition": lambda: out.clear_divisions().repartition(npartitions=2).compute(),
            "tail": lambda: out.tail(4),
        }[slice_of]()
    assert len(found) >= 4
    assert found["response"].tolist() == expected(found)
    assert not re.search("NaN|<NA>", found["response"].to_string())
