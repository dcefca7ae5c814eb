"""One call: arguments checked, stages put together, nothing sent.

Comes in: a frame and its arguments. Goes out: a `PreparedCall` that holds the distinct
requests and knows how to turn answers into a frame. Preview, submit, batch and trial all start
here.
"""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.provider import resolve_model
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.options import Options
from nyu_llm_frames._stages.prompts.template import PromptTemplate, Rendered, compile_template
from nyu_llm_frames._stages.prompts.template_errors import same_prompt
from nyu_llm_frames._stages.requests import bodies as _requests
from nyu_llm_frames._stages.requests import preflight
from nyu_llm_frames._stages.requests.bodies import BodyShape, Requests
from nyu_llm_frames._stages.requests.images import Rules, row_sources
from nyu_llm_frames._stages.requests.images import contents as image_contents
from nyu_llm_frames._stages.requests.parameters import body_params, check_number
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._stages.schema.schema import Schema, compile_schema
from nyu_llm_frames._tables import frame as _frame
from nyu_llm_frames._tables import image_cells as _images
from nyu_llm_frames._tables.columns import Codes, new_names
from nyu_llm_frames._tables.frame import Mask
from nyu_llm_frames.errors import ConfigurationError, MissingValueError, TemplateError


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call whose prompts are rendered.

    Attributes
    ----------
    arguments : Arguments
    frame : pandas.DataFrame
        A shallow copy of the user's frame.
    template : PromptTemplate
    schema : Schema or None
    requests : Requests
    gateway : Gateway
    options : Options
    sidecar_path : Path
    """

    arguments: Arguments
    frame: pd.DataFrame
    template: PromptTemplate
    schema: Schema | None
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


def check_retries(retries: object) -> int:
    """Return the number of attempts beyond the first."""
    check_number("retries", retries, 0, 100, whole=True)
    if retries is None:
        raise ConfigurationError("retries must be a whole number, not None.")
    return int(retries)  # type: ignore[call-overload, no-any-return]


def check_timeout(timeout: object) -> float | None:
    """Return seconds of patience, or None."""
    check_number("timeout", timeout, 0, float("inf"))
    return None if timeout is None else float(timeout)  # type: ignore[arg-type]


def sidecar_path(arguments: Arguments, options: Options) -> Path:
    """Return the sidecar's folder."""
    chosen = arguments.sidecar if arguments.sidecar is not None else options.sidecar
    if chosen is None:
        chosen = "llm_sidecar"
    if not isinstance(chosen, str | Path) or not str(chosen):
        raise ConfigurationError(f"sidecar must be the path of a folder, not {chosen!r}.")
    return local_path(chosen, "The sidecar").absolute()


def _read(template: Any) -> Any:
    """Return a template with the text of files in place of their paths."""
    if isinstance(template, list | tuple):
        return [
            {**item, "content": _read(item["content"])}
            if isinstance(item, Mapping) and isinstance(item.get("content"), Path)
            else item
            for item in template
        ]
    if not isinstance(template, Path):
        return template
    path = local_path(template, "The template file", "Download it, or give its text.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise TemplateError(f"The template file {template} cannot be read: {e}.") from None


def _refuse_same_prompt(template: PromptTemplate, columns: Sequence[Hashable], rows: int) -> None:
    if rows < 2:
        return
    sources = [message.source for message in template.sources]
    raise same_prompt(sources, [text for text in sources if _is_path(text)], columns, rows)


def _is_path(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"[^\n]+\.(txt|md|j2|jinja2?|tmpl|prompt)", text)) or (
            Path(text).expanduser().is_file()
        )
    except (OSError, ValueError, RuntimeError):  # no name of a file
        return False


