"""Show results: text for consoles, a card for notebooks.

Comes in: facts and tables. Goes out: strings, with all values of the user escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from nyu_llm_frames._shared.cards import CARD_STYLE, facts_table
from nyu_llm_frames._shared.wording import printable

_MOST_ROWS = 30


@dataclass(frozen=True, slots=True)
class Card:
    """A result as it is shown."""

    title: str
    facts: list[tuple[str, str]]
    tables: list[tuple[str, pd.DataFrame]]  # a heading, and texts that are ready to be shown
    notes: Sequence[str]

    def text(self) -> str:
        """Return the text for consoles."""
        lines = [self.title, *(f"  {name:<12} {value}" for name, value in self.facts)]
        for heading, table in self.tables:
            lines += ["", *([heading] if heading else [])]
            shown = table.head(_MOST_ROWS).to_string()
            lines += ["  " + line.rstrip() for line in shown.splitlines()]
            if len(table) > _MOST_ROWS:
                lines.append(f"  ... {len(table) - _MOST_ROWS:,} more")
        if self.notes:
            lines += ["", *(f"  note: {printable(note)}" for note in self.notes)]
        return "\n".join(lines)

    def html(self) -> str:
        """Return the HTML for notebooks."""
        parts = [CARD_STYLE, '<div class="nlf">', f"<h4>{escape(self.title)}</h4>"]
        parts.append(facts_table(self.facts))
        for heading, table in self.tables:
            if heading:
                parts.append(f'<div class="dim">{escape(heading)}</div>')
            parts.append(f'<div class="wide">{_html_table(table.head(_MOST_ROWS))}</div>')
            if len(table) > _MOST_ROWS:
                parts.append(f'<div class="dim">{len(table) - _MOST_ROWS:,} more</div>')
        if self.notes:
            items = "".join(f"<li>{escape(printable(note))}</li>" for note in self.notes)
            parts.append(f'<div class="dim">Notes</div><ul>{items}</ul>')
        return "\n".join([*parts, "</div>"])


class Result:
    """What all results can do: show themselves as text, and as a card in notebooks."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()


def _html_table(table: pd.DataFrame) -> str:
    names = [str(n or "") for n in table.index.names]
    head = "".join(f"<th>{escape(n)}</th>" for n in (*names, *map(str, table.columns)))
    body = []
    for key, cells in zip(table.index, table.itertuples(index=False), strict=True):
        keys = key if isinstance(key, tuple) else (key,)
        row = "".join(f"<td>{escape(printable(str(k)))}</td>" for k in keys)
        row += "".join(
            f'<td class="{"n" if _is_number(c) else "dim"}">{escape(printable(c))}</td>'
            for c in map(str, cells)
        )
        body.append(f"<tr>{row}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _is_number(text: str) -> bool:
    return bool(text) and (text[0].isdigit() or (text[0] in "-−<[$" and text[1:2].isdigit()))


# --- values as texts --------------------------------------------------------------------------
def number(value: Any) -> str:
    """Write a statistic with as many digits as a reader needs."""
    if pd.isna(value):
        return "–"
    value = float(value)
    if value == round(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}"


def numbers(values: Iterable[Any]) -> list[str]:
    """Write statistics."""
    return list(map(number, values))


def p_value(p: Any) -> str:
    """Write a p value."""
    return "–" if pd.isna(p) else "<.001" if p < 0.001 else f"{p:.3f}"


def intervals(table: Any, prefix: str = "") -> list[str]:
    """Write the intervals in the columns ``low`` and ``high`` of a table."""
    return [
        "" if pd.isna(low) or pd.isna(high) else f"[{number(low)}, {number(high)}]"
        for low, high in zip(table[f"{prefix}low"], table[f"{prefix}high"], strict=True)
    ]


def percent(level: float) -> str:
    """Write a level: ``95%``."""
    return f"{level * 100:g}%"


def metric_texts(metrics: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return statistics as texts."""
    return pd.DataFrame(
        {
            "estimate": numbers(metrics["estimate"]),
            percent(level): intervals(metrics),
            "n": [f"{n:,}" for n in metrics["n"]],
            "note": metrics["note"].tolist(),
        },
        index=metrics.index,
    )
