"""A JSON Schema as a function that says what is wrong with a value, in the user's words.

Comes in: a JSON Schema, with all keywords that its author used. Goes out: a check from a decoded
JSON value to the first problem and its place, or None. Formats are held to where they are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nyu_llm_frames._schema.formats import FORMATS, reads, shown
from nyu_llm_frames._schema.keywords import lookup, refuse_malformed, scalar_key
from nyu_llm_frames.errors import SchemaError

Problem = tuple[str, str]
Check = Callable[[Any], Problem | None]
"""From a value to (place such as ``.charges[0].kind``, what is wrong), or None."""


def compile_check(schema: Mapping[str, Any]) -> Check:
    """Compile every keyword of the 2020-12 draft that constrains a value (also draft 4 and 7)."""
    return _Compiler(schema).check(schema, "$")


_ARTICLE = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return value is None


def _key(value: Any) -> Any:
    """A hashable stand-in with JSON's equality."""
    if isinstance(value, list):
        return ("list", *map(_key, value))
    if isinstance(value, dict):
        return ("dict", frozenset((k, _key(v)) for k, v in value.items()))
    return scalar_key(value)


class _Compiler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.refs: dict[str, Check] = {}

    def check(self, schema: Any, path: str) -> Check:
        if schema is True:
            return lambda value: None
        if schema is False:
            return lambda value: ("", "must not be there")
        refuse_malformed(schema, path)
        parts = [
            *self.general(schema, path),
            *self.numbers_and_text(schema, path),
            *self.lists(schema, path),
            *self.objects(schema, path),
            *self.logic(schema, path),
        ]

        def run(value: Any) -> Problem | None:
            for part in parts:
                if problem := part(value):
                    return problem
            return None

        return run

    def ref(self, ref: str, path: str) -> Check:
        if ref not in self.refs:
            # The name first: a definition may mention itself, under `not` for instance.
            self.refs[ref] = lambda value: self.refs[ref](value)
            self.refs[ref] = self.check(lookup(self.root, ref, path), path)
        return self.refs[ref]

    def general(self, s: Mapping[str, Any], path: str) -> list[Check]:
        out: list[Check] = []
        if "$ref" in s:
            out.append(self.ref(s["$ref"], path))
        if types := s.get("type"):
            kinds = [types] if isinstance(types, str) else list(types)
            if s.get("nullable") is True and "null" not in kinds:
                kinds.append("null")
            expected = " or ".join(_ARTICLE.get(k, k) for k in kinds)
            out.append(
                lambda v: (
                    None
                    if any(_is(k, v) for k in kinds)
                    else ("", f"expected {expected}, got {shown(v)}")
                )
            )
        if "enum" in s or "const" in s:
            values = [s["const"]] if "const" in s else list(s["enum"])
            if "enum" in s and "const" in s:
                values = [v for v in s["enum"] if _key(v) == _key(s["const"])]
            if s.get("nullable") is True:
                values.append(None)
            keys = {_key(v) for v in values}
            named = ", ".join(shown(v) for v in values[:10]) + (", ..." if values[10:] else "")
            out.append(
                lambda v: (
                    None if _key(v) in keys else ("", f"expected one of {named}, got {shown(v)}")
                )
            )
        return out

    def numbers_and_text(self, s: Mapping[str, Any], path: str) -> list[Check]:
        out: list[Check] = []

        def when(kind: str, test: Callable[[Any], bool], words: str) -> None:
            out.append(
                lambda v: (
                    ("", f"expected {words}, got {shown(v)}")
                    if _is(kind, v) and not test(v)
                    else None
                )
            )

        low, high = s.get("minimum"), s.get("maximum")
        above, below = s.get("exclusiveMinimum"), s.get("exclusiveMaximum")
        if above is True:
            low, above = None, low
        if below is True:
            high, below = None, high
        if low is not None:
            when("number", lambda v: v >= low, f"at least {low}")
        if high is not None:
            when("number", lambda v: v <= high, f"at most {high}")
        if above is not None and above is not False:
            when("number", lambda v: v > above, f"more than {above}")
        if below is not None and below is not False:
            when("number", lambda v: v < below, f"less than {below}")
        if (step := s.get("multipleOf")) is not None:
            when("number", lambda v: _divides(step, v), f"a multiple of {step}")
        if (least := s.get("minLength")) is not None:
            when("string", lambda v: len(v) >= least, f"at least {least} characters")
        if (most := s.get("maxLength")) is not None:
            when("string", lambda v: len(v) <= most, f"at most {most} characters")
        if (pattern := s.get("pattern")) is not None:
            search = _regex(pattern, path).search
            when("string", lambda v: search(v) is not None, f"text that matches {pattern}")
        if s.get("format") in FORMATS:
            read, words = FORMATS[s["format"]]
            when("string", lambda v: reads(read, v), words)
        return out

    def lists(self, s: Mapping[str, Any], path: str) -> list[Check]:
        out: list[Check] = []
        items, prefix = s.get("items"), s.get("prefixItems", [])
        if isinstance(items, list):
            items, prefix = s.get("additionalItems"), items
        firsts = [self.check(p, f"{path}[{i}]") for i, p in enumerate(prefix)]
        rest = None if items is None else self.check(items, f"{path}[]")
        if firsts or rest:

            def each(value: Any) -> Problem | None:
                if isinstance(value, list):
                    for i, entry in enumerate(value):
                        test = firsts[i] if i < len(firsts) else rest
                        if test and (problem := test(entry)):
                            return f"[{i}]{problem[0]}", problem[1]
                return None

            out.append(each)
        least, most = s.get("minItems", 0), s.get("maxItems")
        if least:
            out.append(_sized(list, lambda n: n >= least, f"at least {least} entries"))
        if most is not None:
            out.append(_sized(list, lambda n: n <= most, f"at most {most} entries"))
        if s.get("uniqueItems"):
            out.append(
                lambda v: (
                    ("", "has an entry twice")
                    if isinstance(v, list) and len({_key(e) for e in v}) < len(v)
                    else None
                )
            )
        if "contains" in s:
            inner = self.check(s["contains"], path)
            low, high = s.get("minContains", 1), s.get("maxContains", float("inf"))
            out.append(
                lambda v: (
                    ("", f"has the wrong number of entries of one kind, got {shown(v)}")
                    if isinstance(v, list) and not low <= sum(not inner(e) for e in v) <= high
                    else None
                )
            )
        return out

    def objects(self, s: Mapping[str, Any], path: str) -> list[Check]:
        out: list[Check] = []
        named = {k: self.check(v, f"{path}.{k}") for k, v in s.get("properties", {}).items()}
        patterns = [
            (_regex(k, path), self.check(v, path))
            for k, v in s.get("patternProperties", {}).items()
        ]
        extra = s.get("additionalProperties", True)
        other = None if extra is True else self.check(extra, path)
        names = self.check(s["propertyNames"], path) if "propertyNames" in s else None
        required = list(s.get("required", ()))

        def fields(value: Any) -> Problem | None:
            if not isinstance(value, dict):
                return None
            for name in required:
                if name not in value:
                    return f".{name}", "is missing"
            for name, entry in value.items():
                tests = [named[name]] if name in named else []
                tests += [test for regex, test in patterns if regex.search(name)]
                if not tests and other:
                    tests = [other]
                for test in tests:
                    if problem := test(entry):
                        return f".{name}{problem[0]}", problem[1]
                if names and (problem := names(name)):
                    return f".{name}", f"is no good name: {problem[1]}"
            return None

        if named or patterns or other or names or required:
            out.append(fields)
        if least := s.get("minProperties"):
            out.append(_sized(dict, lambda n: n >= least, f"at least {least} fields"))
        if (most := s.get("maxProperties")) is not None:
            out.append(_sized(dict, lambda n: n <= most, f"at most {most} fields"))
        for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
            for name, then in s.get(keyword, {}).items():
                schema = {"required": then} if isinstance(then, list) else then
                out.append(_if_has(name, self.check(schema, path)))
        return out

    def logic(self, s: Mapping[str, Any], path: str) -> list[Check]:
        out: list[Check] = [self.check(part, path) for part in s.get("allOf", ())]
        for keyword in ("anyOf", "oneOf"):
            if branches := s.get(keyword):
                tests = [self.check(b, path) for b in branches]
                out.append(_alternatives(tests, only_one=keyword == "oneOf"))
        if "not" in s:
            inner = self.check(s["not"], path)
            out.append(lambda v: None if inner(v) else ("", f"must not be {shown(v)}"))
        if "if" in s:
            test = self.check(s["if"], path)
            then, other = (self.check(s.get(k, True), path) for k in ("then", "else"))
            out.append(lambda v: other(v) if test(v) else then(v))
        return out


