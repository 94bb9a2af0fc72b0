"""Masks whose values or colours are not what they seem, and files that are no images of a folder."""

import json
import os
import unicodedata

import numpy as np
import pytest
from helpers.png import GREY, GREY_AND_ALPHA, write_png
from PIL import Image

from jaxseg.config import default_config, update
from jaxseg.data import FolderSource, classes, make_source, pairs
from jaxseg.data.datasets.local import pair_folders
from jaxseg.data.images import read_header, read_mask
from jaxseg.data.layout import Folders
from jaxseg.data.masks import Palette
from jaxseg.data.pairs import match
from jaxseg.errors import DataError
from jaxseg.inference.images import find_images
from jaxseg.types import IGNORE

RGB = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def labels(*values, size=(6, 8)):
    """Returns u8[h,w] with the values in turn."""
    return np.resize(np.array(values, np.uint8), size)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


def make(root, names="abc", values=(0, 1, 2)):
    for name in names:
        save(root / "images" / f"{name}.png", np.zeros((6, 8, 3), np.uint8))
        save(root / "masks" / f"{name}.png", labels(*values))
    return root


def indexed(values, colors):
    """Returns a palette image that shows the value i in colors[i]."""
    image = Image.fromarray(values, "P")
    image.putpalette([v for color in colors for v in color])
    return image


def everything(root, **options):
    return FolderSource(root, "train", val_fraction=0.0, **options)


def describe(root, *entries, **keys):
    (root / "classes.json").write_text(json.dumps({"classes": entries, **keys}))


# Colours of classes.json


def test_colours_of_any_indices_and_of_the_ignored_pixels(tmp_path):
    make(tmp_path)
    for name in "abc":
        save(tmp_path / "masks" / f"{name}.png", np.array(RGB, np.uint8)[labels(0, 1, 2)])
    red, green = ({"index": i, "name": n, "colour": list(RGB[c])} for i, n, c in ((300, "red", 1), (7, "green", 2)))
    describe(tmp_path, red, green, ignore_index=0)
    share = rf"{100 * np.mean(labels(0, 1, 2) == 0):.1f} % of its pixels"
    told = rf"colours that .*classes\.json lacks: \(\(0,0,0\),\), {share}\. If a class is missing, .*ignore_colour"
    with pytest.raises(DataError, match=told):
        everything(tmp_path)
    describe(tmp_path, red, green, ignore_index=0, ignore_colour=[0, 0, 0])
    np.testing.assert_array_equal(everything(tmp_path)[0]["label"], labels(IGNORE, 0, 1))
    describe(tmp_path, red, green, ignore_color=[0, 0, 0])
    np.testing.assert_array_equal(everything(tmp_path)[0]["label"], labels(IGNORE, 0, 1))
    describe(tmp_path, red, green | {"colour": red["colour"]}, ignore_colour=[0, 0, 0])
    with pytest.raises(DataError, match="A colour that it gives to two classes stands for neither"):
        everything(tmp_path)
    describe(tmp_path, red, green | {"colour": red["colour"]})  # so that no colour is left
    with pytest.raises(DataError, match=r"colours that .*classes\.json lacks: .* stands for neither"):
        everything(tmp_path)


# Palettes


def contradicting(root):
    """Writes palette masks that all show the same picture, b with indices 1 and 2 exchanged."""
    make(root)
    for name, order in (("a", [0, 1, 2]), ("b", [0, 2, 1]), ("c", [0, 1, 2])):
        save(
            root / "masks" / f"{name}.png", indexed(np.array(order, np.uint8)[labels(0, 1, 2)], [RGB[i] for i in order])
        )
    return root


