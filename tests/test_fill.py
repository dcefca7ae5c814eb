"""`if_exists="fill"`: rows without a good answer, asked anew, in the same columns, at each door.

The law: cells of other rows are not touched, cells of these rows are those of a call on these rows
alone, only these are sent, and a second call sends nothing.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._tables.columns import AnswerColumns
from nyu_llm_frames._tables.filling import Fill, choose
from nyu_llm_frames.errors import (
    BudgetError,
    ColumnExistsError,
    ConfigurationError,
    PartialResultWarning,
)

MODEL = "gemini-3-flash-preview"
QUESTION = "Say {{ x }}"
SCHEMA = {"kind": ["red", "blue"], "n": int, "tags": [str], "note": str | None}
ODD = [0, 0, "a", None, 2, 2]  # labels: equal ones, of several types, a missing one

pytestmark = pytest.mark.filterwarnings(
    "ignore::nyu_llm_frames.errors.PartialResultWarning",
)


@pytest.fixture(autouse=True)
def gateway(quick_gateway: StandIn) -> StandIn:
    return quick_gateway


def frame() -> pd.DataFrame:
    return pd.DataFrame({"x": list("abcdef"), "after": range(6)}, index=pd.Index(ODD, dtype=object))


def batch(df: pd.DataFrame, **given: Any) -> pd.DataFrame:
    out: pd.DataFrame = df.llm.batch(QUESTION, model=MODEL, **given)
    return out


def sent(gateway: StandIn, since: int) -> list[str]:
    found = [rows.last_user_text(body) for job in gateway.jobs[since:] for _, body in job.requests]
    return sorted(found)


def spoilt(gateway: StandIn, **given: Any) -> pd.DataFrame:
    """An answered frame in which b was cut and d refused."""
    gateway.behaviour.row = rows.pick({"Say b": rows.truncated, "Say d": rows.failed(400)})
    out = batch(frame(), **given)
    gateway.behaviour.row = rows.good
    return out


# --- frames -----------------------------------------------------------------------------------
@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["text", "schema"])
def test_fill_asks_the_bad_rows_alone_and_touches_no_other_cell(
    gateway: StandIn, schema: Any, details: bool
) -> None:
    old = spoilt(gateway, schema=schema, details=details)
    before, jobs = old.copy(deep=True), len(gateway.jobs)
    new = batch(old, schema=schema, details=details, max_tokens=9_000, if_exists="fill")
    assert sent(gateway, jobs) == ["Say b", "Say d"]
    pd.testing.assert_frame_equal(old, before)
    assert new.dtypes.equals(old.dtypes)
    assert list(new.columns) == list(old.columns)
    assert new.index.tolist()[:3] == old.index.tolist()[:3]
    good = [0, 2, 4, 5]
    pd.testing.assert_frame_equal(new.iloc[good], old.iloc[good])
    alone = batch(frame().iloc[[1, 3]], schema=schema, details=details, max_tokens=9_000)
    pd.testing.assert_frame_equal(new.iloc[[1, 3]], alone[list(new.columns)])
    assert new["response_error"].isna().all()
    jobs = len(gateway.jobs)
    again = batch(new, schema=schema, details=details, max_tokens=9_000, if_exists="fill")
    pd.testing.assert_frame_equal(again, new)
    assert len(gateway.jobs) == jobs


def test_details_of_an_earlier_call_are_filled_without_being_named(gateway: StandIn) -> None:
    new = batch(spoilt(gateway, details=True), if_exists="fill", max_tokens=9_000)
    assert new["response_status"].tolist() == ["ok"] * 6
    assert new["response_custom_id"].nunique() == 6


def test_the_frame_decides_and_not_the_sidecar(gateway: StandIn) -> None:
    """A cell that was emptied by hand is asked, and a bad answer that was mended by hand is not."""
    old = spoilt(gateway)
    old.iloc[0, old.columns.get_loc("response")] = pd.NA
    old.iloc[1, old.columns.get_loc("response")] = "by hand"
    old.iloc[1, old.columns.get_loc("response_error")] = pd.NA
    new = batch(old, if_exists="fill", temperature=0)
    assert sent(gateway, len(gateway.jobs) - 1) == ["Say a", "Say d"]
    assert new["response"].tolist()[:4] == [
        answer("Say a"),
        "by hand",
        answer("Say c"),
        answer("Say d"),
    ]


def test_fill_of_a_frame_without_the_columns_is_a_first_call(gateway: StandIn) -> None:
    out = batch(frame(), if_exists="fill")
    pd.testing.assert_frame_equal(out, batch(frame()))
    assert len(gateway.jobs) == 1


def test_estimate_limit_preview_and_trial_see_the_bad_rows_alone(gateway: StandIn) -> None:
    old = spoilt(gateway)
    given: dict[str, Any] = {"model": MODEL, "if_exists": "fill", "max_tokens": 9_000}
    estimate = old.llm.estimate(QUESTION, **given)
    assert (estimate.rows, estimate.to_pay) == (2, 2)
    whole = old.llm.estimate(QUESTION, model=MODEL, max_tokens=9_000)
    limit = (estimate.usd_batch.high + whole.usd_batch.high) / 2
    shown = old.llm.preview(QUESTION, if_exists="fill", n=1)
    assert shown["messages"].iloc[0][0]["content"] == "Say b"
    tried = old.llm.trial(QUESTION, n=1, random_state=1, **given)
    assert tried["x"].iloc[0] in "bd"
    assert tried["response_error"].isna().all()
    assert len(gateway.chats) == 1
    jobs = len(gateway.jobs)
    with pytest.raises(BudgetError):
        batch(old, max_tokens=9_000, if_exists="fill", max_cost=limit / 1e6)
    new = batch(old, max_tokens=9_000, if_exists="fill", max_cost=limit)
    assert len(sent(gateway, jobs)) == 1  # the trial has paid the other
    assert new["response_error"].isna().all()
    none = new.llm.trial(QUESTION, **given)
    assert len(none) == 0


def test_what_is_pending_keeps_its_cells(gateway: StandIn) -> None:
    old = spoilt(gateway)
    gateway.behaviour.running_polls = -1
    so_far = batch(old, max_tokens=9_000, if_exists="fill", wait=False)
    pd.testing.assert_frame_equal(so_far, old)
    gateway.finish()
    assert batch(so_far, max_tokens=9_000, if_exists="fill")["response_error"].isna().all()
    assert len(gateway.jobs) == 2


def test_rows_that_wait_for_another_call_are_sent_again_with_a_word(gateway: StandIn) -> None:
    """They have no value yet, and with other parameters they are other requests."""
    gateway.behaviour.running_polls = -1
    notes: list[str] = []
    with llm.set_options(progress=lambda progress: notes.append(progress.message)):
        so_far = batch(frame(), wait=False)
        batch(so_far, if_exists="fill", wait=False)  # the same requests
        assert not any("paid again" in note for note in notes)
        batch(so_far, if_exists="fill", max_tokens=9_000, wait=False)
        batch(so_far, if_exists="fill", max_tokens=9_000, wait=False)  # all of them under way
        alone = batch(frame().iloc[:2], sidecar="alone", wait=False)
        more = pd.concat([alone, pd.DataFrame({"x": ["new"]})])
        batch(more, sidecar="alone", if_exists="fill", wait=False)  # only its own are under way
    assert sum("6 requests of other calls are under way" in note for note in notes) == 1
    assert sum("paid again" in note for note in notes) == 1
    assert len(gateway.jobs) == 4
    gateway.finish()


def test_a_run_that_fills_gives_the_whole_frame_and_counts_it(gateway: StandIn) -> None:
    old = spoilt(gateway)
    gateway.behaviour.row = rows.pick({"Say d": rows.blocked})
    run = old.llm.submit(QUESTION, model=MODEL, max_tokens=9_000, if_exists="fill").wait()
    assert run.counts() == {"ok": 5, "blocked": 1}
    assert run.failures()["x"].tolist() == ["d"]
    assert len(run.result()) == 6
    assert "rows         6" in repr(run)


def test_a_template_through_row_meets_no_column_of_the_call(gateway: StandIn) -> None:
    given: dict[str, Any] = {
        "template": "{% for k, v in row.items() %}{{ k }}={{ v }} {% endfor %}"
    }
    gateway.behaviour.row = rows.pick(
        lambda _, body: rows.truncated if "x=b" in rows.last_user_text(body) else None
    )
    old = frame().llm.batch(**given, model=MODEL)
    new = old.llm.batch(**given, model=MODEL, if_exists="fill")  # the same request: known
    assert len(gateway.jobs) == 1
    pd.testing.assert_frame_equal(new, old)


def test_rows_that_are_skipped_stay_as_they_are(gateway: StandIn) -> None:
    df = frame().assign(x=["a", None, "c", "d", "e", "f"])
    old = batch(df, missing="skip")
    pd.testing.assert_frame_equal(batch(old, missing="skip", if_exists="fill"), old)
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_frame_that_was_written_and_read_is_filled(
    gateway: StandIn, kind: str, tmp_path: Path
) -> None:
    """A CSV file gives whole numbers as floats, and choices as texts: their dtype stays."""
    schema = {"kind": ["red", "blue"], "n": int, "yes": bool}
    old = spoilt(gateway, schema=schema)
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        old.to_csv(path, index=False)
        old = pd.read_csv(path)
    else:
        old.reset_index(drop=True).to_parquet(path)
        old = pd.read_parquet(path)
    new = batch(old, schema=schema, max_tokens=9_000, if_exists="fill")
    assert new[["kind", "n", "yes"]].notna().all(axis=None)
    assert new["n"].dtype == old["n"].dtype
    good = [0, 2, 4, 5]
    for name in ("kind", "n", "yes"):
        assert new[name].iloc[good].tolist() == old[name].iloc[good].tolist()


def test_choices_that_are_new_join_those_that_were_there(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say a": rows.says('{"kind": "green"}')})
    old = batch(frame(), schema={"kind": ["red", "blue"]})
    assert old["response_error"].notna().tolist() == [True] + [False] * 5
    gateway.behaviour.row = rows.says('{"kind": "green"}')
    new = batch(old, schema={"kind": ["green", "red", "blue"]}, if_exists="fill")
    assert new["kind"].dtype == pd.CategoricalDtype(["green", "red", "blue"])
    assert new["kind"].tolist() == ["green", *old["kind"].tolist()[1:]]


def test_cells_that_do_not_go_together_are_refused_before_anything_is_sent(
    gateway: StandIn,
) -> None:
    df = frame().assign(n=["x", "y", None, None, None, None])
    with pytest.raises(ConfigurationError, match=r"column 'n' .*Int64.* in row 0"):
        batch(df, schema={"n": int}, if_exists="fill")
    assert not gateway.log


@pytest.mark.parametrize("kind", [[str], {"a": int}, [{"a": int}]], ids=str)
def test_lists_and_objects_are_filled_as_cells_and_refused_as_text(
    gateway: StandIn, kind: Any
) -> None:
    """As `read_json` and `read_parquet` give them, and as `read_csv` does."""
    old = spoilt(gateway, schema={"tags": kind})
    alone = pa.array(batch(frame(), schema={"tags": kind}, max_tokens=9_000)["tags"]).to_pylist()
    cells = pa.array(old["tags"]).to_pylist()
    objects = old.assign(tags=pd.Series(cells, old.index, dtype=object))
    new = batch(objects, schema={"tags": kind}, max_tokens=9_000, if_exists="fill")
    assert pa.array(new["tags"]).to_pylist() == [cells[0], alone[1], cells[2], alone[3], *cells[4:]]
    jobs = len(gateway.jobs)
    texts = old.assign(tags=[None if cell is None else str(cell) for cell in cells])
    with pytest.raises(ConfigurationError, match=r"column 'tags' .* as in row 0"):
        batch(texts, schema={"tags": kind}, max_tokens=9_001, if_exists="fill")
    assert len(gateway.jobs) == jobs


def test_a_field_that_may_be_null_is_no_missing_value() -> None:
    from nyu_llm_frames._stages.schema.schema import compile_schema

    df = pd.DataFrame(
        {"a": ["x", None, "z"], "b": [None, None, "y"], "r_error": [None, None, "no"]}
    )
    both = compile_schema({"a": str, "b": str | None})
    assert choose(df, AnswerColumns("r", both)).rows.tolist() == [1, 2]
    only = compile_schema({"b": str | None})
    assert choose(df, AnswerColumns("r", only)).rows.tolist() == [0, 1, 2]
    told = df.assign(r_status=["ok", "skipped", "invalid"])
    assert choose(told, AnswerColumns("r", only)).rows.tolist() == [1, 2]


@settings(max_examples=60)
@given(st.data())
def test_filled_cells_lie_where_their_rows_are(data: Any) -> None:
    n = data.draw(st.integers(0, 8))
    asked = np.array(sorted(data.draw(st.sets(st.integers(0, max(n - 1, 0)), max_size=n))), int)
    asked = asked[asked < n]
    answered = np.array([data.draw(st.booleans()) for _ in asked], bool)
    old = pd.DataFrame({"v": [f"old {i}" for i in range(n)]})
    new = pd.array([f"new {i}" for i in asked], dtype="string")
    out = Fill(old, asked).filled({"v": new, "w": new}, answered)
    changed = {int(i) for i, yes in zip(asked, answered, strict=True) if yes}
    assert list(out["v"]) == [f"{'new' if i in changed else 'old'} {i}" for i in range(n)]
    assert [w if isinstance(w, str) else None for w in out["w"]] == [
        f"new {i}" if i in changed else None for i in range(n)
    ]


# --- files ------------------------------------------------------------------------------------
def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)


def spoilt_file(gateway: StandIn, path: Path, **given: Any) -> None:
    source = path.with_name("in.csv")
    source.write_text('x,id\na,007\nb,"1,5"\nc,\nd,"a ""q"""\ne,5\nf,6\n')
    gateway.behaviour.row = rows.pick({"Say b": rows.truncated, "Say d": rows.failed(400)})
    llm.batch_file(source, path, QUESTION, model=MODEL, **given)
    gateway.behaviour.row = rows.good


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize(
    "schema", [None, {"kind": ["red", "blue"], "n": int}], ids=["text", "schema"]
)
@pytest.mark.parametrize(
    "kinds", [(".csv", ".csv"), (".csv", ".parquet"), (".parquet", ".parquet")]
)
def test_a_file_is_filled_row_by_row(
    gateway: StandIn, tmp_path: Path, kinds: tuple[str, str], schema: Any, details: bool
) -> None:
    old, new, again = (tmp_path / f"{n}{k}" for n, k in zip("abc", (*kinds, kinds[1]), strict=True))
    given: dict[str, Any] = {"model": MODEL, "schema": schema, "details": details}
    spoilt_file(gateway, old, schema=schema, details=details)
    jobs = len(gateway.jobs)
    fill: dict[str, Any] = {**given, "max_tokens": 9_000, "if_exists": "fill"}
    result = llm.batch_file(old, new, QUESTION, **fill)
    assert sent(gateway, jobs) == ["Say b", "Say d"]
    assert (result.rows, result.counts) == (6, {"ok": 6})
    before, after = read(old), read(new)
    assert list(after.columns) == list(before.columns)
    good = [0, 2, 4, 5]
    for name in before:
        left, right = before[name].iloc[good], after[name].iloc[good]
        assert left.isna().tolist() == right.isna().tolist()
        assert left.dropna().astype(str).str.removesuffix(".0").tolist() == (
            right.dropna().astype(str).str.removesuffix(".0").tolist()
        )
    assert after["response_error"].isna().all()
    jobs = len(gateway.jobs)
    llm.batch_file(old, new, QUESTION, **fill)  # the same call again
    llm.batch_file(new, again, QUESTION, **fill)  # and one on what it wrote
    assert len(gateway.jobs) == jobs
    pd.testing.assert_frame_equal(read(again), after)
    if kinds == (".csv", ".csv"):
        lines = zip(old.read_text().splitlines(), new.read_text().splitlines(), strict=True)
        assert [i for i, (one, other) in enumerate(lines) if one != other] == [2, 4]


