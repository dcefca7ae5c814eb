"""What a call over a Dask frame came to: where its answers are, and rows counted by status.

Comes in: the parts of a call when its jobs are over, or after one step. Goes out: what the lazy
join needs, and what to report to a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._runs.estimating import answer_costs
from nyu_llm_frames._runs.launch import CallExecution, CallPart
from nyu_llm_frames._runs.result import outcome_of
from nyu_llm_frames._sidecar.answer_store import Best
from nyu_llm_frames._stages.answers.answer import NO_FAILURE
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._tables.columns import read_schema, shown_error
from nyu_llm_frames._tables.table import Ints
from nyu_llm_frames.dask.lazy_join import StoredAnswersOf
from nyu_llm_frames.dask.spool_files import SpooledPartition, read_spooled, spool_path
from nyu_llm_frames.dask.spooled_requests import SpooledParts, SpooledRequests

_VALIDATED = 50_000


@dataclass(slots=True)
class EndedCall:
    """What a call came to."""

    stored: StoredAnswersOf
    counts: Counter[str] = field(default_factory=Counter)  # rows per status
    # For each kind of failure the label of a row, and the reason.
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)


def end_of(execution: CallExecution, parts: SpooledParts) -> EndedCall:
    """Find where all answers are, and count what became of the rows."""
    files: dict[str, int] = {}
    own: dict[tuple[int, int, int], tuple[str, ...]] = {}
    jobs: dict[str, Job] = {}
    ended = EndedCall(StoredAnswersOf())
    for group in parts.groups():
        part = parts.part(group)
        planner = execution.planner(part)
        requests = part.requests
        assert isinstance(requests, SpooledRequests)
        best = execution.ctx.sidecar.best_answers(requests.ids)
        carried: list[tuple[Job, Ints]] = []
        if (best.rank < 0).any():
            lacking = best.rank < 0
            carried = [(j, at) for j, at in planner.each_job() if lacking[at[at >= 0]].any()]
            jobs |= {job.name: job for job, _ in carried}
        names = [path.name for path in best.files]
        for number, partition in enumerate(group):
            start, stop = requests.starts[number : number + 2]
            used = np.unique(best.file[requests.codes[start:stop]])
            own[partition.content] = tuple(names[i] for i in used.tolist() if i >= 0)
            files |= dict.fromkeys(own[partition.content], 0)
        _count(ended, part, best, carried, group, parts.folder)
    kept = sum(p.kept for p in parts.partitions)
    skipped = sum(p.rows - p.requested - p.kept for p in parts.partitions)
    ended.counts += Counter(ok=kept, skipped=skipped)
    ordered = sorted(files)
    numbers = {name: number for number, name in enumerate(ordered)}
    ended.stored = StoredAnswersOf(
        tuple(ordered),
        {content: tuple(numbers[name] for name in found) for content, found in own.items()},
        tuple(job for _, job in sorted(jobs.items())),
    )
    return ended


def cost_of(execution: CallExecution) -> float | None:
    """Return what the answers cost in US dollars, each once; None where a price is not known."""
    cost = 0.0
    realm = execution.ctx.gateway.realm
    for part in execution.parts():
        best = execution.ctx.sidecar.best_answers(part.requests.ids)
        costs, unpriced = answer_costs(best, realm, part.call.arguments.model)
        if unpriced:
            return None
        cost += float(pc.sum(costs).as_py() or 0.0)
    return cost


def _count(
    ended: EndedCall,
    part: CallPart,
    best: Best,
    carried: Sequence[tuple[Job, Ints]],
    group: Sequence[SpooledPartition],
    folder: Path,
) -> None:
    """Add up the rows of a part by status, with an example of each failure."""
    requests = part.requests
    assert isinstance(requests, SpooledRequests)
    tables = [read_spooled(spool_path(folder, p.number), ["rows", "label"]) for p in group]
    each = np.concatenate([table["rows"].to_numpy() for table in tables])
    rows = np.bincount(requests.codes, weights=each, minlength=len(requests)).astype(np.int64)
    schema = part.call.schema
    columns = ["status", "error", *(["text"] if schema else [])]
    for start in range(0, len(requests), _VALIDATED):
        stop = min(start + _VALIDATED, len(requests))
        some = Best(
            best.files, best.rank[start:stop], best.file[start:stop],
            best.row[start:stop], best.stored,
        )  # fmt: skip
        here = [(job, np.where((at >= start) & (at < stop), at - start, -1)) for job, at in carried]
        outcome = outcome_of(some, here, columns)
        if schema is not None:
            outcome = read_schema(outcome, schema)
        errors: pa.ChunkedArray | None = None
        for status in set(outcome.status.tolist()):
            mine = np.flatnonzero(outcome.status == status)
            ended.counts[status] += int(rows[start + mine].sum())
            if status not in NO_FAILURE and status not in ended.examples:
                errors = shown_error(outcome) if errors is None else errors
                place = int(requests.places[start + int(mine[0])])
                number = int(np.searchsorted(requests.starts, place, side="right")) - 1
                label = tables[number]["label"][place - int(requests.starts[number])].as_py()
                ended.examples[status] = (label, str(errors[int(mine[0])].as_py()))
