"""Output lines to answers: real rows, odd rows, and bytes of any kind.

`data/output_lines.jsonl` holds rows as the open-source Portkey gateway 1.15.2 wrote them, each
under a name, some beside the row of Google's that it was made from.
"""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nyu_llm_frames._sidecar.answer_store import SCHEMA, AnswerWriter
from nyu_llm_frames._sidecar.storage import parquet_files, read_table
from nyu_llm_frames._stages.answers.answer import Answer
from nyu_llm_frames._stages.answers.blocks import BlockSplitter
from nyu_llm_frames._stages.answers.lines import (
    Orphan,
    _parse_slowly,
    has_replacement,
    parse_completion,
    parse_line,
    parse_lines,
)
from nyu_llm_frames._stages.answers.row_errors import read_json
from nyu_llm_frames._stages.answers.usual_rows import usual_answer

CASES: dict[str, dict[str, str]] = {
    case["name"]: case
    for case in map(
        json.loads,
        (Path(__file__).parent / "data" / "output_lines.jsonl").read_bytes().splitlines(),
    )
}
ECHO = "echo:9058f5f165a96fd4:hello 0"
ID = "r-" + "1".zfill(32)


def real(name: str) -> bytes:
    return CASES[name]["line"].encode()


def answer(line: bytes | dict[str, Any]) -> Answer:
    result = parse_line(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert isinstance(result, Answer)
    return result


def row(body: Any = None, error: Any = "", **response: Any) -> dict[str, Any]:
    return {"custom_id": "r1", "response": {"body": body, **response}, "error": error}


def body(content: Any = "yes", finish_reason: Any = "STOP", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"message": message, "finish_reason": finish_reason}]}


# --- rows as the gateway wrote them ------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "status", "text", "in_error"),
    [
        ("good", "ok", ECHO, None),
        ("thought", "ok", ECHO, None),
        ("two_text_parts", "ok", "ab", None),
        ("no_finish_reason", "ok", "half", None),
        ("cached", "ok", "half", None),
        ("lone_surrogate", "ok", "x\ufffdy \x00 \u2028 z", None),
        ("max_tokens", "truncated", "echo:9058f5f16", "larger max_tokens"),
        ("max_tokens_empty", "truncated", None, "7 tokens went into thinking"),
        ("max_tokens_thinking", "truncated", None, "500 tokens went into thinking"),
        ("prompt_blocked", "blocked", None, "prompt blocked"),
        ("block_reason_only", "blocked", None, "prompt blocked: SAFETY"),
        ("safety", "blocked", None, "answer blocked: SAFETY (HATE_SPEECH)"),
        ("safety_text", "blocked", None, "answer blocked: SAFETY"),
        ("recitation", "blocked", None, "answer blocked: RECITATION"),
        ("fail_bad_request", "refused", None, "400 INVALID_ARGUMENT: Please use a valid role"),
        ("error_object", "refused", None, "400: m"),
        ("body_error_400", "refused", None, "400 INVALID_ARGUMENT: bad thing"),
        ("fail_resource_exhausted", "failed", None, "429 RESOURCE_EXHAUSTED: Resource exhausted."),
        ("fail_json", "failed", None, "500 INTERNAL: Internal error encountered."),
        ("fail_plain", "failed", None, "Internal error encountered."),
        ("error_list", "failed", None, "429: slow"),
        ("body_error_429", "failed", None, "429: slow"),
        ("empty_response", "failed", None, "empty response"),
        ("id_only", "failed", None, "empty response"),
        ("malformed_function_call", "failed", None, "MALFORMED_FUNCTION_CALL"),
        ("function_call", "failed", None, "called a tool"),
        ("thought_only", "failed", None, "thinking only"),
        ("stop_no_content", "empty", "", "the answer is empty"),
        ("stop_empty_text", "empty", "", "the answer is empty"),
        ("other", "failed", None, "empty answer (finish_reason OTHER)"),
    ],
)
def test_real_row_gets_its_status(
    name: str, status: str, text: str | None, in_error: str | None
) -> None:
    result = answer(real(name))
    assert (result.status, result.text, result.custom_id) == (status, text, ID)
    assert result.raw == real(name)
    if in_error is None:
        assert result.error is None
    else:
        assert in_error in (result.error or "")


def test_real_usage_is_read() -> None:
    good = answer(real("cached"))
    assert (good.prompt_tokens, good.completion_tokens) == (3, 4)
    assert (good.reasoning_tokens, good.cached_tokens) == (5, 2)
    assert (good.model, good.finish_reason) == ("gemini-3-flash-preview", "STOP")
    cut = answer(real("max_tokens_thinking"))
    assert (cut.completion_tokens, cut.reasoning_tokens, cut.finish_reason) == (
        0,
        500,
        "MAX_TOKENS",
    )