def test_palettes_that_differ_between_files_are_refused(tmp_path):
    root = contradicting(tmp_path)
    with pytest.raises(
        DataError, match=r"palette of .*b\.png shows the index 1 in \(0, 255, 0\), but that of .*a\.png"
    ):
        everything(root)
    source = everything(root, strict=False)
    assert len(source) == 3 and len(source.problems) == 1 and "b.png" in source.problems[0]
    by_color = everything(root, palette=RGB)  # with data.palette the colours count
    for i in range(3):
        np.testing.assert_array_equal(by_color[i]["label"], labels(0, 1, 2))


def test_a_palette_that_gives_an_index_the_colour_of_another_class_is_refused(tmp_path):
    root = contradicting(tmp_path)
    describe(root, *({"name": n, "colour": list(c)} for n, c in zip(("bg", "red", "green"), RGB)))
    with pytest.raises(
        DataError, match=r"b\.png shows the index 1 in \(0, 255, 0\), but .*json gives .* 'green' \(index 2"
    ):
        everything(root)
    for split in ("train", "val"):  # one of them holds b, and is compared with a mask of the other
        for name, image in (("images", np.zeros((6, 8, 3), np.uint8)), ("masks", indexed(labels(0, 1, 2), RGB))):
            save(tmp_path / "two" / split / name / "a.png", image)
    describe(tmp_path / "two", "bg", "red", "green")
    FolderSource(tmp_path / "two", "train")
    save(tmp_path / "two/val/masks/a.png", indexed(labels(0, 2, 1), (RGB[0], RGB[2], RGB[1])))
    with pytest.raises(DataError, match=r"val/masks/a\.png in|train/masks/a\.png shows|val/masks/a\.png shows"):
        FolderSource(tmp_path / "two", "val")


def test_greys_and_unused_colours_of_a_palette_say_nothing(tmp_path):
    make(tmp_path)
    save(tmp_path / "masks" / "a.png", indexed(labels(0, 1, 2), [*RGB, (1, 2, 3)]))
    save(tmp_path / "masks" / "b.png", indexed(labels(0, 1, 255), [*RGB[:2], *[(9, 9, 9)] * 254]))
    save(tmp_path / "masks" / "c.png", indexed(labels(0, 1, 2), [(i, i, i) for i in range(256)]))
    assert everything(tmp_path).remarks == ()
    describe(tmp_path, *({"name": str(i), "colour": [i, 9, 9]} for i in range(3)))
    source = everything(tmp_path)
    assert len(source.remarks) == 1 and "the index counts, not the colour" in source.remarks[0]


def test_a_palette_of_the_greys_of_other_indices_is_named(tmp_path):
    """As from a program that makes grey masks of 0 and 2 smaller; 0 and 255 are merely how a mask is shown."""
    make(tmp_path)
    save(tmp_path / "masks" / "b.png", indexed(labels(0, 1), [(0, 0, 0), (255, 255, 255)]))
    assert everything(tmp_path).remarks == ()
    save(tmp_path / "masks" / "b.png", indexed(labels(0, 1), [(0, 0, 0), (2, 2, 2)]))
    (remark,) = everything(tmp_path).remarks
    assert "b.png shows the index 1 in the grey of 2." in remark
    describe(tmp_path, "x", {"name": "y"}, "z")
    assert everything(tmp_path).remarks == (remark,)


# Lossy content and few bits


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "JPEG2000"])
def test_lossy_content_under_another_name_is_refused(tmp_path, form):
    make(tmp_path, values=(0, 4, 8))
    save(
        tmp_path / "masks" / "b.png",
        labels(0, 4, 8),
        format=form,
        **({"compression": "jpeg"} if form == "TIFF" else {"irreversible": True}),
    )
    name = {"WEBP": "lossy WebP", "JPEG2000": "lossy JPEG 2000"}.get(form, "JPEG")
    with pytest.raises(
        DataError,
        match=rf"The mask .*b\.png is a {name} file\. {name[0].upper()}{name[1:]} changes values: masks must be PNG",
    ):
        everything(tmp_path)
    describe(tmp_path, "x", {"name": "y"}, "z")
    with pytest.raises(DataError, match=f"is a {name} file"):
        everything(tmp_path, strict=False)[1]


