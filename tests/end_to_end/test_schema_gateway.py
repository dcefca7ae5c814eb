"""Typed columns through the real gateway, on real rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gateway_lab import oracle

import nyu_llm_frames as llm
from nyu_llm_frames._stages.schema.schema import compile_schema

pytestmark = pytest.mark.gateway
DATA = Path(__file__).parent.parent / "data"

FIELDS = {
    "drug": str | None,
    "weapon": bool,
    "sentence_months": int | None,
    "kind": ["violent", "drug", "other"],
}


def test_1381_cases_become_typed_columns_row_by_row(real_gateway: Any, tmp_path: Path) -> None:
    real_gateway.reset("shuffled", bq_import=True)
    frame = pd.read_csv(DATA / "commutations.csv")
    with llm.set_options(poll_interval_s=0.05, max_poll_interval_s=0.2, progress=False):
        out = frame.llm.batch(
            "Offence: {{ offense }}",
            model=real_gateway.model,
            schema=FIELDS,
            gateway=llm.Gateway(**real_gateway.settings),
            sidecar=tmp_path / "s",
        )
    wire = compile_schema(FIELDS).wire
    assert len(real_gateway.jobs()) == 1
    for offense, drug, weapon, months, kind in zip(
        frame["offense"],
        out["drug"],
        out["weapon"],
        out["sentence_months"],
        out["kind"],
        strict=True,
    ):
        expected = oracle.expected_json(f"Offence: {offense}", wire)
        found = {"drug": drug, "weapon": weapon, "sentence_months": months, "kind": kind}
        assert found == expected
    assert out["response_error"].isna().all()
