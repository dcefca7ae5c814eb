"""`ddf.llm`: the requests of a pandas frame, and right answers in every slice of the result."""

from __future__ import annotations

import datetime as dt
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dask
import dask.dataframe as dd
import jinja2
import numpy as np
import pandas as pd
import pytest
from distributed.protocol.pickle import dumps
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
import nyu_llm_frames.dask
from nyu_llm_frames._sidecar.answer_store import find_best
from nyu_llm_frames._sidecar.lock_owner import LockOwner, encoded
from nyu_llm_frames.dask import spooled_requests

# Dask itself still calls pandas so.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")

MODEL = "gemini-3-flash-preview"
TEMPLATE = "Which drug? {{ q }}"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def frame_of(n: int = 24, distinct: int = 17) -> pd.DataFrame:
    """Rows of which some share a prompt, with labels that are not their places."""
    return pd.DataFrame(
        {"q": [f"offense {i % distinct}" for i in range(n)], "n": range(n)},
        index=pd.Index(np.arange(n) * 2, name="label"),
    )


def batch(frame: Any, **arguments: Any) -> Any:
    return frame.llm.batch(arguments.pop("template", TEMPLATE), model=MODEL, **arguments)


def expected(frame: pd.DataFrame) -> list[str]:
    return [answer(f"Which drug? {q}") for q in frame["q"]]


# --- the result -------------------------------------------------------------------------------
def test_batch_gives_a_lazy_frame_that_computes_to_what_pandas_has(
    gateway: StandIn, tmp_path: Path
) -> None:
    frame = frame_of()
    lazy = dd.from_pandas(frame, npartitions=5)
    out = batch(lazy, details=True)
    assert isinstance(out, dd.DataFrame)
    assert out.divisions == lazy.divisions
    found = out.compute()
    assert out.dtypes.equals(found.dtypes)
    assert found["response"].tolist() == expected(frame)
    jobs = len(gateway.jobs)
    theirs = batch(frame, details=True)
    assert len(gateway.jobs) == jobs == 1
    pd.testing.assert_frame_equal(
        found.drop(columns="q"), theirs.drop(columns="q"), check_column_type=False
    )
    assert found["q"].tolist() == frame["q"].tolist()
    assert not (tmp_path / "llm_sidecar" / "spool").exists()


SLICES: dict[str, Callable[[Any], Any]] = {
    "one partition": lambda out: out.partitions[2],
    "partitions in another order": lambda out: out.partitions[[3, 1]],
    "loc": lambda out: out.loc[10:21],
    "filter": lambda out: out[out["n"] % 3 == 1],
    "filter by an answer": lambda out: out[out["response"].str.endswith("3")],
    "fewer partitions": lambda out: out.repartition(npartitions=2),
    "more partitions": lambda out: out.repartition(npartitions=11),
    "by size": lambda out: out.repartition(partition_size="1kB"),
    "unknown divisions": lambda out: out.clear_divisions().repartition(npartitions=3),
    "shuffle": lambda out: out.shuffle("n", npartitions=4),
    "persist": lambda out: out.persist().partitions[[1, 0]],
    "columns": lambda out: out[["q", "response"]],
    "sorted by another column": lambda out: out.set_index("n"),
    "assigned before it is computed": lambda out: out.assign(m=out["n"] + 1).partitions[1],
}


@pytest.mark.parametrize("kind", SLICES)
@pytest.mark.parametrize("source", ["pandas", "parquet", "arrow", "duplicate index"])
def test_every_slice_has_the_answers_of_its_own_rows(
    gateway: StandIn, tmp_path: Path, kind: str, source: str
) -> None:
    frame = frame_of()
    if source == "pandas":
        lazy = dd.from_pandas(frame, npartitions=5)
    elif source == "duplicate index":
        lazy = dd.from_delayed([dask.delayed(p) for p in _cut(frame, 5, label=7)])
    else:
        (tmp_path / "in").mkdir()
        for i, part in enumerate(_cut(frame, 5)):
            part.assign(wide="x" * 1000).to_parquet(tmp_path / "in" / f"part.{i}.parquet")
        more = {"filesystem": "arrow"} if source == "arrow" else {}
        lazy = dd.read_parquet(str(tmp_path / "in"), **more)
    with llm.set_options(max_requests_per_file=4):
        out = batch(lazy)
    chosen = SLICES[kind](out) if kind != "loc" or out.known_divisions else out.partitions[3:]
    found = chosen.compute()
    assert len(found)
    given = {"q", "wide"} & set(found.columns)  # of those Dask itself may say another text type
    assert chosen.dtypes.drop(given).equals(found.dtypes.drop(given))
    assert found["response"].tolist() == expected(found)
    assert len(gateway.jobs) == 5


