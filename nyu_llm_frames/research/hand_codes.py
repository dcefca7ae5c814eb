"""`to_code` draws a sample and writes the coders' files; `from_codes` reads them.

Comes in: a table and a folder. Goes out: the design of the sample, or the table with the codes
as new columns. The pure modules of this folder make the decisions.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._tables.frame import check_new_columns
from nyu_llm_frames._tables.table import Table
from nyu_llm_frames.errors import (
    CodesError,
    CodesWarning,
    ColumnExistsError,
    ConfigurationError,
)
from nyu_llm_frames.research import coding_arguments as arguments
from nyu_llm_frames.research import coding_files as files
from nyu_llm_frames.research import coding_sheet as sheets
from nyu_llm_frames.research.coding_arguments import SETTLE, Format, Settle
from nyu_llm_frames.research.coding_design import (
    DESIGN,
    Coding,
    Design,
    design_table,
    merged,
    read_design,
    write_design,
)
from nyu_llm_frames.research.coding_sample import Allocation, Use, draw, stratum_names
from nyu_llm_frames.research.units import order_key, shown_texts, unit_ids


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
    n, seed = arguments.check_whole("n", n, 1), arguments.check_whole("seed", seed)
    arguments.check_choice("allocation", allocation, get_args(Allocation))
    arguments.check_choice("format", format, get_args(Format))
    arguments.check_choice("use", use, get_args(Use))
    if format == "xlsx":
        files.check_extra()
    shown = arguments.columns_of("show", show)
    strata = [] if by is None else arguments.columns_of("by", by)
    if not shown:
        raise ConfigurationError("show= names the columns that coders see, and names none.")
    coding = Coding(
        show=tuple(map(str, shown)),
        labels=arguments.checked_labels(labels),
        coders=arguments.checked_coders(coders),
    )
    arguments.check_header(coding)
    if not len(frame):
        raise ConfigurationError("The frame has no rows to draw from.")

    texts = _texts(frame, shown)
    units = unit_ids(texts)
    drawn = draw(
        units,
        stratum_names(_texts(frame, strata), len(frame)),
        n=n,
        allocation=allocation,
        use=use,
        seed=seed,
    )
    cells = _first_cells(units, texts)
    table = design_table(
        drawn, use=use, seed=seed, by=list(map(str, strata)), custom_ids=_ids(frame, units)
    )
    path = local_path(folder, "The folder of hand codes").absolute()
    if path.exists() and not path.is_dir():
        raise CodesError(f"{path} is a file; hand codes need a folder.", file=path.name)
    design = merged(read_design(path), table, coding, path)
    if format == "xlsx":
        _check_lengths(frame, coding, units, design, cells)
    _write(path, design, cells, format)
    return table


def from_codes(frame: Table, folder: str | Path, *, output: str, settle: Settle) -> Any:
    """Implement `df.llm.from_codes`."""
    arguments.check_choice("settle", settle, get_args(Settle))
    if not isinstance(output, str) or not output:
        raise ConfigurationError(f"output must be the name of a column, not {output!r}.")
    path = local_path(folder, "The folder of hand codes").absolute()
    design = read_design(path)
    if design is None:
        raise CodesError(
            f"{path} holds no {DESIGN}, the list of drawn units. Name the folder that was given "
            "to to_code.",
            file=DESIGN,
        )
    coding, table = design.coding, design.units.set_index("unit")
    columns = {str(label): label for label in frame.columns}
    missing = [name for name in coding.show if name not in columns]
    if missing:
        raise arguments.no_column("The coders were shown", missing[0], list(frame.columns))
    names = [output, *(f"{output}_{c}" for c in coding.coders)]
    of_design = [f"{output}_{word}" for word in ("pi", "stratum", "use", "unit")]
    there = [name for name in (*names, *of_design) if name in columns]
    if there and not {output, *of_design} <= set(there):
        raise ColumnExistsError(
            f"The frame already has {', '.join(map(repr, there))}, which no earlier from_codes "
            "made. Choose another name with output=.",
            columns=there,
        )
    check_new_columns(frame, [*names, *of_design], "replace")

    texts = _texts(frame, [columns[name] for name in coding.show])
    units = unit_ids(texts)
    cells = _first_cells(units, texts)
    drawn = dict.fromkeys(table.index)
    by_coder: dict[str, dict[str, str]] = {coder: {} for coder in coding.coders}
    decided: dict[str, str] = {}
    for coder, coders_files in _coders_files(path, coding.coders).items():
        for file in coders_files:
            sheet = files.read_sheet(file)
            codes = sheets.read_codes(sheet, drawn, coding.labels)
            sheets.check_shown(sheet, coding.show, cells)
            known = decided if coder == SETTLE else by_coder[coder]
            _check_same(file, codes, known)
            known.update(codes)
            if files.open_mark(file):
                _warn(f"{file} is open in a spreadsheet program: what is not saved is not read.")
    settled, disputed = sheets.settle(by_coder, decided, majority=settle == "majority")
    if disputed:
        _settle_file(path, coding, cells, by_coder, disputed)
        coded = len({unit for codes in by_coder.values() for unit in codes})
        _warn(
            f"Coders differ on {len(disputed):,} of {coded:,} units; their {output!r} is NA. They "
            f"are side by side in {path / f'codes_{SETTLE}.xlsx'}: fill in its column 'code', "
            "and call again."
        )

    new: dict[str, Any] = {output: _codes(units, settled, coding.labels)}
    for coder in coding.coders:
        new[f"{output}_{coder}"] = _codes(units, by_coder[coder], coding.labels)
    pi, strata, use = (table[name].to_dict() for name in ("pi", "stratum", "use"))
    new[f"{output}_pi"] = np.array([pi.get(unit, np.nan) for unit in units], dtype=np.float64)
    new[f"{output}_stratum"] = pd.array([strata.get(u, pd.NA) for u in units], pd.StringDtype())
    kinds = pd.CategoricalDtype(list(get_args(Use)))
    new[f"{output}_use"] = pd.Categorical([use.get(u) for u in units], dtype=kinds)
    new[f"{output}_unit"] = pd.array(units, dtype=pd.StringDtype())
    return frame.with_columns(new)


# --- the frame --------------------------------------------------------------------------------
def _texts(frame: Table, labels: Sequence[Hashable]) -> list[list[str | None]]:
    for label in labels:
        times = sum(1 for name in frame.columns if name == label)
        if times != 1:
            if times:
                raise ConfigurationError(f"Several columns are called {label!r}; rename them.")
            raise arguments.no_column("There is", label, list(frame.columns))
    try:
        return [shown_texts(values) for values in _values(frame, labels)]
    except TypeError as e:
        raise ConfigurationError(f"A cell cannot be shown: {e}.") from None


def _values(frame: Table, labels: Sequence[Hashable]) -> list[list[object]]:
    pieces = list(frame.pieces(labels)) if labels else []
    return [[value for piece in pieces for value in piece.values[label]] for label in labels]


def _first_cells(
    units: Sequence[str], texts: Sequence[Sequence[str | None]]
) -> dict[str, tuple[str | None, ...]]:
    return dict(zip(units, zip(*texts, strict=True), strict=True))


def _ids(frame: Table, units: Sequence[str]) -> dict[str, str | None]:
    """Return the one request of each unit, where the details of the frame show it."""
    named = [c for c in frame.columns if isinstance(c, str) and c.endswith("_custom_id")]
    if len(named) != 1 or list(frame.columns).count(named[0]) != 1:
        return {}
    found: dict[str, set[Any]] = {}
    for unit, value in zip(units, _values(frame, named)[0], strict=True):
        found.setdefault(unit, set()).add(value)
    return {unit: ids.pop() if len(ids) == 1 else None for unit, ids in found.items()}


def _codes(units: Sequence[str], codes: Mapping[str, str], labels: Sequence[str] | None) -> Any:
    found = [codes.get(unit) for unit in units]
    if labels is None:
        return pd.array(found, dtype=pd.StringDtype())
    return pd.Categorical(found, dtype=pd.CategoricalDtype(list(labels)))


def _check_lengths(
    frame: Table,
    coding: Coding,
    units: Sequence[str],
    design: Design,
    cells: Mapping[str, Sequence[str | None]],
) -> None:
    for unit in design.units["unit"]:
        for name, text in zip(coding.show, cells.get(unit, ()), strict=False):
            if text is not None and files.too_long(text):
                row = frame.label(list(units).index(unit))
                raise CodesError(
                    f"The text in {name!r}, row {row!r} (unit {unit}), has {len(text):,} "
                    f"characters, and Excel cuts a cell after {files.CELL_CHARACTERS:,}. Choose "
                    'format="csv" and a program that shows it whole, or code shorter texts: a '
                    "column of their beginnings, or chunks.",
                    unit=unit,
                )


# --- the files --------------------------------------------------------------------------------
def _coders_files(folder: Path, coders: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of each coder; one may be saved in both formats.

    Raises
    ------
    CodesError
        A file of an unknown coder, or of a kind that is not read.
    """
    found: dict[str, list[Path]] = {}
    known = ", ".join(coders)
    for path in sorted(folder.glob("codes_*")):
        if path.name == DESIGN or path.suffix.lower() not in (
            *files.SUFFIXES,
            *files.OTHER_SUFFIXES,
        ):
            continue
        coder = path.stem.removeprefix("codes_")
        if path.suffix not in files.SUFFIXES:
            raise CodesError(
                f"{path} is not read. Save it as .xlsx or .csv, or move it out of the folder.",
                file=path.name,
            )
        if coder not in (*coders, SETTLE):
            raise CodesError(
                f"{path} belongs to none of the coders ({known}). If it is a copy, move it out of "
                f"the folder; a further coder is named in to_code(coders=...).",
                file=path.name,
            )
        found.setdefault(coder, []).append(path)
    return found


