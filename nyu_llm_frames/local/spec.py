"""The description of a server's engine: its name, its realm, its store and what it needs.

The only effect is to read samples of a GGUF file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from nyu_llm_frames.errors import ConfigurationError

DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1"
Kind = Literal["model", "upstream", "echo"]

INSTALL = 'pip install "nyu-llm-frames[local]"'
SERVER = ("starlette", "uvicorn", "python_multipart", "platformdirs", "httpx")
MODEL = "xllamacpp"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine; its realm keeps its answers apart from all others."""

    kind: Kind
    realm: str
    model: Path | None = None
    upstream: str = ""

    @property
    def folder(self) -> str:
        """Name of its store: readable, safe in every file system, never shared by two realms."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.realm.replace(":", "-")).strip("-.")
        mark = hashlib.sha256(self.realm.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{words[:60]}-{mark}"

    def arguments(self) -> dict[str, str]:
        """Return what names the same engine to `engine_spec`."""
        if self.kind == "echo":
            return {"answers": "echo"}
        if self.kind == "upstream":
            return {"upstream": self.upstream}
        return {"model": str(self.model)} if self.model else {}


class Key(str):
    """A key as a string without a repr: tracebacks may show variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an engine; None or the default if not given."""

    concurrency: int | None = None
    max_tokens: int = 256
    context: int = 2048
    upstream_key_env: str | None = None
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_tokens", "context"):
            value = getattr(self, name)
            if name == "concurrency" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"{name}={value!r}: give a whole number above 0")
        if not isinstance(self.grace_s, int | float) or self.grace_s < 0:
            raise ConfigurationError(f"grace_s={self.grace_s!r}: give seconds, 0 or more")

    def upstream_key(self) -> Key | None:
        """Read the upstream's key from the named variable; it is stored nowhere."""
        if self.upstream_key_env is None:
            return None
        key = Key(os.environ.get(self.upstream_key_env) or "")
        if not key:
            raise ConfigurationError(
                f"The environment variable {self.upstream_key_env} is not set: it was named as "
                "the place of the upstream's key (upstream_key_env)."
            )
        return key


def require(*modules: str) -> None:
    """Raise `ConfigurationError` if a module of the extra is not installed; imports nothing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    text = f"The embedded gateway needs {', '.join(missing)}, which is not installed: {INSTALL}"
    if MODEL in missing:
        text += (
            "\nThe model's engine (xllamacpp) has wheels for Linux on x86_64 and aarch64, and "
            "macOS 13 and later. On another platform, use a running server "
            "(upstream='http://127.0.0.1:11434/v1' or `nyu-llm-frames serve --upstream URL`: "
            "Ollama, vLLM, llama.cpp), or use answers='echo' for a try without any model."
        )
    raise ConfigurationError(text)


def engine_spec(
    *,
    model: Path | str | None = None,
    upstream: str | None = None,
    answers: str | None = None,
) -> EngineSpec:
    """Read the three ways to name an engine; at most one of them may be given.

    Its realm is ``local:<model that really answers>``, ``upstream:<url>`` or ``local:echo``. Two
    GGUF files of the same name have different realms: samples of the content are in it.
    """
    given = [n for n, v in (("model", model), ("upstream", upstream), ("answers", answers)) if v]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)}: give only one of them")
    if answers is not None:
        if answers != "echo":
            raise ConfigurationError(f"answers={answers!r}: the only value is 'echo'")
        return EngineSpec("echo", "local:echo")
    if upstream is not None:
        url = _clean_url(upstream)
        return EngineSpec("upstream", f"upstream:{url}", upstream=url)
    if model is not None:
        path = Path(model).expanduser().absolute()
        return EngineSpec("model", f"local:{path.stem}-{_fingerprint(path)}", model=path)
    return EngineSpec("model", f"local:{DEFAULT_MODEL}")


def _clean_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"upstream={url!r}: give a URL as http://127.0.0.1:11434/v1")
    if parts.username or parts.password:
        raise ConfigurationError(
            "upstream: the URL holds a user or password, and URLs are stored. Put the key into "
            "an environment variable and name it with upstream_key_env."
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, ""))


def _fingerprint(path: Path) -> str:
    """Hash the size and samples spread over the file.

    The beginning alone is not enough: fine-tuned variants share header, vocabulary and size, and
    differ only in the weights. The name alone is not enough either.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            magic = file.read(4)
            digest.update(magic + file.read(2**20))
            for i in range(1, 65):
                file.seek(max(0, (size * i) // 64 - 2**15))
                digest.update(file.read(2**15))
    except OSError as error:
        raise ConfigurationError(f"The model file {path} cannot be read: {error}") from error
    if magic != b"GGUF":
        raise ConfigurationError(f"{path} is not a GGUF file: give the path of a .gguf model.")
    return digest.hexdigest()[:8]
