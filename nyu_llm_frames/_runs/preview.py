"""The first prompts, as they would be sent.

Comes in: a prepared call. Goes out: a frame with ids and messages; no effect at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from nyu_llm_frames._tables import columns as _columns

if TYPE_CHECKING:
    from nyu_llm_frames._runs.prepare import PreparedCall


def preview(call: PreparedCall) -> Any:
    """Return ``custom_id`` and ``messages`` of every row of a call."""
    requests = call.requests
    arguments = call.codes >= 0
    given = iter(requests.messages(call.codes[arguments]))
    messages = [next(given) if one else None for one in arguments.tolist()]
    ids = _columns.text_column(_columns.spread(requests.ids, call.codes))
    shown = pd.Series(messages, dtype=object).array
    return call.table.without_columns().with_columns({"custom_id": ids, "messages": shown})
