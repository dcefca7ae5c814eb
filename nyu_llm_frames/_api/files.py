"""The functions for files: `batch_file` and `read_output`.

Comes in: paths and arguments, as users write them. Goes out: results of the stages behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from typing_extensions import Unpack

from nyu_llm_frames._runs.arguments import Common, Template, collect_arguments, expand_signature

if TYPE_CHECKING:
    from nyu_llm_frames._api.batch_file import FileResult


@expand_signature
def batch_file(
    input_path: str | Path | Sequence[str | Path],
    output_path: str | Path,
    /,
    template: Template,
    *,
    model: str,
    wait: bool = True,
    timeout: float | None = None,
    retries: int = 1,
    max_cost: float | None = None,
    on_error: Literal["keep", "raise"] = "keep",
    sep: str | None = None,
    sheet: str | int | None = None,
    **common: Unpack[Common],
) -> FileResult:
    """
    Answer a prompt for every row of a file of any size, in memory that does not grow with it.

    The same as ``df.llm.batch`` for a table that stays on disk: same requests, same ids, same
    columns. Repeat the same call at any time; it picks up where it left off.

    Parameters
    ----------
    input_path : str, Path, or a list of them
        ``.csv``, ``.tsv`` or ``.jsonl`` (text in UTF-8, also compressed: ``.csv.gz``,
        ``.csv.zst``), ``.parquet``, ``.feather``, ``.arrow`` or ``.xlsx``; or a folder of files of
        one of these kinds. Files of a list are read in its order.
    output_path : str or Path
        ``.csv``, ``.tsv``, ``.jsonl`` (also ``.gz`` and ``.zst`` of these), ``.parquet``,
        ``.feather``, ``.arrow`` or ``.xlsx``; replaced whole. All columns of the input in order,
        then the new ones.
    template, model, wait, timeout, retries, max_cost, on_error, **common
        See ``df.llm.batch``; ``output=`` is the name of the new column. ``sidecar`` is
        ``<stem of the output>.llm`` beside the output by default. ``index`` in a template is the
        row's number from 0, or the index that pandas wrote into a parquet or Feather file.
    sep : str, optional
        The character that separates the columns of a CSV file, whatever its name ends in; by
        default a comma, or a tab in ``.tsv`` and ``.tab``.
    sheet : str or int, optional
        The sheet of an Excel file, by name or by number from 0; by default the first.

    Returns
    -------
    FileResult
        ``output``, ``sidecar``, ``rows``, ``requests`` and ``counts`` (rows per status).

    Raises
    ------
    LLMFramesError
        As ``df.llm.batch``; the run that an error carries works on the sidecar alone.

    Notes
    -----
    CSV columns, their names and row labels are read as ``pandas.read_csv(path, low_memory=False)``
    reads them, except for numbers that pandas would change: those with leading zeros or a ``+``,
    and whole numbers beyond 2**53 beside missing values. Such a column stays text, and a note names
    it. From CSV to CSV every record is copied byte for byte, unless a column is replaced.

    From JSON Lines to JSON Lines, objects are copied unchanged, too. Several CSV or Excel files
    have the columns of ``pandas.concat`` of the frames that pandas reads from them.

    The input's own types, index and column labels in a parquet or Feather file are kept. CSV, JSON
    and Excel cannot hold lists of dates, decimals or bytes: such a column is an error before
    anything is sent.

    Excel files need ``pip install "nyu-llm-frames[excel]"``. A sheet is read whole, with the values
    that Excel stored for its formulas, as ``pandas.read_excel`` reads it, except for what pandas
    would change: numbers stored as text with leading zeros, and booleans beside empty cells; a note
    names such columns. In an output, text never becomes a formula, line ends in a cell are ``\\n``,
    and what does not fit is an error: more than 32,767 characters in a cell (the answers are kept,
    for an output in parquet), or, before anything is sent, more than 1,048,575 rows.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.batch_file("reviews.csv", "answers.parquet", "Summarize: {{ text }}",
    ...                model="gemini-3-flash-preview")  # doctest: +SKIP
    """
    from nyu_llm_frames._api.batch_file import run_file

    return run_file(
        input_path,
        output_path,
        collect_arguments(template, model, common),
        wait=wait,
        timeout=timeout,
        retries=retries,
        max_cost=max_cost,
        on_error=on_error,
        sep=sep,
        sheet=sheet,
    )


def read_output(path: str | Path) -> pd.DataFrame:
    """
    Read any batch output file as a tidy frame, even one with ids from another tool.

    Parameters
    ----------
    path : str or Path
        An output file in JSON Lines: fetched with ``curl`` from NYU's gateway, or written by
        ``vllm run-batch``, or by OpenAI.

    Returns
    -------
    pandas.DataFrame
        One row per line, in the file's order: ``custom_id``, ``status``, ``text``, ``error``,
        ``finish_reason``, ``prompt_tokens``, ``completion_tokens``, ``reasoning_tokens``,
        ``cached_tokens``, ``model``. A line without a usable id has the status "failed", no id,
        and the reason as its error.

    Raises
    ------
    ConfigurationError
        When the file cannot be read.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.read_output("output.jsonl")  # doctest: +SKIP
    """
    from nyu_llm_frames._api.exchange import read_output as read

    return read(path)
