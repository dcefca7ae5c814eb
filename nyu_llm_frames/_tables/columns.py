"""Turns answers into columns: one typed value per row, or a reason why there is no answer.

Comes in: the best answer of every distinct request, and the request of each row. Goes out: a list
of new columns, in order. Joined by request, never by position in an output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nyu_llm_frames._stages.answers.answer import STATUSES, TOKENS

if TYPE_CHECKING:
    from nyu_llm_frames._stages.schema.schema import Schema

Codes = np.ndarray[Any, np.dtype[np.int64]]
Objects = np.ndarray[Any, np.dtype[np.object_]]
Column: TypeAlias = "pa.Array | pa.ChunkedArray"

NULLABLE: Mapping[pa.DataType, Any] = {
    **dict.fromkeys((pa.string(), pa.large_string()), pd.StringDtype()),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""The dtypes of new columns, by their Arrow types."""

DETAILS = ("status", "finish_reason", *TOKENS, "cost", "model", "custom_id")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of every distinct request; all of length m."""

    answers: pa.Table  # with the columns `SHOWN`
    status: Objects  # each one of `STATUSES`
    reasons: Sequence[str | None]  # why there is no answer, if known; replaces a null error
    cost: pa.Array  # US dollars, null where no price is known
    # With a schema: one typed array per field, NA where an answer is not valid.
    fields: Mapping[str, Any] | None = None
    recovered: int = 0  # answers with JSON that was extracted from a code fence or from prose

    def counts(self) -> dict[str, int]:
        """Return the number of requests per status."""
        codes, statuses = pd.factorize(self.status)
        return dict(zip(statuses.tolist(), np.bincount(codes).tolist(), strict=True))


def read_schema(outcome: Outcome, schema: Schema) -> Outcome:
    """Validate every complete answer; one that does not fit becomes ``invalid``."""
    whole = np.isin(outcome.status.astype(str), ("ok", "damaged"))
    texts = outcome.answers["text"].to_pylist()
    read = schema.read([text if w else None for text, w in zip(texts, whole, strict=True)])
    status, reasons = outcome.status.copy(), list(outcome.reasons)
    for i, error in enumerate(read.errors):
        if error is not None and status[i] == "ok":
            status[i], reasons[i] = "invalid", error
    return replace(
        outcome, status=status, reasons=reasons, fields=read.fields, recovered=read.recovered
    )


BYTES_OF_32_BITS = 2**31 - 1
"""Maximum bytes of text in one Arrow string array."""


def spread(values: Column, codes: Codes) -> Column:
    """Give every row the value of its request; null for a row without one (code -1)."""
    if len(codes) == len(values) and (codes == np.arange(len(codes))).all():
        return values  # every row has its own request
    if pa.types.is_string(values.type):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if len(codes) * longest > BYTES_OF_32_BITS:
            values = values.cast(pa.large_string())
    return values.take(pa.array(codes, mask=codes < 0))


def objects(values: pa.ChunkedArray) -> Objects:
    """Return a few texts as Python strings; null as None."""
    encoded = values.combine_chunks().dictionary_encode()
    every = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    texts: Objects = every[encoded.indices.fill_null(-1).to_numpy()]
    return texts


def _from_arrow(dtype: Any, values: Column) -> Any:
    """Make a pandas array of a nullable dtype, as pandas itself reads Arrow."""
    return dtype.__from_arrow__(values)


def text_column(values: Column) -> Any:
    """Return a pandas string array with `pandas.NA`."""
    return _from_arrow(pd.StringDtype(), values.cast(pa.large_string()))


def status_column(status: Sequence[str]) -> pd.Categorical:
    """Return the statuses as an unordered categorical of all possible ones."""
    values: list[Any] = list(status)
    return pd.Categorical(values, categories=list(STATUSES))


def answer_frame(answers: pa.Table) -> pd.DataFrame:
    """Return answers as a frame with one row each and the same columns."""
    frame: pd.DataFrame = answers.to_pandas(types_mapper=NULLABLE.get)
    return frame.assign(status=status_column(answers["status"].to_pylist()))


def row_status(outcome: Outcome, codes: Codes) -> Objects:
    """Return the status of every row; rows without a request were skipped."""
    out = np.full(len(codes), "skipped", dtype=object)
    out[codes >= 0] = outcome.status[codes[codes >= 0]]
    return out


def _rows(values: Any, codes: Codes) -> Any:
    """Give every row the value of its request, in a pandas array; NA where it has none."""
    if not len(values):
        return values[:0].take(np.full(len(codes), -1), allow_fill=True) if len(codes) else values
    return values.take(codes, allow_fill=True)


def shown_error(outcome: Outcome) -> Column:
    """Return the reason why there is no good answer, null where there is one."""
    reasons = pa.array(list(outcome.reasons), pa.string())
    return pc.coalesce(reasons, outcome.answers["error"].cast(pa.string()))


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The new columns of a call: what they are called, and how they are made."""

    output: str
    schema: Schema | None = None
    prefix: str = ""
    details: bool = False

    @property
    def values(self) -> list[str]:
        """The columns that hold an answer: its text, or the fields of a schema."""
        if self.schema is None:
            return [self.output]
        return [f"{self.prefix}{field.name}" for field in self.schema.fields]

    @property
    def error(self) -> str:
        return f"{self.output}_error"

    @property
    def status(self) -> str:
        return f"{self.output}_status"

    @property
    def deciding(self) -> list[str]:
        """The columns that show whether a row has a good answer."""
        return [*self.values, self.error, self.status]

    @property
    def of_details(self) -> list[str]:
        """The columns that ``details=True`` adds: with a schema also the raw text."""
        text = [] if self.schema is None else [self.output]
        return [*text, *(f"{self.output}_{name}" for name in DETAILS)]

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order."""
        return [*self.values, self.error, *(self.of_details if self.details else [])]

    def with_details(self) -> AnswerColumns:
        return replace(self, details=True)

    def made(self, outcome: Outcome, ids: pa.Array, codes: Codes) -> dict[str, Any]:
        """Return the columns, in order, from the outcome of every distinct request.

        `ids` has shape (m,), `codes` the request of each row, shape (n,).
        """
        answers = outcome.answers
        text = {self.output: text_column(spread(answers["text"], codes))}
        error = {self.error: text_column(spread(shown_error(outcome), codes))}
        more: dict[str, Any] = {}
        if self.details:
            counts = {name: spread(answers[name], codes).cast(pa.int64()) for name in TOKENS}
            more = {
                "status": status_column(row_status(outcome, codes).tolist()),
                "finish_reason": text_column(spread(answers["finish_reason"], codes)),
                **{name: _from_arrow(pd.Int64Dtype(), n) for name, n in counts.items()},
                "cost": _from_arrow(pd.Float64Dtype(), spread(outcome.cost, codes)),
                "model": text_column(spread(answers["model"], codes)),
                "custom_id": text_column(spread(ids, codes)),
            }
            more = {f"{self.output}_{name}": values for name, values in more.items()}
        if outcome.fields is None:
            return text | error | more
        fields = outcome.fields.items()
        typed = {f"{self.prefix}{name}": _rows(values, codes) for name, values in fields}
        return typed | error | (text if self.details else {}) | more
