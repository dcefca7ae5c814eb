"""Commands that need only a sidecar, a run's folder: no input file, no template.

Comes in: the path of a sidecar. Goes out: the state and the answers of its batch jobs, and the
steps that move them on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.cli import command_options as options
from nyu_llm_frames.cli import exits, show
from nyu_llm_frames.cli.stored_views import print_totals, totals_record

if TYPE_CHECKING:
    import pandas as pd

    from nyu_llm_frames._runs.stored_run import StoredRun


def _open(given: dict[str, Any], *, retries: int = 1) -> StoredRun:
    from nyu_llm_frames._runs.stored_run import StoredRun

    gateway = options.take_gateway(given) if "gateway_" in given else None
    max_cost = given.pop("max_cost", None)
    path, run = given.pop("sidecar"), given.pop("run")
    return StoredRun(path, run=run, gateway=gateway, retries=retries, max_cost=max_cost)


def _report(stored: StoredRun, *, json_: bool) -> int:
    """Print the status of the requests; return the exit code that says the same."""
    totals = stored.totals()
    if json_:
        show.as_json(
            {
                "sidecar": str(stored.sidecar.path),
                "requests": sum(totals.counts.values()),
                **totals_record(totals),
                "jobs_pending": stored.pending,
            }
        )
    else:
        print_totals(totals)
    if stored.pending:
        return exits.TRY_LATER if stored.trouble else exits.PENDING
    return exits.of_statuses(totals.counts)


@click.command()
@options.sidecar
@options.timeout
@options.retries
@options.max_cost
@options.gateway
@options.as_json
def wait(timeout: float | None, retries: int, json_: bool, **given: Any) -> None:
    """Wait until every batch job of a sidecar is over and its answers are stored.

    Requests that failed are sent again, up to --retries times each, as `batch` does.
    """
    stored = _open(given, retries=retries)
    stored.wait(timeout)
    raise click.exceptions.Exit(_report(stored, json_=json_))


@click.command()
@options.sidecar
@click.option("--out", type=options.OUT, help="Write all requests: .csv, .parquet or .jsonl.")
@click.option("--prompts", is_flag=True, help="With --out: add the request bodies.")
@options.max_cost
@options.gateway
@options.as_json
def collect(out: Path | None, prompts: bool, json_: bool, **given: Any) -> None:
    """Take one step: poll the jobs, store the answers that are ready.

    Never waits; the exit code is 4 while jobs are not over. For the joined table make the
    `batch` call again: it costs nothing.
    """
    stored = _open(given)
    stored.poll()
    if out is not None:
        _write(stored.iter_answers(prompts=prompts), out)
        show.note(f"written: {out}")
    raise click.exceptions.Exit(_report(stored, json_=json_))


@click.command()
@options.sidecar
@options.max_cost
@options.gateway
@options.as_json
def retry(json_: bool, **given: Any) -> None:
    """Send failed, empty, missing and damaged requests again, even if out of retries."""
    stored = _open(given)
    under_way = stored.retry()
    show.note(f"{count(under_way, 'request')} under way")
    raise click.exceptions.Exit(_report(stored, json_=json_))


@click.command()
@options.sidecar
@options.gateway
@options.as_json
def cancel(json_: bool, **given: Any) -> None:
    """Cancel the batch jobs that are not over; answers finished before that are kept."""
    ids = _open(given).cancel()
    if json_:
        show.as_json({"cancelled": ids})
    else:
        click.echo(f"cancellation requested: {', '.join(ids) or 'none'}")


@click.command()
@options.sidecar
@click.option("--adopt", metavar="BATCH_ID", help="The submission created this batch job.")
@click.option(
    "--resubmit", is_flag=True, help="The submission definitely created no job: send it again."
)
@options.gateway
def resolve(adopt: str | None, resubmit: bool, **given: Any) -> None:
    """Settle an uncertain submission: it may or may not have created a batch job (exit code 5)."""
    stored = _open(given)
    stored.resolve(adopt, resubmit)
    click.echo(f"settled; continue with: nyu-llm-frames wait {stored.sidecar.path}")


@click.command()
@click.argument("sidecar", type=options.FOLDER, default=Path("llm_sidecar"))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def unlock(sidecar: Path, yes: bool) -> None:
    """Show the process that holds a sidecar's lock; if it has ended, remove the lock.

    For a lock left by another machine, such as one that was switched off: this machine cannot
    check whether that process is still running. If it is, two processes may pay for the same rows.
    The lock of a dead process of this machine, or of a Slurm job that is over or was requeued, is
    removed without this command. A live process of this machine keeps its lock (exit code 9).
    """
    from nyu_llm_frames._shared.clock import current_clock
    from nyu_llm_frames._sidecar.folder import Sidecar

    lock = Sidecar(sidecar, current_clock(), create=False).lock
    holder = lock.holder()
    if holder is None:
        click.echo(f"{sidecar} is not locked")
        return
    click.echo(f"{sidecar} is locked by {holder}")
    if not yes:
        click.confirm("Are you sure that process has ended?", abort=True)
    lock.unlock(holder)
    click.echo("unlocked")


@click.command()
@click.argument("sidecar", type=options.FOLDER)
@click.argument("path", type=options.ANY)
@click.option("--prompts", is_flag=True, help="With a table: add the request bodies.")
def export(sidecar: Path, path: Path, prompts: bool) -> None:
    """Copy a sidecar to share it, or write its answers as a table.

    PATH is a new folder, or a file that ends in .csv, .parquet or .jsonl: one line per distinct
    request with its best answer.
    """
    from nyu_llm_frames._runs.stored_answers import StoredAnswers

    if path.suffix in _WRITERS:
        _write(StoredAnswers(sidecar).iter_answers(prompts=prompts), path)
    elif path.suffix in _OTHER_TABLES:
        raise click.UsageError(f"{path}: a table ends in {', '.join(_WRITERS)}; else it is a copy.")
    else:
        from nyu_llm_frames import open_sidecar

        path = open_sidecar(sidecar).export(path)
    click.echo(str(path))


_WRITERS = (".csv", ".parquet", ".jsonl")
JSON_ROWS = 10_000
_OTHER_TABLES = (".json", ".tsv", ".txt", ".xls", ".xlsx", ".feather", ".gz", ".zip")


def _write(frames: Iterator[pd.DataFrame], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from nyu_llm_frames._sidecar.storage import atomic_file

    if path.suffix not in _WRITERS:
        raise click.UsageError(f"{path}: a table ends in {', '.join(_WRITERS)}.")
    with atomic_file(path.absolute()) as file:
        if path.suffix == ".csv":
            for i, frame in enumerate(frames):
                frame.to_csv(file, index=False, header=i == 0, lineterminator="\n")
        elif path.suffix == ".jsonl":
            for frame in frames:
                for start in range(0, len(frame), JSON_ROWS):  # held as one text
                    some = frame.iloc[start : start + JSON_ROWS]
                    # pandas 2.2 writes whole numbers beside missing ones as 2.0.
                    some = some.astype(object).where(some.notna(), None)
                    some.to_json(file, orient="records", lines=True, force_ascii=False)
        else:
            first = pa.Table.from_pandas(next(frames), preserve_index=False)
            with pq.ParquetWriter(file, first.schema) as writer:
                writer.write_table(first)
                for frame in frames:
                    writer.write_table(pa.Table.from_pandas(frame, first.schema, False))


COMMANDS = (wait, collect, retry, cancel, resolve, unlock, export)
