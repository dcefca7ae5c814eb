"""Names of models.

Comes in: a model as a request or an answer names it. Goes out: its name alone.
"""

from __future__ import annotations


def bare_name(model: str) -> str:
    """Return a model's name in small letters, without publisher and path.

    Examples
    --------
    >>> bare_name("publishers/google/models/Gemini-3-Flash ")
    'gemini-3-flash'
    >>> bare_name("google.gemini-3-flash")
    'gemini-3-flash'
    """
    return model.strip().casefold().rpartition("/")[2].removeprefix("google.")
