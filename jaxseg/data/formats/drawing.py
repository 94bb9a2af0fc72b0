"""Draws the marks of an image as a full mask, in the order in which they lie on each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxseg.data.bands import upright
from jaxseg.data.formats.collection import Drawn, Lost
from jaxseg.data.images import read_header
from jaxseg.data.weak.drawing import inside, polygon_area, stroke
from jaxseg.data.weak.marks import AnnotatedImage, Annotations, Mark, check_mark, check_size
from jaxseg.data.weak.runs import Runs
from jaxseg.errors import DataError
from jaxseg.types import ignore_label, label_type

_RADIUS = 1.0  # of points and lines, which leave 3 x 3 pixels of their own unknown
_WHY = {
    "box": "A box has no outline: its inside is ignored. --boxes fills it with its class.",
    "point": "A point has no outline: 3 x 3 pixels there are ignored.",
    "line": "A line has no outline: the pixels along it are ignored.",
}


def draw_full(
    marks: Sequence[Mark],
    size: tuple[int, int],
    indices: Mapping[str, int],
    classes: int,
    *,
    outside: int,
    boxes: bool = False,
    file: str = "",
) -> Drawn:
    """Returns the label u8|u16[h,w] of an image.

    A pixel belongs to a polygon if its centre is inside. Of two objects, the one of the upper layer is seen; within a
    layer, the smaller. Where a mark says less than an outline, the label is the ignored one, under the others.

    Args:
        marks: what is annotated; tags are left out.
        size: (height, width).
        indices: the label of each name.
        classes: how many classes there are.
        outside: the label outside all marks.
        boxes: whether boxes are filled.
        file: the image, for what is lost.
    """
    label, ignored = np.full(size, outside, label_type(classes)), ignore_label(classes)
    areas = [mark for mark in marks if mark.kind in ("polygon", "brush") or (mark.kind == "box" and boxes)]
    lost = []
    for mark in marks:
        if mark.kind in _WHY and not (mark.kind == "box" and boxes):
            label[inside(mark, size) if mark.kind == "box" else stroke(mark, size, _RADIUS)] = ignored
            lost.append(Lost(file, f"{mark.kind} of {mark.name}", _WHY[mark.kind]))
    for mark in sorted(areas, key=lambda mark: (mark.layer, -_area(mark))):
        label[mark.brushed() if mark.area is not None else inside(mark, size)] = indices[mark.name]
    return Drawn(label, tuple(lost))


def _area(mark: Mark) -> float:
    """Returns the area of the object that a mark belongs to, in pixels."""
    if mark.area is not None:
        return mark.area.area if isinstance(mark.area, Runs) else float(mark.area.sum())
    holes = sum(map(polygon_area, mark.holes))
    return mark.whole or polygon_area(mark.points) - holes


def draw_image(
    path: Path,
    annotated: AnnotatedImage,
    annotations: Annotations,
    indices: Mapping[str, int],
    classes: int,
    *,
    outside: int,
    boxes: bool,
) -> Drawn:
    """Returns the label of an image file, upright; its arguments are those of `draw_full`.

    A mark that does not fit the image is left out, and listed; if none fits, the first is the error.

    Where the tool did not turn the image by its EXIF tag, which its size shows, the label is turned.

    Raises:
        DataError: if the file cannot be read, or was annotated at another size, or no mark fits it.
    """
    header = read_header(path)
    size, turned = (header.height, header.width), False
    stored = header.width, header.height
    if header.orientation in (5, 6, 7, 8) and annotated.size == stored != size:
        size, turned = stored, True
    check_size(annotations, annotated, size)
    fitting: list[Mark] = []
    lost: list[Lost] = []
    for mark in annotated.marks:
        try:
            check_mark(annotations, annotated, mark, size)
            fitting.append(mark)
        except DataError as error:
            lost.append(Lost(str(path), f"{mark.kind} of {mark.name}", str(error)))
    if lost and not fitting:
        raise DataError(lost[0].why)
    drawn = draw_full(fitting, size, indices, classes, outside=outside, boxes=boxes, file=str(path))
    label = upright(drawn.label[..., None], header.orientation)[..., 0] if turned else drawn.label
    return Drawn(label, (*lost, *drawn.lost))
