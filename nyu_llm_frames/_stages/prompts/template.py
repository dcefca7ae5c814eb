"""The templates of a prompt's messages: compiled once, rendered for all rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2.exceptions import TemplateRuntimeError

from nyu_llm_frames._stages.prompts.compiled import Compiled, Rows
from nyu_llm_frames._stages.prompts.missing import Holes
from nyu_llm_frames._stages.prompts.template_object import TemplateObject
from nyu_llm_frames.errors import ConfigurationError

ROLES = ("system", "user", "assistant")
_ADDRESS = re.compile(r"<[^<>]{1,80} at 0x([0-9a-f]+)>")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt: the template as given; of a `jinja2.Template`, its name."""

    role: str
    source: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Texts of some rows."""

    texts: list[list[str]]  # by message, in the order of the roles; without the rows in `missing`
    # Position of each row that prints a missing value or compares one, and its columns.
    missing: Mapping[int, set[Hashable]]
    # Whether one is in a column of a `jinja2.Template`, which cannot report what it prints.
    in_object: bool


class PromptTemplate:
    """A prompt's messages, compiled.

    `sources` are the messages as given, and `columns` the labels of those in use, in frame order;
    `uses_index` says whether a message prints or tests the row's label.
    """

    def __init__(
        self,
        messages: Sequence[tuple[str, str | jinja2.Template]],
        columns: Sequence[Hashable],
        hidden_from_row: frozenset[Hashable] = frozenset(),
    ) -> None:
        self._given = (tuple(messages), tuple(columns), hidden_from_row)
        parts = [
            Compiled(content, columns, hidden_from_row)
            if isinstance(content, str)
            else TemplateObject(content, columns, hidden_from_row)
            for _, content in messages
        ]
        used = frozenset().union(*(part.columns for part in parts))
        self._parts = tuple(parts)
        self.roles = tuple(role for role, _ in messages)
        self.sources = tuple(Message(role, _source(content)) for role, content in messages)
        self.columns = tuple(label for label in dict.fromkeys(columns) if label in used)
        self.uses_index = any(part.uses_index for part in parts)
        _refuse_duplicates(self.columns, columns)

    @property
    def uses_anything(self) -> bool:
        """Whether the text can differ from one row to the next."""
        return self.uses_index or any(p.uses_row or p.columns for p in self._parts)

    @property
    def has_object(self) -> bool:
        """Whether a message is a `jinja2.Template`."""
        return any(isinstance(part, TemplateObject) for part in self._parts)

    def render(
        self,
        data: Mapping[Hashable, Sequence[object]],
        index: Sequence[object] | None,
        n: int,
        labels: Sequence[Hashable] | None = None,
        first: int = 0,
    ) -> Rendered:
        """Render all rows; the arguments are those of `Rows`, with at least `columns`."""
        rows = Rows(data, index, n, labels, first)
        missing: Holes = defaultdict(set)
        found, in_object = [], False
        for part in self._parts:
            before = sum(map(len, missing.values()))
            found.append(part.texts(rows, missing))
            if isinstance(part, TemplateObject):
                in_object |= sum(map(len, missing.values())) > before
        for texts, part in zip(found, self._parts, strict=True):
            for i, text in enumerate(texts):
                if ("0x" in text or "0X" in text) and i not in missing:
                    cells = [str(column[i]) for column in (*data.values(), index or range(n))]
                    given = "\n".join((part.text, *cells)).lower()
                    _refuse_addresses(text.lower(), given, i, rows)
        if missing:
            found = [[t for i, t in enumerate(texts) if i not in missing] for texts in found]
        return Rendered(found, missing, in_object)

    def __repr__(self) -> str:
        return f"<PromptTemplate {', '.join(self.roles)}: {len(self.columns)} columns>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


def compile_template(
    template: object,
    system: object,
    columns: Sequence[Hashable],
    hidden_from_row: frozenset[Hashable] = frozenset(),
) -> PromptTemplate:
    """Compile a prompt and find every name in it.

    It is template text, a compiled template, or messages as ``{"role": ..., "content": ...}``, with
    the template of a system message, sent first. `columns` are the labels of the frame, in order,
    of which `row` leaves out those that are `hidden_from_row` and that the template names nowhere.

    A template's own line ends become ``\\n``; otherwise its text is kept as written, with its last
    newline. Cells are printed as ``str`` prints them.

    Examples
    --------
    >>> prompt = compile_template("Which drug? {{ offense }}", None, ["offense"])
    >>> prompt.render({"offense": ["meth", "heroin"]}, None, 2).texts
    [['Which drug? meth', 'Which drug? heroin']]
    """
    messages: list[tuple[str, str | jinja2.Template]] = _messages(template)
    if system is not None:
        if not isinstance(system, str | jinja2.Template):
            raise ConfigurationError(
                "system= takes a template: text, a pathlib.Path or a jinja2.Template, not "
                f"{_kind(system)}."
            )
        if messages[0][0] == "system":
            raise ConfigurationError(
                "There are two system messages: system= and the first of the list. Keep one."
            )
        messages = [("system", system), *messages]
    return PromptTemplate(messages, columns, hidden_from_row)


def _messages(template: object) -> list[tuple[str, str | jinja2.Template]]:
    if isinstance(template, str | jinja2.Template):
        return [("user", template)]
    if not isinstance(template, list | tuple):
        raise ConfigurationError(
            "A template is text, a pathlib.Path, a jinja2.Template or a list of"
            f' {{"role", "content"}} messages, not {_kind(template)}.'
        )
    messages = [_message(item, place) for place, item in enumerate(template)]
    if all(role != "user" for role, _ in messages):
        raise ConfigurationError('A list of messages needs at least one with "role": "user".')
    return messages


def _message(item: object, place: int) -> tuple[str, str | jinja2.Template]:
    if not isinstance(item, Mapping) or set(item) != {"role", "content"}:
        got = f"one with {list(item)}" if isinstance(item, Mapping) else _kind(item)
        raise ConfigurationError(
            f'Message {place} must be {{"role": ..., "content": ...}}, not {got}.'
        )
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise ConfigurationError(
            f"Message {place} has the role {role!r}; roles are {', '.join(ROLES)}."
        )
    if role == "system" and place > 0:
        raise ConfigurationError(
            f"Message {place} is a system message; only the first message can be one."
        )
    if not isinstance(content, str | jinja2.Template):
        raise ConfigurationError(
            f"The content of message {place} is template text, not {_kind(content)}."
            " Images are given by images=."
        )
    return role, content


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _source(content: str | jinja2.Template) -> str:
    return content if isinstance(content, str) else f"<jinja2.Template {content.name or ''}>"


def _refuse_addresses(text: str, given: str, position: int, rows: Rows) -> None:
    """Refuse a memory address, unless its digits were given: it is another one in every process.

    Both texts are in small letters. Where something is printed as it is, the compiled template
    knows better; this is for what was joined or filtered before.
    """
    for found in _ADDRESS.finditer(text):
        if found[1] not in given:
            reason = TemplateRuntimeError(
                f"it prints a memory address, {found[0]}: write `| list` or `| join(', ')` after a "
                "filter that gives a generator, and `()` after the name of a function"
            )
            raise rows.failure(reason, position)


def _refuse_duplicates(used: Sequence[Hashable], columns: Sequence[Hashable]) -> None:
    if len(used) == len(columns):
        return
    wanted, names = set(used), set[Hashable]()
    for label in columns:
        if label in wanted and label in names:
            raise ConfigurationError(
                f"The template uses the column {label!r}, and the table has more than one of that"
                " name. Rename one, or drop it: of a pandas frame,"
                " df.loc[:, ~df.columns.duplicated()] keeps the first of each name."
            )
        names.add(label)
