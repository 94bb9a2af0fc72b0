"""Regions of a segmented image: connected components, cleaned and split, measured, and written to files.

regions = find_regions(result.classes, result.probabilities, only=(1,), min_area=30, fill=True, split=True)
write_table("regions.csv", table_rows("photo.png", regions, run.classes))
"""

from jaxseg.inference.regions.components import choose_classes, fill_holes, find_components, remove_small
from jaxseg.inference.regions.files import (
    COLUMNS,
    CocoFile,
    coco_annotations,
    geojson,
    table_rows,
    write_geojson,
    write_table,
)
from jaxseg.inference.regions.find import Regions, find_regions, measure
from jaxseg.inference.regions.outlines import Polygon, polygons, run_lengths
from jaxseg.inference.regions.split import split_touching
from jaxseg.inference.regions.world import World, make_world, read_world

__all__ = [
    "COLUMNS",
    "CocoFile",
    "Polygon",
    "Regions",
    "World",
    "choose_classes",
    "coco_annotations",
    "fill_holes",
    "find_components",
    "find_regions",
    "geojson",
    "make_world",
    "measure",
    "polygons",
    "read_world",
    "remove_small",
    "run_lengths",
    "split_touching",
    "table_rows",
    "write_geojson",
    "write_table",
]
