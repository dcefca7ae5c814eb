"""Checks the packages that only the embedded gateway needs, and says how to get them.

Comes in: module names. Goes out: nothing, or a `ConfigurationError` with the alternatives.
"""

from __future__ import annotations

import importlib.util

from nyu_llm_frames.errors import ConfigurationError

INSTALL = 'pip install "nyu-llm-frames[local]"'
SERVER = ("starlette", "uvicorn", "python_multipart", "platformdirs", "httpx")
MODEL = "xllamacpp"


def require(*modules: str) -> None:
    """Raise `ConfigurationError` if a module of the extra is not installed; imports nothing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    text = f"The embedded gateway needs {', '.join(missing)}, which is not installed: {INSTALL}"
    if MODEL in missing:
        text += (
            "\nThe model's engine (xllamacpp) has wheels for Linux on x86_64 and aarch64, macOS 13 "
            "and later, and Windows on amd64. On another platform, use a running server "
            "(upstream='http://127.0.0.1:11434/v1' or `nyu-llm-frames serve --upstream URL`: "
            "Ollama, vLLM, llama.cpp), or use answers='echo' for a try without any model."
        )
    raise ConfigurationError(text)
