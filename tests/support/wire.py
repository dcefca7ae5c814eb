"""The formats on the wire, without any state: multipart, Google's rows, error pages.

Comes in: bytes that a client sent, or rows of the gateway. Goes out: what Google would hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from support import rows

NO_BUCKET = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchBucket</Code>"
    "<Message>The specified bucket does not exist.</Message></Error>"
)
NO_IMPORT = (
    "Failed to import data. Please check 'Prepare input' section of the batch predictions "
    "documentation."
)
NO_INPUT = (
    "Failed to get GCS bucket location for {bucket}. Please check that the bucket exists and "
    "permissions are set correctly."
)


def parse_multipart(content_type: str, data: bytes) -> list[tuple[str, bytes]]:
    """Return the parts of a multipart body in order, as (name, content)."""
    boundary = content_type.partition("boundary=")[2].strip().strip('"').encode()
    out = []
    for piece in (b"\r\n" + data).split(b"\r\n--" + boundary)[1:]:
        head, sep, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if sep:
            name = head.partition(b'name="')[2].partition(b'"')[0]
            out.append((name.decode(), content))
    return out


def readable(line: bytes) -> dict[str, Any] | None:
    """Return an input line, or None for one that the gateway drops without a word."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("body"), dict):
        return None
    messages = row["body"].get("messages", [])
    if not isinstance(messages, list):
        return None
    if any(not isinstance(m, dict) or "role" not in m for m in messages):
        return None
    return row


def google_request(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input line as the gateway stores it (roles and texts only)."""
    contents: list[dict[str, Any]] = []
    request: dict[str, Any] = {}
    for i, message in enumerate(row["body"].get("messages") or []):
        content = message.get("content")
        texts = [content] if isinstance(content, str) else []
        if isinstance(content, list):
            texts = [p["text"] for p in content if isinstance(p, dict) and p.get("text")]
        parts = [{"text": t} for t in texts]
        role = {"user": "user", "assistant": "model"}.get(message["role"])
        if role is None:
            if i == 0:  # only the first message counts as system, and only its first part
                request["systemInstruction"] = {"parts": parts[:1], "role": "system"}
        elif contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    if "messages" in row["body"]:
        request["contents"] = contents
    out: dict[str, Any] = {"request": request}
    if row.get("custom_id") is not None:
        out["requestId"] = row["custom_id"]
    return out


def google_row(line: bytes, request: Mapping[str, Any]) -> bytes:
    """Return an output line as it stands in Google's own file, where texts are exact."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    out: dict[str, Any] = {"status": "", "processed_time": "2026-02-18T16:06:37.000000Z"}
    if "custom_id" in row:
        out["requestId"] = row["custom_id"]
    out["request"] = request["request"]
    error, body = row.get("error"), row["response"]["body"]
    if error:
        out["status"] = error if isinstance(error, str) else json.dumps(error)
        out["response"] = {}
    elif "error" in body:
        out["response"] = {}
    else:
        out["response"] = _google_response(body, row["id"].rsplit("-", 1)[-1])
    return json.dumps(out, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _google_response(body: Mapping[str, Any], rid: str) -> dict[str, Any]:
    usage = body["usage"]
    meta = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["total_tokens"],
    }
    if thoughts := usage["completion_tokens_details"]["reasoning_tokens"]:
        meta["thoughtsTokenCount"] = thoughts
    out: dict[str, Any] = {"modelVersion": body["model"], "responseId": rid}
    if not body["choices"]:
        out["promptFeedback"] = {"blockReason": "PROHIBITED_CONTENT"}
    else:
        choice = body["choices"][0]
        candidate: dict[str, Any] = {"finishReason": choice["finish_reason"]}
        parts = [
            {"text": b["thinking"], "thought": True} if "thinking" in b else {"text": b["text"]}
            for b in choice["message"].get("content_blocks") or []
        ]
        if parts:
            candidate["content"] = {"role": "model", "parts": parts}
        out["candidates"] = [candidate]
    return {**out, "usageMetadata": meta}


def google_error(status: int, message: str) -> bytes:
    """Return an error as Google words it; the gateway hands it on."""
    names = {
        400: "INVALID_ARGUMENT",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
    }
    code = {"code": status, "message": message, "status": names.get(status, "UNKNOWN")}
    return encode({"error": {**code, "details": []}})


def live_error(error: Any) -> tuple[int, dict[str, Any]]:
    """Return status and body of a live call for what is the error of a row in a batch."""
    if isinstance(error, str):
        start = error.find("{")
        error = json.loads(error[start:]) if start >= 0 else {"error": {"message": error}}
    detail = (error[0] if isinstance(error, list) else error)["error"]
    code = detail.get("code", 500)
    said = {
        "message": f"vertex-ai error: {detail['message']}",
        "type": detail.get("status", "INTERNAL"),
        "param": None,
        "code": str(code),
    }
    return code, {"error": said, "provider": "vertex-ai"}


def encode(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def error_page(status: int, kind: str) -> tuple[bytes, str]:
    """Return a body and its content type for an injected fault: json, html or empty."""
    if kind == "json":
        return encode({"success": False, "data": {"message": f"injected fault {status}"}}), (
            "application/json"
        )
    if kind == "empty":
        return b"", "text/plain"
    page = (
        f"<html>\r\n<head><title>{status} Gateway Time-out</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} Gateway Time-out</h1></center>\r\n</body>\r\n</html>\r\n"
    )
    return page.encode(), "text/html"


FAKE_ROW = rows.dump(
    {
        "id": f"batch-{rows.JOB}-",
        "response": {
            "status_code": 200,
            "request_id": f"batch-{rows.JOB}-",
            "body": rows.no_response(),
        },
    }
)
