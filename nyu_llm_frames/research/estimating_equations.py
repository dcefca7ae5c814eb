"""Solve the estimating equations of naive, human and corrected estimates.

Each row has two estimating equations, m_P with the model's label and m_H with the hand code; the
corrected estimate solves

    sum_i [ l m_P,i + R_i / pi_i (m_H,i - l m_P,i) ] = 0

where R_i says whether a row is coded and pi_i how likely that was. With l = 1 it is design-based
supervised learning (Egami, Hinck, Stewart & Wei 2023, NeurIPS 36; R package dsl), with l tuned
prediction-powered inference (Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453). A row may have
no m_P: it then counts by its code alone.

Comes in: matrices. Goes out: estimates with covariances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from nyu_llm_frames.research.arithmetic import Bools, Floats, Ints

Family = Literal["ols", "logit"]

_STEPS = 60
_TOLERANCE = 1e-10
_SOLVED = 1e-8  # equations that are solved while steps stay long: a maximum at infinity
_WORST = 1e13  # condition number from which columns count as collinear


class NoSolution(ArithmeticError):
    """The equations have no finite solution."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Two sets of equations on the same N rows, n of them coded."""

    model_x: Floats  # N x p, with the model's labels
    model_y: Floats  # N
    usable: Bools  # N: rows that have an equation with the model's label
    human_x: Floats  # n x p, with the hand codes
    human_y: Floats  # n
    coded: Ints  # n: positions of the coded rows
    pi: Floats  # n: their probabilities
    clusters: Ints | None  # N: number of each row's cluster
    units: Ints | None  # N: and of what was drawn
    family: Family


@dataclass(frozen=True, slots=True)
class Solution:
    """
    An estimate with its covariance.

    `coding` is the part of the covariance that comes from which rows were coded: it halves with
    twice as many codes.
    """

    estimate: Floats
    covariance: Floats
    coding: Floats
    tuned: Floats  # the weight of the model's part for each coefficient


def _mean(x: Floats, beta: Floats, family: Family) -> tuple[Floats, Floats]:
    """Return the mean of each row, and its derivative."""
    eta = x @ beta
    if family == "ols":
        return eta, np.ones(len(x))
    mu = expit(eta)
    return mu, mu * (1 - mu)


def _summed(rows: Floats, groups: Ints | None) -> Floats:
    """Add up rows of the same group."""
    if groups is None:
        return rows
    out = np.empty((int(groups.max(initial=-1)) + 1, rows.shape[1]))
    for j in range(rows.shape[1]):
        out[:, j] = np.bincount(groups, rows[:, j], minlength=len(out))
    return out


def _weighted(
    x: Floats, y: Floats, w: Floats, beta: Floats, family: Family
) -> tuple[Floats, Floats]:
    """Return the weighted sum of the equations, and minus its derivative."""
    mu, slope = _mean(x, beta, family)
    return x.T @ (w * (y - mu)), (x * (w * slope)[:, None]).T @ x


def _inverse(matrix: Floats) -> Floats:
    """Invert a matrix; refuse one that is singular but for rounding, whatever its units."""
    size = np.sqrt(np.abs(np.diag(matrix)))
    if not np.isfinite(matrix).all() or not size.all():
        raise NoSolution
    scaled = matrix / np.outer(size, size)
    if np.linalg.cond(scaled) > _WORST:
        raise NoSolution
    return np.asarray(np.linalg.inv(scaled) / np.outer(size, size))


def _newton(start: Floats, step: Callable[[Floats], tuple[Floats, Floats]]) -> Floats:
    """Solve equations by Newton's method, halving steps that lead away."""
    beta: Floats = start.copy()
    value, slope = step(beta)
    size = float(np.abs(value).max(initial=0))
    first = max(size, 1.0)
    for _ in range(_STEPS):
        move, before = _inverse(slope) @ value, size
        factor = 1.0
        while factor > 1e-4:
            trial = beta + factor * move
            value, slope = step(trial)
            now = float(np.abs(value).max(initial=0))
            if np.isfinite(now) and now <= size * (1 + 1e-9) + _TOLERANCE * first:
                break
            factor /= 2
        else:
            raise NoSolution
        beta, size = np.asarray(trial), now
        if np.abs(factor * move).max(initial=0) <= _TOLERANCE * (1 + np.abs(beta).max(initial=0)):
            return beta
        if before <= _SOLVED * first and np.abs(move).max(initial=0) > 0.01 * np.abs(beta).max():
            raise NoSolution
    if size > _SOLVED * first:
        raise NoSolution
    return beta