def test_numeric_id_is_an_orphan() -> None:
    assert parse_line(real("numeric_id")) == Orphan(
        "custom_id is not a string", "123", real("numeric_id"), is_row=True
    )


def test_row_that_the_gateway_invents_is_an_orphan() -> None:
    result = parse_line(real("503_behind_the_gateway"))
    assert isinstance(result, Orphan)
    assert (result.reason, result.is_row) == ("no custom_id", False)


def test_id_that_was_not_echoed_comes_back_as_a_foreign_one() -> None:
    # The gateway puts the response id in its place: only the runner can know that it is foreign.
    assert answer(real("id_not_echoed")).custom_id == "6b19e10ee2857e8005addc"


@pytest.mark.parametrize(
    ("request_", "candidate"),
    [
        (b"{}", b'"avgLogprobs": NaN'),
        (b"{}", b'"avgLogprobs": -Infinity'),
        (b'{"text": "\\ud800"}', b'"index": 0'),
        (b'{"text": "caf\xe9"}', b'"index": 0'),
    ],
)
def test_a_stored_row_is_read_whatever_stands_beside_its_text(
    request_: bytes, candidate: bytes
) -> None:
    line = (
        b'{"requestId": "r", "request": %s, "response": {"candidates": [{%s, "content": '
        b'{"parts": [{"text": "hi"}]}, "finishReason": "STOP"}], '
        b'"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}}}'
    ) % (request_, candidate)
    found = answer(line)
    assert (found.status, found.text, found.prompt_tokens) == ("ok", "hi", 3)
    kept = found.raw.replace(b" ", b"").replace(b"Infinity", b"1").replace(b"NaN", b"1")
    assert json.loads(kept).keys() == {"requestId", "response"}


@pytest.mark.parametrize("name", [name for name in CASES if "google" in CASES[name]])
def test_a_stored_row_and_the_gateways_row_of_it_give_the_same_answer(name: str) -> None:
    """Lines of the real gateway, beside the rows that it made them from."""
    stored, given = parse_line(CASES[name]["google"].encode()), parse_line(real(name))
    if name == "id_not_echoed":  # the gateway gives it a foreign id
        assert isinstance(stored, Orphan)
        assert stored.is_row
        return
    assert isinstance(stored, Answer)
    assert isinstance(given, Answer)
    if "promptFeedback" in CASES[name]["google"]:  # the gateway leaves the reason out
        assert given.error == "prompt blocked: the model gave no candidate and no reason"
        given = msgspec.structs.replace(given, error=stored.error)
    assert stored == msgspec.structs.replace(given, raw=stored.raw)


SECRET = "my prompt"
ECHO_OF_IT = {"contents": [{"role": "user", "parts": [{"text": SECRET}]}]}


@pytest.mark.parametrize("kind", ["request", "instance", "both"])
@pytest.mark.parametrize("spoilt", [b"", b"\xff", b"\\ud800", b"\t"])
def test_the_request_that_a_stored_row_echoes_is_not_kept(kind: str, spoilt: bytes) -> None:
    response = {"candidates": [{"content": {"parts": [{"text": "hi-"}]}, "finishReason": "STOP"}]}
    echo: dict[str, Any] = {"request": ECHO_OF_IT, "requestId": "r1"}
    if kind == "instance":
        echo = {"instance": echo}
    elif kind == "both":
        echo = {"instance": {"request": ECHO_OF_IT, "requestId": "other"}, **echo}
    line = json.dumps({**echo, "status": "", "response": response}).encode()
    line = line.replace(b"hi-", b"hi" + spoilt)
    found = answer(line)
    assert (found.custom_id, found.status) == ("r1", "ok")
    assert SECRET.encode() not in found.raw
    again = answer(found.raw)  # what is kept says the same
    assert again == msgspec.structs.replace(found, raw=again.raw)
    orphan = parse_line(line.replace(b'"requestId"', b'"x"'))
    assert isinstance(orphan, Orphan)
    assert SECRET.encode() not in orphan.raw


