"""Points, boxes and tags in a table (CSV): a line for each, under a line of column names.

    image,class,x,y                    image,class,left,top,right,bottom         image,class
    a.jpg,cell,103.5,42                a.jpg,cell,90,31,120,55                   a.jpg,cell

`width` and `height` can stand for `right` and `bottom`. A table may have the columns of several kinds, and a line fills
those of one.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, no_points
from jaxseg.errors import DataError

# What other programs call a column -> its name here.
_NAMES = {
    "image": ("image", "file", "filename", "file_name", "image_name", "image_path", "path"),
    "class": ("name", "class", "class_name", "label", "category", "label_name"),  # `name` first: regions.csv has both
    "x": ("x", "point_x", "cx"),
    "y": ("y", "point_y", "cy"),
    "left": ("left", "xmin", "x_min", "x1", "bbox_x"),
    "top": ("top", "ymin", "y_min", "y1", "bbox_y"),
    "right": ("right", "xmax", "x_max", "x2"),
    "bottom": ("bottom", "ymax", "y_max", "y2"),
    "width": ("width", "w", "bbox_width"),
    "height": ("height", "h", "bbox_height"),
}
_EXPECTED = "image, class, and x, y or left, top, right, bottom (or width, height), or none of these for tags"


def read(path: Path, text: str) -> list[AnnotatedImage]:
    """Returns an entry for each line; raises DataError for columns, or a line, of another form."""
    head = text.splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    header = [name.strip().lower() for name in next(rows)]
    place: dict[str, int] = {}
    for column, names in _NAMES.items():
        found = [header.index(name) for name in names if name in header]
        if found:
            place[column] = found[0]
    if "image" not in place or "class" not in place:
        raise DataError(f"{path} has the columns {', '.join(header)}; expected {_EXPECTED}.")
    images = []
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        line = f"{path}, line {rows.line_num},"
        if len(row) < len(header):
            raise DataError(f"{line} has fewer entries than there are columns.")
        cells = {column: row[at].strip() for column, at in place.items() if row[at].strip()}
        if "image" not in cells:
            raise DataError(f"{line} names no image.")
        images.append(AnnotatedImage(cells["image"], None, _marks(line, cells)))
    return images


def _marks(line: str, cells: Mapping[str, str]) -> tuple[Mark, ...]:
    if "class" not in cells:
        if set(cells) == {"image"}:
            return ()  # the image was looked at, and has nothing
        raise DataError(f"{line} names no class.")
    name = cells["class"]
    numbers = {
        column: _number(line, column, cell) for column, cell in cells.items() if column not in ("image", "class")
    }
    if not numbers:
        return (Mark("tag", name, no_points()),)
    if {"left", "top"} <= numbers.keys():
        left, top = numbers["left"], numbers["top"]
        if {"right", "bottom"} <= numbers.keys():
            return (Mark("box", name, box(left, top, numbers["right"], numbers["bottom"])),)
        if {"width", "height"} <= numbers.keys():
            return (Mark("box", name, box(left, top, left + numbers["width"], top + numbers["height"])),)
    elif {"x", "y"} <= numbers.keys():
        if {"width", "height"} <= numbers.keys():  # x, y are then the corner, as in many tables of boxes
            x, y = numbers["x"], numbers["y"]
            return (Mark("box", name, box(x, y, x + numbers["width"], y + numbers["height"])),)
        return (Mark("point", name, np.array([[numbers["x"], numbers["y"]]])),)
    raise DataError(f"{line} has {', '.join(numbers)} alone; expected {_EXPECTED}.")


def _number(line: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{line} has {cell[:60]!r} in the column {column}; a number was expected.")
    return value
