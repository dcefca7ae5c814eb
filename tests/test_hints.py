"""What to write instead: words of other libraries, a Series, groups, a limit that thinking eats."""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.stand_in import StandIn

import nyu_llm_frames as llm
from nyu_llm_frames.errors import ConfigurationError, TemplateError, TruncationWarning

MODEL = "gemini-3-flash-preview"
DF = pd.DataFrame({"text": ["a", "b"]})
WORDS = {
    "prompt": "template=",
    "messages": "template=",
    "api_key": "PORTKEY_API_KEY",
    "base_url": "PORTKEY_BASE_URL",
    "response_format": "schema=",
    "response_model": "schema=",
    "max_output_tokens": "max_tokens=",
    "reasoning_effort": "thinking=",
}


def in_frames(*args: Any, **given: Any) -> object:
    return DF.llm.batch(*args, **given)


def in_files(*args: Any, **given: Any) -> object:
    return llm.batch_file("in.csv", "out.csv", *args, **given)


@pytest.mark.parametrize("call", [in_frames, in_files])
@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_another_library_is_answered_with_ours(
    word: str, call: Callable[..., object]
) -> None:
    with pytest.raises(TypeError) as caught:
        call("{{ text }}", model=MODEL, **{word: "x"})
    assert str(caught.value).startswith(f"There is no argument {word}=. ")
    assert WORDS[word] in str(caught.value)
    with pytest.raises(TypeError, match=f"no argument {word}="):  # without a template, too
        call(model=MODEL, **{word: "x"})


@pytest.mark.parametrize("call", [in_frames, in_files])
def test_a_model_by_its_place_and_a_call_without_one(call: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match='by keyword, for example model="gemini'):
        call("{{ text }}", MODEL)
    with pytest.raises(TypeError, match=r"Missing model\. For example: model="):
        call("{{ text }}")
    with pytest.raises(TypeError, match=r"Missing prompt\. Pass it first"):
        call(model=MODEL)


def test_signatures_are_still_shown() -> None:
    shown = inspect.signature(DF.llm.batch).parameters
    assert list(shown)[:3] == ["template", "model", "system"]
    assert shown["template"].default is inspect.Parameter.empty
    assert "Parameters" in (DF.llm.batch.__doc__ or "")


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        ("nyu", "NYU's gateway is the default; leave gateway= out"),
        ("https://me:secret-word@host/v1", r"llm\.Gateway\(base_url=\.\.\.\)"),
    ],
)
def test_a_gateway_by_name_or_address(gateway: Any, told: str) -> None:
    for call in (
        lambda: in_frames("{{ text }}", model=MODEL, gateway=gateway),
        lambda: llm.set_options(gateway=gateway),
    ):
        with pytest.raises(ConfigurationError, match=told) as caught:
            call()
        assert "secret-word" not in str(caught.value)


def test_a_misspelled_setting_is_answered_with_the_right_one() -> None:
    with pytest.raises(ConfigurationError, match=r"no argument apikey=.* mean api_key=") as caught:
        llm.Gateway(apikey="secret-word")
    assert "secret-word" not in str(caught.value)
    assert llm.Gateway(vertex_project_id="p", metadata={"_user": "me"})
    with pytest.raises(ConfigurationError, match=r"Did you mean keep_prompts=\? Options: "):
        llm.set_options(keep_prompt=False)


def test_thinking_is_a_word() -> None:
    with pytest.raises(ConfigurationError, match='Write thinking="off"'):
        in_frames("{{ text }}", model=MODEL, thinking=False)
    with pytest.raises(ConfigurationError, match='For example, write thinking="low"'):
        in_frames("{{ text }}", model=MODEL, thinking=True)


def test_a_series_and_groups_say_what_to_write() -> None:
    series: Any = DF["text"]
    with pytest.raises(AttributeError, match=r'df\.llm\.batch\("\.\.\. \{\{ text \}\}"'):
        series.llm.batch("{{ text }}", model=MODEL)
    assert not hasattr(series, "llm")
    groups: Any = DF.groupby("text")
    for some in (groups, groups["text"]):
        with pytest.raises(AttributeError, match=r"df\.llm\.batch\(\.\.\.\)"):
            some.llm.batch("{{ text }}", model=MODEL)
        with pytest.raises(AttributeError, match=r'df\.llm\.evaluate\(\.\.\., by="group"\)'):
            some.llm.evaluate("text", "text")


