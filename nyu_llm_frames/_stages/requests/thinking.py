"""Translate `thinking=` for every model family, and reserve the tokens it needs.

Room is added to `max_tokens`, so that thinking cannot use up the answer. Budgets and levels are of
https://cloud.google.com/vertex-ai/generative-ai/docs/thinking; what the three words mean as budgets
is Google's own table (https://ai.google.dev/gemini-api/docs/openai).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nyu_llm_frames._stages.requests.models import bare_name
from nyu_llm_frames._stages.requests.routes import ProviderRoute
from nyu_llm_frames.errors import ConfigurationError, RequestError

WORDS = ("off", "low", "medium", "high")
BUDGETS = {"low": 1_024, "medium": 8_192, "high": 24_576}
# A level is no limit, so its room is generous: an unused token of `max_tokens` costs nothing.
LEVEL_ROOM = {"minimal": 1_024, "low": 4_096, "medium": 16_384, "high": 32_768}
MAX_OUTPUT_TOKENS = 65_535
"""The most that Gemini 2.5 and 3 write, thinking included."""

_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?-(pro|flash-lite|flash)(?![a-z])(.*)")


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a family think; `name` is for messages.

    A budget is between `least` and `most` tokens, or 0 where it `can_stop`; the lowest of the
    levels comes first.
    """

    name: str
    kind: Literal["budget", "level", "never", "unknown"]
    least: int = 0
    most: int = 0
    can_stop: bool = False
    levels: tuple[str, ...] = ()


def family(model: str) -> Family:
    """Return how a model thinks, by its name.

    Examples
    --------
    >>> family("publishers/google/models/gemini-2.5-pro").can_stop
    False
    >>> family("gemini-3-flash-preview").levels
    ('minimal', 'low', 'medium', 'high')
    """
    name = bare_name(model)
    found = _NAME.match(name)
    if not found:
        old = re.match(r"gemini-(1|2\.0)\b", name)
        return Family(name, "never" if old else "unknown")
    major, minor, size = int(found[1]), int(found[2] or 0), found[3]
    if (major, minor) < (2, 5) or (major == 2 and "image" in found[4]):
        return Family(name, "never")
    if "image" in found[4]:
        return Family(name, "unknown")  # each has its own levels
    if major == 2:
        least, most = {"pro": (128, 32_768), "flash": (1, 24_576), "flash-lite": (512, 24_576)}[
            size
        ]
        return Family(name, "budget", least, most, can_stop=size != "pro")
    if size == "pro":
        few = ("low", "high") if (major, minor) == (3, 0) else ("low", "medium", "high")
        return Family(name, "level", levels=few)
    return Family(name, "level", levels=("minimal", "low", "medium", "high"))


@dataclass(frozen=True, slots=True)
class Setting:
    """What `thinking=` adds to a request: fields of the body, and tokens to `max_tokens`."""

    fields: dict[str, Any] = field(default_factory=dict)
    room: int = 0


def setting(thinking: object, model: str, route: ProviderRoute) -> Setting:
    """Translate `thinking=`, or refuse what is no setting, or none of the model's."""
    if thinking is None:
        return Setting()
    if isinstance(thinking, bool) or not (
        thinking in WORDS
        if isinstance(thinking, str)
        else isinstance(thinking, int) and thinking >= 0
    ):
        instead = {False: ' Write thinking="off".', True: ' For example, write thinking="low".'}
        raise ConfigurationError(
            f"thinking must be {', '.join(map(repr, WORDS))} or a number of tokens, "
            f"not {thinking!r}.{instead[thinking] if isinstance(thinking, bool) else ''}"
        )
    assert isinstance(thinking, str | int)
    if route == "embedded":
        return _embedded(thinking)
    if route == "open":
        return _open(thinking)
    known = family(model)
    if known.kind == "level":
        return _level(thinking, known)
    if known.kind == "budget":
        return _budget(thinking, known)
    if known.kind == "never":
        if thinking in ("off", 0):
            return Setting()
        raise RequestError(
            f"{known.name} does not think, so thinking={thinking!r} would fail. Leave thinking= "
            "out, or use a model that thinks, such as gemini-2.5-flash or gemini-3-flash-preview."
        )
    raise RequestError(
        f"The name {known.name!r} does not show how this model thinks, so "
        f"thinking={thinking!r} cannot be translated. Name the model with its version, such as "
        "gemini-3-flash-preview; or set it in "
        'the model\'s own terms: params={"reasoning_effort": "low"} for a level, or '
        'params={"thinking": {"type": "enabled", "budget_tokens": 1024}} for a budget.'
    )


def _embedded(thinking: str | int) -> Setting:
    if thinking in ("off", 0):
        return Setting()
    raise RequestError(
        f"The model on this machine does not think, so thinking={thinking!r} would be ignored. "
        'Leave it out, or write thinking="off".'
    )


def _open(thinking: str | int) -> Setting:
    if isinstance(thinking, int) and thinking > 0:
        raise RequestError(
            f"An OpenAI-compatible server takes levels, not a budget of {thinking:,} tokens. Use "
            'thinking="low", "medium" or "high".'
        )
    return Setting({"reasoning_effort": "none" if thinking in ("off", 0) else thinking})


