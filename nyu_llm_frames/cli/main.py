"""The group of all commands: errors become messages and exit codes here, and nowhere else.

Comes in: a command and its words. Goes out: what the command does, under a progress hook that
writes to standard error.
"""

from __future__ import annotations

import warnings
from typing import Any

import click

import nyu_llm_frames
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames.cli import (
    doctor,
    exits,
    price_list,
    serve,
    show,
    sidecar_commands,
    stored_views,
    table_commands,
)
from nyu_llm_frames.errors import (
    LLMFramesError,
    PartialResultWarning,
    TruncationWarning,
    UncertainSubmissionError,
)

_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in exits.MEANING.items())
_EPILOG = f"""\b
Exit codes:
{_CODES}

\b
Completion in bash, in ~/.bashrc (zsh and fish likewise):
  eval "$(_NYU_LLM_FRAMES_COMPLETE=bash_source nyu-llm-frames)"
"""


class _Group(click.Group):
    """Runs a command; every failure ends in a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        report = show.Report()
        chosen: dict[str, Any] = {"progress": False if ctx.params["quiet"] else report}
        if ctx.params["poll_interval"] is not None:
            seconds = chosen["poll_interval_s"] = ctx.params["poll_interval"]
            chosen["max_poll_interval_s"] = max(seconds, _options.current().max_poll_interval_s)
        try:
            with _options.set_options(**chosen), warnings.catch_warnings():
                warnings.showwarning = _warn
                for kind in (PartialResultWarning, TruncationWarning):
                    warnings.simplefilter("always", kind)
                return super().invoke(ctx)
        except LLMFramesError as error:
            show.note(click.style("Error: ", fg="red", bold=True) + show.in_options(str(error)))
            if isinstance(error, UncertainSubmissionError):
                show.note(
                    "On the command line: nyu-llm-frames resolve SIDECAR --adopt BATCH_ID, or "
                    "--resubmit."
                )
            ctx.exit(exits.of_error(error))
        except KeyboardInterrupt:
            show.note("Interrupted. What was submitted continues; the same command picks it up.")
            ctx.exit(exits.INTERRUPTED)
        finally:
            report.close()


def _warn(message: Warning | str, *args: Any, **more: Any) -> None:
    show.note(click.style("Warning: ", fg="yellow", bold=True) + show.in_options(str(message)))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(nyu_llm_frames.__version__, prog_name="nyu-llm-frames")
@click.option("--quiet", "-q", is_flag=True, help="Report no progress.")
@click.option("--poll-interval", type=float, metavar="SECONDS", help="First pause between polls.")
def cli(quiet: bool, poll_interval: float | None) -> None:
    """LLM batch inference for tables: answer a prompt for every row of a file of any size.

    Any command can be interrupted and run again: it picks up where it left off, and nothing is
    paid for twice.
    """


for _module in (table_commands, stored_views, sidecar_commands, price_list, serve, doctor):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
