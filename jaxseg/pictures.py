"""Pictures of labels, predictions, curves and confusion matrices, written to PNG files whole or not at all.

Label maps are integers [h,w]: class indices and IGNORE. Colours are one (red, green, blue) in 0..255 per class. PIL and
matplotlib are imported only where a picture is drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxseg.files import write_whole
from jaxseg.types import IGNORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colors = Sequence[Sequence[int]]

IGNORE_COLOR = (200, 200, 200)
RIGHT_COLOR = (255, 255, 255)
WRONG_COLOR = (214, 39, 40)

_DPI = 110
_CELL = 2.3  # inches, width of one picture of a sheet
_LEGEND_LIMIT = 24  # with more classes than this a legend names only those that occur


def default_colors(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Returns `num_classes` (at most 500) colours, black first, each as far as can be from those before it."""
    levels = np.arange(0, 256, 36)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)
    greys = np.ptp(candidates, axis=1) < 72  # kept for IGNORE and for shading
    candidates = np.concatenate([np.zeros((1, 3)), candidates[~greys]])
    if not 0 <= num_classes <= 500:
        raise ValueError(f"default_colors gives 0 to 500 colours, got {num_classes}.")
    # Distances weighted as the eye does, roughly: green counts most.
    weighted = candidates * np.sqrt([2.0, 4.0, 3.0])
    chosen, distance = [0], np.sum((weighted - weighted[0]) ** 2, axis=1)
    while len(chosen) < num_classes:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.sum((weighted - weighted[chosen[-1]]) ** 2, axis=1))
    return tuple(tuple(int(v) for v in candidates[i]) for i in chosen[:num_classes])


