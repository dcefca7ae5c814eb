"""What a call was asked: the common arguments, as given, in one record.

Comes in: keyword arguments. Goes out: `Asked`, whose fields and defaults are the one list of them.
Light to import: the doorways know the arguments before anything else is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nyu_llm_frames._gateway.gateway import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The common arguments of a call, as given. See `FrameMethods.batch` for their meaning."""

    template: Any
    model: str
    system: str | None = None
    schema: Any = None
    images: Any = None
    output: str = "response"
    prefix: str = ""
    if_exists: str = "error"
    details: bool = False
    missing: str = "error"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Any = None
    thinking: Any = None
    params: Mapping[str, Any] | None = None
    sidecar: str | Path | None = None
    gateway: Gateway | str | None = None
