"""Exchange with the steps by hand and with other runners.

Comes in: request files written, output files as the gateway, vLLM and a shell give them. Goes out:
answers in the sidecar, joined frames, tidy tables.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._jobs import planner
from nyu_llm_frames.errors import ConfigurationError, PartialResultWarning, RunTimeoutError

MODEL = "gemini-3-flash-preview"
TEMPLATE = "Where is {{ city }}?"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with llm.set_options(
        progress=False,
        poll_interval_s=0.02,
        max_poll_interval_s=0.1,
        submit_settle_s=0.2,
        output_settle_s=0.2,
    ):
        yield


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"city": ["Abu Dhabi", "Shanghai", "Shanghai"]}, index=["a", "b", "c"])


def _vllm_line(custom_id: str, text: str) -> str:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "HuggingFaceTB/SmolLM2",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3},
    }
    response = {"status_code": 200, "request_id": "vllm-batch-1", "body": body}
    return json.dumps({"id": "vllm-1", "custom_id": custom_id, "response": response, "error": None})


@pytest.mark.parametrize(("at_once", "groups"), [(1 << 24, 1), (1, 2)])
def test_request_files_are_what_batch_uploads(
    tmp_path: Path,
    frame: pd.DataFrame,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    groups: int,
) -> None:
    # Long documents are written a few at a time: nothing of it shows in what is sent.
    monkeypatch.setattr(planner, "BYTES_AT_ONCE", at_once)
    gateway = llm.Gateway(**stand_in.settings)
    [path] = frame.llm.to_jsonl(
        tmp_path / "requests.jsonl", TEMPLATE, model=MODEL, gateway=gateway, max_tokens=9
    )
    assert not stand_in.log
    assert not (tmp_path / "llm_sidecar").exists()
    frame.llm.batch(TEMPLATE, model=MODEL, gateway=gateway, max_tokens=9)
    assert [path.read_bytes()] == list(stand_in.uploads.values())
    [kept] = Path("llm_sidecar/requests").glob("*.parquet")
    assert pq.ParquetFile(kept).num_row_groups == groups


def test_a_job_knows_the_size_of_its_own_file(frame: pd.DataFrame, stand_in: StandIn) -> None:
    longer = frame.assign(city=["Bonn", "Shanghai " * 9, "Bonn"])
    with llm.set_options(max_requests_per_file=1):
        longer.llm.batch("{{ city }}", model=MODEL, gateway=llm.Gateway(**stand_in.settings))
    records = sorted(Path("llm_sidecar/jobs").glob("*.parquet"))
    told = [pq.read_table(path)["file_bytes"][0].as_py() for path in records]
    assert sorted(told) == sorted(map(len, stand_in.uploads.values()))  # they go side by side
    assert told[0] < told[1]


def test_request_files_keep_the_limits_of_one_file(tmp_path: Path, frame: pd.DataFrame) -> None:
    with llm.set_options(max_requests_per_file=1):
        paths = frame.llm.to_jsonl(tmp_path / "requests.jsonl", TEMPLATE, model=MODEL)
    assert [p.name for p in paths] == ["requests-1.jsonl", "requests-2.jsonl"]
    ids = [json.loads(p.read_text())["custom_id"] for p in paths]
    assert len(set(ids)) == 2


def test_what_is_answered_is_not_written_again(
    tmp_path: Path, frame: pd.DataFrame, stand_in: StandIn
) -> None:
    gateway = llm.Gateway(**stand_in.settings)
    frame.head(1).llm.batch(TEMPLATE, model=MODEL, gateway=gateway)
    [path] = frame.llm.to_jsonl(tmp_path / "rest.jsonl", TEMPLATE, model=MODEL, gateway=gateway)
    assert "Shanghai" in path.read_text()
    assert len(path.read_text().splitlines()) == 1
    frame.llm.batch(TEMPLATE, model=MODEL, gateway=gateway)
    assert frame.llm.to_jsonl(tmp_path / "none.jsonl", TEMPLATE, model=MODEL, gateway=gateway) == []
    assert not (tmp_path / "none.jsonl").exists()


def test_output_of_vllm_comes_back_to_its_rows_and_batch_pays_nothing(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    requests = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        _vllm_line(r["custom_id"], f"to {r['body']['messages'][0]['content']}")
        for r in reversed(requests)
    ]
    (tmp_path / "out.jsonl").write_text("\n".join(lines) + "\n")
    out = frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)
    assert out.index.tolist() == ["a", "b", "c"]
    assert out["response"].tolist() == [f"to Where is {c}?" for c in frame["city"]]
    later = frame.llm.batch(TEMPLATE, model=MODEL, details=True)  # without a key
    assert later["response"].tolist() == out["response"].tolist()
    assert set(later["response_model"]) == {"HuggingFaceTB/SmolLM2"}


def test_output_in_two_files_and_twice_is_stored_once(tmp_path: Path, frame: pd.DataFrame) -> None:
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    ids = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    files = []
    for number, custom_id in enumerate(ids):
        files.append(tmp_path / f"out{number}.jsonl")
        files[-1].write_text(_vllm_line(custom_id, f"answer {number}"))
    first = frame.llm.from_jsonl(files[0], TEMPLATE, model=MODEL)
    assert first["response"].isna().tolist() == [False, True, True]
    assert first["response_error"].isna().all()  # nothing failed: it is not there yet
    for _ in range(2):
        both = frame.llm.from_jsonl(files, TEMPLATE, model=MODEL)
        assert both["response"].tolist() == ["answer 0", "answer 1", "answer 1"]
    assert len(llm.open_sidecar("llm_sidecar").answers()) == 2


def test_damaged_characters_are_flagged(tmp_path: Path, frame: pd.DataFrame) -> None:
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    ids = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    (tmp_path / "out.jsonl").write_text(
        "\n".join(_vllm_line(i, "caf\ufffd") for i in ids), encoding="utf-8"
    )
    with pytest.warns(PartialResultWarning, match="3 damaged"):
        frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)


def test_damage_is_judged_as_batch_judges_it(tmp_path: Path, stand_in: StandIn) -> None:
    """A prompt with half a surrogate pair comes back with U+FFFD: that is no damage."""
    frame = pd.DataFrame({"city": ["half \ud800 pair"]}, dtype=object)
    stand_in.behaviour.row = rows.says("you wrote \ufffd")
    gateway = llm.Gateway(**stand_in.settings)
    call = {"template": TEMPLATE, "model": MODEL, "gateway": gateway}
    batch = frame.llm.batch(**call, sidecar=tmp_path / "a")
    (tmp_path / "out.jsonl").write_bytes(b"\n".join(stand_in.jobs[0].output()))
    taken = frame.llm.from_jsonl(tmp_path / "out.jsonl", **call, sidecar=tmp_path / "b")
    assert batch["response"].tolist() == ["you wrote \ufffd"]
    assert batch["response_error"].isna().all()
    pd.testing.assert_frame_equal(taken, batch)


def test_a_stored_file_is_read_as_an_output_is(tmp_path: Path, stand_in: StandIn) -> None:
    """The provider's own rows, by the same two calls."""
    frame = pd.DataFrame({"city": ["Paris", "Lyon", "Nice", "Metz"]})
    bad = {"Lyon": rows.truncated, "Nice": rows.failed(429), "Metz": rows.blocked}
    stand_in.behaviour.row = rows.pick({f"Where is {c}?": row for c, row in bad.items()})
    gateway = llm.Gateway(**stand_in.settings)
    call = {"template": TEMPLATE, "model": MODEL, "gateway": gateway, "details": True}
    with pytest.warns(PartialResultWarning):
        batch = frame.llm.batch(**call, sidecar=tmp_path / "a", retries=0)
    [job] = stand_in.jobs
    (tmp_path / "stored.jsonl").write_bytes(job.raw)
    (tmp_path / "out.jsonl").write_bytes(b"\n".join(job.output()))
    with pytest.warns(PartialResultWarning):
        taken = frame.llm.from_jsonl(tmp_path / "stored.jsonl", **call, sidecar=tmp_path / "b")
    pd.testing.assert_frame_equal(
        taken.drop(columns="response_error"), batch.drop(columns="response_error")
    )
    stored = llm.read_output(tmp_path / "stored.jsonl")
    given = llm.read_output(tmp_path / "out.jsonl")
    pd.testing.assert_frame_equal(stored.drop(columns="error"), given.drop(columns="error"))
    kept = llm.open_sidecar(tmp_path / "b").answers(raw=True)["raw"]
    assert not any(b'"request"' in raw for raw in kept)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"<html>sign in</html>", b"[1, 2]", b"\x1f\x8b\x08", b'{"a": 1}']
)
def test_a_file_without_a_single_answer_is_refused(
    tmp_path: Path, frame: pd.DataFrame, content: bytes
) -> None:
    (tmp_path / "out.jsonl").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"no line can be read|is a web page|with gzip"):
        frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path, frame: pd.DataFrame) -> None:
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    ids = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    whole = [_vllm_line(i, "text") for i in ids]
    (tmp_path / "out.jsonl").write_text("\n".join([*whole, whole[0][:-9]]))
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)
    assert sum("1 line without an answer to anything" in line for line in told) == 1


