"""Templates: what names mean, what is refused before rendering, and what each row's text is."""

from __future__ import annotations

import pickle
import re
from collections.abc import Hashable, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import jinja2
import jinja2.sandbox
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nyu_llm_frames._stages.prompts.environment import ENVIRONMENT
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames._stages.prompts.template import Message, PromptTemplate, compile_template
from nyu_llm_frames.errors import (
    ConfigurationError,
    LLMFramesError,
    MissingColumnError,
    TemplateError,
)

COLUMNS: tuple[Hashable, ...] = ("offense", "year", "a b", "tags")


def render(template: Any, *rows: dict[Any, Any], **kwargs: Any) -> list[str]:
    """The last message's texts; columns are those of the first row."""
    columns = tuple(rows[0])
    data = {column: [row[column] for row in rows] for column in columns}
    prompt = compile_template(template, None, columns)
    return prompt.render(data, kwargs.get("index"), len(rows), kwargs.get("labels")).texts[-1]


def compiled(template: Any, columns: Sequence[Hashable] = COLUMNS) -> PromptTemplate:
    return compile_template(template, None, columns)


# -- laws

TEXT = st.text(max_size=8)
CELLS = st.integers() | st.floats(allow_nan=False) | TEXT
GAPS = st.sampled_from([None, float("nan"), np.float32("nan"), pd.NaT, pd.NA, Decimal("nan")])


def rows_of(cells: st.SearchStrategy[Any], text: st.SearchStrategy[str]) -> Any:
    """Some rows of the same columns; what may be missing is up to `cells`."""
    fields = st.fixed_dictionaries({"f": cells, "g": cells})
    columns = {"a": cells, "b": text, "a b": cells, "tags": st.lists(cells, max_size=3)}
    return st.lists(st.fixed_dictionaries({**columns, "p": fields}), min_size=1, max_size=5)


NAMES = ["a", "b", "row['a b']", "row.b", "row.get('a')", "tags", "index", "p", "p.f", "p['g']"]
ATOMS = st.sampled_from([*NAMES, "1", "'q'", "u"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda e: st.one_of(
        st.tuples(
            e,
            st.sampled_from(
                ["upper", "length", "d('n')", "default(a)", "string", "tojson", "first", "list"]
            ),
        ).map(lambda p: f"({p[0]})|{p[1]}"),
        st.tuples(
            e, st.sampled_from(["or", "and", "~", "==", "!=", "<", "in", "not in", "+"]), e
        ).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(e, e, e).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        st.tuples(
            e,
            st.sampled_from(
                ["is none", "is not none", "is defined", "is string", "in tags", "is in tags"]
            ),
        ).map(lambda p: f"({p[0]} {p[1]})"),
        st.tuples(e, e).map(lambda p: f"row[{p[0]} if index else {p[1]}]"),
        st.tuples(e, e).map(lambda p: f"[{p[0]}, {p[1]}]|select('eq', 'q')|list"),
        st.tuples(e, e).map(lambda p: "{'k': " + p[0] + ", 'q': [" + p[1] + "]}"),
        st.tuples(e, e).map(lambda p: f"'%s %s'|format({p[0]}, {p[1]})"),
        st.just("row.items()|list"),
        st.just("[p]|map(attribute='f', default='?')|join('-')"),
    ),
    max_leaves=4,
)
WORDS = st.sampled_from(["x", " ", "\n", "é\U0001f600", "}", "\ud800", "row text", "\\", "'"])


def nodes(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    e = EXPRESSIONS
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(e, inner, inner).map(
            lambda p: f"{{% if {p[0]} %}}{p[1]}{{% else %}}{p[2]}{{% endif %}}"
        ),
        st.tuples(e, inner).map(
            lambda p: f"{{% for u in [{p[0]}, a] %}}{{{{ loop.index }}}}{p[1]}{{% endfor %}}"
        ),
        st.tuples(inner).map(
            lambda p: f"{{% for u in tags if u %}}{p[0]}{{% else %}}empty{{% endfor %}}"
        ),
        st.tuples(e, inner).map(lambda p: f"{{% set u = {p[0]} %}}{p[1]}{{{{ u }}}}"),
        st.tuples(inner, inner).map(lambda p: f"{{% set u %}}{p[0]}{{% endset %}}{p[1]}"),
        st.tuples(e, inner).map(lambda p: f"{{% with a = {p[0]}, u = b %}}{p[1]}{{% endwith %}}"),
        st.tuples(inner).map(lambda p: f"{{% filter upper %}}{p[0]}{{% endfilter %}}"),
        st.tuples(inner, e).map(
            lambda p: (
                "{% macro m(u, v=b) %}" + p[0] + "{{ v }}{% if caller %}{{ caller() }}{% endif %}"
                "{% endmacro %}{{ m(" + p[1] + ") }}{% call m(1) %}c{{ u }}{% endcall %}"
            )
        ),
    )


TEMPLATES = st.recursive(
    EXPRESSIONS.map(lambda e: f"{{{{ {e} }}}}") | WORDS, nodes, max_leaves=6
).map(lambda body: "{% set u = b %}" + body)


PLAIN = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)


def plain_jinja(source: str, row: dict[Any, Any], index: int) -> str | None:
    """What Jinja itself makes of one row; None when it fails."""
    names = {k: v for k, v in row.items() if k.isidentifier()}
    try:
        return PLAIN.from_string(source).render({**names, "row": row, "index": index})
    except jinja2.UndefinedError as error:
        # Jinja takes a name that is set later on for undefined; for us it is the column.
        assume("is undefined" not in str(error))
        return None
    except Exception:
        return None