@settings(max_examples=300, deadline=None)
@given(
    st.permutations(["requestId", "status", "request", "response", "processed_time"]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",", ":\t")]),
    st.sampled_from([{}, ECHO_OF_IT, "", SECRET, None, [SECRET]]),
    st.sampled_from(["none", "twice", "below", "escaped", "in a text", "in a key", "last"]),
)
def test_the_request_is_cut_out_wherever_it_stands_and_nothing_else_is(
    order: list[str], separators: tuple[str, str], echo: Any, trap: str
) -> None:
    answered: dict[str, Any] = {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]
    }
    row = {"requestId": "r1", "status": "", "request": echo, "response": answered}
    row["processed_time"] = "t"
    if trap == "below":
        answered["request"] = row["processed_time"] = {"request": "kept"}
    elif trap == "in a text":
        row["processed_time"] = '"request":'
    row = {key: row[key] for key in order}
    if trap == "in a key":
        row = {'x,"request': "kept", **row, 'y{"request': "kept"}
    elif trap == "last":
        row["z"] = "request"
    text = json.dumps(row, separators=separators)
    if trap == "twice":
        text = json.dumps({"request": SECRET, "a": 1})[:-1] + ", " + text[1:]
    elif trap == "escaped":
        text = text.replace('"request"', '"\\u0072equest"', 1)
    found = answer(text.encode())
    assert (found.custom_id, found.text) == ("r1", "hi")
    assert SECRET.encode() not in found.raw
    expected = {key: value for key, value in json.loads(text).items() if key != "request"}
    assert json.loads(found.raw) == expected


@pytest.mark.parametrize(
    ("response", "status", "error"),
    [
        ({"error": {"code": 503, "message": "later"}}, "failed", "503: later"),
        ({"error": {"code": 400, "message": "never"}}, "refused", "400: never"),
        ([{"error": {"code": 503, "message": "later"}}], "failed", "503: later"),
        ("429 Too Many Requests", "failed", "429: Too Many Requests"),
        ("", "failed", "no answer and no reason given"),
        (None, "failed", "empty response"),
        ({"modelVersion": "m"}, "failed", "could not read the answer"),
        ({"candidates": "none"}, "failed", "could not read the answer"),
        ({"usageMetadata": {}}, "blocked", "no candidate and no reason"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "blocked", "prompt blocked: SAFETY"),
    ],
)
def test_a_stored_row_without_an_answer_says_why(response: Any, status: str, error: str) -> None:
    found = answer({"requestId": "r1", "status": "", "request": {}, "response": response})
    assert found.status == status
    assert error in (found.error or "")


def test_live_answer_follows_the_same_rules() -> None:
    result = parse_completion("r1", real("live"))
    assert (result.status, result.text) == ("ok", "echo:c22b5f9178342609:hi")
    assert (result.custom_id, result.raw) == ("r1", real("live"))


WITH_BODY = [n for n in CASES if n != "live" and b'"body":{' in real(n) and ID in CASES[n]["line"]]


@pytest.mark.parametrize("name", WITH_BODY)
def test_live_body_gives_the_status_of_its_batch_row(name: str) -> None:
    content = json.loads(real(name))["response"]["body"]
    live, batch = parse_completion("r1", json.dumps(content).encode()), answer(real(name))
    assert (live.status, live.text, live.error) == (batch.status, batch.text, batch.error)


@pytest.mark.parametrize("page", [b"", b"<html>login</html>", b"[]", b"null", b"{", b"\xff"])
def test_live_body_that_is_no_object_is_a_failure(page: bytes) -> None:
    result = parse_completion("r1", page)
    assert (result.status, result.raw) == ("failed", page)


# --- decisions -------------------------------------------------------------------------------
@pytest.mark.parametrize("error", ["", None, {}, [], False, "  "])
def test_falsy_error_is_no_error(error: Any) -> None:
    assert answer(row(body(), error)).status == "ok"


def test_absent_error_is_no_error() -> None:
    line = row(body())
    del line["error"]
    assert answer(line).status == "ok"


def test_error_outweighs_a_good_body() -> None:
    assert answer(row(body(), "Internal error")).status == "failed"
    assert answer(row({**body(), "error": {"message": "no"}})).status == "failed"


@pytest.mark.parametrize(
    "reason", ["MAX_TOKENS", "max_tokens", "length", "LENGTH", "FinishReason.MAX_TOKENS"]
)
def test_cut_answer_is_truncated_however_it_is_spelled(reason: str) -> None:
    result = answer(row(body("half", reason)))
    assert (result.status, result.text, result.finish_reason) == ("truncated", "half", reason)


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",
        "safety",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "content_filter",
        "LANGUAGE",
    ],
)
@pytest.mark.parametrize("content", [None, "half"])
def test_blocked_answer_has_no_text(reason: str, content: str | None) -> None:
    result = answer(row(body(content, reason)))
    assert (result.status, result.text) == ("blocked", None)
    assert reason in (result.error or "")