def _write(
    folder: Path,
    design: Design,
    cells: Mapping[str, Sequence[str | None]],
    format: Format,
) -> None:
    """Write the design and each coder's file, or add the missing units to it.

    The design comes first: after an interruption, the same call adds the missing units.
    """
    coding, wanted = design.coding, list(design.units["unit"])
    there = _coders_files(folder, coding.coders) if folder.exists() else {}
    if there and not (folder / DESIGN).exists():
        raise CodesError(
            f"{folder} holds files of coders and no {DESIGN}. Restore it, or use another folder.",
            file=DESIGN,
        )
    lacking: dict[Path, list[str]] = {}
    for coder in coding.coders:
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
            sheets.check_units(sheet, dict.fromkeys(wanted))
            has = {row.unit for row in sheet.rows}
        lacking[path] = _coders_order((unit for unit in wanted if unit not in has), coder)
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
    write_design(folder, design)
    for path, units in lacking.items():
        rows = [_row(coding, unit, cells[unit]) for unit in units]
        if not path.exists():
            header = [sheets.UNIT, *coding.show, sheets.CODE, sheets.NOTE]
            lines = [[row.get(name, "") for name in header] for row in rows]
            files.write_sheet(path, header, lines, coding.labels)
        elif rows:
            files.add_rows(path, rows, coding.labels)


