"""Identity: which requests are the same for ever, and which never are.

`data/identities.jsonl` holds bodies and the ids that they have had since the first release. Lines
are added, never changed: an answer that was paid for is found by its id.
"""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nyu_llm_frames as llm
from nyu_llm_frames._stages.requests.bodies import (
    ENDPOINT,
    BodyShape,
    custom_ids,
    distinct,
    fragments,
    fragments_with_images,
    request_lines,
)

DATA = Path(__file__).parent / "data" / "identities.jsonl"
KEPT = [json.loads(line) for line in DATA.read_text(encoding="ascii").splitlines()]


def definition(realm: str, body: dict[str, Any]) -> str:
    """Return the id by its definition, in the simplest words."""
    rest = {key: body[key] for key in sorted(body) if key != "messages"}
    constant = json.dumps(rest, separators=(",", ":"))
    messages = json.dumps(body["messages"], separators=(",", ":"))[1:-1]
    text = "\n".join(["nyu_llm_frames/1", realm, "/v1/chat/completions", constant, messages])
    return f"r-{blake2b(text.encode('ascii'), digest_size=16).hexdigest()}"


def by_stages(realm: str, body: dict[str, Any]) -> str:
    """Return the id as the stages make it."""
    rest = {k: v for k, v in body.items() if k not in ("model", "messages")}
    roles = tuple(message["role"] for message in body["messages"])
    shape = BodyShape(body["model"], roles, rest)
    plain, parts = [], {}
    for i, message in enumerate(body["messages"]):
        content = message["content"]
        plain.append([content if isinstance(content, str) else ""])
        if not isinstance(content, str):
            parts[i] = [json.dumps(content, separators=(",", ":"))]
    made = fragments_with_images(roles, plain, parts) if parts else fragments(roles, plain)
    (custom_id,) = custom_ids(realm, shape, made).to_pylist()
    found: str = custom_id
    return found


@pytest.mark.parametrize("kept", KEPT, ids=[line["name"] for line in KEPT])
def test_an_id_of_the_first_release_is_the_same_for_ever(kept: dict[str, Any]) -> None:
    assert definition(kept["realm"], kept["body"]) == kept["custom_id"]
    assert by_stages(kept["realm"], kept["body"]) == kept["custom_id"]


def test_kept_ids_are_all_different() -> None:
    assert len({line["custom_id"] for line in KEPT}) == len(KEPT) > 30


def test_a_call_has_the_kept_id_of_its_request() -> None:
    (kept,) = [line for line in KEPT if line["name"] == "a call"]
    assert kept["realm"] == "@vertexai"
    df = pd.DataFrame({"offense": ["Importation of a quantity of marijuana"]})
    shown = df.llm.preview(
        "Which drug is named in this offence? {{ offense }}",
        model="gemini-3-flash-preview",
        system="You read legal texts.",
        max_tokens=2048,
        temperature=0.0,
        stop="END",
        params={"top_k": 5.0},
    )
    assert shown["custom_id"].tolist() == [kept["custom_id"]]
    assert kept["body"]["messages"] == shown["messages"].iloc[0]


# --- laws -------------------------------------------------------------------------------------
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS.filter(lambda x: not float(x).is_integer()) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PARAMS = st.dictionaries(TEXT.filter(lambda k: k not in ("model", "messages")), VALUES, max_size=4)
MESSAGES = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1)


