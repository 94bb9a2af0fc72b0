"""The benchmark of objects on a folder of two images, with a network that was never trained."""

import importlib
import json

import numpy as np
import pytest
from helpers.tiny_run import make_folder, make_run, tiny_config
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder whose instances are quarters of each image."""
    path = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        make_folder(path, [(16, 16), (16, 16)], classes=2, split=split)
        (path / split / "instances").mkdir()
        for i in range(2):
            numbers = np.kron([[1, 0], [300, 2]], np.ones((8, 8))).astype(np.uint16)
            Image.fromarray(numbers).save(path / split / "instances" / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    config = tiny_config(data__source="folder", data__dir=str(folder))
    return make_run(tmp_path_factory.mktemp("run") / "tiny", config)


def test_each_way_is_scored(folder, workdir, tmp_path, capsys):
    pytest.importorskip("skimage")
    objects = importlib.import_module("objects")
    words = ["--workdir", str(workdir), "--data-dir", str(folder), "--tune", "1", "--picture", "1"]
    assert objects.main([*words, "--out", str(tmp_path / "o")]) == 0
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["images"] == 2 and record["depth"] in objects.DEPTHS
    assert set(record["mean_ap_by_depth_on_training_images"]) == {str(depth) for depth in objects.DEPTHS}
    truth = record["ways"]["components of the truth"]
    assert truth["truth"] == 6 and truth["images"] == 2
    # The three quarters of each image touch, and are one component.
    assert truth["predicted"] == 2 and truth["f1"][0] == 0 and 0 <= record["pixel_iou"] <= 1
    assert "--data-dir PATH" in (tmp_path / "o.md").read_text() and (tmp_path / "o.png").is_file()
    assert str(folder) not in (tmp_path / "o.md").read_text() + (tmp_path / "o.json").read_text()


def test_missing_instances_are_named(folder, workdir, tmp_path, capsys):
    objects = importlib.import_module("objects")
    (folder / "val" / "instances" / "1.png").rename(tmp_path / "1.png")
    words = ["--workdir", str(workdir), "--data-dir", str(folder), "--tune", "0", "--picture", "0"]
    assert objects.main(words) == 1
    assert "1.png, the objects of 1.png, cannot be read: No such file" in capsys.readouterr().err
