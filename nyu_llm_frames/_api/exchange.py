"""Exchange with manual uploads and other runners: request files out, output files in.

Comes in: a prepared call, or any output file. Goes out: JSON Lines that can be uploaded by hand or
given to ``vllm run-batch``; answers in the sidecar; a tidy frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._runs.launch import CallExecution, looked_at, opened
from nyu_llm_frames._runs.prepare import PreparedCall
from nyu_llm_frames._runs.result import Collected
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.answer_store import SCHEMA
from nyu_llm_frames._sidecar.storage import atomic_file
from nyu_llm_frames._stages.answers.answer import RANK, SHOWN, Answer
from nyu_llm_frames._stages.answers.blocks import BlockSplitter
from nyu_llm_frames._stages.answers.classify import no_answer
from nyu_llm_frames._stages.answers.lines import has_replacement, parse_lines
from nyu_llm_frames._stages.batches.planning import Ints, split
from nyu_llm_frames._stages.requests.bodies import (
    REQUEST_START,
    reads_as_replacement,
    request_lines,
)
from nyu_llm_frames._tables.columns import answer_frame
from nyu_llm_frames._tables.file_content import HEAD_BYTES, kind_of
from nyu_llm_frames._tables.text_file import reading
from nyu_llm_frames.errors import ConfigurationError, PartialResultWarning

_CHUNK_BYTES = 1 << 20
_LINES = 8192
_COLUMNS = (*SHOWN[:-1], "cached_tokens", SHOWN[-1])
_DAMAGED = (
    "the text holds U+FFFD, which its prompt does not: characters were damaged on the way. Fetch "
    "the output again, or its stored file, and read that too"
)


# --- out --------------------------------------------------------------------------------------
def to_jsonl(call: PreparedCall, path: str | Path) -> list[Path]:
    """Write the requests that are neither answered nor under way; send nothing."""
    target = local_path(path, "The request file").absolute()
    if target.is_dir():
        raise ConfigurationError(f"{target} is a folder; the request file needs a name.")
    if not target.parent.is_dir():
        raise ConfigurationError(f"There is no folder {target.parent} for the request file.")
    requests, options = call.requests, call.options
    _, planner = CallExecution(call, looked_at(call, current_clock())).one_part()
    planner.take_back()  # plans of a call that failed before it made anything
    chosen = np.flatnonzero(planner.states().open)
    sizes = requests.line_bytes()[chosen]
    ranges = split(sizes, options.max_requests_per_file, options.max_bytes_per_file)
    written = []
    for number, (start, stop) in enumerate(ranges, 1):
        name = target
        if len(ranges) > 1:
            digits = len(str(len(ranges)))
            name = target.with_name(f"{target.stem}-{number:0{digits}d}{target.suffix}")
        _write(call, chosen[start:stop], name)
        written.append(name)
    _remove_earlier(target, written, requests.ids)
    return written


def _remove_earlier(target: Path, written: Sequence[Path], ids: pa.Array) -> None:
    """Remove request files of an earlier call: uploading them would pay again.

    Numbered files may belong to another call. They are removed only if they are numbered from 1 on,
    as here, or hold a request of this call.
    """
    numbered = re.compile(re.escape(target.stem) + r"-(\d+)" + re.escape(target.suffix))
    found = {path: numbered.fullmatch(path.name) for path in target.parent.iterdir()}
    parts = {path: match[1] for path, match in found.items() if match and _is_request_file(path)}
    numbers = set(parts.values())
    ours = set(ids.to_pylist()) if parts else set()
    for path, number in parts.items():
        in_turn = all(f"{i:0{len(number)}}" in numbers for i in range(1, int(number) + 1))
        if path not in written and (in_turn or not ours.isdisjoint(_request_ids(path))):
            path.unlink()
    if target not in written and _is_request_file(target):
        target.unlink()


def _is_request_file(path: Path) -> bool:
    """Whether a file begins like the request files written here."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(REQUEST_START)) == REQUEST_START


def _request_ids(path: Path) -> Iterator[str]:
    start = len(REQUEST_START) - 2  # with the first letters of the id
    with path.open("rb") as file:
        for line in file:
            if not line.startswith(REQUEST_START):
                return
            yield line[start : start + 34].decode("ascii", "replace")


def _write(call: PreparedCall, part: Ints, path: Path) -> None:
    with atomic_file(path) as file:
        for start in range(0, len(part), _LINES):
            some = part[start : start + _LINES]
            ids = call.requests.ids.take(pa.array(some))
            file.write(request_lines(ids, call.requests.bodies(some)))