def colorize(label: np.ndarray, colors: Colors) -> np.ndarray:
    """Returns u8[h,w,3]: the colour of each class of label i[h,w], IGNORE_COLOR where it is IGNORE.

    Raises:
        ValueError: if the label holds a class that has no colour.
    """
    label = np.asarray(label)
    palette = np.full((256, 3), IGNORE_COLOR, np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8).reshape(-1, 3)[:256]
    palette[IGNORE] = IGNORE_COLOR
    wrong = label[((label < 0) | (label >= len(colors))) & (label != IGNORE)]
    if wrong.size:
        raise ValueError(f"The label holds class {wrong.flat[0]}, but there are colours for {len(colors)} classes.")
    return palette[label]


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Returns u8[h,w,3] of u8, u16 or f32 (in [0, 1]) [h,w] or [h,w,c]: grey for c < 3, else channels 0 to 2."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    image = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if image.dtype == np.uint8:
        return image
    top = 65535.0 if image.dtype == np.uint16 else 1.0
    return np.round(np.clip(image.astype(np.float32) / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def overlay(image: np.ndarray, label: np.ndarray, colors: Colors, alpha: float = 0.5) -> np.ndarray:
    """Returns u8[h,w,3]: the image with the class colours laid over it, clear where the label is IGNORE.

    Under the colours the image is grey, so that the legend's hues are kept. Black classes (background) are clear too.

    Args:
        image: u8, u16 or f32 in [0, 1], [h,w,c].
        label: i[h,w].
        colors: one per class.
        alpha: opacity of the colours, in [0, 1].

    Raises:
        ValueError: if image and label differ in size.
    """
    rgb = to_rgb(image).astype(np.float32)
    if rgb.shape[:2] != np.shape(label):
        raise ValueError(f"The image is {rgb.shape[:2]}, but the label is {np.shape(label)}.")
    grey = rgb @ np.float32([[0.299], [0.587], [0.114]])  # luma, ITU-R BT.601
    palette = colorize(label, colors)
    blended = np.round((1.0 - alpha) * grey + alpha * palette)
    clear = (np.asarray(label) == IGNORE) | ~palette.any(axis=2)
    return np.where(clear[:, :, None], rgb, blended).astype(np.uint8)


def error_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Returns u8[h,w,3]: white where the prediction is right, red where it is wrong, grey where the truth is IGNORE."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    picture = np.where((truth == prediction)[:, :, None], np.uint8(RIGHT_COLOR), np.uint8(WRONG_COLOR))
    picture[truth == IGNORE] = IGNORE_COLOR
    return picture


def save_image(picture: np.ndarray, path: str | Path) -> None:
    """Writes u8[h,w] or u8[h,w,3] as a PNG file, atomically."""
    from PIL import Image

    write_whole(path, lambda file: Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG"))


def prediction_sheet(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    colors: Colors,
    classes: Sequence[str],
    path: str | Path,
) -> None:
    """Draws one row an example: image, truth, prediction and error, with a legend below; sizes may differ by row.

    Args:
        images: each u8, u16 or f32 in [0, 1], [h,w,c]; any size, it is drawn at the size of its truth.
        truths: each i[h,w].
        predictions: each i[h,w], the size of its truth.
        colors: one per class.
        classes: names, one per class.
        path: the PNG file.

    Raises:
        ValueError: if the numbers of pictures differ, or there are none, or a prediction has not its truth's size.
    """
    if not len(images) == len(truths) == len(predictions) or not len(images):
        raise ValueError(
            f"A sheet needs as many images as truths and predictions, at least one of each: got {len(images)}, "
            f"{len(truths)} and {len(predictions)}."
        )
    rows, captions = [], []
    for image, truth, prediction in zip(images, truths, predictions):
        if np.shape(truth) != np.shape(prediction):
            raise ValueError(f"The truth is {np.shape(truth)}, but the prediction is {np.shape(prediction)}.")
        rgb = to_rgb(image)
        rows.append([rgb, colorize(truth, colors), colorize(prediction, colors), error_map(truth, prediction)])
        valid = np.asarray(truth) != IGNORE
        right = np.sum((np.asarray(truth) == np.asarray(prediction)) & valid) / max(np.sum(valid), 1)
        captions.append(["", "", "", f"{100 * right:.1f} % right" if valid.any() else "all ignored"])
    titles = ["image", "truth", "prediction", "error"]
    extra = [("wrong", WRONG_COLOR), ("ignored", IGNORE_COLOR)]
    _sheet(rows, titles, captions, _legend(classes, colors, [*truths, *predictions]) + extra, path)


def overlay_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    colors: Colors,
    classes: Sequence[str],
    path: str | Path,
    names: Sequence[str] = (),
    columns: int = 4,
) -> None:
    """Draws the images with their labels laid over them, `columns` a row, with names above and a legend below.

    Args:
        images: each u8, u16 or f32 in [0, 1], [h,w,c].
        labels: each i[h,w], the size of its image.
        colors: one per class.
        classes: names, one per class.
        path: the PNG file.
        names: one per image, or none.
        columns: pictures a row.

    Raises:
        ValueError: if there are no images, or an image and its label differ in size.
    """
    if not len(images) == len(labels) or not len(images):
        raise ValueError(f"A sheet needs as many images as labels, at least one: got {len(images)} and {len(labels)}.")
    columns = min(columns, len(images))
    cells = [overlay(image, label, colors, 0.55) for image, label in zip(images, labels)]
    captions = [_shorten(str(name), 30) for name in names] or [""] * len(cells)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    texts = [captions[i : i + columns] for i in range(0, len(cells), columns)]
    _sheet(rows, [], texts, _legend(classes, colors, labels), path)


def curves(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Draws loss, mIoU and learning rate over the steps, training and validation in one panel each.

    Args:
        records: the lines of `log.jsonl`: each has "step" and "split" ("train", or the evaluated split), and any of
            "loss", "mean_iou" and "learning_rate"; other keys are left alone.
        path: the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, LogLocator, MaxNLocator

    records = list(records)
    figure = Figure(figsize=(13.5, 3.9), dpi=_DPI, layout="constrained")
    panels = (("loss", "loss"), ("mean_iou", "mIoU"), ("learning_rate", "learning rate"))
    splits = list(dict.fromkeys(record["split"] for record in records))
    for axis, (name, label) in zip(figure.subplots(1, 3), panels):
        for number, split in enumerate(splits):
            points = [(r["step"], r[name]) for r in records if r["split"] == split and _finite(r, name)]
            if points:
                steps, values = zip(*points)
                mark = "o" if len(points) == 1 or split != "train" else ""
                axis.plot(steps, values, color=f"C{number}", label=split, marker=mark, markersize=3.5, linewidth=1.6)
        axis.set(xlabel="step", ylabel=label, title=label)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing logged", ha="center", va="center", transform=axis.transAxes, color="grey")
        elif name == "mean_iou":
            axis.set_ylim(0.0, 1.0)
        elif name == "learning_rate":
            axis.set_ylim(bottom=0.0)
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        elif all(v > 0 for line in axis.lines for v in line.get_ydata()):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(9, 9)))
            axis.yaxis.set_minor_formatter("")
        if axis.lines and name != "learning_rate":
            axis.legend(frameon=False)
    _save_figure(figure, path)


def confusion_picture(confusion: np.ndarray, classes: Sequence[str], path: str | Path) -> None:
    """Draws confusion i[k,k] (rows truth, columns prediction) as percentages of each row; k may be hundreds.

    Raises:
        ValueError: if the matrix is not square with one row per class.
    """
    from matplotlib.figure import Figure

    confusion, k = np.asarray(confusion), len(classes)
    if confusion.shape != (k, k) or not k:
        raise ValueError(f"The confusion matrix is {confusion.shape}, but there are {k} classes.")
    support = confusion.sum(axis=1, keepdims=True)
    percent = 100.0 * confusion / np.maximum(support, 1)
    cell, font = (0.52, 8.5) if k <= 24 else (0.3, 6.5) if k <= 60 else (0.19, 5.5)
    name_font = min(font + 1.0, 9.0) if k <= 60 else 6.5
    names = [_shorten(str(name), 24) for name in classes]
    margin = 0.5 + max(map(len, names)) * name_font * 0.0085
    side = max(k * cell, 2.2)
    flat = max(map(len, names)) * name_font * 0.0095 < side / k
    width, height = margin + side + 0.9, margin + side + 0.6
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axis = figure.add_axes((margin / width, 0.15 / height, side / width, side / height))
    image = axis.imshow(percent, cmap="Blues", vmin=0.0, vmax=100.0)
    axis.set_xticks(range(k), names, rotation=0 if flat else 90, fontsize=name_font)
    axis.set_yticks(range(k), names, fontsize=name_font)
    axis.tick_params(length=2, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.xaxis.set_label_position("top")
    axis.set_xlabel("predicted (per cent of the true class's pixels)")
    axis.set_ylabel("true")
    axis.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="0.88", linewidth=0.5)
    axis.tick_params(which="minor", length=0)
    least, digits = (0.05, 1) if k <= 24 else (0.5, 0) if k <= 60 else (5.0, 0)
    for row, column in np.argwhere(percent >= least):
        value, shade = percent[row, column], "white" if percent[row, column] > 55 else "black"
        text = f"{value:.{digits}f}" if value < 99.95 else "100"
        axis.text(column, row, text, ha="center", va="center", fontsize=font, color=shade)
    for row in np.flatnonzero(support[:, 0] == 0):
        axis.add_patch(_absent(row, k))
    bar = figure.add_axes(((margin + side + 0.15) / width, 0.15 / height, 0.16 / width, min(side, 6.0) / height))
    figure.colorbar(image, cax=bar, format="%d %%")
    bar.tick_params(labelsize=7)
    _save_figure(figure, path, bbox_inches="tight")


def _absent(row: int, k: int) -> Any:
    """A hatched strip over the row of a class without a true pixel."""
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, row - 0.5), k, 1, facecolor="0.95", edgecolor="0.8", hatch="////", linewidth=0)


