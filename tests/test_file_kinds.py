"""Every kind of file, in and out: separators, compression, Feather, Excel, lists and folders.

Comes in: the same table as files of every kind, and as the frame that pandas reads of each. Goes
out: equal ids, nothing changed that is not ours, and an error before anything is sent where a file
cannot hold what it would have to.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.file_run import estimate_file, head
from nyu_llm_frames._tables.source import open_source
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import ColumnExistsError, ConfigurationError

MODEL = "gemini-3-flash-preview"
BOOKS = Path(__file__).parent / "data" / "books"
EACH = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def packed(content: bytes, suffix: str) -> bytes:
    """Compress as a name says."""
    if suffix.endswith(".gz"):
        return gzip.compress(content)
    if suffix.endswith(".zst"):
        return bytes(pa.compress(content, "zstd", asbytes=True))
    return content


def unpacked(path: Path) -> bytes:
    """Return what is in a file."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return bytes(pa.CompressedInputStream(str(path), "zstd").read())
    return path.read_bytes()


def asked(table: pd.DataFrame, template: str) -> list[tuple[str, str]]:
    shown = table.llm.preview(template, model=MODEL, n=999)
    return [
        (i, m[0]["content"]) for i, m in zip(shown["custom_id"], shown["messages"], strict=True)
    ]


def by_path(path: Any, template: str, **reading: Any) -> list[tuple[str, str]]:
    found = head(path, Arguments(template=template, model=MODEL), 999, **reading)
    return asked(found, template)


def template_of(columns: Any) -> str:
    """Name every column, and say of a missing value that it is one."""
    cells = [f'{{{{ row[{name!r}] if row[{name!r}] is not none else "-" }}}}' for name in columns]
    return "{{ index }}: " + " | ".join(cells)


def answered(source: Any, target: Path, template: str = "{{ index }}", **more: Any) -> Path:
    llm.batch_file(source, target, template, model=MODEL, **more)
    return target


