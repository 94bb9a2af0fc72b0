"""The page of a check of a data set: what was found, the share of each class, and images with their masks."""

import math
import re
import shlex
from collections.abc import Sequence

import numpy as np

from jaxseg.config import ConfigDict
from jaxseg.data.survey import Report, evenly_spaced
from jaxseg.errors import DataError, counted, printable
from jaxseg.losses.possible import known_array
from jaxseg.pages.cards import Card, Picture, color_layer, fitting, gallery, layer_url, photograph
from jaxseg.pages.charts import Axis, Series, chart
from jaxseg.pages.frame import Section, commands, escape, facts, make_page
from jaxseg.pages.tables import Cell, number, share, swatch, table, text
from jaxseg.types import ignore_label

PROGRAM = "jaxseg check"
IMAGES = 72
"""Images of the page, over all splits."""


def check_page(reports: Sequence[Report], config: ConfigDict, remarks: Sequence[str]) -> str:
    """Returns the page of a check.

    Args:
        reports: of the splits, see `survey.survey`.
        config: of the data.
        remarks: what may be wrong, over all splits.
    """
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    opened = [report for report in reports if report.images and report.source is not None]
    pairs = [(f"images of {report.split}", str(report.images)) for report in reports]
    pairs += [("problems", str(len(problems))), ("to look at", str(len(remarks)))]
    sections = [Section("Findings", "findings", _findings(problems, remarks))]
    if opened:
        sections += [
            Section("Images", "images", _gallery(opened)),
            Section("Classes", "classes", _classes(opened)),
            Section("Sizes and values", "sizes", _sizes(opened, config)),
        ]
    train = [f"--config.data.{name}={config.data[name]}" for name in ("source", "dir") if config.data[name]]
    line = shlex.join(["jaxseg", "train", "--config", "EXPERIMENT", *train])
    sections.append(Section("Next", "next", commands([("Once nothing is wrong:", line)])))
    where = config.data.dir or config.data.source
    about = f"<p>The data in <code>{escape(where)}</code>, every file read.</p>"
    return make_page(PROGRAM, "Check of the data", about + facts(pairs), sections)


def _findings(problems: Sequence[str], remarks: Sequence[str]) -> str:
    if not (problems or remarks):
        return "<p>Nothing is wrong.</p>"
    rows = [[Cell(kind, kind), text(_file(line)), text(line)] for kind, line in _kinds(problems, remarks)]
    return table("What was found", ("kind", "file", "finding"), rows, filtered=len(rows) > 5)


def _kinds(problems: Sequence[str], remarks: Sequence[str]) -> list[tuple[str, str]]:
    return [*(("problem", line) for line in problems), *(("to look at", line) for line in remarks)]


def _file(line: str) -> str:
    """Returns the last part of the first path that a sentence names."""
    found = re.search(r"[^\s:,;]*[/\\]([^\s/\\:,;]+)", line)
    return found.group(1).rstrip(".") if found else ""


def _classes(reports: Sequence[Report]) -> str:
    source = reports[0].source
    assert source is not None
    columns = ["class"]
    for report in reports:
        columns += [f"{report.split}: pixels %", f"{report.split}: images"]
    names = source.info.classes
    total = np.sum([report.pixels for report in reports], axis=0)
    rows = []
    for i in [i for i in range(len(names)) if len(names) <= 255 or total[i]]:
        row = [swatch(names[i], source.info.colors[i])]
        for report in reports:
            part = float(report.pixels[i] / max(report.pixels[: len(names)].sum(), 1))
            row += [share(part), number(int(report.present[i]), "{:d}")]
        rows.append(row)
    ignored = ", ".join(f"{100 * float(r.pixels[-1] / max(r.pixels.sum(), 1)):.2f} % of {r.split}" for r in reports)
    return table("Share of the labelled pixels, and images with the class", columns, rows) + (
        f"<p>Pixels without a label: {escape(ignored)}.</p>"
    )


