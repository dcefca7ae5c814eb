"""The first prompts, as they would be sent.

Comes in: a prepared call. Goes out: a frame of ids and messages, which a notebook shows as
messages; no effect at all.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from nyu_llm_frames._shared.cards import CARD_STYLE
from nyu_llm_frames._tables import columns as _columns

if TYPE_CHECKING:
    from nyu_llm_frames._runs.prepare import PreparedCall


class PromptFrame(pd.DataFrame):
    """A frame of prompts: in a notebook every message with its role, the text whole and wrapped.

    A selection from it is a plain frame.
    """

    def _repr_html_(self) -> str:
        if list(self.columns) != ["custom_id", "messages"]:  # changed in place
            return self.to_html()
        prompts = [
            f'<div class="dim">row {escape(str(label))} · {escape(str(custom_id))}</div>'
            + "".join(map(_message, messages or [{"role": "", "content": "skipped"}]))
            for label, custom_id, messages in zip(
                self.index, self["custom_id"], self["messages"], strict=True
            )
        ]
        return f'{CARD_STYLE}\n<div class="nlf">{"<hr>".join(prompts)}</div>'


def _message(message: dict[str, Any]) -> str:
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    text = "\n".join(part.get("text") or "[image]" for part in parts)
    return (
        f"<table><tr><th>{escape(message['role'])}</th>"
        f'<td style="white-space:pre-wrap">{escape(text)}</td></tr></table>'
    )


def preview(call: PreparedCall) -> Any:
    """Return ``custom_id`` and ``messages`` of every row of a call."""
    requests = call.requests
    sent = call.codes >= 0
    given = iter(requests.messages(call.codes[sent]))
    messages = [next(given) if one else None for one in sent.tolist()]
    ids = _columns.text_column(_columns.spread(requests.ids, call.codes))
    shown = pd.Series(messages, dtype=object).array
    out = call.table.beside_labels({"custom_id": ids, "messages": shown})
    return PromptFrame(out) if isinstance(out, pd.DataFrame) else out
