"""Hand codes: who is drawn, what coders see, what comes back, and that no code is ever lost.

The draw has its laws; the files are real ones, filled in as people do.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coders import codes_of, fill, sheet_rows, units_of

import nyu_llm_frames  # noqa: F401
from nyu_llm_frames.errors import (
    CodesError,
    CodesWarning,
    ColumnExistsError,
    ConfigurationError,
    MissingColumnError,
)
from nyu_llm_frames.research.coding_sample import allocate, draw, unit_ids, unit_strata
from nyu_llm_frames.research.coding_sheet import settle

LABELS = ["negative", "neutral", "positive"]
PARIS = "u-70f7102d731aec779b1dbabb844d3a34"
in_both = pytest.mark.parametrize("format", ["csv", "xlsx"])


def frame(rows: int = 60) -> pd.DataFrame:
    """Return a frame with a text, a label that a model gave, and an index of its own."""
    labels = ["negative"] * (rows // 6) + ["positive"] * (rows - rows // 6)
    texts = [f"text {i}" for i in range(rows)]
    return pd.DataFrame({"text": texts, "label": labels}, index=[f"r{i}" for i in range(rows)])


def make(folder: str | Path, df: pd.DataFrame | None = None, **given: Any) -> pd.DataFrame:
    """Draw a sample of a frame into CSV files, unless something else is given."""
    asked: dict[str, Any] = {"n": 12, "by": "label", "labels": LABELS, "format": "csv", **given}
    found: pd.DataFrame = (frame() if df is None else df).llm.to_code(folder, "text", **asked)
    return found


# --- units ------------------------------------------------------------------------------------
def test_a_unit_is_a_digest_of_what_the_coder_sees() -> None:
    assert unit_ids([["Paris is in France."]]) == [PARIS]
    assert unit_ids([[None]]) != unit_ids([["None"]]) != unit_ids([["null"]])
    assert unit_ids([["a"], ["b"]]) != unit_ids([["a", "b"]])[:1]


def test_a_units_text_is_what_a_prompt_prints() -> None:
    df = pd.DataFrame({"year": [2020.0, None], "same": pd.array([2020, None], dtype="Int64")})
    one, other = (df.llm.to_code(name, name, n=2, format="csv")["unit"] for name in df)
    assert set(one) == set(other) == set(unit_ids([["2020", None]]))


def test_equal_texts_are_one_unit_and_share_code_and_probability() -> None:
    df = pd.DataFrame({"text": ["same", "other", "same", "third"]})
    design = make("codes", df, n=2, by=None)
    assert len(design) == 2
    assert design["N_h"].tolist() == [3, 3]
    fill(Path("codes/codes_a.csv"), dict.fromkeys(design["unit"], "neutral"))
    out = df.llm.from_codes("codes")
    assert out["code"].iloc[[0]].astype(object).tolist() == out["code"].iloc[[2]].tolist()
    assert out["code_pi"].iloc[0] == out["code_pi"].iloc[2] or out["code_pi"].isna().iloc[0]
    assert design.set_index("unit")["rows"].get(unit_ids([["same"]])[0], 2) == 2


def test_a_unit_of_rows_in_several_strata_is_in_one_whatever_their_order() -> None:
    units, strata = ["u", "u", "u", "v", "v"], ["b", "a", "b", "b", "a"]
    assert unit_strata(units, strata) == {"u": "b", "v": "a"}
    assert unit_strata(units[::-1], strata[::-1]) == {"u": "b", "v": "a"}


# --- the draw ---------------------------------------------------------------------------------
SIZES = st.dictionaries(st.text("abcdefg", min_size=1, max_size=2), st.integers(1, 200), min_size=1)


@given(sizes=SIZES, n=st.integers(1, 500), allocation=st.sampled_from(["proportional", "equal"]))
def test_a_larger_sample_takes_nothing_away_from_any_stratum(
    sizes: dict[str, int], n: int, allocation: Any
) -> None:
    small, large = allocate(sizes, n, allocation), allocate(sizes, n + 1, allocation)
    assert all(small[name] <= large[name] for name in sizes)
    assert all(min(2, size) <= small[name] <= size for name, size in sizes.items())
    least = sum(min(2, size) for size in sizes.values())
    assert sum(small.values()) == max(least, min(n, sum(sizes.values())))


@given(parts=st.lists(st.integers(2, 40), min_size=1, max_size=6), times=st.integers(1, 9))
def test_shares_that_are_whole_come_out_exactly(parts: list[int], times: int) -> None:
    sizes = {f"s{i}": part * times for i, part in enumerate(parts)}
    assert list(allocate(sizes, sum(parts), "proportional").values()) == parts


@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=8),
    n=st.integers(3, 30),
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_a_draw_depends_on_the_units_alone_and_grows(
    rows: list[tuple[int, str]], n: int, seed: int, order: Any
) -> None:
    def drawn(found: list[tuple[int, str]], n: int, use: Any = "test") -> dict[str, float]:
        units, strata = [f"u{i}" for i, _ in found], [stratum for _, stratum in found]
        return {
            d.unit: d.pi
            for d in draw(units, strata, n=n, allocation="proportional", use=use, seed=seed)
        }

    shuffled = list(rows)
    order.shuffle(shuffled)
    small = drawn(rows, n)
    assert small == drawn(shuffled, n)
    assert small.keys() <= drawn(rows, n + 5).keys()
    everything = {f"u{i}" for i, _ in rows}
    total = sum(1 / pi for pi in small.values())
    assert total == pytest.approx(len(everything))  # weights add up to the units there are
    if max(small.values()) <= 0.5:
        assert not small.keys() & drawn(rows, n, "dev").keys()


def test_another_seed_is_another_sample() -> None:
    units = [set(make(f"s{seed}", seed=seed)["unit"]) for seed in (0, 1)]
    assert units[0] != units[1]


def test_na_is_a_stratum_and_each_gives_two() -> None:
    df = frame().assign(label=["rare"] * 3 + [None] * 7 + ["usual"] * 50)
    design = make("codes", df, n=12)
    assert design.groupby("stratum")["n_h"].first().to_dict() == {"NA": 2, "rare": 2, "usual": 8}
    assert design["pi"].tolist() == (design["n_h"] / design["N_h"]).tolist()
    equal = make("equal", df, n=12, allocation="equal")
    assert equal.groupby("stratum")["n_h"].first().to_dict() == {"NA": 5, "rare": 3, "usual": 4}


def test_a_missing_label_and_one_that_says_na_are_two_strata() -> None:
    df = frame().assign(label=["NA"] * 20 + [None] * 40)
    design = make("codes", df)
    assert design.groupby("stratum")["N_h"].first().to_dict() == {'"NA"': 20, "NA": 40}
    df = frame().assign(label=["a | b"] * 20 + ["a"] * 40, other=["c"] * 20 + ["b | c"] * 40)
    assert make("two", df, by=["label", "other"])["stratum"].nunique() == 2


def test_the_design_has_what_an_estimate_needs() -> None:
    df = frame().assign(response_custom_id=[f"r-{i}" for i in range(60)])
    design = make("codes", df, seed=5)
    assert list(design) == [
        "unit",
        "stratum",
        "N_h",
        "n_h",
        "pi",
        "use",
        "seed",
        "by",
        "custom_id",
        "rows",
    ]
    stored = pd.read_parquet("codes/codes_design.parquet")
    pd.testing.assert_frame_equal(stored, design, check_dtype=False)
    assert design[["use", "seed", "by", "rows"]].drop_duplicates().values.tolist() == [
        ["test", 5, "label", 1]
    ]
    assert set(design["custom_id"]) <= set(df["response_custom_id"])


def test_dev_codes_are_none_of_the_test_codes() -> None:
    test, dev = make("codes", n=20), make("codes", n=20, use="dev")
    assert set(dev["use"]) == {"dev"}
    assert not set(test["unit"]) & set(dev["unit"])
    assert set(units_of(Path("codes/codes_a.csv"))) == set(test["unit"]) | set(dev["unit"])
    before = Path("codes/codes_a.csv").read_bytes()
    with pytest.raises(CodesError, match="units drawn for dev are in its test sample already"):
        make("codes", n=50, use="dev")
    assert Path("codes/codes_a.csv").read_bytes() == before
    assert len(pd.read_parquet("codes/codes_design.parquet")) == 40


# --- what coders get --------------------------------------------------------------------------
@in_both
def test_coders_see_texts_in_an_order_of_their_own_and_no_prediction(format: str) -> None:
    design = make("codes", format=format)
    one, two = (Path(f"codes/codes_{name}.{format}") for name in "ab")
    assert sheet_rows(one)[0] == ["unit", "text", "code", "note"]
    assert units_of(one) != units_of(two)
    assert set(units_of(one)) == set(units_of(two)) == set(design["unit"])
    everything = {cell for path in (one, two) for row in sheet_rows(path) for cell in row}
    assert not everything & {"negative", "positive", "test"}


def test_an_excel_file_offers_the_labels_and_keeps_all_cells_text() -> None:
    import openpyxl

    texts = ["=1+1", "007", "1e5", "TRUE", "http://x.org", " a ", "\x00\x1b[31m", "\ud83d", "{=2}"]
    df = pd.DataFrame({"text": texts}, dtype=object)
    for name, labels, formula in (
        ("few", ["007", "no"], '"007,no"'),
        ("comma", ["a, b", "no"], "=labels!$A$1:$A$2"),
        ("many", [f"label {i}" for i in range(60)], "=labels!$A$1:$A$60"),
    ):
        df.llm.to_code(name, "text", n=9, labels=labels)
        book = openpyxl.load_workbook(f"{name}/codes_a.xlsx")
        (rule,) = book["codes"].data_validations.dataValidation
        assert (rule.type, rule.formula1.lstrip("=")) == ("list", formula.lstrip("="))
        assert "C2:C1048576" in str(rule.sqref)
        assert {cell.data_type for cell in book["codes"]["B"]} == {"s"}
        shown = {cell.value for cell in book["codes"]["B"]}
        assert {"=1+1", "007", "1e5", "TRUE", "http://x.org", "{=2}"} <= shown
        assert df.llm.from_codes(name)["code"].isna().all()  # and what was changed is known
        if formula.startswith("="):
            assert [cell.value for cell in book["labels"]["A"]] == labels


def test_a_csv_file_is_for_excel_and_runs_no_formula() -> None:
    df = pd.DataFrame({"text": ["=1+1", "@nyu hello", "-5", "+1 212", "Köln"]})
    make("codes", df, n=5, by=None)
    data = Path("codes/codes_a.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfunit,text,code,note\r\n")
    shown = {row[1] for row in sheet_rows(Path("codes/codes_a.csv"))[1:]}
    assert shown == {"'=1+1", "'@nyu hello", "-5", "'+1 212", "Köln"}
    assert df.llm.from_codes("codes")["code"].isna().all()


def test_a_text_that_excel_would_cut_is_an_error_before_anything_is_written() -> None:
    df = pd.DataFrame({"text": ["short", "x" * 32_767, "😀" * 16_384]})
    with pytest.raises(CodesError, match=r'row 2 .*32,767.*format="csv"') as caught:
        make("codes", df, n=3, by=None, format="xlsx")
    assert caught.value.unit in unit_ids([df["text"].tolist()])
    assert not Path("codes").exists()
    make("codes", df.head(2), n=2, by=None, format="xlsx")
    assert max(len(row[1]) for row in sheet_rows(Path("codes/codes_a.xlsx"))) == 32_767
    make("long", df, n=3, by=None)


# --- called again -----------------------------------------------------------------------------
@in_both
def test_the_same_call_again_writes_no_file(format: str) -> None:
    make("codes", format=format)
    before = {path: path.read_bytes() for path in Path("codes").glob("codes_?.*")}
    make("codes", frame().sample(frac=1, random_state=1), format=format)
    assert before == {path: path.read_bytes() for path in Path("codes").glob("codes_?.*")}


@in_both
def test_a_larger_sample_keeps_all_that_coders_wrote(format: str) -> None:
    small = make("codes", format=format)
    path = Path(f"codes/codes_a.{format}")
    codes = dict.fromkeys(small["unit"][:7], "positive")
    fill(path, codes)
    fill(path, {small["unit"][0]: "why?"}, "note")
    before = sheet_rows(path)
    large = make("codes", format=format, n=30)
    assert set(small["unit"]) < set(large["unit"])
    assert sheet_rows(path)[: len(before)] == before
    assert sorted(units_of(path)) == sorted(large["unit"])
    assert codes_of(path) == codes
    assert units_of(path)[12:] != sorted(large["unit"])[12:]


@in_both
def test_a_column_with_blanks_around_its_name_is_shown_and_checked_like_others(format: str) -> None:
    df = frame().rename(columns={"text": " text\r\n"})
    path = Path(f"codes/codes_a.{format}")
    for n in (12, 30):
        df.llm.to_code("codes", " text\r\n", n=n, labels=LABELS, format=format)
    shown = {row[0]: row[1] for row in sheet_rows(path)}
    texts = df[" text\r\n"].tolist()
    expected = dict(zip(unit_ids([texts]), texts, strict=True))
    assert shown.pop("unit") == "text"
    assert len(shown) == 30
    assert shown.items() <= expected.items()
    fill(path, {next(iter(shown)): "another text"}, "text")
    with pytest.raises(CodesError, match="'text'"):
        df.llm.from_codes("codes")


def test_a_coders_own_columns_colors_and_sheets_stay() -> None:
    import openpyxl
    from openpyxl.comments import Comment
    from openpyxl.styles import PatternFill

    design = make("codes", format="xlsx")
    path = Path("codes/codes_a.xlsx")
    book = openpyxl.load_workbook(path)
    sheet = book["codes"]
    sheet["E1"], sheet["E2"], sheet["F3"] = "doubts", "many", "=1+1"
    sheet["C2"].fill = PatternFill("solid", fgColor="FF0000")
    sheet["C2"].comment = Comment("ask Ana", "a")
    book.create_sheet("mine")["A1"] = "codebook"
    book.save(path)
    make("codes", format="xlsx", n=30)
    book = openpyxl.load_workbook(path)
    sheet = book["codes"]
    assert [sheet["E1"].value, sheet["E2"].value, sheet["F3"].value] == ["doubts", "many", "=1+1"]
    assert sheet["C2"].fill.fgColor.rgb.endswith("FF0000")
    assert sheet["C2"].comment.text == "ask Ana"
    assert book["mine"]["A1"].value == "codebook"
    assert len(units_of(path)) == 30
    assert len(sheet.data_validations.dataValidation) == 1
    assert sheet.cell(31, 3).number_format == "@"
    assert set(design["unit"]) < set(units_of(path))


@in_both
def test_an_interrupted_call_is_finished_by_the_next(format: str) -> None:
    design = make("codes", format=format)
    Path(f"codes/codes_b.{format}").unlink()
    make("codes", format=format)
    assert set(units_of(Path(f"codes/codes_b.{format}"))) == set(design["unit"])


@pytest.mark.parametrize("mark", [".~lock.codes_a.csv#", "~$codes_a.csv"])
def test_a_file_that_is_open_is_not_written_and_read_as_it_was_saved(mark: str) -> None:
    make("codes")
    Path("codes", mark).write_text("somebody")
    before = {path: path.read_bytes() for path in Path("codes").iterdir()}
    with pytest.raises(CodesError, match="is open in a spreadsheet program") as caught:
        make("codes", n=30)
    assert caught.value.file == "codes_a.csv"
    assert before == {path: path.read_bytes() for path in Path("codes").iterdir()}
    with pytest.warns(CodesWarning, match=r"codes_a.csv is open in a spreadsheet program"):
        frame().llm.from_codes("codes")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n": 8}, "can be made larger, not smaller"),
        ({"seed": 1}, "seed=, by=, allocation="),
        ({"by": None, "n": 60}, "the strata are not those"),
        ({"df": frame(72), "n": 72}, "is one of 12 in"),
    ],
)
def test_another_draw_needs_another_folder(changed: dict[str, Any], told: str) -> None:
    make("codes")
    before = {path: path.read_bytes() for path in Path("codes").iterdir()}
    with pytest.raises(CodesError, match=told):
        make("codes", **changed)
    assert before == {path: path.read_bytes() for path in Path("codes").iterdir()}


def test_other_shown_columns_and_lost_designs_need_another_folder() -> None:
    make("codes")
    with pytest.raises(CodesError, match="its coders see 'text'"):
        frame().llm.to_code("codes", ["text", "label"], format="csv")
    Path("codes/codes_design.parquet").write_bytes(b"PAR1")
    with pytest.raises(CodesError, match=r"codes_design.parquet cannot be read"):
        frame().llm.from_codes("codes")
    Path("codes/codes_design.parquet").unlink()
    with pytest.raises(CodesError, match=r"holds files of coders and no codes_design.parquet"):
        make("codes")
    with pytest.raises(CodesError, match=r"holds no codes_design.parquet"):
        frame().llm.from_codes("codes")


def test_a_third_coder_and_a_fourth_label_may_come_later() -> None:
    make("codes", labels=LABELS[:2])
    before = frame().llm.from_codes("codes")
    make("codes", n=14, labels=LABELS, coders=("c",))
    assert all(len(units_of(Path(f"codes/codes_{c}.csv"))) == 14 for c in "abc")
    unit = units_of(Path("codes/codes_a.csv"))[0]
    fill(Path("codes/codes_a.csv"), {unit: "positive"})
    assert list(before.llm.from_codes("codes")["code_c"].dropna()) == []
    out = frame().llm.from_codes("codes")
    assert list(out.columns[-8:]) == [
        "code", "code_a", "code_b", "code_c", "code_pi", "code_stratum", "code_use", "code_unit",
    ]  # fmt: skip
    assert list(out["code"].cat.categories) == LABELS


# --- what comes back --------------------------------------------------------------------------
def coded(folder: str, **by_coder: dict[str, str]) -> None:
    for coder, codes in by_coder.items():
        fill(next(Path(folder).glob(f"codes_{coder}.*")), codes)


@in_both
def test_codes_are_joined_by_unit_and_the_frame_stays(format: str) -> None:
    df = frame()
    design = make("codes", format=format)
    codes = {unit: LABELS[i % 3] for i, unit in enumerate(design["unit"])}
    coded("codes", a=codes, b=codes)
    before = df.copy()
    out = df.sample(frac=1, random_state=3).llm.from_codes("codes", output="human").loc[df.index]
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(out[list(df)], df)
    said = dict(zip(unit_ids([df["text"].tolist()]), out["human"], strict=True))
    assert {unit: code for unit, code in said.items() if pd.notna(code)} == codes
    assert out["human"].equals(out["human_a"])
    drawn = out[out["human"].notna()]
    assert drawn["human_pi"].tolist() == pytest.approx([12 / 60] * 12)
    assert (drawn["human_stratum"] == drawn["label"]).all()
    assert set(drawn["human_use"]) == {"test"}
    assert out["human_pi"].notna().sum() == 12


def test_a_missing_file_of_a_coder_is_named() -> None:
    design = make("codes")
    coded("codes", a=dict.fromkeys(design["unit"], "neutral"))
    Path("codes/codes_b.csv").unlink()
    with pytest.warns(CodesWarning, match=r"codes lacks codes_b\.\*: .*Put it back") as told:
        out = frame().llm.from_codes("codes")
    assert told[0].filename == __file__
    assert out["code"].notna().sum() == 12
    assert out["code_b"].isna().all()
    Path("codes/codes_a.csv").unlink()
    with pytest.warns(CodesWarning, match=r"codes_a\.\*, codes_b\.\*"):
        frame().llm.from_codes("codes")


def test_where_coders_differ_a_third_file_decides() -> None:
    df = frame()
    units = make("codes", format="xlsx")["unit"].tolist()
    first = dict.fromkeys(units, "positive")
    coded("codes", a=first, b={**first, units[0]: "negative", units[1]: "neutral"})
    with pytest.warns(CodesWarning, match=r"differ on 2 of 12 units.*codes_settle.xlsx") as told:
        out = df.llm.from_codes("codes")
    assert len(told) == 1
    assert told[0].filename == __file__
    assert out["code"].notna().sum() == 10
    path = Path("codes/codes_settle.xlsx")
    header, *rows = sheet_rows(path)
    assert header == ["unit", "text", "code_a", "code_b", "code", "note"]
    assert {row[0]: row[2:4] for row in rows} == {
        units[0]: ["positive", "negative"],
        units[1]: ["positive", "neutral"],
    }
    fill(path, {units[0]: "negative"})
    with pytest.warns(CodesWarning, match="differ on 1 of 12"):
        out = out.llm.from_codes("codes")
    assert codes_of(path) == {units[0]: "negative"}
    fill(path, {units[1]: "neutral"})
    out = out.llm.from_codes("codes")
    assert out["code"].notna().sum() == 12
    assert out["code"].value_counts().to_dict() == {"positive": 10, "negative": 1, "neutral": 1}
    # A later dispute is added below what was decided.
    fill(Path("codes/codes_b.xlsx"), {units[2]: "neutral"})
    with pytest.warns(CodesWarning, match="differ on 1 of 12"):
        df.llm.from_codes("codes")
    assert units_of(path)[2:] == [units[2]]
    assert codes_of(path) == {units[0]: "negative", units[1]: "neutral"}


def test_texts_that_excel_would_cut_are_settled_in_a_csv_file() -> None:
    df = frame()
    df.iloc[0, 0] = "long " * 10_000
    units = make("codes", df, n=60)["unit"]
    coded("codes", a=dict.fromkeys(units[:1], "neutral"), b=dict.fromkeys(units[:1], "positive"))
    long = unit_ids([["long " * 10_000]])[0]
    with pytest.warns(CodesWarning, match=r"codes_settle\.xlsx: fill"):
        df.llm.from_codes("codes")
    coded("codes", a=dict.fromkeys(units, "neutral"), b=dict.fromkeys(units, "positive"))
    with pytest.warns(CodesWarning, match=r"codes_settle\.csv and .*codes_settle\.xlsx: fill"):
        df.llm.from_codes("codes")
    files = [Path("codes/codes_settle.csv"), Path("codes/codes_settle.xlsx")]
    assert sorted(u for file in files for u in units_of(file)) == sorted(units)
    fill(files[0], {long: "negative"})
    with pytest.warns(CodesWarning, match=f"differ on {len(units) - 1} of"):
        out = df.llm.from_codes("codes")
    assert out["code"].iloc[0] == "negative"


def test_a_majority_may_decide() -> None:
    codes = {"a": {"u": "x", "v": "x"}, "b": {"u": "x", "v": "y"}, "c": {"u": "y", "w": "z"}}
    assert settle(codes, {}, majority=True) == ({"u": "x", "w": "z"}, ["v"])
    assert settle(codes, {}, majority=False) == ({"w": "z"}, ["u", "v"])
    assert settle(codes, {"v": "y"}, majority=True)[0] == {"v": "y", "u": "x", "w": "z"}


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.dictionaries(st.sampled_from("uvw"), st.sampled_from("xy"))
    ),
    st.dictionaries(st.sampled_from("uvw"), st.sampled_from("xy")),
    st.booleans(),
)
def test_each_coded_unit_is_settled_or_disputed(
    codes: dict[str, dict[str, str]], decided: dict[str, str], majority: bool
) -> None:
    settled, disputed = settle(codes, decided, majority=majority)
    assert settled.keys() | set(disputed) == {*decided, *(u for c in codes.values() for u in c)}
    assert not settled.keys() & set(disputed)
    for unit in disputed:
        assert len({c[unit] for c in codes.values() if unit in c}) > 1


@in_both
def test_a_half_filled_file_leaves_the_rest_open(format: str) -> None:
    units = make("codes", format=format)["unit"]
    coded("codes", a=dict.fromkeys(units[:5], "neutral"))
    out = frame().llm.from_codes("codes")
    assert out["code"].notna().sum() == out["code_a"].notna().sum() == 5
    assert out["code_b"].isna().all()
    assert out["code_pi"].notna().sum() == 12


def test_codes_without_labels_are_text() -> None:
    units = make("codes", labels=None)["unit"]
    given = ["007", "TRUE", "1e5", "yes, sure", "Ja"]
    coded("codes", a=dict(zip(units, given, strict=False)))
    out = frame().llm.from_codes("codes")
    assert set(out["code"].dropna()) == set(given)
    assert isinstance(out["code"].dtype, pd.StringDtype)


def test_one_coders_two_formats_are_read_together() -> None:
    units = make("codes", format="xlsx")["unit"]
    make("other", format="csv")
    path = Path("codes/codes_a.csv")
    Path("other/codes_a.csv").rename(path)
    fill(path, {units[0]: "neutral"})
    assert frame().llm.from_codes("codes")["code"].notna().sum() == 1
    fill(Path("codes/codes_a.xlsx"), {units[0]: "positive"})
    with pytest.raises(CodesError, match="in the coder's other file") as caught:
        frame().llm.from_codes("codes")
    assert caught.value.unit == units[0]


# --- bad input --------------------------------------------------------------------------------
def break_cell(path: Path, column: str, text: str, row: int = 3) -> str:
    """Put a text into a cell of a coder's file, counted as spreadsheet programs do."""
    rows = sheet_rows(path)
    rows[row - 1][rows[0].index(column)] = text
    path.write_text("\n".join(",".join(cells) for cells in rows), encoding="utf-8-sig")
    return rows[row - 1][0]