GAP = object()


def at_once(prompt: PromptTemplate, rows: list[dict[Any, Any]], start: int = 0) -> list[Any]:
    """All texts, `GAP` where a missing value is used, ending with None at the row that fails."""
    index = range(start, start + len(rows))
    data = {k: [row[k] for row in rows] for k in rows[0]}
    try:
        rendered = prompt.render(data, index, len(rows), labels=index)
    except TemplateError as caught:
        error = caught
    else:
        texts = iter(rendered.texts[0])
        return [GAP if i in rendered.missing else next(texts) for i in range(len(rows))]
    assert error.position is not None
    assert error.row == start + error.position
    return [*at_once(prompt, rows[: error.position], start), None] if error.position else [None]


def one_by_one(prompt: PromptTemplate, rows: list[dict[Any, Any]]) -> list[Any]:
    return [at_once(prompt, [row], i)[0] for i, row in enumerate(rows)]


def prints_no_text(text: str | None) -> bool:
    """Jinja prints what is no text, and an absent field inside of a list; for us both fail."""
    shown = ("<generator", "<built-in", "undefined")
    return text is not None and any(word in text.lower() for word in shown)


@settings(max_examples=150, deadline=None)
@given(source=TEMPLATES, rows=rows_of(CELLS, TEXT))
def test_all_rows_at_once_are_each_row_alone_are_plain_jinja(
    source: str, rows: list[dict[Any, Any]]
) -> None:
    rows = [{k: row[k] for k in rows[0]} for row in rows]  # hypothesis varies the order
    prompt = compile_template(source, None, list(rows[0]))
    alone = one_by_one(prompt, rows)
    plain = [plain_jinja(source, row, i) for i, row in enumerate(rows)]
    assume(not any(map(prints_no_text, plain)))
    assert alone == plain
    together = at_once(prompt, rows)
    assert together == alone[: len(together)]
    assert len(together) == len(rows) or together[-1] is None


UPPER = st.text("XYZ", max_size=3)  # none of these spells a missing value


@settings(max_examples=150, deadline=None)
@given(source=TEMPLATES, rows=rows_of(GAPS | UPPER | st.integers(0, 9), UPPER))
def test_no_missing_value_is_ever_printed(source: str, rows: list[dict[Any, Any]]) -> None:
    data = {k: to_python([row[k] for row in rows]) for k in rows[0]}
    rows = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    prompt = compile_template(source, None, list(data))
    alone = one_by_one(prompt, rows)
    for text in alone:
        if isinstance(text, str):
            assert not re.search("none|nan|nat|<na>|null", text.lower()), text
    together = at_once(prompt, rows)
    assert together == alone[: len(together)]
    for text, row in zip(alone, rows, strict=True):
        if text is GAP:
            assert "None" in str(row)


@given(cells=st.lists(CELLS | st.none(), max_size=9), before=TEXT, after=TEXT)
def test_a_cell_prints_as_str_and_never_splits_a_row(
    cells: list[Any], before: str, after: str
) -> None:
    assume(not any(mark in before + after + before for mark in ("{", "}", "#", "\r")))
    prompt = compile_template(before + "{{ a }}" + after, None, ["a"])
    rendered = prompt.render({"a": cells}, None, len(cells))
    assert rendered.texts == [[before + str(cell) + after for cell in cells if cell is not None]]
    assert set(rendered.missing) == {i for i, cell in enumerate(cells) if cell is None}


