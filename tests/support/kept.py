"""Calls whose requests, stored answers and joined frames are kept for ever.

Comes in: nothing. Goes out: the calls by name, and what each makes, in plain JSON. Run as a script
(`python -m support.kept` in `tests/`), it adds calls that are not kept yet; what is kept is never
written again.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, Field

import nyu_llm_frames as llm
from support import rows
from support.stand_in import StandIn

KEPT = Path(__file__).parents[1] / "data" / "kept"
MODEL = "gemini-3-flash-preview"


@dataclass(frozen=True)
class Call:
    """One call of ``df.llm``: a frame, a template, and the arguments."""

    frame: pd.DataFrame
    template: Any = "Say {{ x }}"
    options: Mapping[str, Any] = field(default_factory=dict)

    def lines(self, folder: Path) -> list[str]:
        """Return the request lines, as they would be uploaded."""
        files = self.frame.llm.to_jsonl(
            folder / "requests.jsonl",
            self.template,
            **{"model": MODEL, "sidecar": folder / "new.llm", **self.options},
        )
        return [line for file in files for line in file.read_text("ascii").splitlines()]

    def ids(self) -> list[str | None]:
        """Return the id of each row; None where it was skipped."""
        shown = self.frame.llm.preview(
            self.template, n=len(self.frame), **{"model": MODEL, **self.options}
        )
        return [None if pd.isna(one) else str(one) for one in shown["custom_id"]]


class Drug(enum.Enum):
    """Choices of a schema."""

    MARIJUANA = "marijuana"
    COCAINE = "cocaine"
    NONE = "none"


class Offense(BaseModel):
    """What a text says of an offense."""

    drug: Drug
    grams: float | None = Field(description="Amount in grams", ge=0)
    year: int
    sure: bool
    charges: list[str]
    kind: Literal["federal", "state"]


class Place(BaseModel):
    """A nested object."""

    name: str
    where: Annotated[tuple[float, float], Field(description="Latitude and longitude")]


class Visit(BaseModel):
    """An object in an object, and a list of them."""

    first: Place
    others: list[Place]
    on: dt.date | None


JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["good", "bad"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "spans": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["label", "score"],
}

ZONE = "America/New_York"


def _column(*values: Any, dtype: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(list(values), dtype=dtype)})


def _calls() -> dict[str, Call]:
    text = _column("a", 'quote " and \\', "line\nbreak", "é \u2028 😀", "<b>&amp;</b>", "a")
    two = pd.DataFrame({"text": ["first", "second"], "n": [1, 2]}, index=["k", "l"])
    columns = {
        "int64": _column(1, -2, 2**53 + 1),
        "uint8": _column(0, 255, dtype="uint8"),
        "float64": _column(1.0, 2.5, -1e-7, 1e22, 2020.0),
        "float32": _column(0.1, 2.5, dtype="float32"),
        "bool": _column(True, False),
        "nullable int": _column(1, 2, dtype="Int64"),
        "nullable float": _column(0.5, 2, dtype="Float64"),
        "nullable bool": _column(True, False, dtype="boolean"),
        "object": _column("a", 1, 2.5, True, dtype=object),
        "category": _column("b", "a", "b", dtype="category"),
        "category of int": _column(3, 1, dtype="category"),
        "datetime": pd.DataFrame(
            {"x": pd.to_datetime(["2024-01-02 00:00:00", "2024-01-02 03:04:05"])}
        ),
        "datetime with zone": pd.DataFrame(
            {"x": pd.to_datetime(["2024-01-02 03:04:05"]).tz_localize(ZONE)}
        ),
        "date": _column(dt.date(2024, 2, 29), dt.date(1, 1, 1)),
        "time": _column(dt.time(1, 2, 3), dt.time(23, 59, 59, 5)),
        "timedelta": pd.DataFrame({"x": pd.to_timedelta(["1 days 02:00:00", "3 s"])}),
        "decimal": _column(Decimal("1.50"), Decimal("-3")),
        "uuid": _column(UUID(int=5)),
        "period": pd.DataFrame({"x": pd.period_range("2024-01", periods=2, freq="M")}),
        "arrow string": _column("a", "é", dtype=pd.ArrowDtype(pa.string())),
        "arrow list": _column([1, 2], [], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        "list": _column(["a", "b"], []),
        "dict": _column({"k": 1.5, "l": ["a"]}, {}),
        "array": _column(np.array([1.0, 2.5])),
    }
    shape = {"schema": Offense}
    calls = {f"column {name}": Call(frame) for name, frame in columns.items()}
    calls |= {
        "text": Call(text),
        "several columns": Call(two, "{{ n }}. {{ text }} {{ text }}"),
        "index": Call(two, "{{ index }}: {{ text }}"),
        "row": Call(two, "{% for name in row %}{{ name }}={{ row[name] }};{% endfor %}"),
        "filters": Call(text, "{{ x | upper | trim }} {{ x | length }} {{ x[:3] }}"),
        "blocks": Call(two, "{% if n > 1 %}many{% else %}one{% endif %} {{ text }}"),
        "missing, answered in the template": Call(
            _column("a", None), "{{ x | default('nothing', true) }}{% if x is none %}!{% endif %}"
        ),
        "missing, skipped": Call(_column("a", None, "b"), options={"missing": "skip"}),
        "messages": Call(
            two,
            [
                {"role": "system", "content": "You count to {{ n }}."},
                {"role": "user", "content": "{{ text }}"},
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": "And?"},
            ],
        ),
        "system": Call(two, "{{ text }}", {"system": "You read {{ n }} texts."}),
        "parameters": Call(
            two,
            "{{ text }}",
            {
                "max_tokens": 100,
                "temperature": 0,
                "top_p": 0.5,
                "seed": 7,
                "stop": ["END", "STOP"],
                "params": {"top_k": 5, "labels": {"team": "a"}},
            },
        ),
        "thinking off": Call(
            two, "{{ text }}", {"thinking": "off", "model": "gemini-2.5-flash", "max_tokens": 64}
        ),
        "thinking low": Call(two, "{{ text }}", {"thinking": "low", "max_tokens": 64}),
        "thinking budget": Call(
            two, "{{ text }}", {"thinking": 512, "model": "gemini-2.5-pro", "max_tokens": 64}
        ),
        "pydantic": Call(two, "{{ text }}", shape),
        "pydantic nested": Call(two, "{{ text }}", {"schema": Visit}),
        "plain fields": Call(
            two, "{{ text }}", {"schema": {"label": ["yes", "no"], "n": int, "why": str}}
        ),
        "json schema": Call(two, "{{ text }}", {"schema": JSON_SCHEMA}),
        "images": Call(
            pd.DataFrame(
                {
                    "text": ["what is it?", "and these?"],
                    "picture": [
                        "gs://bucket/cat.png",
                        ["https://example.org/dog.jpg", "https://example.org/a.pdf"],
                    ],
                }
            ),
            "{{ text }}",
            {"images": "picture"},
        ),
        "image bytes": Call(
            pd.DataFrame({"text": ["?"], "picture": [b"\x89PNG\r\n\x1a\n" + bytes(8)]}),
            "{{ text }}",
            {"images": ["picture"]},
        ),
        "another provider": Call(
            two,
            "{{ text }}",
            {"model": "gpt-5-mini", "gateway": llm.Gateway(provider="@openai")},
        ),
    }
    return calls


CALLS = _calls()

# --- answers of every status ------------------------------------------------------------------
STATUSES: dict[str, rows.Row] = {
    "good": rows.good,
    "blank": rows.says(" "),
    "cut": rows.truncated,
    "cut without text": rows.truncated_empty,
    "blocked": rows.blocked,
    "unsafe": rows.safety,
    "refused": rows.failed(400),
    "failed": rows.failed(503),
    "missing": rows.missing,
}
FRAME = pd.DataFrame(
    {"q": [*STATUSES, None, "good"], "n_in": range(len(STATUSES) + 2)},
    index=pd.Index([f"row {i}" for i in range(len(STATUSES) + 2)], name="label"),
)
FIELDS = {"label": ["yes", "no"], "n": int}
FITS = {
    "good": rows.says('{"label": "yes", "n": 3}'),
    "blank": rows.says(""),
    "unfit": rows.says('{"label": "perhaps", "n": 3}'),
    "no json": rows.says("label: yes"),
    "cut": rows.truncated,
}
FIELDS_FRAME = pd.DataFrame({"q": list(FITS)})

Batch = Callable[..., pd.DataFrame]


def batch_of_every_status(sidecar: Path, **more: Any) -> pd.DataFrame:
    """Call the batch whose rows end in every status."""
    return _quietly(
        FRAME.llm.batch,
        "{{ q }}",
        **{"missing": "skip", "retries": 0, "details": True, "sidecar": sidecar, **more},
    )


def batch_with_fields(sidecar: Path, **more: Any) -> pd.DataFrame:
    """Call the batch with a schema whose rows end in every status that it can give."""
    return _quietly(
        FIELDS_FRAME.llm.batch,
        "{{ q }}",
        **{"schema": FIELDS, "retries": 0, "details": True, "sidecar": sidecar, **more},
    )


def _quietly(batch: Batch, *args: Any, **more: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", llm.errors.PartialResultWarning)
        return batch(*args, **{"model": MODEL, **more})


def plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the new columns of a frame as JSON: dtype and values, by name.

    Of an error only whether there is one, and of a cost: wording and prices may change.
    """
    columns = {}
    for name, column in frame.drop(columns=["q", "n_in"], errors="ignore").items():
        if str(name).endswith(("_error", "_cost")):
            columns[str(name)] = {"dtype": str(column.dtype), "set": column.notna().tolist()}
            continue
        dtype = column.dtype
        kind = [str(c) for c in dtype.categories] if hasattr(dtype, "categories") else str(dtype)
        values = [None if _is_na(value) else _simple(value) for value in column]
        columns[str(name)] = {"dtype": kind, "values": values}
    return columns