@pytest.mark.parametrize("reason", ["STOP", "stop", "end_turn", "OTHER", None, 3, "", {}])
def test_text_with_any_other_finish_reason_is_good(reason: Any) -> None:
    assert answer(row(body("yes", reason))).status == "ok"


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u2003\u00a0"])
@pytest.mark.parametrize("reason", ["STOP", "stop", None, ""])
def test_a_blank_answer_is_no_good_one(text: str, reason: str | None) -> None:
    line = json.dumps(row(body(text, reason))).encode()
    result = answer(line)
    assert (result.status, result.text) == ("empty", text)
    assert "empty" in (result.error or "")
    assert parse_completion("r1", json.dumps(body(text, reason)).encode()).status == "empty"


@pytest.mark.parametrize(
    "silent",
    [
        body(None, tool_calls=[{"id": "1"}]),
        body("", tool_calls=[{"id": "1"}]),
        body(None, content_blocks=[{"type": "thinking", "thinking": "hm"}]),
        body(None, content_blocks=[{"type": "image_url"}]),
        body(" ", "OTHER"),
    ],
)
def test_what_says_something_else_than_a_blank_is_not_empty(silent: dict[str, Any]) -> None:
    assert answer(row(silent)).status == "failed"


def test_cut_answer_without_a_character_has_no_text() -> None:
    assert answer(row(body("", "length"))).text is None


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "text": "no"}, "b", {"text": "c"}]
    result = answer(row(body(parts)))
    assert (result.status, result.text) == ("ok", "abc")
    assert answer(row(body([{"type": "image_url"}]))).status == "failed"


def test_declined_answer_is_blocked() -> None:
    result = answer(row(body(None, "stop", refusal="I cannot help with that.")))
    assert (result.status, result.error) == (
        "blocked",
        "the model declined: I cannot help with that.",
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ('Bad Request: {"error": {"code": 400, "message": "m"}}', "refused"),
        ('Forbidden: {"error": {"code": 403, "message": "m"}}', "refused"),
        ('Not Found: {"error": {"code": 404, "message": "m"}}', "refused"),
        ('Request Timeout: {"error": {"code": 408, "message": "m"}}', "failed"),
        ('Too Many Requests: {"error": {"code": 429, "message": "m"}}', "failed"),
        ('Service Unavailable: {"error": {"code": 503, "message": "m"}}', "failed"),
        ('[{"error": {"code": 400, "message": "m"}}]', "refused"),
        ("Bad Request: m", "refused"),
        ("400 m", "refused"),
        ("HTTP 503 m", "failed"),
        ("m", "failed"),
        ({"code": 400, "message": "m"}, "refused"),
        ({"code": "400", "message": "m"}, "refused"),
        ({"error": {"code": 429, "message": "m"}}, "failed"),
        ({"error": {"status": "INVALID_ARGUMENT", "message": "m"}}, "refused"),
        ({"status": "UNAVAILABLE", "message": "m"}, "failed"),
        ({"code": 3, "message": "m"}, "failed"),
        ({"code": True, "message": "m"}, "failed"),
        ({"code": 10**30, "message": "m"}, "failed"),
        ({"message": "m"}, "failed"),
        ([{"message": "m"}, {"error": {"code": 400}}], "refused"),
        ([[[{"error": {"code": 400, "message": "m"}}]]], "refused"),
        ({"message": '{"error": {"code": 404, "message": "m"}}'}, "refused"),
        (17, "failed"),
        (True, "failed"),
    ],
)
def test_row_error_is_refused_or_failed_by_its_code(error: Any, status: str) -> None:
    result = answer(row(False, error))
    assert (result.status, result.text) == (status, None)
    assert result.error
    assert "{" not in result.error


@pytest.mark.parametrize(
    ("code", "status"), [(400, "refused"), (422, "refused"), (429, "failed"), (500, "failed")]
)
@pytest.mark.parametrize("error", [{"message": "m", "code": None}, {"message": "m"}, "m", None])
def test_http_status_of_a_row_counts_when_its_error_has_no_code(
    code: int, status: str, error: Any
) -> None:
    result = answer(row({"error": error}, None, status_code=code))
    assert result.status == status
    assert result.error == (f"{code}: m" if error else str(code))


@pytest.mark.parametrize(
    "message",
    [
        'Invalid response received from vertex-ai: {"promptFeedback":{"blockReason":"OTHER"}}',
        "The prompt was blocked due to PROHIBITED_CONTENT.",
        "The response was filtered by Azure OpenAI's content management policy.",
        "The prompt could not be submitted.",
    ],
)
def test_body_error_about_blocking_is_blocked(message: str) -> None:
    result = answer(row({"error": {"message": message}}))
    assert result.status == "blocked"
    assert (result.error or "").startswith("prompt blocked: ")


