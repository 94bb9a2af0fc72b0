"""The sections of a report that are about numbers, as HTML."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg import metrics
from jaxseg.config import KEYS, ConfigDict, flatten
from jaxseg.errors import counted
from jaxseg.metrics.intervals import ImageCounts, Interval
from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import escape
from jaxseg.pages.tables import Cell, bar, number, share, swatch, table, text
from jaxseg.pictures.colors import Colors
from jaxseg.report.collecting import Objects

_MATRIX = 40
"""Classes up to which the whole confusion matrix is shown."""
_NAMED = 12
"""Classes up to which its cells have their number written out."""
_LINES = 8
"""Classes that a chart draws at first."""


def curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the curves of runs, {name: lines of log.jsonl}; of a single run every split is a line of its own."""
    alone = len(logs) == 1
    panels = (("loss", "loss", 1), ("mean_iou", "mIoU in per cent", 100), ("learning_rate", "learning rate", 1))
    charts = []
    for key, name, scale in panels:
        series = []
        for number_, (run, log) in enumerate(logs.items()):
            splits = sorted(dict.fromkeys(str(r["split"]) for r in log if "split" in r), key=lambda s: s != "train")
            for split in splits:
                points = [(r["step"], scale * r[key]) for r in log if _has(r, key) and r["split"] == split]
                label = split if alone else f"{run}, {split}"
                hidden = not alone and split == "train" and key != "learning_rate"
                hue = None if alone else number_
                series.append(Series(label, points, hidden=hidden, hue=hue))
        low, high = (0.0, 100.0) if key == "mean_iou" else (0.0, None) if key == "learning_rate" else (None, None)
        values = [y for each in series for _, y in each.points]
        logarithmic = key == "loss" and bool(values) and min(values) > 0 and max(values) > 10 * min(values)
        axis = Axis(name, low, high, log=10 if logarithmic else 0)
        charts.append(chart(name, Axis("step", form="{:.0f}"), axis, series))
    return f'<div class="charts">{"".join(charts)}</div>'


def _has(record: Mapping[str, Any], key: str) -> bool:
    known = "split" in record and key in record and isinstance(record[key], int | float)
    return known and math.isfinite(record[key])


def classes(
    result: metrics.Scores,
    interval: Interval,
    counts: ImageCounts,
    names: Sequence[str],
    colors: Colors,
    unit: str = "image",
) -> str:
    """Returns the table by class.

    Args:
        result: the scores of the split.
        interval: of the IoU of each class and of their mean; of many classes of the mean alone.
        counts: of its images.
        names, colors: of the classes.
        unit: what the interval draws, "image" or "group".
    """
    columns = ("class", "IoU %", "from", "to", "0 to 100 %", "precision %", "recall %", "F1 %", "pixels %", "images")
    images, total, rows = counts.images_of(), max(int(result.support.sum()), 1), []
    occur = range(len(names)) if len(names) <= 255 else np.flatnonzero(~np.isnan(result.iou)).tolist()
    for i in occur:
        low, high = (float(ends[i]) if len(ends) > i + 1 else math.nan for ends in (interval.low, interval.high))
        numbers = (result.precision[i], result.recall[i], result.f1[i], result.support[i] / total)
        rows.append(
            [
                swatch(names[i], colors[i]),
                share(result.iou[i]),
                share(low),
                share(high),
                bar(result.iou[i], low, high),
                *map(share, map(float, numbers)),
                number(int(images[i]), "{:d}"),
            ]
        )
    note = (
        f"<p>The interval of each IoU is meant to hold the IoU of all images of this kind with {interval.level:.0%} "
        f"probability: {interval.draws} draws of {counted(interval.images, unit)} with replacement. It says nothing "
        f"about another training, and is too narrow for a class of few {unit}s.</p>"
    )
    missing = "" if len(rows) == len(names) else f"<p>{len(rows)} of {counted(len(names), 'class')} occur.</p>"
    return table("Scores by class", columns, rows) + missing + note


