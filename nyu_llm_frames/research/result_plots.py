"""Plot results: confusion, classes, agreement, and three estimates side by side.

Comes in: tables of results. Goes out: an array of Axes. matplotlib is imported only when needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.pictures import INK, ink, panels
from nyu_llm_frames._shared.wording import count, shortened
from nyu_llm_frames.research.arithmetic import Floats
from nyu_llm_frames.research.result_cards import number, percent

_BLUE, _GREEN, _ORANGE, _PURPLE = "#4c78a8", "#2a9d5c", "#d1603d", "#b279a2"
_ESTIMATES = {"naive": _ORANGE, "human": _BLUE, "corrected": _GREEN}
_PARTS = {"precision": _BLUE, "recall": _PURPLE, "F1": _GREEN}
_WITH_UNITS = ["bias", "MAE", "RMSE"]
_MOST_TERMS = 12
_MOST_CLASSES = 30
_MOST_NUMBERS = 15  # classes up to which each cell has its number
_MOST_CHARACTERS = 14  # of a class beside its row or column
_SMALL = 8


# --- parts of pictures ------------------------------------------------------------------------
def _interval(ax: Any, y: float, low: float, value: float, high: float, color: str) -> None:
    """Draw an estimate with its interval."""
    if np.isnan(value):
        return
    if not np.isnan(low):
        ax.plot([low, high], [y, y], color=color, lw=2, solid_capstyle="butt", zorder=2)
        for end in (low, high):
            ax.plot([end, end], [y - 0.08, y + 0.08], color=color, lw=1.5, zorder=2)
    ax.plot([value], [y], "o", color=color, ms=6, zorder=3)


def _bounds(
    table: Any, value: str = "estimate", prefix: str = ""
) -> Iterator[tuple[float, float, float]]:
    """Yield lower bound, estimate and upper bound of each row."""
    return zip(table[f"{prefix}low"], table[value], table[f"{prefix}high"], strict=True)


def _names(ax: Any, names: Sequence[Any]) -> None:
    """Write names on the left, the first on top."""
    ax.set_yticks(range(len(names)), [shortened(str(n), 28) for n in names], fontsize=9)
    ax.set_ylim(len(names) - 0.4, -0.6)


def _legend(ax: Any, colors: Mapping[str, str]) -> None:
    """Name the colors of intervals above a panel."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, marker="o", lw=2, label=n) for n, c in colors.items()]
    ax.legend(
        handles=handles, fontsize=9, frameon=False, ncols=3, loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )  # fmt: skip


def _grid(ax: Any) -> None:
    ax.grid(axis="x", color=INK, alpha=0.25, lw=0.6)
    ax.set_axisbelow(True)
    ink(ax)


def _cells(
    ax: Any,
    colors: Any,
    share: Floats,
    texts: Mapping[tuple[int, int], str],
    least: float = 0.0,
) -> None:
    """Fill the cells of a table with colors as strong as their share, and write into them."""
    from matplotlib.colors import to_rgba_array

    rgba = to_rgba_array(colors.ravel().tolist()).reshape(*share.shape, 4)
    rgba[..., 3] = np.where(share > 0, least + (1 - least) * share, 0.0)
    ax.imshow(rgba, aspect="auto", interpolation="nearest")
    for (i, j), text in texts.items():
        color = "white" if share[i, j] > 0.4 else INK
        ax.text(j, i, text, ha="center", va="center", fontsize=9, color=color)


# --- naive, human, corrected ------------------------------------------------------------------
def plot_correction(table: pd.DataFrame, title: str, level: float, unit: str, shares: bool) -> Any:
    """
    Draw naive, human and corrected estimates of each term, each with its interval.

    A panel for each term, since their units differ; the shares of classes have one together.
    """
    shown = table.iloc[:_MOST_TERMS]
    if len(shown) < len(table):
        title += f", the first {len(shown)} of {len(table)} terms"
    parts = [shown] if shares else [shown.iloc[[i]] for i in range(len(shown))]
    columns = 2 if len(parts) in (2, 4) else min(len(parts), 3)
    size = (7.0, 0.45 + 0.72 * len(shown)) if shares else (4.2, 1.7)
    with panels("Correction.plot()", [size] * len(parts), columns, title) as axes:
        for ax, terms in zip(axes, parts, strict=True):
            _draw_estimates(ax, terms, shares)
            ax.set_xlabel(f"{unit}, {percent(level)} intervals", fontsize=_SMALL)
            _grid(ax)
            if shares:
                _names(ax, list(terms.index))
                _legend(ax, _ESTIMATES)
                continue
            ax.set_title(str(terms.index[0]), fontsize=10)
            _names(ax, list(_ESTIMATES))
            for label, color in zip(ax.get_yticklabels(), _ESTIMATES.values(), strict=True):
                label.set_color(color)
    return axes