def _level(thinking: str | int, known: Family) -> Setting:
    shown = ", ".join(f'"{level}"' for level in known.levels if level != "minimal")
    if isinstance(thinking, int):
        raise RequestError(
            f"{known.name} thinks by level, not by a budget of {thinking:,} tokens. Use thinking= "
            f"with one of {shown}."
        )
    level = thinking
    if thinking == "off":
        if "minimal" not in known.levels:
            raise RequestError(
                f'{known.name} always thinks, so thinking="off" would have no effect. Its lowest '
                f'level is thinking="{known.levels[0]}"; a model that can do without is '
                "gemini-2.5-flash."
            )
        level = "minimal"  # "none" passes the gateway and does nothing: the default is "high"
    if level not in known.levels:
        raise RequestError(f"{known.name} has no thinking={thinking!r}. Use one of {shown}.")
    return Setting({"reasoning_effort": level}, LEVEL_ROOM[level])


def _budget(thinking: str | int, known: Family) -> Setting:
    tokens = thinking if isinstance(thinking, int) else BUDGETS.get(thinking, 0)
    if tokens == 0:
        if not known.can_stop:
            raise RequestError(
                f"{known.name} always thinks: it cannot be switched off. Its smallest budget is "
                f"thinking={known.least}; a model that can do without is gemini-2.5-flash."
            )
        # Without the number the gateway passes on nothing, and the model thinks as it likes.
        return Setting({"thinking": {"type": "disabled", "budget_tokens": 0}})
    if not known.least <= tokens <= known.most:
        stop = ', or "off"' if known.can_stop else ""
        raise RequestError(
            f"{known.name} takes a thinking budget of {known.least:,} to {known.most:,} tokens"
            f"{stop}, not {tokens:,}."
        )
    return Setting({"thinking": {"type": "enabled", "budget_tokens": tokens}}, tokens)


def with_room(max_tokens: int, room: int) -> int:
    """Return the limit to send: the answer's own, and room for thinking before it.

    The model counts thinking among its output, so it would use up a limit that is
    meant for the answer.
    """
    return max(max_tokens, min(max_tokens + room, MAX_OUTPUT_TOKENS))


def check_given(params: Mapping[str, Any], model: str, limit: object) -> None:
    """Refuse thinking given by hand in ``params=`` that Gemini would refuse or the gateway drop.

    `limit` is ``max_tokens`` as it would be sent.
    """
    known = family(model)
    by_budget, by_level = params.get("thinking"), params.get("reasoning_effort")
    if by_budget is not None and by_level is not None:
        raise RequestError(
            "params holds thinking and reasoning_effort, and the model refuses both together. "
            "Keep one, or use thinking= in place of either."
        )
    if by_level is not None:
        _check_level(by_level, known)
    if by_budget is not None:
        _check_budget(by_budget, known, limit)


def _check_level(value: object, known: Family) -> None:
    if value == "none":
        raise RequestError(
            'reasoning_effort="none" is dropped by the gateway, and the model thinks as much as '
            'it likes. Use thinking="off".'
        )
    if known.kind == "budget":
        raise RequestError(
            f"{known.name} thinks by budget and refuses reasoning_effort. Use thinking={value!r}."
        )
    if known.kind == "never":
        raise RequestError(f"{known.name} does not think. Leave reasoning_effort out.")
    if known.kind == "level" and value not in known.levels:
        raise RequestError(
            f"{known.name} has no reasoning_effort={value!r}. "
            f"Use one of {', '.join(map(repr, known.levels))}."
        )


def _check_budget(value: object, known: Family, limit: object) -> None:
    if known.kind == "never":
        raise RequestError(f"{known.name} does not think. Leave thinking out of params.")
    tokens = value.get("budget_tokens") if isinstance(value, Mapping) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        raise RequestError(
            f"params['thinking'] is {value!r}; without a whole number as budget_tokens the gateway "
            'drops it. Use thinking="off", a level, or a number of tokens.'
        )
    if isinstance(limit, int) and 0 < limit <= tokens:
        raise RequestError(
            f"max_tokens={limit:,} counts thinking too, and the thinking budget is {tokens:,}: no "
            f"token is left for the answer. Use thinking={tokens} in place of params, which adds "
            "the room to max_tokens."
        )


def advice(params: Mapping[str, Any], model: str, way: ProviderRoute) -> str | None:
    """Warn, in a line for people, of a limit that thinking may use up where it is not set.

    `params` are the constant fields of the body, as they are sent.
    """
    limits = [params[k] for k in ("max_tokens", "max_completion_tokens") if k in params]
    known = family(model)
    thinks = known.kind == "level" or (known.kind == "budget" and "lite" not in known.name)
    if way != "gemini" or not thinks or not limits or limits[0] >= LEVEL_ROOM["low"]:
        return None
    if "thinking" in params or "reasoning_effort" in params:
        return None
    return (
        f"{known.name} thinks by default, and max_tokens={limits[0]:,} counts thinking "
        'too: the answer may be cut or empty. Set thinking="low" (or "off" if the model allows '
        "it), and room for thinking is added to max_tokens."
    )
