"""One call: arguments checked, stages put together, nothing sent.

Comes in: a frame and what the user asked for. Goes out: a `Call` that holds the distinct requests
and knows how to turn answers into a frame. Preview, submit, batch and trial all start here.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames import _options
from nyu_llm_frames._frames import frame as _frame
from nyu_llm_frames._frames.columns import Codes
from nyu_llm_frames._gateway import gateway as _gateway
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._options import Options
from nyu_llm_frames._prompts.template import PromptTemplate, compile_template
from nyu_llm_frames._requests import bodies as _requests
from nyu_llm_frames._requests.bodies import BodyShape, Requests
from nyu_llm_frames.errors import ConfigurationError, RequestError, TemplateError

_RESERVED = frozenset({"model", "messages", "custom_id"})


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


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose prompts are rendered.

    Attributes
    ----------
    asked : Asked
    frame : pandas.DataFrame
        A shallow copy of the user's frame.
    template : PromptTemplate
    requests : Requests
    gateway : Gateway
    options : Options
    sidecar_path : Path
    """

    asked: Asked
    frame: pd.DataFrame
    template: PromptTemplate
    requests: Requests
    gateway: Gateway
    options: Options
    sidecar_path: Path

    @property
    def codes(self) -> Codes:
        """Request of each row, -1 where the row was skipped."""
        return self.requests.codes


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}."
        )


def _number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    if value is None:
        return
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= float(value) <= high:
        what = "a whole number" if whole else "a number"
        top = "" if high == float("inf") else f" to {high:g}"
        raise ConfigurationError(f"{name} must be {what} from {low:g}{top}, not {value!r}.")


def check_retries(retries: object) -> int:
    """Return the number of attempts beyond the first."""
    _number("retries", retries, 0, 100, whole=True)
    if retries is None:
        raise ConfigurationError("retries must be a whole number, not None.")
    return int(retries)  # type: ignore[call-overload, no-any-return]


def check_timeout(timeout: object) -> float | None:
    """Return seconds of patience, or None."""
    _number("timeout", timeout, 0, float("inf"))
    return None if timeout is None else float(timeout)  # type: ignore[arg-type]


def body_params(asked: Asked) -> dict[str, Any]:
    """Return the constant fields of the body, in the order in which they are sent."""
    _number("max_tokens", asked.max_tokens, 1, float("inf"), whole=True)
    _number("temperature", asked.temperature, 0, 2)
    _number("top_p", asked.top_p, 0, 1)
    _number("seed", asked.seed, -(2**63), 2**63 - 1, whole=True)
    stop = asked.stop
    if isinstance(stop, str):
        stop = [stop]  # a bare string reaches the model wrongly
    if stop is not None and not (
        isinstance(stop, list | tuple) and stop and all(isinstance(s, str) and s for s in stop)
    ):
        raise ConfigurationError(f"stop must be a string or a list of strings, not {stop!r}.")
    named = {
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "seed": asked.seed,
        "stop": stop,
    }
    fields = {k: _requests.plain_numbers(v, k) for k, v in named.items() if v is not None}
    extra = asked.params or {}
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"params must be a dict of body fields, not {extra!r}.")
    for key, value in extra.items():
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"params has the key {key!r}; names of fields are strings.")
        if key in _RESERVED:
            raise ConfigurationError(f"params cannot hold {key!r}: that is the call's own to set.")
        if key in fields:
            raise ConfigurationError(f"{key} is given twice, as an argument and in params.")
        if value is not None:
            fields[key] = _requests.plain_numbers(value, f"params[{key!r}]")
    return fields


def sidecar_path(asked: Asked, options: Options) -> Path:
    """Return the sidecar's folder."""
    chosen = asked.sidecar if asked.sidecar is not None else options.sidecar
    if chosen is None:
        chosen = "llm_sidecar"
    if not isinstance(chosen, str | Path) or not str(chosen):
        raise ConfigurationError(f"sidecar must be the path of a folder, not {chosen!r}.")
    return Path(chosen).expanduser().absolute()


def _template_source(template: Any) -> Any:
    if not isinstance(template, Path):
        return template
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise TemplateError(f"The template file {template} cannot be read: {e}.") from None


def new_columns(asked: Asked) -> list[str]:
    """Return the names of the columns that the call adds."""
    from nyu_llm_frames._frames.columns import DETAILS

    names = [asked.output, f"{asked.output}_error"]
    if asked.details:
        names += [f"{asked.output}_{name}" for name in DETAILS]
    return names


