"""The command ``nyu-llm-frames``.

Comes in: the arguments of a command line. Goes out: tables or JSON on standard output, reports on
standard error, and an exit code that means something (`nyu_llm_frames.cli.exits`).
"""

import sys


def main() -> None:
    """Run the command line; the console script."""
    try:
        from nyu_llm_frames.cli.main import cli
    except KeyboardInterrupt:
        from nyu_llm_frames.cli.exits import INTERRUPTED

        print("Interrupted before anything was done.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    cli()
