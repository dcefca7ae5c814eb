"""How a run and an estimate look: text for consoles, HTML for notebooks.

Comes in: a `Summary` or an `Estimate`. Goes out: strings. Answers and errors are foreign text:
everything is escaped, here and only here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from nyu_llm_frames._money.estimate import dollars
from nyu_llm_frames._progress import duration
from nyu_llm_frames._summary import Summary
from nyu_llm_frames._words import count, printable

if TYPE_CHECKING:
    from nyu_llm_frames._money.estimate import Estimate

_REASON = 200

# Jupyter names its colours; elsewhere the system's preference decides. VS Code and Colab set
# neither on our element, so their own variables and color-scheme come first where they exist.
_STYLE = """\
<style>
.nlf{--nlf-ink:var(--jp-ui-font-color1,var(--vscode-foreground,#1f2328));\
--nlf-dim:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#59636e));\
--nlf-line:var(--jp-border-color2,var(--vscode-panel-border,#d1d9e0));\
--nlf-back:var(--jp-layout-color1,var(--vscode-editor-background,#fff));\
--nlf-bar:var(--jp-layout-color3,#e6eaef);--nlf-ok:#1a7f37;--nlf-wait:#6e7781;--nlf-bad:#bc4c00;\
color:var(--nlf-ink);background:var(--nlf-back);border:1px solid var(--nlf-line);\
border-radius:6px;padding:.7em 1em;max-width:56em;font:13px/1.45 system-ui,sans-serif}
@media (prefers-color-scheme:dark){.nlf{\
--nlf-ink:var(--jp-ui-font-color1,var(--vscode-foreground,#e6edf3));\
--nlf-dim:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#9198a1));\
--nlf-line:var(--jp-border-color2,var(--vscode-panel-border,#3d444d));\
--nlf-back:var(--jp-layout-color1,var(--vscode-editor-background,#0d1117));\
--nlf-bar:var(--jp-layout-color3,#21262d);--nlf-ok:#3fb950;--nlf-wait:#9198a1;--nlf-bad:#f0883e}}
[data-jp-theme-light="false"] .nlf{--nlf-ok:#3fb950;--nlf-wait:#9198a1;--nlf-bad:#f0883e}
[data-jp-theme-light="true"] .nlf{--nlf-ok:#1a7f37;--nlf-wait:#6e7781;--nlf-bad:#bc4c00}
.nlf h4{margin:0 0 .4em;font-size:14px;color:inherit}
.nlf small,.nlf .dim{color:var(--nlf-dim);font-weight:normal}
.nlf table{border-collapse:collapse;margin:.3em 0;color:inherit}
.nlf th,.nlf td{text-align:left;vertical-align:top;padding:.1em 1.2em .1em 0;border:0;\
background:none;color:inherit;font-weight:normal}
.nlf th{color:var(--nlf-dim);white-space:nowrap}
.nlf td.n{text-align:right;font-variant-numeric:tabular-nums}
.nlf .track{display:flex;height:8px;border-radius:4px;overflow:hidden;margin:.4em 0 .5em;\
background:var(--nlf-bar)}
.nlf .track i{display:block;height:8px}
.nlf .ok{background:var(--nlf-ok)}.nlf .wait{background:transparent}
.nlf .bad{background:var(--nlf-bad)}
.nlf td.reason{overflow-wrap:anywhere}
.nlf ul{margin:.2em 0 0;padding-left:1.3em}
.nlf .wide{overflow-x:auto}
</style>"""


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= _REASON else f"{line[: _REASON - 1]}…"


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Names and values that both forms show."""
    cost = "unknown: no price for this model" if summary.cost is None else dollars(summary.cost)
    facts = [("model", summary.models), ("cost so far", cost)]
    times = summary.times()
    for name, at in times:
        facts.append((name, f"{at:%Y-%m-%d %H:%M} UTC"))
    if summary.active and times:
        facts.append(("waiting for", duration((summary.at - times[0][1]).total_seconds())))
    if len(times) == 2:
        facts.append(("took", duration((times[1][1] - times[0][1]).total_seconds())))
    facts.append(("sidecar", summary.sidecar))
    return [(name, printable(value)) for name, value in facts]


def run_text(summary: Summary) -> str:
    """Return the text form of a run."""
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


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>"


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
    told = escape(f"{good:,} of {summary.rows:,} rows answered")
    return f'<div class="track" role="img" aria-label="{told}" title="{told}">{shares}</div>'


def run_html(summary: Summary) -> str:
    """Return the notebook form of a run."""
    counts = " · ".join(f"<b>{n:,}</b> {escape(s)}" for s, n in summary.ordered_counts())
    out = [
        _STYLE,
        '<div class="nlf">',
        f"<h4>{escape(summary.state.capitalize())} <small>run {escape(summary.name)}</small></h4>",
        _track(summary),
        f"<div>{count(summary.rows, 'row')}: {counts or 'none'}</div>",
        _table(_facts(summary)),
    ]
    if summary.examples:
        rows = "".join(
            f'<tr><td class="n">{summary.counts[kind]:,}</td><td>{escape(kind)}</td>'
            f'<td class="dim">row {escape(_short(row))}</td>'
            f'<td class="reason">{escape(_short(reason))}</td></tr>'
            for kind, (row, reason) in summary.examples.items()
        )
        out.append(f'<div class="wide"><table>{rows}</table></div>')
    steps = "".join(f"<li>{escape(step)}</li>" for step in summary.next_steps())
    out.append(f'<div class="dim">Next</div><ul>{steps}</ul></div>')
    return "\n".join(part for part in out if part)


def estimate_html(estimate: Estimate) -> str:
    """Return the notebook form of an estimate."""
    rows = [(name.strip(), text) for name, text in estimate.lines()]
    return f'{_STYLE}\n<div class="nlf"><h4>Estimate</h4>{_table(rows)}</div>'
