"""What a command prints: a table for people, JSON for scripts.

Comes in: frames and records. Goes out: text on standard output; everything that only reports
progress goes to standard error, so that a pipe gets the result alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._shared.views import Display
from nyu_llm_frames._shared.wording import printable, shortened

if TYPE_CHECKING:
    import pandas as pd

COLORS = {
    **dict.fromkeys(("ok", "completed", "done"), "green"),
    **dict.fromkeys(("pending", "running", "queued"), "cyan"),
    **dict.fromkeys(("skipped", "truncated"), "yellow"),
    **dict.fromkeys(("empty", "failed", "missing", "refused", "blocked", "invalid"), "red"),
    **dict.fromkeys(("damaged", "cancelled", "expired"), "red"),
}
_CELL, _NARROWEST = 60, 8

OPTIONS = (
    "system", "schema", "images", "output", "prefix", "if_exists", "missing", "max_tokens",
    "temperature", "top_p", "seed", "stop", "thinking", "sidecar", "timeout", "retries",
    "max_cost", "base_url", "provider", "bucket", "sep", "sheet",
)  # fmt: skip
"""Arguments that are options of `batch` under the same name."""
# An argument in a sentence: after a blank or a parenthesis, with a simple value or none.
_ARGUMENT = re.compile(
    rf"""(?<![^\s(])({"|".join(OPTIONS)})="""
    r"""("[^"\s\\]*"|'(?:[^'\s\\]|\\t)*'|\$?\d(?:[\d.,]*\d)?)?(?=[.,:;)]?(?:\s|$))"""
)
# Python stays Python: a call with its arguments. Text of a user does, too: the lines of a template.
_CALL, _SOURCE = re.compile(r"\w\([^()]*\)"), re.compile(r"\s*\d+ \| ")


class Report(Display):
    """The progress hook of the command line: lines and the moving line, on standard error."""

    def __call__(self, progress: Progress) -> None:
        if progress.phase in ("interrupted", "done"):
            return  # reported once, by the commands, in the words of a command line
        with contextlib.redirect_stdout(sys.stderr):
            if progress.phase == "note":
                progress = replace(progress, message=in_options(progress.message))
            super().__call__(progress)


def in_options(text: str) -> str:
    """Put a message for Python into the words of a command line.

    Examples
    --------
    >>> in_options('Use if_exists="fill" with a larger max_tokens=.')
    'Use --if-exists fill with a larger --max-tokens.'
    """
    return "\n".join(
        line if _SOURCE.match(line) else _line_in_options(line) for line in text.split("\n")
    )


def _line_in_options(line: str) -> str:
    line = re.sub(
        r"\bdf\.llm\.(batch|trial|preview|estimate)\(\.\.\.\)", r"nyu-llm-frames \1", line
    )
    calls = [found.span() for found in _CALL.finditer(line)]

    def option(found: re.Match[str]) -> str:
        if any(start < found.start() < end for start, end in calls):
            return found[0]
        value = found[2] or ""
        plain = value.strip("\"'").replace(",", "")
        value = plain if re.fullmatch(r"[$\w.-]*", plain) else value
        return f"--{found[1].replace('_', '-')}{value and ' '}{value}"

    return _ARGUMENT.sub(option, line)


def note(text: str) -> None:
    """Print a line for people, on standard error."""
    click.echo(text, err=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame as JSON values: NA is null, times are ISO 8601."""
    text = frame.to_json(orient="records", date_format="iso", force_ascii=False)
    out: list[dict[str, Any]] = json.loads(text)
    return out


def as_json(value: object) -> None:
    """Print one JSON document; control characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    click.echo("\n".join(map(_escaped, text.split("\n"))))


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def frame(
    data: pd.DataFrame, *, json_: bool, empty: str = "nothing", whole: Sequence[str] = ()
) -> None:
    """Print a frame; the columns of ids in `whole` are never cut."""
    if json_:
        as_json(records(data))
    elif data.empty:
        click.echo(empty)
    else:
        table(data, whole)


def counts(numbers: Mapping[str, int]) -> str:
    """Return counts by status in one line, the largest first."""
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    return ", ".join(f"{n:,} {colored(word)}" for word, n in ordered if n) or "none"


def colored(word: str) -> str:
    """Return a status in its color; without a terminal click removes the color again."""
    return click.style(word, fg=COLORS[word]) if word in COLORS else word


def table(data: pd.DataFrame, whole: Sequence[str] = ()) -> None:
    """Print a frame in aligned columns, cut to the width of the terminal."""
    header = [str(c) for c in data.columns]
    rows = [[_cell(value) for value in row] for row in data.itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    room = shutil.get_terminal_size((120, 24)).columns
    widths = _fit(widths, room, [name in whole for name in header])
    click.echo(click.style(_line(header, widths), bold=True))
    for row in rows:
        click.echo(_line(row, widths, colored))


def _fit(widths: list[int], room: int, whole: list[bool]) -> list[int]:
    """Shorten the widest columns until the line fits, except those that stay whole."""
    out = [w if kept else min(w, _CELL) for w, kept in zip(widths, whole, strict=True)]
    while sum(out) + 2 * (len(out) - 1) > room:
        most = max((w for w, kept in zip(out, whole, strict=True) if not kept), default=0)
        if most <= _NARROWEST:
            break
        at = next(i for i, w in enumerate(out) if w == most and not whole[i])
        out[at] -= 1
    return out


def _line(words: list[str], widths: list[int], style: Callable[[str], str] = str) -> str:
    pairs = zip(words, widths, strict=True)
    cut = [(shortened(w, n), n) for w, n in pairs]
    return "  ".join(style(w) + " " * (n - len(w)) for w, n in cut).rstrip()


def _cell(value: object) -> str:
    import pandas as pd

    if isinstance(value, list | dict):
        return " ".join(printable(json.dumps(value, ensure_ascii=False)).split())
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return ""
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:,.4g}"
    return " ".join(printable(str(value)).split())