@pytest.mark.parametrize(
    "message",
    ["Invalid value at safety_settings", "Your request was too large", "empty response", "m"],
)
def test_body_error_about_something_else_is_not_blocked(message: str) -> None:
    assert answer(row({"error": {"message": message}})).status == "failed"
    assert answer(row({"error": {"message": message, "code": 400}})).status == "refused"


def test_block_is_told_by_its_code_and_a_passing_trouble_is_none() -> None:
    filtered = {"error": {"message": "m", "code": "content_filter"}}
    assert answer(row(filtered, None, status_code=400)).status == "blocked"
    passing = {"error": {"message": "The request was blocked.", "code": 503}}
    assert answer(row(passing)).status == "failed"
    assert answer(row(passing, None, status_code=503)).status == "failed"


def test_unreadable_answer_of_another_model_is_named_so() -> None:
    claude = '{"id":"msg_1","type":"message","role":"assistant","content":[{"text":"hi"}]}'
    message = f"Invalid response received from vertex-ai: {claude}"
    result = answer(row({"error": {"message": message}}))
    assert (result.status, result.error) == (
        "failed",
        "the gateway could not read the answer (Invalid response received from vertex-ai)",
    )


def test_reason_of_a_blocked_prompt_is_told_when_it_is_there() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "not\nsubmitted"}
    result = answer(row({"choices": [], "promptFeedback": feedback}))
    assert result.error == "prompt blocked: PROHIBITED_CONTENT: not submitted"


def test_long_error_is_one_short_line() -> None:
    error = answer(row(False, "first\nsecond\x00\u2028third " + "x" * 10_000)).error
    assert error is not None
    assert error.startswith("first second third xxx")
    assert len(error) == 500


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (3, 3),
        ("3", 3),
        (0, 0),
        (-1, None),
        (True, None),
        (3.5, None),
        (2**31, None),
        (10**30, None),
        ("", None),
        ("x", None),
        ("٣", None),
        (None, 0),
        ([], None),
        (float("nan"), None),
    ],
)
def test_token_counts_are_ints_or_nothing(value: Any, count: int | None) -> None:
    content = body()
    content["usage"] = {
        "prompt_tokens": value,
        "completion_tokens": value,
        "completion_tokens_details": {"reasoning_tokens": value},
        "prompt_tokens_details": {"cached_tokens": value},
    }
    result = answer(row(content))
    assert result.status == "ok"
    assert [
        result.prompt_tokens,
        result.completion_tokens,
        result.reasoning_tokens,
        result.cached_tokens,
    ] == [count] * 4


def test_a_count_that_is_left_out_is_none_of_it_and_without_usage_nobody_knows() -> None:
    for usage, counts in [({}, [0] * 4), ({"prompt_tokens": 3}, [3, 0, 0, 0]), (None, [None] * 4)]:
        line = json.dumps(row({**body(), "usage": usage})).encode()
        for found in (answer(line), _parse_slowly(line)):
            assert isinstance(found, Answer)
            told = [found.prompt_tokens, found.completion_tokens]
            assert [*told, found.reasoning_tokens, found.cached_tokens] == counts


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"custom_id": "r1"} {}', "not JSON"),
        (b'{"custom_id": "r1", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"r1"', "not a JSON object"),
        (b"{}", "no custom_id"),
        (b'{"custom_id": null}', "no custom_id"),
        (b'{"custom_id": ""}', "custom_id is empty"),
        (b'{"custom_id": 7}', "custom_id is not a string"),
        (b'{"custom_id": 7.5}', "custom_id is not a string"),
        (b'{"custom_id": ["r1"]}', "custom_id is not a string"),
        (b'{"custom_id": ' + b"9" * 5000 + b"}", "no custom_id"),
        (b'{"custom_id": "r\\ud800"}', "custom_id is damaged"),
        (b'{"custom_id": "r\xff"}', "custom_id is damaged"),
        (json.dumps({**row(body()), "custom_id": "r\ufffd"}).encode(), "custom_id is damaged"),
    ],
)
def test_line_without_a_usable_id_is_an_orphan(line: bytes, reason: str) -> None:
    result = parse_line(line)
    assert isinstance(result, Orphan)
    assert (result.reason, result.raw) == (reason, line)


@pytest.mark.parametrize("custom_id", ["request-1", "007", "r é 漢", " ", "r\n1"])
def test_any_string_is_an_id(custom_id: str) -> None:
    assert answer({**row(body()), "custom_id": custom_id}).custom_id == custom_id


