"""Full masks from the files of other tools, by hand-computed pixels, and what is refused or listed."""

import base64
import csv
import io
import json
import zlib

import numpy as np
import pytest
from helpers.picture_files import save_picture
from PIL import Image

from jaxseg.data.classes_file import read_classes_file
from jaxseg.data.convert import main
from jaxseg.data.folder import FolderSource
from jaxseg.data.formats.drawing import draw_full
from jaxseg.data.weak.marks import Mark, box, no_points
from jaxseg.data.weak.reading import read_annotations
from jaxseg.data.weak.runs import counts_in, make_runs, runs_of
from jaxseg.errors import DataError
from jaxseg.inference.regions import find_regions
from jaxseg.inference.regions.files import CocoFile

H, W = 6, 8
SIZE = {"height": H, "width": W}


def picture(path, size=(H, W), **options):
    rng = np.random.default_rng(len(path.name))
    return save_picture(path, rng.integers(0, 256, (*size, 3)), **options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def convert(tmp_path, *options, source="in", status=0):
    """Runs the command; returns the folder that it wrote."""
    assert main([str(tmp_path / source), str(tmp_path / "out"), *options]) == status
    return tmp_path / "out"


def mask_of(out, name="a", split="."):
    return np.asarray(Image.open(out / split / "masks" / f"{name}.png"))


def grid(text):
    return np.array([[int(c) for c in line] for line in text.split()], np.uint8)


# A square of class 1 from (1, 1) to (6, 5), under a smaller one of class 2 from (3, 2) to (5, 4).
NESTED = grid("00000000 01111100 01122100 01122100 01111100 00000000")
LARGE, SMALL = [1, 1, 6, 1, 6, 5, 1, 5], [3, 2, 5, 2, 5, 4, 3, 4]


def coco(*annotations, categories=("cell", "cat"), images=("a.png",)):
    return {
        "images": [{"id": i, "file_name": name, **SIZE} for i, name in enumerate(images)],
        "categories": [{"id": 7 - i, "name": name} for i, name in reversed(list(enumerate(categories)))][::-1],
        "annotations": [{"id": i, "image_id": 0, "iscrowd": 0, **a} for i, a in enumerate(annotations)],
    }


def pairs(ring):
    return list(zip(ring[::2], ring[1::2]))


def test_coco_draws_the_larger_object_first_and_reads_both_kinds_of_run_lengths(tmp_path):
    picture(tmp_path / "in" / "a.png")
    small = {"category_id": 7, "bbox": [3, 2, 2, 2]}
    cases = [
        small | {"segmentation": [SMALL]},
        # Down the columns of 6 pixels: three columns and two pixels before, 2 inside, 4 outside, 2 inside, the rest.
        small | {"segmentation": {"size": [H, W], "counts": [20, 2, 4, 2, 20]}},
        # 20 = 0b10100 and 2, 4; then 2 - 2 = 0 and 20 - 4 = 16: "d0" is 20 with the sign bit of a group of its own.
        small | {"segmentation": {"size": [H, W], "counts": "d0240`0"}},
    ]
    for number, case in enumerate(cases):
        content = coco(case, {"category_id": 6, "segmentation": [LARGE], "bbox": [1, 1, 5, 4]})
        write(tmp_path / "in" / "annotations" / "all.json", content)
        assert main([str(tmp_path / "in"), str(tmp_path / f"out{number}")]) == 0
        # The categories have the identifiers 6 (cat) and 7 (cell), which is their order.
        np.testing.assert_array_equal(mask_of(tmp_path / f"out{number}"), NESTED)
    assert read_classes_file(tmp_path / "out0").names == ("background", "cat", "cell")
    assert (tmp_path / "out0" / "images" / "a.png").read_bytes() == (tmp_path / "in" / "a.png").read_bytes()


def test_compressed_run_lengths_by_hand_and_against_the_reference():
    assert counts_in("d0240`0") == [20, 2, 4, 2, 20]
    assert counts_in("0") == [0] and counts_in("?") == [15] and counts_in("@") == [-16]
    for text in ("P", "\x7f", "pppppppppp0"):
        with pytest.raises(ValueError, match="run lengths"):
            counts_in(text)
    reference = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (40, 33)):
        for share in (0.0, 0.1, 0.9, 1.0):
            mask = rng.random(size) < share
            packed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
            found = make_runs(counts_in(packed["counts"].decode()), size)
            np.testing.assert_array_equal(found.pixels(), mask)
            assert found.area == mask.sum()


