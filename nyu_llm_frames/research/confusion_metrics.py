"""Statistics of confusion tables: accuracy, F1, kappas, alpha, AC1, Matthews.

Every function takes tables of shape (..., K, K): one, or one for each resample. Cells may be
weighted. Where a statistic has no value it is NaN; `metric_tables.explain` says why.

Comes in: tables. Goes out: statistics.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


def _ratio(a: Any, b: Any) -> Floats:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    out: Floats = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    np.divide(a, b, out=out, where=b != 0)
    return out


def _parts(table: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the total, the diagonal, and both margins."""
    return (
        table.sum((-1, -2)),
        np.diagonal(table, axis1=-2, axis2=-1),
        table.sum(-1),
        table.sum(-2),
    )


def accuracy(table: Floats) -> Floats:
    """Return the share on the diagonal."""
    n, right, _, _ = _parts(table)
    return _ratio(right.sum(-1), n)


def precision_recall_f1(table: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 of each class, (..., K); NaN where the denominator is 0."""
    _, right, truth, answers = _parts(table)
    return _ratio(right, answers), _ratio(right, truth), _ratio(2 * right, truth + answers)


def balanced_accuracy(table: Floats) -> Floats:
    """Return the mean recall over the classes that truth has."""
    return _mean(precision_recall_f1(table)[1])


def macro_f1(table: Floats) -> Floats:
    """Return the mean F1 over the classes of either side, as scikit-learn does."""
    return _mean(precision_recall_f1(table)[2])


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def weighted_f1(table: Floats) -> Floats:
    """Return the mean F1, each class with its share of truth."""
    n, _, truth, _ = _parts(table)
    f1 = precision_recall_f1(table)[2]
    return _ratio((np.where(np.isnan(f1), 0, f1) * truth).sum(-1), n)


def kappa(table: Floats, weights: Literal["none", "linear", "quadratic"] = "none") -> Floats:
    """
    Return Cohen's kappa; with weights, that of ordered classes at equal distances.

    Source: Cohen 1960; weighted: Cohen 1968; Landis & Koch 1977, Biometrics 33, 159-174.
    """
    k = np.arange(table.shape[-1], dtype=np.float64)
    apart = np.abs(k[:, None] - k)
    cost = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weights]
    n, _, truth, answers = _parts(table)
    observed = (cost * table).sum((-1, -2))
    expected = np.einsum("...i,ij,...j->...", truth, cost, answers, optimize=True)
    return 1 - _ratio(observed * n, expected)


def kappa_standard_error(table: Floats) -> float:
    """
    Return the asymptotic standard error of Cohen's kappa in an unweighted table.

    Source: Fleiss, Cohen & Everitt 1969, Psychological Bulletin 72, 323-327; as statsmodels.
    """
    n = table.sum()
    p = table / n
    rows, columns = p.sum(1), p.sum(0)
    agreed, expected = np.trace(p), float(rows @ columns)
    k = (agreed - expected) / (1 - expected)
    diagonal = (np.diag(p) * (1 - (rows + columns) * (1 - k)) ** 2).sum()
    off = p * (columns[:, None] + rows[None, :]) ** 2
    np.fill_diagonal(off, 0)
    variance = diagonal + (1 - k) ** 2 * off.sum() - (k - expected * (1 - k)) ** 2
    return float(np.sqrt(max(variance, 0.0) / n) / (1 - expected))


def matthews(table: Floats) -> Floats:
    """
    Return the correlation of Matthews for any number of classes.

    Source: Gorodkin 2004, Comput. Biol. Chem. 28, 367-374, as scikit-learn.
    """
    n, right, truth, answers = _parts(table)
    shared = right.sum(-1) * n - (truth * answers).sum(-1)
    apart = (n**2 - (truth**2).sum(-1)) * (n**2 - (answers**2).sum(-1))
    return _ratio(shared, np.sqrt(np.maximum(apart, 0)))


def ac1(table: Floats, classes: int | None = None) -> Floats:
    """
    Return Gwet's AC1; 1.0 when there is one class alone.

    Source: Gwet 2008, Br. J. Math. Stat. Psychol. 61, 29-48.
    """
    k = table.shape[-1] if classes is None else classes
    n, right, truth, answers = _parts(table)
    if k < 2:
        return np.where(n > 0, 1.0, np.nan)
    share = _ratio((truth + answers) / 2, n[..., None])
    by_chance = (share * (1 - share)).sum(-1) / (k - 1)
    return _ratio(_ratio(right.sum(-1), n) - by_chance, 1 - by_chance)
