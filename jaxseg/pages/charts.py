"""Charts of a page as SVG: lines, points and bars, whose values the page shows at the pointer or by the arrow keys."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxseg.pages.frame import escape

WIDTH, HEIGHT = 420.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 10.0, 38.0
_MOST = 400  # points of a line: more than the pixels that it has
_HUES = 8  # line styles of page.css


class Series(NamedTuple):
    """A line, points or bars: (x, y) pairs, and a name for each point where it has one."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: Literal["line", "points", "bars"] = "line"
    labels: Sequence[str] = ()
    hidden: bool = False
    plain: bool = False
    """Whether it is a thin grey line without values, such as a diagonal."""
    hue: int | None = None


@dataclass(frozen=True)
class Axis:
    """An axis: its name, its ends (None: those of the values), and whether it is logarithmic to the base 2 or 10."""

    name: str
    low: float | None = None
    high: float | None = None
    log: Literal[0, 2, 10] = 0
    form: str = "{:.4g}"


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], note: str = "") -> str:
    """Returns a figure as HTML: the SVG, a legend whose buttons hide and show a series, and the line of values.

    Points that are not finite, or not above 0 on a logarithmic axis, are left out.

    Args:
        title: what it shows, as text.
        x, y: the axes.
        series: what is drawn, in this order.
        note: text under it.
    """
    kept = [each._replace(**_thinned(_finite(each, x, y))) for each in series]
    kept = [each for each in kept if each.points]
    if not [each for each in kept if not each.plain]:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p>Nothing was logged.</p></figure>'
    to_x, ticks_x = _scale(x, [p[0] for each in kept for p in each.points], _LEFT, WIDTH - _RIGHT)
    to_y, ticks_y = _scale(y, [p[1] for each in kept for p in each.points], HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, ticks_x, ticks_y)]
    legend, values, number = [], [], 0
    for each in kept:
        hue = (number if each.hue is None else each.hue) % _HUES
        places = [(to_x(px), to_y(py)) for px, py in each.points]
        if each.plain:
            parts.append(f'<g class="plain">{_line(places)}</g>')
            continue
        off = " off" if each.hidden else ""
        draw = _DRAW[each.kind]
        parts.append(f'<g class="h{hue}{off}" data-series="{number}">{draw(places)}</g>')
        pressed = "false" if each.hidden else "true"
        legend.append(
            f'<button type="button" class="h{hue}" data-series="{number}" aria-pressed="{pressed}">'
            f'<svg viewBox="0 0 22 10" aria-hidden="true">{_key(each.kind)}</svg>{escape(each.name)}</button>'
        )
        values.append(
            {
                "name": each.name,
                "at": [[round(px, 1), round(py, 1)] for px, py in places],
                "x": [x.form.format(px) for px, _ in each.points],
                "y": [y.form.format(py) for _, py in each.points],
                "labels": list(each.labels),
            }
        )
        number += 1
    said = json.dumps({"x": x.name, "y": y.name, "free": any(s.kind == "points" for s in kept), "series": values})
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<figure class="chart" data-chart="{escape(said)}"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" tabindex="0" role="img" '
        f'aria-label="{escape(title)}: {escape(y.name)} by {escape(x.name)}. The arrow keys read the values.">'
        f'{"".join(parts)}<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" visibility="hidden"/></svg>'
        f'<div class="legend">{"".join(legend)}</div><output aria-live="polite">&nbsp;</output>{below}</figure>'
    )


def _finite(series: Series, x: Axis, y: Axis) -> Series:
    def drawn(value: float, axis: Axis) -> bool:
        return math.isfinite(value) and (not axis.log or value > 0)

    keep = [i for i, (px, py) in enumerate(series.points) if drawn(px, x) and drawn(py, y)]
    labels = [series.labels[i] for i in keep] if series.labels else ()
    return series._replace(points=[series.points[i] for i in keep], labels=labels)


