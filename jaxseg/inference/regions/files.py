"""Files of regions: a table (CSV), annotations in the form of COCO, and GeoJSON. Each is written atomically."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxseg.errors import ArgumentError
from jaxseg.files import write_atomically
from jaxseg.inference.regions.find import Regions
from jaxseg.inference.regions.outlines import polygons, run_lengths
from jaxseg.inference.regions.world import World

Segmentation: TypeAlias = Literal["polygons", "rle"]

SOFTWARE = "jaxseg regions"
"""The text in the files by which a later call knows that it may replace them."""

COLUMNS = (
    "image",
    "region",
    "class",
    "name",
    "area",
    "left",
    "top",
    "width",
    "height",
    "centroid_x",
    "centroid_y",
    "perimeter",
    "confidence",
    "world_x",
    "world_y",
    "world_area",
)
"""The columns of `regions.csv`; the last three are empty for images without world coordinates."""


def table_rows(image: str, regions: Regions, names: Sequence[str], world: World | None = None) -> list[dict[str, Any]]:
    """Returns {column of `COLUMNS`: value} of each region.

    Args:
        image: the name of the image.
        regions: its regions.
        names: the name of each class.
        world: where the image lies, for the world coordinates of the centroid, and the area in their unit squared.
    """
    rows = []
    for i, (top, left, bottom, right) in enumerate(regions.box.tolist()):
        y, x = regions.centroid[i].tolist()
        place = [None, None, None]
        if world is not None:
            place = [*world(np.array([[x + 0.5, y + 0.5]]))[0].tolist(), int(regions.area[i]) * world.pixel_area]
        confidence = None if regions.confidence is None else float(regions.confidence[i])
        c = int(regions.classes[i])
        values = (image, i + 1, c, names[c], int(regions.area[i]), left, top, right - left, bottom - top, x, y)
        rows.append(dict(zip(COLUMNS, (*values, float(regions.perimeter[i]), confidence, *place))))
    return rows


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes `regions.csv`: a line for each region, with numbers to six significant digits (areas and places of the
    world in full).

    Args:
        path: the file; one that is there is replaced.
        rows: from `table_rows`, of one image after another.

    Raises:
        OSError: if it cannot be written.
    """

    def shown(column: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return repr(value) if column.startswith("world") else f"{value:.6g}" if abs(value) < 1e5 else f"{value:.1f}"
        return str(value)

    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for row in rows:
            lines.writerow([shown(column, row[column]) for column in COLUMNS])
        text.flush()
        text.detach()

    write_atomically(path, write)


def coco_annotations(regions: Regions, image_id: int, first_id: int, form: Segmentation) -> list[dict[str, Any]]:
    """Returns COCO's annotation of each region; see `CocoFile`.

    Raises:
        ArgumentError: if `form` is neither "polygons" nor "rle".
    """
    if form not in ("polygons", "rle"):
        raise ArgumentError(f"form must be 'polygons' or 'rle', got {form!r}.")
    size = regions.labels.shape
    annotations = []
    for i, (top, left, bottom, right) in enumerate(regions.box.tolist()):
        mask = regions.mask(i)
        parts = polygons(mask, (top, left)) if form == "polygons" else []
        if parts and not any(part.holes for part in parts):
            segmentation: Any = [part.outer.ravel().astype(int).tolist() for part in parts]
        else:
            segmentation = {"size": list(size), "counts": run_lengths(mask, (top, left), (size[0], size[1]))}
        annotation = {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": int(regions.classes[i]),
            "segmentation": segmentation,
            "area": int(regions.area[i]),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
        }
        if regions.confidence is not None:
            annotation["score"] = float(regions.confidence[i])
        annotations.append(annotation)
    return annotations


class CocoFile:
    """Collects the regions of images, for a file in the form of COCO's annotations of objects.

    The identifier of a category is the index of its class. With form "rle" each region has run lengths (uncompressed,
    as lists of numbers). With "polygons" it has the corners of its outline, one polygon for each 4-connected part;
    regions with holes have run lengths there too, since COCO's polygons cannot have holes.

    Attributes:
        names: the name of each class.
        only: the classes that become categories; None: all.
        form: "polygons" or "rle".
    """

    def __init__(self, names: Sequence[str], only: Iterable[int] | None = None, form: Segmentation = "rle"):
        self.names, self.only = names, range(len(names)) if only is None else sorted(set(only))
        self.form: Segmentation = form
        self._entries: list[tuple[str, tuple[int, int], list[dict[str, Any]]]] = []

    def add(self, image: str, regions: Regions) -> None:
        """Adds the regions of one image; several threads may do so."""
        height, width = regions.labels.shape
        self._entries.append((image, (height, width), coco_annotations(regions, 0, 0, self.form)))

    def content(self, *, by_name: bool = False) -> dict[str, Any]:
        """Returns what the file holds, with the images in the order in which they were added, or `by_name`."""
        images, annotations = [], []
        entries = sorted(self._entries, key=lambda entry: entry[0]) if by_name else self._entries
        for number, (image, (height, width), of_image) in enumerate(entries, 1):
            images.append({"id": number, "file_name": image, "height": height, "width": width})
            first = len(annotations) + 1
            annotations += [{**each, "id": first + i, "image_id": number} for i, each in enumerate(of_image)]
        categories = [{"id": c, "name": self.names[c], "supercategory": ""} for c in self.only]
        return {
            "info": {"description": SOFTWARE},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }

    def write(self, path: str | Path, *, by_name: bool = False, relative: bool = False) -> None:
        """Writes the file; see `content`. With `relative` the names of the images are paths from its folder.

        Raises:
            OSError: if it cannot be written.
        """
        content = self.content(by_name=by_name)
        for image in content["images"] if relative else ():
            image["file_name"] = _from_folder(Path(image["file_name"]), Path(path).parent)
        _write_json(path, content)


def _from_folder(file: Path, folder: Path) -> str:
    place = file.parent.resolve() / file.name  # links among the folders would lead ".." elsewhere
    try:
        return Path(os.path.relpath(place, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return str(file)


def geojson(image: str, regions: Regions, names: Sequence[str], world: World | None = None) -> dict[str, Any]:
    """Returns a FeatureCollection (RFC 7946) with one Polygon or MultiPolygon for each region.

    Outer rings are counterclockwise and holes clockwise with the second coordinate up, and each ring ends where it
    begins (section 3.1.6). Coordinates are those of the image's own coordinate system, named by the member `crs` of the
    format of 2008 where the file names it, or (x, y) in pixels of an image without one: RFC 7946 knows degrees on
    WGS 84 alone, while programs of geography read both.

    Args:
        image: the name of the image.
        regions: its regions.
        names: the name of each class.
        world: where the image lies.
    """
    rows = table_rows(image, regions, names, world)
    features = []
    for i, row in enumerate(rows):
        top, left = regions.box[i].tolist()[:2]
        parts = [
            [_ring(ring, world) for ring in (part.outer, *part.holes)]
            for part in polygons(regions.mask(i), (top, left))
        ]
        single = len(parts) == 1
        geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": parts[0] if single else parts}
        properties = {column: value for column, value in row.items() if value is not None}
        features.append({"type": "Feature", "id": i + 1, "properties": properties, "geometry": geometry})
    collection: dict[str, Any] = {"type": "FeatureCollection", "software": SOFTWARE, "features": features}
    if world is not None and world.epsg is not None:
        collection["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{world.epsg}"}}
    return collection


def write_geojson(
    path: str | Path, image: str, regions: Regions, names: Sequence[str], world: World | None = None
) -> None:
    """Writes `geojson` to a file.

    Raises:
        OSError: if it cannot be written.
    """
    _write_json(path, geojson(image, regions, names, world))


def _ring(corners: np.ndarray, world: World | None) -> list[list[float]]:
    """Closes a ring; a map that mirrors the image, as most do, turns the direction round, and this turns it back."""
    points = corners.astype(int) if world is None else world(corners)
    rows = (points if world is None or not world.mirrors else points[::-1]).tolist()
    return [*rows, rows[0]]


def _write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    def write(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8")
        json.dump(content, text, allow_nan=False)
        text.write("\n")
        text.flush()
        text.detach()

    write_atomically(path, write)


def is_own(path: Path) -> bool:
    """Returns whether a file of the name of a table, of annotations or of GeoJSON was written here."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head.startswith(",".join(COLUMNS).encode()) if path.suffix == ".csv" else f'"{SOFTWARE}"'.encode() in head