@pytest.mark.parametrize(
    ("column", "text", "told"),
    [
        ("code", "positiv", r"'positiv' is not one of the labels: 'positive', "),
        ("unit", PARIS, "this unit is not in codes_design.parquet"),
        ("text", "text 3!", r"no row of the frame has the text in 'text', 'text 3!'"),
    ],
)
def test_an_error_names_file_row_and_unit(column: str, text: str, told: str) -> None:
    make("codes")
    unit = break_cell(Path("codes/codes_b.csv"), column, text)
    with pytest.raises(CodesError, match=f"^codes_b.csv, row 3, unit {unit}: .*{told}") as caught:
        frame().llm.from_codes("codes")
    assert (caught.value.file, caught.value.row, caught.value.unit) == ("codes_b.csv", 3, unit)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.row) == (str(caught.value), 3)


def test_two_codes_for_one_unit_are_an_error_and_two_equal_ones_are_not() -> None:
    make("codes")
    path = Path("codes/codes_a.csv")
    unit = units_of(path)[0]
    row = sheet_rows(path)[1]
    text = path.read_text("utf-8-sig")
    path.write_text(f"{text}{unit},{row[1]},neutral,\r\n{unit},{row[1]},neutral,\r\n", "utf-8-sig")
    assert frame().llm.from_codes("codes")["code"].notna().sum() == 1
    fill(path, {unit: "neutral"})
    path.write_text(path.read_text("utf-8-sig") + f"{unit},{row[1]},positive,\r\n", "utf-8-sig")
    with pytest.raises(CodesError, match=r"row 16, .*'positive', and 'neutral' in row 2"):
        frame().llm.from_codes("codes")


