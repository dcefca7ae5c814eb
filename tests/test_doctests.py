"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import nyu_llm_frames


def with_examples() -> list[str]:
    """Return the modules that show examples; those of an extra need it."""
    every = pkgutil.walk_packages(nyu_llm_frames.__path__, "nyu_llm_frames.")
    names = [found.name for found in every if found.name.split(".")[1] not in ("local", "cli")]
    if importlib.util.find_spec("polars") is None:
        names = [name for name in names if not name.rpartition(".")[2].startswith("polars")]
    finder = doctest.DocTestFinder()
    return [
        name
        for name in ("nyu_llm_frames", *names)
        if any(found.examples for found in finder.find(importlib.import_module(name)))
    ]


MODULES = with_examples()


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str, clock: object) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0


def test_what_users_call_has_examples() -> None:
    shown = {"nyu_llm_frames._api.accessor", "nyu_llm_frames._gateway.gateway"}
    assert {"nyu_llm_frames", "nyu_llm_frames._shared.options", *shown} <= set(MODULES)
