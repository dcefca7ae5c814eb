"""Pictures of results."""

from __future__ import annotations

from typing import Any


def plot_evaluation(found: Any) -> Any:
    """Draw an evaluation."""


def plot_agreement(found: Any) -> Any:
    """Draw an agreement."""


def plot_correction(found: Any) -> Any:
    """Draw a correction."""