def test_a_column_sorted_without_the_others_is_found() -> None:
    make("codes")
    path = Path("codes/codes_a.csv")
    rows = sheet_rows(path)
    for row, text in zip(rows[1:], sorted(row[1] for row in rows[1:]), strict=True):
        row[1] = text
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8-sig")
    with pytest.raises(CodesError, match="Was one column sorted without the others"):
        frame().llm.from_codes("codes")


def test_a_frame_whose_texts_changed_is_told() -> None:
    design = make("codes")
    df = frame()
    units = unit_ids([df["text"].tolist()])
    at = units.index(design["unit"][0])
    df.iloc[at, 0] = "another text"
    with pytest.raises(CodesError, match=f"unit {units[at]}: no row of the frame has this text"):
        df.llm.from_codes("codes")
    with pytest.raises(MissingColumnError, match="show= or by= names 'txt', which is not a column"):
        frame().llm.to_code("others", "txt")
    with pytest.raises(MissingColumnError, match="'text', which is not a column"):
        frame().drop(columns="text").llm.from_codes("codes")


def test_a_frame_with_more_or_fewer_texts_than_the_sample_was_drawn_from_is_a_warning() -> None:
    design = make("codes", n=6, use="dev")
    make("codes")
    drawn = frame()["text"].isin(frame().llm.from_codes("codes").dropna(subset="code_pi")["text"])
    assert drawn.sum() == 12 + len(design)
    more = pd.concat([frame(), frame(63).iloc[60:]])
    for df, n in ((more, 63), (frame()[drawn], 18)):
        with pytest.warns(CodesWarning, match=f"drawn from 60 texts, and the frame has {n}") as e:
            out = df.llm.from_codes("codes")
        assert e[0].filename == __file__
        assert out["code_pi"].notna().sum() == 18