@given(st.lists(st.text(), min_size=1, max_size=3, unique=True), st.data())
def test_any_label_is_reached_by_row(labels: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    source = "{{ row[" + repr(label) + "] }}"
    assume("%}" not in source and "}}" not in source[:-2])
    try:
        spelled = ENVIRONMENT.from_string("{{ " + repr(label) + " }}").render()
    except jinja2.TemplateError:
        assume(False)
    assume(spelled == label)
    assert render(source, {name: f"<{name}>" for name in labels}) == [f"<{label}>"]


# -- names


def test_row_and_index_always_mean_ours() -> None:
    row = {"row": "R", "index": "I", "x": 1}
    assert render("{{ index }} {{ row['row'] }} {{ row['index'] }} {{ row.x }}", row) == ["0 R I 1"]
    assert render("{{ row }}", {"row": 5}) == ["{'row': 5}"]


@pytest.mark.parametrize(
    "name",
    [
        *("loop", "self", "super", "caller", "varargs", "kwargs", "range", "namespace", "class"),
        *("l_0_x", "context", "environment", "missing", "column_0", "column_rows", "_"),
        *("ﬁ", "fi", "naïve"),
    ],
)
def test_columns_may_have_names_that_jinja_uses(name: str) -> None:
    row = {name: "v", "fi2": "w"}
    assert render("{{ " + name + " }}{{ row." + name + " }}", row) == ["vv"]
    assert render(
        "{% if true %}{% for q in [1] %}{{ q }}{% endfor %}{% endif %}{{ fi2 }}", row
    ) == ["1w"]


def test_look_alike_names_stay_apart() -> None:
    assert render("{{ ﬁ }}{{ fi }}", {"ﬁ": 1, "fi": 2}) == ["12"]
    row = {"a": 1, "column_0": 2, "column_1": 3}
    assert render("{{ row.a }}{{ row.column_0 }}{{ row.column_1 }}", row) == ["123"]
    assert render("{{ row.a }}", row) == ["1"]


def test_a_name_that_the_template_may_set_is_left_to_the_row() -> None:
    source = "{% if x %}{% set y = 'p' %}{% endif %}{{ y }}"
    assert render(source, {"x": 1}) == ["p"]
    with pytest.raises(TemplateError, match="'y' is undefined"):
        render(source, {"x": 0})
    assert render(source, {"x": 1, "y": "c"}, {"x": 0, "y": "c"}) == ["p", "c"]
    source = "{% for row in tags %}{{ row.n }}{% endfor %}{{ row.a }}"
    assert render(source, {"tags": [{"n": 1}, {"n": 2}], "a": "x"}) == ["12x"]


def test_inside_a_loop_of_the_template_loop_is_jinjas() -> None:
    row = {"loop": "column", "tags": ["x", "y"]}
    source = "{{ loop }}{% for t in tags %}{{ loop.index }}{{ t }}{% endfor %}{{ loop }}"
    assert render(source, row) == ["column1x2ycolumn"]
    with pytest.raises(MissingColumnError):
        compiled("{% for t in tags %}{% endfor %}{{ loop.index }}")


def test_dict_methods_of_row_work_beside_columns_of_their_names() -> None:
    row = {"items": "I", "get": "G"}
    assert render("{{ row.items }}{{ row['get'] }}", row) == ["IG"]
    assert render("{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}", row) == [
        "items=I;get=G;"
    ]
    assert render("{{ row.get('get') }}", row) == ["G"]


def test_labels_need_not_be_text() -> None:
    row = {2020: "y", ("a", "b"): "t", None: "n", -1: "m"}
    assert render("{{ row[2020] }}{{ row[('a', 'b')] }}{{ row[none] }}{{ row[-1] }}", row) == [
        "ytnm"
    ]


def test_row_key_can_be_computed() -> None:
    assert render("{{ row['a' ~ n] }}", {"a1": "x", "a2": "y", "n": 2}) == ["y"]
    assert render("{{ row.get('a' ~ n) }}", {"a1": "x", "a2": "y", "n": 2}) == ["y"]


def test_only_columns_in_use_are_asked_for() -> None:
    prompt = compiled("{{ row['a b'] }} {{ offense }}")
    assert prompt.columns == ("offense", "a b")
    assert not prompt.uses_index
    assert compiled("{{ row }}").columns == COLUMNS
    assert compiled("{{ index }}").uses_index
    assert not compiled("hello").uses_anything
    assert compiled("{% set offense = 1 %}{{ offense }}").columns == ()
    assert compiled("{% if year %}{% set offense = 1 %}{% endif %}{{ offense }}").columns == (
        "offense",
        "year",
    )


def test_names_that_a_template_sets_itself_are_no_columns() -> None:
    row = {"x": 1}
    branches = "{% if x %}{% set y = 'p' %}{% else %}{% set y = 'q' %}{% endif %}{{ y }}"
    assert render(branches, {"x": 1}, {"x": 0}) == ["p", "q"]
    assert render("{% set x = x + 1 %}{{ x }}", {"x": 1}, {"x": 5}) == ["2", "6"]
    assert render("{% macro m(n) %}{% if n %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
                  "{{ m(3) }}", row) == ["321"]  # fmt: skip


def test_a_name_set_in_one_row_is_not_set_in_the_next() -> None:
    source = "{% if x %}{% set y = x %}{% endif %}{{ y is defined }}"
    assert render(source, {"x": 1}, {"x": 0}, {"x": 2}) == ["True", "False", "True"]


# -- refused before rendering


def test_unknown_name_is_refused_with_the_nearest_columns_first() -> None:
    with pytest.raises(MissingColumnError) as caught:
        compiled("One line\nWhich drug? {{ offence }}")
    error = caught.value
    assert (error.column, error.line, error.available[0]) == ("offence", 2, "offense")
    assert set(error.available) == set(COLUMNS)
    assert str(error) == (
        "The template uses 'offence', which is not a column (line 2).\n"
        "  2 | Which drug? {{ offence }}\n"
        "    |                ^^^^^^^\n"
        "Did you mean `offense`? Columns: 'offense', 'year', 'a b', 'tags'."
    )


def test_many_columns_are_counted_not_listed() -> None:
    with pytest.raises(MissingColumnError, match="and 90 more") as caught:
        compiled("{{ x }}", [f"column {i}" for i in range(100)])
    assert len(caught.value.available) == 100


@pytest.mark.parametrize(
    "source",
    [
        "{{ nope }}",
        "{{ nope | default('x') }}",
        "{% if nope is defined %}{% endif %}",
        "{% if false %}{{ nope }}{% endif %}",
        "{% for t in tags %}{{ nope }}{% endfor %}",
        "{% macro m() %}{{ nope }}{% endmacro %}",
        "{% macro m(a=nope) %}{% endmacro %}",
        "{% call(x) nope() %}{% endcall %}",
        "{% set x = nope %}",
        "{% set nope = nope %}",
        "{% with a = nope %}{% endwith %}",
        "{% with nope = 1 %}{% endwith %}{{ nope }}",
        "{% filter replace(nope, '') %}x{% endfilter %}",
        "{% block b %}{{ nope }}{% endblock %}",
        "{% for nope in tags %}{% endfor %}{{ nope }}",
        "{{ row['nope'] }}",
        "{{ row.nope }}",
        "{{ row.get('nope', 1) }}",
        "{{ row.items }}",
        "{% for t in tags %}{{ row['nope'] }}{% endfor %}",
        "{{ namespace() }}",
        "{{ lipsum() }}",
        "{{ dict() }}",
        "{{ self }}",
        "{{ caller() }}",
    ],
)
def test_name_without_a_column_is_refused_wherever_it_stands(source: str) -> None:
    with pytest.raises(MissingColumnError):
        compiled(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ offense | uper }}", r"filter `uper` \(line 1\)[\s\S]*Did you mean `upper`"),
        ("{{ offense is strin }}", r"test `strin`[\s\S]*`string`"),
        ("{% if false %}{{ 1 | nope }}{% endif %}", "unknown filter `nope`"),
        ("{{ tags | random }}", "its row alone"),
        ("a\n{% include 'x' %}", r"`{% include %}`[\s\S]*line 2"),
        ("{% extends 'x' %}", "no folder of templates"),
        ("{% import 'x' as y %}", "no folder of templates"),
        ("{% from 'x' import y %}", "no folder of templates"),
        ("a\n{{ a b }}", r"line 2[\s\S]*\n    \|      \^[\s\S]*written `row\['a b'\]`"),
        ("{{ offense", "does not parse"),
        ("{% if %}", "does not parse"),
        ("{% endif %}", "does not parse"),
        ("{{ 1 | row text }}", "does not parse"),
        ("{% block b %}{% endblock %}{% block b %}{% endblock %}", "defined twice"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deeply"),
    ],
)
def test_what_cannot_work_is_refused_before_rendering(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        compiled(source)


def test_long_lines_are_cut_around_the_place() -> None:
    with pytest.raises(MissingColumnError) as caught:
        compiled("x" * 5000 + "{{ nope }}" + "y" * 5000)
    lines = str(caught.value).splitlines()
    assert max(map(len, lines)) < 120
    assert lines[1][lines[2].index("^") :].startswith("nope")


def test_a_column_in_use_must_be_there_once() -> None:
    with pytest.raises(ConfigurationError, match="duplicated"):
        compiled("{{ a }}", ["a", "b", "a"])
    assert compiled("{{ b }}", ["a", "b", "a"]).columns == ("b",)


# -- refused at a row


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("\n{{ 6 // x }}", "ZeroDivisionError"),
        ("\n{{ x.nope if not x else '' }}", "UndefinedError"),
        ("\n{{ [x.nope] if not x else '' }}", "UndefinedError.*'nope'"),
        ("\n{{ [{'k': x}] | map(attribute='nope') | list if not x }}", "UndefinedError.*'nope'"),
        ("\n{{ {'k': x.nope} | tojson if not x }}", "UndefinedError.*'nope'"),
        ("\n{{ range(10 ** 9) if not x }}", "OverflowError"),
        (
            "\n{% macro m(n) %}{% if not x %}{{ m(n) }}{% endif %}{% endmacro %}{{ m(1) }}",
            "Recursion",
        ),
        ("\n{{ [1, x] | map('abs') if not x }}", "generator"),
        ("\n{{ (x ~ '').upper if not x }}", "'upper'"),
        ("\n{{ x.__class__ if not x }}", "SecurityError"),
        ("\n{{ [].append(1) if not x }}", "SecurityError"),
        ("{% block b %}\n{{ 6 // x }}{% endblock %}", "ZeroDivisionError"),
    ],
)
def test_failure_names_the_row_and_the_line(source: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason) as caught:
        render(source, {"x": 1}, {"x": 2}, {"x": 0}, {"x": 0}, labels=["p", "q", "r", "s"])
    assert (caught.value.position, caught.value.row, caught.value.line) == (2, "r", 2)
    assert "row 'r' (position 2), line 2" in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'Tags: ' ~ tags | map('upper') }}",
        "{{ tags | map('upper') | trim }}",
        "{{ tags | map('upper') | string }}",
        "{{ [tags | map('upper')] }}",
        "{{ q.upper ~ '' }}",
        "{% filter upper %}{{ q.upper | string }}{% endfilter %}",
        "{{ q.upper | string | title }}",
        jinja2.Template("{{ tags | map('upper') }}"),
    ],
)
def test_a_memory_address_never_gets_into_a_prompt(source: Any) -> None:
    rows = [{"q": "x", "tags": ["a"]}, {"q": "y", "tags": ["b"]}]
    with pytest.raises(TemplateError, match="memory address") as caught:
        render(source, *rows, labels=["first", "second"])
    assert caught.value.row == "first"