def test_nan_and_byte_order_mark_and_control_characters_are_read_past() -> None:
    line = json.dumps(row({**body("tab"), "logprob": float("nan")})).encode()
    assert answer(b"\xef\xbb\xbf" + line.replace(b"tab", b"a\tb")).text == "a\tb"


def test_invalid_utf8_marks_the_text_and_keeps_the_row() -> None:
    line = json.dumps(row(body("caf-"))).encode().replace(b"-", b"\xc3")
    result = answer(line)
    assert result.text == "caf\ufffd"
    assert has_replacement(result.text)
    assert result.raw == line


def test_replacement_is_seen_only_where_it_is() -> None:
    assert not has_replacement(None)
    assert not has_replacement("é")
    assert has_replacement("a\ufffd")


def test_blank_lines_are_no_orphans() -> None:
    parsed = parse_lines([b"", b"  \r", real("good"), b"\n", b"x"])
    assert [a.status for a in parsed.answers] == ["ok"]
    assert [o.raw for o in parsed.orphans] == [b"x"]


# --- laws ------------------------------------------------------------------------------------
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["STOP", "SAFETY", "r1", '{"error": {"code": 400}}', "x: [", "\ud800", ""])
    | st.just(10**400)
)
keys = st.sampled_from(
    [
        "custom_id",
        "response",
        "body",
        "error",
        "choices",
        "message",
        "content",
        "finish_reason",
        "usage",
        "code",
        "status",
        "prompt_tokens",
        "completion_tokens_details",
        "promptFeedback",
        "blockReason",
        "detail",
        "type",
        "text",
        "candidates",
        "parts",
        "requestId",
        "safetyRatings",
        "content_blocks",
        "refusal",
    ]
) | st.text(max_size=3)
shapes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
REAL = [real(name) for name in CASES if name != "live"]
ROWS_OF_GOOGLES = [case["google"].encode() for case in CASES.values() if "google" in case]
REAL_ANSWERS = {line for line in REAL if b'"custom_id":"' in line}


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found += paths(inner, (*here, key)) if isinstance(inner, dict | list) else [(*here, key)]
    return found


@st.composite
def mutated_rows(draw: st.DrawFn, lines: list[bytes] = REAL) -> bytes:
    """A real row with values of any shape at up to three places."""
    value = json.loads(draw(st.sampled_from(lines)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(paths(value)[1:]))
        holder = value
        for key in way:
            holder = holder[key]
        holder[last] = draw(shapes)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged_rows(draw: st.DrawFn, lines: list[bytes] = REAL) -> bytes:
    """A real row with bytes overwritten, cut off, or doubled keys."""
    line = bytearray(draw(st.sampled_from(lines)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line) - 1))
        line[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    if draw(st.booleans()) and line:
        del line[draw(st.integers(0, len(line) - 1)) :]
    if draw(st.booleans()):
        line = bytearray(line.replace(b'"index"', b'"message"').replace(b'"object"', b'"choices"'))
    return bytes(line)


def check(result: Answer | Orphan, line: bytes) -> None:
    assert result.raw == line.rstrip(b"\r\n")
    if isinstance(result, Orphan):
        (result.custom_id or "").encode()
        assert result.reason
        return
    assert result.status in {"ok", "empty", "truncated", "blocked", "refused", "failed"}
    assert (result.error is None) == (result.status == "ok")
    assert (result.text is not None) >= (result.status in {"ok", "empty"})
    assert result.text is None or result.status in {"ok", "empty", "truncated"}
    assert bool((result.text or "").strip()) >= (result.status == "ok")
    for text in (result.custom_id, result.text, result.error, result.finish_reason, result.model):
        assert text is None or isinstance(text, str)
        (text or "").encode()
    assert len(result.error or "") <= 500
    assert "\n" not in (result.error or "")
    for count in (
        result.prompt_tokens,
        result.completion_tokens,
        result.reasoning_tokens,
        result.cached_tokens,
    ):
        assert count is None or (type(count) is int and 0 <= count < 2**31)
    # No answer for an id that does not literally stand in the line as its id.
    pairs = json.loads(
        line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"),
        strict=False,
        parse_int=lambda digits: None,
        object_pairs_hook=list,
    )
    assert {("custom_id", result.custom_id), ("requestId", result.custom_id)}.intersection(
        (key, value) for key, value in pairs if isinstance(value, str)
    )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | damaged_rows())
def test_no_bytes_raise(line: bytes) -> None:
    check(parse_line(line), line)
    parse_completion("r1", line)


