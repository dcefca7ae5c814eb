"""The doors beside df.llm: import, options, gateways, registering, looking into a sidecar."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._runs.arguments import Arguments, Common
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames.errors import ConfigurationError, PartialResultWarning, SidecarError

MODEL = "gemini-3-flash-preview"
DF = pd.DataFrame({"x": list("abc")})


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- import -----------------------------------------------------------------------------------
def test_import_and_preview_load_no_client_server_or_model() -> None:
    heavy = ["portkey_ai", "openai", "httpx", "starlette", "uvicorn", "xllamacpp", "tqdm"]
    heavy += ["matplotlib", "IPython", "dask", "polars", "pydantic", "genai_prices"]
    code = (
        "import sys, pandas as pd\n"
        "before = set(sys.modules)\n"
        "import nyu_llm_frames as llm\n"
        "pd.DataFrame({'x': [1]}).llm.preview('{{ x }}')\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    assert run_python(code) == "[]"


def test_the_accessor_is_there_after_the_import_alone() -> None:
    assert run_python("import nyu_llm_frames, pandas; print(pandas.DataFrame.llm.__name__)")


def test_another_packages_df_llm_stays_theirs_and_a_name_can_be_chosen() -> None:
    code = (
        "import warnings, pandas as pd\n"
        "class Theirs:\n"
        "    def __init__(self, frame): pass\n"
        "pd.api.extensions.register_dataframe_accessor('llm')(Theirs)\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    import nyu_llm_frames as llm\n"
        "llm.register('batches')\n"
        "df = pd.DataFrame({'x': [1]})\n"
        "print(len(told), 'register(' in str(told[0].message), type(df.llm).__name__,\n"
        "      len(df.batches.preview('{{ x }}')))"
    )
    assert run_python(code) == "1 True Theirs 1"


def test_register_refuses_what_a_frame_has_already() -> None:
    with pytest.raises(ConfigurationError, match="has 'mean' already"):
        llm.register("mean")
    with pytest.raises(ConfigurationError, match="must be a Python name"):
        llm.register("not a name")
    llm.register("llm")  # our own, again


def test_every_public_name_is_there() -> None:
    for name in llm.__all__:
        assert getattr(llm, name) is not None


# --- options ----------------------------------------------------------------------------------
def test_options_hold_for_a_block_and_for_the_session() -> None:
    before = _options.current()
    with llm.set_options(poll_interval_s=30):
        with llm.set_options(sidecar="here"):
            assert _options.current().poll_interval_s == 30
            assert _options.current().sidecar == "here"
        assert _options.current().sidecar is None
    assert _options.current() == before
    llm.set_options(poll_interval_s=7)
    assert _options.current().poll_interval_s == 7
    llm.set_options(poll_interval_s=before.poll_interval_s)
    assert _options.current() == before


def test_blocks_that_overlap_take_back_their_own_options_only(tmp_path: Path) -> None:
    before = _options.current()
    one, two = llm.set_options(sidecar=tmp_path), llm.set_options(max_cost=1)
    with one:
        with two, pytest.raises(ConfigurationError):
            llm.set_options(max_cost=0)
        assert (_options.current().sidecar, _options.current().max_cost) == (tmp_path, None)
    assert _options.current() == before
    # As two threads leave them: the first that came is the first that goes.
    one, two = llm.set_options(sidecar=tmp_path), llm.set_options(max_cost=1)
    one.__exit__()
    assert (_options.current().sidecar, _options.current().max_cost) == (before.sidecar, 1)
    two.__exit__()
    assert _options.current() == before


def test_a_limit_may_be_a_whole_float() -> None:
    with llm.set_options(max_requests_per_file=2.0, max_bytes_per_file=1e6):
        assert type(_options.current().max_requests_per_file) is int
        assert type(_options.current().max_bytes_per_file) is int


def test_files_are_smaller_than_gateway_and_providers_take() -> None:
    assert _options.current().max_bytes_per_file <= 100_000_000  # an upload has 300 seconds
    assert _options.current().max_requests_per_file <= 50_000


def test_options_come_back_after_an_error_in_the_block() -> None:
    before = _options.current()
    with pytest.raises(KeyError), llm.set_options(poll_interval_s=30):
        raise KeyError
    assert _options.current() == before


@pytest.mark.parametrize(
    "name",
    [
        "poll_interval_s",
        "max_poll_interval_s",
        "submit_settle_s",
        "output_settle_s",
        "max_requests_per_file",
        "max_bytes_per_file",
        "max_cost",
    ],
)
@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan"), float("inf"), [1]])
def test_numbers_are_above_zero(name: str, value: Any) -> None:
    before = _options.current()
    with pytest.raises(ConfigurationError, match=f"{name} must be a number above 0"):
        llm.set_options(**{name: value})
    assert _options.current() == before


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no option 'pol_interval'.*poll_interval_s"):
        llm.set_options(pol_interval=3)


def test_the_sidecar_of_a_call_wins_over_the_option(gateway: StandIn, tmp_path: Path) -> None:
    with llm.set_options(sidecar=tmp_path / "session.llm"):
        DF.llm.batch("{{ x }}", model=MODEL)
        DF.llm.batch("{{ x }}", model=MODEL, sidecar=str(tmp_path / "call.llm"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["call.llm", "session.llm"]
    assert len(gateway.jobs) == 2


# --- gateways ---------------------------------------------------------------------------------
def test_a_gateway_never_shows_its_key() -> None:
    gateway = llm.Gateway(
        api_key="canary-key",
        base_url="https://example.org/v1",
        bucket="b",
        Authorization="canary-token",
        vertex_project_id="p",
    )
    assert repr(gateway) == str(gateway)
    assert repr(gateway) == (
        "Gateway(api_key='***', base_url='https://example.org/v1', bucket='b', "
        "Authorization='***', vertex_project_id='p')"
    )


def test_a_gateway_is_frozen_and_comparable() -> None:
    gateway = llm.Gateway(api_key="k")
    with pytest.raises(AttributeError):
        gateway.api_key = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del gateway.api_key
    assert gateway == llm.Gateway(api_key="k")
    assert hash(gateway) == hash(llm.Gateway(api_key="k"))
    assert gateway != llm.Gateway(api_key="other")
    assert pickle.loads(pickle.dumps(gateway)) == llm.Gateway()  # it travels without its key
    assert copy.deepcopy(gateway) == gateway


def test_unset_settings_are_those_of_the_environment_at_that_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = llm.Gateway()
    nyu = "https://ai-gateway.apps.cloud.rt.nyu.edu/v1/"
    found = (gateway.api_key, gateway.base_url, gateway.provider, gateway.bucket)
    assert found == (None, nyu, "@vertexai", None)
    monkeypatch.setenv("PORTKEY_API_KEY", "key\n")  # as `$(cat file)` does not leave it, others do
    monkeypatch.setenv("PORTKEY_BASE_URL", "https://example.org/v1")
    monkeypatch.setenv("PORTKEY_PROVIDER", "@other")
    monkeypatch.setenv("NYU_LLM_BUCKET", "bucket")
    found = (gateway.api_key, gateway.base_url, gateway.provider, gateway.bucket)
    assert found == ("key", "https://example.org/v1", "@other", "bucket")
    assert repr(gateway) == "Gateway()"
    given = llm.Gateway(provider=" @mine ", bucket="mine")
    assert (given.provider, given.bucket, given.api_key) == ("@mine", "mine", "key")
    local = llm.Gateway.local(answers="echo")
    assert (local.api_key, local.base_url, local.provider, local.bucket) == (None,) * 4


def test_the_embedded_gateway_is_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = llm.Gateway.local(answers="echo", data="store")
    assert gateway == llm.Gateway.local(answers="echo", data=Path("store").absolute())
    identity = gateway.identity
    monkeypatch.chdir("/")
    assert gateway.identity == identity
    with pytest.raises(TypeError, match="slots"):
        llm.Gateway.local(slots=2)  # type: ignore[call-arg]


def test_type_checkers_know_the_arguments_that_there_are() -> None:
    known = [field.name for field in dataclasses.fields(Arguments)]
    assert known == ["template", "model", *Common.__annotations__]


def test_the_environment_names_the_gateway(
    stand_in: StandIn, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    with llm.set_options(progress=False):
        out = DF.llm.batch("{{ x }}", model=MODEL)
    assert out["response"].tolist() == [answer(x) for x in "abc"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_base_url_may_end_with_a_slash(gateway: StandIn, slash: str) -> None:
    settings = {**gateway.settings, "base_url": gateway.base_url + slash}
    out = DF.llm.batch("{{ x }}", model=MODEL, gateway=llm.Gateway(**settings))
    assert out["response"].tolist() == [answer(x) for x in "abc"]
    assert all(path.startswith("/v1/") for _, path in gateway.log)


def test_a_ready_client_is_used_as_it_is(gateway: StandIn) -> None:
    client = gateway.portkey()
    out = DF.llm.batch("{{ x }}", model=MODEL, gateway=llm.Gateway(client=client))
    assert out["response"].tolist() == [answer(x) for x in "abc"]
    assert client.openai_client.max_retries != 0  # theirs stays as it was


@pytest.mark.parametrize(
    "other",
    [
        {"base_url": "http://127.0.0.1:9/v1"},
        {"provider": "@other"},
        {"api_key": "another-key"},
        {"vertex_project_id": "mine"},
    ],
)
def test_what_a_ready_client_would_not_heed_is_refused(
    gateway: StandIn, other: dict[str, str]
) -> None:
    """Jobs remember where they were made, and by whom: elsewhere nobody would find them."""
    client = gateway.portkey()
    with pytest.raises(ConfigurationError, match=f"so {next(iter(other))}= would have no effect"):
        llm.Gateway(client=client, **other)
    same = {name: gateway.settings[name] for name in ("base_url", "provider", "api_key")}
    given = llm.Gateway(client=client, **{**same, "base_url": f"{same['base_url']}/"})
    assert given.identity == llm.Gateway(client=client).identity
    assert given.realm == llm.Gateway(client=client).realm


def test_another_provider_is_another_realm(gateway: StandIn) -> None:
    DF.llm.batch("{{ x }}", model=MODEL)
    other = llm.Gateway(**{**gateway.settings, "provider": "@other"})
    DF.llm.batch("{{ x }}", model=MODEL, gateway=other)
    assert len(gateway.jobs) == 2
    key = llm.Gateway(**{**gateway.settings, "api_key": "another", "base_url": "http://x/v1"})
    DF.llm.batch("{{ x }}", model=MODEL, gateway=key)  # neither key nor address asks again
    assert len(gateway.jobs) == 2


# --- looking into a sidecar -------------------------------------------------------------------
def test_a_sidecar_shows_jobs_answers_and_runs(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"c": rows.conflict})
    out = DF.llm.batch("{{ x }}", model=MODEL, details=True, temperature=0.5)
    sidecar = llm.open_sidecar("llm_sidecar")
    assert sidecar.path == Path("llm_sidecar").absolute()

    (job,) = sidecar.jobs().to_dict("records")
    assert job["batch_id"] == gateway.jobs[0].id
    assert job["status"] == "completed"
    assert job["step"] == "done"
    assert job["requests"] == 3
    assert job["duplicates"] == 1
    assert job["submitted_at"].tzinfo is not None

    answers = sidecar.answers()
    assert "raw" not in answers
    assert set(answers["custom_id"]) == set(out["response_custom_id"])
    assert sorted(answers["status"]) == ["ok", "ok", "ok", "refused"]
    assert len(sidecar.failures()) == 0  # the best answer of each request counts
    raw = sidecar.answers(raw=True)["raw"]
    assert all(isinstance(line, bytes) and line.startswith(b"{") for line in raw)

    (run,) = sidecar.runs().to_dict("records")
    assert run["model"] == MODEL
    assert '"temperature": 0.5' in run["params"]
    assert "{{ x }}" in run["template"]
    assert run["rows"] == 3
    assert "llm_sidecar" in repr(sidecar)


def test_a_sidecar_shows_what_has_no_good_answer(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"c": rows.blocked})
    with pytest.warns(PartialResultWarning):
        out = DF.llm.batch("{{ x }}", model=MODEL, details=True)
    sidecar = llm.open_sidecar("llm_sidecar")
    (failure,) = sidecar.failures(prompts=True).to_dict("records")
    assert failure["custom_id"] == out["response_custom_id"].iloc[2]
    assert failure["status"] == "blocked"
    assert failure["error"] == out["response_error"].iloc[2]
    assert '"content":"c"' in failure["body"]
    assert "body" not in sidecar.failures()


def test_an_empty_sidecar_shows_empty_frames(gateway: StandIn) -> None:
    DF.iloc[:0].llm.batch("{{ x }}", model=MODEL)
    sidecar = llm.open_sidecar("llm_sidecar")
    assert len(sidecar.jobs()) == len(sidecar.answers()) == len(sidecar.failures()) == 0
    assert "batch_id" in sidecar.jobs()
    assert "text" in sidecar.answers()


def test_an_exported_sidecar_answers_a_colleagues_same_call(
    gateway: StandIn, tmp_path: Path
) -> None:
    first = DF.llm.batch("{{ x }}", model=MODEL)
    copy = llm.open_sidecar("llm_sidecar").export(tmp_path / "to share")
    gateway.stop()
    out = DF.llm.batch("{{ x }}", model=MODEL, sidecar=copy, gateway=llm.Gateway())
    pd.testing.assert_frame_equal(out, first)
    with pytest.raises(SidecarError, match="already exists"):
        llm.open_sidecar("llm_sidecar").export(tmp_path / "to share")


def test_a_folder_that_is_no_sidecar_is_left_alone(gateway: StandIn, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("do not touch")
    with pytest.raises(SidecarError, match="no sidecar"):
        llm.open_sidecar(folder)
    with pytest.raises(SidecarError, match="holds other files"):
        DF.llm.batch("{{ x }}", model=MODEL, sidecar=folder)
    with pytest.raises(SidecarError, match=r"There is no sidecar .*llm_sidecar"):
        llm.open_sidecar(tmp_path / "nowhere")
    assert [p.name for p in folder.iterdir()] == ["chapter1.txt"]
    assert not (tmp_path / "nowhere").exists()


def test_a_sidecar_that_was_deleted_pays_again_and_says_that_it_is_new(gateway: StandIn) -> None:
    import shutil

    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        DF.llm.batch("{{ x }}", model=MODEL)
        shutil.rmtree("llm_sidecar")
        DF.llm.batch("{{ x }}", model=MODEL)
    assert sum(message.startswith("new sidecar: ") for message in told) == 2
    assert len(gateway.jobs) == 2


def test_a_lost_answers_file_is_read_again_and_not_paid_again(gateway: StandIn) -> None:
    first = DF.llm.batch("{{ x }}", model=MODEL)
    (file,) = Path("llm_sidecar/answers").iterdir()
    file.unlink()
    out = DF.llm.batch("{{ x }}", model=MODEL)
    pd.testing.assert_frame_equal(out, first)
    assert len(gateway.jobs) == 1


def test_a_truncated_answer_warns_by_name(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.truncated
    with pytest.warns(PartialResultWarning, match="3 truncated .*max_tokens"):
        DF.llm.batch("{{ x }}", model=MODEL)


# --- errors -----------------------------------------------------------------------------------
ERRORS = [e for e in vars(llm.errors).values() if isinstance(e, type) and issubclass(e, Exception)]
ERRORS = [e for e in ERRORS if issubclass(e, llm.errors.LLMFramesError) and "_" not in e.__name__]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_travels_with_its_context(kind: type[llm.errors.LLMFramesError]) -> None:
    names = [n for base in kind.__mro__ for n in getattr(base, "__annotations__", ())]
    given = {name: {"a": 1} if name in ("jobs", "counts", "columns") else "b" for name in names}
    error = kind("what happened", **given)
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is kind
    assert str(there) == str(error) == "what happened"
    stay = {"run", "frame"}  # they do not leave their process
    assert {n: getattr(there, n) for n in names if n not in stay} == {
        n: v for n, v in given.items() if n not in stay
    }
    assert all(getattr(there, n) is None for n in stay.intersection(names))
    assert [getattr(kind(), n) for n in names] == [getattr(kind, n) for n in names]
    with pytest.raises(TypeError, match="has no 'colour'"):
        kind("x", colour="red")
