"""Shared formatting of scores: means that leave NaN out, numbers for JSON, Markdown tables."""

from collections.abc import Sequence

import numpy as np

from jaxseg.errors import printable


def nan_mean(values: np.ndarray) -> float:
    """The mean of the values of f64[n] that are not NaN; NaN if there are none, without a warning."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def plain(value: float) -> float | None:
    """The number for JSON: None for NaN."""
    return None if np.isnan(value) else float(value)


def percent(share: float) -> str:
    """A share of 1 in per cent with two decimals; "-" for NaN."""
    return "-" if np.isnan(share) else f"{100 * share:.2f}"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, header first; the first column is left-aligned, the others right-aligned."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) + " |"
        for row in rows
    ]
    rule = "|" + "-" * (widths[0] + 2) + "|" + "|".join("-" * (w + 1) + ":" for w in widths[1:]) + "|"
    return [lines[0], rule, *lines[1:]]
