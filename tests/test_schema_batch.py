"""`schema=` from the call to typed columns, over HTTP."""

from __future__ import annotations

import dataclasses
import inspect
import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.errors import ColumnExistsError, PartialResultWarning, SchemaError

FIELDS = {"drug": str | None, "weapon": bool, "months": int | None, "kind": ["violent", "drug"]}


def settings() -> llm.set_options:
    return llm.set_options(
        poll_interval_s=0.01, submit_settle_s=0.1, output_settle_s=0.1, progress=False
    )


def batch(stand_in: StandIn, frame: pd.DataFrame, **more: Any) -> pd.DataFrame:
    arguments: dict[str, Any] = {"template": "{{ text }}", "model": "gemini-3-flash-preview"}
    arguments |= {"schema": FIELDS, "gateway": llm.Gateway(**stand_in.settings), "retries": 0}
    with settings():
        return frame.llm.batch(**(arguments | more))


ANSWERS = {
    "good": '{"drug": "heroin", "weapon": true, "months": 12, "kind": "drug"}',
    "null": '{"drug": null, "weapon": false, "months": null, "kind": "violent"}',
    "fenced": '```json\n{"drug": "x", "weapon": true, "months": 1, "kind": "drug"}\n```',
    "wrong": '{"drug": "x", "weapon": "perhaps", "months": 1, "kind": "drug"}',
    "prose": "I would rather not say.",
}


