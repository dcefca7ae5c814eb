"""The arguments that all calls share, as given, in one record.

Comes in: keyword arguments. Goes out: `Arguments`, whose fields and defaults are the list of them;
a test keeps `Common`, which type checkers read, equal to it. Light to import: signatures need the
arguments before anything else is loaded.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast

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

_EXAMPLE = 'as in df.llm.batch("Is {{ column }} about …?", model=...)'
_SETTING = "Pass gateway=llm.Gateway({}=...), or set {} in the environment."
_OTHER_WORDS: Mapping[str, str] = {
    "prompt": f"Use template= instead, or pass it first, {_EXAMPLE}.",
    "messages": f"Use template= instead: a text, {_EXAMPLE}, "
    'or a list of {"role": ..., "content": ...} with such texts.',
    "system_prompt": "Use system= instead.",
    "api_key": _SETTING.format("api_key", "PORTKEY_API_KEY"),
    "base_url": _SETTING.format("base_url", "PORTKEY_BASE_URL"),
    "provider": 'Pass gateway=llm.Gateway(provider=...), or model="@provider/name".',
    "bucket": _SETTING.format("bucket", "NYU_LLM_BUCKET"),
    "client": "Pass gateway=llm.Gateway(client=...).",
    "response_format": "Use schema= instead: a pydantic class, a dict of fields, or a JSON Schema.",
    "response_model": "Use schema= instead.",
    "max_output_tokens": "Use max_tokens= instead.",
    "max_completion_tokens": "Use max_tokens= instead.",
    "reasoning_effort": 'Use thinking= instead: "off", "low", "medium", "high", or tokens.',
    "n": "Only preview and trial take n=; df.head(n) makes a smaller frame.",
    "poll_interval_s": "It is an option: llm.set_options(poll_interval_s=...).",
    "progress": "It is an option: llm.set_options(progress=...).",
}
"""Names in other libraries, and what to write here."""


def expand_signature(function: F) -> F:
    """Show the common arguments one by one in the signature, as ``help()`` prints it.

    A call that does not fit the signature gets an error in this package's terms.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(_explained(str(error), kwargs)) from None
        return function(*args, **kwargs)

    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    defaults = {f.name: f.default for f in fields(Arguments)}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name])
        for name in Common.__annotations__
    ]
    at = len([p for p in own if p.kind is not p.KEYWORD_ONLY])
    head, tail = own[:at], own[at:]
    checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*head, *[p for p in tail if p.name == "model"], *common]
        + [p for p in tail if p.name != "model"]
    )
    return cast("F", checked)


def _explained(problem: str, given: Mapping[str, Any]) -> str:
    """Say what to write where a call does not fit its signature."""
    for name in given:
        if name in _OTHER_WORDS and name not in Common.__annotations__:
            return f"There is no argument {name}=. {_OTHER_WORDS[name]}"
    if "too many positional" in problem:
        return (
            "Only the template is positional; pass everything else by keyword, for example "
            'model="gemini-3-flash-preview".'
        )
    if "_path'" in problem:
        return "The input file and the output file come first, by position, and then the template."
    if "'template'" in problem:
        return f"Missing prompt. Pass it first, {_EXAMPLE}."
    if "'model'" in problem:
        return 'Missing model. For example: model="gemini-3-flash-preview".'
    return problem


def collect_arguments(template: Template, model: str, common: Common) -> Arguments:
    """Collect the arguments of a call; an unknown one is an error."""
    known = list(Common.__annotations__)
    for name in common:
        if name in _OTHER_WORDS:
            raise TypeError(_explained("", common))
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}=?" if near else ""
            raise TypeError(f"There is no argument {name}=.{hint}")
    return Arguments(template=template, model=model, **common)
