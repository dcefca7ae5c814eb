"""The engine with a model on this computer: llama.cpp through the `xllamacpp` wheel.

A grammar restricts answers to the JSON schema. The same body gives the same answer in any order and
process: one slot, no prompt cache, fixed seed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import xllamacpp

from nyu_llm_frames.errors import ConfigurationError
from nyu_llm_frames.local.rows import (
    Completion,
    RowError,
    asked_schema,
    asked_tokens,
    completion_from,
)

SEED = 20240601
RANDOM_SEED = 2**32 - 1  # llama.cpp then draws a random seed; -1 is the same in 32 bits
# The fields that are passed on. The engine's others (slots, cache, grammars, files) are not.
PASSED = frozenset(
    {"messages", "temperature", "top_p", "top_k", "seed", "stop"}
    | {"frequency_penalty", "presence_penalty", "tools", "tool_choice"}
)


class ModelEngine:
    fragile = True  # native code: a crash ends the process

    def __init__(self, path: Path, *, slots: int, max_tokens: int, context: int) -> None:
        self.model = path.stem
        self.slots = slots
        self._max_tokens, self._context = max_tokens, context
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = slots
        params.n_ctx = slots * context  # the slots share it
        params.fit_params = False
        params.cache_prompt = False
        params.cache_ram_mib = 0
        params.sampling.seed = SEED
        # It opens its own listener on loopback, which is not needed: lock it.
        params.api_keys = [secrets.token_hex(32)]
        params.hostnames = ["127.0.0.1"]
        params.offline = True
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_props = False
        params.endpoint_metrics = False
        params.verbosity = -1  # its log would hold prompts
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigurationError(
                f"llama.cpp cannot load {path}: the file is damaged or of a kind that xllamacpp "
                f"{xllamacpp.__version__} does not know, or {slots} x {context} tokens of context "
                f"do not fit into memory ({error})"
            ) from error

    def answer(self, body: Mapping[str, Any], stop: Event) -> Completion:
        passed = {k: v for k, v in body.items() if k in PASSED and v is not None}
        # llama.cpp adds without a check: a huge max_tokens overflows into an answer of one token.
        passed["max_tokens"] = min(asked_tokens(body) or self._max_tokens, self._context)
        passed["cache_prompt"] = False
        seed = passed.get("seed")
        if isinstance(seed, int) and seed % 2**32 == RANDOM_SEED:
            passed["seed"] = SEED
        schema = asked_schema(body)
        if schema is not None:
            passed["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            }
        try:
            json.dumps(passed, allow_nan=False, ensure_ascii=False).encode()
            answer = self._server.handle_chat_completions(passed)
        except (ValueError, RecursionError) as error:
            raise RowError(400, f"the request cannot be used: {error}") from error
        except RuntimeError as error:
            # Wrong parameters, images and unreadable requests come back as RuntimeError.
            raise RowError(400, f"the model refuses the request: {error}") from error
        if "error" in answer:
            raise _row_error(answer["error"], self._context)
        return completion_from(answer, provider="local", model=self.model)


def _row_error(error: Any, context: int) -> RowError:
    if not isinstance(error, dict):
        return RowError(500, str(error))
    if error.get("type") == "exceed_context_size_error":
        return RowError(
            400,
            f"the prompt has {error.get('n_prompt_tokens')} tokens and the model's context is "
            f"{context}: shorten the prompt, or start the server with a larger --context and use "
            "a sidecar of its own, since this answer is final",
        )
    code = error.get("code")
    return RowError(code if isinstance(code, int) else 500, str(error.get("message", error)))
