"""Folders of images and masks: layouts, classes, every kind of file, and every kind of mistake."""

import hashlib
import json
import pickle
import re
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, differences, from_dict, to_dict, update, with_values
from jaxseg.data import FolderSource, make_source, notes
from jaxseg.data.folders import differences_of_runs, held_out_groups, is_divided
from jaxseg.data.folds import parse_group
from jaxseg.data.images import from_array, read_header, read_image, read_mask, to_channels
from jaxseg.data.pairs import Pair, hold_out
from jaxseg.data.survey import survey
from jaxseg.errors import ConfigError, DataError
from jaxseg.run.data import with_stored_division
from jaxseg.run.load import override_free
from jaxseg.run.workdir import write_config
from jaxseg.sweep.records import own_scores_file, read_scores
from jaxseg.types import IGNORE


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def mask_of(*values, size=(4, 6)):
    """Returns u8[h,w] with the values in turn."""
    return np.resize(np.array(values, np.uint8), size)


def make_folder(root, names=("a", "b", "c"), values=(0, 1, 2), size=(4, 6)):
    rng = np.random.default_rng(0)
    for name in names:
        write(root / "images" / f"{name}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        write(root / "masks" / f"{name}.png", mask_of(*values, size=size))
    return root


def everything(root, **options):
    """Returns a source of all images of a folder without split folders."""
    return FolderSource(root, "train", val_fraction=0.0, **options)


# Layouts and splits


def test_one_set_is_divided_by_name_and_nothing_is_lost(tmp_path):
    names = [f"{i:03d}" for i in range(40)]
    make_folder(tmp_path, names)
    for division in ("former", "stable"):
        train, val = (FolderSource(tmp_path, s, val_fraction=0.25, division=division) for s in ("train", "val"))
        assert sorted([p.name for p in train.pairs] + [p.name for p in val.pairs]) == names
        assert len(val) == 10 if division == "former" else 4 <= len(val) <= 16
    with pytest.raises(DataError, match=r"for a split 'trian' sort them .* Did you mean 'train'\?"):
        FolderSource(tmp_path, "trian")
    with pytest.raises(DataError, match="divided into train and val; for a split 'test' sort them into folders"):
        FolderSource(tmp_path, "test")
    assert [p.name for p in val.pairs] != names[:10]


def test_groups_stay_on_one_side(tmp_path):
    """20 patients of 1 to 3 slices; the hash is that of the patient, so that more slices move nobody."""
    slices = [f"p{i:02d}_{j}" for i in range(20) for j in range(1 + i % 3)]
    make_folder(tmp_path, slices)
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__group=r"^(p\d+)_", data__val_fraction=0.25)

    def sides(**values: Any) -> tuple[list[str], list[str]]:
        chosen = with_values(config, {key.replace("__", "."): value for key, value in values.items()})
        sources = [make_source(chosen, split) for split in ("train", "val")]
        return tuple([source.name(i) for i in range(len(source))] for source in sources)

    with notes.collected() as said:
        train, val = sides()
    patients = {name[:3] for name in val}
    wanted = {
        f"p{i:02d}"
        for i in range(20)
        if int.from_bytes(hashlib.blake2b(b"p%02d" % i, digest_size=8).digest(), "big") < 2**64 / 4
    }
    assert patients == wanted and not patients & {name[:3] for name in train} and sorted(train + val) == slices
    assert set(said) == {
        f"data.val_fraction=0.25 holds out {len(wanted)} of 20 groups of data.group, with {len(val)} of "
        f"{len(slices)} images."
    }
    by_name = [p.name for p in FolderSource(tmp_path, "val", val_fraction=0.25).pairs]
    assert sides(data__val_group="names")[1] == by_name != val  # as runs from before the key
    assert sides(data__group="", data__val_group=r"^(p\d+)_")[1] == val
    assert sides(data__division="former")[1] == sides(data__division="former", data__group="")[1]
    with pytest.raises(DataError, match=r"data\.group='_' gives all 39 images the group '_', and data\.val_fraction"):
        sides(data__group="_")
    with pytest.raises(DataError, match=r"data\.val_group='q' matches no group in the name of the image"):
        sides(data__val_group="q")
    bits = {"data__multilabel": "bits", "data__classes": ("a", "b"), "loss__terms": "dice"}
    assert sides(**bits) == (train, val)