@pytest.mark.parametrize(
    ("library", "rows"),
    [
        ("polars", r'df\.group_by\("group"\)\.agg\(pl\.col\("text"\)\.str\.join\("\\n"\)\)'),
        ("dask", r'df\.groupby\("group"\)\["text"\]\.apply\("\\n"\.join, meta='),
    ],
)
def test_so_they_do_in_every_library(library: str, rows: str) -> None:
    pytest.importorskip(library)
    importlib.import_module(f"nyu_llm_frames.{library}")
    if library == "polars":
        frame: Any = importlib.import_module("polars").DataFrame({"text": ["a", "b"]})
        groups = [frame.group_by("text"), frame.lazy().group_by("text")]
    else:
        frame = importlib.import_module("dask.dataframe").from_pandas(DF, npartitions=1)
        groups = [frame.groupby("text"), frame.groupby("text")["text"]]
        with pytest.raises(AttributeError, match=r"has no 'to_jsonl'\. It has preview, "):
            frame.llm.to_jsonl("out.jsonl", "{{ text }}", model=MODEL)
    with pytest.raises(AttributeError, match=r"series\.to_frame\('text'\)\.llm\.batch"):
        frame["text"].llm.batch("{{ text }}", model=MODEL)
    for some in groups:
        with pytest.raises(AttributeError, match=rows):
            some.llm.batch("{{ text }}", model=MODEL)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (DF.groupby("text"), "aggregate the groups first"),
        ([{"text": "a"}], r"pd\.DataFrame\("),
        (DF["text"], r"series\.to_frame"),
        ("in.csv", "batch_file"),
    ],
)
def test_what_is_no_table_says_how_it_becomes_one(table: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        llm.batch(table, "{{ text }}", model=MODEL)


def test_a_label_or_a_column_called_llm_stays_reachable() -> None:
    labelled: Any = pd.Series({"llm": 3})
    assert labelled.llm == 3
    grouped: Any = pd.DataFrame({"llm": [3, 4], "b": [1, 1]}).groupby("b")
    assert grouped.llm.sum().tolist() == [7]


def test_the_sample_is_a_frame_of_ones_own() -> None:
    df = llm.sample()
    assert df.shape == (20, 5)
    df["offense"] = ""
    assert llm.sample()["offense"].str.len().min() > 20
    assert df.isna().any(axis=None)  # as real tables are


# --- expensive mistakes -------------------------------------------------------------------------
def test_a_prompt_without_a_column_is_an_error_at_every_door(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    DF.to_csv(path, index=False)
    verbs: list[Callable[[], object]] = [
        lambda: DF.llm.preview("Is {text} nice?"),
        lambda: DF.llm.estimate("Is {text} nice?", model=MODEL),
        lambda: DF.llm.trial("Is {text} nice?", model=MODEL),
        lambda: DF.llm.submit("Is {text} nice?", model=MODEL),
        lambda: DF.llm.batch("Is {text} nice?", model=MODEL),
        lambda: DF.llm.batch("Is {text} nice?", model=MODEL, if_exists="fill"),
        lambda: DF.llm.to_jsonl(tmp_path / "out.jsonl", "Is {text} nice?", model=MODEL),
        lambda: llm.batch_file(path, tmp_path / "out.csv", "Is {text} nice?", model=MODEL),
    ]
    for verb in verbs:
        with pytest.raises(TemplateError, match="The prompt is the same for all 2 rows"):
            verb()
    assert not (tmp_path / "out.llm").exists()


@pytest.mark.parametrize("progress", [False, True])
def test_a_limit_that_thinking_eats_is_told_whatever_progress_shows(
    stand_in: StandIn, tmp_path: Path, progress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("nyu_llm_frames").setLevel(logging.WARNING)
    options: dict[str, Any] = {"poll_interval_s": 0.02, "max_poll_interval_s": 0.05}
    (tmp_path / "in.csv").write_text("text\na\nb\n")
    calls: list[Callable[[], object]] = [
        lambda: DF.llm.trial("1 {{ text }}", model=MODEL, max_tokens=50),
        lambda: DF.llm.batch("2 {{ text }}", model=MODEL, max_tokens=50),
        lambda: llm.batch_file(
            tmp_path / "in.csv", tmp_path / "out.csv", "3 {{ text }}", model=MODEL, max_tokens=50
        ),
    ]
    gateway = llm.Gateway(**stand_in.settings)
    with llm.set_options(gateway=gateway, progress=progress, **options):
        for call in calls:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            told = [w for w in caught if w.category is TruncationWarning]
            shown = "".join(capfd.readouterr())
            assert len(told) == (not progress)
            assert ("counts thinking too" in shown) is progress
            if told:
                assert told[0].filename == __file__
                assert "counts thinking too" in str(told[0].message)


def test_a_verb_without_a_table_says_which_one_takes_what_is_there() -> None:
    for table, hint in (
        ("h.csv", "llm.batch_file"),
        (Path("h.csv"), "llm.batch_file"),
        (DF["text"], "to_frame"),
    ):
        with pytest.raises(ConfigurationError, match=hint):
            llm.batch(table, "{{ text }}", model=MODEL)  # type: ignore[call-overload]


def test_files_and_options_by_the_wrong_kind_of_argument_are_told_the_right_one() -> None:
    files: Any = llm.batch_file
    with pytest.raises(TypeError, match="come first, by position"):
        files(input="in.csv", output="out.csv", template="{{ text }}", model=MODEL)
    options: Any = llm.set_options
    with pytest.raises(TypeError, match="by name: gateway="):
        options("local")
    assert "max_cost=None" in str(inspect.signature(llm.set_options))