@pytest.mark.parametrize(
    ("source", "cells", "text"),
    [
        ("{{ q | upper }}", {"q": "<f at 0x7f41>"}, "<F AT 0X7F41>"),
        ("{{ q | lower }}", {"q": "<Function Foo at 0x7F41>"}, "<function foo at 0x7f41>"),
        ("{{ q | replace('_', ' ') }}", {"q": "<object_at 0x7f41>"}, "<object at 0x7f41>"),
        ("{{ [q] }}", {"q": "<a\t'b'\" at 0x7f41>"}, None),
        ("<{{ c | trim }} at 0x{{ a }}>", {"c": "Foo", "a": "7f41"}, "<Foo at 0x7f41>"),
        (jinja2.Template("<Foo at 0x7f41> {{ q }}"), {"q": "x"}, "<Foo at 0x7f41> x"),
    ],
)
def test_an_address_that_was_given_is_no_address_of_ours(
    source: Any, cells: dict[str, str], text: str | None
) -> None:
    [found] = render(source, cells)
    assert found == text or (text is None and "7f41" in found)


def test_a_memory_address_that_stands_in_a_cell_is_text_like_any_other() -> None:
    text = "TypeError: <function f at 0x7f41d30c6440> is not iterable"
    assert render("{{ q | trim }}{{ tags }}", {"q": text, "tags": [text]}) == [f"{text}['{text}']"]
    assert render(f"{text} {{{{ q | upper }}}}", {"q": "a"}) == [f"{text} A"]


