"""The page of a check of a data set: what was found, the share of each class, and images with their masks."""

import csv
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

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
SUSPECTS = 24
"""Images that an audit holds for the likeliest wrong ones, beside these."""
_NONE: Mapping[str, float] = {}


def check_page(
    reports: Sequence[Report], config: ConfigDict, remarks: Sequence[str], suspects: Mapping[str, float] = _NONE
) -> str:
    """Returns the page of a check.

    Args:
        reports: of the splits, see `survey.survey`.
        config: of the data.
        remarks: what may be wrong, over all splits.
        suspects: {name: score} of an audit, the likeliest wrong label first; see `suspects_of`.
    """
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    opened = [report for report in reports if report.images and report.source is not None]
    pairs = [(f"images of {report.split}", str(report.images)) for report in reports]
    pairs += [("problems", str(len(problems))), ("to look at", str(len(remarks)))]
    sections = [Section("Findings", "findings", _findings(problems, remarks))]
    if suspects:
        sections.append(Section("Likeliest wrong labels", "suspects", _suspects(opened, suspects)))
    if opened:
        sections += [
            Section("Images", "images", _gallery(opened, suspects)),
            Section("Classes", "classes", _classes(opened)),
            Section("Sizes and values", "sizes", _sizes(opened, config)),
        ]
    train = [f"--config.data.{name}={config.data[name]}" for name in ("source", "dir") if config.data[name]]
    line = shlex.join(["jaxseg", "train", "--config", "EXPERIMENT", *train])
    sections.append(Section("Next", "next", commands([("Once nothing is wrong:", line)])))
    where = config.data.dir or config.data.source
    about = f"<p>The data in <code>{escape(where)}</code>, every file read.</p>"
    return make_page(PROGRAM, "Check of the data", about + facts(pairs), sections)


def suspects_of(file: Path) -> dict[str, float]:
    """Returns {name: score} of the table of `jaxseg audit`, audit.csv or its folder, the likeliest wrong label first.

    Raises:
        DataError: if it cannot be read, or is no such table.
    """
    path = file / "audit.csv" if file.is_dir() else file
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            rows = list(csv.DictReader(lines))
            scores = {row["image"]: float(row["score"]) for row in rows if row["score"]}
    except (OSError, csv.Error, KeyError, ValueError, TypeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "it has no columns image and score"
        )
        raise DataError(
            f"--audit {path} cannot be read as audit.csv of jaxseg audit, or its folder: {reason}."
        ) from error
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _suspects(reports: Sequence[Report], suspects: Mapping[str, float]) -> str:
    places: dict[str, list[str]] = {}  # two splits may have an image of one name, of which the audit saw either
    for report in reports:
        for i in report.readable:
            places.setdefault(_name(report, i), []).append(report.split)
    rows = [
        [
            number(rank, "{:d}"),
            text(name),
            text(", ".join(places[name]) if name in places else "not read"),
            number(score, "{:.3f}"),
        ]
        for rank, (name, score) in enumerate(suspects.items(), 1)
    ]
    note = (
        f"<p>By the scores of jaxseg audit: the runs that did not see an image in training doubt its mask. The first "
        f"{SUSPECTS} are among the images below, by “likeliest wrong label”.</p>"
    )
    return note + table("Images by how likely their label is wrong", ("rank", "image", "split", "score"), rows[:200])


def _name(report: Report, index: int) -> str:
    assert report.source is not None
    return report.source.name(index)


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


def _numbers_of(sizes: Sequence[int]) -> list[int]:
    """Returns how many images of each split are shown: as many of each, and what a small one lacks of the others."""
    left, shown = IMAGES, [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(order):
        shown[i] = min(sizes[i], max(1, left // (len(sizes) - done)))
        left -= shown[i]
    return shown


def _gallery(reports: Sequence[Report], suspects: Mapping[str, float]) -> str:
    """Returns images of each split, evenly spaced over it, and the likeliest wrong ones; they are read once more."""
    first = reports[0].source
    assert first is not None
    info, doubted = first.info, set(list(suspects)[:SUSPECTS])
    chosen = [
        (r, [r.readable[j] for j in evenly_spaced(r.images, count)])
        for r, count in zip(reports, _numbers_of([r.images for r in reports]))
    ]
    spaced = [f"{'all ' if len(i) == r.images else f'{len(i)} of '}{r.images} of {r.split}" for r, i in chosen]
    chosen = [(r, sorted({*i, *(j for j in r.readable if _name(r, j) in doubted)})) for r, i in chosen]
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
            cards[key] = _card(report, i, place, image, label, made[key], suspects)
        return made

    pictures = fitting(make)
    groups = [("", "all splits"), *((f"split-{n}", r.split) for n, r in enumerate(reports))]
    numbered = {r.split: f"split-{n}" for n, r in enumerate(reports)}
    shown = [
        card._replace(picture=pictures[key], groups=[numbered[card.groups[0]]], key=f"image-{n}")
        for n, (key, card) in enumerate(cards.items())
    ]
    more = f", and those of the {SUSPECTS} likeliest wrong labels" if suspects else ""
    note = (
        f"<p>{counted(len(shown), 'image')}, evenly spaced over each split: {escape(', '.join(spaced))}{more}. The "
        "numbers on this page are those of every image. Does the mask fit the image?</p>"
    )
    return note + gallery(shown, ("mask",), groups, info.classes, info.colors, shown=(-1, 0))


def _card(
    report: Report,
    index: int,
    place: int,
    image: np.ndarray,
    label: np.ndarray,
    picture: Picture,
    suspects: Mapping[str, float],
) -> Card:
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
    name = report.source.name(index)
    if suspects:
        score = suspects[name] if name in suspects else 0.0
        lines.append(f"audit: {score:.3f}" if name in suspects else "not in the audit")
        sorts = {"likeliest wrong label": -score, **sorts}
    return Card("", printable(name), lines, [report.split], sorts, held.tolist(), picture)