def prepare(
    frame: pd.DataFrame,
    arguments: Arguments,
    *,
    check_columns: bool = True,
    rows: int | None = None,
) -> PreparedCall:
    """Check everything and render every prompt; no network, nothing written.

    Parameters
    ----------
    frame : pandas.DataFrame
    arguments : Arguments
    check_columns : bool
        Whether the new columns must have a place in the frame.
    rows : int, optional
        Of the whole table, where the frame is a part of it.

    Raises
    ------
    LLMFramesError
        The kind that fits, naming the row, column or argument and the way out.
    """
    options = _options.current()
    _frame.check_frame(frame)
    _one_of("if_exists", arguments.if_exists, ("error", "replace"))
    _one_of("missing", arguments.missing, ("error", "skip"))
    if not isinstance(arguments.model, str) or not arguments.model.strip():
        raise ConfigurationError(f"model must be the name of a model, not {arguments.model!r}.")
    if arguments.model != arguments.model.strip() or not (
        arguments.model.isascii() and arguments.model.isprintable()
    ):
        raise ConfigurationError(
            f"model={arguments.model!r} holds a blank at an end, or a character that cannot be "
            "sent: was more copied than the name?"
        )
    if not isinstance(arguments.output, str) or not arguments.output:
        raise ConfigurationError(f"output must be a column name, not {arguments.output!r}.")
    if not isinstance(arguments.details, bool):
        raise ConfigurationError(f"details must be True or False, not {arguments.details!r}.")
    if not isinstance(arguments.prefix, str):
        raise ConfigurationError(f"prefix must be a string, not {arguments.prefix!r}.")
    gateway, name = resolve_model(arguments.gateway, arguments.model)
    arguments = replace(arguments, model=name)
    path = sidecar_path(arguments, options)
    schema = None if arguments.schema is None else compile_schema(arguments.schema)
    fields = None if schema is None else [field.name for field in schema.fields]
    if check_columns:
        names = new_names(
            arguments.output, fields, prefix=arguments.prefix, details=arguments.details
        )
        _frame.check_new_columns(frame, names, arguments.if_exists)
    # What an earlier run of the same cell added is no part of a row: its prompt would be another.
    ours: frozenset[Hashable] = frozenset()
    if arguments.if_exists == "replace":
        for details in (False, True):
            names = new_names(arguments.output, fields, prefix=arguments.prefix, details=details)
            if details == arguments.details or set(names) <= set(frame.columns):
                ours |= set(names)
    template = compile_template(
        _read(arguments.template), _read(arguments.system), list(frame.columns), ours
    )
    if not (template.uses_anything or arguments.images):
        _refuse_same_prompt(template, list(frame.columns), len(frame) if rows is None else rows)
    realm = gateway.realm
    way = route(realm, arguments.model)
    preflight.check_roles(template.roles, way)
    params = _params(arguments, realm)
    if schema is not None:
        params["response_format"] = schema.response_format
    shape = BodyShape(arguments.model, template.roles, params)
    root = None if options.images_root is None else Path(options.images_root)
    rules = Rules(way, options.max_bytes_per_file, root)
    requests = render_requests(frame, arguments, template, shape, realm, rules)
    return PreparedCall(
        arguments, _frame.own_copy(frame), template, schema, requests, gateway, options, path
    )


def _params(arguments: Arguments, realm: str) -> dict[str, Any]:
    return body_params(
        model=arguments.model,
        realm=realm,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=arguments.stop,
        thinking=arguments.thinking,
        params=arguments.params,
        has_schema=arguments.schema is not None,
    )


def render_requests(
    frame: pd.DataFrame,
    arguments: Arguments,
    template: PromptTemplate,
    shape: BodyShape,
    realm: str,
    rules: Rules,
) -> Requests:
    """Render the rows of a frame by a compiled template; needs neither gateway nor options.

    Raises
    ------
    LLMFramesError
        What is wrong in a row.
    """
    requests = _render(frame, arguments, template, shape, realm, rules)
    preflight.check_sizes(requests, rules.max_bytes, frame.index)
    return requests