@pytest.mark.parametrize("kind", [str, jinja2.Template])
def test_a_label_apart_is_in_no_row_as_a_whole(kind: type) -> None:
    source = "{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}"
    data = {"a": [1, 2], "response": ["x", None]}
    prompt = compile_template(kind(source), None, list(data), frozenset({"response"}))
    assert prompt.columns == ("a",)
    assert prompt.render(data, None, 2).texts == [["a=1;", "a=2;"]]


@pytest.mark.parametrize("kind", [str, jinja2.Template])
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for c in ['a', 'response'] %}{{ row[c] }};{% endfor %}", "1;x;"),
        ("{{ row.get('response') }}", "x"),
        ("{% set r = row %}{{ r.response }}", "x"),
    ],
)
def test_a_label_apart_that_is_named_anywhere_is_there(kind: type, source: str, text: str) -> None:
    data = {"a": [1], "response": ["x"]}
    prompt = compile_template(kind(source), None, list(data), frozenset({"response"}))
    assert prompt.render(data, None, 1).texts == [[text]]


@pytest.mark.parametrize("access", ["row['response']", "row.response"])
def test_a_label_apart_that_is_named_is_in_the_row_as_a_whole(access: str) -> None:
    source = "{% for k in row %}{{ k }};{% endfor %}{{ " + access + " }}"
    prompt = compile_template(source, None, ["a", "response"], frozenset({"response"}))
    assert prompt.render({"a": [1], "response": ["x"]}, None, 1).texts == [["a;response;x"]]


def test_row_label_reads_as_plain_python() -> None:
    with pytest.raises(TemplateError, match=r"row 7 \(position 0\)"):
        render("{{ 1 // x }}", {"x": 0}, labels=np.array([7]))


def test_failures_never_show_a_long_cell() -> None:
    secret = "name of a person " * 1000
    with pytest.raises(TemplateError) as caught:
        render("{{ row[x] }}", {"x": secret})
    assert len(str(caught.value)) < 500


def test_constant_template_that_fails_fails_at_the_first_row_only_when_there_is_one() -> None:
    prompt = compiled("{{ 1 / 0 }}")
    assert prompt.render({}, None, 0).texts == [[]]
    with pytest.raises(TemplateError, match="ZeroDivisionError"):
        prompt.render({}, None, 1)


# -- text


def test_text_is_kept_as_written() -> None:
    assert render("a\n\n{{ x }}\n", {"x": " \r\n<b>&"}) == ["a\n\n \r\n<b>&\n"]
    assert render("", {"x": 1}, {"x": 2}) == ["", ""]
    assert render("constant", {"x": 1}, {"x": 2}) == ["constant", "constant"]


def test_blocks_and_deep_loops_render_too() -> None:
    assert render("{% block b %}<{{ x }}>{% endblock %}{{ self.b() }}", {"x": 1}, {"x": 2}) == [
        "<1><1>",
        "<2><2>",
    ]
    deep = "{% for q in [1] %}" * 20 + "{{ x }}" + "{% endfor %}" * 20
    assert render(deep, {"x": "v"}, {"x": "w"}) == ["v", "w"]
    assert render("{% set loop = x %}{{ loop }}", {"x": "v"}, {"x": "w"}) == ["v", "w"]


def test_default_takes_a_missing_cell_for_undefined() -> None:
    assert render("{{ x | default('?') }}{{ x | d('!') }}", {"x": None}, {"x": ""}) == ["?!", ""]
    assert render("{{ x | d('?', true) }}", {"x": ""}) == ["?"]
    assert render("{{ x is defined }}{{ x is undefined }}", {"x": None}) == ["FalseTrue"]


def test_index_prints_the_given_labels() -> None:
    assert render("{{ index }}", {"x": 1}, {"x": 1}, index=["p", 7]) == ["p", "7"]


# -- missing values

