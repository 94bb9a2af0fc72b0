"""The XML of CVAT, in its form "CVAT for images 1.1"."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, no_points, turned
from jaxseg.data.weak.runs import make_runs
from jaxseg.errors import DataError

_POINTS = {"polygon": "polygon", "polyline": "line", "points": "point"}


def read(path: Path, text: str, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the images of a file.

    `faults` gets the shapes that cannot be read; None: the first of them is an error.

    Raises:
        DataError: if it is no valid XML, of another form, or has a shape that is not read.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities that hold each other can stand for any amount of text
        raise DataError(f"{path} defines entities of XML, which CVAT does not write; export it from CVAT again.")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is no valid XML ({error}).") from error
    if root.tag != "annotations" or root.find("image") is None:
        video = " Export the video as images." if root.find("track") is not None else ""
        raise DataError(
            f"{path} has the element <{root.tag}> and no <image> in it; expected CVAT's form 'CVAT for images 1.1'."
            f"{video}"
        )
    images = []
    for number, element in enumerate(root.iter("image"), 1):
        name = element.attrib["name"] if "name" in element.attrib else f"{path}, image {number}"
        with listed(faults, name, "image"):
            images.append(_image(path, element, faults))
    return images


def classes(text: str) -> list[str]:
    """Returns the names of the labels of the task; none if the text is no XML, or names none."""
    try:
        labels = ElementTree.fromstring(text.encode()).iterfind("meta//label/name")
    except ElementTree.ParseError:
        return []
    return list(dict.fromkeys((label.text or "").strip() for label in labels))


def _image(path: Path, element: ElementTree.Element, faults: list[Fault] | None) -> AnnotatedImage:
    given = "width" in element.attrib and "height" in element.attrib
    size = (int(element.attrib["height"]), int(element.attrib["width"])) if given else None
    name = element.attrib["name"]
    marks, depths = [], []
    for number, shape in enumerate(element, 1):
        of_class = f" of {shape.attrib['label']}" if "label" in shape.attrib else ""
        with listed(faults, name, f"shape {number}, {shape.tag}{of_class}"):
            depth = int(shape.attrib["z_order"]) if "z_order" in shape.attrib else 0
            marks.append(_mark(path, shape, size))
            depths.append(depth)
    order = sorted(range(len(marks)), key=lambda place: depths[place])  # of one depth, the later lies on the earlier
    layers = {place: layer for layer, place in enumerate(order)}
    stacked = tuple(mark._replace(layer=layers[place]) for place, mark in enumerate(marks))
    split = element.attrib["subset"] if "subset" in element.attrib else ""
    return AnnotatedImage(name, size, stacked, split)


def _mark(path: Path, shape: ElementTree.Element, size: tuple[int, int] | None) -> Mark:
    values = shape.attrib
    if shape.tag == "tag":
        return Mark("tag", values["label"], no_points())
    if shape.tag in _POINTS:
        points = np.array([[float(v) for v in pair.split(",")] for pair in values["points"].split(";")])
        kind = "polygon" if shape.tag == "polygon" else "line" if shape.tag == "polyline" else "point"
        return Mark(kind, values["label"], points)
    if shape.tag == "box":
        corners = box(*(float(values[side]) for side in ("xtl", "ytl", "xbr", "ybr")))
        angle = float(values["rotation"]) if "rotation" in values else 0.0
        return Mark("box", values["label"], turned(corners, angle, corners.mean(0)) if angle else corners)
    if shape.tag == "mask":
        left, top, width, height = (int(float(values[side])) for side in ("left", "top", "width", "height"))
        counts = [int(count) for count in values["rle"].split(",")]
        area = make_runs(counts, size or (top + height, left + width), (top, left, height, width), by_columns=False)
        return Mark("brush", values["label"], no_points(), area)
    raise DataError(
        f"{path} has a <{shape.tag}>, which is not read; boxes, polygons, masks, polylines, points and tags are."
    )
