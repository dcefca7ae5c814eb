"""The contents of a sidecar, without the frame and the template; no network.

Comes in: the path of a sidecar. Goes out: frames with one row per distinct request, counts, cost.
All come in parts: a sidecar may hold more requests than fit into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._jobs.planner import Planner
from nyu_llm_frames._runs.estimating import PRICED_BY, answer_costs
from nyu_llm_frames._runs.result import outcome_of
from nyu_llm_frames._shared.clock import Clock, current_clock
from nyu_llm_frames._sidecar.answer_store import Best
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.id_lookup import IdLookup, Ints
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.answers.answer import NO_FAILURE, SHOWN, TOKENS
from nyu_llm_frames._stages.batches import planning
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._tables.columns import Outcome, answer_frame, shown_error, text_column
from nyu_llm_frames.errors import SidecarError

# Never sent, or never to be sent: only a call that needs them can plan them again.
_NEVER_MADE = frozenset({"withdrawn", "rejected"})

Key: TypeAlias = tuple[str, str]
"""What answers: realm and model."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals over the requests of a sidecar.

    Attributes
    ----------
    counts : dict of str to int
        Distinct requests per status.
    usage : dict of str to int
        Tokens of their answers, each request counted once.
    cost : float or None
        US dollars for that usage; None where a price is unknown.
    """

    counts: dict[str, int]
    usage: dict[str, int]
    cost: float | None


@dataclass(slots=True)
class StoredPart:
    """Some distinct requests of a sidecar, and the part of it that concerns them."""

    jobs: Sequence[Job]
    requests: StoredRequests
    sidecar: Sidecar
    planner: Planner | None = None

    @property
    def template(self) -> None:
        """Unknown: a sidecar does not record which template made a request."""

    @property
    def rows(self) -> int:
        """Number of requests; rows are unknown here."""
        return len(self.requests)

    def outcome(self, jobs: Sequence[Job], columns: Sequence[str] = SHOWN) -> tuple[Best, Outcome]:
        """Return the best answers, and the outcome of every request from them and some jobs."""
        best = self.sidecar.best_answers(self.requests.ids)
        return best, outcome_of(best, self._carried_by(jobs), columns)

    def _carried_by(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Ints]]:
        known, lookup = self.sidecar.jobs(), IdLookup(self.requests.ids)
        for job in jobs:
            if job.name in known:
                yield job, lookup.find(self.sidecar.request_ids(job.name))


class StoredAnswers:
    """The read-only half of a `StoredRun`.

    Parameters
    ----------
    path : str or Path
        The sidecar.
    run : str, optional
        Name of one run; all jobs otherwise.
    month : str, optional
        Such as "2026-11": only jobs submitted in that month, by local time.
    clock : Clock, optional

    Attributes
    ----------
    requests_at_once : int
        Number of requests read at once, in whole jobs.

    Raises
    ------
    SidecarError
        When the folder is not a sidecar, or has no such run.
    """

    requests_at_once = 200_000

    def __init__(
        self,
        path: str | Path,
        *,
        run: str | None = None,
        month: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or current_clock()
        self.sidecar = LargeSidecar(Path(path), self.clock, create=False)
        self.run, self.month = run, month
        if run is not None and not any(job.run == run for job in self.sidecar.jobs().values()):
            known = sorted({job.run for job in self.sidecar.jobs().values()})
            raise SidecarError(
                f"{self.sidecar.path} has no batch jobs of a run {run!r}. Runs: "
                f"{', '.join(known) or 'none'}.",
                path=str(self.sidecar.path),
            )

    def jobs(self) -> list[Job]:
        """Return the batch jobs, the oldest first."""
        every = self.sidecar.jobs().values()
        return [job for job in every if self.run in (None, job.run) and self._in_month(job)]

    def _in_month(self, job: Job) -> bool:
        at = job.submitted_at
        return not self.month or (at is not None and f"{at.astimezone():%Y-%m}" == self.month)

    @property
    def pending(self) -> int:
        """Number of batch jobs that are not over."""
        return sum(job.carries for job in self.jobs())

    def answers(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return one row per distinct request: its best answer, or why there is none.

        Parameters
        ----------
        prompts : bool, default False
            Whether to add the request's body, as JSON; NA where prompts are not kept.
        """
        return pd.concat(self.iter_answers(prompts=prompts), ignore_index=True)

    def iter_answers(
        self, *, prompts: bool = False, failed: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the same in parts that fit into memory; at least one, which may be empty.

        With `failed` only those that are not good.
        """
        none = True
        for jobs in self.groups().values():
            for part in self.parts(jobs):
                yield self._frame(part, jobs, prompts, failed=failed)
                none = False
        if none:
            nothing = StoredPart([], StoredRequests(self.sidecar, []), self.sidecar)
            yield self._frame(nothing, [], prompts, failed=failed)

    def failures(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return the requests without a good answer; pending ones are not failures."""
        return pd.concat(self.iter_answers(prompts=prompts, failed=True), ignore_index=True)

    def counts(self) -> dict[str, int]:
        """Return the number of distinct requests per status."""
        return self.totals().counts

    def totals(self) -> Totals:
        """Return the number of distinct requests per status, and the usage of their answers."""
        counts: Counter[str] = Counter()
        usage = dict.fromkeys(TOKENS, 0)
        cost: float | None = 0.0
        for (realm, model), jobs in self.groups().items():
            for part in self.parts(jobs):
                best, outcome = part.outcome(jobs, ["status", *PRICED_BY])
                counts.update(outcome.counts())
                for name in TOKENS:
                    usage[name] += pc.sum(outcome.answers[name]).as_py() or 0
                costs, unpriced = answer_costs(best, realm, model, outcome.answers)
                cost = None if cost is None or unpriced else cost + (pc.sum(costs).as_py() or 0.0)
        return Totals(dict(counts), usage, cost)

    def parts(self, jobs: Sequence[Job]) -> Iterator[StoredPart]:
        """Yield the distinct requests of some jobs by first appearance, not too many at once."""
        sizes = np.array([job.requests for job in jobs], np.int64)
        ranges = planning.split(sizes, len(jobs), self.requests_at_once)
        if len(ranges) == 1:
            yield StoredPart(jobs, StoredRequests(self.sidecar, jobs), self.sidecar)
            return
        names = [[job.name for job in jobs[start:stop]] for start, stop in ranges]
        for (start, stop), sidecar in zip(ranges, self.sidecar.linked_to(names), strict=True):
            some, known = jobs[start:stop], sidecar.jobs()
            before = [job for job in jobs[:start] if job.name in known]
            requests = StoredRequests(sidecar, some, before=before, distinct=not sidecar.shares_ids)
            yield StoredPart(some, requests, sidecar)

    def _frame(
        self, part: StoredPart, jobs: Sequence[Job], prompts: bool, *, failed: bool
    ) -> pd.DataFrame:
        """Return the answers to some requests, or only those that are not good."""
        requests, (_, outcome) = part.requests, part.outcome(jobs)
        table = outcome.answers.add_column(0, "custom_id", requests.ids)
        for name, values in {
            "status": pa.array(outcome.status.tolist(), pa.string()),
            "error": shown_error(outcome),
        }.items():
            table = table.set_column(table.column_names.index(name), name, values)
        rows = np.arange(len(requests))
        if failed:
            rows = rows[~np.isin(outcome.status, list(NO_FAILURE))]
            table = table.take(pa.array(rows))
        out = answer_frame(table)
        if prompts:
            kept = self.keeps_prompts(part.jobs)
            bodies = requests.bodies(rows) if kept else pa.nulls(len(rows), pa.string())
            out["body"] = text_column(bodies)
        return out

    def groups(self) -> dict[Key, list[Job]]:
        """Group the jobs by what answers them; a runner sends to one realm and one model."""
        groups: dict[Key, list[Job]] = {}
        for job in self.jobs():
            if job.step not in _NEVER_MADE:
                groups.setdefault((job.realm, job.model), []).append(job)
        return groups

    def keeps_prompts(self, jobs: Sequence[Job]) -> bool:
        """Whether every job still has its prompts."""
        return all(self.sidecar.has_bodies(job.name) for job in jobs)