def test_no_request_file_of_an_earlier_call_stays(tmp_path: Path, frame: pd.DataFrame) -> None:
    with llm.set_options(max_requests_per_file=1):
        assert len(frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)) == 2
    (tmp_path / "in-notes.jsonl").write_text("mine")
    (tmp_path / "in-2024.jsonl").write_text("mine, too")
    (tmp_path / "in-7.jsonl").mkdir()
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    theirs = ["in-2024.jsonl", "in-7.jsonl", "in-notes.jsonl"]
    assert sorted(p.name for p in tmp_path.glob("in*")) == [*theirs, "in.jsonl"]
    ids = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    (tmp_path / "out.jsonl").write_text("\n".join(_vllm_line(i, "text") for i in ids))
    frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)
    assert frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL) == []
    assert not path.exists()
    path.write_text("mine again")
    assert frame.llm.to_jsonl(path, TEMPLATE, model=MODEL) == []
    assert path.read_text() == "mine again"


def test_parts_of_an_earlier_template_do_not_stay_beside_the_new_file(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    with llm.set_options(max_requests_per_file=1):
        assert len(frame.llm.to_jsonl(tmp_path / "in.jsonl", f"Old {TEMPLATE}", model=MODEL)) == 2
    frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    assert [p.name for p in tmp_path.glob("in*")] == ["in.jsonl"]


def test_a_part_that_holds_a_request_of_the_call_does_not_stay_whatever_its_number(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    with llm.set_options(max_requests_per_file=1):
        first, _ = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    first.unlink()
    frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    assert [p.name for p in tmp_path.glob("in*")] == ["in.jsonl"]


def test_request_files_of_another_call_stay_where_they_are(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    for year in (2024, 2025):
        path = tmp_path / f"in-{year}.jsonl"
        frame.llm.to_jsonl(path, f"Of {year}: {TEMPLATE}", model=MODEL)
    frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    names = sorted(p.name for p in tmp_path.glob("in*"))
    assert names == ["in-2024.jsonl", "in-2025.jsonl", "in.jsonl"]


def test_a_call_that_made_nothing_keeps_no_row_from_the_request_file(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    nobody = llm.Gateway(api_key="k", bucket="b", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(RunTimeoutError, match="nothing was submitted"):
        frame.llm.batch(TEMPLATE, model=MODEL, gateway=nobody, timeout=0)
    [path] = frame.llm.to_jsonl(tmp_path / "in.jsonl", TEMPLATE, model=MODEL)
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(ConfigurationError, match="is a folder"):
        frame.llm.to_jsonl(tmp_path, TEMPLATE, model=MODEL)


def test_output_of_another_call_is_refused(tmp_path: Path, frame: pd.DataFrame) -> None:
    (tmp_path / "out.jsonl").write_text(_vllm_line("request-1", "text"))
    with pytest.raises(ConfigurationError, match=r"request-1.*read_output"):
        frame.llm.from_jsonl(tmp_path / "out.jsonl", TEMPLATE, model=MODEL)


def test_any_output_is_a_tidy_frame(tmp_path: Path) -> None:
    failed = {"custom_id": "request-2", "response": {"body": False}, "error": "Bad Request: no"}
    lines = [
        _vllm_line("request-1", "New York\u2028City"),
        json.dumps(failed),
        "not json",
        _vllm_line("request-1", "again"),
    ]
    path = tmp_path / "output.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    out = llm.read_output(path)
    assert out["custom_id"].tolist()[:2] == ["request-1", "request-2"]
    assert out["custom_id"].isna().tolist() == [False, False, True, False]
    assert out["status"].tolist() == ["ok", "refused", "failed", "ok"]
    assert out["text"][0] == "New York\u2028City"
    assert out["error"][2] == "not JSON"
    assert out["prompt_tokens"].dtype == "Int64"
    assert out["prompt_tokens"][0] == 9


def test_output_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl"):
        llm.read_output(tmp_path / "nothing.jsonl")


def test_an_output_that_was_packed_is_no_output_of_broken_lines(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    packed = tmp_path / "out.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"custom_id": "r-1"}\n' * 9))
    with pytest.raises(ConfigurationError, match=r"out\.jsonl\.gz is compressed with gzip"):
        llm.read_output(packed)
    with pytest.raises(ConfigurationError, match=r"out\.jsonl\.gz is compressed with gzip"):
        frame.llm.from_jsonl(packed, TEMPLATE, model=MODEL)
