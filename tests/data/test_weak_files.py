"""The readers of annotations: small files of each form, round trips through the writers, and what is wrong in them."""

import json

import numpy as np
import pytest

from jaxseg.data.weak.label_studio import unpacked
from jaxseg.data.weak.marks import AnnotatedImage, Mark, box, check_marks, class_indices, no_points
from jaxseg.data.weak.reading import read_annotations
from jaxseg.data.weak.writing import write_annotations
from jaxseg.errors import DataError

COCO = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "height": 40, "width": 60},
        {"id": 9, "file_name": "sub/b.jpg", "height": 30, "width": 30},
    ],
    "categories": [{"id": 3, "name": "cell"}, {"id": 5, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 8]},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9, 0, 0, 9]]},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "keypoints": [4, 5, 2, 0, 0, 0, 6, 7, 1]},
    ],
}
LABELME = {
    "version": "5.5.0",
    "imagePath": "..\\elsewhere\\a.jpg",
    "imageHeight": 40,
    "imageWidth": 60,
    "flags": {"cell": True, "cat": False},
    "shapes": [
        {"label": "cell", "shape_type": "rectangle", "points": [[30, 13], [10, 5]]},
        {"label": "cell", "shape_type": "point", "points": [[4, 5]]},
        {"label": "cat", "shape_type": "linestrip", "points": [[1, 1], [8, 1], [8, 9]]},
        {"label": "cat", "shape_type": "polygon", "points": [[0, 0], [9, 0], [0, 9]]},
        {"label": "cat", "shape_type": "circle", "points": [[20, 20], [23, 24]]},
    ],
}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <image id="0" name="a.jpg" width="60" height="40">
    <box label="cell" xtl="10" ytl="5" xbr="30" ybr="13"/>
    <box label="cell" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>
    <points label="cell" points="4,5;6,7"/>
    <polyline label="cat" points="1,1;8,1;8,9"/>
    <polygon label="cat" points="0,0;9,0;0,9"/>
    <tag label="cat"/>
  </image>
  <image id="1" name="sub/b.jpg" width="30" height="30"/>
</annotations>"""


def packed(values, word=8, lengths=(4, 8, 12, 16)):
    """The bytes of a brush of Label Studio: each run with the first length that holds it."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{n - 1:04b}" for n in lengths)
    runs = np.split(values, np.flatnonzero(np.diff(values)) + 1)
    for run in runs:
        at = next(i for i, n in enumerate(lengths) if len(run) <= 2**n)
        alone = len(run) == 1  # a run of single bytes
        bits += f"{int(not alone)}{at:02b}{len(run) - 1:0{lengths[at]}b}{run[0]:0{word}b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def brush(mask):
    return packed((mask[..., None] * np.array([0, 0, 0, 255], np.uint8)).ravel())


