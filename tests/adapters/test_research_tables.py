"""Hand codes and statistics are those of pandas for every kind of table that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from support.kinds import KINDS

import nyu_llm_frames
from nyu_llm_frames.errors import CodesWarning, ConfigurationError, MissingColumnError

pl = pytest.importorskip("polars")
import nyu_llm_frames.polars  # noqa: E402, F401

LAZY = pytest.mark.parametrize("lazy", [False, True], ids=["DataFrame", "LazyFrame"])
SAME = ["int8", "int64", "uint64", "float", "float32", "bool", "text", "date", "seconds", "zone",
        "decimal", "choice", "list"]  # fmt: skip


def polars_of(table: pa.Table, lazy: bool = False) -> Any:
    frame = pl.from_arrow(table)
    return frame.lazy() if lazy else frame


def coded_by(folder: Path, codes: dict[str, str], coder: str) -> None:
    """Fill in a coder's file by the text that it shows."""
    path = folder / f"codes_{coder}.csv"
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    sheet["code"] = sheet["text"].map(codes)
    sheet.to_csv(path, index=False, encoding="utf-8-sig")


@LAZY
@pytest.mark.parametrize("kind", SAME)
def test_a_unit_is_the_same_at_both_doors(tmp_path: Path, kind: str, lazy: bool) -> None:
    values, type_ = KINDS[kind]
    table = pa.table({"x": pa.array(values, type_), "n": range(len(values))})
    options: Any = {"n": 9, "by": "x", "format": "csv", "coders": ["a"]}
    expected = table.to_pandas().llm.to_code(tmp_path / "pandas", ["x", "n"], **options)
    found = polars_of(table, lazy).llm.to_code(tmp_path / "polars", ["x", "n"], **options)
    pd.testing.assert_frame_equal(found, expected)
    sheets = [(tmp_path / door / "codes_a.csv").read_bytes() for door in ("pandas", "polars")]
    assert sheets[0] == sheets[1]


@LAZY
def test_codes_drawn_in_pandas_are_read_beside_polars_rows(tmp_path: Path, lazy: bool) -> None:
    texts = ["broke", "superb", "broke", "dull", None]
    frame = pd.DataFrame({"text": texts, "n": range(5)})
    frame.llm.to_code(tmp_path, "text", n=3, labels=["p", "n"], format="csv", seed=4)
    coded_by(tmp_path, {"broke": "n", "superb": "p", "dull": "n"}, "a")
    coded_by(tmp_path, {"broke": "n", "superb": "n", "dull": "n"}, "b")
    table = pl.DataFrame({"text": texts, "n": range(5)})
    given = table.lazy() if lazy else table

    with pytest.warns(CodesWarning):
        expected, out = frame.llm.from_codes(tmp_path), given.llm.from_codes(tmp_path)
    assert type(out) is type(given)
    out = out.collect() if lazy else out
    assert out.columns == expected.columns.tolist()
    assert out.select(table.columns).equals(table)
    labels = pl.Enum(["p", "n"])
    assert out.schema["code"] == out.schema["code_a"] == labels
    assert out.schema["code_pi"] == pl.Float64
    assert out["code_pi"].null_count() > 0
    assert out.schema["code_use"] == pl.Enum(["test", "dev"])
    assert out.schema["code_unit"] == out.schema["code_stratum"] == pl.String
    for name in out.columns:
        plain = [None if pd.isna(v) else v for v in expected[name].astype(object)]
        assert out[name].to_list() == plain, name


@LAZY
def test_statistics_are_those_of_pandas(lazy: bool) -> None:
    n = 60
    values = {
        "label": ["n", "p", None] * (n // 3),
        "code": ["n", "p", "p", None] * (n // 4),
        "code_pi": [0.75, 0.75, 0.75, float("nan")] * (n // 4),
        "place": ["x", None, "y", "x", "y"] * (n // 5),
        "y": [1, 0, 1, 0, None, 1] * (n // 6),
        "y_hand": [1, None, 0] * (n // 3),
        "age": [float(i % 7) for i in range(n)],
        "tags": [["a"], ["a", "b"], None] * (n // 3),
        "more": [["b"], ["a", "b"], ["c"], []] * (n // 4),
    }
    pandas = pd.DataFrame(values)
    for name in ("y", "y_hand"):
        pandas[name] = pandas[name].astype("Int64")
    labels = ["p", "n"]
    for name in ("label", "code"):
        pandas[name] = pd.Categorical(pandas[name], categories=labels)
    table = pl.DataFrame(values).with_columns(pl.col("label", "code").cast(pl.Enum(labels)))
    given: Any = table.lazy() if lazy else table

    def check(found: Any, expected: Any, *names: str) -> None:
        for name in names:
            pd.testing.assert_frame_equal(
                getattr(found, name), getattr(expected, name), check_dtype=False
            )

    options: Any = {"by": "place", "resamples": 50}
    expected = pandas.llm.evaluate("code", "label", **options)
    check(given.llm.evaluate("code", "label", **options), expected,
          "coverage", "metrics", "classes", "confusion", "by")  # fmt: skip
    check(given.llm.agreement(["code", "label"], resamples=50),
          pandas.llm.agreement(["code", "label"], resamples=50), "metrics", "rows")  # fmt: skip
    check(given.llm.agreement(["tags", "more"], resamples=50),
          pandas.llm.agreement(["tags", "more"], resamples=50), "metrics")  # fmt: skip
    arguments: Any = {"truth": {"y": "y_hand"}, "pi": 0.67}
    check(given.llm.correct("y ~ age + C(place)", **arguments),
          pandas.llm.correct("y ~ age + C(place)", **arguments), "table")  # fmt: skip


def test_a_missing_column_is_named_as_in_pandas(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["a"]})
    with pytest.raises(MissingColumnError, match="'txet'"):
        frame.llm.evaluate("txet", "text")
    with pytest.raises(MissingColumnError, match="'txet'"):
        frame.llm.to_code(tmp_path, "txet", format="csv")


def test_cells_that_arrow_lacks_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object), "y": ["a"]})
    with pytest.raises(ConfigurationError, match="type Object"):
        frame.llm.agreement(["x", "y"])
    with pytest.raises(ConfigurationError, match="type Object"):
        frame.llm.to_code(tmp_path, "x", format="csv")
    frame.llm.to_code(tmp_path, "y", format="csv")  # a column that is not shown may be anything


@pytest.mark.parametrize("name", ["to_code", "from_codes", "evaluate", "agreement", "correct"])
def test_dask_says_to_compute_the_columns_first(name: str) -> None:
    dd = pytest.importorskip("dask.dataframe")
    import nyu_llm_frames.dask  # noqa: F401

    frame = dd.from_pandas(pd.DataFrame({"text": ["a"]}), npartitions=1)
    # All rows: a correction of the coded ones alone is wrong.
    with pytest.raises(AttributeError, match=rf"Compute the columns .* first: .*\.{name}\("):
        getattr(frame.llm, name)
    assert not hasattr(frame.llm, "answer")