def _sizes(reports: Sequence[Report], config: ConfigDict) -> str:
    series, rows = [], []
    for report in reports:
        sizes = [(float(w), float(h)) for h, w in report.sizes]
        labels = [counted(int(n), "image") for n in report.sizes.values()]
        series.append(Series(report.split, sizes, "points", labels))
        mean, deviation = (", ".join(f"{v:.3f}" for v in values) for values in report.mean_and_std)
        largest = ", ".join(f"{value} of {2**bits - 1}" for bits, value in report.largest.items())
        rows.append([text(report.split), text(mean), text(deviation), text(largest)])
    figure = chart("Sizes", Axis("width", 0, form="{:.0f}"), Axis("height", 0, form="{:.0f}"), series)
    columns = ("split", "mean by channel", "standard deviation", "largest value")
    values = table("Values of the images in [0, 1]", columns, rows)
    given = ", ".join(f"{v:g}" for v in config.data.mean), ", ".join(f"{v:g}" for v in config.data.std)
    note = f"<p>data.mean is {escape(given[0])}, data.std {escape(given[1])}.</p>"
    return f'<div class="charts">{figure}</div>{values}{note}'


def _gallery(reports: Sequence[Report]) -> str:
    """Returns images of each split, evenly spaced over it, which are read once more."""
    first = reports[0].source
    assert first is not None
    info, each = first.info, max(1, IMAGES // len(reports))
    chosen = [(r, [r.readable[j] for j in evenly_spaced(r.images, each)]) for r in reports]
    places = [(report, i) for report, images in chosen for i in images]
    cards: dict[str, Card] = {}

    def make(side: int) -> dict[str, Picture]:
        made = {}
        for place, (report, i) in enumerate(places):
            assert report.source is not None
            try:
                example = report.source[i]
            except DataError:  # gone since it was read
                continue
            image, label = np.asarray(example["image"]), known_array(np.asarray(example["label"]), len(info.classes))
            key, layer = f"{report.split} {i}", layer_url(color_layer(label, info.colors), side)
            made[key] = Picture(photograph(image, side), (layer,))
            cards[key] = _card(report, i, place, image, label, made[key])
        return made

    pictures = fitting(make)
    groups = [("", "all splits"), *((f"split-{n}", r.split) for n, r in enumerate(reports))]
    numbered = {r.split: f"split-{n}" for n, r in enumerate(reports)}
    shown = [
        card._replace(picture=pictures[key], groups=[numbered[card.groups[0]]], key=f"image-{n}")
        for n, (key, card) in enumerate(cards.items())
    ]
    note = f"<p>{counted(len(shown), 'image')}, evenly spaced over each split. Does the mask fit the image?</p>"
    return note + gallery(shown, ("mask",), groups, info.classes, info.colors, shown=(-1, 0))


def _card(report: Report, index: int, place: int, image: np.ndarray, label: np.ndarray, picture: Picture) -> Card:
    assert report.source is not None
    classes = report.source.info.classes
    h, w = label.shape
    held, pixels = np.unique(label[label != ignore_label(len(classes))], return_counts=True)
    labelled = float(pixels.sum()) / label.size
    order = np.argsort(-pixels)[:3]
    top = float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1.0
    bright = float(image.mean()) / top
    shares = ", ".join(f"{classes[held[j]]} {100 * pixels[j] / label.size:.1f} %" for j in order)
    lines = [f"{report.split}, {w} × {h}", shares or "no label"]
    rarest = float(report.pixels[held].min()) if len(held) else math.nan
    sorts = {
        "split and place": float(place),
        "fewest labelled pixels": labelled,
        "rarest class": rarest,
        "most classes": -float(len(held)),
        "darkest": bright,
        "brightest": -bright,
        "smallest": float(h * w),
        "largest": -float(h * w),
    }
    return Card("", printable(report.source.name(index)), lines, [report.split], sorts, held.tolist(), picture)
