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


def open_table(value: Any) -> Table:
    """Return a value as a table, collected where it is a query or a stream."""
    from nyu_llm_frames._tables.frame import PandasTable
    from nyu_llm_frames._tables.table import Table

    return value if isinstance(value, Table) else PandasTable(value)


def first_rows(value: Any, n: int) -> tuple[Table, int | None]:
    """Return the first rows of a table, and how many it has; None where nobody knows."""
    return open_table(value.head(n)), len(value)
