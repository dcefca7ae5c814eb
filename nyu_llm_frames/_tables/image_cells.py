"""The image columns of a frame, and the files that they name.

Comes in: columns and `images=`; later a path. Goes out: cells per column; the content of a file.
Image files are opened only here.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from nyu_llm_frames._shared.local_path import as_url
from nyu_llm_frames._stages.prompts.python_values import unwrapped
from nyu_llm_frames._stages.prompts.template_errors import no_column
from nyu_llm_frames._stages.requests.media import HEAD_BYTES, holds_nothing
from nyu_llm_frames._stages.requests.preflight import shown_label
from nyu_llm_frames._tables.table import Mask
from nyu_llm_frames.errors import (
    ConfigurationError,
    MissingValueError,
    RequestError,
)

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})


def image_columns(columns: Sequence[Hashable], images: object) -> tuple[Hashable, ...]:
    """Return the labels that ``images=`` names."""
    if images is None:
        return ()
    labels = list(images) if isinstance(images, list | tuple) else [images]
    if not labels:
        raise ConfigurationError("images=[] names no column; leave it out.")
    known = list(columns)
    for label in labels:
        if not isinstance(label, Hashable) or isinstance(label, bytes | Path):
            raise ConfigurationError(
                f"images= takes the name of a column, or a list of names, not a "
                f"{type(label).__name__}. Put the images into a column first."
            )
        if label not in known:
            text = f"images= names {label!r}, which is not a column."
            raise no_column(f"{text} Files, URLs and bytes go into one.", label, known)
        if known.count(label) > 1 or labels.count(label) > 1:
            raise ConfigurationError(f"images= finds the column {label!r} more than once.")
    return tuple(labels)


def image_cells(
    values: Mapping[Hashable, Sequence[object]], labels: Sequence[Any]
) -> dict[Hashable, list[object]]:
    """Return the cells of image columns; missing ones as None, and PIL images as bytes."""
    found: dict[Hashable, list[object]] = {}
    for label, column in values.items():
        found[label] = []
        for i, cell in enumerate(column):
            try:
                found[label].append(_cell(unwrapped(cell)))
            except RequestError as e:
                row = shown_label(labels[i])
                raise RequestError(f"Row {row!r}, column {label!r}: {e}", row=row) from None
    return found


def _cell(cell: object) -> object:
    if isinstance(cell, list):
        return [_cell(item) for item in cell]
    pillow: Any = sys.modules.get("PIL.Image")  # not imported: there is no such image
    if pillow is not None and isinstance(cell, pillow.Image):
        return _png(cell)
    return None if holds_nothing(cell) else cell


def _png(image: Any) -> bytes:
    """Encode only the pixels, not the file that they may have been read from.

    Viewing an image loads it, and that must not make another request.
    """
    out = io.BytesIO()
    try:
        if image.mode not in _PNG_MODES:
            image = image.convert("RGB")
        image.save(out, "PNG")
    except (OSError, ValueError, SyntaxError, SystemError) as e:
        # closed, cut off, damaged, or of no size
        raise RequestError(f"the pixels of the PIL image cannot be read: {e}.") from None
    return out.getvalue()


def missing_image_error(
    every: Sequence[Any], missing: Mask, counts: Mapping[Hashable, int]
) -> MissingValueError:
    """Say how many image cells are missing, where, and how to fix it."""
    labels = [shown_label(every[i]) for i in np.flatnonzero(missing)[:3]]
    places = ", ".join(f"{n:,} in column {label!r}" for label, n in counts.items())
    rows = "row" if len(labels) == 1 else "rows"
    return MissingValueError(
        f"Missing images: {places} ({rows} {', '.join(repr(x) for x in labels)}"
        f'{", …" if missing.sum() > 3 else ""}). To fix it: missing="skip" leaves these rows '
        "without an answer; an empty list sends the text alone; or drop them first.",
        columns=counts,
        rows=labels,
    )


def look(path: str, root: PurePath | None = None) -> tuple[int, bytes]:
    """Return a file's size and its first bytes.

    Outside of `root` nothing is read, wherever links lead.
    """
    url = as_url(path)
    if url is not None:
        raise RequestError(f"{url!r} is a URL, which a Path changes: give it as text.")
    with _allowed(path, root) as full:
        # Not `open` first: it waits forever at a pipe.
        if not stat.S_ISREG(full.stat().st_mode):
            raise RequestError(f"{path!r} is not a file.")
        with full.open("rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)


def read(path: str, root: PurePath | None = None) -> bytes:
    """Return a file's bytes; otherwise as `look`."""
    with _allowed(path, root) as full:
        return full.read_bytes()


@contextmanager
def _allowed(path: str, root: PurePath | None) -> Iterator[Path]:
    """Give a file that may be read, and say why it cannot be."""
    full = Path(path)
    try:
        full = full.expanduser()
        if root is not None:
            full = full.resolve()
            if not full.is_relative_to(Path(root).expanduser().resolve()):
                raise RequestError(
                    f"the file {path!r} is outside images_root={str(root)!r}, so it is not read."
                )
        yield full
    except RequestError:
        raise
    except FileNotFoundError:
        where = "" if full.is_absolute() else f" in {Path.cwd()}"
        raise RequestError(f"the file {path!r} does not exist{where}.") from None
    except (OSError, ValueError, RuntimeError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise RequestError(f"the file {path!r} cannot be read: {reason}.") from None
