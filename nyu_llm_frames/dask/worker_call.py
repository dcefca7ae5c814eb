"""What a worker needs of a call: the compiled prompt, who answers, and how columns are made.

Comes in: a prepared call. Goes out: a `WorkerCall` that pickles without gateway, options and key,
and renders the rows of a partition to the very requests that a frame of them would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nyu_llm_frames._runs.arguments import Arguments
from nyu_llm_frames._runs.prepare import PreparedCall, render_requests
from nyu_llm_frames._stages.prompts.template import PromptTemplate
from nyu_llm_frames._stages.requests.bodies import BodyShape, Requests, encode
from nyu_llm_frames._stages.requests.images import Rules
from nyu_llm_frames._stages.requests.routes import route

if TYPE_CHECKING:
    from nyu_llm_frames._stages.schema.schema import Schema


@dataclass(frozen=True, slots=True)
class WorkerCall:
    """A compiled call, without anything that is nobody else's business.

    Attributes
    ----------
    template : PromptTemplate
        Pickles as its text.
    arguments : Arguments
        Those that say how rows are rendered and columns are called; no gateway.
    """

    template: PromptTemplate
    shape: BodyShape
    realm: str
    rules: Rules
    arguments: Arguments
    sidecar: Path

    @classmethod
    def of(cls, call: PreparedCall) -> WorkerCall:
        """Return what workers get of a call."""
        given, options = call.arguments, call.options
        arguments = Arguments(
            template="",
            model=given.model,
            schema=given.schema,
            images=given.images,
            output=given.output,
            prefix=given.prefix,
            if_exists=given.if_exists,
            details=given.details,
            missing=given.missing,
        )
        realm = call.gateway.realm
        root = None if options.images_root is None else Path(options.images_root)
        rules = Rules(route(realm, given.model), options.max_bytes_per_file, root)
        shape = call.requests.shape
        return cls(call.template, shape, realm, rules, arguments, call.sidecar_path)

    def render(self, frame: pd.DataFrame) -> Requests:
        """Render the rows of a partition.

        Raises
        ------
        LLMFramesError
            As `prepare` says it of a frame.
        """
        return render_requests(
            frame, self.arguments, self.template, self.shape, self.realm, self.rules
        )

    def schema(self) -> Schema | None:
        """Compile the schema; what pydantic makes of it does not travel."""
        if self.arguments.schema is None:
            return None
        from nyu_llm_frames._stages.schema.schema import compile_schema

        return compile_schema(self.arguments.schema)

    def __dask_tokenize__(self) -> str:
        """Name all that decides what comes out of a partition, the same in every process."""
        given = self.arguments
        told: list[Any] = [
            self.realm,
            self.shape.canonical,
            [(message.role, message.source) for message in self.template.sources],
            list(map(repr, self.template.columns)),
            [given.output, given.prefix, given.if_exists, given.details, given.missing],
            repr(given.images),
            str(self.sidecar),
        ]
        return blake2b(encode(told).encode(), digest_size=16).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # By keyword, as `Arguments` is made; the schema goes as it was given.
        values = (
            self.template, self.shape, self.realm, self.rules, self.arguments, self.sidecar,
        )  # fmt: skip
        return partial(type(self)), values
