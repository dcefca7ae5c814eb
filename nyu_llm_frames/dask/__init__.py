"""Dask frames: importing this registers ``ddf.llm``, for tables past one machine.

The same verbs, arguments, requests and ids as ``df.llm``, so that what was paid from pandas,
Polars or a file is not paid again from here, nor the other way round. Needs
``pip install "nyu-llm-frames[dask]"``, also where the workers run.

>>> import dask.dataframe as dd, nyu_llm_frames.dask
>>> ddf = dd.read_parquet("/scratch/you/offenses/")          # doctest: +SKIP
>>> ddf.llm.estimate("Which drug? {{ offense }}",
...                  model="gemini-3-flash-preview")          # doctest: +SKIP
>>> out = ddf.llm.batch("Which drug? {{ offense }}", model="gemini-3-flash-preview",
...                     sidecar="/archive/you/offenses.llm")  # doctest: +SKIP
>>> out.to_parquet("/scratch/you/answers/")                   # doctest: +SKIP

How it works
------------
Workers render the prompts into a spool on the sidecar's folder, which every machine has to share.
The process that makes the call, the coordinator, plans on ids alone, uploads, submits, polls and
reads outputs. No worker is needed meanwhile, and nothing that pays runs inside a Dask task: Dask
may run any task again. The frame that comes back is lazy. Each partition is joined when it is
computed: its rows are rendered once more, and answers are looked up by the ids of these very rows,
wherever Dask has moved them. Computing needs neither network nor lock. It is a snapshot: answers
that come later appear in the next call.

A worker or a coordinator may die at any moment: make the same call again. Where rows
differ from run to run (random numbers, a file that is written to), ``ddf.persist()`` or write them
first; else `PartitionChangedError` says so, and no cell is wrong.

In a column of type object, lists, dicts, bytes, numbers and flags become text in ``dd.from_pandas``
(flags beside missing values in ``dd.read_csv``, too) unless the frame is made under
``dask.config.set({"dataframe.convert-string": False})``; an error says so. ``index`` in a template
is the row's label in its partition.

When it is worth it
-------------------
Rarely: a frame of a million rows takes a minute of one core, and `batch_file` takes files of any
size in memory that does not grow. Use Dask where the table is already one, where making the rows
(parsing, joining, extracting text) needs many cores, or where it does not fit on one machine.

Large jobs, on paper
--------------------
For 150 tokens in and 60 out, at batch rates, by model:

=============  ========================  ================================
rows           10 million                1 billion
=============  ========================  ================================
money          $195 to $1,275            $19,500 to $127,500
batch jobs     50 to 80                  5,000 of 200,000 requests
Vertex         1 to 4 days               weeks
sidecar        10 GB, 7 GB of it sent    1 TB
our CPU        5 minutes                 8 core-hours
=============  ========================  ================================

So money comes first, then Vertex's time, then the disk: ``/scratch`` at NYU is purged after 60 days
without access. Keep the sidecar elsewhere, or there is no record of what you paid for. Begin
with ``ddf.llm.trial`` and ``max_cost=``.

On NYU's cluster
----------------
One small job is the coordinator; dask-jobqueue starts workers as jobs of their own, and Slurm
starts those again that it preempted. ``coordinator.sbatch``::

    #!/bin/bash
    #SBATCH --account=YOUR_ACCOUNT
    #SBATCH --time=4-00:00:00 --cpus-per-task=2 --mem=8G
    #SBATCH --requeue                # preempted: it starts again, and the same call resumes
    #SBATCH --open-mode=append
    python offenses.py

``offenses.py``::

    from pathlib import Path

    import dask.dataframe as dd
    from dask_jobqueue import SLURMCluster
    from distributed import Client
    import nyu_llm_frames as llm
    import nyu_llm_frames.dask

    if __name__ == "__main__":
        key = Path.home() / ".portkey_key"  # not exported: sbatch would pass it on to the workers
        gateway = llm.Gateway(api_key=key.read_text().strip(), bucket="your-bucket")
        cluster = SLURMCluster(account="YOUR_ACCOUNT", cores=4, processes=4, memory="16GB",
                               walltime="04:00:00", job_extra_directives=["--requeue"],
                               local_directory="/tmp")
        client = Client(cluster)
        ddf = dd.read_parquet("/scratch/you/offenses/")

        cluster.scale(jobs=10)
        client.wait_for_workers(1)
        run = ddf.llm.submit("Which drug? {{ offense }}", model="gemini-3-flash-preview",
                             sidecar="/archive/you/offenses.llm", gateway=gateway, max_cost=500)
        cluster.scale(0)  # no worker is held while batch jobs run
        run.wait()
        cluster.scale(jobs=10)
        client.wait_for_workers(1)
        run.result().to_parquet("/scratch/you/answers/")

One coordinator at a time for one sidecar. Workers get the compiled prompt and the name of the
provider, never the key. Compute nodes need no internet access; the coordinator's does.
Do not use ``cluster.adapt``: dask-jobqueue 0.9 cancels waiting jobs of several processes again
and again (its issue 498), and does not replace jobs that ended (its issue 611).

This recipe is tested with dask-jobqueue itself and real workers, also preempted ones. But the
tests imitate Slurm's commands on one machine: it has not run under a real scheduler yet.
"""

from nyu_llm_frames.errors import ConfigurationError

try:
    import dask.dataframe
    import distributed  # noqa: F401
except ImportError as e:
    raise ConfigurationError(
        f'Dask cannot be imported ({e}): pip install "nyu-llm-frames[dask]".'
    ) from None

from nyu_llm_frames._api.register import HINTS, PLACES, GroupsHint, Hints, Place, SeriesHint, claim
from nyu_llm_frames._api.verbs import METHODS
from nyu_llm_frames.dask.dask_methods import DaskMethods


def _places(name: str) -> list[Place]:
    from dask.dataframe.extensions import register_dataframe_accessor

    return [(dask.dataframe.DataFrame, DaskMethods, register_dataframe_accessor(name))]


def _hints(name: str) -> Hints:
    from dask.dataframe.api import GroupBy

    joined = '.apply("\\n".join, meta=("text", "object"))'
    groups = GroupsHint(name, f'df.groupby("group")["text"]{joined}.reset_index()')
    return [(dask.dataframe.Series, SeriesHint(name)), (GroupBy, groups)]


METHODS["dask"] = DaskMethods
PLACES["dask"] = _places
HINTS["dask"] = _hints
claim("dask")
