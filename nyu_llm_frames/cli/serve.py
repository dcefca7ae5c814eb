"""The embedded gateway on the command line: `serve` and `demo`.

Comes in: an engine and an address. Goes out: a server in the foreground, or the demo.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from nyu_llm_frames.cli import command_options as options


@click.command()
@click.option("--model", type=options.FILE, help="A GGUF file of your own.")
@click.option("--upstream", metavar="URL", help="An OpenAI-compatible server that answers.")
@click.option("--answers", type=click.Choice(["echo"]), help="No model: repeat the prompt.")
@click.option("--upstream-key-env", metavar="NAME", help="Variable that holds the upstream's key.")
@click.option("--data", type=options.FOLDER, help="Job folder. Default: the user's data folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Default: the last one used, or any free one.",
)
@click.option(
    "--api-key-env", metavar="NAME", help="Variable with the key to require. Default: a random one."
)
@click.option("--concurrency", type=int, help="Requests at once. Default: 1; with --upstream 4.")
@click.option("--max-tokens", type=int, default=256, show_default=True)
@click.option("--context", type=int, default=2048, show_default=True, help="Context in tokens.")
def serve(api_key_env: str | None, **given: Any) -> None:
    """Run the embedded gateway in the foreground: a small real model, no key, this machine only.

    Prints the address and the key; Ctrl-C ends it, and unfinished jobs continue at the next start.
    """
    from nyu_llm_frames.local.process import serve as run
    from nyu_llm_frames.local.spec import Key

    key = None
    if api_key_env is not None:
        key = Key(os.environ.get(api_key_env) or "")
        if not key:
            raise click.UsageError(f"The variable {api_key_env} is not set.")
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run(api_key=key, **given)


@click.command(cls=options.Grouped)
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True)
@click.option("--sidecar", type=options.FOLDER, default=Path("demo.llm"), show_default=True)
@options.local
def demo(rows: int, sidecar: Path, gguf: Path | None, **given: Any) -> None:
    """Run a small batch of real rows with a real model on this machine; needs no key.

    The first time it fetches a small model (93 MB); a second call is instant, because every
    answer is in the sidecar.
    """
    from nyu_llm_frames.cli.demo import run

    run(rows=rows, sidecar=sidecar, model=gguf, **given)


COMMANDS = (serve, demo)