def test_runs_fill_their_box_and_no_more():
    mask = np.random.default_rng(1).random((3, 4)) < 0.5
    whole = runs_of(mask, (H, W), (2, 1)).pixels()
    np.testing.assert_array_equal(whole[2:5, 1:5], mask)
    assert whole.sum() == mask.sum()
    for counts, words in (([3, 8], "do not fill"), ([-1, 13], "whole numbers"), ([10**18], "do not fill")):
        with pytest.raises(ValueError, match=words):
            make_runs(counts, (3, 4))
    with pytest.raises(ValueError, match="outside the 6 x 8 image"):
        make_runs([1], (H, W), (5, 8, 1, 1))


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_the_regions_that_jaxseg_writes_come_back_pixel_by_pixel(tmp_path, form):
    label = np.random.default_rng(3).integers(0, 3, (12, 15)).astype(np.uint8).repeat(2, 0).repeat(3, 1)
    picture(tmp_path / "in" / "a.png", label.shape)
    file = CocoFile(("background", "cat", "cell"), (1, 2), form)
    file.add("a.png", find_regions(label, only=(1, 2)))
    file.write(tmp_path / "in" / "regions.json")
    np.testing.assert_array_equal(mask_of(convert(tmp_path)), label)


def test_polygons_agree_with_the_reference_but_for_their_borders():
    reference = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(2)
    for _ in range(20):
        points = (rng.uniform(6, 34, 2) + rng.uniform(3, 20) * rng.normal(size=(3, 2))).clip(0, 40)
        ours = draw_full([Mark("polygon", "x", points)], (40, 40), {"x": 1}, 2, outside=0).label
        theirs = reference.decode(reference.frPyObjects([points.ravel().tolist()], 40, 40))[..., 0]
        border = np.abs(ours.astype(int) - theirs).sum()
        length = np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum()
        assert border <= 0.5 * length + 2


def labelme(**more):
    shapes = [
        {"label": "cat", "shape_type": "polygon", "points": pairs(LARGE)},
        {"label": "cell", "shape_type": "polygon", "points": pairs(SMALL)},
    ]
    return {"imagePath": "a.png", "imageHeight": H, "imageWidth": W, "imageData": None, "shapes": shapes} | more


def png_text(mask, packed=False):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    data = file.getvalue()
    return base64.b64encode(zlib.compress(data) if packed else data).decode()


def test_labelme_draws_in_the_order_of_the_file(tmp_path):
    picture(tmp_path / "in" / "sub" / "a.png")
    picture(tmp_path / "in" / "sub" / "left.png")
    write(tmp_path / "in" / "sub" / "a.json", labelme(flags={"blurred": True}))
    out = convert(tmp_path)
    np.testing.assert_array_equal(mask_of(out), NESTED)
    assert (out / "unlabelled" / "left.png").is_file()  # no file says that anybody looked at it
    below = labelme()
    below["shapes"].reverse()
    below["shapes"].append({"label": "__ignore__", "shape_type": "polygon", "points": [[0, 0], [2, 0], [2, 2], [0, 2]]})
    below["shapes"].append(
        {"label": "cell", "shape_type": "mask", "points": [[6, 4], [7, 5]], "mask": png_text(np.eye(2) > 0)}
    )
    write(tmp_path / "in" / "sub" / "a.json", below)
    assert main([str(tmp_path / "in"), str(tmp_path / "out2")]) == 0
    expected = np.where(NESTED == 2, 1, NESTED)  # the large one lies on top
    expected[:2, :2] = 255
    expected[4, 6] = expected[5, 7] = 2
    np.testing.assert_array_equal(mask_of(tmp_path / "out2"), expected)


def cvat(*shapes, subset=""):
    return (
        "<annotations><version>1.1</version><meta><task><labels><label><name>cat</name></label><label><name>cell"
        f'</name></label></labels></task></meta><image id="0" name="a.png" width="{W}" height="{H}" subset="{subset}">'
        f"{''.join(shapes)}</image></annotations>"
    )


def polygon(label, ring, z):
    return f'<polygon label="{label}" points="{";".join(f"{x},{y}" for x, y in pairs(ring))}" z_order="{z}"/>'


