"""Outlines, run lengths, world coordinates and files of regions, decoded by hand."""

import csv
import json

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from jaxseg.errors import ArgumentError, DataError
from jaxseg.inference.regions import (
    COLUMNS,
    CocoFile,
    find_regions,
    geojson,
    make_world,
    polygons,
    read_world,
    run_lengths,
    table_rows,
    write_geojson,
    write_table,
)
from jaxseg.inference.regions.outlines import signed_area

# A ring with a hole that touches another hole at a corner, a speck that touches it at a corner, and a bar.
CLASSES = np.array(
    [[int(c) for c in row] for row in ("1111100", "1011100", "1101100", "1111100", "0000010", "2222222")], np.uint8
)
NAMES = ("background", "ring", "bar")


def inside(rings, shape):
    """bool[h,w]: the pixels whose middle lies inside an odd number of rings, by the crossings of a ray."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    count = np.zeros(shape, int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0)):
            if y0 != y1:
                crossed = (min(y0, y1) < y) & (y < max(y0, y1))
                count += crossed & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) > x)
    return count % 2 == 1


def unpacked(counts, shape):
    """bool[h,w] of COCO's run lengths: column by column, zeros first."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape[::-1]).T


def test_polygons_by_hand():
    [square] = polygons(np.ones((1, 2), bool), (3, 5))
    np.testing.assert_array_equal(square.outer, [[5, 3], [7, 3], [7, 4], [5, 4]])
    assert square.holes == ()
    ring, speck = polygons(CLASSES == 1)  # 8-connected: the speck is a part of its own
    assert [signed_area(hole) for hole in ring.holes] == [-1, -1] and signed_area(ring.outer) == 20
    np.testing.assert_array_equal(speck.outer, [[5, 4], [6, 4], [6, 5], [5, 5]])


def masks_of_noise():
    rng = np.random.default_rng(0)
    return [
        np.pad(rng.random((10, 13)) < density, ((1, 0), (0, 0)), constant_values=True)
        for density in (0.4, 0.6, 0.8) * 4
    ]


def test_polygons_cover_their_mask():
    for mask in masks_of_noise():
        rings = [ring for part in polygons(mask) for ring in (part.outer, *part.holes)]
        np.testing.assert_array_equal(inside(rings, mask.shape), mask)
        assert sum(map(signed_area, rings)) == mask.sum()
        assert all(len(np.unique(ring, axis=0)) == len(ring) for ring in rings)


def test_polygons_are_valid_to_shapely():
    shapely = pytest.importorskip("shapely", reason="an oracle of the tests")
    for mask in masks_of_noise():
        parts = [(part.outer, part.holes) for part in polygons(mask)]
        assert shapely.MultiPolygon(parts).is_valid


def test_run_lengths_are_decoded_by_hand():
    rng = np.random.default_rng(1)
    for _ in range(5):
        mask = rng.random((5, 4)) < 0.5
        whole = np.zeros((9, 8), bool)
        whole[2:7, 3:7] = mask
        counts = run_lengths(mask, (2, 3), (9, 8))
        np.testing.assert_array_equal(unpacked(counts, (9, 8)), whole)
    assert run_lengths(np.ones((2, 3), bool), (0, 0), (2, 3)) == [0, 6]
    assert run_lengths(np.zeros((2, 3), bool), (0, 0), (2, 3)) == [6]