def test_a_trained_run_holds_out_the_images_that_it_did_whatever_its_group_becomes(tmp_path):
    config = default_config()
    update(config, data__source="folder", data__group="^(p)")
    stored = from_dict(json.loads(json.dumps(to_dict(config))) | {"format": 3})
    assert stored.data.val_group == "names" and "data.val_group: names -> ^(p)" in differences(stored, config)
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "10").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps({**to_dict(config), "format": 3}))
    kept = with_stored_division(config, workdir)
    assert kept.data.val_group == "names" and differences(stored, kept) == []
    for before, given, after in (("^(p)", "q", "^(p)"), ("", "q", "names"), ("^(p)", "", "^(p)"), ("", "", "group")):
        run = with_values(config, {"data.group": before})
        override_free(run, {"data.group": given} if (before, given) != ("", "") else {})
        assert (run.data.val_group, run.data.group) == (after, given)
    shapes = default_config()
    assert differences(shapes, with_values(shapes, {"data.group": "p"})) == []  # nothing is held out of them
    for word in ("names", "group"):  # as patterns they are no "every image by itself", and not the key
        run = with_values(config, {"data.group": word})
        override_free(run, {"data.group": ""})
        held_out = held_out_groups(run)
        assert held_out is not None and held_out.of(f"p {word}") == word


def test_another_group_is_another_run_only_where_a_folder_is_divided(tmp_path):
    whole, divided = make_folder(tmp_path / "whole", "ab"), tmp_path / "divided"
    for split in ("train", "val"):
        make_folder(divided / split, "ab")
    for folder, wanted in ((whole, True), (divided, False)):
        config = default_config()
        update(config, data__source="folder", data__dir=str(folder), data__group="^(a)")
        workdir = tmp_path / "runs" / folder.name
        write_config(workdir, config)
        (workdir / "checkpoints" / "10").mkdir(parents=True)
        other = with_values(config, {"data.group": "q"})
        assert is_divided(config) == wanted
        assert differences_of_runs(config, other) == (["data.group: ^(a) -> q"] if wanted else [])
        # Nor are the scores of a run in a sweep those of another run then.
        scores = {"split": "val", "which": "last", "step": config.steps, "config": to_dict(other), "mean_iou": 0.5}
        own_scores_file(workdir, "val").write_text(json.dumps(scores))
        assert (read_scores(workdir, "val") is None) == wanted
        if not wanted:
            write_config(workdir, other)
            continue
        with pytest.raises(ConfigError, match=r"The keys that differ: data\.group: \^\(a\) -> q\."):
            write_config(workdir, other)
    gone = with_values(config, {"data.dir": str(tmp_path / "gone")})
    assert is_divided(gone) and not is_divided(default_config())


def test_groups_that_hold_nothing_out_of_split_folders_are_noted(tmp_path):
    for split in ("train", "val"):
        make_folder(tmp_path / split, "ab")
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__group="^(a)")
    for group, count in (("group", 0), ("q", 1)):
        with notes.collected() as said:
            make_source(with_values(config, {"data.val_group": group}), "train")
        assert len(said) == count
    assert said == [
        "data.val_group=q has no effect: nothing is held out of a folder with the split folders train, val."
    ]


def test_withheld_groups_hold_out_nothing_until_they_are_given(tmp_path):
    config = default_config()
    update(config, data__source="folder", data__dir=str(make_folder(tmp_path, ["a1", "a2", "b1"])))
    update(config, data__val_group="withheld", data__val_fraction=0.4)
    with pytest.raises(DataError, match=r"does not say by which groups .* Give --config\.data\.val_group="):
        make_source(config, "val")
    override_free(config, {"data.val_group": "^(.)", "data.group": "q"})
    sources = [make_source(config, split) for split in ("train", "val")]
    sides = [{source.name(i)[0] for i in range(len(source))} for source in sources]
    assert sorted(map(sorted, sides)) == [["a"], ["b"]] and config.data.val_group == "^(.)"
    with pytest.raises(ConfigError, match="belongs to the trained run"):
        override_free(config, {"data.val_group": "names"})


def test_the_division_does_not_depend_on_where_the_folder_is(tmp_path):
    pairs = [FolderSource(make_folder(tmp_path / d, "abcdefgh"), "val", val_fraction=0.3).pairs for d in ("x", "y")]
    assert [p.name for p in pairs[0]] == [p.name for p in pairs[1]]


def test_a_small_set_has_at_least_one_image_on_each_side(tmp_path):
    make_folder(tmp_path, "ab")
    assert [len(FolderSource(tmp_path, s, val_fraction=f)) for f in (0.01, 0.99) for s in ("train", "val")] == [1] * 4


