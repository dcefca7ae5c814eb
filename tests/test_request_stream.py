"""An input file that is made while it is sent: the same bytes each time, however it is read."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._stages.requests.bodies import LINE_OVERHEAD, request_lines
from nyu_llm_frames.errors import SidecarDamagedError

BODIES = st.lists(st.text(max_size=40).map(lambda text: json.dumps({"text": text})), max_size=12)


def stored(folder: Path, bodies: list[str], at_once: int = 3) -> tuple[Sidecar, int, bytes]:
    """Write a job's requests; return the sidecar, and size and bytes of the input file."""
    ids = pa.array([f"r-{i:032x}" for i in range(len(bodies))])
    texts = pa.array(bodies, pa.large_string())
    sidecar = Sidecar(folder, SystemClock())
    parts = range(0, len(bodies), at_once)
    sidecar.add_requests("job", ((ids.slice(i, at_once), texts.slice(i, at_once)) for i in parts))
    size = sum(len(body) + LINE_OVERHEAD for body in bodies)
    return sidecar, size, bytes(request_lines(ids, texts))


@settings(suppress_health_check=list(HealthCheck), max_examples=30)
@given(bodies=BODIES, sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_it_is_the_request_lines(
    bodies: list[str], sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sidecar, size, lines = stored(tmp_path_factory.mktemp("s") / "s", bodies)
    with sidecar.request_file("job", size) as file:
        assert file.seek(0, os.SEEK_END) == size == len(lines)
        assert file.seek(size) == size
        assert file.read() == b""
        for n in sizes:  # begun, left and begun again
            file.seek(0)
            assert file.read(n) == lines[:n]
        file.seek(0)
        found = list(iter(lambda: file.read(sizes[0]), b""))
        assert b"".join(found) == lines
        assert file.tell() == size


def test_there_is_no_other_place_in_it(tmp_path: Path) -> None:
    sidecar, size, _ = stored(tmp_path / "s", ["{}"])
    with sidecar.request_file("job", size) as file, pytest.raises(io.UnsupportedOperation):
        file.seek(-3, os.SEEK_END)
    with sidecar.request_file("job", size) as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()  # it would be measured by what is on the disk


@pytest.mark.parametrize("wrong", [-1, 1])
def test_another_size_than_was_told_is_damage(tmp_path: Path, wrong: int) -> None:
    """The gateway would drop a line that is cut, without a word."""
    sidecar, size, _ = stored(tmp_path / "s", ["{}"] * 9)
    with (
        sidecar.request_file("job", size + wrong) as file,
        pytest.raises(SidecarDamagedError, match=r"job\.parquet"),
    ):
        file.read()


def test_without_prompts_there_is_none(tmp_path: Path) -> None:
    sidecar, size, _ = stored(tmp_path / "s", ["{}"])
    sidecar.drop_bodies("job")
    with (
        sidecar.request_file("job", size) as file,
        pytest.raises(SidecarDamagedError, match="no prompts any more"),
    ):
        file.read()
