"""Local paths, and the error for a URL that is given in place of one.

Comes in: a path as the user gave it. Goes out: a `Path`, or an error that says what to do.
"""

from __future__ import annotations

import re
from pathlib import Path

from nyu_llm_frames.errors import ConfigurationError

# pathlib turns two slashes into one. A scheme of one letter is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def as_url(path: str | Path) -> str | None:
    """Return a URL as it was before it became a path, or None for a path.

    Examples
    --------
    >>> as_url(Path("s3://bucket/key"))
    's3://bucket/key'
    """
    found = _URL.match(str(path))
    if found is None:
        return None
    slashes = ":///" if found[1] == "file" else "://"
    return f"{found[1]}{slashes}{str(path)[found.end() :]}"


def local_path(path: str | Path, what: str, instead: str = "Give a path on this machine.") -> Path:
    """Return a path with the home folder in place of ``~``, or raise if it is none, or a URL.

    Messages say `what` the path is for, and what to do `instead` of giving a URL.
    """
    if not isinstance(path, str | Path) or not str(path).strip() or "\0" in str(path):
        raise ConfigurationError(f"{what} must be a path, not {path!r}.")
    url = as_url(path)
    if url is not None:
        if url.startswith("file://"):
            instead = f"Give the path alone: {url.removeprefix('file://')}"
        raise ConfigurationError(
            f"{what} {url} is a URL, and only files on this machine are read and written. {instead}"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as e:  # a user unknown to this machine
        raise ConfigurationError(f"{what} {path}: {e}") from None


def natural_order(path: str | Path) -> tuple[list[str | int], str]:
    """Return the sort key that puts part.2 before part.10, as Dask orders the files of a folder."""
    text = str(path)
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text
