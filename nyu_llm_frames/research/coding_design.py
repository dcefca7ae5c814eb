"""The design of a coding sample, stored in ``codes_design.parquet``.

Comes in: drawn units and the arguments. Goes out: a table with a row per unit, and the same after
it was written. A folder may hold two draws: a larger one of the same kind, or dev beside test.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nyu_llm_frames._sidecar.storage import atomic_path
from nyu_llm_frames._stages.prompts.python_values import to_python
from nyu_llm_frames.errors import CodesError, ConfigurationError, SidecarError
from nyu_llm_frames.research.coding_sample import Drawn
from nyu_llm_frames.research.coding_sheet import CODE, NOTE, UNIT, header_of

DESIGN = "codes_design.parquet"
SETTLE = "settle"
"""The name in place of a coder's, for the file of settled codes."""
_CODER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_KEY = b"nyu_llm_frames.codes"
_SCHEMA = pa.schema(
    {
        "unit": pa.string(),
        "stratum": pa.string(),
        "N_h": pa.int64(),
        "n_h": pa.int64(),
        "pi": pa.float64(),
        "use": pa.string(),
        "seed": pa.int64(),
        "by": pa.string(),
        "custom_id": pa.string(),
        "rows": pa.int64(),
    }
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The task of the coders: the columns that they see, the labels that they choose from."""

    show: tuple[str, ...]
    labels: tuple[str, ...] | None
    coders: tuple[str, ...]
    version: int = 1


class Design(msgspec.Struct, frozen=True):
    """The units of a folder, and the task of its coders."""

    units: pd.DataFrame
    task: Task


# --- the task ---------------------------------------------------------------------------------
def make_task(show: Sequence[Hashable], labels: Any, coders: Any) -> Task:
    """Check what coders get, and return it."""
    task = Task(show=tuple(map(str, show)), labels=_labels(labels), coders=_coders(coders))
    shown = [header_of(name) for name in task.show]
    ours = {UNIT, CODE, NOTE, *(f"{CODE}_{coder}" for coder in task.coders)}
    taken = [name for name in task.show if header_of(name) in ours]
    if taken or len(set(shown)) < len(shown):
        raise ConfigurationError(
            f"Two columns of the coders' files would be called {(taken or task.show)[0]!r}."
            " Rename the one that is shown: df.rename(columns=...)."
        )
    return task


def _labels(labels: Any) -> tuple[str, ...] | None:
    """Return the labels as texts, in their order."""
    if labels is None:
        return None
    if not pd.api.types.is_list_like(labels):
        raise ConfigurationError(f"labels must be a list of the codes, not {labels!r}.")
    values = to_python(list(labels))
    names = tuple("" if value is None else str(value).strip() for value in values)
    if not names or "" in names or len(set(names)) < len(names):
        raise ConfigurationError(f"labels must be different texts, and none empty: {labels!r}.")
    return names


def _coders(coders: Any) -> tuple[str, ...]:
    """Return the coders' names, which are part of their file names."""
    if not isinstance(coders, Iterable):
        raise ConfigurationError(f"coders must be names, as ('a', 'b'), not {coders!r}.")
    names = (coders,) if isinstance(coders, str) else tuple(coders)
    if not names or len({str(name).casefold() for name in names}) < len(names):
        raise ConfigurationError(f"coders must be different names, not {coders!r}.")
    for name in names:
        if not isinstance(name, str) or not _CODER.fullmatch(name):
            raise ConfigurationError(
                f"The coder {name!r} needs a name of letters and digits: it is part of a file's."
            )
        if name in (SETTLE, "design", "pi", "stratum", "use", "unit"):
            raise ConfigurationError(f"No coder can be called {name!r}; that name is reserved.")
    return names


# --- the units --------------------------------------------------------------------------------
def design_table(
    drawn: Sequence[Drawn],
    *,
    use: str,
    seed: int,
    by: Sequence[str],
    custom_ids: Mapping[str, str | None],
) -> pd.DataFrame:
    """Return the design of one draw: a row per unit, in the order of the draw."""
    same = {"use": use, "seed": seed, "by": ", ".join(by) or None}
    rows = [{**d._asdict(), **same, "custom_id": custom_ids.get(d.unit)} for d in drawn]
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=_SCHEMA).to_pandas()
    return frame


