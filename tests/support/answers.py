"""Answers of a model beside hand codes."""

from __future__ import annotations

import numpy as np
import pandas as pd


def coded(n: int = 200, seed: int = 0, labels: str = "abc") -> pd.DataFrame:
    """Answers that are right in eight of ten rows, and some that are missing."""
    rng = np.random.default_rng(seed)
    names = np.array(list(labels), dtype=object)
    truth = names[rng.integers(0, len(names), n)]
    answer = np.where(rng.random(n) < 0.8, truth, names[rng.integers(0, len(names), n)])
    answer[::17] = None
    return pd.DataFrame({"code": truth, "response": answer, "group": rng.choice(["u", "v"], n)})
