"""Several uploads, polls and readings at once: nothing waits behind the lock, nothing is twice."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.callers import FAST, MODEL
from support.children import Zygote
from support.clock import FakeClock
from support.faults import Fault
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._jobs.side_by_side import AT_ONCE
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.lock import SidecarLock
from nyu_llm_frames.errors import AuthenticationError

FILES = AT_ONCE + 2
TEXTS = [f"question {i}" for i in range(FILES)]
SIDECAR = Path("s")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("children"), "support.callers") as zygote:
        yield zygote


@pytest.fixture(autouse=True)
def _a_file_for_each_row(stand_in: StandIn) -> Iterator[None]:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    gateway = llm.Gateway(**stand_in.settings)
    with llm.set_options(**{**FAST, "max_requests_per_file": 1, "gateway": gateway}):
        yield


def batch(texts: list[str] = TEXTS, **more: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"q": texts})
    out: pd.DataFrame = frame.llm.batch("{{ q }}", model=MODEL, sidecar=SIDECAR, **more)
    return out


def once(gateway: StandIn, texts: list[str] = TEXTS) -> None:
    """Check that every request was paid once, in files that were submitted once."""
    sent = Counter(i for job in gateway.jobs for i in job.custom_ids)
    assert sorted(sent.values()) == [1] * len(texts)
    files = [job.input_file_id for job in gateway.jobs]
    assert len(set(files)) == len(files)


def all_at_once(gateway: StandIn, call: str) -> list[Fault]:
    """Hold the first requests of a kind until as many are there as may be at once."""
    held = [gateway.script.add(call, "hold") for _ in range(AT_ONCE)]

    def let_go() -> None:
        for fault in held:
            assert fault.arrived.wait(60)
        for fault in held:
            fault.release()

    threading.Thread(target=let_go).start()
    return held


@pytest.mark.parametrize("call", ["upload", "poll", "content"])
def test_what_waits_for_the_network_waits_together(call: str, stand_in: StandIn) -> None:
    held = all_at_once(stand_in, call)
    assert batch()["response"].tolist() == [answer(text) for text in TEXTS]
    assert all(fault.done.is_set() for fault in held)
    once(stand_in)
    assert len(stand_in.jobs) == FILES


def test_what_is_said_meanwhile_is_told_in_the_thread_of_the_call(stand_in: StandIn) -> None:
    told: list[tuple[str, int]] = []

    def hear(progress: Progress) -> None:
        told.append((progress.message, threading.get_ident()))

    all_at_once(stand_in, "upload")
    with llm.set_options(progress=hear):
        batch()
    assert {thread for _, thread in told} == {threading.get_ident()}
    assert sum(message.startswith("uploading 1 request ") for message, _ in told) == FILES
    assert sum("completed: 1 answer" in message for message, _ in told) == FILES


def test_nobody_waits_for_an_upload(stand_in: StandIn) -> None:
    """Not even for one that hangs: others plan, submit and end meanwhile."""
    hung = stand_in.script.add("upload", "hold")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(batch, TEXTS[:1])
        assert hung.arrived.wait(60)
        with SidecarLock(SIDECAR, SystemClock()).held(patience_s=0):
            pass
        assert batch(TEXTS[1:3])["response"].tolist() == [answer(t) for t in TEXTS[1:3]]
        hung.release()
        assert waiting.result()["response"].tolist() == [answer(TEXTS[0])]
    once(stand_in, TEXTS[:3])


def test_a_file_that_was_cancelled_while_it_was_uploaded_is_not_submitted(
    stand_in: StandIn,
) -> None:
    hung = stand_in.script.add("upload", "hold")
    frame = pd.DataFrame({"q": TEXTS[:1]})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(frame.llm.submit, "{{ q }}", model=MODEL, sidecar=SIDECAR)
        assert hung.arrived.wait(60)
        assert llm.open_sidecar(SIDECAR).jobs()["step"].tolist() == ["planned"]
        job = Sidecar(SIDECAR, SystemClock()).jobs()
        assert len(job) == 1
        frame.llm.submit("{{ q }}", model=MODEL, sidecar=SIDECAR).cancel()
        hung.release()
        running.result()
    assert stand_in.jobs == []
    assert llm.open_sidecar(SIDECAR).jobs()["step"].tolist() == ["withdrawn"]


def test_two_processes_do_not_upload_the_same_file(zygote: Zygote, stand_in: StandIn) -> None:
    hung = stand_in.script.add("upload", "hold")
    first = zygote.run(
        "support.callers:call", environment=stand_in.environment, folder=Path.cwd(),
        texts=TEXTS[:1], sidecar=str(SIDECAR.absolute()), per_file=1,
    )  # fmt: skip
    assert hung.arrived.wait(60)
    assert batch(TEXTS[:1], wait=False)["response_error"].isna().all()
    hung.release()
    assert first.wait() == 0, first.said
    assert json.loads(first.said.splitlines()[-1])["answers"] == [answer(TEXTS[0])]
    assert stand_in.count("upload") == 1
    once(stand_in, TEXTS[:1])


def test_of_two_uploads_of_one_job_the_first_that_is_recorded_is_submitted(
    zygote: Zygote, stand_in: StandIn
) -> None:
    """Where file locks do not reach the other machine, both upload; only one may be paid."""
    hung = stand_in.script.add("upload", "hold_answer")
    first = zygote.run(
        "support.callers:call", environment=stand_in.environment, folder=Path.cwd(),
        texts=TEXTS[:1], sidecar=str(SIDECAR.absolute()), per_file=1,
    )  # fmt: skip
    assert hung.arrived.wait(60)
    (claim,) = SIDECAR.glob("lock.2*")
    claim.unlink()  # the other machine sees no lock
    assert batch(TEXTS[:1])["response"].tolist() == [answer(TEXTS[0])]
    hung.release()
    assert first.wait() == 0, first.said
    assert stand_in.count("upload") == 2
    assert len(stand_in.uploads) == 2  # no name is used again
    assert len(stand_in.jobs) == 1
    once(stand_in, TEXTS[:1])


def test_an_upload_that_is_repeated_is_whole_and_has_another_name(stand_in: StandIn) -> None:
    stand_in.script.add("upload", "lose", status=503, times=2)
    assert batch(TEXTS[:1])["response"].tolist() == [answer(TEXTS[0])]
    assert len(stand_in.uploads) == 3
    assert len(set(stand_in.uploads.values())) == 1
    sent = [
        h
        for h, (_, path) in zip(stand_in.headers, stand_in.log, strict=True)
        if path == "/v1/files"
    ]
    sizes = {int(headers["content-length"]) for headers in sent}  # proxies may want to know it
    (content,) = set(stand_in.uploads.values())
    assert len(content) < sizes.pop() < len(content) + 1000
    assert not sizes
    once(stand_in, TEXTS[:1])
    assert [p.name for p in SIDECAR.rglob("*.jsonl*")] == []


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """Let SIGINT interrupt; a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_an_interrupt_ends_the_call_while_uploads_hang(stand_in: StandIn) -> None:
    held = [stand_in.script.add("upload", "hold") for _ in range(AT_ONCE)]
    main = threading.get_ident()

    def interrupt() -> None:
        for fault in held:
            assert fault.arrived.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        batch()
    assert stand_in.count("upload") == AT_ONCE  # nothing more was begun
    assert stand_in.jobs == []
    for fault in held:
        fault.release()
    assert batch()["response"].tolist() == [answer(text) for text in TEXTS]
    once(stand_in)


def test_a_refused_key_ends_the_call_and_keeps_what_the_others_came_to(stand_in: StandIn) -> None:
    frame = pd.DataFrame({"q": TEXTS})
    run = frame.llm.submit("{{ q }}", model=MODEL, sidecar=SIDECAR)
    refused = stand_in.script.add("poll", "respond", status=401, after=AT_ONCE - 1)
    with pytest.raises(AuthenticationError):
        run.wait()
    assert refused.hits == 1
    assert stand_in.count("poll") < 2 * AT_ONCE  # those that were not begun are not
    run.wait()
    assert run.result()["response"].tolist() == [answer(text) for text in TEXTS]
    once(stand_in)


def test_a_poll_that_shows_nothing_new_needs_no_lock(stand_in: StandIn, clock: FakeClock) -> None:
    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=-1)
    run = pd.DataFrame({"q": TEXTS}).llm.submit("{{ q }}", model=MODEL, sidecar=SIDECAR)
    run.poll()  # from queued to running
    waited = len(clock.slept)
    with SidecarLock(SIDECAR, SystemClock()).held():
        run.poll()
    assert len(clock.slept) == waited
    assert stand_in.count("poll") == 2 * FILES