def test_cvat_draws_by_depth_and_reads_masks_along_their_rows(tmp_path):
    picture(tmp_path / "in" / "a.png")
    runs = '<mask label="cell" rle="1, 2, 1, 2" left="3" top="2" width="3" height="2" z_order="0"/>'
    write(tmp_path / "in" / "a.xml", cvat(polygon("cell", SMALL, 1), polygon("cat", LARGE, 0)))
    np.testing.assert_array_equal(mask_of(convert(tmp_path)), NESTED)
    write(tmp_path / "in" / "a.xml", cvat(polygon("cat", LARGE, -1), runs))
    assert main([str(tmp_path / "in" / "a.xml"), str(tmp_path / "out2")]) == 0
    expected = np.where(NESTED == 2, 1, NESTED)
    expected[2, 4:6] = expected[3, 4:6] = 2  # of the rows .## and .##
    np.testing.assert_array_equal(mask_of(tmp_path / "out2"), expected)


def frame_box(number, label="cat", outside=0):
    ring = ";".join(f"{x},{y}" for x, y in pairs(LARGE))
    return f'<polygon frame="{number}" outside="{outside}" keyframe="1" points="{ring}" z_order="0"/>'


def video(*frames, stop):
    meta = f"<start_frame>0</start_frame><stop_frame>{stop}</stop_frame>"
    shapes = "".join(map(frame_box, frames)) + frame_box(frames[-1] + 1, outside=1)
    return f'<annotations><meta><task>{meta}</task></meta><track label="cat">{shapes}</track></annotations>'


def test_frames_of_a_video_are_the_images_with_their_numbers(tmp_path, capsys):
    for name in ("one/img-0.png", "one/img-2.png", "two/frame_000000.png", "two/frame_000001.png"):
        picture(tmp_path / "in" / name)
    write(tmp_path / "in" / "one.xml", video(0, 1, 2, stop=2))
    write(tmp_path / "in" / "two.xml", video(0, stop=1))
    out = convert(tmp_path, status=1)
    seen = np.where(NESTED, 1, 0)
    for name, expected in (("one/img-0", seen), ("one/img-2", seen), ("two/frame_000000", seen)):
        np.testing.assert_array_equal(mask_of(out, name), expected)
    assert not mask_of(out, "two/frame_000001").any()  # a frame of the task without objects
    assert "1 frame of 5 has no image with the number (1)." in capsys.readouterr().err
    with (out / "not-converted.csv").open(newline="", encoding="utf-8") as file:
        assert [row["what"] for row in csv.DictReader(file)] == ["frames"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("frame_1 frame_2 frame_3 x_0", "frames 0 to 2 of a video, but its images frame_* are numbered from 1 to 3"),
        ("f_1 f_2", "from 1 to 2, as if each were the frame before; ffmpeg"),  # the last is missing
        ("f_2 f_3 f_5", "from 2 to 5, as if each were the frame 2 before"),
        ("x y", "none of the 2 images of"),
        ("a/0 b/0", "both have this number; put the frames of each video into a folder with its name, here 'clip'"),
    ],
)
def test_frames_that_are_not_found_are_said(tmp_path, capsys, names, words):
    for name in names.split():
        picture(tmp_path / "in" / f"{name}.png")
    write(tmp_path / "in" / "clip.xml", video(0, 1, stop=2))
    convert(tmp_path, status=1)
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


GOOD = {"category_id": 7, "segmentation": [LARGE]}
SHAPES = {"label": "cat", "shape_type": "polygon"}


