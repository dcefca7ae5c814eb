"""Which files of a large sidecar share an id: all that do, found in bands of any size.

A file that is left out would hide an answer, and its request would be paid again.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.bands import LargeSidecar
from nyu_llm_frames._sidecar.id_lookup import keys, positions
from nyu_llm_frames._stages.answers.answer import Answer
from nyu_llm_frames._stages.batches.job import Job

DIGESTS = st.integers(0, 40).map(lambda i: f"r-{i * 2**123 % 2**128:032x}")
IDS = st.one_of(DIGESTS, st.sampled_from(["", "x", "r-7", "007", "r-" + "g" * 32, "é" * 17]))


@given(ids=st.lists(IDS), strange=st.lists(IDS))
def test_equal_ids_have_equal_keys_wherever_they_stand(ids: list[str], strange: list[str]) -> None:
    together = pa.array([*strange, *ids], pa.string())
    assert keys(together)[len(strange) :].tolist() == keys(pa.array(ids, pa.string())).tolist()
    assert keys(together.slice(len(strange))).tolist() == keys(together)[len(strange) :].tolist()


@given(ids=st.lists(st.binary(min_size=16, max_size=16), min_size=1))
def test_a_key_is_the_first_half_of_a_digest(ids: list[bytes]) -> None:
    assert keys(pa.array([f"r-{i.hex()}" for i in ids])).tolist() == [
        int.from_bytes(i[:8], "big") for i in ids
    ]


def carry(sidecar: LargeSidecar, name: str, ids: list[str], stored: list[str]) -> None:
    """Write a job with its requests and what was answered of it."""
    array = pa.array(ids, pa.string())
    sidecar.add_requests(name, [(array, pa.array(["{}"] * len(ids), pa.large_string()))])
    sidecar.save_job(
        Job(name=name, run="r", owner="", realm="@v", model="m", requests=len(ids), file_bytes=1)
    )
    store(sidecar, name, stored)


def store(sidecar: LargeSidecar, source: str, ids: list[str]) -> None:
    """Write answers of a job, a trial or an import."""
    writer = sidecar.answer_writer(source)
    writer.write([Answer(i, "ok", "text", None, None, 1, 1, 0, 0, "m", b"{}") for i in ids])
    writer.commit()


ALIKE = st.builds(  # the first half is the key
    lambda half, rest: f"r-{half:016x}{rest:016x}", st.integers(0, 3), st.integers(0, 3)
)


@given(
    st.lists(ALIKE | st.none() | st.text("r-0é", max_size=40)),
    st.lists(ALIKE | st.text("r-0é", max_size=40), unique=True),
)
def test_ids_with_one_key_are_not_mistaken_for_each_other(
    ids: list[str | None], among: list[str]
) -> None:
    found = positions(pa.array(ids, pa.string()), pa.array(among, pa.string()))
    assert found.tolist() == [among.index(i) if i in among else -1 for i in ids]


FILES = st.lists(st.lists(IDS, max_size=6, unique=True), min_size=1, max_size=5)


@pytest.mark.parametrize(("keys_at_once", "compared"), [(1, 1), (5, 2), (10**7, 3), (10**7, 999)])
@settings(suppress_health_check=list(HealthCheck), max_examples=25)
@given(files=FILES, of_no_job=st.lists(IDS, max_size=6, unique=True))
def test_a_job_sees_every_file_with_one_of_its_ids(
    files: list[list[str]],
    of_no_job: list[str],
    keys_at_once: int,
    compared: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder: Path = tmp_path_factory.mktemp("sidecar")
    sidecar = LargeSidecar(folder / "s", SystemClock())
    sidecar.keys_at_once, sidecar.keys_compared = keys_at_once, compared
    for number, ids in enumerate(files):
        carry(sidecar, f"job{number}", ids, ids[::2])
    store(sidecar, "trial-1", of_no_job[::2])
    store(sidecar, "import-1", of_no_job[1::2])
    for chosen in itertools.combinations(range(len(files)), min(2, len(files))):
        (seen,) = sidecar.linked_to([[f"job{number}" for number in chosen]])
        own = {i for number in chosen for i in files[number]}
        assert seen.shares_ids or len(own) == sum(len(files[number]) for number in chosen)
        shares = {f"job{number}" for number, ids in enumerate(files) if own & {*ids}}
        assert shares <= seen.jobs().keys()
        every = pa.array(sorted(own), pa.string())
        assert seen.best_answers(every).rank.tolist() == sidecar.best_answers(every).rank.tolist()


def test_what_shares_no_id_is_not_read(tmp_path: Path) -> None:
    sidecar = LargeSidecar(tmp_path / "s", SystemClock())
    ids = [f"r-{number << 96:032x}" for number in range(30)]
    for number in range(3):
        part = ids[number * 10 : number * 10 + 10]
        carry(sidecar, f"job{number}", part, part)
    carry(sidecar, "retry", [ids[0], ids[25]], [])
    assert list(next(sidecar.linked_to([["job0"]])).jobs()) == ["job0", "retry"]
    assert list(next(sidecar.linked_to([["job1"]])).jobs()) == ["job1"]
    (found,) = next(sidecar.linked_to([["job1"]])).best_answers(pa.array(ids[10:12])).files
    assert found.stem.endswith("job1")


def test_what_was_stored_since_is_seen(tmp_path: Path) -> None:
    sidecar = LargeSidecar(tmp_path / "s", SystemClock())
    carry(sidecar, "job0", ["r-1"], [])
    seen = next(sidecar.linked_to([["job0"]]))
    assert list(seen.jobs()) == ["job0"]
    carry(sidecar, "job1", ["r-1"], ["r-1"])
    assert list(seen.jobs()) == ["job0", "job1"]
    assert seen.best_answers(pa.array(["r-1"])).stored == 1
