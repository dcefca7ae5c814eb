"""Refuse what would fail or vanish silently, before anything is uploaded.

Errors have the first row's label, how many rows are affected, and how to fix it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from nyu_llm_frames._stages.requests.bodies import Requests
from nyu_llm_frames._stages.requests.routes import ProviderRoute
from nyu_llm_frames.errors import RequestError


def shown_label(label: Any) -> Hashable:
    """Return a row's label as Python prints it, not as ``np.int64(5)``."""
    plain: Hashable = label.item() if isinstance(label, np.generic) else label
    return plain


def check_roles(roles: Sequence[str], way: ProviderRoute) -> None:
    """Refuse an order of messages that the model does not take.

    Neighbors of the same role are merged into one turn in transit; nothing is lost, so
    they are allowed.
    """
    systems = [i for i, role in enumerate(roles) if role == "system"]
    if systems and systems != [0]:
        raise RequestError(
            f"Message {systems[-1]} is a system message. Only the first message counts as one, "
            "and any other is lost in transit. Put all of it into system=."
        )
    if way == "gemini" and roles[-1] == "assistant":
        raise RequestError(
            "The last message has the role assistant, and the model answers a user. End with a "
            'user message, as {"role": "user", "content": "..."}.'
        )


def empty_texts(texts: Sequence[str]) -> list[int]:
    """Return the positions of texts that are empty or blank."""
    if all(map(str.strip, texts)):
        return []
    return [i for i, text in enumerate(texts) if not text.strip()]


def check_texts(empty: Sequence[Sequence[int]], roles: Sequence[str], labels: Any) -> None:
    """Refuse messages without text: the model would refuse them, or get no question.

    `empty` has for each message the positions of the rows where it is empty.
    """
    for role, places in zip(roles, empty, strict=True):
        if not places:
            continue
        row = shown_label(labels[places[0]])
        what = "prompt" if role == "user" else f"{role} message"
        raise RequestError(
            f"The {what} is empty in {len(places):,} of {len(labels):,} rows, first in row "
            f"{row!r}. Drop these rows first, or let the template say something.",
            row=row,
            count=len(places),
        )


def check_sizes(requests: Requests, max_bytes: int, labels: Any) -> None:
    """Refuse requests that no input file can hold."""
    sizes = requests.line_bytes()
    large = np.flatnonzero(sizes > max_bytes)
    if not len(large):
        return
    rows = np.flatnonzero(np.isin(requests.codes, large))
    row = shown_label(labels[int(rows[0])])
    raise RequestError(
        f"The request of row {row!r} has {sizes[requests.codes[rows[0]]]:,} bytes, above "
        f"max_bytes_per_file ({max_bytes:,}); {len(rows):,} rows are too large. Shorten the text; "
        "images and documents can stay in a bucket and be named by a gs:// URL.",
        row=row,
        count=len(rows),
    )
