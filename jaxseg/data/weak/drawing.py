"""Turns the marks of an image into labels: class indices where the marks say them, IGNORE elsewhere."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.data.weak.marks import Annotations, Mark
from jaxseg.losses.possible import possible_label
from jaxseg.types import IGNORE


class Drawing(NamedTuple):
    """How marks become labels.

    Attributes:
        box_core: the share of the height and width of a box, about its centre, that gets its class; the rest of the box
            is unknown. 1: all of the box.
        radius: of points and scribbles, in pixels: 0 is one pixel, 1 a square of 3 x 3, larger ones are discs.
        target: the (height, width) that images are resized to, whose pixels `radius` means, so that a point is still
            seen in the smaller image; None: those of the image itself.
        outside: whether what no box and no polygon encloses is of class 0, the background.
        possible: whether the unknown part of a box of class c gets the label 254 - c, and every unlabelled pixel of an
            image with tags that of one of them; see `jaxseg.losses.possible`. False: IGNORE.
    """

    box_core: float = 1.0
    radius: float = 1.0
    target: tuple[int, int] | None = None
    outside: bool = False
    possible: bool = False

    def radius_in(self, size: tuple[int, int]) -> float:
        """Returns the radius in pixels of an image of the size (height, width)."""
        height, width = self.target or size
        shrinks = max(1.0, size[0] / height, size[1] / width)
        return (self.radius + 0.5) * shrinks - 0.5


def encloses(annotations: Annotations, indices: Mapping[str, int]) -> bool:
    """Returns whether what is outside all boxes and polygons is background (class 0).

    It is where there are boxes, and where there are polygons and nothing marks the background itself.
    """
    marks = [mark for image in annotations.images for mark in image.marks]
    if any(mark.kind == "box" for mark in marks):
        return True
    marked = any(indices[mark.name] == 0 for mark in marks if mark.kind != "tag")
    return any(mark.kind == "polygon" for mark in marks) and not marked


def draw(
    marks: Sequence[Mark], size: tuple[int, int], indices: Mapping[str, int], how: Drawing | None = None
) -> np.ndarray:
    """Returns the labels u8[h,w] of an image.

    Boxes and polygons are drawn from the largest to the smallest, so that a small object on a large one is seen; lines
    and brushes over them, and points over all.

    Args:
        marks: what is annotated.
        size: (height, width).
        indices: the index of each class name.
        how: see `Drawing`.
    """
    how = how or Drawing()
    radius = how.radius_in(size)
    label = np.full(size, 0 if how.outside else IGNORE, np.uint8)
    areas = [mark for mark in marks if mark.kind in ("box", "polygon")]
    for mark in sorted(areas, key=lambda mark: -polygon_area(mark.points)):
        index = indices[mark.name]
        core = how.box_core if mark.kind == "box" else 1.0
        if core < 1:
            label[inside(mark, size)] = possible_label(index) if how.possible else IGNORE
        if core > 0:
            label[inside(mark._replace(points=_shrunk(mark.points, core)), size)] = index
    for mark in marks:
        if mark.kind == "line":
            label[stroke(mark, size, radius)] = indices[mark.name]
        elif mark.area is not None:
            label[mark.brushed()] = indices[mark.name]
    for mark in marks:
        if mark.kind == "point":
            label[stroke(mark, size, radius)] = indices[mark.name]
    tags = sorted({indices[mark.name] for mark in marks if mark.kind == "tag"} - {0})
    if how.possible and tags:
        codes = np.array([possible_label(index) for index in tags], np.uint8)
        mixed = codes[np.random.default_rng(0).integers(0, len(codes), size)]  # a crop keeps some pixels of each
        label = np.where(label == IGNORE, mixed, label)
    return label


def inside(mark: Mark, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels bool[h,w] of a polygon or a box: those whose centre is inside, and in no hole; at least one.

    The centre of the pixel (row, column) is (column + 1/2, row + 1/2).
    """
    mask = _inside(mark.points, size)
    for hole in mark.holes:
        mask &= ~_inside(hole, size, least=False)
    return mask


def stroke(mark: Mark, size: tuple[int, int], radius: float) -> np.ndarray:
    """Returns the pixels bool[h,w] within `radius` of a line or of points; see `Drawing.radius`."""
    return _stamped(_along(mark.points) if mark.kind == "line" else mark.points, size, radius)


def polygon_area(points: np.ndarray) -> float:
    """Returns the area of a polygon f64[n,2], in squares of pixels."""
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _shrunk(points: np.ndarray, share: float) -> np.ndarray:
    centre = (points.min(0) + points.max(0)) / 2
    return centre + share * (points - centre)


def _inside(points: np.ndarray, size: tuple[int, int], least: bool = True) -> np.ndarray:
    """bool[h,w], the pixels whose centre is inside a polygon f64[n,2] of (x, y), by the even-odd rule.

    `least`: at least one pixel, the one at the mean of the corners.
    """
    height, width = size
    mask = np.zeros(size, bool)
    first, last = points, np.roll(points, -1, axis=0)
    low, high = points[:, 1].min(), points[:, 1].max()
    for row in range(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5)))):
        y = row + 0.5
        cut = (first[:, 1] <= y) != (last[:, 1] <= y)
        (x0, y0), (x1, y1) = first[cut].T, last[cut].T
        crossings = np.sort(x0 + (y - y0) / (y1 - y0) * (x1 - x0))
        for left, right in zip(crossings[::2], crossings[1::2]):
            mask[row, max(0, int(np.ceil(left - 0.5))) : max(0, int(np.ceil(right - 0.5)))] = True
    if least and not mask.any():
        mask |= _stamped(points.mean(0, keepdims=True), (height, width), 0)
    return mask


def _along(points: np.ndarray) -> np.ndarray:
    """Returns points f64[m,2] on the lines between the given ones, at most half a pixel apart."""
    pieces = [points[:1]]
    for start, end in itertools.pairwise(points):
        steps = max(1, int(np.ceil(2 * np.abs(end - start).max())))
        pieces.append(start + (end - start) * (np.arange(1, steps + 1) / steps)[:, None])
    return np.concatenate(pieces)


def _stamped(points: np.ndarray, size: tuple[int, int], radius: float) -> np.ndarray:
    """bool[h,w], the pixels of a disc around each point f64[n,2] of (x, y)."""
    height, width = size
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = dy**2 + dx**2 <= radius * (radius + 1)  # about (radius + 1/2)²: 1 is a square of 3 x 3
    column, row = np.floor(points).astype(int).clip(0, (width - 1, height - 1)).T
    rows, columns = (row[:, None] + dy[disc]).ravel(), (column[:, None] + dx[disc]).ravel()
    seen = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    mask = np.zeros(size, bool)
    mask[rows[seen], columns[seen]] = True
    return mask