@pytest.mark.parametrize(
    ("name", "content", "listed"),
    [
        ("x.json", coco(GOOD | {"image_id": 9}, GOOD), ("x.json", "annotation 0", "of the image 9, which it does not")),
        ("x.json", coco(GOOD, GOOD | {"category_id": 99}), ("a.png", "annotation 1", "of the category 99, which")),
        ("x.json", coco(GOOD, GOOD | {"segmentation": [[1, 2, 3]]}), ("a.png", "annotation 1", "polygon of 3 numbers")),
        ("x.json", coco(GOOD, GOOD | {"segmentation": [[1, 2, 3, 4]]}), ("a.png", "annotation 1", "no polygon of 3")),
        ("x.json", coco(GOOD, {"category_id": 7}), ("a.png", "annotation 1", "It lacks 'bbox'.")),
        ("x.json", coco(GOOD, GOOD | {"image_id": [0]}), ("x.json", "annotation 1", "It is of another form (")),
        ("x.xml", cvat(polygon("cell", LARGE, 0), '<cuboid label="cat" xtl1="3"/>'),
         ("a.png", "shape 2, cuboid of cat", "has a <cuboid>, which is not read")),
        ("x.xml", cvat(polygon("cell", LARGE, 0), polygon("cat", [1, 1, 2, 2, "nan", 3], 0)),
         ("a.png", "polygon of cat", "finite numbers were expected")),
        ("x.xml", cvat(polygon("cell", LARGE, 0), polygon("cat", [1, 1, 2, 2, 90, 3], 0)),
         ("a.png", "polygon of cat", "which lies outside the image of 6 x 8 pixels")),
        ("x.xml", cvat(polygon("cell", LARGE, 0), '<box label="cat" xtl="1" ytl="1" xbr="1" ybr="3"/>'),
         ("a.png", "box of cat", "which has no area")),
        ("x.xml", cvat('<polygon label="cat" points="1,2;3,x"/>', polygon("cell", LARGE, 0)),
         ("a.png", "shape 1, polygon of cat", "could not convert string to float: 'x'")),
        ("a.json", labelme(shapes=[SHAPES | {"label": "cell", "points": pairs(LARGE)}, SHAPES | {"points": [[1, 1]]}]),
         ("a.png", "polygon of cat", "a polygon of 1 point; at least 3")),
        ("a.json", labelme(shapes=[SHAPES | {"label": "cell", "points": pairs(LARGE)}, SHAPES | {"shape_type": "3D"}]),
         ("a.png", "shape 2", "of the type '3D', which is not read")),
    ],
)  # fmt: skip
def test_one_bad_annotation_is_listed_and_the_others_are_read(tmp_path, name, content, listed):
    picture(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / name, content)
    out = convert(tmp_path, status=1)
    cell = read_classes_file(out).names.index("cell")
    np.testing.assert_array_equal(mask_of(out), np.where(NESTED, cell, 0))
    with (out / "not-converted.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["file"].endswith(listed[0]) and row["what"] == listed[1] and listed[2] in row["why"], row


def test_names_of_classes_are_stripped_and_what_is_odd_about_them_is_said(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    shapes = [SHAPES | {"label": name, "points": pairs(LARGE)} for name in ("cell ", " cell", "Cell")]
    shapes.append({"label": "axis", "shape_type": "line", "points": [[1, 1], [2, 2]]})
    shapes.append({"label": "cell", "shape_type": "line", "points": [[1, 1], [2, 2]]})
    write(tmp_path / "in" / "a.json", labelme(shapes=shapes))
    out = convert(tmp_path, status=1)  # for the lines
    assert read_classes_file(out).names == ("background", "Cell", "axis", "cell")
    said = capsys.readouterr().out
    assert "Cell and cell differ in upper and lower case alone" in said
    assert "The class axis has no pixels: all that is annotated of it is lines." in said and "class cell" not in said


def test_a_name_of_classes_that_is_none_is_refused(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "x.json", coco(GOOD))
    convert(tmp_path, "--classes", "background,cells", status=1)
    assert "--classes has 'cells'" in (error := capsys.readouterr().err) and "Did you mean 'cell'?" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    convert(tmp_path, "--classes", "cell,dog")  # of a list for several sets: every object is of a class in it
    picture(tmp_path / "other" / "images" / "a.png")
    save_picture(tmp_path / "other" / "masks" / "cell" / "a.png", NESTED)
    assert main([str(tmp_path / "other"), str(tmp_path / "out2"), "--classes", "cells"]) == 1
    assert "Did you mean 'cell'?" in capsys.readouterr().err and not (tmp_path / "out2").exists()


def test_another_size_is_said_of_the_file_that_gives_it(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png", (H, 2 * W))
    picture(tmp_path / "in" / "b.png")
    content = coco(GOOD, images=("b.png",))
    for file, extra in (("one.json", {"id": 1, "file_name": "a.png", **SIZE}), ("two.json", None)):
        images = [*content["images"], extra] if extra else content["images"]
        write(tmp_path / "in" / file, content | {"images": images})
    convert(tmp_path, status=1)
    assert f"{tmp_path / 'in' / 'one.json'} says that a.png is 6 x 8" in capsys.readouterr().err


def test_a_training_is_told_of_the_first_bad_annotation(tmp_path):
    for bad, words in ((GOOD | {"image_id": 9}, "of the image 9"), (GOOD | {"segmentation": [[1, 2, 3]]}, "3 numbers")):
        with pytest.raises(DataError, match=words):
            read_annotations(write(tmp_path / "x.json", coco(GOOD, bad)))


def test_label_studio_via_and_supervisely(tmp_path):
    def per_cent(ring):
        return [[100 * x / W, 100 * y / H] for x, y in pairs(ring)]

    def result(name, ring):
        value = {"points": per_cent(ring), "polygonlabels": [name]}
        return {"type": "polygonlabels", "original_width": W, "original_height": H, "value": value}

    results = [result("cell", SMALL), result("cat", LARGE)]
    tasks = [
        {"data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": results}]},
        {"data": {"image": "b.png"}, "annotations": []},
    ]

    def region(name, ring):
        xs, ys = zip(*pairs(ring))
        shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
        return {"shape_attributes": shape, "region_attributes": {"quality": "good", "class": name}}

    def spoken(name, ring):
        return {"vid": "1", "flg": 0, "z": [], "xy": [7, *ring], "av": {"1": name}}

    via3 = {
        "project": {"vid_list": ["1"]},
        "attribute": {"1": {"aname": "class", "type": 1, "options": {}}},
        "file": {"7": {"fid": 7, "fname": "a.png", "type": 2}},
        "view": {"1": {"fid_list": [7]}},
        "metadata": {"x": spoken("cell", SMALL), "y": spoken("cat", LARGE)},
    }
    regions = [r["value"] | {"original_width": W, "original_height": H} for r in results]
    short = [{"image": "/data/upload/1/0a1b2c3d-a.png", "annotation_id": 1, "label": regions}]
    via = {"a.png1": {"filename": "a.png", "size": 1, "regions": [region("cell", SMALL), region("cat", LARGE)]}}
    ring = {"exterior": pairs(LARGE), "interior": [pairs(SMALL)]}
    area = np.full((2, 2), 255, np.uint8)
    objects = [
        {"classTitle": "cat", "geometryType": "polygon", "points": ring},
        {"classTitle": "cell", "geometryType": "bitmap", "bitmap": {"origin": [3, 2], "data": png_text(area, True)}},
    ]
    forms = {
        "labelstudio": {"all.json": tasks},
        "labelstudio-min": {"all.json": short},
        "via": {"all.json": {"_via_settings": {}, "_via_img_metadata": via}},
        "via-3": {"all.json": via3},
        "supervisely": {
            "ds/ann/a.png.json": {"size": SIZE, "tags": [], "objects": objects},
            "meta.json": {"classes": [{"title": "cat", "color": "#FF0000"}, {"title": "cell"}], "tags": []},
        },
    }
    for form, files in forms.items():
        root = tmp_path / form
        for name in ("a.png", "b.png"):
            picture(root / ("ds/img" if form == "supervisely" else ".") / name)
        for name, content in files.items():
            write(root / name, content)
        for option in ("auto", form):
            out = tmp_path / f"out-{form}-{option}"
            assert main([str(root), str(out), "--format", option.partition("-")[0]]) == 0
            np.testing.assert_array_equal(mask_of(out), NESTED)
            assert read_classes_file(out).names == ("background", "cat", "cell")
            assert (out / "unlabelled" / "b.png").is_file()  # a task that nobody has done is no empty image
    objects.pop()  # the hole alone
    write(tmp_path / "supervisely" / "ds/ann/a.png.json", {"size": SIZE, "objects": objects})
    assert main([str(tmp_path / "supervisely"), str(tmp_path / "hole")]) == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "hole"), np.where(NESTED == 2, 0, NESTED))


