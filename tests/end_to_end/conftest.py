"""What every end-to-end test shares: quick polling, no progress lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nyu_llm_frames as llm


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """Poll a loopback gateway as often as it can answer."""
    with llm.set_options(
        progress=False,
        poll_interval_s=0.02,
        max_poll_interval_s=0.1,
        submit_settle_s=0.3,
        output_settle_s=0.3,
    ):
        yield
