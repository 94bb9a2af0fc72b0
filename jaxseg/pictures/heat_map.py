"""Heat maps laid over an image, with a colour bar and a legend in words."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.pictures.figure import DPI, draw, plain_text, shorten
from jaxseg.pictures.images import to_rgb

_CELL = 3.0  # inches, the longer side of one picture
_MOST = 11  # maps in one figure: with the image three rows of four
_OPACITY = 0.65


@plain_text()
def heat_maps(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    caption: Sequence[str],
    *,
    pixels: np.ndarray | None = None,
    box: tuple[int, int, int, int] | None = None,
    signed: bool = False,
    percentile: float = 100.0,
    unit: str = "share of the largest value",
) -> np.ndarray:
    """Returns u8[y,x,3]: the image, the same under each map, a colour bar, and the lines of the caption below.

    Args:
        image: u8, u16 or f32 in [0, 1], [h,w,c]; it is grey under the maps.
        maps: {title: f32[h,w]}, at least one; after the first 11, the title of the last says how many are left out.
        caption: lines below the pictures.
        pixels: bool[h,w], outlined in the image; one pixel has a cross.
        box: (top, left, bottom, right), drawn into every map; bottom and right are exclusive.
        signed: whether 0 is the middle of the colours.
        percentile: of a map's absolute values, what has the strongest colour; 100 is the largest value.
        unit: the label of the colour bar.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rgb = to_rgb(image)
    shown = dict(list(maps.items())[:_MOST])
    colors = colormaps["RdBu_r" if signed else "inferno"]
    h, w = rgb.shape[:2]
    cell_w, cell_h = (_CELL, _CELL * h / w) if w >= h else (_CELL * w / h, _CELL)
    cell_w, cell_h = max(cell_w, 1.2), max(cell_h, 0.3)
    cells: list[tuple[str, np.ndarray | None]] = [("image", None), *shown.items()]
    rows = math.ceil(len(cells) / 4)
    columns = math.ceil(len(cells) / rows)
    pad, title, bar, line = 0.12, 0.24, 0.95, 0.18
    width = max(columns * (cell_w + pad) + pad + bar, 0.07 * max(map(len, caption), default=0) + 2 * pad)
    foot = pad + line * len(caption)
    height = rows * (cell_h + title) + foot + pad
    figure = Figure(figsize=(width, height), dpi=DPI)
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255.0  # luma, ITU-R BT.601
    for i, (name, values) in enumerate(cells):
        left = pad + (i % columns) * (cell_w + pad)
        bottom = height - (i // columns + 1) * (cell_h + title)
        axis = figure.add_axes((left / width, bottom / height, cell_w / width, cell_h / height))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.75")
        more = f" (and {len(maps) - _MOST} more)" if i == _MOST and len(maps) > _MOST else ""
        axis.set_title(shorten(name, 40 - len(more)) + more, fontsize=8, pad=3)
        if values is None:
            axis.imshow(rgb, interpolation="nearest")
            _outline(axis, pixels)
            continue
        heat = colors(_scaled(values, signed, percentile))[..., :3]
        axis.imshow((1 - _OPACITY) * grey[..., None] + _OPACITY * heat, interpolation="nearest", vmin=0, vmax=1)
        _outline(axis, pixels if pixels is not None and pixels.sum() == 1 else None)
        if box is not None:
            _rectangle(axis, box)
    scale = figure.add_axes(
        ((columns * (cell_w + pad) + pad) / width, (height - cell_h - title) / height, 0.13 / width, cell_h / height)
    )
    low = -1.0 if signed else 0.0
    figure.colorbar(ScalarMappable(Normalize(low, 1.0), colors), cax=scale, ticks=[low, 0.0, 1.0] if signed else None)
    scale.tick_params(labelsize=7)
    scale.set_ylabel(unit, fontsize=7)
    for i, text in enumerate(caption):
        where = (foot - pad / 2 - line * i) / height
        figure.text(pad / width, where, shorten(text, 160), fontsize=8, va="top")
    file = io.BytesIO()
    draw(figure, file)
    return _decoded(file)


@plain_text()
def faithfulness_curves(
    shares: np.ndarray, deletion: np.ndarray, insertion: np.ndarray, areas: tuple[float, float], title: str
) -> np.ndarray:
    """Returns u8[y,x,3]: the curves f32[n] of deletion and insertion over the share of pixels, with their areas."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    axis.plot(shares, insertion, color="#1f77b4", label=f"insertion, area {areas[1]:.3f} (higher is better)")
    axis.plot(shares, deletion, color="#d62728", label=f"deletion, area {areas[0]:.3f} (lower is better)")
    axis.set_xlabel("share of the image's pixels, highest of the map first", fontsize=8)
    axis.set_ylabel("probability of the class at the target", fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.02, 1.02)
    axis.tick_params(labelsize=7)
    axis.set_title(shorten(title, 70), fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    file = io.BytesIO()
    draw(figure, file)
    return _decoded(file)


def _scaled(values: np.ndarray, signed: bool, percentile: float) -> np.ndarray:
    """Returns a map with its strongest value at 1; a signed one is brought from [-1, 1] to [0, 1]."""
    values = np.asarray(values, np.float32)
    top = max(float(np.percentile(np.abs(values), percentile)), float(np.abs(values).max()) * 1e-3, 1e-30)
    values = values / top
    return np.clip(values * 0.5 + 0.5 if signed else values, 0.0, 1.0)


def _outline(axis: Any, pixels: np.ndarray | None) -> None:
    if pixels is None or pixels.all() or not pixels.any():
        return
    if pixels.sum() == 1:
        row, column = np.argwhere(pixels)[0]
        for width, color in ((3.0, "black"), (1.4, "white")):
            axis.plot([column], [row], "+", color=color, markersize=11, markeredgewidth=width)
        return
    framed = np.pad(pixels, 1).astype(np.float32)  # so that an outline closes at the border of the image
    h, w = framed.shape
    for width, color in ((2.2, "black"), (1.0, "white")):
        axis.contour(np.arange(w) - 1, np.arange(h) - 1, framed, levels=[0.5], colors=color, linewidths=width)
    axis.set_xlim(-0.5, w - 2.5)
    axis.set_ylim(h - 2.5, -0.5)


def _rectangle(axis: Any, box: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    top, left, bottom, right = box
    for width, color in ((2.4, "black"), (1.1, "cyan")):
        corner = (left - 0.5, top - 0.5)
        axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=color, linewidth=width))


def _decoded(file: io.BytesIO) -> np.ndarray:
    from PIL import Image

    file.seek(0)
    with Image.open(file) as picture:
        return np.array(picture.convert("RGB"))
