"""Images that disappear, change, hang or hold NaN while a run reads them: named, and skipped if that is asked for."""

import logging
import os
import shutil
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxseg.config import default_config, update
from jaxseg.data import notes, stamps
from jaxseg.data.base import DataInfo
from jaxseg.data.class_counts import label_counts
from jaxseg.data.fingerprint import fingerprint
from jaxseg.data.folder import FolderSource
from jaxseg.data.labelled import choose_labelled
from jaxseg.data.pipeline import TrainLoader, make_train_loader
from jaxseg.data.reading import Reading
from jaxseg.data.sources import make_source
from jaxseg.errors import ConfigError, DataError
from jaxseg.inference import samples
from jaxseg.inference.networks import Scores
from jaxseg.inference.score_images import score_images
from jaxseg.losses import make_loss
from jaxseg.run.data import class_weights, image_order, image_type, reading_of
from jaxseg.run.lists import files_of, record_files, record_labelled

SKIP = Reading("skip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of 4x4 pixels, each of one grey, with masks of two classes."""
    for kind in ("images", "masks"):
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
    for number in range(5):
        mask = np.zeros((4, 4), np.uint8)
        mask[:2] = 1
        Image.fromarray(np.full((4, 4, 3), 10 * number, np.uint8)).save(tmp_path / f"data/train/images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"data/train/masks/{number}.png")
    return tmp_path / "data"


def loader(source: object, reading: Reading = Reading(), **changes: object) -> TrainLoader:  # noqa: B008
    fields = {"batch_size": 5, "size": (4, 4), "fit": "resize", "channels": 3, "seed": 0, "prefetch": 0} | changes
    return make_train_loader(source, reading=reading, **fields)


def lose(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    """Another picture of the same size, in pixels and bytes."""
    size = file.stat().st_size
    Image.fromarray(np.full((4, 4, 3), 77, np.uint8)).save(file)
    file.write_bytes(file.read_bytes().ljust(size, b"\0")[: max(size, file.stat().st_size)])


def not_a_number(file: Path) -> None:
    values = np.full((4, 4), 3, np.float32)
    values[1, 2] = np.nan
    Image.fromarray(values).save(file, format="TIFF")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lose, "There is no file .*3.png"),
        (replace, "3.png was changed after the data were opened"),
        (not_a_number, "3.png holds numbers from nan to nan"),
        (cut, "3.png cannot be read as an image"),
    ],
)
def test_a_file_that_changes_in_mid_run_is_named_or_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture, fault: object, message: str
) -> None:
    source = FolderSource(folder, "train")
    file = folder / "train" / "images" / "3.png"
    with loader(source) as batches:
        assert sorted(next(batches)["index"]) == [0, 1, 2, 3, 4]
        fault(file)
        with pytest.raises(DataError, match=message):
            next(batches)
    notes.log_once.cache_clear()
    with loader(source, SKIP) as batches, caplog.at_level(logging.WARNING):
        indices = [next(batches)["index"].tolist() for _ in range(3)]
    assert all(3 not in batch and len(batch) == 5 for batch in indices)
    with loader(source, SKIP) as batches:  # the same images again
        assert [next(batches)["index"].tolist() for _ in range(3)] == indices
    assert caplog.text.count("data.on_error=skip: other images are in its place.") == 1 and str(file) in caplog.text


def test_a_touched_mask_counts_as_changed_and_a_folder_without_images_stops(folder: Path) -> None:
    source = FolderSource(folder, "train")
    for number in range(5):
        os.utime(folder / "train" / "masks" / f"{number}.png", ns=(0, 0))
    with loader(source, SKIP) as batches, pytest.raises(DataError, match="100 images in a row cannot be read"):
        next(batches)


class Hangs:
    """Four images, of which one is never read."""

    info = DataInfo(("a", "b"), ((0, 0, 0), (1, 1, 1)), None, 3)

    def __init__(self, hanging: int = 2) -> None:
        self.released, self.hanging = threading.Event(), hanging

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index == self.hanging:
            self.released.wait(60)
        return {"image": np.zeros((4, 4, 3), np.uint8), "label": np.zeros((4, 4), np.uint8)}

    def name(self, index: int) -> str:
        return f"image {index}"


