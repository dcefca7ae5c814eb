"""`to_code` draws a sample and writes the coders' files; `from_codes` reads them.

Comes in: a table and a folder. Goes out: the design of the sample, or the table with the codes
as new columns. The pure modules of this folder make the decisions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.allowed import check_choice, whole_number
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._shared.stack import warn_user
from nyu_llm_frames._stages.prompts.template_errors import no_column
from nyu_llm_frames._tables.excel_sheet import LONGEST_TEXT, too_long
from nyu_llm_frames._tables.frame import check_new_columns
from nyu_llm_frames._tables.table import Table
from nyu_llm_frames.errors import (
    CodesError,
    CodesWarning,
    ColumnExistsError,
    ConfigurationError,
)
from nyu_llm_frames.research import coding_design as designs
from nyu_llm_frames.research import coding_files as files
from nyu_llm_frames.research import coding_sample as samples
from nyu_llm_frames.research import coding_sheet as sheets
from nyu_llm_frames.research.coding_design import DESIGN, SETTLE, Design, Task, make_task
from nyu_llm_frames.research.coding_sample import Allocation, Use

Format: TypeAlias = Literal["xlsx", "csv"]
Settle: TypeAlias = Literal["agree", "majority"]
Cells: TypeAlias = Mapping[str, Sequence[str | None]]
"""The shown texts of each unit."""


def to_code(
    frame: Table,
    folder: str | Path,
    show: str | Sequence[Hashable],
    *,
    n: int,
    by: Hashable | Sequence[Hashable] | None,
    allocation: Allocation,
    labels: Sequence[object] | None,
    coders: Sequence[str],
    format: Format,
    use: Use,
    seed: int,
) -> pd.DataFrame:
    """Implement `df.llm.to_code`."""
    n, seed = whole_number("n", n, 1), whole_number("seed", seed, -(2**63), 2**63 - 1)
    check_choice("allocation", allocation, get_args(Allocation))
    check_choice("format", format, get_args(Format))
    check_choice("use", use, get_args(Use))
    if format == "xlsx":
        files.check_extra()
    shown = _names("show", show)
    strata = [] if by is None else _names("by", by)
    if not shown:
        raise ConfigurationError("show= names the columns that coders see, and names none.")
    task = make_task(shown, labels, coders)
    if not len(frame):
        raise ConfigurationError("The frame has no rows to draw from.")

    texts = _texts(frame, shown)
    units = samples.unit_ids(texts)
    names = samples.stratum_names(_texts(frame, strata), len(frame))
    drawn = samples.draw(units, names, n=n, allocation=allocation, use=use, seed=seed)
    table = designs.design_table(
        drawn, use=use, seed=seed, by=list(map(str, strata)), custom_ids=_ids(frame, units)
    )
    path = local_path(folder, "The folder of hand codes").absolute()
    if path.exists() and not path.is_dir():
        raise CodesError(f"{path} is a file; hand codes need a folder.", file=path.name)
    design = designs.merged(designs.read_design(path), table, task, path)
    cells = _cells(units, texts)
    if format == "xlsx":
        _check_lengths(frame, units, design, cells)
    _write(path, design, cells, format)
    return table


def from_codes(frame: Table, folder: str | Path, *, output: str, settle: Settle) -> Any:
    """Implement `df.llm.from_codes`."""
    check_choice("settle", settle, get_args(Settle))
    if not isinstance(output, str) or not output:
        raise ConfigurationError(f"output must be the name of a column, not {output!r}.")
    path = local_path(folder, "The folder of hand codes").absolute()
    design = designs.read_design(path)
    if design is None:
        raise CodesError(
            f"{path} holds no {DESIGN}, the list of drawn units. Name the folder that was given "
            "to to_code.",
            file=DESIGN,
        )
    task, table = design.task, design.units.set_index("unit")
    columns = {str(label): label for label in frame.columns}
    missing = [name for name in task.show if name not in columns]
    if missing:
        text = f"The coders were shown {missing[0]!r}, which is not a column."
        raise no_column(text, missing[0], frame.columns)
    _check_new(frame, output, task)

    texts = _texts(frame, [columns[name] for name in task.show])
    units = samples.unit_ids(texts)
    cells = _cells(units, texts)
    by_coder, decided = _read(path, task, set(table.index), cells)
    settled, disputed = sheets.settle(by_coder, decided, majority=settle == "majority")
    if disputed:
        written = _write_settle(path, task, cells, by_coder, disputed)
        coded = len({unit for codes in by_coder.values() for unit in codes})
        warn_user(
            f"Coders differ on {len(disputed):,} of {coded:,} units; their {output!r} is NA. They "
            f"are side by side in {' and '.join(map(str, written))}: fill in its column 'code', "
            "and call again.",
            CodesWarning,
        )
    n, drawn_from = len(set(units)), designs.population(design)
    if n != drawn_from:
        warn_user(
            f"The sample was drawn from {drawn_from:,} texts, and the frame has {n:,}. The "
            "probabilities are those of the former: for estimates with pi, give the frame that was "
            "given to to_code, and leave out rows afterward.",
            CodesWarning,
        )
    new = {output: _codes(units, settled, task.labels)}
    for coder, codes in by_coder.items():
        new[f"{output}_{coder}"] = _codes(units, codes, task.labels)
    own = table.reindex(units)
    new[f"{output}_pi"] = own["pi"].to_numpy(dtype=np.float64)
    new[f"{output}_stratum"] = own["stratum"].astype(pd.StringDtype()).array
    new[f"{output}_use"] = pd.Categorical(own["use"], list(get_args(Use)))
    new[f"{output}_unit"] = pd.array(units, dtype=pd.StringDtype())
    return frame.with_columns(new)


# --- arguments --------------------------------------------------------------------------------
def _names(argument: str, given: Any) -> list[Hashable]:
    """Return the columns for one name or several."""
    names = list(given) if pd.api.types.is_list_like(given) else [given]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{argument}= names a column twice: {names!r}.")
    return names


def _check_new(frame: Table, output: str, task: Task) -> None:
    """Refuse names of new columns that the frame has, and no earlier call made."""
    of_design = [f"{output}_{word}" for word in ("pi", "stratum", "use", "unit")]
    names = [output, *(f"{output}_{c}" for c in task.coders), *of_design]
    taken = set(map(str, frame.columns))
    there = [name for name in names if name in taken]
    if there and not {output, *of_design} <= set(there):
        raise ColumnExistsError(
            f"The frame already has {', '.join(map(repr, there))}, which no earlier from_codes "
            "made. Choose another name with output=.",
            columns=there,
        )
    check_new_columns(frame, names, "replace")


# --- the frame --------------------------------------------------------------------------------
def _texts(frame: Table, labels: Sequence[Hashable]) -> list[list[str | None]]:
    """Return the cells of some columns as a prompt prints them; a missing one is None."""
    for label in labels:
        times = list(frame.columns).count(label)
        if times > 1:
            raise ConfigurationError(f"Several columns are called {label!r}; rename them.")
        if not times:
            text = f"show= or by= names {label!r}, which is not a column."
            raise no_column(text, label, frame.columns)
    try:
        return [
            [None if value is None else str(value) for value in values]
            for values in _values(frame, labels)
        ]
    except TypeError as e:
        raise ConfigurationError(f"A cell cannot be shown: {e}.") from None


def _values(frame: Table, labels: Sequence[Hashable]) -> list[list[object]]:
    pieces = list(frame.pieces(labels)) if labels else []
    return [[value for piece in pieces for value in piece.values[label]] for label in labels]


def _cells(units: Sequence[str], texts: Sequence[Sequence[str | None]]) -> Cells:
    return dict(zip(units, zip(*texts, strict=True), strict=True))


def _ids(frame: Table, units: Sequence[str]) -> dict[str, str | None]:
    """Return the one request of each unit, where the details of the frame show it."""
    named = [c for c in frame.columns if isinstance(c, str) and c.endswith("_custom_id")]
    if len(named) != 1:
        return {}
    found: dict[str, set[Any]] = defaultdict(set)
    for unit, value in zip(units, _values(frame, named)[0], strict=True):
        found[unit].add(value)
    return {unit: ids.pop() if len(ids) == 1 else None for unit, ids in found.items()}


def _codes(units: Sequence[str], codes: Mapping[str, str], labels: Sequence[str] | None) -> Any:
    found = [codes.get(unit) for unit in units]
    if labels is None:
        return pd.array(found, dtype=pd.StringDtype())
    return pd.Categorical(found, list(labels))


def _check_lengths(frame: Table, units: Sequence[str], design: Design, cells: Cells) -> None:
    for unit in design.units["unit"]:
        for name, text in zip(design.task.show, cells.get(unit, ()), strict=False):
            if text is not None and too_long(text):
                row = frame.label(list(units).index(unit))
                raise CodesError(
                    f"The text in {name!r}, row {row!r} (unit {unit}), has {len(text):,} "
                    f"characters, and Excel cuts a cell after {LONGEST_TEXT:,}. Choose "
                    'format="csv" and a program that shows it whole, or code shorter texts: a '
                    "column of their beginnings, or chunks.",
                    unit=unit,
                )


# --- the files --------------------------------------------------------------------------------
def _read(
    folder: Path, task: Task, drawn: set[str], cells: Cells
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the codes of each coder by unit, and those that were settled."""
    found: dict[str, dict[str, str]] = {coder: {} for coder in (*task.coders, SETTLE)}
    there = files.coders_files(folder, task.coders)
    gone = [f"codes_{coder}.*" for coder in task.coders if coder not in there]
    if gone:
        warn_user(
            f"{folder} lacks {', '.join(gone)}: without the file, a coder's codes do not count. "
            "Put it back, and call again.",
            CodesWarning,
        )
    for coder, paths in there.items():
        for path in paths:
            sheet = files.read_sheet(path)
            codes = sheets.read_codes(sheet, drawn, task.labels)
            sheets.check_shown(sheet, task.show, cells)
            _check_same(path, codes, found[coder])
            found[coder].update(codes)
            if files.open_mark(path):
                warn_user(
                    f"{path} is open in a spreadsheet program: what is not saved is not read.",
                    CodesWarning,
                )
    decided = found.pop(SETTLE)
    return found, decided


