"""What a sidecar holds, without the frame and the template; nothing is asked or sent.

Comes in: the path of a sidecar. Goes out: frames with one row per distinct request, counts, cost.
All of it in parts: a sidecar may hold more requests than fit into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._runs.estimating import answer_costs
from nyu_llm_frames._shared.clock import Clock, current_clock
from nyu_llm_frames._sidecar.answer_store import Best, gather, positions_of_each
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.stored import StoredRequests
from nyu_llm_frames._stages.answers.answer import NO_FAILURE
from nyu_llm_frames._stages.batches import shards
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._tables.columns import objects, status_column, text_column
from nyu_llm_frames.errors import SidecarError

# What was never sent, or never will be: only the call that wants it can plan it anew.
_NEVER_MADE = frozenset({"withdrawn", "rejected"})
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_COLUMNS = ["status", "text", "error", "finish_reason", *_TOKENS, "model"]

Key: TypeAlias = tuple[str, str]
"""Who answers: realm and model."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the requests of a sidecar amount to.

    Attributes
    ----------
    counts : dict of str to int
        Distinct requests per status.
    usage : dict of str to int
        Tokens of their answers, each request counted once.
    cost : float or None
        US dollars by that usage; None where a price is not known.
    """

    counts: dict[str, int]
    usage: dict[str, int]
    cost: float | None


class Part(NamedTuple):
    """Some distinct requests of a sidecar, and what they can see of it."""

    jobs: Sequence[Job]
    requests: StoredRequests
    sidecar: Sidecar


class StoredAnswers:
    """The half of a `StoredRun` that only looks.

    Parameters
    ----------
    path : str or Path
        The sidecar.
    run : str, optional
        Name of one run; all jobs otherwise.
    clock : Clock, optional

    Attributes
    ----------
    requests_at_once : int
        What is looked at at once, in whole jobs.

    Raises
    ------
    SidecarError
        When the folder is no sidecar, or has no such run.
    """

    requests_at_once = 200_000

    def __init__(
        self, path: str | Path, *, run: str | None = None, clock: Clock | None = None
    ) -> None:
        self._clock = clock or current_clock()
        self.sidecar = LargeSidecar(Path(path), self._clock, create=False)
        self._run = run
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
        return [job for job in every if self._run is None or job.run == self._run]

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

    def iter_answers(self, *, prompts: bool = False) -> Iterator[pd.DataFrame]:
        """Yield the same in parts that fit into memory; one at least, which may be empty."""
        none = True
        for jobs in self._groups().values():
            for part in self._parts(jobs):
                yield self._answers(part, jobs, prompts)
                none = False
        if none:
            nothing = Part([], StoredRequests(self.sidecar, []), self.sidecar)
            yield self._answers(nothing, [], prompts)

    def failures(self, *, prompts: bool = False) -> pd.DataFrame:
        """Return the requests without a good answer; pending ones are no failures."""
        bad = [
            frame.loc[~frame["status"].isin(NO_FAILURE)]
            for frame in self.iter_answers(prompts=prompts)
        ]
        return pd.concat(bad, ignore_index=True)

    def counts(self) -> dict[str, int]:
        """Return the number of distinct requests per status."""
        return self.totals().counts

    def totals(self) -> Totals:
        """Return the number of distinct requests per status, and what their answers took."""
        counts: Counter[str] = Counter()
        usage = dict.fromkeys(_TOKENS, 0)
        cost: float | None = 0.0
        for (realm, model), jobs in self._groups().items():
            for part in self._parts(jobs):
                best = part.sidecar.best_answers(part.requests.ids)
                answers = gather(best, ["status", *_TOKENS])
                status, _ = self._status(part, jobs, best, answers)
                counts.update(status.tolist())
                for name in _TOKENS:
                    usage[name] += pc.sum(answers[name]).as_py() or 0
                costs, unpriced = answer_costs(best, realm, model)
                cost = None if cost is None or unpriced else cost + (pc.sum(costs).as_py() or 0.0)
        return Totals(dict(counts), usage, cost)

    def _parts(self, jobs: Sequence[Job]) -> Iterator[Part]:
        """Yield the distinct requests of some jobs by first appearance, not too many at once."""
        sizes = np.array([job.requests for job in jobs], np.int64)
        ranges = shards.split(sizes, len(jobs), self.requests_at_once)
        for start, stop in ranges:
            some = jobs[start:stop]
            whole = len(ranges) == 1
            sidecar = self.sidecar if whole else self.sidecar.band_of(job.name for job in some)
            seen = sidecar.jobs()
            before = [job for job in jobs[:start] if job.name in seen]
            yield Part(some, StoredRequests(sidecar, some, before=before), sidecar)

    def _status(
        self, part: Part, jobs: Sequence[Job], best: Best, answers: pa.Table
    ) -> tuple[np.ndarray[Any, np.dtype[np.object_]], list[str | None]]:
        ids = part.requests.ids
        status = objects(answers["status"])
        reasons: list[str | None] = [None] * len(ids)
        without = best.rank < 0
        if without.any():
            status[without] = "pending"
            carried = np.zeros(len(ids), dtype=np.bool_)
            seen = part.sidecar.jobs()
            theirs = ((job, self.sidecar.request_ids(job.name)) for job in jobs if job.name in seen)
            for job, at in positions_of_each(theirs, ids):
                mine = at[at >= 0]
                if job.carries:
                    carried[mine] = True
                    continue
                for i in mine[without[mine]].tolist():
                    reasons[i] = job.why_nothing
            lost = without & ~carried
            status[lost] = "missing"
            for i in np.flatnonzero(without & carried).tolist():
                reasons[i] = None
        return status, reasons

    def _answers(self, part: Part, jobs: Sequence[Job], prompts: bool) -> pd.DataFrame:
        requests = part.requests
        best = part.sidecar.best_answers(requests.ids)
        answers = gather(best, _COLUMNS)
        status, reasons = self._status(part, jobs, best, answers)
        error = [r or e for r, e in zip(reasons, answers["error"].to_pylist(), strict=True)]
        out: dict[str, Any] = {
            "custom_id": text_column(requests.ids),
            "status": status_column(status.tolist()),
            "text": text_column(answers["text"]),
            "error": text_column(pa.array(error, pa.string())),
            "finish_reason": text_column(answers["finish_reason"]),
        }
        for name in _TOKENS:
            out[name] = pd.array(answers[name].to_pylist(), dtype="Int64")
        out["model"] = text_column(answers["model"])
        if prompts:
            every = np.arange(len(requests))
            kept = self._kept(part.jobs)
            bodies = requests.bodies(every) if kept else pa.nulls(len(every), pa.string())
            out["body"] = text_column(bodies)
        return pd.DataFrame(out)

    def _groups(self) -> dict[Key, list[Job]]:
        """Sort the jobs by who answers; a runner sends to one realm and one model."""
        groups: dict[Key, list[Job]] = {}
        for job in self.jobs():
            if job.step not in _NEVER_MADE:
                groups.setdefault((job.realm, job.model), []).append(job)
        return groups

    def _kept(self, jobs: Sequence[Job]) -> bool:
        """Whether every job still has its prompts."""
        return all(self.sidecar.has_bodies(job.name) for job in jobs)