def prepare(frame: pd.DataFrame, asked: Asked, *, check_columns: bool = True) -> Call:
    """Check everything and render every prompt; no network, nothing written.

    Raises
    ------
    LLMFramesError
        The kind that fits, naming the row, column or argument and the way out.
    """
    for later in ("schema", "images", "thinking"):
        if getattr(asked, later) is not None:
            raise ConfigurationError(f"{later}= is not available in this release.")
    options = _options.current()
    _frame.check_frame(frame)
    _one_of("if_exists", asked.if_exists, ("error", "replace"))
    _one_of("missing", asked.missing, ("error", "skip"))
    if not isinstance(asked.model, str) or not asked.model.strip():
        raise ConfigurationError(f"model must be the name of a model, not {asked.model!r}.")
    if not isinstance(asked.output, str) or not asked.output:
        raise ConfigurationError(f"output must be a column name, not {asked.output!r}.")
    if not isinstance(asked.prefix, str):
        raise ConfigurationError(f"prefix must be a string, not {asked.prefix!r}.")
    gateway = _gateway.resolve(asked.gateway)
    path = sidecar_path(asked, options)
    if check_columns:
        _frame.check_new_columns(frame, new_columns(asked), asked.if_exists)
    template = compile_template(_template_source(asked.template), asked.system, list(frame.columns))
    shape = BodyShape(asked.model, template.roles, body_params(asked))
    requests = _render(frame, asked, template, shape, gateway.realm)
    _refuse_large(frame, requests, options)
    return Call(asked, frame.copy(deep=False), template, requests, gateway, options, path)


def _render(
    frame: pd.DataFrame, asked: Asked, template: PromptTemplate, shape: BodyShape, realm: str
) -> Requests:
    n = len(frame)
    values = _frame.column_values(frame, template.columns)
    strict = [c for c in template.columns if c not in template.tested]
    holes, counts = _frame.rows_with_na(values, strict, n)
    if counts and asked.missing == "error":
        raise _frame.missing_value_error(frame, holes, counts)
    kept = np.flatnonzero(~holes)
    index = _frame.index_values(frame) if template.uses_index else None
    labels: Any = frame.index
    if len(kept) < n:
        chosen = kept.tolist()
        values = {c: [column[i] for i in chosen] for c, column in values.items()}
        index = [index[i] for i in chosen] if index is not None else None
        labels = frame.index[kept]
    data: dict[Hashable, list[object]] = values
    texts = template.render(data, index, len(kept), labels)
    _refuse_empty(texts, template.roles, labels)
    fragments = _requests.fragments(template.roles, texts)
    ids = _requests.custom_ids(realm, shape, fragments)
    return _requests.distinct(ids, fragments, shape, kept, n)


def _refuse_empty(texts: list[list[str]], roles: tuple[str, ...], labels: Any) -> None:
    """Refuse prompts without text: the model would be asked nothing."""
    for role, column in zip(roles, texts, strict=True):
        if role != "user":
            continue
        empty = [i for i, text in enumerate(column) if not text.strip()]
        if empty:
            raise RequestError(
                f"The prompt is empty in {len(empty):,} rows, first in row {labels[empty[0]]!r}. "
                "Drop these rows first, or let the template say something.",
                row=labels[empty[0]],
                count=len(empty),
            )


def _refuse_large(frame: pd.DataFrame, requests: Requests, options: Options) -> None:
    sizes = requests.line_bytes()
    large = np.flatnonzero(sizes > options.max_bytes_per_file)
    if len(large):
        row = int(np.flatnonzero(requests.codes == large[0])[0])
        raise RequestError(
            f"The request of row {frame.index[row]!r} has {sizes[large[0]]:,} bytes, above "
            f"max_bytes_per_file ({options.max_bytes_per_file:,}). Shorten its text.",
            row=frame.index[row],
            count=len(large),
        )


def versions() -> str:
    """Return the versions that a run was made with, as JSON."""
    from importlib import metadata

    names = ("nyu-llm-frames", "pandas", "pyarrow", "portkey-ai", "jinja2")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(found)


def template_text(template: PromptTemplate) -> str:
    """Return the template as it was given, as JSON messages."""
    return json.dumps([{"role": m.role, "content": m.source} for m in template.sources])