def _thinned(series: Series) -> dict[str, list]:
    """Returns at most `_MOST` points of a line, evenly spaced with the last."""
    n = len(series.points)
    if series.kind != "line" or n <= _MOST:
        return {"points": list(series.points), "labels": list(series.labels)}
    keep = [round(i * (n - 1) / (_MOST - 1)) for i in range(_MOST)]
    return {"points": [series.points[i] for i in keep], "labels": [series.labels[i] for i in keep if series.labels]}


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list]:
    """Returns the function from values to places, and the (place, text) of the ticks."""
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if axis.log:
        bottom, top = math.log(low, axis.log), math.log(high, axis.log)
        if axis.log == 2 or top - bottom < 0.3:
            bottom, top = bottom - 0.2, top + 0.2

        def to_log(value: float) -> float:
            return start + (math.log(value, axis.log) - bottom) / (top - bottom) * (end - start)

        powers = range(math.ceil(bottom - 1e-9), math.floor(top + 1e-9) + 1)
        powers = powers[:: max(1, -(-len(powers) // 7))]
        ticks = [float(axis.log) ** p for p in powers]
        if len(ticks) < 2:
            ticks = _ticks(float(axis.log) ** bottom, float(axis.log) ** top)
        return to_log, [(to_log(t), _short(t)) for t in ticks]
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    elif axis.low is None and axis.high is None:
        low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)

    def to(value: float) -> float:
        return start + (value - low) / (high - low) * (end - start)

    return to, [(to(t), _short(t)) for t in _ticks(low, high)]


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns round numbers between two ends."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw - 1e-12 * size)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.{1 if abs(value) < 10 * unit else 0}f}".removesuffix(".0") + name
    if 0 < abs(value) < 0.01:
        return f"{value:.2e}".replace("e-0", "e-").replace(".00e", "e").replace("0e", "e")
    return f"{value:.3g}"


def _grid(x: Axis, y: Axis, ticks_x: list, ticks_y: list) -> str:
    bottom = HEIGHT - _BOTTOM
    lines = [f'<path class="grid" d="M{_LEFT} {p:.1f}H{WIDTH - _RIGHT}"/>' for p, _ in ticks_y]
    lines += [f'<path class="grid" d="M{p:.1f} {_TOP}V{bottom}"/>' for p, _ in ticks_x]
    texts = [f'<text x="{_LEFT - 6}" y="{p + 4:.1f}" class="end">{escape(t)}</text>' for p, t in ticks_y]
    texts += [f'<text x="{p:.1f}" y="{bottom + 15}" class="mid">{escape(t)}</text>' for p, t in ticks_x]
    middle = (_TOP + bottom) / 2
    texts += [
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 6}" class="mid name">{escape(x.name)}</text>',
        f'<text transform="translate(12 {middle}) rotate(-90)" class="mid name">{escape(y.name)}</text>',
    ]
    return f'<g aria-hidden="true">{"".join([*lines, *texts])}</g>'


def _line(places: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    marks = _points(places) if len(places) <= 30 else ""
    return f'<path class="line" d="{path}"/>{marks}'


def _points(places: Sequence[tuple[float, float]]) -> str:
    return "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)


def _bars(places: Sequence[tuple[float, float]]) -> str:
    bottom, room = HEIGHT - _BOTTOM, WIDTH - _RIGHT - _LEFT
    xs = sorted({x for x, _ in places})
    gap = min((b - a for a, b in itertools.pairwise(xs)), default=room / 2)
    width = max(1.0, 0.86 * gap)
    return "".join(
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(bottom - y, 0):.1f}"/>'
        for x, y in places
    )


def _key(kind: str) -> str:
    if kind == "bars":
        return '<rect x="4" y="1" width="14" height="9"/>'
    return '<circle cx="11" cy="5" r="3.5"/>' if kind == "points" else '<path class="line" d="M1 5H21"/>'


_DRAW: dict[str, Callable[[Sequence[tuple[float, float]]], str]] = {"line": _line, "points": _points, "bars": _bars}
