"""Boxes, polygons and points in the form of COCO's annotations of objects (JSON)."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.weak.marks import AnnotatedImage, Mark, box
from jaxseg.errors import DataError


def is_coco(content: Any) -> bool:
    """Returns whether the content of a JSON file has the lists of this form."""
    return isinstance(content, dict) and "images" in content and "annotations" in content


def read(path: Path, content: Any) -> list[AnnotatedImage]:
    """Returns the images. An object gives its polygons, or its key points, or its box, the first that it has."""
    if "categories" not in content:
        raise DataError(f"{path} has images and annotations, but no 'categories', which name the classes.")
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    marks: dict[Any, list[Mark]] = {entry["id"]: [] for entry in content["images"]}
    for entry in content["annotations"]:
        if entry["category_id"] not in names:
            raise DataError(
                f"{path} has an annotation of the category {entry['category_id']!r}, which it does not name."
            )
        if entry["image_id"] not in marks:
            raise DataError(f"{path} has an annotation of the image {entry['image_id']!r}, which it does not list.")
        marks[entry["image_id"]] += _marks(names[entry["category_id"]], entry)
    return [
        AnnotatedImage(str(entry["file_name"]), _size(entry), tuple(marks[entry["id"]])) for entry in content["images"]
    ]


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    return (int(entry["height"]), int(entry["width"])) if "height" in entry and "width" in entry else None


def _marks(name: str, entry: dict[str, Any]) -> list[Mark]:
    polygons = entry["segmentation"] if "segmentation" in entry else None
    if isinstance(polygons, list) and polygons:
        rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in polygons]
        return [Mark("polygon", name, ring) for ring in rings if len(ring) > 2]
    if "keypoints" in entry:
        points = np.array(entry["keypoints"], np.float64).reshape(-1, 3)  # x, y, and 0 for a point that is not given
        seen = points[points[:, 2] > 0, :2]
        if len(seen):
            return [Mark("point", name, seen)]
    left, top, width, height = map(float, entry["bbox"])
    return [Mark("box", name, box(left, top, left + width, top + height))]