PERSON = {"name": None, "age": 3, "tags": ["x", None], "none": {}}


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}",
        "{{ a | upper }}",
        "{{ a | trim | default('?') }}",
        "{{ a ~ '' }}",
        "{{ a + 1 }}",
        "{{ 'x' + a }}",
        "{{ -a }}",
        "{{ a | int }}",
        "{{ a | round }}",
        "{{ '%s' % a }}{{ '%d' % a }}",
        "{{ '{}'.format(a) }}",
        "{{ '{0.name}'.format(p) }}",
        "{{ 'xyz'.replace('y', a) }}",
        "{{ a.upper() }}",
        "{{ a.b.c }}",
        "{{ a | tojson }}{{ b }}",
        "{{ p | tojson }}",
        "{{ p }}",
        "{{ p.name }}",
        "{{ p['tags'] }}",
        "{{ p.tags | join(', ') }}",
        "{{ p.tags[1] }}",
        "{{ p.tags | last }}",
        "{{ p.get('name') }}",
        "{{ p.get('other') }}",
        "{{ [p] | map(attribute='name') | join }}",
        "{% for key, value in p.items() %}{{ value }}{% endfor %}",
        "{% for t in a %}{% endfor %}",
        "{% for t in a | items %}{% endfor %}",
        "{% for t in p.tags %}{{ t }}{% endfor %}",
        "{% for t in p.tags if t == 'x' %}{% endfor %}",
        "{{ row }}",
        "{{ row.a }}{{ row['a'] }}{{ row.get('a') }}",
        "{% for name in ['a', 'b'] %}{{ row[name] }}{% endfor %}",
        "{% set x = a %}{{ x }}",
        "{% set x %}{{ a }}{% endset %}",
        "{% with x = a %}{{ x }}{% endwith %}",
        "{% filter upper %}{{ a }}{% endfilter %}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(a) }}",
        "{% block q %}{{ a }}{% endblock %}",
        "{{ [a] }}{{ {'k': a} }}",
        "{{ o.name }}",
        # compared
        "{% if a == 'US' %}US{% else %}no{% endif %}",
        "{{ a != 'US' }}",
        "{{ 'US' == a }}",
        "{{ a == b }}",
        "{{ a == a }}",
        "{{ a > 1 }}{{ 1 <= a }}",
        "{{ a in ['US'] }}",
        "{{ a not in [] }}",
        "{{ a in 'text' }}",
        "{{ a in {'US': 1} }}",
        "{{ 'US' in a }}",
        "{{ 'z' in p.tags }}",
        "{{ p.tags | sort }}",
        "{{ p.tags | unique | list | length }}",
        "{{ a is eq 'US' }}{{ a is in ['US'] }}",
        "{{ a is true }}",
        "{{ a is sameas 1 }}",
        "{{ a is even }}",
        "{{ [p] | selectattr('name', 'equalto', 'x') | list | length }}",
        "{{ [p] | selectattr('name', 'in', ['x']) | list | length }}",
        "{{ p == {'name': 'x', 'age': 3, 'tags': [], 'none': {}} }}",
        "{% if a is none or b == 'k' %}{{ a }}{% endif %}",
        "{% if a is none %}none{% endif %}{{ a }}",
    ],
)
def test_a_missing_value_that_is_used_is_missing(source: str) -> None:
    row = {"a": None, "b": "k", "p": PERSON, "o": SimpleNamespace(name=None)}
    prompt = compile_template(source + "{{ b }}", None, list(row))
    data = {label: [value] for label, value in row.items()}
    assert list(prompt.render(data, None, 1).missing) == [0]


def test_all_missing_values_of_a_row_are_counted_and_the_rows_after_it_rendered() -> None:
    prompt = compile_template("{{ a }}{{ p }}{{ 1 // b }}", None, ["a", "b", "p"])
    rows = {"a": [None, 1, None, 4], "b": [0, 1, 1, 1], "p": [None, 2, 3, 4]}
    found = prompt.render(rows, None, 4)
    assert found.texts == [["121", "441"]]
    assert found.missing == {0: {"a", "p"}, 2: {"a"}}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ a or 'u' }}", "u"),
        ("{{ a | default('u') }}{{ a | d('v', true) }}", "uv"),
        ("{{ a if a else 'u' }}{{ a if a is not none }}", "u"),
        ("{% if a %}{{ a }}{% else %}u{% endif %}", "u"),
        ("{% if not a %}u{% endif %}", "u"),
        ("{% if a is none %}u{% elif a == 1 %}v{% endif %}", "u"),
        ("{% if a is defined %}{{ a }}{% endif %}", ""),
        ("{{ a == none }}{{ none != a }}{{ a is sameas none }}", "TrueFalseTrue"),
        ("{{ a in [none, 1] }}{{ a in ['', none] }}", "TrueTrue"),
        ("{{ 'u' if a is none or a == 1 }}", "u"),
        ("{{ 'u' if a is not string }}{{ a is iterable }}{{ a is callable }}", "uFalseFalse"),
        ("{{ a.b.c or 'u' }}{{ a['b'] | d('v') }}{{ p.name | d('w') }}", "uvw"),
        ("{{ p.age }}{{ p.tags[0] }}{{ p.tags | length }}{{ p | length }}", "3x24"),
        ("{{ p.get('name') or 'u' }}{{ p.get('other', 'v') }}", "uv"),
        ("{% for t in p.tags if t %}{{ t }}{% endfor %}", "x"),
        ("{{ p.tags | select | join }}{{ p.tags | reject('none') | join }}", "xx"),
        ("{{ 'x' in p.tags }}{{ p.tags | map('default', '-') | join }}", "Truex-"),
        ("{{ [p] | map(attribute='name', default='u') | join }}", "u"),
        ("{{ [p] | selectattr('name') | list | length }}", "0"),
        ("{% for k, v in row.items() if v is none %}{{ k }}{% endfor %}", "a"),
        ("{% set x = a %}{{ x or 'u' }}{% with y = a %}{{ y or 'v' }}{% endwith %}", "uv"),
        ("{% macro m(x) %}{{ x or 'u' }}{% endmacro %}{{ m(a) }}", "u"),
        ("{{ o.name or 'u' }}", "u"),
        ("{{ b and 'u' }}{{ none }}", "uNone"),
    ],
)
def test_a_template_may_say_what_to_do_with_a_missing_value(source: str, text: str) -> None:
    row = {"a": None, "b": "k", "p": PERSON, "o": SimpleNamespace(name=None)}
    assert render(source, row) == [text]


def test_a_missing_label_of_a_row_is_missing() -> None:
    prompt = compile_template("{{ index }}{{ a }}", None, ["a"])
    found = prompt.render({"a": [1, None]}, ["p", None], 2)
    assert (found.texts, found.missing) == ([["p1"]], {1: {"the index", "a"}})