def test_a_damaged_column_can_be_deleted() -> None:
    make("codes")
    path = Path("codes/codes_a.csv")
    rows = [[row[0], row[2]] for row in sheet_rows(path)]
    rows[1][1] = "neutral"
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8-sig")
    assert frame().llm.from_codes("codes")["code"].notna().sum() == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("codes_a (1).csv", "belongs to none of the coders"),
        ("codes_c.xlsx", "belongs to none of the coders"),
        ("codes_a.ods", "Save it as .xlsx or .csv"),
    ],
)
def test_a_file_that_would_not_be_read_or_counted_twice_is_told(name: str, told: str) -> None:
    make("codes")
    Path("codes", name).write_bytes(Path("codes/codes_a.csv").read_bytes())
    with pytest.raises(CodesError, match=told):
        frame().llm.from_codes("codes")


def test_files_that_are_none_are_told() -> None:
    make("codes", format="xlsx")
    Path("codes/codes_a.xlsx").write_bytes(b"PK\x03\x04 not a workbook")
    with pytest.raises(CodesError, match=r"codes_a.xlsx is no .xlsx file that can be read"):
        frame().llm.from_codes("codes")
    make("plain")
    Path("plain/codes_a.csv").write_bytes(b'"unit,text,code,note"\r\n')
    with pytest.raises(CodesError, match="has no column 'unit' in its first row"):
        frame().llm.from_codes("plain")


