"""Which of several answers to one request stays."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames._answers.answer import RANK, RETRYABLE, STATUSES, Answer, Status, better

ORDER: tuple[tuple[Status, ...], ...] = (
    ("ok",),
    ("damaged",),
    ("truncated",),
    ("invalid",),
    ("blocked", "refused"),
    ("failed",),
    ("missing",),
    ("pending", "skipped"),
)


def answer(status: Status, mark: str = "") -> Answer:
    return Answer("r1", status, mark, None, None, None, None, None, None, None, b"")


def test_ranks_are_in_the_published_order() -> None:
    ranks = [{RANK[status] for status in group} for group in ORDER]
    assert all(len(rank) == 1 for rank in ranks)
    flat = [rank.pop() for rank in ranks]
    assert flat == sorted(flat, reverse=True)
    assert len(set(flat)) == len(flat)


def test_every_status_has_one_rank() -> None:
    assert set(RANK) == set(STATUSES) == {status for group in ORDER for status in group}
    assert len(STATUSES) == len(set(STATUSES))


def test_only_failed_missing_and_damaged_are_worth_another_attempt() -> None:
    assert {"failed", "missing", "damaged"} == RETRYABLE


@pytest.mark.parametrize("status", STATUSES)
def test_the_first_stored_stays_within_a_status(status: Status) -> None:
    first, second = answer(status, "first"), answer(status, "second")
    assert better(first, second) is first


def test_blocked_and_refused_do_not_replace_each_other() -> None:
    blocked, refused = answer("blocked"), answer("refused")
    assert better(blocked, refused) is blocked
    assert better(refused, blocked) is refused


answers = st.builds(answer, st.sampled_from(STATUSES), st.text(max_size=3))


@settings(deadline=None)
@given(answers, answers, answers)
def test_better_is_associative(a: Answer, b: Answer, c: Answer) -> None:
    assert better(better(a, b), c) is better(a, better(b, c))


@settings(deadline=None)
@given(st.permutations([group[0] for group in ORDER]))
def test_order_of_arrival_does_not_matter_between_ranks(statuses: list[Status]) -> None:
    assert reduce(better, map(answer, statuses)).status == "ok"


@settings(deadline=None)
@given(st.lists(answers, min_size=1, max_size=8))
def test_what_stays_is_the_first_of_the_highest_rank(stored: list[Answer]) -> None:
    highest = max(RANK[a.status] for a in stored)
    first = next(a for a in stored if RANK[a.status] == highest)
    assert reduce(better, stored) is first


def test_a_later_good_answer_replaces_each_bad_one() -> None:
    good = answer("ok")
    for status in STATUSES:
        if status != "ok":
            assert better(answer(status), good) is good


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        answer("ok").status = "failed"  # type: ignore[misc]
