"""`demo`: a batch of real rows with a real model, on this machine, without a key.

Comes in: how many rows, and where the sidecar goes. Goes out: a table, the time, and what to
type next. The rows are a sample of FiveThirtyEight's commutations (CC BY 4.0, data/CREDIT.txt).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from nyu_llm_frames._api.accessor import FrameMethods
from nyu_llm_frames._api.sample import sample
from nyu_llm_frames._gateway.gateway import Gateway
from nyu_llm_frames._shared.options import set_options
from nyu_llm_frames._sidecar.folder import is_sidecar
from nyu_llm_frames.cli import show

TEMPLATE = "Which drug is the offense about? Reply with JSON.\nText: {{ offense }}"
DRUGS = ["cocaine", "methamphetamine"]


def run(*, rows: int, sidecar: Path, **local: Any) -> None:
    gateway = Gateway.local(**local)
    frame = sample().head(rows)
    known = is_sidecar(sidecar)
    click.echo(
        f"{len(frame)} offenses from FiveThirtyEight's commutations (CC BY 4.0). The call:\n"
    )
    click.echo(_call(sidecar))
    start = time.monotonic()
    with set_options(poll_interval_s=0.5, max_poll_interval_s=2):  # the gateway is on this machine
        out = FrameMethods(frame).batch(
            TEMPLATE,
            model="local",
            schema={"drug": DRUGS},
            max_tokens=32,
            temperature=0,
            gateway=gateway,
            sidecar=sidecar,
        )
    seconds = time.monotonic() - start
    show.table(out[["case_id", "offense", "drug", "response_error"]])
    named = [
        isinstance(drug, str) and drug in offense.lower()
        for drug, offense in zip(out["drug"], out["offense"], strict=True)
    ]
    click.echo(f"\n{sum(named)} of {len(out)} answers name a drug that appears in the offense.")
    click.echo(
        "The model (SmolLM2-135M) is very small: this shows how rows are processed, not how good "
        "answers are."
    )
    click.echo(f"Time: {seconds:.1f} s{_why(known, seconds)}")
    click.echo(f"Sidecar: {sidecar.absolute()} (batch jobs and answers; delete it to start over)")
    click.echo(_next())


def _why(known: bool, seconds: float) -> str:
    if known and seconds < 3:
        return ", because every answer is in the sidecar: nothing was sent."
    return ". Type the same command again: it will be instant." if not known else "."


def _call(sidecar: Path) -> str:
    return (
        "    df.llm.batch(\n"
        f"        {TEMPLATE!r},\n"
        f'        model="local", schema={{"drug": {DRUGS!r}}},\n'
        f'        max_tokens=32, temperature=0, gateway="local", sidecar="{sidecar}",\n'
        "    )\n"
    )


def _next() -> str:
    return (
        "\nNext, with a file of your own:\n"
        "    nyu-llm-frames batch reviews.csv --out answers.csv --gateway local --model local \\\n"
        '        --prompt "Is this review positive or negative? {{ text }}"\n'
        "and with NYU's models (PORTKEY_API_KEY and NYU_LLM_BUCKET set):\n"
        "    nyu-llm-frames batch reviews.csv --out answers.csv --model gemini-3-flash-preview \\\n"
        '        --prompt "Is this review positive or negative? {{ text }}"'
    )
