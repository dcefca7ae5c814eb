"""A coder at LibreOffice: open a file, type codes, sort, save. Runs in a Python that has `uno`.

Comes in: JSON on stdin: ``open`` (a path), ``codes`` (code by unit), ``notes``, ``sort`` (a column
or null), ``save`` (path, filter and its options, each). Goes out: the saved files. Debian:
``apt install libreoffice-calc python3-uno``; then ``/usr/bin/python3 spreadsheet_coder.py``.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

uno: Any = importlib.import_module("uno")  # of the system's Python, and of no package index


def options(**given: Any) -> tuple[Any, ...]:
    """Return what UNO takes for keyword arguments."""
    make = uno.getClass("com.sun.star.beans.PropertyValue")
    return tuple(make(Name=name, Value=value) for name, value in given.items())


def connect(pipe: str) -> Any:
    """Return the desktop of an office that is starting."""
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext(
        "com.sun.star.bridge.UnoUrlResolver", local
    )
    url = f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext"
    refused = uno.getClass("com.sun.star.connection.NoConnectException")
    for _ in range(600):
        try:
            context = resolver.resolve(url)
            break
        except refused:
            time.sleep(0.1)
    else:
        raise TimeoutError("LibreOffice did not start")
    return context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)


def edit(desktop: Any, job: dict[str, Any]) -> None:
    """Do what a coder does in one sitting."""
    url = uno.systemPathToFileUrl(job["open"])
    # A CSV file as LibreOffice's dialog proposes it: UTF-8, columns as they come.
    csv = options(FilterName="Text - txt - csv (StarCalc)", FilterOptions="44,34,76,1")
    opened = csv if job["open"].endswith(".csv") else ()
    book = desktop.loadComponentFromURL(url, "_blank", 0, (*options(Hidden=True), *opened))
    sheet = book.Sheets.getByIndex(0)
    cursor = sheet.createCursor()
    cursor.gotoEndOfUsedArea(False)
    last = cursor.RangeAddress.EndRow
    width = 0
    while sheet.getCellByPosition(width, 0).String:
        width += 1
    header = [sheet.getCellByPosition(c, 0).String for c in range(width)]
    for column, cells in (("code", job["codes"]), ("note", job.get("notes", {}))):
        for row in range(1, last + 1):
            text = cells.get(sheet.getCellByPosition(header.index("unit"), row).String)
            if text is not None:  # as it is typed: the cell decides whether 007 is a number
                sheet.getCellByPosition(header.index(column), row).FormulaLocal = text
    if job.get("sort"):
        field = uno.createUnoStruct("com.sun.star.table.TableSortField")
        field.Field, field.IsAscending = header.index(job["sort"]), True
        area = sheet.getCellRangeByPosition(0, 0, width - 1, last)
        fields = uno.Any("[]com.sun.star.table.TableSortField", (field,))
        area.sort(options(SortFields=fields, ContainsHeader=True))
    for path, name, how in job["save"]:
        book.storeToURL(uno.systemPathToFileUrl(path), options(FilterName=name, FilterOptions=how))
    book.close(True)


def main() -> None:
    """Start an office of our own, do all jobs, and end it."""
    jobs = json.load(sys.stdin)
    pipe = f"coder-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as home:
        office = subprocess.Popen(
            ["soffice", "--headless", "--norestore", "--nologo", f"--accept=pipe,name={pipe};urp;",
             f"-env:UserInstallation={Path(home).as_uri()}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            desktop = connect(pipe)
            for job in jobs:
                edit(desktop, job)
            desktop.terminate()
        finally:
            office.wait(timeout=60)


if __name__ == "__main__":
    main()
