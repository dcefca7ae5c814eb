"""How a run looks: text for consoles, HTML for notebooks.

Comes in: a `Summary`. Goes out: strings. Answers and errors are untrusted text:
everything is escaped, here and only here.
"""

from __future__ import annotations

from html import escape

from nyu_llm_frames._runs.summary import Summary
from nyu_llm_frames._shared.cards import CARD_STYLE, facts_table
from nyu_llm_frames._shared.progress import duration
from nyu_llm_frames._shared.wording import count, dollars, local_time, printable, shortened

_REASON = 200


def _short(text: str) -> str:
    return shortened(" ".join(printable(text).split()), _REASON)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Names and values that both forms show."""
    cost = "unknown: no price for this model" if summary.cost is None else dollars(summary.cost)
    facts = [("model", summary.models), ("cost so far", cost)]
    times = summary.times()
    for name, at in times:
        facts.append((name, local_time(at)))
    if summary.active and times:
        facts.append(("waiting for", duration((summary.at - times[0][1]).total_seconds())))
    if len(times) == 2:
        facts.append(("took", duration((times[1][1] - times[0][1]).total_seconds())))
    facts.append(("sidecar", summary.sidecar))
    return [(name, printable(value)) for name, value in facts]


def run_text(summary: Summary) -> str:
    counts = ", ".join(f"{n:,} {status}" for status, n in summary.ordered_counts())
    lines = [f"Run {summary.name}: {summary.state}", f"  rows         {summary.rows:,}: {counts}"]
    if not counts:
        lines[1] = "  rows         0"
    lines += [f"  {name:<12} {value}" for name, value in _facts(summary)]
    for kind, (row, reason) in summary.examples.items():
        lines.append(f"  {kind:<12} {summary.counts[kind]:,} (row {row}: {_short(reason)})")
    lines += [
        f"  {'next' if i == 0 else '':<12} {step}" for i, step in enumerate(summary.next_steps())
    ]
    return "\n".join(lines)


def _track(summary: Summary) -> str:
    """A bar of answered, waiting and failed rows."""
    good, failed = summary.counts.get("ok", 0), summary.failed
    if not summary.rows:
        return ""
    rest = summary.rows - good - failed
    parts = [("ok", good), ("bad", failed), ("wait", rest)]
    shares = "".join(
        f'<i class="{kind}" style="width:{100 * n / summary.rows:.2f}%"></i>' for kind, n in parts
    )
    label = escape(f"{good:,} of {summary.rows:,} {summary.noun}s answered")
    return f'<div class="track" role="img" aria-label="{label}" title="{label}">{shares}</div>'


def run_html(summary: Summary, *, with_steps: bool = True) -> str:
    """Return the notebook form of a run; next steps are for the person who runs it."""
    counts = " · ".join(f"<b>{n:,}</b> {escape(s)}" for s, n in summary.ordered_counts())
    title = f"run {summary.name}" if summary.noun == "row" else summary.name
    out = [
        CARD_STYLE,
        '<div class="nlf">',
        f"<h4>{escape(summary.state.capitalize())} <small>{escape(title)}</small></h4>",
        _track(summary),
        f"<div>{count(summary.rows, summary.noun)}: {counts or 'none'}</div>",
        facts_table(_facts(summary)),
    ]
    if summary.examples:
        rows = "".join(
            f'<tr><td class="n">{summary.counts[kind]:,}</td><td>{escape(kind)}</td>'
            f'<td class="dim">row {escape(_short(row))}</td>'
            f'<td class="reason">{escape(_short(reason))}</td></tr>'
            for kind, (row, reason) in summary.examples.items()
        )
        out.append(f'<div class="wide"><table>{rows}</table></div>')
    if with_steps:
        steps = "".join(f"<li>{escape(step)}</li>" for step in summary.next_steps())
        out.append(f'<div class="dim">Next</div><ul>{steps}</ul>')
    out.append("</div>")
    return "\n".join(part for part in out if part)