def test_every_message_has_its_say_about_a_missing_value() -> None:
    messages = [
        {"role": "user", "content": "{% if a %}{{ a }}{% endif %}{{ b or '' }}"},
        {"role": "assistant", "content": "{{ a }}"},
    ]
    found = compiled(messages, ["a", "b"]).render({"a": [None, 1], "b": [None, None]}, None, 2)
    assert (found.texts, found.missing) == ([["1"], ["1"]], {0: {"a"}})


# -- messages


def test_messages_are_rendered_in_their_order() -> None:
    messages = [
        {"role": "system", "content": "S {{ a }}"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A {{ index }}"},
        {"role": "user", "content": "{{ b }}"},
    ]
    prompt = compile_template(messages, None, ["b", "a"])
    assert prompt.roles == ("system", "user", "assistant", "user")
    assert prompt.sources[0] == Message("system", "S {{ a }}")
    assert (prompt.columns, prompt.uses_index) == (("b", "a"), True)
    assert prompt.render({"a": [1, 2], "b": ["x", "y"]}, ["p", "q"], 2).texts == [
        ["S 1", "S 2"],
        ["U", "U"],
        ["A p", "A q"],
        ["x", "y"],
    ]


def test_system_goes_first() -> None:
    prompt = compile_template("{{ a }}", "Be brief, {{ b }}.", ["a", "b"])
    assert prompt.roles == ("system", "user")
    assert prompt.render({"a": [1], "b": [2]}, None, 1).texts == [["Be brief, 2."], ["1"]]


@pytest.mark.parametrize(
    ("template", "system", "words"),
    [
        (5, None, "not a int"),
        (None, None, "not None"),
        ("x", 5, "system="),
        ([], None, "at least one"),
        ([{"role": "system", "content": "x"}], None, "at least one"),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": "x"}], "y", "two system"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "x"}], None, "first"),
        ([{"role": "tool", "content": "x"}], None, "'tool'"),
        ([{"role": "user", "content": [{"type": "text"}]}], None, "images="),
        ([{"role": "user"}], None, "Message 0"),
        ([{"role": "user", "content": "x", "name": "y"}], None, "'name'"),
        (["x"], None, "not a str"),
    ],
)
def test_what_is_no_prompt_is_refused(template: Any, system: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        compile_template(template, system, ["a"])


def test_prompt_pickles() -> None:
    prompt = compile_template("{{ a }}", "{{ b }}", ["a", "b"])
    again = pickle.loads(pickle.dumps(prompt))
    data: dict[Any, list[int]] = {"a": [1], "b": [2]}
    assert again.render(data, None, 1).texts == prompt.render(data, None, 1).texts
    assert again.sources == prompt.sources


# -- a user's own jinja2.Template


def test_template_object_keeps_its_environment() -> None:
    environment = jinja2.Environment(variable_start_string="<<", variable_end_string=">>")
    environment.filters["shout"] = lambda text: f"{text}!"
    environment.globals["site"] = "NYU"
    template = environment.from_string("<< a|shout >> << row['a b'] >> << index >> << site >>")
    row = {"a": "x", "a b": 2, "row": 0}
    assert render(template, row, row, index=["p", "q"]) == ["x! 2 p NYU", "x! 2 q NYU"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}{{ row['b'] }}{{ index }}",
        "{{ a|default('N') }}{{ a|d('N', true) }}{{ a or 'N' }}{{ a is none }}{{ a == none }}",
        "{{ row['a'] or 'N' }}{% if row['a'] %}{{ row['a'] }}{% endif %}{{ row.a|default('N') }}",
        "{{ b.upper() }}{{ '%s' % b }}{{ '{}'.format(b) }}{{ b|length }}{{ range(3)|list }}",
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(b) }}",
        "{% for c in b %}{{ loop.index }}{% endfor %}{% filter upper %}{{ b }}{% endfilter %}",
        "{% block q %}{{ b }}{% endblock %}{% set y = b %}{{ y }}",
        "{{ l + [1] }}{{ l|sum }}",
        "{{ dict(a=1) }}",
        "{{ lipsum() }}",
        "{{ namespace(x=1).x }}",
        "{{ b.__class__ }}",
        "{{ b.__class__.__mro__ }}",
        "{{ '{0.__class__}'.format(b) }}",
        "{{ ('{0.__class__.__mro__}'|format)(b) }}",
        "{% block q %}{{ b.__class__.__mro__ }}{% endblock %}",
        "{% macro m() %}{{ b.__class__.__mro__ }}{% endmacro %}{{ m() }}",
        "{{ row.pop('b') }}",
        "{{ l.append(9) }}",
        "{{ l|random }}",
        "{{ nothing }}",
        "{{ [a.nope, b] }}",
    ],
)
def test_a_template_object_says_what_its_source_says(source: str) -> None:
    """Same texts, same columns, same refusals."""

    def said(template: object) -> object:
        try:
            prompt = compiled(template, ["a", "b", "l"])
            data = {"a": ["", "x", 0], "b": ["k", "", "\u4e2d"], "l": [[1], [], [2, 3]]}
            return prompt.columns, prompt.render(data, None, 3)
        except LLMFramesError as error:
            return type(error).__name__

    assert said(jinja2.Template(source, undefined=jinja2.StrictUndefined)) == said(source)