def test_what_has_no_outline_is_ignored_where_it_lies_and_listed(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "x.json", coco({"category_id": 7, "bbox": [1, 1, 5, 4]}, images=("a.png", "gone.png")))
    out = convert(tmp_path, status=1)
    np.testing.assert_array_equal(mask_of(out), np.where(NESTED, 255, 0))
    rows = (out / "not-converted.csv").read_text().splitlines()
    assert rows[0] == "file,what,why" and len(rows) == 3
    assert rows[1].startswith("gone.png,image,") and "a.png,box of cell,A box has no outline" in rows[2]
    assert "2 entries not converted" in capsys.readouterr().err
    assert main([str(tmp_path / "in"), str(tmp_path / "out2"), "--boxes", "--classes", "cell"]) == 1  # gone.png
    np.testing.assert_array_equal(mask_of(tmp_path / "out2"), np.where(NESTED, 1, 0))
    point = Mark("point", "x", np.array([[2.5, 2.5]]))
    drawn = draw_full(
        [point, Mark("tag", "x", no_points()), Mark("box", "x", box(4, 0, 6, 2))], (H, W), {"x": 1}, 2, outside=0
    )
    expected = grid("00002200 02222200 02220000 02220000 00000000 00000000")
    np.testing.assert_array_equal(np.where(drawn.label == 255, 2, drawn.label), expected)
    assert [lost.what for lost in drawn.lost] == ["point of x", "box of x"]


