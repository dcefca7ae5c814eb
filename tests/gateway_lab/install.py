"""Install the pinned gateway from npm, once; beside this file, or in the folder that is named.

Comes in: package.json and package-lock.json. Goes out: node_modules, or a RuntimeError that says
what npm said. Run as a script by start.sh and by .ci/run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def install(folder: Path = HERE) -> None:
    """Run `npm ci` in a folder of its own and move the result, whole or not at all."""
    target = folder / "node_modules"
    if (target / "@portkey-ai" / "gateway").exists():
        return
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise RuntimeError("the gateway needs Node 20 or later and npm on the PATH")
    work = Path(tempfile.mkdtemp(prefix=".npm-", dir=folder))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, work)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"npm ci failed:\n{done.stdout}{done.stderr}")
        try:
            (work / "node_modules").rename(target)
        except OSError:
            if not target.exists():  # else another run was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    install(*(Path(argument) for argument in sys.argv[1:2]))