@pytest.mark.parametrize("source", ["{{ row.items()|list }}", "{{ row.keys()|list }}", "{{ row }}"])
def test_the_whole_row_is_whole_also_beside_a_column_of_a_method_s_name(source: str) -> None:
    columns = ["customer", "items", "keys"]
    data = {name: [f"{name} 1"] for name in columns}
    object_, text = (compiled(t, columns) for t in (jinja2.Template(source), source))
    assert object_.columns == text.columns == tuple(columns)
    assert object_.render(data, None, 1) == text.render(data, None, 1)


def test_a_template_object_keeps_what_its_maker_gave_it() -> None:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"part": "[{{ a|shout }}]"}), finalize=lambda v: v or "-"
    )
    environment.filters["shout"] = lambda text: f"{text}!"
    environment.globals["greet"] = lambda name: f"hello {name}"
    template = environment.from_string(
        "{% include 'part' %}{{ greet(a) }}{{ word }}", {"word": "w"}
    )
    prompt = compiled(template, ["a"])
    assert prompt.render({"a": ["x", "y"]}, None, 2).texts == [["[x!]hello xw", "[y!]hello yw"]]
    environment.globals["delete"] = jinja2.sandbox.unsafe(lambda: "done")
    with pytest.raises(TemplateError, match="not safely callable"):
        compiled(environment.from_string("{{ delete() }}{{ a }}"), ["a"]).render(
            {"a": [1]}, None, 1
        )
    loaded = environment.from_string("{% include 'part' %}{{ a.__class__.__mro__ }}")
    with pytest.raises(TemplateError):
        compiled(loaded, ["a"]).render({"a": ["x"]}, None, 1)


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("{{ a }}{% for t in b %}{{ t }}{{ c }}{% endfor %}", "abc"),
        ("{% macro m(x) %}{{ x }}{{ b }}{% endmacro %}{{ m(a) }}", "ab"),
        ("{% block q %}{{ a }}{% endblock %}", "a"),
        ("{% if a %}{% set y = 1 %}{% else %}{% set y = b %}{% endif %}{{ y }}", "ab"),
        ("{{ row['b']|default('x') }}{% if row.c %}{{ row.c }}{% endif %}", "bc"),
        ("{{ row.items()|list }}", "abc"),
        ("{% for name in ['a', 'b'] %}{{ row[name] }}{% endfor %}", "abc"),
        ("{{ range(3)|list }}", ""),
    ],
)
def test_template_object_shows_its_columns_in_its_constants(source: str, columns: str) -> None:
    assert compiled(jinja2.Template(source), ["a", "b", "c"]).columns == tuple(columns)


@pytest.mark.parametrize("source", ["{{ a }}", "{{ a or 'u' }}", "{% if a is none %}u{% endif %}"])
def test_a_missing_value_in_a_column_of_a_template_object_is_never_left_to_it(source: str) -> None:
    prompt = compiled(jinja2.Template(source), ["a", "b"])
    found = prompt.render({"a": [None, "x"], "b": [None, None]}, None, 2)
    assert (found.missing, found.in_object) == ({0: {"a"}}, True)


def test_an_unread_field_of_a_template_object_s_column_is_not_missing() -> None:
    prompt = compiled(jinja2.Template("{{ p.age }}{{ p.name or 'u' }}"), ["p"])
    assert prompt.render({"p": [PERSON]}, None, 1).texts == [["3u"]]


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}{{ row }}",
        "{{ a }}{% for name in row %}{{ row[name] }}{% endfor %}",
        "{{ a }}{{ row.items()|list }}",
        "{% for name in ['a', 'b'] %}{{ row[name] }}{% endfor %}{{ row['a'] }}",
        "{{ a }}{{ row|tojson }}",
    ],
)
def test_a_template_object_s_row_is_never_a_part_of_the_row(source: str) -> None:
    with pytest.raises(TemplateError, match="pass the template's text"):
        render(jinja2.Template(source), {"a": 1, "b": 2})


@pytest.mark.parametrize("source", ["{{ row['nope'] }}", "{{ row.nope }}", "{{ row.get('nope') }}"])
def test_an_unknown_column_of_a_template_object_s_row_is_refused(source: str) -> None:
    with pytest.raises(MissingColumnError, match="Columns: "):
        render(jinja2.Template(source), {"a": 1, "b": 2})


def test_template_object_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(MissingColumnError, match="Did you mean `offense`"):
        render(jinja2.Template("{{ offence }}"), {"offense": 1, "year": 2})


def test_template_object_that_loads_others_may_use_any_column() -> None:
    loader = jinja2.DictLoader({"part": "{{ b }}", "whole": "{{ a }}{% include 'part' %}"})
    template = jinja2.Environment(loader=loader).get_template("whole")
    assert compiled(template, ["a", "b", "c"]).columns == ("a", "b", "c")
    assert render(template, {"a": 1, "b": 2}) == ["12"]


@pytest.mark.parametrize("source", ["{{ x.__class__ }}", "{{ x.append(3) }}{{ x }}"])
def test_a_template_object_is_told_what_the_sandbox_refuses(source: str) -> None:
    with pytest.raises(TemplateError, match=r"SecurityError: access to attribute .* is unsafe"):
        render(jinja2.Template(source), {"x": [1, 2]})


def test_template_object_failure_names_the_row() -> None:
    with pytest.raises(TemplateError, match="ZeroDivisionError") as caught:
        render(jinja2.Template("{{ 1 // a }}"), {"a": 1}, {"a": 0}, labels=["p", "q"])
    assert (caught.value.position, caught.value.row) == (1, "q")
