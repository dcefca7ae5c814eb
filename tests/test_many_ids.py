"""More ids, or longer texts, than Arrow's string counts in 32 bits: the same run in larger types.

63 million ids do not fit into a test, so the limits are lowered to what does.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows
from support.stand_in import StandIn, answer

from nyu_llm_frames._runs.stored_run import StoredRun
from nyu_llm_frames._sidecar import answer_store
from nyu_llm_frames._sidecar.id_lookup import keys, positions
from nyu_llm_frames._stages.requests import bodies
from nyu_llm_frames._stages.requests.bodies import first_of_each, joined_ids
from nyu_llm_frames._tables import columns
from nyu_llm_frames.errors import PartialResultWarning

MODEL = "gemini-3-flash-preview"
TEXTS = [f"question {i % 7}" for i in range(10)]
IDS = st.lists(st.sampled_from([f"r-{i:032x}" for i in range(9)]), max_size=12)


def test_the_limits_are_those_of_arrow() -> None:
    most = 2**31 - 1
    assert bodies.IDS_OF_32_BITS * 34 <= most < (bodies.IDS_OF_32_BITS + 1) * 34
    assert answer_store.BYTES_OF_32_BITS == columns.BYTES_OF_32_BITS == most


def test_above_the_limit_ids_have_64_bit_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [pa.array(["r-1", "r-2"]), pa.array(["r-3"])]
    assert joined_ids(parts).type == joined_ids([]).type == pa.string()
    monkeypatch.setattr(bodies, "IDS_OF_32_BITS", 2)
    joined = joined_ids(parts)
    assert joined.type == pa.large_string()
    assert joined.to_pylist() == ["r-1", "r-2", "r-3"]


@given(ids=IDS, among=IDS.map(lambda ids: list(dict.fromkeys(ids))))
def test_large_ids_are_looked_up_like_others(ids: list[str], among: list[str]) -> None:
    small, large = pa.array(ids, pa.string()), pa.array(among, pa.large_string())
    expected = [among.index(i) if i in among else -1 for i in ids]
    for one in (small, small.cast(pa.large_string()), pa.chunked_array([small], pa.string())):
        assert positions(one, large).tolist() == expected
        assert positions(one, large.cast(pa.string())).tolist() == expected
    assert keys(small.cast(pa.large_string())).tolist() == keys(small).tolist()
    for one, other in zip(
        first_of_each(small), first_of_each(small.cast(pa.large_string())), strict=True
    ):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_a_run_above_the_limits_is_the_same_run(
    gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.behaviour.row = rows.pick({"question 3": rows.failed(503)})
    frame = pd.DataFrame({"q": TEXTS})

    def ask(sidecar: str) -> pd.DataFrame:
        with pytest.warns(PartialResultWarning):
            out: pd.DataFrame = frame.llm.batch(
                "{{ q }}", model=MODEL, sidecar=sidecar, details=True, retries=1
            )
        return out

    first = ask("small")
    files = sorted(gateway.uploads.values())
    with monkeypatch.context() as lowered:
        lowered.setattr(bodies, "IDS_OF_32_BITS", 2)
        for module in (answer_store, columns):
            lowered.setattr(module, "BYTES_OF_32_BITS", 2)
        second = ask("large")
        pd.testing.assert_frame_equal(first, second)
        assert second["response"][0] == answer(TEXTS[0])
        assert sorted(gateway.uploads.values()) == sorted([*files, *files])
        gateway.stop()  # all is there, and both may read it
        pd.testing.assert_frame_equal(ask("small"), first)
    pd.testing.assert_frame_equal(ask("large"), first)
    assert StoredRun("large").counts() == {"ok": 6, "failed": 1}
