"""The images of a report: which are shown, and their pictures under truth, prediction and error."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxseg.errors import counted
from jaxseg.losses.possible import known_array
from jaxseg.metrics.intervals import ImageCounts
from jaxseg.pages.cards import (
    SIDES,
    Card,
    Picture,
    color_layer,
    error_layer,
    fitting,
    layer_url,
    photograph,
    reduced,
)
from jaxseg.report.collecting import Collected, around_median, in_image, of_class, worst, wrong_shares

NUMBER = 24
"""Images of each group."""
OF_CLASS = 4
"""The worst images of each class."""
MOST = 96
"""Images of a page."""


def chosen_images(found: Collected) -> dict[int, list[str]]:
    """Returns {image: groups} of the worst images, those around the median, and the worst of each class.

    Of many classes those with the lowest IoU come first, until the page is full.
    """
    groups: dict[int, list[str]] = {}
    scores = found.scores
    for name, images in (("worst", worst(scores, NUMBER)), ("median", around_median(scores, NUMBER))):
        for i in images:
            groups.setdefault(i, []).append(name)
    iou = found.evaluation.scores.iou
    for c in np.argsort(iou, kind="stable"):
        if math.isnan(iou[c]):
            continue
        images, of_images = of_class(found.counts, int(c))
        for i in images[np.argsort(of_images, kind="stable")[:OF_CLASS]].tolist():
            if i in groups or len(groups) < MOST:
                groups.setdefault(i, []).append(f"class-{c}")
    return groups


def pictures_of(images: Iterable[int], runs: Sequence[Collected], errors: bool) -> dict[str, Picture]:
    """Returns the pictures of some images: their truth, the prediction of each run, and where it is wrong.

    Args:
        images: indices in the split.
        runs: on the same images.
        errors: whether each prediction has a layer of its errors.
    """
    found, chosen = runs[0], sorted(images)
    colors, classes = found.run.colors, len(found.source.info.classes)

    def make(side: int) -> dict[str, Picture]:
        made = {}
        for i in chosen:
            example = found.source[i]
            truth = reduced(known_array(np.asarray(example["label"]), classes), SIDES[0])
            layers = [color_layer(truth, colors)]
            for each in runs:
                layers.append(color_layer(each.predictions[i], colors))
                if errors:
                    layers.append(error_layer(truth, each.predictions[i], found.source.info.ignored))
            urls = tuple(layer_url(layer, side) for layer in layers)
            made[str(i)] = Picture(photograph(np.asarray(example["image"]), side), urls)
        return made

    return fitting(make)


def cards_of(
    found: Collected,
    groups: Mapping[int, Sequence[str]],
    pictures: Mapping[str, Picture],
    lines: Mapping[int, Sequence[str]],
    sorts: Mapping[int, Mapping[str, float]],
) -> list[Card]:
    """Returns the cards of images.

    Args:
        found: the run of which the truth and the names are.
        groups: {image: groups}; each image has a card.
        pictures: {image: its pictures}.
        lines, sorts: {image: what `Card` says of it}.
    """
    cards = []
    for i in sorted(groups):
        held, _ = in_image(found.counts, i)
        key, name = f"image-{i}", found.names[i]
        cards.append(Card(key, name, lines[i], groups[i], sorts[i], held.tolist(), pictures[str(i)]))
    return cards


def words(counts: ImageCounts, image: int, names: Sequence[str], most: int = 3) -> str:
    """Returns the classes of an image with the lowest IoU: "nucleus 34 %, background 91 %"."""
    held, iou = in_image(counts, image)
    order = np.argsort(iou, kind="stable").tolist()
    text = ", ".join(f"{names[int(held[j])]} {100 * iou[j]:.0f} %" for j in order[:most])
    return text + (f" and {counted(len(order) - most, 'class')} above" if len(order) > most else "")


def run_lines(found: Collected, images: Iterable[int]) -> tuple[dict[int, list[str]], dict[int, dict[str, float]]]:
    """Returns the lines and the sorts of the cards of one run."""
    scores, wrong = found.scores, wrong_shares(found.counts)
    order = {int(i): rank for rank, i in enumerate(np.argsort(scores, kind="stable"), 1)}
    lines, sorts = {}, {}
    for i in images:
        iou, bad = 100 * float(scores[i]), 100 * float(wrong[i])
        lines[i] = [f"mIoU {iou:.1f} %, {bad:.1f} % wrong", words(found.counts, i, found.run.classes)]
        sorts[i] = {
            "lowest mIoU": iou,
            "highest mIoU": -iou,
            "most wrong pixels": -bad,
            "place in the split": float(i),
            "rank": float(order[i]),
        }
    return lines, sorts


def class_groups(groups: Mapping[int, Sequence[str]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (value, name) of the groups "class-N", in the order of the classes."""
    found = {int(g.removeprefix("class-")) for each in groups.values() for g in each if g.startswith("class-")}
    return [(f"class-{c}", f"worst of {names[c]}") for c in sorted(found)]