FRAME = pd.DataFrame(
    {
        "n": [1, 2, 3],
        "x": [0.5, 2.0, None],
        "text": ["a", "two\nlines, é 😀", None],
        "yes": [True, False, True],
    }
)


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame as a file of the kind that its name says."""
    suffixes = path.suffixes
    if suffixes[0] in (".csv", ".tsv"):
        mark = "," if suffixes[0] == ".csv" else "\t"
        path.write_bytes(packed(frame.to_csv(index=False, sep=mark).encode(), path.name))
    elif suffixes[0] == ".jsonl":
        text = frame.to_json(orient="records", lines=True, force_ascii=False)
        path.write_bytes(packed(text.encode(), path.name))
    elif suffixes[0] == ".xlsx":
        frame.to_excel(path, index=False)
    elif suffixes[0] == ".arrows":
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    elif suffixes[0] == ".feather":
        frame.to_feather(path)
    else:
        frame.to_parquet(path)
    return path


def read(path: Path) -> pd.DataFrame:
    """Read a file as its users do with pandas."""
    suffix = path.suffixes[0]
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        return pd.read_csv(io.BytesIO(unpacked(path)), sep=mark, low_memory=False)
    if suffix == ".jsonl":
        return pd.read_json(io.BytesIO(unpacked(path)), lines=True)
    if suffix == ".xlsx":
        return pd.read_excel(path)
    if suffix == ".arrows":
        return pa.ipc.open_stream(path.read_bytes()).read_pandas()
    return pd.read_parquet(path) if suffix == ".parquet" else pd.read_feather(path)


KINDS = [
    "in.csv", "in.csv.gz", "in.csv.zst", "in.tsv", "in.tsv.gz", "in.jsonl", "in.jsonl.gz",
    "in.jsonl.zst", "in.parquet", "in.feather", "in.arrows", "in.xlsx",
]  # fmt: skip
OUTPUTS = [name.replace("in", "out") for name in KINDS if "arrows" not in name]


# --- the same requests at every door ----------------------------------------------------------
@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_any_kind_makes_the_requests_of_the_frame(tmp_path: Path, name: str) -> None:
    template = template_of(FRAME)
    path = write(FRAME, tmp_path / name)
    found = by_path(path, template)
    assert found == asked(read(path), template)
    assert found == asked(FRAME, template)
    assert found == by_path([path], template)


CELLS = st.sampled_from(
    [
        "",
        "1",
        "2",
        "-3.5",
        "1e3",
        "x",
        "a;b",
        "a|b",
        "a b",
        "a:b",
        'say "y"',
        "NA",
        "True",
        "t\tu",
        "False",
        "two\nlines",
        "é 😀",
        " ",
    ]
)


@EACH
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t", "|", ":", "^", "~"]),
    st.sampled_from(["in.csv", "in.txt", "in.dat.gz", "in.csv.zst", "in.tsv"]),
)
def test_any_separator_and_compression_is_what_pandas_reads(
    tmp_path: Path, cells: list[tuple[str, str]], sep: str, name: str
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=sep).writerows([["a", "b"], *cells])
    path = tmp_path / name
    path.write_bytes(packed(text.getvalue().encode(), name))
    frame = pd.read_csv(io.StringIO(text.getvalue()), sep=sep, low_memory=False)
    assert by_path(path, template_of("ab"), sep=sep) == asked(frame, template_of("ab"))


@EACH
@given(st.lists(st.lists(st.tuples(CELLS, CELLS), max_size=5), min_size=2, max_size=4))
def test_a_list_of_csv_files_is_what_pandas_makes_of_each(
    tmp_path: Path, parts: list[list[tuple[str, str]]]
) -> None:
    files, frames = [], []
    for number, cells in enumerate(parts):
        text = io.StringIO()
        csv.writer(text).writerows([["a", "b"], *cells])
        suffix = "" if number % 2 else ".gz"
        files.append(tmp_path / f"{number}.csv{suffix}")
        files[-1].write_bytes(packed(text.getvalue().encode(), files[-1].name))
        frames.append(pd.read_csv(io.StringIO(text.getvalue()), low_memory=False))
    whole = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
    found = by_path(files, template_of("ab"))
    assert found == (asked(whole, template_of("ab")) if len(whole) else [])
    source = open_source(files)
    table = pa.concat_tables([source.schema().empty_table(), *source.tables()])
    for name in "ab":
        # In one type, nothing is another value than in its file.
        values = [v for frame in frames for v in frame[name].astype(object)]
        for ours, theirs in zip(table[name].to_pylist(), values, strict=True):
            if ours is None or ours == theirs:
                assert ours is not None or pd.isna(theirs)
            elif isinstance(theirs, float | int) and not isinstance(theirs, bool):
                assert float(ours) == theirs
            else:
                assert ours == str(theirs)


SHEET_CELLS: Any = st.one_of(
    st.none(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([0.5, -2.25, 1e10]),
    st.booleans(),
    st.sampled_from(["x", "=1+1", "two\nlines", " é 😀 ", "#REF!", "12", "2.50", "NA"]),
    st.sampled_from([dt.datetime(2024, 7, 1), dt.datetime(1999, 1, 2, 3, 4, 5), dt.time(1, 2)]),
)


def _book(path: Path, table: list[Any]) -> Path:
    book = openpyxl.Workbook()
    assert book.active is not None
    for at, line in enumerate(table, 1):
        for place, value in enumerate(line, 1):
            cell = book.active.cell(at, place, value)
            if isinstance(value, str):
                cell.data_type = "s"
    book.save(path)
    return path


@EACH
@given(st.lists(st.tuples(SHEET_CELLS, SHEET_CELLS), min_size=1, max_size=6))
def test_a_sheet_is_what_pandas_reads_but_for_what_it_would_change(
    tmp_path: Path, cells: list[tuple[Any, Any]]
) -> None:
    path = _book(tmp_path / "in.xlsx", [["a", "b"], *cells])
    source = open_source(path)
    kept = {name for name in "ab" if any(f"'{name}'" in note for note in source.notes([name]))}
    for name in kept:
        column = [line["ab".index(name)] for line in cells]
        assert any(isinstance(value, bool) for value in column)
    frame = pd.read_excel(path, dtype=dict.fromkeys(kept, object))
    assert by_path(path, template_of("ab")) == asked(frame, template_of("ab"))


def test_numbers_kept_as_text_stay_text_and_a_note_gives_the_equal_line(tmp_path: Path) -> None:
    table = [["zip", "n", "yes"], ["00501", "12", True], ["10003", "13", None]]
    path = _book(tmp_path / "in.xlsx", table)
    found = by_path(path, "{{ zip }} {{ n }} {{ yes | default('-') }}")
    assert [text for _, text in found] == ["00501 12 True", "10003 13 -"]
    [note] = open_source(path).notes(["zip", "n", "yes"])
    assert "dtype=dict.fromkeys(['zip', 'yes'], object)" in note
    frame = pd.read_excel(path, dtype=dict.fromkeys(["zip", "yes"], object))
    assert asked(frame, "{{ zip }} {{ n }} {{ yes | default('-') }}") == found


# --- what is not ours stays -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "output"),
    [
        *((name, "out.parquet") for name in KINDS),
        *(("in.parquet", name) for name in OUTPUTS[:-1]),
        ("in.csv.gz", "out.xlsx"),
        ("in.jsonl", "out.csv"),
        ("in.xlsx", "out.feather"),
    ],
)
def test_any_kind_becomes_any_kind(
    tmp_path: Path, gateway: StandIn, name: str, output: str
) -> None:
    path = write(FRAME, tmp_path / name)
    after = read(answered(path, tmp_path / output))
    assert after.columns.tolist() == [*FRAME, "response", "response_error"]
    assert after["response"].notna().all()
    for column in FRAME:
        old, new = read(path)[column].astype(object), after[column].astype(object)
        assert new.where(new.notna(), None).tolist() == old.where(old.notna(), None).tolist()
    assert (tmp_path / "out.llm").is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {name, output, "out.llm"}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_are_copied_as_they_stand(tmp_path: Path, gateway: StandIn, suffix: str) -> None:
    lines = ['{"b": 1.0, "a": [1, {"c": null}] }', "", '{"a":"é\\u00e9"}', "{}"]
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(packed("\r\n".join(lines).encode(), path.name))
    out = unpacked(answered(path, tmp_path / f"out.jsonl{suffix}")).decode().splitlines()
    assert out[0].startswith('{"b": 1.0, "a": [1, {"c": null}], "response": "')
    assert out[1].startswith('{"a":"é\\u00e9", "response": "')
    assert out[2].startswith('{"response": "')
    assert [json.loads(line)["response_error"] for line in out] == [None] * 3


def test_json_lines_replace_and_fill_in_their_place(tmp_path: Path, gateway: StandIn) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"response": "old",  "response_error": null, "a": 1}\n'
        '{"response": null, "response_error": "cut", "a": 2}\n'
    )
    with pytest.raises(ColumnExistsError):
        answered(path, tmp_path / "out.jsonl")
    out = answered(path, tmp_path / "out.jsonl", if_exists="fill").read_text().splitlines()
    assert out[0] == '{"response": "old",  "response_error": null, "a": 1}'
    assert list(json.loads(out[1])) == ["response", "response_error", "a"]
    assert json.loads(out[1])["response"]
    out = answered(path, tmp_path / "out.jsonl", if_exists="replace").read_text().splitlines()
    assert json.loads(out[0])["response"] not in (None, "old")


def test_a_sheet_fills_in_its_place(tmp_path: Path, gateway: StandIn) -> None:
    table = [["response", "a", "response_error"], ["old", 1, None], [None, "x", "cut"]]
    path = _book(tmp_path / "in.xlsx", table)
    answered(path, tmp_path / "out.xlsx", if_exists="fill")
    after = pd.read_excel(tmp_path / "out.xlsx", dtype=object)
    assert after.columns.tolist() == table[0]
    assert after["response"][0] == "old"
    assert after["response"][1] not in (None, "old")
    assert after["a"].tolist() == [1, "x"]


def test_csv_of_any_separator_is_copied_byte_for_byte(tmp_path: Path, gateway: StandIn) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv.gz"
    first.write_bytes(b'a,"b"\r\n007,"x, ""y"""\r\n')
    second.write_bytes(gzip.compress(b'a,"b"\n1.50, NA \n'))
    out = answered([first, second], tmp_path / "out.csv").read_bytes()
    assert out.startswith(b'a,"b",response,response_error\r\n007,"x, ""y""",')
    assert b"\r\n1.50, NA ," in out
    (tmp_path / "in.txt").write_text("a;b\n1,5;x\n")
    out = answered(tmp_path / "in.txt", tmp_path / "out.csv", sep=";").read_bytes()
    assert out.startswith(b'a,b,response,response_error\n"1,5",x,')


