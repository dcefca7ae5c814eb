"""What really reaches Google through the real gateway: parameters, thinking, images.

The input that a job reads is looked at, with the importer's own rules switched on.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gateway_lab.harness import Harness

import nyu_llm_frames as llm

pytestmark = pytest.mark.gateway

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
THREE, FLASH = "gemini-3-flash-preview", "gemini-2.5-flash"


def arrived(gateway: Harness, frame: pd.DataFrame, template: Any, **asked: Any) -> list[Any]:
    """Run a batch and return the requests as the job's input holds them, in row order."""
    gateway.reset("happy", bq_import=True)
    out = frame.llm.batch(
        template, gateway=llm.Gateway(**gateway.settings), details=True, sidecar="s", **asked
    )
    assert set(out["response_status"]) == {"ok"}
    (job,) = gateway.jobs()
    uri = job["inputConfig"]["gcsSource"]["uris"][0]
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    lines = gateway.get_object(key, bucket).splitlines()
    found = {line["requestId"]: line["request"] for line in map(json.loads, lines)}
    return [found[id_] for id_ in out["response_custom_id"]]


ONE = pd.DataFrame({"q": ["what?"]})


@pytest.mark.parametrize(
    ("model", "thinking", "config"),
    [
        (THREE, "off", {"thinkingConfig": {"thinkingLevel": "minimal"}}),
        (THREE, "high", {"thinkingConfig": {"thinkingLevel": "high"}}),
        (FLASH, "off", {"thinking_config": {"include_thoughts": False, "thinking_budget": 0}}),
        (FLASH, 512, {"thinking_config": {"include_thoughts": True, "thinking_budget": 512}}),
    ],
)
def test_thinking_reaches_the_model(
    real_gateway: Harness, model: str, thinking: Any, config: dict[str, Any]
) -> None:
    (request,) = arrived(real_gateway, ONE, "{{ q }}", model=model, thinking=thinking)
    assert request["generationConfig"] == config


def test_every_parameter_reaches_the_model(real_gateway: Harness) -> None:
    answer = {"type": "object", "properties": {"a": {"type": "string"}}}
    (request,) = arrived(
        real_gateway,
        ONE,
        "{{ q }}",
        model=FLASH,
        system="be brief",
        max_tokens=100,
        temperature=0,
        top_p=0.5,
        seed=7,
        stop="END",
        thinking=512,
        params={
            "top_k": 4,
            "labels": {"team": "a"},
            "response_format": {"type": "json_schema", "json_schema": {"schema": answer}},
        },
    )
    assert request["systemInstruction"]["parts"] == [{"text": "be brief"}]
    assert request["labels"] == {"team": "a"}
    assert request["generationConfig"] == {
        "maxOutputTokens": 612,
        "temperature": 0,
        "topP": 0.5,
        "topK": 4,
        "seed": 7,
        "stopSequences": ["END"],
        "responseMimeType": "application/json",
        "responseSchema": answer,
        "thinking_config": {"include_thoughts": True, "thinking_budget": 512},
    }


def test_tools_and_a_schema_with_definitions_reach_the_model(real_gateway: Harness) -> None:
    text = {"type": "string"}
    one = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": text}}
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": text}}}
    (request,) = arrived(
        real_gateway,
        ONE,
        "{{ q }}",
        model=FLASH,
        params={
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "none",
            "modalities": ["text"],
            "logprobs": True,
            "response_format": {"type": "json_schema", "json_schema": {"schema": one}},
        },
    )
    assert request["tools"] == [{"functionDeclarations": [function]}]
    assert request["tool_config"] == {"function_calling_config": {"mode": "NONE"}}
    assert request["generationConfig"] == {
        "responseModalities": ["TEXT"],
        "responseLogprobs": True,
        "responseMimeType": "application/json",
        "responseSchema": {"type": "object", "properties": {"a": text}},
    }


def test_images_reach_the_model_with_their_types(real_gateway: Harness) -> None:
    Path("photo").write_bytes(PNG)
    inline = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}
    cells: list[tuple[Any, list[dict[str, Any]]]] = [
        ("gs://b/a.png", [{"fileData": {"mimeType": "image/png", "fileUri": "gs://b/a.png"}}]),
        (
            "https://h/A.JPG?size=2",
            [{"fileData": {"mimeType": "image/jpeg", "fileUri": "https://h/A.JPG?size=2"}}],
        ),
        (
            "https://h/scan.pdf?thumb=x.png",
            [
                {
                    "fileData": {
                        "mimeType": "application/pdf",
                        "fileUri": "https://h/scan.pdf?thumb=x.png",
                    }
                }
            ],
        ),
        ({"bytes": PNG, "path": "photo.jpg"}, [inline]),
        (
            {"url": "https://h/a", "mime_type": "image/webp"},
            [{"fileData": {"mimeType": "image/webp", "fileUri": "https://h/a"}}],
        ),
        (PNG, [inline]),
        (
            ["photo", "gs://b/a.pdf"],
            [inline, {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://b/a.pdf"}}],
        ),
        ([], []),
    ]
    frame = pd.DataFrame({"n": range(len(cells))})
    frame["photo"] = pd.Series([cell for cell, _ in cells], dtype=object)
    requests = arrived(real_gateway, frame, "what? {{ n }}", model=THREE, images="photo")
    for i, (_, expected) in enumerate(cells):
        (turn,) = requests[i]["contents"]
        assert turn == {"role": "user", "parts": [{"text": f"what? {i}"}, *expected]}


def test_neighbours_of_one_role_lose_nothing(real_gateway: Harness) -> None:
    template = [{"role": "user", "content": "first"}, {"role": "user", "content": "{{ q }}"}]
    (request,) = arrived(real_gateway, ONE, template, model=THREE)
    assert request["contents"] == [
        {"role": "user", "parts": [{"text": "first"}, {"text": "what?"}]}
    ]
