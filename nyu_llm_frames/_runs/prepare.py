"""Checks the arguments of a call and compiles it against the names of the columns.

Comes in: a table's columns and the arguments. Goes out: a `PreparedCall` without any row;
`rendering.prepare` adds the rows.
"""

from __future__ import annotations

import json
import platform
import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._gateway.provider import resolve_model
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.allowed import check_choice, check_number, whole_number
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.options import Options
from nyu_llm_frames._stages.prompts.template import PromptTemplate, compile_template
from nyu_llm_frames._stages.prompts.template_errors import same_prompt
from nyu_llm_frames._stages.requests import preflight
from nyu_llm_frames._stages.requests.bodies import BodyShape, Requests, no_requests
from nyu_llm_frames._stages.requests.parameters import body_params
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._stages.schema.schema import Schema, compile_schema
from nyu_llm_frames._tables import filling
from nyu_llm_frames._tables.arrow_columns import RowNumbers
from nyu_llm_frames._tables.columns import AnswerColumns, Codes
from nyu_llm_frames._tables.filling import Fill, choose
from nyu_llm_frames._tables.frame import check_new_columns
from nyu_llm_frames._tables.image_cells import image_columns
from nyu_llm_frames._tables.table import Head, Table
from nyu_llm_frames.errors import ConfigurationError, MissingColumnError, TemplateError

_COMPILING = threading.Lock()


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call that is checked and compiled, and the requests of some of its rows."""

    arguments: Arguments
    table: Table  # the rows that are rendered, with a place for their answers
    template: PromptTemplate
    images: tuple[Hashable, ...]
    schema: Schema | None
    requests: Requests
    gateway: Gateway
    options: Options
    sidecar_path: Path
    # With `if_exists="fill"`: the places of these rows in the whole table, and that table.
    fill: Fill | None = None
    whole: Table | None = None

    @property
    def codes(self) -> Codes:
        """Request of each row, -1 where the row was skipped."""
        return self.requests.codes

    @property
    def used(self) -> list[Hashable]:
        """The columns that the prompts are made of."""
        return list(dict.fromkeys((*self.template.columns, *self.images)))

    @property
    def fills(self) -> bool:
        """Whether only rows without a good answer are sent."""
        return self.arguments.if_exists == "fill"

    @property
    def kept(self) -> int:
        """Number of rows that are not sent: they have a good answer already."""
        return 0 if self.fill is None else len(self.fill.earlier) - len(self.fill.rows)

    @property
    def new_columns(self) -> AnswerColumns:
        given = self.arguments
        return AnswerColumns(given.output, self.schema, given.prefix, given.details)

    def lacking(self, table: Table, *, check_types: bool = True) -> Fill:
        """Find the rows to send, from the columns of an earlier call."""
        fill = choose(table.earlier(self.new_columns.with_details().names), self.new_columns)
        if check_types:
            filling.check_types(fill, table.label, self.new_columns)
        return fill


def check_retries(retries: object) -> int:
    """Return the number of attempts beyond the first."""
    return whole_number("retries", retries, 0, 100)


def check_endings(wait: object, timeout: object, on_error: object) -> float | None:
    """Check the arguments of a call's end; return its timeout in seconds, or None."""
    check_choice("on_error", on_error, ("keep", "raise"))
    if not isinstance(wait, bool):
        raise ConfigurationError(f"wait must be True or False, not {wait!r}.")
    return check_timeout(timeout)


def check_timeout(timeout: object) -> float | None:
    """Check a number of seconds; None waits for as long as it takes."""
    check_number("timeout", timeout, 0)
    return None if timeout is None else float(timeout)  # type: ignore[arg-type]


def sidecar_path(arguments: Arguments, options: Options) -> Path:
    chosen = arguments.sidecar if arguments.sidecar is not None else options.sidecar
    if chosen is None:
        chosen = "llm_sidecar"
    if not isinstance(chosen, str | Path) or not str(chosen):
        raise ConfigurationError(f"sidecar must be the path of a folder, not {chosen!r}.")
    return local_path(chosen, "The sidecar").absolute()


def _read(template: Any) -> Any:
    """Return a template with paths replaced by the text of their files."""
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


def check_prompts_differ(call: PreparedCall, columns: Sequence[Hashable], rows: int) -> None:
    """Refuse a call whose prompt is the same in every row."""
    if rows < 2 or call.template.uses_anything or call.images:
        return
    sources = [message.source for message in call.template.sources]
    raise same_prompt(sources, [text for text in sources if _is_path(text)], columns, rows)


def _is_path(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"[^\n]+\.(txt|md|j2|jinja2?|tmpl|prompt)", text)) or (
            Path(text).expanduser().is_file()
        )
    except (OSError, ValueError, RuntimeError):  # not a file name
        return False


def compile_call(table: Head, arguments: Arguments, *, check_columns: bool = True) -> PreparedCall:
    """Check a call and compile its template; no row is read.

    With `check_columns` the new columns must fit into the table.
    """
    options = _options.current()
    columns = list(table.columns)
    check_choice("if_exists", arguments.if_exists, ("error", "replace", "fill"))
    check_choice("missing", arguments.missing, ("error", "skip"))
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
    schema = compiled_schema(arguments.schema)
    new = AnswerColumns(arguments.output, schema, arguments.prefix, arguments.details)
    there = {name for name in columns if isinstance(name, str)}
    if arguments.if_exists != "error" and there.issuperset(new.of_details):
        arguments, new = replace(arguments, details=True), new.with_details()
    if check_columns:
        check_new_columns(table, new.names, arguments.if_exists)
    # Columns that an earlier run of this cell added are not part of a row: they change its prompt.
    ours: frozenset[Hashable] = frozenset()
    if arguments.if_exists != "error":
        for earlier in (replace(new, details=False), new.with_details()):
            if earlier == new or there.issuperset(earlier.names):
                ours |= set(earlier.names)
    texts = _read(arguments.template), _read(arguments.system)
    try:
        template = compile_template(*texts, columns, ours)
    except MissingColumnError as e:
        if e.column in table.index_names:
            e.args = (
                f"{e} {e.column!r} is the index or a level of it: {{{{ index }}}} prints all of "
                "it, and df.reset_index() makes columns of it.",
            )
        raise
    realm = gateway.realm
    preflight.check_roles(template.roles, route(realm, arguments.model))
    params = body_params(
        model=arguments.model, realm=realm, max_tokens=arguments.max_tokens,
        temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed,
        stop=arguments.stop, thinking=arguments.thinking, params=arguments.params,
        has_schema=schema is not None,
    )  # fmt: skip
    if schema is not None:
        params["response_format"] = schema.response_format
    images = image_columns(columns, arguments.images)
    shape = BodyShape(arguments.model, template.roles, params)
    requests = no_requests(shape, images=bool(images))
    return PreparedCall(
        arguments, RowNumbers(), template, images, schema, requests, gateway, options, path
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


def compiled_schema(given: object) -> Schema | None:
    """Compile a schema, where there is one, in one thread at a time.

    Its class may be read from source, and Python 3.11 counts the depth of all threads' syntax
    trees in one place: where two of them mix, it raises SystemError.
    """
    if given is None:
        return None
    with _COMPILING:
        return compile_schema(given)