def test_lossless_webp_and_tiff_are_accepted(tmp_path):
    save(tmp_path / "m.webp", np.array(RGB, np.uint8)[labels(0, 1, 2)], lossless=True)
    save(tmp_path / "m.tif", labels(0, 1, 2), compression="tiff_lzw")
    save(tmp_path / "m.jp2", labels(0, 1, 2))
    for ending in ("webp", "tif", "jp2"):
        assert read_header(tmp_path / f"m.{ending}").lossy == ""
        if ending != "tif":
            np.testing.assert_array_equal(read_mask(tmp_path / f"m.{ending}", Palette(RGB, (0, 1, 2))), labels(0, 1, 2))


def test_lossy_webp_behind_a_long_alpha_channel(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 4), np.uint8)
    save(tmp_path / "m.webp", noise)
    assert (tmp_path / "m.webp").read_bytes().find(b"VP8 ") > 65536
    assert read_header(tmp_path / "m.webp").lossy == "lossy WebP"
    save(tmp_path / "m.webp", noise, lossless=True)
    assert read_header(tmp_path / "m.webp").lossy == ""


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_give_the_stored_values(tmp_path, bits):
    values = labels(*range(2**bits), size=(4, 16))
    write_png(tmp_path / "m.png", values[..., None], GREY, bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values)


def test_a_mask_whose_sixteen_bits_would_be_halved_is_refused(tmp_path):
    values = np.resize(np.array([1, 65535], np.uint16), (3, 4, 2))
    write_png(tmp_path / "m.png", values, GREY_AND_ALPHA)
    with pytest.raises(DataError, match="holds 2 bands of 16 bits, of which Pillow drops a part"):
        read_mask(tmp_path / "m.png")


# Values that belong to no class


def test_values_are_checked_at_the_start_beside_classes_json(tmp_path, monkeypatch):
    make(tmp_path, "abcdefgh")
    describe(tmp_path, "x", "y", "z")
    save(tmp_path / "masks" / "h.png", labels(0, 9))
    with pytest.raises(DataError, match=r"h\.png holds the values 9, which no class has"):
        everything(tmp_path)
    monkeypatch.setattr("jaxseg.data.contents._MOST", 2)  # of eight masks the first and the last
    with pytest.raises(DataError, match=r"h\.png holds the values 9"):
        everything(tmp_path)
    (tmp_path / "masks" / "h.png").write_bytes((tmp_path / "masks" / "a.png").read_bytes())
    save(tmp_path / "masks" / "d.png", labels(0, 9))
    source = everything(tmp_path)
    with pytest.raises(DataError, match=r"d\.png holds the values 9"):
        source[3]


def test_one_class_is_refused(tmp_path):
    config = default_config()
    update(config, data__source="folder", data__dir=str(make(tmp_path, values=(0,))), data__classes=("bg",))
    with pytest.raises(DataError, match="has the one class 'bg', so there is nothing to distinguish"):
        make_source(config, "train")


# Which files count