def _fit(x: Floats, y: Floats, w: Floats, family: Family) -> Floats:
    """Solve the weighted equations of one set of rows."""
    return _newton(np.zeros(x.shape[1]), lambda beta: _weighted(x, y, w, beta, family))


def naive(problem: Problem) -> Solution:
    """Estimate with the model's labels as if they were true; sandwich variance by cluster."""
    p, use = problem, problem.usable
    x, y = p.model_x[use], p.model_y[use]
    beta = _fit(x, y, np.ones(len(x)), p.family)
    mu, slope = _mean(x, beta, p.family)
    bread = _inverse((x * slope[:, None]).T @ x)
    groups = None if p.clusters is None else p.clusters[use]
    scores = _summed((x * (y - mu)[:, None]) @ bread.T, groups)
    size = len(beta)
    return Solution(beta, scores.T @ scores, np.zeros((size, size)), np.ones(size))


def corrected(problem: Problem, tune: bool | Floats, start: Floats | None = None) -> Solution:
    """
    Estimate with the model's labels of all rows and the hand codes of some.

    With `tune` each coefficient's weight of the model's part is what makes its variance least,
    within 0 and 1, else it is 1; an array has these weights, and zeros give the human estimate.
    `start` is the human estimate when it is known already.

    The variance is the sandwich of the rows' whole terms, in which draws are independent: it
    leaves out what a stratified or a fixed sample gains, as R dsl does, and is conservative.
    """
    p = problem
    w = 1 / p.pi
    here = p.usable[p.coded].astype(np.float64)
    human = start if start is not None else _fit(p.human_x, p.human_y, w, p.family)
    _, information = _weighted(p.human_x, p.human_y, w, human, p.family)
    scale = _inverse(information)  # coefficients, so that each has its own weight
    net = p.usable.astype(np.float64)
    np.subtract.at(net, p.coded, w * here)

    def terms(beta: Floats) -> tuple[Floats, Floats]:
        """Return the rows' model part and human part, in the scale of coefficients."""
        mu, _ = _mean(p.model_x, beta, p.family)
        model = (p.model_x * (net * (p.model_y - mu))[:, None]) @ scale.T
        mu, _ = _mean(p.human_x, beta, p.family)
        own = (p.human_x * (w * (p.human_y - mu))[:, None]) @ scale.T
        return model, own

    def together(model: Floats, own: Floats) -> Floats:
        out = model.copy()
        out[p.coded] += own
        return out

    if isinstance(tune, np.ndarray):
        weight = tune
    elif tune:
        model, own = terms(human)
        b = _summed(model, p.clusters)
        a = _summed(together(np.zeros_like(model), own), p.clusters)
        best = -(a * b).sum(0) / np.where((b * b).sum(0) > 0, (b * b).sum(0), 1.0)
        weight = np.clip(best, 0.0, 1.0)
    else:
        weight = np.ones(p.model_x.shape[1])

    def step(beta: Floats) -> tuple[Floats, Floats]:
        model, of_model = _weighted(p.model_x, p.model_y, net, beta, p.family)
        own, of_human = _weighted(p.human_x, p.human_y, w, beta, p.family)
        value = weight * (scale @ model) + scale @ own
        return value, weight[:, None] * (scale @ of_model) + scale @ of_human

    beta = _newton(human, step) if weight.any() else human
    _, slope = step(beta)
    bread = _inverse(slope)
    model, own = terms(beta)
    scores = _summed(together(model * weight, own), p.clusters) @ bread.T
    # What a coded row adds beyond its model part, at unit weight: w * difference.
    mu, _ = _mean(p.model_x[p.coded], beta, p.family)
    part = p.model_x[p.coded] * (w * here * (p.model_y[p.coded] - mu))[:, None]
    drawn = (own - weight * (part @ scale.T)) @ bread.T
    units = None
    if p.units is not None:
        units = np.unique(p.units[p.coded], return_inverse=True)[1].astype(np.int64)
    drawn = _summed(drawn, units)
    return Solution(beta, scores.T @ scores, drawn.T @ drawn, weight)
