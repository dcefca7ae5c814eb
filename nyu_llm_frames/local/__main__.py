"""Runs the embedded gateway in a process of its own, for `ensure_server`.

Comes in: the arguments of `serve`, as one JSON object. Goes out: a server in the foreground, or
exit code 2 if it cannot start. People use the command ``nyu-llm-frames serve``.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from nyu_llm_frames.errors import LLMFramesError
from nyu_llm_frames.local.process import USAGE, serve


def main() -> int:
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        serve(**json.loads(sys.argv[1]))
    except LLMFramesError as error:
        print(f"nyu-llm-frames serve: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
