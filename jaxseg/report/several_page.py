"""The page of several runs on the same images: scores paired by image, and the images in which they differ most."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxseg.data.base import Source
from jaxseg.errors import ConfigError, counted
from jaxseg.inference.image_totals import difference_of, interval_of
from jaxseg.metrics import MOST_PAIRS
from jaxseg.metrics.intervals import Interval
from jaxseg.pages.cards import gallery
from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import Section, commands, escape, make_page
from jaxseg.pages.tables import Cell, number, share, swatch, table, text
from jaxseg.report import parts
from jaxseg.report.collecting import Collected
from jaxseg.report.images import MOST, NUMBER, cards_of, pictures_of, words
from jaxseg.report.run_page import KEYS, log_of
from jaxseg.state import count_parameters

PROGRAM = "jaxseg compare"
_NONE = number(float("nan"))


def require_same_images(given: Sequence[tuple[str, Source]]) -> None:
    """Raises ConfigError unless all runs have images of the same names and sizes; (workdir, images) of each."""
    (first, images), *others = given
    names, sizes = _names_and_sizes(images)
    for other, others_images in others:
        others_names, others_sizes = _names_and_sizes(others_images)
        what = ""
        if others_names != names:
            differing = sorted(set(names) ^ set(others_names))
            what = f"one has {differing[0]} and the other has not" if differing else "they have another order"
        elif others_sizes != sizes:
            what = f"{next(name for name, a, b in zip(names, sizes, others_sizes) if a != b)} has another size"
        if what:
            raise ConfigError(
                f"Runs are compared on the same images, and those of {first} and {other} are not: {what}; give the "
                "same data with --config.data.dir=PATH, or another --split."
            )


def _names_and_sizes(images: Source) -> tuple[list[str], list[tuple[int, int]]]:
    return [images.name(i) for i in range(len(images))], [images.label_size(i) for i in range(len(images))]


def require_comparable(found: Sequence[Collected]) -> None:
    """Raises ConfigError unless all runs were scored on the same images with the same masks."""
    require_same_images([(str(each.run.workdir), each.source) for each in found])
    first = found[0]
    for other in found[1:]:
        pair = f"{first.run.workdir} and {other.run.workdir}"
        a, b = (_true(each) for each in (first, other))
        if (different := np.flatnonzero((a != b).any(axis=1))).size:
            raise ConfigError(
                f"Runs are compared on the same masks, and that of {first.names[different[0]]} differs between {pair}; "
                "give the same data with --config.data.dir=PATH."
            )


def _true(found: Collected) -> np.ndarray:
    """Returns the labelled pixels of each image and the sum of class index by them, i64[n,2]."""
    counts = found.counts
    pixels = counts.pixels[1]
    return np.stack(
        [np.bincount(counts.image, w, minlength=counts.images) for w in (pixels, pixels * (counts.label + 1))], axis=1
    )


def names_of(found: Sequence[Collected]) -> list[str]:
    """Returns a short name of each run: the last part of its workdir, or all of it where two have the same."""
    short = [each.run.workdir.name for each in found]
    return short if len(set(short)) == len(short) else [str(each.run.workdir) for each in found]


def several_page(found: Sequence[Collected], again: str) -> str:
    """Returns the page of two runs or more, each compared with the first.

    Args:
        found: the runs on the same split.
        again: the command that makes the page.

    Raises:
        ConfigError: if they were scored on other images.
    """
    require_comparable(found)
    first, names = found[0], names_of(found)
    classes, colors = first.run.classes, first.run.colors
    many = first.counts.classes > MOST_PAIRS
    drawn = first.evaluation.groups
    differences = [difference_of(each.counts, first.counts, drawn) for each in found[1:]]
    scores = {name: each.scores for name, each in zip(names, found)}
    groups = _groups(scores)
    lines, sorts = _lines(found, names, scores, groups)
    cards = cards_of(first, groups, pictures_of(groups, found, errors=True), lines, sorts)
    layers = ["truth", *(layer for name in names for layer in (name, f"{name}: error"))]
    choices = [("differ", "where they differ most")]
    for i, name in enumerate(names[1:], 1):
        choices += [(f"better-{i}", f"{name} better"), (f"worse-{i}", f"{name} worse")]
    images = gallery(cards, layers, [*choices, ("", "all here")], classes, colors, shown=(1, 3))
    configs = {name: each.run.config for name, each in zip(names, found)}
    sections = [
        Section("Scores", "scores", _scores(found, names, differences)),
        Section("Images", "images", KEYS + images + _scatter(first.names, scores)),
        Section("Classes", "classes", _classes(found, names, differences) if not many else "<p>Too many classes.</p>"),
        Section("Curves", "curves", parts.curves({n: log_of(each.run.workdir) for n, each in zip(names, found)})),
        Section("Configuration", "configuration", parts.config_differences(configs)),
        Section("Again", "again", commands([("This page:", again)])),
    ]
    split = escape(first.evaluation.split)
    about = (
        f"<p>{counted(len(found), 'run')} on {counted(len(first.names), 'image')} of the split {split}; "
        f"each is compared with <strong>{escape(names[0])}</strong>, paired by {first.evaluation.unit}.</p>"
    )
    return make_page(PROGRAM, " and ".join(names) if len(names) < 4 else counted(len(names), "run"), about, sections)


def _groups(scores: Mapping[str, np.ndarray]) -> dict[int, list[str]]:
    """Returns {image: groups} of the images in which a run differs most from the first, either way."""
    first, *others = scores.values()
    groups: dict[int, list[str]] = {}
    largest = np.zeros(len(first))
    for number_, other in enumerate(others, 1):
        gain = np.nan_to_num(other - first)
        largest = np.maximum(largest, np.abs(gain))
        for name, order in (("better", np.argsort(-gain, kind="stable")), ("worse", np.argsort(gain, kind="stable"))):
            for i in order[:NUMBER].tolist():
                if (gain[i] > 0) == (name == "better") and gain[i] and (i in groups or len(groups) < MOST):
                    groups.setdefault(i, []).append(f"{name}-{number_}")
    for i in np.argsort(-largest, kind="stable")[:NUMBER].tolist():
        groups.setdefault(i, []).append("differ")
    return groups


def _lines(
    found: Sequence[Collected], names: Sequence[str], scores: Mapping[str, np.ndarray], images: Mapping[int, object]
) -> tuple[dict[int, list[str]], dict[int, dict[str, float]]]:
    lines, sorts = {}, {}
    for i in images:
        values = [float(each[i]) for each in scores.values()]
        lines[i] = [
            f"{name}: mIoU {100 * value:.1f} % ({words(each.counts, i, each.run.classes, 2)})"
            for name, value, each in zip(names, values, found)
        ]
        gains = [100 * (value - values[0]) for value in values[1:]]
        sorts[i] = {"largest difference": -max(map(abs, gains))}
        sorts[i] |= {f"gain of {name}": -gain for name, gain in zip(names[1:], gains)}
        sorts[i]["place in the split"] = float(i)
    return lines, sorts


def _scores(found: Sequence[Collected], names: Sequence[str], differences: Sequence[Interval]) -> str:
    drawn, unit = found[0].evaluation.groups, found[0].evaluation.unit
    columns = ("run", "mIoU %", "from", "to", "difference", "from", "to", "pixel accuracy %", "calibration error %")
    rows = []
    for i, (name, each) in enumerate(zip(names, found)):
        evaluation = each.evaluation
        interval = interval_of(each.counts, drawn)
        ends = (float(interval.low[-1]), float(interval.high[-1]))
        paired = _difference(differences[i - 1], -1) if i else [_NONE] * 3
        numbers = (evaluation.scores.pixel_accuracy, evaluation.calibration.error)
        model = each.run.config.model.name
        rows.append(
            [
                text(name),
                *map(share, (evaluation.mean_iou, *ends)),
                *paired,
                *map(share, numbers),
                text(model),
                number(count_parameters(each.run.state.params), "{:,d}"),
                number(each.run.step, "{:d}"),
            ]
        )
    note = (
        f"<p>Differences to {escape(names[0])} are in points, with the interval of the paired bootstrap: each draw has "
        f"the same {unit}s for both runs. Where it holds 0, these images do not tell which is better. It says nothing "
        "about another training of either.</p>"
    )
    return (
        table("Scores of the runs", (*columns, "network", "parameters", "steps"), rows) + note + _grouping(found, names)
    )


def _grouping(found: Sequence[Collected], names: Sequence[str]) -> str:
    """Returns what is drawn where this is not an image of each run; all intervals draw what those of the first do."""
    first = found[0].evaluation
    apart = [name for name, each in zip(names, found) if each.evaluation.groups != first.groups]
    if not (first.groups or apart):
        return ""
    own, others = escape(names[0]), escape(" and ".join(apart))
    if not first.groups:
        return f"<p>All intervals draw single images, as {own} has no data.group; those of {others} are not used.</p>"
    what = f"All intervals draw {counted(len(set(first.groups)), 'group')} of images, those of {own}"
    return f"<p>{what}{f'; those of {others} differ and are not used' if apart else ''}.</p>"


def _difference(interval: Interval, place: int) -> list[Cell]:
    values = (float(each[place]) for each in (interval.value, interval.low, interval.high))
    return [number(100 * value, "{:+.2f}") for value in values]


def _classes(found: Sequence[Collected], names: Sequence[str], differences: Sequence[Interval]) -> str:
    columns = ["class", f"{names[0]}: IoU %"]
    for name in names[1:]:
        columns += [f"{name}: IoU %", "difference", "from", "to"]
    rows = []
    for c, label in enumerate(found[0].run.classes):
        row = [swatch(label, found[0].run.colors[c]), share(float(found[0].evaluation.scores.iou[c]))]
        for each, interval in zip(found[1:], differences):
            row += [share(float(each.evaluation.scores.iou[c])), *_difference(interval, c)]
        rows.append(row)
    return table("IoU by class", columns, rows)


def _scatter(images: Sequence[str], scores: Mapping[str, np.ndarray]) -> str:
    first, *others = scores
    charts = []
    for name in others:
        points = [(100 * float(a), 100 * float(b)) for a, b in zip(scores[first], scores[name])]
        one, two = (Axis(f"{each}, mIoU in per cent", 0, 100, form="{:.1f} %") for each in (first, name))
        series = [Series("equal", [(0, 0), (100, 100)], plain=True), Series("image", points, "points", images)]
        charts.append(chart(f"Every image: {name} above the line is better", one, two, series))
    return f'<div class="charts">{parts.histogram(scores)}{"".join(charts)}</div>'
