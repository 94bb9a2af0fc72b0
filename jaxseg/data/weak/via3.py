"""The JSON of the VGG Image Annotator (VIA), version 3: a project with files, views of them, and their regions.

A region has the list `xy`: the number of its shape, then its coordinates in pixels of the image. A view with several
files is a comparison of them, of which a region says none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Kind, Mark, box, ellipse, no_points
from jaxseg.data.weak.via import class_of, key_of_class, only_box
from jaxseg.errors import DataError, counted

_POINT, _RECTANGLE, _CIRCLE, _ELLIPSE, _LINE, _POLYLINE, _POLYGON, _EXTREME_RECTANGLE, _EXTREME_CIRCLE = range(1, 10)
_LENGTHS = {_POINT: 2, _RECTANGLE: 4, _CIRCLE: 3, _ELLIPSE: 4, _LINE: 4, _EXTREME_RECTANGLE: 8, _EXTREME_CIRCLE: 6}
_KINDS: dict[int, Kind] = {_POINT: "point", _LINE: "line", _POLYLINE: "line", _POLYGON: "polygon"}
_IMAGE = 2  # a type of files; 4 is a video, 8 a sound
_CHECK_BOXES = 2  # a type of attributes, whose values are the chosen options with commas


def is_via3(content: Any) -> bool:
    """Returns whether the content of a JSON file has the keys of this form."""
    parts = ("project", "attribute", "file", "view", "metadata")
    return isinstance(content, dict) and all(part in content and isinstance(content[part], dict) for part in parts)


def read(path: Path, content: Any, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the images, in the order of the project. A region without attributes is of the class "object".

    `faults` gets the regions that cannot be read; None: the first of them is an error.

    Raises:
        DataError: if it does not say which of several attributes is the class, or has a shape that is not read.
    """
    files = {str(name): entry for name, entry in content["file"].items()}
    marks: dict[str, list[Mark]] = {str(view): [] for view in content["view"]}
    names = {str(view): _name(entry, files) for view, entry in content["view"].items()}
    for number, entry in enumerate(content["metadata"].values(), 1):
        view = str(entry["vid"]) if isinstance(entry, dict) and "vid" in entry else ""
        with listed(faults, names[view] if view in names else str(path), f"region {number}"):
            if view not in marks:
                raise DataError(f"{path} has a region of the view {view!r}, which it does not list.")
            marks[view].append(_mark(path, entry, _image_of(path, content["view"][view], files), content["attribute"]))
    known = [str(view) for view in content["project"]["vid_list"]] if "vid_list" in content["project"] else list(marks)
    order = [view for view in known if view in marks] + [view for view in marks if view not in known]
    return [AnnotatedImage(names[view], None, tuple(marks[view])) for view in order]


def _name(view: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """Returns the name of the first file of a view."""
    first = str(next(iter(view["fid_list"]), ""))
    return str(files[first]["fname"]) if first in files else f"file {first}"


def _image_of(path: Path, view: Mapping[str, Any], files: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the only file of a view; raises DataError if there are others, or it is no image."""
    found = [files[str(name)] for name in view["fid_list"]]
    if len(found) != 1:
        raise DataError(f"{path} has a region of a view of {counted(len(found), 'file')}; one image was expected.")
    if found[0]["type"] != _IMAGE:
        raise DataError(f"{path} has a region in {found[0]['fname']}, which is no image but a video or a sound.")
    return found[0]


def _mark(path: Path, entry: Mapping[str, Any], image: Mapping[str, Any], attributes: Mapping[str, Any]) -> Mark:
    values = {str(attributes[key]["aname"]): (attributes[key], str(value)) for key, value in entry["av"].items()}
    key = key_of_class(path, values)
    name = class_of(path, {} if key is None else {key: _words(*values[key])})
    if not entry["xy"]:
        return Mark("tag", name, no_points())
    shape, *numbers = np.array(entry["xy"], np.float64).tolist()
    if shape in _LENGTHS and len(numbers) != _LENGTHS[shape]:
        raise DataError(
            f"{path} gives {image['fname']} a shape {shape:g} of {counted(len(numbers), 'number')}, not "
            f"{_LENGTHS[shape]}."
        )
    if shape == _RECTANGLE:
        left, top, width, height = numbers
        return Mark("box", name, box(left, top, left + width, top + height))
    if shape in (_CIRCLE, _ELLIPSE):
        x, y, *radii = numbers
        return Mark("polygon", name, ellipse((x, y), [radii[0], radii[-1]]))
    if shape not in range(_POINT, _EXTREME_CIRCLE + 1):
        raise DataError(
            f"{path} gives {image['fname']} a region of the shape {shape:g}, which is not read; 1 to 9 are."
        )
    if len(numbers) % 2:
        raise DataError(
            f"{path} gives {image['fname']} a shape of {counted(len(numbers), 'number')}, where pairs were expected."
        )
    points = np.array(numbers).reshape(-1, 2)
    if shape == _EXTREME_RECTANGLE:  # four points on the sides of a box
        return Mark("box", name, box(*points.min(0), *points.max(0)))
    if shape == _EXTREME_CIRCLE:
        centre, radius = _circle_through(points)
        return Mark("polygon", name, ellipse(centre, [radius, radius]))
    return Mark(_KINDS[int(shape)], name, points)


def _circle_through(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the centre (x, y) and the radius of the circle through three points f64[3,2].

    Raises:
        ValueError: if they lie on a line.
    """
    sides = points[1:] - points[0]  # the centre c from the first point has 2 side . c = |side|^2 for both sides
    if np.linalg.matrix_rank(sides) < 2:
        raise ValueError("three points of a circle lie on a line")
    offset = np.linalg.solve(2 * sides, (sides**2).sum(1))
    return points[0] + offset, float(np.hypot(*offset))


def _words(attribute: Mapping[str, Any], value: str) -> str:
    """Returns the text of a value: that of its option, of check boxes, of the one that is set."""
    options: Mapping[str, Any] = attribute["options"] if "options" in attribute else {}
    if attribute["type"] != _CHECK_BOXES:
        return str(options[value]) if value in options else value
    return only_box([str(options[each]) if each in options else each for each in value.split(",") if each])
