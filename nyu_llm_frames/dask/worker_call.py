"""What a worker needs of a call: the compiled prompt, who answers, and how columns are made.

Comes in: a prepared call. Goes out: a `WorkerCall` that pickles without gateway, options and key,
and renders the rows of a partition to the very requests that a frame of them would have.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.prepare import PreparedCall, compiled_schema
from nyu_llm_frames._runs.rendering import rendered
from nyu_llm_frames._shared.options import Options
from nyu_llm_frames._stages.prompts.template import PromptTemplate
from nyu_llm_frames._stages.requests.bodies import BodyShape, encode, no_requests
from nyu_llm_frames._tables.frame import PandasTable


@dataclass(frozen=True, slots=True)
class _Realm:
    """What rendering needs of a gateway."""

    realm: str


@dataclass(frozen=True, slots=True)
class WorkerCall:
    """A compiled call, without anything that is nobody else's business."""

    template: PromptTemplate  # pickles as its text
    images: tuple[Hashable, ...]
    shape: BodyShape
    realm: str
    # Those that say how rows are rendered and columns are called; no gateway. The schema is as it
    # was given: what pydantic makes of it does not travel.
    arguments: Arguments
    options: Options  # those that hold for rows
    sidecar: Path

    @classmethod
    def of(cls, call: PreparedCall) -> WorkerCall:
        """Return what workers get of a call."""
        given = call.arguments
        arguments = Arguments(
            template="",
            model=given.model,
            schema=given.schema,
            output=given.output,
            prefix=given.prefix,
            if_exists=given.if_exists,
            details=given.details,
            missing=given.missing,
        )
        options = Options(
            max_bytes_per_file=call.options.max_bytes_per_file,
            images_root=call.options.images_root,
        )
        shape, realm = call.requests.shape, call.gateway.realm
        path = call.sidecar_path
        return cls(call.template, call.images, shape, realm, arguments, options, path)

    def render(self, frame: pd.DataFrame, *, with_schema: bool = False) -> PreparedCall:
        """Render the rows of a partition; errors are those of `prepare` for a frame."""
        given = self.arguments
        needs_schema = with_schema or given.if_exists == "fill"
        schema = compiled_schema(given.schema) if needs_schema else None
        table = PandasTable(frame)
        gateway: Any = _Realm(self.realm)
        call = PreparedCall(
            given, table, self.template, self.images, schema,
            no_requests(self.shape, images=bool(self.images)),
            gateway, self.options, self.sidecar,
        )  # fmt: skip
        return rendered(call, table)

    def __dask_tokenize__(self) -> str:
        """Name all that decides what comes out of a partition, the same in every process."""
        given = self.arguments
        decides: list[Any] = [
            self.realm,
            self.shape.canonical,
            [[message.role, message.source] for message in self.template.sources],
            [repr(name) for name in (*self.template.columns, None, *self.images)],
            [given.output, given.prefix, given.if_exists, given.details, given.missing],
            str(self.sidecar),
        ]
        return blake2b(encode(decides).encode(), digest_size=16).hexdigest()