@settings(max_examples=300, deadline=None)
@given(shapes)
def test_no_json_raises(value: Any) -> None:
    line = json.dumps(value).encode()
    check(parse_line(line), line)
    live = parse_completion("r1", line)
    assert live.custom_id == "r1"
    assert live.raw == line


@settings(max_examples=300, deadline=None)
@given(mutated_rows())
def test_real_rows_with_wrong_types_never_raise(line: bytes) -> None:
    check(parse_line(line), line)


BOTH_FORMS = [*REAL, *ROWS_OF_GOOGLES]


@settings(max_examples=600, deadline=None)
@given(mutated_rows(BOTH_FORMS) | damaged_rows(BOTH_FORMS))
def test_the_typed_reader_says_what_the_tolerant_one_says(line: bytes) -> None:
    fast, slow = usual_answer(line), _parse_slowly(line)
    if fast is None:
        return
    assert isinstance(slow, Answer)
    # In a field that nobody reads damaged bytes are kept as they came, or replaced.
    assert read_json(fast.raw.decode("utf-8", "replace")) == read_json(
        slow.raw.decode("utf-8", "replace")
    )
    assert fast == msgspec.structs.replace(slow, raw=fast.raw)


@settings(max_examples=50, deadline=None)
@given(st.recursive(shapes, lambda inner: st.lists(inner, min_size=4, max_size=6), max_leaves=30))
def test_hostile_errors_are_searched_in_bounds(error: Any) -> None:
    line = json.dumps(row(False, error)).encode()
    check(parse_line(line), line)


def test_error_in_error_in_error_ends() -> None:
    error: Any = {"error": {"code": 400, "message": "m"}}
    for _ in range(300):
        error = {"error": [error], "message": "x"}
    assert answer(row(False, error)).status == "failed"
    for _ in range(12):
        error = [error, json.dumps(error)[:2000]]
    assert answer(row(False, error)).status == "failed"


@settings(deadline=None)
@given(st.lists(st.sampled_from([*REAL, b"", b" ", b"x", b"[]"])))
def test_every_line_becomes_one_answer_or_one_orphan(lines: list[bytes]) -> None:
    parsed = parse_lines(lines)
    kept = [line for line in lines if line.strip()]
    assert [a.raw for a in parsed.answers] == [line for line in kept if line in REAL_ANSWERS]
    assert [o.raw for o in parsed.orphans] == [line for line in kept if line not in REAL_ANSWERS]


def usual(custom_id: str = "r1", error: Any = "", **more: Any) -> bytes:
    """Return a plain good row, but for what is given: fields of the row, then of its body."""
    return json.dumps(row(body() | more, error) | {"custom_id": custom_id}).encode()


