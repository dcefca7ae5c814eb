"""Read the records of the test runs: who was skipped, did it run elsewhere, how many in all.

Comes in: a folder of junit XML files, one per run. Goes out: lines for .ci/run; `check` fails when
a test was skipped and passed in no other run.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
ALLOWED: tuple[str, ...] = ()  # reasons, as regular expressions, that need no run elsewhere
WITHOUT_EXTRA = ("the local model needs",)  # allowed as long as there is no extra `local`


@dataclass(frozen=True)
class Case:
    """One test in one run."""

    run: str
    name: str
    outcome: Literal["passed", "failed", "skipped", "xfailed"]
    reason: str = ""


def cases(folder: Path) -> list[Case]:
    """Return every test of every run; a module that was skipped whole is one case."""
    out = []
    for path in sorted(folder.glob("*.xml")):
        for node in ElementTree.parse(path).iter("testcase"):
            name = "::".join(filter(None, (node.get("classname"), node.get("name"))))
            skipped = node.find("skipped")
            if node.find("failure") is not None or node.find("error") is not None:
                out.append(Case(path.stem, name, "failed"))
            elif skipped is None:
                out.append(Case(path.stem, name, "passed"))
            else:
                xfail = skipped.get("type") == "pytest.xfail"
                said = f"{skipped.get('message')} {skipped.text or ''}"
                out.append(Case(path.stem, name, "xfailed" if xfail else "skipped", said))
    return out


def never_ran(found: list[Case], allowed: tuple[str, ...]) -> list[Case]:
    """Return the skipped tests that passed nowhere."""
    passed = {case.name for case in found if case.outcome == "passed"}
    modules = {name.partition("::")[0] for name in passed}
    return [
        case
        for case in found
        if case.outcome == "skipped"
        and case.name not in passed
        and case.name not in modules
        and not any(re.search(reason, case.reason) for reason in allowed)
    ]


def has_extra(name: str) -> bool:
    """Say whether pyproject.toml has this extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return name in project.get("optional-dependencies", {})


def files(found: list[Case]) -> list[str]:
    """Return the test files of the tests that have not run yet."""
    out = set()
    for case in never_ran(found, ALLOWED):
        parts = case.name.partition("::")[0].split(".")
        for end in range(len(parts), 0, -1):  # a class stands behind the module
            path = Path(*parts[:end]).with_suffix(".py")
            if (ROOT / path).exists():
                out.add(path.as_posix())
                break
    return sorted(out)


def counts(found: list[Case]) -> str:
    """Return a line such as `plain: 300 passed, 20 skipped; gateway: 20 passed`."""
    told = []
    for run in dict.fromkeys(case.run for case in found):
        outcomes = [case.outcome for case in found if case.run == run]
        kinds = [kind for kind in ("passed", "failed", "skipped", "xfailed") if kind in outcomes]
        told.append(f"{run}: " + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in kinds))
    return "; ".join(told) or "no test ran"


def main(what: str, argument: str) -> int:
    """Do what .ci/run asks."""
    if what == "extra":
        print("yes" if has_extra(argument) else "no")
        return 0
    found = cases(Path(argument))
    if what == "files":
        print("".join(f"{path}\n" for path in files(found)), end="")
        return 0
    if what == "counts":
        print(counts(found))
        return 0
    left = never_ran(found, ALLOWED if has_extra("local") else ALLOWED + WITHOUT_EXTRA)
    for case in left:
        print(f"never ran: {case.name} ({case.run}): {' '.join(case.reason.split())}")
    if not left:
        print("none")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
