"""The card of a run or an estimate in a notebook: its style and its table.

Comes in: names and values. Goes out: HTML with all outside text escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

# Jupyter names its colors; elsewhere the system's preference decides. VS Code and Colab set
# neither on our element, so their own variables and color-scheme come first where they exist.
CARD_STYLE = """\
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
.nlf hr{border:0;border-top:1px solid var(--nlf-line);margin:.6em 0}
</style>"""


def facts_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table with a name and a value in each row."""
    body = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>"
