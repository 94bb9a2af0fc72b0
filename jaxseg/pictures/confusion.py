"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.pictures.figure import DPI, plain_text, save_figure, shorten


@plain_text()
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
    names = [shorten(str(name), 24) for name in classes]
    margin = 0.5 + max(map(len, names)) * name_font * 0.0085
    side = max(k * cell, 2.2)
    flat = max(map(len, names)) * name_font * 0.0095 < side / k
    width, height = margin + side + 0.9, margin + side + 0.6
    figure = Figure(figsize=(width, height), dpi=DPI)
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
        axis.add_patch(_absent(int(row), k))
    bar = figure.add_axes(((margin + side + 0.15) / width, 0.15 / height, 0.16 / width, min(side, 6.0) / height))
    figure.colorbar(image, cax=bar, format="%d %%")
    bar.tick_params(labelsize=7)
    save_figure(figure, path, bbox_inches="tight")


def _absent(row: int, k: int) -> Any:
    """A hatched strip over the row of a class without true pixels."""
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, row - 0.5), k, 1, facecolor="0.95", edgecolor="0.8", hatch="////", linewidth=0)
