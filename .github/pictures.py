"""Draw the pictures of README.md from real runs, on this machine's small model.

Needs `pip install -e ".[local,plot]"` and Chromium. Writes `.github/*.svg` and `.github/*.png`:

    python .github/pictures.py
"""

from __future__ import annotations

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
from html import escape
from pathlib import Path

import nyu_llm_frames as llm

HERE = Path(__file__).parent
COMMAND = (
    "nyu-llm-frames batch offenses.csv --out answered.csv --schema drug.json \\\n"
    '  --prompt "Which drug is the offense about? Reply with JSON. {{ offense }}" \\\n'
    "  --model gemini-3-flash-preview --gateway local"
)
TEMPLATE = "Which drug is the offense about? Reply with JSON.\n{{ offense }}"
DRUGS = ["cocaine", "heroin", "marijuana", "methamphetamine"]
COLUMNS = 80
THEMES = {
    "light": {"back": "#ffffff", "ink": "#1f2328", "dim": "#59636e", "line": "#d1d9e0"},
    "dark": {"back": "#0d1117", "ink": "#e6edf3", "dim": "#9198a1", "line": "#3d444d"},
}


def typed(command: str, folder: Path, until: str = "") -> list[str]:
    """Run a command in a terminal; press Ctrl-C two seconds after the text `until` appears.

    The moving line is shown as it was at that moment: the terminal clears it afterwards.
    """
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "dumb"}
    process = subprocess.Popen(
        ["bash", "-c", f"stty cols {COLUMNS} rows 30; exec {command}"],
        cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(slave)
    shown, before = "", []
    pressed = math.inf
    while process.poll() is None or select.select([master], [], [], 0.2)[0]:
        if select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 65536).decode()
            except OSError:
                break
        if until and until in shown:
            until, pressed = "", time.monotonic() + 2
        if time.monotonic() > pressed:
            pressed, before = math.inf, on_screen(shown)
            process.send_signal(signal.SIGINT)
    os.close(master)
    lines = on_screen(shown)
    expected = 130 if before else 0
    if process.wait() != expected:
        raise SystemExit("\n".join([*lines, f"exit code {process.returncode}, not {expected}"]))
    if before:
        lines.insert(len(before) - 1, f"{before[-1]}^C")
    return lines


def on_screen(text: str) -> list[str]:
    """Return the lines that stay: what a carriage return went over is gone."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return [line for line in lines if line]


def terminal(folder: Path) -> list[tuple[str, str]]:
    """Return the lines of a session, each with its kind."""
    out = []
    for until in ("Ctrl-C is safe", ""):
        out += [
            ("typed", f"{'$ ' if i == 0 else '> '}{line}")
            for i, line in enumerate(COMMAND.split("\n"))
        ]
        out += [
            ("shown", line.replace(str(folder), "~/study"))
            for line in typed(COMMAND, folder, until)
        ]
    shown = subprocess.run(
        ["head", "-3", "answered.csv"], cwd=folder, capture_output=True, text=True
    )
    out.append(("typed", "$ head -3 answered.csv"))
    return out + [("shown", line) for line in shown.stdout.splitlines()]


def svg(lines: list[tuple[str, str]], theme: dict[str, str]) -> str:
    """Draw a terminal."""
    high, wide = 19, 8.1
    cut = [
        (kind, line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…") for kind, line in lines
    ]
    width, height = int(COLUMNS * wide) + 40, high * len(cut) + 56
    rows = "\n".join(
        f'<text x="20" y="{50 + high * i}" class="{kind}" xml:space="preserve">{escape(line)}'
        "</text>"
        for i, (kind, line) in enumerate(cut)
    )
    dots = "".join(
        f'<circle cx="{22 + 18 * i}" cy="18" r="5.5" fill="{color}"/>'
        for i, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n<style>text{{font:13.4px ui-monospace,'
        f"SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:{theme['dim']}}}"
        f".typed{{fill:{theme['ink']};font-weight:600}}</style>\n"
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" '
        f'fill="{theme["back"]}" stroke="{theme["line"]}"/>{dots}\n{rows}\n</svg>\n'
    )


def card(folder: Path) -> str:
    """Return the card of a real run with a failure in it."""
    frame = llm.sample().head(18)
    with llm.set_options(gateway="local", progress=False, poll_interval_s=0.5):
        run = frame.llm.submit(
            TEMPLATE, model="gemini-3-flash-preview", schema={"drug": DRUGS},
            temperature=0, max_tokens=14, sidecar=folder / "first_batch.llm",
        ).wait()  # fmt: skip
    return run._repr_html_().replace(str(folder), "~/study")


def photograph(html: str, theme: str, target: Path, folder: Path) -> None:
    """Let Chromium draw a page, and cut it to what is drawn."""
    colors = THEMES[theme]
    page = folder / "page.html"
    page.write_text(
        f"<!doctype html><style>:root{{--jp-ui-font-color1:{colors['ink']};"
        f"--jp-ui-font-color2:{colors['dim']};"
        f"--jp-border-color2:{colors['line']};--jp-layout-color1:{colors['back']}}}"
        f"body{{background:{colors['back']};margin:0}}</style>"
        f'<body data-jp-theme-light="{"true" if theme == "light" else "false"}">{html}'
    )
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=760,345",
         "--force-device-scale-factor=2", f"--screenshot={target}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    """Draw all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = llm.sample()[["case_id", "offense"]].sort_values(
            "offense", key=lambda s: s.str.len()
        )
        frame.head(18).to_csv(folder / "offenses.csv", index=False)
        (folder / "drug.json").write_text(json.dumps({"drug": DRUGS}))
        session, html = terminal(folder), card(folder)
        for theme, colors in THEMES.items():
            (HERE / f"terminal-{theme}.svg").write_text(svg(session, colors))
            photograph(html, theme, HERE / f"card-{theme}.png", folder)


if __name__ == "__main__":
    main()
