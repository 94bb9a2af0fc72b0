"""Tables of a page: they are sorted by the buttons in their heads, and filtered by a field above them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxseg.pages.frame import escape

MOST_ROWS = 2000
"""Rows that a page shows of a table; a line says how many more there are."""


class Cell(NamedTuple):
    """A cell: its HTML, and what it is sorted by, text or a number."""

    html: str
    sort: str | float


def text(value: object) -> Cell:
    """Returns the cell of a text of anyone."""
    return Cell(escape(value), str(value))


def number(value: float, form: str = "{:.2f}", unit: str = "") -> Cell:
    """Returns the cell of a number; "–" for NaN, which is sorted last."""
    if math.isnan(value):
        return Cell("–", math.nan)
    return Cell(escape(form.format(value) + unit), value)


def share(value: float) -> Cell:
    """Returns the cell of a share of 1, in per cent."""
    return number(100 * value)


def swatch(name: str, color: Sequence[int]) -> Cell:
    """Returns the cell of a class: its colour and its name."""
    red, green, blue = map(int, color)
    return Cell(f'<i class="swatch" style="background:rgb({red},{green},{blue})"></i>{escape(name)}', name)


def bar(value: float, low: float, high: float) -> Cell:
    """Returns a cell that draws a share in [0, 1] as a bar, with its interval."""
    if math.isnan(value):
        return Cell("", math.nan)
    line = "" if math.isnan(low) else f'<path d="M{100 * low:.1f} 7H{100 * high:.1f}" class="whisker"/>'
    return Cell(
        f'<svg class="bar" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * value:.1f}" height="14"/>{line}</svg>',
        value,
    )


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, filtered: bool | None = None) -> str:
    """Returns a table as HTML.

    Args:
        caption: what it is, as text.
        columns: the names of the columns, as text.
        rows: their cells; the first cell of each is its head.
        filtered: whether there is a field that filters the rows; None: where there are more than 12.
    """
    shown, more = rows[:MOST_ROWS], len(rows) - MOST_ROWS
    numeric = [all(not isinstance(row[i].sort, str) for row in shown) for i in range(len(columns))]
    head = "".join(
        f'<th scope="col"{_class(numeric[i])}><button type="button">{escape(name)}</button></th>'
        for i, name in enumerate(columns)
    )
    body = "\n".join(f"<tr>{''.join(_cell(cell, i, numeric[i]) for i, cell in enumerate(row))}</tr>" for row in shown)
    field = ""
    if filtered or (filtered is None and len(shown) > 12):
        field = (
            f'<p class="tools"><label>Filter <input type="search" aria-label="Filter: {escape(caption)}"></label> '
            '<span role="status"></span></p>'
        )
    rest = f"<p>{more} more rows are not listed.</p>" if more > 0 else ""
    return (
        f'<div class="table">{field}<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
        f"</div>{rest}</div>"
    )


def _cell(cell: Cell, column: int, numeric: bool) -> str:
    sort = "" if not isinstance(cell.sort, str) and math.isnan(cell.sort) else escape(cell.sort)
    if column == 0:
        return f'<th scope="row"{_class(numeric)} data-v="{sort}">{cell.html}</th>'
    return f'<td{_class(numeric)} data-v="{sort}">{cell.html}</td>'


def _class(numeric: bool) -> str:
    return ' class="n"' if numeric else ""