def test_feather_keeps_types_labels_index_and_nullability(tmp_path: Path, gateway: StandIn) -> None:
    frame = pd.DataFrame(
        {
            "kind": pd.Categorical(["x", None, "z"], categories=["z", "x", "w"], ordered=True),
            "tags": [["a"], None, []],
            "small": np.array([1, 2, 3], "int8"),
            "at": pd.date_range("2024", periods=3, tz="America/New_York"),
        },
        index=pd.Index(["p", "q", "r"], name="key"),
    )
    table = pa.Table.from_pandas(frame)
    fields = [field.with_metadata({"label": f"é {field.name}"}) for field in table.schema]
    fields[2] = fields[2].with_nullable(False)
    table = table.cast(pa.schema(fields, metadata=table.schema.metadata))
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=2)
    out = answered(tmp_path / "in.arrow", tmp_path / "out.feather", "{{ index }} {{ kind }}",
                   missing="skip")  # fmt: skip
    after = feather.read_table(str(out))
    assert after.select(table.column_names).schema.equals(table.schema.remove_metadata())
    assert [after.schema.field(f.name).metadata for f in table.schema] == [
        f.metadata for f in table.schema
    ]
    assert after.select(table.column_names).equals(table)
    again = pd.read_feather(out)
    pd.testing.assert_frame_equal(again[list(frame)], pd.read_feather(tmp_path / "in.arrow"))
    assert again.index.tolist() == ["p", "q", "r"]
    with pytest.raises(ColumnExistsError, match=r"in\.arrow .*its index"):
        answered(tmp_path / "in.arrow", tmp_path / "out.feather", output="key")


def polars_that_pyarrow_reads() -> Any:
    """Polars, whose Arrow files hold views; pyarrow 16 cannot tell their size."""
    try:
        pa.array(["x"], pa.string_view()).nbytes  # noqa: B018
    except pa.ArrowTypeError:
        pytest.skip("this pyarrow reads no views")
    return pytest.importorskip("polars")


@pytest.mark.parametrize("name", ["in.arrow", "in.arrows"])
def test_polars_reads_what_comes_of_its_arrow_files(
    tmp_path: Path, gateway: StandIn, name: str
) -> None:
    pl = polars_that_pyarrow_reads()
    frame = pl.DataFrame(
        {"x": pl.Series(["b", None, "a"], dtype=pl.Enum(["a", "b"])), "tags": [["u"], [], None]}
    )
    (frame.write_ipc_stream if name.endswith("s") else frame.write_ipc)(tmp_path / name)
    for out, read_again in (("out.arrow", pl.read_ipc), ("out.parquet", pl.read_parquet)):
        answered(tmp_path / name, tmp_path / out, "{{ x }}", missing="skip")
        again = read_again(tmp_path / out).select(frame.columns)
        assert again.schema == frame.schema
        assert again.equals(frame)
    template = template_of(frame.columns)
    assert by_path(tmp_path / name, template) == asked(frame.to_pandas(), template)


