"""The XML of CVAT, in its forms "CVAT for images 1.1" and "CVAT for video 1.1".

Of a video CVAT writes each object as a track, with a shape for every frame in which it is, those between two key frames
interpolated; the shape of the frame after the last is marked as outside.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, ellipse, no_points, turned
from jaxseg.data.weak.runs import make_runs
from jaxseg.errors import DataError, counted

_POINTS = {"polygon": "polygon", "polyline": "line", "points": "point"}
_ROOT = "annotations"  # the tag of the outermost element, and the name that CVAT gives to its file
_MOST_FRAMES = 1_000_000


def read(path: Path, text: str, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the images of a file: of a video, its frames from the first to the last, named VIDEO/frame_NUMBER.

    VIDEO is the name of the file, or of its folder if it is called annotations.xml.

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
    if root.tag != _ROOT or (root.find("image") is None and root.find("track") is None):
        raise DataError(
            f"{path} has the element <{root.tag}> and no <image> or <track> in it; expected CVAT's form 'CVAT for "
            "images 1.1' or 'CVAT for video 1.1'."
        )
    images = []
    for number, element in enumerate(root.iter("image"), 1):
        name = element.attrib["name"] if "name" in element.attrib else f"{path}, image {number}"
        with listed(faults, name, "image"):
            images.append(_image(path, element, faults))
    return images + _frames(path, root, faults)


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
            depth = _depth(shape)
            marks.append(_mark(path, shape, shape.attrib["label"], size))
            depths.append(depth)
    split = element.attrib["subset"] if "subset" in element.attrib else ""
    return AnnotatedImage(name, size, _stacked(marks, depths), split)


def _depth(shape: ElementTree.Element) -> int:
    return int(shape.attrib["z_order"]) if "z_order" in shape.attrib else 0


def _stacked(marks: Sequence[Mark], depths: Sequence[int]) -> tuple[Mark, ...]:
    """Returns the marks with their layers; of one depth, the later lies on the earlier."""
    order = sorted(range(len(marks)), key=lambda place: depths[place])
    layers = {place: layer for layer, place in enumerate(order)}
    return tuple(mark._replace(layer=layers[place]) for place, mark in enumerate(marks))


def _frames(path: Path, root: ElementTree.Element, faults: list[Fault] | None) -> list[AnnotatedImage]:
    """Returns the frames of a video: those of the task, and those with a shape that is not outside."""
    tracks = root.findall("track")
    if not tracks:
        return []
    if len({track.attrib["task_id"] for track in tracks if "task_id" in track.attrib}) > 1:
        raise DataError(f"{path} has tracks of several videos; export each task of the project by itself.")
    video = path.parent.resolve().name if path.stem == _ROOT else path.stem
    width, height = (root.findtext(f"meta//original_size/{side}") for side in ("width", "height"))
    size = (int(height), int(width)) if width and height else None
    numbers = _numbers(path, root)
    shapes: dict[int, list[tuple[int, Mark]]] = {number: [] for number in numbers}
    for place, track in enumerate(tracks, 1):
        label = track.attrib["label"] if "label" in track.attrib else ""
        for shape in track:
            if "outside" in shape.attrib and shape.attrib["outside"] == "1":
                continue
            at = f"{video}, frame {shape.attrib['frame']}" if "frame" in shape.attrib else str(path)
            with listed(faults, at, f"track {place}, {shape.tag} of {label}"):
                mark = _mark(path, shape, track.attrib["label"], size)
                shapes.setdefault(int(shape.attrib["frame"]), []).append((_depth(shape), mark))
    subset = root.findtext("meta//subset") or ""
    return [
        AnnotatedImage(
            f"{video}/frame_{number:06d}",
            size,
            _stacked([mark for _, mark in found], [depth for depth, _ in found]),
            subset,
            frame=number,
            task=(numbers.start, numbers.stop - 1) if numbers else None,
        )
        for number, found in sorted(shapes.items())
    ]


def _numbers(path: Path, root: ElementTree.Element) -> range:
    """Returns the frames of the task, by their numbers in the video; none if the file does not say them."""
    start, stop = root.findtext("meta//start_frame"), root.findtext("meta//stop_frame")
    if not start or not stop:
        return range(0)
    step = (root.findtext("meta//frame_filter") or "").partition("step=")[2].strip()
    numbers = range(int(start), int(stop) + 1, int(step or 1))
    if len(numbers) > _MOST_FRAMES:
        raise DataError(
            f"{path} says that its video has {counted(len(numbers), 'frame')}; at most {_MOST_FRAMES:,} are read."
        )
    return numbers


def _mark(path: Path, shape: ElementTree.Element, label: str, size: tuple[int, int] | None) -> Mark:
    values = shape.attrib
    if shape.tag == "tag":
        return Mark("tag", label, no_points())
    if shape.tag in _POINTS:
        points = np.array([[float(v) for v in pair.split(",")] for pair in values["points"].split(";")])
        kind = "polygon" if shape.tag == "polygon" else "line" if shape.tag == "polyline" else "point"
        return Mark(kind, label, points)
    if shape.tag == "ellipse":
        x, y, *radii = (float(values[key]) for key in ("cx", "cy", "rx", "ry"))
        angle = float(values["rotation"]) if "rotation" in values else 0.0
        return Mark("polygon", label, ellipse((x, y), radii, angle))
    if shape.tag == "box":
        corners = box(*(float(values[side]) for side in ("xtl", "ytl", "xbr", "ybr")))
        angle = float(values["rotation"]) if "rotation" in values else 0.0
        return Mark("box", label, turned(corners, angle, corners.mean(0)) if angle else corners)
    if shape.tag == "mask":
        left, top, width, height = (int(float(values[side])) for side in ("left", "top", "width", "height"))
        counts = [int(count) for count in values["rle"].split(",")]
        area = make_runs(counts, size or (top + height, left + width), (top, left, height, width), by_columns=False)
        return Mark("brush", label, no_points(), area)
    raise DataError(
        f"{path} has a <{shape.tag}>, which is not read; boxes, polygons, masks, ellipses, polylines, points and tags "
        "are."
    )