def test_images_that_are_added_move_none(tmp_path, monkeypatch):
    """The held-out names are those whose hash is below the share, here of 200, of 100 and of 50 names."""
    monkeypatch.setattr("os.fsencode", lambda name: name.encode("latin-1"))  # the locale has no effect

    def digest(name):
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64

    pairs = [Pair(f"\u00e9{i:03d}", tmp_path, tmp_path) for i in range(200)]
    for count in (200, 100, 50):
        val = [p.name for p in hold_out(pairs[:count], "val", 0.1)]
        assert val == [p.name for p in pairs[:count] if digest(p.name) < 0.1] and val
        assert len(hold_out(pairs[:count], "train", 0.1)) == count - len(val)
        former = [p.name for p in hold_out(pairs[:count], "val", 0.1, former=True)]
        assert sorted(former) == sorted(sorted((p.name for p in pairs[:count]), key=digest)[: count // 10])
    broken = [Pair("\udce9", tmp_path, tmp_path)]  # a byte of a file's name outside UTF-8
    assert hold_out(broken, "train", 0.0) == broken


def test_nothing_is_held_out_of_one_group_without_a_fraction(tmp_path):
    pairs = [Pair(f"one{i}", tmp_path, tmp_path) for i in range(3)]
    assert hold_out(pairs, "train", 0.0, groups=parse_group("one")) == pairs
    with pytest.raises(DataError, match="all 3 images the group 'one'"):
        hold_out(pairs, "train", 0.1, groups=parse_group("one"))


def test_split_folders_have_one_set_of_classes(tmp_path):
    make_folder(tmp_path / "train", "abc", values=(0, 1))
    make_folder(tmp_path / "val", "d", values=(0, 1, 2))
    train, val = FolderSource(tmp_path, "train"), FolderSource(tmp_path, "val")
    assert (len(train), len(val)) == (3, 1)
    assert train.info == val.info and len(train.info.classes) == 3


def test_sub_folders_suffixes_and_hidden_files(tmp_path):
    make_folder(tmp_path, ("x/a", "y/a"))
    write(tmp_path / "images" / "b.JPG", np.zeros((4, 6, 3), np.uint8))
    write(tmp_path / "masks" / "b.tif", mask_of(0, 1))
    (tmp_path / "images" / "._b.png").write_text("not an image")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    source = everything(tmp_path)
    assert [source.name(i) for i in range(3)] == ["b", "x/a", "y/a"]
    assert source[1]["label"].shape == (4, 6)


def test_examples_are_repeatable_and_the_source_pickles(tmp_path):
    source = everything(make_folder(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    for i in range(3):
        np.testing.assert_array_equal(source[i]["image"], again[i]["image"])
        np.testing.assert_array_equal(source[i]["label"], mask_of(0, 1, 2))
    with pytest.raises(IndexError, match="index 3 is outside the 3 images"):
        source[3]


# Classes


def test_classes_are_found_in_the_masks(tmp_path):
    source = everything(make_folder(tmp_path, values=(0, 1, 3, 255)))
    assert source.info.classes == ("class 0", "class 1", "class 2", "class 3")
    np.testing.assert_array_equal(np.unique(source[0]["label"]), [0, 1, 3, IGNORE])


def test_class_names_of_the_configuration(tmp_path):
    source = everything(make_folder(tmp_path), classes=("sky", "road", "car", "dog"))
    assert source.info.classes == ("sky", "road", "car", "dog")


def test_classes_file_gives_names_values_colours_and_ignored(tmp_path):
    make_folder(tmp_path, values=(10, 20, 7))
    entries = [{"index": 20, "name": "road", "colour": [1, 2, 3]}, {"index": 10, "name": "sky", "color": [4, 5, 6]}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries, "ignore_index": 7}))
    source = everything(tmp_path)
    assert source.info.classes == ("road", "sky")
    assert source.info.colors == ((1, 2, 3), (4, 5, 6))
    assert source.info.ignore == 7
    np.testing.assert_array_equal(source[0]["label"], mask_of(1, 0, IGNORE))


def test_ignored_zero_moves_the_other_classes_down(tmp_path):
    source = everything(make_folder(tmp_path, values=(0, 1, 2)), ignore=0)
    assert source.info.classes == ("class 1", "class 2")
    np.testing.assert_array_equal(source[0]["label"], mask_of(IGNORE, 0, 1))


def test_masks_of_0_and_255_have_two_classes(tmp_path, caplog):
    notes.log_once.cache_clear()
    source = everything(make_folder(tmp_path, values=(0, 255)))
    assert source.info.classes == ("background", "foreground")
    np.testing.assert_array_equal(source[0]["label"], mask_of(0, 1))
    everything(tmp_path)
    assert caplog.text.count("taken as background and foreground") == 1
    named = everything(tmp_path, classes=("skin", "mole"))
    np.testing.assert_array_equal(named[0]["label"], mask_of(0, 1))
    (tmp_path / "classes.json").write_text('{"classes": ["skin", "mole"]}')
    np.testing.assert_array_equal(everything(tmp_path)[0]["label"], mask_of(0, 1))


def test_masks_of_0_1_and_255_ignore_255(tmp_path):
    np.testing.assert_array_equal(everything(make_folder(tmp_path, values=(0, 1, 255)))[0]["label"], mask_of(0, 1, 255))


def test_palette_of_the_configuration_decodes_colour_masks(tmp_path):
    palette = ((0, 0, 0), (128, 0, 0), (0, 128, 255))
    make_folder(tmp_path)
    for name in "abc":
        write(tmp_path / "masks" / f"{name}.png", np.array(palette, np.uint8)[mask_of(0, 1, 2)])
    source = everything(tmp_path, palette=palette, classes=("sky", "road", "car"))
    np.testing.assert_array_equal(source[0]["label"], mask_of(0, 1, 2))
    assert source.info.colors == palette
    void = everything(tmp_path, palette=palette, ignore=0)
    np.testing.assert_array_equal(void[0]["label"], mask_of(IGNORE, 0, 1))
    assert void.info.colors == palette[1:]


@pytest.mark.parametrize("mode", ["P", "1", "I;16", "LA"])
def test_masks_of_other_modes(tmp_path, mode):
    values = mask_of(0, 1) if mode == "1" else mask_of(0, 1, 2)
    if mode == "P":
        mask = Image.fromarray(values).convert("P")
        mask.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    elif mode == "LA":
        mask = Image.fromarray(np.stack([values, np.full_like(values, 255)], -1))
    else:
        mask = Image.fromarray(values.astype(bool) if mode == "1" else values.astype(np.uint16))
    mask.save(tmp_path / "m.png")
    assert read_header(tmp_path / "m.png").mode == mode
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values)


# Images of every kind


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stored", [1, 2, 3, 4])
def test_channels_are_converted(tmp_path, stored, channels):
    array = np.random.default_rng(0).integers(0, 256, (5, 7, stored), np.uint8)
    path = write(tmp_path / "i.png", array[..., 0] if stored == 1 else array)
    image = read_image(path, channels)
    assert image.shape == (5, 7, channels) and image.dtype == np.uint8
    color = array[..., :3] if stored > 2 else np.repeat(array[..., :1], 3, -1)
    if channels == 1:
        luma = color.astype(float) @ [0.299, 0.587, 0.114]
        assert np.abs(image[..., 0] - luma).max() <= 0.51
    else:
        np.testing.assert_array_equal(image[..., :3], color)
    if channels == 4:
        np.testing.assert_array_equal(image[..., 3], array[..., -1] if stored in (2, 4) else 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_grey_keeps_its_bits(tmp_path, suffix, channels):
    array = np.array([[0, 1000], [40000, 65535]], np.uint16)
    image = read_image(write(tmp_path / f"i.{suffix}", array), channels)
    assert image.dtype == np.uint16 and image.shape == (2, 2, channels)
    np.testing.assert_array_equal(image[..., 0], array)
    if channels == 4:
        assert (image[..., 3] == 65535).all()


def test_palette_and_one_bit_images(tmp_path):
    palette = Image.fromarray(mask_of(0, 1)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png")[0, 1], [40, 50, 60])
    Image.fromarray(mask_of(0, 1).astype(bool)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", 1)[..., 0], 255 * mask_of(0, 1))


def test_numbers_that_are_no_intensities(tmp_path):
    write(tmp_path / "f.tif", np.array([[0.5, -3.0]], np.float32))
    with pytest.raises(DataError, match=r"f\.tif holds numbers from -3\.0 to 0\.5 .*8 or 16 bits"):
        read_image(tmp_path / "f.tif")
    with pytest.raises(DataError, match="whole numbers"):
        read_mask(tmp_path / "f.tif")
    path = write(tmp_path / "i.tif", np.array([[7, 65535]], np.int32))
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], [[7, 65535]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_orientation(tmp_path, orientation, suffix):
    """The upright image is asymmetric, so each of the eight orientations shows."""
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8] = 250
    stored[8:, :8] = 120
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: a.T[:, ::-1],
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: a.T[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"i.{suffix}", stored, exif=exif)
    upright = turns[orientation](stored)
    assert read_header(path)[:2] == upright.shape
    np.testing.assert_allclose(read_image(path, 1)[..., 0].astype(int), upright, atol=8)
    np.testing.assert_allclose(read_mask(path).astype(int), upright, atol=8)


def test_a_rotated_photo_with_an_upright_mask(tmp_path):
    make_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "images" / "r.jpg", np.zeros((8, 12, 3), np.uint8), exif=exif)
    write(tmp_path / "masks" / "r.png", mask_of(0, 1, 2, size=(12, 8)))
    source = everything(tmp_path)
    assert source[3]["image"].shape == (12, 8, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (33, 47)])
def test_one_pixel_and_odd_sizes(tmp_path, size):
    source = everything(make_folder(tmp_path, size=size, values=(0, 1)), classes=("a", "b"))
    assert source[0]["image"].shape == (*size, 3) and source[0]["label"].shape == size


def test_to_channels_of_two_and_four():
    image = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(to_channels(image, 3), image[..., :3])
    np.testing.assert_array_equal(to_channels(image[..., :2], 4), image[..., [0, 0, 0, 1]])


# Mistakes


def test_missing_directory_names_its_neighbour(tmp_path):
    (tmp_path / "my_data").mkdir()
    with pytest.raises(DataError, match=r"data\.dir='.*my_dat' does not exist\. Did you mean 'my_data'"):
        FolderSource(tmp_path / "my_dat", "train")
    with pytest.raises(DataError, match=r"data\.dir is empty; give the folder with --config\.data\.dir"):
        FolderSource("", "train")
    with pytest.raises(DataError, match=r"data\.dir='.*/unlike' does not exist\.$"):
        FolderSource(tmp_path / "unlike", "train")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        FolderSource(tmp_path / "file", "train")


def test_empty_directory_and_directory_of_something_else(tmp_path):
    with pytest.raises(DataError, match="is empty; expected DIR/images and DIR/masks"):
        FolderSource(tmp_path, "train")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="holds pictures; expected DIR/images and DIR/masks"):
        FolderSource(tmp_path, "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no folder 'masks'"):
        FolderSource(tmp_path, "train")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"has no images: no \.png, \.jpg"):
        FolderSource(tmp_path, "train")