def _render(
    frame: pd.DataFrame,
    arguments: Arguments,
    template: PromptTemplate,
    shape: BodyShape,
    realm: str,
    rules: Rules,
) -> Requests:
    """Render a few thousand rows at a time: a column of texts for all of them is never held."""
    images = _images.image_columns(frame, arguments.images)
    if images:
        return _render_with_images(frame, arguments, template, shape, realm, rules, images)
    n = len(frame)
    missing_rows = np.zeros(n, dtype=np.bool_)
    missing: Counter[Hashable] = Counter()
    stop = False
    empty: list[list[int]] = [[] for _ in template.roles]
    parts: list[pa.Array] = []
    ids: list[pa.Array] = []
    done = 0
    for start in range(0, n, _requests.ROWS_AT_ONCE):
        piece = frame.iloc[start : start + _requests.ROWS_AT_ONCE]
        values = _frame.column_values(piece, template.columns)
        index = _frame.index_values(piece) if template.uses_index else None
        labels: Any = piece.index
        rendered = template.render(values, index, len(piece), labels, start)
        blank, counts = _gaps(rendered, len(piece))
        texts, stop = rendered.texts, stop or rendered.in_object
        missing_rows[start : start + len(piece)] = blank
        missing.update(counts)
        stop |= bool(missing) and arguments.missing == "error"
        if stop:
            continue  # what is missing further down is counted, and nothing else is done
        for places, column in zip(empty, texts, strict=True):
            places += [done + i for i in preflight.empty_texts(column)]
        parts.append(_requests.fragments(template.roles, texts))
        ids.append(_requests.custom_ids(realm, shape, parts[-1]))
        done += len(texts[0])
    if stop:
        raise _missing_value_error(template, frame.index, missing_rows, missing)
    kept = np.flatnonzero(~missing_rows)
    if any(empty):
        preflight.check_texts(empty, template.roles, frame.index[kept])
    every = pa.concat_arrays(ids) if ids else pa.array([], pa.string())
    messages = pa.chunked_array(parts, pa.large_string())
    return _requests.distinct(every, messages, shape, kept, n)


def _gaps(rendered: Rendered, rows: int) -> tuple[Mask, Counter[Hashable]]:
    """Return which rows use missing values, and how many rows do so per column."""
    blank = np.zeros(rows, dtype=np.bool_)
    blank[list(rendered.missing)] = True
    return blank, Counter(label for labels in rendered.missing.values() for label in labels)


def _missing_value_error(
    template: PromptTemplate, index: pd.Index, missing_rows: Mask, counts: Mapping[Hashable, int]
) -> MissingValueError:
    told = {label: counts[label] for label in template.columns if counts.get(label)}
    told |= counts  # and what is no column
    labels = [preflight.shown_label(index[i]) for i in np.flatnonzero(missing_rows)[:4]]
    return _frame.missing_value_error(labels, told, template.has_object)


def _without(
    missing_rows: Mask,
    values: dict[Hashable, list[object]],
    index: list[object] | None,
    labels: Any,
) -> tuple[dict[Hashable, list[object]], list[object] | None, Any]:
    """Leave rows out."""
    kept = np.flatnonzero(~missing_rows)
    chosen = kept.tolist()
    return (
        {c: [column[i] for i in chosen] for c, column in values.items()},
        None if index is None else [index[i] for i in chosen],
        labels[kept],
    )


def _render_with_images(
    frame: pd.DataFrame,
    arguments: Arguments,
    template: PromptTemplate,
    shape: BodyShape,
    realm: str,
    rules: Rules,
    images: tuple[Hashable, ...],
) -> Requests:
    n = len(frame)
    pictures = _images.image_cells(frame, images)
    missing_rows, counts = _frame.rows_with_na(pictures, tuple(pictures), n)
    if counts and arguments.missing == "error":
        raise _images.missing_image_error(frame, missing_rows, counts)
    values = _frame.column_values(frame, template.columns)
    index = _frame.index_values(frame) if template.uses_index else None
    labels: Any
    values, index, labels = _without(missing_rows, values, index, frame.index)
    rendered = template.render(values, index, len(labels), labels)
    if rendered.missing:
        blank, missing = _gaps(rendered, len(labels))
        missing_rows[np.flatnonzero(~missing_rows)[blank]] = True
        if rendered.in_object or arguments.missing == "error":
            raise _missing_value_error(template, frame.index, missing_rows, missing)
    texts = rendered.texts
    labels = frame.index[~missing_rows]
    pictures, _, _ = _without(missing_rows, pictures, None, frame.index)
    preflight.check_texts(list(map(preflight.empty_texts, texts)), template.roles, labels)
    look = partial(_images.look, root=rules.root)
    read = partial(_images.read, root=rules.root)
    sources = row_sources(pictures, labels, rules, look)
    at = max(i for i, role in enumerate(template.roles) if role == "user")
    contents = {at: image_contents(texts[at], sources, rules, read)}
    made = _requests.fragments_with_images(template.roles, texts, contents)
    ids = _requests.custom_ids(realm, shape, made)
    return _requests.distinct(ids, made, shape, np.flatnonzero(~missing_rows), n)


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
