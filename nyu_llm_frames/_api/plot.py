"""`run.plot()`: up to four plots of a run, those that have data to show.

Comes in: a `Summary`. Goes out: Axes. matplotlib is imported only when needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nyu_llm_frames._runs.summary import Summary
from nyu_llm_frames._shared.pictures import ink, panels
from nyu_llm_frames._shared.wording import count, dollars
from nyu_llm_frames._stages.answers.answer import NO_FAILURE
from nyu_llm_frames._stages.batches.polling import state_word

_OK, _BAD, _WAIT = "#2a9d5c", "#d1603d", "#9aa3ad"
_TOKENS = {"prompt": "#4c78a8", "output": "#2a9d5c", "thinking": "#b279a2"}
_SHOWN_JOBS = 30
_FEWEST = 3  # bars that a plot has room for at least: a single one would fill it
_BINS = 40


def plot(summary: Summary) -> Any:
    """Draw a run; return an array of Axes: jobs, answers, tokens and cost, where there are any."""
    drawn = [draw for draw, there in _PANELS if there(summary)] or [_nothing]
    title = f"{summary.models}: {count(summary.rows, summary.noun)}, {summary.state}"
    with panels("run.plot()", [(5.0, 3.0)] * len(drawn), 2, title) as axes:
        for ax, draw in zip(axes, drawn, strict=True):
            draw(ax, summary)
            ink(ax)
    return axes


def _nothing(ax: Any, summary: Summary) -> None:
    ax.text(0.5, 0.5, "nothing was sent yet", ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()


def _jobs(ax: Any, summary: Summary) -> None:
    """A line per batch job, from its submission to its end or to now."""
    import matplotlib.dates as dates

    made = [job for job in summary.jobs if job.submitted_at is not None]
    zone = summary.at.astimezone().tzinfo
    ax.set_title(f"Batch jobs over time ({summary.at.astimezone():%Z})", fontsize=10)
    shown = made[-_SHOWN_JOBS:]
    for row, job in enumerate(shown):
        start = dates.date2num(job.submitted_at)
        end = dates.date2num(job.ended_at or job.done_at or summary.at)
        color = _WAIT if job.carries else _OK if job.outcome == "completed" else _BAD
        ax.barh(row, max(end - start, 1e-9), left=start, color=color, height=0.6)
        word = job.outcome or state_word(job)
        ax.annotate(
            f" {count(job.requests, 'request')}, {word}",
            (end, row),
            va="center",
            fontsize=8,
        )
    ax.set_yticks([])
    ax.set_ylim(max(len(shown), _FEWEST) - 0.4, -0.6)
    ax.set_ylabel("job" if len(made) == len(shown) else f"the last {len(shown)} jobs", fontsize=8)
    locator = dates.AutoDateLocator(maxticks=5, tz=zone)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
    low, high = ax.get_xlim()
    room = max(high - low, 1 / 86_400)  # days: at least a second, or no ticks are found
    ax.set_xlim(low, low + 1.6 * room)  # room for the labels behind the bars


def _statuses(ax: Any, summary: Summary) -> None:
    ax.set_title(f"{summary.noun.capitalize()}s by status", fontsize=10)
    counts = summary.ordered_counts()
    names = [status for status, _ in counts]
    numbers = [n for _, n in counts]
    colors = [_OK if s == "ok" else _WAIT if s in NO_FAILURE else _BAD for s in names]
    bars = ax.barh(names, numbers, color=colors, height=0.6)
    ax.bar_label(bars, labels=[f" {n:,}" for n in numbers], fontsize=8)
    ax.set_ylim(max(len(names), _FEWEST) - 0.4, -0.6)
    ax.set_xlim(0, max(numbers) * 1.15)
    ax.set_xlabel(f"{summary.noun}s", fontsize=8)


def _distribution(ax: Any, summary: Summary) -> None:
    """Histograms on a common logarithmic axis: thinking can be a hundred times the answer."""
    ax.set_title("Tokens per request", fontsize=10)
    tokens = {name: v[v > 0] for name, v in summary.tokens.items()}
    tokens = {name: v for name, v in tokens.items() if len(v)}
    low = min(float(v.min()) for v in tokens.values())
    high = max(float(v.max()) for v in tokens.values())
    bins = np.geomspace(low * 0.9, high * 1.1, _BINS)
    for name, values in tokens.items():
        label = f"{name}, median {np.median(values):,.0f}"
        ax.hist(values, bins, histtype="stepfilled", alpha=0.8, color=_TOKENS[name], label=label)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.xaxis.set_minor_formatter("")
    if high / low < 30:
        ax.set_xticks(_round_ticks(low, high))
    ax.set_xlabel("tokens", fontsize=8)
    ax.set_ylabel("requests", fontsize=8)
    ax.legend(fontsize=8, frameon=False)


def _round_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers."""
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    every = np.sort(np.concatenate([tens, 2 * tens, 5 * tens]))
    shown = [float(x) for x in every if low * 0.9 <= x <= high * 1.1]
    return shown if len(shown) > 1 else sorted({low, high})


def _cost(ax: Any, summary: Summary) -> None:
    assert summary.costs is not None
    ax.set_title(f"Cost per request, {dollars(summary.cost or 0.0)} in all", fontsize=10)
    ax.hist(summary.costs * 100, _BINS, color=_TOKENS["prompt"], alpha=0.8)
    ax.set_xlabel("US cents", fontsize=8)
    ax.set_ylabel("requests", fontsize=8)


_PANELS: tuple[tuple[Callable[[Any, Summary], None], Callable[[Summary], bool]], ...] = (
    (_jobs, lambda s: any(job.submitted_at is not None for job in s.jobs)),
    (_statuses, lambda s: len(s.counts) > 1),  # a single one is in the title
    (_distribution, lambda s: any((v > 0).any() for v in s.tokens.values())),
    (_cost, lambda s: s.costs is not None and bool(s.costs.any())),
)
