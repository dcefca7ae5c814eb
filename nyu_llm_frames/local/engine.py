"""The protocol of an engine, which answers requests in any thread, and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Any, Protocol, assert_never

from nyu_llm_frames.local.rows import Completion
from nyu_llm_frames.local.spec import EngineSpec, Options

DEFAULT_UPSTREAM_SLOTS = 4


class Engine(Protocol):
    """Answers chat requests."""

    @property
    def model(self) -> str:
        """The model that really answers; empty if only its answers name it."""

    @property
    def slots(self) -> int:
        """How many requests it takes at once."""

    @property
    def fragile(self) -> bool:
        """Whether a request could end this whole process (native code)."""

    def answer(self, body: Mapping[str, Any], stop: Event) -> Completion:
        """Answer one checked body; raise `RowError` if that fails, early when `stop` is set."""
        ...


def build(spec: EngineSpec, options: Options) -> Engine:
    """Start the engine that `spec` names."""
    match spec.kind:
        case "echo":
            from nyu_llm_frames.local.engine_echo import EchoEngine

            return EchoEngine(slots=options.concurrency or 1)
        case "upstream":
            from nyu_llm_frames.local.engine_upstream import UpstreamEngine

            return UpstreamEngine(
                spec.upstream,
                key=options.upstream_key(),
                slots=options.concurrency or DEFAULT_UPSTREAM_SLOTS,
                max_tokens=options.max_tokens,
            )
        case "model":
            from nyu_llm_frames.local.engine_xllamacpp import ModelEngine
            from nyu_llm_frames.local.weights import ensure_weights

            return ModelEngine(
                spec.model or ensure_weights(),
                slots=options.concurrency or 1,
                max_tokens=options.max_tokens,
                context=options.context,
            )
        case _:
            assert_never(spec.kind)
