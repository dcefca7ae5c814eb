"""Summarizes a run as one record, the only source for the displays and the plot.

Comes in: counts, examples, jobs, answers and their costs. Goes out: a `Summary`, with the state in
words and the next steps. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._shared.wording import count, dollars, printable
from nyu_llm_frames._stages.answers.answer import NO_FAILURE, RANK, RETRYABLE, STATUSES
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.polling import state_word
from nyu_llm_frames._stages.cost.prices import Floats
from nyu_llm_frames._stages.requests.models import bare_name

_ADVICE: Mapping[str, str] = {
    "truncated": (
        'truncated answers: the same call with a larger max_tokens= and if_exists="fill" sends '
        "only these rows, for the same columns"
    ),
    "invalid": (
        "invalid answers do not fit the schema: loosen it or clarify the template, with "
        'if_exists="fill" for only these rows'
    ),
    "blocked": "blocked rows: the provider refuses their content; see run.failures()",
    "refused": "refused rows: the request is invalid; see run.failures()",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """A run at one moment."""

    name: str
    sidecar: str
    model: str
    rows: int
    counts: dict[str, int]  # rows per status
    examples: dict[str, tuple[str, str]]  # per kind of failure a row's label and the reason
    jobs: tuple[Job, ...]
    # Of prompt, output and thinking: one number per answered request that reported it.
    tokens: dict[str, Floats]
    costs: Floats | None  # US dollars per answered request; None where no price is known
    at: datetime
    answered_by: tuple[str, ...] = ()  # names of the models that the answers report
    noun: str = "row"  # what `rows` counts: rows of a call, or requests of a sidecar alone

    @property
    def models(self) -> str:
        """The model that was requested, and those that answered if they differ."""
        requested = {bare_name(name) for name in self.model.split(", ")}
        if all(bare_name(name) in requested for name in self.answered_by):
            return self.model
        return f"requested {self.model}, answered by {', '.join(self.answered_by)}"

    @property
    def cost(self) -> float | None:
        return None if self.costs is None else float(self.costs.sum())

    @property
    def active(self) -> tuple[Job, ...]:
        """Batch jobs that are not over."""
        return tuple(job for job in self.jobs if job.carries)

    @property
    def state(self) -> str:
        """The state of the run, in words."""
        if self.active:
            words = Counter(state_word(job) for job in self.active)
            return "batch jobs: " + ", ".join(f"{n} {w}" for w, n in sorted(words.items()))
        if self.counts.get("pending"):
            return "not running"
        return "finished with failures" if self.failed else "finished"

    @property
    def failed(self) -> int:
        """Rows without a good answer."""
        return sum(n for status, n in self.counts.items() if status not in NO_FAILURE)

    def ordered_counts(self) -> list[tuple[str, int]]:
        """Return rows per status, the best first."""
        order = sorted(STATUSES, key=lambda s: -RANK[s])
        return [(s, self.counts[s]) for s in order if self.counts.get(s)]

    def times(self) -> list[tuple[str, datetime]]:
        """Return the times of the first submission and the last end."""
        first = [job.submitted_at for job in self.jobs if job.submitted_at]
        last = [job.ended_at for job in self.jobs if job.ended_at]
        out = []
        if first:
            out.append(("submitted", min(first)))
        if last and not self.active:
            out.append(("ended", max(last)))
        return out

    def next_steps(self) -> list[str]:
        """Return what a person can do now."""
        steps = []
        if any(job.step == "creating" for job in self.active):
            steps.append(
                "a submission is being settled: run.poll(), and run.resolve(...) if it fails"
            )
        if self.active:
            steps.append(
                "run.wait() waits for it; you may interrupt it, and the same call picks it up later"
            )
        elif self.counts.get("pending"):
            steps.append("make the same call again: it sends what is missing")
        if any(self.counts.get(s) for s in RETRYABLE) and not self.active:
            steps.append("run.retry() sends failed, empty, missing and damaged rows once more")
        steps += [text for status, text in _ADVICE.items() if self.counts.get(status)]
        if self.failed:
            steps.append("run.failures() shows these rows and their reasons")
        if not self.active and not self.counts.get("pending"):
            steps.append("run.result() returns the joined frame")
        return steps


def ending(counts: Mapping[str, int], cost: float | None) -> str:
    """Return one line on how a call ended, from rows per status, and what its answers cost."""
    word = "so far" if counts.get("pending") else "done"
    return f"{word}: {rows_text(counts)}; cost {'unknown' if cost is None else dollars(cost)}"


def rows_text(counts: Mapping[str, int]) -> str:
    """Write the rows of each status, the most first: ``3 rows (2 ok, 1 failed)``."""
    shown = ", ".join(f"{n:,} {s}" for s, n in sorted(counts.items(), key=lambda x: -x[1]) if n)
    return f"{count(sum(counts.values()), 'row')} ({shown or 'none'})"


def cure(statuses: Iterable[str]) -> str:
    """Return how to fix rows that the same request would not fix; "" if nothing does."""
    names = {"truncated": "a larger max_tokens=", "invalid": "another template or schema"}
    changes = [change for status, change in names.items() if status in statuses]
    if not changes:
        return ""
    return f' if_exists="fill" with {" or ".join(changes)} sends only such rows.'


def failures_text(
    counts: Mapping[str, int], examples: Mapping[str, tuple[str, str]], where: str
) -> str:
    """Report how many rows have no good answer, with an example of each kind; "" if all have one.

    `examples` has a row's label and the reason for each kind; `where` says where all reasons are.
    """
    bad = {s: n for s, n in counts.items() if s not in NO_FAILURE}
    if not bad:
        return ""
    kinds = [
        f"{bad[kind]:,} {kind} (row {examples[kind][0]}: {printable(examples[kind][1])})"
        for kind in sorted(bad, key=lambda s: (RANK.get(s, 0), s))  # type: ignore[call-overload]
    ]
    return (
        f"{sum(bad.values()):,} of {sum(counts.values()):,} rows have no good answer: "
        f"{'; '.join(kinds)}. The reasons are in {where}.{cure(bad)}"
    )


def _reported(answers: pa.Table, name: str) -> Floats:
    values = np.asarray(answers[name].to_pandas(), dtype=np.float64)
    return np.asarray(values[~np.isnan(values)])


def models_of(answers: pa.Table) -> tuple[str, ...]:
    """Return the names of the models that answered, in order."""
    return tuple(sorted(m for m in pc.unique(answers["model"]).to_pylist() if m))


def summarize(
    *,
    name: str,
    sidecar: str,
    model: str,
    rows: int,
    counts: dict[str, int],
    examples: dict[str, tuple[str, str]],
    jobs: Sequence[Job],
    answers: pa.Table,
    costs: pa.Array | None,
    at: datetime,
    noun: str = "row",
) -> Summary:
    tokens = {
        "prompt": _reported(answers, "prompt_tokens"),
        "output": _reported(answers, "completion_tokens"),
        "thinking": _reported(answers, "reasoning_tokens"),
    }
    usd = None
    if costs is not None:
        usd = np.asarray(costs.drop_null().to_numpy(zero_copy_only=False), dtype=np.float64)
    return Summary(
        name=name,
        sidecar=sidecar,
        model=model,
        rows=rows,
        counts=counts,
        examples=examples,
        jobs=tuple(jobs),
        tokens=tokens,
        costs=usd,
        at=at,
        answered_by=models_of(answers),
        noun=noun,
    )
