"""The files of a folder come as people, and Dask, number them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyu_llm_frames._shared.local_path import natural_order
from nyu_llm_frames._tables.source import open_source


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_part_2_comes_before_part_10(tmp_path: Path, suffix: str) -> None:
    names = ["part.2", "part.10", "a9/part.3", "a10/part.1", "part.1", "part.01"]
    for name in names:
        path = tmp_path / "in" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"name": [name]})
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    source = open_source(tmp_path / "in")
    found = [name for piece in source.pieces(["name"]) for name in piece.values["name"]]
    assert found == ["a9/part.3", "a10/part.1", "part.01", "part.1", "part.2", "part.10"]


@given(st.lists(st.text(max_size=8), unique=True), st.randoms())
def test_any_names_have_one_order(names: list[str], chance: object) -> None:
    ordered = sorted(names, key=natural_order)
    chance.shuffle(names)  # type: ignore[attr-defined]
    assert sorted(names, key=natural_order) == ordered