def stored(**more: Any) -> bytes:
    """Return a plain good row of the provider's own, but for what is given."""
    candidate = {"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}
    good = {"requestId": "r1", "status": "", "response": {"candidates": [candidate]}}
    return json.dumps(good | more).encode()


@pytest.mark.parametrize(
    "odd",
    [
        usual(""),
        usual("r\u00e9"),
        usual(error="quota exceeded"),
        usual(error={"error": {"code": 429}}),
        json.dumps(row(body() | {"error": {"message": "m"}})).encode(),
        json.dumps(row(body() | {"error": {}})).encode(),
        usual(error=None, choices=[]),
        usual(choices=[{"message": None, "finish_reason": "STOP"}]),
        usual(choices=[{"message": {"content": None}, "finish_reason": "STOP"}]),
        usual(choices=[{"message": {"content": "cut"}, "finish_reason": "MAX_TOKENS"}]),
        json.dumps(row(False, "refused")).encode(),
        json.dumps({"custom_id": "r1", "response": None, "error": ""}).encode(),
        stored(status="Quota exceeded"),
        stored(requestId=""),
        stored(requestId=None),
        stored(custom_id=None),
        stored(response={"candidates": []}),
    ],
)
def test_an_odd_row_is_left_to_the_tolerant_reader(odd: bytes) -> None:
    assert usual_answer(odd) is None
    assert parse_line(odd) == _parse_slowly(odd)


@pytest.mark.parametrize("line", [real("good"), usual(), stored(), *ROWS_OF_GOOGLES])
def test_good_rows_of_both_forms_are_usual(line: bytes) -> None:
    found = parse_line(line)
    good = isinstance(found, Answer) and found.status == "ok" and "\ufffd" not in found.text
    good = good and b'"instance"' not in line  # of jobs of another kind
    assert usual_answer(line) == (found if good else None)
    slow = _parse_slowly(line)
    assert json.loads(found.raw) == json.loads(slow.raw)
    assert found == msgspec.structs.replace(slow, raw=found.raw)


@pytest.mark.parametrize("again", [1, 300])
def test_what_is_stored_of_a_line_is_what_the_line_says(tmp_path: Path, again: int) -> None:
    """In one group and over several."""
    lines = [line for line in REAL_ANSWERS for _ in range(again)]
    writer = AnswerWriter(tmp_path, "job", datetime(2026, 1, 1, tzinfo=UTC))
    for start in range(0, len(lines), 7):
        writer.write(parse_lines(lines[start : start + 7]).answers)
    writer.commit()
    (path,) = parquet_files(tmp_path)
    stored = read_table(path, SCHEMA).to_pylist()
    assert [row["raw"] for row in stored] == lines
    for row in stored:
        assert (row.pop("job"), row.pop("stored_at").year) == ("job", 2026)
        one = parse_line(row["raw"])
        assert isinstance(one, Answer)
        assert row == msgspec.structs.asdict(one)


# --- splitting ---------------------------------------------------------------------------------
pieces = st.sampled_from(
    [
        b"a",
        b"\n",
        b"\r\n",
        b"\r",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\x0b",
        b"\xef\xbb\xbf",
        b" ",
        b"xyz" * 4,
    ]
)


def split(chunks: list[bytes], limit: int) -> tuple[list[bytes], bytes, int]:
    splitter = BlockSplitter(0, limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines, b"".join(splitter.close()), splitter.dropped


@settings(deadline=None)
@given(st.lists(pieces, max_size=30), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 20))
def test_lines_do_not_depend_on_the_chunks(parts: list[bytes], cuts: list[int], limit: int) -> None:
    data = b"".join(parts)
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert split(chunks, limit) == split([data], limit)
    assert split([data[i : i + 1] for i in range(len(data))], limit) == split([data], limit)


@settings(deadline=None)
@given(st.lists(pieces, max_size=30), st.integers(1, 20))
def test_split_lines_are_those_between_newlines(parts: list[bytes], limit: int) -> None:
    data = b"".join(parts)
    whole = data.split(b"\n")
    expected = []
    for i, line in enumerate(whole):
        if len(line) <= limit:
            line = line.removeprefix(b"\xef\xbb\xbf") if i == 0 else line
            expected.append(line if line.strip() else b"")
    lines, rest, dropped = split([data], limit)
    assert lines + [rest] * bool(rest) == [line for line in expected if line]
    assert dropped == sum(len(line) > limit for line in whole)


def test_line_separators_inside_strings_do_not_split() -> None:
    text = "a\u2028b\u2029c\u0085d\x0b"
    line = json.dumps(row(body(text)), ensure_ascii=False).encode()
    (only,) = BlockSplitter(0).feed(line + b"\n")
    assert answer(only).text == text


def test_crlf_blank_lines_and_byte_order_mark_go() -> None:
    splitter = BlockSplitter(0)
    assert splitter.feed(b"\xef") == []
    assert splitter.feed(b"\xbb\xbfa\r") == []
    assert splitter.feed(b"\n\r\n  \n\nb\r\nc") == [b"a\r", b"b\r"]
    assert answer(real("good") + b"\r") == answer(real("good"))
    assert splitter.close() == [b"c"]
    assert splitter.close() == []


def test_unterminated_rest_is_given_at_the_end() -> None:
    splitter = BlockSplitter(0)
    assert splitter.feed(b'{"custom_id"') == []
    assert splitter.close() == [b'{"custom_id"']


def test_rest_without_an_end_goes_when_the_stream_broke() -> None:
    splitter = BlockSplitter(1000)
    assert splitter.feed(b'a\n{"custom_id"') == []
    assert splitter.cut() == [b"a"]
    assert splitter.close() == []


@settings(deadline=None)
@given(st.lists(pieces, max_size=30), st.integers(1, 40), st.integers(0, 30))
def test_blocks_are_whole_lines_of_the_size_asked_for(
    parts: list[bytes], step: int, size: int
) -> None:
    data = b"".join(parts)
    splitter = BlockSplitter(size)
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    blocks = [block for chunk in chunks if (block := splitter.feed(chunk))]
    assert all(sum(map(len, block)) >= size for block in blocks)
    whole = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    given = list(itertools.chain(*blocks, splitter.close()))
    assert given == [line for line in whole if line.strip()]


def test_overlong_line_is_dropped_and_holds_no_memory() -> None:
    splitter = BlockSplitter(0, max_line_bytes=10)
    for _ in range(100):
        assert splitter.feed(b"x" * 8) == []
        assert sum(map(len, splitter._tail)) <= 10
    assert splitter.feed(b"x\nok\n") == [b"ok"]
    assert splitter.dropped == 1
