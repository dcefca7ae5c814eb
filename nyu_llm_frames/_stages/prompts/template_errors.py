"""The error messages for a wrong template: the line, a mark under the place, the nearest names.

Cells are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from difflib import SequenceMatcher

import numpy as np
from jinja2 import TemplateSyntaxError
from jinja2.filters import FILTERS

from nyu_llm_frames._shared.wording import shortened
from nyu_llm_frames.errors import MissingColumnError, TemplateError

_SHOWN_COLUMNS = 10
_SHOWN_WIDTH = 88
_JINJA_GLOBALS = frozenset({"namespace", "dict", "cycler", "joiner", "lipsum", "gettext", "_"})
_SHOWN_REASON = 200
_ALIKE = 0.6
_SEPARATORS = (";", "\t", "|", ",")


def nearest(name: Hashable, known: Iterable[Hashable]) -> list[tuple[float, Hashable]]:
    """Known names with their similarity to `name`, the nearest first."""
    wanted = _plain(name)
    matcher = SequenceMatcher()
    matcher.set_seq2(wanted)
    scored = []
    for candidate in known:
        matcher.set_seq1(_plain(candidate))
        scored.append((matcher.ratio(), candidate))
    return sorted(scored, key=lambda pair: -pair[0])


def _plain(name: Hashable) -> str:
    return re.sub(r"[\W_]+", "", str(name)).casefold() or str(name)


def excerpt(source: str, line: int, token: str | None = None) -> str:
    """One line of a template with a mark under `token`, else under its only tag."""
    lines = re.split(r"\r\n|\r|\n", source)
    if not 1 <= line <= len(lines):
        return ""
    text = lines[line - 1]
    found = re.search(_word(token), text) if token else None
    tags = [] if found else list(re.finditer(r"\{[{%](.*?)[%}]\}|\{[{%].*", text))
    unclosed = [tag for tag in tags if not tag[0].endswith("}")]
    if unclosed or len(tags) == 1:
        found = (unclosed or tags)[-1]
    start, length = (found.start(), max(1, len(found[0]))) if found else (0, 0)
    if start > _SHOWN_WIDTH // 2:
        cut = start - _SHOWN_WIDTH // 2
        text, start = "…" + text[cut + 1 :], start - cut
    text = shortened(text, _SHOWN_WIDTH)
    shown = f"\n  {line} | {text}"
    if not found:
        return shown
    marks = "^" * max(1, min(length, len(text) - start))
    before = re.sub(r"[^\t]", " ", text[:start])
    return f"{shown}\n  {' ' * len(str(line))} | {before}{marks}"


def _word(token: str) -> str:
    left = r"(?<!\w)" if token[:1].isidentifier() else ""
    right = r"(?!\w)" if token[-1:].isidentifier() else ""
    return f"{left}{re.escape(token)}{right}"


def missing_column(
    name: Hashable, line: int, source: str, columns: Sequence[Hashable]
) -> MissingColumnError:
    ranked = nearest(name, dict.fromkeys(columns))
    available = [label for _, label in ranked]
    at = f" (line {line})" if line else ""
    text = f"The template uses {name!r}, which is not a column{at}."
    if line:
        text += f"{excerpt(source, line, str(name))}\n"
    hints = []
    alike = [label for score, label in ranked[:3] if score >= _ALIKE]
    if alike:
        hints.append(f"Did you mean {' or '.join(map(_spelled, alike))}?")
    if name in _JINJA_GLOBALS:
        hints.append("Of Jinja's global functions, prompts have `range` only.")
    if name in FILTERS and re.search(rf"(?<![\w.]){name}\s*\(", source):
        hints.append(f"`{name}` is a filter, written after its column: {{{{ x | {name} }}}}.")
    hints.append(_listed(available))
    only = available[0] if len(available) == 1 else None
    mark = next((m for m in _SEPARATORS if isinstance(only, str) and m in only), None)
    if mark:
        hints.append(
            f"That is one column, with {mark!r} in its name. If it separates the columns of the "
            f"file, say so: sep={mark!r}."
        )
    separator = "" if line else " "
    error = MissingColumnError(
        f"{text}{separator}{' '.join(hints)}", column=name, available=available
    )
    error.line = line or None
    return error


def no_column(text: str, name: Hashable, columns: Iterable[Hashable]) -> MissingColumnError:
    """Return the error for an argument that names no column: `text`, then what there is."""
    ranked = nearest(name, dict.fromkeys(columns))
    available = [label for _, label in ranked]
    alike = [repr(label) for score, label in ranked[:3] if score >= _ALIKE]
    hint = f"Did you mean {' or '.join(alike)}? " if alike else ""
    return MissingColumnError(
        f"{text} {hint}{_listed(available)}", column=name, available=available
    )


def _listed(available: Sequence[Hashable]) -> str:
    if not available:
        return "There are no columns."
    shown = ", ".join(map(repr, available[:_SHOWN_COLUMNS]))
    more = len(available) - _SHOWN_COLUMNS
    return f"Columns: {shown}{f', and {more} more' if more > 0 else ''}."


def _spelled(label: Hashable) -> str:
    """How to write a column in a template."""
    if isinstance(label, str) and label.isidentifier() and label not in ("row", "index"):
        return f"`{label}`"
    return f"`row[{label!r}]`"


def same_prompt(
    sources: Sequence[str], paths: Sequence[str], columns: Sequence[Hashable], rows: int
) -> TemplateError:
    """The error for a prompt that is the same for all rows of a table.

    `sources` are the templates of all messages; some may be the `paths` of files.
    """
    text = (
        f"The prompt is the same for all {rows:,} rows: it uses no column, no `row`, no `index` "
        "and no images. A column goes in two braces, as {{ "
    )
    names = {str(label): label for label in columns if label not in ("row", "index", "")}
    braced = [w.strip() for text in sources for w in re.findall(r"(?<!\{)\{([^{}]+)\}", text)]
    single = next((w for w in braced if w in names or w.isidentifier()), None)
    column = single if single in names else next(iter(names), "column")
    name = column if column.isidentifier() else f"row[{names[column]!r}]"
    text += f"{name} }}}}."
    if single is not None:
        text += (
            f" {{{single}}} is how Python's f-strings write a name; in an f-string, two braces "
            "become one."
        )
    for path in paths:
        text += (
            f" {path!r} was given as the text of the prompt; a file's text is given as "
            f"pathlib.Path({path!r}), on the command line as --template {path}."
        )
    return TemplateError(text)


def unknown_word(
    kind: str, name: str, line: int, source: str, known: Iterable[str]
) -> TemplateError:
    close = [str(n) for score, n in nearest(name, known)[:3] if score >= _ALIKE]
    hint = f" Did you mean {' or '.join(f'`{n}`' for n in close)}?" if close else ""
    if (kind, name) == ("filter", "random"):
        hint = " A prompt depends on its row alone, so that it is sent and paid only once."
    return TemplateError(
        f"The template uses the unknown {kind} `{name}` (line {line})."
        f"{excerpt(source, line, name)}\n{hint.strip()}".rstrip(),
        line=line,
    )


def syntax_error(
    error: TemplateSyntaxError, source: str, columns: Sequence[Hashable]
) -> TemplateError:
    reason = (error.message or "it cannot be parsed").rstrip(".")
    line = error.lineno
    quoted = re.findall(r"'([^']+)'", reason)
    lines = re.split(r"\r\n|\r|\n", source)
    text = lines[line - 1] if 1 <= line <= len(lines) else ""
    token = next((q for q in reversed(quoted) if re.search(_word(q), text)), None)
    hint = next(
        (
            f"\nA column name of several words is written {_spelled(label)}."
            for label in columns
            if isinstance(label, str) and not label.isidentifier() and label and label in text
        ),
        "",
    )
    return TemplateError(
        f"The template does not parse: {reason} (line {line}).{excerpt(source, line, token)}{hint}",
        line=line,
    )


def unavailable_tag(tag: str, line: int, source: str) -> TemplateError:
    """The error for a tag that would load another template."""
    return TemplateError(
        f"The template uses `{{% {tag} %}}`, but prompts have no folder of templates to load from"
        f" (line {line}). Put the text into the template itself."
        f"{excerpt(source, line, tag)}",
        line=line,
    )


def row_failure(
    error: Exception,
    source: str,
    line: int | None,
    position: int,
    labels: Sequence[Hashable] | None,
    first: int = 0,
) -> TemplateError:
    """The error for a row at which rendering failed; the original message is cut short.

    `position` counts in `labels`; its first row has the position `first` for the user.
    """
    reason = shortened(str(error).strip(), _SHOWN_REASON)
    label = None if labels is None else labels[position]
    if isinstance(label, np.generic):
        label = label.item()  # or it would read `np.int64(5)`
    position += first
    where = f"position {position}" if labels is None else f"row {label!r} (position {position})"
    at = f", line {line}" if line else ""
    return TemplateError(
        f"The template failed at {where}{at}: {type(error).__name__}: {reason}"
        f"{excerpt(source, line) if line else ''}",
        row=label,
        position=position,
        line=line,
    )