def _finite(record: Mapping[str, Any], name: str) -> bool:
    return name in record and record[name] is not None and math.isfinite(record[name])


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _legend(
    classes: Sequence[str], colors: Colors, labels: Sequence[np.ndarray]
) -> list[tuple[str, tuple[float, ...] | Sequence[int]]]:
    """Returns (name, colour) of every class, or of those in `labels` where the classes are many."""
    chosen = range(len(classes))
    if len(classes) > _LEGEND_LIMIT:
        present = np.unique(np.concatenate([np.unique(label) for label in labels]))
        chosen = [int(c) for c in present if c < len(classes)]
    return [(_shorten(str(classes[c]), 22), colors[c]) for c in chosen]


def _sheet(
    rows: list[list[np.ndarray]],
    titles: list[str],
    captions: list[list[str]],
    legend: list[tuple[str, Any]],
    path: str | Path,
) -> None:
    """Lays pictures out in rows under column titles, captions above each picture, and the legend below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = max(len(row) for row in rows)
    # The last picture of a row sets its height: the labels' shape, where the image was resized for the network.
    aspects = [max(p.shape[0] / p.shape[1] for p in (row if not titles else row[-1:])) for row in rows]
    heights = [_CELL * min(max(a, 0.05), 4.0) for a in aspects]
    pad, caption = 0.08, 0.2 if any(any(texts) for texts in captions) else 0.0
    top = 0.28 if titles else 0.06
    width = columns * (_CELL + pad) + pad
    longest = max((len(name) for name, _ in legend), default=1)
    legend_columns = max(1, min(len(legend), int(width / (0.42 + 0.075 * longest))))
    legend_height = 0.2 + 0.17 * math.ceil(len(legend) / legend_columns)
    height = top + sum(heights) + len(rows) * (pad + caption) + legend_height
    figure = Figure(figsize=(width, height), dpi=_DPI)
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
    patches = [Patch(facecolor=np.asarray(c) / 255.0, edgecolor="0.4", linewidth=0.6, label=n) for n, c in legend]
    figure.legend(
        handles=patches, loc="lower center", ncols=legend_columns, fontsize=8, frameon=False, handlelength=1.2,
        handleheight=1.0, columnspacing=1.2, labelspacing=0.35, borderaxespad=0.2, borderpad=0.2,
    )  # fmt: skip
    _save_figure(figure, path)


def _save_figure(figure: "Figure", path: str | Path, **options: Any) -> None:
    write_whole(path, lambda file: figure.savefig(file, format="png", **options))