def _draw_estimates(ax: Any, table: pd.DataFrame, shares: bool) -> None:
    """Draw the three estimates of each term below each other, with their numbers."""
    place: dict[str, Any] = {"xytext": (0, 5), "ha": "center", "va": "bottom"}
    if shares:
        place = {"xytext": (6, 0), "va": "center"}
    ends: list[float] = []
    for i, (which, color) in enumerate(_ESTIMATES.items()):
        for row, (low, value, high) in enumerate(_bounds(table[which])):
            if np.isnan(value):
                continue
            y = row + (i - 1) * 0.25 if shares else i
            _interval(ax, y, low, value, high, color)
            low, high = (value if np.isnan(bound) else bound for bound in (low, high))
            ends += [low, high]
            ax.annotate(
                number(value), (high if shares else value, y), textcoords="offset points",
                fontsize=_SMALL, color=color, **place,
            )  # fmt: skip
    if not ends:
        return
    low, high = min(ends), max(ends)
    room = (high - low) or 1.0
    if not shares and low - 0.35 * room <= 0 <= high + 0.35 * room:
        ax.axvline(0, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
        low, high = min(low, 0.0), max(high, 0.0)
    ax.set_xlim(low - 0.08 * room, high + (0.2 if shares else 0.08) * room)
    ax.locator_params(axis="x", nbins=6)


# --- evaluation -------------------------------------------------------------------------------
def plot_evaluation(
    title: str,
    metrics: pd.DataFrame,
    classes: pd.DataFrame,
    confusion: pd.DataFrame,
    level: float,
) -> Any:
    """
    Draw the confusion table as a heat map, and each class with intervals.

    Several columns of answers: their statistics beside each other. Numbers: the statistics that
    have no unit.
    """
    method = "Evaluation.plot()"
    if isinstance(metrics.index, pd.MultiIndex):
        names = list(dict.fromkeys(metrics.index.get_level_values(1)))
        height = 0.6 + 0.4 * metrics.index.get_level_values(0).nunique()
        sizes = [(4.0, height)] * len(names)
        with panels(method, sizes, min(3, len(names)), title) as axes:
            for ax, name in zip(axes, names, strict=True):
                _draw_rows(ax, metrics.xs(name, level=1))
                ax.set_title(name, fontsize=10)
                _grid(ax)
        return axes
    k = len(classes)
    of_classes = (5.0, 0.6 + 0.62 * min(k, _MOST_CLASSES))
    if len(confusion):
        side = min(max(2.6, 0.55 * k + 1.4), 9.0)
        sizes = [(side + 1.2, side), of_classes]
    else:
        sizes = [(5.5, 0.4 + 0.4 * len(metrics))]
        sizes += [(5.5, of_classes[1])] if k else []
    with panels(method, sizes, 2, title) as axes:
        if len(confusion):
            _draw_confusion(axes[0], confusion)
        else:
            _draw_metrics(axes[0], metrics.drop(_WITH_UNITS, errors="ignore"), level)
        if k:
            _draw_classes(axes[1], classes.head(_MOST_CLASSES), level)
    return axes


def _draw_confusion(ax: Any, table: pd.DataFrame) -> None:
    """Color cells by their share of the row: correct green, wrong orange, unanswered gray."""
    values = table.to_numpy(dtype=np.float64)
    total = values.sum(1, keepdims=True)
    share = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    k = len(table)
    colors = np.full(values.shape, _ORANGE, dtype=object)
    colors[np.arange(k), np.arange(k)] = _GREEN
    colors[:, k] = INK
    digits = 0 if (values == np.round(values)).all() else 1
    texts = {(i, j): f"{values[i, j]:,.{digits}f}" for i, j in np.argwhere(values > 0)}
    _cells(ax, colors, share, texts if k <= _MOST_NUMBERS else {}, least=0.06)
    short = [shortened(str(c), _MOST_CHARACTERS) for c in table.columns]
    turn = 90 if k > 8 else 30 if max(map(len, short)) > 6 else 0
    ax.set_xticks(
        range(k + 1), short, fontsize=9, rotation=turn, ha="right" if turn == 30 else "center"
    )
    ax.set_yticks(range(k), [shortened(str(c), _MOST_CHARACTERS) for c in table.index], fontsize=9)
    ax.set_xticks(np.arange(k + 2) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=INK, alpha=0.25, lw=0.6)
    ax.set_xlabel("answer", fontsize=9)
    ax.set_ylabel("hand code", fontsize=9)
    ax.set_title("Rows, colored by the share of each hand code", fontsize=10)
    ink(ax)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)


