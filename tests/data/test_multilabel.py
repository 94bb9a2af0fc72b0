"""Masks of pixels that may have several classes: bits of one number, or a folder a class."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, update
from jaxseg.data import augment, notes
from jaxseg.data.check import describe
from jaxseg.data.check import main as check
from jaxseg.data.evaluation import make_eval_loader
from jaxseg.data.folder import FolderSource
from jaxseg.data.images import read_image
from jaxseg.data.multilabel import MultilabelSource
from jaxseg.data.pipeline import make_train_loader
from jaxseg.data.reading import Reading
from jaxseg.data.shapes import CLASSES, ShapesSource
from jaxseg.data.sources import make_source
from jaxseg.data.survey import about_classes, survey
from jaxseg.data.transforms import random_crop, resize_label
from jaxseg.errors import DataError

NAMES = ("cell", "border", "dead")
SETS = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [1, 1, 1, 255]], np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(root, form, sets=SETS, names=("a", "b")):
    """Writes images, and masks of a form that hold `sets`."""
    for name in names:
        save(root / "images" / f"{name}.png", np.zeros((*sets.shape, 3), np.uint8))
        if form == "bits":
            save(root / "masks" / f"{name}.png", sets)
            continue
        for c, cls in enumerate(NAMES):
            mask = np.where(sets >> c & 1, 255, 0).astype(np.uint8)
            mask[sets == 255] = 7
            save(root / "masks" / cls / f"{name}.png", mask)
    return root


def opened(root, form="bits", split="train", **keys):
    return MultilabelSource(root, split, form=form, **{"classes": NAMES, "val_fraction": 0.5, **keys})


@pytest.mark.parametrize(("form", "ignore"), [("bits", -1), ("folders", 7)])
def test_both_forms_give_the_same_sets(tmp_path, form, ignore):
    root = write(tmp_path, form)
    train, val = (opened(root, form, split, ignore=ignore) for split in ("train", "val"))
    assert len(train) == len(val) == 1 and train.name(0) != val.name(0)
    np.testing.assert_array_equal(train[0]["label"], SETS)
    assert train[0]["label"].dtype == np.uint8 and train.info.ignored == 255 and train.label_size(0) == (3, 4)
    assert train.info.classes == NAMES and train.info.multilabel and len({*train.info.colors}) == 3
    assert all(max(color) > 40 for color in train.info.colors)  # a dark one would be no colour in an overlay
    batch = next(iter(make_eval_loader(val, batch_size=2, size=(3, 4), fit="resize", process_index=0, process_count=1)))
    np.testing.assert_array_equal(batch["label"][0], SETS)
    assert (batch["label"][1] == 255).all()


def test_a_file_of_the_classes_says_the_bits(tmp_path):
    root = write(tmp_path, "bits", np.array([[1, 2, 4, 8, 9, 99]], np.uint8))
    entries = [{"name": "x", "index": 3, "colour": [9, 200, 9]}, {"name": "y", "index": 0}]
    (root / "classes.json").write_text(json.dumps({"classes": entries, "ignore_index": 99}))
    with pytest.raises(DataError, match=r"holds 2, 4, where sums of 8 x, 1 y was expected"):
        opened(root, classes=())[0]
    write(tmp_path, "bits", np.array([[1, 0, 0, 8, 9, 99]], np.uint8))
    source = opened(root, classes=())
    np.testing.assert_array_equal(source[0]["label"], [[2, 0, 0, 1, 3, 255]])
    assert source.info.classes == ("x", "y") and source.info.colors[0] == (9, 200, 9) and source.info.values == (3, 0)


@pytest.mark.parametrize(
    ("k", "dtype", "suffix"), [(8, np.uint8, "png"), (15, np.uint16, "png"), (31, np.int32, "tif")]
)
def test_many_bits(tmp_path, k, dtype, suffix):
    sets = np.array([[0, 1, 1 << (k - 1), 2**k - 1]], np.int64).astype(dtype)
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "masks" / f"{name}.{suffix}", sets)
    source = opened(tmp_path, classes=tuple(f"c{i}" for i in range(k)))
    label = source[0]["label"]
    np.testing.assert_array_equal(label.astype(np.int64), sets.astype(np.int64))  # all bits of 8 are no ignored pixel
    assert label.dtype == (np.uint32 if k > 15 else np.uint16)
    assert (resize_label(label, (2, 8)) == np.repeat(np.repeat(label, 2, 0), 2, 1)).all()
    _, padded = random_crop(np.zeros((1, 4, 3), np.uint8), label, (2, 4), np.random.default_rng(0))
    assert (padded[1] == source.info.ignored).all() and (padded[0] == label[0]).all()


def test_a_missing_file_of_a_class_says_that_it_is_absent(tmp_path):
    root = write(tmp_path, "folders")
    (root / "masks" / "dead" / "a.png").unlink()
    source = opened(root, "folders", "train", ignore=7, classes=())
    assert source.info.classes == ("border", "cell", "dead")  # the folders, sorted
    images = {
        opened(root, "folders", s, ignore=7).name(0): opened(root, "folders", s, ignore=7) for s in ("train", "val")
    }
    np.testing.assert_array_equal(images["a"][0]["label"], np.where(SETS == 255, 255, SETS & 3))
    np.testing.assert_array_equal(images["b"][0]["label"], SETS)
    for cls in NAMES:
        (root / "masks" / cls / "a.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"image .*a\.png has no mask in any folder .* without any class has an empty"):
        opened(root, "folders")


def test_a_class_can_be_unknown_alone(tmp_path):
    """7 in one picture: of the pixel, of the class, and of the class and of all of a picture that is not there."""
    root = write(tmp_path, "folders", np.where(SETS == 255, 0, SETS).astype(np.uint8))
    (root / "masks" / "dead" / "b.png").unlink()
    for name in ("a", "b"):
        mask = np.asarray(Image.open(root / "masks" / "border" / f"{name}.png")).copy()
        mask[0, :2] = 7
        save(root / "masks" / "border" / f"{name}.png", mask)
    everywhere = np.asarray(Image.open(root / "masks" / "cell" / "a.png")).copy()
    everywhere[0, 0] = 7
    save(root / "masks" / "cell" / "a.png", everywhere)
    dead = np.asarray(Image.open(root / "masks" / "dead" / "a.png")).copy()
    dead[0, 0] = 7
    save(root / "masks" / "dead" / "a.png", dead)

    def labels(unknown):
        found = (opened(root, "folders", split, ignore=7, unknown=unknown) for split in ("train", "val"))
        return {source.name(0): source[0]["label"] for source in found}

    sets = np.where(SETS == 255, 0, SETS)
    a, b = sets.copy(), (sets & 3)
    pixel = labels("pixel")
    a[0, :2] = b[0, :2] = 255
    np.testing.assert_array_equal(pixel["a"], a)
    np.testing.assert_array_equal(pixel["b"], b)
    alone = labels("class")
    a[0, :2], b[0, :2] = (255, 1 + 16), (0 + 16, 1 + 16)  # the first of a in all three: unknown
    np.testing.assert_array_equal(alone["a"], a)
    np.testing.assert_array_equal(alone["b"], b)
    assert alone["a"].dtype == np.uint8  # six bits; of four classes and more it has sixteen
    np.testing.assert_array_equal(labels("file")["a"], a)
    np.testing.assert_array_equal(labels("file")["b"], b + 32)
    with pytest.raises(DataError, match=r"16 classes are given, of which some may be unknown .* at most 15"):
        opened(root, "folders", classes=("cell", "border", "dead", *map(str, range(13))), ignore=7, unknown="class")


@pytest.mark.parametrize(
    ("form", "spoil", "keys", "message"),
    [
        ("bits", lambda r: None, {"classes": ()}, "needs the names of the classes, that of bit 0 first"),
        ("bits", lambda r: None, {"classes": ("x", "y")}, r"\.png holds 4, 5, 6, 7, where sums of 1 x, 2 y"),
        ("bits", lambda r: (r / "masks" / "a.png").unlink(), {}, r"image .*a\.png has no mask"),
        ("bits", lambda r: save(r / "masks/a.png", SETS[:2]), {}, "2 x 4 .*3 x 4 .*same size"),
        ("bits", lambda r: None, {"classes": tuple(map(str, range(32)))}, "32 classes are given, .* at most 31"),
        ("folders", lambda r: None, {}, r"holds 7, where 0 for absent and 1 or 255 for present was expected"),
        ("folders", lambda r: save(r / "masks/cells/a.png", SETS), {}, "folder 'cells', which is no class .*'cell'"),
        ("folders", lambda r: save(r / "masks/cell/z.png", SETS), {}, r"mask .*z\.png has no image of its name"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, form, spoil, keys, message):
    root = write(tmp_path, form)
    spoil(root)
    with pytest.raises(DataError, match=message):
        for split in ("train", "val"):
            opened(root, form, split, **keys)[0]


def test_the_other_form_of_masks_is_named(tmp_path):
    """Folders of classes read as plain masks, and the reverse, with and without names of classes."""
    root = write(tmp_path / "of_classes", "folders")
    told = r"masks of 2 images in its folders border, cell, dead: .* give data\.multilabel=folders\.$"
    with pytest.raises(DataError, match=told):
        FolderSource(root, "train")
    plain = write(tmp_path / "plain", "bits")
    for names in ((), NAMES):
        with pytest.raises(DataError, match=r"plain has no folder of masks .* leave data\.multilabel empty"):
            opened(plain, "folders", classes=names)


def test_shapes_have_the_hidden_parts_too():
    sets, single = (ShapesSource("val", 12, (32, 32), multilabel=m) for m in (True, False))
    assert sets.info.classes == CLASSES[1:] and sets.info.multilabel
    several = 0
    for i in range(12):
        np.testing.assert_array_equal(sets[i]["image"], single[i]["image"])
        label, seen = sets[i]["label"], single[i]["label"]
        several += int((np.bitwise_count(label) > 1).sum()) if hasattr(np, "bitwise_count") else 1
        shown = seen > 0
        # What is seen is there, but for pixels of which several shapes cover a part.
        assert ((label[shown] >> (seen[shown] - 1)) & 1).mean() > 0.97 and (label[~shown] > 0).mean() < 0.03
    assert several > 20


def test_augmentation_moves_sets_and_fills_with_unknown(key):
    change = augment.make_augment(rotate=30.0, zoom=(0.5, 0.5), flip_horizontal=1.0, ignore=-1)
    label = np.full((8, 8), 2**30 + 5, np.int32)
    _, moved = change(key, np.zeros((8, 8, 3), np.float32), label)
    assert set(np.unique(moved)) == {-1, 2**30 + 5}


def test_check_counts_the_classes(tmp_path, capsys):
    root = write(tmp_path, "bits")
    (tmp_path / "mine.py").write_text(
        "from jaxseg.config import default_config\ndef get_config(arg=None):\n    return default_config()\n"
    )
    keys = {"data.source": "folder", "data.dir": root, "data.multilabel": "bits", "data.val_fraction": 0.5}
    keys |= {"loss.terms": "dice", "data.classes": "('cell','border','dead')"}
    call = ["--config", str(tmp_path / "mine.py"), *(f"--config.{k}={v}" for k, v in keys.items())]
    assert check([*call, "--out", str(tmp_path / "check.png")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cell", "7", "58.33%", "1"] in lines and ["dead", "4", "33.33%", "1"] in lines
    assert ["(no", "class)", "1", "8.33%", "1"] in lines and ["(ignored)", "1", "8.33%", "1"] in lines


def test_check_counts_each_class_where_it_is_known(tmp_path, capsys):
    """a has a picture of absent cells alone, so that it is labelled; of b a corner is unknown, in every class."""
    none = np.zeros((20, 60), np.uint8)
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((20, 60, 3), np.uint8))
        save(tmp_path / "masks" / "cell" / f"{name}.png", none)
    for cls in NAMES:
        mask = none.copy()
        mask[:10, :10], mask[-1, -1] = 7, cls == "dead"
        mask[0, -1] = 7 * (cls == "border")
        save(tmp_path / "masks" / cls / "b.png", mask)
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__multilabel="folders", data__ignore=7)
    update(config, data__unknown="file", data__classes=NAMES, loss__terms="dice", data__val_fraction=0.4)
    reports = {
        name: survey(config, split) for split in ("train", "val") for name in [make_source(config, split).name(0)]
    }
    a, b = reports["a"], reports["b"]
    assert a.unlabelled == b.unlabelled == [] and a.problems == b.problems == []
    np.testing.assert_array_equal(a.pixels, [0, 0, 0, 0, 0])
    np.testing.assert_array_equal(a.among, [1200, 0, 0, 0, 1200])
    np.testing.assert_array_equal(b.pixels, [0, 0, 1, 1098, 100])
    np.testing.assert_array_equal(b.among, [1100, 1099, 1100, 1099, 1200])
    lines = [line.split() for line in describe(a, config).splitlines()]
    assert ["border", "0", "-", "0", "1200", "never", "known"] in lines
    assert ["cell", "0", "0.00%", "0", "0", "never", "occurs"] in lines
    lines = [line.split() for line in describe(b, config).splitlines()]
    assert ["dead", "1", "0.09%", "1", "100"] in lines and ["(ignored)", "100", "8.33%", "1", "0"] in lines
    assert ["(no", "class)", "1098", "99.91%", "1", "101"] in lines and [
        "class",
        "pixels",
        "share",
        "images",
        "unknown",
    ] in lines
    # One of 1100 pixels is rare; it would not be among the class pixels, of which it is the only one.
    assert any("dead (1 pixel, 0.0909%)" in remark for remark in about_classes([a, b]))
    unseen = tmp_path / "masks" / "cell" / "a.png"
    save(unseen, np.full((20, 60), 7, np.uint8))  # now nothing is known of a
    nothing = survey(config, a.split)
    assert nothing.unlabelled == ["a"] and "Every pixel of a" in nothing.problems[0]


def test_an_unknown_class_without_a_value_for_it_is_said(tmp_path):
    write(tmp_path, "folders", np.where(SETS == 255, 0, SETS).astype(np.uint8))
    with notes.collected() as said:
        opened(tmp_path, "folders", ignore=7, unknown="class")
        opened(tmp_path, "folders", unknown="file")
        opened(tmp_path, "folders")
    assert not said
    with notes.collected() as said:
        opened(tmp_path, "folders", unknown="class")
    assert len(said) == 1 and said[0].startswith("data.unknown=class has no effect in")
    entries = [{"name": name, "index": i} for i, name in enumerate(NAMES)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries, "ignore_index": 9}))
    with notes.collected() as said:
        opened(tmp_path, "folders", unknown="class", classes=())
    assert not said


def test_a_configuration_opens_either_form(tmp_path):
    config = default_config()
    update(config, data__source="folder", data__dir=str(write(tmp_path, "folders")), data__multilabel="folders")
    update(config, data__ignore=7, data__val_fraction=0.5, loss__terms="dice")
    assert make_source(config, "val").info.classes == ("border", "cell", "dead")
    update(config, data__classes=("cell", "border"))
    with pytest.raises(DataError, match="folder 'dead', which is no class"):
        make_source(config, "val")


def test_images_of_measurements_are_those_that_prediction_sees(tmp_path):
    root, config = write(tmp_path, "bits"), default_config()
    for name in ("a", "b"):
        save(root / "images" / f"{name}.png", np.arange(0, 1200, 100, dtype=np.uint16).reshape(3, 4))
    update(config, data__source="folder", data__dir=str(root), data__multilabel="bits", data__classes=NAMES)
    update(config, data__val_fraction=0.5, data__channels=1, data__range=(0, 1000), loss__terms="dice")
    for split in ("train", "val"):
        source = make_source(config, split)
        image = source[0]["image"]
        np.testing.assert_array_equal(image, read_image(source.files[0].image, 1, config.data.range))
        assert image.dtype == np.float32 and image[0, 3, 0] == np.float32(0.3) and image.max() == 1
        assert source.info.range == (0, 1000) and source.info.image_type is np.float32


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_damaged_images_are_skipped_as_with_one_class_a_pixel(tmp_path, kind):
    write(tmp_path / "train", "bits", names="abcd")
    write(tmp_path / "val", "bits", names="ab")
    config = default_config()
    update(config, data__source="folder", data__dir=str(tmp_path), data__multilabel="bits", data__classes=NAMES)
    update(config, loss__terms="dice")
    file = tmp_path / "train" / kind / "c.png"
    for damage in (lambda: file.write_bytes(file.read_bytes()[:30]), lambda: save(file, np.zeros((2, 2), np.uint8))):
        damage()
        config.data.on_error = "stop"
        with pytest.raises(DataError, match=r"c\.png"):
            make_source(config, "train")
        config.data.on_error = "skip"
        with notes.collected() as said:
            source = make_source(config, "train")
        assert len(said) == 1 and str(file) in said[0] and "other images are in its place" in said[0]
        assert [source.name(i) for i in range(len(source))] == list("abcd"), "the order of the images stays"
        with pytest.raises(DataError, match=r"c\.png"):
            source[2]
        how = {"batch_size": 3, "size": (3, 4), "fit": "resize", "channels": 3, "seed": 0, "prefetch": 0}
        with make_train_loader(source, reading=Reading("skip"), **how) as batches:
            seen = {int(i) for _ in range(3) for i in next(batches)["index"]}
        assert seen == {0, 1, 3}
    save(tmp_path / "val" / "masks" / "a.png", SETS[:2])
    with pytest.raises(DataError, match=r"val.*a\.png"):
        make_source(config, "val")