def label_studio(mask):
    def result(kind, **value):
        return {"type": kind, "original_width": 60, "original_height": 40, "value": value}

    results = [
        result("rectanglelabels", x=10, y=10, width=50, height=25, rotation=0, rectanglelabels=["cell"]),
        result("polygonlabels", points=[[0, 0], [10, 0], [0, 10]], polygonlabels=["cat"]),
        result("keypointlabels", x=5, y=10, width=1, keypointlabels=["cell"]),
        result("brushlabels", format="rle", rle=brush(mask), brushlabels=["cat"]),
        {"type": "choices", "value": {"choices": ["cat"]}},
        {"type": "textarea", "value": {"text": ["blurred"]}},
    ]
    dropped = {"was_cancelled": True, "result": results}
    return [
        {"data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [{"result": results}, dropped]},
        {"data": {"image": "/data/local-files/?d=sub/b.jpg"}, "annotations": []},
    ]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def kinds(image):
    return [(mark.kind, mark.name) for mark in image.marks]


def points(image, place):
    return image.marks[place].points.tolist()


CORNERS = [[10, 5], [30, 5], [30, 13], [10, 13]]


def test_coco_gives_polygons_key_points_or_boxes(tmp_path):
    found = read_annotations(write(tmp_path / "a.json", COCO))
    first, second = found.images
    assert found.form == "COCO" and (first.name, first.size) == ("a.jpg", (40, 60))
    assert kinds(first) == [("box", "cell"), ("polygon", "cat"), ("point", "cell")]
    assert points(first, 0) == CORNERS and points(first, 1) == [[0, 0], [9, 0], [0, 9]]
    assert points(first, 2) == [[4, 5], [6, 7]]
    assert second[:3] == ("sub/b.jpg", (30, 30), ())
    assert found.counts() == {"point": (1, 1), "polygon": (1, 1), "box": (1, 1)}


def test_labelme_gives_one_image_a_file(tmp_path):
    write(tmp_path / "marks" / "a.json", LABELME)
    write(tmp_path / "marks" / "sub" / "b.json", LABELME | {"imagePath": "b.jpg", "flags": None, "shapes": []})
    found = read_annotations(tmp_path / "marks")
    assert [image.name for image in found.images] == ["a.jpg", "sub/b.jpg"] and found.images[0].size == (40, 60)
    expected = [("box", "cell"), ("point", "cell"), ("line", "cat"), ("polygon", "cat"), ("polygon", "cat")]
    assert kinds(found.images[0]) == [*expected, ("tag", "cell")]
    assert points(found.images[0], 0) == CORNERS and points(found.images[0], 2) == [[1, 1], [8, 1], [8, 9]]
    circle = found.images[0].marks[4].points
    np.testing.assert_allclose(np.hypot(*(circle - (20, 20)).T), 5)
    alone = read_annotations(tmp_path / "marks" / "a.json")
    assert alone.form == "LabelMe" and kinds(alone.images[0])[:5] == expected


def test_cvat_gives_shapes_and_turns_boxes(tmp_path):
    found = read_annotations(write(tmp_path / "a.xml", CVAT))
    first, second = found.images
    assert found.form == "CVAT" and first.size == (40, 60) and second[:3] == ("sub/b.jpg", (30, 30), ())
    expected = ["box", "box", "point", "line", "polygon", "tag"]
    assert [kind for kind, _ in kinds(first)] == expected and points(first, 0) == CORNERS
    np.testing.assert_allclose(first.marks[1].points, [[17, 7], [17, 17], [13, 17], [13, 7]], atol=1e-9)
    assert points(first, 2) == [[4, 5], [6, 7]]


def test_label_studio_gives_shapes_in_pixels_and_unpacks_brushes(tmp_path):
    mask = np.zeros((40, 60), bool)
    mask[3:20, 7:9] = mask[30, 40] = True
    found = read_annotations(write(tmp_path / "a.json", label_studio(mask)))
    first, second = found.images
    assert found.form == "Label Studio" and (first.name, first.size) == ("/data/upload/1/a.jpg", (40, 60))
    expected = [("box", "cell"), ("polygon", "cat"), ("point", "cell"), ("brush", "cat"), ("tag", "cat")]
    assert kinds(first) == expected
    assert points(first, 0) == [[6, 4], [36, 4], [36, 14], [6, 14]]
    assert points(first, 1) == [[0, 0], [6, 0], [0, 4]] and points(first, 2) == [[3, 4]]
    np.testing.assert_array_equal(first.marks[3].brushed(), mask)
    assert second[:5] == ("sub/b.jpg", None, (), "", False)  # nobody has annotated it
    # JSON-MIN has an entry for each annotation, with the fields of the task beside lists of regions.
    results = label_studio(mask)[0]["annotations"][0]["result"][:5]
    regions = [result["value"] | {k: v for k, v in result.items() if k.startswith("original")} for result in results]
    entry = {"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "annotation_id": 2, "created_at": "2026-01-01"}
    short = [entry | {"label": regions[:3]}, entry | {"area": regions[3:], "city": "x"}, entry | {"image": "b.jpg"}]
    one, other = read_annotations(write(tmp_path / "a.json", short)).images
    assert (one.name, one.size, kinds(one)) == (first.name, first.size, expected) and other[:3] == ("b.jpg", None, ())
    for mine, theirs in zip(one.marks, first.marks):
        np.testing.assert_array_equal(mine.points, theirs.points)
    np.testing.assert_array_equal(one.marks[3].brushed(), mask)
    # An entry without a region and without an annotation is a task that nobody has annotated.
    both = [entry | {"label": regions[:3]}, {"id": 3, "image": "b.jpg"}]
    assert [image.seen for image in read_annotations(write(tmp_path / "a.json", both)).images] == [True, False]
    # Several choices are a field of their own, and a single one is text in the same field.
    short = [entry | {"kind": {"choices": ["cat", "cell"]}}, entry | {"image": "b.jpg", "kind": "cat", "city": "x"}]
    many, single = read_annotations(write(tmp_path / "a.json", short)).images
    assert kinds(many) == [("tag", "cat"), ("tag", "cell")] and kinds(single) == [("tag", "cat")]
    write(tmp_path / "a.json", [entry | {"kind": "cat"}, entry | {"label": regions[:1]}])
    with pytest.raises(DataError, match=r"without regions and with 'cat' in its field 'kind'.* Export JSON"):
        read_annotations(tmp_path / "a.json")
    with pytest.raises(ValueError, match="end too early"):
        unpacked(brush(mask)[:-2], (40, 60))
    with pytest.raises(ValueError, match="9600 bytes, and an image of 40 x 61"):
        unpacked(brush(mask), (40, 61))


def cvat_video(
    *tracks, meta="<start_frame>2</start_frame><stop_frame>8</stop_frame><frame_filter>step=3</frame_filter>"
):
    size = "<original_size><width>60</width><height>40</height></original_size>"
    return f"<annotations><version>1.1</version><meta><task>{meta}{size}</task></meta>{''.join(tracks)}</annotations>"


def track(label, *shapes):
    """shapes: (frame, outside, key frame, z_order, left)."""
    boxes = (
        f'<box frame="{n}" outside="{out}" occluded="0" keyframe="{key}" xtl="{left}" ytl="5" xbr="30" ybr="13" '
        f'z_order="{z}"/>'
        for n, out, key, z, left in shapes
    )
    return f'<track id="0" label="{label}" source="manual">{"".join(boxes)}</track>'


def test_tracks_of_cvat_give_the_frames_of_the_video(tmp_path):
    lower = track("cell", (2, 0, 1, 1, 10), (5, 0, 0, 1, 11.5), (8, 1, 1, 1, 11.5))
    upper = track("cat", (2, 0, 1, 0, 1), (5, 1, 1, 0, 1), (9, 0, 1, 0, 2))
    found = read_annotations(write(tmp_path / "clip.xml", cvat_video(lower, upper)))
    assert [(i.name, i.frame, i.size, i.seen) for i in found.images] == [
        (f"clip/frame_00000{number}", number, (40, 60), True) for number in (2, 5, 8, 9)
    ]
    assert [[(m.name, m.layer, m.points[0, 0]) for m in i.marks] for i in found.images] == [
        [("cell", 1, 10), ("cat", 0, 1)],  # by z_order
        [("cell", 0, 11.5)],
        [],  # the frame is annotated, and all objects are outside
        [("cat", 0, 2)],
    ]
    alone = read_annotations(write(tmp_path / "clip" / "annotations.xml", cvat_video(lower, meta="")))
    assert [i.name for i in alone.images] == ["clip/frame_000002", "clip/frame_000005"]


BOXES = {"shape_attributes": {"name": "point", "cx": 4, "cy": 5}}


def via3(*regions, attributes=("class",), types=(2,), kind=4):
    options = {"0": "cat", "1": "cell"}
    return {
        "project": {"pid": "x", "vid_list": ["2", "1"]},
        "config": {},
        "attribute": {str(i): {"aname": n, "type": kind, "options": options} for i, n in enumerate(attributes)},
        "file": {str(i + 1): {"fid": i + 1, "fname": f"{'ab'[i]}.jpg", "type": (*types, 2)[i]} for i in range(2)},
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": [2]}},
        "metadata": {
            f"1_{i}": {"vid": "1", "flg": 0, "z": [], "xy": xy, "av": av} for i, (xy, av) in enumerate(regions)
        },
    }


def test_a_project_of_via_3_gives_its_shapes(tmp_path):
    regions = [
        ([1, 4, 5], {"0": "1"}),
        ([2, 10, 5, 20, 8], {"0": "1"}),
        ([3, 20, 20, 5], {"0": "0"}),
        ([4, 20, 20, 5, 10], {"0": "0"}),
        ([5, 1, 1, 8, 1], {"0": "0"}),
        ([6, 1, 1, 8, 1, 8, 9], {"0": "0"}),
        ([7, 0, 0, 9, 0, 0, 9], {"0": "0"}),
        ([8, 10, 7, 20, 5, 30, 9, 22, 13], {"0": "1"}),  # a point on each side of a box
        ([9, 25, 20, 20, 25, 15, 20], {"0": "0"}),  # three points of a circle
        ([], {"0": "0"}),
    ]
    found = read_annotations(write(tmp_path / "a.json", via3(*regions)))
    other, image = found.images
    assert found.form == "VIA" and other[:3] == ("b.jpg", None, ()) and image.name == "a.jpg"
    named = [
        "point cell",
        "box cell",
        *["polygon cat"] * 2,
        *["line cat"] * 2,
        "polygon cat",
        "box cell",
        "polygon cat",
    ]
    assert [" ".join(kind) for kind in kinds(image)] == [*named, "tag cat"]
    assert points(image, 0) == [[4, 5]] and points(image, 1) == points(image, 7) == CORNERS
    assert points(image, 5) == [[1, 1], [8, 1], [8, 9]] and points(image, 6) == [[0, 0], [9, 0], [0, 9]]
    for place in (2, 8):
        np.testing.assert_allclose(np.hypot(*(image.marks[place].points - (20, 20)).T), 5)
    np.testing.assert_allclose((((image.marks[3].points - (20, 20)) / (5, 10)) ** 2).sum(1), 1)
    named = read_annotations(
        write(tmp_path / "a.json", via3(([1, 4, 5], {"0": "1", "1": "0"}), attributes=("x", "Label")))
    )
    assert kinds(named.images[1]) == [("point", "cat")]
    # Of check boxes one, or none, may be set; those of other attributes do not count.
    boxes = (([1, 4, 5], {"0": "1,0", "1": "0"}), ([1, 4, 5], {"1": ""}))
    checked = read_annotations(write(tmp_path / "a.json", via3(*boxes, attributes=("x", "Label"), kind=2)))
    assert kinds(checked.images[1]) == [("point", "cat"), ("point", "object")]


def test_ellipses_of_label_studio_and_cvat_have_their_radii_turned(tmp_path):
    # In an image of 60 x 40 pixels: about (30, 20), with the radii 6 and 10 pixels, turned by a right angle.
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 90}
    sized = {"original_width": 60, "original_height": 40}
    for kind in ("ellipselabels", "labels"):
        result = {"type": kind, "value": value | {kind: ["cell"]}, **sized}
        task = {"data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
        (image,) = read_annotations(write(tmp_path / "a.json", [task])).images
        assert kinds(image) == [("polygon", "cell")]
        offset = image.marks[0].points - (30, 20)
        np.testing.assert_allclose((offset[:, 0] / 10) ** 2 + (offset[:, 1] / 6) ** 2, 1)
    shape = '<ellipse label="cat" cx="30" cy="20" rx="6" ry="10" rotation="90" z_order="0"/>'
    (image, _) = read_annotations(write(tmp_path / "a.xml", CVAT.replace('<tag label="cat"/>', shape))).images
    np.testing.assert_allclose(image.marks[5].points, np.add(offset, (30, 20)), atol=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,class,x,y\na.jpg,cell,4,5\na.jpg,cat,6.5,7\n", [("point", "cell"), ("point", "cat")]),
        ("Filename;Label;xmin;ymin;xmax;ymax\na.jpg;cell;10;5;30;13\n", [("box", "cell")]),
        ("image,class,left,top,width,height\na.jpg,cell,10,5,20,8\n", [("box", "cell")]),
        ("image\tclass\ta.b\na.jpg\tcell\t1\na.jpg\tcat\t2\n", [("tag", "cell"), ("tag", "cat")]),
        ("image,class,x,y,left,top,right,bottom\na.jpg,cell,,,10,5,30,13\na.jpg,cat,1,2,,,,\nb.jpg,,,,,,,\n", None),
    ],
)
def test_a_table_gives_points_boxes_and_tags(tmp_path, text, expected):
    found = read_annotations(write(tmp_path / "a.csv", text))
    assert kinds(found.images[0]) == (expected or [("box", "cell"), ("point", "cat")])
    for place, (kind, _) in enumerate(kinds(found.images[0])):
        assert kind != "box" or points(found.images[0], place) == CORNERS
    assert expected or found.images[1][:3] == ("b.jpg", None, ())


@pytest.mark.parametrize("kind", ["scribbles", "points", "boxes", "tags"])
def test_what_is_written_is_read_again(tmp_path, kind):
    mark = {
        "scribbles": [Mark("line", "cat", np.array([[1.5, 2.5], [8, 9.25]]))],
        "points": [Mark("point", "cell", np.array([[1.5, 2.5]])), Mark("point", "cat", np.array([[3.0, 4.0]]))],
        "boxes": [Mark("box", "cell", box(10, 5, 30, 13))],
        "tags": [Mark("tag", "cell", no_points()), Mark("tag", "cat", no_points())],
    }[kind]
    images = [AnnotatedImage("a b.png", (40, 60), tuple(mark)), AnnotatedImage("ü/c.png", (30, 30), ())]
    path = write_annotations(tmp_path, kind, images, ["background", "cell", "cat"])
    found = read_annotations(path).images
    sizes = [image.size if kind in ("scribbles", "boxes") else None for image in images]
    assert [(image.name, image.size) for image in found] == list(zip(["a b.png", "ü/c.png"], sizes))
    assert kinds(found[0]) == [(m.kind, m.name) for m in mark] and found[1].marks == ()
    for one, other in zip(found[0].marks, mark):
        np.testing.assert_array_equal(one.points, other.points)


COLUMNS = r"a.csv has the columns image, x, y; expected image, class, and x, y or left"
TASK = {"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "choices", "value": {}}]}]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "", r"a.json is empty; expected a table \(.csv\), COCO"),
        ("a.json", "{", "a.json is no valid JSON"),
        ("a.json", {"hello": 1}, "a.json is of no form of annotations that is read; expected a table"),
        ("a.json", [{"image": "a.jpg", "label": []}], "a.json is of no form of annotations that is read"),
        (
            "a.json",
            [{"image": "a.jpg", "annotation_id": 1, "label": [{"timelinelabels": ["x"]}]}],
            "'timelinelabels', which",
        ),
        ("a.json", {"type": "FeatureCollection", "features": []}, "GeoJSON is not read: export COCO"),
        ("a.pdf", "text", "a.pdf is of no form of annotations"),
        ("a.json", {**COCO, "annotations": []}, r"a.json \(COCO\) holds no annotation of any image"),
        ("a.json", {"images": [], "annotations": []}, "no 'categories', which name the classes"),
        ("a.json", {**COCO, "images": []}, "an annotation of the image 7, which it does not list"),
        ("a.json", {**COCO, "categories": []}, "an annotation of the category 3, which it does not name"),
        ("a.json", {**COCO, "annotations": [{"image_id": 7, "category_id": 3}]}, "read as COCO, .* lacks 'bbox'"),
        ("a.json", {**COCO, "images": [1]}, "read as COCO, but an entry is of another form"),
        ("a.json", [TASK], "read as Label Studio, but an entry lacks 'choices'"),
        ("a.json", {**LABELME, "shapes": [{"shape_type": "msk"}]}, "a shape of the type 'msk', which is not read"),
        ("a.json", {**LABELME, "shapes": [{"shape_type": "mask", "points": [[0, 0]], "label": "x"}]}, "lacks 'mask'"),
        ("a.xml", "<annotations>", "a.xml is no valid XML"),
        (
            "a.xml",
            "<annotation><object/></annotation>",
            "the element <annotation> and no <image> or .*CVAT for images 1.1",
        ),
        ("a.xml", "<annotations><track><box/></track></annotations>", "read as CVAT, but an entry lacks 'label'"),
        (
            "a.xml",
            cvat_video(meta="<start_frame>0</start_frame><stop_frame>9999999</stop_frame>").replace(
                "</ann", "<track/></ann"
            ),
            "its video has 10000000 frames; at most 1,000,000 are read",
        ),
        ("a.xml", '<annotations><track task_id="1"/><track task_id="2"/></annotations>', "tracks of several videos"),
        ("a.json", via3(([2, 1, 2, 3], {"0": "1"})), "a.jpg a shape 2 of 3 numbers, not 4"),
        ("a.json", via3(([10, 1, 2], {"0": "1"})), "a region of the shape 10, which is not read"),
        ("a.json", via3(([9, 0, 0, 1, 1, 2, 2], {"0": "1"})), "three points of a circle lie on a line"),
        ("a.json", via3(([1, 4, 5], {"0": "1"}), types=(4,)), "a region in a.jpg, which is no image but a video"),
        ("a.json", via3(([1, 4, 5], {"0": "1", "1": "1"}), attributes=("x", "y")), "attributes x, y; call the one"),
        (
            "a.json",
            via3(([1, 4, 5], {"0": "1,0"}), kind=2),
            "check boxes cell, cat, but a region has one class",
        ),
        (
            "a.json",
            {"a": {"filename": "a.jpg", "regions": [BOXES | {"region_attributes": {"class": {"x": True, "y": True}}}]}},
            "has the check boxes x, y, but a region has one class",
        ),
        ("a.xml", CVAT.replace("<tag", "<mask"), "read as CVAT, but an entry lacks 'left'"),
        ("a.xml", CVAT.replace("<tag", "<cuboid"), "a <cuboid>, which is not read; boxes, polygons, masks, ellipses"),
        ("a.xml", CVAT.replace('xtl="10"', ""), "read as CVAT, but an entry lacks 'xtl'"),
        ("a.csv", "image,x,y\n", COLUMNS),
        ("a.csv", "image,class,x,y\na.jpg,cell,1,2\na.jpg,cell,1,two\n", "line 3, has 'two' in the column y"),
        ("a.csv", "image,class,x,y\na.jpg,cell,1,\n", "line 2, has x alone"),
        ("a.csv", "image,class,x,y\na.jpg,cell\n", "line 2, has fewer entries than there are columns"),
        ("a.csv", "image,class,x,y\n,cell,1,2\n", "line 2, names no image"),
        ("a.csv", "image,class,x,y\na.jpg,,1,2\n", "line 2, names no class"),
        ("a.csv", "image,class,x,y\n", r"a.csv \(CSV\) holds no annotation"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words) as error:
        read_annotations(write(tmp_path / name, content))
    assert "\n" not in str(error.value).strip()


def test_what_is_wrong_with_a_place(tmp_path):
    with pytest.raises(DataError, match="There is no file or folder"):
        read_annotations(tmp_path / "none.csv")
    with pytest.raises(DataError, match="holds no LabelMe files"):
        read_annotations(tmp_path)
    write(tmp_path / "a.json", COCO)
    with pytest.raises(DataError, match=r"a.json is no LabelMe file, which a folder of annotations holds alone"):
        read_annotations(tmp_path)
    (tmp_path / "b.csv").write_bytes(b"image,class\na.jpg,\xff\n")
    with pytest.raises(DataError, match="no text in UTF-8"):
        read_annotations(tmp_path / "b.csv")


def annotations(tmp_path, *marks, size=None):
    found = read_annotations(write(tmp_path / "a.json", COCO))
    return found._replace(images=(AnnotatedImage("a.jpg", size, marks),))


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (Mark("box", "cell", box(70, 5, 90, 13)), r"a box of 'cell' from \(70, 5\) to \(90, 13\) .* lies outside the"),
        (Mark("box", "cell", box(10, 5, 70, 13)), "lies outside the image of 40 x 60 pixels"),
        (
            Mark("point", "cell", np.array([[10.0, -4]])),
            r"a point of 'cell' at \(10, -4\) \(x, y\), which lies",
        ),
        (Mark("box", "cell", box(10, 5, 10, 13)), r"from \(10, 5\) to \(10, 13\) \(x, y\), which has no area"),
        (Mark("line", "cell", np.array([[1.0, 2], [np.nan, 3]])), "finite numbers"),
        (Mark("brush", "cell", no_points(), np.zeros((4, 4), bool)), "a brush of 4 x 4"),
    ],
)
def test_marks_that_do_not_fit_their_image_are_named(tmp_path, mark, words):
    found = annotations(tmp_path, mark)
    with pytest.raises(DataError, match=words):
        check_marks(found, found.images[0], (40, 60))


def test_a_mark_may_reach_a_little_beyond_and_sizes_must_agree(tmp_path):
    found = annotations(tmp_path, Mark("box", "cell", box(-1, -1, 61, 40.5)))
    check_marks(found, found.images[0], (40, 60))
    turned = annotations(tmp_path, size=(60, 40))
    with pytest.raises(DataError, match=r"says that a.jpg is 60 x 40 .*, but the image is 40 x 60"):
        check_marks(turned, turned.images[0], (40, 60))


def test_classes_are_found_by_name_or_number(tmp_path):
    found = annotations(tmp_path, Mark("tag", "cell", no_points()), Mark("tag", "0", no_points()))
    assert class_indices(found, ["background", "cell"]) == {"cell": 1, "0": 0}
    with pytest.raises(DataError, match=r"a tag of the class 'cell', which is none of the 2 classes .*mean 'cells'"):
        class_indices(found, ["background", "cells"])
    with pytest.raises(DataError, match=r"Name the classes in classes.json or data.classes"):
        class_indices(found, ["class 0", "class 1"])
