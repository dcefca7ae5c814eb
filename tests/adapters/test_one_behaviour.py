"""What a table is asked, answered and told is the same at every door."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adapters.doors import DOORS, MODEL, Door, door_of, values_of
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames.errors import (
    BudgetError,
    ColumnExistsError,
    ConfigurationError,
    MissingColumnError,
    MissingValueError,
    PartialResultError,
    PartialResultWarning,
    TemplateError,
)

# Dask itself still calls pandas so.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

TABLE = pa.table({"x": ["a", "b", "a", None], "n": [1, 2, 1, 4]})
WHOLE = TABLE.slice(0, 3)
FIELDS = {"kind": ["violent", "drug"], "months": int | None, "is_new": bool}
REFUSED = rows.pick({"Say b": rows.says(""), "Say a": rows.says("yes")})


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return door_of(request.param)


def test_each_row_has_the_answer_to_its_own_prompt(
    door: Door, tmp_path: Path, gateway: StandIn
) -> None:
    gateway.behaviour.shuffle = True
    out = door.batch(door.opened(WHOLE, tmp_path), "Say {{ x }} {{ n }}", details=True)
    assert type(out).__name__ == door.kind
    found = values_of(out)
    assert list(found)[:4] == ["x", "n", "response", "response_error"]
    assert (found["x"], found["n"]) == (["a", "b", "a"], [1, 2, 1])
    assert found["response"] == [answer(f"Say {x}") for x in ("a 1", "b 2", "a 1")]
    assert found["response_error"] == [None] * 3
    assert found["response_status"] == ["ok"] * 3
    assert sum(len(job.requests) for job in gateway.jobs) == 2  # equal rows are asked once


def test_missing_values_are_an_error_or_left_out(
    door: Door, tmp_path: Path, gateway: StandIn
) -> None:
    table = door.opened(TABLE, tmp_path)
    with pytest.raises(MissingValueError) as caught:
        door.batch(table, "Say {{ x }}")
    assert caught.value.columns == {"x": 1}
    found = values_of(
        door.batch(door.opened(TABLE, tmp_path), "Say {{ x }}", missing="skip", details=True)
    )
    assert found["response_status"] == ["ok", "ok", "ok", "skipped"]
    assert found["response"][3] is None


def test_a_column_that_exists_is_replaced_or_filled_only_when_asked(
    door: Door, tmp_path: Path, gateway: StandIn
) -> None:
    gateway.behaviour.row = REFUSED
    side = {"sidecar": tmp_path / "side.llm", "retries": 0}
    with pytest.warns(PartialResultWarning, match="1 empty"):
        out = door.batch(door.opened(WHOLE, tmp_path), "Say {{ x }}", **side)
    with pytest.raises(ColumnExistsError, match=r'if_exists="replace"'):
        door.batch(out, "Say {{ x }}", **side)
    jobs = len(gateway.jobs)
    with pytest.warns(PartialResultWarning):
        again = door.batch(out, "Say {{ x }}", if_exists="replace", **side)
    assert len(gateway.jobs) == jobs
    assert list(values_of(again)) == ["x", "n", "response", "response_error"]
    gateway.behaviour.row = rows.says("now")
    filled = values_of(
        door.batch(out, "Say {{ x }}", if_exists="fill", max_tokens=9, thinking="low", **side)
    )
    assert len(gateway.jobs) == jobs + 1
    assert len(gateway.jobs[-1].requests) == 1
    assert filled["response"] == ["yes", "now", "yes"]
    assert filled["response_error"] == [None] * 3


def test_fields_become_columns_of_their_types(door: Door, tmp_path: Path, gateway: StandIn) -> None:
    gateway.behaviour.row = rows.says('{"kind": "drug", "months": null, "is_new": true}')
    out = door.batch(door.opened(WHOLE, tmp_path), "Say {{ x }}", schema=FIELDS)
    found = values_of(out)
    assert list(found)[2:] == ["kind", "months", "is_new", "response_error"]
    assert found["kind"] == ["drug"] * 3
    assert found["months"] == [None] * 3
    assert found["is_new"] == [True] * 3
    if door.library == "polars":
        import polars as pl

        kinds = out.collect_schema()
        assert kinds["kind"] == pl.Enum(["violent", "drug"])
        assert [kinds[n] for n in ("months", "is_new")] == [pl.Int64, pl.Boolean]


def test_details_have_the_types_of_the_contract(tmp_path: Path, gateway: StandIn) -> None:
    pl = pytest.importorskip("polars")
    out = llm.batch(pl.DataFrame({"x": ["a"]}), "{{ x }}", model="m", details=True)
    kinds = {name.removeprefix("response_"): kind for name, kind in out.schema.items()}
    assert kinds["status"] == pl.Enum(list(llm._stages.answers.answer.STATUSES))
    assert {kinds[n] for n in ("prompt_tokens", "completion_tokens")} == {pl.Int64}
    assert kinds["cost"] == pl.Float64
    assert {kinds[n] for n in ("response", "error", "model", "custom_id")} == {pl.String}


def test_lists_and_objects_are_lists_and_structs(gateway: StandIn) -> None:
    pl = pytest.importorskip("polars")
    gateway.behaviour.row = rows.says('{"names": ["x"], "at": {"a": 1}}')
    schema: dict[str, Any] = {"names": list[str], "at": {"a": int}}
    out = llm.batch(pl.DataFrame({"x": ["a"]}), "{{ x }}", model="m", schema=schema)
    assert out.schema["names"] == pl.List(pl.String)
    assert out.schema["at"] == pl.Struct({"a": pl.Int64})
    assert out.row(0)[1:3] == (["x"], {"a": 1})


@pytest.mark.parametrize(
    ("template", "options", "error"),
    [
        ("Say {{ y }}", {}, MissingColumnError),
        ("Say hello", {}, TemplateError),
        ("Say {{ x }}", {"max_cost": 0.0}, BudgetError),
        ("Say {{ x }}", {"retries": -1}, ConfigurationError),
        ("Say {{ x }}", {"on_error": "ignore"}, ConfigurationError),
    ],
)
def test_what_is_wrong_is_the_same_error(
    door: Door, tmp_path: Path, gateway: StandIn, template: str, options: Any, error: Any
) -> None:
    with pytest.raises(error):
        door.batch(door.opened(WHOLE, tmp_path), template, **options)
    assert not gateway.jobs


def test_failed_rows_raise_with_the_table_when_asked(
    door: Door, tmp_path: Path, gateway: StandIn
) -> None:
    gateway.behaviour.row = REFUSED
    with pytest.raises(PartialResultError, match="1 empty") as caught:
        door.batch(door.opened(WHOLE, tmp_path), "Say {{ x }}", on_error="raise", retries=0)
    assert caught.value.counts == {"ok": 2, "empty": 1}
    if caught.value.frame is not None:
        assert type(caught.value.frame).__name__ == door.kind


def test_a_run_gives_the_same_kind_back(door: Door, tmp_path: Path, gateway: StandIn) -> None:
    table = door.opened(WHOLE, tmp_path)
    if isinstance(table, Path):
        return
    gateway.behaviour.row = REFUSED
    run = llm.submit(table, "Say {{ x }}", model="m", retries=0).wait()
    assert type(run.result()).__name__ == door.kind
    assert values_of(run.result())["response"] == ["yes", "", "yes"]
    failures = values_of(run.failures())
    assert (failures["x"], failures["status"]) == (["b"], ["empty"])


def test_an_estimate_and_a_trial_know_the_table(
    door: Door, tmp_path: Path, gateway: StandIn
) -> None:
    table = door.opened(WHOLE, tmp_path)
    if isinstance(table, Path):
        return
    assert llm.estimate(table, "Say {{ x }}", model="m").to_pay == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = llm.trial(door.opened(WHOLE, tmp_path), "Say {{ x }}", model="m", n=2)
    assert type(tried).__name__ == door.kind.replace("LazyFrame", "DataFrame")
    assert len(values_of(tried)["response"]) == 2


def test_the_first_prompts_of_a_query_need_no_more_than_these() -> None:
    pl = pytest.importorskip("polars")
    read: list[int] = []

    def seen(frame: Any) -> Any:
        read.append(frame.height)
        return frame

    query = pl.LazyFrame({"x": range(1000)}).map_batches(seen, predicate_pushdown=False)
    shown = llm.preview(query, "{{ x }}", n=3)
    assert isinstance(shown, pl.DataFrame)
    assert shown.height == 3


def test_a_query_is_collected_now_and_that_is_told(gateway: StandIn) -> None:
    pl = pytest.importorskip("polars")
    told: list[str] = []
    ran: list[int] = []

    def seen(frame: Any) -> Any:
        ran.append(frame.height)
        return frame

    query = pl.LazyFrame({"x": ["a", "b"]}).map_batches(seen)
    with llm.set_options(progress=lambda progress: told.append(progress.message)):
        out = llm.batch(query, "{{ x }}", model="m")
    assert told[0].startswith("collecting the LazyFrame")
    assert ran == [2]
    assert out.collect()["response"].to_list() == [answer("a"), answer("b")]
    assert ran == [2]  # what comes back does not run it again


def test_importing_registers_and_takes_nothing_from_others(monkeypatch: Any) -> None:
    pl = pytest.importorskip("polars")
    import nyu_llm_frames.polars  # noqa: F401
    from nyu_llm_frames._api.accessor import TableMethods
    from nyu_llm_frames._api.register import claim

    assert pl.DataFrame.llm is TableMethods
    assert pl.LazyFrame({"x": [1]}).llm.preview("{{ x }}").height == 1
    llm.register("questions")
    assert pl.DataFrame.questions is pl.LazyFrame.questions is TableMethods
    monkeypatch.setattr(pl.DataFrame, "llm", "of another package")
    with pytest.warns(UserWarning, match=r"polars belongs to another package.*register"):
        claim("polars")
    assert pl.DataFrame.llm == "of another package"
    with pytest.raises(ConfigurationError, match=r"polars\.DataFrame has 'llm' already"):
        llm.register("llm")


def test_only_names_that_are_used_must_be_unique(gateway: StandIn) -> None:
    """As a query that joins two tables has them."""
    table = pa.Table.from_arrays([[1], ["a"], [2]], ["id", "x", "id"])
    for template in ("{{ x }}", "{{ index }}"):
        out = llm.batch(table, template, model=MODEL)
        assert out.column_names == [*table.column_names, "response", "response_error"]
        assert out.select([0, 1, 2]).equals(table)
    assert llm.batch(out, "{{ x }}", model=MODEL, if_exists="replace").num_columns == 5
    for template in ("{{ id }}", "{{ row }}"):
        with pytest.raises(ConfigurationError, match="'id', and the table has more than one"):
            llm.batch(table, template, model=MODEL)


WORDS = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "words",
    [pa.array(WORDS, pa.string_view()), pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], WORDS)],
    ids=["views", "runs of equal values"],
)
def test_columns_of_which_pyarrow_takes_no_rows_come_through(
    gateway: StandIn, words: pa.Array
) -> None:
    gateway.behaviour.row = rows.pick({"Say b": rows.says(""), "Say d": rows.says("")})
    table, kind = pa.table({"x": words}), words.type
    assert llm.trial(table, "Say {{ x }}", model=MODEL, n=2)["x"].type == kind
    run = llm.submit(table, "Say {{ x }}", model=MODEL)
    run.wait()
    assert run.failures()["x"].to_pylist() == ["b", "d"]
    out = run.result()
    assert out["x"].type == kind
    filled = llm.batch(out, "Say {{ x }}!", model=MODEL, if_exists="fill")
    assert filled["response"].to_pylist() == [answer(f"Say {p}") for p in ("a", "b!", "c", "d!")]


@pytest.mark.parametrize("value", [[1], "x", {"x": [1]}, 3, pa.array([1]), None])
def test_what_is_no_table_says_what_is_one(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"pandas, Polars or Dask.*Arrow stream"):
        llm.preview(value, "{{ x }}")
