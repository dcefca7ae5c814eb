"""Parse the error of one output row: its HTTP code, a short message, whether it is a block.

Comes in: the value of an `error` key in whatever shape the gateway passed on (a phrase with JSON
behind it, an object, a list, JSON inside a message inside JSON). Goes out: a `Problem`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from nyu_llm_frames._shared.wording import printable

MAX_ERROR_CHARS = 500

# Names of Google's canonical codes, as used in `status`, with their HTTP code.
_CANONICAL = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_PHRASES = {s.phrase.casefold(): s.value for s in HTTPStatus if s >= 400} | {
    name.replace("_", " ").casefold(): code for name, code in _CANONICAL.items()
}
_LEADING_CODE = re.compile(r"(?:HTTP[ /.\d]*\s|Error(?: code)?:?\s)?\s*([1-5]\d\d)\b[\s:,-]*", re.I)
_BLOCK_CODES = frozenset({"content_filter", "content_policy_violation", "prohibited_content"})
# Narrow on purpose: "safety" alone also appears in complaints about the `safety_settings` field.
_BLOCK_WORDS = re.compile(
    r"block_?reason|prohibited_content|content[_ ]filter|content management policy"
    r"|responsible ai|prompt could not be submitted|violat\w+ .{0,60}\b(?:polic|guideline)"
    r"|\b(?:prompt|input|output|response|content|request|candidate|answer)\b.{0,80}\bblocked\b"
    r"|\bblocked\b.{0,80}\b(?:safety|prompt|content|polic|filter)",
    re.I | re.S,
)
UNREADABLE = "Invalid response received"  # the gateway's words for a row it cannot translate
_MAX_DEPTH, _MAX_ITEMS = 6, 4  # bounds the search in a hostile row


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row has no answer."""

    code: int | None = None  # HTTP code, if one can be found
    label: str = ""  # its name, as INVALID_ARGUMENT or "Bad Request"
    message: str = ""
    block: str = ""  # set when the prompt was blocked: the reason

    def or_code(self, code: int | None) -> Problem:
        """Return the same, with `code` if it has none."""
        return self if self.code is not None or code is None else replace(self, code=code)

    @property
    def refused(self) -> bool:
        """Whether the same request would be refused again."""
        return self.code is not None and 400 <= self.code < 500 and self.code not in (408, 429)

    @property
    def says_blocked(self) -> bool:
        """Whether it reports a block, in a field or in words."""
        if self.block:
            return True
        transient = self.code is not None and not self.refused
        return not transient and _BLOCK_WORDS.search(self.message[:4000]) is not None

    @property
    def text(self) -> str:
        """One line, as ``400 INVALID_ARGUMENT: message``."""
        head = " ".join(str(part) for part in (self.code, self.label) if part)
        return one_line(f"{head}: {self.message}" if head and self.message else head + self.message)


def one_line(text: str) -> str:
    """Reduce text to one printable line of at most 500 characters, which UTF-8 can encode."""
    text = " ".join(printable(text[: 8 * MAX_ERROR_CHARS]).split())
    if len(text) <= MAX_ERROR_CHARS:
        return text
    return text[: MAX_ERROR_CHARS - 1].rstrip() + "…"


def storable(text: str) -> str:
    """Replace what UTF-8 cannot encode (lone surrogates) by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def read_json(text: str) -> Any:
    """Decode JSON as tolerantly as possible; None when it cannot be done.

    Numbers of more than 20 digits become None: Python refuses to convert very long ones.
    """
    try:
        return json.loads(text, strict=False, parse_int=lambda s: int(s) if len(s) <= 20 else None)
    except (ValueError, RecursionError):
        return None


def http_code(value: Any) -> int | None:
    """Return an HTTP code given as a number or as digits, else None."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
        return value
    return None


def find_problem(error: Any, depth: int = 0) -> Problem:
    """Find code, name and message in the value of an `error` key; empty if nothing is understood.

    `depth` is how deep it was found in another error.
    """
    if depth > _MAX_DEPTH:
        return Problem()
    if isinstance(error, str):
        return _from_text(storable(error).strip(), depth)
    if isinstance(error, dict):
        return _from_object(error, depth)
    if isinstance(error, list):
        found = [find_problem(item, depth + 1) for item in error[:_MAX_ITEMS]]
        for problem in found:
            if problem.code is not None:
                return problem
        return next((problem for problem in found if problem != Problem()), Problem())
    if isinstance(error, int) and not isinstance(error, bool):
        return _from_object({"code": error}, depth)
    return Problem()


def _from_object(error: dict[Any, Any], depth: int) -> Problem:
    inner = find_problem(error["error"], depth + 1) if error.get("error") else Problem()
    nested = Problem()
    for key in ("message", "detail", "error_description"):
        if isinstance(error.get(key), str) and error[key].strip():
            nested = find_problem(error[key], depth + 1)
            break
    label = ""
    for key in ("status", "code", "type"):
        value = error.get(key)
        if key == "type" and "error" not in str(value).casefold():
            continue  # the type of something else, as of a whole answer inside a message
        if isinstance(value, str) and value.strip() and http_code(value) is None:
            label = one_line(value)[:60]
            break
        if key == "code" and type(value) is int and 0 < value < 100:
            label = f"code {value}"  # a gRPC code; too coarse to tell what another attempt would do
    block = block_reason(error) or inner.block or nested.block
    code_word = error.get("code")
    if not block and isinstance(code_word, str) and code_word.casefold() in _BLOCK_CODES:
        block = label
    codes = (http_code(error.get(key)) for key in ("code", "status_code", "status"))
    return Problem(
        code=next((c for c in codes if c), inner.code or nested.code or _CANONICAL.get(label)),
        label=label or inner.label or nested.label,
        message=nested.message or inner.message,
        block=block,
    )


def _from_text(text: str, depth: int) -> Problem:
    head, value = text, None
    for start in sorted(i for i in (text.find("{"), text.find("[")) if i >= 0):
        value = read_json(text[start:])
        if isinstance(value, dict | list):
            head = text[:start].rstrip().rstrip(":,-").rstrip()
            break
        value = None
    inner = find_problem(value, depth + 1) if value else Problem()
    if value is not None:
        code = _PHRASES.get(head.casefold())
        if code is not None:
            return Problem(inner.code or code, inner.label or head, inner.message, inner.block)
        if head.startswith(UNREADABLE) and not (inner.code or inner.message or inner.block):
            why = "the gateway could not read the answer" if value else "empty response"
            return Problem(message=f"{why} ({head})")
        return Problem(inner.code, inner.label, inner.message or head, inner.block)
    phrase, colon, rest = text.partition(":")
    code = _PHRASES.get(phrase.strip().casefold())
    if code is not None:
        return Problem(code, phrase.strip(), rest.strip() if colon else "")
    if leading := _LEADING_CODE.match(text):
        return Problem(int(leading[1]), message=text[leading.end() :])
    return Problem(message=text)


def block_reason(holder: dict[Any, Any]) -> str:
    """Return why a prompt was blocked, if the object carries Google's `promptFeedback`."""
    feedback = holder.get("promptFeedback") or holder.get("prompt_feedback")
    if not isinstance(feedback, dict):
        return ""
    words = [
        feedback.get(camel) or feedback.get(snake)
        for camel, snake in (
            ("blockReason", "block_reason"),
            ("blockReasonMessage", "block_reason_message"),
        )
    ]
    return one_line(": ".join(w for w in words if isinstance(w, str) and w))
