"""`batch_file`: ``df.llm.batch`` for a table that stays on disk.

Comes in: paths and the arguments of ``df.llm.batch``. Goes out: an output file and its record.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_run import FileRun
from nyu_llm_frames._runs.prepare import check_endings, check_retries, sidecar_path
from nyu_llm_frames._runs.summary import failures_text
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.stack import users_level
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.folder import is_sidecar
from nyu_llm_frames._stages.cost.estimate import check_max_cost
from nyu_llm_frames._tables.sink import check_output, check_outside
from nyu_llm_frames._tables.source import Paths, open_source
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
        text = ", ".join(f"{n:,} {s}" for s, n in sorted(self.counts.items(), key=lambda x: -x[1]))
        return (
            f"<{self.output}: {count(self.rows, 'row')} ({text or 'none'}); sidecar {self.sidecar}>"
        )


def beside_output(output: Path, input_path: Path, if_exists: str) -> Path:
    """Return the sidecar of a call that gives none: beside the output.

    With ``if_exists="fill"`` the input is an earlier call's output, and its sidecar knows the rows
    that are still pending.
    """
    earlier = with_suffix(input_path.absolute(), ".llm")
    is_there = if_exists == "fill" and is_sidecar(earlier)
    return earlier if is_there else with_suffix(output, ".llm")


def run_file(
    input: Paths,
    output: str | Path,
    arguments: Arguments,
    *,
    sep: str | None,
    sheet: str | int | None,
    wait: bool,
    timeout: float | None,
    retries: int,
    max_cost: float | None,
    on_error: str,
) -> FileResult:
    """Answer a file; see `nyu_llm_frames.batch_file`."""
    seconds = check_endings(wait, timeout, on_error)
    options = _options.current()
    source = open_source(input, sep=sep, sheet=sheet)
    target = check_output(output, source)
    if arguments.sidecar is None and options.sidecar is None:
        sidecar = beside_output(target, source.path, arguments.if_exists)
        arguments = replace(arguments, sidecar=sidecar)
    check_outside(sidecar_path(arguments, options), source, "sidecar")
    attempts, limit = check_retries(retries), check_max_cost(max_cost, options.max_cost)
    is_new = not target.exists()
    whole = FileRun(source, target, arguments, attempts, limit, current_clock())
    with closing(whole) as run:
        run.answer(wait, seconds)
        counts, examples = run.write()
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
        warnings.warn(text, PartialResultWarning, stacklevel=users_level())
    return result