@pytest.mark.parametrize("target", ["out.arrow", "out.parquet", "out.csv", "out.jsonl"])
def test_an_arrow_file_of_polars_is_filled(tmp_path: Path, gateway: StandIn, target: str) -> None:
    pl = polars_that_pyarrow_reads()
    schema = {"kind": ["a", "b"], "tags": list[str]}
    texts = {"x": ["x", None]}
    answered(write(pd.DataFrame(texts), tmp_path / "in.parquet"), tmp_path / "1.parquet",
             "{{ x }}", schema=schema, missing="skip")  # fmt: skip
    pl.read_parquet(tmp_path / "1.parquet").write_ipc(tmp_path / "1.arrow")
    out = answered(tmp_path / "1.arrow", tmp_path / target, "{{ x or '-' }}", schema=schema,
                   if_exists="fill")  # fmt: skip
    whole = pd.DataFrame(texts).llm.batch("{{ x or '-' }}", model=MODEL, schema=schema)
    assert read(out)["kind"].tolist() == whole["kind"].tolist()


def test_choices_of_several_files_of_polars_are_all_kept(tmp_path: Path, gateway: StandIn) -> None:
    pl = pytest.importorskip("polars")
    files = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for file, word in zip(files, "ab", strict=True):
        pl.DataFrame({"x": pl.Series([word], dtype=pl.Enum([word]))}).write_parquet(file)
    for target, read_again in (("out.parquet", pl.read_parquet), ("out.arrow", pl.read_ipc)):
        answered(files, tmp_path / target, "{{ x }}")
        assert read_again(tmp_path / target)["x"].to_list() == ["a", "b"]


CHOICES = {"intervals": pd.cut(pd.Series([1.0, 5.0]), 2)}
if hasattr(pa, "decimal32"):  # earlier releases convert no such choices
    CHOICES["periods"] = pd.Categorical(pd.period_range("2024-01", periods=2, freq="M"))


@pytest.mark.parametrize("name", ["in.feather", "in.arrows"])
@pytest.mark.parametrize("kind", CHOICES)
def test_choices_that_arrow_cannot_read_again_are_refused(
    tmp_path: Path, gateway: StandIn, kind: str, name: str
) -> None:
    table = pa.Table.from_pandas(pd.DataFrame({"n": [1, 2], "x": CHOICES[kind]}))
    maker = pa.ipc.new_stream if name.endswith("s") else pa.ipc.new_file
    with maker(str(tmp_path / name), table.schema) as writer:
        writer.write_table(table)
    message = rf"{name}: the column 'x' .*pandas"
    for template in ("{{ n }}", "{{ x }}"):
        with pytest.raises(llm.errors.ConfigurationError, match=message):
            answered(tmp_path / name, tmp_path / "out.parquet", template)
    assert not gateway.log


@pytest.mark.parametrize("head", [b"", b"ARROW1", b"ARROW1\0\0", b"ARROW1\0\0abc", b"\xff" * 9])
def test_a_feather_file_without_a_schema_is_named(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "in.feather").write_bytes(head)
    with pytest.raises(llm.errors.ConfigurationError, match=r"in\.feather"):
        answered(tmp_path / "in.feather", tmp_path / "out.parquet")