def test_a_file_goes_on_in_the_sidecar_of_its_input(gateway: StandIn, tmp_path: Path) -> None:
    """Its rows may still be under way there: in another sidecar they would be paid twice."""
    gateway.behaviour.running_polls = -1
    (tmp_path / "in.csv").write_text("x\na\nb\n")
    llm.batch_file(tmp_path / "in.csv", tmp_path / "a.csv", QUESTION, model=MODEL, wait=False)
    gateway.finish()
    given: dict[str, Any] = {"model": MODEL, "if_exists": "fill"}
    result = llm.batch_file(tmp_path / "a.csv", tmp_path / "b.csv", QUESTION, **given)
    assert result.sidecar == tmp_path / "a.llm"
    assert result.counts == {"ok": 2}
    assert len(gateway.jobs) == 1


def test_a_file_whose_columns_are_replaced_costs_nothing(gateway: StandIn, tmp_path: Path) -> None:
    """As the error that proposes it says, also in an output of another name."""
    first, second, third = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    frame().to_csv(tmp_path / "in.csv", index=False)
    llm.batch_file(tmp_path / "in.csv", first, QUESTION, model=MODEL)
    with pytest.raises(ColumnExistsError, match=r'if_exists="replace" \(costs nothing\)'):
        llm.batch_file(first, second, QUESTION, model=MODEL)
    for earlier, output in pairwise((first, second, third)):
        result = llm.batch_file(earlier, output, QUESTION, model=MODEL, if_exists="replace")
        assert result.sidecar == tmp_path / "a.llm"
        assert output.read_text() == first.read_text()
    assert len(gateway.jobs) == 1


