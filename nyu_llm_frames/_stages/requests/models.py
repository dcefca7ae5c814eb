"""Parse the names of models."""

from __future__ import annotations

import re

from nyu_llm_frames._stages.requests.routes import is_vertex
from nyu_llm_frames.errors import ConfigurationError

_GOOGLE = "publishers/google/models/"
_NO_GEMINI = re.compile(
    r"(^|[./])((chat)?gpt-|o\d+($|-)|claude|llama|mi[sx]tral|ministral|codestral|qwen|deepseek|grok"
    r"|text-|gemma|imagen|veo-|lyria)|embedding|\bendpoints\b"
)


def bare_name(model: str) -> str:
    """Return a model's name in lower case, without publisher and path.

    Examples
    --------
    >>> bare_name("publishers/google/models/Gemini-3-Flash ")
    'gemini-3-flash'
    >>> bare_name("google.gemini-3-flash")
    'gemini-3-flash'
    """
    return model.strip().casefold().rpartition("/")[2].removeprefix("google.")


def split_name(model: str) -> tuple[str, str]:
    """Return the provider in a model's name, "" if there is none, and the name that is sent.

    Examples
    --------
    >>> split_name("@vertexai/gemini-3-flash-preview")
    ('@vertexai', 'gemini-3-flash-preview')
    >>> split_name("publishers/google/models/gemini-3-flash-preview")
    ('', 'gemini-3-flash-preview')
    """
    provider, _, name = model.partition("/") if model.startswith("@") else ("", "", model)
    name = name.removeprefix(_GOOGLE)
    if not name or name != name.strip() or name.startswith("@") or provider == "@":
        raise ConfigurationError(
            f'model={model!r} must be the name of a model, or "@provider/name", as '
            '"@vertexai/gemini-3-flash-preview".'
        )
    return provider, name


def check_family(name: str, realm: str) -> None:
    """Refuse a model that returns no answer in any row, and is billed."""
    if is_vertex(realm) and re.search(r"\s", name):
        raise ConfigurationError(
            f"model={name!r} has a space, and no model's name has one: for example "
            '"gemini-3-flash-preview". `nyu-llm-frames models` lists the names.'
        )
    if is_vertex(realm) and _NO_GEMINI.search(name.casefold()):
        raise ConfigurationError(
            f"model={name!r} is not a Gemini model, and {realm} answers batch jobs for Gemini "
            "alone: other models and tuned endpoints come back as errors, embeddings come back "
            "empty, and you pay for all of it. Use a Gemini model (`nyu-llm-frames models` lists "
            'them), or another provider that has batch inference: model="@provider/name".'
        )
