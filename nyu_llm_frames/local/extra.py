"""The packages that only the embedded gateway needs, and what to do where they are missing.

Comes in: module names. Goes out: nothing, or a `ConfigurationError` with the ways that work.
"""

from __future__ import annotations

import importlib.util

from nyu_llm_frames.errors import ConfigurationError

INSTALL = 'pip install "nyu-llm-frames[local]"'
SERVER = ("starlette", "uvicorn", "python_multipart", "platformdirs", "httpx")
MODEL = "xllamacpp"


def require(*modules: str) -> None:
    """Raise `ConfigurationError` when a module of the extra is not installed; imports nothing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    text = f"The embedded gateway needs {', '.join(missing)}, which is not installed: {INSTALL}"
    if MODEL in missing:
        text += (
            "\nThe model's engine (xllamacpp) has wheels for Linux on x86_64 and aarch64, macOS 13 "
            "and later, and Windows on amd64. On another platform, let a server that runs answer "
            "(upstream='http://127.0.0.1:11434/v1' or `nyu-llm-frames serve --upstream URL`: "
            "Ollama, vLLM, llama.cpp), or use answers='echo' for a try without any model."
        )
    raise ConfigurationError(text)
