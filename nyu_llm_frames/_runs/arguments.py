"""The arguments that all calls have in common, as given, in one record.

Comes in: keyword arguments. Goes out: `Arguments`, whose fields and defaults are the list of them;
a test holds `Common`, which type checkers read, to it. Light to import: what users call knows
the arguments before anything else is loaded.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

if TYPE_CHECKING:
    from nyu_llm_frames._gateway.gateway import Gateway


Template = Any
"""A string, a `pathlib.Path`, a `jinja2.Template`, or a list of ``{"role", "content"}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The common arguments of a call, as given. See `FrameMethods.batch` for their meaning."""

    template: Any
    model: str
    system: Any = None
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


class Common(TypedDict, total=False):
    """Arguments that every method takes. `FrameMethods.batch` says what they mean."""

    system: Any
    schema: Any
    images: Any
    output: str
    prefix: str
    if_exists: Literal["error", "replace", "fill"]
    details: bool
    missing: Literal["error", "skip"]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    thinking: Any
    params: Mapping[str, Any] | None
    sidecar: str | Path | None
    gateway: Gateway | Literal["local"] | None


F = TypeVar("F", bound=Callable[..., Any])


def expand_signature(function: F) -> F:
    """Show the common arguments one by one in the signature, as ``help()`` prints it."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    defaults = {f.name: f.default for f in fields(Arguments)}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name])
        for name in Common.__annotations__
    ]
    at = len([p for p in own if p.kind is not p.KEYWORD_ONLY])
    head, tail = own[:at], own[at:]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*head, *[p for p in tail if p.name == "model"], *common]
        + [p for p in tail if p.name != "model"]
    )
    return function


def collect_arguments(template: Template, model: str, common: Common) -> Arguments:
    """Collect the arguments of a call, and name one that there is not."""
    known = list(Common.__annotations__)
    for name in common:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}=?" if near else ""
            raise TypeError(f"There is no argument {name}=.{hint}")
    return Arguments(template=template, model=model, **common)