def test_the_table_has_a_row_for_each_region(tmp_path):
    shares = np.full((*CLASSES.shape, 3), 1 / 3, np.float32)
    regions = find_regions(CLASSES, shares, only=(1, 2))
    world = make_world((2, 0, 100, 0, -2, 50))
    rows = [*table_rows("a,b.png", regions, NAMES, world), *table_rows("c.png", regions, NAMES)]
    write_table(tmp_path / "regions.csv", rows)
    with (tmp_path / "regions.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(COLUMNS) and [row["image"] for row in read] == ["a,b.png"] * 2 + ["c.png"] * 2
    bar = read[1]
    assert [bar[n] for n in ("region", "class", "name", "area")] == ["2", "2", "bar", "7"]
    assert [bar[n] for n in ("left", "top", "width", "height")] == ["0", "5", "7", "1"]
    assert [float(bar[n]) for n in ("centroid_x", "centroid_y", "perimeter")] == [3, 5, 5]
    assert float(bar["confidence"]) == pytest.approx(1 / 3, abs=1e-6)
    # The middle of the bar is 3.5 pixels from the left edge, and 5.5 from the top.
    assert [float(bar[n]) for n in ("world_x", "world_y", "world_area")] == [107, 39, 28]
    assert [read[3][n] for n in ("world_x", "world_y", "world_area")] == [""] * 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_annotations_of_coco(form, tmp_path):
    regions = find_regions(CLASSES, only=(1, 2))
    file = CocoFile(NAMES, (1, 2), form)
    file.add("a.png", regions)
    file.add("b.png", find_regions(CLASSES[:4], only=(1,), connectivity=4))
    file.write(tmp_path / "regions.json")
    content = json.loads((tmp_path / "regions.json").read_text())
    assert content["images"][1] == {"id": 2, "file_name": "b.png", "height": 4, "width": 7}
    assert content["categories"] == [{"id": i, "name": NAMES[i], "supercategory": ""} for i in (1, 2)]
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3] and content["annotations"][2]["image_id"] == 2
    ring, bar = content["annotations"][:2]
    assert bar["bbox"] == [0, 5, 7, 1] and bar["area"] == 7 and bar["category_id"] == 2 and bar["iscrowd"] == 0
    # A region with holes has run lengths in either form: the holes would be lost.
    np.testing.assert_array_equal(unpacked(ring["segmentation"]["counts"], (6, 7)), CLASSES == 1)
    if form == "polygons":
        assert bar["segmentation"] == [[0, 5, 7, 5, 7, 6, 0, 6]]
    else:
        np.testing.assert_array_equal(unpacked(bar["segmentation"]["counts"], (6, 7)), CLASSES == 2)
    with pytest.raises(ArgumentError, match="form must be 'polygons' or 'rle', got 'mask'"):
        CocoFile(NAMES, form="mask").add("a.png", regions)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_pycocotools_reads_the_same_pixels(form, tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(2)
    classes = np.kron(rng.integers(0, 3, (6, 7)), np.ones((5, 5))).astype(np.uint8)
    regions = find_regions(classes)
    file = CocoFile(NAMES, form=form)
    file.add("a.png", regions)
    file.write(tmp_path / "a.json")
    read = coco.COCO(str(tmp_path / "a.json"))
    for i in range(len(regions)):
        np.testing.assert_array_equal(read.annToMask(read.anns[i + 1]) > 0, regions.labels == i + 1)


@pytest.mark.parametrize("numbers", [None, (0.5, 0, 10, 0, -0.5, 20), (0.1, 0.2, 3, 0.3, -0.1, 4), (1, 0, 0, 0, 1, 0)])
def test_geojson_has_closed_rings_in_the_right_direction(numbers, tmp_path):
    world = None if numbers is None else make_world(numbers, epsg=32633)
    regions = find_regions(CLASSES, only=(1, 2))
    write_geojson(tmp_path / "a.geojson", "a.tif", regions, NAMES, world)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content == json.loads(json.dumps(geojson("a.tif", regions, NAMES, world)))
    ring, bar = content["features"]
    assert (ring["geometry"]["type"], bar["geometry"]["type"]) == ("MultiPolygon", "Polygon")
    assert ring["properties"]["name"] == "ring" and "confidence" not in ring["properties"] and bar["id"] == 2
    unit = 1.0 if world is None else world.pixel_area
    total = 0.0
    for part in [*ring["geometry"]["coordinates"], bar["geometry"]["coordinates"]]:
        assert all(each[0] == each[-1] and len(each) >= 4 for each in part)
        areas = [signed_area(np.array(each[:-1])) for each in part]
        assert areas[0] > 0 and all(area < 0 for area in areas[1:])  # counterclockwise, and clockwise for holes
        total += sum(areas)
    assert total == pytest.approx(unit * (CLASSES > 0).sum())
    assert ("crs" in content) == (world is not None)
    if world is not None:
        assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
        corner = bar["geometry"]["coordinates"][0]
        assert any(np.allclose(point, world(np.array([[0, 5]]))[0]) for point in corner)


def write_geotiff(path, tags):
    """Writes a TIFF of one pixel with the tags {number: values}; 34735 holds shorts, the others doubles."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in tags.items():
        directory.tagtype[tag] = 3 if tag == 34735 else 12
        directory[tag] = values
    Image.new("L", (1, 1)).save(path, tiffinfo=directory)
    return path


def test_where_a_file_lies(tmp_path):
    scale = {33550: (10.0, 20.0, 0.0), 33922: (2.0, 3.0, 0.0, 500.0, 900.0, 0.0)}
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    world = read_world(write_geotiff(tmp_path / "a.tif", {**scale, 34735: keys}))
    assert world == (10, 0, 480, 0, -20, 960, 32633) and world.pixel_area == 200 and world.mirrors
    np.testing.assert_allclose(world(np.array([[2, 3], [2.5, 3]])), [[500, 900], [505, 900]])
    # With coordinates at points the tie point is the middle of the pixel.
    points = (1, 1, 0, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326)
    world = read_world(write_geotiff(tmp_path / "b.tif", {**scale, 34735: points}))
    assert world == (10, 0, 475, 0, -20, 970, 4326)
    matrix = (1.0, 2.0, 0, 3.0, 4.0, 5.0, 0, 6.0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    assert read_world(write_geotiff(tmp_path / "c.tif", {34264: matrix})) == (1, 2, 3, 4, 5, 6, None)
    assert read_world(write_geotiff(tmp_path / "d.tif", {})) is None
    assert read_world(write_geotiff(tmp_path / "e.tif", {33550: (0.0, 0.0, 0.0), 33922: (0.0,) * 6})) is None


def test_a_world_file_beside_the_image(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    assert read_world(tmp_path / "a.png") is None
    (tmp_path / "a.pgw").write_text("2\n0\n0\n-4\n101\n198\n")
    assert read_world(tmp_path / "a.png") == (2, 0, 100, 0, -4, 200, None)
    (tmp_path / "a.pgw").write_text("2\n0\n0\n")
    with pytest.raises(DataError, match=r"The world file .*a.pgw of a.png must hold six numbers"):
        read_world(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((1, 2, 3), "has six finite numbers"), ((1, 0, 0, 2, 0, 0), "gives pixels no area"), ((np.nan,) * 6, "finite")],
)
def test_a_map_that_is_none_is_a_sentence(numbers, message):
    with pytest.raises(ArgumentError, match=message):
        make_world(numbers)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "regions.csv").write_text("before")

    def rows():
        yield from table_rows("a.png", find_regions(CLASSES), NAMES)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_table(tmp_path / "regions.csv", rows())
    assert [p.name for p in tmp_path.iterdir()] == ["regions.csv"]
    assert (tmp_path / "regions.csv").read_text() == "before"
