"""`jaxseg convert`: what leads out of a folder, what two files claim at once, and what is ignored but not lost."""

import csv
import json
import tarfile

import numpy as np
import pytest
from helpers.picture_files import save_picture
from PIL import Image

from jaxseg.data.classes_file import read_classes_file
from jaxseg.data.convert import main
from jaxseg.data.formats.collection import Collection, Drawn, Sample
from jaxseg.data.formats.writing import write_collection

LABEL = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def picture(path, shade=90, size=LABEL.shape):
    return save_picture(path, np.full((*size, 3), shade))


def mask_file(path, values=LABEL):
    return save_picture(path, values)


def files_in(folder):
    """Returns the files below a folder, by their paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def lost_of(out):
    """Returns the rows {file, what, why} of not-converted.csv."""
    with (out / "not-converted.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mask_of(out, name="a"):
    return np.asarray(Image.open(out / "masks" / f"{name}.png"))


def test_a_table_in_the_current_folder_leads_nowhere_else(tmp_path, monkeypatch):
    picture(tmp_path / "secret" / "x.png")
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    mask_file(tmp_path / "in" / "m.png")
    (tmp_path / "in" / "own").symlink_to(tmp_path / "elsewhere")
    rows = "../secret/x.png,m.png\na.png,../secret/x.png\na.png,m.png\nown/../../secret/x.png,m.png\nown/b.png,m.png\n"
    (tmp_path / "in" / "t.csv").write_text("image,mask\n" + rows)
    monkeypatch.chdir(tmp_path / "in")
    assert main(["t.csv", "../o/out"]) == 1
    out = tmp_path / "o" / "out"
    assert files_in(out) == [
        "classes.json",
        *("images/a.png", "images/own/b.png", "masks/a.png", "masks/own/b.png"),
        "not-converted.csv",
    ]
    assert ["leads out of the folder" in row["why"] for row in lost_of(out)] == [True] * 3


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x"])
def test_no_form_writes_outside_its_folder(tmp_path, name):
    def sample(named):
        return Sample("", named, named, picture(tmp_path / "a.png"), lambda: Drawn(LABEL))

    (tmp_path / "out").mkdir()
    collection = Collection("any", [sample(name), sample("b")], ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    written = write_collection(collection, tmp_path / "out")
    assert [(lost.file, "leads out" in lost.why) for lost in written.lost] == [(name, True)]
    assert written.images == {"": 1} and files_in(tmp_path) == [
        "a.png",
        *(f"out/{file}" for file in ("classes.json", "images/b.png", "masks/b.png", "not-converted.csv")),
    ]


def tar_of(path, files):
    """Writes an archive of {name: file}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, file in files.items():
            tar.add(file, name)


@pytest.mark.parametrize("options", [(), ("--classes", "sky,ground")])
def test_masks_of_0_and_255_in_an_archive_have_two_classes(tmp_path, options):
    image, mask = picture(tmp_path / "a.png"), mask_file(tmp_path / "m.png", 255 * LABEL)
    tar_of(tmp_path / "in" / "a.tar", {"a.png": image, "a.seg.png": mask})
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), LABEL)
    names = ("sky", "ground") if options else ("background", "foreground")
    assert read_classes_file(tmp_path / "out").names == names
    # With a third value the masks hold indices, and 255 is the ignored one.
    more = mask_file(tmp_path / "n.png", LABEL)
    tar_of(tmp_path / "in" / "a.tar", {"a.png": image, "a.seg.png": mask, "b.png": image, "b.seg.png": more})
    assert main([str(tmp_path / "in"), str(tmp_path / "both"), *options]) == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "both"), 255 * LABEL)
    np.testing.assert_array_equal(mask_of(tmp_path / "both", "b"), LABEL)


LARGE = np.array([[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.uint8)
SMALL = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]], np.uint8)


@pytest.mark.parametrize(
    ("options", "status", "classes", "values"),
    [
        (("--ignore", "void"), 0, ("background", "cat"), (0, 1, 255)),
        (("--classes", "cat"), 1, ("background", "cat"), (0, 1, 255)),
        (("--outside", "ignore"), 0, ("cat", "void"), (255, 0, 1)),
        (("--outside", "ignore", "--classes", "void,cat"), 0, ("void", "cat"), (255, 1, 0)),
        (("--outside", "ignore", "--ignore", "void"), 0, ("cat",), (255, 0, 255)),
    ],
)
def test_masks_of_classes_follow_what_is_ignored(tmp_path, options, status, classes, values):
    """values: the labels outside, of the cat, and of the smaller void on it."""
    picture(tmp_path / "in" / "images" / "a.png", size=LARGE.shape)
    mask_file(tmp_path / "in" / "masks" / "cat" / "a.png", LARGE)
    mask_file(tmp_path / "in" / "masks" / "void" / "a.png", SMALL)
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out), *options]) == status
    assert read_classes_file(out).names == classes
    np.testing.assert_array_equal(mask_of(out), np.array(values)[np.where(SMALL, 2, LARGE)])
    if status:
        assert [(row["what"], row["why"]) for row in lost_of(out)] == [
            ("class void", "It is none of --classes; its pixels are ignored.")
        ]