def _alternatives(tests: list[Check], *, only_one: bool) -> Check:
    def run(value: Any) -> Problem | None:
        problems = [test(value) for test in tests]
        fits = problems.count(None)
        if fits == 1 or (fits and not only_one):
            return None
        if fits:
            return "", f"fits {fits} alternatives where one is asked for, got {shown(value)}"
        # The alternative that got furthest is the one that was meant.
        return max((p for p in problems if p), key=lambda p: len(p[0]))

    return run


def _if_has(name: str, test: Check) -> Check:
    return lambda v: test(v) if isinstance(v, dict) and name in v else None


def _sized(
    kind: type[list[Any] | dict[str, Any]], test: Callable[[int], bool], words: str
) -> Check:
    return lambda v: (
        ("", f"expected {words}, got {len(v)}")
        if isinstance(v, kind) and not test(len(v))
        else None
    )


def _divides(step: float, value: float) -> bool:
    if isinstance(step, int) and isinstance(value, int):
        return value % step == 0
    try:
        quotient = value / step
    except OverflowError:
        return False
    return abs(quotient - round(quotient)) < 1e-9


def _regex(pattern: str, path: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SchemaError(
            f"{path}: {pattern!r} is no regular expression of Python ({error}); rewrite it",
            path=path,
        ) from None
