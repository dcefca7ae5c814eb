"""The upstream engine: what it passes on, retries and reports."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_support import Served, Upstream, jsonl, request

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local.engine import build
from nyu_llm_frames.local.engine_upstream import TRIES, UpstreamEngine, retry_after
from nyu_llm_frames.local.rows import RowError
from nyu_llm_frames.local.spec import Options, engine_spec

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def engine(upstream: Upstream) -> Iterator[UpstreamEngine]:
    """An engine that hardly waits."""
    made = UpstreamEngine(upstream.url, key="k", slots=4, max_tokens=256, first_wait_s=1e-4)
    yield made
    made.close()


def test_the_upstreams_own_model_and_words_are_reported(
    engine: UpstreamEngine, upstream: Upstream
) -> None:
    answer = engine.answer(BODY, Event())
    assert (answer.model, answer.content) == ("the-upstream-model", "up: hi")
    assert answer.finish_reason == "MAX_TOKENS"
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 5)
    assert upstream.keys == ["Bearer k"]


def test_max_tokens_is_capped_unless_the_request_asks(
    engine: UpstreamEngine, upstream: Upstream
) -> None:
    engine.answer(BODY, Event())
    engine.answer({**BODY, "max_tokens": 999}, Event())
    engine.answer({**BODY, "max_completion_tokens": 7, "max_tokens": None}, Event())
    assert [body.get("max_tokens") for body in upstream.seen] == [256, 999, None]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(
    engine: UpstreamEngine, upstream: Upstream, status: int
) -> None:
    upstream.faults = [(status, {}), (status, {"retry-after": "0"})]
    assert engine.answer(BODY, Event()).content == "up: hi"
    assert len(upstream.seen) == 3


def test_what_does_not_pass_is_the_rows_error(engine: UpstreamEngine, upstream: Upstream) -> None:
    upstream.faults = [(422, {})]
    with pytest.raises(RowError, match="fault 422") as caught:
        engine.answer(BODY, Event())
    assert caught.value.status == 422
    upstream.faults = [(500, {})] * TRIES
    with pytest.raises(RowError, match="fault 500") as caught:
        engine.answer(BODY, Event())
    assert caught.value.status == 500
    assert len(upstream.seen) == 1 + TRIES


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_of_the_upstream_is_not_the_row_s_fault(
    engine: UpstreamEngine, upstream: Upstream, status: int
) -> None:
    """What is no 4xx counts as failed: another attempt may cure it."""
    upstream.faults = [(status, {})]
    with pytest.raises(RowError, match=f"the upstream answered {status}: fault {status}") as caught:
        engine.answer(BODY, Event())
    assert caught.value.status == 502
    assert len(upstream.seen) == 1


def test_a_wait_ends_when_the_job_is_to_end(engine: UpstreamEngine, upstream: Upstream) -> None:
    upstream.faults = [(429, {"retry-after": "500"})]
    stop = Event()
    stop.set()
    with pytest.raises(RowError, match="given up"):
        engine.answer(BODY, stop)


def test_an_upstream_that_is_away_costs_one_try_a_row() -> None:
    engine = UpstreamEngine(
        "http://127.0.0.1:1/v1", key=None, slots=1, max_tokens=9, first_wait_s=1e-4
    )
    for _ in range(3):
        with pytest.raises(RowError, match="cannot be reached") as caught:
            engine.answer(BODY, Event())
        assert caught.value.status == 503
    engine.close()


@settings(deadline=None)  # the machine may be busy
@given(st.floats(allow_infinity=True, allow_nan=True) | st.text(max_size=12))
def test_retry_after_is_seconds_or_nothing(value: float | str) -> None:
    got = retry_after(str(value), 0.0)
    assert got is None or 0 <= got <= 600


def test_retry_after_may_be_a_date() -> None:
    assert retry_after(formatdate(1030, usegmt=True), 1000.0) == 30.0


def test_a_job_through_an_upstream_with_faults(
    serve: Callable[..., Served], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-of-the-upstream")
    upstream.faults = [(500, {"retry-after": "0"}), (429, {"retry-after": "0"}), (400, {})]
    served = serve(upstream=upstream.url, upstream_key_env="MY_KEY")
    assert served.info.realm == f"upstream:{upstream.url}"
    job = served.submit(jsonl(*(request(f"r{i}", str(i)) for i in range(30))))
    batch = served.wait(job)
    assert batch["request_counts"] == {"total": 30, "completed": 29, "failed": 1}
    assert batch["model"] == ""
    good = [row["response"]["body"] for row in served.output(job) if not row["error"]]
    assert {body["model"] for body in good} == {"the-upstream-model"}
    assert upstream.most_at_once <= 4
    assert set(upstream.keys) == {"Bearer secret-of-the-upstream"}
    stored: Any = [p.read_bytes() for p in served.folder.rglob("*") if p.is_file()]
    assert not any(b"secret-of-the-upstream" in raw for raw in stored)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_server_on_this_machine_is_asked_through_no_proxy(
    host: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    url = upstream.url.replace("127.0.0.1", host)
    made = UpstreamEngine(url, key=None, slots=1, max_tokens=9)
    assert made.answer(BODY, Event()).content == "up: hi"
    made.close()


def test_an_environment_that_cannot_be_used_is_named_without_the_key(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-of-the-upstream")
    monkeypatch.setenv("ALL_PROXY", "ftp://me:secret-of-the-proxy@proxy")
    options = Options(upstream_key_env="MY_KEY")
    with pytest.raises(ConfigurationError, match="ALL_PROXY is wrong") as e:
        build(engine_spec(upstream="http://upstream.test/v1"), options)
    shown = traceback.TracebackException.from_exception(e.value, capture_locals=True)
    assert "secret-of" not in "".join(shown.format())
    with pytest.raises(ConfigurationError, match="ALL_PROXY is wrong") as e:
        serve(upstream="http://upstream.test/v1", upstream_key_env="MY_KEY")
    assert "secret-of" not in str(e.value)


def test_a_missing_key_variable_is_named(tmp_path: Any) -> None:
    from nyu_llm_frames.local.process import ensure_server

    with pytest.raises(ConfigurationError, match="NO_SUCH_VARIABLE"):
        ensure_server(data=tmp_path, upstream="http://h/v1", upstream_key_env="NO_SUCH_VARIABLE")
