"""The folder of one server, and the small files that lead processes to it.

Only the lock shows whether a server runs: the operating system frees it however a process ends.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local.spec import EngineSpec, Key, require


@dataclass(frozen=True, slots=True)
class Running:
    """What a running server records about itself."""

    pid: int
    host: str
    port: int
    api_key: str = field(repr=False)
    realm: str = ""
    node: str = ""

    @property
    def reachable(self) -> str:
        """The host to connect to."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    @property
    def base_url(self) -> str:
        host = f"[{self.reachable}]" if ":" in self.reachable else self.reachable
        return f"http://{host}:{self.port}/v1"


def user_folder(kind: Literal["data", "cache"]) -> Path:
    """Return the place of the user's data or caches for this package."""
    require("platformdirs")
    import platformdirs

    place = platformdirs.PlatformDirs("nyu-llm-frames", appauthor=False)
    return Path(place.user_data_dir if kind == "data" else place.user_cache_dir)


def store_folder(data: Path | str | None, spec: EngineSpec) -> Path:
    """Return the private store of one engine, made if needed: a job never changes its engine."""
    given = Path(data).expanduser().absolute() if data is not None else None
    folder = (given or user_folder("data") / "gateway") / spec.folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"The embedded gateway cannot keep its jobs in {folder}: {error.strerror or error}. "
            "Name another folder with data= (on the command line --data)."
        ) from None
    return folder


def server_lock(folder: Path) -> FileLock:
    """Return the lock that a server holds as long as it runs."""
    return FileLock(folder / "server.lock", thread_local=False, fallback_to_soft=False)


def start_lock(folder: Path) -> FileLock:
    """Return the lock that the process that starts a server holds until it is ready."""
    return FileLock(folder / "start.lock", thread_local=False, fallback_to_soft=False)


@contextmanager
def held(lock: FileLock, timeout_s: float = -1) -> Iterator[None]:
    """Hold a lock; `filelock.Timeout` means that another process has it."""
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"Files in {Path(lock.lock_file).parent} cannot be locked ({error.strerror or error}). "
            "Choose a folder on a disk of this computer: data= (on the command line --data), or "
            "XDG_CACHE_HOME for the model."
        ) from None
    try:
        yield
    finally:
        lock.release()


def read_running(folder: Path) -> Running | None:
    """Read the record of the server that is running or ran last."""
    try:
        data: Any = json.loads((folder / "server.json").read_bytes())
        return Running(**data)
    except (OSError, ValueError, TypeError):
        return None


def write_running(folder: Path, running: Running) -> None:
    write_private(folder / "server.json", json.dumps(asdict(running)))


def forget_running(folder: Path) -> None:
    """Remove the record: from now on its port and key are invalid."""
    (folder / "server.json").unlink(missing_ok=True)


def last_port(folder: Path) -> int:
    """Return the port of the last server, so that the next one has the same address."""
    try:
        return int((folder / "port").read_text())
    except (OSError, ValueError):
        return 0


def store_key(folder: Path) -> Key:
    """Return the key of this store; made at random the first time."""
    path = folder / "key"
    with suppress(OSError):
        if key := Key(path.read_text().strip()):
            return key
    write_private(path, secrets.token_urlsafe(32))
    return Key(path.read_text().strip())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    with whole_file(path) as out:
        out.write(text.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedRandom]:
    """Write a private file that is on the disk, whole, or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w+b") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