def _cut(frame: pd.DataFrame, n: int, label: int | None = None) -> list[pd.DataFrame]:
    places = np.array_split(np.arange(len(frame)), n)
    parts = [frame.iloc[p] for p in places]
    return parts if label is None else [p.set_index(pd.Index([label] * len(p))) for p in parts]


def test_tail_has_the_answers_of_its_own_rows(gateway: StandIn) -> None:
    out = batch(dd.from_pandas(frame_of(), npartitions=5))
    assert out.tail(3)["response"].tolist() == expected(out.tail(3))
    assert out.head(3)["response"].tolist() == expected(out.head(3))


def test_a_whole_partition_reads_only_the_files_that_hold_its_answers(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with llm.set_options(max_requests_per_file=5):
        out = batch(dd.from_pandas(frame_of(40, 40), npartitions=8))
    read: list[int] = []

    def watched(folder: Path, ids: Any, among: Any) -> Any:
        read.append(len(among))
        return find_best(folder, ids, among)

    monkeypatch.setattr("nyu_llm_frames.dask.lazy_join.find_best", watched)
    out.partitions[3].compute()
    assert read == [1]
    out.repartition(npartitions=3).compute()
    assert max(read) == 1  # joined before, partition by partition


def test_a_better_answer_elsewhere_is_found_for_a_row_that_moved(gateway: StandIn) -> None:
    # The first attempt failed for some rows, and their second answers lie in another file.
    first = rows.pick({f"Which drug? offense {i}": rows.failed(503) for i in (3, 11)})
    gateway.behaviour.row = lambda *given: (rows.good if len(gateway.jobs) > 3 else first)(*given)
    frame = frame_of(17)
    with llm.set_options(max_requests_per_file=6):
        out = batch(dd.from_pandas(frame, npartitions=3), retries=2)
    moved = out.shuffle("n", npartitions=2).compute().sort_values("n")
    assert moved["response"].tolist() == expected(frame)


# --- meta -------------------------------------------------------------------------------------
@pytest.mark.parametrize("details", [False, True])
def test_meta_has_the_types_of_every_kind_of_field(gateway: StandIn, details: bool) -> None:
    schema = {
        "drug": str,
        "months": int | None,
        "fine": float,
        "violent": bool,
        "kind": ["a", "b"],
        "day": dt.date,
        "names": [str],
        "more": {"x": int},
    }
    good = (
        '{"drug": "d", "months": 3, "fine": 1.5, "violent": true, "kind": "b", '
        '"day": "2020-01-02", "names": ["x"], "more": {"x": 1}}'
    )
    gateway.behaviour.row = rows.says(good)
    lazy = dd.from_pandas(frame_of(), npartitions=4)
    out = batch(lazy, schema=schema, details=details, prefix="x_")
    found = out.compute()
    assert out.dtypes.equals(found.dtypes)
    assert found["x_months"].tolist() == [3] * len(found)
    assert found["x_kind"].tolist() == ["b"] * len(found)


def test_an_empty_partition_and_an_empty_frame(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=4)
    none = lazy[lazy["n"] < 0]
    found = batch(none).compute()
    assert len(found) == 0
    assert list(found.columns) == ["q", "n", "response", "response_error"]
    some = batch(lazy[lazy["n"] > 20])
    assert some.compute()["response"].notna().all()
    assert some.dtypes.equals(some.compute().dtypes)


# --- the same requests at every door ------------------------------------------------------------
def test_called_again_in_other_partitions_and_at_other_doors_nothing_is_paid(
    gateway: StandIn, tmp_path: Path
) -> None:
    frame = frame_of(50, 41)
    path = tmp_path / "in.parquet"
    frame.to_parquet(path)
    batch(dd.from_pandas(frame, npartitions=8), sidecar="s")
    paid = sum(len(job.custom_ids) for job in gateway.jobs)
    assert paid == 41
    asked = len(gateway.log)
    seven = batch(dd.from_pandas(frame, npartitions=7), sidecar="s").compute()
    assert seven["response"].tolist() == expected(frame)
    assert batch(frame, sidecar="s")["response"].tolist() == expected(frame)
    llm.batch_file(path, tmp_path / "out.parquet", TEMPLATE, model=MODEL, sidecar="s")
    read = pd.read_parquet(tmp_path / "out.parquet")
    assert read["response"].tolist() == expected(frame)
    assert len(gateway.log) == asked


KINDS: dict[str, list[Any]] = {
    "text": ["a", "ü\n", None],
    "integer": [1, 2, -3],
    "whole floats": [2020.0, None, 1.0],
    "float": [0.1, 1e300, None],
    "bool": [True, False, True],
    "date": [dt.date(2020, 1, 2), None, dt.date(1, 1, 1)],
    "datetime": [dt.datetime(2020, 1, 2, 3, 4, 5, 6), None, dt.datetime(1999, 12, 31)],
    "zoned": [pd.Timestamp("2020-01-02 03:04", tz="America/New_York"), None, pd.NaT],
    "timedelta": [dt.timedelta(days=1, seconds=2), None, dt.timedelta(0)],
    "time": [dt.time(1, 2, 3), None, dt.time(0)],
    "decimal": [Decimal("1.50"), None, Decimal("0.05")],
    "bytes": [b"a\xff", None, b""],
    "list": [[1, 2], None, []],
    "list of text": [["a"], ["b", "c"], []],
    "nested list": [[[1], []], None, [[2]]],
    "dict": [{"x": 1, "y": "z"}, None, {"x": 2, "y": ""}],
    "list of dicts": [[{"x": 1}], [], None],
    "category": pd.Categorical(["u", None, "v"]),  # type: ignore[dict-item]
    "nullable integer": pd.array([1, None, 2**60], "Int64"),  # type: ignore[dict-item]
    "small float": np.array([0.1, 2.0, 3.5], "float32"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filesystem", ["fsspec", "arrow"])
def test_twenty_kinds_of_column_have_the_ids_of_the_file_and_of_pandas(
    gateway: StandIn, tmp_path: Path, kind: str, filesystem: str
) -> None:
    path = tmp_path / "in.parquet"
    pd.DataFrame({"c": KINDS[kind], "n": [1, 2, 3]}).to_parquet(path)
    template = "{{ n }}: {% if c is none %}nothing{% else %}{{ c }}{% endif %}"
    theirs = pd.read_parquet(path).llm.preview(template, model=MODEL)["custom_id"].tolist()
    lazy = dd.read_parquet(str(path), filesystem=filesystem)
    assert lazy.llm.preview(template, model=MODEL)["custom_id"].tolist() == theirs
    out = batch(lazy, template=template, details=True, sidecar="s").compute()
    assert out["response_custom_id"].tolist() == theirs
    sent = len(gateway.log)
    llm.batch_file(path, tmp_path / "out.parquet", template, model=MODEL, sidecar="s")
    assert len(gateway.log) == sent


def test_a_request_of_several_partitions_is_sent_once_also_where_they_are_planned_apart(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_requests, "AT_ONCE", 7)
    monkeypatch.setattr(spooled_requests, "ROWS_OF_A_BAND", 5)
    frame = frame_of(60, 23)
    lazy = dd.from_pandas(frame, npartitions=9)
    assert lazy.llm.estimate(TEMPLATE, model=MODEL).to_pay == 23
    out = batch(lazy)
    sent = [i for job in gateway.jobs for i in job.custom_ids]
    assert len(sent) == len(set(sent)) == 23
    assert out.compute()["response"].tolist() == expected(frame)


def test_estimate_counts_all_rows_and_leaves_nothing_behind(
    gateway: StandIn, tmp_path: Path
) -> None:
    frame = frame_of()
    estimate = dd.from_pandas(frame, npartitions=5).llm.estimate(TEMPLATE, model=MODEL)
    assert estimate == frame.llm.estimate(TEMPLATE, model=MODEL)
    assert (estimate.rows, estimate.to_pay) == (24, 17)
    assert not list(tmp_path.iterdir())
    assert not gateway.log


def test_preview_and_trial_take_the_first_partitions(gateway: StandIn) -> None:
    frame = frame_of()
    lazy = dd.from_pandas(frame, npartitions=8)
    shown = lazy.llm.preview(TEMPLATE, n=7)
    assert shown.index.tolist() == frame.index[:7].tolist()
    pd.testing.assert_frame_equal(shown, frame.llm.preview(TEMPLATE, n=7))
    tried = lazy.llm.trial(TEMPLATE, model=MODEL, n=4)
    assert tried["response"].tolist() == expected(frame)[:4]
    batch(lazy)
    assert sum(len(job.custom_ids) for job in gateway.jobs) == 13


def test_submit_returns_a_run_that_waits_and_gives_the_lazy_frame(gateway: StandIn) -> None:
    frame = frame_of()
    run = dd.from_pandas(frame, npartitions=3).llm.submit(TEMPLATE, model=MODEL)
    assert run.status["step"].tolist() == ["live"]
    before = run.result()
    assert before.compute()["response"].isna().all()
    run.wait()
    assert run.result().compute()["response"].tolist() == expected(frame)
    assert before.compute()["response"].isna().all()  # a snapshot
    with pytest.raises(TypeError, match="same call"):
        pickle.dumps(run)


def test_without_waiting_the_frame_so_far_comes_back(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=3)
    out = batch(lazy, wait=False, details=True).compute()
    assert set(out["response_status"]) == {"pending"}
    assert batch(lazy).compute()["response"].notna().all()


def test_replaced_columns_stand_where_they_stood(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=3)
    once = batch(lazy)
    with pytest.raises(llm.errors.ColumnExistsError, match="if_exists"):
        batch(once)
    asked = len(gateway.log)
    again = batch(once, if_exists="replace")
    assert list(again.columns) == list(once.columns)
    assert again.compute()["response"].tolist() == expected(frame_of())
    assert len(gateway.log) == asked


def test_failures_are_counted_by_row_with_the_label_of_one(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Which drug? offense 5": rows.blocked})
    lazy = dd.from_pandas(frame_of(), npartitions=5)
    with pytest.warns(llm.errors.PartialResultWarning, match=r"2 of 24 .*row 10") as told:
        out = batch(lazy)
    assert told[0].filename == __file__
    assert out.compute()["response_error"].notna().sum() == 2
    with pytest.raises(llm.errors.PartialResultError) as error:
        batch(lazy, on_error="raise")
    assert error.value.counts == {"ok": 22, "blocked": 2}
    assert isinstance(error.value.frame, dd.DataFrame)


def test_skipped_rows_are_counted_and_not_asked(gateway: StandIn) -> None:
    frame = frame_of()
    frame.loc[frame.index[[3, 20]], "q"] = None
    lazy = dd.from_pandas(frame, npartitions=5)
    out = batch(lazy, missing="skip", details=True).compute()
    assert out["response_status"].value_counts()["skipped"] == 2
    assert out["response"].isna().sum() == 2


# --- faults -----------------------------------------------------------------------------------
def test_missing_values_of_all_partitions_are_one_error(gateway: StandIn) -> None:
    frame = frame_of()
    frame.loc[frame.index[[1, 9, 21]], "q"] = None
    with pytest.raises(llm.errors.MissingValueError, match="3 in column 'q'") as error:
        batch(dd.from_pandas(frame, npartitions=8))
    assert error.value.columns == {"q": 3}
    assert error.value.rows == (2, 18, 42)
    assert not gateway.log


def test_a_template_object_is_refused(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=2)
    for given in (
        jinja2.Template("{{ q }}"),
        [{"role": "user", "content": jinja2.Template("{{ q }}")}],
    ):
        with pytest.raises(llm.errors.ConfigurationError, match=r"cannot travel.*Give its text"):
            batch(lazy, template=given)


def test_one_prompt_for_all_rows_is_refused(gateway: StandIn) -> None:
    with pytest.raises(llm.errors.TemplateError):
        batch(dd.from_pandas(frame_of(), npartitions=2), template="Which drug?")
    assert not gateway.log


def test_a_partition_whose_rows_became_others_is_an_error(gateway: StandIn) -> None:
    world = {"q": "before"}

    def drawn(part: pd.DataFrame) -> pd.DataFrame:
        return part.assign(q=[f"{world['q']} {n}" if n % 6 == 2 else q for n, q in _pairs(part)])

    lazy = dd.from_pandas(frame_of(), npartitions=3)
    out = batch(lazy.map_partitions(drawn, meta=lazy._meta))
    assert out.compute()["response"].notna().all()
    world["q"] = "after"
    with pytest.raises(llm.errors.PartitionChangedError, match=r"persist\(\)") as error:
        out.compute()
    told = (error.value.count, error.value.rows, error.value.row)
    assert told in {(1, 8, 4), (2, 8, 16), (1, 8, 40)}
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.count, again.row) == (
        str(error.value), error.value.count, error.value.row
    )  # fmt: skip


def _pairs(part: pd.DataFrame) -> list[tuple[int, str]]:
    return list(zip(part["n"], part["q"], strict=True))


def test_a_partition_whose_rows_change_places_has_right_answers(gateway: StandIn) -> None:
    def shuffled(part: pd.DataFrame) -> pd.DataFrame:
        return part.sample(frac=1, random_state=random.randrange(2**31))

    lazy = dd.from_pandas(frame_of(), npartitions=3)
    out = batch(lazy.map_partitions(shuffled, meta=lazy._meta))
    for _ in range(3):
        found = out.compute()
        assert found["response"].tolist() == expected(found)


CONTAINERS: dict[str, list[Any]] = {
    "lists": [[1, 2], None, [3]],
    "dicts": [{"a": 1}, {}, {"b": 2}],
    "bytes": [b"x", b"y", b"z"],
    "among text": ["a", ["b"], "c"],
    "whole floats": [1.0, "a", 2.0],
    "flags": [True, False, None],
    "numbers": [0, "a", 2],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_cells_that_from_pandas_turned_into_text_are_an_error(gateway: StandIn, kind: str) -> None:
    frame = pd.DataFrame({"c": pd.Series(CONTAINERS[kind], dtype=object), "n": range(3)})
    turned = dd.from_pandas(frame, npartitions=2)
    for verb in (turned.llm.preview, turned.llm.trial, turned.llm.estimate, turned.llm.batch):
        with pytest.raises(llm.errors.ConfigurationError) as error:
            verb("{{ n }}{{ c or 'none' }}", model=MODEL)
        assert 'dask.config.set({"dataframe.convert-string": False})' in str(error.value)
    assert not gateway.log
    with dask.config.set({"dataframe.convert-string": False}):
        lazy = dd.from_pandas(frame, npartitions=2)
    out = batch(lazy, template="{{ n }}{{ c or 'none' }}", details=True).compute()
    theirs = frame.llm.preview("{{ n }}{{ c or 'none' }}", model=MODEL)["custom_id"]
    assert out["response_custom_id"].tolist() == theirs.tolist()
    batch(dd.from_pandas(frame, npartitions=2), template="{{ n }}")  # not in use: no matter


def test_dates_and_words_that_look_like_flags_stay_what_they_print(gateway: StandIn) -> None:
    days = [dt.date(2020, 1, 2), None, dt.date(1, 1, 1)]
    frame = pd.DataFrame({"day": days, "word": ["True", "False", "True"], "n": range(3)})
    template = "{{ n }} {{ day or 'none' }} {{ word }}"
    theirs = frame.llm.preview(template, model=MODEL)["custom_id"].tolist()
    lazy = dd.from_pandas(frame, npartitions=2)
    for table in (lazy, lazy.persist()):
        out = batch(table, template=template, details=True).compute()
        assert out["response_custom_id"].tolist() == theirs


def test_sampled_cells_tell_lists_where_the_frame_is_not_at_hand(gateway: StandIn) -> None:
    frame = pd.DataFrame({"c": [[i, i] for i in range(9)], "n": range(9)})
    gone = dd.from_pandas(frame, npartitions=3).persist()
    for verb in (gone.llm.preview, gone.llm.trial, gone.llm.batch):
        with pytest.raises(llm.errors.ConfigurationError, match="convert-string"):
            verb("{{ c }}", model=MODEL)
    assert not gateway.log


@pytest.mark.parametrize("is_at_hand", [False, True])
def test_bytes_that_dask_cannot_turn_into_text_are_an_error(
    gateway: StandIn, is_at_hand: bool
) -> None:
    cells = {"c": [b"b", b"a\xff"], "n": [1, 2]}
    if is_at_hand:
        lazy = dd.from_pandas(pd.DataFrame(cells), npartitions=1)
    else:
        meta = pd.DataFrame({"c": pd.Series(dtype=object), "n": pd.Series(dtype=int)})
        lazy = dd.from_delayed([dask.delayed(pd.DataFrame)(cells)], meta=meta)
    for verb in (lazy.llm.preview, lazy.llm.trial, lazy.llm.batch):
        with pytest.raises(llm.errors.ConfigurationError, match=r"'c'.*convert-string"):
            verb("{{ c }}", model=MODEL)
    with pytest.raises(llm.errors.ConfigurationError, match=r"'c'.*convert-string"):
        lazy.llm.trial("{{ n }}", model=MODEL)
    assert not gateway.log


def test_a_few_first_cells_that_look_like_lists_are_text(gateway: StandIn) -> None:
    frame = pd.DataFrame({"c": ["[1, 2]", "[3]", "text"]})
    shown = dd.from_pandas(frame, npartitions=1).persist().llm.preview("{{ c }}", n=2)
    assert [m[0]["content"] for m in shown["messages"]] == ["[1, 2]", "[3]"]


def test_every_verb_notes_that_the_index_is_that_of_the_partition(gateway: StandIn) -> None:
    lazy = dd.from_pandas(pd.DataFrame({"n": range(2)}), npartitions=1)
    for verb in (lazy.llm.preview, lazy.llm.trial, lazy.llm.estimate, lazy.llm.batch):
        notes: list[str] = []
        with llm.set_options(progress=lambda p, notes=notes: notes.append(p.message)):
            verb("{{ index }}", model=MODEL)
        assert sum("label that a row has in its partition" in note for note in notes) == 1


@pytest.mark.parametrize("persisted", [False, True])
def test_text_stays_text(gateway: StandIn, persisted: bool) -> None:
    frame = pd.DataFrame({"c": ["[1, 2]", "{'a'", "[note] text", "b'x"], "n": range(4)})
    lazy = dd.from_pandas(frame, npartitions=2)
    out = batch(lazy.persist() if persisted else lazy, template="{{ c[:2000] }}")
    assert out.compute()["response"].tolist() == [answer(c) for c in frame["c"]]


def test_text_of_a_csv_file_may_look_like_lists(gateway: StandIn, tmp_path: Path) -> None:
    pd.DataFrame({"c": ["[1, 2]", "[3]"]}).to_csv(tmp_path / "in.csv", index=False)
    out = batch(dd.read_csv(str(tmp_path / "in.csv")), template="{{ c }}")
    assert out.compute()["response"].tolist() == [answer("[1, 2]"), answer("[3]")]


def test_flags_of_a_csv_file_are_those_of_pandas_or_an_error(
    gateway: StandIn, tmp_path: Path
) -> None:
    """Dask makes text of them where values are missing, and of "False" every test is true."""
    path, template = tmp_path / "in.csv", "{{ n }}{% if c %}yes{% else %}no{% endif %}"
    pd.DataFrame({"c": [True, False, None], "n": range(3)}).to_csv(path, index=False)
    lazy = dd.read_csv(str(path))
    for verb in (lazy.llm.preview, lazy.llm.batch):
        with pytest.raises(llm.errors.ConfigurationError, match=r"'c'.*convert-string"):
            verb(template, model=MODEL)
    with dask.config.set({"dataframe.convert-string": False}):
        same = dd.read_csv(str(path)).llm.preview(template)
        texts = dd.read_csv(str(path), dtype={"c": "string"}).llm.preview(template)
    whole = pd.read_csv(path).llm.preview(template)
    assert same["custom_id"].tolist() == whole["custom_id"].tolist()
    assert len(texts) == 3  # asked for as text


def test_no_key_is_in_what_travels(gateway: StandIn, tmp_path: Path) -> None:
    from nyu_llm_frames._runs.arguments import Arguments
    from nyu_llm_frames._shared.clock import current_clock
    from nyu_llm_frames.dask.dask_run import DaskCall

    lazy = dd.from_pandas(frame_of(), npartitions=3)
    given = llm.Gateway(**{**gateway.settings, "api_key": "stand-in-key"})
    arguments = Arguments(template=TEMPLATE, model=MODEL, gateway=given)
    call = DaskCall(lazy, arguments, current_clock())
    out = batch(lazy, gateway=given)
    for travels in (call.work, out, out.expr, dict(out.__dask_graph__())):
        assert b"stand-in-key" not in dumps(travels)
    assert pickle.loads(dumps(out)).compute()["response"].notna().all()


def test_a_dead_calls_spool_is_removed_by_the_next(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=3)
    batch(lazy)
    ours, theirs = (gateway_clock(), gateway_clock() + "0")
    made = {
        owner: [spool_of(owner, name) for name in ("empty", "full")] for owner in (ours, theirs)
    }
    for _, full in made.values():
        (full / "token").write_text("x")
        (full / "000000.arrow").write_bytes(b"x")
    batch(lazy)
    assert all(folder.exists() for folder in made[ours])  # one just made by a call beside it, too
    assert not any(folder.exists() for folder in made[theirs])


@pytest.mark.parametrize(("restarts", "stays"), [("2", False), ("1", True)])
def test_a_requeued_coordinators_spool_is_removed_from_another_node(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch, restarts: str, stays: bool
) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=3)
    left = spool_of("node7/b7/77/1", "left")
    owner = LockOwner(
        host="node7", pid=77, boot="b7", machine="m7", slurm_job="9", slurm_restarts=1
    )
    (left / "owner").write_text(encoded(owner))
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    batch(lazy)
    assert left.exists() == stays


def spool_of(process: str, name: str) -> Path:
    """Make the spool of a call of some process."""
    folder = Path("llm_sidecar/spool") / f"{name}~{quote(process, safe='')}"
    folder.mkdir(parents=True)
    return folder


def gateway_clock() -> str:
    from nyu_llm_frames._shared.clock import process_token

    return process_token()


def test_the_lazy_frame_has_the_same_name_at_every_call(gateway: StandIn) -> None:
    lazy = dd.from_pandas(frame_of(), npartitions=3)
    assert batch(lazy)._name == batch(lazy)._name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", llm.errors.PartialResultWarning)
        assert batch(lazy)._name != batch(lazy, output="other")._name


@pytest.mark.parametrize("at_once", [7, 1_000_000])
def test_call_ends_with_the_line_that_it_ends_with_in_pandas(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(spooled_requests, "AT_ONCE", at_once)
    told: list[llm.Progress] = []
    with llm.set_options(progress=told.append):
        batch(dd.from_pandas(frame_of(), npartitions=5))
        batch(frame_of())
    lazy, theirs = [progress.message for progress in told if progress.phase == "done"]
    assert lazy == theirs
    assert lazy.startswith("done: 24 rows (24 ok); cost $0.0")


# --- at the door ------------------------------------------------------------------------------
def test_the_verbs_take_a_dask_frame(gateway: StandIn) -> None:
    frame = frame_of()
    lazy = dd.from_pandas(frame, npartitions=3)
    out = llm.batch(lazy, TEMPLATE, model=MODEL)
    assert isinstance(out, dd.DataFrame)
    assert out.compute()["response"].tolist() == expected(frame)
    assert llm.estimate(lazy, TEMPLATE, model=MODEL).to_pay == 0


def test_another_name_for_the_accessor(gateway: StandIn) -> None:
    llm.register("batches")
    try:
        lazy: Any = dd.from_pandas(frame_of(), npartitions=3)
        assert lazy.batches.preview(TEMPLATE, n=2)["custom_id"].notna().all()
    finally:
        for kind in (pd.DataFrame, dd.DataFrame):
            del kind.batches  # type: ignore[attr-defined]


def test_filling_asks_only_the_rows_that_lack_an_answer(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Which drug? offense 5": rows.blocked})
    frame = frame_of()
    lazy = dd.from_pandas(frame, npartitions=4)
    with pytest.warns(llm.errors.PartialResultWarning):
        out = batch(lazy, details=True)
    gateway.behaviour.row = rows.good
    filled = batch(out, if_exists="fill", max_tokens=9)
    assert [len(job.custom_ids) for job in gateway.jobs] == [17, 1]
    found = filled.compute()
    assert found["response"].tolist() == expected(frame)
    assert found.dtypes.equals(filled.dtypes)
    assert batch(filled, if_exists="fill").compute()["response"].tolist() == expected(frame)
    assert len(gateway.jobs) == 2
