"""The layouts of a folder: splits outside and inside images/, and folders that are nearly one of these."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, from_dict, to_dict, update
from jaxseg.data import FolderSource, make_source
from jaxseg.errors import DataError
from jaxseg.run.data import load_problem, with_stored_division
from jaxseg.run.messages import closing_message
from jaxseg.run.workdir import read_config


def add(root, split, names="ab", values=(0, 1, 2), *, inside=True, masks=True):
    """Writes images NAME.png of a split, and their masks, inside images/ and masks/ or around them."""
    for part in ("images", "masks")[: 1 + masks]:
        folder = root / part / split if inside else root / split / part
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(np.resize(np.array(values, np.uint8), (4, 6))).save(folder / f"{name}.png")
    return root


def names(source):
    return [source.name(i) for i in range(len(source))]


@pytest.mark.parametrize(
    "name",
    ["train-000.tar", "a.tfrecord-00000-of-00002", "shards/0.tar", "data/train-00000.parquet", "x.h5", "b.tar.gz"],
)
def test_archives_and_shards_are_named_with_what_to_do(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    told = rf"Archives and shards, such as {name}, are not read: unpack their images and masks into these folders"
    with pytest.raises(DataError, match=told):
        FolderSource(tmp_path, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=rf"has no folder 'masks'; expected .*{told}"):
        FolderSource(tmp_path, "train")
    with pytest.raises(DataError, match=r"is a file, not a folder\. Archives and shards"):
        FolderSource(file, "train")


def test_a_volume_is_no_archive(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds scan\.nii\.gz; expected .*DIR/masks/val\.$"):
        FolderSource(tmp_path, "train")


def test_a_folder_above_the_data_is_told_from_a_split(tmp_path):
    add(tmp_path / "data", "", "abc")
    with pytest.raises(
        DataError, match=rf"If {tmp_path}/data is the whole set, give --config\.data\.dir={tmp_path}/data"
    ):
        FolderSource(tmp_path, "train")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_inside_images_are_those_around(tmp_path, inside, val):
    for split, inner in (("train", "abc"), (val, "de"), ("test", "f")):
        add(tmp_path, split, inner, (0, 1) if split == "train" else (0, 1, 2), inside=inside)
    for split, inner in (("train", "abc"), (val, "de"), ("test", "f")):
        source = FolderSource(tmp_path, split)
        assert names(source) == list(inner) and len(source.info.classes) == 3
    with pytest.raises(DataError, match=r"has the splits test, train, .*but no folder 'tset'\. Did you mean 'test'"):
        FolderSource(tmp_path, "tset")
    if val != "val":
        with pytest.raises(DataError, match=f"no folder 'val'.*Give --config.data.val_split={val}"):
            FolderSource(tmp_path, "val")


def test_splits_with_a_year_are_named_by_the_user(tmp_path):
    for split in ("train2017", "val2017"):
        add(tmp_path, split, "ab" if split == "val2017" else "cde")
    with pytest.raises(DataError, match=r"no folder 'train'.*Give --config\.data\.train_split=train2017"):
        FolderSource(tmp_path, "train")
    with pytest.raises(DataError, match=r"no folder 'val'.*Give --config\.data\.val_split=val2017"):
        FolderSource(tmp_path, "val")
    assert names(FolderSource(tmp_path, "val2017")) == ["a", "b"]


def test_lists_of_splits_that_are_not_read_are_named(tmp_path, caplog):
    add(tmp_path, "")
    for name in ("train.txt", "val.txt", "readme.txt"):
        (tmp_path / name).write_text("a")
    assert "holds train.txt, val.txt, which are not read" in FolderSource(tmp_path, "train").remarks[0]
    assert "train.txt" in caplog.text
    add(add(tmp_path / "split", "train"), "val")
    (tmp_path / "split" / "train.txt").write_text("a")
    assert FolderSource(tmp_path / "split", "train").remarks == ()


def test_one_folder_named_train_is_divided_as_before(tmp_path):
    add(tmp_path, "train", "abcdefgh")
    parts = [names(FolderSource(tmp_path, split, val_fraction=0.3)) for split in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == [f"train/{n}" for n in "abcdefgh"] and all(parts)
    add(add(tmp_path, "boat", "z"), "training")
    assert len(FolderSource(tmp_path, "train", val_fraction=0.0)) == 11
    add(tmp_path, "test")
    with pytest.raises(DataError, match="also holds the folder boat"):
        FolderSource(tmp_path, "train")


def test_a_missing_split_says_what_to_do(tmp_path):
    add(add(tmp_path / "in", "test1"), "test2")
    with pytest.raises(DataError, match=r"data\.train_split; if they are no splits, give the folders test1, test2 in"):
        FolderSource(tmp_path / "in", "train")
    add(add(tmp_path / "out", "train", inside=False), "more", inside=False)
    with pytest.raises(DataError, match=r"no folder 'val'\. Sort .* into a folder of that name.*data\.val_split\.$"):
        FolderSource(tmp_path / "out", "val")
    shutil.rmtree(tmp_path / "in" / "masks")
    with pytest.raises(DataError, match=r"/in has no folder 'masks'"):
        FolderSource(tmp_path / "in", "test1")
    os.symlink("/unmounted", tmp_path / "in" / "masks")
    with pytest.raises(DataError, match=r"/in/masks is a link to /unmounted, which does not exist"):
        FolderSource(tmp_path / "in", "test1")


def test_sub_folders_inside_a_split_are_part_of_the_name(tmp_path):
    for split in ("train/x", "train/y", "val/x"):
        add(tmp_path, split)
    assert names(FolderSource(tmp_path, "train")) == ["x/a", "x/b", "y/a", "y/b"]
    assert names(FolderSource(tmp_path, "val")) == ["x/a", "x/b"]


@pytest.mark.parametrize("stray", ["images/more", "masks/more", "images/c.png", "masks/c.png"])
def test_splits_inside_images_beside_something_else_are_refused(tmp_path, stray):
    add(add(tmp_path, "train"), "val")
    (tmp_path / "images" / ".hidden").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("")
    FolderSource(tmp_path, "train")
    if stray.endswith("png"):
        shutil.copy(tmp_path / "images/train/a.png", tmp_path / stray)
    else:
        (tmp_path / stray).mkdir()
    message = (
        f"named as splits \\(train, val\\) inside .*also holds .*{stray.split('/')[1]}.*give train, val other names"
    )
    with pytest.raises(DataError, match=message):
        FolderSource(tmp_path, "train")


def test_unlabelled_images_beside_splits_inside_images_get_their_place(tmp_path):
    for split in ("train", "val"):
        add(tmp_path, split)
    add(tmp_path, "more", masks=False)
    place = f"move them out of images/, to {tmp_path / 'more'}; data.unlabelled=more then"
    with pytest.raises(DataError, match=re.escape(place)):
        FolderSource(tmp_path, "train")
    shutil.move(tmp_path / "images/more", tmp_path / "more")
    assert len(FolderSource(tmp_path, "train", unlabelled=True, unlabelled_dir="more")) == 4


@pytest.mark.parametrize("part", ["images", "masks"])
def test_splits_inside_images_or_masks_alone_are_refused(tmp_path, part):
    add(add(tmp_path, "train"), "val")
    for split in ("train", "val"):
        for file in (tmp_path / part / split).iterdir():
            file.rename(tmp_path / part / f"{split}-{file.name}")
        (tmp_path / part / split).rmdir()
    with pytest.raises(DataError, match=f"{part} also holds train-a.png"):
        FolderSource(tmp_path, "train")
    shutil.rmtree(tmp_path / part)
    (tmp_path / part).mkdir()
    with pytest.raises(DataError, match=f"{part} has no such folder"):
        FolderSource(tmp_path, "train")


@pytest.mark.parametrize("split", ["train", "Valid", "test"])
def test_two_layouts_at_once_are_refused(tmp_path, split):
    add(tmp_path, "")
    add(tmp_path, "old", inside=False)  # no split: an earlier copy, say
    FolderSource(tmp_path, "train")
    add(tmp_path, split, inside=False)
    with pytest.raises(DataError, match=f"holds images or masks of its own and in {split} too.*move {split} away"):
        FolderSource(tmp_path, "train")


@pytest.mark.parametrize("inside", [True, False])
def test_a_test_split_without_masks_stops_only_its_own_use(tmp_path, inside):
    add(add(tmp_path, "train", inside=inside), "val", inside=inside)
    add(tmp_path, "test", masks=False, inside=inside)
    for split in ("train", "val"):
        assert len(FolderSource(tmp_path, split)) == 2
    missing = "masks has no folder 'test'" if inside else "test has no folder 'masks'"
    with pytest.raises(DataError, match=missing):
        FolderSource(tmp_path, "test")
    (tmp_path / ("masks/test" if inside else "test/masks")).mkdir()
    assert len(FolderSource(tmp_path, "train")) == 2
    with pytest.raises(DataError, match=r"a\.png has no mask"):
        FolderSource(tmp_path, "test")


def folder_config(root, **values):
    config = default_config()
    update(config, data__source="folder", data__dir=str(root), **values)
    return config


def test_the_last_message_of_a_training_names_the_test_split_inside_images(tmp_path):
    for split in ("train", "val", "test"):
        add(tmp_path, split)
    assert "--split test" in closing_message(folder_config(tmp_path), tmp_path / "run")
    shutil.rmtree(tmp_path / "masks" / "test")
    assert "--split val" in closing_message(folder_config(tmp_path), tmp_path / "run")


def test_a_run_from_before_keeps_its_images(tmp_path):
    """A run of form 2 on splits inside images/, and one on a single set, read what they were trained on."""
    data = add(add(tmp_path / "inner", "train", "abcdefgh"), "val", "ij")
    whole = add(tmp_path / "whole", "", "abcdefghijklmnopqrst")
    for root, former in ((data, 9), (whole, 18)):
        config = folder_config(root)
        stored = to_dict(config) | {"format": 2}
        del stored["data"]["division"]
        workdir = tmp_path / "run"
        (workdir / "checkpoints" / "10").mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(stored))
        assert len(make_source(read_config(workdir), "train")) == former
        resumed = with_stored_division(config, workdir)
        assert len(load_problem(resumed).train) == former and config.data.division == "stable"
        update(config, data__division="former")
        assert with_stored_division(config, workdir) is config
    assert with_stored_division(folder_config(whole), tmp_path / "new").data.division == "stable"
    (workdir / "config.json").write_text(json.dumps(to_dict(folder_config(whole))))
    assert with_stored_division(folder_config(whole), workdir).data.division == "stable"
    assert from_dict(json.loads((workdir / "config.json").read_text())).data.division == "stable"


def test_linked_sub_folders_are_read_once(tmp_path):
    other = add(tmp_path / "other", "", "xyz")
    root = add(tmp_path / "root", "", "ab")
    for part in ("images", "masks"):
        os.symlink(other / part, root / part / "more")
        os.symlink(root / part, root / part / "circle")
        os.symlink(root, root / part / "more" / "up")

    def everything(**options):
        return FolderSource(root, "train", val_fraction=0.0, **options)

    assert names(everything()) == ["a", "b", "more/x", "more/y", "more/z"]
    assert names(everything(division="former")) == ["a", "b"]


def test_images_that_a_link_gives_twice_are_read_once(tmp_path):
    """Else one of the two names could be held out, and the same image trained on under the other."""
    root = add(tmp_path, "2024")
    for part in ("images", "masks"):
        os.symlink(root / part / "2024", root / part / "1-latest")
    source = FolderSource(root, "train", val_fraction=0.0)
    assert names(source) == ["2024/a", "2024/b"] and source.problems == ()
    (root / "masks" / "1-latest").unlink()  # the same images with other masks are other examples
    shutil.copytree(root / "masks" / "2024", root / "masks" / "1-latest")
    assert len(FolderSource(root, "train", val_fraction=0.0)) == 4


def test_former_reads_hidden_folders_as_before(tmp_path):
    root = add(add(tmp_path, "", "ab"), ".more", "cd")
    assert names(FolderSource(root, "train", val_fraction=0.0)) == ["a", "b"]
    former = FolderSource(root, "train", val_fraction=0.0, division="former")
    assert names(former) == [".more/c", ".more/d", "a", "b"]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders in this list cannot be read, as by chmod 000, which has no effect on the root of a container."""
    folders: list[Path] = []

    def refusing(function: Callable[..., Any], inside: bool) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            place = Path(os.fspath(path)) if not isinstance(path, int) else Path()
            if any(folder in ((*place.parents,) if inside else (place, *place.parents)) for folder in folders):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr(os, "scandir", refusing(os.scandir, False))
    monkeypatch.setattr(os, "stat", refusing(os.stat, True))
    return folders


@pytest.mark.parametrize("name", ["notes", "images", "masks", "images/a", "masks/a", "."])
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, locked: list[Path], name: str) -> None:
    for part in ("images", "masks"):
        for file in ("1.png", "2.png", "a/3.png"):
            (tmp_path / part / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / part / file)
    (tmp_path / "notes").mkdir()
    locked.append(tmp_path / name)
    with pytest.raises(
        DataError, match=rf"The folder {re.escape(str(tmp_path / name))} cannot be read: Permission .*chmod"
    ):
        FolderSource(tmp_path, "train")


def test_a_folder_of_the_system_that_cannot_be_read_is_left_out(tmp_path: Path, locked: list[Path]) -> None:
    for part in ("images", "masks", "lost+found"):
        (tmp_path / part).mkdir()
        for file in ("1.png", "2.png"):
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / part / file)
    locked.append(tmp_path / "lost+found")
    assert len(FolderSource(tmp_path, "train", val_fraction=0.0)) == 2