def test_splits_are_kept(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "in" / f"{split}2017" / f"{split}.png")
        picture(tmp_path / "in" / f"{split}2017" / "same.png")
        content = coco({"category_id": 7, "segmentation": [LARGE], "bbox": []}, images=(f"{split}.png", "same.png"))
        write(tmp_path / "in" / "annotations" / f"instances_{split}2017.json", content)
    write(tmp_path / "in" / "annotations" / "captions_val2017.json", {"images": [], "annotations": []})
    out = convert(tmp_path, status=1)  # for the captions, which are listed
    assert "captions_val2017.json,file," in (out / "not-converted.csv").read_text()
    for split in ("train", "val"):
        source = FolderSource(out, split)
        assert sorted(source.name(i) for i in range(2)) == ["same", split] and source.info.classes[2] == "cell"
        np.testing.assert_array_equal(mask_of(out, split, split), np.where(NESTED, 2, 0))


def test_an_image_that_the_tool_did_not_turn_has_its_mask_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise makes it upright
    picture(tmp_path / "in" / "a.jpg", exif=exif)
    ring = [0, 0, 3, 0, 3, 1, 0, 1]  # at the top left of the stored picture, and at the top right of the upright one
    write(tmp_path / "in" / "x.json", coco({"category_id": 7, "segmentation": [ring]}, images=("a.jpg",)))
    found = mask_of(convert(tmp_path))
    expected = np.zeros((W, H), np.uint8)
    expected[:3, -1] = 2
    np.testing.assert_array_equal(found, expected)
    assert len(FolderSource(tmp_path / "out", "train")) == 1


def test_colours_are_the_nearest_within_a_tolerance(tmp_path, capsys):
    picture(tmp_path / "in" / "image" / "a.png")
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 200, 0)], np.uint8)[NESTED]
    dirty = colors.copy()
    dirty[1, 1] = (120, 9, 3)  # at a distance of sqrt(64 + 81 + 9) = 12.4
    dirty[2, 3] = (70, 100, 0)  # 115.9 from red, and 122.1 from green
    save_picture(tmp_path / "in" / "label" / "a.png", dirty)
    write(tmp_path / "in" / "class_dict.csv", "name,r,g,b\nvoid,0,0,0\ncat,128,0,0\ncell,0,200,0\n")
    expected = NESTED.copy()
    expected[2, 3] = 255
    out = convert(tmp_path, status=1)
    np.testing.assert_array_equal(mask_of(out), expected)
    assert "1 pixel" in (out / "not-converted.csv").read_text() and "2.08%" in capsys.readouterr().err
    assert main([str(tmp_path / "in"), str(tmp_path / "exact"), "--tolerance", "0"]) == 1
    expected[1, 1] = 255
    np.testing.assert_array_equal(mask_of(tmp_path / "exact"), expected)
    assert read_classes_file(out).names == ("void", "cat", "cell")
    # A JPEG file of large areas, and the table of CVAT.
    (tmp_path / "in" / "label" / "a.png").unlink()
    (tmp_path / "in" / "class_dict.csv").unlink()
    Image.fromarray(np.kron(colors, np.ones((16, 16, 1), np.uint8))).save(
        tmp_path / "in" / "label" / "a.jpg", quality=95
    )
    picture(tmp_path / "in" / "image" / "a.png", (16 * H, 16 * W))
    write(
        tmp_path / "in" / "labelmap.txt",
        "# label:color_rgb:parts:actions\nvoid:0,0,0::\ncat:128,0,0::\ncell:0,200,0::\n",
    )
    main([str(tmp_path / "in"), str(tmp_path / "jpeg")])
    found, whole = mask_of(tmp_path / "jpeg"), np.kron(NESTED, np.ones((16, 16), np.uint8))
    assert (found == whole).mean() > 0.9 and set(np.unique(found)) <= {0, 1, 2, 255}
    assert ((found != whole) & (found != 255)).mean() < 0.01


