"""A CSV file makes the requests of the frame that pandas reads from it.

Comes in: odd cells, headers and lines. Goes out: equal ids, but for the columns that a note names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_run import head
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._tables.csv_cells import Guess, parsed, plain, typed
from nyu_llm_frames._tables.csv_text import CsvSource, column_names
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.errors import ConfigurationError

MODEL = "gemini-3-flash-preview"
TEXT = st.characters(codec="utf-8", exclude_characters="\x00")  # pandas 2 ends a text there
EVERYTHING = (
    "{% for name, value in row.items() %}{{ name }}:"
    "{% if value is none %}-{% else %}{{ value }}{{ value is string }}{% endif %};"
    "{% endfor %}"
    "{% for label in (index if index is iterable and index is not string else [index]) %}"
    "{% if label is none %}-{% else %}{{ label }}{% endif %},{% endfor %}"
)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with llm.set_options(poll_interval_s=0.02, max_poll_interval_s=0.1, progress=False):
        yield


def ids_of_file(path: Path, template: str = EVERYTHING) -> list[str]:
    frame = head(path, Arguments(template=template, model=MODEL), 10**9)
    ids: list[str] = frame.llm.preview(template, model=MODEL, n=10**9)["custom_id"].tolist()
    return ids


def ids_of_frame(frame: pd.DataFrame, template: str = EVERYTHING) -> list[str]:
    shown = frame.llm.preview(template, model=MODEL, n=10**9, output="new")
    ids: list[str] = shown["custom_id"].tolist()
    return ids


# --- one column -------------------------------------------------------------------------------
NUMBERS = ["0", "7", "-3", "12", "2020", "1.5", "-0.25", ".5", "3.", "1e5", "-2E-3", "0.1", "-0"]
LONG = [
    "0.1234567890123456", "10.171795655804711", "8.379031744168380369e-02",
    "9007199254740993", "-9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
    "18446744073709551616", "-99999999999999999999999", "999999999999998592", "9" * 5000,
]  # fmt: skip
if pd.__version__ < "3":  # takes those of 64 bits for text where a negative fraction stands beside
    LONG = [cell for cell in LONG if "." in cell or len(cell) < 19]
MISSING = ["", "NA", "nan", "NULL", "None", "n/a", "<NA>", "#N/A", "-1.#IND", "1.#QNAN"]
ODD = [
    "007", "+5", "-01", "00.5", "+1212555", "+inf", "inf", "-Infinity", " 5", "6 ", "7\t", "8\n",
    "True", "false", "TRUE", "true ", "T", " ", "  ", "1_000", "1,000", "0x10", "1e", "1 2", "１",
    "2024-01-01", "12:30", "a", 'a "b"', "a,b", "two\nlines", "\ufeff1", "nA", "1d5", "1+2j", "--1",
]  # fmt: skip
few = st.sampled_from
columns_of_cells = st.one_of(
    st.lists(few(NUMBERS), max_size=8),
    st.lists(few(NUMBERS + MISSING), max_size=8),
    st.lists(few(NUMBERS + LONG + MISSING[:1]), max_size=8),
    st.lists(few(["True", "false", "TRUE", *MISSING[:3]]), max_size=8),
    st.lists(few([c for c in NUMBERS + LONG if c.strip("-").isdigit()]), max_size=8),
    st.lists(few(NUMBERS + LONG + MISSING + ODD), max_size=8),
    st.lists(st.integers().map(str) | st.floats().map(repr), max_size=8),
    st.lists(st.text(TEXT, max_size=4), max_size=8),
)


def as_pandas_reads(cells: Sequence[str]) -> list[object]:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b"), *((cell, "x") for cell in cells)])
    text.seek(0)
    return to_python(pd.read_csv(text, low_memory=False)["a"].tolist())


@settings(max_examples=150, deadline=None)
@given(cells=columns_of_cells, cuts=st.sets(st.integers(0, 8)))
@example(cells=["9" * 22, "1.5"], cuts={1})
@example(cells=["1.5", "9" * 22], cuts={1})
@example(cells=["-1", "9223372036854775808", "0.5"], cuts={2})
@example(cells=["9223372036854775808", ""], cuts={1})
@example(cells=["9223372036854775808", "-0.25"], cuts={1})
@example(cells=["-0.25", "9223372036854775808"], cuts=set())
@example(cells=["-9223372036854775809", "-2E-3"], cuts=set())
@example(cells=["-0", "9223372036854775808"], cuts={1})
@example(cells=["18446744073709551615", "-1"], cuts=set())
@example(cells=["9" * 22, "", "x"], cuts={1})
@example(cells=["5", "x", "9" * 22, ""], cuts={1})
@example(cells=["True", "1"], cuts={1})
@example(cells=["", "5"], cuts={1})
@example(cells=["1234567890123456789", "", "1.5"], cuts={1, 2})
@example(cells=["1.5", "0.5", "9007199254740993"], cuts={1, 2})
@example(cells=["0.5", "9007199254740992", "-9007199254740992"], cuts={1})
def test_a_column_in_pieces_is_what_pandas_makes_of_the_whole(
    cells: list[str], cuts: set[int]
) -> None:
    parts = [cells[a:b] for a, b in pairwise([0, *sorted(c for c in cuts if c < len(cells)), None])]
    guess = Guess()
    for part in parts:
        if guess.is_open:
            guess.look(part, parsed([part])[0])
    kind = guess.kind
    found, stored = [], []
    for part in parts:
        values = None if kind == "text" else parsed([part], [kind])[0]
        found += plain(part, values)
        stored += typed(part, values, kind).to_pylist()
    assert to_python(stored) == found
    expected = as_pandas_reads(cells)
    if guess.is_damaged:
        assert kind == "text"
        is_same = list(map(repr, found)) == list(map(repr, expected))
        assert not is_same or any(len(cell.strip()) > 18 for cell in cells)
    else:
        assert list(map(repr, found)) == list(map(repr, expected))


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["007", "8"], ["007", "8"]),
        (["+12125551234", ""], ["+12125551234", None]),
        (["9007199254740993", ""], ["9007199254740993", None]),
        (["9007199254740993", "1.5"], ["9007199254740993", "1.5"]),
        (["1.5", "-9007199254740993"], ["1.5", "-9007199254740993"]),
        (["1.5", "", "1" * 19], ["1.5", None, "1" * 19]),
    ],
)
def test_what_pandas_would_damage_stays_text(cells: list[str], values: list[object]) -> None:
    for parts in ([cells], [[cell] for cell in cells]):
        guess = Guess()
        for part in parts:
            guess.look(part, parsed([part])[0])
        assert guess.is_damaged
    assert plain(cells, None) == values


def test_floats_and_whole_numbers_that_floats_can_hold_are_numbers() -> None:
    for cells in (["1e300", "0.5", "inf"], ["9007199254740992", "0.5"], ["0.1234567890123456"]):
        guess = Guess()
        for cell in cells:
            guess.look([cell], parsed([[cell]])[0])
        assert (guess.kind, guess.is_damaged) == ("float", False)


@pytest.mark.parametrize("order", list(permutations(["1.5", "2.5", "9007199254740993", ""])))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_what_pandas_would_damage_is_seen_in_whichever_pieces_it_comes(
    order: tuple[str, ...], size: int
) -> None:
    guess = Guess()
    for start in range(0, len(order), size):
        part = order[start : start + size]
        guess.look(part, parsed([part])[0])
    assert (guess.is_damaged, guess.kind) == (True, "text")


# --- a header ---------------------------------------------------------------------------------
names = few(["", "x", "x.1", "x.2", "x.1.1", "Unnamed: 0", "Unnamed: 1", "Unnamed: 0.1", " x", "1"])


@settings(max_examples=100, deadline=None)
@given(st.lists(names | st.text(TEXT, max_size=3), min_size=1, max_size=9))
@example(["", "Unnamed: 0", "a"])
@example(["x", "x", "x.1"])
def test_names_are_mangled_as_pandas_mangles_them(header: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(header)
    text.seek(0)
    assert column_names(header) == tuple(pd.read_csv(text).columns)


def test_a_header_of_equal_names_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(",".join(["x"] * 20_190) + "\n")  # pandas compares each name with all others
    assert open_source(path).columns[-1] == "x.20189"


# --- whole files ------------------------------------------------------------------------------
lines = st.lists(
    few(["1,2,3", "4,5", "a,,b", ",,", "", " ", " \t", "\t", '" "', '""', 'q" x,"a ""b"" c",', "7",
         '"two\nlines",1,2', " 1 ,2,x", "NA,NA,NA", "1.5,True,007", '"a"b,"c" ,"d\r\ne"']),
    max_size=8,
)  # fmt: skip
headers = few(["a,b,c", ",x,x", "a,b", "a", '"a ""1""",,"b\nc"', "a,b,", "x,x,x.1,", "  ,a,b"])


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=headers, body=lines, end=few(["\n", "\r\n", "\r"]), last=st.booleans(),
    before=few(["", "\n", "\ufeff", " \n"]), tabs=st.booleans(),
)  # fmt: skip
@example("a,b", ["1,2,3", "4,5"], "\n", True, "", False)
@example("a", [" ", '" "', "x"], "\n", True, "", False)
def test_a_file_makes_the_requests_of_the_frame_that_pandas_reads(
    tmp_path: Path, header: str, body: list[str], end: str, last: bool, before: str, tabs: bool
) -> None:
    if end == "\r":  # pandas loses a comma behind a blank line of an old Mac, or one behind a blank
        body = [line.lstrip(" \t") for line in body if line.strip()]
    text = before + end.join([header, *body]) + end * last
    path = tmp_path / ("in.tsv" if tabs else "in.csv")
    if tabs:
        text = text.replace("\t", " ").replace(",", "\t")
    path.write_bytes(text.encode())
    try:
        frame = pd.read_csv(path, sep="\t" if tabs else ",", low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        with pytest.raises(ConfigurationError):
            ids_of_file(path)
        return
    source = open_source(path)
    assert isinstance(source, CsvSource)
    assert source.columns == tuple(frame.columns)
    kept = source.kept_as_text(source.columns)
    template = EVERYTHING.replace("row.items()", f"row.items() if name not in {kept!r}")
    assert ids_of_file(path, template) == ids_of_frame(frame, template)


def test_a_late_cell_decides_in_pieces_too(tmp_path: Path) -> None:
    rows = 10_050  # more than a piece
    frame = pd.DataFrame(
        {
            "float": ["1"] * (rows - 1) + ["0.1234567890123456"],
            "missing": ["2020"] * (rows - 1) + [""],
            "text": ["12"] * (rows - 1) + ["x"],
            "zeros": ["12"] * (rows - 1) + ["012"],
            "long": ["18446744073709551615", "3"] * (rows // 2),
            "number": [str(i) for i in range(rows)],
        }
    )
    path = tmp_path / "in.csv"
    frame.to_csv(path, index=False)
    read = pd.read_csv(path, dtype={"zeros": str})
    assert ids_of_file(path) == ids_of_frame(read)
    source = open_source(path)
    assert isinstance(source, CsvSource)
    assert source.kept_as_text(source.columns) == ["zeros"]
    types = dict(zip(source.columns, source.schema().types, strict=True))
    assert types == {
        "float": pa.float64(), "missing": pa.float64(), "text": pa.string(), "zeros": pa.string(),
        "long": pa.uint64(), "number": pa.int64(),
    }  # fmt: skip


def test_the_output_has_the_types_of_pandas_and_a_note_names_the_rest(
    tmp_path: Path, stand_in: StandIn
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        "p,zip,ok,text,none\n0.1234567890123456,00501,True,a,\n-1e-9,,,NA,\n2,10012,False,b,\n"
    )
    said: list[str] = []
    gateway = llm.Gateway(**stand_in.settings)
    with llm.set_options(progress=lambda p: said.append(p.message)):
        llm.batch_file(path, tmp_path / "out.parquet", "{{ p }}", model=MODEL, gateway=gateway)
    [note] = [line for line in said if "kept as text" in line]
    assert "'zip'" in note
    assert "'p'" not in note
    out = pd.read_parquet(tmp_path / "out.parquet")
    expected = pd.read_csv(path, dtype={"zip": str})
    pd.testing.assert_frame_equal(
        out[list(expected.columns)].convert_dtypes(), expected.convert_dtypes()
    )
    template = "{{ p }}{{ zip or '-' }}{{ ok | default('-') }}{{ text or '-' }}"
    with_answers = ids_of_frame(pd.read_parquet(tmp_path / "out.parquet"), template)
    assert ids_of_file(path, template) == with_answers


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_row_labels_without_a_name_stay_row_labels(
    tmp_path: Path, stand_in: StandIn, suffix: str
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,response\n007x,weed,old\n,meth,\nc,heroin,old\n")  # as R writes them
    before = pd.read_csv(path)
    gateway = llm.Gateway(**stand_in.settings)
    call: dict[str, Any] = {"model": MODEL, "gateway": gateway, "sidecar": tmp_path / "s"}
    template = "{{ text }} {{ index or '' }}"
    out = tmp_path / f"out{suffix}"
    said: list[str] = []
    with llm.set_options(progress=lambda p: said.append(p.message)):
        llm.batch_file(path, out, template, if_exists="replace", **call)
    assert any("read as the row's label" in line for line in said)
    joined = before.llm.batch(template, if_exists="replace", **call)
    read = pd.read_parquet(out) if suffix == ".parquet" else pd.read_csv(
        out, sep="," if suffix == ".csv" else "\t"
    )  # fmt: skip
    assert list(read.columns) == ["text", "response", "response_error"]
    assert read.index.fillna("-").tolist() == before.index.fillna("-").tolist()
    assert read["response"].tolist() == joined["response"].tolist()
    assert len(stand_in.jobs) == 1  # the frame's requests were those of the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b,c\n1,2,3\n4,5,6,7\n", r"line 3: a record has 4 fields, and the header has 3.*quoted"),
        ("a,b\nx,1,2\ny,3,4,5\n", r"line 3: a record has 4 fields, and the first record has 3"),
        ("id;text\n1;a\n2;b, c\n", r"line 3: .* 1 ';'.*sep=';'"),
        ("id;text\n1;a, b\n2;c\n", r"line 2: .* 1 ';'.*sep=';'"),
    ],
)
def test_records_that_are_too_long_are_named_with_what_may_be_the_cause(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        llm.batch_file(path, tmp_path / "out.csv", "x{{ index }}", model=MODEL)
