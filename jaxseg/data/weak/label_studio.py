"""The exports "JSON" and "JSON-MIN" of Label Studio: a list of tasks with their results, in per cent of the image.

JSON-MIN has an entry for each annotation: the fields of the task, and beside them lists of regions, each with its own
size of the image. Several choices for an image are {"choices": [...]} there, and a single one is text.

A brush stroke is stored as the bytes (red, green, blue, alpha) of the image, packed by runs: the number of bytes in 32
bits, the bits of a byte less one in 5, four lengths less one in 4 each; then for each run one bit, 2 bits that choose a
length, the count less one in so many bits, and the byte once if the bit is set, else each of the bytes.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, ellipse, no_points, turned
from jaxseg.data.weak.runs import runs_of
from jaxseg.errors import DataError
from jaxseg.pictures.opening import require_pixels

_SHAPES = {
    "rectanglelabels": "height",
    "polygonlabels": "points",
    "ellipselabels": "radiusX",
    "brushlabels": "rle",
    "keypointlabels": "x",
}  # type of a result -> a key of its value, which no type before it has
_NAMED = (*_SHAPES, "labels", "choices")  # a result of the type "labels" is of any shape
_OF_EXPORT = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time")  # fields of JSON-MIN
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of a file that is uploaded


def is_label_studio(content: Any) -> bool:
    """Returns whether the content of a JSON file is a list of tasks, of which at least one has annotations."""
    tasks = content if isinstance(content, list) else [content]
    whole = all(isinstance(task, dict) for task in tasks)
    return whole and any(_is_whole(task) or _is_short(task) for task in tasks)


def _is_whole(task: dict[str, Any]) -> bool:
    return "data" in task and "annotations" in task


def _is_short(task: dict[str, Any]) -> bool:
    """Returns whether an entry is one of JSON-MIN."""
    return "annotation_id" in task or any("original_width" in region for region in _regions(task))


def _regions(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the regions and choices of an entry of JSON-MIN, in the form of the results of a whole task."""
    for field in task.values():
        if _are_choices(field):
            yield {"type": "choices", "value": field}
        for region in field if isinstance(field, list) else ():
            kind = next((key for key in region if key.endswith("labels")), None) if isinstance(region, dict) else None
            if kind is not None:
                yield {**region, "type": kind, "value": region}
            elif isinstance(region, dict) and "choices" in region:
                yield {"type": "choices", "value": region}


def _are_choices(field: Any) -> bool:
    return isinstance(field, dict) and "choices" in field and isinstance(field["choices"], list)


def _with_single_choices(tasks: Sequence[Any]) -> list[Any]:
    """Returns the entries with the text in a field that holds several choices in another entry as choices."""
    known = {key for task in tasks if isinstance(task, dict) for key, field in task.items() if _are_choices(field)}
    return [
        {k: {"choices": [v]} if k in known and isinstance(v, str) and v else v for k, v in task.items()}
        if isinstance(task, dict) and not _is_whole(task)
        else task
        for task in tasks
    ]


def _require_no_text(path: Path, task: dict[str, Any]) -> None:
    """Raises DataError for an entry of JSON-MIN without regions and with a text that may be its single choice."""
    name = _field_of_name(path, task)
    for key, text in task.items():
        if isinstance(text, str) and text and "/" not in text and key != name and key not in _OF_EXPORT:
            raise DataError(
                f"{path} has an entry without regions and with {text[:40]!r} in its field {key!r}, which is a choice "
                "or a field of the task: JSON-MIN holds single choices as text. Export JSON in place of JSON-MIN."
            )


