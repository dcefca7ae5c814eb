"""The ids of units: a unit is what a coder sees, and its id a digest of the shown cells.

Comes in: plain Python values of the shown columns. Goes out: their texts, and one id a row. Equal
texts are one unit, in every frame and whatever the prompt, the model and the order of rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b


def shown_texts(values: Sequence[object]) -> list[str | None]:
    """Return cells as a prompt prints them; a missing one is None.

    Parameters
    ----------
    values : sequence
        Cells of one column, as `to_python` gives them.

    Raises
    ------
    TypeError
        A cell has no stable text.
    """
    return [None if value is None else str(value) for value in values]


def unit_ids(columns: Sequence[Sequence[str | None]]) -> list[str]:
    """Return the unit of each row.

    Parameters
    ----------
    columns : sequence of sequences
        The texts of each shown column; shape (columns, rows).

    Returns
    -------
    list of str
        ``u-`` and 32 hex digits of BLAKE2b-16 (RFC 7693) over the compact ASCII JSON list of the
        row's texts; a missing one is null.

    Examples
    --------
    >>> unit_ids([["Paris is in France."]])
    ['u-70f7102d731aec779b1dbabb844d3a34']
    """
    encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
    return [f"u-{_digest(encode(cells).encode())}" for cells in zip(*columns, strict=True)]


def order_key(unit: str, *salt: object) -> str:
    """Return the sort key of a unit, which depends on it and the salt alone."""
    return _digest(json.dumps([*map(str, salt), unit]).encode())


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
