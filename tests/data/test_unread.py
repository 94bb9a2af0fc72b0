"""What lies in a folder and is not read is named, since its owner may expect that it is."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import FolderSource


def add(root, names, ending="png"):
    for name in names:
        for part in ("images", "masks"):
            path = root / part / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(np.array([0, 1, 2], np.uint8), (4, 6))).save(path)
    return root


def write(path, text="a"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def remarks(root, split="train", **options):
    return FolderSource(root, split, **options).remarks


@pytest.mark.parametrize(
    "names",
    [
        ("trainset/a", "valset/a"),
        ("Train_images/a", "Test_images/a"),
        ("city/train/a", "city/val/a"),
        ("train_001", "val_001"),
        ("train1/a", "dev_set/a", "x"),
        ("te/a", "tr/a"),
    ],
)
def test_names_like_those_of_splits(tmp_path, names):
    (remark,) = remarks(add(tmp_path / "data", names))
    named = " and ".join(sorted(n for n in names if n != "x"))
    assert f"are like those of splits, such as {named}, but are not read as such" in remark


@pytest.mark.parametrize(
    "names",
    [
        ("train_001", "train_002", "car_001"),
        ("train/a", "train/b"),  # one split is divided
        ("a/trained", "b/valley", "testament"),
        ("photo_train", "photo_test"),  # not at the start of a file's name
        ("x/testing/a", "b"),
    ],
)
def test_names_that_say_nothing_about_splits(tmp_path, names):
    assert remarks(add(tmp_path / "data", names)) == ()


@pytest.mark.parametrize("names", [("fold1/a", "fold2/b"), ("x/Fold_0/a", "x/Fold_1/b"), ("split-1/a", "split-2/b")])
def test_folders_of_a_cross_validation(tmp_path, names):
    (remark,) = remarks(add(tmp_path / "data", names))
    first, second = (name.split("/")[-2] for name in names)
    assert (
        f"The folders {first}, {second} in " in remark and "sort the images and masks of each of its rounds" in remark
    )
    assert remarks(add(tmp_path / "one", ("fold1/a", "folder2/b", "manifold 3/c", "unfold_2/d"))) == ()


def test_folders_beside_images_and_masks(tmp_path):
    root = add(tmp_path / "data", "ab")
    add(root / "holdout", "c")
    (remark,) = remarks(root)
    assert "images or masks in holdout, which are not read" in remark
    (root / "holdout" / "masks" / "c.png").unlink()
    options = {"unlabelled": True, "unlabelled_dir": "holdout", "split": "train"}
    assert remarks(root, **options) == ()


@pytest.mark.parametrize(
    "file",
    [
        "train.txt",
        "splits/val.csv",
        "ImageSets/Segmentation/train.txt",
        "train_list.txt",
        "split.json",
        "images/test_ids.txt",
    ],
)
def test_lists_of_splits(tmp_path, file):
    root = add(tmp_path / "data", "ab")
    write(root / file)
    (remark,) = remarks(root)
    assert f"holds {file}, which are not read" in remark
    write(root / "notes.txt")
    write(root / "splits" / "readme.md")
    assert remarks(root) == (remark,)


def test_a_folder_that_is_one_of_several_splits(tmp_path):
    root = add(tmp_path / "data" / "train", "ab").parent
    assert remarks(root / "train") == ()
    add(root / "val", "c")
    (remark,) = remarks(root / "train")
    assert f"is one split of {root}, which also has val" in remark and f"--config.data.dir={root}." in remark
    assert remarks(root) == () and remarks(root, "val") == ()


@pytest.mark.parametrize("ending", ["gif", "ppm"])
def test_pictures_of_types_that_are_not_read(tmp_path, ending):
    root = add(add(tmp_path / "data", "ab"), ["more/c", "d"], ending)
    found = remarks(root)
    assert len(found) == 2
    for part, remark in zip(("images", "masks"), found):
        assert f"(2 in {root / part}, such as d.{ending})" in remark


@pytest.mark.parametrize(
    "file",
    [
        "classes.txt",
        "Classes.json",
        "_classes.csv",
        "class_dict.csv",
        "label-map.json",
        "masks/classes.json",
        "data.yaml",
        "x.names",
    ],
)
def test_lists_of_classes_in_other_forms_and_places(tmp_path, file):
    root = add(tmp_path / "data", "ab")
    write(root / file)
    (remark,) = remarks(root)
    assert "the classes are those found in the masks. Not read: " in remark and remark.endswith(f"{root / file}.")
    write(root / "classes.json", '{"classes": ["a", "b", "c"]}')
    assert f"{root / 'classes.json'} alone is read; here the classes are those of that file." in remarks(root)[0]


def test_classes_json_inside_a_split(tmp_path):
    for split in ("train", "val"):
        add(tmp_path / "data" / split, "ab")
    write(tmp_path / "data" / "val" / "classes.json")
    assert "data/val/classes.json" in remarks(tmp_path / "data")[0]


@pytest.mark.parametrize("name, named", [("extra", True), ("test", False), ("unlabelled", False)])
def test_splits_without_masks(tmp_path, name, named):
    root = tmp_path / "data"
    for split in ("train", "val", name):
        add(root / split, "ab")
    shutil.rmtree(root / name / "masks")
    found = remarks(root, unlabelled=True, unlabelled_dir="unlabelled" if name == "unlabelled" else "")
    assert [f"images or masks of {name}, but not both" in remark for remark in found] == [True] * named


def test_each_remark_is_logged_once(tmp_path, caplog):
    root = add(tmp_path / "data", "abcd")
    write(root / "labels.txt")
    for split in ("train", "val"):
        remarks(root, split)
    assert caplog.text.count("labels.txt") == 1


def test_a_usual_folder_has_no_remarks(tmp_path):
    root = add(tmp_path / "data", "abcd")
    for name in ("README.md", "licence.txt", "images/list.txt", ".hidden/images/a.png", "check.png"):
        write(root / name)
    os.symlink(root / "images", root / "pictures")
    assert remarks(root) == () == remarks(root, "val")
