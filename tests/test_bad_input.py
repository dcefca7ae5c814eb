"""What a person reads when the input is wrong; nothing is uploaded then, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stand_in import StandIn, answer

import nyu_llm_frames as llm
from nyu_llm_frames._jobs import output_reader as _harvest
from nyu_llm_frames._sidecar import answer_store as _answer_store
from nyu_llm_frames.errors import (
    AuthenticationError,
    ConfigurationError,
    GatewayError,
    LLMFramesError,
    MissingColumnError,
    MissingValueError,
    RequestError,
    RunTimeoutError,
    SidecarDamagedError,
    SidecarError,
    SidecarVersionError,
    TemplateError,
)

MODEL = "gemini-3-flash-preview"
DF = pd.DataFrame(
    {
        "offense": ["a", "b", None, None, None, None],
        "district": range(6),
        "sentence": [1, 2, 3, "life", 5, 6],
        "date of grant": list("uvwxyz"),
    },
    index=[10, 11, 12, 13, 14, 15],
)


def ask(template: Any = "{{ district }}", frame: pd.DataFrame = DF, **options: Any) -> pd.DataFrame:
    out: pd.DataFrame = frame.llm.batch(template, **{"model": MODEL, **options})
    return out


def said(kind: type[LLMFramesError], call: Callable[[], object]) -> str:
    """Return the message of the one error that a call must end in."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# --- templates --------------------------------------------------------------------------------
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_file_read_with_the_wrong_separator_is_recognised(separator: str) -> None:
    frame = pd.DataFrame({f"id{separator}text": [f"1{separator}weed"]})
    text = said(MissingColumnError, lambda: frame.llm.preview("{{ text }}", model=MODEL))
    assert text.endswith(f"If it separates the columns of the file, say so: sep={separator!r}.")
    whole = frame.assign(other=1)
    text = said(MissingColumnError, lambda: whole.llm.preview("{{ text }}", model=MODEL))
    assert "sep=" not in text


@pytest.mark.parametrize("template", ["{{ title }}", "{{ row['title'] }} {{ n.title() }}"])
def test_a_column_that_is_called_as_a_filter_is_missing_as_any_other(template: str) -> None:
    frame = pd.DataFrame({"n": ["a", "b"]})
    text = said(MissingColumnError, lambda: frame.llm.preview(template, model=MODEL))
    assert "filter" not in text


def test_the_name_of_the_index_is_answered_with_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="text"))
    told = (
        "'text' is the index or a level of it: {{ index }} prints all of it, and df.reset_index() "
        "makes columns of it."
    )
    text = said(MissingColumnError, lambda: frame.llm.preview("{{ text }}", model=MODEL))
    assert text.endswith(f"Columns: 'n'. {told}")
    levels = frame.set_index([frame.index, pd.Index([1, 2], name="wave")])
    assert told in said(MissingColumnError, lambda: levels.llm.preview("{{ text }}", model=MODEL))
    frame.to_parquet(tmp_path / "in.parquet")
    paths = tmp_path / "in.parquet", tmp_path / "out.parquet"
    assert told in said(
        MissingColumnError, lambda: llm.batch_file(*paths, "{{ text }}", model=MODEL)
    )
    text = said(MissingColumnError, lambda: frame.llm.preview("{{ zzz }}", model=MODEL))
    assert "is the index" not in text