def _coders_order(units: Iterable[str], coder: str) -> list[str]:
    """Return units in the coder's own order, so that fatigue falls on different texts."""
    return sorted(units, key=lambda unit: order_key(unit, coder, "order"))


def _row(coding: Coding, unit: str, cells: Sequence[str | None]) -> dict[str, str]:
    texts = zip(coding.show, cells, strict=True)
    return {sheets.UNIT: unit, **{name: text or "" for name, text in texts}}


def _settle_file(
    folder: Path,
    coding: Coding,
    cells: Mapping[str, Sequence[str | None]],
    by_coder: Mapping[str, Mapping[str, str]],
    disputed: Sequence[str],
) -> None:
    """Write the disputed units, or add them to the file of earlier decisions."""
    path = folder / f"codes_{SETTLE}.xlsx"
    has = {row.unit for row in files.read_sheet(path).rows} if path.exists() else set()
    rows = [
        _row(coding, unit, cells[unit])
        | {f"{sheets.CODE}_{c}": codes.get(unit, "") for c, codes in by_coder.items()}
        for unit in sorted(disputed)
        if unit not in has
    ]
    if not path.exists():
        files.check_extra()
        header = [sheets.UNIT, *coding.show, *(f"{sheets.CODE}_{c}" for c in by_coder)]
        header += [sheets.CODE, sheets.NOTE]
        lines = [[row.get(name, "") for name in header] for row in rows]
        files.write_sheet(path, header, lines, coding.labels)
    elif rows:
        files.add_rows(path, rows, coding.labels)


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


def _warn(text: str) -> None:
    warnings.warn(text, CodesWarning, stacklevel=4)