def _check_same(file: Path, codes: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Refuse codes that contradict another file of the same coder."""
    for unit, code in codes.items():
        if known.get(unit, code) != code:
            raise CodesError(
                f"{file.name}, unit {unit}: the code {code!r}, and {known[unit]!r} in the coder's "
                "other file. Move the wrong one out of the folder.",
                file=file.name,
                unit=unit,
            )


def _write(folder: Path, design: Design, cells: Cells, format: Format) -> None:
    """Write the design and each coder's file, or add the missing units to it.

    The design comes first: after an interruption, the same call adds the missing units.
    """
    task, wanted = design.task, list(design.units["unit"])
    there = files.coders_files(folder, task.coders) if folder.exists() else {}
    if there and not (folder / DESIGN).exists():
        raise CodesError(
            f"{folder} holds files of coders and no {DESIGN}. Restore it, or use another folder.",
            file=DESIGN,
        )
    lacking: dict[Path, list[str]] = {}
    for coder in task.coders:
        path = folder / f"codes_{coder}.{format}"
        others = [p for p in there.get(coder, []) if p != path]
        if others and not path.exists():
            raise CodesError(
                f'{others[0]} is there already: go on with format="{others[0].suffix[1:]}".',
                file=others[0].name,
            )
        has: set[str] = set()
        if path.exists():
            sheet = files.read_sheet(path)
            sheets.check_units(sheet, wanted)
            has = {row.unit for row in sheet.rows}
        # In the coder's own order, so that fatigue falls on different texts.
        lacking[path] = sorted(
            set(wanted) - has, key=lambda u: samples.order_key(u, coder, "order")
        )
        gone = next((unit for unit in lacking[path] if unit not in cells), None)
        if gone is not None:
            raise CodesError(
                f"The unit {gone} was drawn into {folder} before, {path.name} does not have it, "
                "and no row of the frame has its text any more. Give the frame as it was.",
                file=path.name,
                unit=gone,
            )
        if path.exists() and lacking[path]:
            files.check_closed(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CodesError(f"{folder} cannot be made: {e.strerror or e}.", file=DESIGN) from None
    designs.write_design(folder, design)
    for path, units in lacking.items():
        _write_rows(path, task, [], [_row(task, unit, cells) for unit in units])


def _write_settle(
    folder: Path,
    task: Task,
    cells: Cells,
    by_coder: Mapping[str, Mapping[str, str]],
    disputed: Sequence[str],
) -> list[Path]:
    """Write the disputed units, or add them to the file of earlier decisions; return all files."""
    there = files.coders_files(folder, task.coders)[SETTLE]
    has = {row.unit for path in there for row in files.read_sheet(path).rows}
    rows = [
        _row(task, unit, cells)
        | {f"{sheets.CODE}_{coder}": codes.get(unit, "") for coder, codes in by_coder.items()}
        for unit in sorted(set(disputed) - has)
    ]
    cut = any(too_long(text) for row in rows for text in row.values())  # by Excel
    path = folder / f"codes_{SETTLE}.{'csv' if cut else 'xlsx'}"
    if not cut and there and path not in there:
        path = there[0]
    if path.suffix == ".xlsx" and not path.exists():
        files.check_extra()
    _write_rows(path, task, [f"{sheets.CODE}_{coder}" for coder in by_coder], rows)
    return sorted({*there, path})


def _row(task: Task, unit: str, cells: Cells) -> dict[str, str]:
    texts = zip(task.show, cells[unit], strict=True)
    return {sheets.UNIT: unit, **{sheets.header_of(name): text or "" for name, text in texts}}


def _write_rows(
    path: Path, task: Task, codes: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> None:
    """Write a file for coders, or add rows to it."""
    if not path.exists():
        header = [sheets.UNIT, *map(sheets.header_of, task.show), *codes, sheets.CODE, sheets.NOTE]
        files.write_sheet(path, header, rows, task.labels)
    elif rows:
        files.add_rows(path, rows, task.labels)