TEMPLATES: dict[str, tuple[Any, type[LLMFramesError], str]] = {
    "misspelt column": (
        "Which drug?\nIn {{ ofense }}",
        MissingColumnError,
        """\
The template uses 'ofense', which is not a column (line 2).
  2 | In {{ ofense }}
    |       ^^^^^^
Did you mean `offense`? Columns: 'offense', 'date of grant', 'sentence', 'district'.""",
    ),
    "no such column": (
        "{{ row['zzz'] }}",
        MissingColumnError,
        """\
The template uses 'zzz', which is not a column (line 1).
  1 | {{ row['zzz'] }}
    |         ^^^
Columns: 'offense', 'district', 'sentence', 'date of grant'.""",
    ),
    "a filter as a function": (
        "{{ upper(offense) }}",
        MissingColumnError,
        """\
The template uses 'upper', which is not a column (line 1).
  1 | {{ upper(offense) }}
    |    ^^^^^
`upper` is a filter, written after its column: {{ x | upper }}. \
Columns: 'date of grant', 'offense', 'district', 'sentence'.""",
    ),
    "a name of several words": (
        "{{ date of grant }}",
        TemplateError,
        """\
The template does not parse: expected token 'end of print statement', got 'of' (line 1).
  1 | {{ date of grant }}
    |         ^^
A column name of several words is written `row['date of grant']`.""",
    ),
    "a tag left open": (
        "Line one\nWhich {{ offense }} and {{ district",
        TemplateError,
        """\
The template does not parse: unexpected end of template, expected 'end of print statement' (line 2).
  2 | Which {{ offense }} and {{ district
    |                         ^^^^^^^^^^^""",
    ),
    "unknown filter": (
        "{{ district | uper }}",
        TemplateError,
        """\
The template uses the unknown filter `uper` (line 1).
  1 | {{ district | uper }}
    |               ^^^^
Did you mean `upper`?""",
    ),
    "a filter that fails at one row": (
        "Months:\n{{ sentence + 1 }}",
        TemplateError,
        """\
The template failed at row 13 (position 3), line 2: TypeError: can only concatenate str (not \
"int") to str
  2 | {{ sentence + 1 }}
    | ^^^^^^^^^^^^^^^^^^""",
    ),
    "an attribute that fails": (
        "{{ sentence.years.first }}",
        TemplateError,
        """\
The template failed at row 10 (position 0), line 1: UndefinedError: 'int object' has no \
attribute 'years'
  1 | {{ sentence.years.first }}
    | ^^^^^^^^^^^^^^^^^^^^^^^^^^""",
    ),
    "missing values": (
        "{{ offense }}",
        MissingValueError,
        "Missing values in what the prompt prints or compares: 4 in column 'offense' (rows 12, 13, "
        "14, …). "
        'To fix it: missing="skip" leaves these rows without an answer; test for them in the '
        'template, as in {% if offense %}…{% endif %} or {{ offense | default("unknown") }}; or '
        "fill or drop them first.",
    ),
    "empty prompts": (
        "{{ offense or '' }}",
        RequestError,
        "The prompt is empty in 4 of 6 rows, first in row 12. Drop these rows first, or let the "
        "template say something.",
    ),
    "a file that is not there": (
        Path("nope.txt"),
        TemplateError,
        "The template file nope.txt cannot be read: [Errno 2] No such file or directory: "
        "'nope.txt'.",
    ),
    "not a template": (
        3,
        ConfigurationError,
        "A template is text, a pathlib.Path, a jinja2.Template or a list of "
        '{"role", "content"} messages, not a int.',
    ),
    "no message": (
        [],
        ConfigurationError,
        'A list of messages needs at least one with "role": "user".',
    ),
    "unknown role": (
        [{"role": "usr", "content": "x"}],
        ConfigurationError,
        "Message 0 has the role 'usr'; roles are system, user, assistant.",
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_wrong_template_is_explained(gateway: StandIn, tmp_path: Path, name: str) -> None:
    template, kind, text = TEMPLATES[name]
    assert said(kind, lambda: ask(template)) == text
    assert gateway.log == []
    assert list(tmp_path.iterdir()) == []


def test_a_failure_names_its_row_to_code_too(gateway: StandIn) -> None:
    with pytest.raises(TemplateError) as failed:
        ask("{{ sentence + 1 }}")
    assert (failed.value.row, failed.value.position, failed.value.line) == (13, 3, 1)
    with pytest.raises(MissingColumnError) as missing:
        ask("{{ ofense }}")
    assert missing.value.column == "ofense"
    assert missing.value.available[0] == "offense"
    assert isinstance(missing.value, KeyError)
    with pytest.raises(MissingValueError) as holes:
        ask("{{ offense }}")
    assert holes.value.columns == {"offense": 4}
    assert holes.value.rows == (12, 13, 14)


# --- frames -----------------------------------------------------------------------------------
def test_columns_of_several_levels_are_refused(gateway: StandIn) -> None:
    columns = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    assert said(ConfigurationError, lambda: ask("x", pd.DataFrame([[1, 2]], columns=columns))) == (
        "The frame has columns of several levels, which a template cannot name. Flatten them "
        'first: df.columns = ["_".join(map(str, c)) for c in df.columns]'
    )


def test_a_used_column_that_exists_twice_is_refused(gateway: StandIn) -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert said(ConfigurationError, lambda: ask("{{ a }}", frame)) == (
        "The template uses the column 'a', and the table has more than one of that name. Rename "
        "one, or drop it: of a pandas frame, df.loc[:, ~df.columns.duplicated()] keeps the first "
        "of each name."
    )


def test_only_frames_have_the_accessor() -> None:
    with pytest.raises(AttributeError):
        DF["offense"].llm  # noqa: B018


# --- arguments --------------------------------------------------------------------------------
ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model must be the name of a model, not ''."),
    ({"model": None}, "model must be the name of a model, not None."),
    ({"output": ""}, "output must be a column name, not ''."),
    ({"prefix": 3}, "prefix must be a string, not 3."),
    ({"if_exists": "maybe"}, "if_exists must be 'error' or 'replace' or 'fill', not 'maybe'."),
    ({"missing": "drop"}, "missing must be 'error' or 'skip', not 'drop'."),
    ({"details": "yes"}, "details must be True or False, not 'yes'."),
    ({"on_error": "ignore"}, "on_error must be 'keep' or 'raise', not 'ignore'."),
    ({"wait": "no"}, "wait must be True or False, not 'no'."),
    ({"timeout": -1}, "timeout must be a number from 0, not -1."),
    ({"retries": -1}, "retries must be a whole number from 0 to 100, not -1."),
    ({"retries": 1.5}, "retries must be a whole number from 0 to 100, not 1.5."),
    ({"retries": None}, "retries must be a whole number from 0 to 100, not None."),
    (
        {"seed": 10**309},
        f"seed must be a whole number from -2.14748e+09 to 2.14748e+09, not {10**309}.",
    ),
    ({"max_tokens": 0}, "max_tokens must be a whole number from 1, not 0."),
    ({"max_tokens": True}, "max_tokens must be a whole number from 1, not True."),
    ({"temperature": 3}, "temperature must be a number from 0 to 2, not 3."),
    ({"temperature": float("nan")}, "temperature must be a number from 0 to 2, not nan."),
    ({"top_p": 1.1}, "top_p must be a number from 0 to 1, not 1.1."),
    ({"stop": [""]}, "stop must be a string or a list of strings, not ['']."),
    ({"params": [1]}, "params must be a dict of body fields, not [1]."),
    ({"params": {"model": "x"}}, "params cannot hold 'model': the call sets it itself."),
    (
        {"params": {"max_completion_tokens": -5}},
        "params['max_completion_tokens'] must be a whole number from 1, not -5.",
    ),
    ({"params": {"temperature": 9}}, "params['temperature'] must be a number from 0 to 2, not 9."),
    (
        {"params": {"seed": 1}, "seed": 1},
        "seed is given twice, as an argument and in params.",
    ),
    (
        {"params": {"top_k": float("inf")}},
        "params['top_k'] is inf, which JSON cannot express.",
    ),
    (
        {"model": " gemini-3-flash-preview"},
        "model=' gemini-3-flash-preview' holds a blank at an end, or a character that cannot be "
        "sent: was more copied than the name?",
    ),
    (
        {"model": "gemini\u20113"},
        "model='gemini\u20113' holds a blank at an end, or a character that cannot be "
        "sent: was more copied than the name?",
    ),
    ({"sidecar": 3}, "sidecar must be the path of a folder, not 3."),
    ({"gateway": "loca"}, "gateway must be a Gateway or the word \"local\", not 'loca'."),
    (
        {"system": 3},
        "system= takes a template: text, a pathlib.Path or a jinja2.Template, not a int.",
    ),
]


@pytest.mark.parametrize(("options", "text"), ARGUMENTS, ids=lambda x: str(x)[:40])
def test_a_wrong_argument_is_named(
    gateway: StandIn, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    assert said(ConfigurationError, lambda: ask(**options)) == text
    assert gateway.log == []
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_there_is_not_is_named_with_the_nearest(gateway: StandIn) -> None:
    with pytest.raises(TypeError) as caught:
        ask(temprature=1)
    assert str(caught.value) == "There is no argument temprature=. Did you mean temperature=?"


def test_a_request_that_fits_in_no_file_is_refused(gateway: StandIn) -> None:
    with llm.set_options(max_bytes_per_file=300):
        text = said(RequestError, lambda: ask("{{ 'x' * 300 }}{{ district }}"))
    assert text == (
        "The request of row 10 has 488 bytes, above max_bytes_per_file (300); 6 rows are too "
        "large. Shorten the text; images and documents can stay in a bucket and be named by a "
        "gs:// URL."
    )
    assert gateway.log == []


# --- gateways ---------------------------------------------------------------------------------
def test_missing_credentials_say_what_to_set_and_whom_to_ask(clock: Any) -> None:
    with llm.set_options(progress=False):
        text = said(ConfigurationError, ask)
        assert text == (
            "The gateway https://ai-gateway.apps.cloud.rt.nyu.edu/v1/ needs credentials. Missing "
            "is the key: set PORTKEY_API_KEY, or Gateway(api_key=...); and the bucket: set "
            "NYU_LLM_BUCKET, or Gateway(bucket=...). NYU's bucket comes from "
            'genai-research-support@nyu.edu. To try things without any, use gateway="local", '
            "which needs none."
        )
        for given, missing in (("api_key", "NYU_LLM_BUCKET"), ("bucket", "PORTKEY_API_KEY")):
            part = llm.Gateway(**{given: "given"})  # type: ignore[arg-type]
            text = said(ConfigurationError, lambda part=part: ask(gateway=part))  # type: ignore[misc]
            assert ("PORTKEY_API_KEY" in text, "NYU_LLM_BUCKET" in text) == (
                missing == "PORTKEY_API_KEY",
                missing == "NYU_LLM_BUCKET",
            )
            for always in ("genai-research-support@nyu.edu", 'gateway="local"'):
                assert always in text
        DF.to_csv("in.csv")
        said(
            ConfigurationError,
            lambda: llm.batch_file("in.csv", "o.csv", "{{ district }}", model=MODEL),
        )
        said(ConfigurationError, lambda: DF.llm.trial("{{ district }}", model=MODEL))
    # Nothing was planned that the next call would have to take back.
    assert not list(Path().rglob("*.parquet"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"base_url": "127.0.0.1:5/v1"}, "must be an address that begins with https://"),
        ({"base_url": "http://[::1"}, "must be an address that begins with https://"),
        ({"api_key": "one two"}, "holds a blank"),
        ({"bucket": "one\ntwo"}, "holds a line end"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anybody_is_asked(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """Else an address that leads nowhere is network trouble, and waited for."""
    ((name, value),) = given.items()
    assert told in said(ConfigurationError, lambda: llm.Gateway(**given))  # type: ignore[arg-type]
    variables = {"api_key": "PORTKEY_API_KEY", "base_url": "PORTKEY_BASE_URL"}
    monkeypatch.setenv("NYU_LLM_BUCKET", "b")
    monkeypatch.setenv("PORTKEY_API_KEY", "k")
    monkeypatch.setenv(variables.get(name, "NYU_LLM_BUCKET"), value)
    with llm.set_options(progress=False):
        text = said(ConfigurationError, ask)
    assert told in text
    assert variables.get(name, "NYU_LLM_BUCKET") in text
    if name == "api_key":
        assert value not in text


def test_what_was_planned_without_a_key_is_sent_with_one(stand_in: StandIn, clock: Any) -> None:
    with llm.set_options(progress=False):
        said(ConfigurationError, ask)
        out = ask(gateway=llm.Gateway(**stand_in.settings))
    assert out["response"].tolist() == [answer(str(i)) for i in range(6)]
    assert len(stand_in.jobs) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_what_to_check(gateway: StandIn, status: int) -> None:
    gateway.script.add("upload", status=status, body="json")
    assert said(AuthenticationError, ask) == (
        f"Uploading the request file: the gateway answered {status}: injected fault {status}. "
        "Check PORTKEY_API_KEY, the provider and the bucket; submitted jobs continue, and the same "
        "call picks them up."
    )


@pytest.mark.parametrize("status", [408, 413, 504])
def test_a_file_that_is_too_large_says_what_to_set(gateway: StandIn, status: int) -> None:
    gateway.script.add("upload", status=status, times=-1)
    error = GatewayError if status == 413 else RunTimeoutError
    assert "set_options(max_bytes_per_file=...)" in said(error, lambda: ask(timeout=50))
    gateway.script.clear()
    with llm.set_options(max_bytes_per_file=300):
        assert ask()["response"].notna().all()
    assert len(gateway.uploads) > 1
    assert max(map(len, gateway.uploads.values())) <= 300


def test_a_wrong_bucket_is_said_in_the_providers_words(gateway: StandIn) -> None:
    wrong = llm.Gateway(**{**gateway.settings, "bucket": "another"})
    text = said(GatewayError, lambda: ask(gateway=wrong))
    assert "the gateway answered 404: NoSuchBucket The specified bucket does not exist" in text
    assert "Check the bucket (bucket=, NYU_LLM_BUCKET)" in text
    assert ask()["response"].notna().all()


def test_an_unknown_model_is_said_in_the_providers_words(gateway: StandIn) -> None:
    text = said(GatewayError, lambda: ask(model="missing-model"))
    assert "The PublisherModel missing-model does not exist" in text
    assert text.endswith(
        "Nothing was submitted. Is model='missing-model' the name of a model that the provider "
        "has for batch inference?"
    )


@pytest.mark.parametrize("call", ["upload", "list", "poll"])
def test_a_login_page_is_told_while_the_run_waits(gateway: StandIn, call: str) -> None:
    gateway.script.add(call, status=200, body="html", times=-1)
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        said(RunTimeoutError, lambda: ask(timeout=50))
    trouble = [message for message in told if "trouble: " in message]
    assert re.search("not a gateway's|not a batch object|not a list", trouble[0])


def test_a_dead_gateway_is_named_while_the_run_waits(gateway: StandIn) -> None:
    gateway.stop()
    told: list[str] = []
    with llm.set_options(progress=lambda p: told.append(p.message)):
        said(RunTimeoutError, lambda: ask(timeout=60))
    assert any(f"no answer from {gateway.base_url}" in message for message in told)
    gateway.start()
    assert ask()["response"].notna().all()


# --- sidecars ---------------------------------------------------------------------------------
def parquet_of(folder: str) -> Path:
    (path,) = Path("llm_sidecar", folder).glob("*.parquet")
    return path


@pytest.mark.parametrize("folder", ["jobs", "answers"])
def test_a_newer_sidecar_is_refused_with_the_way_out(gateway: StandIn, folder: str) -> None:
    ask()
    path = parquet_of(folder)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"nyu_llm_frames.format": "99"}), path)
    calls = len(gateway.log)
    # One more row: a finished call does not need to read its jobs.
    more = pd.concat([DF, DF.assign(district=9)])
    assert said(SidecarVersionError, lambda: ask(frame=more)) == (
        f"{path.absolute()} was written in sidecar format 99; this release reads up to 2. "
        "Upgrade: pip install -U nyu-llm-frames"
    )
    assert len(gateway.log) == calls


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "not parquet": lambda path: path.write_bytes(b"<html>sync conflict</html>"),
    "another table": lambda path: pq.write_table(pa.table({"a": [1]}), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("folder", ["jobs", "requests", "answers"])
def test_a_damaged_file_is_named_with_what_can_be_rebuilt(
    gateway: StandIn, folder: str, damage: str
) -> None:
    ask()
    path = parquet_of(folder)
    kept = path.read_bytes()
    DAMAGE[damage](path)
    calls = len(gateway.log)
    more = pd.concat([DF, DF.assign(district=9)])
    text = said(SidecarDamagedError, lambda: ask(frame=more))
    assert text.startswith(str(path.absolute()))
    if damage != "another table":
        assert {
            "jobs": "Restore it from a backup",
            "requests": "Restore it from a backup",
            "answers": "Delete it: the next call reads its answers again from the gateway",
        }[folder] in text
    assert len(gateway.log) == calls
    path.write_bytes(kept)
    assert len(ask(frame=more)) == 12
    assert [len(job.requests) for job in gateway.jobs] == [6, 1]


def test_the_sidecar_cannot_lie_inside_a_file(gateway: StandIn, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for sidecar in ("file", "file/below"):
        text = said(SidecarError, lambda sidecar=sidecar: ask(sidecar=sidecar))  # type: ignore[misc]
        assert str(tmp_path / "file") in text
    assert gateway.log == []


def test_a_folder_that_one_may_not_look_into_is_a_sidecar_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_dir", refuse)
        text = said(SidecarError, lambda: llm.open_sidecar(tmp_path / "theirs.llm"))
    assert "theirs.llm: reading or writing is not allowed here" in text


FORBIDDEN = (
    "reading or writing is not allowed here. Choose a folder of your own with sidecar=; for "
    "another person's sidecar, ask for a copy (export)"
)
TROUBLE = {
    errno.ENOSPC: "the disk is full. Free some space and call again; nothing was lost",
    errno.EACCES: FORBIDDEN,
    errno.EROFS: FORBIDDEN,
}


@pytest.mark.parametrize(
    ("number", "write"),
    [*[(errno.ENOSPC, write) for write in range(1, 27)], (errno.EACCES, 5), (errno.EROFS, 9)],
)
def test_a_disk_that_fails_at_any_write_loses_nothing(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch, number: int, write: int
) -> None:
    real, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == write:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        try:
            ask()
        except SidecarError as e:
            assert TROUBLE[number] in str(e)  # noqa: PT017
    assert ask()["response"].tolist() == [answer(str(i)) for i in range(6)]
    assert len(gateway.jobs) == 1


def test_no_file_takes_its_name_before_its_bytes_are_flushed(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process does not show it: what it wrote is with the system, not yet on the disk."""
    flush, rename = os.fsync, os.replace
    flushed: dict[int, int] = {}
    renamed: list[tuple[str, bool]] = []
    folders: set[int] = set()

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        stat = os.fstat(descriptor)
        flushed[stat.st_ino] = stat.st_size
        folders.discard(stat.st_ino)

    def replace(source: Path, target: Path) -> None:
        stat = source.stat()
        whole = flushed.pop(stat.st_ino, -1) == stat.st_size > 0
        renamed.append((target.parent.name, whole))
        rename(source, target)
        folders.add(target.parent.stat().st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    assert ask()["response"].tolist() == [answer(str(i)) for i in range(6)]
    assert {folder for folder, _ in renamed} >= {"jobs", "requests", "answers", "runs"}
    assert all(whole for _, whole in renamed)
    assert not folders


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_disk_that_is_full_while_answers_are_written_loses_none(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """The thread that writes fails, at any of three groups; nothing of it takes a name."""
    gateway.behaviour.content_fails = -1  # what is read in its place comes in one piece
    monkeypatch.setattr(_answer_store, "GROUP_ROWS", 2)
    # Blocks of a line or a few, so that there are groups to write one after the other.
    splitter = _harvest.BlockSplitter
    monkeypatch.setattr(_harvest, "BlockSplitter", lambda: splitter(1))
    write, count = pq.ParquetWriter.write_table, 0

    def full(self: Any, table: pa.Table, *args: Any, **options: Any) -> None:
        nonlocal count
        if "raw" in table.schema.names:
            count += 1
            if count == group:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, table, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        text = said(SidecarError, ask)
        assert TROUBLE[errno.ENOSPC] in text
        assert count >= group
        assert list(Path("llm_sidecar/answers").iterdir()) == []
    assert ask()["response"].tolist() == [answer(str(i)) for i in range(6)]
    assert len(gateway.jobs) == 1
