"""Evaluation, agreement and corrected estimates of 100,000 rows, against their limits.

    python tests/benchmarks/research.py [--repeat 3]

Each answer is checked first, then timed: the best of a few repeats. Limits: 1 s, 3 s, 8 s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import nyu_llm_frames  # noqa: F401  (registers df.llm)

ROWS, RESAMPLES = 100_000, 1_000


def rows() -> pd.DataFrame:
    """Five classes, three coders, numbers, and a logit with seven terms."""
    rng = np.random.default_rng(0)
    names = np.array(list("abcde"), dtype=object)
    truth = rng.integers(0, 5, ROWS)
    out = pd.DataFrame({"code": names[truth]})
    for name in ("one", "two", "three"):
        answer = np.where(rng.random(ROWS) < 0.8, truth, rng.integers(0, 5, ROWS))
        out[name] = names[answer]
    for i in range(5):
        out[f"x{i}"] = rng.normal(size=ROWS)
    out["old"] = rng.random(ROWS) < 0.3
    chance = 1 / (1 + np.exp(-(out["x0"] - 0.5 * out["x1"] + 0.3 * out["old"])))
    true = rng.random(ROWS) < chance
    out["label"] = np.where(rng.random(ROWS) < 0.85, true, ~true).astype(int)
    drawn = np.isin(np.arange(ROWS), rng.choice(ROWS, 2_000, replace=False))
    out["hand"] = pd.Series(true.astype(float)).where(drawn)
    out["number"] = out["x0"] + rng.normal(size=ROWS)
    return out


def timed(call: Callable[[], Any], repeat: int) -> float:
    """Return the best of some repeats, in seconds."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    frame = rows()
    coders = ["one", "two", "three"]

    def evaluate() -> Any:
        return frame.llm.evaluate("code", "one", resamples=RESAMPLES)

    def numbers() -> Any:
        return frame.llm.evaluate("x0", "number", resamples=RESAMPLES)

    def agreement() -> Any:
        return frame.llm.agreement(coders, resamples=RESAMPLES)

    def correct() -> Any:
        formula = "label ~ x0 + x1 + x2 + x3 + x4 + old"
        return frame.llm.correct(formula, truth={"label": "hand"}, pi=0.02, family="logit")

    accuracy = (frame["code"] == frame["one"]).mean()
    assert abs(evaluate().metrics.loc["accuracy", "estimate"] - accuracy) < 1e-12
    assert abs(numbers().metrics.loc["bias", "estimate"]) < 0.02
    assert agreement().metrics.loc["alpha", "estimate"] > 0.6
    assert abs(correct().table.loc["x0", ("corrected", "estimate")] - 1) < 0.2
    for name, call, limit in (
        ("evaluate, labels", evaluate, 1),
        ("evaluate, numbers", numbers, 1),
        ("alpha of 3 coders", agreement, 3),
        ("correct, logit, 7 terms", correct, 8),
    ):
        seconds = timed(call, repeat)
        print(f"{name:<26} {seconds:6.2f} s, limit {limit} s{'' if seconds < limit else '  ABOVE'}")


if __name__ == "__main__":
    main()
