"""TFDS data sets prepared and read without TensorFlow, from tiny made-up copies of their raw files."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, set_key
from jaxseg.data.class_counts import pixel_counts
from jaxseg.data.datasets import describe
from jaxseg.data.datasets.voc2012 import palette
from jaxseg.data.pipeline import make_eval_loader, make_train_loader
from jaxseg.data.sources import SOURCES, make_source
from jaxseg.data.tfds import TFDSSource, tfds_split
from jaxseg.errors import DataError
from jaxseg.types import IGNORE

NAMES = tuple(name for name in SOURCES if name not in ("shapes", "folder"))


def _write(path: Path, array: np.ndarray, colors: tuple | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if colors is not None:
        image.putpalette([c for color in colors for c in color])
    image.save(path)


def _pair(image: Path, mask: Path, values, seed: int, size=(12, 16), colors=None) -> np.ndarray:
    """Writes an image and a mask of random `values`; returns the mask."""
    rng = np.random.default_rng(seed)
    _write(image, rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    raw = rng.choice(np.array(values, np.uint8), size)
    _write(mask, raw, colors)
    return raw


def _camvid(root: Path, layout: str = "own") -> dict[str, np.ndarray]:
    masks = {}
    for number, (split, count) in enumerate((("train", 5), ("val", 2), ("test", 3))):
        images, labels = (f"{split}/images", f"{split}/masks") if layout == "own" else (split, f"{split}annot")
        for i in range(count):
            name = f"{split}_{i}"
            suffix = ".jpg" if layout == "own" else ".png"
            files = root / images / f"{name}{suffix}", root / labels / f"{name}.png"
            masks[name] = _pair(*files, range(12), 10 * number + i)
    return masks


def _voc(root: Path) -> dict[str, np.ndarray]:
    home, masks = root / "VOCdevkit" / "VOC2012", {}
    for split, count in (("train", 3), ("val", 2)):
        names = [f"2007_00000{i}_{split}" for i in range(count)]
        listing = home / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{name}\n" for name in names))
        for i, name in enumerate(names):
            files = home / "JPEGImages" / f"{name}.jpg", home / "SegmentationClass" / f"{name}.png"
            masks[name] = _pair(*files, [*range(21), 255], i, size=(12 + i, 16), colors=palette(256))
    return masks


def _pets(root: Path) -> dict[str, np.ndarray]:
    masks = {}
    for listing, names in (("trainval", [f"Sphynx_{i}" for i in range(9)] + ["beagle_116"]), ("test", ["pug_1"])):
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{name} 34 1 1\n" for name in names)
        (root / "annotations" / f"{listing}.txt").write_text(lines)
        for i, name in enumerate(names):
            files = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
            masks[name] = _pair(*files, (1, 2, 3), i)
    return masks


def _cityscapes(root: Path) -> dict[str, np.ndarray]:
    masks = {}
    for split in ("train", "val", "test"):
        name = f"bonn_00000{len(split)}_000019"
        image = root / "leftImg8bit" / split / "bonn" / f"{name}_leftImg8bit.png"
        mask = root / "gtFine" / split / "bonn" / f"{name}_gtFine_labelIds.png"
        masks[name] = np.repeat(np.repeat(np.random.default_rng(len(split)).choice(34, (8, 16)), 128, 0), 128, 1)
        _write(image, np.zeros((1024, 2048, 3), np.uint8))
        _write(mask, masks[name].astype(np.uint8))
    return masks


def _scene_parse(root: Path) -> dict[str, np.ndarray]:
    masks = {}
    for folder, count in (("training", 3), ("validation", 2)):
        for i in range(count):
            rng = np.random.default_rng(i)
            name = f"ADE_{folder}_{i}"
            red = rng.integers(0, 101, (10, 14 + i)).astype(np.uint8)
            masks[name] = red
            _write(root / "images" / folder / f"{name}.jpg", np.full((*red.shape, 3), 90, np.uint8))
            instance = np.stack([red, rng.integers(0, 9, red.shape), 0 * red], axis=-1).astype(np.uint8)
            _write(root / "annotations_instance" / folder / f"{name}.png", instance)
    return masks


def _labels(source: TFDSSource) -> dict[str, np.ndarray]:
    return {source.name(i): source[i]["label"] for i in range(len(source))}


@pytest.fixture
def cache(tmp_path) -> str:
    return str(tmp_path / "cache")


@pytest.mark.parametrize("layout", ["own", "tutorial"])
def test_camvid(tmp_path, cache, layout):
    masks = _camvid(tmp_path / "raw", layout)
    for split, count in (("train", 5), ("val", 2), ("test", 3), ("train+val", 7), ("train[:2]", 2), ("val[1:]", 1)):
        source = TFDSSource("camvid", split, str(tmp_path / "raw"), cache)
        assert len(source) == count
        for name, label in _labels(source).items():
            raw = masks[Path(name).stem]
            np.testing.assert_array_equal(label, np.where(raw == 11, IGNORE, raw))
        example = source[0]
        assert example["image"].shape == (12, 16, 3) and example["image"].dtype == example["label"].dtype == np.uint8
        assert source.label_size(0) == (12, 16)
    assert source.info.classes[3] == "road" and source.info.ignore == 11 and source.info.channels == 3
    assert "tensorflow" not in sys.modules


def test_voc_reads_palette_masks_as_indices(tmp_path, cache):
    masks = _voc(tmp_path)
    for data_dir in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        source = TFDSSource("voc2012", "train", str(data_dir), cache)
        labels = _labels(source)
        assert sorted(Path(name).stem for name in labels) == [name for name in masks if "train" in name]
        for name, label in labels.items():
            np.testing.assert_array_equal(label, masks[Path(name).stem])
    assert {source.label_size(i) for i in range(3)} == {(12, 16), (13, 16), (14, 16)}
    assert len(TFDSSource("voc2012", "val", str(tmp_path), cache)) == 2
    assert source.info.colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    with pytest.raises(DataError, match=r"no split 'trian\[:5\]' with public masks.* Did you mean 'train'\?"):
        TFDSSource("voc2012", "trian[:5]", str(tmp_path), cache)
    with pytest.raises(DataError, match="no split 'test' with public masks; it has train, val"):
        TFDSSource("voc2012", "test", str(tmp_path), cache)


def test_pets_split_their_training_images(tmp_path, cache):
    masks = _pets(tmp_path)
    splits = {s: _labels(TFDSSource("oxford_iiit_pet", s, str(tmp_path), cache)) for s in ("train", "val", "test")}
    assert {s: len(labels) for s, labels in splits.items()} == {"train": 9, "val": 1, "test": 1}
    assert splits["train"].keys() | splits["val"].keys() == {f"{name}.jpg" for name in masks if name != "pug_1"}
    for labels in splits.values():
        for name, label in labels.items():
            np.testing.assert_array_equal(label, masks[Path(name).stem].astype(int) - 1)
    assert len(TFDSSource("oxford_iiit_pet", "train[:50%]", str(tmp_path), cache)) == 5
    assert len(TFDSSource("oxford_iiit_pet", "train+val", str(tmp_path), cache)) == 10


def test_cityscapes_keeps_its_19_classes(tmp_path, cache):
    masks = _cityscapes(tmp_path)
    source = TFDSSource("cityscapes", "val", str(tmp_path), cache)
    ((name, label),) = _labels(source).items()
    assert name == "bonn_000003_000019" and source.label_size(0) == (1024, 2048)
    raw_ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    for raw in range(34):
        expected = raw_ids.index(raw) if raw in raw_ids else IGNORE
        assert (label[masks[name] == raw] == expected).all()


def test_scene_parse_takes_the_red_channel(tmp_path, cache):
    masks = _scene_parse(tmp_path)
    source = TFDSSource("scene_parse150", "val", str(tmp_path), cache)
    expected = [np.where(masks[n] == 0, IGNORE, masks[n].astype(int) - 1) for n in masks if "validation" in n]
    for i in range(2):
        assert any(np.array_equal(source[i]["label"], e) for e in expected)
        assert source.name(i) == f"scene_parse150-0000{i}"
    assert len(source.info.classes) == 100 and source.info.classes[25] == "chest of drawers"
    assert len(TFDSSource("scene_parse150", "train", str(tmp_path), cache)) == 3


@pytest.mark.parametrize("name", ["oxford_iiit_pet", "cityscapes", "scene_parse150"])
def test_descriptions_name_the_features_of_tfds(name, tmp_path):
    import tensorflow_datasets as tfds

    features = tfds.builder(name, data_dir=str(tmp_path)).info.features
    dataset = describe(name)
    for key in (dataset.image, dataset.mask):
        assert isinstance(features[key], tfds.features.Image)
    assert dataset.file_name is None or isinstance(features[dataset.file_name], tfds.features.Text)


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_agree_with_themselves(name):
    dataset = describe(name)
    assert dataset.name == name and len(dataset.classes) == len(set(dataset.classes)) == len(dataset.colors)
    labels = {label for label in dataset.labels.values() if label != IGNORE}
    assert labels == set(range(len(dataset.classes)))
    assert dataset.label_table()[255] == IGNORE
    assert {"train", "val"} <= dataset.splits.keys()


def test_split_names():
    pets, camvid = describe("oxford_iiit_pet"), describe("camvid")
    assert tfds_split(camvid, "val") == "validation"
    assert tfds_split(camvid, "validation[:5]") == "validation[:5]"
    assert tfds_split(camvid, "train[:90%] + val") == "train[:90%]+validation"
    assert tfds_split(pets, "train") == "train[:90%]" and tfds_split(pets, "val") == "train[90%:]"
    assert tfds_split(pets, "train[10%:]") == "train[10%:]" and tfds_split(pets, "test") == "test"
    for dataset, split in ((camvid, "dev"), (camvid, ""), (pets, "val[:5]"), (camvid, "train[:5")):
        with pytest.raises(DataError, match="has no split"):
            tfds_split(dataset, split)


def test_a_bad_slice_is_refused(tmp_path, cache):
    _camvid(tmp_path / "raw")
    with pytest.raises(DataError, match="cannot read the split"):
        TFDSSource("camvid", "train[a:b]", str(tmp_path / "raw"), cache)


def test_preparing_happens_once_and_again_for_other_files(tmp_path, cache):
    masks = _camvid(tmp_path / "raw")
    TFDSSource("camvid", "train", str(tmp_path / "raw"), cache)
    records = {f: f.stat().st_mtime_ns for f in Path(cache).rglob("*.array_record*")}
    TFDSSource("camvid", "val", str(tmp_path / "raw"), cache)
    assert {f: f.stat().st_mtime_ns for f in Path(cache).rglob("*.array_record*")} == records
    _write(tmp_path / "raw" / "train" / "masks" / "train_0.png", np.zeros_like(masks["train_0"]))
    source = TFDSSource("camvid", "train", str(tmp_path / "raw"), cache)
    assert not _labels(source)["train_0.jpg"].any()
    assert len(list(Path(cache).iterdir())) == 2


def test_the_raw_files_may_go_after_preparing(tmp_path, cache):
    _camvid(tmp_path / "raw")
    before = TFDSSource("camvid", "train", str(tmp_path / "raw"), cache)
    shutil.rmtree(tmp_path / "raw")
    after = TFDSSource("camvid", "train", "", cache)
    assert before.name(0) == after.name(0)
    np.testing.assert_array_equal(before[0]["image"], after[0]["image"])


def test_channels(tmp_path, cache):
    _camvid(tmp_path / "raw")
    color, gray = (TFDSSource("camvid", "train", str(tmp_path / "raw"), cache, channels=c)[0]["image"] for c in (3, 1))
    assert gray.shape == (12, 16, 1)
    np.testing.assert_allclose(gray[..., 0], color @ [0.299, 0.587, 0.114], atol=1)


def test_missing_data_says_what_to_get(tmp_path, cache):
    for name in ("camvid", "voc2012"):
        with pytest.raises(DataError, match=r"data.dir is empty .*data\.dir"):
            TFDSSource(name, "train", "", cache)
    for name in NAMES:
        with pytest.raises(DataError, match=f"There is no folder '{tmp_path}/nowhere.*as data.dir"):
            TFDSSource(name, "train", str(tmp_path / "nowhere"), cache)
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"(does not hold|There is no folder).* data\.dir"):
            TFDSSource(name, "train", str(tmp_path / "empty"), cache)


def test_without_a_home_folder_the_message_names_the_key_to_set(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(DataError, match=r"^data\.cache: .* this user has no home folder; .*--config\.data\.cache=DIR"):
        TFDSSource("camvid", "train", "raw", "")


def test_damaged_raw_data_is_named(tmp_path, cache):
    _camvid(tmp_path / "camvid")
    (tmp_path / "camvid" / "val" / "masks" / "val_1.png").unlink()
    with pytest.raises(DataError, match=r"val/images/val_1.jpg has no partner of the same name in .*val/masks"):
        TFDSSource("camvid", "train", str(tmp_path / "camvid"), cache)
    _voc(tmp_path / "voc")
    gone = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000001_val.jpg"
    gone.unlink()
    with pytest.raises(DataError, match=f"there is no {gone}"):
        TFDSSource("voc2012", "train", str(tmp_path / "voc"), cache)


def test_damaged_examples_are_named(tmp_path, cache):
    _camvid(tmp_path)
    for i, image in enumerate(sorted((tmp_path / "train" / "images").iterdir())):
        if i == 0:
            image.write_bytes(image.read_bytes()[:-150])
        if i == 1:
            _write(tmp_path / "train" / "masks" / f"{image.stem}.png", np.full((12, 16), 77, np.uint8))
    source = TFDSSource("camvid", "train", str(tmp_path), cache)
    places = {source.name(i): i for i in range(len(source))}
    with pytest.raises(DataError, match=r"train_0.jpg cannot be decoded: .*truncated"):
        source[places["train_0.jpg"]]
    with pytest.raises(DataError, match=r"mask of train_1.jpg holds the value 77; camvid has only 0, 1"):
        source[places["train_1.jpg"]]


def test_camvid_with_other_classes_is_refused(tmp_path, cache):
    _camvid(tmp_path)
    classes = [{"name": name} for name in describe("camvid").classes]
    listing = tmp_path / "classes.json"
    listing.write_text(json.dumps({"ignore_index": 11, "classes": classes}))
    TFDSSource("camvid", "train", str(tmp_path), cache)
    listing.write_text(json.dumps({"ignore_index": 11, "classes": classes[:-1]}))
    with pytest.raises(DataError, match=r"use data\.source=folder"):
        TFDSSource("camvid", "train", str(tmp_path), cache)
    listing.write_text("{}")
    with pytest.raises(DataError, match="has no key 'classes'"):
        TFDSSource("camvid", "train", str(tmp_path), cache)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    _camvid(tmp_path / "raw")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"could not prepare camvid in {tmp_path}/file"):
        TFDSSource("camvid", "train", str(tmp_path / "raw"), str(tmp_path / "file"))


def test_sources_pickle_and_load_in_workers(tmp_path, cache):
    _camvid(tmp_path)
    source = TFDSSource("camvid", "train", str(tmp_path), cache)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[3]["image"], source[3]["image"])
    batches = []
    for workers in (0, 1):
        with make_train_loader(
            source,
            batch_size=2,
            size=(6, 8),
            fit="resize",
            channels=3,
            seed=0,
            workers=workers,
            process_index=0,
            process_count=1,
        ) as loader:
            batches.append(next(loader))
    np.testing.assert_array_equal(batches[0]["image"], batches[1]["image"])
    seen = [
        i
        for b in make_eval_loader(source, batch_size=2, size=(6, 8), fit="crop", process_index=0, process_count=1)
        for i in b["index"]
    ]
    assert sorted(seen) == [-1, 0, 1, 2, 3, 4]
    of_class, where_present = pixel_counts(source)
    assert of_class.sum() == sum((source[i]["label"] != IGNORE).sum() for i in range(5))
    assert (where_present >= of_class).all()


def test_make_source_finds_the_adapter(tmp_path, cache):
    _camvid(tmp_path)
    config = default_config()
    for key, value in (("data.source", "camvid"), ("data.dir", str(tmp_path)), ("data.cache", cache)):
        set_key(config, key, value)
    assert len(make_source(config, "val")) == 2
