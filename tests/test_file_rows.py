"""What would put a file's answers on other rows, or lose some."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import rows
from support.stand_in import StandIn
from support.table_files import MODEL, TEXT, csv_file

import nyu_llm_frames as llm
from nyu_llm_frames._shared.clock import SystemClock
from nyu_llm_frames._sidecar.folder import Sidecar
from nyu_llm_frames._sidecar.storage import draft_path
from nyu_llm_frames._tables.join import NewColumns
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.errors import (
    BatchJobFailedError,
    BudgetError,
    ConfigurationError,
    PartialResultWarning,
    SchemaError,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def gateway(stand_in: StandIn) -> llm.Gateway:
    return llm.Gateway(**stand_in.settings)


# --- what would put answers on other rows, or lose some ---------------------------------------
EDITS: dict[str, Any] = {
    "sorted": lambda frame: frame.iloc[::-1],
    "a row less": lambda frame: frame.iloc[1:],
    "a row more": lambda frame: pd.concat([frame, frame.iloc[:1].assign(text="new")]),
    "a cell": lambda frame: frame.assign(text=["other", *frame["text"][1:]]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_input_that_changes_meanwhile_is_not_joined(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, edit: str, suffix: str
) -> None:
    def save(frame: pd.DataFrame) -> None:
        path = tmp_path / f"in{suffix}"
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)

    frame = pd.DataFrame({"id": range(3), "text": ["weed", "heroin", "meth"]})
    save(frame)
    call: dict[str, Any] = {"template": "{{ text }}", "model": MODEL, "gateway": gateway}
    stand_in.on_handled = lambda n, method, path: save(EDITS[edit](frame)) if n == 2 else None
    with pytest.raises(ConfigurationError, match=r"was changed since it was read.*same call"):
        llm.batch_file(tmp_path / f"in{suffix}", tmp_path / "out.parquet", **call)
    assert not (tmp_path / "out.parquet").exists()
    stand_in.on_handled = None
    llm.batch_file(tmp_path / f"in{suffix}", tmp_path / "out.parquet", **call)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["text"].tolist() == EDITS[edit](frame)["text"].tolist()
    assert out["response"].tolist() == [rows.answer(text) for text in out["text"]]
    assert sum(len(job.requests) for job in stand_in.jobs) == 3 + (edit in ("a row more", "a cell"))


def test_an_input_that_changes_while_the_output_is_written_is_not_joined(
    tmp_path: Path, gateway: llm.Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path / "in.csv")
    take = NewColumns.take

    def edit_and_take(self: NewColumns, count: int) -> pa.Table:
        path.write_text(TEXT + "010,2022,late,x\n")
        return take(self, count)

    monkeypatch.setattr(NewColumns, "take", edit_and_take)
    with pytest.raises(ConfigurationError, match="was changed since it was read"):
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.llm"]


def test_a_file_s_limit_holds_for_another_attempt_and_for_what_is_sent_along(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    path, out = csv_file(tmp_path / "in.csv"), tmp_path / "out.csv"
    call: dict[str, Any] = {"model": MODEL, "gateway": gateway, "sidecar": tmp_path / "s"}
    stand_in.behaviour.terminal = "expired"
    llm.batch_file(path, out, "{{ text }}", wait=False, **call)
    with pytest.raises(BudgetError, match="Nothing more was sent"):
        llm.batch_file(path, out, "{{ text }}", max_cost=0, **call)
    assert len(stand_in.jobs) == 1
    # More rows, planned by a process that nobody can know to be dead.
    stand_in.script.add("upload", status=503, times=-1)
    texts = [*pd.read_csv(path)["text"], *(f"more {i}" for i in range(40))]
    call = {**call, "sidecar": tmp_path / "t"}
    with llm.set_options(poll_interval_s=0.01):
        pd.DataFrame({"text": texts}).llm.submit("{{ text }}", **call)
    stand_in.script.clear()
    sidecar = Sidecar(tmp_path / "t", SystemClock())
    (job,) = sidecar.jobs().values()
    sidecar.save_job(msgspec.structs.replace(job, owner="node17/boot/7/1"))
    with pytest.raises(BudgetError, match=f"counts {len(set(texts))} requests"):
        llm.batch_file(path, out, "{{ text }}", max_cost=0, **call)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_choices_of_several_types_are_texts_in_a_file(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str
) -> None:
    said = iter(['{"a": true}', '{"a": "red"}', '{"a": 2.5}'] * 2)
    stand_in.behaviour.row = lambda custom_id, body: [rows.with_text(custom_id, body, next(said))]
    path = csv_file(tmp_path / "in.csv", "text\nweed\nheroin\nmeth\n")
    call: dict[str, Any] = {"model": MODEL, "schema": {"a": [True, "red", 2.5]}, "gateway": gateway}
    llm.batch_file(path, tmp_path / f"out{suffix}", "{{ text }}", **call)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    assert sorted(map(str, read(tmp_path / f"out{suffix}")["a"])) == ["2.5", "red", "true"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    "beyond",
    ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "\\u0039999-12-31T23:00-05:00"],
)
def test_a_time_beyond_all_years_is_one_row_s_trouble(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, suffix: str, beyond: str
) -> None:
    says = {"weed": "2020-01-01T05:00:00+05:00", "heroin": beyond}
    stand_in.behaviour.row = lambda custom_id, body: [
        rows.with_text(custom_id, body, f'{{"end": "{says[rows.last_user_text(body)]}"}}')
    ]
    path = csv_file(tmp_path / "in.csv", "text\nweed\nheroin\n")
    call: dict[str, Any] = {"model": MODEL, "schema": {"end": datetime}, "gateway": gateway}
    with pytest.warns(PartialResultWarning, match="1 invalid"):
        llm.batch_file(path, tmp_path / f"out{suffix}", "{{ text }}", **call)
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    out = read(tmp_path / f"out{suffix}")
    assert pd.to_datetime(out["end"]).tolist() == [pd.Timestamp(2020, 1, 1), pd.NaT]
    assert "cannot be stored as datetime" in out["response_error"][1]


def test_what_lies_beside_the_parts_of_a_folder_may_change(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pd.DataFrame({"text": ["weed", "heroin"]}).to_parquet(folder / "0.parquet")
    (folder / "_SUCCESS").touch()

    def write(n: int, method: str, path: str) -> None:
        (folder / "_SUCCESS").write_text(str(n))
        (folder / ".part.crc").write_text(str(n))

    stand_in.on_handled = write
    llm.batch_file(folder, tmp_path / "out.csv", "{{ text }}", model=MODEL, gateway=gateway)
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["response"].tolist() == [rows.answer(text) for text in out["text"]]


def test_the_run_of_an_error_keeps_to_the_limit_of_its_call(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn
) -> None:
    stand_in.behaviour.terminal = "failed"
    path = csv_file(tmp_path / "in.csv")
    call: dict[str, Any] = {"model": MODEL, "gateway": gateway, "retries": 0}
    with llm.set_options(max_cost=1e-9), pytest.raises(BatchJobFailedError) as caught:
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", max_cost=9, **call)
    run: Any = caught.value.run
    stand_in.behaviour.terminal = "completed"
    assert run.retry() == 3
    run.wait()
    assert len(stand_in.jobs) == 2


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(("before", "behind"), [(0, 1), (300, 500), (255, 0)])
def test_a_quote_that_is_never_closed_is_named(
    tmp_path: Path, suffix: str, before: int, behind: int
) -> None:
    delimiter = "," if suffix == ".csv" else "\t"
    good = f"1{delimiter}text"
    lines = [f"id{delimiter}text", *[good] * before, f'2{delimiter}"open', *[good] * behind, ""]
    path = csv_file(tmp_path / f"in{suffix}", "\n".join(lines))
    with pytest.raises(ConfigurationError, match=f"line {before + 2:,} and never closed"):
        llm.batch_file(path, tmp_path / "out.csv", "{{ text }}", model=MODEL)
    assert not (tmp_path / "out.llm").exists()


DIFFERENT = {
    "integers and text": ([7], ["007"]),
    "yes/no and integers": ([True], [5]),
    "days and times": ([date(2020, 1, 2)], [datetime(2020, 1, 2, 3, 4)]),
    "structs": ([{"a": 1}], [{"a": 1, "b": 2}]),
    "signed and unsigned": (np.int64([1]), np.uint64([2**64 - 1])),
}


@pytest.mark.parametrize("kinds", DIFFERENT)
def test_a_folder_of_other_types_is_refused_with_the_files(tmp_path: Path, kinds: str) -> None:
    (tmp_path / "in").mkdir()
    for number, values in enumerate(DIFFERENT[kinds]):
        pq.write_table(pa.table({"x": values, "id": [number]}), tmp_path / f"in/{number}.parquet")
    with pytest.raises(ConfigurationError, match=r"column 'x' is .*0\.parquet and .*1\.parquet"):
        llm.batch_file(tmp_path / "in", tmp_path / "out.parquet", "{{ id }}", model=MODEL)


def test_a_folder_of_types_that_hold_each_other_keeps_all(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    (tmp_path / "in").mkdir()
    parts = [
        pa.table({"x": pa.nulls(1), "n": pa.array([1], pa.int8()), "t": ["a"]}),
        pa.table({"x": ["text"], "n": [2**40], "t": pa.array(["b"]).dictionary_encode()}),
        pa.table({"x": ["more"], "n": [3], "t": pa.array(["c"], pa.large_string()), "late": [9]}),
    ]
    for number, table in enumerate(parts):
        pq.write_table(table, tmp_path / f"in/{number}.parquet")
    llm.batch_file(
        tmp_path / "in", tmp_path / "out.parquet", "{{ n }} {{ t }}", model=MODEL, gateway=gateway
    )
    out = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert out["x"] == [None, "text", "more"]
    assert out["n"] == [1, 2**40, 3]
    assert out["t"] == ["a", "b", "c"]
    assert out["late"] == [None, None, 9]
    assert out["response"] == [
        rows.answer(f"{n} {t}") for n, t in zip(out["n"], "abc", strict=True)
    ]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.array([1, 2]), pa.array([0.5, None]), [1.0, 2.0, 0.5, None]),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), [0.5, 0.1]),
        (pa.array([[]], pa.list_(pa.null())), pa.array([["x"]]), [[], ["x"]]),
        (pa.array([None], pa.timestamp("ms")), pa.array([5], pa.timestamp("ns")), [None, 5]),
        (pa.array([{"a": None}]), pa.array([{"a": 1}]), [{"a": None}, {"a": 1}]),
    ],
)
def test_what_pandas_makes_of_one_column_is_one_column(
    tmp_path: Path, one: pa.Array, other: pa.Array, both: list[object]
) -> None:
    (tmp_path / "in").mkdir()
    for number, column in enumerate((one, other)):
        pq.write_table(pa.table({"x": column}), tmp_path / f"in/{number}.parquet")
    source = open_source(tmp_path / "in")
    found = pa.concat_tables(source.tables())["x"]
    if pa.types.is_timestamp(found.type):
        found = found.cast(pa.int64())
    assert found.to_pylist() == both


def test_whole_numbers_that_no_fraction_can_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, values in enumerate(([0.5], [2**53 + 1])):
        pq.write_table(pa.table({"x": values}), tmp_path / f"in/{number}.parquet")
    with pytest.raises(ConfigurationError, match=r"1\.parquet has values that do not fit"):
        list(open_source(tmp_path / "in").tables())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty: it has no header line"),
        ("\n\n", "is empty: it has no header line"),
        ('"id,text\n1,a\n', "line 1 and never closed"),
        ("id,text\n1,a\n2,b,c\n3,d\n", "line 3: a record has 3 fields"),
    ],
)
def test_a_csv_that_is_none_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(
            csv_file(tmp_path / "in.csv", text), tmp_path / "o.csv", "{{ id }}", model=MODEL
        )


def test_nothing_of_ours_lies_in_the_input_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "in/1.parquet")
    call: dict[str, Any] = {"template": "{{ x }}", "model": MODEL}
    with pytest.raises(ConfigurationError, match="is in the input folder"):
        llm.batch_file(tmp_path / "in", tmp_path / "in/out.parquet", **call)
    with pytest.raises(ConfigurationError, match="is in the input folder"):
        llm.batch_file(tmp_path / "in", tmp_path / "o.parquet", sidecar=tmp_path / "in/s", **call)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"x"]),
        pa.array([b"x"], pa.binary(1)),
        pa.array([[b"x"]]),
        pa.array([[date(2020, 1, 2)]]),
        pa.array([[("k", datetime(2020, 1, 2))]], pa.map_(pa.string(), pa.timestamp("s"))),
        pa.array([{"a": [{"b": Decimal("1.10")}]}]),
        pa.array([{"a": time(1, 2)}]),
        pa.array([[timedelta(1)]]),
    ],
    ids=str,
)
def test_an_output_that_cannot_hold_a_column_is_refused_before_anything_is_sent(
    tmp_path: Path, gateway: llm.Gateway, stand_in: StandIn, column: pa.Array
) -> None:
    try:
        pq.write_table(pa.table({"id": [1], "odd": column}), tmp_path / "in.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this pyarrow writes no {column.type}")
    call: dict[str, Any] = {"template": "{{ id }}", "model": MODEL, "gateway": gateway}
    with pytest.raises(ConfigurationError, match="cannot hold the column 'odd'"):
        llm.batch_file(tmp_path / "in.parquet", tmp_path / "out.csv", **call)
    assert stand_in.log == []
    llm.batch_file(tmp_path / "in.parquet", tmp_path / "out.parquet", **call)
    assert pq.read_table(tmp_path / "out.parquet")["odd"].to_pylist() == column.to_pylist()


def test_odd_values_of_json_lines_come_through(tmp_path: Path, gateway: llm.Gateway) -> None:
    lines = [{"id": i, "n": 0.5, "e": {}, "l": [{}]} for i in range(10_001)]
    lines[3]["n"] = 2**53 + 1
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    llm.batch_file(path, tmp_path / "out.parquet", "{{ id % 3 }}", model=MODEL, gateway=gateway)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["n"][3].as_py() == str(2**53 + 1)
    assert out["e"][0].as_py() == "{}"
    assert out["l"][0].as_py() == "[{}]"


@pytest.mark.parametrize("choices", [[2**70, 1], [2**63, "a", 1], [-(2**63) - 1, 1]])
def test_choices_that_no_column_of_integers_holds_are_refused(choices: list[Any]) -> None:
    with pytest.raises(SchemaError, match=r"beyond 64 bits.*as text"):
        pd.DataFrame({"text": ["a"]}).llm.preview("{{ text }}", schema={"kind": choices})


def test_periods_print_as_in_a_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame({"when": pd.period_range("2020-01", periods=2, freq="M")})
    frame.to_parquet(tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet")
    [piece] = source.pieces(["when"])
    assert [str(v) for v in piece.values["when"]] == ["2020-01", "2020-02"]


def test_what_a_killed_process_left_beside_the_output_goes(
    tmp_path: Path, gateway: llm.Gateway
) -> None:
    left = draft_path(tmp_path / "out.csv")
    _, pid, mark = left.name.rpartition(".")[2].split("-")
    dead = left.with_name(left.name.replace(f"-{pid}-", f"-{2**22 - 3}-"))
    living = left.with_name(left.name.replace(mark, "12345678"))
    for path in (dead, living):
        path.write_text("half")
    llm.batch_file(
        csv_file(tmp_path / "in.csv"),
        tmp_path / "out.csv",
        "{{ text }}",
        model=MODEL,
        gateway=gateway,
    )
    assert not dead.exists()
    assert living.exists()