def confusion(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Returns the confusion matrix i64[k,k] as a table, of many classes the largest confusions alone."""
    if matrix.shape[0] != matrix.shape[1]:
        return "<p>Of so many classes only the right, true and predicted pixels of each are counted.</p>"
    true = matrix.sum(axis=1)
    shares = matrix / np.maximum(true, 1)[:, None]
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = [int(i) for i in np.argsort(-wrong, axis=None)[:20] if wrong.flat[i]]
    pairs = [divmod(i, len(names)) for i in order]
    rows = [
        [text(names[i]), text(names[j]), number(int(wrong[i, j]), "{:,d}"), share(float(shares[i, j]))]
        for i, j in pairs
    ]
    columns = ("true class", "predicted as", "pixels", "% of the true class")
    largest = table("The largest confusions", columns, rows) if rows else "<p>No pixel is wrong.</p>"
    if len(names) > _MATRIX:
        return largest
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            value = float(shares[i, j])
            shown = f"{100 * value:.1f}" if len(names) <= _NAMED and true[i] else ""
            title = f"{name} predicted as {other}: {100 * value:.2f} % ({matrix[i, j]:,} pixels)"
            strength = f"color-mix(in srgb, var(--{'accent' if i == j else 'h1'}) {70 * value:.0f}%, transparent)"
            hidden = "" if shown else f' aria-label="{escape(title)}"'
            cells.append(f'<td style="background:{strength}" title="{escape(title)}"{hidden}>{shown}</td>')
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    whole = (
        '<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        '<table class="matrix"><caption>Rows are the true class, columns the predicted one, in per cent of the true '
        f"pixels</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></div>"
    )
    return whole + largest


def calibration(result: metrics.Calibration) -> str:
    """Returns the reliability diagram, and the share of the pixels at each confidence."""
    bins, total = len(result.count), max(int(result.count.sum()), 1)
    middles = [(i + 0.5) / bins for i in range(bins)]
    reliability = [(100 * c, 100 * a) for c, a in zip(result.confidence, result.accuracy)]
    side = Axis("right, per cent", 0, 100, form="{:.2f}")
    one = chart(
        "Reliability",
        Axis("confidence, per cent", 0, 100, form="{:.2f}"),
        side,
        [Series("as sure as right", [(0, 0), (100, 100)], plain=True), Series("pixels", reliability)],
        f"Expected calibration error {100 * result.error:.2f} %, largest {100 * result.largest_error:.2f} %. Below the "
        "diagonal the network is too sure.",
    )
    shares = [(100 * m, 100 * float(n) / total) for m, n in zip(middles, result.count)]
    two = chart(
        "How sure it is",
        Axis("confidence, per cent", 0, 100, form="{:.1f}"),
        Axis("pixels, per cent", 0, None, form="{:.2f}"),
        [Series("pixels", shares, "bars")],
    )
    return f'<div class="charts">{one}{two}</div>'


def objects(found: Objects, names: Sequence[str], support: np.ndarray) -> str:
    """Returns recall by the size of objects; at first the classes with most objects, without the most common one."""
    number_ = found.count.sum(axis=1)
    present = [int(c) for c in np.argsort(-number_, kind="stable") if number_[c]][:24]
    common = int(np.argmax(support)) if len(present) > 1 else -1
    foreground = [c for c in present if c != common][:_LINES]
    charts = []
    for title, sums in (("Share of their pixels that is found", found.recall), ("Objects that are found", found.found)):
        series = []
        for c in present:
            bins = np.flatnonzero(found.count[c])
            points = [(2.0**b * 1.5, 100 * float(sums[c, b] / found.count[c, b])) for b in bins]
            labels = [counted(int(found.count[c, b]), "object") for b in bins]
            series.append(Series(names[c], points, labels=labels, hidden=c not in foreground))
        size = Axis("pixels of the object", log=2, form="about {:.0f}")
        charts.append(chart(title, size, Axis("per cent", 0, 100, form="{:.1f} %"), series))
    note = (
        "<p>An object is a connected region of a class in the true mask: touching objects of one class are one. It "
        " is found if at least half of its pixels are predicted as its class.</p>"
    )
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def histogram(scores: Mapping[str, np.ndarray]) -> str:
    """Returns how many images have which mean IoU, {run: f64[n]}."""
    series, edges = [], np.linspace(0, 1, 21)
    for name, values in scores.items():
        numbers, _ = np.histogram(values[~np.isnan(values)], edges)
        points = [(float(100 * (a + b) / 2), float(n)) for a, b, n in zip(edges, edges[1:], numbers)]
        series.append(Series(name, points, "bars" if len(scores) == 1 else "line"))
    return chart(
        "Images by mean IoU",
        Axis("mean IoU of the image, per cent", 0, 100, form="{:.1f}"),
        Axis("images", 0, form="{:.0f}"),
        series,
    )


def config_table(config: ConfigDict) -> str:
    """Returns the keys with another value than their default, and below all keys."""
    rows, every = [], []
    for key, value in flatten(config).items():
        known = key in KEYS
        default = KEYS[key].default if known else ""
        line = [
            Cell(f"<code>{escape(key)}</code>", key),
            _value(value),
            _value(default) if known else text(""),
            text(KEYS[key].meaning if known else "an argument of the network or of another part"),
        ]
        every.append(line)
        if not known or _plain(value) != _plain(default):
            rows.append(line)
    columns = ("key", "value", "default", "meaning")
    return (
        table("Keys with another value than their default", columns, rows)
        + f"<details><summary>All {counted(len(every), 'key')}</summary>{table('All keys', columns, every)}</details>"
    )


def config_differences(configs: Mapping[str, ConfigDict]) -> str:
    """Returns the keys in which runs differ, {name: configuration}."""
    flat = {name: flatten(config) for name, config in configs.items()}
    keys = sorted({key for values in flat.values() for key in values})
    rows = []
    for key in keys:
        values = [values[key] if key in values else "" for values in flat.values()]
        if len({_plain(value) for value in values}) > 1:
            rows.append([Cell(f"<code>{escape(key)}</code>", key), *map(_value, values)])
    if not rows:
        return "<p>The runs have the same configuration.</p>"
    return table("Keys in which the runs differ", ("key", *configs), rows)


def _plain(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list | tuple) else repr(value)


def _value(value: Any) -> Cell:
    shown = _plain(value) if not isinstance(value, str) else value or '""'
    return Cell(f"<code>{escape(shown)}</code>", shown)