def test_a_decoder_that_hangs_is_named_or_skipped() -> None:
    source = Hangs()
    named = r"image 2 was not read within data.timeout=0.2 seconds"
    with loader(source, Reading("stop", 0.2), batch_size=4) as batches, pytest.raises(DataError, match=named):
        next(batches)
    with loader(source, Reading("skip", 0.2), batch_size=4) as batches:
        assert 2 not in next(batches)["index"]
    source.released.set()


def test_errors_of_a_reader_with_a_limit_stay_what_they_are() -> None:
    with pytest.raises(KeyError):
        Reading(timeout=1.0).example({}, 3)


def test_a_resumed_run_compares_its_files(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = files_of(FolderSource(folder, "train"))
    assert len(files) == 10 and files[0].split(" ")[1] == "train/images/0.png"
    record_files(tmp_path, files, "stop")
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    record_files(tmp_path, files_of(FolderSource(folder, "train")), "stop")
    Image.new("RGB", (4, 4), (1, 200, 3)).save(folder / "train/images/3.png", pnginfo=None, compress_level=0)
    changed = files_of(FolderSource(folder, "train"))
    with pytest.raises(ConfigError, match=r"trained on 10 files, of which 'train/images/3.png' has changed since"):
        record_files(tmp_path, changed, "stop")
    with caplog.at_level(logging.WARNING):
        record_files(tmp_path, changed, "skip")
    assert "'train/images/3.png' has changed since" in caplog.text
    assert "data.on_error=skip: it goes on with the data that there are now" in caplog.text
    for kind in ("images", "masks"):
        (folder / "train" / kind / "3.png").unlink()
    fewer = files_of(FolderSource(folder, "train"))
    for on_error in ("stop", "skip"):  # the place of each image in the order would be another
        with pytest.raises(ConfigError, match=r"10 files, .*, and now there are 8 files; .*only with as many"):
            record_files(tmp_path, fewer, on_error)
    assert (tmp_path / "files.txt").read_text().splitlines() == files
    assert files_of(Hangs()) == []


def test_a_resumed_run_knows_names_with_any_character(folder: Path, tmp_path: Path) -> None:
    names = ["a\x85b", "a\u2028b", "a\x0bb", "a\x0cb", "a\x1cb", "a\nb", "a\rb", os.fsdecode(b"a\xffb")]
    for name in names:
        for kind in ("images", "masks"):
            shutil.copy(folder / f"train/{kind}/0.png", folder / f"train/{kind}/{name}.png")
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    source = FolderSource(folder, "train")
    for _ in range(2):
        record_files(tmp_path, files_of(source), "stop")
    content = (tmp_path / "files.txt").read_bytes()
    assert content.count(b"\n") == 2 * (5 + len(names)) and b" train/masks/a\xffb.png\n" in content
    assert fingerprint(source)["images"] == 5 + len(names)
    with pytest.raises(ConfigError, match=r"of which 'train/images/a\\\\nb.png' has changed since"):
        record_files(tmp_path, [line for line in files_of(source) if "images/a\nb" not in line], "stop")
    record_labelled(tmp_path, [name.name for name in source.pairs])
    assert choose_labelled(source, str(tmp_path / "labelled.txt"), 0) == tuple(range(len(source)))
    assert len(choose_labelled(source, 0.5, 0)) == 6


def test_stamps_are_taken_several_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, alone = FolderSource(folder, "train").pairs, stamps.stamp
    two = threading.Barrier(2, timeout=20)  # breaks if a second one never comes

    def stamp(path: Path) -> stamps.Stamp:
        two.wait()
        return alone(path)

    monkeypatch.setattr(stamps, "stamp", stamp)
    assert stamps.stamps_of(pairs) == {path: alone(path) for pair in pairs for path in pair[1:]}
    monkeypatch.undo()
    pairs[1].mask.unlink()
    with pytest.raises(DataError, match=r"There is no file .*masks/1.png"):
        stamps.stamps_of(pairs)


def test_a_start_skips_the_images_that_it_cannot_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes.log_once.cache_clear()
    file = folder / "train" / "images" / "0.png"
    shutil.copy(folder / "train" / "images" / "4.png", file)
    whole = fingerprint(FolderSource(folder, "train"))
    config, source = default_config(), FolderSource(folder, "train")
    cut(file)
    with pytest.raises(DataError, match=r"0.png cannot be read as an image"):
        fingerprint(source)
    with pytest.raises(DataError, match=r"0.png cannot be read as an image"):
        image_type(config, source)
    update(config, data__on_error="skip")
    with caplog.at_level(logging.WARNING):
        left = fingerprint(source, reading=reading_of(config))
    del whole["pixels"]["0"]
    assert left == whole and "0.png cannot be read" in caplog.text and "the record of the data leaves it" in caplog.text
    assert image_type(config, source) == np.uint8


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_damaged_header_that_the_opening_finds_is_skipped_as_in_mid_run(
    folder: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    notes.log_once.cache_clear()
    shutil.copytree(folder / "train", folder / "val")
    config = default_config()
    update(config, data__source="folder", data__dir=str(folder))
    whole = files_of(make_source(config, "train"))
    for fault in (cut, lambda file: Image.new("L", (3, 3)).save(file)):
        fault(folder / "train" / kind / "3.png")
        config.data.on_error = "stop"
        with pytest.raises(DataError, match=r"3\.png"):
            make_source(config, "train")
        caplog.clear()
        config.data.on_error = "skip"
        with caplog.at_level(logging.WARNING):
            source, val = make_source(config, "train"), make_source(config, "val")
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1 and "3.png" in said[0]
        assert said[0].endswith(" data.on_error=skip: other images are in its place.")
        assert [line.split(" ")[1] for line in files_of(source)] == [line.split(" ")[1] for line in whole]
        assert len(source) == len(val) == 5, "the order of the images stays"
        with loader(source, SKIP) as batches:
            assert all(3 not in next(batches)["index"] for _ in range(3))
        assert set(fingerprint(source, reading=SKIP)["pixels"]) == {"0", "1", "2", "4"}
        shutil.copy(folder / "train" / kind / "3.png", folder / "val" / kind / "3.png")
        with pytest.raises(DataError, match=r"val.*3\.png"):  # a score of fewer images is another score
            make_source(config, "val")
        shutil.copy(folder / "val" / kind / "4.png", folder / "val" / kind / "3.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "train/masks/3.jpg")
    for name in ("images", "masks"):
        shutil.copy(folder / "val" / name / "3.png", folder / "train" / name / "3.png")
    (folder / "train/masks/3.png").unlink()
    with pytest.raises(DataError, match="JPEG"):  # masks of a form that is not read are no damage
        make_source(config, "train")


def test_a_start_waits_no_longer_than_the_limit() -> None:
    source, config = Hangs(0), default_config()
    update(config, data__timeout=0.2)
    for read in (lambda: fingerprint(source, reading=reading_of(config)), lambda: image_type(config, source)):
        with pytest.raises(DataError, match=r"image 0 was not read within data.timeout=0.2 seconds"):
            read()
    update(config, data__on_error="skip")
    assert fingerprint(source, reading=reading_of(config))["pixels"].keys() == {"1", "2", "3"}
    assert image_type(config, source) == np.uint8
    source.released.set()


def test_counts_tiles_and_samples_wait_no_longer_than_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    notes.log_once.cache_clear()
    source, limit = Hangs(), Reading("stop", 0.2)
    named = r"image 2 was not read within data.timeout=0.2 seconds"
    config = default_config()
    update(config, data__timeout=0.2, loss__class_weights="median_frequency", data__sampling="rare")
    for read in (lambda: class_weights(config, 2, source), lambda: image_order(config, source)):
        with pytest.raises((ConfigError, DataError), match=named):
            read()
    with pytest.raises(DataError, match=named):
        score_images(source, zeros, make_loss("cross_entropy", num_classes=2), reading=limit)
    with pytest.raises(DataError, match=named):
        samples._real_thumbnails(source, 4, (4, 4), limit)
    config.data.on_error = "skip"
    with caplog.at_level(logging.WARNING):
        counts = label_counts(source, reading_of(config))
    assert counts.tolist() == [[16, 0], [16, 0], [0, 0], [16, 0]]
    assert "image 2 was not read" in caplog.text and "the counts of the classes leave it out" in caplog.text
    assert len(samples._real_thumbnails(source, 4, (4, 4), reading_of(config))) == 4
    source.released.set()


def zeros(image: np.ndarray) -> Scores:
    return Scores(jnp.zeros((1, 4, 4, 2)), True, ((4, 4),))