def test_choices_that_come_up_later_are_in_a_feather_file(tmp_path: Path, gateway: StandIn) -> None:
    """As parquet has them: another dictionary in each row group."""
    parts = [["a", "b"], ["b", "c"], [None, "a"]]
    kind = pa.dictionary(pa.int8(), pa.string())
    tables = [pa.table({"x": pa.array(p * 8_000).dictionary_encode().cast(kind)}) for p in parts]
    with pq.ParquetWriter(tmp_path / "in.parquet", tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    source = open_source(tmp_path / "in.parquet")
    out = answered(tmp_path / "in.parquet", tmp_path / "out.feather", "{{ x }}", missing="skip")
    assert feather.read_table(str(out))["x"].to_pylist() == [v for p in parts for v in p * 8_000]
    assert pd.read_feather(out)["x"].tolist() == pd.read_parquet(source.path)["x"].tolist()
    assert pd.read_feather(out)["x"].dtype == "category"


def test_a_sheet_keeps_its_cells_and_their_types(tmp_path: Path, gateway: StandIn) -> None:
    table = [
        ["id", 2020, "t", dt.datetime(2021, 1, 1), None],
        ["007", 1, "=1+1", dt.datetime(2020, 1, 2, 3, 4, 5), True],
        [" 8 ", "two", "#N/A", dt.time(1, 2, 3), None],
        [None, 0.1, "-5", 2.0, False],
    ]
    path = _book(tmp_path / "in.xlsx", table)
    out = answered(path, tmp_path / "out.xlsx")
    book = openpyxl.load_workbook(out)
    assert book.active is not None
    after = [list(line)[:5] for line in book.active.iter_rows(values_only=True)]
    assert after == [[*table[0][:4], "Unnamed: 4"], *table[1:]]
    assert [cell.data_type for cell in book.active["C"]] == ["s"] * 4
    assert pd.read_excel(out).columns.tolist()[:4] == pd.read_excel(path).columns.tolist()[:4]


def test_text_never_becomes_a_formula(tmp_path: Path, gateway: StandIn) -> None:
    gateway.behaviour.row = rows.says('=HYPERLINK("http://x.org")')
    (tmp_path / "in.csv").write_text('a,=b\n"=cmd|x",@y\n')
    out = answered(tmp_path / "in.csv", tmp_path / "out.xlsx")
    sheet = openpyxl.load_workbook(out).active
    assert sheet is not None
    values = [cell.value for line in sheet.iter_rows() for cell in line]
    assert values[:4] == ["a", "=b", "response", "response_error"]
    assert values[4:7] == ["=cmd|x", "@y", '=HYPERLINK("http://x.org")']
    assert {cell.data_type for line in sheet.iter_rows() for cell in line} == {"s", "n"}


def test_types_in_json_and_sheets(tmp_path: Path, gateway: StandIn) -> None:
    frame = pd.DataFrame(
        {
            "small": np.float32([0.1, np.nan]),
            "day": [dt.date(2024, 7, 1), None],
            "at": pd.to_datetime(["2024-07-01 12:30:15.25", None]),
            "money": [Decimal("1.10"), None],
            "kind": pd.Categorical(["x", None]),
            "tags": [["a"], None],
            "few": [np.float32([0.1, 2]), None],
            "nested": [{"a": [{"b": np.float32(0.1)}]}, None],
            "span": pd.to_timedelta(["1 days", None]),
            "large": [2**53, None],
        }
    )
    frame["large"] = frame["large"].astype("Int64")
    frame.to_parquet(tmp_path / "in.parquet")
    out = answered(tmp_path / "in.parquet", tmp_path / "out.jsonl").read_text().splitlines()
    told = json.loads(out[0])
    assert {name: told[name] for name in frame} == {
        "small": 0.1, "day": "2024-07-01", "at": "2024-07-01 12:30:15.250000", "money": "1.10",
        "kind": "x", "tags": ["a"], "few": [0.1, 2], "nested": {"a": [{"b": 0.1}]},
        "span": "1 days 00:00:00", "large": 2**53,
    } | {"at": told["at"]}  # fmt: skip
    assert dt.datetime.fromisoformat(told["at"][:26]) == frame["at"][0]
    assert {json.loads(out[1])[name] for name in frame} == {None}
    after = pd.read_excel(answered(tmp_path / "in.parquet", tmp_path / "out.xlsx"), dtype=object)
    assert after.loc[0, list(frame)].tolist() == [
        0.1, dt.datetime(2024, 7, 1), frame["at"][0], 1.1, "x", '["a"]', "[0.1, 2.0]",
        '{"a": [{"b": 0.1}]}', "1 days 00:00:00", 2**53
    ]  # fmt: skip
    assert after.loc[1, list(frame)].isna().all()
    told = pd.read_csv(answered(tmp_path / "in.parquet", tmp_path / "out.csv")).loc[0]
    assert told[["few", "nested"]].tolist() == ["[0.1, 2.0]", '{"a": [{"b": 0.1}]}']


# --- what an output cannot hold ---------------------------------------------------------------
UNFIT: dict[str, tuple[Any, str]] = {
    "zone": (pd.date_range("2024", periods=1, tz="UTC"), r"an Excel file cannot hold.*'x'"),
    "bytes": ([b"x"], r"an Excel file cannot hold.*'x'"),
    "list of days": ([[dt.date(2024, 1, 1)]], r"an Excel file cannot hold.*'x'"),
    "long": (["y" * 32_768], r"'x', row 0: a cell holds 32,767 characters"),
    "long of wide characters": (["😀" * 16_384], r"32,767 characters, and the text has 32,768"),
    "control": (["a\x0bb"], r"no cell holds the character '\\x0b'"),
    "large": ([2**53 + 1], r"2\*\*53"),
    "infinity": ([float("inf")], "infinity"),
    "old": ([dt.date(1776, 7, 4)], "dates from 1900 on, not 1776-07-04"),
    "fine": (pd.to_datetime(["2024-01-01 00:00:00.000001"]), "to the millisecond"),
    "finer": (pd.to_datetime(["2024-01-01 00:00:00.000000001"]), "to the millisecond"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_no_cell_holds_is_told_before_anything_is_sent(
    tmp_path: Path, gateway: StandIn, kind: str
) -> None:
    values, told = UNFIT[kind]
    pd.DataFrame({"x": values}).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=f"(?s){told}.*parquet"):
        answered(tmp_path / "in.parquet", tmp_path / "out.xlsx")
    assert gateway.log == []
    assert {p.name for p in tmp_path.iterdir()} == {"in.parquet"}


def test_what_a_cell_just_holds_is_written(tmp_path: Path, gateway: StandIn) -> None:
    pd.DataFrame({"x": ["y" * 32_767]}).to_parquet(tmp_path / "in.parquet")
    after = pd.read_excel(answered(tmp_path / "in.parquet", tmp_path / "out.xlsx"))
    assert after["x"][0] == "y" * 32_767


def test_a_table_with_more_rows_than_a_sheet_is_refused(tmp_path: Path, gateway: StandIn) -> None:
    pq.write_table(pa.table({"x": pa.nulls(1_048_576, pa.int8())}), tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match=r"1,048,576 rows with its header.*parquet"):
        answered(tmp_path / "in.parquet", tmp_path / "out.xlsx")
    assert gateway.log == []


@pytest.mark.parametrize("answer", ["y" * 40_000, "a\x0bb"])
def test_an_answer_that_no_cell_holds_is_kept_for_parquet(
    tmp_path: Path, gateway: StandIn, answer: str
) -> None:
    gateway.behaviour.row = rows.says(answer)
    path = write(FRAME, tmp_path / "in.xlsx")
    with pytest.raises(ConfigurationError, match=r"'response', row 0: .*kept.*\.parquet"):
        answered(path, tmp_path / "out.xlsx")
    assert not (tmp_path / "out.xlsx").exists()
    sent = len(gateway.uploads)
    out = pd.read_parquet(answered(path, tmp_path / "out.parquet"))
    assert out["response"].tolist() == [answer] * 3
    assert len(gateway.uploads) == sent


def test_json_has_no_infinity_and_no_bytes(tmp_path: Path, gateway: StandIn) -> None:
    for values, told in (([float("inf")], "infinity"), ([b"x"], "cannot hold")):
        pd.DataFrame({"x": values}).to_parquet(tmp_path / "in.parquet")
        with pytest.raises(ConfigurationError, match=told):
            answered(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert gateway.log == []


@pytest.mark.parametrize("name", ["out.parquet.gz", "out.xls", "out.ods", "out.csv.bz2", "out"])
def test_an_output_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    path = write(FRAME, tmp_path / "in.csv")
    with pytest.raises(ConfigurationError, match=r"name ends in .*\.xlsx \(text also in \.gz"):
        answered(path, tmp_path / name)


# --- compressed files -------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_a_damaged_or_cut_file_is_named_and_nothing_is_sent(
    tmp_path: Path, gateway: StandIn, kind: str, suffix: str
) -> None:
    generator = np.random.default_rng(0)
    lines = [json.dumps({"a": str(n)}) for n in generator.integers(0, 2**60, 40_000)]
    whole = packed("\n".join(lines if kind == ".jsonl" else ["a", *lines]).encode(), suffix)
    path = tmp_path / f"in{kind}{suffix}"
    contents = [whole[:-3], whole[: len(whole) // 2], whole + b"junk"]
    if suffix == ".gz":  # zstd has no checksum here
        contents.append(whole[:9_000] + bytes(50) + whole[9_050:])
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=rf"in\{kind}\{suffix} is damaged or cut"):
            answered(path, tmp_path / "out.csv")
    assert gateway.log == []
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_members_of_one_file_are_one_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.csv{suffix}"
    path.write_bytes(packed(b"a,b\n1,", suffix) + packed(b"x\n2,y\n", suffix))
    assert [text for _, text in by_path(path, "{{ a }}{{ b }}")] == ["1x", "2y"]


@pytest.mark.parametrize("name", ["in.csv.gz", "in.jsonl.zst"])
def test_what_is_not_compressed_as_its_name_says_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"a": 1}\n')
    with pytest.raises(ConfigurationError, match=rf"not compressed with .*call it {name[:-4]}"):
        answered(tmp_path / name, tmp_path / "out.csv")


def test_what_is_in_a_compressed_file_may_be_of_another_kind(tmp_path: Path) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), content)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(content.getvalue()))
    with pytest.raises(ConfigurationError, match="is a parquet file"):
        answered(tmp_path / "in.csv.gz", tmp_path / "out.csv")


