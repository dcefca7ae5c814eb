"""A frame in, the same frame out with new columns: whatever its index, dtypes and names are."""

from __future__ import annotations

import datetime
import decimal
import uuid
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support import rows
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames.errors import ColumnExistsError, ConfigurationError, PartialResultWarning

MODEL = "gemini-3-flash-preview"


def ask(frame: pd.DataFrame, template: Any = "Say {{ x }}", **options: Any) -> pd.DataFrame:
    out: pd.DataFrame = frame.llm.batch(template, **{"model": MODEL, **options})
    return out


def prompts_sent(gateway: StandIn) -> list[str]:
    """Return the last user text of every request, job by job."""
    return [rows.last_user_text(body) for job in gateway.jobs for _, body in job.requests]


def assert_joined(out: pd.DataFrame, before: pd.DataFrame, prompts: list[str]) -> None:
    """The frame is the same, and each row has the answer to its own prompt."""
    pd.testing.assert_frame_equal(out[before.columns], before, check_flags=True)
    assert out.index.equals(before.index)
    assert out.index.names == before.index.names
    assert type(out.index) is type(before.index)
    assert list(out.columns)[: before.shape[1]] == list(before.columns)
    assert out["response"].tolist() == [answer(prompt) for prompt in prompts]
    assert out["response_error"].isna().all()


# --- the index --------------------------------------------------------------------------------
N = 6
INDEXES: dict[str, Any] = {
    "range": pd.RangeIndex(10, 10 + 2 * N, 2),
    "duplicate": pd.Index([1, 1, 2, 2, 1, 3]),
    "all the same": pd.Index(["a"] * N, name="label"),
    "multi": pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=["letter", None]),
    "duplicate multi": pd.MultiIndex.from_tuples([("a", 1)] * N, names=["letter", "number"]),
    "zoned": pd.DatetimeIndex(
        pd.date_range("2026-03-08", periods=N, freq="h", tz="America/New_York"), name="when"
    ),
    "unsorted dates": pd.DatetimeIndex(["2026-03-08", "2020-01-01"] * 3),
    "periods": pd.period_range("2026-01", periods=N, freq="M"),
    "durations": pd.to_timedelta(range(N), unit="h"),
    "intervals": pd.interval_range(0, N),
    "categories": pd.CategoricalIndex(list("abcabc"), name="kind"),
    "missing labels": pd.Index([1.5, np.nan, np.nan, 2.5, None, 3.0]),
    "mixed": pd.Index([1, "a", None, (1, 2), 2.5, datetime.date(2026, 1, 1)], dtype=object),
    "non-ASCII": pd.Index(list("äöüßé東"), name="étiquette"),
    "arrow": pd.Index(list("abcabc"), dtype=pd.ArrowDtype(pa.string())),
    "nullable": pd.Index([1, 2, None, 1, 2, 3], dtype="Int64"),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_of_index_stays_as_it_is(gateway: StandIn, kind: str) -> None:
    gateway.behaviour.shuffle = True
    df = pd.DataFrame({"x": [f"v{i}" for i in range(N)]}, index=INDEXES[kind])
    before = df.copy(deep=True)
    out = ask(df)
    assert_joined(out, before, [f"Say v{i}" for i in range(N)])
    pd.testing.assert_frame_equal(df, before)


def test_the_label_of_a_row_is_its_index(gateway: StandIn) -> None:
    df = pd.DataFrame({"index": ["a", "b"]}, index=pd.Index([7, 8], name="n"))
    out = ask(df, "{{ index }} {{ row['index'] }}")
    assert out["response"].tolist() == [answer("7 a"), answer("8 b")]


