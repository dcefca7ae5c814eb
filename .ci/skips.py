"""Read the records of the test runs: who was skipped, did it run elsewhere, how many in all.

Comes in: a folder of junit XML files, one per run. Goes out: lines for .ci/run; `check` fails when
a test was skipped and passed in no other run, or was skipped where everything is installed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

COMPLETE = "newest"
"""The run with all extras, the gateway and the model: there is no reason to skip anything there."""


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


def never_ran(found: list[Case]) -> list[Case]:
    """Return the skipped tests that passed nowhere, and those of the complete run."""
    passed = {case.name for case in found if case.outcome == "passed"}
    modules = {name.partition("::")[0] for name in passed}
    return [
        case
        for case in found
        if case.outcome == "skipped" and (case.run == COMPLETE or case.name not in passed | modules)
    ]


def counts(found: list[Case]) -> str:
    """Return a line such as `plain: 300 passed, 20 skipped; gateway: 20 passed`."""
    told = []
    for run in dict.fromkeys(case.run for case in found):
        outcomes = [case.outcome for case in found if case.run == run]
        kinds = [kind for kind in ("passed", "failed", "skipped", "xfailed") if kind in outcomes]
        told.append(f"{run}: " + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in kinds))
    return "; ".join(told) or "no test ran"


def main(what: str, folder: str) -> int:
    """Do what .ci/run asks."""
    found = cases(Path(folder))
    if what == "counts":
        print(counts(found))
        return 0
    left = never_ran(found)
    for case in left:
        print(f"never ran: {case.name} ({case.run}): {' '.join(case.reason.split())}")
    if not left:
        print("none")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
