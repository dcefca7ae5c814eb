"""Plot results: confusion, classes, agreement, and three estimates side by side.

Comes in: results. Goes out: an array of Axes. matplotlib is imported only when needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.pictures import INK, STYLE, import_pyplot, ink
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.research.result_cards import number

if TYPE_CHECKING:
    from nyu_llm_frames.research.agreement import Agreement
    from nyu_llm_frames.research.correction import Correction
    from nyu_llm_frames.research.evaluation import Evaluation

_BLUE, _GREEN, _ORANGE, _PURPLE = "#4c78a8", "#2a9d5c", "#d1603d", "#b279a2"
ESTIMATES = {"naive": _ORANGE, "human": _BLUE, "corrected": _GREEN}
_PARTS = {"precision": _BLUE, "recall": _PURPLE, "F1": _GREEN}
_MOST_TERMS = 12
_MOST_NUMBERS = 15  # classes up to which each cell has its number
_SMALL = 8


def _panels(
    method: str, sizes: Sequence[tuple[float, float]], columns: int, title: str
) -> tuple[Any, Any]:
    """Return a figure of panels in rows, and an array of its Axes."""
    _, plt = import_pyplot(method)
    rows = -(-len(sizes) // columns)
    widths = [max(w for w, _ in sizes[c::columns]) for c in range(min(columns, len(sizes)))]
    heights = [max(h for _, h in sizes[r * columns : (r + 1) * columns]) for r in range(rows)]
    figure, grid = plt.subplots(
        rows,
        len(widths),
        figsize=(sum(widths), sum(heights) + 0.5),
        width_ratios=widths,
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(title, fontsize=11)
    axes = grid.ravel()
    for ax in axes[len(sizes) :]:
        ax.remove()
    return figure, axes[: len(sizes)]


def _interval(ax: Any, y: float, low: float, value: float, high: float, color: str) -> None:
    """Draw an estimate with its interval."""
    if np.isnan(value):
        return
    if not np.isnan(low):
        ax.plot([low, high], [y, y], color=color, lw=2, solid_capstyle="butt", zorder=2)
        for end in (low, high):
            ax.plot([end, end], [y - 0.08, y + 0.08], color=color, lw=1.5, zorder=2)
    ax.plot([value], [y], "o", color=color, ms=6, zorder=3)


def _names(ax: Any, names: Sequence[Any]) -> None:
    """Write names on the left, the first on top."""
    shown = [text if len(text := str(n)) <= 28 else f"{text[:27]}…" for n in names]
    ax.set_yticks(range(len(shown)), shown, fontsize=9)
    ax.set_ylim(len(shown) - 0.4, -0.6)


def _grid(ax: Any) -> None:
    ax.grid(axis="x", color=INK, alpha=0.25, lw=0.6)
    ax.set_axisbelow(True)
    ink(ax)


# --- naive, human, corrected ------------------------------------------------------------------
def plot_correction(found: Correction) -> Any:
    """
    Draw naive, human and corrected estimates of each term, each with its interval.

    A panel for each term, since their units differ; the shares of classes have one together.
    """
    method = "Correction.plot()"
    mpl, _ = import_pyplot(method)
    shares = found.shares
    terms = list(found.table.index)
    shown = terms[:_MOST_TERMS]
    groups = [shown] if shares else [[term] for term in shown]
    columns = 1 if shares else min(len(groups), 2 if len(groups) in (2, 4) else 3)
    height = 0.45 + (0.72 * len(shown) if shares else 1.25)
    title = f"{found.formula}: {found.coded:,} codes for {count(found.rows, 'row')}"
    if len(shown) < len(terms):
        title += f", the first {len(shown)} of {len(terms)} terms"
    with mpl.rc_context(STYLE):
        _, axes = _panels(method, [(7.0 if shares else 4.2, height)] * len(groups), columns, title)
        for ax, group in zip(axes, groups, strict=True):
            _estimates(ax, found, group, shares)
    return axes


def _estimates(ax: Any, found: Correction, terms: Sequence[str], shares: bool) -> None:
    table = found.table
    step = 0.25 if shares else 1.0
    ends = []
    for row, term in enumerate(terms):
        at = list(table.index).index(term)
        for i, (which, color) in enumerate(ESTIMATES.items()):
            low, value, high = (table[which][c].iloc[at] for c in ("low", "estimate", "high"))
            y = row + (i - 1) * step if shares else i
            _interval(ax, y, low, value, high, color)
            if not np.isnan(value):
                end = value if np.isnan(high) else high
                place: dict[str, Any] = {"xytext": (0, 5), "ha": "center", "va": "bottom"}
                if shares:
                    place = {"xytext": (6, 0), "va": "center"}
                ax.annotate(
                    number(value), (end if shares else value, y), textcoords="offset points",
                    fontsize=_SMALL, color=color, **place,
                )  # fmt: skip
                ends += [value if np.isnan(low) else low, end]
    if ends:
        low, high = min(ends), max(ends)
        room = (high - low) or 1.0
        if not shares and low - 0.35 * room <= 0 <= high + 0.35 * room:
            ax.axvline(0, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
            low, high = min(low, 0.0), max(high, 0.0)
        ax.set_xlim(low - 0.08 * room, high + (0.2 if shares else 0.08) * room)
        ax.locator_params(axis="x", nbins=6)
    if shares:
        _names(ax, terms)
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=c, marker="o", lw=2, label=n) for n, c in ESTIMATES.items()]
        ax.legend(
            handles=handles, fontsize=9, frameon=False, ncols=3, loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
        )  # fmt: skip
        ax.set_xlabel(f"share of rows, {found.level * 100:g} % intervals", fontsize=_SMALL)
    else:
        _names(ax, list(ESTIMATES))
        for label, color in zip(ax.get_yticklabels(), ESTIMATES.values(), strict=True):
            label.set_color(color)
        ax.set_title(str(terms[0]), fontsize=10)
        unit = "log odds" if found.family == "logit" else "estimate"
        ax.set_xlabel(f"{unit}, {found.level * 100:g} % intervals", fontsize=_SMALL)
    _grid(ax)
    if not shares:
        for label, color in zip(ax.get_yticklabels(), ESTIMATES.values(), strict=True):
            label.set_color(color)


# --- evaluation -------------------------------------------------------------------------------
def plot_evaluation(found: Evaluation) -> Any:
    """
    Draw the confusion table as a heat map, and each class with intervals.

    Several columns of answers: their statistics beside each other. Numbers: the statistics that
    have no unit.
    """
    method = "Evaluation.plot()"
    mpl, _ = import_pyplot(method)
    title = f"{', '.join(found.predicted)} against {found.truth}"
    with mpl.rc_context(STYLE):
        if isinstance(found.metrics.index, pd.MultiIndex):
            return _compared(found, method, title)
        k = len(found.classes)
        if not len(found.confusion):
            sizes = [(5.5, 0.4 + 0.4 * len(found.metrics))]
            sizes += [(5.5, 0.6 + 0.62 * min(k, 30))] if k else []
            _, axes = _panels(method, sizes, 2, title)
            _metrics(axes[0], found.metrics.drop(_UNITS, errors="ignore"), found.level)
            if k:
                _class_intervals(axes[1], found)
            return axes
        side = min(max(2.6, 0.55 * k + 1.4), 9.0)
        _, axes = _panels(method, [(side + 1.2, side), (5.0, 0.6 + 0.62 * min(k, 30))], 2, title)
        _heat(axes[0], found.confusion)
        _class_intervals(axes[1], found)
    return axes


_UNITS = ["bias", "MAE", "RMSE"]


def _heat(ax: Any, table: pd.DataFrame) -> None:
    """Color cells by their share of the row: correct green, wrong orange, unanswered gray."""
    from matplotlib.colors import to_rgb

    values = table.to_numpy(dtype=np.float64)
    total = values.sum(1, keepdims=True)
    share = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    k = len(table)
    rgba = np.empty((*values.shape, 4))
    rgba[..., :3] = to_rgb(_ORANGE)
    rgba[np.arange(k), np.arange(k), :3] = to_rgb(_GREEN)
    rgba[:, k, :3] = to_rgb(INK)
    rgba[..., 3] = np.where(values > 0, 0.06 + 0.94 * share, 0.0)
    ax.imshow(rgba, aspect="auto", interpolation="nearest")
    whole = bool((values == np.round(values)).all())
    if k <= _MOST_NUMBERS:
        for i in range(k):
            for j in range(k + 1):
                if values[i, j]:
                    text = f"{values[i, j]:,.0f}" if whole else f"{values[i, j]:,.1f}"
                    ax.text(j, i, text, ha="center", va="center", fontsize=9,
                            color="white" if share[i, j] > 0.4 else INK)  # fmt: skip
    short = [t if len(t := str(c)) <= 14 else f"{t[:13]}…" for c in table.columns]
    turn = 90 if k > 8 else 30 if max(map(len, short)) > 6 else 0
    ax.set_xticks(
        range(k + 1), short, fontsize=9, rotation=turn, ha="right" if turn == 30 else "center"
    )
    ax.set_yticks(range(k), [t if len(t := str(c)) <= 14 else f"{t[:13]}…" for c in table.index],
                  fontsize=9)  # fmt: skip
    ax.set_xticks(np.arange(k + 2) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=INK, alpha=0.25, lw=0.6)
    ax.set_xlabel("answer", fontsize=9)
    ax.set_ylabel("hand code", fontsize=9)
    ax.set_title("Rows, colored by the share of each hand code", fontsize=10)
    ink(ax)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)


def _class_intervals(ax: Any, found: Evaluation) -> None:
    from matplotlib.lines import Line2D

    classes = found.classes.head(30)
    for row in range(len(classes)):
        for i, (part, color) in enumerate(_PARTS.items()):
            low, value, high = (classes[c].iloc[row] for c in (f"{part}_low", part, f"{part}_high"))
            _interval(ax, row + (i - 1) * 0.24, low, value, high, color)
    coded = [
        f"{label}  (n {n:,})" for label, n in zip(classes.index, classes["coded"], strict=True)
    ]
    _names(ax, coded)
    ax.set_xlim(-0.02, 1.02)
    handles = [Line2D([], [], color=c, marker="o", lw=2, label=p) for p, c in _PARTS.items()]
    ax.legend(handles=handles, fontsize=9, frameon=False, ncols=3, loc="lower center",
              bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    ax.set_xlabel(f"{found.level * 100:g} % intervals", fontsize=_SMALL)
    _grid(ax)


def _metrics(ax: Any, metrics: pd.DataFrame, level: float, color: str = _BLUE) -> None:
    """Draw statistics without a unit, one below the other."""
    for row in range(len(metrics)):
        low, value, high = (metrics[c].iloc[row] for c in ("low", "estimate", "high"))
        _interval(ax, row, low, value, high, color)
        if not np.isnan(value):
            end = value if np.isnan(high) else high
            ax.annotate(f"  {number(value)}", (end, row), va="center", fontsize=_SMALL, color=color)
    _names(ax, list(metrics.index))
    left, right = metrics["low"].min(), metrics["high"].max()
    ax.set_xlim(min(0.0, left if left == left else 0.0) - 0.02, max(1.0, right) + 0.14)
    ax.set_xlabel(f"{level * 100:g} % intervals", fontsize=_SMALL)
    _grid(ax)


def _compared(found: Evaluation, method: str, title: str) -> Any:
    """A panel for each statistic, the columns of answers one below the other."""
    metrics = found.metrics
    names = list(dict.fromkeys(metrics.index.get_level_values(1)))
    height = 0.6 + 0.4 * len(found.predicted)
    _, axes = _panels(method, [(4.0, height)] * len(names), min(3, len(names)), title)
    for ax, name in zip(axes, names, strict=True):
        part = metrics.xs(name, level=1)
        for row in range(len(part)):
            low, value, high = (part[c].iloc[row] for c in ("low", "estimate", "high"))
            _interval(ax, row, low, value, high, _BLUE)
        _names(ax, list(part.index))
        ax.set_title(name, fontsize=10)
        _grid(ax)
    return axes


# --- agreement --------------------------------------------------------------------------------
def plot_agreement(found: Agreement) -> Any:
    """Draw the coefficients with intervals, rows by their agreement, and the pairs."""
    method = "Agreement.plot()"
    mpl, _ = import_pyplot(method)
    k = len(found.columns)
    sizes = [(4.6, 0.5 + 0.42 * max(len(found.metrics), 4)), (4.2, 2.2)]
    if 2 < k <= 12:
        sizes.append((max(3.0, 0.6 * k + 1.2), max(2.2, 0.5 * k + 0.8)))
    title = f"Agreement of {count(k, 'column')} in {count(len(found.rows), 'row')}"
    with mpl.rc_context(STYLE):
        _, axes = _panels(method, sizes, 3, title)
        _metrics(axes[0], found.metrics, found.level)
        _shares(axes[1], found.rows, k == 2)
        if len(sizes) > 2:
            _pair_heat(axes[2], found)
    return axes


_LEVELS = (_GREEN, _BLUE, _ORANGE)


def _shares(ax: Any, rows: pd.DataFrame, two: bool) -> None:
    share = rows["share"][rows["answered"] > 1].to_numpy(dtype=np.float64)
    tied = rows["majority"].isna()[rows["answered"] > 1].to_numpy(dtype=bool)
    numbers = [int((share == 1).sum()), int(((share < 1) & ~tied).sum()), int(tied.sum())]
    parts = list(zip(("all agree", "most agree", "no majority"), numbers, _LEVELS, strict=True))
    if two:  # two that differ have no majority
        del parts[1]
    names, numbers, colors = map(list, zip(*parts, strict=True))
    bars = ax.barh(names, numbers, color=colors, height=0.55)
    total = max(sum(numbers), 1)
    labels = [f" {n:,}  ({100 * n / total:.0f} %)" for n in numbers]
    ax.bar_label(bars, labels=labels, fontsize=_SMALL, color=INK)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, max(*numbers, 1) * 1.35)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.set_xlabel("rows with two values or more", fontsize=_SMALL)
    _grid(ax)


def _pair_heat(ax: Any, found: Agreement) -> None:
    names = list(found.columns)
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), share in zip(found.pairs.index, found.pairs["agreement"], strict=True):
        values[names.index(b), names.index(a)] = share
    from matplotlib.colors import to_rgb

    rgba = np.zeros((*values.shape, 4))
    rgba[..., :3] = to_rgb(_GREEN)
    rgba[..., 3] = np.nan_to_num(values)
    ax.imshow(rgba, aspect="auto", interpolation="nearest")
    for i, j in np.argwhere(~np.isnan(values)):
        ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=9,
                color="white" if values[i, j] > 0.4 else INK)  # fmt: skip
    short = [t if len(t := str(c)) <= 14 else f"…{t[-13:]}" for c in names]
    ax.set_xticks(range(len(names) - 1), short[:-1], fontsize=_SMALL, rotation=30, ha="right")
    ax.set_yticks(range(1, len(names)), short[1:], fontsize=_SMALL)
    ax.set_xlim(-0.5, len(names) - 1.5)
    ax.set_ylim(len(names) - 0.5, 0.5)
    ax.set_title("share of equal values", fontsize=10)
    ink(ax)
    ax.spines[:].set_visible(False)
