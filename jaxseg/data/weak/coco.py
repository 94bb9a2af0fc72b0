"""Boxes, polygons, masks and points in the form of COCO's annotations of objects (JSON)."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.drawing import polygon_area
from jaxseg.data.weak.faults import Fault, listed
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, no_points
from jaxseg.data.weak.runs import counts_in, make_runs
from jaxseg.errors import DataError, counted


def is_coco(content: Any) -> bool:
    """Returns whether the content of a JSON file has the lists of this form."""
    return isinstance(content, dict) and "images" in content and "annotations" in content


def classes(content: Any) -> list[str]:
    """Returns the names of the categories, in the order of their identifiers."""
    entries = content["categories"] if "categories" in content else []
    return list(dict.fromkeys(str(entry["name"]) for entry in sorted(entries, key=lambda entry: entry["id"])))


def read(path: Path, content: Any, masks: bool = False, faults: list[Fault] | None = None) -> list[AnnotatedImage]:
    """Returns the images. An object gives its polygons, or its key points, or its box, the first that it has.

    `masks`: also its run lengths, with polygons before all others. `faults` gets the annotations that cannot be read;
    None: the first of them is an error.
    """
    if "categories" not in content:
        raise DataError(f"{path} has images and annotations, but no 'categories', which name the classes.")
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    marks: dict[Any, list[Mark]] = {entry["id"]: [] for entry in content["images"]}
    files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
    for number, entry in enumerate(content["annotations"], 1):
        with listed(faults, *_place(path, entry, number, files)):
            if entry["category_id"] not in names:
                raise DataError(
                    f"{path} has an annotation of the category {entry['category_id']!r}, which it does not name."
                )
            if entry["image_id"] not in marks:
                raise DataError(f"{path} has an annotation of the image {entry['image_id']!r}, which it does not list.")
            found = _marks(names[entry["category_id"]], entry, masks)
            if faults is not None and not found:
                raise DataError("It has no polygon of 3 points or more.")
            marks[entry["image_id"]] += found
    return [
        AnnotatedImage(str(entry["file_name"]), _size(entry), tuple(marks[entry["id"]])) for entry in content["images"]
    ]


def _place(path: Path, entry: Any, number: int, files: Mapping[Any, str]) -> tuple[str, str]:
    """Returns the image that an annotation is of, the file itself if it is of none, and words for the annotation."""
    given = entry if isinstance(entry, dict) else {}
    what = f"annotation {given['id']}" if "id" in given else f"annotation in place {number}"
    image = given["image_id"] if "image_id" in given else None
    return (files[image] if isinstance(image, Hashable) and image in files else str(path)), what


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    return (int(entry["height"]), int(entry["width"])) if "height" in entry and "width" in entry else None


def _marks(name: str, entry: dict[str, Any], masks: bool) -> list[Mark]:
    outline = entry["segmentation"] if "segmentation" in entry else None
    if isinstance(outline, list) and outline:
        odd = next((ring for ring in outline if isinstance(ring, list) and len(ring) % 2), None)
        if odd is not None:
            raise ValueError(f"a polygon of {counted(len(odd), 'number')}, where pairs x, y were expected")
        rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in outline]
        rings = [ring for ring in rings if len(ring) > 2]
        whole = sum(map(polygon_area, rings))
        return [Mark("polygon", name, ring, whole=whole) for ring in rings]
    if masks and isinstance(outline, dict):
        counts, (height, width) = outline["counts"], outline["size"]
        counts = counts_in(counts) if isinstance(counts, str) else counts
        return [Mark("brush", name, no_points(), make_runs(counts, (int(height), int(width))))]
    if "keypoints" in entry:
        points = np.array(entry["keypoints"], np.float64).reshape(-1, 3)  # x, y, and 0 for a point that is not given
        seen = points[points[:, 2] > 0, :2]
        if len(seen):
            return [Mark("point", name, seen)]
    left, top, width, height = map(float, entry["bbox"])
    return [Mark("box", name, box(left, top, left + width, top + height))]
