"""The network that people have: proxies, certificates, slow answers, and no key in any frame."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import ssl
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pandas as pd
import pytest
from click.testing import CliRunner
from support.callers import MODEL
from support.clock import FakeClock
from support.http_server import Answer, Request, Server
from support.proxy import Proxy
from support.stand_in import Behaviour, StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._gateway import connection
from nyu_llm_frames._gateway.failures import Translated
from nyu_llm_frames._gateway.masking import Mask
from nyu_llm_frames._gateway.network import route
from nyu_llm_frames._shared.options import NYU_BASE_URL
from nyu_llm_frames._stages.batches.wire import Busy, Refused, Uncertain
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import (
    AuthenticationError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
    RunTimeoutError,
)

KEY = "CANARY-key-7f3a9c51d2"
PASSWORD = "CANARY-pass-word"
CANARIES = (KEY, PASSWORD)
UNTRUSTED = Path(__file__).parent / "data" / "untrusted.pem"
HERE = str(Path(__file__).parent)
DF = pd.DataFrame({"x": list("abcd")})
RIGHT = [answer(f"Say {x}") for x in "abcd"]
AWAY: dict[str, Any] = {"api_key": KEY, "bucket": "b", "base_url": "https://gateway.test/v1"}
HAS_SOCKS = importlib.util.find_spec("socksio") is not None


def ask(**more: Any) -> pd.DataFrame:
    return DF.llm.batch("Say {{ x }}", model=MODEL, **more)


@contextlib.contextmanager
def opened(gateway: llm.Gateway) -> Iterator[Any]:
    with contextlib.closing(gateway.connect()) as made:
        yield made


def shown_by(error: BaseException) -> str:
    """Return all that a verbose traceback shows: variables of each frame, also of the causes."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True, compact=False)
    out, left = [], [trace]
    while left:
        one = left.pop()
        out.append("".join(one.format_exception_only()))
        frames = (f for f in one.stack if not f.filename.startswith(HERE))  # tests hold the key
        out += [f"{f.filename}:{f.lineno} {name}={v}" for f in frames for name, v in
                (f.locals or {}).items()]  # fmt: skip
        left += [e for e in (one.__cause__, one.__context__) if e is not None]
    return "\n".join(out)


def holds_no_key(error: BaseException) -> None:
    lines = [line for line in shown_by(error).splitlines() if any(c in line for c in CANARIES)]
    assert lines == []


