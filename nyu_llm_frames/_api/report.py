"""A page about sidecars, to keep or to send: cards, plots and failures in one file.

Comes in: summaries and failures by reason. Goes out: HTML that needs no other file and no network,
with all outside text escaped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import nyu_llm_frames._api.plot as _plot
from nyu_llm_frames._api.display import run_html
from nyu_llm_frames._runs.stored_summary import FailureKind, cures
from nyu_llm_frames._runs.summary import Summary
from nyu_llm_frames._shared.cards import CARD_STYLE
from nyu_llm_frames._shared.pictures import INK
from nyu_llm_frames._shared.wording import local_time, printable
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.polling import state_word
from nyu_llm_frames.errors import ConfigurationError

_SHORT = 20
_STYLE = """\
<style>
:root{color-scheme:light dark}
body{margin:0;padding:1.5em 1em;background:#f6f8fa;font:14px/1.5 system-ui,sans-serif;color:#1f2328}
main{max-width:56em;margin:0 auto;display:grid;gap:1em}
main>*{min-width:0}
.nlf{max-width:none}
.nlf svg{width:100%;min-width:44em;height:auto;color:var(--nlf-dim)}
.nlf table.all{width:100%}
.nlf.nlf table.all th,.nlf.nlf table.all td{padding:.25em .9em .25em 0;white-space:nowrap;\
border-bottom:1px solid var(--nlf-line)}
.nlf.nlf table.all td.text{white-space:normal;overflow-wrap:anywhere;min-width:7em}
h1{font-size:18px;margin:0}footer,p.total{color:#59636e;margin:0}
@media (prefers-color-scheme:dark){body{background:#010409;color:#e6edf3}\
footer,p.total{color:#9198a1}}
</style>"""


def page(
    sections: Sequence[tuple[Summary, Sequence[FailureKind]]], *, total: str, version: str
) -> str:
    """Return the page, with a section for each sidecar, and a line in `total` for several."""
    names = ", ".join(summary.name for summary, _ in sections)
    parts = [f"<h1>{escape(printable(names))}</h1>"]
    if total:
        parts.append(f'<p class="total">{escape(printable(total))}</p>')
    for summary, kinds in sections:
        parts.append(run_html(summary, with_steps=False).removeprefix(CARD_STYLE))
        drawing = plot_svg(summary) if summary.jobs else ""
        if drawing:
            parts.append(f'<div class="nlf"><div class="wide">{drawing}</div></div>')
        if kinds:
            parts.append(_failures(kinds, summary.sidecar))
        if summary.jobs:
            parts.append(_jobs(summary.jobs))
    at = local_time(sections[0][0].at)
    parts.append(f"<footer>{escape(at)}, nyu-llm-frames {escape(version)}</footer>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(printable(names))}</title>\n{CARD_STYLE}\n{_STYLE}\n</head>\n"
        f"<body><main>\n{body}\n</main></body>\n</html>\n"
    )


def plot_svg(summary: Summary) -> str:
    """Draw a run as SVG in the color of the text around it; "" without matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")  # no window
        import matplotlib.pyplot as plt

        with mpl.rc_context({"svg.fonttype": "none"}):
            figure = _plot.plot(summary)[0].figure
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True)
            plt.close(figure)
    except (ImportError, ConfigurationError):
        return ""
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(INK, "currentColor")


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], title: str, below: Sequence[str] = ()
) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    lines = "".join(f"<li>{escape(printable(line))}</li>" for line in below)
    return (
        f'<div class="nlf"><h4>{escape(title)}</h4><div class="wide"><table class="all">'
        f"<tr>{head}</tr>{body}</table></div>{lines and f'<ul>{lines}</ul>'}</div>"
    )


def _cell(text: str) -> str:
    kind = ' class="text"' if " " in text and len(text) > _SHORT else ""
    return f"<td{kind}>{escape(printable(text))}</td>"


def _failures(kinds: Sequence[FailureKind], sidecar: str) -> str:
    rows = [
        [f"{kind.requests:,}", kind.status, kind.error, kind.prompt or "(prompts are not kept)"]
        for kind in kinds
    ]
    return _table(
        ["requests", "status", "reason", "example"],
        rows,
        "Without a good answer",
        cures(kinds, sidecar),
    )


def _jobs(jobs: Sequence[Job]) -> str:
    rows = []
    for job in jobs:
        at = job.submitted_at
        submitted = "" if at is None else local_time(at)
        state = job.outcome or state_word(job)
        answers = f"{job.answers or 0:,} of {job.requests:,}"
        rows.append([job.batch_id or "not submitted", state, answers, submitted])
    return _table(["batch job", "state", "answers", "submitted"], rows, "Batch jobs")