def read(path: Path, content: Any, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the image of each task, with the marks of all its annotations that were not cancelled.

    `faults` gets the tasks and results that cannot be read; None: the first of them is an error.
    """
    tasks = _with_single_choices(content if isinstance(content, list) else [content])
    images = []
    for number, task in enumerate(tasks, 1):
        with listed(faults, str(path), f"task {number}"):
            images.append(_image(path, task, faults))
    return images


def _image(path: Path, task: dict[str, Any], faults: list[Fault] | None) -> AnnotatedImage:
    if _is_whole(task):
        done = [a for a in task["annotations"] if "was_cancelled" not in a or not a["was_cancelled"]]
        found = [result for annotation in done for result in annotation["result"]]
        name, seen = _name(path, task["data"]), bool(done)
    else:
        found, name, seen = list(_regions(task)), _name(path, task), _is_short(task)
        if not found:
            with listed(faults, name, "entry"):
                _require_no_text(path, task)
    results = [r for r in found if r["type"] == "choices" or str(r["type"]).endswith("labels")]
    sized = next((result for result in results if "original_height" in result), None)
    size = None if sized is None else (int(sized["original_height"]), int(sized["original_width"]))
    marks = []
    for number, result in enumerate(results, 1):
        with listed(faults, name, f"result {number}, {result['type']}"):
            marks += list(_marks(path, result))
    return AnnotatedImage(name, size, tuple(marks), seen=seen)


def _name(path: Path, data: dict[str, Any]) -> str:
    found = data[_field_of_name(path, data)]
    *folders, file = found.partition("?d=")[2].split("/") if "?d=" in found else found.split("/")
    return "/".join([*folders, _UPLOADED.sub("", file)])


def _field_of_name(path: Path, data: dict[str, Any]) -> str:
    """Returns the field of a task with its file: of several the one with the key "image", or the first that is text."""
    keys = [key for key in data if key == "image"] + list(data)
    found = next((key for key in keys if isinstance(data[key], str)), None)
    if found is None:
        raise DataError(f"{path} has a task without an image.")
    return found


def _marks(path: Path, result: dict[str, Any]) -> Iterator[Mark]:
    value, kind = result["value"], result["type"]
    if kind == "choices":
        for name in value["choices"]:
            yield Mark("tag", str(name), no_points())
        return
    names = list(map(str, value[kind])) if kind in _NAMED else []
    if kind == "labels":
        kind = next((shape for shape, key in _SHAPES.items() if key in value), "")
    if kind not in _SHAPES:
        raise DataError(
            f"{path} has a result of the type {result['type']!r}, which is not read; polygons, brushes, ellipses, "
            "rectangles, key points and choices are."
        )
    width, height = int(result["original_width"]), int(result["original_height"])
    scale = np.array([width, height]) / 100
    for name in names:
        if kind == "rectanglelabels":
            corner = np.array([value["x"], value["y"]]) * scale
            far = corner + np.array([value["width"], value["height"]]) * scale
            corners = box(*corner, *far)
            angle = value["rotation"] if "rotation" in value else 0
            yield Mark("box", name, turned(corners, angle, corner) if angle else corners)
        elif kind == "polygonlabels":
            yield Mark("polygon", name, np.array(value["points"], np.float64) * scale)
        elif kind == "ellipselabels":
            radii = np.array([value["radiusX"], value["radiusY"]]) * scale
            angle = float(value["rotation"]) if "rotation" in value else 0.0
            yield Mark("polygon", name, ellipse(np.array([value["x"], value["y"]]) * scale, radii.tolist(), angle))
        elif kind == "keypointlabels":
            yield Mark("point", name, np.array([[value["x"], value["y"]]]) * scale)
        else:
            require_pixels(path, height, width)
            yield Mark("brush", name, no_points(), runs_of(unpacked(value["rle"], (height, width))))


def unpacked(packed: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels bool[h,w] that a brush touched, from its bytes; see the docstring of the module.

    Raises:
        ValueError: if they are not those of an image of this size.
    """
    bits = np.unpackbits(np.asarray(packed, np.uint8))
    place = 0

    def number(length: int) -> int:
        nonlocal place
        chosen = bits[place : place + length]
        if len(chosen) < length:
            raise ValueError("the bytes of a brush end too early")
        place += length
        return int("".join(map(str, chosen.tolist())), 2)

    total = number(32)
    if total != 4 * size[0] * size[1]:
        raise ValueError(f"a brush has {total} bytes, and an image of {size[0]} x {size[1]} has 4 for each pixel")
    word = number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        repeated = number(1)
        count = number(lengths[number(2)]) + 1
        values[at : at + count] = number(word) if repeated else [number(word) for _ in range(count)][: total - at]
        at += count
    return values.reshape(*size, 4)[..., 3] > 0
