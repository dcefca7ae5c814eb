"""The design of a coding sample, stored in ``codes_design.parquet``.

Comes in: drawn units and the arguments. Goes out: a table with a row per unit, and the same after
it was written. A folder may hold two draws: a larger one of the same kind, or dev beside test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nyu_llm_frames._sidecar.storage import atomic_path
from nyu_llm_frames.errors import CodesError, SidecarError
from nyu_llm_frames.research.coding_sample import Drawn

DESIGN = "codes_design.parquet"
_KEY = b"nyu_llm_frames.codes"
_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("stratum", pa.string()),
        ("N_h", pa.int64()),
        ("n_h", pa.int64()),
        ("pi", pa.float64()),
        ("use", pa.string()),
        ("seed", pa.int64()),
        ("by", pa.string()),
        ("custom_id", pa.string()),
        ("rows", pa.int64()),
    ]
)


class Coding(msgspec.Struct, frozen=True, kw_only=True):
    """The task of the coders: the columns that they see, the labels that they choose from."""

    show: tuple[str, ...]
    labels: tuple[str, ...] | None
    coders: tuple[str, ...]
    version: int = 1


class Design(msgspec.Struct, frozen=True):
    """The units of a folder, and the task of its coders."""

    units: pd.DataFrame
    coding: Coding


def design_table(
    drawn: Sequence[Drawn],
    *,
    use: str,
    seed: int,
    by: Sequence[str],
    custom_ids: Mapping[str, str | None],
) -> pd.DataFrame:
    """Return the design of one draw: a row per unit, in the order of the draw.

    Returns
    -------
    pandas.DataFrame
        unit, stratum, N_h and n_h (units of the stratum, and drawn ones), pi = n_h / N_h, use,
        seed, by, custom_id (of the answer, where the frame has it and it is one), rows.
    """
    names = ", ".join(by) or None
    found = [
        (d.unit, d.stratum, d.stratum_units, d.stratum_drawn, d.pi, use, seed, names,
         custom_ids.get(d.unit), d.rows)
        for d in drawn
    ]  # fmt: skip
    columns = zip(*found, strict=True) if found else [[]] * len(_SCHEMA)
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
    frame: pd.DataFrame = pa.table(arrays, schema=_SCHEMA).to_pandas()
    return frame


def merged(earlier: Design | None, drawn: pd.DataFrame, coding: Coding, folder: Path) -> Design:
    """Combine a draw with earlier draws in the folder.

    Raises
    ------
    CodesError
        A unit drawn earlier would no longer be drawn, or be in two draws.
    """
    if earlier is None:
        return Design(drawn, coding)
    use = drawn["use"].iloc[0]
    same = earlier.units[earlier.units["use"] == use]
    other = earlier.units[earlier.units["use"] != use]
    if earlier.coding.show != coding.show:
        raise CodesError(
            f"{folder}: its coders see {', '.join(map(repr, earlier.coding.show))}, and show= is "
            f"{', '.join(map(repr, coding.show))}. Other texts are other units: use another "
            "folder.",
            file=DESIGN,
        )
    gone = set(same["unit"]) - set(drawn["unit"])
    if gone:
        fewer = len(drawn) < len(same)
        raise CodesError(
            f"{folder} has a {use} sample of {len(same)} units, and {len(gone)} of them would not "
            f"be drawn now (such as {min(gone)}). "
            + ("A sample can be made larger, not smaller. " if fewer else "")
            + "For the codes to stay a sample, seed=, by=, allocation= and the rows must be as "
            "they were; for another draw, use another folder.",
            file=DESIGN,
            unit=min(gone),
        )
    if not same.empty:
        before = same.set_index("unit")[["stratum", "N_h"]]
        now = drawn.set_index("unit").loc[before.index, ["stratum", "N_h"]]
        changed = (before != now).any(axis=1)
        if changed.any():
            unit = str(changed.index[np.argmax(changed)])
            raise CodesError(
                f"{folder}: the strata are not those that the sample was drawn from (unit {unit} "
                f"was one of {before.loc[unit, 'N_h']:,} in {before.loc[unit, 'stratum']!r}, and "
                f"is one of {now.loc[unit, 'N_h']:,} in {now.loc[unit, 'stratum']!r}). Give the "
                "frame as it was, with the labels that it had; for another draw, use another "
                "folder.",
                file=DESIGN,
                unit=unit,
            )
    both = set(other["unit"]) & set(drawn["unit"])
    if both:
        raise CodesError(
            f"{folder}: {len(both)} of the {len(drawn)} units drawn for {use} are in its "
            f"{other['use'].iloc[0]} sample already (such as {min(both)}). A prompt that was "
            "chosen on codes cannot be tested on them: draw fewer, or dev codes without by=.",
            file=DESIGN,
            unit=min(both),
        )
    names = dict.fromkeys((*earlier.coding.coders, *coding.coders))
    units = pd.concat([other, drawn], ignore_index=True)
    return Design(units, msgspec.structs.replace(coding, coders=tuple(names)))


def read_design(folder: Path) -> Design | None:
    """Read the design of a folder; None when there is none.

    Raises
    ------
    CodesError
    """
    path = folder / DESIGN
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        metadata = (table.schema.metadata or {}).get(_KEY, b"")
        return Design(
            table.select(_SCHEMA.names).to_pandas(), msgspec.json.decode(metadata, type=Coding)
        )
    except (pa.ArrowException, msgspec.DecodeError, OSError, KeyError) as e:
        raise CodesError(
            f"{path} cannot be read ({e}). It holds the drawn units and their "
            "probabilities: restore it, or call to_code with the same arguments in another folder.",
            file=DESIGN,
        ) from None


def write_design(folder: Path, design: Design) -> None:
    """Write the design of a folder, whole or not at all.

    Raises
    ------
    CodesError
    """
    table = pa.Table.from_pandas(design.units, _SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({_KEY: msgspec.json.encode(design.coding)})
    try:
        with atomic_path(folder / DESIGN, 0o666) as draft:
            pq.write_table(table, draft)
    except SidecarError as e:
        raise CodesError(f"{folder / DESIGN} cannot be written: {e}", file=DESIGN) from None