def test_fields_become_typed_columns_and_what_does_not_fit_says_why(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.pick({k: rows.says(v) for k, v in ANSWERS.items()})
    stand_in.behaviour.shuffle = True
    frame = pd.DataFrame({"text": [*ANSWERS, "good"]}, index=list("aabcde"))
    with pytest.warns(PartialResultWarning, match="2 invalid") as caught:
        out = batch(stand_in, frame, details=True)
    assert len(caught) == 1
    assert list(out.columns[1:6]) == ["drug", "weapon", "months", "kind", "response_error"]
    dtypes = [str(out[c].dtype) for c in ("drug", "weapon", "months", "kind")]
    assert dtypes == ["string", "boolean", "Int64", "category"]
    assert list(out["kind"].cat.categories) == ["violent", "drug"]
    assert not out["kind"].cat.ordered
    assert out["months"].fillna(-1).tolist() == [12, -1, 1, -1, -1, 12]
    assert out["drug"].fillna("-").tolist() == ["heroin", "-", "x", "-", "-", "heroin"]
    status = out["response_status"].tolist()
    assert status == ["ok", "ok", "ok", "invalid", "invalid", "ok"]
    assert out["response_error"].isna().tolist() == [True, True, True, False, False, True]
    assert "weapon" in out["response_error"].iloc[3]
    assert out["response"].iloc[4] == ANSWERS["prose"]
    assert list(out.index) == list("aabcde")


def test_without_details_the_raw_text_is_left_out(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.says(ANSWERS["good"])
    out = batch(stand_in, pd.DataFrame({"text": ["a"]}), prefix="x_")
    assert list(out) == ["text", "x_drug", "x_weapon", "x_months", "x_kind", "response_error"]


@dataclasses.dataclass
class Described:
    drug: str
    """As it is written"""


def test_a_note_says_at_each_door_that_text_below_fields_is_not_sent(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.behaviour.row = rows.says('{"drug": "x"}')
    notes: dict[str, list[str]] = {"frame": [], "file": []}
    gateway = llm.Gateway(**stand_in.settings)
    arguments: Any = {"model": "gemini-3-flash-preview", "schema": Described, "gateway": gateway}
    frame = pd.DataFrame({"text": ["a"]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    with settings(), llm.set_options(progress=lambda p: notes["frame"].append(p.message)):
        frame.llm.batch("{{ text }}", sidecar=tmp_path / "s", **arguments)
    with settings(), llm.set_options(progress=lambda p: notes["file"].append(p.message)):
        llm.batch_file(
            tmp_path / "in.csv", tmp_path / "out.csv", "{{ text }}", sidecar=tmp_path / "s",
            **arguments,
        )  # fmt: skip
    for lines in notes.values():
        assert sum("below the fields of Described" in line for line in lines) == 1
    assert len(stand_in.jobs) == 1


def test_an_answer_cut_short_is_truncated_and_leaves_its_fields_empty(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.truncated
    with pytest.warns(PartialResultWarning, match="1 truncated"):
        out = batch(stand_in, pd.DataFrame({"text": ["a"]}), details=True)
    assert out["response_status"].tolist() == ["truncated"]
    assert out[["drug", "weapon", "months", "kind"]].isna().all(axis=None)


def test_a_blank_answer_is_empty_and_not_invalid(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.says(" ")
    with pytest.warns(PartialResultWarning, match="1 empty"):
        out = batch(stand_in, pd.DataFrame({"text": ["a"]}), details=True)
    assert (out["response_status"].tolist(), out["response"].tolist()) == (["empty"], [" "])
    assert out[["drug", "weapon", "months", "kind"]].isna().all(axis=None)


def test_a_schema_is_part_of_the_request_and_enforced_here(
    stand_in: StandIn,
) -> None:
    stand_in.behaviour.row = rows.says('{"age": 150}')
    frame = pd.DataFrame({"text": ["a"]})
    plain = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    strict = json.loads(json.dumps(plain))
    strict["properties"]["age"]["multipleOf"] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch(stand_in, frame, schema=plain)
        assert len(stand_in.jobs) == 1
        batch(stand_in, frame, schema=plain)
        assert len(stand_in.jobs) == 1
    with pytest.warns(PartialResultWarning, match="invalid"):
        batch(stand_in, frame, schema=strict)
    _, body = stand_in.jobs[0].requests[0]
    assert body["response_format"]["type"] == "json_schema"
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["age"]


def test_an_empty_frame_gives_typed_columns_and_sends_nothing(stand_in: StandIn) -> None:
    out = batch(stand_in, pd.DataFrame({"text": pd.Series([], dtype=str)}))
    assert [str(out[c].dtype) for c in ("weapon", "months", "kind")] == [
        "boolean",
        "Int64",
        "category",
    ]
    assert not stand_in.log


def test_skipped_rows_have_empty_fields(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.says(ANSWERS["good"])
    frame = pd.DataFrame({"text": ["a", None, "b"]})
    out = batch(stand_in, frame, missing="skip")
    assert out["months"].isna().tolist() == [False, True, False]
    assert out["kind"].isna().tolist() == [False, True, False]


def test_bad_schema_and_taken_column_names_are_refused_before_anything_is_sent(
    stand_in: StandIn,
) -> None:
    frame = pd.DataFrame({"text": ["a"], "drug": ["b"]})
    with pytest.raises(ColumnExistsError, match="drug"):
        batch(stand_in, frame)
    with pytest.raises(SchemaError):
        batch(stand_in, frame, schema={"x": dict})
    assert not stand_in.log


def test_lists_and_objects_open_with_explode_and_struct(stand_in: StandIn) -> None:
    stand_in.behaviour.row = rows.says('{"people": [{"name": "Ann"}, {"name": "Bo"}]}')
    out = batch(stand_in, pd.DataFrame({"text": ["a"]}), schema={"people": [{"name": str}]})
    assert out["people"].explode().struct.field("name").tolist() == ["Ann", "Bo"]


def test_threads_read_the_sources_of_their_classes_one_at_a_time(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading: list[object] = []

    def getsource(cls: object) -> str:
        reading.append(cls)
        time.sleep(0.01)  # lets another thread in
        assert reading == [cls]
        reading.pop()
        raise OSError

    monkeypatch.setattr(inspect, "getsource", getsource)
    classes = [dataclasses.make_dataclass(f"X{i}", [("a", int)]) for i in range(8)]

    def estimate(schema: type) -> int:
        frame, gateway = pd.DataFrame({"q": ["a"]}), llm.Gateway(**stand_in.settings)
        found = frame.llm.estimate(
            "{{ q }}", model="gemini-3-flash-preview", schema=schema, gateway=gateway
        )
        return int(found.requests)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(estimate, classes)) == [1] * 8