def test_a_compressed_file_is_read_in_pieces(tmp_path: Path) -> None:
    text = b"a,b\n" + b"some text,1\n" * 500_000
    for suffix in (".gz", ".zst"):
        path = tmp_path / f"in.csv{suffix}"
        path.write_bytes(packed(text, suffix))
        before = pa.total_allocated_bytes()
        sizes = [(p.rows, p.read) for p in open_source(path).pieces(["a"])]
        assert max(rows for rows, _ in sizes) <= 10_000
        assert [read for _, read in sizes] == sorted(read for _, read in sizes)
        assert pa.total_allocated_bytes() - before < 8 << 20


# --- lists and folders ------------------------------------------------------------------------
@pytest.mark.parametrize("name", KINDS)
def test_several_files_of_a_kind_are_one_table(tmp_path: Path, gateway: StandIn, name: str) -> None:
    suffix = name.removeprefix("in")
    (tmp_path / "parts").mkdir()
    parts = [FRAME, FRAME.assign(n=[4, 5, 6]), FRAME.assign(n=[0.5, None, 9])]
    files = [write(p, tmp_path / "parts" / f"{i}{suffix}") for i, p in enumerate(parts)]
    (tmp_path / "parts" / "_SUCCESS").touch()
    (tmp_path / "parts" / f".part{suffix}.crc").touch()
    (tmp_path / "parts" / f"~$1{suffix}").write_bytes(b"lock")
    if suffix == ".parquet":
        (tmp_path / "parts" / f"~$1{suffix}").unlink()
    template = "{{ n | default('-') }} {{ text | default('-') }}"
    expected = [t for part in parts for _, t in asked(part, template)]
    for source in (files, tmp_path / "parts", (str(file) for file in files)):
        assert [text for _, text in by_path(source, template)] == expected
    out = pd.read_parquet(answered(files, tmp_path / "out.parquet", template))
    assert out["n"].tolist()[:7] == [1, 2, 3, 4, 5, 6, 0.5]
    assert out["text"].tolist()[:2] == FRAME["text"].tolist()[:2]
    assert (tmp_path / "out.llm").is_dir()


