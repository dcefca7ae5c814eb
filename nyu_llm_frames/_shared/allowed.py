"""Checks what an argument may be: a number between two bounds, one of some words.

Comes in: the name of an argument, and its value. Goes out: an error that says what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nyu_llm_frames.errors import ConfigurationError

_ENDLESS = float("inf")


def check_number(
    name: str, value: object, low: float, high: float = _ENDLESS, *, whole: bool = False
) -> None:
    """Refuse what is no number between two bounds; None is not checked."""
    if value is None:
        return
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise _no_number(name, value, low, high, "a whole number" if whole else "a number")


def whole_number(name: str, value: object, low: float, high: float = _ENDLESS) -> int:
    """Return a whole number between two bounds, or refuse what is none."""
    check_number(name, value, low, high, whole=True)
    if value is None:
        raise _no_number(name, value, low, high, "a whole number")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _no_number(name: str, value: object, low: float, high: float, what: str) -> ConfigurationError:
    top = "" if high == _ENDLESS else f" to {high:,g}"
    return ConfigurationError(f"{name} must be {what} from {low:,g}{top}, not {value!r}.")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is none of these words."""
    if not isinstance(value, str) or value not in allowed:
        raise ConfigurationError(
            f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}."
        )
