"""Which kind of table a value is.

Comes in: a frame of some library. Goes out: a `Table`. Light to import: what a kind needs is loaded
when one comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from nyu_llm_frames._tables.table import Table


def check_kind(value: object) -> None:
    """Refuse what is no table.

    Raises
    ------
    AttributeError
        As pandas has it of an accessor.
    """
    if not isinstance(value, pd.DataFrame):
        raise AttributeError("df.llm works on a pandas.DataFrame.")


def open_rows(value: Any, first: int | None = None) -> tuple[Table, int]:
    """Return a value as a table, or its first rows, and how many rows it has.

    What is a query or a stream is collected here, once.
    """
    from nyu_llm_frames._tables.frame import PandasTable
    from nyu_llm_frames._tables.table import Table

    if isinstance(value, Table):
        return value, len(value)
    return PandasTable(value if first is None else value.head(first)), len(value)
