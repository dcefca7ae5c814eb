"""Imports go one way, from the command line down to the errors, and the folders show it.

Read from the source, so that an import inside a function counts too, and one for type checkers.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import nyu_llm_frames

ROOT = Path(nyu_llm_frames.__file__).parent
PACKAGE = "nyu_llm_frames"

# The folders from the bottom up: each may need those below it, and no other. A folder of `_stages`
# is one of its own; the package itself is what users import.
FLOORS = (
    "errors",
    "local",
    "_shared",
    "_stages.prompts",
    "_stages.schema",
    "_stages.requests",
    "_stages.answers",
    "_stages.cost",
    "_stages.batches",
    "_gateway",
    "_sidecar",
    "_jobs",
    "_tables",
    "_runs",
    "research",
    "_api",
    "dask",
    "polars",
    "",
    "cli",
)
MOST_NAMES, MOST_LINES = 15, 400

# What reads a clock, opens a socket or a path, looks at the environment, or throws dice.
IMPURE = {
    "asyncio", "concurrent", "filelock", "ftplib", "getpass", "glob", "httpx", "io", "logging",
    "multiprocessing", "openai", "os", "platform", "portkey_ai", "random", "requests", "secrets",
    "select", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile",
    "threading", "time", "tqdm",
}  # fmt: skip
IMPURE_NAMES = {"pathlib.Path", "urllib.request", "http.client", "http.server"}
CLOCK = re.compile(r"\.(now|utcnow|today)\(|(?<!def )\bopen\(|\benviron\b|\bgetenv\(")

# The files of hand coding, among pure statistics.
SHELL = {f"research.{name}" for name in ("coding_design", "coding_files", "hand_codes")}

FRAME_LIBRARIES = {"pandas", "dask", "polars", "narwhals"}
# Typed columns are built where their types are known.
MAKES_COLUMNS = {"_stages.schema.arrays"}


@dataclass(frozen=True)
class Import:
    name: str
    lazy: bool


@cache
def sources() -> dict[str, str]:
    """Return the source of every module, by its name below the package ("" is the package)."""
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(p for p in parts if p != "__init__")] = path.read_text(encoding="utf-8")
    return out


def imports_of(module: str, *, types: bool = False) -> Iterator[Import]:
    """Yield what a module imports when it runs, or also what only type checkers read."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if (
                not types
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.unparse(child.test)
            ):
                for other in child.orelse:
                    yield from walk(other, lazy)
            elif isinstance(child, ast.Import):
                yield from (Import(alias.name, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: imports are absolute"
                yield from (Import(f"{child.module}.{alias.name}", lazy) for alias in child.names)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, lazy or inside)

    yield from walk(ast.parse(sources()[module]), False)


def own_imports(module: str, *, types: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the modules of the package that a module imports, and whether inside a function."""
    for found in imports_of(module, types=types):
        if found.name == PACKAGE or not found.name.startswith(f"{PACKAGE}."):
            continue
        name = found.name.removeprefix(f"{PACKAGE}.")
        while name not in sources():  # a name in a module: drop it
            name = name.rpartition(".")[0]
        yield name, found.lazy


def foreign_imports(module: str) -> set[str]:
    names = {found.name for found in imports_of(module)}
    return {name for name in names if not name.startswith(PACKAGE)}


def folder(module: str) -> str:
    """Return the folder of a module, as `FLOORS` names it."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "_stages" else parts[0]


def test_every_module_stands_in_a_folder_that_has_a_floor() -> None:
    assert {folder(module) for module in sources()} == {*FLOORS, "_stages"}
    assert sources()["_stages"].count("\n") == 1  # no code between the stages


def test_a_folder_needs_only_folders_below_it() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in sources()
        for other, _ in own_imports(module, types=True)
        if folder(other) != folder(module)
        and FLOORS.index(folder(other)) > FLOORS.index(folder(module))
    ]
    assert not wrong


def test_the_house_is_small_and_no_two_files_have_one_name() -> None:
    plumbing = {"__init__.py", "__pycache__", "py.typed"}
    tops = [path.name for path in ROOT.iterdir() if path.name not in plumbing]
    assert len(tops) <= MOST_NAMES
    files = Counter(path.name for path in ROOT.rglob("*.py") if not path.name.startswith("__"))
    assert not [name for name, n in files.items() if n > 1]
    assert not [m for m, text in sources().items() if text.count("\n") > MOST_LINES]


def test_no_import_goes_in_a_circle() -> None:
    assert not circle(
        {
            module: {other for other, lazy in own_imports(module) if not lazy and other != module}
            for module in sources()
        }
    )


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_no_folder_has_a_circle_inside(name: str) -> None:
    # Not even one that waits in a function, or that only type checkers read.
    inside = [module for module in sources() if folder(module) == name]
    assert not circle(
        {
            module: {
                other
                for other, _ in own_imports(module, types=True)
                if other != module and other in inside
            }
            for module in inside
        }
    )


def circle(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the modules that need each other, and those that need such ones."""
    while free := [module for module, needs in graph.items() if not needs]:
        for module in free:
            del graph[module]
        for needs in graph.values():
            needs.difference_update(free)
    return graph


def test_pure_stages_know_no_clock_socket_path_or_environment() -> None:
    wrong = []
    for module in sources():
        if not module.startswith(("errors", "_stages.", "research.")) or module in SHELL:
            continue
        names = foreign_imports(module)
        wrong += [f"{module} imports {n}" for n in names if n.partition(".")[0] in IMPURE]
        wrong += [f"{module} imports {n}" for n in names & IMPURE_NAMES]
        code = ast.unparse(without_docstrings(ast.parse(sources()[module])))
        wrong += [f"{module} uses {m.group()}" for m in CLOCK.finditer(code)]
    assert not wrong


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Return the tree without its strings: a message may say `open(`."""

    class Blank(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant("") if isinstance(node.value, str) else node

    blank: ast.Module = Blank().visit(tree)
    return blank


def test_a_dataframe_library_appears_only_at_the_ends() -> None:
    users = {
        module
        for module in sources()
        if {name.partition(".")[0] for name in foreign_imports(module)} & FRAME_LIBRARIES
    }
    above = {"_tables", "_runs", "research", "_api", "dask", "polars", "", "cli"}
    inside = {module for module in users if folder(module) not in above}
    assert inside == MAKES_COLUMNS


def test_the_client_is_imported_inside_functions_alone() -> None:
    # Or at the top of a module that is itself imported inside functions alone.
    late = {"portkey_ai", "httpx", "httpcore", "tqdm", "matplotlib", "IPython", "openai"}
    at_once = {other for module in sources() for other, lazy in own_imports(module) if not lazy}
    early = [
        f"{module} imports {found.name}"
        for module in sources()
        if not module.startswith("local") and module in at_once
        for found in imports_of(module)
        if not found.lazy and found.name.partition(".")[0] in late
    ]
    assert not early


def test_the_embedded_server_shares_no_code_with_the_client() -> None:
    # A protocol misread on one side must not hide on the other.
    used = {
        other
        for module in sources()
        if module == "local" or module.startswith("local.")
        for other, _ in own_imports(module)
    }
    assert {name for name in used if name.partition(".")[0] != "local"} <= {"errors"}
    users = {
        module
        for module in sources()
        if not module.startswith("local")
        for other, _ in own_imports(module)
        if other.partition(".")[0] == "local"
    }
    assert {user.partition(".")[0] for user in users} <= {"_gateway", "cli"}