def test_missing_split_folder(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "valid")
    with pytest.raises(DataError, match=r"has the splits train, valid, but no folder 'val'\. Did you mean 'valid'"):
        FolderSource(tmp_path, "val")
    assert len(FolderSource(tmp_path, "valid")) == 3
    with pytest.raises(DataError, match="divided into train and val; for a split 'valid'"):
        FolderSource(tmp_path / "train", "valid")


@pytest.mark.parametrize("fraction, split", [(0.0, "val"), (1.0, "train")])
def test_zero_length_split(tmp_path, fraction, split):
    with pytest.raises(DataError, match=f"split '{split}' of .* has no images.*3 in all.*val_fraction={fraction}"):
        FolderSource(make_folder(tmp_path), split, val_fraction=fraction)


def test_zero_length_split_folder(tmp_path):
    make_folder(tmp_path / "train")
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "masks").mkdir()
    with pytest.raises(DataError, match="val has no images"):
        FolderSource(tmp_path, "val")


@pytest.mark.parametrize("ending", ["_mask", ".jpg", "-seg"])
def test_masks_of_another_name_are_named(tmp_path, ending):
    make_folder(tmp_path)
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / f"b{ending}.png")
    told = rf"b\.png has no mask .*masks/b{ending}\.png is there, but an image and its mask must have the same name"
    problems = everything(tmp_path, strict=False).problems
    assert any(re.search(told, p) for p in problems)
    assert any(f"b{ending}.png has no image" in p and "images/b.png is there, but an image" in p for p in problems)
    shutil.copy(tmp_path / "images" / "b.png", tmp_path / "images" / f"b{ending}.png")  # the mask has its image now
    assert not any("masks/b.*" in p and "is there" in p for p in everything(tmp_path, strict=False).problems)