@pytest.mark.parametrize("layout", ["_mask", "one folder", "train_labels", "csv"])
def test_pairs_are_found_by_their_names(tmp_path, layout):
    root = tmp_path / "in"
    for name in ("ä b", "x.1"):
        image, mask = {
            "_mask": (f"imgs/{name}.JPG", f"masks/{name}_mask.png"),
            "one folder": (f"{name}.jpg", f"{name}_mask.png"),
            "train_labels": (f"train/{name}.jpg", f"train_labels/{name}_L.png"),
            "csv": (f"deep/{name}.jpg", f"other/{name}-1.png"),
        }[layout]
        picture(root / image, format="JPEG")
        save_picture(root / mask, NESTED)
    if layout == "csv":
        names = "ä b", "x.1"
        lines = [f"deep/{n}.jpg,other/{n}-1.png,{split}\n" for n, split in zip(names, ("Training", "val"))]
        write(root / "pairs.csv", "image,mask,split\n" + "".join(lines) + "../secret.png,other/x.1-1.png,val\n")
    out = convert(tmp_path, "--classes", "background,cat,cell", status=int(layout == "csv"))
    if layout == "csv":
        assert "leads out of the folder" in (out / "not-converted.csv").read_text()
        np.testing.assert_array_equal(mask_of(out, "ä b", "train"), NESTED)
        np.testing.assert_array_equal(mask_of(out, "x.1", "val"), NESTED)
    else:
        np.testing.assert_array_equal(mask_of(out, "ä b"), NESTED)
        np.testing.assert_array_equal(mask_of(out, "x.1"), NESTED)
        assert len(FolderSource(out, "train")) == 1


def test_more_than_255_classes_give_masks_of_16_bits(tmp_path):
    picture(tmp_path / "in" / "a.png")
    names = [f"c{i}" for i in range(300)]
    content = coco(
        {"category_id": 7 - 299, "segmentation": [LARGE]}, {"category_id": 7, "bbox": [3, 2, 2, 2]}, categories=names
    )
    write(tmp_path / "in" / "x.json", content)
    out = convert(tmp_path, status=1)  # for the box
    file = read_classes_file(out)
    found = mask_of(out)
    assert found.dtype == np.uint16 and len(file.names) == 301 and file.ignore == 65535
    # The box is unknown where it is alone, and the polygon of the last class lies over it.
    np.testing.assert_array_equal(found, np.where(NESTED, file.values[file.names.index("c299")], 0))
    assert FolderSource(out, "train")[0]["label"].max() == found.max()