# --- the columns ------------------------------------------------------------------------------
STAMP = pd.Timestamp("2026-02-18 12:00", tz="America/New_York")
DTYPES: dict[str, tuple[Any, list[str]]] = {
    "int64": (pd.Series([1, 2, 3]), ["1", "2", "3"]),
    "uint8": (pd.Series([1, 2, 3], dtype="uint8"), ["1", "2", "3"]),
    "float": (pd.Series([1.0, 2.5, -0.0]), ["1", "2.5", "0"]),
    "bool": (pd.Series([True, False, True]), ["True", "False", "True"]),
    "object": (pd.Series(["a", 1, 2.0], dtype=object), ["a", "1", "2"]),
    "string": (pd.Series(["a", "é", "東"], dtype="string"), ["a", "é", "東"]),
    "string[python]": (pd.Series(["a", "b", "c"], dtype="string[python]"), ["a", "b", "c"]),
    "Int64": (pd.Series([1, 2, 3], dtype="Int64"), ["1", "2", "3"]),
    "Float64": (pd.Series([1.0, 2.5, 3.0], dtype="Float64"), ["1", "2.5", "3"]),
    "boolean": (pd.Series([True, False, True], dtype="boolean"), ["True", "False", "True"]),
    "category": (pd.Series(["b", "a", "b"], dtype="category"), ["b", "a", "b"]),
    "category of numbers": (pd.Series(pd.Categorical([3, 1, 3])), ["3", "1", "3"]),
    "datetime": (
        pd.Series(pd.to_datetime(["2026-02-18", "2026-02-19 01:02", "2026-02-20"], format="mixed")),
        ["2026-02-18 00:00:00", "2026-02-19 01:02:00", "2026-02-20 00:00:00"],
    ),
    "zoned datetime": (
        pd.Series([STAMP, STAMP, STAMP + pd.Timedelta("180D")]),
        [
            "2026-02-18 12:00:00-05:00",
            "2026-02-18 12:00:00-05:00",
            "2026-08-17 13:00:00-04:00",
        ],
    ),
    "timedelta": (
        pd.Series(pd.to_timedelta(["1h", "2D", "3s"])),
        ["1:00:00", "2 days, 0:00:00", "0:00:03"],
    ),
    "period": (
        pd.Series(pd.period_range("2026-01", periods=3, freq="M")),
        ["2026-01", "2026-02", "2026-03"],
    ),
    "interval": (pd.Series(pd.interval_range(0, 3)), ["(0, 1]", "(1, 2]", "(2, 3]"]),
    "sparse": (pd.Series(pd.arrays.SparseArray([0, 0, 1])), ["0", "0", "1"]),
    "lists": (pd.Series([[1, 2.0], ["a"], []]), ["[1, 2]", "['a']", "[]"]),
    "arrays": (
        pd.Series([np.array([1, 2]), np.array([3.5]), np.array([])]),
        ["[1, 2]", "[3.5]", "[]"],
    ),
    "dicts": (
        pd.Series([{"a": 1}, {"a": [1.0]}, {}]),
        ["{'a': 1}", "{'a': [1]}", "{}"],
    ),
    "dates": (
        pd.Series([datetime.date(2026, 1, d) for d in (1, 2, 3)]),
        ["2026-01-01", "2026-01-02", "2026-01-03"],
    ),
    "decimals": (
        pd.Series([decimal.Decimal("1.50"), decimal.Decimal(2), decimal.Decimal("0.1")]),
        ["1.50", "2", "0.1"],
    ),
    "uuids": (
        pd.Series([uuid.UUID(int=i) for i in range(3)]),
        [str(uuid.UUID(int=i)) for i in range(3)],
    ),
    "arrow strings": (
        pd.Series(["a", "b", "c"], dtype=pd.ArrowDtype(pa.string())),
        ["a", "b", "c"],
    ),
    "arrow integers": (
        pd.Series([1, 2, 3], dtype=pd.ArrowDtype(pa.int16())),
        ["1", "2", "3"],
    ),
    "arrow lists": (
        pd.Series([[1], [2, 3], []], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        ["[1]", "[2, 3]", "[]"],
    ),
    "arrow structs": (
        pd.Series([{"a": 1}, {"a": 2}, {"a": 3}], dtype=pd.ArrowDtype(pa.struct({"a": pa.int8()}))),
        ["{'a': 1}", "{'a': 2}", "{'a': 3}"],
    ),
    "arrow time stamps": (
        pd.Series([STAMP] * 3, dtype=pd.ArrowDtype(pa.timestamp("us", "America/New_York"))),
        ["2026-02-18 12:00:00-05:00"] * 3,
    ),
    "arrow dictionary": (
        pd.Series(["a", "b", "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
        ["a", "b", "a"],
    ),
    "arrow decimals": (
        pd.Series(
            [decimal.Decimal("1.50"), decimal.Decimal("2.00"), decimal.Decimal("0.10")],
            dtype=pd.ArrowDtype(pa.decimal128(5, 2)),
        ),
        ["1.50", "2.00", "0.10"],
    ),
}


def test_every_dtype_prints_as_a_person_writes_it_and_stays(gateway: StandIn) -> None:
    df = pd.DataFrame({name: series for name, (series, _) in DTYPES.items()})
    df.attrs["source"] = "made by hand"
    before, dtypes = df.copy(deep=True), list(df.dtypes)
    template = "|".join(f"{{{{ row[{name!r}] }}}}" for name in DTYPES)
    out = ask(df, template)
    printed = zip(*(texts for _, texts in DTYPES.values()), strict=True)
    assert_joined(out, before, ["|".join(texts) for texts in printed])
    assert all(a is b or a == b for a, b in zip(out.dtypes, dtypes, strict=False))
    assert out.attrs == df.attrs
    pd.testing.assert_frame_equal(df, before)
    assert list(df.dtypes) == dtypes


def test_one_missing_value_elsewhere_does_not_turn_2020_into_another_request(
    gateway: StandIn,
) -> None:
    whole = pd.DataFrame({"year": [2020, 2021], "x": ["a", "b"]})
    ask(whole, "{{ year }} {{ x }}")
    holes = pd.DataFrame({"year": [2020, 2021, np.nan], "x": ["a", "b", "c"]})
    out = ask(holes, "{{ year }} {{ x }}", missing="skip", output="again")
    assert len(gateway.jobs) == 1
    assert out["again"].tolist()[:2] == [answer("2020 a"), answer("2021 b")]
    assert out["again"].isna().tolist() == [False, False, True]


NAMES = [
    "plain",
    "with space",
    "with.dots",
    "Überschrift",
    "東京",
    "index",
    "row",
    "loop",
    "range",
    "self",
    "items",
    "class",
    "none",
    "{{ x }}",
    "a'b\"c",
    "",
    "response_id",
    "_private",
    "__class__",
    "caller",
    "varargs",
]


def test_columns_of_any_name_can_be_used(gateway: StandIn) -> None:
    df = pd.DataFrame([[f"{name}-{i}" for name in NAMES] for i in range(2)], columns=NAMES)
    before = df.copy(deep=True)
    template = "|".join(f"{{{{ row[{name!r}] }}}}" for name in NAMES)
    out = ask(df, template)
    assert_joined(out, before, ["|".join(f"{name}-{i}" for name in NAMES) for i in range(2)])


@pytest.mark.parametrize("name", ["loop", "range", "self", "caller", "varargs", "items", "東京"])
def test_a_column_called_as_one_of_jinjas_names_is_the_column(gateway: StandIn, name: str) -> None:
    df = pd.DataFrame({name: ["a", "b"]})
    out = ask(df, f"{{{{ {name} }}}}")
    assert out["response"].tolist() == [answer("a"), answer("b")]


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02")],
        [("a", 1), ("b", 2)],
        pd.Index([pd.NA, "x"], dtype=object),
        [np.nan, "x"],
        [None, "x"],
        pd.CategoricalIndex(["a", "b"], name="kinds"),
        pd.DatetimeIndex(["2026-01-01", "2026-01-02"], name="days"),
        pd.interval_range(0, 2),
        pd.RangeIndex(2),
    ],
    ids=str,
)
def test_columns_with_labels_that_are_no_strings_stay(gateway: StandIn, labels: Any) -> None:
    df = pd.DataFrame([["a", "b"], ["c", "d"]])
    df.columns = pd.Index(labels, tupleize_cols=False) if isinstance(labels, list) else labels
    before = df.copy(deep=True)
    out = ask(df, "{{ index }}")
    assert out["response"].tolist() == [answer("0"), answer("1")]
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(
        out.iloc[:, :2].set_axis(range(2), axis=1), before.set_axis(range(2), axis=1)
    )
    assert list(map(str, out.columns[:2])) == list(map(str, before.columns))
    assert out.columns.name == before.columns.name


def test_other_columns_may_have_the_same_name_twice(gateway: StandIn) -> None:
    df = pd.DataFrame([["a", 1, 2], ["b", 3, 4]], columns=["x", "same", "same"])
    out = ask(df)
    assert list(out.columns) == ["x", "same", "same", "response", "response_error"]
    assert out["same"].to_numpy().tolist() == [[1, 2], [3, 4]]


@pytest.mark.filterwarnings("ignore:Passing a BlockManager:DeprecationWarning")  # of pandas 2.2
def test_a_subclass_of_a_frame_stays_one(gateway: StandIn) -> None:
    class Mine(pd.DataFrame):
        @property
        def _constructor(self) -> Any:
            return Mine

    out = ask(Mine({"x": ["a"]}))
    assert type(out) is Mine


def test_the_new_columns_share_no_memory_with_the_old_frame(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", "b"], "n": [1, 2]})
    out = ask(df)
    out.loc[0, "n"] = 99
    out.loc[1, "x"] = "changed"
    assert df["n"].tolist() == [1, 2]
    assert df["x"].tolist() == ["a", "b"]


def test_a_run_keeps_the_frame_as_it_was_submitted(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", "b"], "n": [1, 2]})
    run = df.llm.submit("Say {{ x }}", model=MODEL)
    df.loc[0, "x"] = "changed"
    df.loc[1, "n"] = 99
    del df["n"]
    out = run.wait().result()
    assert out["x"].tolist() == ["a", "b"]
    assert out["n"].tolist() == [1, 2]
    assert out["response"].tolist() == [answer("Say a"), answer("Say b")]
    out.loc[0, "n"] = 5
    assert run.result()["n"].tolist() == [1, 2]


# --- the new columns --------------------------------------------------------------------------
def test_text_columns_are_strings_with_na(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick({"Say b": rows.blocked})
    with pytest.warns(llm.errors.PartialResultWarning):
        out = ask(pd.DataFrame({"x": ["a", "b"]}))
    assert out["response"].dtype == pd.StringDtype()
    assert out["response_error"].dtype == pd.StringDtype()
    assert out["response"].iloc[1] is pd.NA
    assert out["response_error"].iloc[0] is pd.NA
    assert out["response_error"].iloc[1].startswith("prompt blocked")


def test_output_names_the_columns(gateway: StandIn) -> None:
    out = ask(pd.DataFrame({"x": ["a"]}), output="die Antwort", details=True)
    assert list(out.columns) == [
        "x",
        "die Antwort",
        "die Antwort_error",
        "die Antwort_status",
        "die Antwort_finish_reason",
        "die Antwort_prompt_tokens",
        "die Antwort_completion_tokens",
        "die Antwort_reasoning_tokens",
        "die Antwort_cost",
        "die Antwort_model",
        "die Antwort_custom_id",
    ]


def test_details_have_types_and_values(gateway: StandIn) -> None:
    gateway.behaviour.row = rows.pick(
        {"Say b": rows.failed(400), "Say c": rows.thinking, "Say d": rows.truncated}
    )
    df = pd.DataFrame({"x": ["a", "b", "c", "d", None]})
    with pytest.warns(llm.errors.PartialResultWarning):
        out = ask(df, details=True, missing="skip")
    found = out.drop(columns=["x"]).rename(columns=lambda c: c.removeprefix("response_"))
    assert {c: str(t) for c, t in found.dtypes.items() if c != "status"} == {
        "response": "string" if pd.__version__ < "3" else str(pd.StringDtype()),
        "error": str(pd.StringDtype()),
        "finish_reason": str(pd.StringDtype()),
        "prompt_tokens": "Int64",
        "completion_tokens": "Int64",
        "reasoning_tokens": "Int64",
        "cost": "Float64",
        "model": str(pd.StringDtype()),
        "custom_id": str(pd.StringDtype()),
    }
    assert isinstance(found["status"].dtype, pd.CategoricalDtype)
    assert not found["status"].dtype.ordered
    assert found["status"].tolist() == ["ok", "refused", "ok", "truncated", "skipped"]
    assert found["finish_reason"].tolist() == ["STOP", pd.NA, "STOP", "MAX_TOKENS", pd.NA]
    assert found["reasoning_tokens"].tolist() == [0, pd.NA, 17, 0, pd.NA]
    assert found["model"].tolist() == [MODEL, pd.NA, MODEL, MODEL, pd.NA]
    assert found["custom_id"].notna().tolist() == [True] * 4 + [False]
    assert found["error"].notna().tolist() == [False, True, False, True, False]
    assert found["response"].notna().tolist() == [True, False, True, True, False]


def test_a_column_that_exists_is_an_error_that_knows_the_idiom(gateway: StandIn) -> None:
    df = ask(pd.DataFrame({"x": ["a"]}))
    calls = len(gateway.log)
    with pytest.raises(ColumnExistsError) as caught:
        df = ask(df)
    assert str(caught.value) == (
        "The frame already has 'response', 'response_error'. Was this cell run before? If so, "
        'use if_exists="replace" (costs nothing) or if_exists="fill" (sends only rows without a '
        "good answer). Otherwise choose another name with output= or prefix=."
    )
    assert caught.value.columns == ("response", "response_error")
    assert len(gateway.log) == calls


def test_replace_puts_the_columns_where_they_stood(gateway: StandIn) -> None:
    df = ask(pd.DataFrame({"x": ["a", "b"]}))
    df["after"] = 1
    df["response"] = "old"
    out = ask(df, if_exists="replace")
    assert list(out.columns) == ["x", "response", "response_error", "after"]
    assert out["response"].tolist() == [answer("Say a"), answer("Say b")]
    assert df["response"].tolist() == ["old", "old"]
    assert len(gateway.jobs) == 1


@pytest.mark.parametrize("schema", [None, {"kind": ["red", "blue"]}], ids=["text", "schema"])
def test_details_of_an_earlier_run_are_replaced_with_their_answers(
    gateway: StandIn, schema: Any
) -> None:
    """Else a new answer stands beside the status, the cost and the id of an older one."""
    df = pd.DataFrame({"x": ["a", "b"]})
    gateway.behaviour.row = rows.pick({"Say a": rows.failed(400)})
    with pytest.warns(PartialResultWarning):
        first = ask(df, schema=schema, details=True)
    gateway.behaviour.row = rows.good
    out = ask(first, schema=schema, if_exists="replace", max_tokens=9_000)
    assert list(out.columns) == list(first.columns)
    whole = ask(df, schema=schema, details=True, max_tokens=9_000)
    pd.testing.assert_frame_equal(out, whole)
    assert out["response_status"].tolist() == ["ok", "ok"]
    assert len(gateway.jobs) == 2


def test_an_output_column_that_exists_twice_cannot_be_replaced(gateway: StandIn) -> None:
    df = pd.DataFrame([["a", 1, 2]], columns=["x", "response", "response"])
    with pytest.raises(ConfigurationError, match="2 columns are called 'response'"):
        ask(df, if_exists="replace")
    assert not gateway.jobs


def test_the_template_may_use_the_column_that_is_replaced(gateway: StandIn) -> None:
    first = ask(pd.DataFrame({"x": ["a"]}))
    out = ask(first, "Shorter: {{ response }}", if_exists="replace")
    assert out["response"].tolist() == [answer(f"Shorter: {answer('Say a')}")]


@pytest.mark.parametrize("details", [False, True])
def test_a_row_as_a_whole_has_no_columns_of_an_earlier_run(gateway: StandIn, details: bool) -> None:
    source = "{% for k, v in row.items() %}{{ k }}={{ v or 'none' }};{% endfor %}"
    first = ask(pd.DataFrame({"x": ["a", "b"]}), source, details=True)
    again = ask(first, source, if_exists="replace", details=details)
    assert again["response"].tolist() == [answer("x=a;"), answer("x=b;")]
    skipped = ask(first, source, if_exists="replace", missing="skip")
    assert skipped["response"].tolist() == again["response"].tolist()
    assert len(gateway.jobs) == 1


def test_a_column_of_the_user_stays_in_the_row_though_it_is_called_like_a_detail(
    gateway: StandIn,
) -> None:
    df = pd.DataFrame({"x": ["a"], "response_status": ["late"], "response": ["old"]})
    source = "{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}"
    out = ask(df, source, if_exists="replace")
    assert out["response"].tolist() == [answer("x=a;response_status=late;")]


# --- which rows are sent ----------------------------------------------------------------------
def test_equal_prompts_are_sent_once_and_answer_every_row(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", "b", "a", "a", "b"], "other": range(5)})
    out = ask(df)
    assert sorted(prompts_sent(gateway)) == ["Say a", "Say b"]
    assert_joined(out, df, [f"Say {x}" for x in df["x"]])


def test_a_constant_prompt_is_one_request(gateway: StandIn) -> None:
    out = ask(pd.DataFrame({"x": range(5)}), "Tell a joke{% if x < 0 %} of {{ x }}{% endif %}")
    assert prompts_sent(gateway) == ["Tell a joke"]
    assert out["response"].tolist() == [answer("Tell a joke")] * 5
    one = ask(pd.DataFrame({"x": [1]}), "Tell a joke")  # of one row, it may be meant
    assert one["response"].tolist() == [answer("Tell a joke")]


def test_skipped_rows_are_not_sent(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", None, "c"]}, index=[5, 5, 5])
    out = ask(df, missing="skip", details=True)
    assert prompts_sent(gateway) == ["Say a", "Say c"]
    assert out["response"].tolist() == [answer("Say a"), pd.NA, answer("Say c")]
    assert out["response_error"].isna().all()
    assert out["response_status"].tolist() == ["ok", "skipped", "ok"]


def test_when_every_row_is_skipped_nothing_is_sent(gateway: StandIn) -> None:
    out = ask(pd.DataFrame({"x": [None, None]}), missing="skip")
    assert out["response"].isna().all()
    assert gateway.log == []


def test_a_tested_missing_value_is_no_error(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", None]})
    out = ask(df, "{% if x %}Say {{ x }}{% else %}Say nothing{% endif %}")
    assert out["response"].tolist() == [answer("Say a"), answer("Say nothing")]


@pytest.mark.parametrize(
    "empty",
    [
        pd.DataFrame({"x": pd.Series([], dtype="string")}),
        pd.DataFrame({"x": []}).set_index(pd.MultiIndex.from_arrays([[], []], names=["a", "b"])),
        pd.DataFrame(columns=["x"]),
        pd.DataFrame({"x": ["a"]}).iloc[:0],
    ],
)
def test_an_empty_frame_comes_back_with_typed_columns_and_nothing_is_sent(
    gateway: StandIn, empty: pd.DataFrame
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = ask(empty, details=True)
    assert len(out) == 0
    assert list(out.columns[:3]) == ["x", "response", "response_error"]
    assert out["response"].dtype == pd.StringDtype()
    assert str(out["response_prompt_tokens"].dtype) == "Int64"
    assert out.index.names == empty.index.names
    assert gateway.log == []


def test_only_what_is_new_is_sent(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a", "b", "c", "d"], "note": range(4)})
    first = ask(df)

    changed = df.copy()
    changed.loc[1, "x"] = "edited"
    changed = pd.concat([changed, pd.DataFrame({"x": ["new"], "note": [9]})])
    changed = changed.iloc[::-1].rename(columns={"note": "remark"}).drop(index=3)
    changed.index = [f"label {i}" for i in range(len(changed))]
    out = ask(changed)
    assert sorted(prompts_sent(gateway)[4:]) == ["Say edited", "Say new"]
    assert_joined(out, changed, [f"Say {x}" for x in changed["x"]])
    assert out["response"].iloc[-1] == first["response"].iloc[0]

    ask(df, temperature=0.5)
    assert len(prompts_sent(gateway)) == 4 + 2 + 4
    ask(df, temperature=0.5)
    ask(df)
    assert len(prompts_sent(gateway)) == 4 + 2 + 4
    ask(df.rename(columns={"x": "y"}), "Say {{ y }}", output="other", details=True)
    assert len(prompts_sent(gateway)) == 4 + 2 + 4
    assert len(gateway.jobs) == 3


def test_whole_numbers_of_any_type_are_one_parameter(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["a"]})
    ask(df, temperature=1)
    ask(df, temperature=1.0)
    ask(df, temperature=np.float32(1))
    assert len(gateway.jobs) == 1
    ask(df, temperature=1, seed=3)
    assert len(gateway.jobs) == 2


def test_files_are_split_at_the_limits_and_joined_again(gateway: StandIn) -> None:
    gateway.behaviour.shuffle = True
    df = pd.DataFrame({"x": [f"{i:03d}" for i in range(100)]})
    with llm.set_options(max_requests_per_file=30):
        out = ask(df)
    assert [len(job.requests) for job in gateway.jobs] == [30, 30, 30, 10]
    assert len(set(gateway.uploads)) == 4
    assert_joined(out, df, [f"Say {x}" for x in df["x"]])
    other = df.assign(x="other " + df["x"])
    with llm.set_options(max_bytes_per_file=2000):
        out = ask(other)
    assert all(len(data) <= 2000 for data in list(gateway.uploads.values())[4:])
    assert_joined(out, other, [f"Say {x}" for x in other["x"]])


def test_many_files_are_sent_in_the_order_of_the_rows(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": [f"{i:03d}" for i in range(12)]})
    with llm.set_options(max_requests_per_file=1):
        ask(df)
    sent = [body["messages"][0]["content"] for job in gateway.jobs for _, body in job.requests]
    assert sent == [f"Say {x}" for x in df["x"]]


# --- preview ----------------------------------------------------------------------------------
def test_preview_shows_what_would_be_sent_and_touches_nothing(
    gateway: StandIn, tmp_path: Any
) -> None:
    df = pd.DataFrame({"x": list("abcdefg")}, index=pd.Index(list("ABCDEFG"), name="k"))
    shown = df.llm.preview("Say {{ x }}", model=MODEL, system="Be {{ index }}", n=3)
    assert list(shown.columns) == ["custom_id", "messages"]
    pd.testing.assert_index_equal(shown.index, df.index[:3])
    assert shown["messages"].iloc[1] == [
        {"role": "system", "content": "Be B"},
        {"role": "user", "content": "Say b"},
    ]
    assert gateway.log == []
    assert list(tmp_path.iterdir()) == []
    out = ask(df, system="Be {{ index }}", details=True)
    assert out["response_custom_id"].tolist()[:3] == shown["custom_id"].tolist()
    assert len(df.llm.preview("Say {{ x }}")) == 5
    assert len(df.llm.preview("Say {{ x }}", n=50)) == 7


def test_a_notebook_shows_prompts_whole_and_wrapped(gateway: StandIn) -> None:
    df = pd.DataFrame({"x": ["<b>\n" + "word " * 50, None]}, index=["a<", "b"])
    shown = df.llm.preview("Say {{ x }}", system="Be brief", missing="skip")
    html = shown._repr_html_()
    assert ("word " * 50).strip() in html
    assert "&lt;b&gt;" in html
    assert html.index("<th>system</th>") < html.index("<th>user</th>")
    assert "row a&lt;" in html
    assert "skipped" in html
    assert type(shown[["messages"]]) is type(shown.head(1)) is pd.DataFrame
    del shown["messages"]
    assert "<table" in shown._repr_html_()


def test_preview_does_not_mind_columns_that_exist(gateway: StandIn) -> None:
    df = ask(pd.DataFrame({"x": ["a"]}))
    assert len(df.llm.preview("Say {{ x }}")) == 1
