"""A round of hand coding in a real spreadsheet program, which made `tests/data/hand_codes`.

Comes in: a folder. Goes out: files that `to_code` wrote and LibreOffice opened, sorted, coded and
saved in the forms that people use. Make them anew: ``python -m support.coding_round`` in `tests`,
with the package installed and Debian's ``libreoffice-calc`` and ``python3-uno``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd

import nyu_llm_frames  # noqa: F401

KEPT = Path(__file__).parent.parent / "data" / "hand_codes"
UNO_PYTHON = "/usr/bin/python3"
LABELS = ["007", "1e5", "TRUE", "1-2", "no"]
FRAME = pd.DataFrame(
    {
        "id": ["007", "1e5", "TRUE", "2024-01-05", "=1+1", "3.50", "-", "12345678901234567890",
               "@nyu", "1/2", "x", None],
        "text": ["plain", "=SUM(A1)", "Köln – schön 😀", "two\nlines", "  blanks  ",
                 '_x000D_ a, b; "q"', "+1 agreed", "tab\there", "it's 50 %", "true", "1,5", "end"],
    }
)  # fmt: skip
EXCEL, CSV = "Calc MS Excel 2007 XML", "Text - txt - csv (StarCalc)"
# Delimiter, quotation mark, character set (1: Western Europe, 76: UTF-8, 65535: UTF-16), first
# line, then whether texts are quoted and cells are saved as they are shown.
SEMICOLONS, TABS, COMMAS = "59,34,1,1,,0,false,true", "9,34,65535,1", "44,34,76,1,,0,false,true"
CODERS = {"xlsx": ("a", "b", "c", "d"), "csv": ("e", "f")}
N = 11


def draw(folder: Path, format: Any, n: int = N) -> pd.DataFrame:
    """Draw the sample, or make it larger."""
    found: pd.DataFrame = FRAME.llm.to_code(
        folder / format,
        ["id", "text"],
        n=n,
        labels=LABELS,
        coders=CODERS[format],
        format=format,
        seed=2,
    )
    return found


def codes(units: list[str], coder: str) -> dict[str, str]:
    """Return what a coder says: each label is given, and one unit is left out."""
    first = "abcdef".index(coder)
    return {u: LABELS[(i + first) % 5] for i, u in enumerate(sorted(units)) if i != first}


def run_office(jobs: list[dict[str, Any]]) -> None:
    """Let LibreOffice do some jobs."""
    script = Path(__file__).with_name("spreadsheet_coder.py")
    subprocess.run(
        [UNO_PYTHON, script], input=json.dumps(jobs), text=True, check=True, env={**os.environ}
    )


def play(folder: Path) -> None:
    """Play a round: two folders, six coders."""
    jobs: list[dict[str, Any]] = []

    def job(coder: str, of: str, to: str, how: str, sort: str | None = None) -> None:
        units = pd.read_parquet(folder / of / "codes_design.parquet")["unit"].tolist()
        path = (folder / of / f"codes_{coder}.{of}").resolve()
        saved = str(path.with_suffix(f".{to}"))
        save = [saved, EXCEL if to == "xlsx" else CSV, how]
        notes = {min(units): 'hm; well, "so"'}
        jobs.append({"open": str(path), "codes": codes(units, coder), "notes": notes,
                     "sort": sort, "save": [save]})  # fmt: skip

    for format in CODERS:
        draw(folder, format)
    job("a", "xlsx", "xlsx", "", "text")
    job("b", "xlsx", "csv", SEMICOLONS, "id")
    job("c", "xlsx", "csv", TABS)
    job("d", "xlsx", "csv", COMMAS)
    job("e", "csv", "csv", COMMAS, "text")  # the program has taken texts for numbers
    job("f", "csv", "xlsx", "")
    run_office(jobs)
    for coder in "bcd":
        (folder / "xlsx" / f"codes_{coder}.xlsx").unlink()
    (folder / "csv" / "codes_f.csv").unlink()


if __name__ == "__main__":
    shutil.rmtree(KEPT, ignore_errors=True)
    play(KEPT)