@settings(max_examples=150, deadline=None)
@given(realm=TEXT.filter(str.isascii), model=TEXT, messages=MESSAGES, params=PARAMS)
def test_the_fast_way_agrees_with_the_definition(
    realm: str, model: str, messages: list[tuple[str, str]], params: dict[str, Any]
) -> None:
    body = {
        "model": model,
        "messages": [{"role": role, "content": text} for role, text in messages],
        **params,
    }
    assert by_stages(realm, body) == definition(realm, body)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=())) | st.text(st.characters(max_codepoint=127)),
        min_size=1,
    )
)
def test_messages_are_encoded_as_json_encodes_them(texts: list[str]) -> None:
    # Half surrogate pairs, control characters and newlines too, with and without images.
    expected = [
        json.dumps({"role": "user", "content": text}, separators=(",", ":")) for text in texts
    ]
    assert fragments(("user",), [texts]).to_pylist() == expected
    assert fragments_with_images(("user",), [texts], {}) == expected
    two = fragments(("system", "user"), [texts, texts]).to_pylist()
    assert two == [f"{one.replace('user', 'system', 1)},{one}" for one in expected]


@given(st.lists(st.integers(0, 5)))
@example([0, 1, 1, 3])
@example([2, 3, 4])
def test_bodies_are_those_of_the_positions(positions: list[int]) -> None:
    shape = BodyShape("m", ("user",), {})
    texts = [f"text {i}" for i in range(6)]
    half = [fragments(("user",), [some]) for some in (texts[:3], [], texts[3:])]
    ids = custom_ids("@v", shape, pa.concat_arrays(half))
    requests = distinct(ids, pa.chunked_array(half), shape, np.arange(6), 6)
    made = requests.bodies(np.array(positions, np.int64)).to_pylist()
    assert [json.loads(body)["messages"][0]["content"] for body in made] == [
        texts[i] for i in positions
    ]


def test_many_rows_keep_their_order() -> None:
    texts = [f"{i} é" if i % 3 else f"{i}" for i in range(10_000)]
    made = fragments(("user",), [texts]).to_pylist()
    assert [json.loads(one)["content"] for one in made] == texts


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), params=PARAMS)
def test_the_line_that_is_sent_says_what_was_asked(
    texts: list[tuple[str, str]], params: dict[str, Any]
) -> None:
    roles = ("system", "user")
    shape = BodyShape("m", roles, params)
    parts = fragments(roles, list(zip(*texts, strict=True)))
    ids = custom_ids("@vertexai", shape, parts)
    requests = distinct(ids, pa.chunked_array([parts]), shape, np.arange(len(texts)), len(texts))
    everything = np.arange(len(requests))
    data = request_lines(requests.ids, requests.bodies(everything)).to_pybytes()
    assert data.isascii()
    lines = data.split(b"\n")
    assert lines.pop() == b""
    sizes = [len(line) + 1 for line in lines]
    assert requests.line_bytes().tolist() == sizes
    sent = [json.loads(line) for line in lines]
    for position, (system, user) in enumerate(texts):
        line = sent[requests.codes[position]]
        assert list(line) == ["custom_id", "method", "url", "body"]
        assert re.match(r"^r-[0-9a-f]{32}$", line["custom_id"])
        assert line["method"] == "POST"
        assert line["url"] == ENDPOINT
        expected = {
            "model": "m",
            "messages": [
                {"role": "system", "content": joined(system)},
                {"role": "user", "content": joined(user)},
            ],
            **params,
        }
        assert json.dumps(line["body"]) == json.dumps(json.loads(json.dumps(expected)))
    assert len(sent) == len({(joined(a), joined(b)) for a, b in texts})


def joined(text: str) -> str:
    """Return the text as JSON reads it: two halves of a pair side by side are one character."""
    value: str = json.loads(json.dumps(text))
    return value


