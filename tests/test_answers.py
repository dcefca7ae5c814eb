"""Which of several answers to one request stays: the statuses' ranks, and the stored answers."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nyu_llm_frames._sidecar.answer_store import AnswerWriter, find_best, gather
from nyu_llm_frames._stages.answers.answer import (
    NO_FAILURE,
    RANK,
    RETRYABLE,
    STATUSES,
    Answer,
    Status,
)
from nyu_llm_frames.cli import show

ORDER: tuple[tuple[Status, ...], ...] = (
    ("ok",),
    ("damaged",),
    ("empty",),
    ("truncated",),
    ("invalid",),
    ("blocked", "refused"),
    ("failed",),
    ("missing",),
    ("pending", "skipped"),
)


def answer(status: Status, mark: str = "", custom_id: str = "r1") -> Answer:
    return Answer(custom_id, status, mark, None, None, None, None, None, None, None, b"")


def test_ranks_are_in_the_published_order() -> None:
    ranks = [{RANK[status] for status in group} for group in ORDER]
    assert all(len(rank) == 1 for rank in ranks)
    flat = [rank.pop() for rank in ranks]
    assert flat == sorted(flat, reverse=True)
    assert len(set(flat)) == len(flat)


def test_every_status_has_one_rank() -> None:
    assert set(RANK) == set(STATUSES) == {status for group in ORDER for status in group}
    assert len(STATUSES) == len(set(STATUSES))


def test_only_failed_empty_missing_and_damaged_are_worth_another_attempt() -> None:
    assert {"failed", "empty", "missing", "damaged"} == RETRYABLE


stored_statuses = st.sampled_from([status for status in STATUSES if RANK[status] > 0])
files = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), stored_statuses), min_size=1, max_size=5),
    max_size=4,
)


@settings(deadline=None)
@given(files)
@example([[("a", "blocked")], [("a", "refused")]])
@example([[("a", "refused"), ("a", "blocked")]])
@example([[("a", "ok"), ("a", "ok")], [("a", "ok")]])
def test_the_first_stored_of_the_highest_rank_stays(stored: list[list[tuple[str, Status]]]) -> None:
    """Whether answers stand in one file or in many; later ones are kept and counted."""
    expected: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, file in enumerate(stored):
            writer = AnswerWriter(folder, f"job-{number}", datetime.now(UTC))
            answers = [answer(s, f"{number}-{row}", i) for row, (i, s) in enumerate(file)]
            writer.write(answers)
            writer.commit()
            for one in answers:
                kept = expected.setdefault(one.custom_id, one)
                if RANK[one.status] > RANK[kept.status]:
                    expected[one.custom_id] = one
        best = find_best(folder, pa.array(list("cab")))
        found = gather(best, ["status", "text"]).to_pylist()
    for i, row in zip("cab", found, strict=True):
        one = expected.get(i)
        assert (row["status"], row["text"]) == ((one.status, one.text) if one else (None, None))
    assert best.stored == sum(map(len, stored))


def test_every_status_has_its_place_where_people_see_it() -> None:
    assert set(show.COLORS) >= set(STATUSES)
    assert NO_FAILURE.isdisjoint(RETRYABLE)


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        answer("ok").status = "failed"  # type: ignore[misc]