@pytest.mark.parametrize(
    ("options", "status", "classes", "values"),
    [
        ((), 0, ("background", "object"), (0, 1)),
        (("--classes", "background,cell"), 0, ("background", "cell"), (0, 1)),
        (("--classes", "cat,dog"), 1, ("background", "cat", "dog"), (0, 255)),
        (("--ignore", "object"), 0, ("background",), (0, 255)),
        (("--outside", "ignore", "--ignore", "x"), 0, ("object",), (255, 0)),
    ],
)
def test_objects_without_a_name_are_of_the_only_class(tmp_path, options, status, classes, values):
    picture(tmp_path / "in" / "a" / "images" / "a.png")
    mask_file(tmp_path / "in" / "a" / "masks" / "0f.png")
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out), *options]) == status
    assert read_classes_file(out).names == classes
    np.testing.assert_array_equal(mask_of(out), np.array(values)[LABEL])
    assert not status or [row["what"] for row in lost_of(out)] == ["class object"]


def test_images_without_labels_of_two_splits_have_names_of_their_own(tmp_path, capsys):
    for shade, split in enumerate(("train", "val")):
        picture(tmp_path / "in" / split / "img" / "a.png")
        picture(tmp_path / "in" / split / "img" / "b.png", shade)
        mask_file(tmp_path / "in" / split / "gt" / "a.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert "2 images without labels" in capsys.readouterr().out
    assert files_in(tmp_path / "out" / "unlabelled") == ["train/b.png", "val/b.png"]
    for shade, split in enumerate(("train", "val")):
        assert Image.open(tmp_path / "out" / "unlabelled" / split / "b.png").getpixel((0, 0)) == (shade,) * 3
    # Of one split alone, the folder says nothing.
    (tmp_path / "in" / "train" / "img" / "b.png").unlink()
    assert main([str(tmp_path / "in"), str(tmp_path / "one")]) == 0
    assert files_in(tmp_path / "one" / "unlabelled") == ["b.png"]


@pytest.mark.parametrize(
    ("images", "masks", "listed"),
    [
        ("img/a.jpg img/a.png", "gt/a.png", "img/a.png"),
        ("img/a.jpg", "gt/a.png gt/a.tif", "gt/a.tif"),
        ("a.jpg a.png", "a_mask.png", "a.png"),
        ("a.jpg", "a_gt.png a_mask.png", "a_mask.png"),
        ("a.jpg", "a_mask.png a_mask.tif", "a_mask.tif"),
        ("images/a.jpg images/a.png", "masks/cat/a.png", "images/a.png"),
        ("a/images/a.jpg b/images/x.jpg b/images/y.jpg", "a/masks/0.png b/masks/0.png", "/b,image"),
    ],
)
def test_of_two_files_for_one_name_the_second_is_listed(tmp_path, images, masks, listed):
    for name in images.split():
        picture(tmp_path / "in" / name)
    for number, name in enumerate(masks.split()):
        mask_file(tmp_path / "in" / name, LABEL if number == 0 else 1 - LABEL)
    check_that_one_is_listed(tmp_path / "in", tmp_path / "out", listed)


@pytest.mark.parametrize("second", ["a.png", "a.jpg"])
def test_of_two_rows_for_one_name_the_second_is_listed(tmp_path, second):
    for name in ("a.jpg", "a.png"):
        picture(tmp_path / "in" / name)
    for name, values in (("m.png", LABEL), ("n.png", 1 - LABEL)):
        mask_file(tmp_path / "in" / name, values)
    (tmp_path / "in" / "t.csv").write_text(f"image,mask\na.jpg,m.png\n{second},n.png\n")
    check_that_one_is_listed(tmp_path / "in" / "t.csv", tmp_path / "out", f"{second},image,")


def test_an_image_is_in_one_split_alone(tmp_path):
    for name in "abcd":
        picture(tmp_path / "in" / f"{name}.jpg")
    mask_file(tmp_path / "in" / "m.png")
    (tmp_path / "in" / "link.jpg").symlink_to("a.jpg")
    rows = "a.jpg,,train b.jpg,m.png,val a.jpg,m.png,train a.jpg,m.png,val c.jpg,m.png, link.jpg,m.png,val d.jpg,,"
    (tmp_path / "in" / "t.csv").write_text("\n".join(["image,mask,split", *rows.split(" ")]))
    out = tmp_path / "out"
    assert main([str(tmp_path / "in" / "t.csv"), str(out)]) == 1
    assert files_in(out) == [
        *("classes.json", "not-converted.csv", "train/images/a.jpg", "train/masks/a.png", "unlabelled/d.jpg"),
        *("val/images/b.jpg", "val/masks/b.png"),
    ]
    found = {int(row["file"].rpartition(" line ")[2]): row["why"] for row in lost_of(out)}
    assert sorted(found) == [2, 5, 6, 7]
    assert "Line 4 has its image" in found[5] and found[5].endswith("in train; it would be in val as well.")
    assert found[6] == "It names no split, although others do."


def test_a_table_of_other_columns_is_said_with_them(tmp_path, capsys):
    picture(tmp_path / "in" / "a.jpg")
    mask_file(tmp_path / "in" / "m.png")
    table = tmp_path / "in" / "pairs.csv"
    table.write_text("\ufeffimg;msk\na.jpg;m.png\n", encoding="utf-8")
    (tmp_path / "in" / "class_dict.csv").write_text("name,r,g,b\ncat,1,2,3\n")
    said = "has the columns img, msk; expected image,mask or image,mask,split."
    for options in ((), ("--format", "csv")):
        assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 1
        error = capsys.readouterr().err
        assert f"The table pairs.csv {said}" in error and "class_dict" not in error
    assert main([str(table), str(tmp_path / "out")]) == 1
    assert f"pairs.csv {said}" in capsys.readouterr().err
    (tmp_path / "in" / "class_dict.csv").unlink()
    table.write_text("img;Label\na.jpg;m.png\n")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--classes", "sky,ground"]) == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), LABEL)
    (tmp_path / "in" / "more.csv").write_text("image,mask\n")
    assert main([str(tmp_path / "in"), str(tmp_path / "two")]) == 1
    assert "several tables of images and masks (more.csv, pairs.csv)" in capsys.readouterr().err


def test_annotations_of_two_splits_share_no_image(tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png")
    for split, names in (("train", ["a"]), ("val", ["a", "b"])):
        images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(names)]
        content = {"images": images, "annotations": [], "categories": [{"id": 0, "name": "cat"}]}
        content["annotations"] = [{"id": 0, "image_id": 0, "category_id": 0, "segmentation": [[0, 0, 2, 0, 2, 2]]}]
        (tmp_path / "in" / f"{split}.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out)]) == 1
    assert files_in(out / "train") == ["images/a.png", "masks/a.png"]
    assert files_in(out / "val") == ["images/b.png", "masks/b.png"]
    (row,) = lost_of(out)
    assert row["file"].endswith("a.png") and row["why"] == "It is in train already; it would be in val as well."


@pytest.mark.parametrize(("mask", "other"), [("a.png", "a.jpeg"), ("a.seg.png", "a.png")])
def test_of_two_images_of_one_key_the_second_is_listed(tmp_path, mask, other):
    image = picture(tmp_path / "a.jpg")
    tar_of(tmp_path / "t.tar", {"a.jpg": image, other: image, mask: mask_file(tmp_path / "m.png")})
    check_that_one_is_listed(tmp_path / "t.tar", tmp_path / "out", f"t.tar,{other},a.jpg and {mask} are read instead.")


def check_that_one_is_listed(source, out, listed):
    assert main([str(source), str(out)]) == 1
    np.testing.assert_array_equal(mask_of(out), LABEL)
    assert files_in(out) == ["classes.json", "images/a.jpg", "masks/a.png", "not-converted.csv"]
    (row,) = lost_of(out)
    assert listed in ",".join(row.values())


def test_the_mask_beside_an_image_has_a_separator_in_its_name(tmp_path):
    for name in ("cel", "cell", "sea", "seal", "imaget"):
        picture(tmp_path / "in" / f"{name}.jpg", 200)
        mask_file(tmp_path / "in" / f"{name}_mask.png")
    picture(tmp_path / "in" / "mode_l.jpg", 200)
    picture(tmp_path / "in" / "mode.jpg", 200)
    mask_file(tmp_path / "in" / "mode_L.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    names = ["cel", "cell", "imaget", "mode", "sea", "seal"]
    assert files_in(tmp_path / "out" / "masks") == [f"{name}.png" for name in names]
    assert files_in(tmp_path / "out" / "unlabelled") == ["mode_l.jpg"]


def test_a_name_that_no_file_can_have_is_listed(tmp_path):
    image, mask = picture(tmp_path / "a.jpg"), mask_file(tmp_path / "m.png")
    keys = "a", "x" * 300, "y" * 300 + "/z", "a.jpg/b"
    names = {f"{key}{end}": file for key in keys for end, file in ((".jpg", image), (".seg.png", mask))}
    tar_of(tmp_path / "in" / "t.tar", names)
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out)]) == 1
    rows = lost_of(out)
    assert len(rows) == 3 and all(row["what"] == "image" and "cannot be that of a file" in row["why"] for row in rows)
    # Of a.jpg and a.jpg/b.jpg there is one, whichever is written first.
    assert files_in(out / "images") in (["a.jpg"], ["a.jpg/b.jpg"])
    assert len(files_in(out / "masks")) == 1


def test_names_that_differ_in_capitals_alone_are_one_file_on_some_systems(tmp_path):
    def sample(name):
        return Sample("", name, f"{name}.png", picture(tmp_path / "some.png"), lambda: Drawn(LABEL))

    (tmp_path / "out").mkdir()
    collection = Collection("any", [sample("A"), sample("a"), sample("b")], ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    written = write_collection(collection, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["A.png", "b.png"]
    (lost,) = written.lost
    assert lost.file == "a.png" and "A.png has a name that differs in capitals alone" in lost.why
