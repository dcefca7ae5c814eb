"""Submits by the table: certain no, certain yes, uncertain; one call of ours is one POST.

Real HTTP and the real client. Every job that the stand-in ever made would be paid, so `jobs` and
the number of POSTs are what is looked at.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from support.callers import FAST, MODEL
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames import Progress
from nyu_llm_frames._gateway import connection as connection_module
from nyu_llm_frames._gateway.connection import Connection
from nyu_llm_frames._stages.batches import wire
from nyu_llm_frames._stages.batches.job import (
    Job,
    became_uncertain,
    not_created,
    rejected,
    resubmitted,
    settle,
    undecidable,
)
from nyu_llm_frames._stages.batches.wire import JobList, read_list
from nyu_llm_frames.errors import (
    AuthenticationError,
    GatewayError,
    RunTimeoutError,
    UncertainSubmissionError,
)

TEXTS = [f"question {i}" for i in range(6)]
FRAME = pd.DataFrame({"q": TEXTS})
PAGE = 100


@pytest.fixture(autouse=True)
def _fast(stand_in: StandIn) -> Iterator[None]:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    with llm.set_options(**{**FAST, "submit_settle_s": 0.05}):
        yield


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    return tmp_path / "s"


def batch(stand_in: StandIn, sidecar: Path, frame: pd.DataFrame = FRAME, **more: Any) -> Any:
    more.setdefault("gateway", llm.Gateway(**stand_in.settings))
    return frame.llm.batch("{{ q }}", model=MODEL, sidecar=sidecar, **more)


def ends_well(
    gateway: StandIn, sidecar: Path, *, posts: int, jobs: int = 1, texts: list[str] = TEXTS
) -> None:
    out = batch(gateway, sidecar, pd.DataFrame({"q": texts}))
    assert out["response"].tolist() == [answer(t) for t in texts]
    assert gateway.count("create") == posts
    assert len(gateway.jobs) == jobs


# --- certain no -----------------------------------------------------------------------------
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@pytest.mark.parametrize("body", ["json", "html", "empty"])
def test_a_refused_submit_is_one_post_and_no_job(
    status: int, body: str, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", status=status, body=body)
    kind = AuthenticationError if status in (401, 403) else GatewayError
    with pytest.raises(kind) as e:
        batch(stand_in, sidecar)
    assert e.value.status_code == status
    assert stand_in.count("create") == 1
    assert stand_in.jobs == []
    ends_well(stand_in, sidecar, posts=2)


@pytest.mark.parametrize("status", [401, 404, 429])
def test_a_job_that_never_was_has_no_time_of_its_submit(
    status: int, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", status=status, times=-1)
    with suppress(GatewayError):
        batch(stand_in, sidecar, wait=False)
    assert stand_in.count("create") == 1
    (job,) = llm.open_sidecar(sidecar).jobs().to_dict("records")
    assert pd.isna(job["submitted_at"])
    stand_in.script.clear()
    ends_well(stand_in, sidecar, posts=2)
    assert llm.open_sidecar(sidecar).jobs()["submitted_at"].notna().sum() == 1


def test_a_full_quota_waits_as_long_as_it_is_asked_to(stand_in: StandIn, sidecar: Path) -> None:
    told: list[Progress] = []
    stand_in.script.add("create", status=429, body="json", times=2, retry_after=0.2)
    with llm.set_options(progress=told.append):
        ends_well(stand_in, sidecar, posts=3)
    assert sum(p.next_poll_s is not None and p.next_poll_s >= 0.2 for p in told) == 2


def test_a_submit_that_never_connected_is_certainly_none(stand_in: StandIn) -> None:
    connection = llm.Gateway(**stand_in.settings).connect()
    stand_in.stop()
    assert isinstance(connection.create("gs://b/f", MODEL), wire.Busy)


# --- uncertain ------------------------------------------------------------------------------
DOUBTFUL = [408, 409, 418, 425, 446, 500, 502, 503, 504, 520, 200, 204]


@pytest.mark.parametrize("status", DOUBTFUL)
def test_an_answer_without_certainty_is_settled_from_the_list_when_a_job_was_made(
    status: int, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", "lose", status=status)
    ends_well(stand_in, sidecar, posts=1)


@pytest.mark.parametrize("status", DOUBTFUL)
def test_an_answer_without_certainty_is_submitted_again_when_no_job_was_made(
    status: int, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", status=status)
    ends_well(stand_in, sidecar, posts=2)
    assert len(stand_in.uploads) == 2  # every submit has a file name of its own


def test_a_lost_connection_is_settled_from_the_list(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add("create", "lose")
    ends_well(stand_in, sidecar, posts=1)


def test_a_connection_cut_before_the_work_is_submitted_again(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", "reset")
    ends_well(stand_in, sidecar, posts=2)


@pytest.mark.parametrize(("mode", "posts"), [("hold_answer", 1), ("hang", 2)])
def test_a_submit_that_is_never_answered_is_given_up_and_settled(
    mode: Any, posts: int, stand_in: StandIn, sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SUBMIT_S", 0.3)
    stand_in.script.add("create", mode)
    ends_well(stand_in, sidecar, posts=posts)


def test_a_job_that_the_list_shows_late_is_found(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.behaviour.list_delay = 4
    stand_in.script.add("create", "lose", status=500)
    with llm.set_options(submit_settle_s=30):  # found before
        ends_well(stand_in, sidecar, posts=1)
    assert stand_in.count("list") >= 5


def test_a_client_that_retries_by_itself_still_posts_once(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add("create", "lose", status=500)
    client = stand_in.portkey()
    gateway = llm.Gateway(client=client, bucket=stand_in.bucket)
    batch(stand_in, sidecar, gateway=gateway)
    assert stand_in.count("create") == 1
    assert len(stand_in.jobs) == 1


def test_ctrl_c_during_a_submit_is_settled_by_the_next_call(
    stand_in: StandIn, sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Connection.create

    def interrupted(self: Connection, input_file_id: str, model: str) -> Any:
        create(self, input_file_id, model)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "create", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batch(stand_in, sidecar)
    ends_well(stand_in, sidecar, posts=1)


def test_calls_that_never_wait_settle_too(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add("create", status=503)
    for _ in range(60):
        out = batch(stand_in, sidecar, wait=False)
        if out["response"].notna().all():
            break
    assert out["response"].tolist() == [answer(t) for t in TEXTS]
    assert stand_in.count("create") == 2
    assert len(stand_in.jobs) == 1


def test_nothing_else_is_created_before_an_uncertain_submit_is_settled(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.behaviour.list_delay = 3
    stand_in.script.add("create", "lose", status=500)
    with llm.set_options(submit_settle_s=30, max_requests_per_file=2):
        ends_well(stand_in, sidecar, posts=3, jobs=3)
    calls = [f"{method} {path}" for method, path in stand_in.log]
    first, second, _ = [i for i, c in enumerate(calls) if c == "POST /v1/batches"]
    assert sum("limit=100" in c for c in calls[first:second]) >= 4


def test_the_uncertain_submit_of_another_frame_is_settled_first(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", "lose", status=500)
    stand_in.script.add("list", status=503, after=1, times=1)
    batch(stand_in, sidecar, wait=False)
    other = [f"another {i}" for i in range(3)]
    ends_well(stand_in, sidecar, posts=2, jobs=2, texts=other)
    ends_well(stand_in, sidecar, posts=2, jobs=2)


# --- looks at the list, decided without a gateway -------------------------------------------
AT = datetime(2026, 1, 1, tzinfo=UTC)
INTENT = Job(
    name="j",
    run="r",
    owner="o",
    realm="@vertexai",
    model=MODEL,
    requests=1,
    file_bytes=1,
    step="creating",
    input_file_id="gs%3A%2F%2Fb%2Fours",
    watermark="7",
)
EMPTY = wire.JobList((), has_more=False)
REACHES = wire.JobList((("8", "gs://b/other"), ("7", "gs://b/older")), has_more=True)
BURIED = wire.JobList((("9", "gs://b/other"), ("8", "gs://b/older")), has_more=True)
FOUND = wire.JobList((("9", "gs://b/ours"), ("8", "gs://b/older")), has_more=True)


def test_only_a_submit_that_may_have_made_a_job_keeps_its_time() -> None:
    sent = msgspec.structs.replace(INTENT, submitted_at=AT)
    assert became_uncertain(sent, "no answer", epoch="e", from_s=0.0).submitted_at == AT
    for after in (not_created(sent, "busy"), rejected(sent, "no", AT), resubmitted(sent)):
        assert after.submitted_at is None


@pytest.mark.parametrize("absent", [EMPTY, REACHES])
def test_a_job_is_absent_only_when_two_looks_after_settling_say_so(absent: wire.JobList) -> None:
    before = settle(INTENT, absent, settled=False, at=AT)
    assert before == INTENT
    once = settle(before, absent, settled=True, at=AT)
    assert once.step == "creating"
    twice = settle(once, absent, settled=True, at=AT)
    assert (twice.step, twice.submission) == ("planned", INTENT.submission + 1)
    assert twice.file_name("x") != INTENT.file_name("x")


@pytest.mark.parametrize("blind", [BURIED, None])
def test_looks_that_cannot_tell_never_say_absent(blind: wire.JobList | None) -> None:
    job = INTENT
    for _ in range(5):
        job = settle(job, blind, settled=True, at=AT)
        assert job.step == "creating"
    assert undecidable(job)
    assert settle(job, FOUND, settled=True, at=AT).batch_id == "9"


def test_without_a_watermark_only_a_whole_list_says_absent() -> None:
    job = msgspec.structs.replace(INTENT, watermark=None)
    assert settle(job, REACHES, settled=True, at=AT).looks == 0
    assert settle(job, EMPTY, settled=True, at=AT).looks == 1
    job = msgspec.structs.replace(INTENT, watermark="")
    assert settle(job, REACHES, settled=True, at=AT).looks == 0


@pytest.mark.parametrize("settled", [True, False])
def test_a_job_that_the_list_shows_is_adopted_at_once(settled: bool) -> None:
    found = settle(INTENT, FOUND, settled=settled, at=AT)
    assert (found.step, found.batch_id) == ("live", "9")


# --- what the list can tell -----------------------------------------------------------------
def test_a_long_list_that_reaches_the_watermark_decides(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.add_foreign(PAGE + 50)
    fault = stand_in.script.add("create", status=500)
    fault.hook = lambda: stand_in.add_foreign(PAGE - 1)
    ends_well(stand_in, sidecar, posts=2)


def buried(gateway: StandIn, sidecar: Path, mode: Any) -> UncertainSubmissionError:
    """Lose an answer while so many others submit that the list shows neither job nor watermark."""
    gateway.script.add("create", mode, status=500)

    def others(n: int, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/batches"):
            gateway.on_handled = gateway.on_request = None
            gateway.add_foreign(PAGE + 1)

    if mode == "lose":
        gateway.on_handled = others
    else:
        gateway.on_request = others
    with pytest.raises(UncertainSubmissionError) as e:
        batch(gateway, sidecar)
    assert gateway.count("create") == 1
    return e.value


@pytest.mark.parametrize("mode", ["lose", "respond"])
def test_a_list_that_cannot_tell_asks_and_never_submits(
    mode: str, stand_in: StandIn, sidecar: Path
) -> None:
    error = buried(stand_in, sidecar, mode)
    assert error.run is not None
    assert error.input_file_id in str(error)
    for word in ("may or may not exist", "resolve(adopt=", "resolve(resubmit=True)", str(sidecar)):
        assert word in str(error)
    for wait in (True, False):
        with pytest.raises(UncertainSubmissionError):
            batch(stand_in, sidecar, wait=wait)
    with pytest.raises(UncertainSubmissionError):  # new rows too
        batch(stand_in, sidecar, pd.DataFrame({"q": ["another"]}))
    assert stand_in.count("create") == 1
    assert list(llm.open_sidecar(sidecar).jobs()["step"]).count("creating") == 1


def test_adopting_the_job_by_its_id_goes_on_with_it(stand_in: StandIn, sidecar: Path) -> None:
    error = buried(stand_in, sidecar, "lose")
    assert error.run is not None
    foreign = stand_in._every[-1]
    with pytest.raises(GatewayError, match="was not made of an input file"):
        error.run.resolve(adopt=foreign.id)
    with pytest.raises(GatewayError):
        error.run.resolve(adopt="123")
    out = error.run.resolve(adopt=stand_in.jobs[0].id).wait().result()
    assert out["response"].tolist() == [answer(t) for t in TEXTS]
    ends_well(stand_in, sidecar, posts=1)


def test_saying_that_there_is_no_job_submits_again(stand_in: StandIn, sidecar: Path) -> None:
    error = buried(stand_in, sidecar, "respond")
    assert error.run is not None
    out = error.run.resolve(resubmit=True).wait().result()
    assert out["response"].tolist() == [answer(t) for t in TEXTS]
    ends_well(stand_in, sidecar, posts=2)


@pytest.mark.parametrize("arguments", [{}, {"adopt": "1", "resubmit": True}])
def test_resolving_needs_one_word(
    arguments: dict[str, Any], stand_in: StandIn, sidecar: Path
) -> None:
    error = buried(stand_in, sidecar, "respond")
    assert error.run is not None
    with pytest.raises(ValueError, match="either adopt="):
        error.run.resolve(**arguments)


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_gateway_without_a_list_submits_and_asks_when_in_doubt(
    status: int, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("list", status=status, times=-1)
    stand_in.script.add("create", "lose", status=500)
    with pytest.raises(UncertainSubmissionError):
        batch(stand_in, sidecar)
    assert stand_in.count("create") == 1
    stand_in.script.clear()
    ends_well(stand_in, sidecar, posts=1)


@pytest.mark.parametrize("status", [429, 500, 503, 200])
def test_nothing_is_submitted_while_the_list_cannot_be_read(
    status: int, stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("list", status=status, times=-1)
    with pytest.raises(RunTimeoutError):
        batch(stand_in, sidecar, timeout=0.2)
    assert stand_in.count("create") == 0
    stand_in.script.clear()
    ends_well(stand_in, sidecar, posts=1)


def test_trouble_with_the_list_leaves_an_uncertain_submit_uncertain(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("list", status=503, times=-1, after=1)
    stand_in.script.add("create", "lose", status=500)
    with pytest.raises(RunTimeoutError):
        batch(stand_in, sidecar, timeout=0.3)
    assert stand_in.count("create") == 1
    stand_in.script.clear()
    ends_well(stand_in, sidecar, posts=1)


def test_another_gateway_cannot_settle_and_is_told_which_one_can(
    stand_in: StandIn, sidecar: Path
) -> None:
    stand_in.script.add("create", "lose", status=500)
    stand_in.script.add("list", status=503, after=1, times=1)
    batch(stand_in, sidecar, wait=False)
    address = stand_in.base_url.replace("127.0.0.1", "localhost")
    other = llm.Gateway(**{**stand_in.settings, "base_url": address})
    with pytest.raises(UncertainSubmissionError, match="only that gateway knows the job") as e:
        batch(stand_in, sidecar, gateway=other)
    assert stand_in.base_url in str(e.value)
    ends_well(stand_in, sidecar, posts=1)


# --- retries of our own ---------------------------------------------------------------------
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_uploads_are_repeated(status: int, stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add("upload", status=status, times=2, retry_after=0.01)
    ends_well(stand_in, sidecar, posts=1)
    assert stand_in.count("upload") == 3
    assert len(stand_in.uploads) == 1


def test_an_upload_that_is_repeated_overwrites_nothing(stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add("upload", "lose", status=503, times=2)
    ends_well(stand_in, sidecar, posts=1)
    assert "".join(stand_in.uploads).isascii()
    # The job writes its output to the folder of its input file.
    folders = {name.rpartition("/")[0] for name in stand_in.uploads}
    assert len(folders) == stand_in.count("upload") == 3


@pytest.mark.parametrize("call", ["poll", "output"])
@pytest.mark.parametrize("mode", ["respond", "reset"])
def test_reads_are_repeated(call: str, mode: Any, stand_in: StandIn, sidecar: Path) -> None:
    stand_in.script.add(call, mode, status=503, times=4)
    ends_well(stand_in, sidecar, posts=1)


# --- what a list proves -----------------------------------------------------------------------
OURS = "gs%3A%2F%2Fb%2Fnyu-llm-frames%2Fours%2Frequests.jsonl"


@pytest.mark.parametrize(
    "item",
    [
        {"id": "batch-1"},
        {"id": "batch-1", "input_file_id": None},
        {"id": "batch-1", "input_file_id": ""},
        {"id": 7, "input_file_id": OURS},
        {"id": "batch-\ud800", "input_file_id": OURS},
        {"input_file_id": OURS},
        "batch-1",
        None,
    ],
)
def test_a_list_with_an_item_that_says_nothing_proves_no_absence(item: object) -> None:
    known = {"id": "batch-0", "input_file_id": "gs%3A%2F%2Fb%2Fother"}
    body = {"object": "list", "data": [item, known], "has_more": False}
    listed = read_list(json.dumps(body).encode())
    assert listed is not None
    assert not listed.reaches("")
    assert not listed.reaches("batch-0")
    # What is older than the watermark was there before the submit, whatever it is.
    older = read_list(json.dumps({**body, "data": [known, item]}).encode())
    assert older is not None
    assert older.reaches("batch-0")
    assert not older.reaches("")
    whole = read_list(json.dumps({**body, "data": [known]}).encode())
    assert whole is not None
    assert whole.reaches("")


@pytest.mark.parametrize("more", [True, False])
def test_a_page_that_begins_with_the_oldest_job_proves_no_absence(more: bool) -> None:
    """Further pages cannot be reached: the job may be on one of them."""
    data = [
        {"id": f"batch-{n}", "input_file_id": f"gs%3A%2F%2Fb%2F{n}", "created_at": n}
        for n in range(3)
    ]
    for page, proves in (data, not more), (data[::-1], True):
        listed = read_list(json.dumps({"data": page, "has_more": more}).encode())
        assert listed is not None
        assert listed.reaches(listed.newest) == proves


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_job_is_found_however_often_its_file_name_was_encoded(times: int) -> None:
    name = urllib.parse.unquote(OURS)
    for _ in range(times):
        name = urllib.parse.quote(name, safe="")
    body = {"data": [{"id": "batch-1", "input_file_id": name}], "has_more": False}
    listed = read_list(json.dumps(body).encode())
    assert listed is not None
    assert listed.find(OURS) == "batch-1"


def test_a_list_that_could_not_be_read_before_is_believed_when_it_can() -> None:
    at = datetime.now(UTC)
    job = Job(
        name="j", run="r", owner="o", realm="@v", model="m", requests=1, file_bytes=1,
        step="creating", input_file_id=OURS, watermark="",
    )  # fmt: skip
    empty = JobList((), has_more=False)
    for _ in range(2):
        job = settle(job, None, settled=True, at=at)
    assert undecidable(job)
    job = settle(job, empty, settled=True, at=at)
    assert not undecidable(job)
    assert settle(job, empty, settled=True, at=at).step == "planned"
