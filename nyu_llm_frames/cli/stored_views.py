"""`status` and `failures`: what sidecars hold, for a person, a script or a page; no network.

Comes in: paths of sidecars. Goes out: their batch jobs, what came of their requests, what that
cost, and why some have no good answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nyu_llm_frames._shared.wording import count, dollars, printable
from nyu_llm_frames.cli import command_options as options
from nyu_llm_frames.cli import exits, show

if TYPE_CHECKING:
    import pandas as pd

    from nyu_llm_frames._runs.stored_answers import StoredAnswers, Totals


_REST = "--all lists every request; the rows are in the output, beside its _error"
_NOT_HELD = (
    "answers that do not fit the schema are in the output alone, with the reason in its _error"
)


def totals_record(totals: Totals) -> dict[str, Any]:
    """Return totals for JSON."""
    return {"counts": totals.counts, "usage": totals.usage, "cost_usd": totals.cost}


def total_lines(totals: Totals) -> list[str]:
    """Give the status of the requests, and what their answers took."""
    lines = [f"{count(sum(totals.counts.values()), 'request')}: {show.counts(totals.counts)}"]
    if any(totals.usage.values()):
        prompt, output, thinking = totals.usage.values()
        cost = "unknown, no price for this model" if totals.cost is None else dollars(totals.cost)
        lines.append(
            f"tokens: {prompt:,} prompt, {output:,} output, {thinking:,} thinking; "
            f"cost so far: {cost}"
        )
    return lines


def print_totals(totals: Totals) -> None:
    """Print them."""
    for line in total_lines(totals):
        click.echo(line)


def _sum(every: Sequence[Totals]) -> Totals:
    from nyu_llm_frames._runs.stored_answers import Totals

    counts: Counter[str] = Counter()
    usage: Counter[str] = Counter()
    for totals in every:
        counts.update(totals.counts)
        usage.update(totals.usage)
    costs = [totals.cost for totals in every if totals.cost is not None]
    return Totals(dict(counts), dict(usage), sum(costs) if len(costs) == len(every) else None)


@click.command()
@click.argument("sidecars", type=options.FOLDER, nargs=-1)
@click.option("--run", help="Only the batch jobs of this run.")
@click.option("--month", metavar="YYYY-MM", help="Only batch jobs of this month (no trials).")
@click.option("--html", type=options.OUT, help="Write a page to send: cards, plots, failures.")
@options.as_json
def status(
    sidecars: tuple[Path, ...], run: str | None, month: str | None, html: Path | None, json_: bool
) -> None:
    """Show the batch jobs of sidecars, as of the last poll; no network.

    SIDECARS are the folders of runs (default: llm_sidecar); several also get a total. Times are
    local. Exit codes are as for `wait`: 4 while jobs are not over, 5 for an uncertain submission,
    3 where rows have no good answer.
    """
    from nyu_llm_frames._runs.stored_answers import StoredAnswers
    from nyu_llm_frames._stages.batches.job import undecidable

    if month is not None and not (len(month) == 7 and month[4] == "-"):
        raise click.UsageError(f"--month takes a month such as 2026-11, not {month!r}.")
    # Beside an output that was filled stands a link to the sidecar of its input.
    paths: dict[Path, Path] = {}
    for path in sidecars or (Path("llm_sidecar"),):
        paths.setdefault(path.resolve(), path)
    every = [StoredAnswers(path, run=run, month=month) for path in paths.values()]
    totals = [stored.totals() for stored in every]
    whole = _sum(totals)
    if html is not None:
        _write_page(html, every, whole)
    if json_:
        found = [_record(stored, some) for stored, some in zip(every, totals, strict=True)]
        all_of_them = {"sidecars": found, "total": totals_record(whole)}
        show.as_json(found[0] if len(found) == 1 else all_of_them)
    else:
        for stored, some in zip(every, totals, strict=True):
            click.echo(str(stored.sidecar.path))
            show.frame(_jobs(stored), json_=False, empty="no batch jobs", whole=["batch job"])
            print_totals(some)
            if len(every) > 1:
                click.echo()
        if len(every) > 1:
            click.echo(f"total of {count(len(every), 'sidecar')}")
            print_totals(whole)
        if html is not None:
            show.note(f"written: {html}")
    jobs = [job for stored in every for job in stored.jobs()]
    code = exits.of_statuses(whole.counts)
    if any(job.carries for job in jobs):
        code = exits.UNCERTAIN if any(map(undecidable, jobs)) else exits.PENDING
    raise click.exceptions.Exit(code)


def _record(stored: StoredAnswers, totals: Totals) -> dict[str, Any]:
    from nyu_llm_frames._runs.result import JOB_COLUMNS, jobs_frame

    jobs = jobs_frame(stored.jobs(), [*JOB_COLUMNS, "run", "outcome", "realm", "gateway"])
    jobs["user"] = [stored.sidecar.who_ran(job.run) for job in stored.jobs()]
    return {
        "sidecar": str(stored.sidecar.path),
        **totals_record(totals),
        "jobs_pending": stored.pending,
        "jobs": show.records(jobs),
    }


def _jobs(stored: StoredAnswers) -> pd.DataFrame:
    """Return the table for people: six columns, and the user where a sidecar has several."""
    import pandas as pd

    from nyu_llm_frames._stages.batches.polling import state_word

    who = [stored.sidecar.who_ran(job.run) for job in stored.jobs()]
    submitted = f"submitted {stored.clock.now().astimezone():%Z}"
    rows = []
    for job in stored.jobs():
        at = job.submitted_at
        rows.append(
            {
                "batch job": job.batch_id or "",
                "state": job.outcome or state_word(job),
                "model": job.model,
                "answers": f"{job.answers or 0:,}/{job.requests:,}",
                submitted: "" if at is None else f"{at.astimezone():%b %d %H:%M}",
                "error": job.error or "",
            }
        )
    table = pd.DataFrame(rows)
    if len(set(who)) > 1:
        table.insert(5, "by", who)
    return table


def _write_page(path: Path, every: Sequence[StoredAnswers], whole: Totals) -> None:
    import nyu_llm_frames
    from nyu_llm_frames._api.report import page
    from nyu_llm_frames._runs.stored_summary import failure_kinds, summary_of
    from nyu_llm_frames._sidecar.storage import atomic_file

    sections = [(summary_of(stored), failure_kinds(stored)) for stored in every]
    total = " · ".join(map(click.unstyle, total_lines(whole))) if len(every) > 1 else ""
    text = page(sections, total=total, version=nyu_llm_frames.__version__)
    if "<svg" not in text and any(stored.jobs() for stored in every):
        show.note('The page has no plots without: pip install "nyu-llm-frames[plot]"')
    with atomic_file(path.absolute(), 0o666) as file:
        file.write(text.encode())


@click.command()
@options.sidecar
@click.option("--all", "all_", is_flag=True, help="One line for each request, not for each reason.")
@click.option("--prompts", is_flag=True, help="Add the request bodies.")
@options.as_json
def failures(sidecar: Path, run: str | None, all_: bool, prompts: bool, json_: bool) -> None:
    """Show why requests have no good answer, with a prompt for each reason, and what may help.

    The exit code is 3 if there are any. Answers are not held to a schema here: those that do not
    fit it have the reason in the output.
    """
    from nyu_llm_frames._runs.stored_answers import StoredAnswers
    from nyu_llm_frames._runs.stored_summary import cures, failure_kinds

    stored = StoredAnswers(sidecar, run=run)
    none = "no failures so far, and batch jobs are not over" if stored.pending else "no failures"
    if all_:
        found = stored.failures(prompts=prompts)
        if not json_:
            found = found[["custom_id", "status", "error", *(["body"] if prompts else [])]]
        show.frame(found, json_=json_, empty=none, whole=["custom_id"])
        some = len(found) > 0
    else:
        kinds = failure_kinds(stored)
        some = len(kinds) > 0
        if json_:
            hidden = () if prompts else ("body",)
            show.as_json([{k: v for k, v in asdict(x).items() if k not in hidden} for x in kinds])
        else:
            for kind in kinds:
                _print_kind(kind, prompts)
            click.echo("\n".join([*cures(kinds, str(sidecar)), _REST]) if kinds else none)
    runs = [record for record in stored.sidecar.runs() if run in (None, record.name)]
    if not json_ and any(record.schema for record in runs):
        show.note(_NOT_HELD)
    if some:
        raise click.exceptions.Exit(exits.NO_GOOD_ANSWER)


def _print_kind(kind: Any, prompts: bool) -> None:
    click.echo(f"{kind.requests:,} {show.colored(kind.status)}: {printable(kind.error)}")
    text = kind.body if prompts else kind.prompt
    click.echo(f"    {kind.custom_id}  {printable(text or '(prompts are not kept)')}\n")


COMMANDS = (status, failures)