# --- in ---------------------------------------------------------------------------------------
def from_jsonl(call: PreparedCall, given: Sequence[str | Path]) -> Any:
    """Import output files into the sidecar, and join all answers to the rows."""
    paths = [local_path(path, "The output file", "Download it first.") for path in given]
    for path in paths:
        _check(path)
    ids = call.requests.ids
    place = {custom_id: i for i, custom_id in enumerate(ids.to_pylist())}
    clock = current_clock()
    ctx = opened(call, clock)
    execution = CallExecution(call, ctx)
    sidecar = ctx.sidecar
    rank = sidecar.best_answers(ids).rank.copy()
    strange: dict[str, int] = {}
    writer = sidecar.answer_writer(f"import-{execution.name}")
    ours = unread = 0
    reason = "they are empty"
    try:
        for path in paths:
            for parsed in map(parse_lines, _lines(path)):
                if parsed.orphans and not unread:
                    reason = f"the first: {parsed.orphans[0].reason}"
                unread += len(parsed.orphans)
                better = []
                for found in parsed.answers:
                    i = place.get(found.custom_id)
                    if i is None:
                        strange[found.custom_id] = 1
                        continue
                    ours += 1
                    answer = _flagged(found, call, i)
                    if RANK[answer.status] > rank[i]:
                        rank[i] = RANK[answer.status]
                        better.append(answer)
                writer.write(better)
        if not ours and strange:
            raise _foreign(next(iter(strange)), call, paths)
        if not ours and len(ids):
            raise ConfigurationError(
                f"{', '.join(map(str, paths))}: no line can be read as one of an output file "
                f"({reason})."
            )
        record = execution.record(len(ids))
        with ctx.locked():
            writer.commit()
            if ours:
                sidecar.save_run(record)
    finally:
        writer.discard()
    ctx.notify(
        "reading",
        f"{ours:,} answers of this call in {', '.join(map(str, paths))}"
        + (f"; {len(strange):,} ids that belong to no row" if strange else "")
        + (f"; {count(unread, 'line')} without an answer to anything ({reason})" if unread else ""),
    )
    result = Collected.now(*execution.one_part())
    trouble = result.trouble
    if trouble:
        warn_user(trouble, PartialResultWarning)
    return result.frame


def _flagged(answer: Answer, call: PreparedCall, place: int) -> Answer:
    """Flag a text with damaged characters that its prompt does not have."""
    if has_replacement(answer.text) and not reads_as_replacement(
        call.requests.fragments[place].as_py()
    ):
        return msgspec.structs.replace(answer, status="damaged", error=_DAMAGED)
    return answer


def _foreign(custom_id: str, call: PreparedCall, paths: Sequence[Path]) -> ConfigurationError:
    return ConfigurationError(
        f"No line of {', '.join(map(str, paths))} belongs to a row of this call; the first id is "
        f"{custom_id!r}. Ids depend on template, model, parameters and provider, "
        f"here {call.arguments.model!r} and {call.gateway.realm!r}: make the call with the same "
        "arguments as df.llm.to_jsonl. For a file of other ids use nyu_llm_frames.read_output."
    )


# --- a frame of any output --------------------------------------------------------------------
def read_output(path: str | Path) -> pd.DataFrame:
    """
    Read any batch output file as a tidy frame, even one with ids from another tool.

    Parameters
    ----------
    path : str or Path
        An output file in JSON Lines: fetched with ``curl`` from NYU's gateway, or written by
        ``vllm run-batch``, or by OpenAI.

    Returns
    -------
    pandas.DataFrame
        One row per line, in the file's order: ``custom_id``, ``status``, ``text``, ``error``,
        ``finish_reason``, ``prompt_tokens``, ``completion_tokens``, ``reasoning_tokens``,
        ``cached_tokens``, ``model``. A line without a usable id has the status "failed", no id,
        and the reason as its error.

    Raises
    ------
    ConfigurationError
        When the file cannot be read.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> llm.read_output("output.jsonl")  # doctest: +SKIP
    """
    file = local_path(path, "The output file", "Download it first.")
    _check(file)
    answers: list[Answer] = []
    for lines in _lines(file):
        for line in lines:
            parsed = parse_lines([line])
            answers += parsed.answers
            answers += [
                no_answer(o.custom_id or "", "failed", o.reason, o.raw) for o in parsed.orphans
            ]
    columns = {"custom_id": pa.array([a.custom_id or None for a in answers], pa.string())}
    for name in _COLUMNS:
        kind = SCHEMA.field(name).type
        columns[name] = pa.array([getattr(a, name) for a in answers], kind)
    return answer_frame(pa.table(columns))


def _check(path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"There is no output file {path}.")
    with reading(path), path.open("rb") as file:
        kind = kind_of(path, file.read(HEAD_BYTES))
    if kind is not None:
        raise ConfigurationError(
            f"{path} is {kind[0]}, and an output file is JSON lines. Unpack it, or download it "
            "again."
        )


def _lines(path: Path) -> Iterator[list[bytes]]:
    splitter = BlockSplitter()
    with reading(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield splitter.feed(chunk)
    yield splitter.close()