def merged(earlier: Design | None, drawn: pd.DataFrame, task: Task, folder: Path) -> Design:
    """Combine a draw with earlier draws in the folder.

    Refused is a draw without a unit that was drawn before, or with one of the other use.
    """
    if earlier is None:
        return Design(drawn, task)
    use = drawn["use"].iloc[0]
    same = earlier.units[earlier.units["use"] == use]
    other = earlier.units[earlier.units["use"] != use]
    if earlier.task.show != task.show:
        raise _error(
            f"{folder}: its coders see {', '.join(map(repr, earlier.task.show))}, and show= is "
            f"{', '.join(map(repr, task.show))}. Other texts are other units: use another folder."
        )
    gone = set(same["unit"]) - set(drawn["unit"])
    if gone:
        fewer = "A sample can be made larger, not smaller. " if len(drawn) < len(same) else ""
        raise _error(
            f"{folder} has a {use} sample of {len(same)} units, and {len(gone)} of them would not "
            f"be drawn now (such as {min(gone)}). {fewer}For the codes to stay a sample, seed=, "
            "by=, allocation= and the rows must be as they were; for another draw, use another "
            "folder.",
            unit=min(gone),
        )
    before = same.set_index("unit")[["stratum", "N_h"]]
    now = drawn.set_index("unit").loc[before.index, ["stratum", "N_h"]]
    changed = (before != now).any(axis=1)
    if changed.any():
        unit = str(changed.index[np.argmax(changed)])
        raise _error(
            f"{folder}: the strata are not those that the sample was drawn from (unit {unit} "
            f"was one of {before.loc[unit, 'N_h']:,} in {before.loc[unit, 'stratum']!r}, and "
            f"is one of {now.loc[unit, 'N_h']:,} in {now.loc[unit, 'stratum']!r}). Give the "
            "frame as it was, with the labels that it had; for another draw, use another folder.",
            unit=unit,
        )
    both = set(other["unit"]) & set(drawn["unit"])
    if both:
        raise _error(
            f"{folder}: {len(both)} of the {len(drawn)} units drawn for {use} are in its "
            f"{other['use'].iloc[0]} sample already (such as {min(both)}). A prompt that was "
            "chosen on codes cannot be tested on them: draw fewer, or dev codes without by=.",
            unit=min(both),
        )
    coders = tuple(dict.fromkeys((*earlier.task.coders, *task.coders)))
    units = pd.concat([other, drawn], ignore_index=True)
    return Design(units, msgspec.structs.replace(task, coders=coders))


def population(design: Design) -> int:
    """Return how many units the frame had at the draw, that of the test sample if there is one."""
    strata = design.units.drop_duplicates(["use", "stratum"]).groupby("use")["N_h"].sum()
    return int(strata.get("test", strata.iloc[0]))


def _error(text: str, **where: str) -> CodesError:
    return CodesError(text, file=DESIGN, **where)


def read_design(folder: Path) -> Design | None:
    """Read the design of a folder; None when there is none."""
    path = folder / DESIGN
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        metadata = (table.schema.metadata or {}).get(_KEY, b"")
        task = msgspec.json.decode(metadata, type=Task)
        return Design(table.select(_SCHEMA.names).to_pandas(), task)
    except (pa.ArrowException, msgspec.DecodeError, OSError, KeyError) as e:
        raise _error(
            f"{path} cannot be read ({e}). It holds the drawn units and their "
            "probabilities: restore it, or call to_code with the same arguments in another folder."
        ) from None


def write_design(folder: Path, design: Design) -> None:
    """Write the design of a folder, whole or not at all."""
    table = pa.Table.from_pandas(design.units, _SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({_KEY: msgspec.json.encode(design.task)})
    try:
        with atomic_path(folder / DESIGN, 0o666) as draft:
            pq.write_table(table, draft)
    except SidecarError as e:
        raise _error(f"{folder / DESIGN} cannot be written: {e}") from None
