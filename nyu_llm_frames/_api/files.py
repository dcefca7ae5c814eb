"""`batch_file`: ``df.llm.batch`` for a table that stays on disk.

Comes in: paths and the arguments of ``df.llm.batch``. Goes out: an output file and its record.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from nyu_llm_frames._runs.arguments import Common, Template, collect_arguments, expand_signature
from nyu_llm_frames._runs.file_run import FileRun
from nyu_llm_frames._runs.prepare import check_endings, check_retries, sidecar_path
from nyu_llm_frames._runs.summary import failures_text, rows_text
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._sidecar.folder import is_sidecar
from nyu_llm_frames._stages.cost.estimate import check_max_cost
from nyu_llm_frames._tables.sink import check_output, check_outside
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames._tables.text_file import with_suffix
from nyu_llm_frames.errors import PartialResultError, PartialResultWarning


@dataclass(frozen=True, slots=True)
class FileResult:
    """What `batch_file` wrote.

    Attributes
    ----------
    output, sidecar : Path
    rows, requests : int
        Rows of the file, and the distinct requests that they make.
    counts : dict of str to int
        Rows per status; "pending" ones only with ``wait=False``.
    trouble : str
        Why a step without waiting did not go on: the gateway was not reached. Else "".
    cost : float or None
        US dollars, from the usage that answers report; None where no price is known.
    changed : bool
        Whether this call did more than an earlier one: a batch job went on, or the output is new.
    """

    output: Path
    sidecar: Path
    rows: int
    requests: int
    counts: dict[str, int] = field(default_factory=dict)
    trouble: str = ""
    cost: float | None = None
    changed: bool = True

    def __repr__(self) -> str:
        return f"<{self.output}: {rows_text(self.counts)}; sidecar {self.sidecar}>"


def beside_output(output: Path, input_path: Path, if_exists: str) -> Path:
    """Return the sidecar of a call that gives none: beside the output, as a rule.

    With ``if_exists="fill"`` or ``"replace"`` the input may be an earlier call's output: then the
    sidecar beside it holds the answers that would be paid for again, and, for a fill, the rows that
    are still pending. A link beside the new output points to it.
    """
    beside, earlier = (with_suffix(p.absolute(), ".llm") for p in (output, input_path))
    known = {"fill": (earlier, beside), "replace": (beside, earlier)}.get(if_exists, ())
    chosen = next(filter(is_sidecar, known), beside)
    return chosen.resolve() if chosen.is_symlink() else chosen


def _link_beside(output: Path, sidecar: Path) -> None:
    """Let the next fill, of this output, find the sidecar."""
    beside = with_suffix(output, ".llm")
    if not beside.exists():
        with suppress(OSError):  # no links here: then that fill begins a sidecar of its own
            beside.symlink_to(os.path.relpath(sidecar, beside.parent))


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
        ``.feather``, ``.arrow`` or ``.xlsx``; replaced as a whole. All columns of the input in
        order, then the new ones.
    template, model, wait, timeout, retries, max_cost, on_error, **common
        See ``df.llm.batch``; ``output=`` is the name of the new column. ``sidecar`` is
        ``<stem of the output>.llm`` beside the output by default; with ``if_exists="fill"`` it is
        the input's, if that has one (with ``"replace"`` unless the output has one of its own), and
        a link to it stands beside the output. ``index`` in a template is the row's number from 0,
        or the index that pandas wrote into a parquet or Feather file.
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
    and whole numbers beyond 2**53 beside fractions or missing values. Such a column stays text, and
    a note names it. From CSV to CSV every record is copied byte for byte, unless a column is
    replaced.

    From JSON Lines to JSON Lines, objects are copied unchanged, too. Several CSV or Excel files
    have the columns of ``pandas.concat`` of the frames that pandas reads from them.

    The input's own types, index and column labels in a parquet or Feather file are kept. CSV, JSON
    and Excel cannot hold lists of dates, decimals or bytes: such a column is an error before
    anything is sent.

    Excel files need ``pip install "nyu-llm-frames[excel]"``. A sheet is read into memory, with the
    values that Excel stored for its formulas, as ``pandas.read_excel`` reads it, except for what
    pandas would change: numbers stored as text with leading zeros, and booleans beside empty cells;
    a note names such columns. In an output, text never becomes a formula, line ends in a cell are
    ``\\n``, and what does not fit is an error: more than 32,767 characters in a cell (the
    answers are kept, for an output in parquet), or, before anything is sent, more than 1,048,575
    rows.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.batch_file("reviews.csv", "answers.parquet", "Summarize: {{ text }}",
    ...                model="gemini-3-flash-preview")  # doctest: +SKIP
    """
    arguments = collect_arguments(template, model, common)
    seconds = check_endings(wait, timeout, on_error)
    options = _options.current()
    source = open_source(input_path, sep=sep, sheet=sheet)
    target = check_output(output_path, source)
    is_beside = arguments.sidecar is None and options.sidecar is None
    if is_beside:
        sidecar = beside_output(target, source.path, arguments.if_exists)
        arguments = replace(arguments, sidecar=sidecar)
    check_outside(sidecar_path(arguments, options), source, "sidecar")
    attempts, limit = check_retries(retries), check_max_cost(max_cost, options.max_cost)
    is_new = not target.exists()
    whole = FileRun(source, target, arguments, attempts, limit, current_clock())
    with closing(whole) as run:
        run.answer(wait, seconds)
        counts, examples = run.write()
        if is_beside:
            _link_beside(target, run.sidecar.path)
        execution = run.execution
        trouble = "" if wait else execution.trouble
        result = FileResult(
            target,
            run.sidecar.path,
            run.bands.rows,
            execution.ctx.requests,
            counts,
            trouble,
            run.cost,
            changed=is_new or execution.changed,
        )
    text = failures_text(counts, examples, f"{arguments.output}_error of {result.output}")
    if text and on_error == "raise":
        raise PartialResultError(text, run=run.stored(), counts=result.counts)
    if text and (result.changed or options.progress is not False):  # once is enough for cron
        warn_user(text, PartialResultWarning)
    return result