def test_a_folder_that_cannot_be_made_is_told() -> None:
    Path("file").write_text("x")
    for folder, told in (("file", "is a file"), ("file/codes", "cannot be made")):
        with pytest.raises(CodesError, match=told):
            make(folder)


def test_columns_that_are_somebody_elses_are_not_replaced() -> None:
    make("codes")
    df = frame().assign(code="mine")
    with pytest.raises(ColumnExistsError, match=r"already has 'code', .* with output="):
        df.llm.from_codes("codes")
    out = df.llm.from_codes("codes", output="human")
    assert out.llm.from_codes("codes", output="human").equals(out)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"n": 0}, "n must be a whole number from 1, not 0"),
        ({"n": True}, "n must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"allocation": "optimal"}, "allocation must be 'proportional' or 'equal'"),
        ({"use": "train"}, "use must be 'test' or 'dev'"),
        ({"format": "ods"}, "format must be 'xlsx' or 'csv'"),
        ({"labels": "abc"}, "labels must be a list"),
        ({"labels": ["a", "a "]}, "labels must be different"),
        ({"coders": ("a", "A")}, "coders must be different"),
        ({"coders": 2}, "coders must be names"),
        ({"coders": ("a/b",)}, "needs a name of letters"),
        ({"coders": ("settle",)}, "No coder can be called 'settle'"),
        ({"by": "text"}, "by= makes 60 strata, and n=12"),
        ({"by": "labell"}, "Columns: 'label'"),
        (
            {"df": frame().rename(columns={"text": "code"}), "show": "code"},
            "would be called 'code'",
        ),
        ({"df": frame(0)}, "no rows"),
    ],
)
def test_an_argument_without_meaning_is_an_error(given: dict[str, Any], told: str) -> None:
    df, show = given.pop("df", frame()), given.pop("show", "text")
    asked: dict[str, Any] = {"n": 12, "by": "label", "format": "csv", **given}
    with pytest.raises((ConfigurationError, MissingColumnError), match=told):
        df.llm.to_code("codes", show, **asked)
    assert not Path("codes").exists()


def test_reading_codes_warns_of_nothing_when_all_is_well() -> None:
    units = make("codes")["unit"]
    coded("codes", a=dict.fromkeys(units, "neutral"), b=dict.fromkeys(units, "neutral"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame().llm.from_codes("codes")
