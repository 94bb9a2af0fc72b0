"""Sheets: rows of pictures with captions and a legend, showing predictions beside their truth, or overlays."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.pictures.colors import IGNORE_COLOR, RIGHT_COLOR, WRONG_COLOR, Colors, colorize
from jaxseg.pictures.figure import DPI, plain_text, save_figure, shorten
from jaxseg.pictures.images import error_map, judged, overlay, to_rgb

_CELL = 2.3  # inches, width of one picture of a sheet
_LEGEND_LIMIT = 24  # with more classes than this, a legend names only those that occur


def prediction_sheet(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    colors: Colors,
    classes: Sequence[str],
    path: str | Path,
    multilabel: bool = False,
) -> None:
    """Draws one row per example: image, truth, prediction and error, with a legend below; sizes may differ by row.

    Args:
        images: each u8, u16 or f32 in [0, 1], [h,w,c] of any size; drawn at the size of its truth.
        truths: each i[h,w].
        predictions: each i[h,w], of the size of its truth.
        colors: one per class.
        classes: names, one per class.
        path: the PNG file.
        multilabel: whether truths and predictions hold sets of classes, whose colours are averaged; a pixel is right
            where every class is that is known there.

    Raises:
        ValueError: if the numbers of pictures differ or are 0, or a prediction differs in size from its truth.
    """
    if not len(images) == len(truths) == len(predictions) or not len(images):
        raise ValueError(
            f"A sheet needs as many images as truths and predictions, at least one of each: got {len(images)}, "
            f"{len(truths)} and {len(predictions)}."
        )
    rows, captions = [], []
    sets_of, ignored = len(colors) if multilabel else 0, False
    for image, truth, prediction in zip(images, truths, predictions):
        if np.shape(truth) != np.shape(prediction):
            raise ValueError(f"The truth is {np.shape(truth)}, but the prediction is {np.shape(prediction)}.")
        rgb = to_rgb(image)
        drawn = [colorize(each, colors, multilabel) for each in (truth, prediction)]
        rows.append([rgb, *drawn, error_map(truth, prediction, sets_of)])
        right, valid = judged(truth, prediction, sets_of)
        share, ignored = np.sum(right & valid) / max(np.sum(valid), 1), ignored or not valid.all()
        captions.append(["", "", "", f"{100 * share:.1f} % right" if valid.any() else "all ignored"])
    titles = ["image", "truth", "prediction", "error"]
    legend = _legend(classes, colors, [*truths, *predictions], multilabel)
    if ignored:
        legend.append(("ignored", IGNORE_COLOR))
    _sheet(rows, titles, captions, legend, path, [("right", RIGHT_COLOR), ("wrong", WRONG_COLOR)])


def overlay_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    colors: Colors,
    classes: Sequence[str],
    path: str | Path,
    names: Sequence[str] = (),
    columns: int = 4,
    multilabel: bool = False,
) -> None:
    """Draws the images with their labels laid over them, `columns` per row, with names above and a legend below.

    Args:
        images: each u8, u16 or f32 in [0, 1], [h,w,c].
        labels: each i[h,w], of the size of its image.
        colors: one per class.
        classes: names, one per class.
        path: the PNG file.
        names: one per image, or none.
        columns: pictures per row.
        multilabel: whether labels hold sets of classes, whose colours are averaged.

    Raises:
        ValueError: if there are no images, or an image and its label differ in size.
    """
    if not len(images) == len(labels) or not len(images):
        raise ValueError(f"A sheet needs as many images as labels, at least one: got {len(images)} and {len(labels)}.")
    columns = min(columns, len(images))
    cells = [overlay(image, label, colors, 0.55, multilabel) for image, label in zip(images, labels)]
    captions = [shorten(str(name), 30) for name in names] or [""] * len(cells)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    texts = [captions[i : i + columns] for i in range(0, len(cells), columns)]
    _sheet(rows, [], texts, _legend(classes, colors, labels, multilabel), path)


def doubt_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[str]],
    labels: Sequence[np.ndarray],
    colors: Colors,
    classes: Sequence[str],
    path: str | Path,
) -> None:
    """Draws one row per image: the image with its doubted regions outlined, its label, and the label suggested.

    Args:
        rows: the three pictures u8[h,w,3] of each image, of one size.
        captions: the texts above them.
        labels: i[h,w], the labels that are shown; a legend of many classes names only those in them.
        colors: one per class.
        classes: names, one per class.
        path: the PNG file.
    """
    texts = [[shorten(str(text), 44) for text in row] for row in captions]
    titles = ["doubted regions", "label", "suggested"]
    _sheet([list(row) for row in rows], titles, texts, _legend(classes, colors, labels), path)


def _legend(
    classes: Sequence[str], colors: Colors, labels: Sequence[np.ndarray], multilabel: bool = False
) -> list[tuple[str, Sequence[int]]]:
    """Returns (name, colour) of every class, or only of those in `labels` if there are many classes."""
    chosen = range(len(classes))
    if len(classes) > _LEGEND_LIMIT and not multilabel:
        present = np.unique(np.concatenate([np.unique(label) for label in labels]))
        chosen = [int(c) for c in present if c < len(classes)]
    return [(shorten(str(classes[c]), 22), colors[c]) for c in chosen]


@plain_text()
def _sheet(
    rows: list[list[np.ndarray]],
    titles: list[str],
    captions: list[list[str]],
    legend: Sequence[tuple[str, Sequence[int]]],
    path: str | Path,
    legend_of_last: Sequence[tuple[str, Sequence[int]]] = (),
) -> None:
    """Lays pictures out in rows under column titles, captions above each picture, and the legend below.

    The last column may have a legend of its own, below it.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = max(len(row) for row in rows)
    # The last picture decides the height of a row, since it has the size of the label; the image may be resized.
    aspects = [max(p.shape[0] / p.shape[1] for p in (row if not titles else row[-1:])) for row in rows]
    heights = [_CELL * min(max(a, 0.05), 4.0) for a in aspects]
    pad, caption = 0.08, 0.2 if any(any(texts) for texts in captions) else 0.0
    top = 0.28 if titles else 0.06
    width = columns * (_CELL + pad) + pad
    longest = max((len(name) for name, _ in legend), default=1)
    legend_width = width - (_CELL + pad if legend_of_last else 0.0)
    legend_columns = max(1, min(len(legend), int(legend_width / (0.42 + 0.075 * longest))))
    legend_height = 0.2 + 0.17 * math.ceil(len(legend) / legend_columns)
    height = top + sum(heights) + len(rows) * (pad + caption) + legend_height
    figure = Figure(figsize=(width, height), dpi=DPI)
    bottom = height - top
    for row, texts, row_height in zip(rows, captions, heights):
        bottom -= row_height + caption
        for column, (picture, text) in enumerate(zip(row, texts)):
            left = pad + column * (_CELL + pad)
            axis = figure.add_axes((left / width, bottom / height, _CELL / width, row_height / height))
            extent = row[-1].shape if titles else picture.shape
            axis.set_anchor("N")
            axis.imshow(picture, interpolation="nearest", extent=(0, extent[1], extent[0], 0))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.75")
            axis.set_title(text, fontsize=7.5, pad=2)
        bottom -= pad
    for column, title in enumerate(titles):
        centre = (pad + column * (_CELL + pad) + _CELL / 2) / width
        figure.text(centre, 1 - 0.09 / height, title, ha="center", va="top", fontsize=11)
    share = legend_width / width
    for entries, left, part, ncols in (
        (legend, 0.0, share, legend_columns),
        (legend_of_last, share, 1.0 - share, len(legend_of_last)),
    ):
        if entries:
            figure.legend(
                handles=[Patch(facecolor=_unit(c), edgecolor="0.4", linewidth=0.6, label=n) for n, c in entries],
                loc="upper center",
                bbox_to_anchor=(left, 0.0, part, legend_height / height),
                ncols=ncols,
                fontsize=8,
                frameon=False,
                handlelength=1.2,
                handleheight=1.0,
                columnspacing=1.2,
                labelspacing=0.35,
                borderaxespad=0.2,
                borderpad=0.2,
            )
    save_figure(figure, path)


def _unit(color: Sequence[int]) -> tuple[float, float, float]:
    """Returns the colour with its channels in [0, 1], as matplotlib expects."""
    red, green, blue = color
    return red / 255.0, green / 255.0, blue / 255.0
