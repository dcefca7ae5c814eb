"""Show results: text for consoles, a card for notebooks.

Comes in: results. Goes out: strings, with all values of the user escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from nyu_llm_frames._shared.cards import CARD_STYLE, facts_table
from nyu_llm_frames._shared.wording import count, printable

if TYPE_CHECKING:
    from nyu_llm_frames.research.agreement import Agreement
    from nyu_llm_frames.research.correction import Correction
    from nyu_llm_frames.research.evaluation import Evaluation

_MOST_ROWS = 30


@dataclass(frozen=True, slots=True)
class Card:
    """A result as it is shown.

    Attributes
    ----------
    title : str
    facts : list of (str, str)
    tables : list of (str, pandas.DataFrame)
        A heading, and a table of texts that are ready to be shown.
    notes : sequence of str
    """

    title: str
    facts: list[tuple[str, str]]
    tables: list[tuple[str, pd.DataFrame]]
    notes: Sequence[str] = field(default=())

    def text(self) -> str:
        """Return the text for consoles."""
        lines = [self.title, *(f"  {name:<12} {value}" for name, value in self.facts)]
        for heading, table in self.tables:
            lines += ["", *([heading] if heading else [])]
            lines += ["  " + line.rstrip() for line in _head(table).to_string().splitlines()]
            if len(table) > _MOST_ROWS:
                lines.append(f"  ... {len(table) - _MOST_ROWS:,} more")
        if self.notes:
            lines += ["", *(f"  note: {printable(note)}" for note in self.notes)]
        return "\n".join(lines)

    def html(self) -> str:
        """Return the HTML for notebooks."""
        parts = [CARD_STYLE, '<div class="nlf">', f"<h4>{escape(self.title)}</h4>"]
        if self.facts:
            parts.append(facts_table(self.facts))
        for heading, table in self.tables:
            if heading:
                parts.append(f'<div class="dim">{escape(heading)}</div>')
            parts.append(f'<div class="wide">{_table(_head(table))}</div>')
            if len(table) > _MOST_ROWS:
                parts.append(f'<div class="dim">{len(table) - _MOST_ROWS:,} more</div>')
        if self.notes:
            items = "".join(f"<li>{escape(printable(note))}</li>" for note in self.notes)
            parts.append(f'<div class="dim">Notes</div><ul>{items}</ul>')
        return "\n".join([*parts, "</div>"])


def _head(table: pd.DataFrame) -> pd.DataFrame:
    return table.head(_MOST_ROWS)


def _table(table: pd.DataFrame) -> str:
    names = [str(n or "") for n in table.index.names]
    head = "".join(f"<th>{escape(n)}</th>" for n in (*names, *map(str, table.columns)))
    body = []
    for key, cells in zip(table.index, table.itertuples(index=False), strict=True):
        keys = key if isinstance(key, tuple) else (key,)
        row = "".join(f"<td>{escape(printable(str(k)))}</td>" for k in keys)
        row += "".join(
            f'<td class="{"n" if _numeric(c) else "dim"}">{escape(printable(c))}</td>'
            for c in map(str, cells)
        )
        body.append(f"<tr>{row}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _numeric(text: str) -> bool:
    return bool(text) and (text[0].isdigit() or (text[0] in "-−<[$" and text[1:2].isdigit()))


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


def p_value(p: Any) -> str:
    """Write a p value."""
    return "–" if pd.isna(p) else "<.001" if p < 0.001 else f"{p:.3f}"


def interval(low: Any, high: Any) -> str:
    """Write an interval."""
    return "" if pd.isna(low) or pd.isna(high) else f"[{number(low)}, {number(high)}]"


def _percent(level: float) -> str:
    return f"{level * 100:g} %"


def metric_texts(metrics: pd.DataFrame, level: float) -> pd.DataFrame:
    """Return statistics as texts."""
    return pd.DataFrame(
        {
            "estimate": [number(v) for v in metrics["estimate"]],
            _percent(level): [
                interval(a, b) for a, b in zip(metrics["low"], metrics["high"], strict=True)
            ],
            "n": [f"{n:,}" for n in metrics["n"]],
            "note": metrics["note"].tolist(),
        },
        index=metrics.index,
    )


def evaluation_card(found: Evaluation) -> Card:
    """Return the display of an evaluation."""
    every = found.coverage if len(found.predicted) == 1 else found.coverage.groupby(level=0).first()
    rows, coded, answered = (int(every.iloc[0][c]) for c in ("rows", "coded", "answered"))
    facts = [
        ("rows", f"{rows:,}, of which {coded:,} coded"),
        ("answered", f"{answered:,} of the coded ones"),
        ("kind", found.kind),
    ]
    if len(found.predicted) > 1:
        facts = [facts[0], facts[2]]
    tables = [("", metric_texts(found.metrics, found.level))]
    if len(found.classes):
        classes = found.classes
        shown = {c: [number(v) for v in classes[c]] for c in ("support", "predicted")}
        shown = {"coded": [f"{n:,}" for n in classes["coded"]], **shown}
        for name in ("precision", "recall", "F1"):
            shown[name] = [
                f"{number(v)} {interval(a, b)}".strip()
                for v, a, b in zip(
                    classes[name], classes[f"{name}_low"], classes[f"{name}_high"], strict=True
                )
            ]
        shown["note"] = classes["note"].tolist()
        tables.append(("Classes", pd.DataFrame(shown, index=classes.index)))
    if len(found.confusion) and len(found.confusion) <= 12 and len(found.predicted) == 1:
        tables.append(("Confusion: truth by answer", found.confusion.map(_count)))
    if found.comparison is not None and len(found.comparison):
        tables.append(("Comparison", _comparison_texts(found.comparison, found.level)))
    title = f"{', '.join(found.predicted)} against {found.truth}"
    return Card(title, facts, tables, found.notes)


def _count(value: Any) -> str:
    return f"{value:,.0f}" if math.isclose(value, round(value)) else f"{value:,.1f}"


def _comparison_texts(table: pd.DataFrame, level: float) -> pd.DataFrame:
    out = table[["n", "both_right", "only_a", "only_b", "both_wrong"]].map(_count)
    out["difference"] = [number(v) for v in table["difference"]]
    out[_percent(level)] = [
        interval(a, b) for a, b in zip(table["low"], table["high"], strict=True)
    ]
    out["McNemar p"] = [p_value(p) for p in table["mcnemar_p"]]
    out["Holm p"] = [p_value(p) for p in table["holm_p"]]
    return out


def agreement_card(found: Agreement) -> Card:
    """Return the display of an agreement."""
    rows = found.rows
    tied = int((rows["majority"].isna() & (rows["answered"] > 0)).sum())
    facts = [
        ("columns", ", ".join(found.columns)),
        ("rows", f"{len(rows):,}"),
        ("unanimous", f"{int(((rows['share'] == 1) & (rows['answered'] > 1)).sum()):,}"),
        ("tied", f"{tied:,}"),
        ("kind", found.kind),
    ]
    pairs = found.pairs
    shown = {
        "n": [f"{n:,}" for n in pairs["n"]],
        "agreement": [number(v) for v in pairs["agreement"]],
        _percent(found.level): [
            interval(a, b) for a, b in zip(pairs["low"], pairs["high"], strict=True)
        ],
    }
    last = str(pairs.columns[-1])
    shown[last] = [number(v) for v in pairs[last]]
    tables = [
        ("", metric_texts(found.metrics, found.level)),
        ("Pairs", pd.DataFrame(shown, index=pairs.index)),
    ]
    return Card(f"Agreement of {count(len(found.columns), 'column')}", facts, tables, found.notes)


def correction_card(found: Correction) -> Card:
    """Return the display of a correction: always all three estimates."""
    table = found.table
    shown: dict[str, list[str]] = {}
    for which in ("naive", "human", "corrected"):
        part = table[which]
        shown[which] = [
            f"{number(e)} ({number(s)})" for e, s in zip(part["estimate"], part["se"], strict=True)
        ]
        shown[f"{which} {_percent(found.level)}"] = [
            interval(a, b) for a, b in zip(part["low"], part["high"], strict=True)
        ]
    shown["p"] = [p_value(p) for p in table["corrected"]["p"]]
    shown["lambda"] = [f"{v:.2f}" for v in table["lambda"]]
    facts = [
        ("family", found.family),
        ("rows", f"{found.rows:,}, of which {found.coded:,} coded"),
        ("clusters", f"{found.clusters:,}"),
    ]
    tables = [("Estimates (standard errors)", pd.DataFrame(shown, index=table.index))]
    return Card(found.formula, facts, tables, found.notes)
