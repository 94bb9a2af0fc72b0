"""The JSON of the VGG Image Annotator (VIA), versions 1 and 2: a project, or its annotations alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, ellipse, no_points
from jaxseg.errors import DataError, some

_PROJECT = "_via_img_metadata"
_NAMES = ("class", "label", "name", "type", "category", "object")  # attributes that may hold the class
_UNNAMED = "object"


def is_via(content: Any) -> bool:
    """Returns whether the content of a JSON file has the keys of this form."""
    entries = _entries(content)
    return bool(entries) and all(isinstance(e, dict) and "filename" in e and "regions" in e for e in entries)


def read(path: Path, content: Any, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the images. A region without attributes is of the class "object".

    `faults` gets the regions that cannot be read; None: the first of them is an error.

    Raises:
        DataError: if it does not say which of several attributes is the class, or has a shape that is not read.
    """
    images = []
    for entry in _entries(content):
        regions = entry["regions"]
        given = list(regions.values()) if isinstance(regions, dict) else regions
        name, marks = str(entry["filename"]), []
        for number, region in enumerate(given, 1):
            with listed(faults, name, f"region {number}"):
                marks.append(_mark(path, region))
        images.append(AnnotatedImage(name, None, tuple(marks)))
    return images


def _entries(content: Any) -> list[Any]:
    if not isinstance(content, dict):
        return []
    inner = content[_PROJECT] if _PROJECT in content else content
    return list(inner.values()) if isinstance(inner, dict) else []


def _mark(path: Path, region: dict[str, Any]) -> Mark:
    shape = region["shape_attributes"]
    name = class_of(path, region["region_attributes"] if "region_attributes" in region else {})
    kind = shape["name"] if "name" in shape else None
    if kind in ("polygon", "polyline"):
        points = np.array([shape["all_points_x"], shape["all_points_y"]], np.float64).T
        return Mark("polygon" if kind == "polygon" else "line", name, points)
    if kind == "rect":
        left, top = float(shape["x"]), float(shape["y"])
        return Mark("box", name, box(left, top, left + float(shape["width"]), top + float(shape["height"])))
    if kind == "point":
        return Mark("point", name, np.array([[shape["cx"], shape["cy"]]], np.float64))
    if kind in ("circle", "ellipse"):
        centre = np.array([shape["cx"], shape["cy"]], np.float64)
        radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        degrees = math.degrees(float(shape["theta"])) if "theta" in shape else 0.0
        return Mark("polygon", name, ellipse(centre, radii, degrees))
    if kind is None:
        return Mark("tag", name, no_points())
    raise DataError(
        f"{path} has a region of the shape {kind!r}, which is not read; polygons, polylines, rectangles, circles, "
        "ellipses and points are."
    )


def class_of(path: Path, given: Mapping[str, Any]) -> str:
    """Returns the class by the attributes {name: value} of a region.

    Raises:
        DataError: if there are several, of which none is called as a class is, or several check boxes of it are set.
    """
    key = key_of_class(path, given)
    return _UNNAMED if key is None else _text(given[key])


def key_of_class(path: Path, given: Mapping[str, Any]) -> str | None:
    """Returns which of the attributes of a region is the class; None if it has none. Raises as `class_of` does."""
    chosen = next((own for known in _NAMES for own in given if own.lower() == known), None)
    if chosen is None and len(given) > 1:
        raise DataError(
            f"{path} gives a region the attributes {', '.join(map(str, given))}; call the one that is the class "
            "'class' or 'label'."
        )
    return chosen if chosen is not None else next(iter(given), None)


def only_box(chosen: Sequence[str]) -> str:
    """Returns the name of the only check box that is set; "" if none is.

    Raises:
        DataError: if several are.
    """
    if len(chosen) > 1:
        raise DataError(
            f"A region has the check boxes {some(chosen)}, but a region has one class; draw it once for each, or make "
            "the attribute a radio or a dropdown."
        )
    return chosen[0] if chosen else ""


def _text(value: Any) -> str:
    """Returns the value of an attribute; of check boxes, the one that is set."""
    if isinstance(value, dict):
        return only_box([str(name) for name, is_set in value.items() if is_set]) or _UNNAMED
    return str(value).strip() or _UNNAMED
