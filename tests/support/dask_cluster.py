"""A cluster of processes that tests kill: one that dies comes again, and at once.

Comes in: how many, and a folder. Goes out: a client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

_CONFIG = {
    # Forked from a process in which everything is imported: seconds of work less for each.
    "distributed.worker.multiprocessing-method": "forkserver",
    # On a busy machine Dask's 15 s pass before one that died is back, and it is given up for good.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}


@contextmanager
def worker_processes(workers: int, folder: Path, *, quiet: bool = True) -> Iterator[Client]:
    """Start workers of one thread each, and wait for them."""
    with dask.config.set(_CONFIG):
        get_mp_context().set_forkserver_preload(["nyu_llm_frames.dask.dask_run"])
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=50 if quiet else False,
                local_directory=str(folder),
            ) as cluster,
            Client(cluster) as client,
        ):
            client.wait_for_workers(workers, timeout=120)
            yield client