FRAMES = st.lists(st.sampled_from(["a", "b", "é", "1", "1.5"]), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(cells=FRAMES, data=st.data())
def test_ids_do_not_depend_on_order_labels_or_names(cells: list[str], data: Any) -> None:
    df = pd.DataFrame({"x": cells, "other": range(len(cells))})
    ids = df.llm.preview("Say {{ x }}", n=99)["custom_id"].tolist()
    order = data.draw(st.permutations(range(len(cells))))
    moved = df.iloc[list(order)].rename(columns={"x": "text"}).drop(columns="other")
    moved.index = pd.Index([f"label {i}" for i in range(len(cells))], name="k")
    again = moved.llm.preview("Say {{ text }}", n=99)["custom_id"].tolist()
    assert again == [ids[i] for i in order]
    assert [a == b for a in ids for b in ids] == [a == b for a in cells for b in cells]


ONE = pd.DataFrame({"x": ["a"]})


def id_of(template: Any = "Say {{ x }}", frame: pd.DataFrame = ONE, **options: Any) -> str:
    options = {"model": "gemini-3-flash-preview", **options}
    custom_id: str = frame.llm.preview(template, **options)["custom_id"].iloc[0]
    return custom_id


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"temperature": None, "params": {}}),
    ({"temperature": 1}, {"temperature": 1.0}),
    ({"temperature": 1}, {"temperature": np.float32(1)}),
    ({"temperature": 0}, {"temperature": -0.0}),
    ({"max_tokens": 10}, {"max_tokens": np.int64(10)}),
    ({"max_tokens": 10}, {"params": {"max_tokens": 10.0}}),
    ({"stop": "END"}, {"stop": ["END"]}),
    ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
    ({"temperature": 1, "seed": 2}, {"params": {"seed": 2, "temperature": 1}}),
    ({"params": {"top_k": 1, "seed": 2}}, {"params": {"seed": 2, "top_k": 1}}),
    ({"template": "Say {{ x }}"}, {"template": "Say {{x}}"}),
    ({"template": "Say {{ x }}"}, {"template": [{"role": "user", "content": "Say a"}]}),
    ({"output": "other"}, {"details": True}),
    ({"system": "Be {{ x }}"}, {"system": "Be a"}),
    (
        {"system": "Be brief"},
        {
            "template": [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": "Say {{ x }}"},
            ]
        },
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_what_is_sent_alike_is_one_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert id_of(**one) == id_of(**other)


def test_what_is_sent_differently_is_another_request() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"template": "say {{ x }}"},
        {"template": "Say {{ x }}\n"},
        {"template": "Say {{ x }} "},
        {"model": "gemini-3-pro-preview"},
        {"system": "Say {{ x }}"},
        {"system": "Be brief"},
        {"temperature": 0},
        {"temperature": 1},
        {"temperature": 0.5},
        {"top_p": 1},
        {"seed": 0},
        {"seed": 1},
        {"max_tokens": 1},
        {"stop": ["a", "b"]},
        {"stop": ["b", "a"]},
        {"stop": "ab"},
        {"params": {"top_k": 1}},
        {"params": {"top_k": 2}},
        {"params": {"logprobs": True}},
        {"params": {"labels": {"b": "1", "c": "2"}}},
        {"params": {"labels": {"b": "1", "c": "3"}}},
        {"gateway": llm.Gateway(provider="@other")},
        {"gateway": llm.Gateway.local(answers="echo")},
    ]
    assert len({id_of(**options) for options in asked}) == len(asked)


def test_neither_key_nor_address_nor_bucket_is_part_of_it() -> None:
    other = llm.Gateway(api_key="k", base_url="https://example.org/v1", bucket="b")
    assert id_of(gateway=other) == id_of()


def test_a_number_is_the_same_in_every_column_type() -> None:
    columns: list[Any] = [
        pd.Series([2020]),
        pd.Series([2020.0]),
        pd.Series([2020, None]),
        pd.Series([2020], dtype="Int16"),
        pd.Series([2020], dtype="float32"),
        pd.Series([2020], dtype="int64[pyarrow]"),
        pd.Series(["2020"]),
        pd.Series(["2020"], dtype="category"),
        pd.Series([2020], dtype=object),
        pd.Series(pd.Categorical([2020.0])),
    ]
    ids = {id_of("Year {{ y }}", pd.DataFrame({"y": s}).iloc[:1]) for s in columns}
    assert len(ids) == 1
