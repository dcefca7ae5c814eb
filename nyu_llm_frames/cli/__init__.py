"""The command ``nyu-llm-frames``.

Comes in: the words of a command line. Goes out: tables or JSON on standard output, reports on
standard error, and an exit code that means something (`nyu_llm_frames.cli.exits`).
"""


def main() -> None:
    """Run the command line; the console script."""
    from nyu_llm_frames.cli.main import cli

    cli()