def test_the_files_of_a_list_follow_each_other_in_its_order(tmp_path: Path) -> None:
    files = [write(FRAME.head(1).assign(n=n), tmp_path / f"{n}.parquet") for n in (10, 9, 2)]
    assert [text for _, text in by_path(files, "{{ n }}")] == ["10", "9", "2"]


def test_files_that_are_no_table_are_refused_with_their_names(tmp_path: Path) -> None:
    a, b = write(FRAME, tmp_path / "a.csv"), write(FRAME, tmp_path / "b.parquet")
    with pytest.raises(ConfigurationError, match=r"a\.csv and .*b\.parquet are of two kinds"):
        answered([a, b], tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match=r"a\.csv and .*b\.parquet are of two kinds"):
        answered(tmp_path, tmp_path.parent / "out.csv")
    c = write(FRAME.drop(columns="x"), tmp_path / "c.csv")
    with pytest.raises(
        ConfigurationError, match=r"c\.csv differs from .*a\.csv in the columns \(x"
    ):
        answered([a, c], tmp_path / "out.csv")
    d = write(FRAME[["x", "n", "yes", "text"]], tmp_path / "d.csv")
    with pytest.raises(ConfigurationError, match=r"places of its columns.*pd\.concat"):
        answered([a, d], tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match="empty"):
        answered([], tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match="is a folder"):
        answered([a, tmp_path], tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match="is the input"):
        answered([b, a][1:] * 2, a)
    with pytest.raises(ConfigurationError, match="is a URL"):
        answered([a, "s3://b/k.csv"], tmp_path / "out.csv")


# --- Excel ------------------------------------------------------------------------------------
def test_a_book_of_libreoffice_is_what_pandas_reads(tmp_path: Path, gateway: StandIn) -> None:
    """Merged cells, dates, truth values, formulas, numbers kept as text, rows of colors alone."""
    path = BOOKS / "survey.xlsx"
    source = open_source(path)
    assert source.columns == ("id", "text", "asked", "done", "score", "double", "group", "at")
    [of_sheets, kept] = source.notes(source.columns)
    assert "of 2 sheets the first is read, 'Survey'" in of_sheets
    assert "['id']" in kept
    template = template_of(source.columns)
    found = by_path(path, template)
    assert len(found) == 3
    assert "007 | =1+1 is not a sum | 2024-07-01" in found[0][1]
    assert found == asked(pd.read_excel(path, dtype={"id": object}), template)
    out = pd.read_excel(answered(path, tmp_path / "out.xlsx"), dtype={"id": object})
    before = pd.read_excel(path, dtype={"id": object})
    pd.testing.assert_frame_equal(out[list(before)], before)
    after = pd.read_parquet(answered(path, tmp_path / "out.parquet"))
    assert after["id"].tolist() == ["007", "012", "113"]
    assert after["asked"].dtype.kind == "M"


def test_a_sheet_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = BOOKS / "survey.xlsx"
    for sheet in ("Codes", 1):
        assert open_source(path, sheet=sheet).columns == ("code", "label")
        assert open_source(path, sheet=sheet).notes(["code"]) == []
    for wrong in ("codes", 2, -1, True):
        with pytest.raises(ConfigurationError, match=r"no sheet .*'Survey', 'Codes'"):
            open_source(path, sheet=wrong)


@pytest.mark.parametrize("suffix", [".xls", ".ods"])
def test_other_books_are_named_with_the_line_of_pandas(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"pd\.read_excel\(.*survey"):
        answered(BOOKS / f"survey{suffix}", tmp_path / "out.csv")


