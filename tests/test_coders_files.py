"""Coders' files as spreadsheet programs leave them: whatever they do to cells, codes come back.

`data/hand_codes` was written by `to_code`, and opened, sorted, coded and saved by LibreOffice
(`support/coding_round.py`); where LibreOffice is, the round is played anew. What Excel does to
cells is in lists.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.worksheet.formula import ArrayFormula
from support import coding_round as played
from support.coders import codes_of, sheet_rows, units_of

from nyu_llm_frames.errors import CodesError, CodesWarning
from nyu_llm_frames.research.cell_damage import csv_text, label_of, plain_text, same_cell, storable
from nyu_llm_frames.research.coding_files import lost
from nyu_llm_frames.research.coding_sample import unit_ids

FRAME = played.FRAME
UNITS = unit_ids([[None if pd.isna(c) else c for c in FRAME[n]] for n in ("id", "text")])


def check_round(folder: Path) -> None:
    """Hold what is read against what the coders typed."""
    for format, coders in played.CODERS.items():
        units = pd.read_parquet(folder / format / "codes_design.parquet")["unit"].tolist()
        assert len(units) == played.N
        with pytest.warns(CodesWarning, match="Coders differ"):
            out = FRAME.llm.from_codes(folder / format)
        for coder in coders:
            found = dict(zip(UNITS, out[f"code_{coder}"].astype(object), strict=True))
            said = {unit: code for unit, code in found.items() if pd.notna(code)}
            assert said == played.codes(units, coder), coder


def test_what_a_spreadsheet_program_saved_is_what_coders_typed(tmp_path: Path) -> None:
    shutil.copytree(played.KEPT, tmp_path / "kept")
    check_round(tmp_path / "kept")


def test_the_program_did_sort_and_damage_the_files() -> None:
    """The kept files are worth reading: without a mend of cells, none of these would be joined."""
    rows = sheet_rows(played.KEPT / "csv/codes_e.csv")
    ids, codes = {row[1] for row in rows}, {row[3] for row in rows}
    assert {"01/02/26", "7", "1.00E+05", "3.5", "1.23456789012346E+019"} <= ids
    assert codes - set(played.LABELS) - {"code", ""} == {"7", "1.00E+05"}
    assert b"K\xf6ln \x96 sch\xf6n ?" in (played.KEPT / "xlsx/codes_b.csv").read_bytes()
    assert (played.KEPT / "xlsx/codes_c.csv").read_bytes().startswith(b"\xff\xfe")
    texts = [row[2] for row in sheet_rows(played.KEPT / "xlsx/codes_a.xlsx")[1:]]
    assert {"=SUM(A1)", "Köln – schön 😀", "two\nlines", "tab\there"} <= set(texts)
    units = units_of(played.KEPT / "xlsx/codes_a.xlsx")
    assert units != units_of(played.KEPT / "xlsx/codes_d.csv")


@pytest.mark.parametrize("format", ["xlsx", "csv"])
def test_files_that_a_program_saved_get_further_units(tmp_path: Path, format: str) -> None:
    shutil.copytree(played.KEPT, tmp_path / "kept")
    # Of each coder the file of the format that was drawn; the other kinds stay as they are.
    folder = tmp_path / "kept" / format
    for path in folder.glob("codes_?.*"):
        if path.suffix != f".{format}":
            path.unlink()
    coder = {"xlsx": "a", "csv": "e"}[format]
    path = folder / f"codes_{coder}.{format}"
    before, codes = sheet_rows(path), codes_of(path)
    played.draw(tmp_path / "kept", format, n=12)
    assert sheet_rows(path)[: len(before)] == before
    assert codes_of(path) == codes
    assert sorted(units_of(path)) == sorted(UNITS)
    out = FRAME.llm.from_codes(folder)
    assert out["code_pi"].tolist() == [1.0] * 12
    assert out["code"].notna().sum() == len(codes)


@pytest.mark.parametrize("name", ["xlsx/codes_b.csv", "xlsx/codes_c.csv"])
def test_a_csv_file_of_another_form_is_made_longer_in_it(tmp_path: Path, name: str) -> None:
    shutil.copytree(played.KEPT, tmp_path / "csv")
    coder = name[-5]
    for path in (tmp_path / "csv/xlsx").glob("codes_?.*"):
        if path.name != name[5:]:
            path.unlink()
    FRAME.llm.to_code(
        tmp_path / "csv/xlsx", ["id", "text"], n=12, labels=played.LABELS, coders=coder,
        format="csv", seed=2,
    )  # fmt: skip
    out = FRAME.llm.from_codes(tmp_path / "csv/xlsx")
    assert out[f"code_{coder}"].notna().sum() == played.N - 1
    assert out["code_pi"].tolist() == [1.0] * 12


def has_office() -> bool:
    """Whether LibreOffice is here, and a Python that can drive it."""
    if shutil.which("soffice") is None or not Path(played.UNO_PYTHON).exists():
        return False
    done = subprocess.run([played.UNO_PYTHON, "-c", "import uno"], capture_output=True, check=False)
    return done.returncode == 0


if has_office():  # else there is no such test: the kept files are of the same round

    def test_a_round_in_libreoffice(tmp_path: Path) -> None:
        played.play(tmp_path)
        check_round(tmp_path)
        # What coders differ on is settled there, too.
        path = tmp_path / "xlsx/codes_settle.xlsx"
        units = units_of(path)
        decided = dict.fromkeys(units, "1e5")
        save = [str(path), played.EXCEL, ""]
        played.run_office([{"open": str(path), "codes": decided, "sort": "text", "save": [save]}])
        out = FRAME.llm.from_codes(tmp_path / "xlsx")
        assert set(out["code"].dropna()) == {"1e5"}
        assert out["code"].notna().sum() == len(units) == played.N


# --- what is known of a cell ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("007", "7"),
        ("1e5", "1.00E+05"),
        ("1e5", "100000"),
        ("3.50", "3,5"),
        ("1234567890123456789", "1.23457E+18"),
        ("1234567890123456789", "1234567890123450000"),
        ("true", "TRUE"),
        ("2024-01-05", "05.01.2024"),
        ("2024-01-05", "1/5/2024"),
        ("2024-01-05 10:30:00", "1/5/2024 10:30"),
        ("1-2", "02-Jan"),
        ("1/2", "02.01.2026"),
        ("a\r\nb", "a\nb"),
        ("a\x00b", "a_x0000_b"),
        ("=1+1", "'=1+1"),
        ("Köln 😀", "Köln ?"),
        ("Köln 😀", "Köln ??"),
        (None, ""),
        ("  ", ""),
    ],
)
def test_a_cell_that_a_program_changed_is_known(written: str | None, found: str) -> None:
    assert same_cell(written, found)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("good", "goof"),
        ("good", ""),
        ("007", "8"),
        ("7", "7 good"),
        ("1234567", "1234568"),
        ("1.5", "15"),
        ("2024-01-05", "2024-01-06"),
        ("2024-01-05", "2024-01-05 10:30"),
        ("1-2", "1-3-2026"),
        ("true", "false"),
        ("你好", "??"),
        ("why", "wh?"),
    ],
)
def test_a_cell_that_somebody_changed_is_not_the_same(written: str, found: str) -> None:
    assert not same_cell(written, found)


@pytest.mark.parametrize(
    ("found", "labels", "label"),
    [
        ("7", ["007", "8"], "007"),
        ("7", ["007", "7"], "7"),
        ("7", ["007", "07"], None),
        ("100000", ["1e5", "no"], "1e5"),
        ("TRUE", ["true", "false"], "true"),
        ("02-Jan", ["1-2", "3-4"], "1-2"),
        ("02-Jan", ["1-2", "2-1"], None),
        ("Yes", ["yes"], None),
    ],
)
def test_a_label_is_known_when_only_one_can_be_meant(
    found: str, labels: list[str], label: str | None
) -> None:
    assert label_of(found, labels) == label


TEXTS = st.text(st.characters(codec=None), max_size=30)


@given(TEXTS)
def test_every_text_is_known_after_it_was_made_storable(text: str) -> None:
    stored = storable(text)
    stored.encode()  # no half of a pair
    assert same_cell(text, stored)
    assert same_cell(text, csv_text(stored))
    assert plain_text(plain_text(text)) == plain_text(text) or "_x" in text


@given(TEXTS, TEXTS)
def test_sameness_is_that_of_words_where_nothing_is_a_number(one: str, other: str) -> None:
    kinds = {one.strip().lower(), other.strip().lower()}
    if kinds & {"true", "false"} or any(c.isdigit() or c in "?'_" for c in one + other):
        return
    assert same_cell(one, other) == (plain_text(one) == plain_text(other))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=4), st.sampled_from(["xlsx", "csv"]))
def test_any_text_goes_through_a_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], format: Any
) -> None:
    df = pd.DataFrame(rows, columns=["one", "other"], dtype=object)
    folder = tmp_path_factory.mktemp("any")
    design = df.llm.to_code(folder, ["one", "other"], n=4, format=format)
    out = df.llm.from_codes(folder)
    assert out["code_pi"].notna().all()
    assert set(units_of(folder / f"codes_b.{format}")) == set(design["unit"])


def test_a_files_error_value_is_no_code(tmp_path: Path) -> None:
    import openpyxl

    df = pd.DataFrame({"text": ["a", "b"]})
    df.llm.to_code(tmp_path / "codes", "text", n=2)
    book = openpyxl.load_workbook(tmp_path / "codes/codes_a.xlsx")
    book["codes"]["C3"] = "#NAME?"
    book["codes"]["C3"].data_type = "e"
    book.save(tmp_path / "codes/codes_a.xlsx")
    with pytest.raises(CodesError, match=r"codes_a.xlsx, row 3: the cell C3 holds the error #NAME"):
        df.llm.from_codes(tmp_path / "codes")


def test_numbers_in_cells_are_read_as_they_are_shown(tmp_path: Path) -> None:
    import datetime

    import openpyxl

    df = pd.DataFrame({"text": list("abcdef")})
    df.llm.to_code(tmp_path, "text", n=6)
    book = openpyxl.load_workbook(tmp_path / "codes_a.xlsx")
    sheet = book["codes"]
    given = [7.0, 0.5, True, datetime.datetime(2026, 1, 2), datetime.time(10, 30), 12]
    for number, value in enumerate(given, start=2):
        sheet.cell(number, 3).value = value
    book.save(tmp_path / "codes_a.xlsx")
    found = df.llm.from_codes(tmp_path)["code"].tolist()
    assert sorted(found) == ["0.5", "10:30:00", "12", "2026-01-02", "7", "TRUE"]


@pytest.mark.parametrize("original", [None, "yes"])
def test_codes_in_a_copy_of_the_sheet_are_not_left_out_without_a_word(
    tmp_path: Path, original: str | None
) -> None:
    import openpyxl

    df = pd.DataFrame({"text": list("abcdef")})
    df.llm.to_code(tmp_path, "text", n=6, coders=["a"])
    path = tmp_path / "codes_a.xlsx"
    book = openpyxl.load_workbook(path)
    book["codes"]["C2"] = original
    copy = book.copy_worksheet(book["codes"])
    copy.title = "second thoughts"
    copy["C2"] = None
    book.create_sheet("empty")
    book.save(path)
    assert df.llm.from_codes(tmp_path)["code"].notna().sum() == (original is not None)
    copy["C3"] = "no"
    book.save(path)
    with pytest.raises(CodesError, match="codes in the sheet 'second thoughts', and those of 'co"):
        df.llm.from_codes(tmp_path)
    with pytest.raises(CodesError, match="Keep one of the two"):
        df.head(6).llm.to_code(tmp_path, "text", n=6, coders=["a"])


def test_merged_codes_are_named_for_only_the_first_row_has_one(tmp_path: Path) -> None:
    import openpyxl

    df = pd.DataFrame({"text": list("abcdef")})
    df.llm.to_code(tmp_path, "text", n=6, coders=["a"])
    path = tmp_path / "codes_a.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book["codes"]
    sheet["C3"] = "yes"
    sheet.merge_cells("D2:D5")  # of notes, which are not read
    book.save(path)
    assert df.llm.from_codes(tmp_path)["code"].notna().sum() == 1
    sheet.merge_cells("C3:C4")
    book.save(path)
    with pytest.raises(CodesError, match=r"codes_a.xlsx, row 3: the cells C3:C4 are merged") as e:
        df.llm.from_codes(tmp_path)
    assert e.value.row == 3


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("xl/threadedComments/threadedComment1.xml", "comments with answers"),
        ("xl/media/image1.png", "pictures"),
    ],
)
def test_a_file_that_would_lose_a_persons_work_is_left_as_it_is(
    tmp_path: Path, part: str, told: str
) -> None:
    df = pd.DataFrame({"text": list("abcdef")})
    df.llm.to_code(tmp_path, "text", n=3)
    path = tmp_path / "codes_b.xlsx"
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(part, "<x/>")
    before = path.read_bytes()
    with pytest.raises(CodesError, match=f"codes_b.xlsx cannot be made longer without.*{told}"):
        df.llm.to_code(tmp_path, "text", n=5)
    assert path.read_bytes() == before
    assert df.llm.from_codes(tmp_path)["code_pi"].notna().sum() == 5  # and is still read


def test_what_a_workbook_has_lost_is_named() -> None:
    import openpyxl

    def saved(*cells: object) -> bytes:
        book = openpyxl.Workbook()
        for number, value in enumerate(cells, start=1):
            book["Sheet"].cell(number, 2).value = value  # type: ignore[assignment]
        made = io.BytesIO()
        book.save(made)
        return made.getvalue()

    formula = ArrayFormula("B1", "=SUM(A1:A2)")
    assert lost(saved("a", 1, formula), saved("a", 1, formula, "more")) is None
    gone = "the cell in row 2, column 2 of the sheet 'Sheet'"
    assert lost(saved("a", "b"), saved("a")) == lost(saved("a", "b"), saved("a", "c")) == gone
