"""A large upload goes to disk as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_support import Served

SIZE_MB = 40
HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="big.jsonl"\r\n\r\n'
)


def peak_mb(pid: int) -> float:
    """Read the largest resident size of a process so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_while_a_large_file_comes(echo: Served) -> None:
    piece = b'{"custom_id": "a", "text": "' + b"x" * (2**20 - 32) + b'"}\n'
    digest = hashlib.sha256(piece * SIZE_MB).digest()

    def body() -> Iterator[bytes]:
        yield HEAD
        for _ in range(SIZE_MB):
            yield piece
        yield b"\r\n--B--\r\n"

    echo.upload(b"warm up")
    before = peak_mb(echo.info.pid)
    answer = echo.http.post(
        "/files", content=body(), headers={"content-type": "multipart/form-data; boundary=B"}
    )
    assert answer.json()["bytes"] == SIZE_MB * len(piece)
    got = hashlib.sha256()
    with echo.http.stream("GET", f"/files/{answer.json()['id']}/content") as stream:
        for chunk in stream.iter_bytes():
            got.update(chunk)
    assert got.digest() == digest
    assert peak_mb(echo.info.pid) - before < 15
