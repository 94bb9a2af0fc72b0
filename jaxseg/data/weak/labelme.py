"""The files of LabelMe: one JSON file for each image, with its shapes; image flags that are set are tags."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.embedded import picture_in
from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Kind, Mark, box, ellipse, no_points
from jaxseg.data.weak.runs import runs_of
from jaxseg.errors import DataError, nearest

_KINDS: dict[str, Kind] = {
    "polygon": "polygon",
    "rectangle": "box",
    "circle": "polygon",
    "line": "line",
    "linestrip": "line",
    "point": "point",
    "points": "point",
}


def is_labelme(content: Any) -> bool:
    """Returns whether the content of a JSON file has the keys of this form."""
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def read(path: Path, content: Any, root: Path, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the one image of a file, named as the file inside `root`; its own field may lead elsewhere.

    `faults` gets the shapes that cannot be read; None: the first of them is an error.
    """
    given = "imageHeight" in content and content["imageHeight"] is not None
    size = (int(content["imageHeight"]), int(content["imageWidth"])) if given else None
    image = Path(str(content["imagePath"]).replace("\\", "/"))
    name = (path.parent.relative_to(root) / image.name).as_posix()
    marks = []
    for place, shape in enumerate(content["shapes"]):
        with listed(faults, name, f"shape {place + 1}"):
            marks.append(_mark(path, shape, size)._replace(layer=place))
    flags = (content["flags"] if "flags" in content else None) or {}
    marks += [Mark("tag", str(name), no_points()) for name, is_set in flags.items() if is_set]
    return [AnnotatedImage(name, size, tuple(marks))]


def _mark(path: Path, shape: dict[str, Any], size: tuple[int, int] | None) -> Mark:
    kind = shape["shape_type"] if "shape_type" in shape else "polygon"
    if kind not in (*_KINDS, "mask"):
        raise DataError(f"{path} has a shape of the type {kind!r}, which is not read.{nearest(kind, _KINDS)}")
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind == "mask":
        left, top = np.floor(points.min(0)).astype(int).tolist()
        area = picture_in(shape["mask"])
        return Mark("brush", str(shape["label"]), no_points(), runs_of(area, size or area.shape, (top, left)))
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        points = box(left, top, right, bottom)
    elif kind == "circle":
        (x, y), edge = points
        points = ellipse((x, y), [math.hypot(*(edge - (x, y)))] * 2)
    return Mark(_KINDS[kind], str(shape["label"]), points)