def test_image_without_mask_and_mask_without_image(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"The image .*b\.png has no mask .*masks/b\.\*\.$"):
        everything(tmp_path)
    (tmp_path / "images" / "c.png").unlink()
    with pytest.raises(DataError, match=r"b\.png has no mask.* \(1 more such; jaxseg check lists them"):
        everything(tmp_path)
    tolerant = everything(tmp_path, strict=False)
    assert len(tolerant) == 1
    assert any("The mask" in p and "c.png has no image" in p for p in tolerant.problems)
    (tmp_path / "images" / "b.png").write_text("no image")
    with pytest.raises(DataError, match=r"b\.png has no mask .*, and .*b\.png cannot be read as an image: .* type\."):
        everything(tmp_path)


def test_two_files_of_one_name(tmp_path):
    make_folder(tmp_path)
    write(tmp_path / "images" / "a.jpg", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name up to the suffix"):
        everything(tmp_path)


def test_mask_of_another_size(tmp_path):
    make_folder(tmp_path)
    write(tmp_path / "masks" / "b.png", mask_of(0, 1, 2, size=(6, 4)))
    with pytest.raises(DataError, match=r"masks/b\.png is 6 x 4 \(height x width\), but its image .*b\.png is 4 x 6"):
        everything(tmp_path)
    with pytest.raises(DataError, match="is 6 x 4"):
        everything(tmp_path, strict=False)[1]


def test_colour_mask_offers_the_palette(tmp_path):
    make_folder(tmp_path)
    write(tmp_path / "masks" / "b.png", np.array([(0, 0, 0), (128, 0, 64)], np.uint8)[mask_of(0, 1)])
    with pytest.raises(DataError, match=r"b\.png holds colours.*--config\.data\.palette"):
        everything(tmp_path)


def test_colours_of_classes_json_decode_masks_of_colour(tmp_path):
    """In the order of classes.json, whatever the numbers of the colours; palette files stay indices."""
    make_folder(tmp_path)
    entries = [("ground", (0, 0, 0)), ("disc", (200, 30, 30)), ("box", (30, 30, 200))]
    listed = [{"index": i, "name": n, "colour": list(c)} for i, (n, c) in enumerate(entries)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": listed}))
    mask = mask_of(0, 1, 2)
    write(tmp_path / "masks" / "b.png", np.array([c for _, c in entries], np.uint8)[mask])
    for split in ("train", "val"):
        source = FolderSource(tmp_path, split)
        for i in range(len(source)):
            if source.name(i).startswith("b"):
                np.testing.assert_array_equal(source[i]["label"], mask)
    with pytest.raises(DataError, match=r"gives the index 1 the colour \(30, 30, 200\), but .* 'disc'"):
        FolderSource(tmp_path, "train", palette=((0, 0, 0), (30, 30, 200), (200, 30, 30)))
    # Without colours there, the classes have those of data.palette, which the masks hold.
    names = [{"index": i, "name": n} for i, n in ((2, "box"), (0, "ground"), (1, "disc"))]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names}))
    colors = ((0, 0, 0), (200, 30, 30), (30, 30, 200))
    assert everything(tmp_path, palette=colors).info.colors == (colors[2], colors[0], colors[1])