def test_cityscapes_keeps_its_evaluated_classes(tmp_path):
    for split, city in (("train", "ulm"), ("val", "bonn")):
        stem = f"{city}_000000_000001"
        picture(tmp_path / "in" / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        raw = np.array([7, 26, 3], np.uint8)[NESTED]
        save_picture(tmp_path / "in" / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", raw)
        save_picture(tmp_path / "in" / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", raw)
    out = convert(tmp_path)
    expected = np.array([0, 13, 255], np.uint8)[NESTED]  # road, car, and a value without a class
    found = mask_of(out, "ulm_000000_000001_leftImg8bit", "train")
    np.testing.assert_array_equal(found, expected)
    assert read_classes_file(out).names[13] == "car" and len(FolderSource(out, "val")) == 1


@pytest.mark.parametrize("layout", ["a folder each", "by image", "by class"])
def test_masks_of_single_objects(tmp_path, layout):
    root = tmp_path / "in"
    large, small = np.where(NESTED, 255, 0), np.where(NESTED == 2, 255, 0)
    image, of_cat, of_cell = {
        "a folder each": ("a/images/a.png", "a/masks/0f3e.png", "a/masks/9b.png"),
        "by image": ("images/a.png", "masks/a/cat_1.png", "masks/a/cell_1.png"),
        "by class": ("images/a.png", "masks/cat/a.png", "masks/cell/a.png"),
    }[layout]
    picture(root / image)
    save_picture(root / of_cell, small)
    save_picture(root / of_cat, large)
    out = convert(tmp_path)
    anonymous = layout == "a folder each"  # names of no words are numbers of objects
    np.testing.assert_array_equal(mask_of(out), np.where(NESTED, 1, 0) if anonymous else NESTED)
    assert read_classes_file(out).names == (("background", "object") if anonymous else ("background", "cat", "cell"))


def test_stacks_give_an_image_a_page(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    images = np.random.default_rng(0).integers(0, 60000, (3, H, W)).astype(np.uint16)
    masks = np.stack([np.where(NESTED, 255, 0)] * 3).astype(np.uint8)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "v.tif", images, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "v_labels.tif", masks, photometric="minisblack")
    out = convert(tmp_path)
    for page in range(3):
        name = f"v-{page:04d}"
        np.testing.assert_array_equal(np.asarray(Image.open(out / "images" / f"{name}.png")), images[page])
        np.testing.assert_array_equal(mask_of(out, name), np.where(NESTED, 1, 0))
    assert read_classes_file(out).names == ("background", "foreground")


def test_tars_of_webdataset(tmp_path):
    import tarfile

    (tmp_path / "in").mkdir()
    image, mask = picture(tmp_path / "a.jpg"), save_picture(tmp_path / "m.png", NESTED)
    for split in ("train", "val"):
        with tarfile.open(tmp_path / "in" / f"{split}-000000.tar", "w") as tar:
            for name, path in (("k/0.jpg", image), ("k/0.seg.png", mask), ("k/1.jpg", image), ("k/0.json", mask)):
                tar.add(path, name)
            tar.add(image, "../../out.jpg")
            link = tarfile.TarInfo("k/2.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(link)
    out = convert(tmp_path, status=1)
    assert not (tmp_path.parent / "out.jpg").exists()
    assert "leads out of the archive" in (out / "not-converted.csv").read_text()
    for split in ("train", "val"):
        np.testing.assert_array_equal(mask_of(out, "0", split), NESTED)
        assert (out / split / "images" / "0.jpg").read_bytes() == image.read_bytes()
        assert (out / "unlabelled" / split / "1.jpg").is_file()  # that of the other split has the same name


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, (), "has no images"),
        ({"x.json": {"a": 1}}, (), "x.json is of no form of annotations that is read"),
        ({"x.json": coco(images=("b.png",))}, (), "annotates b.png, none of which is among the 1 image"),
        ({"x.json": coco(), "y.xml": cvat()}, (), "annotations of several forms (COCO, CVAT)"),
        ({"x.json": coco()}, ("--format", "cvat"), "is of the form COCO; CVAT was expected"),
        ({"x.xml": "<!DOCTYPE x [<!ENTITY a 'aaa'>]>" + cvat()}, (), "defines entities of XML"),
        ({"x.json": coco({"category_id": 7, "segmentation": {"size": [60000, 60000], "counts": [3600000000]}})}, (),
         "a brush of 60000 x 60000"),
        ({"x.json": coco({"category_id": 7, "segmentation": {"size": [H, W], "counts": [47]}})}, (),
         "runs of 47 pixels do not fill 6 x 8"),
        ({"x.json": "[" * 100000}, (), "no valid JSON"),
        ({"x.csv": "image,mask\na.png,/etc/hostname\n"}, (), "leads out of the folder"),
        ({"x.tar": "no tar"}, (), "cannot be read as a tar archive"),
        ({"a_mask.png": ""}, (), "a_mask.png cannot be read as an image"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_sentence_and_leaves_nothing(tmp_path, capsys, files, options, words):
    if files:
        picture(tmp_path / "in" / "a.png")
    (tmp_path / "in").mkdir(exist_ok=True)
    for name, content in files.items():
        write(tmp_path / "in" / name, content)
    source = "in/x.csv" if "x.csv" in files else "in"
    convert(tmp_path, *options, source=source, status=1)
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_places_that_are_refused(tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "full" / "a.png")
    for source, out, words in (
        ("none", "out", "There is no file or folder"),
        ("in", "full", "exists already"),
        ("in", "in/out", "lies in SOURCE"),
        ("in/a.png", "out", "is of no form that is read (coco, labelme"),
    ):
        assert main([str(tmp_path / source), str(tmp_path / out)]) == 1
        assert words in capsys.readouterr().err
