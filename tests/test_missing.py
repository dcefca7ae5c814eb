"""Missing values and prompts that are all the same, at every door: frame, file, command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import nyu_llm_frames as llm
from nyu_llm_frames.cli import exits
from nyu_llm_frames.cli.main import cli
from nyu_llm_frames.errors import MissingValueError, TemplateError

MODEL = "gemini-3-flash-preview"

KINDS: dict[str, Any] = {
    "None": pd.Series(["x", None], dtype=object),
    "nan": pd.Series([1.5, float("nan")]),
    "NaT": pd.to_datetime(pd.Series(["2020-01-02", None])),
    "NaT with a zone": pd.to_datetime(pd.Series(["2020-01-02", None]), utc=True),
    "no time": pd.to_timedelta(pd.Series(["1s", None])),
    "NA": pd.Series([1, None], dtype="Int64"),
    "NA of text": pd.Series(["x", None], dtype="string"),
    "NA of arrow": pd.Series([True, None], dtype="bool[pyarrow]"),
    "no choice": pd.Series(["x", None], dtype="category"),
    "nan among others": pd.Series(["x", float("nan")], dtype=object),
    "NA among others": pd.Series([1, pd.NA], dtype=object),
    "in a list": pd.Series([["x"], ["x", None]], dtype=object),
    "nan in a list": pd.Series([[1.5], [1.5, float("nan")]], dtype=object),
    "in a dict": pd.Series([{"k": 1}, {"k": None}], dtype=object),
    "deeper": pd.Series([[{"k": [1]}], [{"k": [None]}]], dtype=object),
    "a key": pd.Series([{"k": 1}, {float("nan"): 1}], dtype=object),
    "half of a key": pd.Series([{("k", 1): 1}, {("k", float("nan")): 1}], dtype=object),
    "half of a number": pd.Series([1 + 1j, complex(float("nan"), 1)]),
}
USES = [
    "{{ a }}",
    "{{ b }}: {{ a }}",
    "{{ a ~ b }}",
    "{{ a | string | upper }}",
    "{{ [a] | join(', ') }}",
    "{% set x = [a] %}{{ x }}",
    "{{ row }}",
]


def prompts(frame: pd.DataFrame, template: Any, **given: Any) -> list[Any]:
    shown = frame.llm.preview(template, model=MODEL, n=len(frame), **given)
    return [m and m[-1]["content"] for m in shown["messages"]]


@pytest.mark.parametrize("template", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_value_of_any_kind_is_refused_or_skipped(kind: str, template: str) -> None:
    frame = pd.DataFrame({"a": KINDS[kind], "b": ["k", "k"]}).set_axis(["p", "q"])
    with pytest.raises(MissingValueError, match="1 in column 'a'") as caught:
        prompts(frame, template)
    assert (caught.value.columns, caught.value.rows) == ({"a": 1}, ("q",))
    whole, gone = prompts(frame, template, missing="skip")
    assert gone is None
    assert whole == prompts(frame.iloc[:1], template)[0]


def test_a_text_that_spells_a_missing_value_is_text() -> None:
    words = ["None", "nan", "NaT", "<NA>", "null", ""]
    assert prompts(pd.DataFrame({"a": words}), "<{{ a }}>") == [f"<{word}>" for word in words]


def test_a_comparison_with_a_missing_value_says_nothing_of_the_row() -> None:
    frame = pd.DataFrame({"country": ["US", None, "FR"]})
    template = "{% if country == 'US' %}from here{% else %}from abroad{% endif %}"
    with pytest.raises(MissingValueError, match=r"prints or compares: 1 in column 'country'"):
        prompts(frame, template)
    assert prompts(frame, template, missing="skip") == ["from here", None, "from abroad"]
    told = "{% if country is none %}from somewhere{% else %}" + template + "{% endif %}"
    assert prompts(frame, told) == ["from here", "from somewhere", "from abroad"]


def test_a_field_that_is_not_read_is_not_missing() -> None:
    frame = pd.DataFrame({"p": [{"name": "A", "age": None}, {"name": None, "age": 3}, None]})
    assert prompts(frame, "{{ p.name }}", missing="skip") == ["A", None, None]
    assert prompts(frame, "{{ p.name or '?' }}") == ["A", "?", "?"]


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_a_missing_value_of_a_template_object_asks_for_its_text(missing: str) -> None:
    frame = pd.DataFrame({"a": ["x", None, "z"], "b": [None, None, None]})
    template = jinja2.Template("{{ a or 'u' }}")
    with pytest.raises(MissingValueError, match=r"1 in column 'a'.*pass its text") as caught:
        prompts(frame, template, missing=missing)
    assert caught.value.rows == (1,)
    assert prompts(frame.dropna(subset="a"), template, missing=missing) == ["x", "z"]


def test_missing_pictures_and_missing_values_are_told_apart() -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(24)
    frame = pd.DataFrame({"a": ["x", None, "z"], "file": [picture, picture, None]})
    with pytest.raises(MissingValueError, match="1 in column 'a'"):
        prompts(frame.iloc[:2], "{{ a }}", images="file")
    found = prompts(frame, "{{ a }}", images="file", missing="skip")
    assert [m is None for m in found] == [False, True, True]


# --- files ------------------------------------------------------------------------------------
def test_a_file_says_what_a_frame_says(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", None] * 3, "p": [{"k": 1, "l": None}] * 5 + [{"k": None, "l": 1}]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    asked: dict[str, Any] = {"model": MODEL, "gateway": llm.Gateway(api_key="k", bucket="b")}

    def refused(template: Any, **given: Any) -> MissingValueError:
        with pytest.raises(MissingValueError) as caught:
            llm.batch_file(
                tmp_path / "in.parquet", tmp_path / "out.csv", template, **asked, **given
            )
        return caught.value

    assert refused("{{ a == 'x' }}").columns == {"a": 3}
    assert refused("{{ p.k }}").columns == {"p": 1}
    both = refused("{{ a }}{{ p }}")
    assert (both.columns, both.rows) == ({"a": 3, "p": 6}, (0, 1, 2))
    assert "pass its text" in str(refused(jinja2.Template("{{ a or 'u' }}"), missing="skip"))


# --- the same prompt for all rows --------------------------------------------------------------
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("Which drug?", r"all 2 rows: .* as \{\{ text \}\}\.$"),
        ("Which drug? {text}", r"as \{\{ text \}\}\. \{text\} is how Python's f-strings"),
        ("Which drug? { id of it }", r"as \{\{ row\['id of it'\] \}\}\. \{id of it\} is how"),
        ("Which drug? {{ 0 }}", r"all 2 rows: .* as \{\{ text \}\}\.$"),
        ("prompts/drug.txt", r"given as pathlib\.Path\('prompts/drug\.txt'\), on the command"),
        ("there", r"given as pathlib\.Path\('there'\)"),
        ([{"role": "user", "content": "Which drug?"}], "all 2 rows"),
        (jinja2.Template("Which drug?"), "all 2 rows"),
    ],
)
def test_a_prompt_that_is_the_same_for_all_rows_is_refused(template: Any, told: str) -> None:
    Path("there").write_text("Which drug? {{ text }}")
    frame = pd.DataFrame({"text": ["a", "b"], "id of it": [1, 2]})
    calls: list[Callable[[], object]] = [
        lambda: frame.llm.preview(template, model=MODEL, n=1),
        lambda: frame.llm.estimate(template, model=MODEL),
        lambda: frame.llm.submit(template, model=MODEL),
        lambda: frame.llm.trial(template, model=MODEL, n=1),
        lambda: frame.llm.to_jsonl("out.jsonl", template, model=MODEL),
    ]
    for call in calls:
        with pytest.raises(TemplateError, match=told):
            call()
    assert [path.name for path in Path().iterdir()] == ["there"]


@pytest.mark.parametrize("template", ["{{ text }}", "{{ index }}", "{{ row | length }}"])
def test_a_prompt_that_can_differ_is_sent(template: str) -> None:
    frame = pd.DataFrame({"text": ["a", "a"]})
    assert len(prompts(frame, template)) == 2
    assert len(prompts(frame, "Go on.", system=template)) == 2
    assert prompts(frame.head(1), "Go on.") == ["Go on."]


def test_a_file_of_several_rows_is_not_asked_the_same(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), "in.parquet", row_group_size=1)
    Path("one.csv").write_text("text\na\n")
    with pytest.raises(TemplateError, match="all 2 rows"):
        llm.batch_file("in.parquet", "out.csv", "Which drug?", model=MODEL)
    words = ["preview", "--prompt", "ask.txt"]
    assert CliRunner().invoke(cli, [*words, "one.csv", "--json"]).exit_code == exits.OK
    result = CliRunner().invoke(cli, [*words, "in.parquet"])
    assert result.exit_code == exits.USAGE
    assert "--template ask.txt" in " ".join(result.output.split())
