"""What all plots share: a color for light and dark backgrounds, and the extra they need.

Comes in: the name of a method. Goes out: matplotlib, imported here and only when needed.
"""

from __future__ import annotations

from typing import Any

from nyu_llm_frames.errors import ConfigurationError

INK = "#848d97"  # readable on white and on black: a notebook may be either
STYLE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "axes.titlecolor"), INK),
}


def import_pyplot(method: str) -> tuple[Any, Any]:
    """Return matplotlib and its pyplot, or say how to install it."""
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigurationError(
            f'{method} needs matplotlib: pip install "nyu-llm-frames[plot]"'
        ) from None
    return mpl, plt


def ink(ax: Any) -> None:
    """Color the ticks, which exist only once drawn, and remove the top and right spines."""
    ax.tick_params(which="both", colors=INK)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_color(INK)
    ax.spines[["top", "right"]].set_visible(False)
