"""Writes marks in forms that `reading` reads: points and tags as a table, boxes as COCO, scribbles as CVAT's XML."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from jaxseg.data.weak.made import Weaker
from jaxseg.data.weak.marks import AnnotatedImage
from jaxseg.files import write_text

FILES: dict[Weaker, str] = {
    "scribbles": "scribbles.xml",
    "points": "points.csv",
    "boxes": "boxes.json",
    "tags": "tags.csv",
}


def write_annotations(
    folder: str | Path, kind: Weaker, images: Sequence[AnnotatedImage], classes: Sequence[str]
) -> Path:
    """Writes the file of one kind of marks, named as `FILES` has it; returns its path.

    Args:
        folder: where to write it; a file of this name there is replaced.
        kind: of all marks.
        images: with their sizes.
        classes: the name of each class; the identifier of a category of COCO is its index.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(folder) / FILES[kind]
    text = _coco(images, classes) if kind == "boxes" else _cvat(images) if kind == "scribbles" else _table(kind, images)
    write_text(path, text)
    return path


def _table(kind: Weaker, images: Sequence[AnnotatedImage]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "class", "x", "y"] if kind == "points" else ["image", "class"])
    for image in images:
        if not image.marks:
            lines.writerow([image.name, "", "", ""] if kind == "points" else [image.name, ""])
        for mark in image.marks:
            for point in mark.points if kind == "points" else [()]:
                lines.writerow([image.name, mark.name, *(f"{v:g}" for v in point)])
    return text.getvalue()


def _coco(images: Sequence[AnnotatedImage], classes: Sequence[str]) -> str:
    listed, annotations = [], []
    for number, image in enumerate(images, 1):
        height, width = image.size or (0, 0)
        listed.append({"id": number, "file_name": image.name, "height": height, "width": width})
        for mark in image.marks:
            (left, top), (right, bottom) = mark.points.min(0).tolist(), mark.points.max(0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": list(classes).index(mark.name),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index, "name": name, "supercategory": ""} for index, name in enumerate(classes)]
    return json.dumps({"images": listed, "annotations": annotations, "categories": categories}) + "\n"


def _cvat(images: Sequence[AnnotatedImage]) -> str:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, image in enumerate(images):
        height, width = image.size or (0, 0)
        values = {"id": str(number), "name": image.name, "width": str(width), "height": str(height)}
        element = ElementTree.SubElement(root, "image", values)
        for mark in image.marks:
            points = ";".join(f"{x:g},{y:g}" for x, y in mark.points)
            ElementTree.SubElement(element, "polyline", {"label": mark.name, "points": points})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
