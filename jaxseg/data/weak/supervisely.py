"""The JSON of Supervisely: a file for each image, in ann/ beside img/, and meta.json with the classes."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.embedded import picture_in
from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Kind, Mark, box, no_points
from jaxseg.data.weak.runs import runs_of
from jaxseg.errors import DataError

META = "meta.json"
_KINDS: dict[str, Kind] = {"polygon": "polygon", "rectangle": "box", "line": "line", "polyline": "line"}
_KINDS |= {"point": "point"}


def is_supervisely(content: Any) -> bool:
    """Returns whether the content of a JSON file has the keys of this form."""
    return isinstance(content, dict) and "size" in content and "objects" in content


def classes(content: Any) -> list[str]:
    """Returns the names in the content of meta.json; none if it has none."""
    entries = content["classes"] if isinstance(content, dict) and "classes" in content else []
    entries = entries if isinstance(entries, list) else []
    return [str(entry["title"]) for entry in entries if isinstance(entry, dict) and "title" in entry]


def read(path: Path, content: Any, root: Path, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the one image of a file: that of the same name without .json, in img/ where the file is in ann/.

    `faults` gets the objects that cannot be read; None: the first of them is an error.
    """
    size = int(content["size"]["height"]), int(content["size"]["width"])
    folder = path.parent.relative_to(root)
    folder = folder.with_name("img") if folder.name == "ann" else folder
    image = (folder / path.stem).as_posix()
    marks = []
    for place, entry in enumerate(content["objects"]):
        with listed(faults, image, f"object {place + 1}"):
            marks.append(_mark(path, entry, size)._replace(layer=place))
    marks += [Mark("tag", str(tag["name"]), no_points()) for tag in (content["tags"] if "tags" in content else [])]
    return [AnnotatedImage(image, size, tuple(marks))]


def _mark(path: Path, entry: dict[str, Any], size: tuple[int, int]) -> Mark:
    name, kind = str(entry["classTitle"]), entry["geometryType"]
    if kind == "bitmap":
        left, top = map(int, entry["bitmap"]["origin"])
        return Mark(
            "brush", name, no_points(), runs_of(picture_in(entry["bitmap"]["data"], packed=True), size, (top, left))
        )
    if kind not in _KINDS:
        raise DataError(
            f"{path} has a geometry of the type {kind!r}, which is not read; bitmaps, polygons, rectangles, lines and "
            "points are."
        )
    outer = _points(entry["points"]["exterior"])
    if kind == "rectangle":
        (left, top), (right, bottom) = outer.min(0), outer.max(0)
        return Mark("box", name, box(left, top, right, bottom))
    holes = entry["points"]["interior"] if "interior" in entry["points"] else []
    return Mark(_KINDS[kind], name, outer, holes=tuple(map(_points, holes)))


def _points(given: Any) -> np.ndarray:
    return np.array(given, np.float64).reshape(-1, 2)