def _draw_classes(ax: Any, classes: pd.DataFrame, level: float) -> None:
    """Draw precision, recall and F1 of each class."""
    for i, (part, color) in enumerate(_PARTS.items()):
        for row, bounds in enumerate(_bounds(classes, part, f"{part}_")):
            _interval(ax, row + (i - 1) * 0.24, *bounds, color)
    coded = zip(classes.index, classes["coded"], strict=True)
    _names(ax, [f"{label}  (n {n:,})" for label, n in coded])
    ax.set_xlim(-0.02, 1.02)
    _legend(ax, _PARTS)
    ax.set_xlabel(f"{percent(level)} intervals", fontsize=_SMALL)
    _grid(ax)


def _draw_rows(ax: Any, metrics: Any) -> None:
    for row, bounds in enumerate(_bounds(metrics)):
        _interval(ax, row, *bounds, _BLUE)
    _names(ax, list(metrics.index))


def _draw_metrics(ax: Any, metrics: pd.DataFrame, level: float) -> None:
    """Draw statistics without a unit, one below the other."""
    _draw_rows(ax, metrics)
    for row, (_, value, high) in enumerate(_bounds(metrics)):
        if not np.isnan(value):
            end = value if np.isnan(high) else high
            ax.annotate(f"  {number(value)}", (end, row), va="center", fontsize=_SMALL, color=_BLUE)
    left, right = metrics["low"].min(), metrics["high"].max()
    ax.set_xlim(min(0.0, 0.0 if np.isnan(left) else left) - 0.02, max(1.0, right) + 0.14)
    ax.set_xlabel(f"{percent(level)} intervals", fontsize=_SMALL)
    _grid(ax)


# --- agreement --------------------------------------------------------------------------------
def plot_agreement(
    columns: Sequence[str],
    metrics: pd.DataFrame,
    rows: pd.DataFrame,
    pairs: pd.DataFrame,
    level: float,
) -> Any:
    """Draw the coefficients with intervals, rows by their agreement, and the pairs."""
    k = len(columns)
    sizes = [(4.6, 0.5 + 0.42 * max(len(metrics), 4)), (4.2, 2.2)]
    if 2 < k <= 12:
        sizes.append((max(3.0, 0.6 * k + 1.2), max(2.2, 0.5 * k + 0.8)))
    title = f"Agreement of {count(k, 'column')} in {count(len(rows), 'row')}"
    with panels("Agreement.plot()", sizes, 3, title) as axes:
        _draw_metrics(axes[0], metrics, level)
        _draw_majorities(axes[1], rows[rows["answered"] > 1], k == 2)
        if len(sizes) > 2:
            _draw_pairs(axes[2], columns, pairs["agreement"])
    return axes


def _draw_majorities(ax: Any, rows: pd.DataFrame, two: bool) -> None:
    """Count the rows in which all agree, most, or no majority does."""
    all_agree, tied = rows["share"] == 1, rows["majority"].isna()
    bars = {
        "all agree": (all_agree.sum(), _GREEN),
        "most agree": ((~all_agree & ~tied).sum(), _BLUE),
        "no majority": (tied.sum(), _ORANGE),
    }
    if two:  # two that differ have no majority
        del bars["most agree"]
    numbers, colors = map(list, zip(*bars.values(), strict=True))
    drawn = ax.barh(list(bars), numbers, color=colors, height=0.55)
    total = max(sum(numbers), 1)
    labels = [f" {n:,}  ({100 * n / total:.0f}%)" for n in numbers]
    ax.bar_label(drawn, labels=labels, fontsize=_SMALL, color=INK)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlim(0, max(*numbers, 1) * 1.35)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.set_xlabel("rows with two values or more", fontsize=_SMALL)
    _grid(ax)


def _draw_pairs(ax: Any, columns: Sequence[str], shares: pd.Series[Any]) -> None:
    """Draw the share of equal values of each pair as a heat map."""
    names = list(columns)
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), share in zip(shares.index, shares, strict=True):
        values[names.index(b), names.index(a)] = share
    texts = {(i, j): f"{values[i, j]:.2f}" for i, j in np.argwhere(~np.isnan(values))}
    _cells(ax, np.full(values.shape, _GREEN, dtype=object), np.nan_to_num(values), texts)
    short = [t if len(t := str(c)) <= 14 else f"…{t[-13:]}" for c in names]
    ax.set_xticks(range(len(names) - 1), short[:-1], fontsize=_SMALL, rotation=30, ha="right")
    ax.set_yticks(range(1, len(names)), short[1:], fontsize=_SMALL)
    ax.set_xlim(-0.5, len(names) - 1.5)
    ax.set_ylim(len(names) - 0.5, 0.5)
    ax.set_title("share of equal values", fontsize=10)
    ink(ax)
    ax.spines[:].set_visible(False)