def test_hidden_files_folders_and_links_to_nowhere(tmp_path):
    root = make(tmp_path)
    for hidden in (".ipynb_checkpoints/a.png", "__MACOSX/a.png", "x/@eaDir/a.png", "._a.png"):
        save(root / "images" / hidden, np.zeros((2, 2), np.uint8))
    (root / "images" / "y.png").mkdir()
    assert len(everything(root)) == 3
    assert pair_folders(root / "images", root / "masks") == [
        (n, root / "images" / f"{n}.png", root / "masks" / f"{n}.png") for n in "abc"
    ]
    found, problems, *_ = find_images([str(root / "images"), str(root / "images" / ".*"), str(root / "images" / "**")])
    assert [p.name for p in found] == ["a.png", "b.png", "c.png"]
    assert len(problems) == 1 and "matches no images" in problems[0]
    os.symlink("/nowhere", root / "masks" / "z.png")
    os.symlink("/unmounted", root / "images" / "more")
    os.symlink("/nothing", root / "images" / "notes.txt")
    source = everything(root, strict=False)
    assert len(source) == 3
    assert [p.split("masks/")[-1] for p in source.problems if "z.png" in p] == [
        "z.png is a link to /nowhere, which does not exist."
    ]
    assert len(source.problems) == 2 and "more is a link to /unmounted" in source.problems[0]
    with pytest.raises(DataError, match="more is a link to /unmounted, which does not exist"):
        everything(root)
    with pytest.raises(DataError, match=r"z\.png is a link to /nowhere"):
        pair_folders(root / "masks", root / "masks")
    assert "z.png is a link to /nowhere" in find_images([str(root / "masks")])[1][0]


@pytest.mark.parametrize("ending", ["gif", "npy"])
def test_a_mask_of_another_type_is_named(tmp_path, ending):
    root = make(tmp_path)
    (root / "masks" / "b.png").rename(root / "masks" / f"b.{ending}")
    (root / "images" / "c.png").rename(root / "images" / "c.heic")
    (root / "masks" / "a.png").rename(root / "masks" / "A.png")
    problems = " ".join(FolderSource(make(root, "d"), "train", val_fraction=0.0, strict=False).problems)
    assert f"b.{ending} is there, but files of this type are not read: save it as PNG" in problems
    assert "c.heic is there, but files of this type" in problems
    assert "A.png is there, but its name differs in capital letters" in problems


def test_names_in_two_forms_of_unicode_match(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zürich/é") for form in ("NFC", "NFD"))
    assert composed != decomposed
    root = make(make(tmp_path), [composed])
    save(root / "masks" / f"{decomposed}.png", labels(0, 1, 2))
    (root / "masks" / f"{composed}.png").unlink()
    source = everything(root)
    assert sorted(source.name(i) for i in range(4)) == sorted(["a", "b", "c", composed])
    save(root / "masks" / f"{composed}.png", labels(0, 1, 2))
    with pytest.raises(DataError, match="have the same name up to the suffix"):
        everything(root)


def test_many_missing_masks_are_explained_quickly(tmp_path, monkeypatch):
    """The folder of masks is listed a fixed number of times, and not once for each image."""
    root = make(tmp_path, [f"{i:02d}" for i in range(30)])
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_suffix(".npy"))
    listed = []
    original = pairs.entries_of
    monkeypatch.setattr(pairs, "entries_of", lambda folder: (listed.append(folder), original(folder))[1])
    _, problems = match(Folders(root / "images", root / "masks"))
    assert len(problems) == 30 and all(".npy is there, but files of this type" in p for p in problems)
    assert len(listed) == 1


def test_two_classes_of_classes_json_need_few_masks(tmp_path, monkeypatch):
    """Whether 255 is the second class shows in all masks only if those of a sample hold nothing but 0 and 255."""
    root = make(tmp_path, [f"{i:02d}" for i in range(20)], values=(0, 1))
    describe(root, "a", "b")
    read = []
    original = classes.stored_values

    def stored_values(masks, strict):
        read.append(len(masks))
        return original(masks, strict)

    monkeypatch.setattr(classes, "stored_values", stored_values)
    monkeypatch.setattr("jaxseg.data.contents._MOST", 4)
    np.testing.assert_array_equal(everything(root)[0]["label"], labels(0, 1))
    assert read == [4]
    for mask in (root / "masks").iterdir():
        save(mask, labels(0, 255))
    np.testing.assert_array_equal(everything(root)[0]["label"], labels(0, 1))
    save(root / "masks" / "01.png", labels(0, 1, 255))  # not in the sample: 255 is ignored in all
    np.testing.assert_array_equal(everything(root)[0]["label"], labels(0, 255))