def _is_na(value: Any) -> bool:
    return not isinstance(value, list | dict | np.ndarray) and bool(pd.isna(value))


def _simple(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, bool | int | float | str) else str(value)


def copy_of_the_kept_sidecar(to: Path) -> Path:
    """Return a copy of the kept sidecar, as it was when its last call ended."""
    shutil.copytree(KEPT / "sidecar", to)
    (to / "gitignore").rename(to / ".gitignore")
    return to


# --- keeping ----------------------------------------------------------------------------------
def kept_calls() -> dict[str, Any]:
    """Return the kept ids and request lines of each call, by its name."""
    path = KEPT / "requests.json"
    found: dict[str, Any] = json.loads(path.read_text("ascii")) if path.exists() else {}
    return found


def keep() -> None:
    """Add what is not kept yet."""
    import tempfile

    KEPT.mkdir(parents=True, exist_ok=True)
    kept = kept_calls()
    with llm.set_options(progress=False):
        for name, call in CALLS.items():
            if name not in kept:
                with tempfile.TemporaryDirectory() as folder:
                    kept[name] = {"ids": call.ids(), "lines": call.lines(Path(folder))}
    (KEPT / "requests.json").write_text(json.dumps(kept, indent=1) + "\n", "ascii")
    if (KEPT / "sidecar").exists():
        return
    with (
        StandIn() as gateway,
        llm.set_options(
            gateway=llm.Gateway(**gateway.settings),
            progress=False,
            poll_interval_s=0.01,
            max_poll_interval_s=0.02,
            output_settle_s=0.1,
        ),
    ):
        gateway.behaviour.row = rows.pick(STATUSES)
        every = batch_of_every_status(KEPT / "sidecar")
        gateway.behaviour.row = rows.pick(FITS)
        fields = batch_with_fields(KEPT / "sidecar")
    for name in ("lock", "lock.probe"):
        (KEPT / "sidecar" / name).unlink(missing_ok=True)
    (KEPT / "sidecar" / ".gitignore").rename(KEPT / "sidecar" / "gitignore")
    frames = {"every status": plain(every), "fields": plain(fields)}
    (KEPT / "frames.json").write_text(json.dumps(frames, indent=1) + "\n", "ascii")


if __name__ == "__main__":
    keep()