def test_a_palette_file_keeps_its_indices_beside_classes_json(tmp_path):
    make_folder(tmp_path)
    listed = [{"index": i, "name": str(i), "colour": [i, 0, 9]} for i in range(3)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": listed}))
    image = Image.fromarray(mask_of(0, 1, 2), "P")
    image.putpalette([7, 7, 7, 8, 8, 8, 9, 9, 9])
    image.save(tmp_path / "masks" / "b.png")
    for split in ("train", "val"):
        source = FolderSource(tmp_path, split)
        for i in range(len(source)):
            if source.name(i).startswith("b"):
                np.testing.assert_array_equal(source[i]["label"], mask_of(0, 1, 2))


def test_no_mask_with_the_name_of_its_image_is_told_as_such(tmp_path):
    make_folder(tmp_path)
    for path in list((tmp_path / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask{path.suffix}"))
    with pytest.raises(DataError, match="have a mask of another name"):
        FolderSource(tmp_path, "train", strict=False)


def test_colour_that_the_palette_lacks(tmp_path):
    make_folder(tmp_path)
    for name in "abc":
        write(tmp_path / "masks" / f"{name}.png", np.array([(0, 0, 0), (128, 0, 64)], np.uint8)[mask_of(0, 1)])
    palette = ((0, 0, 0), (1, 1, 1))
    with pytest.raises(
        DataError, match=r"holds colours that data\.palette lacks: \(\(128,0,64\),\), .* a class is missing"
    ):
        everything(tmp_path, palette=palette)
    with pytest.raises(DataError, match=r"holds colours that data\.palette lacks: \(\(128,0,64\),\)"):
        everything(tmp_path, palette=palette, strict=False)[0]


@pytest.mark.parametrize(
    "palette, message",
    [
        (((0, 0, 0), (0, 0, 0)), "same colour twice"),
        (((0, 0, 0), (0, 0, 256)), r"data\.palette has \(0, 0, 256\)"),
        (((0, 0, 0), 7), r"data\.palette has 7"),
    ],
)
def test_wrong_palette(tmp_path, palette, message):
    with pytest.raises(DataError, match=message):
        everything(make_folder(tmp_path), palette=palette)


def test_labels_outside_the_classes(tmp_path):
    make_folder(tmp_path)
    write(tmp_path / "masks" / "b.png", mask_of(0, 9, 4))
    with pytest.raises(DataError, match=r"names 3 classes \(values 0 to 2\), but .*b\.png holds 4, 9"):
        everything(tmp_path, classes=("x", "y", "z"))
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "z"]}')
    strange = r"b\.png holds the values 4, 9, which no class has \(values of 3 classes: 0 to 2; ignored: 255"
    with pytest.raises(DataError, match=strange):
        everything(tmp_path)
    source = everything(tmp_path, strict=False)
    source[0]
    with pytest.raises(DataError, match=strange):
        source[1]


def test_classes_that_disagree_with_the_data(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "z"]}')
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__classes=("x", "y"), data__val_fraction=0.0)
    with pytest.raises(DataError, match=r"data\.classes names 2 classes \(x, y\).*has 3 \(x, y, z\)"):
        make_source(config, "train")
    update(config, data__classes=())
    assert make_source(config, "train").info.classes == ("x", "y", "z")
    with pytest.raises(DataError, match=r"names 2 classes \(x, y\), but data\.palette have 3"):
        everything(make_folder(tmp_path / "other"), classes=("x", "y"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def test_masks_that_hold_no_indices(tmp_path):
    with pytest.raises(DataError, match=r"hold the values 0, 85, 170, where class indices.*classes\.json"):
        everything(make_folder(tmp_path, values=(0, 85, 170)))
    with pytest.raises(DataError, match="hold the value 0 alone, so there is nothing to distinguish"):
        everything(make_folder(tmp_path / "zeros", values=(0,)))
    big = make_folder(tmp_path / "big")
    write(big / "masks" / "b.png", np.full((4, 6), 300, np.uint16))
    with pytest.raises(DataError, match=r"b\.png holds the value 300; class indices from 0 to 254"):
        everything(big)


def test_masks_saved_as_jpeg_are_explained(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (16, 16)).astype(np.uint8) * 120
    for name in "ab":
        write(tmp_path / "images" / f"{name}.png", np.zeros((16, 16, 3), np.uint8))
        write(tmp_path / "masks" / f"{name}.jpg", noise)
    with pytest.raises(DataError, match="JPEG changes values: masks must be PNG"):
        everything(tmp_path, classes=("x", "y", "z"))


@pytest.mark.parametrize("part", ["images", "masks"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_truncated_file(tmp_path, part, suffix):
    make_folder(tmp_path, "ab", size=(64, 64))
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "z"]}')
    (tmp_path / part / "b.png").unlink()
    noise = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    path = write(tmp_path / part / f"b.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = "is cut short" if suffix == "tif" else "cannot be read as an image: it is damaged, cut short"
    with pytest.raises(DataError, match=rf"{part}/b\.{suffix} {said}"):
        everything(tmp_path)[1]


def test_file_that_is_no_image(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "images" / "b.png").write_text("hello")
    with pytest.raises(DataError, match=r"images/b\.png cannot be read as an image"):
        everything(tmp_path)
    (tmp_path / "images" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"images/b\.png cannot be read as an image"):
        everything(tmp_path)
    with pytest.raises(DataError, match=r"There is no file .*nothing\.png"):
        read_image(tmp_path / "nothing.png")


def test_a_bad_mask_outside_the_sample_is_named_with_the_remedy_and_by_the_check(tmp_path, monkeypatch):
    make_folder(tmp_path, "abcde")
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "z"]}')
    write(tmp_path / "masks/b.png", np.full((4, 6), 77, np.uint8))
    monkeypatch.setattr("jaxseg.data.folder.sample", lambda masks: masks[:1])
    remedy = r"b\.png holds the values 77, .* Correct the mask, or give .* jaxseg check lists every"
    with pytest.raises(DataError, match=remedy):
        everything(tmp_path)[1]
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__val_fraction=0.0)
    problems = survey(config, "train").problems
    assert len(problems) == 1 and "b.png holds the values 77" in problems[0] and "data.check" not in problems[0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", r"classes\.json is no valid JSON"),
        ('{"names": []}', "has the unknown key 'names'"),
        ("[]", "holds a list of 0 entries, where an object was expected"),
        ("{}", "has no key 'classes'"),
        ('{"classes": [{"index": 0}]}', r"entry 0 of 'classes', has no 'name'"),
        ('{"classes": []}', "has a list of 0 entries as 'classes', where a list with an entry"),
        ('{"classes": {"sky": 2, "road": 0}}', r"has an object \(a map\) as 'classes', where a list"),
        ('{"classes": "sky, road"}', "has 'sky, road' as 'classes', where a list"),
        ('{"classes": [7, {"nam": "a"}], "ignore": 1}', r"key 'ignore'\..*entry 0 .* has 7, .*entry 1 .*key 'nam'\."),
        (
            '{"classes": ["z", {"id": 2, "name": "a"}, {"id": 0, "name": "b"}, {"id": 1, "name": "c"}, {"indx": 1}]}',
            r"json, in entry 1 \(and 2 others\) of 'classes', has the unknown key 'id'\. Did you mean 'index'\? "
            r"\S*json, in entry 4 of 'classes', has the unknown key 'indx'\. Did you mean 'index'\?$",
        ),
        (
            '{"classes": [{"index": "0", "name": "a"}, {"index": "1", "name": "b"}]}',
            r"in entry 0 \(and 1 other\) of 'classes', has the index '0'; a whole number from 0 to 65535 was",
        ),
        ('{"classes": [7]}', "entry 0 of 'classes', has 7, where a name or an object"),
        ('{"classes": [{"id": 2, "name": "sky"}]}', r"has the unknown key 'id'\. Did you mean 'index'"),
        ('{"classes": ["a"], "ignore": 255}', r"has the unknown key 'ignore'\. Did you mean 'ignore_index'"),
        ('{"classes": ["a"], "void": 0}', "has the unknown key 'void'"),
        ('{"classes": [{"name": "a", "rgb": [0, 0, 0]}]}', "has the unknown key 'rgb'"),
        ('{"classes": [{"name": "a", "rgb": "0, 0, 128"}]}', "has the unknown key 'rgb'"),
        ('{"classes": [{"name": "a", "web": "#FF00aa"}]}', "has the unknown key 'web'"),
        ('{"classes": [{"name": "a", "value": "7"}]}', "has the unknown key 'value'"),
        ('{"classes": ["a"], "remap": {"0": "a"}}', "has the unknown key 'remap'"),
        ('{"classes": ["a"], "values": {"a": 0, "b": 7}}', "has the unknown key 'values'"),
        ('{"classes": ["a"], "classes": ["b"]}', "the key 'classes' occurs twice"),
        ('{"classes": [{"name": 7}]}', "has the name 7; a text was expected"),
        ('{"classes": [{"name": " "}]}', "has the name ' '; a text was expected"),
        ('{"classes": ["a", {"name": "a"}]}', "gives the name 'a' to two classes"),
        ('{"classes": [{"index": 1.7, "name": "a"}]}', r"has the index 1\.7; a whole number from 0"),
        ('{"classes": [{"index": "1", "name": "a"}]}', "has the index '1'; a whole number from 0"),
        ('{"classes": [{"index": true, "name": "a"}]}', "has the index True; a whole number from 0"),
        ('{"classes": [{"index": 1, "name": "a"}, {"index": 1, "name": "b"}]}', "gives the index 1 to 'a' and to 'b'"),
        ('{"classes": [{"index": 3, "name": "a"}, "b"]}', "gives some classes an 'index', but not 'b'"),
        ('{"classes": [{"name": "a", "colour": [0, 0, 0], "color": [0, 0, 0]}]}', "both 'colour' and 'color'"),
        ('{"classes": ["a", "b", "c"], "ignore_index": 2}', "ignored index 2 to the class 'c'"),
        ('{"classes": ["a", "b", "c"], "ignore_index": 70000}', "has the ignore_index 70000; a whole number from 0"),
        ('{"classes": ["a", "b", "c"], "ignore_index": -1}', "has the ignore_index -1; a whole number from 0"),
        ('{"classes": [{"name": "a", "colour": [0, 0]}, "b", "c"]}', r"has \[0, 0\], where a colour"),
    ],
)
def test_wrong_classes_file(tmp_path, text, message):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=message):
        everything(tmp_path)