def test_an_output_with_a_sidecar_of_its_own_keeps_it_when_columns_are_replaced(
    gateway: StandIn, tmp_path: Path
) -> None:
    frame().to_csv(tmp_path / "in.csv", index=False)
    given: dict[str, Any] = {"model": MODEL, "if_exists": "replace"}
    llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", QUESTION, **given)
    batch(frame(), sidecar=tmp_path / "in.llm", temperature=0)
    jobs = len(gateway.jobs)
    result = llm.batch_file(tmp_path / "in.csv", tmp_path / "out.csv", QUESTION, **given)
    assert result.sidecar == tmp_path / "out.llm"
    assert len(gateway.jobs) == jobs


def test_a_filled_file_that_is_filled_again_pays_for_nothing_twice(
    gateway: StandIn, tmp_path: Path
) -> None:
    gateway.behaviour.row = rows.pick({"Say b": rows.failed(400)})
    first, *later = [tmp_path / name for name in ("in.csv", "a.csv", "b.csv", "c.csv", "d.csv")]
    frame().to_csv(first, index=False)
    llm.batch_file(first, later[0], QUESTION, model=MODEL)
    given: dict[str, Any] = {"model": MODEL, "max_tokens": 9_000, "if_exists": "fill"}
    for earlier, output in pairwise(later):
        result = llm.batch_file(earlier, output, QUESTION, **given)
        assert result.sidecar == tmp_path / "a.llm"
        assert sent(gateway, 1) == ["Say b"]
    assert (tmp_path / "d.llm").resolve() == result.sidecar


def test_a_typed_output_refuses_cells_of_another_kind_before_anything_is_sent(
    gateway: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("x,n,response_error\na,many,\nb,,cut\n")
    given: dict[str, Any] = {"model": MODEL, "schema": {"n": int}, "if_exists": "fill"}
    with pytest.raises(ConfigurationError, match="'n' has cells that are no Int64, as in row 0"):
        llm.batch_file(tmp_path / "a.csv", tmp_path / "b.parquet", QUESTION, **given)
    assert not gateway.log
    llm.batch_file(tmp_path / "a.csv", tmp_path / "b.csv", QUESTION, **given)
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "a,many,"


# --- where it is the cure it is named -----------------------------------------------------------
def test_warnings_cards_and_errors_name_fill_where_it_cures(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say b": rows.truncated})
    with pytest.warns(PartialResultWarning, match='if_exists="fill" with a larger max_tokens='):
        old = batch(frame())
    run = frame().llm.submit(QUESTION, model=MODEL)
    assert 'a larger max_tokens= and if_exists="fill"' in repr(run)
    assert "fill" in run._repr_html_()
    with pytest.raises(llm.errors.ColumnExistsError, match=r'if_exists="fill" \(sends only rows'):
        batch(old)
