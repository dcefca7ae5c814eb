"""Commands on tables: batch, preview, trial, estimate.

Comes in: the path of a table and a template. Goes out: an output file, or rows to look at.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nyu_llm_frames._shared.options import current
from nyu_llm_frames._shared.wording import count, dollars, printable
from nyu_llm_frames.cli import command_options as options
from nyu_llm_frames.cli import exits, show
from nyu_llm_frames.errors import PartialResultWarning

_DRAWN_FROM = 10_000
_EXAMPLE = """\b
Example:
  nyu-llm-frames batch reviews.csv --out answers.csv --model gemini-3-flash-preview \\
      --prompt "Is this review positive or negative? {{ text }}" --max-tokens 50 --thinking low
Send truncated rows again, with a larger limit:
  nyu-llm-frames batch answers.csv --out filled.csv --if-exists fill --max-tokens 500 ...
"""


@click.command(cls=options.Grouped, epilog=_EXAMPLE)
@options.table(options.model)
@options.run_option(
    "--out", type=options.OUT, required=True, help="Ends in .csv, .jsonl, .parquet, .xlsx, ...."
)
@options.run_option(
    "--no-wait", is_flag=True, help="Take one step and exit; run the command again later."
)
@options.timeout
@options.retries
@options.max_cost
@options.run_option(
    "--on-error",
    type=click.Choice(["keep", "raise"]),
    default="keep",
    help="Whether rows without a good answer are a warning or an error.",
)
@options.sidecar_option
@options.gateway
@options.as_json
def batch(out: Path, no_wait: bool, json_: bool, **given: Any) -> None:
    """Answer a prompt for every row of INPUT: a file, a folder, or several files of one kind.

    CSV, TSV and JSONL (also .gz and .zst), parquet, Feather, Excel.
    Writes all columns and the answers to --out. Run the same command again at any time: it picks
    up where it left off, and nothing is paid for twice.
    """
    from nyu_llm_frames import batch_file

    path, reading = options.take_data(given)
    arguments = options.take_arguments(given)
    with warnings.catch_warnings():
        if json_:
            warnings.simplefilter("ignore", PartialResultWarning)
        # What is left of the options has the same names there.
        result = batch_file(path, out, wait=not no_wait, **given, **reading, **arguments)
    if json_:
        show.as_json(asdict(result))
    elif result.changed or current().progress is not False:  # with -q only what is new: for cron
        cost = "unknown" if result.cost is None else dollars(result.cost)
        rows = f"{count(result.rows, 'row')}: {show.counts(result.counts)}"
        click.echo(f"{result.output}: {rows}; cost {cost}")
    if result.trouble and not json_ and current().progress is False:  # else it was reported already
        show.note(show.in_options(result.trouble))
    raise click.exceptions.Exit(exits.of_statuses(result.counts, result.trouble))


@click.command(cls=options.Grouped)
@options.table(options.any_model)
@click.option("--n", type=click.IntRange(1), default=5, show_default=True, help="Rows.")
@options.gateway
@options.as_json
def preview(n: int, json_: bool, **given: Any) -> None:
    """Show the first prompts as they would be sent; no network, no key."""
    from nyu_llm_frames._api.accessor import FrameMethods
    from nyu_llm_frames._runs.arguments import Arguments
    from nyu_llm_frames._runs.file_run import head

    path, reading = options.take_data(given)
    arguments = options.take_arguments(given)
    table = head(path, Arguments(**arguments), n, **reading)
    found = FrameMethods(table).preview(n=n, **arguments)
    if json_:
        show.as_json(show.records(found))
        return
    for label, row in found.iterrows():
        click.echo(click.style(f"row {label}  {row['custom_id']}", bold=True))
        for message in row["messages"] or []:
            click.echo(
                f"{click.style(message['role'] + ':', fg='cyan')} {printable(_shown(message))}"
            )
        click.echo()


def _shown(message: dict[str, Any]) -> str:
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return "".join(part.get("text", " [image] ") for part in parts)


@click.command(cls=options.Grouped)
@options.table(options.model)
@click.option("--n", type=click.IntRange(1), default=5, show_default=True, help="Rows.")
@click.option("--random-state", type=int, help="Draw the same rows again.")
@options.out
@options.sidecar_option
@options.gateway
@options.as_json
def trial(n: int, random_state: int | None, json_: bool, **given: Any) -> None:
    """Answer a few rows now, live; the batch does not pay for these requests again.

    The rows are drawn from the first 10,000. Give the --out of the later batch, or its --sidecar,
    so that the batch finds the answers.
    """
    from nyu_llm_frames._api.accessor import FrameMethods
    from nyu_llm_frames._runs.arguments import Arguments
    from nyu_llm_frames._runs.file_run import estimate_file, head

    path, reading = options.take_data(given)
    options.take_out(given, path, required=True)
    arguments = options.take_arguments(given)
    table = head(path, Arguments(**arguments), max(n, _DRAWN_FROM), check_columns=True, **reading)
    found = FrameMethods(table).trial(n=n, random_state=random_state, **arguments)
    show.frame(found, json_=json_, empty="no rows")
    if len(table) >= _DRAWN_FROM and not json_:
        whole = estimate_file(path, Arguments(**arguments), retries=0, **reading)
        click.echo(
            show.in_options("\n".join([f"the whole file: {whole.line()}", *whole.cost_lines()]))
        )
    if found[f"{arguments['output']}_error"].notna().any():
        raise click.exceptions.Exit(exits.NO_GOOD_ANSWER)


@click.command(cls=options.Grouped)
@options.table(options.model)
@options.out
@options.sidecar_option
@options.retries
@options.gateway
@options.as_json
def estimate(retries: int, json_: bool, **given: Any) -> None:
    """Estimate what a batch would send and cost; no network, no key."""
    from nyu_llm_frames._runs.arguments import Arguments
    from nyu_llm_frames._runs.file_run import estimate_file

    path, reading = options.take_data(given)
    options.take_out(given, path)
    found = estimate_file(path, Arguments(**options.take_arguments(given)), retries, **reading)
    if json_:
        show.as_json(asdict(found))
    else:
        click.echo(show.in_options(repr(found)))


COMMANDS = (batch, preview, trial, estimate)
