"""What all plots share: a color for light and dark backgrounds, and a figure of panels.

Comes in: the name of a method, and sizes. Goes out: Axes. matplotlib is imported only when needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nyu_llm_frames.errors import ConfigurationError

INK = "#848d97"  # readable on white and on black: a notebook may be either
STYLE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "axes.titlecolor"), INK),
}


@contextmanager
def panels(
    method: str, sizes: Sequence[tuple[float, float]], columns: int, title: str
) -> Iterator[Any]:
    """Give the Axes of a figure of panels in rows, or say how to install matplotlib."""
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigurationError(
            f'{method} needs matplotlib: pip install "nyu-llm-frames[plot]"'
        ) from None
    rows = -(-len(sizes) // columns)
    widths = [max(w for w, _ in sizes[c::columns]) for c in range(min(columns, len(sizes)))]
    heights = [max(h for _, h in sizes[r * columns : (r + 1) * columns]) for r in range(rows)]
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows,
            len(widths),
            figsize=(sum(widths), sum(heights) + 0.5),
            width_ratios=widths,
            height_ratios=heights,
            layout="constrained",  # keeps long names and dates inside the figure
            squeeze=False,
        )
        figure.suptitle(title, fontsize=11)
        axes = grid.ravel()
        for ax in axes[len(sizes) :]:
            ax.remove()
        yield axes[: len(sizes)]


def ink(ax: Any) -> None:
    """Color the ticks, which exist only once drawn, and remove the top and right spines."""
    ax.tick_params(which="both", colors=INK)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_color(INK)
    ax.spines[["top", "right"]].set_visible(False)
