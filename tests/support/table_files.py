"""Small tables as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

MODEL = "gemini-3-flash-preview"

TEXT = (
    "id,year,text,note\n"
    '007,2020,"a, b","he said ""yes"""\n'
    "008,2021,plain,1.50\n"
    '009,2020,"two\nlines",NA\n'
)


def csv_file(path: Path, text: str = TEXT) -> Path:
    path.write_bytes(text.encode())
    return path


def sample_frame(n: int = 50) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": range(n),
            "half": [i / 2 for i in range(n)],
            "word": [f"word {i % 7}, \u4e2d\U0001f600" for i in range(n)],
            "when": pd.date_range("2024-01-01", periods=n, freq="D"),
            "maybe": pd.array([None if i % 5 == 0 else i for i in range(n)], dtype="Int64"),
        }
    )
