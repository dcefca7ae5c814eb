"""Names of models: one request and one provider, however a name is written and given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.callers import MODEL
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames import Progress
from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._stages.requests.models import check_family, split_name
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import ConfigurationError

FRAME = pd.DataFrame({"q": ["one", "two", "three"]})
WRITTEN = [
    MODEL,
    f"publishers/google/models/{MODEL}",
    f"@vertexai/{MODEL}",
    f"@vertexai/publishers/google/models/{MODEL}",
]


pytestmark = pytest.mark.usefixtures("fast")


@pytest.mark.parametrize("model", WRITTEN)
def test_every_way_to_write_a_model_is_one_request(
    model: str, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTKEY_PROVIDER", "@other" if model.startswith("@") else "@vertexai")
    settings = {k: v for k, v in stand_in.settings.items() if k != "provider"}
    asked: dict[str, Any] = {"sidecar": tmp_path / "s", "gateway": llm.Gateway(**settings)}
    plain = llm.Gateway(**stand_in.settings)
    ids = FRAME.llm.preview("{{ q }}", model=MODEL, n=3, gateway=plain)["custom_id"].tolist()
    out = FRAME.llm.batch("{{ q }}", model=model, details=True, **asked)
    assert out["response_custom_id"].tolist() == ids
    assert out["response"].tolist() == [answer(q) for q in FRAME["q"]]
    assert out["response_cost"].notna().all()
    sent = [h for h, (m, _) in zip(stand_in.headers, stand_in.log, strict=True) if m == "POST"]
    assert {h["x-portkey-provider-model"] for h in sent} == {MODEL}
    assert {h["x-portkey-provider"] for h in stand_in.headers} == {"@vertexai"}
    assert stand_in.jobs[0].model == MODEL
    # Every other door finds the same answers, and pays nothing.
    for other in (m for m in WRITTEN if m != model):
        asked["gateway"] = plain
        assert FRAME.llm.estimate("{{ q }}", model=other, **asked).to_pay == 0
        assert FRAME.llm.trial("{{ q }}", model=other, **asked)["response"].notna().all()
        FRAME.to_csv(tmp_path / "in.csv", index=False)
        llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", "{{ q }}", model=other, **asked)
        assert FRAME.llm.to_jsonl(tmp_path / "r.jsonl", "{{ q }}", model=other, **asked) == []
    StoredRun(tmp_path / "s", gateway=llm.Gateway(**settings)).wait()
    assert (len(stand_in.jobs), stand_in.chats) == (1, [])


def test_a_client_without_a_provider_goes_to_the_one_in_the_name(
    stand_in: StandIn, tmp_path: Path
) -> None:
    client = stand_in.portkey(provider=None)
    asked: dict[str, Any] = {"sidecar": tmp_path, "gateway": llm.Gateway(client=client)}
    out = FRAME.llm.batch("{{ q }}", model=f"@vertexai/{MODEL}", **asked)
    assert out["response"].notna().all()


def test_two_providers_are_refused_before_anything_is_sent(
    stand_in: StandIn, tmp_path: Path
) -> None:
    model = f"@other/{MODEL}"
    gateways = [llm.Gateway(**stand_in.settings), llm.Gateway(client=stand_in.portkey())]
    for gateway in gateways:
        with pytest.raises(ConfigurationError, match=r"@other.*@vertexai"):
            FRAME.llm.batch("{{ q }}", model=model, sidecar=tmp_path / "s", gateway=gateway)
    source = tmp_path / "in.csv"
    FRAME.to_csv(source, index=False)
    words = ["--prompt", "{{ q }}", "--model", model, "--provider", "@vertexai"]
    for command in (["batch", str(source), "--out", str(tmp_path / "out.csv")], ["doctor"]):
        more = words if command[0] == "batch" else words[2:]
        assert CliRunner().invoke(cli, [*command, *more]).exit_code == 2
    assert stand_in.log == []
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("model", ["@vertexai", "@vertexai/", "@/m", "@a/@b/m", "@vertexai/ m"])
def test_a_provider_without_a_model_is_refused(model: str) -> None:
    with pytest.raises(ConfigurationError, match="@provider/name"):
        FRAME.llm.preview("{{ q }}", model=model)


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-4o", "chatgpt-4o-latest", "o3", "o4-mini", "openai/gpt-oss-120b", "GPT-5"),
        *("claude-sonnet-4-5@20250929", "anthropic.claude-3-opus", "publishers/anthropic/models/"),
        *("meta.llama-3", "meta/llama-3.3-70b-instruct-maas", "mistral-small", "mixtral-8x7b"),
        *("gemma-3-27b-it", "imagen-4.0-generate-001", "publishers/google/models/veo-3.0"),
        *("text-embedding-005", "gemini-embedding-001", "multimodalembedding"),
        "projects/p/locations/l/endpoints/123",
    ],
)
def test_other_families_are_refused_where_the_provider_is_vertex(model: str) -> None:
    model = f"{model}claude-3" if model.endswith("/") else model
    for name, gateway in ((model, llm.Gateway()), (f"@vertex-2/{model}", None)):
        with pytest.raises(ConfigurationError, match="is not a Gemini model"):
            FRAME.llm.preview("{{ q }}", model=name, gateway=gateway)
    FRAME.llm.preview("{{ q }}", model=f"@openai/{model}")


def test_a_name_as_people_say_it_is_answered_with_one_as_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match=r"has a space.*`nyu-llm-frames models` lists"):
        FRAME.llm.preview("{{ q }}", model="Gemini 3 Flash", gateway=llm.Gateway())


@pytest.mark.parametrize("model", ["gpt-4o", "@vertexai/gpt-4o", "publishers/google/models/x"])
def test_the_embedded_gateway_takes_any_name_as_it_is(model: str, tmp_path: Path) -> None:
    for gateway in (
        llm.Gateway.local(answers="echo"),
        llm.Gateway.local(upstream="http://127.0.0.1:1"),
    ):
        asked: dict[str, Any] = {"model": model, "gateway": gateway, "sidecar": tmp_path / "s"}
        (path,) = FRAME.head(1).llm.to_jsonl(tmp_path / "r.jsonl", "{{ q }}", **asked)
        assert f'"model":"{model}"' in path.read_text()


def test_an_unknown_gemini_gets_one_line_and_goes_on(stand_in: StandIn, tmp_path: Path) -> None:
    told: list[Progress] = []
    asked: dict[str, Any] = {"gateway": llm.Gateway(**stand_in.settings)}
    near = [("gemini-3-flsh-preview", "gemini-3-flash-preview"), ("gemini-99-ultra", "gemini-")]
    with llm.set_options(progress=told.append):
        for model, nearest in [*near, (MODEL, "")]:
            told.clear()
            out = FRAME.llm.batch("{{ q }}", model=model, sidecar=tmp_path / model, **asked)
            assert out["response"].notna().all()
            said = [p.message for p in told if "The nearest" in p.message]
            assert len(said) == bool(nearest)
            assert all(nearest in text for text in said)


names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).filter(
    str.strip
)


@given(names, names)
def test_a_name_splits_into_what_it_was_made_of(provider: str, name: str) -> None:
    name, provider = name.strip().lstrip("@"), f"@{provider.replace('/', '')}"
    if not name or provider == "@" or name.startswith(("publishers/google/models/", " ")):
        return
    assert split_name(f"{provider}/{name}") == (provider, name)
    assert split_name(name) == ("", name)
    if "gemini-" in name and "embedding" not in name:
        check_family("gemini-" + name.rpartition("gemini-")[2], "@openai")


@given(st.integers(0, 99), st.sampled_from(["flash", "pro", "ultra", "nano", "omni", "o3"]))
def test_a_new_gemini_is_never_locked_out(version: int, kind: str) -> None:
    for name in (f"gemini-{version}-{kind}", f"gemini-{version}.5-{kind}-preview-04-17"):
        check_family(name, "@vertexai")