# --- settings that cannot be used -------------------------------------------------------------
WRONG = [
    ("HTTP_PROXY", f"ftp://me:{PASSWORD}@proxy:21", "http://, https:// or socks5://, not ftp://"),
    ("https_proxy", f"http://me:{PASSWORD}@proxy:port", "http://host:port"),
    ("HTTPS_PROXY", "http://proxy:99999", "http://host:port"),
    ("HTTPS_PROXY", "http://", "http://host:port"),
    ("ALL_PROXY", "http://[::1", "http://host:port"),
    ("all_proxy", "socks4://proxy:1080", "not socks4://"),
    ("HTTPS_PROXY", f"http://me:pa/{PASSWORD}@proxy:80", "http://host:port"),
    ("SSL_CERT_FILE", "nowhere.pem", "cannot be read (No such file"),
    ("SSL_CERT_FILE", ".", "cannot be read (Is a directory"),
    ("SSL_CERT_FILE", "text.pem", "no certificates in PEM form"),
    ("SSL_CERT_FILE", "empty.pem", "no certificates in PEM form"),
    ("SSL_CERT_DIR", "nowhere", "not a folder"),
]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    WRONG
    + [
        pytest.param(
            name, f"socks5h://me:{PASSWORD}@proxy:1080", 'pip install "httpx[socks]"',
            marks=pytest.mark.skipif(HAS_SOCKS, reason="SOCKS can be used here"),
        )
        for name in ("ALL_PROXY", "https_proxy")
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_named(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.pem").write_text("-----BEGIN NOTHING-----")
    Path("empty.pem").touch()
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as e:
        ask(gateway=llm.Gateway(**AWAY))
    assert str(e.value).startswith(f"{variable} ")
    assert told in str(e.value)
    assert "unset" in str(e.value)
    holds_no_key(e.value)
    for name in ("PORTKEY_API_KEY", "NYU_LLM_BUCKET"):
        monkeypatch.setenv(name, KEY)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    [bad] = [f for f in json.loads(result.stdout) if f["state"] == "failed"]
    assert (bad["step"], bad["code"]) == ("network", exits.USAGE)
    assert bad["found"] == str(e.value)
    assert result.exit_code == exits.USAGE


@pytest.mark.parametrize(
    ("settings", "url", "proxy"),
    [
        ({}, "https://gateway.test/v1", None),
        ({"HTTPS_PROXY": "proxy:8080"}, "https://gateway.test/v1", "http://proxy:8080"),
        ({"HTTP_PROXY": "http://proxy"}, "https://gateway.test/v1", None),
        ({"HTTP_PROXY": "http://u:p@proxy/"}, "http://gateway.test/v1", "http://proxy"),
        ({"https_proxy": "http://low", "HTTPS_PROXY": "http://up"}, "https://g/v1", "http://low"),
        ({"all_proxy": "http://proxy:3128"}, "http://gateway.test/v1", "http://proxy:3128"),
        # As one program that many run sets them.
        ({"all_proxy": "socks5://p:1", "https_proxy": "http://p:1"}, "https://g/", "http://p:1"),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "*"}, "https://gateway.test/v1", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "a, .test"}, "https://gateway.test/v1", None),
        ({"ALL_PROXY": "http://p", "no_proxy": "gateway.test:8"}, "https://gateway.test:8/", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "teway.test"}, "https://gateway.test/", "http://p"),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "[::1],[fd00::7]"}, "https://[fd00::7]/v1", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "[::1]"}, "https://gateway.test/", "http://p"),
        *[
            ({"ALL_PROXY": "http://p", "HTTP_PROXY": "ftp://what"}, f"http://{host}:8000/v1", None)
            for host in ("127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "[::1]",
                         "127.1.2.3", "0.0.0.0")
        ],
    ],
)  # fmt: skip
def test_the_way_is_what_the_environment_says(
    settings: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    found = route(url).proxy
    assert (found.shown if found else None) == proxy
    if found:
        assert found.variable in settings


# --- proxies ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_loopback_goes_through_no_proxy(
    name: str, gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(status=502) as proxy:
        for variable in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        base_url = gateway.base_url.replace("127.0.0.1", name)
        out = ask(gateway=llm.Gateway(**{**gateway.settings, "base_url": base_url}))
        assert out["response"].tolist() == RIGHT
        assert proxy.asked == []


@pytest.fixture
def tls_gateway() -> Iterator[StandIn]:
    """A stand-in whose certificate nobody has signed."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(UNTRUSTED)
    with StandIn(api_key=KEY, tls=tls) as gateway:
        yield gateway


def test_a_run_through_a_proxy_with_a_password_and_a_certificate_of_ones_own(
    tls_gateway: StandIn, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(tls_gateway.base_url.split(":")[2].removesuffix("/v1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(UNTRUSTED))
    with Proxy(port, password=f"me:{PASSWORD}@1") as proxy:
        host = proxy.url.removeprefix("http://")
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}%401@{host}")
        there = llm.Gateway(**{**AWAY, "bucket": tls_gateway.bucket})
        assert PASSWORD not in repr(there.route) + str(there.route)
        with llm.set_options(progress=False):
            out = ask(gateway=there)
        assert out["response"].tolist() == RIGHT
        assert proxy.asked[0] == "CONNECT gateway.test:443 HTTP/1.1"
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@{host}")
        asks = "HTTPS_PROXY names, asks for a user"
        with opened(there) as made, pytest.raises(ConfigurationError, match=asks) as e:
            made.list()
        holds_no_key(e.value)


def test_a_dead_proxy_is_named(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    there = llm.Gateway(**AWAY)
    with opened(there) as made, pytest.raises(GatewayUnavailableError) as e:
        made.list()
    said = "no answer from the proxy http://127.0.0.1:9, which HTTPS_PROXY names"
    assert said in str(e.value)
    assert "NO_PROXY=gateway.test" in str(e.value)
    assert not e.value.connected
    holds_no_key(e.value)
    with llm.set_options(progress=False), pytest.raises(RunTimeoutError, match="HTTPS_PROXY"):
        ask(gateway=there, timeout=100)


def test_plain_requests_name_their_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    there = llm.Gateway(**{**AWAY, "base_url": "http://gateway.test/v1"})
    with StandIn(api_key=KEY) as gateway:
        port = int(gateway.base_url.split(":")[2].removesuffix("/v1"))
        with Proxy(port) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            with opened(there) as made:
                made.list()
            assert proxy.asked == ["GET http://gateway.test/v1/batches?limit=100 HTTP/1.1"]
    with Proxy(status=407) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with opened(there) as made:
            with pytest.raises(ConfigurationError, match="http_proxy=http://user:password@host"):
                made.list()
            assert isinstance(made.create("file", "model"), Busy)  # it never got there


# --- certificates -----------------------------------------------------------------------------
def test_an_untrusted_certificate_ends_the_call_and_says_what_to_set(
    tls_gateway: StandIn, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = llm.Gateway(**tls_gateway.settings)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(UNTRUSTED))
    with pytest.raises(ConfigurationError, match="self-signed certificate") as e:
        ask(gateway=there)
    assert "certificates of the package certifi" in str(e.value)
    assert "set SSL_CERT_FILE to a PEM file" in str(e.value)
    assert "REQUESTS_CA_BUNDLE is not read here" in str(e.value)
    assert clock.slept == []
    holds_no_key(e.value)
    with opened(there) as made:
        assert isinstance(made.create("file", "model"), Busy)
    for name, value in tls_gateway.environment.items():
        monkeypatch.setenv(name, value)
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)
    assert [f["step"] for f in found if f["state"] == "failed"] == ["network"]
    assert tls_gateway.log == []
    monkeypatch.setenv("SSL_CERT_FILE", str(UNTRUSTED))
    with llm.set_options(progress=False):
        assert ask(gateway=there)["response"].tolist() == RIGHT


# --- NYU's VPN --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "away"),
    [
        (httpx.ConnectTimeout("timed out"), True),
        (httpx.ConnectError("[Errno 111] Connection refused"), True),
        (httpx.ConnectError("[Errno -2] Name or service not known"), True),
        (httpx.ReadTimeout("timed out"), True),
        (httpx.RemoteProtocolError("Server disconnected"), False),
    ],
)
def test_what_does_not_answer_at_nyu_names_the_vpn(error: Exception, away: bool) -> None:
    for url in (NYU_BASE_URL, "https://gateway.test/v1/"):
        with pytest.raises(GatewayUnavailableError) as e, Translated("Polling", url, Mask([])):
            raise error
        assert ("NYU's VPN" in str(e.value)) == (away and url == NYU_BASE_URL)
        assert ("a Colab notebook is not" in str(e.value)) == (away and url == NYU_BASE_URL)


def test_a_proxy_that_does_not_reach_nyu_names_the_vpn(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(status=504) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        said = r"504 .*HTTPS_PROXY.*NYU's VPN"
        there = llm.Gateway(api_key=KEY, bucket="b")
        with opened(there) as made, pytest.raises(GatewayUnavailableError, match=said) as e:
            made.list()
    assert not e.value.connected  # a tunnel that is not there carries no submit


# --- clients ----------------------------------------------------------------------------------
@pytest.mark.parametrize("broken", [None, types.ModuleType("portkey_ai")])
def test_a_client_that_is_not_installed_is_named(
    broken: Any, gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "portkey_ai", broken)
    with pytest.raises(ConfigurationError, match="pip install --upgrade portkey-ai") as e:
        ask(gateway=llm.Gateway(**{**gateway.settings, "api_key": KEY}))
    holds_no_key(e.value)
    for name, value in gateway.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert [f["step"] for f in found if f["state"] == "failed"] == ["settings"]
    assert "portkey-ai" in found[-2]["found"]
    assert "export" not in found[-2]["fix"]


def test_calls_that_read_send_the_headers_of_portkeys_client_without_it() -> None:
    """But for what the client says about itself."""
    sent: list[dict[str, str]] = []

    def serve(request: Request) -> Answer:
        sent.append(request.headers)
        return Answer(200, b'{"object": "list", "data": [], "has_more": false}')

    server = Server(serve)
    server.start()
    try:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        for bucket in ("b", "another-bucket"):
            there = llm.Gateway(api_key=KEY, base_url=base_url, provider="@mine", bucket=bucket)
            with opened(there) as made:
                made.list()
                made.load_client()
                made.list()
    finally:
        server.stop()
    of_client = {f"x-portkey-{name}" for name in ("package-version", "runtime", "runtime-version")}
    for without, with_client in zip(sent[::2], sent[1::2], strict=True):
        assert with_client.keys() - without.keys() == of_client
        assert without.items() <= with_client.items()


@pytest.mark.parametrize(
    "wrong",
    [
        {"http_client": "https://proxy"},
        {"http_client": httpx.AsyncClient()},
        {"metadata": {"a": {1}}},  # Portkey cannot write it down
    ],
)
def test_options_that_the_client_does_not_take_are_told(wrong: dict[str, Any]) -> None:
    there = {**AWAY, "base_url": f"https://me:{PASSWORD}@gateway.test/v1"}
    with pytest.raises(ConfigurationError) as e:
        ask(gateway=llm.Gateway(**there, **wrong, Authorization=PASSWORD))
    holds_no_key(e.value)


@pytest.mark.parametrize("client", ["portkey", object(), httpx.Client()])
def test_what_is_no_client_is_refused_at_once(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a portkey_ai\.Portkey, not"):
        llm.Gateway(client=client)


def test_a_client_of_ones_own_stays_open_and_a_closed_one_is_named(gateway: StandIn) -> None:
    with httpx.Client(trust_env=False) as http:
        own = llm.Gateway(**gateway.settings, http_client=http)
        for sidecar in ("one", "two"):
            assert ask(gateway=own, sidecar=sidecar)["response"].tolist() == RIGHT
    with pytest.raises(ConfigurationError, match="closed"):
        ask(gateway=own, sidecar="three")


# --- time and size ----------------------------------------------------------------------------
@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("call", ["upload", "list", "create", "poll", "content", "output"])
def test_timeout_holds_against_answers_that_trickle(
    gateway: StandIn, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, call: str, part: str
) -> None:
    shortest = [n for n in vars(connection) if n.startswith("SHORTEST")]
    assert len(shortest) == 4
    for name in shortest:
        monkeypatch.setattr(connection, name, 0.1)
    gateway.behaviour = Behaviour(0, 0)  # over at the first poll
    if call == "output":
        gateway.behaviour.content_fails = -1  # else that is read in its place
    fault = gateway.script.add(call, mode="trickle", body=part, times=-1)
    started = time.monotonic()
    # A submit whose time is over is uncertain, and the list has its job.
    over = contextlib.nullcontext() if call == "create" else pytest.raises(RunTimeoutError)
    with over:
        ask(timeout=0.3)
    assert time.monotonic() - started < 20  # without end, were each read for itself
    assert fault.hits > 0
    gateway.script.clear()
    assert ask()["response"].tolist() == RIGHT  # and nothing was taken for a short output
    assert len(gateway.jobs) == 1


def test_a_client_of_ones_own_keeps_the_time_too(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SHORTEST_S", 0.1)
    gateway.script.add("list", mode="trickle", body="body")
    theirs = llm.Gateway(client=gateway.portkey(), bucket=gateway.bucket)
    with opened(theirs) as made:
        made.left_s = lambda: 0.2
        with pytest.raises(GatewayUnavailableError, match="its time is over"):
            made.list()


class InPieces(io.BytesIO):
    """A file that is larger than the memory that one has for it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 < size <= 1_000_000:
            raise MemoryError
        return super().read(size)


def test_a_file_is_sent_in_pieces(stand_in: StandIn) -> None:
    with opened(llm.Gateway(**stand_in.settings)) as made:
        made.upload(InPieces(bytes(3_000_000)), "name", MODEL)
    assert stand_in.uploads["name"] == bytes(3_000_000)


CALLS: dict[str, Callable[[Any], Any]] = {
    "upload": lambda made: made.upload(io.BytesIO(b"{}"), "name", "model"),
    "list": lambda made: made.list(),
    "retrieve": lambda made: made.retrieve("id"),
    "create": lambda made: made.create("file", "model"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
def test_a_small_answer_that_is_none_ends(call: str, encoding: str) -> None:
    blanks = gzip.compress(b" " * 30_000_000)
    body = gzip.compress(blanks) if "," in encoding else blanks

    def serve(request: Request) -> Answer:
        return Answer(200, body, headers={"Content-Encoding": encoding})

    server = Server(serve)
    server.start()
    try:
        there = llm.Gateway(**{**AWAY, "base_url": f"http://127.0.0.1:{server.port}"})
        with opened(there) as made:
            if call == "create":
                assert isinstance(CALLS[call](made), Uncertain)
                return
            with pytest.raises(GatewayUnavailableError, match="right base URL"):
                CALLS[call](made)
    finally:
        server.stop()


def test_a_refusal_that_cannot_be_read_is_one_all_the_same() -> None:
    def serve(request: Request) -> Answer:
        return Answer(401, b"no gzip", headers={"Content-Encoding": "gzip"})

    server = Server(serve)
    server.start()
    there = llm.Gateway(**{**AWAY, "base_url": f"http://127.0.0.1:{server.port}"})
    with opened(there) as made, contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        with pytest.raises(AuthenticationError):
            made.list()
        assert made.create("file", "model") == Refused(401, mock.ANY)


# --- redirects --------------------------------------------------------------------------------
@pytest.mark.parametrize(("status", "posts"), [(302, 1), (307, 1), (308, 1), (405, 2)])
def test_a_submit_that_is_always_refused_in_other_words_ends(
    gateway: StandIn, clock: FakeClock, status: int, posts: int
) -> None:
    """It is uncertain until the list shows that it made no job, and then no reason to repeat it."""
    where = "https://me:CANARY-pass-word@login.test/in?token=CANARY-key-7f3a9c51d2"
    gateway.script.add("create", status=status, times=-1, location=where)
    for calls in (1, 2):
        with pytest.raises(GatewayError, match=rf"answered {status}.*made no batch job") as e:
            ask()
        assert gateway.count("create") == calls * posts
        assert ("https://login.test/in" in str(e.value)) == (status < 400)
        holds_no_key(e.value)
    gateway.script.clear()
    assert ask()["response"].tolist() == RIGHT
    assert len(gateway.jobs) == 1


def test_an_address_that_has_moved_for_good_ends_the_call(
    gateway: StandIn, clock: FakeClock
) -> None:
    gateway.script.add("upload", status=301, location="https://gateway.test/v1/files", times=-1)
    with pytest.raises(GatewayError, match="leads to https://gateway"):
        ask()
    assert gateway.count("upload") == 1


# --- keys in tracebacks -----------------------------------------------------------------------
class Echo(StandIn):
    """A gateway that answers everything of one kind with what it was sent."""

    call, status = "", 401

    def _respond(self, request: Request) -> Answer | None:
        if request.path.partition("?")[0].endswith(self.call):
            page = json.dumps({"error": {"message": f"{KEY} {json.dumps(request.headers)}"}})
            return Answer(self.status, page.encode(), headers={"x-echo": KEY})
        return super()._respond(request)


# Kept as the answer of a row, or looked for elsewhere.
NO_ERROR = {("/chat/completions", status) for status in (200, 302, 500)} | {
    ("/output", status) for status in (200, 302, 404, 500)
}


@pytest.mark.parametrize("call", ["/files", "/batches", "/output", "/chat/completions"])
@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
def test_no_frame_shows_a_key(call: str, status: int, clock: FakeClock) -> None:
    with Echo(api_key=KEY) as gateway:
        gateway.call, gateway.status = call, status
        gateway.behaviour.content_fails = -1  # so that the output is asked for
        there = llm.Gateway(**gateway.settings, Authorization=f"Bearer {PASSWORD}")
        errors: list[BaseException] = []
        verbs: list[tuple[Any, dict[str, Any]]] = [
            (DF.llm.batch, {"timeout": 50}),
            (DF.llm.trial, {}),
            (DF.llm.submit, {}),
        ]
        for number, (verb, more) in enumerate(verbs):
            try:
                verb("Say {{ x }}", model=MODEL, gateway=there, sidecar=str(number), **more)
            except LLMFramesError as e:
                errors.append(e)
        assert errors or (call, status) in NO_ERROR
        for error in errors:
            holds_no_key(error)


def test_no_frame_shows_a_key_that_was_given_wrongly(stand_in: StandIn) -> None:
    client = stand_in.portkey(api_key=KEY)
    for wrong in (
        {"api_key": f"{KEY}\n{KEY}"},
        {"api_key": KEY, "base_url": "gateway"},
        {"api_key": PASSWORD, "client": client},
        {"client": client, "Authorization": PASSWORD},
        {"api_key": KEY, "client": KEY},
    ):
        with pytest.raises(ConfigurationError) as e:
            llm.Gateway(**wrong)
        lines = shown_by(e.value).splitlines()
        assert [x for x in lines if any(c in x for c in CANARIES)] == []


def test_a_refused_key_is_told_by_its_name_alone(stand_in: StandIn) -> None:
    there = llm.Gateway(**{**stand_in.settings, "api_key": KEY})
    with pytest.raises(AuthenticationError, match="PORTKEY_API_KEY") as e:
        ask(gateway=there)
    holds_no_key(e.value)