def test_keys_of_classes_file_that_mean_nothing_here_are_named(tmp_path, caplog):
    notes.log_once.cache_clear()
    make_folder(tmp_path)
    content = {
        "source": "mine",
        "classes": [{"name": "a", "share": 0.2}, {"name": "b", "share": 0.8}, "c"],
        "info": {"year": 2017, "by": "me"},
    }
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert everything(tmp_path).info.classes == ("a", "b", "c")
    assert caplog.text.count("classes.json has the key 'share', which is not used") == 1
    assert "has the key 'source', which is not used" in caplog.text
    assert "has the key 'info', which is not used" in caplog.text


@pytest.mark.parametrize(
    "names, noted", [(("2: a", "0: b", "1: c"), 1), (("0 a", "1 b", "2 c"), 0), (("1a", "2b", "c"), 0)]
)
def test_numbers_in_names_that_are_no_indices_are_named(tmp_path, caplog, names, noted):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names}))
    assert everything(tmp_path).info.classes == names
    assert caplog.text.count("start with numbers, such as '2: a', which are not read") == noted


def test_classes_file_of_an_editor_on_windows(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "Ähre"]}', encoding="utf-8-sig")
    assert everything(tmp_path).info.classes == ("x", "y", "Ähre")
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "Ähre"]}', encoding="utf-16")
    with pytest.raises(DataError, match="is not encoded as UTF-8; save it again as UTF-8"):
        everything(tmp_path)