DOCUMENT = "Save it as PDF"
NO_TABLES: dict[str, tuple[bytes | tuple[str, ...], str]] = {
    "a.docx": (("word/document.xml",), f"a Word document. .*{DOCUMENT}"),
    "a.pptx": (("ppt/presentation.xml",), f"a PowerPoint file. .*{DOCUMENT}"),
    "a.numbers": (("Index/Document.iwa",), "Export it as CSV from Numbers"),
    "a.xlsx": (("Index/Document.iwa",), "an Apple document, whatever its name says"),
    "a.odt": (("content.xml", "mimetype"), DOCUMENT),
    "a.doc": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9),
        f"an old Word document. .*{DOCUMENT}",
    ),
    "a.pdf": (b"%PDF-1.7\n", r"a PDF. .*pd\.DataFrame\(\{'file': \['.*a\.pdf'\]\}\), .*images="),
    "a.csv": (b"%PDF-1.7\n", "a PDF, whatever its name says"),
    "a.png": (b"\x89PNG\r\n\x1a\n", 'a picture. .*images="file"'),
    "a.db": (bytes(8) + b"DUCK" + bytes(9), r"duckdb\.connect\('.*a\.db'\)"),
    "a.npy": (b"\x93NUMPY\x01\0", "with the program that made it"),
    "a.txt": (b"a,b\n", r"pd\.read_csv\("),
    "a.zip": (("a.csv",), 'compression="zip"'),
}


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_is_no_table_is_named_with_a_cure(tmp_path: Path, name: str) -> None:
    content, said = NO_TABLES[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for inner in content:
                archive.writestr(inner, "application/vnd.oasis.opendocument.text")
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_source(path)
    assert ("read_csv" in str(caught.value)) == (name in ("a.txt", "a.zip"))


def test_a_header_that_begins_as_a_picture_is_a_header(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("GIF8,x\n1,2\n")
    assert open_source(tmp_path / "in.csv").columns == ("GIF8", "x")


def test_what_is_no_file_of_a_table_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"The folder {tmp_path} holds no data files"):
        open_source(tmp_path)
    with pytest.raises(ConfigurationError, match=r"several files: sorted\(glob\.glob\("):
        open_source(tmp_path / "*.csv")
    table: Any = pd.DataFrame({"x": [1]})
    with pytest.raises(ConfigurationError, match=r"not a DataFrame: use df\.llm\.batch"):
        llm.batch_file(table, tmp_path / "out.csv", "{{ x }}", model="m")
    (tmp_path / "in.jsonl").write_text('{\n"x": 1\n}\n')
    with pytest.raises(ConfigurationError, match=r"line 1: .* Each line must be one whole JSON"):
        open_source(tmp_path / "in.jsonl").schema()


def test_books_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    (tmp_path / "~$in.xlsx").write_bytes(b"\x04user")
    with pytest.raises(ConfigurationError, match=r"Close the workbook, and give .*/in\.xlsx"):
        answered(tmp_path / "~$in.xlsx", tmp_path / "out.csv")
    (tmp_path / "in.xlsx").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="cannot be read as an Excel file"):
        answered(tmp_path / "in.xlsx", tmp_path / "out.csv")
    (tmp_path / "in.xlsx").write_bytes((BOOKS / "survey.xls").read_bytes())
    with pytest.raises(ConfigurationError, match="password"):
        answered(tmp_path / "in.xlsx", tmp_path / "out.csv")
    content = (BOOKS / "survey.xlsx").read_bytes()
    (tmp_path / "in.xlsx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigurationError, match=r"in\.xlsx"):
        answered(tmp_path / "in.xlsx", tmp_path / "out.csv")
    _book(tmp_path / "empty.xlsx", [])
    with pytest.raises(ConfigurationError, match="no header row"):
        answered(tmp_path / "empty.xlsx", tmp_path / "out.csv")
    _book(tmp_path / "twice.xlsx", [["2020", 2020], [1, 2]])
    with pytest.raises(ConfigurationError, match="the name of two columns"):
        answered(tmp_path / "twice.xlsx", tmp_path / "out.csv")


# --- options and the command line -------------------------------------------------------------
def test_options_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = write(FRAME, tmp_path / "in.parquet")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sep": ";"}, "sep= is for CSV files"),
        ({"sheet": "a"}, "sheet= is for Excel files"),
        ({"sep": r"\s+"}, r"one character.*pd\.read_csv"),
        ({"sep": ""}, "one character"),
        ({"sep": '"'}, "one character"),
        ({"sep": 1}, "one character"),
    ]
    for options, told in wrong:
        with pytest.raises(ConfigurationError, match=told):
            answered(path, tmp_path / "out.csv", **options)


Words = Callable[..., Any]


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, list(words))


def test_the_command_reads_what_the_function_reads(tmp_path: Path, gateway: StandIn) -> None:
    (tmp_path / "in.txt").write_text("a\tb\n1\tx\n2\ty\n")
    (tmp_path / "more.txt").write_text("a\tb\n3\tz\n")
    asks = ["--prompt", "{{ a }}{{ b }}", "--model", MODEL]
    files = ["in.txt", "more.txt", "--sep", r"\t"]
    shown = run("preview", *files, *asks, "--json")
    assert [row["messages"][0]["content"] for row in json.loads(shown.stdout)] == ["1x", "2y", "3z"]
    found = run("estimate", *files, *asks, "--json")
    assert json.loads(found.stdout)["rows"] == 3
    assert estimate_file(
        ["in.txt", "more.txt"], Arguments(template="{{ a }}{{ b }}", model=MODEL), sep="\t"
    ).rows == 3  # fmt: skip
    tried = run("trial", *files, *asks, "--sidecar", "out.llm", "--n", "1")
    assert tried.exit_code == 0, tried.output
    done = run("batch", *files, *asks, "--out", "out.csv.gz")
    assert done.exit_code == 0, done.output
    assert pd.read_csv("out.csv.gz")["a"].tolist() == [1, 2, 3]
    assert run("status", "out.llm").exit_code == 0
    book = str(BOOKS / "survey.xlsx")
    shown = run("preview", book, "--sheet", "Codes", "--prompt", "{{ label }}", "--json")
    assert [row["messages"][0]["content"] for row in json.loads(shown.stdout)] == ["one", "two"]
    assert run("preview", book, "--sheet", "Code", "--prompt", "{{ label }}").exit_code == 2
    assert run("preview", "--prompt", "x").exit_code == 2


@pytest.mark.parametrize("name", ["out.csv.gz", "out.jsonl.zst", "out.xlsx"])
def test_the_sidecar_of_an_output_is_beside_it_whatever_its_kind(
    tmp_path: Path, gateway: StandIn, name: str
) -> None:
    path = write(FRAME, tmp_path / "in.csv.gz")
    result = llm.batch_file(path, tmp_path / name, "{{ n }}", model=MODEL)
    assert result.sidecar == tmp_path / "out.llm"
    sent = len(gateway.uploads)
    again = llm.batch_file(path, tmp_path / "out.tsv", "{{ n }}", model=MODEL)
    assert again.sidecar == result.sidecar
    assert len(gateway.uploads) == sent
