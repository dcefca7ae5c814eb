"""Runs the embedded gateway from the command line: ``python -m nyu_llm_frames.local``.

Comes in: arguments. Goes out: a server in the foreground, or exit code 2 if it cannot start.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nyu_llm_frames.errors import LLMFramesError
from nyu_llm_frames.local.process import USAGE, serve
from nyu_llm_frames.local.spec import Key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server's arguments to a parser."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--model", type=Path, metavar="GGUF", help="a model file of your own")
    who.add_argument("--upstream", metavar="URL", help="an OpenAI-compatible server that answers")
    who.add_argument("--answers", choices=["echo"], help="no model: repeat the prompt")
    parser.add_argument("--upstream-key-env", metavar="NAME", help="variable with its key")
    parser.add_argument("--data", type=Path, help="folder of the stores (default: user data)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port (default: any free one)")
    parser.add_argument("--api-key", type=Key, help="required key (default: a random one)")
    parser.add_argument("--concurrency", type=int, help="requests at once (1; upstream: 4)")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=256,
        help="tokens of an answer, unless the request sets it (default: %(default)s)",
    )
    parser.add_argument(
        "--context", type=int, default=2048, help="tokens of prompt and answer (%(default)s)"
    )
    parser.add_argument("--until-unused", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--grace", type=float, default=10.0, help=argparse.SUPPRESS)


def serve_arguments(arguments: argparse.Namespace) -> None:
    """Run a server with these arguments."""
    serve(
        data=arguments.data,
        model=arguments.model,
        upstream=arguments.upstream,
        answers=arguments.answers,
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        until_unused=arguments.until_unused,
        concurrency=arguments.concurrency,
        max_tokens=arguments.max_tokens,
        context=arguments.context,
        upstream_key_env=arguments.upstream_key_env,
        grace_s=arguments.grace,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; return the exit code."""
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="nyu-llm-frames serve", description=__doc__)
    add_arguments(parser)
    try:
        serve_arguments(parser.parse_args(arguments))
    except LLMFramesError as error:
        print(f"nyu-llm-frames serve: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