def test_two_ignored_values_disagree(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"], "ignore_index": 2}')
    with pytest.raises(DataError, match=r"data\.classes gives the name 'a' to two classes"):
        everything(tmp_path, classes=("a", "b", "a"))
    with pytest.raises(DataError, match=r"data\.ignore is 3, but .*classes\.json has ignore_index 2"):
        everything(tmp_path, ignore=3)
    assert everything(tmp_path, ignore=2).info.ignore == 2


def test_a_palette_for_masks_of_indices_is_said_to_have_no_effect(tmp_path):
    make_folder(tmp_path)
    palette = ((0, 0, 0), (9, 9, 9), (5, 5, 5))
    with notes.collected() as said:
        everything(tmp_path, palette=palette)
    (sentence,) = [text for text in said if "palette" in text]
    assert sentence.startswith("data.palette has no effect") and "a.png hold indices, not colours" in sentence
    colors = np.array(palette, np.uint8)
    for name in "abc":
        write(tmp_path / "masks" / f"{name}.png", colors[mask_of(0, 1, 2)])
    with notes.collected() as said:
        everything(tmp_path, palette=palette)
    assert not [text for text in said if "palette" in text]


def test_an_array_with_its_channels_first_is_told_so():
    with pytest.raises(DataError, match=r"with 5 channels, got \(5, 8, 9\); the channels come last: use transpose"):
        from_array(np.zeros((5, 8, 9), np.uint8), 5)
