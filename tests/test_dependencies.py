"""pyproject.toml declares what is imported, and nothing else: packages come and go with others."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import nyu_llm_frames

PACKAGE = Path(nyu_llm_frames.__file__).parent
ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules that are not called like the package that brings them.
BROUGHT_BY = {
    "splintr": "splintr-rs",
    "pydantic_core": "pydantic",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
}
# What a package that we import needs for what we do with it: Starlette for forms.
IMPORTED_BY_OTHERS = {"python-multipart"}
# Who may run us: a kernel, which has it.
HOSTS = {"ipython"}
# By folder below the package, for what only an extra needs.
EXTRAS = {
    "": ("dask", "excel", "plot", "polars", "research", "tokens"),
    "local": ("local",),
}


def declared(*extras: str) -> dict[str, str]:
    """Return name and requirement of every dependency, and of those of some extras."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = {re.split(r"[<>=!~\[ ]", line)[0].lower(): line for line in lines}
    found.pop(PROJECT["name"], None)  # our own extras
    return found


def imported(folder: Path) -> dict[str, str]:
    """Return the packages that the files of a folder import, each with one file that does."""
    own = {path.stem for path in folder.rglob("*.py")} | {p.name for p in folder.rglob("*")}
    if folder.is_relative_to(PACKAGE):
        own = set()  # there, what is ours begins with the package's name
    out = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            for name in (name.partition(".")[0] for name in names):
                if name not in {*sys.stdlib_module_names, *own, PACKAGE.name}:
                    out[BROUGHT_BY.get(name, name.replace("_", "-").lower())] = str(path)
    return out


@pytest.mark.parametrize("folder", EXTRAS)
def test_what_the_package_imports_is_declared(folder: str) -> None:
    missing = imported(PACKAGE / folder).keys() - declared(*EXTRAS[folder]).keys() - HOSTS
    if not folder:
        missing -= imported(PACKAGE / "local").keys()
    assert not missing


def test_what_the_tests_import_is_declared() -> None:
    extras = [name for name in PROJECT["optional-dependencies"] if name != "dev"]
    assert not imported(ROOT / "tests").keys() - declared(*extras).keys()


def test_what_is_declared_is_imported_and_has_a_lowest_version() -> None:
    needed = declared(*EXTRAS[""], *EXTRAS["local"])
    assert needed.keys() - imported(PACKAGE).keys() == IMPORTED_BY_OTHERS
    assert all(re.search(r"[>=]=\d", line) for line in needed.values())
