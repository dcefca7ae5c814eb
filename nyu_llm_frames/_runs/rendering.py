"""From a table to distinct requests: every prompt rendered, encoded and hashed.

Comes in: a table, or pieces of rows for a compiled call. Goes out: `Requests`. A few thousand rows
at a time: the texts of all rows are never in memory at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.prepare import PreparedCall, check_prompts_differ, compile_call
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._stages.prompts.template import PromptTemplate, Rendered
from nyu_llm_frames._stages.requests import bodies as _requests
from nyu_llm_frames._stages.requests import preflight
from nyu_llm_frames._stages.requests.bodies import Requests
from nyu_llm_frames._stages.requests.images import Rules, row_sources
from nyu_llm_frames._stages.requests.images import contents as image_contents
from nyu_llm_frames._stages.requests.routes import route
from nyu_llm_frames._tables import image_cells as _images
from nyu_llm_frames._tables.frame import missing_value_error, rows_with_na
from nyu_llm_frames._tables.open_table import open_rows
from nyu_llm_frames._tables.table import Labels, Mask, Piece, Table
from nyu_llm_frames.errors import MissingValueError


def prepare(
    table: Any, arguments: Arguments, *, check_columns: bool = True, first: int | None = None
) -> PreparedCall:
    """Check everything and render every prompt; no network, nothing written.

    `table` is a `Table`, or what `open_rows` accepts. With `first` only so many rows are rendered,
    the first that would be sent.
    """
    table, rows = open_rows(table, first if arguments.if_exists != "fill" else None)
    call = compile_call(table, arguments, check_columns=check_columns)
    check_prompts_differ(call, table.columns, rows)
    return rendered(call, table, check_columns=check_columns, first=first)


def rendered(
    call: PreparedCall, table: Table, *, check_columns: bool = True, first: int | None = None
) -> PreparedCall:
    """Render the rows of a table; where the call fills, those without a good answer."""
    if call.fills:
        fill = call.lacking(table, check_types=check_columns)
        call = replace(call, fill=fill, whole=table)
        table = table.take(fill.rows[:first])
    pieces = table.pieces(
        call.used, index=call.template.uses_index, rows=len(table) if call.images else None
    )
    return replace(call, table=table, requests=render(call, pieces))


def render(call: PreparedCall, pieces: Iterable[Piece], first: int = 0) -> Requests:
    """Render every row; a call with images takes one piece.

    `first` is the number of the first row, if rows have no other labels.
    """
    labels: list[Sequence[Any]] = []
    if call.images:
        requests = _render_with_images(call, pieces, first, labels)
    else:
        requests = _render(call, pieces, first, labels)
    preflight.check_sizes(requests, call.options.max_bytes_per_file, Labels(labels))
    return requests


def _labeled(call: PreparedCall, piece: Piece, first: int) -> tuple[list[object] | None, Any]:
    """Return what `index` prints in a piece, and the labels of its rows in messages."""
    numbers = range(first, first + piece.rows)
    labels = next((x for x in (piece.labels, piece.index) if x is not None), numbers)
    if not call.template.uses_index:
        return None, labels
    return to_python(list(numbers) if piece.index is None else piece.index), labels


def _render(
    call: PreparedCall, pieces: Iterable[Piece], first: int, labels: list[Sequence[Any]]
) -> Requests:
    template, realm, shape = call.template, call.gateway.realm, call.requests.shape
    missing_rows: list[Mask] = []
    missing: Counter[Hashable] = Counter()
    stop = False
    empty: list[list[int]] = [[] for _ in template.roles]
    parts: list[pa.Array] = []
    ids: list[pa.Array] = []
    done = rows = 0
    for piece in pieces:
        index, theirs = _labeled(call, piece, first + rows)
        labels.append(theirs)
        rendered = template.render(piece.values, index, piece.rows, theirs, rows)
        rows += piece.rows
        blank, counts = _gaps(rendered, piece.rows)
        texts, stop = rendered.texts, stop or rendered.in_object
        missing_rows.append(blank)
        missing.update(counts)
        stop |= bool(missing) and call.arguments.missing == "error"
        if stop:
            continue  # from here on, missing values are only counted
        for places, column in zip(empty, texts, strict=True):
            places += [done + i for i in preflight.empty_texts(column)]
        parts.append(_requests.fragments(template.roles, texts))
        ids.append(_requests.custom_ids(realm, shape, parts[-1]))
        done += len(texts[0])
    without = np.concatenate([np.zeros(0, np.bool_), *missing_rows])
    if stop:
        raise _missing_value_error(template, Labels(labels), without, missing)
    kept = np.flatnonzero(~without)
    if any(empty):
        preflight.check_texts(empty, template.roles, Labels(labels, kept))
    every = _requests.joined_ids(ids)
    messages = pa.chunked_array(parts, pa.large_string())
    return _requests.distinct(every, messages, shape, kept, rows)


def _gaps(rendered: Rendered, rows: int) -> tuple[Mask, Counter[Hashable]]:
    """Return which rows use missing values, and how many rows do so per column."""
    blank = np.zeros(rows, dtype=np.bool_)
    blank[list(rendered.missing)] = True
    return blank, Counter(label for labels in rendered.missing.values() for label in labels)


def _missing_value_error(
    template: PromptTemplate, labels: Sequence[Any], rows: Mask, counts: Mapping[Hashable, int]
) -> MissingValueError:
    ordered = {label: counts[label] for label in template.columns if counts.get(label)}
    ordered |= counts  # then names that are not columns
    shown = [preflight.shown_label(labels[i]) for i in np.flatnonzero(rows)[:4]]
    return missing_value_error(shown, ordered, template.has_object)


def _render_with_images(
    call: PreparedCall, pieces: Iterable[Piece], first: int, every: list[Sequence[Any]]
) -> Requests:
    template, arguments, shape = call.template, call.arguments, call.requests.shape
    piece = next(iter(pieces), Piece(0, {c: [] for c in call.used}, None, 1.0))
    n = piece.rows
    index, labels = _labeled(call, piece, first)
    every.append(labels)
    cells = {c: piece.values[c] for c in call.images}
    pictures = _images.image_cells(cells, labels)
    missing_rows, counts = rows_with_na(pictures, tuple(pictures), n)
    if counts and arguments.missing == "error":
        raise _images.missing_image_error(labels, missing_rows, counts)
    kept = np.flatnonzero(~missing_rows)
    values: dict[Hashable, Any] = {c: _at(piece.values[c], kept) for c in template.columns}
    theirs = None if index is None else _at(index, kept)
    rendered = template.render(values, theirs, len(kept), _at(labels, kept))
    if rendered.missing:
        blank, missing = _gaps(rendered, len(kept))
        missing_rows[kept[blank]] = True
        if rendered.in_object or arguments.missing == "error":
            raise _missing_value_error(template, labels, missing_rows, missing)
        kept = np.flatnonzero(~missing_rows)
    texts = rendered.texts
    labels = _at(labels, kept)
    pictures = {c: _at(column, kept) for c, column in pictures.items()}
    preflight.check_texts(list(map(preflight.empty_texts, texts)), template.roles, labels)
    root = None if call.options.images_root is None else Path(call.options.images_root)
    rules = Rules(route(call.gateway.realm, shape.model), call.options.max_bytes_per_file, root)
    look, read = partial(_images.look, root=root), partial(_images.read, root=root)
    sources = row_sources(pictures, labels, rules, look)
    at = max(i for i, role in enumerate(template.roles) if role == "user")
    contents = {at: image_contents(texts[at], sources, rules, read)}
    made = _requests.fragments_with_images(template.roles, texts, contents)
    ids = _requests.custom_ids(call.gateway.realm, shape, made)
    return _requests.distinct(ids, made, shape, kept, n)


def _at(values: Sequence[Any], places: Any) -> list[Any]:
    return [values[i] for i in places.tolist()]
